"""Do the drivers of docs/drivers.md work, and does its proof find what is wrong with one?"""

from __future__ import annotations

import importlib.util
import re
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.drivers import wait_for_goodbye
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
    """A session: it has a name in use until RESET, and SLEEP is never answered."""

    def handle(self) -> None:
        used = ""
        self.server.sessions[self.client_address] = self.connection  # type: ignore[attr-defined]
        for line in self.rfile:
            command, _, rest = line.decode().strip().partition(" ")
            if command == "SLEEP":
                continue
            used = {"USE": rest, "RESET": ""}.get(command, used)
            self.wfile.write({"PING": b"PONG", "WHICH": used.encode()}.get(command, b"OK") + b"\n")


class LineServer(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self) -> None:
        self.sessions: dict[Any, socket.socket] = {}
        super().__init__(("127.0.0.1", 0), Answering)

    def kill(self, connection: Any) -> None:
        connection.ask("PING")  # its session is on the list by then
        self.sessions[connection.socket.getsockname()].shutdown(socket.SHUT_RDWR)
        wait_for_goodbye(connection.socket.fileno())


@pytest.fixture
def server() -> Iterator[LineServer]:
    with LineServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def prove_lines(server: LineServer, kind: Any) -> None:
    proof.prove(
        kind(*server.server_address),
        kill=server.kill,
        soil=lambda connection: connection.ask("USE accounts"),
        soiled=lambda connection: connection.ask("WHICH") == "accounts",
        stall=lambda connection: connection.ask("SLEEP"),
    )


def prove_agents(kind: Any) -> None:
    proof.prove(
        kind(),
        kill=lambda connection: connection.stop(),
        soil=lambda connection: connection.do(lambda memory: memory.update(mood="bad")),
        soiled=lambda connection: connection.do(lambda memory: "mood" in memory),
        stall=lambda connection: connection.do(lambda memory: threading.Event().wait(20)),
    )


def test_the_driver_of_a_line_protocol_is_proved(server: LineServer) -> None:
    prove_lines(server, lines.LineDriver)


def test_the_driver_of_an_agent_is_proved() -> None:
    prove_agents(agent.AgentDriver)


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
            return all(self.ping(connection) for _ in range(20))
        except (OSError, ValueError):
            return False


@pytest.mark.parametrize("kind", [Blind, Careless, Lazy, Trusting, Chatty])
def test_the_proof_finds_what_is_wrong_with_a_driver(server: LineServer, kind: Any) -> None:
    with pytest.raises(AssertionError):
        prove_lines(server, kind)


class Deaf(agent.AgentDriver):  # type: ignore[name-defined, misc]
    def interrupt(self, connection: Any) -> None:
        pass


def test_the_proof_finds_that_a_stuck_call_stays_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    join = threading.Thread.join
    monkeypatch.setattr(threading.Thread, "join", lambda thread, timeout: join(thread, 0.1))
    release = threading.Event()
    with pytest.raises(AssertionError):
        proof.a_stuck_call_can_be_ended(Deaf(), lambda connection: connection.do(lambda memory: release.wait(20)))
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
