"""Do hundreds of databases fit under one cap? Starts gunicorn with app.py, asks many hosts, and watches the server.

    DATABASE_URL=postgresql://user:password@host/postgres python demo.py      a server of yours on which it may create
                                                                              databases: threadpool_tenant_*

Client threads order from random hosts, Zipf's way: the n-th tenant is asked as often as 1/n. Some forget a
transaction. Meanwhile new tenants sign up, and are asked for at once. Beside it the server is asked who is connected.
The exit status is 0 only if no request failed, no order was lost or remains of a forgotten transaction, no new tenant
had to wait, there were never more connections than workers x CAP, and none was left in a transaction.

With POOLER=1 DATABASE_URL leads to a PgBouncer, and SERVER_URL to the server itself, which is watched; --sessions is
then what PgBouncer may open there.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg2

HERE = Path(__file__).resolve().parent
WORKERS, CLIENTS = 2, 8
LIMIT = 20.0  # seconds: for gunicorn's start and stop, and for one answer

#: A server shows a session until its process has ended, some time after its client has closed it: one that is there in
#: two looks, so many seconds apart, was open in between.
LOOK = 0.25

Answer = tuple[int, Any]


class Gunicorn:
    """In this folder, by its own configuration."""

    def __init__(self, app: str) -> None:
        with socket.socket() as listener:  # gunicorn inherits it: nobody else can take the port meanwhile
            listener.bind(("127.0.0.1", 0))
            listener.listen(128)
            self.port = listener.getsockname()[1]
            command = [
                sys.executable,
                "-m",
                "gunicorn",
                "--bind",
                f"fd://{listener.fileno()}",
                "--workers",
                str(WORKERS),
            ]
            self.process = subprocess.Popen(
                [*command, "--log-level", "warning", app],
                cwd=HERE,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(LIMIT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Client:
    """One kept-alive connection, and so one worker; ``fresh`` goes to whichever takes it."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)

    def ask(self, method: str, host: str, path: str, **form: str) -> Answer:
        headers = {"Host": host, "Content-Type": "application/x-www-form-urlencoded"}
        self._http.request(method, path, urlencode(form), headers)
        answer = self._http.getresponse()
        body = answer.read()
        return answer.status, json.loads(body) if answer.headers.get_content_type() == "application/json" else body

    def fresh(self) -> None:
        self._http.close()


