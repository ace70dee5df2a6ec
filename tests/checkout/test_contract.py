"""What does a pool promise, however long it keeps a connection, however it grows, and whatever it is connected to?

One suite over both checkout policies, the sizing strategies, each database, and three ways to connect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from functools import partial
from typing import Any, NamedTuple

import pytest

from tests.checkout import BROKEN, SOON, Db, Other, in_thread, prepared
from tests.drivers import ask, failing
from tests.scene import until
from threadpool_db import (
    Elastic,
    Fixed,
    Overflow,
    Pool,
    PoolClosed,
    PoolMisuse,
    PoolTimeout,
    StaleLease,
    TransactionAborted,
)
from threadpool_db.core.sizing import Sizing


class Shape(NamedTuple):
    checkout: str
    sizing: Sizing
    how: str

    def __str__(self) -> str:
        return f"{self.checkout}-{type(self.sizing).__name__.lower()}-{self.how}"


POLICIES = ("operation", "thread")
SHAPES = [
    *(Shape(policy, sizing, "url") for policy in POLICIES for sizing in (Elastic(), Fixed(), Overflow(1, 0))),
    *(Shape(policy, Elastic(), how) for policy in POLICIES for how in ("callable", "dbapi")),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test for every shape, but what needs a driver that knows of open transactions, or one that does not."""
    if "shape" in metafunc.fixturenames:
        wanted = {"knowing": (True,), "ignorant": (False,)}
        names = [name for name in wanted if name in metafunc.fixturenames]
        knows = wanted[names[0]] if names else (True, False)
        shapes = [shape for shape in SHAPES if (shape.how != "dbapi") in knows]
        in_proof = [pytest.mark.proof]  # Fixed differs from Elastic by what it does not do
        metafunc.parametrize(
            "shape",
            [pytest.param(s, marks=in_proof if isinstance(s.sizing, Fixed) else []) for s in shapes],
            ids=str,
        )


@pytest.fixture
def db(shape: Shape, db_url: str) -> Iterator[Db]:
    with prepared(db_url, shape.how) as db:
        yield db


@pytest.fixture
def pool(shape: Shape, db: Db) -> Pool:
    return db.pool(checkout=shape.checkout, sizing=shape.sizing, max_size=2)


@pytest.fixture
def other() -> Iterator[Other]:
    with closing(Other()) as other:
        yield other


@pytest.fixture
def knowing(db: Db) -> Db:
    """Its driver can tell whether a transaction is open."""
    return db


@pytest.fixture
def ignorant(db: Db) -> Db:
    """Its driver cannot."""
    return db


def assert_clean(pool: Pool) -> None:
    """Nobody holds anything, and the next borrower finds no transaction."""
    pool.release()
    assert pool.stats().in_use == 0
    assert not pool.in_transaction


class TestExecute:
    def test_returns_the_rows_and_the_names_of_their_columns(self, pool: Pool, db: Db) -> None:
        result = pool.execute("select 1 as one, 'x' as letter")
        assert [tuple(row) for row in result] == [(1, "x")]
        assert result.columns == ("one", "letter")

    def test_without_rows_the_result_is_empty_and_counts_what_it_changed(self, pool: Pool, db: Db) -> None:
        result = pool.execute(f"insert into {db.table} values (1), (2)")
        assert result == [] and result.columns == ()
        assert result.rowcount == 2

    def test_fills_in_parameters_in_the_drivers_own_style(self, pool: Pool, db: Db) -> None:
        pool.execute(f"insert into {db.table} values ({db.mark})", (7,))
        found = pool.execute(f"select id from {db.table} where id = {db.mark}", (7,))
        assert [row[0] for row in found] == [7]

    def test_names_the_last_row_id_where_the_driver_does(self, pool: Pool, db: Db) -> None:
        result = pool.execute(db.insert(5))
        assert result.lastrowid == {"sqlite": 1, "psycopg": None}.get(db.name, 0)

    def test_is_committed_at_once(self, pool: Pool, db: Db) -> None:
        pool.execute(db.insert(1))
        assert db.rows() == [1]

    def test_the_drivers_own_error_comes_through_and_the_next_statement_works(self, pool: Pool, db: Db) -> None:
        pool.execute(db.insert(1))
        with pytest.raises(Exception) as caught:
            pool.execute(db.insert(1))
        assert type(caught.value).__module__.partition(".")[0] in ("sqlite3", "psycopg2", "psycopg", "pymysql")
        assert not pool.in_transaction
        pool.execute(db.insert(2))
        assert db.rows() == [1, 2]
        assert_clean(pool)

    def test_a_failed_statement_costs_no_connection(self, pool: Pool, db: Db) -> None:
        for _ in range(5):
            with pytest.raises(Exception, match=r"."):
                pool.execute(BROKEN)
        assert pool.stats().opened == 1
        assert_clean(pool)

    def test_a_thousand_operations_use_one_connection(self, pool: Pool, db: Db) -> None:
        for _ in range(100):
            pool.execute("select 1")
        assert pool.stats().opened == 1

    def test_joins_the_block_around_it(self, pool: Pool, db: Db) -> None:
        with pool.connection():
            pool.execute(db.insert(1))
            assert [row[0] for row in pool.execute(db.select)] == [1]
            assert pool.stats().in_use == 1
        assert db.rows() == []
        assert_clean(pool)


