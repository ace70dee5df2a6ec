"""Does every driver keep the promises of drivers/base.py? One suite over each driver, its real server, and both ways
of connecting: with parameters, and through somebody else's callable."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.drivers import ask, failing, opened, wait_for_goodbye
from tests.servers import FaultProxy
from threadpool_db.drivers.base import FAILED, IDLE, OPEN, UNKNOWN, Driver
from threadpool_db.drivers.choose import driver_for
from threadpool_db.drivers.dbapi import Dbapi
from threadpool_db.drivers.sockets import Socket, poll_socket


class Dialect(NamedTuple):
    """What differs from database to database."""

    table: str
    broken: str = "select syntax error here"
    #: what the state may be after a SELECT out of autocommit
    after_select: frozenset[Any] = frozenset({OPEN})
    session_id: str = ""
    kill: str = ""
    #: session state: how to make it, and a question that says 1 while it is there (and 0, or an error, when not)
    dirt: tuple[tuple[str, str], ...] = ()


POSTGRESQL = Dialect(
    table="create table {} (id int primary key)",
    session_id="select pg_backend_pid()",
    kill="select pg_terminate_backend({})",
    dirt=(
        ("set statement_timeout = 4321", "select count(*) from pg_settings where setting = '4321'"),
        ("set search_path = elsewhere", "select count(*) from pg_settings where setting = 'elsewhere'"),
        ("create temp table tt (a int)", "select count(*) from pg_class where relname = 'tt'"),
        ("select pg_advisory_lock(7)", "select count(*) from pg_locks where locktype = 'advisory'"),
        ("prepare p as select 1", "execute p"),
        ("listen news", "select count(*) from pg_listening_channels()"),
        ("declare c cursor with hold for select 1", "select count(*) from pg_cursors where name = 'c'"),
    ),
)

DIALECTS = {
    "psycopg2": POSTGRESQL,
    "psycopg": POSTGRESQL,
    "pymysql": Dialect(
        table="create table {} (id int primary key) engine=innodb",
        after_select=frozenset({UNKNOWN}),
        session_id="select connection_id()",
        kill="kill {}",
        dirt=(
            ("set @a = 1", "select @a"),
            ("set wait_timeout = 4321", "select @@wait_timeout = 4321"),
            ("create temporary table tt (a int)", "select count(*) = 0 from tt"),
            ("select get_lock('l', 1)", "select is_used_lock('l') is not null"),
            ("prepare p from 'select 1'", "execute p"),
            ("use mysql", "select database() = 'mysql'"),
            ("set names latin1", "select @@character_set_client = 'latin1'"),
        ),
    ),
    "sqlite": Dialect(table="create table {} (id int primary key)", after_select=frozenset({IDLE})),
}


class Case(NamedTuple):
    """One driver, ready to connect to a database that has an empty table."""

    driver: Driver[Any]
    dialect: Dialect
    table: str
    url: str

    def insert(self, number: int) -> str:
        return f"insert into {self.table} values ({number})"

    def rows(self) -> list[int]:
        """What everybody sees, asked over a connection of its own."""
        with opened(driver_for(self.url)) as other:
            return [row[0] for row in ask(other, f"select id from {self.table} order by id")]

    def kill(self, connection: Any) -> None:
        session = ask(connection, self.dialect.session_id)[0][0]
        self.driver.rollback(connection)
        with opened(driver_for(self.url)) as other:
            ask(other, self.dialect.kill.format(session))
        descriptor = self.driver.descriptor(connection)
        assert descriptor is not None
        wait_for_goodbye(descriptor)


WAYS = ["parameters", "callable"]


@contextmanager
def prepared(url: str, way: str) -> Iterator[Case]:
    made = driver_for(url)
    driver = made if way == "parameters" else driver_for(stock(url), made.name)
    dialect, table = DIALECTS[made.name], f"contract_{os.getpid()}"
    with opened(made) as connection:
        made.set_autocommit(connection, True)
        ask(connection, f"drop table if exists {table}")
        ask(connection, dialect.table.format(table))
        yield Case(driver, dialect, table, url)
        ask(connection, f"drop table {table}")


@pytest.fixture(params=WAYS)
def case(request: pytest.FixtureRequest, any_db_url: str) -> Iterator[Case]:
    with prepared(any_db_url, request.param) as case:
        yield case


@pytest.fixture(params=[f"{name}-{way}" for name in ("psycopg2", "psycopg", "pymysql") for way in WAYS])
def server_case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Only the databases behind a socket."""
    name, way = request.param.split("-")
    url = request.getfixturevalue("mariadb" if name == "pymysql" else "postgres").url
    with prepared(url.replace("postgresql:", f"postgresql+{name}:"), way) as case:
        yield case


