"""Many databases of one PostgreSQL under one cap: is every one served, a new one at once, and the cap kept?

Traffic is Zipf's: the n-th tenant asks as often as 1/n. Connections are counted on our side of the wire, from before
the connect until after the close: the server's own list may lag by sessions that it has been told to end.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest

from tests.scene import background
from tests.servers import Postgres
from threadpool_db import Budget, TenantPools
from threadpool_db.drivers.base import Driver
from threadpool_db.drivers.choose import driver_for

THREADS = 16


class Count:
    """Of connections that are open, or are being opened or closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = 0

    def __call__(self, change: int) -> None:
        with self._lock:
            self.now += change
            self.most = max(self.most, self.now)

    def watch(self, driver: Driver[Any]) -> Driver[Any]:
        connect, close = driver.connect, driver.close

        def counted_connect(timeout: float) -> Any:
            self(+1)
            try:
                return connect(timeout)
            except BaseException:
                self(-1)
                raise

        def counted_close(connection: Any) -> None:
            close(connection)
            self(-1)

        driver.connect, driver.close = counted_connect, counted_close  # type: ignore[method-assign]
        return driver


@pytest.fixture
def create_databases(postgres: Postgres) -> Iterator[Callable[[list[str]], None]]:
    admin = psycopg2.connect(postgres.url)
    admin.autocommit = True
    made: list[str] = []

    def create(names: list[str]) -> None:
        with admin.cursor() as cursor:
            for name in names:
                cursor.execute(f"create database {name} template template0")
                made.append(name)

    yield create
    with admin.cursor() as cursor:
        for name in made:
            cursor.execute(f"drop database if exists {name} with (force)")
    admin.close()


@pytest.mark.parametrize(
    ("databases", "cap", "seconds"),
    [(12, 5, 2.0), pytest.param(200, 20, 60.0, marks=[pytest.mark.proof, pytest.mark.timeout(300)])],
)
def test_each_is_served_under_the_cap_and_a_new_one_at_its_first_request(
    postgres: Postgres, create_databases: Callable[[list[str]], None], databases: int, cap: int, seconds: float
) -> None:
    keys = [f"tenant_{n:03}" for n in range(databases)]
    create_databases(keys)
    weights = [1 / rank for rank in range(1, databases + 1)]
    count, base = Count(), postgres.url.rpartition("/")[0]

    def database_of(key: str) -> Driver[Any]:
        return count.watch(driver_for(f"{base}/{key}"))

    def ask(seed: int, until: float) -> int:
        dice, asked = random.Random(seed), 0
        while time.monotonic() < until:
            (key,) = dice.choices(keys, weights)
            assert tenants.execute(key, "select current_database()") == [(key,)]
            asked += 1
        return asked

    with TenantPools(database_of, budget=Budget(cap), timeout=10.0) as tenants:
        until = time.monotonic() + seconds
        asking = [background(ask, seed, until) for seed in range(THREADS)]
        create_databases(["newcomer"])
        assert tenants.execute("newcomer", "select current_database()") == [("newcomer",)]
        served = sum(future.result(seconds + 30) for future in asking)
        budget = tenants.budget.stats()
        assert budget.waiting == 0 and budget.used <= cap
    assert count.most <= cap and count.now == 0
    print(f"{databases} databases, {cap} connections: {served / seconds:,.0f}/s, {budget.passed_on} passed on")
    assert served > 50 * seconds and budget.passed_on > 0