class TestConnection:
    def test_gives_the_drivers_own_connection(self, pool: Pool, db: Db) -> None:
        with pool.connection() as connection:
            modules = ("sqlite3", "psycopg2", "psycopg", "threadpool_db", "pymysql")
            assert type(connection).__module__.partition(".")[0] in modules
            assert ask(connection, "select 1")[0][0] == 1

    def test_is_rolled_back_unless_committed(self, pool: Pool, db: Db) -> None:
        with pool.connection() as connection:
            ask(connection, db.insert(1))
            connection.commit()
            ask(connection, db.insert(2))
        assert db.rows() == [1]
        assert_clean(pool)

    def test_an_error_passes_and_rolls_back(self, pool: Pool, db: Db) -> None:
        error = RuntimeError("mine")
        with pytest.raises(RuntimeError) as caught:
            with pool.connection() as connection:
                ask(connection, db.insert(1))
                raise error
        assert caught.value is error and error.__context__ is None
        assert db.rows() == []
        assert_clean(pool)

    def test_an_inner_block_is_the_same_connection_and_leaves_its_end_to_the_outer_one(
        self, pool: Pool, db: Db
    ) -> None:
        with pool.connection() as outer:
            ask(outer, db.insert(1))
            with pool.connection() as inner:
                assert inner is outer
                ask(inner, db.insert(2))
            assert pool.stats().in_use == 1
            outer.commit()
        assert db.rows() == [1, 2]
        assert_clean(pool)

    def test_an_error_caught_outside_an_inner_block_leaves_the_outer_one_as_it_was(self, pool: Pool, db: Db) -> None:
        with pool.connection() as connection:
            ask(connection, db.insert(1))
            with pytest.raises(RuntimeError), pool.connection():
                raise RuntimeError
            connection.commit()
        assert db.rows() == [1]

    def test_the_connection_is_free_again_afterwards(self, pool: Pool, db: Db) -> None:
        for _ in range(5):
            with pool.connection() as connection:
                ask(connection, "select 1")
        assert (pool.stats().in_use, pool.stats().opened) == (0, 1)

    def test_a_block_is_entered_once(self, pool: Pool) -> None:
        for block in (pool.connection(), pool.transaction()):
            with block:
                with pytest.raises(PoolMisuse, match="entered already"):
                    block.__enter__()
            with pytest.raises(PoolMisuse, match="entered already"):
                block.__enter__()
        assert_clean(pool)

    def test_a_transaction_inside_it_is_committed_by_itself(self, pool: Pool, db: Db) -> None:
        with pool.connection() as connection:
            with pool.transaction() as same:
                assert same is connection
                ask(connection, db.insert(1))
            assert db.rows() == [1]
            ask(connection, db.insert(2))
        assert db.rows() == [1]

    def test_a_transaction_that_fails_inside_it_is_rolled_back_by_itself(self, pool: Pool, db: Db) -> None:
        with pool.connection() as connection:
            with pytest.raises(RuntimeError), pool.transaction():
                ask(connection, db.insert(1))
                raise RuntimeError
            ask(connection, db.insert(2))
            connection.commit()
        assert db.rows() == [2]


