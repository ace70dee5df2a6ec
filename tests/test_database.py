"""Does ``Face`` keep its promises where databases and drivers make it hard? Modes, traps, errors, and what is sent."""

from __future__ import annotations

import gc
import sqlite3
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import BROKEN, SOON, Db, Other, prepared, server_url, stock
from tests.drivers import ask, failing
from threadpool_db import Pool, PoolMisuse, TransactionAborted, create_pool
from threadpool_db.drivers.base import BUSY, OPEN, UNKNOWN
from threadpool_db.testing import FakeClock, ScriptedConnection, ScriptedDriver


@pytest.fixture
def db(db_url: str) -> Iterator[Db]:
    with prepared(db_url) as db:
        yield db


@pytest.fixture
def postgres_db(request: pytest.FixtureRequest) -> Iterator[Db]:
    with prepared(server_url(request, "postgres")) as db:
        yield db


@pytest.fixture
def mariadb_db(request: pytest.FixtureRequest) -> Iterator[Db]:
    with prepared(server_url(request, "mariadb")) as db:
        yield db


@pytest.fixture
def other() -> Iterator[Other]:
    with closing(Other()) as other:
        yield other


class TestMode:
    """Autocommit: execute and transaction have it on, a borrowed connection is as it was made."""

    def test_a_borrowed_connection_is_in_the_mode_in_which_it_was_made(self, db: Db) -> None:
        pool = db.pool(max_size=1)
        for _ in range(2):
            with pool.connection() as connection:
                assert db.made_by.autocommit(connection) is False
            with pool.checkout() as connection:
                assert db.made_by.autocommit(connection) is False
            pool.execute("select 1")
            with pool.transaction() as connection:
                assert db.made_by.autocommit(connection) is True

    def test_a_connection_made_in_autocommit_stays_in_it(self, db: Db) -> None:
        joint = "&" if "?" in db.url else "?"
        with create_pool(f"{db.url}{joint}autocommit=true", max_size=1) as pool:
            with pool.connection() as connection:
                assert db.made_by.autocommit(connection) is True
                ask(connection, db.insert(1))
            assert db.rows() == [1]

    def test_a_mode_that_a_borrower_changed_is_put_back(self, db: Db) -> None:
        pool = db.pool(max_size=1)
        for borrow in (pool.connection, pool.checkout):
            with borrow() as connection:
                db.made_by.set_autocommit(connection, True)
            with borrow() as connection:
                assert db.made_by.autocommit(connection) is False
                ask(connection, db.insert(1))
            assert db.rows() == []

    def test_a_lease_is_in_the_mode_in_which_it_was_made_whatever_the_thread_executes(self, db: Db) -> None:
        pool = db.pool(max_size=1)
        connection = pool.lease().connection
        pool.execute(db.insert(1))
        assert db.rows() == [1]
        assert db.made_by.autocommit(connection) is False
        ask(connection, db.insert(2))
        assert pool.in_transaction
        connection.rollback()
        with pool.transaction():
            pool.execute(db.insert(3))
            with pytest.raises(RuntimeError), pool.transaction():
                pool.execute(db.insert(4))
                raise RuntimeError
        assert db.rows() == [1, 3]
        assert db.made_by.autocommit(connection) is False
        pool.release()

    def test_a_lease_stays_in_the_mode_that_its_user_chose(self, db: Db) -> None:
        pool = db.pool(max_size=1)
        connection = pool.lease().connection
        db.made_by.set_autocommit(connection, True)
        pool.execute(db.insert(1))
        with pool.transaction():
            pool.execute(db.insert(2))
        assert pool.lease().connection is connection
        assert db.made_by.autocommit(connection) is True
        assert db.rows() == [1, 2]
        pool.release()
        assert db.made_by.autocommit(pool.lease().connection) is False
        pool.release()

    def test_a_handwritten_begin_on_a_lease_holds_until_the_commit(self, db: Db) -> None:
        pool = db.pool(max_size=1)
        lease = pool.lease()
        pool.execute("begin")
        pool.execute(db.insert(1))
        assert pool.in_transaction and db.rows() == []
        pool.execute("commit")
        assert not pool.in_transaction and db.rows() == [1]
        assert lease.active
        pool.release()

    def test_of_a_connection_that_the_policy_kept_a_lease_is_in_the_mode_in_which_it_was_made(self, db: Db) -> None:
        pool = db.pool(checkout="thread", max_size=1)
        pool.execute("select 1")
        assert db.made_by.autocommit(pool.lease().connection) is False
        pool.release()

    @pytest.mark.parametrize("autocommit", [True, False])
    def test_the_option_sets_one_mode_for_all(self, db: Db, autocommit: bool) -> None:
        pool = db.pool(max_size=1, autocommit=autocommit)
        for borrow in (pool.connection, pool.checkout):
            with borrow() as connection:
                assert db.made_by.autocommit(connection) is autocommit
                db.made_by.set_autocommit(connection, not autocommit)
        pool.execute(db.insert(1))
        assert db.rows() == [1]
        with pytest.raises(RuntimeError), pool.transaction() as connection:
            assert db.made_by.autocommit(connection) is autocommit
            with pool.transaction():
                pool.execute(db.insert(2))
            raise RuntimeError
        with pool.transaction():
            pool.execute(db.insert(3))
        assert db.rows() == [1, 3]
        pool.execute("begin")
        pool.execute(db.insert(4))
        assert db.rows() == [1, 3]
        pool.execute("rollback")
        assert pool.stats().in_use == 0
        assert db.rows() == [1, 3]

    def test_is_switched_only_where_the_next_borrower_needs_the_other(self) -> None:
        clock = FakeClock()
        driver = ScriptedDriver(clock, autocommit=False)
        with Pool(driver, clock=clock, max_size=1) as pool:

            def switched() -> int:
                count = driver.calls["set_autocommit"]
                driver.calls["set_autocommit"] = 0
                return count

            steps: list[tuple[Callable[[], Any], int]] = [
                (pool.connection, 0),
                (pool.connection, 0),
                (pool.transaction, 1),
                (pool.transaction, 0),
                (pool.connection, 1),
                (pool.checkout, 0),
                (pool.transaction, 1),
            ]
            for borrow, expected in steps:
                with borrow():
                    pass
                assert switched() == expected
            with pool.connection(), pool.transaction(), pool.connection():
                pass
            assert switched() == 1
        assert driver.wrong == []

    def test_a_connection_that_will_not_go_into_the_mode_is_replaced(self) -> None:
        driver = ScriptedDriver(autocommit=False)
        with Pool(driver, max_size=1, checkout="thread") as pool:
            with pool.connection() as first:
                pass
            driver.script("set_autocommit", OSError())
            with pool.transaction() as second:
                assert second is not first
        assert driver.wrong == []