@contextmanager
def rested(case: Case) -> Iterator[Any]:
    with opened(case.driver) as connection:
        if case.driver.state(connection) is UNKNOWN:  # what the pool does then: one rollback
            case.driver.rollback(connection)
        yield connection


def stock(url: str) -> Callable[[], Any]:
    """How somebody who knows nothing of us would connect."""
    parts = urlsplit(url)
    if parts.scheme == "postgresql+psycopg":
        import psycopg

        return lambda: psycopg.connect(url.replace("+psycopg", ""))
    if parts.scheme.startswith("postgresql"):
        import psycopg2

        return lambda: psycopg2.connect(url.replace("+psycopg2", ""))
    if parts.scheme == "mysql":
        import pymysql

        return lambda: pymysql.connect(
            host=parts.hostname, port=parts.port, user=parts.username, database=parts.path[1:], ssl_disabled=True
        )
    import sqlite3

    return lambda: sqlite3.connect(parts.path[1:], check_same_thread=False)


@pytest.fixture
def connection(case: Case) -> Iterator[Any]:
    with rested(case) as connection:
        yield connection


@pytest.fixture(params=[False, True], ids=["manual", "autocommit"])
def autocommit(request: pytest.FixtureRequest, case: Case, connection: Any) -> bool:
    case.driver.set_autocommit(connection, request.param)
    return bool(request.param)


def test_a_connection_made_by_us_is_at_rest_in_the_mode_that_its_module_would_give(any_db_url: str) -> None:
    driver = driver_for(any_db_url)
    with opened(driver) as connection:
        assert driver.state(connection) is IDLE
        assert driver.autocommit(connection) is False
        assert driver.settled(connection, False) and not driver.settled(connection, True)


def test_autocommit_may_be_asked_for_in_the_url(any_db_url: str) -> None:
    driver = driver_for(f"{any_db_url}?autocommit=true")
    with opened(driver) as connection:
        assert driver.settled(connection, True)


def test_a_url_gives_a_driver_that_can_reset_unless_there_is_no_server(case: Case) -> None:
    made = driver_for(case.url)
    assert made.can_reset is (made.name != "sqlite")
    assert not driver_for(lambda: None, made.name).can_reset


def test_ping_leaves_neither_a_transaction_nor_another_mode(case: Case, connection: Any, autocommit: bool) -> None:
    assert case.driver.ping(connection)
    assert case.driver.settled(connection, autocommit)


def test_the_state_follows_every_kind_of_statement_in_autocommit(case: Case, connection: Any) -> None:
    driver, t = case.driver, case.table
    driver.set_autocommit(connection, True)
    story: list[tuple[str, set[Any]]] = [
        (case.insert(1), {IDLE}),
        (f"select * from {t}", {IDLE}),
        (case.dialect.broken, {IDLE, UNKNOWN}),
        (case.insert(1), {IDLE, UNKNOWN}),  # a duplicate
        (f"select * from {t}", {IDLE, UNKNOWN}),
        (f"create table {t}_2 (a int)", {IDLE}),
        (f"drop table {t}_2", {IDLE}),
        ("begin", {OPEN}),
        (f"select * from {t}", {OPEN}),
        (case.insert(2), {OPEN}),
        ("commit", {IDLE}),
        ("begin", {OPEN}),
        (case.dialect.broken, {OPEN, FAILED}),
        ("rollback", {IDLE}),
        (f"select * from {t}", {IDLE}),
    ]
    for statement, states in story:
        try:
            ask(connection, statement)
        except Exception:
            assert UNKNOWN in states or FAILED in states, statement
        state = driver.state(connection)
        assert state in states, statement
        assert driver.settled(connection, True) is (state is IDLE), statement


