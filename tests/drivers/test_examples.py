"""Do the drivers of docs/drivers.md work, and does its proof find what is wrong with one?"""

from __future__ import annotations

import importlib.util
import re
import socketserver
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from threadpool_db.contract import Acts, ContractBroken, ends, prove
from threadpool_db.drivers.base import IDLE, TransactionState

DOCS = Path(__file__).resolve().parents[2] / "docs"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", DOCS / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lines, agent, proof = example("lines"), example("agent"), example("proof")


class Answering(socketserver.StreamRequestHandler):
    """A session: it has a name in use until RESET."""

    def handle(self) -> None:
        used = ""
        for line in self.rfile:
            command, _, rest = line.decode().strip().partition(" ")
            used = {"USE": rest, "RESET": ""}.get(command, used)
            self.wfile.write({"PING": b"PONG", "WHICH": used.encode()}.get(command, b"OK") + b"\n")


class LineServer(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)


@pytest.fixture
def server() -> Iterator[LineServer]:
    with LineServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


#: what is claimed by a few lines of Python, and shown by the acts of the page
KEPT_BY_BOTH = {
    *("opens", "closes", "knows_the_end", "ends_what_is_stuck", "pools"),
    *("local", "peek_sees", "ping_asks", "ping_of_the_dead"),
    *("state_is_no_guess", "rolls_back"),
}


def prove_lines(server: LineServer, kind: Any) -> list[str]:
    kept: list[str] = proof.prove_lines(kind(*server.server_address), kind)
    return kept


def test_the_driver_of_a_line_protocol_is_proved(server: LineServer) -> None:
    kept = prove_lines(server, lines.LineDriver)
    assert {"gives_up", "tells_servers_apart"} | KEPT_BY_BOTH <= set(kept)


def test_the_driver_of_an_agent_is_proved() -> None:
    assert set(proof.prove_agents(agent.AgentDriver())) >= KEPT_BY_BOTH


class Blind(lines.LineDriver):  # type: ignore[name-defined, misc]
    def peek(self, connection: Any) -> bool:
        return True


class Careless(lines.LineDriver):  # type: ignore[name-defined, misc]
    def state(self, connection: Any) -> TransactionState:
        return IDLE


class Lazy(lines.LineDriver):  # type: ignore[name-defined, misc]
    def rollback(self, connection: Any) -> None:
        connection.used = False


class Trusting(lines.LineDriver):  # type: ignore[name-defined, misc]
    def is_disconnect(self, error: BaseException, connection: Any) -> bool:
        return False


class Chatty(lines.LineDriver):  # type: ignore[name-defined, misc]
    def peek(self, connection: Any) -> bool:
        try:
            return bool(self.ping(connection))
        except (OSError, ValueError):
            return False


@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        (Blind, "peek_sees"),
        (Careless, "state_is_no_guess"),
        (Lazy, "rolls_back"),
        (Trusting, "knows_the_end"),
        (Chatty, "local"),
    ],
)
def test_the_proof_finds_what_is_wrong_with_a_driver(
    server: LineServer, kind: Any, promise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "_TIMEOUT", 0.1)
    with pytest.raises(ContractBroken) as refusal:
        prove_lines(server, kind)
    assert promise in refusal.value.broken


class Deaf(agent.AgentDriver):  # type: ignore[name-defined, misc]
    def interrupt(self, connection: Any) -> None:
        pass


def test_the_proof_finds_that_a_stuck_call_stays_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "PATIENCE", 0.1)
    release = threading.Event()
    acts = Acts(
        use=lambda connection: connection.do(lambda memory: None),
        stall=lambda connection: connection.do(lambda memory: release.wait(20)),
    )
    with pytest.raises(ContractBroken, match="a stuck call goes on"):
        prove(Deaf(), acts, only=["ends_what_is_stuck"])
    release.set()


def test_what_the_page_shows_is_what_is_tested() -> None:
    page = (DOCS / "drivers.md").read_text()
    files = [path.read_text() for path in (DOCS / "examples").glob("*.py")]
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        assert any(block.strip() in text for text in files), block


@pytest.mark.parametrize("name", ["lines", "agent"])
def test_a_driver_is_at_most_sixty_lines(name: str) -> None:
    source = (DOCS / "examples" / f"{name}.py").read_text()
    driver = source[re.search(r"^class \w+Driver", source, re.MULTILINE).start() :]  # type: ignore[union-attr]
    assert len(driver.splitlines()) <= 60
