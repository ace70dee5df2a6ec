"""Does a pool work where threads are greenlets? A real gunicorn with a gevent worker, and programs that patch late.

Nothing here is patched in the tests' own process: each host is a process of its own.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import KILL
from tests.drivers import ask
from threadpool_db.drivers.choose import driver_for

HERE = Path(__file__).resolve().parent
SOON = 15.0
#: psycopg looks whether select is patched when it is imported, which is when the pool is made
PATIENT_PSYCOPG = {"PSYCOPG_WAIT_FUNC": "wait_select"}
OTHERS = {
    "psycopg2": "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()",
    "pymysql": "select id from information_schema.processlist where user = 'root' and id <> connection_id()",
}


def until(true: Callable[[], object], what: object = "") -> None:
    """For what another process is about to do, and cannot tell."""
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline, f"it did not happen: {what}"
        time.sleep(0.02)


class Sessions:
    """What a server has of sessions beside this one."""

    def __init__(self, url: str) -> None:
        driver = driver_for(url)
        self.name = driver.name
        self.connection = driver.connect(SOON)
        driver.set_autocommit(self.connection, True)
        self.before = self.now()

    def now(self) -> set[int]:
        return {row[0] for row in ask(self.connection, OTHERS[self.name])}

    def new(self) -> set[int]:
        return self.now() - self.before

    def kill(self) -> int:
        """All of the application's."""
        killed = self.new()
        for session in killed:
            ask(self.connection, KILL[self.name].format(session))
        until(lambda: not self.new() & killed, "they end")
        return len(killed)


class Gunicorn:
    """One gevent worker that serves ``host_app``, on a port that nobody else can take."""

    def __init__(self, folder: Path, url: str, checkout: str, *arguments: str) -> None:
        self.log = folder / "gunicorn.log"
        environment = {**os.environ, "DATABASE_URL": url, "CHECKOUT": checkout, "XDG_RUNTIME_DIR": str(folder)}
        environment |= {"PYTHONPATH": str(HERE.parents[1])} | (PATIENT_PSYCOPG if "--preload" in arguments else {})
        command = [sys.executable, "-m", "gunicorn", "--worker-class", "gevent", "--graceful-timeout", "5", *arguments]
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, open(self.log, "wb") as log:
            self.port = listener.getsockname()[1]
            self.process = subprocess.Popen(
                [*command, "--bind", f"fd://{listener.fileno()}", "host_app:from_environment()"],
                cwd=HERE,
                env=environment,
                stdout=log,
                stderr=log,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )

    def ask(self, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SOON)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read().decode()
        assert response.status == 200, self.log.read_text()
        return body

    def stats(self) -> dict[str, int]:
        stats: dict[str, int] = json.loads(self.ask("/stats"))
        return stats

    def walk_away(self, path: str) -> None:
        """A client that goes in the middle of its response."""
        with socket.create_connection(("127.0.0.1", self.port), SOON) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert client.recv(1000)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SOON)

    def __enter__(self) -> Gunicorn:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.mark.parametrize(
    ("server", "scheme", "checkout", "arguments"),
    [
        ("mariadb", "mysql", "thread", ("--preload",)),
        ("postgres", "postgresql+psycopg", "operation", ()),
        pytest.param("mariadb", "mysql", "operation", (), marks=pytest.mark.proof),
        pytest.param("postgres", "postgresql+psycopg", "thread", ("--preload",), marks=pytest.mark.proof),
    ],
)
def test_a_gevent_worker_serves_many_requests_with_few_connections(
    server: str, scheme: str, checkout: str, arguments: tuple[str, ...], request: Any, tmp_path: Path
) -> None:
    url = request.getfixturevalue(server).url
    sessions = Sessions(url)
    url = scheme + url[url.index(":") :]
    with Gunicorn(tmp_path, url, checkout, *arguments) as gunicorn, ThreadPoolExecutor(24) as clients:
        # three have the connections and five wait for one: the hub goes on meanwhile, or nobody could release them
        holders = [clients.submit(gunicorn.ask, "/hold") for _ in range(8)]
        until(lambda: (gunicorn.stats()["in_use"], gunicorn.stats()["waiting"]) == (3, 5), gunicorn.log.read_text())
        assert gunicorn.ask("/quick") == gunicorn.ask("/release") == "done"
        assert [holder.result(SOON) for holder in holders] == ["True"] * 8

        assert list(clients.map(gunicorn.ask, ["/work"] * 48, timeout=SOON)) == ["done"] * 48
        assert gunicorn.stats()["opened"] == 3 and len(sessions.new()) == 3

        assert gunicorn.ask("/stream?chunks=3") == "x" * 3 * 65536
        gunicorn.walk_away("/stream?chunks=1000")
        gunicorn.ask("/leave")  # a greenlet's end is that of its lease
        until(lambda: gunicorn.stats()["in_use"] == 0, gunicorn.stats())

        connected = sessions.kill()
        assert list(clients.map(gunicorn.ask, ["/work"] * 6, timeout=SOON)) == ["done"] * 6
        stats = gunicorn.stats()
        assert (stats["in_use"], stats["waiting"], stats["lost"]) == (0, 0, 0)
        assert connected and 1 <= stats["dead"] <= connected, "seen by a look, and replaced"

        assert gunicorn.stop() == 0, gunicorn.log.read_text()
        until(lambda: not sessions.new(), sessions.new())
    assert "Traceback" not in gunicorn.log.read_text(), gunicorn.log.read_text()


@pytest.mark.parametrize(
    ("order", "server", "scheme"),
    [
        ("before", "mariadb", "mysql"),
        ("after", "postgres", "postgresql"),
        ("after", "postgres", "postgresql+psycopg"),
        pytest.param("after", "mariadb", "mysql", marks=pytest.mark.proof),
        pytest.param("before", "postgres", "postgresql", marks=pytest.mark.proof),
        pytest.param("before", "postgres", "postgresql+psycopg", marks=pytest.mark.proof),
    ],
)
def test_a_pool_that_is_made_before_the_patch_or_after_it_works_in_greenlets(
    order: str, server: str, scheme: str, request: Any
) -> None:
    url = request.getfixturevalue(server).url
    url = scheme + url[url.index(":") :]
    program = [sys.executable, "-W", "error", str(HERE / "greenlets.py"), order, url]
    environment = {**os.environ, **(PATIENT_PSYCOPG if order == "before" else {}), "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(program, capture_output=True, text=True, timeout=40, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")
