"""Does a proxy borrow just as long as it must, and lose nothing, whatever becomes of it, its cursors and threads?"""

from __future__ import annotations

import gc
import os
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.checkout import SOON, Db, Other, prepared, server_url
from tests.faults.bank import Watcher
from threadpool_db import (
    LeaseExpired,
    Pool,
    PoolClosed,
    PoolMisuse,
    PoolTimeout,
    Snapshot,
    StaleLease,
    TransactionAborted,
)
from threadpool_db.checkout.proxy import Proxy
from threadpool_db.checkout.proxy_cursor import Cursor


@pytest.fixture(params=["operation", "thread"])
def policy(request: pytest.FixtureRequest) -> str:
    policy: str = request.param
    return policy


@pytest.fixture
def db(any_db_url: str) -> Iterator[Db]:
    with prepared(any_db_url) as db:
        yield db


@pytest.fixture
def pool(db: Db, policy: str) -> Iterator[Pool]:
    pool = db.pool(checkout=policy, max_size=2)
    yield pool
    pool.release()
    assert pool.stats().in_use == 0


@pytest.fixture
def other() -> Iterator[Other]:
    with closing(Other()) as other:
        yield other


@pytest.fixture
def lite(tmp_path: Any) -> Iterator[Db]:
    """SQLite, whose cursors are the ones that are read row by row."""
    with prepared(f"sqlite:///{tmp_path}/lite.db") as db:
        for number in range(1, 6):
            db.other.execute(db.insert(number))
        yield db


@pytest.fixture
def reading(lite: Db) -> Iterator[tuple[Pool, Proxy, Cursor]]:
    """A cursor in autocommit that has given one row of five: nothing but it keeps the one connection there is."""
    pool = lite.pool(max_size=1)
    proxy = pool.proxy(autocommit=True)
    cursor = proxy.execute(lite.select)
    assert cursor.fetchone() == (1,)
    yield pool, proxy, cursor
    pool.close()


def until_idle(pool: Pool) -> Snapshot:
    """What finalisers have left in the mailbox is worked off by the keeper; whoever is in line waits for just that."""
    with pool.connection(timeout=SOON):
        pass
    return pool.stats()


def told(warned: pytest.WarningsRecorder) -> list[str]:
    """Not what sqlite3 says from Python 3.13 on, when the collector comes to what another test has dropped."""
    said = [str(warning.message) for warning in warned]
    return [words for words in said if not words.startswith("unclosed database in <sqlite3.Connection")]


