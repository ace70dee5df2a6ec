"""Does the demo hold what it shows, on each database, and does it leave nothing behind, however it ends?

The demo runs as a user runs it: another process, with a real gunicorn below it. Everything that descends from it
carries a mark in its environment, so that what is left over can be found even after it lost its parents.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from tests.servers import ReservedPort
from threadpool_db import create_pool

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="left-overs are looked for in /proc")

FOLDER = Path(__file__).resolve().parents[2] / "integrations" / "gunicorn"


class Demo:
    """A run of demo.py in a session of its own, as in a terminal of its own."""

    def __init__(self, tmp_path: Path, arguments: tuple[str, ...], url: str, path: Path | None, out: int) -> None:
        self.mark = f"DEMO_MARK={uuid.uuid4()}"
        self.folder = tmp_path / "temporary"
        self.folder.mkdir(exist_ok=True)
        environment = {**os.environ, "TMPDIR": str(self.folder), "DATABASE_URL": url}
        environment |= dict([self.mark.split("=")])
        if path is not None:
            environment["PYTHONPATH"] = str(path)
        self.process = subprocess.Popen(
            [sys.executable, str(FOLDER / "demo.py"), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, limit: float = 40) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=limit)
        return self.process.returncode, out, err

    def family(self) -> list[int]:
        """Every living process that has the mark."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if self.mark.encode() in entry.read_bytes().split(b"\0"):
                    found.append(int(entry.parent.name))
        return found

    def wait_for_family(self, least: int, most: int, limit: float = 15) -> None:
        deadline = time.monotonic() + limit
        while not least <= len(self.family()) <= most:
            assert time.monotonic() < deadline, f"{len(self.family())} processes, not {least} to {most}"
            time.sleep(0.05)

    def left_over(self) -> list[object]:
        return [*self.family(), *self.folder.iterdir()]


@contextlib.contextmanager
def running(
    tmp_path: Path, *arguments: str, url: str = "", path: Path | None = None, out: int = subprocess.PIPE
) -> Iterator[Demo]:
    demo = Demo(tmp_path, arguments, url, path, out)
    try:
        yield demo
    finally:
        for pid in demo.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        demo.process.communicate()


# The demo, master and two workers of gunicorn, and the shell that waits in case the demo is killed.
ALL_UP = 5


def test_the_demo_serves_both_policies_and_loses_no_money(db_url: str, tmp_path: Path) -> None:
    with running(tmp_path, "--seconds", "0.5", url=db_url) as demo:
        status, out, err = demo.finish()
        assert (status, err) == (0, ""), out + err
        assert demo.left_over() == []
    head, *rows = [
        re.split(r" {2,}", line) for line in out.split("\n") if re.match(r"(policy|operation|thread) {2}", line)
    ]
    table = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert list(table) == ["operation", "thread"]
    for row in table.values():
        assert int(row["requests"].replace(",", "")) > 20
        assert 0 < float(row["p50 ms"]) <= float(row["p99 ms"])
        assert 1 <= int(row["opened"]) <= 2 * (4 + 2), "workers, and their two pools"
        assert (row["503s"], row["errors"]) == ("0", "0")
        assert row["money before"] == row["money after"] == "1,000,000"
    assert "\r" not in out, "no progress bar where nobody sees it move"
    assert " ".join(out.split()).count("its clients") == 2, "one line for each phase"
    with create_pool(db_url) as pool, pytest.raises(Exception, match=r"(?i)no such table|does not exist|doesn't exist"):
        pool.execute("select * from threadpool_demo_accounts")


def test_sigterm_stops_everything_that_the_demo_started(tmp_path: Path) -> None:
    with running(tmp_path, "--seconds", "60") as demo:
        demo.wait_for_family(ALL_UP, ALL_UP)
        time.sleep(0.2)
        demo.process.terminate()
        ended, out, err = demo.finish(10)
        assert ended == 143, out + err
        assert err == "stopped by SIGTERM; everything it started is gone\n"
        assert demo.left_over() == []


def test_ctrl_c_does_too_while_the_bar_moves(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        with running(tmp_path, "--seconds", "60", out=theirs) as demo:
            os.close(theirs)
            text = ""
            deadline = time.monotonic() + 15
            while not re.search(r"\r  operation  \[#* *\] [1-9][\d,]* requests", text):
                assert time.monotonic() < deadline, text
                if select.select([ours], [], [], 0.1)[0]:
                    text += os.read(ours, 4096).decode()
            os.killpg(demo.process.pid, signal.SIGINT)  # as the terminal does: to the whole process group of the demo
            ended, _, err = demo.finish(10)
            assert (ended, err) == (130, "stopped by SIGINT; everything it started is gone\n")
            assert demo.left_over() == []
    finally:
        os.close(ours)


def test_ctrl_c_before_gunicorn_is_up_leaves_nothing_either(tmp_path: Path) -> None:
    with running(tmp_path, "--seconds", "60") as demo:
        demo.wait_for_family(2, ALL_UP)
        os.killpg(demo.process.pid, signal.SIGINT)
        assert demo.finish(10)[0] == 130
        assert demo.left_over() == []


def test_a_demo_that_is_killed_outright_takes_gunicorn_with_it(tmp_path: Path) -> None:
    with running(tmp_path, "--seconds", "60") as demo:
        demo.wait_for_family(ALL_UP, ALL_UP)
        demo.process.kill()
        demo.process.wait()
        demo.wait_for_family(0, 0)
        assert demo.left_over() == []


def test_the_demo_gives_up_after_its_limit(tmp_path: Path) -> None:
    with running(tmp_path, "--seconds", "60", "--limit", "1.5") as demo:
        status, _, err = demo.finish(15)
        assert (status, err) == (1, "demo: not finished after 1.5 s, given up\n")
        assert demo.left_over() == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://bob:secret@127.0.0.1:{port}/x", "Connection refused"),
        ("mysql://bob:secret@127.0.0.1:{port}/x", "Can't connect"),
        ("sqlite:////no/such/folder/bank.db", "unable to open database file"),
        ("oracle://bob:secret@127.0.0.1/x", "unknown scheme 'oracle'"),
    ],
)
def test_a_database_that_is_not_there_is_one_clear_line(url: str, expected: str, tmp_path: Path) -> None:
    port = ReservedPort()
    try:
        with running(tmp_path, url=url.format(port=port.number)) as demo:
            status, _, err = demo.finish(15)
            assert status == 1
            assert err.startswith("demo: ") and err.count("\n") == 1 and expected in err, err
            assert "secret" not in err
            assert demo.left_over() == []
    finally:
        port.release()


