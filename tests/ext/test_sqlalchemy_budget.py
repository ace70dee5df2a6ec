"""Do engines keep to a budget that they share, with each other and with pools of the core? The rules of a budget are
tested in ``core/``; here it is who connects, who closes, what listeners hear, and what a real server sees."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest
from sqlalchemy import create_engine, event, exc, make_url, text
from sqlalchemy.pool import NullPool

from tests.ext.conftest import Connection, Creator, waiting
from tests.scene import SOON, background, in_child, join, until
from tests.servers import MariaDB, Postgres
from threadpool_db import Budget, Pool, create_pool
from threadpool_db.ext.sqlalchemy import CheckoutTimeout, ThreadPool
from threadpool_db.testing import ScriptedDriver

MakeEngine = Callable[..., Any]


class Counted(Creator):
    """Knows how many are open, of all that share ``open``."""

    def __init__(self, opened: list[Connection]) -> None:
        super().__init__()
        self.opened = opened

    def __call__(self) -> Any:
        connection = super().__call__()
        connection.close = lambda: (self.opened.remove(connection), setattr(connection, "closed", True))
        self.opened.append(connection)
        return connection


class Sharing:
    def __init__(self, limit: int) -> None:
        self.budget = Budget(limit)
        self.opened: list[Connection] = []
        self.most = 0

    def pool(self, size: int = 5, **options: Any) -> ThreadPool:
        pool = ThreadPool(Counted(self.opened), size, 0, **{"timeout": SOON, "budget": self.budget, **options})
        event.listen(pool, "connect", lambda *_: setattr(self, "most", max(self.most, len(self.opened))))
        return pool


@pytest.fixture
def two() -> Iterator[Sharing]:
    sharing = Sharing(2)
    yield sharing
    assert sharing.most <= 2


def test_whoever_finds_no_permit_left_gets_that_of_what_was_used_least_recently(two: Sharing) -> None:
    first, second = two.pool(), two.pool()
    kept = [first.connect(), first.connect()]
    for connection in kept:
        connection.close()
    second.connect().close()
    assert (first.checkedin(), second.checkedin(), len(two.opened)) == (1, 1, 2)
    assert two.budget.stats().passed_on == 1


def test_the_close_event_comes_before_the_connect_and_in_the_thread_that_waits(two: Sharing) -> None:
    first, second = two.pool(), two.pool()
    told: list[tuple[str, int]] = []
    event.listen(first, "close", lambda connection, record: told.append(("close", threading.get_ident())))
    event.listen(second, "connect", lambda connection, record: told.append(("connect", threading.get_ident())))
    for connection in [first.connect(), first.connect()]:
        connection.close()
    me = threading.get_ident()
    second.connect().close()
    assert told == [("close", me), ("connect", me)]


def test_what_is_lent_is_not_taken_and_goes_to_the_other_pools_waiter_when_it_comes_back(two: Sharing) -> None:
    first, second = two.pool(), two.pool()
    held = [first.connect(), first.connect()]
    other = background(second.connect)
    waiting(second, 1)
    own = background(first.connect)
    waiting(first, 1)
    held[0].close()
    got = other.result(SOON)
    assert first.checkedout() == 1 and not own.done()
    got.close()
    own.result(SOON).close()
    held[1].close()
    assert two.budget.stats().waiting == 0 and len(two.opened) <= 2


def test_a_wait_in_vain_ends_at_its_deadline_and_says_that_the_budget_is_spent(two: Sharing) -> None:
    first, second = two.pool(), two.pool(timeout=0.05)
    held = [first.connect(), first.connect()]
    started = time.monotonic()
    with pytest.raises(CheckoutTimeout) as caught:
        second.connect()
    assert time.monotonic() - started < SOON / 2
    assert "All 2 permits of its budget are used, 0 of them by this pool" in str(caught.value)
    assert "Look at the other pools of this budget" in str(caught.value)
    for connection in held:
        connection.close()


def test_without_any_patience_what_lies_idle_elsewhere_is_still_had(two: Sharing) -> None:
    first, second = two.pool(), two.pool(timeout=0)
    for connection in [first.connect(), first.connect()]:
        connection.close()
    second.connect().close()
    assert first.checkedin() == 1


@pytest.mark.parametrize("keeper_connects", [True, False], ids=["a keeper connects", "borrowers connect"])
def test_pools_of_the_core_and_of_sqlalchemy_make_room_for_each_other(two: Sharing, keeper_connects: bool) -> None:
    engines, driver = two.pool(), ScriptedDriver()
    with Pool(driver, budget=two.budget, background=keeper_connects) as core:
        for connection in [engines.connect(), engines.connect()]:
            connection.close()
        core.checkout(SOON).checkin()
        core.checkout(SOON).checkin()
        assert len(two.opened) == 1 and len(driver.open) == 1
        held = [engines.connect(), engines.connect()]
        assert not driver.open
        waiter = background(core.checkout, SOON)
        until(lambda: core.stats().waiting)
        held[0].close()
        waiter.result(SOON).checkin()
        held[1].close()
        assert len(two.opened) + len(driver.open) <= 2


def test_a_connection_that_was_invalidated_keeps_its_permit_and_connects_again_with_it(two: Sharing) -> None:
    pool = two.pool()
    connection = pool.connect()
    connection.invalidate()
    assert two.budget.stats().used == 1 and not two.opened
    pool.connect().close()
    assert two.budget.stats().used == 1 and len(two.opened) == 1


def test_a_listener_that_fails_at_the_close_leaves_nothing_open_beyond_the_cap(two: Sharing) -> None:
    def broken(*args: Any) -> None:
        raise OSError("not mine to close")

    first, second = two.pool(), two.pool()
    event.listen(first, "close", broken)
    for connection in [first.connect(), first.connect()]:
        connection.close()
    second.connect().close()
    assert len(two.opened) == two.budget.stats().used == 2


def test_a_connect_that_fails_gives_its_permit_back(two: Sharing) -> None:
    def down() -> None:
        raise OSError("down")

    failing, other = ThreadPool(Creator(down), 5, 0, budget=two.budget), two.pool()
    for _ in range(3):
        with pytest.raises(OSError, match="down"):
            failing.connect()
    assert two.budget.stats().used == 0
    for connection in [other.connect(), other.connect()]:
        connection.close()


def test_a_recreated_pool_has_the_same_budget_and_what_the_old_one_lent_still_counts(two: Sharing) -> None:
    old = two.pool()
    held = old.connect()
    old.dispose()
    new = old.recreate()
    connection = new.connect()
    assert two.budget.stats().used == 2
    connection.close()
    held.close()
    assert len(two.opened) == 2
    other = two.pool()
    for connection in [other.connect(), other.connect()]:
        connection.close()


def test_a_crowd_on_few_permits_is_served_and_the_count_is_exact() -> None:
    sharing, driver = Sharing(3), ScriptedDriver()
    pools = [sharing.pool(2) for _ in range(3)]
    with Pool(driver, budget=sharing.budget, max_size=2, timeout=SOON) as core:

        def work(seed: int) -> None:
            choose = random.Random(seed)
            for _ in range(40):
                which = choose.randrange(4)
                if which == 3:
                    core.checkout().checkin()
                    continue
                connection = pools[which].connect()
                if choose.random() < 0.1:
                    connection.invalidate()
                else:
                    connection.close()

        join(*(background(work, seed) for seed in range(12)))
        stats = sharing.budget.stats()
        assert stats.waiting == 0 and stats.used <= 3 and stats.passed_on > 0
        assert [pool.checkedout() for pool in pools] == [0, 0, 0] and core.stats().in_use == 0
    for pool in pools:
        pool.dispose()
    assert sharing.budget.stats().used == 0 and not sharing.opened and sharing.most <= 3


def test_where_nobody_waits_a_connection_goes_and_comes_the_short_way(two: Sharing) -> None:
    pool = two.pool()
    pool.connect().close()
    asked: list[str] = []
    tell = pool._inner._decide
    pool._inner._decide = lambda *told, **more: asked.append("the long way") or tell(*told, **more)  # type: ignore[func-returns-value, method-assign]
    for _ in range(3):
        pool.connect().close()
    assert not asked


@pytest.mark.parametrize("wrong", [3, "20", object()])
def test_what_is_no_budget_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"budget=.*: must be a Budget\(limit\)"):
        ThreadPool(Creator(), budget=wrong)


def test_a_url_cannot_name_a_budget() -> None:
    engine: Any = create_engine("sqlite:///x.db?plugin=threadpool_db&pool_size=2", budget=(budget := Budget(3)))
    assert engine.pool._inner._budget is budget
    with pytest.raises(TypeError, match=r"has 'budget', an object .* create_engine\(budget=\.\.\.\)"):
        create_engine("sqlite:///x.db?plugin=threadpool_db&budget=3")


def test_a_child_has_all_permits_again(two: Sharing) -> None:
    first, second = two.pool(), two.pool()
    held = [first.connect(), first.connect()]

    def child() -> Any:
        before = two.budget.stats().used
        two.opened.clear()
        second.connect().close()
        return before, two.budget.stats().used

    assert in_child(child) == "(0, 1)"
    assert two.budget.stats().used == 2
    for connection in held:
        connection.close()


@pytest.fixture(scope="module")
def databases(postgres: Postgres) -> Iterator[list[Any]]:
    url = make_url(postgres.url).set(drivername="postgresql+psycopg2")
    admin = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    names = [f"shared_{n}" for n in range(4)]
    with admin.connect() as connection:
        for name in names:
            connection.execute(text(f"create database {name}"))
    yield [url.set(database=name) for name in names]
    with admin.connect() as connection:
        for name in names:
            connection.execute(text(f"drop database {name} with (force)"))


class Sessions:
    """Counts them on our side of the wire, from before the connect until after the close: the server's own list lags
    behind by those that it is about to end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = 0

    def add(self, change: int) -> None:
        with self._lock:
            self.now += change
            self.most = max(self.most, self.now)

    def creator(self, url: Any) -> Callable[[], Any]:
        sessions = self

        class Counted(psycopg2.extensions.connection):
            def close(self) -> None:
                open_before = not self.closed
                super().close()
                if open_before:
                    sessions.add(-1)

        dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)

        def connect() -> Any:
            self.add(+1)
            return psycopg2.connect(dsn, connection_factory=Counted)

        return connect