class TestHowLong:
    def test_in_autocommit_a_statement_is_one_operation(self, db: Db) -> None:
        pool = db.pool(max_size=1)
        proxy = pool.proxy(autocommit=True)
        for _ in range(3):
            proxy.execute("select 1").fetchall()
            assert pool.stats().in_use == 0
        assert (pool.stats().checkouts, pool.stats().opened) == (3, 1)

    def test_otherwise_the_first_statement_keeps_it_until_the_end_of_the_transaction(self, db: Db) -> None:
        pool = db.pool(max_size=1)
        proxy = pool.proxy()
        for end in (proxy.rollback, proxy.commit):
            proxy.execute(db.insert(1))
            proxy.execute(db.insert(2))
            assert pool.in_transaction and pool.stats().in_use == 1
            end()
            assert not pool.in_transaction and pool.stats().in_use == 0
        assert db.rows() == [1, 2]
        assert pool.stats().checkouts == 2

    def test_a_statement_that_begins_no_transaction_keeps_nothing(self, lite: Db) -> None:
        pool = lite.pool(max_size=1)
        assert len(pool.proxy().execute(lite.select).fetchall()) == 5
        assert pool.stats().in_use == 0

    def test_a_first_statement_that_fails_keeps_nothing(self, pool: Pool, policy: str) -> None:
        with pytest.raises(Exception, match=r"."):
            pool.proxy().execute("select syntax error here")
        assert pool.stats().in_use == (policy == "thread")

    def test_under_the_thread_policy_the_thread_keeps_it(self, db: Db) -> None:
        pool = db.pool(checkout="thread", max_size=1)
        proxy = pool.proxy()
        proxy.execute(db.insert(1))
        proxy.commit()
        assert pool.stats().in_use == 1
        pool.release()

    def test_rows_that_are_all_here_keep_nothing(self, db: Db) -> None:
        pool = db.pool(max_size=1)
        cursor = pool.proxy(autocommit=True).execute("select 1 union select 2 order by 1")
        assert pool.stats().in_use == (db.name == "sqlite")
        assert cursor.fetchone()[0] == 1
        assert cursor.fetchone()[0] == 2  # the last: nobody has to ask for another one to be let go
        assert pool.stats().in_use == 0

    def test_the_pools_own_option_is_the_default(self, db: Db) -> None:
        assert db.pool().proxy().autocommit is False
        assert db.pool(autocommit=True).proxy().autocommit is True
        assert db.pool(autocommit=True).proxy(autocommit=False).autocommit is False
        assert db.pool(autocommit=False).proxy(autocommit=True).autocommit is True

    def test_the_mode_is_for_good(self, db: Db) -> None:
        proxy = db.pool().proxy()
        proxy.autocommit = False
        with pytest.raises(PoolMisuse, match=r"proxy\(autocommit=True\)"):
            proxy.autocommit = True

    def test_of_a_driver_without_autocommit_it_commits_each_statement(self, any_db_url: str) -> None:
        with prepared(any_db_url, "dbapi") as db:
            proxy = db.pool(max_size=1).proxy(autocommit=True)
            for number in range(5):
                proxy.execute(db.insert(number))
                assert number in db.rows()
            cursor = proxy.execute(db.select)
            assert db.pools[0].stats().in_use == 0  # to keep it open its statement could not be committed
            assert [row[0] for row in cursor] == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("options", [{"autocommit": "yes"}, {"timeout": -1}, {"timeout": "1"}])
    def test_impossible_values_are_refused(self, db: Db, options: Any) -> None:
        with pytest.raises(ValueError, match=next(iter(options))):
            db.pool().proxy(**options)

    def test_its_timeout_is_that_of_each_borrowing(self, db: Db, other: Other) -> None:
        pool = db.pool(max_size=1)
        proxy = pool.proxy(timeout=0)
        with pool.connection():
            with pytest.raises(PoolTimeout):
                other(lambda: proxy.execute("select 1"))


class TestTogether:
    """With what else the thread does."""

    def test_execute_joins_the_proxys_transaction(self, pool: Pool, db: Db) -> None:
        proxy = pool.proxy()
        proxy.execute(db.insert(1))
        pool.execute(db.insert(2))
        assert db.rows() == []
        proxy.commit()
        assert db.rows() == [1, 2]
        pool.execute(db.insert(3))
        assert db.rows() == [1, 2, 3]

    def test_it_joins_the_block_around_it(self, pool: Pool, db: Db) -> None:
        for mode in (True, False):
            proxy = pool.proxy(autocommit=mode)
            with pytest.raises(ZeroDivisionError), pool.transaction():
                proxy.execute(db.insert(1))
                raise ZeroDivisionError
            with pool.connection():
                proxy.execute(db.insert(2))
        assert db.rows() == []

    def test_inside_a_transaction_block_the_block_decides(self, pool: Pool, db: Db) -> None:
        proxy = pool.proxy()
        with pool.transaction():
            proxy.execute(db.insert(1))
            for end in (proxy.commit, proxy.rollback):
                with pytest.raises(PoolMisuse, match=r"inside a transaction\(\) block"):
                    end()
        assert db.rows() == [1]

    def test_inside_a_connection_block_it_ends_what_is_open(self, pool: Pool, db: Db) -> None:
        proxy = pool.proxy()
        with proxy.connection():
            proxy.execute(db.insert(1))
            proxy.commit()
            proxy.execute(db.insert(2))
            proxy.rollback()
            proxy.execute(db.insert(3))
        assert db.rows() == [1]

    def test_transaction_is_a_savepoint_inside_the_proxys(self, pool: Pool, db: Db) -> None:
        proxy = pool.proxy()
        proxy.execute(db.insert(1))
        with pytest.raises(ZeroDivisionError), pool.transaction():
            proxy.execute(db.insert(2))
            raise ZeroDivisionError
        proxy.commit()
        assert db.rows() == [1]

    def test_connection_gives_the_real_one_of_the_transaction(self, pool: Pool, db: Db) -> None:
        proxy = pool.proxy()
        proxy.execute(db.insert(1))
        with proxy.connection() as real:
            assert type(real).__module__.partition(".")[0] in ("sqlite3", "psycopg2", "psycopg", "threadpool_db")
            with closing(real.cursor()) as cursor:
                cursor.execute(db.insert(2))
        assert db.rows() == []
        proxy.commit()
        assert db.rows() == [1, 2]

    def test_a_handwritten_begin_pins_until_commit_or_its_text(self, pool: Pool, db: Db) -> None:
        proxy = pool.proxy(autocommit=True)
        for number, end in ((1, proxy.commit), (2, lambda: proxy.execute("commit"))):
            proxy.execute("begin")
            proxy.execute(db.insert(number))
            assert pool.in_transaction and number not in db.rows()
            end()
            assert not pool.in_transaction and number in db.rows()
        proxy.execute("begin")
        proxy.execute(db.insert(3))
        proxy.close()
        assert db.rows() == [1, 2]

    def test_a_scopes_end_rolls_back_and_warns_and_the_next_request_starts_anew(self, pool: Pool, db: Db) -> None:
        proxy = pool.proxy()
        with pytest.warns(RuntimeWarning, match="scope ended inside an open transaction"), pool.scope():
            proxy.execute(db.insert(1))
        with pool.scope():
            proxy.execute(db.insert(2))
            proxy.commit()
        assert db.rows() == [2]

    def test_release_inside_its_transaction_is_refused(self, pool: Pool, db: Db) -> None:
        proxy = pool.proxy()
        proxy.execute(db.insert(1))
        with pytest.raises(PoolMisuse, match=r"release\(\) inside an open transaction"):
            pool.release()
        proxy.rollback()

    def test_of_a_driver_that_cannot_tell_the_proxys_transaction_is_known(self, any_db_url: str) -> None:
        with prepared(any_db_url, "dbapi") as db:
            pool = db.pool(max_size=1)
            proxy = pool.proxy()
            proxy.execute(db.insert(1))
            assert pool.in_transaction
            pool.execute(db.insert(2))
            with pytest.raises(PoolMisuse, match="commit or roll back first"):
                pool.release()
            proxy.execute(f"{db.select} limit 9").fetchone()
            gc.collect()
            assert pool._hold().lease is not None
            proxy.commit()
            assert db.rows() == [1, 2] and not pool.in_transaction
            with pytest.warns(RuntimeWarning, match="open transaction"), pool.scope():
                proxy.execute(db.insert(3))
            assert db.rows() == [1, 2] and pool.stats().in_use == 0


