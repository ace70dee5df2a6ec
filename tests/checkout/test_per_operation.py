"""Does ``checkout="operation"`` hold a connection for one operation, and longer only where it must?"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import Db, Other, prepared, server_url
from threadpool_db import Pool, PoolMisuse, create_pool
from threadpool_db.checkout.per_operation import keeps
from threadpool_db.checkout.pin import Hold
from threadpool_db.waiting import Mailbox


@pytest.fixture
def db(db_url: str) -> Iterator[Db]:
    with prepared(db_url) as db:
        yield db


@pytest.fixture(params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Db]:
    """Only the databases behind a socket: nobody else could end a session of SQLite."""
    with prepared(server_url(request, request.param)) as db:
        yield db


@pytest.fixture
def pool(db: Db) -> Pool:
    return db.pool(checkout="operation", max_size=1)


@pytest.fixture
def other() -> Iterator[Other]:
    with closing(Other()) as other:
        yield other


def test_it_is_the_default(db: Db) -> None:
    pool = db.pool()
    pool.execute("select 1")
    assert pool.stats().in_use == 0


def test_between_two_operations_another_thread_has_the_connection(pool: Pool, other: Other) -> None:
    with pool.scope():
        pool.execute("select 1")
        other(lambda: pool.execute("select 1", timeout=0))
        pool.execute("select 1", timeout=0)
    assert pool.stats().opened == 1


def test_each_operation_is_a_checkout(pool: Pool) -> None:
    for _ in range(3):
        pool.execute("select 1")
    assert pool.stats().checkouts == 3


def test_after_a_block_the_connection_is_free_in_the_middle_of_a_scope(pool: Pool) -> None:
    with pool.scope():
        with pool.connection():
            pass
        assert pool.stats().in_use == 0
        with pool.transaction():
            pass
        assert pool.stats().in_use == 0


def test_a_session_that_was_killed_between_two_operations_is_replaced_without_an_error(server: Db) -> None:
    pool = server.pool(max_size=1)
    with pool.connection() as connection:
        session = server.session(connection)
    server.kill_session(session, connection)
    pool.execute(server.insert(1))
    assert server.rows() == [1]
    assert pool.stats().dead == 1


def test_what_a_thread_keeps_after_an_operation() -> None:
    hold = Hold(Mailbox(()))
    assert not keeps(hold)
    hold.pinned = True
    assert not keeps(hold)
    hold.scopes = 1
    assert keeps(hold)
    hold.pinned = False
    assert not keeps(hold)
    hold.sticky = True
    assert keeps(hold)


class TestSomethingLeftInTheSession:
    """The first cut: what a statement begins with."""

    @pytest.fixture
    def dirt(self) -> str:
        return "create temporary table t_operation (a int)"

    def test_is_refused_where_nothing_outlives_the_statement(self, pool: Pool, dirt: str) -> None:
        with pytest.raises(PoolMisuse, match=r"run it inside scope\(\), connection\(\), transaction\(\) or lease\(\)"):
            pool.execute(dirt)
        assert pool.stats().checkouts == 0

    def test_pins_the_connection_until_the_end_of_the_scope(self, pool: Pool, dirt: str) -> None:
        with pool.scope():
            pool.execute(dirt)
            assert pool.stats().in_use == 1
            with pool.scope():
                pool.execute("insert into t_operation values (1)")
            with pool.connection():
                pass
            assert len(pool.execute("select * from t_operation")) == 1
        assert pool.stats().in_use == 0
        with pytest.raises(Exception, match="t_operation"):
            pool.execute("select * from t_operation")

    def test_pins_it_until_the_end_of_the_block(self, pool: Pool, dirt: str) -> None:
        for block in (pool.connection(), pool.transaction()):
            with block:
                pool.execute(dirt)
            assert pool.stats().in_use == 0
            with pytest.raises(Exception, match="t_operation"):
                pool.execute("select * from t_operation")

    def test_in_a_block_inside_a_scope_it_pins_until_the_end_of_the_scope(self, pool: Pool, dirt: str) -> None:
        with pool.scope():
            with pool.connection():
                pool.execute(dirt)
            assert pool.stats().in_use == 1
        assert pool.stats().in_use == 0

    def test_after_lease_it_pins_until_release(self, pool: Pool, dirt: str) -> None:
        pool.lease()
        pool.execute(dirt)
        assert len(pool.execute("select * from t_operation")) == 0
        pool.release()
        with pytest.raises(Exception, match="t_operation"):
            pool.execute("select * from t_operation")

    def test_in_a_handwritten_transaction_it_pins_until_the_commit(self, pool: Pool, dirt: str) -> None:
        pool.execute("begin")
        pool.execute(dirt)
        pool.execute("commit")
        assert pool.stats().in_use == 0
        with pytest.raises(Exception, match="t_operation"):
            pool.execute("select * from t_operation")

    def test_a_scope_inside_a_block_that_ends_first_changes_nothing(self, pool: Pool, dirt: str) -> None:
        with pool.connection():
            with pool.scope():
                pool.execute(dirt)
            assert len(pool.execute("select * from t_operation")) == 0
        assert pool.stats().in_use == 0

    def test_a_statement_that_failed_counts_as_well(self, pool: Pool, db: Db, dirt: str) -> None:
        with pool.scope():
            with pytest.raises(Exception, match=r"."):
                pool.execute(f"{dirt} nonsense")
            assert pool.stats().in_use == 1
        assert pool.stats().in_use == 0

    def test_a_connection_that_died_with_it_is_an_error_not_another_connection(self, server: Db, dirt: str) -> None:
        pool = server.pool(max_size=1)
        with pool.scope():
            pool.execute(dirt)
            with pool.connection() as connection:
                session = server.session(connection)
            server.kill_session(session, connection)
            with pytest.raises(Exception, match=r"."):
                pool.execute("select 1")
            pool.execute(server.insert(1))
        assert server.rows() == [1]


# --- What a function of the database does in the middle of an operation, in this same thread --------------------------


def _act(act: Callable[[sqlite3.Connection], object], path: Path, **options: Any) -> Pool:
    """A pool over a database which has a function ``act()``."""
    return create_pool(
        f"sqlite:///{path}/test.db",
        max_size=2,
        timeout=1,
        on_connect=lambda connection: connection.create_function("act", 0, lambda: act(connection) and None),
        **options,
    )


def test_a_transaction_that_a_function_begins_keeps_the_connection(tmp_path: Path) -> None:
    with _act(lambda connection: connection.execute("begin"), tmp_path) as pool:
        pool.execute("select act()")
        assert pool.in_transaction
        assert pool.stats().in_use == 1
        pool.execute("rollback")
        assert pool.stats().in_use == 0


def test_a_function_may_use_the_pool(tmp_path: Path) -> None:
    with _act(lambda connection: pool.execute("select 1"), tmp_path) as pool:
        assert pool.execute("select act(), 2") == [(None, 2)]
        assert (pool.stats().in_use, pool.stats().total) == (0, 2)


def test_a_lease_that_a_function_takes_is_kept_beside(tmp_path: Path) -> None:
    with _act(lambda connection: pool.lease(), tmp_path) as pool:
        assert pool.execute("select act(), 2") == [(None, 2)]
        assert pool.stats().in_use == 1
        pool.release()
        assert pool.stats().in_use == 0


def test_a_lease_taken_by_a_function_that_begins_a_transaction_costs_that_one(tmp_path: Path) -> None:
    with _act(lambda connection: (pool.lease(), connection.execute("begin")), tmp_path) as pool:
        pool.execute("select act()")
        assert not pool.in_transaction
        assert pool.stats().in_use == 1
        pool.release()


def test_a_function_must_not_use_the_connection_that_its_thread_keeps(tmp_path: Path) -> None:
    said = []

    def use(connection: sqlite3.Connection) -> None:
        with pytest.raises(PoolMisuse, match=r"in the middle of an operation.*checkout\(\)") as refused:
            pool.execute("select 1")
        said.append(refused)
        with pytest.raises(PoolMisuse, match="in the middle"):
            pool.lease()
        with pool.checkout() as another:
            assert another is not connection

    with _act(use, tmp_path, checkout="thread") as pool, pool.scope():
        assert pool.execute("select act(), 2") == [(None, 2)]
        assert said
        assert pool.stats().in_use == 1


def test_a_driver_that_cannot_say_costs_nobody_his_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with create_pool(f"sqlite:///{tmp_path}/test.db", max_size=1) as pool:
        pool.execute("select 1")
        monkeypatch.setattr(pool._upkeep, "settled", lambda connection, autocommit: 1 / 0)
        assert pool.execute("select 2") == [(2,)]
        assert pool.stats().in_use == 0