class TestTraps:
    """What drivers do that a pool must not fall for."""

    def test_an_old_snapshot_never_reaches_the_next_borrower(self, mariadb_db: Db) -> None:
        # PyMySQL's flag says "no transaction" after a SELECT out of autocommit, with the snapshot still open.
        db = mariadb_db
        for how in ("url", "callable"):
            pool = db.pool(max_size=1) if how == "url" else create_pool(stock(db.url), max_size=1)
            with pool.connection() as connection:
                assert ask(connection, db.select) == ()
            ask(db.other, f"insert into {db.table} values (1)")
            for borrow in (pool.connection, pool.checkout):
                with borrow() as connection:
                    assert ask(connection, db.select) == ((1,),)
            assert [row[0] for row in pool.execute(db.select)] == [1]
            ask(db.other, f"delete from {db.table}")
            assert pool.execute(db.select) == []
            pool.close()

    def test_a_row_lock_after_select_for_update_never_stays(self, mariadb_db: Db) -> None:
        db = mariadb_db
        ask(db.other, db.insert(1))
        pool = db.pool(max_size=1)
        with pool.connection() as connection:
            ask(connection, f"{db.select} for update")
            failing(connection, db.insert(1))
        ask(db.other, "set innodb_lock_wait_timeout = 1")
        ask(db.other, f"delete from {db.table}")

    def test_a_lease_that_selects_is_known_to_be_in_a_transaction(self, mariadb_db: Db) -> None:
        pool = mariadb_db.pool(max_size=1)
        connection = pool.lease().connection
        ask(connection, mariadb_db.select)
        assert pool.in_transaction
        with pytest.raises(PoolMisuse, match="open transaction"):
            pool.release()
        connection.rollback()
        pool.release()

    def test_psycopg2s_rollback_in_autocommit_does_not_fool_the_pool(self, postgres_db: Db) -> None:
        db = postgres_db
        for options in ({}, {"autocommit": True}):
            pool = db.pool(max_size=1, **options)
            with pool.connection() as connection:
                connection.autocommit = True
                ask(connection, "begin")
                ask(connection, db.insert(1))
                connection.rollback()  # does nothing
            with pool.checkout() as connection:
                assert connection.get_transaction_status() == 0
            assert db.rows() == []
            pool.close()

    def test_psycopg2_after_a_handwritten_commit_begins_again_for_the_next_borrower(self, postgres_db: Db) -> None:
        db = postgres_db
        pool = db.pool(max_size=1)
        with pool.connection() as connection:
            ask(connection, db.insert(1))
            ask(connection, "commit")
            assert not pool.in_transaction
        with pool.connection() as connection:
            ask(connection, db.insert(2))
        assert db.rows() == [1]

    def test_what_a_rollback_keeps_a_reset_wipes_and_the_mode_and_the_settings_of_the_url_come_back(
        self, postgres_db: Db
    ) -> None:
        db = postgres_db
        url = f"{db.url}?options=-c%20search_path%3Dhome&autocommit=true"
        with create_pool(url, max_size=1) as pool:
            with pool.connection() as connection:
                number = db.session(connection)
                pool.execute("set search_path = elsewhere")
                pool.execute("listen news")
            with pool.connection() as connection:
                assert db.session(connection) == number
                assert connection.autocommit is True
                assert ask(connection, "show search_path")[0][0] == "home"
                assert ask(connection, "select * from pg_listening_channels()") == []

    def test_mariadbs_reset_brings_back_the_mode_and_what_the_url_asked_for(self, mariadb_db: Db) -> None:
        db = mariadb_db
        url = f"{db.url}&sql_mode=ANSI&init_command=set%20@who%3D7"
        with create_pool(url, max_size=1) as pool:
            with pool.connection() as connection:
                number = db.session(connection)
                pool.execute("set sql_mode = ''")
                pool.execute("set @who = 8")
            with pool.connection() as connection:
                assert db.session(connection) == number
                assert connection.get_autocommit() is False
                assert ask(connection, "select @@sql_mode like '%ANSI%', @who, @@autocommit") == ((1, 7, 0),)

    def test_a_foreign_pymysql_connection_is_not_kept_because_its_state_is_unknown(self, mariadb_db: Db) -> None:
        with create_pool(stock(mariadb_db.url), max_size=1) as pool:
            pool.execute("select 1")
            assert pool.stats().in_use == 0
            pool.execute("begin")
            assert pool.in_transaction
            pool.execute("rollback")

    def test_a_pymysql_connection_of_a_class_that_tells_nothing_is_asked(self, mariadb_db: Db) -> None:
        import pymysql

        class Mute(pymysql.connections.Connection):
            __slots__ = ("more",)  # another memory layout: it cannot be given the class that tells

        port = mariadb_db.made_by.address()[1]  # type: ignore[attr-defined]

        def connect() -> Any:
            return Mute(host="127.0.0.1", port=port, user="root", database="test", ssl_disabled=True)

        with create_pool(connect, max_size=1) as pool:
            for _ in range(2):
                pool.execute(mariadb_db.insert(1))
                assert pool.stats().in_use == 0
                pool.execute("begin")
                pool.execute(f"delete from {mariadb_db.table}")
                assert pool.in_transaction
                assert mariadb_db.rows() == [1]
                pool.execute("commit")
                assert mariadb_db.rows() == []
                assert pool.stats().in_use == 0

    def test_a_deadlock_swallowed_in_an_inner_transaction_is_not_committed_by_the_outer_one(
        self, mariadb_db: Db, other: Other
    ) -> None:
        # InnoDB rolls back everything, savepoints and all; what the outer one did before is gone.
        db = mariadb_db
        ask(db.other, f"insert into {db.table} values (1), (2)")
        pool = db.pool(max_size=2)
        with pytest.raises(TransactionAborted):
            with pool.transaction():
                pool.execute(db.insert(10))
                with pytest.raises(Exception, match="Deadlock"), pool.transaction():
                    pool.execute(f"select * from {db.table} where id = 1 for update")
                    theirs = pool.transaction()
                    other(theirs.__enter__)
                    # the heavier one of two is not the victim
                    other(lambda: pool.execute(f"insert into {db.table} values (20), (21), (22), (23), (24)"))
                    other(lambda: pool.execute(f"select * from {db.table} where id = 2 for update"))
                    waiting = other.start(lambda: pool.execute(f"select * from {db.table} where id = 1 for update"))
                    pool.execute(f"select * from {db.table} where id = 2 for update")
        waiting()
        other(lambda: theirs.__exit__(None, None, None))
        assert db.rows() == [1, 2, 20, 21, 22, 23, 24]