class TestSessionState:
    DIRT = "create temporary table t_proxy (a int)"

    def test_is_refused_where_nothing_outlives_the_statement(self, db: Db) -> None:
        pool = db.pool()
        for mode in (True, False):
            with pytest.raises(PoolMisuse, match=r"run it inside scope\(\), connection\(\)"):
                pool.proxy(autocommit=mode).execute(self.DIRT)
        assert pool.stats().checkouts == 0

    def test_lasts_as_long_as_the_scope(self, db: Db) -> None:
        pool = db.pool(max_size=1)
        proxy = pool.proxy()
        with pool.scope():
            proxy.execute(self.DIRT)
            proxy.commit()
            assert pool.stats().in_use == 1
            assert proxy.execute("select * from t_proxy").fetchall() == []
            proxy.commit()
        assert pool.stats().in_use == 0
        with pytest.raises(proxy.Error, match="t_proxy"):
            proxy.execute("select * from t_proxy")

    def test_in_an_open_transaction_it_lasts_until_its_end(self, db: Db) -> None:
        pool = db.pool(max_size=1)
        proxy = pool.proxy()
        proxy.execute(db.insert(1))
        proxy.execute(self.DIRT)
        proxy.execute("select * from t_proxy").fetchall()
        proxy.commit()
        assert pool.stats().in_use == 0
        with pytest.raises(proxy.Error, match="t_proxy"):
            proxy.execute("select * from t_proxy")

    def test_a_question_to_the_session_is_answered_in_its_transaction_only(self, lite: Db) -> None:
        proxy = lite.pool().proxy()
        with pytest.raises(PoolMisuse, match="asks the session about an earlier one"):
            proxy.execute("select last_insert_rowid()")
        proxy.execute(lite.insert(10))
        assert proxy.execute("select last_insert_rowid()").fetchone() == (6,)
        proxy.rollback()

    def test_a_statement_of_the_drivers_own_classes_is_judged_by_its_text(self, request: pytest.FixtureRequest) -> None:
        sql = pytest.importorskip("psycopg2.sql")
        with prepared(server_url(request, "postgres")) as db:
            pool = db.pool(max_size=1)
            proxy = pool.proxy(autocommit=True)
            assert proxy.execute(sql.SQL("select {}").format(sql.Literal(1))).fetchall() == [(1,)]
            with pytest.raises(PoolMisuse, match="SET search_path"):
                proxy.execute(sql.SQL("set search_path = elsewhere"))
            proxy.execute(sql.SQL("set {} = elsewhere").format(sql.Identifier("search_path")))  # unreadable: reset
            assert proxy.execute("show search_path").fetchone() == ('"$user", public',)


