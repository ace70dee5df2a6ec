"""What else may an engine's pool meet: raw code that shares it, a database in memory, another process, a full line?"""

from __future__ import annotations

import multiprocessing
import pickle
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pymysql
import pytest
from sqlalchemy import create_engine, exc, make_url, text
from sqlalchemy.pool import NullPool, QueuePool

from tests.ext.conftest import Creator, Questions, sessions, waiting
from tests.scene import SOON, background, join
from tests.servers import MariaDB, Postgres
from threadpool_db.core.overload import CoDel, Standing
from threadpool_db.errors import PoolOverloaded
from threadpool_db.ext.sqlalchemy import CheckoutOverloaded, CheckoutTimeout, CheckoutUnavailable, ThreadPool

MakeEngine = Callable[..., Any]
SHARED = "sqlite:///file:{}?mode=memory&cache=shared&uri=true&check_same_thread=false"


class TestSharedPool:
    """``create_engine(pool=...)``, beside code that has no engine."""

    @pytest.mark.parametrize("raw_first", [True, False])
    def test_serves_raw_code_and_engine_by_one_limit(self, tmp_path: Path, raw_first: bool) -> None:
        pool = ThreadPool(lambda: sqlite3.connect(tmp_path / "db", check_same_thread=False), 1, 0)
        engine = create_engine("sqlite://", pool=pool)
        first, second = (pool.connect, engine.connect) if raw_first else (engine.connect, pool.connect)
        held = first()
        waiter = background(second)
        waiting(pool, 1)
        held.close()
        waiter.result(SOON).close()
        assert (pool.checkedin(), pool.checkedout()) == (1, 0)
        with engine.begin() as connection:
            connection.execute(text("create table t (a int)"))
        assert pool.connect().cursor().execute("select count(*) from t").fetchone() == (0,)

    def test_leaves_rollbacks_out_also_if_raw_code_came_first(
        self, mariadb: MariaDB, questions: Callable[[int], Questions]
    ) -> None:
        proxy = questions(mariadb.port)
        pool = ThreadPool(lambda: pymysql.connect(host=proxy.host, port=proxy.port, user="root", database="test"))
        pool.connect().close()
        engine = create_engine("mysql+pymysql://", pool=pool)
        for borrow in (engine.connect, pool.connect, engine.connect):
            borrow().close()
        before = proxy.asked
        for borrow in (engine.connect, pool.connect, engine.connect):
            borrow().close()
        assert proxy.asked == before
        pool.dispose()

    def test_is_the_raw_codes_alone_once_the_engine_is_disposed_of(self, tmp_path: Path) -> None:
        """The engine goes on with one like it: as with a ready QueuePool."""
        for kind in (ThreadPool, QueuePool):
            pool: Any = kind(lambda: sqlite3.connect(tmp_path / "db", check_same_thread=False), 1, 0, timeout=0)
            engine = create_engine("sqlite://", pool=pool)
            assert engine.pool is pool
            engine.dispose()
            assert engine.pool is not pool and isinstance(engine.pool, kind)
            with pool.connect(), engine.connect() as connection:
                assert connection.scalar(text("select 1")) == 1
            engine.dispose()
            pool.dispose()

    def test_that_was_disposed_of_goes_on(self, tmp_path: Path) -> None:
        pool = ThreadPool(lambda: sqlite3.connect(tmp_path / "db", check_same_thread=False), 2, 0)
        engine = create_engine("sqlite://", pool=pool)
        held = engine.connect()
        pool.dispose()
        assert held.scalar(text("select 1")) == 1
        held.close()
        with engine.connect() as one, engine.connect() as other:
            assert one.scalar(text("select 1")) == other.scalar(text("select 1")) == 1
        assert (pool.checkedin(), pool.checkedout()) == (2, 0)
        pool.dispose()