class TestCommitFailure:
    @pytest.fixture
    def strict(self, postgres_db: Db) -> Iterator[Db]:
        """A second table, whose rows are checked at the commit."""
        db = postgres_db
        ask(
            db.other,
            f"create table {db.table}_child (id int references {db.table} deferrable initially deferred)",
        )
        yield db
        ask(db.other, f"drop table {db.table}_child")

    @pytest.mark.parametrize("options", [{}, {"autocommit": False}, {"checkout": "thread"}])
    def test_the_databases_error_comes_through_and_nothing_stays(self, strict: Db, options: Any) -> None:
        pool = strict.pool(max_size=1, **options)
        pool.execute("select 1")
        with pytest.raises(Exception, match="foreign key"):
            with pool.transaction():
                pool.execute(f"insert into {strict.table}_child values (1)")
        assert not pool.in_transaction
        with pytest.raises(Exception, match="foreign key"):
            pool.execute(f"insert into {strict.table}_child values (1)")
        assert not pool.in_transaction
        pool.execute("select 1")
        assert pool.stats().opened == 1
        pool.release()

    def test_inside_a_connection_block_the_block_goes_on(self, strict: Db) -> None:
        pool = strict.pool(max_size=1)
        with pool.connection() as connection:
            with pytest.raises(Exception, match="foreign key"):
                with pool.transaction():
                    pool.execute(f"insert into {strict.table}_child values (1)")
            ask(connection, strict.insert(1))
            connection.commit()
        assert strict.rows() == [1]

    def test_a_busy_database_leaves_no_transaction_behind(self, tmp_path: Path) -> None:
        file = str(tmp_path / "busy.db")
        with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as reader:
            reader.execute("create table t (a)")
            reader.execute("insert into t values (1)")
            with create_pool(f"sqlite:///{file}?timeout=0", max_size=1) as pool:
                cursor = reader.execute("select * from t union all select * from t")
                cursor.fetchone()  # a reader in the middle: a writer cannot commit
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    with pool.transaction():
                        pool.execute("insert into t values (2)")
                assert not pool.in_transaction
                cursor.close()
                assert len(pool.execute("select * from t")) == 1