class TestUnreadRows:
    def test_keep_the_connection_until_the_last_one(self, reading: tuple[Pool, Proxy, Cursor]) -> None:
        pool, _, cursor = reading
        assert cursor.fetchmany(3) == [(2,), (3,), (4,)]
        assert pool.stats().in_use == 1
        assert cursor.fetchone() == (5,)
        assert pool.stats().in_use == 0
        assert cursor.fetchone() is None

    def test_other_statements_of_the_thread_use_it_too(self, reading: tuple[Pool, Proxy, Cursor], lite: Db) -> None:
        pool, proxy, cursor = reading
        proxy.execute("create table seen (id)")
        for row in cursor:
            proxy.execute(f"insert into seen values ({row[0]})")
            pool.execute("select 1")
            with pool.connection():
                pass
        assert pool.stats().in_use == 0
        assert [row[0] for row in pool.execute("select id from seen")] == [2, 3, 4, 5]

    def test_a_commit_leaves_them_to_be_read(self, lite: Db) -> None:
        proxy = lite.pool(max_size=1).proxy()
        proxy.execute(lite.insert(10))
        cursor = proxy.execute(lite.select)
        proxy.commit()
        assert len(cursor.fetchall()) == 6
        assert lite.pools[0].stats().in_use == 0

    @pytest.mark.parametrize("end", ["close", "nextset", "execute"])
    def test_are_dropped_by_who_needs_them_no_more(self, reading: tuple[Pool, Proxy, Cursor], end: str) -> None:
        pool, _, cursor = reading
        getattr(cursor, end)(*["create table other_table (a)"] * (end == "execute"))
        assert pool.stats().in_use == 0

    def test_belong_to_the_thread_that_ran_the_statement(
        self, reading: tuple[Pool, Proxy, Cursor], other: Other
    ) -> None:
        pool, proxy, cursor = reading
        for use in (cursor.fetchone, cursor.fetchall, cursor.close, lambda: cursor.execute("select 1")):
            with pytest.raises(PoolMisuse, match="the thread that ran the statement") as caught:
                other(use)
            assert isinstance(caught.value, proxy.Error)
        assert len(cursor.fetchall()) == 4
        assert pool.stats().in_use == 0

    def test_that_are_here_may_be_read_in_any_thread(self, db: Db, other: Other) -> None:
        cursor = db.pool().proxy(autocommit=True).execute("select 1")
        assert other(cursor.fetchone)[0] == 1

    @pytest.mark.parametrize("end", ["scope", "close", "proxy"])
    def test_end_with_what_they_were_read_in(self, lite: Db, end: str) -> None:
        pool = lite.pool(max_size=1)
        proxy = pool.proxy(autocommit=True)
        with pool.scope():
            cursor = proxy.execute(lite.select)
            if end == "close":
                pool.close()
            elif end == "proxy":
                proxy.close()
        assert pool.stats().in_use == 0
        with pytest.raises(StaleLease, match="before all rows were read" if end != "proxy" else "proxy was closed"):
            cursor.fetchall()
        if end == "scope":
            lite.other.execute(f"drop table {lite.table}")  # would be locked by a statement that is half read
            lite.other.execute(f"create table {lite.table} (id)")
        cursor.close()
        if end == "close":
            with pytest.raises(PoolClosed):
                proxy.execute("select 1")

    def test_of_a_cursor_that_is_dropped_give_the_connection_back(
        self, lite: Db, recwarn: pytest.WarningsRecorder
    ) -> None:
        pool = lite.pool(max_size=1)
        proxy = pool.proxy(autocommit=True)
        for _ in range(5):
            assert proxy.execute(lite.select).fetchone() == (1,)
            assert until_idle(pool).in_use == 0
        assert pool.stats().opened == 1
        lite.other.execute(f"delete from {lite.table}")
        assert told(recwarn) == []

    def test_of_a_cursor_dropped_in_a_transaction_change_nothing(self, lite: Db) -> None:
        pool = lite.pool(max_size=1)
        proxy = pool.proxy()
        proxy.execute(lite.insert(6))
        proxy.execute(lite.select).fetchone()
        assert pool.in_transaction and pool._hold().lease is not None
        proxy.commit()
        assert lite.rows() == [1, 2, 3, 4, 5, 6] and pool.stats().in_use == 0
        for begin in ("lease", "execute"):
            getattr(pool, begin)(*["begin"] * (begin == "execute"))
            pool.proxy(autocommit=True).execute(lite.select).fetchone()
            gc.collect()
            assert pool._hold().lease is not None
            pool.proxy().rollback()
            pool.release()

    def test_of_a_cursor_dropped_in_another_thread_are_left_to_their_own(self, lite: Db, other: Other) -> None:
        pool = lite.pool(max_size=1)
        proxy = pool.proxy(autocommit=True)
        box = [proxy.execute(lite.select)]
        other(box.clear)
        assert pool._hold().lease is not None
        proxy.execute("select 1").fetchall()
        assert pool.stats().in_use == 0

    def test_of_a_cursor_dropped_in_the_middle_of_an_operation_are_left_to_its_end(self, lite: Db) -> None:
        pool = lite.pool(max_size=1)
        cursor = pool.proxy(autocommit=True).execute(lite.select)
        lease = pool._hold().lease  # as the operation has it
        del cursor
        assert lease is not None and lease.active
        del lease
        pool.execute("select 1")
        assert pool.stats().in_use == 0

    def test_of_a_held_cursor_that_is_dropped_leave_nothing_on_the_server(self, request: pytest.FixtureRequest) -> None:
        with prepared(server_url(request, "postgres")) as db:
            pool = db.pool(max_size=1)
            proxy = pool.proxy()
            cursor = proxy.cursor(name="held", withhold=True)
            cursor.execute("select generate_series(1, 9)")
            proxy.commit()
            del cursor
            gc.collect()
            until_idle(pool)
            assert pool.execute("select name from pg_cursors") == []

    def test_that_are_kept_too_long_are_taken_away(self, lite: Db) -> None:
        expiry = Watcher()
        proxy = lite.pool(max_size=1, max_lease=0.2, observers=[expiry]).proxy(autocommit=True)
        cursor = proxy.execute(lite.select)
        assert cursor.fetchone() == (1,)
        expiry.wait_for("expired")
        with pytest.raises(LeaseExpired, match="max_lease"):
            cursor.fetchall()

    def test_do_not_hide_a_lease_that_is_lost(self, lite: Db) -> None:
        pool = lite.pool(max_size=1)
        blocks = [pool.connection()]
        blocks[0].__enter__()
        cursor = pool.proxy().execute(lite.select)
        blocks.clear()
        with pytest.warns(ResourceWarning, match="test_proxy.py"):
            pool.stats()
        assert pool.stats().in_use == 0
        with pytest.raises(StaleLease):
            cursor.fetchall()

    def test_of_a_thread_that_has_ended_are_gone(self, lite: Db) -> None:
        pool = lite.pool(max_size=1)
        proxy = pool.proxy(autocommit=True)
        kept: list[Cursor] = []
        with closing(Other()) as other:
            other(lambda: kept.append(proxy.execute(lite.select)))
        assert until_idle(pool).opened == 2  # closed: somebody has a cursor on it
        with pytest.raises(StaleLease, match="before all rows were read"):
            kept[0].fetchall()

    def test_of_an_unbuffered_cursor_of_pymysql(self, request: pytest.FixtureRequest) -> None:
        SSCursor = pytest.importorskip("pymysql.cursors").SSCursor
        with prepared(server_url(request, "mariadb")) as db:
            pool = db.pool(max_size=1)
            proxy = pool.proxy()
            proxy.cursor().executemany(f"insert into {db.table} values (%s)", [(n,) for n in range(300)])
            proxy.commit()
            proxy = pool.proxy(autocommit=True)
            cursor = proxy.cursor(SSCursor)
            cursor.execute(
                f"select repeat('x', 1000) from {db.table}"
            )  # more than is on its way: the socket is readable
            with pytest.warns(UserWarning, match="left incomplete"):  # PyMySQL's own word on it
                proxy.execute("select 1")
            assert pool.stats().opened == 1
            cursor.close()
            for mode in (True, False):
                proxy = pool.proxy(autocommit=mode)
                cursor = proxy.cursor(SSCursor)
                cursor.execute(db.select)
                assert cursor.fetchone() == (0,) and pool.stats().in_use == 1
                assert [row[0] for row in cursor] == list(range(1, 300))
                assert pool.stats().in_use == (not mode)  # its snapshot is an open transaction
                cursor.execute(db.select)
                proxy.commit()
                assert pool.stats().in_use == mode
                cursor.close()
                assert pool.stats().in_use == 0

    @pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
    def test_of_a_server_side_cursor(self, request: pytest.FixtureRequest, driver: str) -> None:
        pytest.importorskip(driver)
        url = server_url(request, "postgres").replace("postgresql:", f"postgresql+{driver}:")
        with prepared(url) as db:
            pool = db.pool(max_size=1)
            proxy = pool.proxy()
            with proxy.cursor(name="many") as cursor:
                assert pool.stats().in_use == 0
                cursor.execute("select generate_series(1, 1000)")
                assert [cursor.fetchone()[0] for _ in range(3)] == [1, 2, 3]
                assert [row[0] for row in cursor] == list(range(4, 1001))
            assert pool.in_transaction
            proxy.commit()
            assert pool.stats().in_use == 0

    @pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
    def test_of_a_server_side_cursor_that_outlives_its_transaction(
        self, request: pytest.FixtureRequest, driver: str
    ) -> None:
        pytest.importorskip(driver)
        url = server_url(request, "postgres").replace("postgresql:", f"postgresql+{driver}:")
        with prepared(url) as db:
            pool = db.pool(max_size=1)
            proxy = pool.proxy()
            cursor = proxy.cursor(name="held", withhold=True)
            cursor.execute("select generate_series(1, 9)")
            proxy.commit()
            assert pool.stats().in_use == 1
            assert cursor.fetchone()[0] == 1
            with pool.scope():
                pass
            with pytest.raises(StaleLease):
                cursor.fetchall()
            proxy.rollback()
            assert pool.execute("select name from pg_cursors") == []

    def test_an_error_on_the_way_to_them_passes_and_costs_nothing(self, lite: Db) -> None:
        pool = lite.pool(max_size=1)
        proxy = pool.proxy(autocommit=True)
        cursor = proxy.execute(f"select abs(case id when 4 then -9223372036854775808 else id end) from {lite.table}")
        with pytest.raises(sqlite3.Error, match="overflow"):
            cursor.fetchall()
        assert (pool.stats().in_use, pool.stats().opened) == (0, 1)
        lite.other.execute(f"delete from {lite.table}")

    @pytest.mark.parametrize("where", ["execute", "fetch"])
    def test_an_interrupt_on_the_way_to_them_costs_at_most_the_connection(self, lite: Db, where: str) -> None:
        struck = []

        def strike(number: int) -> int:
            if number == {"execute": 1, "fetch": 3}[where] and not struck:
                struck.append(number)
                raise KeyboardInterrupt
            return number

        class Interrupted(sqlite3.Cursor):
            def fetchmany(self, size: int | None = 1) -> list[Any]:
                rows = super().fetchmany(size)
                for row in rows:
                    strike(row[0])
                return rows

        pool = lite.pool(max_size=1)
        proxy = pool.proxy()
        proxy.execute(lite.insert(9))
        cursor = proxy.cursor(Interrupted)
        with pytest.raises(KeyboardInterrupt):
            cursor.execute(lite.select)
            for _ in range(5):
                cursor.fetchone()
        with pytest.raises(TransactionAborted, match=r"call rollback\(\)"):
            proxy.commit()
        proxy.rollback()
        assert pool.stats().in_use == 0
        assert lite.rows() == [1, 2, 3, 4, 5]


