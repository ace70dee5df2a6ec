"""How many requests does a real gunicorn serve under each checkout policy? With PostgreSQL, and clients over HTTP.

Two gunicorns, one for each policy, with 2 workers of 24 threads and a pool of 5 connections in each: both are up all
the time, and the clients ask them in turns. A view is a query of 1 ms, 50 ms of somebody else's service, and a query
of 1 ms (``served_app.py``). The clients are kept-alive connections in one thread, twice as many as there are threads:
gunicorn's workers do not share them out evenly, and each is to have more of them than threads.

*rate*    answers in a second, 90th percentile of the slices: a disturbance can only slow a slice down
*errors*  of all slices: what is no ``200``, an answer that does not come, a connection that breaks
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.pairs import low_quantile
from tests.bench.policies import OPERATION, POLICIES, THREAD
from tests.bench.served_app import BODY
from tests.bench.sites import started
from tests.servers import HOST, Postgres

WORKERS, THREADS, CLIENTS = 2, 24, 96
ANSWER_LIMIT = 20.0
SETTLE = 0.5

ROOT = Path(__file__).resolve().parents[2]
REQUEST = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()

Say = Callable[[str], None]

#: kills its group when whoever holds the other end of the pipe is gone, however that ended
_GUARDIAN = 'read -r _ && exit; kill -s KILL -- "-$1" 2>/dev/null'


class Gunicorn:
    """A real one, in a session of its own."""

    def __init__(self, url: str, policy: str) -> None:
        options = ["--worker-class", "gthread", "--workers", str(WORKERS), "--threads", str(THREADS)]
        options += ["--keep-alive", "30", "--log-level", "warning", "tests.bench.served_app:application()"]
        self._folder = tempfile.TemporaryDirectory()  # newer gunicorns put a control socket there
        with socket.create_server((HOST, 0), backlog=2 * CLIENTS) as listener:
            self.port: int = listener.getsockname()[1]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}", *options],
                cwd=ROOT,
                env={**os.environ, "DATABASE_URL": url, "CHECKOUT": policy, "XDG_RUNTIME_DIR": self._folder.name},
                stdin=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
        command = ["sh", "-c", _GUARDIAN, "guardian", str(self._process.pid)]
        self._guardian = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def wait_until_ready(self) -> None:
        answers = 0
        with contextlib.suppress(OSError):
            client = Clients(self.port, 1)  # its request waits in the backlog until somebody accepts it
            client.finish()
            answers = client.answers
        if not answers:
            raise RuntimeError("gunicorn does not answer, or not well; it has said why")

    def stop(self) -> None:
        """Without a goodbye, which would take it a second: its clients have all their answers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._guardian.communicate(b"done\n")
        self._folder.cleanup()


@dataclass
class Served:
    rates: list[float] = field(default_factory=list)
    errors: int = 0

    @property
    def rate(self) -> float:
        return -low_quantile([-rate for rate in self.rates])


class Clients:
    """Kept-alive connections, each with one request under way, until they are told that it is enough."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._asking = True
        self.answers = self.errors = 0
        for _ in range(count):
            self._connect()

    def ask_until(self, end: float) -> None:
        while (now := time.perf_counter()) < end and self._selector.get_map():
            for key, _ in self._selector.select(end - now):
                self._read(key)

    def finish(self) -> None:
        """Ask nothing more, and wait for what was asked."""
        self._asking = False
        self.ask_until(time.perf_counter() + ANSWER_LIMIT)
        for key in list(self._selector.get_map().values()):
            self.errors += 1
            self._close(key)
        self._selector.close()

    def _connect(self) -> None:
        client = socket.create_connection((HOST, self._port), ANSWER_LIMIT)
        client.setblocking(False)
        self._selector.register(client, selectors.EVENT_READ, bytearray())
        client.send(REQUEST)

    def _read(self, key: selectors.SelectorKey) -> None:
        client: Any = key.fileobj
        answer: bytearray = key.data
        try:
            more = client.recv(4096)
        except OSError:
            more = b""
        answer += more
        good = answer.startswith(b"HTTP/1.1 200")
        if more and not answer.endswith(BODY) and (good or len(answer) < 12):
            return  # the rest of it comes later
        self.answers += good and bool(more)
        self.errors += not (good and more)
        answer.clear()
        if good and more and self._asking:
            client.send(REQUEST)
            return
        self._close(key)
        if self._asking:
            self._connect()

    def _close(self, key: selectors.SelectorKey) -> None:
        client: Any = key.fileobj
        self._selector.unregister(client)
        client.close()


class Race:
    """Both gunicorns; ``run`` adds rounds, the results are of all rounds so far."""

    def __init__(self, ports: dict[str, int], clients: int = CLIENTS) -> None:
        self._ports = ports
        self._clients = clients
        self.served = {policy: Served() for policy in ports}

    def run(self, rounds: int, seconds: float = 2.0) -> None:
        for _ in range(rounds):
            for policy, port in self._ports.items():
                clients, of = Clients(port, self._clients), self.served[policy]
                clients.ask_until(time.perf_counter() + SETTLE)
                before, begin = clients.answers, time.perf_counter()
                clients.ask_until(begin + seconds)
                of.rates.append((clients.answers - before) / (time.perf_counter() - begin))
                clients.finish()
                of.errors += clients.errors

    @property
    def ratio(self) -> float:
        return self.served[OPERATION].rate / self.served[THREAD].rate

    @property
    def errors(self) -> int:
        return sum(of.errors for of in self.served.values())


@contextlib.contextmanager
def gunicorns(say: Say, clients: int = CLIENTS) -> Iterator[Race | None]:
    """None without PostgreSQL or gunicorn, and it is said why."""
    if importlib.util.find_spec("gunicorn") is None:
        say("left out: gunicorn (not installed)")
        yield None
        return
    with started(Postgres, say) as site, contextlib.ExitStack() as stopping:
        if site is None:
            yield None
            return
        servers = {policy: Gunicorn(site.server.url, policy) for policy in POLICIES}  # type: ignore[attr-defined]
        for server in servers.values():
            stopping.callback(server.stop)
        for server in servers.values():
            server.wait_until_ready()
        yield Race({policy: server.port for policy, server in servers.items()}, clients)