class TestErrors:
    """Blocks over a driver that fails as it is told: the caller sees the first error, the pool loses nothing."""

    @pytest.fixture
    def driver(self) -> ScriptedDriver:
        return ScriptedDriver(autocommit=True)

    @pytest.fixture
    def pool(self, driver: ScriptedDriver) -> Iterator[Pool]:
        with Pool(driver, max_size=1) as pool:
            yield pool
            assert pool.stats().in_use == 0
        assert driver.wrong == []

    def test_a_begin_that_fails(self, pool: Pool, driver: ScriptedDriver) -> None:
        driver.script("begin", OSError("begin"))
        with pytest.raises(OSError, match="begin"), pool.transaction():
            raise AssertionError("entered")
        with pool.transaction():
            pass

    def test_a_begin_that_is_interrupted(self, pool: Pool, driver: ScriptedDriver) -> None:
        driver.script("begin", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt), pool.transaction():
            raise AssertionError("entered")
        assert not pool.in_transaction

    def test_a_commit_that_fails(self, pool: Pool, driver: ScriptedDriver) -> None:
        driver.script("commit", OSError("commit"))
        with pytest.raises(OSError, match="commit"), pool.transaction():
            pass
        assert driver.calls["rollback"] == 1
        assert driver.closed == 0

    def test_a_commit_that_finds_the_connection_lost(self, pool: Pool, driver: ScriptedDriver) -> None:
        driver.script("commit", ConnectionError("gone"))
        with pytest.raises(ConnectionError, match="gone"), pool.transaction():
            pass
        assert driver.calls["rollback"] == 0
        assert driver.closed == 1

    def test_a_commit_that_is_interrupted(self, pool: Pool, driver: ScriptedDriver) -> None:
        driver.script("commit", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt), pool.transaction():
            pass
        assert driver.closed == 1

    def test_a_rollback_that_fails_hides_nothing(self, pool: Pool, driver: ScriptedDriver) -> None:
        driver.script("rollback", OSError("rollback"))
        error = RuntimeError("mine")
        with pytest.raises(RuntimeError) as caught, pool.transaction():
            raise error
        assert caught.value is error
        assert driver.closed == 1

    def test_a_rollback_that_fails_after_a_failed_commit_hides_nothing(
        self, pool: Pool, driver: ScriptedDriver
    ) -> None:
        driver.script("commit", OSError("commit"))
        driver.script("rollback", OSError("rollback"))
        with pytest.raises(OSError, match="commit"), pool.transaction():
            pass
        assert driver.closed == 1

    def test_a_rollback_that_fails_inside_a_connection_block_spoils_the_block(
        self, pool: Pool, driver: ScriptedDriver
    ) -> None:
        driver.script("rollback", OSError("rollback"))
        with pool.connection():
            with pytest.raises(RuntimeError), pool.transaction():
                raise RuntimeError
            assert driver.closed == 1

    def test_a_sticky_connection_whose_rollback_fails_is_replaced(self, pool: Pool, driver: ScriptedDriver) -> None:
        lease = pool.lease()
        with pytest.raises(RuntimeError), pool.connection() as connection:
            connection.state = OPEN
            driver.script("rollback", OSError("rollback"))
            raise RuntimeError
        assert not lease.active
        assert pool.lease() is not lease
        pool.release()

    def test_a_close_that_fails_hides_nothing(self, pool: Pool, driver: ScriptedDriver) -> None:
        driver.script("close", OSError("close"))
        with pytest.raises(KeyboardInterrupt), pool.connection() as connection:
            connection.state = BUSY
            raise KeyboardInterrupt

    def test_a_busy_connection_is_closed_at_the_end_of_its_block(self, pool: Pool, driver: ScriptedDriver) -> None:
        with pool.connection() as connection:
            connection.state = BUSY
        assert driver.closed == 1

    def test_a_state_that_nobody_knows_is_asked_for_and_taken_for_none(
        self, pool: Pool, driver: ScriptedDriver
    ) -> None:
        with pool.connection() as connection:
            connection.state = UNKNOWN
            driver.script("ping", lambda: setattr(connection, "state", OPEN))
            assert pool.in_transaction
            connection.state = UNKNOWN
            assert not pool.in_transaction
            connection.alive = False
            pings = driver.calls["ping"]
            assert not pool.in_transaction
            assert driver.calls["ping"] == pings  # nobody is there to be asked

    def test_a_lost_connection_inside_a_handwritten_transaction_lets_the_thread_go(
        self, pool: Pool, driver: ScriptedDriver
    ) -> None:
        with pool.connection() as connection:
            lease = pool.lease()
        connection.state = OPEN
        with pytest.raises(ConnectionError), pool.connection():
            connection.state = UNKNOWN
            raise ConnectionError
        assert not lease.active

    def test_no_transaction_is_begun_or_ended_twice(self, pool: Pool, driver: ScriptedDriver) -> None:
        with pool.transaction(), pool.connection():
            pass
        assert (driver.calls["begin"], driver.calls["commit"], driver.calls["rollback"]) == (1, 1, 0)
        with pytest.raises(RuntimeError), pool.transaction():
            raise RuntimeError
        assert (driver.calls["begin"], driver.calls["commit"], driver.calls["rollback"]) == (2, 1, 1)

    def test_an_error_leaves_no_cycle_that_would_keep_the_connection(self, pool: Pool, driver: ScriptedDriver) -> None:
        def fail() -> None:
            raise OSError("commit")

        driver.script("commit", fail)
        gc.collect()
        gc.disable()
        try:
            block = pool.transaction()
            watched = weakref.ref(block)
            with pytest.raises(OSError, match="commit"), block:
                pass
            del block
            assert watched() is None
        finally:
            gc.enable()