class TestTransaction:
    def test_commits_at_the_end(self, pool: Pool, db: Db) -> None:
        with pool.transaction() as connection:
            ask(connection, db.insert(1))
            pool.execute(db.insert(2))
            assert db.rows() == []
        assert db.rows() == [1, 2]
        assert_clean(pool)

    def test_rolls_back_on_an_error_which_passes(self, pool: Pool, db: Db) -> None:
        error = RuntimeError("mine")
        with pytest.raises(RuntimeError) as caught:
            with pool.transaction() as connection:
                ask(connection, db.insert(1))
                raise error
        assert caught.value is error
        assert db.rows() == []
        assert_clean(pool)

    def test_an_empty_one_is_fine(self, pool: Pool) -> None:
        with pool.transaction(), pool.transaction():
            pass
        with pytest.raises(RuntimeError), pool.transaction(), pool.transaction():
            raise RuntimeError
        assert_clean(pool)

    def test_an_error_of_the_driver_passes_unchanged(self, pool: Pool, db: Db) -> None:
        with pytest.raises(Exception) as caught:
            with pool.transaction() as connection:
                ask(connection, db.insert(1))
                ask(connection, db.insert(1))
        assert type(caught.value).__name__ in ("IntegrityError", "UniqueViolation")
        assert db.rows() == []
        assert_clean(pool)

    def test_they_nest_three_deep(self, pool: Pool, db: Db) -> None:
        with pool.transaction():
            pool.execute(db.insert(1))
            with pool.transaction():
                pool.execute(db.insert(2))
                with pool.transaction():
                    pool.execute(db.insert(3))
            assert db.rows() == []
        assert db.rows() == [1, 2, 3]
        assert_clean(pool)

    @pytest.mark.parametrize(("failing_level", "kept"), [(3, [1, 2, 4, 5]), (2, [1, 5]), (1, [])])
    def test_a_failure_undoes_its_own_level_and_what_is_inside(
        self, pool: Pool, db: Db, failing_level: int, kept: list[int]
    ) -> None:
        def level(number: int) -> None:
            try:
                with pool.transaction():
                    pool.execute(db.insert(number))
                    if number < 3:
                        level(number + 1)
                        pool.execute(db.insert(6 - number))
                    if number == failing_level:
                        raise RuntimeError
            except RuntimeError:
                pass

        level(1)
        assert db.rows() == kept
        assert_clean(pool)

    def test_an_inner_failure_of_the_database_leaves_the_outer_one_usable(self, pool: Pool, db: Db) -> None:
        with pool.transaction():
            pool.execute(db.insert(1))
            with pytest.raises(Exception, match=r"."), pool.transaction():
                pool.execute(db.insert(2))
                pool.execute(db.insert(1))
            pool.execute(db.insert(3))
        assert db.rows() == [1, 3]

    def test_the_first_statement_may_be_an_inner_ones_and_still_is_the_outer_ones_to_undo(
        self, pool: Pool, db: Db
    ) -> None:
        with pytest.raises(RuntimeError), pool.transaction():
            with pool.transaction():
                pool.execute(db.insert(1))
            raise RuntimeError
        assert db.rows() == []
        assert_clean(pool)

    def test_inner_ones_may_follow_each_other(self, pool: Pool, db: Db) -> None:
        with pool.transaction():
            for number in range(1, 5):
                try:
                    with pool.transaction():
                        pool.execute(db.insert(number))
                        if number % 2:
                            raise RuntimeError
                except RuntimeError:
                    pass
        assert db.rows() == [2, 4]

    def test_a_connection_block_inside_is_part_of_it(self, pool: Pool, db: Db) -> None:
        with pool.transaction() as outer:
            with pool.connection() as connection:
                assert connection is outer
                ask(connection, db.insert(1))
        assert db.rows() == [1]

    def test_whoever_commits_by_hand_inside_may(self, pool: Pool, db: Db) -> None:
        with pool.transaction() as connection:
            pool.execute(db.insert(1))
            if db.how == "dbapi":
                connection.commit()
            else:
                pool.execute("commit")
            assert db.rows() == [1]
        assert db.rows() == [1]
        assert_clean(pool)

    def test_a_swallowed_error_is_reported_where_the_database_gives_the_transaction_up(
        self, pool: Pool, knowing: Db
    ) -> None:
        db = knowing

        def careless() -> None:
            with pool.transaction():
                pool.execute(db.insert(1))
                with pytest.raises(Exception, match=r"."):
                    pool.execute(BROKEN)

        if db.gives_up:
            with pytest.raises(TransactionAborted, match=r"swallowed.*rolled back"):
                careless()
            assert db.rows() == []
        else:
            careless()
            assert db.rows() == [1]
        assert_clean(pool)

    def test_a_swallowed_error_of_an_inner_one_undoes_it_alone(self, pool: Pool, knowing: Db) -> None:
        db = knowing
        with pool.transaction():
            pool.execute(db.insert(1))
            gives_up = db.gives_up
            with pytest.raises(TransactionAborted, match="inner") if gives_up else nullcontext():
                with pool.transaction():
                    pool.execute(db.insert(2))
                    with pytest.raises(Exception, match=r"."):
                        pool.execute(BROKEN)
            pool.execute(db.insert(3))
        assert db.rows() == ([1, 3] if db.gives_up else [1, 2, 3])