class TestLostTransactions:
    """A transaction whose connection is gone is never begun again in silence."""

    def lose(self, pool: Pool) -> None:
        lease = pool._hold().current()
        assert lease is not None
        lease.discard()

    def test_neither_commit_nor_the_next_statement_passes_until_rollback(self, pool: Pool, db: Db) -> None:
        proxy = pool.proxy()
        proxy.execute(db.insert(1))
        self.lose(pool)
        for use in (proxy.commit, proxy.cursor, lambda: proxy.execute(db.insert(2)), proxy.connection):
            with pytest.raises(TransactionAborted, match=r"call rollback\(\)") as caught:
                use()
            assert isinstance(caught.value, proxy.InterfaceError)
        proxy.rollback()
        proxy.execute(db.insert(3))
        proxy.commit()
        assert db.rows() == [3]

    @pytest.mark.parametrize("server", ["postgres", "mariadb"])
    def test_a_session_that_is_killed_in_it(self, request: pytest.FixtureRequest, server: str) -> None:
        with prepared(server_url(request, server)) as db:
            proxy = db.pool(max_size=1).proxy()
            proxy.execute(db.insert(1))
            with proxy.connection() as real:
                db.kill(real)
            with pytest.raises(proxy.Error) as caught:
                proxy.execute(db.insert(2))
            assert not isinstance(caught.value, PoolMisuse)
            with pytest.raises(TransactionAborted):
                proxy.execute(db.insert(3))
            proxy.rollback()
            proxy.execute(db.insert(4))
            proxy.commit()
            assert db.rows() == [4]

    def test_one_that_was_held_too_long(self, db: Db) -> None:
        expiry = Watcher()
        proxy = db.pool(max_size=1, max_lease=0.2, observers=[expiry]).proxy()
        proxy.execute(db.insert(1))
        expiry.wait_for("disconnected")
        with pytest.raises(LeaseExpired, match=r"test_proxy.py.*max_lease=0.2 s"):
            proxy.commit()
        with pytest.raises(TransactionAborted):
            proxy.commit()
        proxy.rollback()
        proxy.execute(db.insert(2))
        proxy.commit()
        assert db.rows() == [2]

    def test_one_that_the_database_has_given_up_is_not_committed_in_silence(self, db: Db, policy: str) -> None:
        pool = db.pool(checkout=policy)
        proxy = pool.proxy()
        proxy.execute(db.insert(1))
        with pytest.raises(proxy.IntegrityError):
            proxy.execute(db.insert(1))
        if db.gives_up:
            with pytest.raises(TransactionAborted, match="the error was swallowed"):
                proxy.commit()
        else:
            proxy.commit()
        proxy.execute(db.insert(2))
        proxy.commit()
        assert db.rows() == ([2] if db.gives_up else [1, 2])
        pool.release()

    def test_a_commit_that_fails_for_now_may_be_tried_again(self, lite: Db) -> None:
        pool = lite.pool(max_size=1)
        pool.execute("pragma journal_mode")  # the old one, where a reader is in a writer's way
        proxy = pool.proxy()
        with pool.connection() as real:
            real.execute("pragma busy_timeout = 0")
        proxy.execute(lite.insert(6))
        reader = lite.other.execute(lite.select)
        reader.fetchone()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            proxy.commit()
        reader.close()
        proxy.commit()
        assert 6 in lite.rows() and pool.stats().in_use == 0

    def test_one_that_a_text_has_ended_cannot_be_lost_any_more(self, db: Db) -> None:
        pool = db.pool(checkout="thread", max_size=1)
        proxy = pool.proxy(autocommit=True)
        proxy.execute("begin")
        proxy.execute("commit")
        self.lose(pool)
        proxy.execute("select 1").fetchall()
        pool.release()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_child_does_not_go_on_with_its_parents(self, lite: Db) -> None:
        pool = lite.pool(max_size=1)
        proxy = pool.proxy()
        proxy.execute(lite.insert(6))
        cursor = proxy.execute(lite.select)
        child = os.fork()
        if not child:
            status = 1
            try:
                with pytest.raises(TransactionAborted, match="before a fork"):
                    proxy.commit()
                with pytest.raises(TransactionAborted, match="before a fork"):
                    cursor.fetchone()
                proxy.rollback()
                with pytest.raises(StaleLease):
                    cursor.fetchall()
                cursor.close()
                assert proxy.execute("select 1").fetchall() == [(1,)]
                child_is_free = proxy.execute("begin").connection is proxy
                del cursor, proxy
                gc.collect()
                assert child_is_free and pool._hold().lease is None
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        cursor.close()
        proxy.commit()
        assert 6 in lite.rows()


