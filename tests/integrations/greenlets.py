"""What must hold in a process whose threads are greenlets? A program: ``greenlets.py before|after URL``.

The pool is made before gevent patches, or after it. It prints "well" at its end.
"""

# ruff: noqa: E402 - in which order things are imported is the question

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

order, url = sys.argv[1:]

if order == "before":
    from threadpool_db import Pool, create_pool
    from threadpool_db.drivers.sockets import Socket, poll_socket

    made = [create_pool(url, checkout=policy, max_size=2, timeout=10) for policy in ("operation", "thread")]
    proxies = [pool.proxy() for pool in made]

from gevent import monkey

monkey.patch_all()

import socket
import threading

import gevent
from gevent.socket import wait_read, wait_write

if order == "after":
    from threadpool_db import Pool, create_pool
    from threadpool_db.drivers.sockets import Socket, poll_socket

    made = [create_pool(url, checkout=policy, max_size=2, timeout=10) for policy in ("operation", "thread")]
    proxies = [pool.proxy() for pool in made]

POSTGRESQL = url.startswith("postgresql")
SLEEP = "select pg_sleep({})" if POSTGRESQL else "select sleep({})"
SESSION = "select pg_backend_pid()" if POSTGRESQL else "select connection_id()"
KILL = "select pg_terminate_backend({})" if POSTGRESQL else "kill {}"


def wait(connection: Any) -> None:
    """psycopg2's own wait blocks everybody: this is what its documentation calls a wait callback."""
    from psycopg2.extensions import POLL_OK, POLL_READ

    while (state := connection.poll()) != POLL_OK:
        (wait_read if state == POLL_READ else wait_write)(connection.fileno())


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        gevent.sleep(0.01)


def together(*greenlets: gevent.Greenlet) -> list[Any]:
    gevent.joinall(greenlets, timeout=20, raise_error=True)
    return [greenlet.value for greenlet in greenlets]


def each_greenlet_is_a_thread_of_its_own(pool: Pool, proxy: Any) -> None:
    released = threading.Event()

    def hold() -> int:
        with proxy.connection() if order == "before" else pool.connection() as connection:
            cursor = connection.cursor()
            cursor.execute(SESSION)
            assert released.wait(20)
            return int(cursor.fetchone()[0])

    holders = [gevent.spawn(hold) for _ in range(6)]
    until(lambda: (pool.stats().in_use, pool.stats().waiting) == (2, 4))  # and this one goes on
    released.set()
    assert len(set(together(*holders))) == 2 and pool.stats().opened == 2


def transactions_of_a_proxy_are_the_greenlets_own(pool: Pool, proxy: Any) -> None:
    begun = threading.Event()

    def begin() -> int:
        session = proxy.execute(SESSION).fetchone()[0]
        assert begun.wait(20)
        assert proxy.execute(SESSION).fetchone()[0] == session
        proxy.commit()
        return int(session)

    greenlets = [gevent.spawn(begin) for _ in range(2)]
    until(lambda: pool.stats().in_use == 2)
    begun.set()
    assert len(set(together(*greenlets))) == 2
    until(lambda: pool.stats().in_use == 0)


def what_a_greenlet_keeps_is_given_back_at_its_end(pool: Pool, proxy: Any) -> None:
    together(*(gevent.spawn(pool.execute, SLEEP.format(0.01)) for _ in range(20)))
    until(lambda: pool.stats().in_use == 0)
    assert (pool.stats().opened, pool.stats().lost) == (2, 0)


def a_dead_session_is_seen_and_replaced(pool: Pool, proxy: Any) -> None:
    with pool.connection() as connection:
        cursor = connection.cursor()
        cursor.execute(SESSION)
        killed = cursor.fetchone()[0]
        descriptor = pool._upkeep.driver.descriptor(connection)
    with create_pool(url) as other:
        other.execute(KILL.format(killed))
    until(lambda: poll_socket(descriptor) is Socket.GONE)
    pool.execute("select 1")
    pool.release()
    assert pool.stats().dead == 1


def the_keeper_ends_what_is_overdue_and_closes_what_is_idle() -> None:
    with create_pool(url, max_lease=0.1, max_idle=0.1) as pool:
        begun = time.monotonic()
        try:
            pool.execute(SLEEP.format(20))
        except Exception:  # the driver's own: its socket was cut
            assert time.monotonic() - begun < 10
        assert pool.stats().expired == 1
        pool.execute("select 1")
        until(lambda: pool.stats().counts.idle == 0)


def a_look_at_a_socket_is_the_systems_own() -> None:
    others = gevent.spawn(lambda: None)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert poll_socket(ours.fileno()) is Socket.QUIET
        theirs.send(b"x")
        assert poll_socket(ours.fileno()) is Socket.READABLE
        theirs.shutdown(socket.SHUT_WR)
        assert poll_socket(ours.fileno()) is Socket.GONE  # gevent's poll knows no RDHUP
    assert not others.started or not others.dead, "and lets nobody else run"


if POSTGRESQL:
    from psycopg2.extensions import set_wait_callback

    set_wait_callback(wait)

a_look_at_a_socket_is_the_systems_own()
for its_pool, its_proxy in zip(made, proxies, strict=True):
    with its_pool:
        each_greenlet_is_a_thread_of_its_own(its_pool, its_proxy)
        transactions_of_a_proxy_are_the_greenlets_own(its_pool, its_proxy)
        what_a_greenlet_keeps_is_given_back_at_its_end(its_pool, its_proxy)
        a_dead_session_is_seen_and_replaced(its_pool, its_proxy)
the_keeper_ends_what_is_overdue_and_closes_what_is_idle()
print("well")