class TestHandwrittenTransactions:
    def test_a_begin_pins_the_thread_until_the_commit(self, pool: Pool, knowing: Db, shape: Shape) -> None:
        db = knowing
        pool.execute("begin")
        assert pool.in_transaction
        pool.execute(db.insert(1))
        pool.execute(db.insert(2))
        assert pool.stats().in_use == 1
        assert db.rows() == []
        pool.execute("commit")
        assert not pool.in_transaction
        assert db.rows() == [1, 2]
        assert pool.stats().in_use == (1 if shape.checkout == "thread" else 0)
        assert_clean(pool)

    def test_a_rollback_lets_go_too(self, pool: Pool, knowing: Db, shape: Shape) -> None:
        db = knowing
        pool.execute("  -- by hand\nSTART TRANSACTION" if db.name != "sqlite" else "/* by hand */ BEGIN IMMEDIATE")
        pool.execute(db.insert(1))
        pool.execute("rollback")
        assert db.rows() == []
        assert pool.stats().in_use == (1 if shape.checkout == "thread" else 0)
        assert_clean(pool)

    def test_another_thread_never_sees_the_pinned_connection(self, pool: Pool, knowing: Db, other: Other) -> None:
        db = knowing
        pool.execute("begin")
        pool.execute(db.insert(1))
        mine = pool.lease().connection
        assert other(lambda: pool.in_transaction) is False
        assert [row[0] for row in other(lambda: pool.execute(db.select))] == []

        def look() -> Any:
            with pool.connection() as connection:
                return connection

        assert other(look) is not mine
        other(pool.release)
        pool.execute("rollback")
        assert_clean(pool)

    def test_a_failed_statement_inside_keeps_the_transaction_and_its_pin(self, pool: Pool, knowing: Db) -> None:
        db = knowing
        pool.execute("begin")
        pool.execute(db.insert(1))
        with pytest.raises(Exception, match=r"."):
            pool.execute(db.insert(1))
        assert pool.in_transaction
        pool.execute("rollback")
        assert db.rows() == []
        assert_clean(pool)

    def test_a_transaction_block_inside_is_a_savepoint(self, pool: Pool, knowing: Db) -> None:
        db = knowing
        pool.execute("begin")
        pool.execute(db.insert(1))
        with pytest.raises(RuntimeError), pool.transaction():
            pool.execute(db.insert(2))
            raise RuntimeError
        with pool.transaction():
            pool.execute(db.insert(3))
        assert pool.in_transaction and db.rows() == []
        pool.execute("commit")
        assert db.rows() == [1, 3]
        assert_clean(pool)

    def test_a_connection_block_inside_neither_ends_it_nor_lets_go(self, pool: Pool, knowing: Db) -> None:
        db = knowing
        pool.execute("begin")
        with pool.connection() as connection:
            ask(connection, db.insert(1))
        with pytest.raises(RuntimeError), pool.connection():
            raise RuntimeError
        assert pool.in_transaction
        pool.execute("commit")
        assert db.rows() == [1]
        assert_clean(pool)

    def test_a_commit_inside_a_connection_block_lets_go_at_the_blocks_end(
        self, pool: Pool, knowing: Db, shape: Shape
    ) -> None:
        db = knowing
        pool.execute("begin")
        with pool.connection() as connection:
            ask(connection, db.insert(1))
            ask(connection, "commit")
        assert not pool.in_transaction
        assert db.rows() == [1]
        assert_clean(pool)

    def test_a_begin_where_the_driver_cannot_tell_is_refused(self, pool: Pool, ignorant: Db) -> None:
        with pytest.raises(PoolMisuse, match=r"hand-written BEGIN.*use transaction\(\)"):
            pool.execute("begin")
        assert_clean(pool)

    def test_a_connection_never_returns_to_the_pool_in_a_transaction(self, pool: Pool, db: Db) -> None:
        with pool.checkout() as connection:
            ask(connection, "begin" if not db.gives_up else "select 1")
            ask(connection, db.insert(1))
        lease = pool.checkout()
        ask(lease.connection, db.insert(1))
        lease.checkin()
        assert db.rows() == []
        assert pool.stats().in_use == 0


class TestScope:
    def test_borrows_nothing(self, pool: Pool) -> None:
        with pool.scope():
            assert pool.stats().opened == 0
        assert pool.stats().checkouts == 0

    def test_at_its_end_the_thread_has_nothing(self, pool: Pool, db: Db) -> None:
        with pool.scope():
            pool.execute(db.insert(1))
            pool.lease()
            assert pool.stats().in_use == 1
        assert pool.stats().in_use == 0
        assert db.rows() == [1]

    def test_an_inner_one_leaves_it_to_the_outer_one(self, pool: Pool) -> None:
        with pool.scope():
            lease = pool.lease()
            with pool.scope():
                assert pool.lease() is lease
            assert lease.active
        assert not lease.active

    def test_an_open_transaction_is_rolled_back_with_a_warning_that_names_the_line(
        self, pool: Pool, knowing: Db
    ) -> None:
        scope = pool.scope()
        scope.__enter__()
        pool.execute("begin")
        pool.execute(knowing.insert(1))
        with pytest.warns(RuntimeWarning, match=r"open transaction, which was rolled back; .*test_contract\.py:\d+"):
            scope.__exit__(None, None, None)
        assert knowing.rows() == []
        assert_clean(pool)

    def test_an_error_in_it_passes_without_a_warning(self, pool: Pool, knowing: Db) -> None:
        error = RuntimeError("mine")
        with pytest.raises(RuntimeError) as caught:
            with pool.scope():
                pool.execute("begin")
                pool.execute(knowing.insert(1))
                raise error
        assert caught.value is error and error.__context__ is None
        assert knowing.rows() == []
        assert_clean(pool)

    def test_where_warnings_are_errors_the_connection_is_given_back_all_the_same(self, pool: Pool, knowing: Db) -> None:
        with pytest.raises(RuntimeWarning):
            with pool.scope():
                pool.execute("begin")
        assert pool.stats().in_use == 0

    def test_inside_a_block_it_leaves_the_connection_to_the_block(self, pool: Pool, db: Db) -> None:
        with pool.connection() as connection:
            with pool.scope():
                lease = pool.lease()
                ask(connection, db.insert(1))
            assert lease.active
            connection.commit()
        assert not lease.active
        assert db.rows() == [1]
        assert_clean(pool)

    def test_a_scope_is_one_at_a_time_and_may_be_used_again(self, pool: Pool) -> None:
        scope = pool.scope()
        for _ in range(2):
            with scope:
                with pytest.raises(PoolMisuse, match="entered already"):
                    scope.__enter__()