class TestDropped:
    def test_a_proxy_with_an_open_transaction_gives_its_connection_back(
        self, db: Db, recwarn: pytest.WarningsRecorder
    ) -> None:
        pool = db.pool(max_size=1)
        pool.proxy().execute(db.insert(1))
        gc.collect()
        assert until_idle(pool).opened == 1
        pool.execute(db.insert(2))
        assert db.rows() == [2]
        assert told(recwarn) == []

    def test_what_it_left_is_not_for_the_next_operation_to_join(self, db: Db, other: Other) -> None:
        pool = db.pool(max_size=1)
        box = [pool.proxy()]
        box[0].execute(db.insert(1))
        other(box.clear)
        gc.collect()
        assert pool.stats().in_use == 1  # whose thread alone may touch it
        pool.execute(db.insert(2))
        assert db.rows() == [2] and pool.stats().in_use == 0

    def test_nor_for_the_block_around_to_keep(self, db: Db) -> None:
        pool = db.pool(max_size=1)
        proxy = pool.proxy()
        proxy.execute(db.insert(1))
        with pool.connection():
            del proxy
            gc.collect()
            assert pool.stats().in_use == 1
        assert pool.stats().in_use == 0
        assert db.rows() == []

    def test_its_rows_in_anothers_cursor_stay_with_the_thread(self, lite: Db) -> None:
        pool = lite.pool(max_size=1)
        proxy = pool.proxy()
        proxy.execute(lite.insert(6))
        cursor = pool.proxy().execute(lite.select)
        del proxy
        gc.collect()
        assert len(cursor.fetchall()) == 6
        pool.execute(lite.insert(7))
        assert lite.rows() == [1, 2, 3, 4, 5, 7] and pool.stats().in_use == 0

    def test_one_with_nothing_open_leaves_others_alone(self, db: Db) -> None:
        pool = db.pool(max_size=1)
        proxy = pool.proxy()
        proxy.execute(db.insert(1))
        pool.proxy().execute("select 1").fetchall()
        gc.collect()
        proxy.commit()
        assert db.rows() == [1]

    def test_a_thread_that_ends_leaves_nothing_open(self, db: Db) -> None:
        pool = db.pool(max_size=1)
        proxy = pool.proxy()
        with closing(Other()) as other:
            other(lambda: proxy.execute(db.insert(1)))
        assert until_idle(pool).opened == 1
        assert db.rows() == []


