"""Does each session keep what the options promise of it, whoever had it before? And is a server that turned read-only
left alone?"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.drivers import ask, failing
from tests.drivers.test_contract import stock
from tests.faults.bank import eventually
from tests.scene import SOON, SocketDriver, background, scene
from threadpool_db import ConnectFailed, Pool, PoolMisuse, create_pool
from threadpool_db.drivers.base import Driver
from threadpool_db.testing import FakeClock, Latch, ScriptedDriver

PG, MARIA, LITE = "postgresql", "mysql", "sqlite"
#: of the session: its isolation level, as the database spells it
LEVEL = {PG: "show transaction_isolation", MARIA: "select @@tx_isolation"}
#: what a borrower leaves behind, what init_sql says about it, and how to ask for it
DIRT = {PG: "set statement_timeout = 1111", MARIA: "set wait_timeout = 1111", LITE: "pragma cache_size = 1111"}
INIT = {PG: "set statement_timeout = 4321", MARIA: "set wait_timeout = 4321", LITE: "pragma cache_size = 4321"}
SETTING = {
    PG: "select setting from pg_settings where name = 'statement_timeout'",
    MARIA: "select @@wait_timeout",
    LITE: "pragma cache_size",
}
TABLE = f"session_options_{os.getpid()}"
WRITE = f"insert into {TABLE} values (1)"
DEFAULT = {PG: "read committed", MARIA: "repeatable read"}


@contextmanager
def table(url: str) -> Iterator[None]:
    with create_pool(url, max_size=1) as boss:
        boss.execute(f"drop table if exists {TABLE}")
        boss.execute(f"create table {TABLE} (id int)" + (" engine=innodb" if kind_of(url) == MARIA else ""))
        yield
        boss.execute(f"drop table {TABLE}")


def kind_of(url: str) -> str:
    return urlsplit(url).scheme.partition("+")[0]


class Place:
    """A database with an empty table."""

    def __init__(self, url: str, way: str) -> None:
        self.url, self.way, self.kind = url, way, kind_of(url)

    def pool(self, **options: Any) -> Pool:
        return create_pool(self.url if self.way == "url" else stock(self.url), **{"max_size": 1, **options})

    def init(self, connection: Any) -> str:
        return str(ask(connection, SETTING[self.kind])[0][0])

    def level(self, connection: Any) -> str:
        found: str = ask(connection, LEVEL[self.kind])[0][0]
        return found.lower().replace("-", " ")


@pytest.fixture(params=["url", "callable"])
def place(request: pytest.FixtureRequest, any_db_url: str) -> Iterator[Place]:
    with table(any_db_url):
        yield Place(any_db_url, request.param)


@pytest.fixture(params=["psycopg2", "psycopg", "pymysql"])
def server(request: pytest.FixtureRequest) -> Iterator[Place]:
    """One that has a server, which can reset."""
    pytest.importorskip(request.param)
    url = request.getfixturevalue("mariadb" if request.param == "pymysql" else "postgres").url
    url = url.replace("postgresql:", f"postgresql+{request.param}:")
    with table(url):
        yield Place(url, "url")


@pytest.fixture(params=["psycopg2", "psycopg"])
def postgresql(request: pytest.FixtureRequest, postgres: Any) -> Iterator[Place]:
    pytest.importorskip(request.param)
    url = postgres.url.replace("postgresql:", f"postgresql+{request.param}:")
    with table(url):
        yield Place(url, "url")


# --- init_sql -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("autocommit", [None, True, False])
def test_init_sql_holds_in_every_new_connection_and_survives_a_rollback(place, autocommit):
    with place.pool(init_sql=INIT[place.kind], autocommit=autocommit, max_size=2) as pool:
        leases = [pool.checkout(), pool.checkout()]
        for lease in leases:
            assert place.init(lease.connection) == "4321"
            lease.connection.rollback()
            assert place.init(lease.connection) == "4321"
            lease.checkin()
        assert str(pool.execute(SETTING[place.kind])[0][0]) == "4321"


@pytest.mark.parametrize("way", ["url", "callable"])
def test_several_statements_run_in_their_order_and_what_they_write_is_committed(any_db_url, way):
    with table(any_db_url):
        place = Place(any_db_url, way)
        with place.pool(init_sql=(WRITE, f"update {TABLE} set id = 7")) as pool:
            with pool.connection() as connection:
                assert pool._upkeep.driver.autocommit(connection) is False
                connection.rollback()
                assert list(ask(connection, f"select id from {TABLE}")) == [(7,)]
        with place.pool() as other:
            assert other.execute(f"select id from {TABLE}") == [(7,)]


def test_after_a_dirty_borrower_the_session_is_reset_and_told_again(server):
    with server.pool(init_sql=[INIT[server.kind]], isolation="serializable", read_only=True) as pool:
        for _ in range(2):
            with pool.scope():
                pool.execute(DIRT[server.kind])
            with pool.connection() as connection:
                assert server.init(connection) == "4321"
                assert server.level(connection) == "serializable"
                connection.rollback()
                assert "read" in str(failing(connection, WRITE)).lower()
        assert pool.stats().opened == 1


def test_what_cannot_be_reset_is_closed_and_the_next_connection_is_told(place):
    with place.pool(init_sql=INIT[place.kind]) as pool:
        with pool.scope():
            pool.execute(DIRT[place.kind])
        with pool.connection() as connection:
            assert place.init(connection) == "4321"
        assert pool.stats().opened == (1 if place.way == "url" and place.kind != LITE else 2)


@pytest.mark.parametrize("background", [True, False])
def test_a_failing_init_sql_is_a_failed_connect_that_says_which_statement_and_quotes_nothing(place, background):
    secret = "hunter2"
    with place.pool(init_sql=(INIT[place.kind], f"set nonsense {secret} ("), background=background) as pool:
        with pytest.raises(ConnectFailed, match="statement 2 of 2 of init_sql failed") as caught:
            pool.execute("select 1")
        assert secret not in str(caught.value)
        assert type(caught.value.__cause__).__module__.partition(".")[0] in (
            "psycopg2",
            "psycopg",
            "pymysql",
            "sqlite3",
        )
        eventually(lambda: pool.stats().total == 0, "it is closed")


def test_the_connection_of_a_failing_init_sql_is_closed_and_the_next_waiter_connects_anew():
    with scene(init_sql="tell", backoff=None) as s:
        s.driver.script("run", ZeroDivisionError)
        with pytest.raises(ConnectFailed, match=r"statement 1 of 1 of init_sql failed \(ZeroDivisionError") as caught:
            s.pool.checkout()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert caught.value.__cause__.__traceback__ is None
        assert (s.driver.closed, s.pool.stats().total) == (1, 0)
        with s.pool.checkout() as connection:
            assert (connection.number, connection.told) == (2, ["tell"])


@pytest.mark.parametrize("background", [True, False])
def test_it_is_closed_though_somebody_keeps_the_error(tmp_path, background):
    made = []

    def connect():
        made.append(sqlite3.connect(tmp_path / "a.db", check_same_thread=False))
        return made[-1]

    with create_pool(connect, init_sql=("create table t (a int)", "nonsense"), background=background) as pool:
        with pytest.raises(ConnectFailed) as kept:
            pool.checkout()
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            made[0].execute("select 1")
        assert kept.value.__cause__ is not None


@pytest.mark.parametrize("step", ["run", "set_isolation", "set_autocommit"])
def test_what_is_told_to_a_new_connection_takes_no_longer_than_a_connect_may(step):
    clock = FakeClock()
    driver = SocketDriver(clock, autocommit=False)
    options = {"init_sql": "x", "isolation": "serializable", "autocommit": True, "connect_timeout": 5, "backoff": None}
    with Pool(driver, clock=clock, background=False, check_timeout=1, **options) as pool:
        inside = Latch()
        inside.open()

        def hang():
            [connection] = driver.open
            inside()
            driver.hang(connection)()
            raise ConnectionError("cut off")

        driver.script("connect", lambda: clock.advance(2))  # the connect itself takes a part of it
        driver.script(step, hang)
        borrower = background(pool.checkout, timeout=60)
        inside.wait_for(1)
        clock.advance(2.9)
        assert not borrower.done()
        clock.advance(0.1)
        late = "could not connect" if step == "set_autocommit" else "took longer than connect_timeout=5 s"
        with pytest.raises(ConnectFailed, match=late):
            borrower.result(SOON)
        assert (driver.closed, clock.alarms, pool.stats().total) == (1, 0, 0)


def test_a_hanging_init_sql_of_a_database_without_a_socket_is_interrupted(tmp_path):
    endless = "with recursive t(n) as (select 1 union all select n + 1 from t) select count(*) from t"
    with create_pool(f"sqlite:///{tmp_path}/a.db", init_sql=endless, connect_timeout=0.2, background=False) as pool:
        with pytest.raises(ConnectFailed, match=r"statement 1 of 1 of init_sql took longer than connect_timeout=0.2 s"):
            pool.checkout()


@pytest.mark.parametrize("background", [True, False])
def test_a_hanging_init_sql_of_a_real_server_is_cut_off_and_its_slot_is_free_again(server, background):
    sleep = "select pg_sleep(60)" if server.kind == PG else "select sleep(60)"
    with server.pool(init_sql=sleep, connect_timeout=0.3, background=background) as pool:
        begun = time.monotonic()
        with pytest.raises(ConnectFailed):
            pool.checkout()
        eventually(lambda: pool.stats().total == 0, "the slot is free")
        assert time.monotonic() - begun < 10


def test_a_replay_that_fails_or_hangs_closes_the_connection():
    clock = FakeClock()
    driver = SocketDriver(clock)
    with scene(clock=clock, driver=driver, init_sql="x", check_timeout=2, reset="always") as s:
        lease = s.pool.checkout()
        driver.script("run", ConnectionError)
        lease.checkin()
        assert (driver.closed, s.pool.stats().total) == (1, 0)
        lease = s.pool.checkout()
        inside = Latch()
        inside.open()
        driver.script("run", lambda: (inside(), driver.hang(lease.connection)(), 1 / 0))
        giving = background(lease.checkin)
        inside.wait_for(1)
        clock.advance(2)
        giving.result(SOON)
        assert (driver.closed, clock.alarms, s.pool.stats().total) == (2, 0, 0)


def test_they_are_told_in_order_and_again_after_each_reset():
    everything = {"init_sql": ("a", "b"), "isolation": "Repeatable-READ", "read_only": False}
    with scene(autocommit=False, **everything) as s:
        for _ in range(3):
            lease = s.pool.checkout()
            lease._claim.entry.reset_first = True  # as execute does
            lease.connection.told.append("dirt")
            lease.checkin()
            [connection] = s.driver.open
            assert connection.told == ["a", "b", "repeatable read", "read write"]
        assert s.driver.calls["reset"] == 3


# --- isolation and read_only ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["url", "callable"])
@pytest.mark.parametrize("level", ["READ_UNCOMMITTED", "read-committed", "Repeatable Read", "serializable"])
def test_the_isolation_holds_in_every_kind_of_transaction(server, way, level):
    server.way = way
    wanted = level.lower().replace("_", " ").replace("-", " ")
    begin = "begin" if server.kind == PG else "start transaction"
    with server.pool(isolation=level) as pool:
        for _ in range(2):
            with pool.connection() as connection:
                assert server.level(connection) == wanted
            with pool.transaction() as connection:
                assert server.level(connection) == wanted
            assert pool.execute(LEVEL[server.kind])[0][0].lower().replace("-", " ") == wanted
            pool.execute(begin)
            assert pool.execute(LEVEL[server.kind])[0][0].lower().replace("-", " ") == wanted
            pool.execute("rollback")
            with pool.checkout() as connection:  # in autocommit, by hand, as a borrower would
                pool._upkeep.driver.set_autocommit(connection, True)
                ask(connection, begin)
                assert server.level(connection) == wanted
        assert pool.stats().opened == 1


def test_two_who_skew_are_not_both_let_through(postgresql):
    with postgresql.pool(isolation="serializable", max_size=2) as pool:
        pool.execute(f"insert into {TABLE} values (1), (2)")
        with pytest.raises(Exception, match="could not serialize"), pool.connection() as a, pool.checkout() as b:
            for mine in (a, b):
                ask(mine, f"select count(*) from {TABLE}")
            ask(a, f"update {TABLE} set id = 10 where id = 1")
            ask(b, f"update {TABLE} set id = 20 where id = 2")
            a.commit()
            b.commit()


def test_a_read_only_connection_refuses_writes_in_every_mode_and_is_not_dropped_for_it(place):
    begin = "start transaction" if place.kind == MARIA else "begin"
    with place.pool(read_only=True) as pool:
        for _ in range(2):
            attempts = [
                lambda: pool.execute(WRITE),
                lambda: (pool.execute(begin), pool.execute(WRITE)),
                lambda: borrow_and_write(pool.connection),
                lambda: borrow_and_write(pool.transaction),
                lambda: borrow_and_write(pool.checkout),
            ]
            for attempt in attempts:
                with pytest.raises(Exception, match=r"(?i)read.?only"):
                    attempt()
                if pool.in_transaction:
                    pool.execute("rollback")
            assert pool.execute(f"select count(*) from {TABLE}") == [(0,)]
        assert pool.stats().opened == 1


def borrow_and_write(borrow: Any) -> None:
    with borrow() as connection:
        ask(connection, WRITE)


def test_read_only_false_makes_a_session_writable_that_is_not_by_default(postgres):
    with closing(stock(postgres.url)()) as boss:
        boss.autocommit = True
        ask(boss, "create role meek login")
        try:
            ask(boss, "alter role meek set default_transaction_read_only = on")
            ask(boss, f"create table {TABLE} (id int)")
            ask(boss, f"grant all on {TABLE} to meek")
            url = postgres.url.replace("postgres@", "meek@")
            with create_pool(url, read_only=False) as pool:
                assert pool.execute(WRITE).rowcount == 1
            with create_pool(url) as pool, pytest.raises(Exception, match="read-only"):
                pool.execute(WRITE)
        finally:
            ask(boss, f"drop table {TABLE}")
            ask(boss, "drop role meek")


def test_isolation_and_read_only_come_before_what_the_callable_has_set_on_the_connection(postgresql):
    def connect():
        connection = stock(postgresql.url)()
        connection.isolation_level = 2  # READ COMMITTED of psycopg, REPEATABLE READ of psycopg2
        setattr(connection, "readonly" if hasattr(connection, "readonly") else "read_only", False)
        return connection

    with create_pool(connect, max_size=1, isolation="serializable", read_only=True) as pool:
        for _ in range(2):
            for borrow in (pool.connection, pool.transaction, pool.checkout):
                with borrow() as connection:
                    assert postgresql.level(connection) == "serializable"
                    assert ask(connection, "show transaction_read_only") == [("on",)]
                    # or it would be put back, and told again, at each checkin
                    assert not (pool._upkeep.driver.dirtied(connection) or getattr(connection, "left", 0))
        assert pool.stats().opened == 1


# --- What a borrower sets on the connection object --------------------------------------------------------------------


def characters(connection: Any) -> tuple[str, str]:
    return (
        ask(connection, "show transaction_isolation")[0][0],
        ask(connection, "show transaction_read_only")[0][0],
    )


@pytest.mark.parametrize("way", ["url", "callable"])
@pytest.mark.parametrize("lent_in", [False, True], ids=["manual", "autocommit"])
@pytest.mark.parametrize("left_in", [False, True], ids=["manual", "autocommit"])
@pytest.mark.parametrize("options", [{}, {"isolation": "repeatable read", "read_only": False}], ids=["bare", "told"])
def test_what_a_borrower_sets_on_the_connection_object_is_gone(postgresql, way, lent_in, left_in, options):
    postgresql.way = way
    usual = (options.get("isolation", "read committed"), "off")
    with postgresql.pool(**options) as pool:
        for _ in range(2):
            lease = pool.checkout()
            connection = lease.connection
            connection.autocommit = lent_in
            connection.isolation_level = 4 if hasattr(connection, "pgconn") else 3
            setattr(connection, "readonly" if hasattr(connection, "readonly") else "read_only", True)
            connection.deferrable = True
            connection.autocommit = left_in
            lease.checkin()
            with pool.connection() as connection:
                assert connection.isolation_level is None and connection.deferrable is None
                assert characters(connection) == usual
            with pool.transaction() as connection:
                assert characters(connection) == usual
        closes = way == "callable" and left_in and "psycopg" not in postgresql.url.partition("://")[0].split("+")
        assert pool.stats().opened == (3 if closes else 1)


@pytest.mark.parametrize("what", ["isolation_level", "read_only", "deferrable"])
def test_each_of_them_alone_is_noticed(postgresql, what):
    with postgresql.pool() as pool, pool.checkout() as connection:
        driver = pool._upkeep.driver
        name = "readonly" if what == "read_only" and hasattr(connection, "readonly") else what
        assert driver.settled(connection, False)
        setattr(connection, name, 3 if what == "isolation_level" else False)
        assert not driver.settled(connection, False)


def test_what_the_callable_itself_sets_on_its_connections_is_kept_and_put_back(postgresql):
    serializable = 4 if "+psycopg:" in postgresql.url else 3

    def connect():
        connection = stock(postgresql.url)()
        connection.isolation_level = serializable
        return connection

    with create_pool(connect, max_size=1) as pool:
        for _ in range(3):
            with pool.connection() as connection:
                assert postgresql.level(connection) == "serializable"
                connection.rollback()
                connection.isolation_level = None
                assert postgresql.level(connection) == "read committed"
        assert pool.stats().opened == 1


def test_a_row_factory_of_one_borrower_is_not_the_next_ones(postgres):
    psycopg = pytest.importorskip("psycopg")
    url = postgres.url.replace("postgresql:", "postgresql+psycopg:")
    with create_pool(url, max_size=1) as pool:
        with pool.connection() as connection:
            connection.row_factory = psycopg.rows.dict_row
            assert ask(connection, "select 1 as one") == [{"one": 1}]
        with pool.connection() as connection:
            assert ask(connection, "select 1 as one") == [(1,)]
        assert pool.stats().opened == 1
    dicts = lambda: psycopg.connect(postgres.url, row_factory=psycopg.rows.dict_row)  # noqa: E731
    with create_pool(dicts, max_size=1) as pool:
        for _ in range(2):
            assert pool.execute("select 1 as one") == [{"one": 1}]
            with pool.connection() as connection:
                connection.row_factory = psycopg.rows.tuple_row


# --- reset ------------------------------------------------------------------------------------------------------------


def test_always_resets_at_each_checkin_whatever_the_borrower_did(server):
    with server.pool(reset="always", init_sql=INIT[server.kind]) as pool:
        for _ in range(3):
            with pool.checkout() as connection:
                assert server.init(connection) == "4321"
                ask(connection, DIRT[server.kind])  # by a cursor of the borrower's own
                connection.commit()
        assert pool.stats().opened == 1


@pytest.mark.parametrize(("reset", "resets"), [("auto", 0), ("always", 3), ("never", 0)])
def test_only_always_resets_what_nobody_dirtied(reset, resets):
    with scene(reset=reset) as s:
        for _ in range(3):
            s.pool.checkout().checkin()
        assert s.driver.calls["reset"] == resets


def test_never_leaves_everything_to_the_user(server):
    with server.pool(reset="never") as pool:
        pool.execute(DIRT[server.kind])  # outside any scope: neither refused nor pinned
        assert pool.stats().in_use == 0
        with pool.scope():
            pool.execute(DIRT[server.kind])
            assert pool.stats().in_use == 0
        with pool.connection() as connection:
            assert server.init(connection).startswith("1111")
        pool.execute("select last_insert_id()" if server.kind == MARIA else "select lastval() from pg_class limit 0")
        assert pool.stats().opened == 1


def test_never_still_rolls_back_and_pins_a_transaction_begun_by_hand(server):
    with server.pool(reset="never") as pool:
        pool.execute("begin")
        assert pool.in_transaction
        pool.execute(WRITE)
        pool.execute("rollback")
        with pool.checkout() as connection:
            ask(connection, WRITE)
        assert pool.execute(f"select count(*) from {TABLE}") == [(0,)]


def test_never_does_not_even_look_at_what_was_set_on_the_connection_object(postgres):
    psycopg2 = pytest.importorskip("psycopg2")
    with create_pool(lambda: psycopg2.connect(postgres.url), reset="never", max_size=1, autocommit=True) as pool:
        with pool.connection() as connection:
            connection.isolation_level = "SERIALIZABLE"
        with pool.connection() as connection:
            assert ask(connection, "show transaction_isolation") == [("serializable",)]
        assert pool.stats().opened == 1


def test_never_does_not_close_what_cannot_be_reset(tmp_path):
    with create_pool(f"sqlite:///{tmp_path}/a.db", reset="never", max_size=1) as pool:
        pool.execute("create temp table mine (a int)")
        assert pool.execute("select count(*) from mine") == [(0,)]
        assert pool.stats().opened == 1


# --- disconnect_on ----------------------------------------------------------------------------------------------------


class Coded(Exception):
    def __init__(self, code: Any) -> None:
        super().__init__(f"error {code}")
        self.code = code


def raise_within(block: Any, error: BaseException) -> None:
    with pytest.raises(type(error)), block:
        raise error


def test_a_connection_with_such_an_error_is_closed_on_its_return_and_others_are_not():
    with scene(disconnect_on=["25006", 1290]) as s:
        for number, code in enumerate(["25006", 1290, "23505", 1062, None], 1):
            with s.pool.checkout() as connection:
                assert connection.number == min(number, 3)
            raise_within(s.pool.checkout(), Coded(code))
        assert s.driver.closed == 2


def test_it_is_recognised_as_the_cause_of_another_error():
    with scene(disconnect_on="25006") as s:
        wrapped = RuntimeError("the shop is closed")
        wrapped.__cause__ = LookupError()
        wrapped.__cause__.__cause__ = Coded("25006")
        raise_within(s.pool.checkout(), wrapped)
        assert s.driver.closed == 1
        circle = RuntimeError()
        circle.__cause__ = circle
        raise_within(s.pool.checkout(), circle)
        assert s.driver.closed == 1


def test_no_codes_at_all_turn_it_off(postgres):
    with create_pool(postgres.url, max_size=1, disconnect_on=()) as pool:
        for _ in range(2):
            with pytest.raises(Exception, match="read-only"), pool.connection() as connection:
                ask(connection, "set transaction read only")
                ask(connection, "create table never_made (a int)")
        assert pool.stats().opened == 1


def test_a_transaction_with_such_an_error_keeps_its_connection_to_its_end(server):
    """Or the statements after it would each run, and commit, on another one."""
    begin = "begin read only" if server.kind == PG else "start transaction read only"
    with server.pool(max_size=2) as pool:
        pool.execute(begin)
        with pytest.raises(Exception, match=r"(?i)read.?only"):
            pool.execute(WRITE)
        assert pool.in_transaction
        pool.execute("rollback")
        assert pool.execute(f"select count(*) from {TABLE}") == [(0,)]
        assert pool.stats().opened == 2


@pytest.mark.parametrize("checkout", ["operation", "thread"])
def test_an_error_that_was_swallowed_inside_a_block_or_by_a_sticky_thread_counts_too(server, checkout):
    set_ = "set transaction read only" if server.kind == PG else "set session transaction read only"
    with server.pool(max_size=2, checkout=checkout) as pool:
        with pool.scope():
            with pool.connection() as connection:
                ask(connection, set_)
                with pytest.raises(Exception, match=r"(?i)read.?only"):
                    pool.execute(WRITE)
                connection.rollback()
            pool.execute(WRITE)
        assert pool.stats().opened == 2


def test_a_thread_lets_go_of_its_sticky_connection_before_the_next_operation(postgres):
    with closing(stock(postgres.url)()) as boss, table(postgres.url):
        boss.autocommit = True
        with create_pool(postgres.url, checkout="thread", max_size=2) as pool:
            try:
                ask(boss, "alter database postgres set default_transaction_read_only = on")
                pool.execute("select 1")  # the thread keeps this connection
            finally:
                ask(boss, "alter database postgres reset default_transaction_read_only")
            with pytest.raises(Exception, match="read-only"):
                pool.execute(WRITE)
            assert pool.execute(WRITE).rowcount == 1
        assert pool.stats().opened == 2


def test_a_block_s_error_counts_for_what_the_thread_keeps_after_it(server):
    begin = "begin read only" if server.kind == PG else "start transaction read only"
    with server.pool(max_size=2, checkout="thread") as pool:
        pool.execute("select 1")
        with pytest.raises(Exception, match=r"(?i)read.?only"), pool.connection() as connection:
            ask(connection, begin)
            ask(connection, WRITE)
        assert pool.stats().opened == 1
        pool.execute("select 1")
        assert pool.stats().opened == 2


def test_what_a_scope_has_pinned_stays_to_its_end(server):
    """Its session is worth an error: on another connection the rest of the scope would run without it."""
    begin = "begin read only" if server.kind == PG else "start transaction read only"
    with server.pool(max_size=2) as pool:
        with pool.scope():
            pool.execute(DIRT[server.kind])
            pool.execute(begin)
            with pytest.raises(Exception, match=r"(?i)read.?only"):
                pool.execute(WRITE)
            pool.execute("rollback")
            assert str(pool.execute(SETTING[server.kind])[0][0]) in ("1111", "1111ms")
        assert pool.stats().total == 0


def test_after_a_failover_postgresql_s_read_only_sessions_are_given_up_one_by_one(postgresql, postgres):
    with closing(stock(postgres.url)()) as boss, postgresql.pool(max_size=3) as pool:
        boss.autocommit = True
        try:
            ask(boss, "alter database postgres set default_transaction_read_only = on")
            leases = [pool.checkout() for _ in range(3)]
            for lease in leases:
                lease.checkin()
            assert pool.execute("select 1") == [(1,)]
        finally:
            ask(boss, "alter database postgres reset default_transaction_read_only")
        writers = [
            lambda: pool.execute(WRITE),
            lambda: borrow_and_write(pool.transaction),
            lambda: borrow_and_write(pool.connection),
        ]
        for write in writers:
            with pytest.raises(Exception, match="read-only"):
                write()
        eventually(lambda: pool.stats().total == 0, "all three are closed")
        assert pool.execute(WRITE).rowcount == 1
        assert pool.stats().opened == 4


def test_while_mariadb_is_read_only_no_connection_that_met_it_is_given_to_anybody_again(mariadb):
    with closing(stock(mariadb.url)()) as boss, table(mariadb.url):
        ask(boss, "create or replace user meek")
        ask(boss, "grant select, insert on test.* to meek")
        try:
            with create_pool(mariadb.url.replace("root@", "meek@"), max_size=1) as pool:
                pool.execute(WRITE)
                ask(boss, "set global read_only = 1")
                sessions = set()
                for _ in range(3):
                    sessions |= set(pool.execute("select connection_id()"))
                    with pytest.raises(Exception, match="read-only"):
                        pool.execute(WRITE)
                assert len(sessions) == 3
                ask(boss, "set global read_only = 0")
                assert pool.execute(WRITE).rowcount == 1
            with create_pool(mariadb.url.replace("root@", "meek@"), max_size=1, read_only=True) as pool:
                ask(boss, "set global read_only = 1")
                for _ in range(3):
                    with pytest.raises(Exception, match=r"(?i)read.?only"):
                        pool.execute(WRITE)
                assert pool.stats().opened == 1
        finally:
            ask(boss, "set global read_only = 0")
            ask(boss, "drop user meek")


def test_sqlite_s_codes_are_its_extended_ones(tmp_path):
    code = getattr(sqlite3, "SQLITE_CONSTRAINT_UNIQUE", None)
    if code is None:
        pytest.skip("before Python 3.11 the errors have no codes")
    with create_pool(f"sqlite:///{tmp_path}/a.db", max_size=1, disconnect_on=code) as pool:
        pool.execute("create table t (a int unique)")
        pool.execute("insert into t values (1)")
        with pytest.raises(sqlite3.IntegrityError):
            pool.execute("insert into t values (1)")
        assert pool.stats().total == 0


# --- Refusals ---------------------------------------------------------------------------------------------------------


class Bare(Driver[object]):
    def connect(self, timeout: float) -> object:
        return object()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reset": "sometimes"}, "reset='sometimes': must be one of 'auto', 'always', 'never'"),
        ({"reset": None}, "reset=None"),
        (
            {"isolation": "snapshot"},
            "isolation='snapshot': must be None or one of 'read uncommitted', 'read committed'",
        ),
        ({"isolation": 3}, "isolation=3"),
        ({"isolation": ""}, "isolation=''"),
        ({"read_only": "yes"}, "read_only='yes': must be one of None, True, False"),
        ({"init_sql": ""}, "init_sql: must be one statement as text, or several"),
        ({"init_sql": ("select 1", " ")}, "init_sql: must be"),
        ({"init_sql": 5}, "init_sql: must be"),
        ({"init_sql": None}, "init_sql: must be"),
        ({"init_sql": b"select 1"}, "init_sql: must be"),
        ({"disconnect_on": "2500"}, "disconnect_on: '2500' is no code of an error; it must be an SQLSTATE as text"),
        ({"disconnect_on": "25p02"}, "'25p02'"),
        ({"disconnect_on": [0]}, "disconnect_on: 0 is"),
        ({"disconnect_on": [True]}, "disconnect_on: True is"),
        ({"disconnect_on": 1.5}, "disconnect_on: 1.5 is"),
        ({"disconnect_on": ("25006",), "read_only": True}, "'25006' is what read_only=True itself answers to a write"),
        ({"disconnect_on": 1792, "read_only": True}, "1792 is what read_only=True itself"),
    ],
    ids=str,
)
def test_impossible_values_are_refused_with_option_value_and_remedy(options, words):
    with pytest.raises(ValueError) as caught:
        Pool(ScriptedDriver(), **options)
    assert words in str(caught.value)


def test_what_is_told_to_sessions_is_not_shown_with_the_other_options():
    with scene(init_sql="select set_config('app.key', 'hunter2', false)") as s:
        assert "hunter2" not in repr(s.pool._config)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        (
            "sqlite",
            {"isolation": "read committed"},
            "isolation='read committed': SQLite's transactions are all 'serial",
        ),
        ("sqlite", {"reset": "always"}, "max_uses=1 gives each borrower a connection of its own"),
        ("sqlite", {"disconnect_on": "25006"}, "the driver 'sqlite' are numbers"),
        ("postgresql", {"disconnect_on": [1290]}, "the driver 'psycopg2' are texts"),
        ("mysql", {"disconnect_on": ["25006"]}, "the driver 'pymysql' are numbers"),
        ("callable", {"reset": "always"}, "reset='always': what a session remembers can be wiped only by a driver"),
        ("dbapi", {"isolation": "serializable"}, "the driver 'dbapi' has no way to do it; say it in init_sql"),
        ("dbapi", {"read_only": True}, "read_only=True: the driver 'dbapi' has no way"),
        ("bare", {"init_sql": "hunter2"}, "init_sql: the driver 'driver' has no way to do it; leave it out"),
        ("bare", {"isolation": "serializable"}, "leave it out"),
        ("bare", {"read_only": False}, "read_only=False: the driver 'driver' has no way to do it; leave it out"),
        ("bare", {"disconnect_on": [1290]}, "has no way to do it; leave it out"),
        ("bare", {"reset": "always"}, "max_uses=1"),
    ],
    ids=str,
)
def test_what_a_driver_cannot_do_is_refused_when_the_pool_is_made(tmp_path, source, options, words):
    sources = {
        "sqlite": f"sqlite:///{tmp_path}/a.db",
        "postgresql": "postgresql://app@db/app",
        "mysql": "mysql://app@db/app",
        "bare": Bare(),
    }
    with pytest.raises(ValueError) as caught:
        create_pool(sources.get(source, lambda: None), driver="dbapi" if source == "dbapi" else None, **options)
    assert words in str(caught.value) and "hunter2" not in str(caught.value)


@pytest.mark.parametrize("background", [True, False])
def test_what_a_driver_cannot_do_that_is_recognised_only_then_is_misuse_at_the_first_connect(tmp_path, background):
    def connect():
        return sqlite3.connect(tmp_path / "a.db", check_same_thread=False)

    with create_pool(connect, isolation="read committed", background=background) as pool:
        for _ in range(2):
            with pytest.raises(PoolMisuse, match="isolation='read committed': SQLite's transactions are all"):
                pool.checkout()
        eventually(lambda: pool.stats().total == 0, "the connection is closed")


@pytest.mark.parametrize("way", ["url", "callable"])
def test_sqlite_is_serializable_and_says_so(tmp_path, way):
    with Place(f"sqlite:///{tmp_path}/a.db", way).pool(isolation="SERIALIZABLE") as pool:
        assert pool.execute("select 1") == [(1,)]


def test_any_pep_249_module_takes_init_sql_and_codes(tmp_path):
    def connect():
        return sqlite3.connect(tmp_path / "a.db", check_same_thread=False)

    with create_pool(connect, driver="dbapi", init_sql=("pragma cache_size = 4321",), disconnect_on=[1290]) as pool:
        assert pool.execute("pragma cache_size") == [(4321,)]


class TestSqlAlchemy:
    """Its engine has its own way to each of these."""

    @pytest.mark.parametrize(
        "name",
        "init_sql isolation disconnect_on read_only reset on_connect on_checkout on_checkin on_close".split(),
    )
    def test_threadpool_refuses_them_and_says_what_to_use(self, name):
        pytest.importorskip("sqlalchemy")
        from threadpool_db.ext.sqlalchemy import ThreadPool

        with pytest.raises(
            TypeError, match=f"ThreadPool has '{name}', which SQLAlchemy's engine has its own way for: "
        ):
            ThreadPool(lambda: None, **{name: None})

    @pytest.mark.parametrize("name", ["init_sql", "isolation", "disconnect_on"])
    def test_the_plugin_refuses_them_in_a_url(self, name):
        sqlalchemy = pytest.importorskip("sqlalchemy")
        with pytest.raises(TypeError, match=f"the database URL has '{name}', which"):
            sqlalchemy.create_engine(f"sqlite:///a.db?plugin=threadpool_db&{name}=serializable")