class TestSavepointThatCannotBeUndone:
    def test_the_outer_transaction_is_not_committed_and_the_inner_error_passes(self, db: Db) -> None:
        pool = db.pool(max_size=1)
        error = RuntimeError("mine")
        with pytest.raises(TransactionAborted, match="not committed"):
            with pool.transaction() as connection:
                pool.execute(db.insert(1))
                with pytest.raises(RuntimeError) as caught, pool.transaction():
                    pool.execute(db.insert(2))
                    ask(connection, "release savepoint threadpool_db_2")  # not his
                    raise error
                assert caught.value is error
        assert db.rows() == []
        pool.execute(db.insert(3))
        assert db.rows() == [3]

    @pytest.mark.parametrize("options", [{}, {"autocommit": False}])
    def test_a_transaction_ended_by_hand_is_its_users_affair_and_the_next_one_is_a_new_one(
        self, db: Db, options: Any
    ) -> None:
        pool = db.pool(max_size=1, **options)
        with pool.transaction() as connection:
            pool.execute(db.insert(1))
            with pytest.raises(RuntimeError), pool.transaction():
                db.made_by.commit(connection)
                raise RuntimeError
            with pytest.raises(RuntimeError), pool.transaction():
                pool.execute(db.insert(2))
                raise RuntimeError
            with pool.transaction():
                pool.execute(db.insert(3))
        assert db.rows() == [1, 3]

    def test_a_transaction_that_the_server_ended_by_itself_is_not_taken_for_an_open_one(self, mariadb_db: Db) -> None:
        db = mariadb_db
        pool = db.pool(max_size=1)
        with pool.transaction():
            pool.execute(f"create table {db.table}_2 (a int)")  # MariaDB commits before and after it
            with pytest.raises(RuntimeError), pool.transaction():
                pool.execute(db.insert(1))
                raise RuntimeError
            pool.execute(f"drop table {db.table}_2")
        assert db.rows() == []