class TestLease:
    def test_is_kept_until_release(self, pool: Pool, db: Db) -> None:
        lease = pool.lease()
        assert pool.lease() is lease
        pool.execute(db.insert(1))
        with pool.connection() as connection:
            assert connection is lease.connection
        with pool.transaction() as connection:
            assert connection is lease.connection
        assert lease.active and pool.stats().in_use == 1
        pool.release()
        assert not lease.active and pool.stats().in_use == 0
        with pytest.raises(StaleLease):
            _ = lease.connection

    def test_each_thread_has_its_own(self, pool: Pool, other: Other) -> None:
        mine = pool.lease().connection
        assert other(lambda: pool.lease().connection) is not mine
        other(pool.release)
        assert pool.lease().connection is mine
        assert_clean(pool)

    def test_checkout_is_always_another_one(self, pool: Pool) -> None:
        lease = pool.lease()
        with pool.checkout() as connection:
            assert connection is not lease.connection
        assert_clean(pool)

    def test_execute_outside_a_transaction_is_committed_at_once(self, pool: Pool, db: Db) -> None:
        pool.lease()
        pool.execute(db.insert(1))
        assert db.rows() == [1]
        assert_clean(pool)

    def test_taken_inside_a_block_it_outlives_the_block(self, pool: Pool, db: Db) -> None:
        with pool.connection() as connection:
            lease = pool.lease()
            ask(connection, db.insert(1))
        assert lease.active and lease.connection is connection
        assert db.rows() == []
        assert_clean(pool)

    @pytest.mark.parametrize("end", ["checkin", "discard", "detach"])
    def test_its_user_may_end_it_directly(self, pool: Pool, db: Db, end: str) -> None:
        lease = pool.lease()
        connection = lease.connection
        getattr(lease, end)()
        assert pool.stats().in_use == 0
        assert not pool.in_transaction
        pool.execute(db.insert(1))
        pool.release()
        assert db.rows() == [1]
        if end == "detach":
            connection.close()
        assert_clean(pool)

    def test_the_pool_may_be_told_so_as_well(self, pool: Pool, db: Db) -> None:
        pool.checkin(pool.lease())
        assert pool.stats().in_use == 0
        with pool.lease() as connection:
            ask(connection, db.insert(1))
        assert db.rows() == []
        assert_clean(pool)

    def test_ended_inside_a_connection_block_nothing_runs_on_another_connection_by_mistake(
        self, pool: Pool, db: Db
    ) -> None:
        lease = pool.lease()
        with pool.connection():
            lease.checkin()
            for act in (
                lambda: pool.execute(db.insert(1)),
                pool.lease,
                pool.connection().__enter__,
                pool.transaction().__enter__,
            ):
                with pytest.raises(StaleLease, match="the block around"):
                    act()
            assert not pool.in_transaction
        assert db.rows() == []
        pool.execute(db.insert(2))
        assert db.rows() == [2]
        assert_clean(pool)

    def test_ended_inside_a_transaction_block_the_block_does_not_end_as_if_it_had_committed(
        self, pool: Pool, db: Db
    ) -> None:
        lease = pool.lease()
        with pytest.raises(TransactionAborted, match="before its end; the transaction was not committed"):
            with pool.transaction():
                pool.execute(db.insert(1))
                lease.checkin()
        assert db.rows() == []
        lease, error = pool.lease(), RuntimeError("mine")
        with pytest.raises(RuntimeError) as caught, pool.transaction():
            lease.discard()
            raise error
        assert caught.value is error
        assert_clean(pool)

    def test_release_with_nothing_to_let_go_of_is_fine(self, pool: Pool) -> None:
        pool.release()
        pool.release()

    def test_release_in_a_block_is_refused(self, pool: Pool) -> None:
        for block in (pool.connection(), pool.transaction()):
            with (
                block,
                pytest.raises(PoolMisuse, match=r"release\(\) inside a connection\(\) or transaction\(\) block"),
            ):
                pool.release()
        assert_clean(pool)

    def test_release_in_a_transaction_is_refused(self, pool: Pool, knowing: Db) -> None:
        lease = pool.lease()
        ask(lease.connection, knowing.insert(1))
        with pytest.raises(PoolMisuse, match=r"release\(\) inside an open transaction"):
            pool.release()
        lease.connection.rollback()
        assert_clean(pool)

    def test_release_after_a_failed_statement_of_ones_own_works(self, pool: Pool, db: Db) -> None:
        lease = pool.lease()
        failing(lease.connection, BROKEN)
        lease.connection.rollback()
        assert_clean(pool)

    def test_release_after_its_user_closed_the_connection_works(self, pool: Pool, db: Db) -> None:
        connection = pool.lease().connection
        connection.close()
        assert not pool.in_transaction
        pool.release()
        pool.execute(db.insert(1))
        assert db.rows() == [1]
        assert_clean(pool)