def test_the_state_follows_every_kind_of_statement_out_of_autocommit(case: Case, connection: Any) -> None:
    driver = case.driver
    for statement, states in [
        (case.insert(1), {OPEN}),
        ("commit by the driver", {IDLE}),
        (f"select * from {case.table}", case.dialect.after_select),
        ("rollback by the driver", {IDLE}),
        (case.insert(2), {OPEN}),
        ("rollback by the driver", {IDLE}),
    ]:
        if statement == "commit by the driver":
            driver.commit(connection)
        elif statement == "rollback by the driver":
            driver.rollback(connection)
        else:
            ask(connection, statement)
        state = driver.state(connection)
        assert state in states, statement
        assert driver.settled(connection, False) is (state is IDLE), statement
    assert case.rows() == [1]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_the_driver_ends_what_a_handwritten_begin_opened(
    case: Case, connection: Any, autocommit: bool, end: str
) -> None:
    driver = case.driver
    ask(connection, "begin")
    ask(connection, case.insert(1))
    assert driver.state(connection) is OPEN
    getattr(driver, end)(connection)
    assert driver.settled(connection, autocommit)
    assert case.rows() == ([1] if end == "commit" else [])


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_the_driver_begins_and_ends_a_transaction_of_its_own(
    case: Case, connection: Any, autocommit: bool, end: str
) -> None:
    driver = case.driver
    driver.begin(connection)
    ask(connection, case.insert(1))
    assert driver.state(connection) is OPEN
    assert driver.autocommit(connection) is autocommit
    getattr(driver, end)(connection)
    assert driver.settled(connection, autocommit)
    assert case.rows() == ([1] if end == "commit" else [])


def test_commit_and_rollback_of_nothing_are_allowed(case: Case, connection: Any, autocommit: bool) -> None:
    case.driver.commit(connection)
    case.driver.rollback(connection)
    assert case.driver.settled(connection, autocommit)


def test_a_transaction_that_failed_can_be_rolled_back(case: Case, connection: Any, autocommit: bool) -> None:
    case.driver.begin(connection)
    ask(connection, case.insert(1))
    failing(connection, case.insert(1))
    assert case.driver.state(connection) in (OPEN, FAILED)
    case.driver.rollback(connection)
    assert case.driver.settled(connection, autocommit)
    assert case.rows() == []


def test_in_autocommit_each_statement_is_kept(case: Case, connection: Any) -> None:
    case.driver.set_autocommit(connection, True)
    ask(connection, case.insert(1))
    assert case.rows() == [1]
    case.driver.set_autocommit(connection, False)
    ask(connection, case.insert(2))
    assert case.rows() == [1]
    case.driver.rollback(connection)


def test_a_closed_connection_is_never_settled_nor_alive(case: Case) -> None:
    driver = case.driver
    connection = driver.connect(10)
    driver.close(connection)
    assert not driver.settled(connection, False)
    assert driver.state(connection) is UNKNOWN
    assert driver.peek(connection) is not driver.peeks
    assert driver.descriptor(connection) is None
    error = failing(connection, "select 1")
    assert driver.is_disconnect(error, connection)


def test_an_ordinary_error_is_no_disconnect(case: Case, connection: Any) -> None:
    error = failing(connection, case.dialect.broken)
    assert not case.driver.is_disconnect(error, connection)
    assert not case.driver.is_disconnect(RuntimeError("mine"), connection)