class TestConnectCallable:
    def test_may_not_use_its_own_pool(self) -> None:
        pools: list[Pool] = []
        ways: list[Callable[[], Any]] = [
            lambda: pools[0].execute("select 1"),
            lambda: pools[0].connection().__enter__(),
            lambda: pools[0].transaction().__enter__(),
            lambda: pools[0].lease(),
        ]
        for way in ways:
            with Pool(way, max_size=2) as pool:
                pools[:] = [pool]
                with pytest.raises(PoolMisuse, match="cannot borrow one from it"):
                    pool.execute("select 1", timeout=SOON)
                assert pool.stats().in_use == 0


class TestSqlite:
    """The driver that shows every statement that is sent."""

    @pytest.fixture
    def sent(self) -> list[str]:
        return []

    @pytest.fixture
    def pool(self, tmp_path: Path, sent: list[str]) -> Iterator[Pool]:
        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(tmp_path / "test.db", check_same_thread=False)
            connection.set_trace_callback(sent.append)
            return connection

        with create_pool(connect, max_size=1) as pool:
            pool.execute("create table t (a int)")
            sent.clear()
            yield pool

    def test_execute_sends_the_statement_and_nothing_else(self, pool: Pool, sent: list[str]) -> None:
        for _ in range(3):
            pool.execute("insert into t values (?)", [1])
            pool.execute("select * from t")
        assert len(sent) == 6

    def test_a_transaction_sends_its_begin_and_its_commit(self, pool: Pool, sent: list[str]) -> None:
        with pool.transaction():
            pool.execute("select 1")
            with pool.transaction():
                pool.execute("select 2")
        assert [statement.strip() for statement in sent] == [
            "BEGIN",
            "select 1",
            "SAVEPOINT threadpool_db_2",
            "select 2",
            "RELEASE SAVEPOINT threadpool_db_2",
            "COMMIT",
        ]

    def test_after_an_interrupt_nothing_more_is_sent(self, pool: Pool, sent: list[str]) -> None:
        with pytest.raises(KeyboardInterrupt), pool.transaction(), pool.transaction():
            pool.execute("insert into t values (1)")
            sent.clear()
            raise KeyboardInterrupt
        assert sent == []

    def test_a_connection_block_sends_nothing_of_its_own(self, pool: Pool, sent: list[str]) -> None:
        with pool.connection(), pool.connection():
            pass
        pool.lease()
        pool.release()
        with pool.scope():
            pool.execute("select 1")
        assert sent == ["select 1"]

    @pytest.mark.skipif(not hasattr(sqlite3.Connection, "autocommit"), reason="Python 3.12 brought it")
    @pytest.mark.parametrize("mode", [True, False])
    def test_the_autocommit_attribute_of_newer_pythons_is_respected(self, tmp_path: Path, mode: bool) -> None:
        def connect() -> Any:
            options: dict[str, Any] = {"autocommit": mode, "check_same_thread": False}
            return sqlite3.connect(tmp_path / "modern.db", **options)

        with create_pool(connect, max_size=2) as pool:
            pool.execute("create table t (a int)")
            with pool.transaction():
                pool.execute("insert into t values (1)")
                with pytest.raises(RuntimeError), pool.transaction():
                    pool.execute("insert into t values (2)")
                    raise RuntimeError
            with pool.connection() as connection:
                assert connection.autocommit is mode
                connection.execute("insert into t values (3)").close()
            lease = pool.lease()
            pool.execute("insert into t values (4)")
            assert lease.connection.autocommit is mode
            pool.release()
            pool.execute("begin")
            pool.execute("insert into t values (5)")
            pool.execute("rollback")
            assert pool.execute("select a from t order by a") == ([(1,), (3,), (4,)] if mode else [(1,), (4,)])
            assert pool.stats().in_use == 0

    def test_named_parameters_and_returned_rows(self, pool: Pool) -> None:
        pool.execute("insert into t values (:a)", {"a": 5})
        result = pool.execute("select a as A from t")
        assert result == [(5,)]
        assert result.columns == ("A",)
        if sqlite3.sqlite_version_info >= (3, 35):
            assert pool.execute("insert into t values (6) returning a") == [(6,)]


