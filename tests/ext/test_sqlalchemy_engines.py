"""What else may an engine's pool meet: raw code that shares it, a database in memory, another process, a full line?"""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pymysql
import pytest
from sqlalchemy import create_engine, exc, text

from tests.ext.conftest import Creator, Questions, sessions, waiting
from tests.scene import SOON, background, join
from tests.servers import MariaDB, Postgres
from threadpool_db.errors import PoolOverloaded
from threadpool_db.ext.sqlalchemy import CheckoutOverloaded, ThreadPool

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