@pytest.mark.parametrize("mode", [False, True])
def test_the_look_sees_that_a_session_was_killed(server_case: Case, mode: bool) -> None:
    driver = server_case.driver
    with rested(server_case) as connection:
        driver.set_autocommit(connection, mode)
        assert driver.peek(connection)
        server_case.kill(connection)
        assert not driver.peek(connection)
        error = failing(connection, "select 1")
        assert driver.is_disconnect(error, connection)
        assert not driver.peek(connection)


@pytest.mark.parametrize("mode", [False, True])
def test_a_ping_of_a_killed_session_fails(server_case: Case, mode: bool) -> None:
    driver = server_case.driver
    with rested(server_case) as connection:
        driver.set_autocommit(connection, mode)
        server_case.kill(connection)
        with pytest.raises(Exception) as caught:
            driver.ping(connection)
        assert driver.is_disconnect(caught.value, connection)


def test_a_connection_without_a_socket_passes_the_look(case: Case, connection: Any) -> None:
    assert case.driver.peek(connection)
    assert case.driver.peeks is (case.driver.descriptor(connection) is not None)


def test_the_descriptor_is_the_socket_to_the_server(server_case: Case) -> None:
    with rested(server_case) as connection:
        descriptor = server_case.driver.descriptor(connection)
        assert descriptor is not None
        with socket.socket(fileno=os.dup(descriptor)) as twin:
            assert twin.getpeername()[1] == urlsplit(server_case.url).port


def test_local_questions_send_nothing(server_case: Case, proxy: Callable[[int], FaultProxy]) -> None:
    port = urlsplit(server_case.url).port
    assert port is not None
    through = proxy(port)
    url = server_case.url.replace(f":{port}", f":{through.port}")
    name = driver_for(url).name
    driver = driver_for(url) if server_case.driver.can_reset else driver_for(stock(url), name)
    with rested(server_case._replace(driver=driver)) as connection:
        ask(connection, f"select * from {server_case.table}")
        driver.rollback(connection)
        before = through.traffic
        for _ in range(100):
            assert driver.peek(connection)
            assert driver.state(connection) is IDLE
            assert driver.autocommit(connection) is False
            assert driver.settled(connection, False)
            driver.set_autocommit(connection, False)
            driver.descriptor(connection)
            assert driver.session(connection) is not None
            driver.interrupt(connection)
        assert through.traffic == before


def test_a_session_is_ended_by_its_name_unless_it_is_younger_than_it_should_be(server_case: Case) -> None:
    driver, dialect = server_case.driver, server_case.dialect
    with rested(server_case) as connection, opened(driver) as other:
        name = driver.session(connection)
        assert name == ask(connection, dialect.session_id)[0][0]
        driver.rollback(connection)
        driver.end_session(other, name, 3600.0 * 24 * 365)  # by now it is somebody else's
        assert driver.ping(connection)
        driver.end_session(other, name, 0.0)
        descriptor = driver.descriptor(connection)
        assert descriptor is not None
        wait_for_goodbye(descriptor)
        driver.end_session(other, name, 0.0)  # nobody's any more
        assert driver.ping(other)


def test_a_connection_that_is_closed_has_no_session_to_end(server_case: Case) -> None:
    with rested(server_case) as connection:
        server_case.driver.close(connection)
        assert server_case.driver.session(connection) is None


def test_reset_wipes_what_a_session_remembers(server_case: Case) -> None:
    driver = driver_for(server_case.url)

    def there(connection: Any, question: str) -> bool:
        try:
            return int(ask(connection, question)[0][0] or 0) == 1
        except Exception:
            return False

    for dirt, question in server_case.dialect.dirt:
        with opened(driver) as connection:
            driver.set_autocommit(connection, True)
            assert not there(connection, question), dirt
            ask(connection, dirt)
            assert there(connection, question), dirt
            driver.reset(connection)
            assert driver.settled(connection, False), dirt
            assert not there(connection, question), dirt