class TestMemory:
    @pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true"])
    def test_that_is_each_connections_own_is_refused(self, engine_for: MakeEngine, url: str) -> None:
        engine = engine_for(url)
        for _ in range(2):
            with pytest.raises(exc.ArgumentError, match="each connection of a pool would see its own"):
                engine.connect()
        assert engine.pool.checkedout() == 0

    def test_is_fine_for_one_connection(self, engine_for: MakeEngine) -> None:
        engine = engine_for("sqlite:///:memory:", pool_size=1, max_overflow=0)
        with engine.begin() as connection:
            connection.execute(text("create table t (a int)"))
        with engine.connect() as connection:
            assert connection.scalar(text("select count(*) from t")) == 0

    def test_that_has_a_name_is_shared_also_by_two_first_borrowers(
        self, engine_for: MakeEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = engine_for(SHARED.format("two_first"))
        together = threading.Barrier(2)
        meet = ThreadPool._meet

        def meet_together(pool: ThreadPool, record: Any) -> None:
            together.wait(SOON)
            meet(pool, record)

        monkeypatch.setattr(ThreadPool, "_meet", meet_together)
        for connection in join(*(background(engine.raw_connection) for _ in range(2))):
            connection.close()
        assert engine.pool.checkedin() == 2

    def test_that_somebody_writes_to_is_shared(self, engine_for: MakeEngine) -> None:
        writer = sqlite3.connect("file:written?mode=memory&cache=shared", uri=True)
        writer.execute("create table t (a int)")
        writer.execute("insert into t values (1)")
        assert writer.in_transaction
        engine = engine_for(SHARED.format("written"))
        engine.connect().close()
        writer.commit()
        with engine.connect() as connection:
            assert connection.scalar(text("select a from t")) == 1
        assert writer.execute("pragma user_version").fetchone() == (0,)
        writer.close()


def child_sessions(url: str) -> list[int]:
    engine = create_engine(url, poolclass=ThreadPool, pool_size=2)
    found = sessions(engine, "select pg_backend_pid()", 2)
    engine.dispose()
    return found


def test_a_spawned_child_has_sessions_of_its_own(postgres: Postgres, engine_for: MakeEngine) -> None:
    url = postgres.url.replace("://", "+psycopg2://")
    engine = engine_for(url, pool_size=2)
    mine = sessions(engine, "select pg_backend_pid()", 2)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as children:
        assert not set(mine) & set(children.submit(child_sessions, url).result(SOON * 3))
    assert sessions(engine, "select pg_backend_pid()", 2) == mine


class TestMaxWaiting:
    def test_more_than_that_are_refused_at_once_in_both_languages(self) -> None:
        pool = ThreadPool(Creator(), 1, 0, max_waiting=1)
        held = pool.connect()
        waiter = background(pool.connect)
        waiting(pool, 1)
        for kind in (exc.TimeoutError, PoolOverloaded):
            with pytest.raises(kind) as caught:
                pool.connect()
            assert isinstance(caught.value, CheckoutOverloaded)
        assert caught.value.snapshot is not None and caught.value.snapshot.waiting == 1
        told = str(caught.value)
        assert "refused at once, 1 threads are waiting already (max_waiting=1). All are in use." in told
        assert "1. Use the Session or Connection that this thread already has" in told
        assert "answer this error with 503 and Retry-After" in told
        assert "raise pool_size or max_overflow; only if callers can wait longer, max_waiting." in told
        held.close()
        waiter.result(SOON).close()

    def test_none_may_wait_where_it_is_0(self) -> None:
        pool = ThreadPool(Creator(), 1, 0, max_waiting=0)
        with pool.connect(), pytest.raises(CheckoutOverloaded):
            pool.connect()
        pool.connect().close()

    def test_a_recreated_pool_has_it_too(self) -> None:
        pool = ThreadPool(Creator(), 1, 0, max_waiting=0).recreate()
        with pool.connect(), pytest.raises(CheckoutOverloaded):
            pool.connect()


class OneMayWait(Standing):
    """Turns away whoever has somebody behind him."""

    def sheds(self, waited: float, waiting: int, now: float) -> bool:
        return waiting > 1


class TestShed:
    @pytest.mark.parametrize("recreated", [False, True])
    def test_who_is_turned_away_hears_it_in_both_languages_and_the_next_is_served(self, recreated: bool) -> None:
        pool = ThreadPool(Creator(), 1, 0, shed=CoDel(5, 50, OneMayWait))
        pool = pool.recreate() if recreated else pool
        held = pool.connect()
        first = background(pool.connect)
        waiting(pool, 1)
        second = background(pool.connect)
        waiting(pool, 2)
        held.close()
        second.result(SOON).close()
        for kind in (exc.TimeoutError, PoolOverloaded):
            with pytest.raises(kind, match="turned away after waiting") as caught:
                first.result(SOON)
        assert isinstance(caught.value, CheckoutOverloaded) and "raise pool_size or max_overflow" in str(caught.value)
        assert (pool.stats().shed, pool.checkedout()) == (1, 0)


@pytest.mark.parametrize("kind", [CheckoutTimeout, CheckoutOverloaded, CheckoutUnavailable])
def test_a_refusal_survives_being_sent_to_another_process_with_its_numbers(kind: type[Any]) -> None:
    pool = ThreadPool(Creator(), 1, 0)
    with pool.connect():
        error = kind("no connection", pool.stats())
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (kind, str(error))
    assert again.snapshot == error.snapshot and again.snapshot.in_use == 1
    assert again.snapshot.holders[0].where == error.snapshot.holders[0].where


@pytest.fixture(scope="module")
def with_hstore(postgres: Postgres) -> Iterator[Any]:
    """A database of its own, which has the extension."""
    url = make_url(postgres.url).set(drivername="postgresql+psycopg2")
    for database, statement in (
        (url.database, "create database with_hstore"),
        ("with_hstore", "create extension hstore"),
    ):
        engine = create_engine(url.set(database=database), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            connection.execute(text(statement))
    yield url.set(database="with_hstore")
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text("drop database with_hstore with (force)"))


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_where_hstore_is_its_oids_are_asked_for_once_for_all_pools_of_an_engine(
    with_hstore: Any, questions: Callable[[int], Questions], engine_for: MakeEngine, driver: str
) -> None:
    proxy = questions(with_hstore.port)
    engine = engine_for(with_hstore.set(port=proxy.port, drivername=f"postgresql+{driver}"))
    costs, pools = [], []
    for _ in range(3):
        before = proxy.asked
        with engine.connect() as connection:
            costs.append(proxy.asked - before)
            assert connection.scalar(text("select 'a=>1'::hstore")) == {"a": "1"}
        pools.append(engine.pool)
        engine.dispose(close=False)  # a goodbye would be counted
    for pool in pools:
        pool.dispose()
    first, second, third = costs
    assert first > second == third