def test_a_result_is_a_list_and_prints_like_one(db: Db) -> None:
    pool = db.pool()
    result = pool.execute("select 1")
    assert isinstance(result, list) and len(result) == 1
    with pytest.raises(AttributeError):
        result.extra = 1  # type: ignore[attr-defined]


def test_a_failed_operation_in_a_block_leaves_the_decision_to_the_block(db: Db) -> None:
    pool = db.pool(max_size=1)
    with pool.connection() as connection:
        ask(connection, db.insert(1))
        connection.commit()
        with pytest.raises(Exception, match=r"."):
            pool.execute(BROKEN)
        connection.rollback()
        ask(connection, db.insert(2))
        connection.commit()
    assert db.rows() == [1, 2]


def test_an_operation_that_is_interrupted_closes_the_connection_in_a_transaction_and_keeps_an_idle_one(
    tmp_path: Path,
) -> None:
    class Interrupted(sqlite3.Cursor):
        def execute(self, sql: str, *parameters: Any) -> Any:
            super().execute(sql, *parameters)
            if "interrupt" in sql:
                raise KeyboardInterrupt
            return self

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Interrupted) -> Any:
            return super().cursor(factory)

    with create_pool(
        lambda: sqlite3.connect(tmp_path / "test.db", check_same_thread=False, factory=Connection), max_size=1
    ) as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.execute("select 1 /* interrupt */")
        assert (pool.stats().in_use, pool.stats().total) == (0, 1)
        pool.execute("begin")
        with pytest.raises(KeyboardInterrupt):
            pool.execute("select 1 /* interrupt */")
        assert (pool.stats().in_use, pool.stats().total) == (0, 0)
        assert not pool.in_transaction
        pool.execute("select 1")