class TestInTransaction:
    def test_is_false_with_nothing_in_hand(self, pool: Pool) -> None:
        assert pool.in_transaction is False
        assert pool.stats().opened == 0

    def test_tells_the_truth(self, pool: Pool, db: Db) -> None:
        seen = []
        pool.execute(db.insert(1))
        seen.append(pool.in_transaction)
        with pool.transaction():
            seen.append(pool.in_transaction)
            with pool.transaction():
                seen.append(pool.in_transaction)
            seen.append(pool.in_transaction)
        seen.append(pool.in_transaction)
        with pool.connection():
            seen.append(pool.in_transaction)
        assert seen == [False, True, True, True, False, False]

    def test_tells_the_truth_of_raw_statements(self, pool: Pool, knowing: Db) -> None:
        db = knowing
        with pool.connection() as connection:
            ask(connection, db.insert(1))
            assert pool.in_transaction
            connection.commit()
            assert not pool.in_transaction
            ask(connection, db.select)
            assert pool.in_transaction is (db.name != "sqlite")
            connection.rollback()
            assert not pool.in_transaction
            failing(connection, BROKEN)
            assert pool.in_transaction is (db.gives_up)
        pool.execute("begin")
        assert pool.in_transaction
        with pytest.raises(Exception, match=r"."):
            pool.execute(BROKEN)
        assert pool.in_transaction
        pool.execute("rollback")
        assert not pool.in_transaction

    def test_is_each_threads_own(self, pool: Pool, db: Db, other: Other) -> None:
        with pool.transaction():
            assert other(lambda: pool.in_transaction) is False


class TestWaiting:
    def test_each_way_of_borrowing_has_a_timeout_of_its_own(self, shape: Shape, db: Db, other: Other) -> None:
        pool = db.pool(checkout=shape.checkout, sizing=shape.sizing, max_size=1, timeout=60.0)
        other(pool.lease)
        ways: list[Callable[[], Any]] = [
            lambda: pool.execute("select 1", timeout=0),
            lambda: pool.connection(timeout=0).__enter__(),
            lambda: pool.transaction(0).__enter__(),
            lambda: pool.lease(timeout=0.001),
            lambda: pool.checkout(0.001),
        ]
        for way in ways:
            with pytest.raises(PoolTimeout, match="1 in use"):
                way()
            assert not pool.in_transaction
        other(pool.release)
        pool.execute("select 1", timeout=SOON)
        assert_clean(pool)

    def test_an_impossible_timeout_is_refused(self, pool: Pool) -> None:
        for way in (pool.checkout, pool.lease, pool.connection(-1).__enter__, pool.transaction(-1).__enter__):
            with pytest.raises(ValueError, match="timeout=-1"):
                way(-1) if way in (pool.checkout, pool.lease) else way()
        with pytest.raises(ValueError, match="timeout=-1"):
            pool.execute("select 1", timeout=-1)
        assert_clean(pool)

    def test_a_timeout_that_finds_leases_kept_but_idle_says_so(self, shape: Shape, db: Db, other: Other) -> None:
        pool = db.pool(checkout=shape.checkout, sizing=shape.sizing, max_size=1)

        def keep() -> None:
            pool.lease()
            pool.execute("select 1")

        other(keep)
        with pytest.raises(PoolTimeout, match="Kept for their threads and unused: 1"):
            pool.execute("select 1", timeout=0)
        other(pool.release)