class Watch:
    """The server's own list of the app's sessions, a look every LOOK seconds."""

    def __init__(self, url: str) -> None:
        self.most = self.looks = 0
        self.forgotten: set[int] = set()
        self._url, self._over = url, threading.Event()

    def run(self) -> None:
        with contextlib.closing(psycopg2.connect(self._url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            before: set[int] = set()
            idle_before: set[int] = set()
            while not self._over.wait(LOOK):
                cursor.execute(
                    "SELECT pid, coalesce(state LIKE 'idle in transaction%' AND state_change < now() - interval '1 s',"
                    " false) FROM pg_stat_activity WHERE application_name = 'threadpool_tenants'"
                )
                rows = cursor.fetchall()
                now, idle = {pid for pid, _ in rows}, {pid for pid, forgotten in rows if forgotten}
                self.most = max(self.most, len(now & before))
                self.forgotten |= idle & idle_before
                self.looks += 1
                before, idle_before = now, idle

    def stop(self) -> None:
        self._over.set()


class Load:
    """What the clients do, and what came of it."""

    def __init__(self, port: int, hosts: list[str], seconds: float) -> None:
        self._port, self._hosts = port, hosts
        self._weights = [1 / rank for rank in range(1, len(hosts) + 1)]
        self._until = time.monotonic() + seconds
        self._lock = threading.Lock()
        self.ordered: Counter[str] = Counter()
        self.waits: list[float] = []
        self.failed: list[object] = []
        self.newcomers: list[str] = []

    def customer(self, seed: int) -> None:
        dice, client = random.Random(seed), Client(self._port)
        while time.monotonic() < self._until:
            (host,) = dice.choices(self._hosts, self._weights)
            if dice.random() < 0.02:
                self._expect(202, client, "POST", host, "/careless")
            elif dice.random() < 0.02:
                self._expect(200, client, "GET", "localhost", "/report")
            elif dice.random() < 0.3:
                self._expect(200, client, "GET", host, "/orders")
            elif self._expect(201, client, "POST", host, "/orders", item="tea"):
                with self._lock:
                    self.ordered[host] += 1
            if dice.random() < 0.1:
                client.fresh()
        client.fresh()

    def newcomer(self) -> None:
        """Asked for before there is one: whoever answers may not remember that."""
        client = Client(self._port)
        while time.monotonic() < self._until:
            name = f"new{len(self.newcomers)}"
            host = f"{name}.localhost"
            for _ in range(2 * WORKERS):
                self._expect(404, client, "GET", host, "/orders")
                client.fresh()
            if self._expect(201, client, "POST", "localhost", "/signup", name=name):
                self.newcomers.append(host)
                for _ in range(2 * WORKERS):  # each worker, most likely
                    client.fresh()
                    if self._expect(201, client, "POST", host, "/orders", item="tea"):
                        with self._lock:
                            self.ordered[host] += 1
            time.sleep(0.3)
        client.fresh()

    def _expect(self, status: int, client: Client, method: str, host: str, path: str, **form: str) -> bool:
        begun = time.monotonic()
        try:
            found = client.ask(method, host, path, **form)
        except (OSError, http.client.HTTPException) as error:
            client.fresh()
            found = 0, repr(error)
        with self._lock:
            self.waits.append(time.monotonic() - begun)
            if found[0] != status:
                self.failed.append((method, host, path, *found))
        return found[0] == status


def flask(command: str) -> None:
    subprocess.run([sys.executable, "-m", "flask", command], cwd=HERE, check=True, timeout=120)


@contextlib.contextmanager
def running(app: str) -> Iterator[Gunicorn]:
    """Gunicorn on a server that has the template and no tenant; both are gone afterwards."""
    flask("init")
    try:
        gunicorn = Gunicorn(app)
        try:
            yield gunicorn
        finally:
            gunicorn.stop()
    finally:
        flask("drop")


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo.py", description="Many databases under one cap.")
    parser.add_argument("--tenants", type=int, default=30, help="at the start (30)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of load (10)")
    parser.add_argument("--sessions", type=int, help="that the server may see at most (workers x CAP)")
    parser.add_argument("--app", default="app:create_app()", help="what gunicorn is to serve")
    options = parser.parse_args()
    if not os.environ.get("DATABASE_URL"):
        parser.error("DATABASE_URL is missing: postgresql://user:password@host/postgres")
    server = os.environ.get("SERVER_URL") or os.environ["DATABASE_URL"]
    most = options.sessions or WORKERS * int(os.environ.get("CAP") or 10)
    with running(options.app) as gunicorn:
        client = Client(gunicorn.port)
        hosts = [f"shop{n}.localhost" for n in range(options.tenants)]
        for host in hosts:
            status, told = client.ask("POST", "localhost", "/signup", name=host.partition(".")[0])
            assert status == 201, told
        load, watch = Load(gunicorn.port, hosts, options.seconds), Watch(server)
        with ThreadPoolExecutor(CLIENTS + 2) as crowd:
            watching = crowd.submit(watch.run)
            asking = [crowd.submit(load.customer, seed) for seed in range(CLIENTS)] + [crowd.submit(load.newcomer)]
            try:
                for one in asking:
                    one.result()
                time.sleep(1 + 3 * LOOK)  # what was forgotten shows now
            finally:
                watch.stop()
            watching.result()
        client.fresh()
        books = client.ask("GET", "localhost", "/report")[1]
        client.fresh()
    wrong = list(findings(load, watch, most, books))
    waits = sorted(load.waits)
    print(
        f"{len(hosts)} tenants and {len(load.newcomers)} that came meanwhile, {len(waits):,} requests, "
        f"{len(waits) / options.seconds:,.0f}/s, p50 {waits[len(waits) // 2] * 1e3:.1f} ms, "
        f"p99 {waits[len(waits) * 99 // 100] * 1e3:.1f} ms; at most {watch.most} connections of {most}"
    )
    for line in wrong:
        print(f"demo: {line}", file=sys.stderr)
    return 1 if wrong else 0


def findings(load: Load, watch: Watch, most: int, books: dict[str, int]) -> Iterator[str]:
    """What does not hold."""
    if load.failed:
        yield f"{len(load.failed)} requests failed, the first: {load.failed[0]}"
    if not load.newcomers:
        yield "no tenant came"
    if watch.most > most:
        yield f"{watch.most} connections, more than {most}"
    if watch.looks < 4:
        yield f"the server was asked only {watch.looks} times"
    if watch.forgotten:
        yield f"{len(watch.forgotten)} sessions were left in a transaction"
    ordered = {host.partition(".")[0]: count for host, count in load.ordered.items()}
    if {name: count for name, count in books.items() if count} != ordered:
        yield f"orders were lost, or nobody made them: {books}, not {ordered}"


if __name__ == "__main__":
    sys.exit(main())
