"""Does a pool serve hosts of other kinds than gunicorn's? waitress, a thread for each request, plain threads."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
import waitress

from tests.drivers import ask
from tests.integrations.host_app import CHUNK, App
from threadpool_db import Pool, create_pool
from threadpool_db.drivers.choose import driver_for

SOON = 10.0
REQUESTS = 200
IN_TRANSACTION = {
    "psycopg2": "select count(*) from pg_stat_activity where state like 'idle in transaction%'",
    "pymysql": "select count(*) from information_schema.innodb_trx",
}


def until(true: Callable[[], object]) -> None:
    """For what another thread is about to do, and cannot tell."""
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SOON)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    assert response.status == 200
    return body


@contextlib.contextmanager
def waitress_of(app: Any, threads: int) -> Iterator[int]:
    server = waitress.create_server(app, host="127.0.0.1", port=0, threads=threads)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server.effective_port
    finally:
        server.trigger.pull_trigger(server.close)  # in its own thread, which then has nothing left to look after
        thread.join(SOON)
    assert not thread.is_alive()


class Quiet(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


class Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


@contextlib.contextmanager
def a_thread_for_each_request(app: Any) -> Iterator[int]:
    with make_server("127.0.0.1", 0, app, Threaded, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(SOON)


def nothing_is_left(pool: Pool, url: str) -> None:
    """Nothing lent, nothing lost, and no session in a transaction."""
    until(lambda: pool.stats().in_use == 0)
    stats = pool.stats()
    assert (stats.waiting, stats.lost, stats.timeouts) == (0, 0, 0)
    driver = driver_for(url)
    if driver.name in IN_TRANSACTION:
        connection = driver.connect(SOON)
        assert ask(connection, IN_TRANSACTION[driver.name])[0][0] == 0
        connection.close()


@pytest.mark.parametrize("checkout", ["operation", "thread"])
def test_waitress_serves_requests_and_streams_with_few_connections(checkout: str, db_url: str) -> None:
    with create_pool(db_url, checkout=checkout, max_size=3, timeout=SOON) as pool:
        app = App(pool)
        with waitress_of(app.wsgi, threads=12) as port, ThreadPoolExecutor(24) as clients:
            if not db_url.startswith("sqlite"):
                holders = [clients.submit(get, port, "/hold") for _ in range(8)]
                until(lambda: (pool.stats().in_use, pool.stats().waiting) == (3, 5))
                assert get(port, "/quick") == get(port, "/release") == b"done"
                assert [holder.result(SOON) for holder in holders] == [b"True"] * 8
            assert list(clients.map(get, [port] * 48, ["/work"] * 48, timeout=SOON)) == [b"done"] * 48
            assert 1 <= pool.stats().opened <= 3
            bodies = clients.map(get, [port] * 6, ["/stream?chunks=3"] * 6, timeout=SOON)
            assert list(bodies) == [CHUNK * 3] * 6
            with socket.create_connection(("127.0.0.1", port), SOON) as client:
                client.sendall(b"GET /stream?chunks=1000 HTTP/1.0\r\n\r\n")
                assert client.recv(1000)
                assert pool.stats().in_use == 1, "the body is under way"
            nothing_is_left(pool, db_url)
            assert json.loads(get(port, "/stats"))["in_use"] == 0


@pytest.mark.parametrize("scopes", [True, False], ids=["scopes", "no scopes"])
def test_sticky_connections_are_used_again_though_each_request_has_a_thread_of_its_own(
    scopes: bool, db_url: str
) -> None:
    with create_pool(db_url, checkout="thread", max_size=4, timeout=SOON) as pool:
        app = App(pool, scopes)
        app.statement = "select 1"
        with a_thread_for_each_request(app.wsgi) as port:
            for _ in range(REQUESTS // 4):
                assert get(port, "/operation") == b"done"
                until(lambda: pool.stats().in_use == 0)  # a thread outlives its answer by a moment
            assert pool.stats().opened == 1
            with ThreadPoolExecutor(8) as clients:
                answers = clients.map(get, [port] * REQUESTS, ["/operation"] * REQUESTS, timeout=30)
                assert list(answers) == [b"done"] * REQUESTS
            assert pool.stats().opened <= 4
            nothing_is_left(pool, db_url)


def test_what_a_thread_keeps_when_it_ends_is_used_again(db_url: str) -> None:
    """Inside a transaction that it began by hand, too."""

    def operate(number: int) -> None:
        pool.execute("begin")
        pool.execute("select 1")
        if number % 2:
            pool.execute("commit")

    with create_pool(db_url, checkout="thread", max_size=1, timeout=SOON) as pool:
        for number in range(REQUESTS):
            thread = threading.Thread(target=operate, args=(number,))
            thread.start()
            thread.join()
        nothing_is_left(pool, db_url)
        assert pool.stats().opened == 1