def test_a_missing_driver_is_one_clear_line(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "psycopg2.py").write_text("raise ModuleNotFoundError('not here')\n")
    with running(tmp_path, url="postgresql://127.0.0.1/x", path=hidden) as demo:
        status, _, err = demo.finish(15)
        assert status == 1
        assert err.startswith("demo: ") and err.count("\n") == 1 and 'pip install "threadpool-db[postgresql]"' in err, (
            err
        )
        assert demo.left_over() == []


# The app, in this process ---------------------------------------------------------------------------------------------


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'bank.db'}")
    monkeypatch.setenv("POOL_TIMEOUT", "0.2")
    spec = importlib.util.spec_from_file_location("bank_app", FOLDER / "app.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # SQLAlchemy looks its annotations up there
    spec.loader.exec_module(module)
    module.init()
    yield module
    module.engine.dispose()
    module.pool.close()


@pytest.mark.parametrize(
    ("method", "path", "query", "status"),
    [
        ("POST", "/transfer", {"source": "1", "target": "2", "amount": "10000"}, 200),
        ("POST", "/transfer", {"source": "1", "target": "2", "amount": "10001"}, 409),
        ("POST", "/transfer", {"source": "1", "target": "1", "amount": "5"}, 400),
        ("POST", "/transfer", {"source": "1", "target": "101", "amount": "5"}, 400),
        ("POST", "/transfer", {"source": "1", "target": "2", "amount": "-5"}, 400),
        ("POST", "/transfer", {"source": "1", "target": "2"}, 400),
        ("GET", "/transfer", {"source": "1", "target": "2", "amount": "5"}, 404),
        ("GET", "/assess", {"account": "1"}, 200),
        ("GET", "/assess", {"account": "101"}, 400),
        ("GET", "/statement", {"account": "1"}, 200),
        ("GET", "/statement", {"account": "101"}, 400),
        ("GET", "/nowhere", {}, 404),
    ],
)
def test_a_request_is_answered_and_leaves_no_connection_out(
    app: ModuleType, method: str, path: str, query: dict[str, str], status: int
) -> None:
    assert app.respond(method, path, query)[0].startswith(str(status))
    assert app.pool.stats().in_use == 0
    moved = 1 if (path, status) == ("/transfer", 200) else 0
    assert app.audit({})[1] == {"money": 1_000_000, "accounts_wrong": 0, "transfers": moved}


def test_the_audit_sees_a_penny_that_went_astray(app: ModuleType) -> None:
    app.execute("UPDATE accounts SET balance = balance - 1 WHERE id = 7")
    assert app.audit({})[1] == {"money": 999_999, "accounts_wrong": 1, "transfers": 0}


def ask(app: ModuleType, path: str, query: str = "") -> tuple[str, dict[str, str], bytes]:
    """One GET, in a thread of its own as gunicorn would."""
    started: list[tuple[str, list[tuple[str, str]]]] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": query}
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(app.application, environ, lambda *head: started.append(head)).result(10)
    return started[0][0], dict(started[0][1]), b"".join(answer)


def test_when_the_pool_is_exhausted_the_client_gets_a_503_and_the_log_the_reason(
    app: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    leases = [app.pool.checkout() for _ in range(4)]
    status, headers, body = ask(app, "/report")
    assert (status, headers["Retry-After"]) == ("503 Service Unavailable", "1")
    assert body == b"The service is busy, please try again.\n"
    assert "4 in use" in caplog.text and "test_gunicorn.py" in caplog.text, "who holds them is for the log"
    leases[0].checkin()
    assert ask(app, "/report")[0] == "200 OK"
    for lease in leases[1:]:
        lease.checkin()


def test_so_it_is_when_the_pool_under_the_orm_is_exhausted(app: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    with app.engine.connect(), app.engine.connect():
        status, headers, _ = ask(app, "/statement", "account=1")
    assert (status, headers["Retry-After"]) == ("503 Service Unavailable", "1")
    assert "GET '/statement': 503, " in caplog.text
    assert ask(app, "/statement", "account=1")[0] == "200 OK"


def test_health_counts_what_both_pools_did(app: ModuleType) -> None:
    opened = app.pool.stats().opened  # by init(): one for the PRAGMA, which is not handed on, and one that stays
    assert app.respond("GET", "/report", {})[0] == app.respond("GET", "/statement", {"account": "1"})[0] == "200 OK"
    status, _, body = ask(app, "/health")
    health = json.loads(body)
    assert (status, health["worker"], health["checkout"]) == ("200 OK", os.getpid(), "operation")
    assert (health["pool"]["opened"], health["pool"]["max_size"], health["pool"]["in_use"]) == (opened, 4, 0)
    assert health["orm"]["opened"] >= 1 and health["orm"]["max_size"] == 2