def test_four_engines_and_a_core_pool_on_postgresql_never_have_more_sessions_than_the_budget(
    databases: list[Any], engine_for: MakeEngine
) -> None:
    budget, sessions = Budget(3), Sessions()
    options = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 3 * SOON, "budget": budget}
    engines = [engine_for(url, creator=sessions.creator(url), **options) for url in databases]
    with create_pool(sessions.creator(databases[0]), max_size=2, timeout=3 * SOON, budget=budget) as core:

        def work(seed: int) -> int:
            choose = random.Random(seed)
            wrong = 0
            for _ in range(30):
                n = choose.randrange(5)
                if n == 4:
                    wrong += core.execute("select current_database()") != [("shared_0",)]
                    continue
                with engines[n].begin() as connection:
                    wrong += connection.scalar(text("select current_database()")) != f"shared_{n}"
            return wrong

        working = [background(work, seed) for seed in range(8)]
        assert sum(future.result(6 * SOON) for future in working) == 0
        stats = budget.stats()
        assert stats.used <= 3 and stats.waiting == 0 and stats.passed_on > 0
    for engine in engines:
        engine.dispose()
    assert sessions.most == 3 and sessions.now == 0


def test_mariadb_engines_give_way_to_each_other(mariadb: MariaDB, engine_for: MakeEngine) -> None:
    budget = Budget(1)
    url = mariadb.url.replace("://", "+pymysql://")
    first, second = (engine_for(url, pool_timeout=SOON, budget=budget) for _ in range(2))
    for engine in (first, second, first):
        with engine.connect() as connection:
            assert connection.scalar(text("select 1")) == 1
    assert budget.stats().passed_on == 2
    held = first.connect()
    with pytest.raises(exc.TimeoutError):
        create_engine(url, poolclass=ThreadPool, pool_timeout=0.05, budget=budget).connect()
    held.close()
    assert math.isfinite(budget.stats().used)