class TestInterrupts:
    @pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
    def test_in_a_block_the_connection_is_closed_unless_idle(
        self, pool: Pool, db: Db, interrupt: type[BaseException]
    ) -> None:
        with pytest.raises(interrupt):
            with pool.connection() as connection:
                ask(connection, db.insert(1))
                raise interrupt
        assert pool.stats().total == 0
        assert db.rows() == []

    def test_where_the_driver_says_idle_the_connection_is_kept(self, pool: Pool, knowing: Db) -> None:
        with pool.checkout():
            pass  # a foreign PyMySQL connection tells its state only after the first rollback
        with pytest.raises(KeyboardInterrupt):
            with pool.connection() as connection:
                ask(connection, knowing.insert(1))
                connection.commit()
                raise KeyboardInterrupt
        assert pool.stats().total == 1
        assert_clean(pool)

    def test_in_a_transaction_nothing_is_committed_and_the_connection_closed(self, pool: Pool, db: Db) -> None:
        with pytest.raises(KeyboardInterrupt):
            with pool.transaction():
                pool.execute(db.insert(1))
                with pool.transaction():
                    pool.execute(db.insert(2))
                    raise KeyboardInterrupt
        assert pool.stats().total == 0
        assert db.rows() == []
        pool.execute(db.insert(3))
        assert db.rows() == [3]
        assert_clean(pool)

    def test_swallowed_between_inner_and_outer_transaction_nothing_is_committed(self, pool: Pool, db: Db) -> None:
        with pytest.raises(TransactionAborted):
            with pool.transaction():
                pool.execute(db.insert(1))
                with pytest.raises(KeyboardInterrupt), pool.transaction():
                    pool.execute(db.insert(2))
                    raise KeyboardInterrupt
        assert db.rows() == []
        assert_clean(pool)

    def test_a_sticky_lease_that_was_interrupted_is_closed_as_well(self, pool: Pool, db: Db) -> None:
        lease = pool.lease()
        with pytest.raises(KeyboardInterrupt):
            with pool.connection() as connection:
                ask(connection, db.insert(1))
                raise KeyboardInterrupt
        assert not lease.active
        assert pool.stats().total == 0
        assert db.rows() == []

    def test_a_generator_that_is_closed_early_rolls_back_and_keeps_the_connection(self, pool: Pool, db: Db) -> None:
        def numbers() -> Iterator[int]:
            with pool.connection() as connection:
                ask(connection, db.insert(1))
                yield 1
                yield 2

        rows = numbers()
        assert next(rows) == 1
        rows.close()  # type: ignore[attr-defined]
        assert db.rows() == []
        assert (pool.stats().in_use, pool.stats().total) == (0, 1)

    def test_a_generator_closed_early_inside_a_transaction_undoes_its_own_part(self, pool: Pool, db: Db) -> None:
        def numbers() -> Iterator[int]:
            with pool.transaction():
                pool.execute(db.insert(2))
                yield 2

        with pool.transaction():
            pool.execute(db.insert(1))
            rows = numbers()
            next(rows)
            rows.close()  # type: ignore[attr-defined]
        assert db.rows() == [1]
        rows = numbers()
        next(rows)
        rows.close()  # type: ignore[attr-defined]
        assert db.rows() == [1]
        assert pool.stats().total == 1
        assert_clean(pool)