class TestThreads:
    def test_each_has_a_transaction_of_its_own(self, request: pytest.FixtureRequest, other: Other) -> None:
        with prepared(server_url(request, "postgres")) as db:
            proxy = db.pool(max_size=2).proxy()
            proxy.execute(db.insert(1))
            other(lambda: proxy.execute(db.insert(2)))
            proxy.commit()
            assert db.rows() == [1]
            other(proxy.rollback)
            assert db.rows() == [1]

    def test_after_close_anothers_transaction_ends_when_it_comes_back(
        self, request: pytest.FixtureRequest, other: Other
    ) -> None:
        with prepared(server_url(request, "postgres")) as db:
            pool = db.pool(max_size=2)
            proxy = pool.proxy()
            other(lambda: proxy.execute(db.insert(1)))
            proxy.close()
            assert pool.stats().in_use == 1
            with pytest.raises(StaleLease, match="closed"):
                other(proxy.commit)
            assert pool.stats().in_use == 0 and db.rows() == []

    def test_eight_of_them_share_one_over_three_connections_and_no_money_is_lost(
        self, request: pytest.FixtureRequest, policy: str
    ) -> None:
        with prepared(server_url(request, "postgres")) as db:
            pool = db.pool(checkout=policy, max_size=3)
            proxy = pool.proxy()
            proxy.execute(f"alter table {db.table} add money int not null default 100")
            proxy.cursor().executemany(f"insert into {db.table} (id) values (%s)", [(n,) for n in range(10)])
            proxy.commit()
            pool.release()
            failures: list[BaseException] = []

            def transfer(dice: random.Random) -> None:
                giver, taker = sorted(dice.sample(range(10), 2))
                cursor = proxy.cursor()
                cursor.execute(f"update {db.table} set money = money - 5 where id = %s returning money", (giver,))
                assert cursor.fetchone() is not None
                cursor.execute(f"update {db.table} set money = money + 5 where id = %s", (taker,))
                (proxy.commit if dice.random() < 0.7 else proxy.rollback)()

            def work(seed: int) -> None:
                dice = random.Random(seed)
                try:
                    for _ in range(50):
                        with pool.scope():
                            transfer(dice)
                except BaseException as error:
                    failures.append(error)

            run_all([lambda seed=seed: work(seed) for seed in range(8)])
            assert not failures
            assert proxy.execute(f"select sum(money) from {db.table}").fetchone() == (1000,)
            proxy.rollback()
            pool.release()
            assert pool.stats().opened <= 3 and pool.stats().in_use == 0


def run_all(actions: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=action, daemon=True) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * SOON)
        assert not thread.is_alive()