def test_an_operation_whose_lease_somebody_else_ends_meanwhile_ends_in_peace(tmp_path: Path) -> None:
    with create_pool(lambda: sqlite3.connect(tmp_path / "test.db", check_same_thread=False), max_size=1) as pool:
        lease = pool.lease()
        lease.connection.create_function("end_it", 0, lambda: lease.detach() and None)
        connection = lease.connection
        pool.execute("select end_it() is null")
        assert not lease.active
        assert pool.stats().total == 0
        connection.close()


def test_a_child_process_forgets_what_its_parent_is_in(db: Db) -> None:
    from tests.scene import in_child

    pool = db.pool(max_size=2)

    def child() -> str:
        said = [str(pool.in_transaction)]
        try:
            transaction.__exit__(None, None, None)
        except TransactionAborted as error:
            said.append("not committed" if "not committed" in str(error) else str(error))
        block.__exit__(None, None, None)
        scope.__exit__(None, None, None)
        pool.execute(db.insert(2) if db.name != "sqlite" else "select 1")
        return " ".join(said)

    scope = pool.scope()
    scope.__enter__()
    block = pool.connection()
    block.__enter__()
    transaction = pool.transaction()
    transaction.__enter__()
    pool.execute(db.insert(1))
    assert in_child(child) == "False not committed"
    transaction.__exit__(None, None, None)
    block.__exit__(None, None, None)
    scope.__exit__(None, None, None)
    assert db.rows() == ([1, 2] if db.name != "sqlite" else [1])


class TestPool:
    def test_a_driver_of_ones_own_is_pooled_as_it_is(self) -> None:
        driver = ScriptedDriver()
        with create_pool(driver) as pool, pool.connection() as connection:
            assert isinstance(connection, ScriptedConnection)

    def test_pool_and_create_pool_are_the_same(self, db: Db) -> None:
        with Pool(db.url, max_size=3) as pool:
            assert type(pool) is type(create_pool(db.url))
            assert pool.execute("select 1")