class TestOrder:
    def test_a_block_left_before_one_inside_it_takes_the_connection_from_nobody(self, pool: Pool, db: Db) -> None:
        first, second = pool.connection(), pool.connection()
        connection = first.__enter__()
        assert second.__enter__() is connection
        ask(connection, db.insert(1))
        first.__exit__(None, None, None)
        assert pool.stats().in_use == 1
        connection.commit()
        ask(connection, db.insert(2))
        second.__exit__(None, None, None)
        assert db.rows() == [1]
        assert_clean(pool)

    def test_transactions_left_out_of_order_commit_nothing(self, pool: Pool, db: Db) -> None:
        first, second = pool.transaction(), pool.transaction()
        first.__enter__()
        pool.execute(db.insert(1))
        second.__enter__()
        pool.execute(db.insert(2))
        with pytest.raises(PoolMisuse, match="ended before one that was begun inside it"):
            first.__exit__(None, None, None)
        with pytest.raises(StaleLease):
            pool.execute(db.insert(3))
        with pytest.raises(TransactionAborted):
            second.__exit__(None, None, None)
        assert db.rows() == []
        assert_clean(pool)

    def test_an_error_is_not_hidden_by_the_wrong_order(self, pool: Pool, db: Db) -> None:
        first, second = pool.transaction(), pool.transaction()
        first.__enter__()
        second.__enter__()
        pool.execute(db.insert(2))
        error = RuntimeError("mine")
        first.__exit__(RuntimeError, error, None)
        second.__exit__(RuntimeError, error, None)
        assert db.rows() == []
        assert_clean(pool)

    def test_a_block_left_in_another_thread_is_closed_and_says_so(self, pool: Pool, db: Db) -> None:
        for block in (pool.connection(), pool.transaction()):
            connection = block.__enter__()
            ask(connection, db.insert(1))
            with pytest.raises(PoolMisuse, match=r"in another thread ended here.*checkout\(\)"):
                in_thread(partial(block.__exit__, None, None, None))
            assert pool.stats().total == 0
            assert db.rows() == []
            pool.execute("select 1")
            assert_clean(pool)
            pool.recycle()

    def test_a_generator_finished_in_another_thread_harms_nobody(self, pool: Pool, db: Db) -> None:
        def numbers() -> Iterator[int]:
            with pool.transaction():
                pool.execute(db.insert(1))
                yield 1

        rows = numbers()
        next(rows)
        in_thread(rows.close)  # type: ignore[attr-defined]
        assert db.rows() == []
        assert pool.stats().total == 0
        pool.execute(db.insert(2))
        assert db.rows() == [2]
        assert_clean(pool)

    def test_an_inner_block_left_in_another_thread_spoils_the_outer_one(self, pool: Pool, db: Db) -> None:
        with pytest.raises(TransactionAborted):
            with pool.transaction():
                pool.execute(db.insert(1))
                inner = pool.connection()
                inner.__enter__()
                with pytest.raises(PoolMisuse, match="another thread"):
                    in_thread(lambda: inner.__exit__(None, None, None))
        assert db.rows() == []
        assert_clean(pool)

    def test_a_scope_left_in_another_thread_lets_go_and_says_so(self, pool: Pool, db: Db) -> None:
        for lease_first in (True, False):
            scope = pool.scope()
            scope.__enter__()
            lease = pool.lease() if lease_first else None
            with pytest.raises(PoolMisuse, match="scope that was entered in another thread"):
                in_thread(partial(scope.__exit__, None, None, None))
            assert lease is None or not lease.active
            assert pool.stats().in_use == 0
        scope = pool.scope()
        scope.__enter__()
        in_thread(lambda: scope.__exit__(RuntimeError, RuntimeError(), None))
        with pool.scope():
            pool.lease()
        assert_clean(pool)

    def test_a_block_that_is_dropped_without_its_end_loses_only_its_connection(self, pool: Pool, db: Db) -> None:
        def drop(block: Any, warned: Any) -> None:
            block().__enter__()
            assert not pool.in_transaction
            pool.recycle()  # reads the mail
            until(lambda: warned.list)  # or the keeper has read it, and is about to say so

        for block in (pool.connection, pool.transaction):
            pool.checkout().checkin()
            with pytest.warns(ResourceWarning, match="dropped without checkin") as warned:
                drop(block, warned)
            assert pool.stats().in_use == 0
        pool.execute(db.insert(1))
        assert db.rows() == [1]
        assert_clean(pool)

    def test_an_inner_block_that_is_dropped_without_its_end_leaves_the_outer_one_alone(
        self, pool: Pool, db: Db
    ) -> None:
        with pool.connection() as connection:
            pool.connection().__enter__()
            ask(connection, db.insert(1))
            connection.commit()
        assert db.rows() == [1]
        assert_clean(pool)


class TestEnds:
    def test_a_thread_that_ends_gives_its_lease_back(self, shape: Shape, db: Db) -> None:
        pool = db.pool(checkout=shape.checkout, sizing=shape.sizing, max_size=1)

        def leave_a_pin() -> None:
            if db.knows:
                pool.execute("begin")
            pool.execute(db.insert(1))

        for _ in range(3):
            in_thread(leave_a_pin)
            pool.execute(f"delete from {db.table}")
            assert pool.stats().in_use <= 1
            pool.release()
        # one of Overflow's is closed on its return, if the keeper hears of the dead thread before we wait for it
        assert pool.stats().opened in (range(3, 7) if isinstance(shape.sizing, Overflow) else (1,))
        assert_clean(pool)

    def test_a_lease_that_its_dead_thread_handed_out_is_closed_not_shared(self, shape: Shape, db: Db) -> None:
        pool = db.pool(checkout=shape.checkout, sizing=shape.sizing, max_size=1)
        lease = in_thread(pool.lease)
        assert not lease.active
        pool.execute("select 1")
        assert (pool.stats().opened, pool.stats().lost) == (2, 0)
        assert_clean(pool)

    def test_close_takes_back_what_this_thread_keeps(self, pool: Pool, knowing: Db) -> None:
        pool.execute("begin")
        pool.execute(knowing.insert(1))
        pool.close(timeout=0)
        assert pool.stats().total == 0
        assert knowing.rows() == []
        with pytest.raises(PoolClosed):
            pool.execute("select 1")

    def test_close_inside_a_block_leaves_the_block_its_connection(self, pool: Pool, db: Db) -> None:
        with pool.transaction():
            pool.execute(db.insert(1))
            pool.close()
            pool.execute(db.insert(2))
        assert db.rows() == [1, 2]
        assert pool.stats().total == 0
        with pytest.raises(PoolClosed), pool.connection():
            pass

    def test_what_another_thread_keeps_it_gives_back_when_it_comes_again(
        self, pool: Pool, db: Db, other: Other
    ) -> None:
        other(lambda: pool.execute(db.insert(1)))
        pool.close(timeout=0)
        with pytest.raises(PoolClosed):
            other(lambda: pool.execute(db.insert(2)))
        assert pool.stats().total == 0
        assert db.rows() == [1]
