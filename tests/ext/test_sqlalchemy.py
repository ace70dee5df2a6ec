"""Can an app move from QueuePool to ThreadPool by one argument, and lose nothing?"""

from __future__ import annotations

import gc
import itertools
import re
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import create_engine, engine_from_config, event, exc, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import QueuePool

from tests.ext.conftest import Creator, number, sessions, until, waiting
from tests.scene import SOON, background, in_child, join, put_at_hand
from tests.servers import MariaDB, Postgres
from threadpool_db.errors import PoolMisuse, PoolTimeout, PoolUnavailable
from threadpool_db.ext.sqlalchemy import CheckoutTimeout, CheckoutUnavailable, ThreadPool, records


def sqlite(folder: Path) -> Callable[[], Any]:
    return lambda: sqlite3.connect(folder / "db", check_same_thread=False)


def ours(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in caplog.records if record.name.startswith("threadpool_db.")]


def line_up(pool: ThreadPool, count: int) -> list[Future[Any]]:
    """So many threads, waiting in this order."""
    futures = []
    for n in range(1, count + 1):
        futures.append(background(pool.connect))
        waiting(pool, n)
    return futures


class TestArguments:
    def test_those_of_create_engine_reach_the_pool(self, engine_for: Any) -> None:
        engine = engine_for(
            "sqlite:///file", pool_size=3, max_overflow=4, pool_timeout=1.5, pool_use_lifo=True, max_connecting=1
        )
        pool = engine.pool
        assert isinstance(pool, ThreadPool)
        assert (pool.size(), pool.timeout(), pool.stats().counts.max_size) == (3, 1.5, 7)

    def test_without_any_they_are_queuepools(self) -> None:
        ours, theirs = ThreadPool(Creator()), QueuePool(Creator())
        assert (ours.size(), ours.timeout(), ours.overflow()) == (theirs.size(), theirs.timeout(), theirs.overflow())
        assert ours.stats().counts.max_size == 15

    def test_they_may_be_texts_from_a_configuration_file(self) -> None:
        engine = engine_from_config(
            {
                "sqlalchemy.url": "sqlite:///file",
                "sqlalchemy.pool_size": "2",
                "sqlalchemy.max_overflow": "0",
                "sqlalchemy.pool_timeout": "3",
                "sqlalchemy.pool_use_lifo": "false",
                "sqlalchemy.pool_pre_ping": "no",
                "sqlalchemy.max_connecting": "1",
                "sqlalchemy.grace": "0.5",
            },
            poolclass=ThreadPool,
        )
        pool = engine.pool
        assert isinstance(pool, ThreadPool)
        assert (pool.size(), pool.timeout(), pool.stats().counts.max_size) == (2, 3, 2)
        assert pool._pre_ping is False
        assert pool._inner._ledger.rules.grace == 0.5

    @pytest.mark.parametrize(("size", "overflow"), [(0, 10), (0, -5), (2, -1), ("0", "7")])
    def test_no_limit_is_no_limit(self, size: Any, overflow: Any) -> None:
        pool = ThreadPool(Creator(), size, overflow, max_connecting="inf")  # type: ignore[arg-type]
        lent = [pool.connect() for _ in range(30)]
        assert pool.checkedout() == 30
        for connection in lent:
            connection.close()
        assert pool.checkedin() == (int(size) or 30)

    @pytest.mark.parametrize(
        "options",
        [
            {"pool_size": -1},
            {"pool_size": 1.5},
            {"pool_size": "many"},
            {"max_overflow": -2},
            {"max_overflow": None},
            {"pool_timeout": -1},
            {"pool_timeout": "soon"},
            {"pool_use_lifo": "perhaps"},
            {"pool_pre_ping": "perhaps"},
            {"max_connecting": 0},
            {"grace": -1},
            {"grace": "soon"},
        ],
        ids=lambda options: "=".join(map(str, *options.items())),
    )
    def test_an_impossible_one_is_named(self, options: dict[str, Any]) -> None:
        (name,) = options
        with pytest.raises(ValueError, match=rf"^{name}=.*must be"):
            create_engine("sqlite:///file", poolclass=ThreadPool, **options)

    def test_an_asynchronous_engine_is_refused(self) -> None:
        class Module:
            paramstyle = "numeric_dollar"

            def __getattr__(self, name: str) -> Any:
                return Exception

        with pytest.raises(exc.ArgumentError, match="ThreadPool cannot be used with asyncio"):
            create_engine("postgresql+asyncpg://h/d", module=Module(), _is_async=True, poolclass=ThreadPool)

    def test_the_log_is_where_sqlalchemys_is(self) -> None:
        plain: Any = ThreadPool(Creator()).logger
        named: Any = ThreadPool(Creator(), logging_name="mine").logger
        assert (plain.name, named.name) == (
            "sqlalchemy.pool.impl.ThreadPool",
            "sqlalchemy.pool.impl.ThreadPool.mine",
        )

    def test_the_log_has_queuepools_lines(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        def lines(poolclass: type[Any]) -> list[str]:
            caplog.clear()
            pool = poolclass(sqlite(tmp_path), 1, 0, echo="debug")
            pool.connect().close()
            with pool.connect() as connection:
                connection.invalidate(soft=True)
            with pool.connect() as connection:
                connection.invalidate(ValueError("spoilt"))
            pool.recreate()
            pool.dispose()
            texts = [record.getMessage() for record in caplog.records if record.name.startswith("sqlalchemy.pool")]
            # addresses, and the one number that our status has more
            return [re.sub(r" at 0x\w+| Waiting: 0", "", line) for line in texts]

        ours = lines(ThreadPool)
        assert ours == lines(QueuePool)
        for word in ("Created new connection", "checked out from pool", "being returned", "rollback-on-return"):
            assert any(word in line for line in ours), word

    def test_what_the_pool_itself_tells_has_a_log_of_its_own(self, caplog: pytest.LogCaptureFixture) -> None:
        """``echo_pool`` does not show it, and no level of SQLAlchemy's shuts it out."""
        pool = ThreadPool(Creator(), 1, 0, timeout=0, logging_name="told_by_itself")
        with caplog.at_level("DEBUG", "threadpool_db"), pool.connect(), pytest.raises(CheckoutTimeout):
            pool.connect()
        failing = ThreadPool(Creator(refuse), logging_name="told_by_itself_too")
        with pytest.raises(ConnectionRefusedError):
            failing.connect()
        told = {(line.name.partition(".")[2].partition("-")[0], line.levelname, line.event) for line in ours(caplog)}
        assert told == {
            ("told_by_itself", "DEBUG", "connected"),
            ("told_by_itself", "INFO", "refused"),
            ("told_by_itself_too", "WARNING", "connect_failed"),
        }

    def test_the_logging_name_is_the_pools_name_too(self) -> None:
        assert ThreadPool(Creator(), logging_name="mine").stats().name.startswith("mine")


class TestWaiting:
    def test_the_timeout_speaks_both_languages(self) -> None:
        pool = ThreadPool(Creator(), 1, 0, timeout=0.05)
        held = pool.connect()
        for kind in (exc.TimeoutError, PoolTimeout, TimeoutError):
            with pytest.raises(kind) as caught:
                pool.connect()
        error = caught.value
        assert isinstance(error, CheckoutTimeout)
        assert error.snapshot is not None and error.snapshot.in_use == 1
        told = str(error)
        assert "no connection within 0.05 s" in told and "1 in use" in told and "pool_timeout" in told
        assert re.search(r"MainThread for \d+\.\d s, now at \S*test_sqlalchemy.py:\d+ \(", told)
        assert "This thread holds 1 itself" in told
        assert "1. Use the Session or Connection that this thread already has" in told
        assert "checkout()" not in told and "scope()" not in told
        assert "pool_size or max_overflow" in told and "/3o7r" in told
        held.close()

    def test_a_timeout_of_nothing_still_connects_where_there_is_room(self) -> None:
        pool = ThreadPool(Creator(), 1, 0, timeout=0)
        held = pool.connect()
        with pytest.raises(CheckoutTimeout, match="within 0 s"):
            pool.connect()
        held.close()
        assert number(pool.connect()) == 1

    def test_the_timeout_does_not_count_the_connect(self) -> None:
        pool = ThreadPool(Creator(lambda: time.sleep(0.05)), timeout=0.01)
        pool.connect().close()
        assert pool.checkedin() == 1

    def test_sixteen_threads_are_served_in_the_order_they_came(self) -> None:
        pool = ThreadPool(Creator(), 2, 0)
        held = [pool.connect(), pool.connect()]
        served: list[int] = []

        def work(n: int) -> None:
            with pool.connect():
                served.append(n)

        threads = []
        for n in range(16):
            threads.append(background(work, n))
            waiting(pool, n + 1)
        held[0].close()
        join(*threads)
        assert served == list(range(16))
        held[1].close()
        assert (pool.checkedin(), pool.checkedout()) == (2, 0)

    def test_a_newcomer_does_not_overtake(self) -> None:
        pool = ThreadPool(Creator(), 1, 0, timeout=0)
        held = pool.connect()
        pool._timeout = SOON
        (first,) = line_up(pool, 1)
        pool._timeout = 0
        held.close()
        with pytest.raises(CheckoutTimeout):
            pool.connect()
        first.result(SOON).close()

    def test_a_failed_connect_passes_its_turn_to_the_next_at_once(self) -> None:
        connecting, fail = threading.Event(), threading.Event()

        def trouble() -> None:
            if not connecting.is_set():
                connecting.set()
                assert fail.wait(SOON)
                raise ConnectionRefusedError("no")

        pool = ThreadPool(Creator(trouble), 1, 0)
        unlucky = background(pool.connect)
        assert connecting.wait(SOON)
        (next_one,) = line_up(pool, 1)
        fail.set()
        with pytest.raises(ConnectionRefusedError, match=r"^no$"):
            unlucky.result(SOON)
        next_one.result(SOON).close()
        assert (pool.checkedin(), pool.checkedout()) == (1, 0)

    def test_no_more_threads_than_allowed_connect_at_a_time(self) -> None:
        together, go = threading.Semaphore(0), threading.Event()

        def trouble() -> None:
            together.release()
            assert go.wait(SOON)

        pool = ThreadPool(Creator(trouble), 5, 0, max_connecting=2)
        threads = [background(pool.connect) for _ in range(5)]
        assert together.acquire(timeout=SOON) and together.acquire(timeout=SOON)
        waiting(pool, 3)
        assert pool.stats().counts.opening == 2
        go.set()
        for connection in join(*threads):
            connection.close()
        assert pool.checkedin() == 5

    def test_each_connects_in_his_own_thread(self) -> None:
        connecting = threading.Barrier(2)
        threads: dict[Any, int] = {}

        def connect() -> Any:
            connecting.wait(SOON)
            connection = creator()
            threads[connection] = threading.get_ident()
            return connection

        def borrow() -> tuple[Any, int]:
            return pool.connect(), threading.get_ident()

        creator = Creator()
        pool = ThreadPool(connect, 2, 0)
        listened: list[int] = []
        event.listen(pool, "connect", lambda *arguments: listened.append(threading.get_ident()))
        lent = join(background(borrow), background(borrow))
        assert {connection.dbapi_connection: ident for connection, ident in lent} == threads
        assert sorted(listened) == sorted(threads.values())
        assert len(set(listened)) == 2 and threading.get_ident() not in listened

    def test_an_error_of_the_connect_reaches_its_caller_unchanged(self, engine_for: Any, tmp_path: Path) -> None:
        engine = engine_for(f"sqlite:///{tmp_path}/no/such/folder/db")
        for _ in range(20):
            with pytest.raises(exc.OperationalError, match="unable to open") as caught:
                engine.connect()
        assert type(caught.value.orig).__module__ == "sqlite3"
        assert engine.pool.checkedout() == 0

    def test_a_listener_that_connects_cannot_borrow_meanwhile(self) -> None:
        pool = ThreadPool(Creator(lambda: pool.connect()))
        with pytest.raises(PoolMisuse, match="cannot borrow"):
            pool.connect()
        assert pool.checkedout() == 0


class TestKeeping:
    def test_as_many_stay_idle_as_the_pool_is_big_and_the_rest_close(self) -> None:
        creator = Creator()
        pool = ThreadPool(creator, 2, 3)
        lent = [pool.connect() for _ in range(5)]
        assert (pool.overflow(), pool.checkedout(), pool.checkedin()) == (3, 5, 0)
        for connection in lent:
            connection.close()
        assert [connection.closed for connection in creator.made] == [False, False, True, True, True]
        assert (pool.overflow(), pool.checkedout(), pool.checkedin()) == (0, 0, 2)

    def test_an_app_that_always_uses_a_few_more_does_not_connect_anew_each_time(self) -> None:
        creator = Creator()
        pool = ThreadPool(creator, 2, 3)
        lent = [pool.connect() for _ in range(4)]
        for _ in range(20):
            lent.pop(0).close()
            lent.append(pool.connect())
        assert len(creator.made) == 4

    @pytest.mark.parametrize(("use_lifo", "numbers"), [(False, [1, 2, 3, 1]), (True, [3, 3, 3, 3])])
    def test_the_one_idle_longest_is_next_or_the_one_used_last(self, use_lifo: bool, numbers: list[int]) -> None:
        pool = ThreadPool(Creator(), 3, use_lifo=use_lifo)
        for connection in [pool.connect() for _ in range(3)]:
            connection.close()
        used = []
        for _ in range(4):
            with pool.connect() as connection:
                used.append(number(connection))
        assert used == numbers

    def test_the_status_says_what_queuepools_says(self) -> None:
        told = []
        for kind in (ThreadPool, QueuePool):
            pool = kind(Creator(), 2, 3)
            lent = [pool.connect() for _ in range(4)]
            lent.pop().close()
            told.append(pool.status())
        assert told[0] == f"{told[1]} Waiting: 0"


class TestReplacing:
    def test_an_invalidated_connection_leaves_its_place_in_the_pool(self) -> None:
        creator = Creator()
        pool = ThreadPool(creator, 1, 0)
        connection = pool.connect()
        assert connection.record_info is not None
        connection.record_info["kept"] = True
        connection.invalidate()
        assert creator.made[0].closed and pool.checkedout() == 0
        with pool.connect() as again:
            assert number(again) == 2 and again.record_info == {"kept": True}

    def test_a_softly_invalidated_one_is_replaced_at_the_next_checkout(self) -> None:
        pool = ThreadPool(Creator(), 1, 0)
        with pool.connect() as connection:
            connection.invalidate(soft=True)
            assert connection.is_valid
        time.sleep(0.001)  # SQLAlchemy compares wall clocks
        with pool.connect() as connection:
            assert number(connection) == 2

    def test_a_place_whose_reconnect_failed_is_not_lost(self) -> None:
        creator = Creator()
        pool = ThreadPool(creator, 1, 0)
        pool.connect().invalidate()

        def trouble() -> None:
            raise ConnectionRefusedError

        creator.trouble = trouble
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                pool.connect()
        creator.trouble = lambda: None
        assert number(pool.connect()) == 2

    def test_a_detached_connection_is_its_borrowers_alone(self) -> None:
        creator = Creator()
        pool = ThreadPool(creator, 1, 0)
        connection = pool.connect()
        connection.detach()
        with pool.connect() as other:
            assert number(other) == 2
        connection.close()
        assert creator.made[0].closed and not creator.made[1].closed

    def test_dispose_closes_what_is_idle_and_what_is_lent_stays_good(self) -> None:
        creator = Creator()
        pool = ThreadPool(creator, 2, 0)
        lent, idle = pool.connect(), pool.connect()
        idle.close()
        pool.dispose()
        assert [connection.closed for connection in creator.made] == [False, True]
        assert (pool.checkedout(), pool.checkedin()) == (1, 0)
        lent.close()
        with pool.connect() as again:
            assert number(again) == 1

    def test_a_disposed_engine_goes_on_with_a_pool_of_the_same_options(self, engine_for: Any, tmp_path: Path) -> None:
        engine = engine_for(f"sqlite:///{tmp_path}/db", pool_size=1, max_overflow=0, pool_timeout=7, max_connecting=1)
        old = engine.pool
        heard: list[Any] = []
        event.listen(engine, "checkout", lambda *arguments: heard.append(arguments[0]))
        held = engine.connect()
        engine.dispose()
        assert engine.pool is not old and isinstance(engine.pool, ThreadPool)
        assert (engine.pool.size(), engine.pool.timeout(), engine.pool.stats().counts.max_size) == (1, 7, 1)
        assert held.scalar(text("select 1")) == 1
        with engine.connect() as other:
            assert other.scalar(text("select 1")) == 1
        held.close()
        assert len(heard) == 2
        old.dispose()

    def test_what_comes_back_to_a_disposed_engine_is_closed_with_its_old_pool(self) -> None:
        creator = Creator()
        engine = create_engine("sqlite://", poolclass=ThreadPool, creator=creator, _initialize=False)
        lent = engine.raw_connection()
        engine.dispose()
        lent.close()
        lent.close()  # as often as one likes
        again = engine.raw_connection()
        assert number(again) == 2 and not creator.made[0].closed
        gc.collect()
        assert engine.pool.checkedout() == 1
        again.close()
        engine.dispose()
        assert creator.made[1].closed

    def test_a_kept_dispose_closes_nothing(self, engine_for: Any, tmp_path: Path) -> None:
        engine = engine_for(f"sqlite:///{tmp_path}/db")
        engine.connect().close()
        old = engine.pool
        engine.dispose(close=False)
        assert engine.pool is not old and old.checkedin() == 1
        old.dispose()


EVENTS = [
    "first_connect", "connect", "checkout", "checkin", "reset", "invalidate", "soft_invalidate", "close", "detach",
    "close_detached",
]  # fmt: skip


def story(poolclass: type[Any], url: str) -> list[str]:
    """Everything that can happen to a connection, and what listeners hear of it."""
    heard: list[str] = []
    names: dict[int, str] = {}
    engine = create_engine(url, poolclass=poolclass, pool_size=1, max_overflow=1, pool_timeout=0.01)
    angry = [False]

    def listener(name: str) -> Callable[..., None]:
        def listen(*arguments: Any) -> None:
            kind = type(arguments[0]).__name__
            heard.append(f"{name} {names.setdefault(id(arguments[0]), str(len(names)))} {kind}")
            if name == "checkout" and angry[0]:
                angry[0] = False
                raise exc.DisconnectionError

        return listen

    alive = []  # ids are used again otherwise
    event.listen(engine, "connect", lambda connection, record: alive.append(connection))
    for name in EVENTS:
        event.listen(engine, name, listener(name))

    def chapter(name: str) -> None:
        heard.append(f"-- {name}")

    chapter("first")
    engine.connect().close()
    chapter("executed")
    with engine.connect() as connection:
        connection.execute(text("select 1"))
    chapter("committed")
    with engine.begin() as connection:
        connection.execute(text("select 1"))
    chapter("overflow, and timeout")
    two = [engine.raw_connection(), engine.raw_connection()]
    with pytest.raises(exc.TimeoutError):
        engine.raw_connection()
    for one in two:
        one.close()
    chapter("invalidated")
    with engine.connect() as connection:
        connection.invalidate()
    engine.connect().close()
    chapter("softly")
    raw = engine.raw_connection()
    raw.invalidate(soft=True)
    raw.close()
    time.sleep(0.001)
    engine.connect().close()
    chapter("detached")
    raw = engine.raw_connection()
    raw.detach()
    raw.close()
    chapter("dropped")
    engine.raw_connection()
    gc.collect()
    chapter("disconnected on checkout")
    angry[0] = True
    engine.connect().close()
    chapter("all of them invalid")
    engine.pool._invalidate(engine.raw_connection())
    time.sleep(0.001)
    engine.connect().close()
    chapter("disposed")
    engine.dispose()
    chapter("and again")
    engine.connect().close()
    engine.dispose()
    return heard


class Stopwatch:
    """The pool's time, which passes when told to; for whoever need not wait."""

    def __init__(self, pool: ThreadPool) -> None:
        self.now = time.monotonic() - 1000.0  # behind the clock that a waiter's deadline is told by, also after a boot
        put_at_hand(pool._inner, now=lambda: self.now)


def refuse() -> None:
    raise ConnectionRefusedError("no")


class TestOutage:
    def out_of_reach(self, **options: Any) -> tuple[ThreadPool, Creator, Stopwatch]:
        """A pool that had two connections and has lost them."""
        creator = Creator()
        pool = ThreadPool(creator, 2, 3, **options)
        watch = Stopwatch(pool)
        lent = [pool.connect() for _ in range(2)]
        creator.trouble = refuse
        for connection in lent:
            connection.invalidate()
        return pool, creator, watch

    def test_without_grace_each_tries_for_himself_at_once(self) -> None:
        pool, _, watch = self.out_of_reach()
        for _ in range(5):
            watch.now += 100.0
            for _ in range(3):
                with pytest.raises(ConnectionRefusedError):
                    pool.connect()
        assert pool.stats().refused == 0

    def test_with_grace_one_tries_in_each_step_and_gets_the_drivers_error_the_rest_are_told_at_once(self) -> None:
        pool, creator, watch = self.out_of_reach(grace=0.0)
        tried: list[BaseException] = []

        def trouble() -> None:
            tried.append(ConnectionRefusedError(f"no {len(tried)}"))
            raise tried[-1]

        creator.trouble = trouble
        for step in range(3):
            with pytest.raises(ConnectionRefusedError) as own:
                pool.connect()
            assert own.value is tried[step]
            told = []
            for _ in range(3):
                with pytest.raises(CheckoutUnavailable) as caught:
                    pool.connect()
                told.append(caught.value)
                assert isinstance(caught.value, exc.TimeoutError) and isinstance(caught.value, PoolUnavailable)
                assert caught.value.__cause__ is tried[step]
                assert caught.value.snapshot is not None and caught.value.snapshot.connect_failures == step + 1
                text = str(caught.value)
                assert "refused at once, the database is out of reach" in text and "(grace=0 s)" in text
                assert "with ConnectionRefusedError (the cause of this error)" in text
                assert "answer this error with 503 and Retry-After. One of those who ask tries again" in text
            assert len(set(told)) == 3 and len(tried) == step + 1
            watch.now += 2.0  # the longest step
        assert pool.stats().refused == 9

    def test_the_first_that_connects_lets_everybody_in(self) -> None:
        pool, creator, watch = self.out_of_reach(grace=0.0)
        with pytest.raises(ConnectionRefusedError):
            pool.connect()
        with pytest.raises(CheckoutUnavailable):
            pool.connect()
        creator.trouble = lambda: None
        watch.now += 2.0
        with pool.connect():
            pass
        assert pool.stats().connect_error is None
        with pool.connect():
            pass

    def test_before_the_grace_is_over_borrowers_wait_for_the_next_attempt(self) -> None:
        pool, _, watch = self.out_of_reach(grace=60.0, timeout=0.01)
        with pytest.raises(ConnectionRefusedError):
            pool.connect()
        with pytest.raises(CheckoutTimeout):
            pool.connect()
        watch.now += 60.0
        with pytest.raises(ConnectionRefusedError):
            pool.connect()
        with pytest.raises(CheckoutUnavailable):
            pool.connect()

    def test_as_long_as_one_is_connected_nobody_is_refused(self) -> None:
        pool, creator, _ = self.out_of_reach(grace=0.0, timeout=0.01)
        creator.trouble = lambda: None
        held = pool.connect()
        creator.trouble = refuse
        with pytest.raises(ConnectionRefusedError):
            pool.connect()
        with pytest.raises(CheckoutTimeout):
            pool.connect()
        held.close()
        with pool.connect() as connection:
            assert number(connection) == 3

    def test_a_place_without_a_connection_is_given_up_also_if_the_reconnect_failed(self) -> None:
        creator = Creator()
        pool = ThreadPool(creator, 1, 0, grace=60.0, pre_ping=False)
        with pool.connect() as connection:
            connection.invalidate(soft=True)
        time.sleep(0.001)  # SQLAlchemy compares wall clocks
        creator.trouble = refuse
        with pytest.raises(ConnectionRefusedError):
            pool.connect()  # the record's own
        assert pool.stats().total == 0

    def test_one_given_back_by_a_finaliser_in_the_middle_of_the_pool_is_given_up_too(self) -> None:
        pool = ThreadPool(Creator(), 1, 0, grace=60.0)
        connection: Any = pool.connect()
        record = connection._connection_record
        record.invalidate()
        with pool._inner._lock:
            connection.close()
        pool.stats()
        assert pool.stats().total == 0

    def test_when_the_very_first_connect_fails_those_in_line_are_told_too(self) -> None:
        connecting, fail = threading.Event(), threading.Event()

        def trouble() -> None:
            connecting.set()
            assert fail.wait(SOON)
            raise ConnectionRefusedError("no")

        pool = ThreadPool(Creator(trouble), 1, 0, grace=60.0)
        first = background(pool.connect)
        assert connecting.wait(SOON)
        others = line_up(pool, 2)
        fail.set()
        with pytest.raises(ConnectionRefusedError):
            first.result(SOON)
        for other in others:
            with pytest.raises(CheckoutUnavailable, match="could not connect") as caught:
                other.result(SOON)
            assert isinstance(caught.value.__cause__, ConnectionRefusedError)

    def test_a_pool_made_anew_has_the_same_grace(self) -> None:
        assert ThreadPool(Creator(), grace=3.5).recreate()._inner._ledger.rules.grace == 3.5
        assert ThreadPool(Creator()).recreate()._inner._ledger.rules.backoff is None


class TestEvents:
    def test_listeners_given_to_create_engine_are_the_pools_and_stay(self, engine_for: Any, tmp_path: Path) -> None:
        heard: list[str] = []
        listeners = [(lambda *arguments, name=name: heard.append(name), name) for name in ("connect", "checkout")]
        engine = engine_for(f"sqlite:///{tmp_path}/db", pool_events=listeners)
        engine.connect().close()
        engine.dispose()
        engine.connect().close()
        assert heard == ["connect", "checkout"] * 2

    def test_listeners_hear_what_queuepools_hear_in_the_same_order(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/db"
        ours = story(ThreadPool, url)
        assert ours == story(QueuePool, url)
        assert {line.split()[0] for line in ours} == {"--", *EVENTS}

    def test_a_close_listener_that_raises_costs_no_place(self) -> None:
        pool = ThreadPool(Creator(), 1, 1)

        @event.listens_for(pool, "close")
        def angry(*arguments: Any) -> None:
            raise RuntimeError

        two = [pool.connect(), pool.connect()]
        for one in two:
            one.close()
        assert (pool.checkedin(), pool.checkedout()) == (1, 0)


class TestGarbage:
    def test_a_dropped_connection_is_rolled_back_and_used_again(self) -> None:
        creator = Creator()
        pool = ThreadPool(creator, 1, 0)
        pool.connect()
        gc.collect()
        assert creator.made[0].rolled_back == 1
        assert number(pool.connect()) == 1

    def test_one_dropped_in_the_middle_of_a_checkout_is_found_by_it(self) -> None:
        pool = ThreadPool(Creator(), 1, 0)
        dropped = [pool.connect()]
        take = pool._inner._ledger.take

        def interrupted(now: float) -> Any:
            dropped.clear()
            assert pool.checkedout() == 1  # only a note was left
            return take(now)

        put_at_hand(pool._inner, take=interrupted, idle=[dropped])  # as if one had been there a moment ago
        assert number(background(pool.connect).result(SOON)) == 1

    def test_one_dropped_in_the_middle_of_a_checkin_wakes_who_waits(self) -> None:
        pool = ThreadPool(Creator(), 2, 0)
        dropped, held = [pool.connect()], pool.connect()
        first, second = line_up(pool, 2)
        give = pool._inner._ledger.give

        def interrupted(entry: Any, now: float) -> bool:
            dropped.clear()
            return give(entry, now)

        put_at_hand(pool._inner, give=interrupted)
        held.close()
        assert sorted(number(future.result(SOON)) for future in (first, second)) == [1, 2]

    def test_one_dropped_while_the_pool_is_only_looked_at_wakes_who_waits(self) -> None:
        pool = ThreadPool(Creator(), 1, 0)
        dropped = [pool.connect()]
        (waiter,) = line_up(pool, 1)
        with pool._inner._lock:
            dropped.clear()
        assert number(waiter.result(SOON)) == 1

    def test_a_finaliser_in_the_middle_of_the_pool_cannot_borrow(self) -> None:
        pool = ThreadPool(Creator())
        with pool._inner._lock, pytest.raises(PoolMisuse, match="finaliser"):
            pool.connect()

    def test_a_checkout_killed_half_way_costs_no_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        creator = Creator()
        pool = ThreadPool(creator, 1, 0)
        pool.connect().close()

        def interrupt(*arguments: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("sqlalchemy.pool.base._ConnectionFairy.__init__", interrupt)
            try:
                pool.connect()
            except KeyboardInterrupt:
                pass
        gc.collect()
        with pytest.warns(ResourceWarning, match="dropped without checkin"):
            connection = pool.connect()
        assert number(connection) == 2
        connection.close()
        assert (pool.checkedin(), pool.checkedout()) == (1, 0)

    def test_an_interrupt_before_the_lock_is_ours_is_an_interrupt(self) -> None:
        pool = ThreadPool(Creator(), 1, 0)
        connection = pool.connect()

        def interrupt() -> None:
            raise KeyboardInterrupt

        at_hand = pool._inner._at_hand
        for action in (pool.connect, connection.close):
            put_at_hand(pool._inner, acquire=interrupt, idle=[connection])  # as if one had been there a moment ago
            with pytest.raises(KeyboardInterrupt):
                action()
            pool._inner._at_hand = at_hand
            assert pool._inner._lock.acquire(blocking=False)
            pool._inner._lock.release()

    def test_a_record_given_back_twice_is_lent_once(self) -> None:
        pool = ThreadPool(Creator(), 2, 0)
        connection: Any = pool.connect()
        record = connection._connection_record
        connection.close()
        pool._do_return_conn(record)
        with pool._inner._lock:
            pool._do_return_conn(record)
        assert (pool.checkedin(), pool.checkedout()) == (1, 0)

    def test_an_engine_that_is_never_closed_is_no_leak(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pool = ThreadPool(Creator())
            pool.connect().close()
            del pool
            gc.collect()


class TestHolders:
    def test_a_thread_is_named_by_the_line_it_is_at(self) -> None:
        pool = ThreadPool(Creator(), 2, 0)
        done = threading.Event()

        def slow_view() -> None:
            with pool.connect():
                done.wait(SOON)

        thread = background(slow_view)
        until(lambda: any("slow_view" in str(hold) for hold in pool.stats().holders))
        done.set()
        join(thread)

    def test_what_holders_do_is_seen_through_the_records(self, tmp_path: Any) -> None:
        engine = create_engine(f"sqlite:///{tmp_path}/test.db", poolclass=ThreadPool)
        with engine.connect() as one, engine.connect():
            one.exec_driver_sql("create table t (x int)")
            one.exec_driver_sql("insert into t values (1)")
            first, second = engine.pool.stats().holders
            assert (first.in_transaction, second.in_transaction) == (True, False)
            assert "now at" in str(first) and str(first).endswith("in a transaction")
        engine.dispose()

    def test_a_thread_that_has_ended_has_no_line(self) -> None:
        pool = ThreadPool(Creator())
        left: list[Any] = []
        thread = threading.Thread(target=lambda: left.append(pool.connect()))
        thread.start()
        thread.join()
        (hold,) = pool.stats().holders
        assert hold.where == "an unknown line"

    def test_where_there_is_only_library_code_the_innermost_line_will_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pool = ThreadPool(Creator())
        held = pool.connect()
        monkeypatch.setattr(records, "_LIBRARIES", ("/", "<"))
        (hold,) = pool.stats().holders
        assert "(_snapshot)" in hold.where
        held.close()


class TestFork:
    pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

    @pytest.mark.parametrize(
        ("server", "scheme", "ask"),
        [
            ("postgres", "postgresql+psycopg2", "select pg_backend_pid()"),
            ("mariadb", "mysql+pymysql", "select connection_id()"),
        ],
    )
    def test_a_child_connects_anew_and_leaves_the_parents_sessions_alone(
        self, server: str, scheme: str, ask: str, request: pytest.FixtureRequest, engine_for: Any
    ) -> None:
        url: str = request.getfixturevalue(server).url
        engine = engine_for(scheme + url[url.index(":") :], pool_size=4, max_overflow=0)
        before = sessions(engine, ask, 4)
        held = engine.connect()
        mine = held.scalar(text(ask))
        reconnected = engine.raw_connection()
        reconnected.invalidate()  # its place now has another descriptor than the one it was made with
        before = sessions(engine, ask, 3)

        def child() -> Any:
            with pytest.raises(exc.DBAPIError):
                held.close()  # lent when the process forked: its ROLLBACK must not end the parent's transaction
            gc.collect()
            others = sessions(engine, ask, 4)
            assert not {*others, mine} & set(before) and engine.pool.checkedin() == 4
            return in_child(lambda: sessions(engine, ask, 1))

        in_child(child)
        assert held.scalar(text(ask)) == mine
        assert sessions(engine, ask, 3) == before
        held.close()

    def test_a_childs_sqlite_file_is_opened_anew(self, engine_for: Any, tmp_path: Path) -> None:
        engine = engine_for(f"sqlite:///{tmp_path}/db", pool_size=2)
        with engine.begin() as connection:
            connection.execute(text("create table t (a int)"))
            connection.execute(text("insert into t values (1)"))
            in_child(lambda: engine.connect().scalar(text("select count(*) from sqlite_master")))
        with engine.connect() as connection:
            assert connection.scalar(text("select a from t")) == 1

    def test_what_has_no_descriptor_is_forgotten_too(self) -> None:
        creator = Creator()
        pool = ThreadPool(creator, 2, 0)
        pool.connect().close()
        creator.made[0].fileno = lambda: "none of ours"  # type: ignore[attr-defined]

        def child() -> list[int]:
            lent = [pool.connect(), pool.connect()]
            assert not creator.made[0].closed
            return [number(connection) for connection in lent]

        assert in_child(child) == "[2, 3]"


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "threadpool_db_account"
    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int]


class TestServers:
    def spend(self, engine: sqlalchemy.Engine) -> None:
        """Eight threads move money between four accounts over three connections."""
        Base.metadata.drop_all(engine)
        Base.metadata.create_all(engine)
        with Session(engine) as session, session.begin():
            session.add_all(Account(id=n, balance=100) for n in range(1, 5))
        pairs = itertools.cycle([(1, 2), (2, 3), (3, 4), (1, 4), (2, 4), (1, 3)])

        def work() -> None:
            for _ in range(25):
                poor, rich = next(pairs)
                with Session(engine) as session, session.begin():
                    locked = session.query(Account).order_by(Account.id).with_for_update()
                    one, other = locked.filter(Account.id.in_([poor, rich]))
                    one.balance -= 1
                    other.balance += 1

        join(*(background(work) for _ in range(8)))
        with Session(engine) as session:
            assert session.scalar(sqlalchemy.select(sqlalchemy.func.sum(Account.balance))) == 400
        assert isinstance(engine.pool, ThreadPool)
        stats = engine.pool.stats()
        assert stats.opened <= 3 and stats.in_use == 0 and stats.timeouts == 0
        Base.metadata.drop_all(engine)

    def test_sessions_in_threads_on_postgresql(self, postgres: Postgres, engine_for: Any) -> None:
        self.spend(engine_for(postgres.url.replace("://", "+psycopg2://"), pool_size=3, max_overflow=0))

    def test_sessions_in_threads_on_mariadb(self, mariadb: MariaDB, engine_for: Any) -> None:
        self.spend(engine_for(mariadb.url.replace("://", "+pymysql://"), pool_size=3, max_overflow=0))

    def test_a_ping_replaces_what_the_server_has_killed(self, postgres: Postgres, engine_for: Any) -> None:
        engine = engine_for(postgres.url.replace("://", "+psycopg2://"), pool_size=3, pool_pre_ping=True)
        before = sessions(engine, "select pg_backend_pid()", 3)
        with engine.connect() as connection:
            mine = connection.scalar(text("select pg_backend_pid()"))
            killed = {*before} - {mine}
            for pid in killed:
                connection.execute(text("select pg_terminate_backend(:pid, 10000)"), {"pid": pid})  # waits for its end
        assert not killed & {*sessions(engine, "select pg_backend_pid()", 3)}
