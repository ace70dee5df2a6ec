"""Do the policies do what they say? Eight threads, four connections, and a view that calls somebody else's service.

Between its two short statements the view waits 50 ms for the outside. Under "operation" nobody's connection waits with
it; under "thread" the scope keeps it, so four of the eight threads stand in line at any time.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

from threadpool_db import Pool, create_pool

THREADS, CONNECTIONS = 8, 4
SECONDS = 1.3
OUTSIDE_CALL = 0.05
PAUSE = {"postgresql": "select pg_sleep(0.001)", "mysql": "select sleep(0.001)", "sqlite": "select pause(0.001)"}


def sqlite_with_a_pause(file: str) -> Callable[[], sqlite3.Connection]:
    """SQLite has no statement that takes a while, so it is given one."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(file, check_same_thread=False)
        connection.create_function("pause", 1, time.sleep)
        return connection

    return connect


def served(pool: Pool, statement: str) -> tuple[int, int]:
    """How many views did the threads serve, and how many connections were out at once, at most?"""
    begin, most = threading.Barrier(THREADS + 1), 0
    counts = [0] * THREADS
    errors: list[BaseException] = []
    over = threading.Event()

    def view() -> None:
        with pool.scope():
            pool.execute(statement)
            time.sleep(OUTSIDE_CALL)
            pool.execute(statement)

    def serve(index: int) -> None:
        try:
            view()  # connects, before the time counts
            begin.wait(10)
            while not over.is_set():
                view()
                if not over.is_set():
                    counts[index] += 1
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=serve, args=(index,), daemon=True) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    begin.wait(10)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        most = max(most, pool.stats().in_use)
        time.sleep(0.01)
    over.set()
    for thread in threads:
        thread.join(10)
    assert not errors and not any(thread.is_alive() for thread in threads)
    return sum(counts), most


def test_per_operation_serves_nearly_twice_the_views_of_per_thread(db_url: str) -> None:
    kind = db_url.partition(":")[0]
    source: Any = sqlite_with_a_pause(db_url.removeprefix("sqlite:///")) if kind == "sqlite" else db_url
    views: dict[str, int] = {}
    for policy in ("operation", "thread"):
        with create_pool(source, checkout=policy, max_size=CONNECTIONS) as pool:
            views[policy], most = served(pool, PAUSE[kind])
            stats = pool.stats()
        assert most <= CONNECTIONS and stats.opened <= CONNECTIONS
        assert stats.in_use == 0, "every scope gave its connection back"
        assert stats.timeouts == 0
    print(f"{kind}: {views}, {views['operation'] / views['thread']:.2f} times")
    # a thread's 50 ms with a connection in hand: four at a time at most
    assert views["thread"] <= CONNECTIONS * SECONDS / OUTSIDE_CALL + THREADS
    assert views["operation"] >= 1.8 * views["thread"], views


def test_under_both_policies_a_transaction_keeps_its_connection(db_url: str) -> None:
    for policy in ("operation", "thread"):
        with create_pool(db_url, checkout=policy, max_size=2) as pool:
            with pool.scope(), pool.transaction():
                for _ in range(3):
                    pool.execute("select 1")
                    assert pool.in_transaction and pool.stats().in_use == 1
            assert pool.stats().checkouts == 1 and pool.stats().in_use == 0


def test_outside_a_transaction_only_the_thread_policy_keeps_its_connection_until_the_scope_ends(db_url: str) -> None:
    for policy, kept, checkouts in (("operation", 0, 3), ("thread", 1, 1)):
        with create_pool(db_url, checkout=policy, max_size=2) as pool:
            with pool.scope():
                for _ in range(3):
                    pool.execute("select 1")
                    assert pool.stats().in_use == kept
            assert pool.stats().checkouts == checkouts and pool.stats().in_use == 0