@pytest.mark.parametrize("mode", [False, True])
@pytest.mark.parametrize("failed", [False, True])
def test_reset_ends_an_open_or_failed_transaction(server_case: Case, mode: bool, failed: bool) -> None:
    driver = driver_for(server_case.url)
    with opened(driver) as connection:
        driver.set_autocommit(connection, mode)
        ask(connection, "begin")
        ask(connection, server_case.insert(1))
        if failed:
            failing(connection, server_case.dialect.broken)
        driver.reset(connection)
        assert driver.settled(connection, False)
        assert server_case.rows() == []


def test_reset_keeps_the_mode_that_was_asked_for(server_case: Case) -> None:
    driver = driver_for(f"{server_case.url}?autocommit=true")
    with opened(driver) as connection:
        driver.set_autocommit(connection, False)
        driver.reset(connection)
        assert driver.settled(connection, True)


#: which drivers hear what a borrower's cursors leave; of PostgreSQL's a plain setting stands for all
WATCHES = {
    "psycopg2": "set statement_timeout = 4321",
    "psycopg": "set statement_timeout = 4321",
    "pymysql": "set @mine = 1",
    "sqlite": "pragma cache_size = 77",
}


def test_what_leaves_something_in_the_session_is_heard_from_watch_to_reset(case: Case, connection: Any) -> None:
    driver, dirt = case.driver, WATCHES.get(case.driver.name)
    assert not driver.dirtied(connection)
    if dirt is None or (driver.name == "sqlite" and driver._connect is not None):
        driver.watch(connection)  # which it cannot: nothing can be attached to a plain sqlite3.Connection
        assert not driver.dirtied(connection) and not driver.put_back(connection)
        return
    ask(connection, dirt)  # part of how it is made
    driver.commit(connection)
    driver.watch(connection)
    for statement in (f"select * from {case.table}", case.insert(1)):
        ask(connection, statement)
        driver.rollback(connection)
        assert not driver.dirtied(connection) and driver.settled(connection, False), statement
    ask(connection, dirt)
    driver.rollback(connection)
    driver.put_back(connection)
    assert driver.dirtied(connection) and not driver.settled(connection, False)
    ask(connection, f"select * from {case.table}")
    driver.rollback(connection)
    assert driver.dirtied(connection)
    if driver.can_reset:
        driver.reset(connection)
        assert not driver.dirtied(connection) and driver.settled(connection, False)
        ask(connection, dirt)
        assert driver.dirtied(connection)


def test_a_connection_of_any_module_works_without_being_known(case: Case) -> None:
    driver = driver_for(lambda: case.driver.connect(10), "dbapi")
    assert type(driver) is Dbapi
    with opened(driver) as connection:
        assert driver.ping(connection)
        assert driver.state(connection) is UNKNOWN and not driver.settled(connection, None)
        assert driver.autocommit(connection) is None
        ask(connection, case.insert(1))
        driver.rollback(connection)
        ask(connection, case.insert(2))
        driver.commit(connection)
        assert not driver.is_disconnect(RuntimeError(), connection)
    assert case.rows() == [2]


def test_anything_that_can_be_opened_can_be_pooled() -> None:
    class Files(Driver[Any]):
        def connect(self, timeout: float) -> Any:
            return open(os.devnull)

        def close(self, connection: Any) -> None:
            connection.close()

    driver = Files()
    with opened(driver) as connection:
        assert driver.settled(connection, None) and driver.ping(connection) and driver.peek(connection)
        driver.begin(connection)
        driver.commit(connection)
        driver.rollback(connection)
        driver.set_autocommit(connection, True)
        driver.watch(connection)
        driver.put_back(connection)
        assert not driver.dirtied(connection)
        driver.reset(connection)
        assert not driver.is_disconnect(OSError(), connection)
        assert driver.recognise(connection) is driver
    assert driver.server_key == driver.server_key != Files().server_key
    with pytest.raises(TypeError, match="how to connect"):
        Driver().connect(1)
    Driver().close(None)


def test_a_closed_sockets_number_is_gone() -> None:
    assert poll_socket(-1) is Socket.GONE
