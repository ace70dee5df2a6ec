"""Does the PyMySQL driver know PyMySQL's habits, and MariaDB's? Each test is a scar of one of them."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pymysql
import pymysql.connections
import pymysql.cursors
import pytest

from tests.conftest import require
from tests.drivers import ask, failing, opened, wait_for_goodbye
from tests.servers import FaultProxy, MariaDB
from threadpool_db.drivers.base import BUSY, IDLE, OPEN, UNKNOWN
from threadpool_db.drivers.choose import driver_for
from threadpool_db.drivers.pymysql import PyMySQL

ROUTINES = {
    "begins": "begin start transaction; select 1; end",
    "begins_late": "begin select 1; start transaction; end",
    "begins_and_fails": "begin start transaction; signal sqlstate '45000'; end",
    "leaves_autocommit_and_fails": "begin set autocommit = 0; signal sqlstate '45000'; end",
    "answers_twice": "begin select * from t; select 2; end",
}
STATEMENTS = [
    "insert into t values (100, 1)",
    "delete from t where id = 100",
    "insert into t values (1, 1)",  # a duplicate
    "insert into t values (200, 1) returning id",
    "select * from t",
    "select * from t for update",
    "select syntax error here",
    "select @a := 2",
    "show warnings",
    "do 1",
    "set @a = 1",
    "begin",
    "start transaction read only",
    "commit",
    "rollback",
    "set autocommit = 0",
    "set autocommit = 1",
    "create table if not exists u (x int)",
    "analyze table t",
    "lock tables t write",
    "unlock tables",
    "xa start 'x'",
    "use pymysql_scars",
    "begin not atomic start transaction; select 1; end",
    *(f"call {name}()" for name in ROUTINES),
]


@pytest.fixture(scope="module")
def database(mariadb: MariaDB) -> Iterator[str]:
    """The URL of a database with a table of two rows and a few procedures."""
    with opened(driver_for(f"{mariadb.url}?autocommit=true")) as connection:
        ask(connection, "create database pymysql_scars")
        ask(connection, "use pymysql_scars")
        ask(connection, "create table t (id int primary key, v int) engine=innodb")
        ask(connection, "insert into t values (1, 1), (2, 2)")
        for name, body in ROUTINES.items():
            ask(connection, f"create procedure {name}() {body}")
        yield mariadb.url.replace("/test", "/pymysql_scars")
        ask(connection, "drop database pymysql_scars")


@pytest.fixture
def driver(database: str) -> PyMySQL:
    made = driver_for(f"{database}?ssl=false")
    assert isinstance(made, PyMySQL)
    return made


@pytest.fixture
def connection(driver: PyMySQL) -> Iterator[Any]:
    with opened(driver) as connection:
        yield connection


@pytest.fixture
def other(driver: PyMySQL) -> Iterator[Any]:
    """Somebody else's session, in autocommit, that does not wait for locks."""
    with opened(driver) as connection:
        connection.autocommit(True)
        ask(connection, "set innodb_lock_wait_timeout = 0")
        yield connection


def in_transaction(connection: Any) -> bool:
    """The server's own word."""
    return bool(ask(connection, "select @@in_transaction")[0][0])


@pytest.mark.parametrize("autocommit", [False, True])
def test_idle_is_never_a_guess_after_any_two_statements(driver: PyMySQL, autocommit: bool) -> None:
    with opened(driver) as connection:
        for story in [*((one,) for one in STATEMENTS), *product(STATEMENTS, repeat=2)]:
            driver.reset(connection)
            driver.set_autocommit(connection, autocommit)
            for statement in story:
                try:
                    ask(connection, statement)
                except pymysql.Error:
                    pass
            state, mode = driver.state(connection), driver.autocommit(connection)
            settled = driver.settled(connection, mode)
            truth = in_transaction(connection)
            assert settled is (state is IDLE), story
            if state is IDLE:
                assert not truth, story
                assert mode is bool(ask(connection, "select @@autocommit")[0][0]), story
            elif state is OPEN and not truth:
                # Old news in the safe direction: these end a transaction with rows or an error, one rollback cures it.
                assert story[-1] in ("analyze table t", "create table if not exists u (x int)"), story


def test_a_select_for_update_out_of_autocommit_is_not_called_idle(driver: PyMySQL, connection: Any, other: Any) -> None:
    ask(connection, "select * from t where id = 1 for update")
    failing(connection, "insert into t values (1, 1)")
    assert not connection.server_status & 1, "PyMySQL's flag says that nothing is open"
    assert failing(other, "update t set v = 5 where id = 1").args[0] == 1205, "and the row is locked"
    assert driver.state(connection) is UNKNOWN
    driver.rollback(connection)
    assert driver.settled(connection, False)
    ask(other, "update t set v = 1 where id = 1")


def test_a_snapshot_left_by_a_select_is_not_called_idle(driver: PyMySQL, connection: Any, other: Any) -> None:
    before = ask(connection, "select v from t where id = 2")
    ask(other, "update t set v = v + 1 where id = 2")
    assert ask(connection, "select v from t where id = 2") == before, "stale"
    assert driver.state(connection) is UNKNOWN
    driver.rollback(connection)
    assert driver.state(connection) is IDLE
    assert ask(connection, "select v from t where id = 2") != before


def test_a_failed_call_is_remembered_through_later_selects(driver: PyMySQL, connection: Any) -> None:
    connection.autocommit(True)
    failing(connection, "call begins_and_fails()")
    ask(connection, "select 1")
    assert driver.autocommit(connection) and not connection.server_status & 1
    assert driver.state(connection) is UNKNOWN
    driver.rollback(connection)
    assert driver.settled(connection, True)


def test_results_not_yet_fetched_may_still_open_a_transaction(driver: PyMySQL, connection: Any) -> None:
    connection.autocommit(True)
    with connection.cursor() as cursor:
        cursor.execute("call begins_late()")
        assert driver.state(connection) is UNKNOWN
        while cursor.nextset():
            pass
        assert driver.state(connection) is OPEN
    driver.rollback(connection)


def test_several_statements_in_one_are_followed_to_the_last(database: str) -> None:
    flag = pymysql.constants.CLIENT.MULTI_STATEMENTS
    driver = driver_for(f"{database}?ssl=false&autocommit=true&client_flag={flag}")
    with opened(driver) as connection:
        for sql, state in [
            ("do 1; begin", OPEN),
            ("commit; do 2", IDLE),
            ("begin; commit", IDLE),
            ("begin; select error here", OPEN),
        ]:
            try:
                with connection.cursor() as cursor:
                    cursor.execute(sql)
                    while cursor.nextset():
                        pass
            except pymysql.Error:
                pass
            assert driver.state(connection) is state, sql


def test_an_unbuffered_result_half_read_is_busy(driver: PyMySQL, connection: Any) -> None:
    connection.autocommit(True)
    cursor = connection.cursor(pymysql.cursors.SSCursor)
    cursor.execute("select * from seq_1_to_3000")
    cursor.fetchone()
    assert driver.state(connection) is BUSY
    assert not driver.settled(connection, True)
    with pytest.warns(UserWarning, match="unbuffered"):
        driver.rollback(connection)
    assert driver.settled(connection, True)
    cursor.close()


def test_an_unbuffered_result_read_to_its_end_leaves_a_question_open(driver: PyMySQL, connection: Any) -> None:
    connection.autocommit(True)
    with connection.cursor(pymysql.cursors.SSCursor) as cursor:
        cursor.execute("select 1")
        assert cursor.fetchall()
    assert driver.state(connection) is UNKNOWN
    with connection.cursor(pymysql.cursors.SSCursor) as cursor:
        cursor.execute("set @a = 1")
    assert driver.state(connection) is IDLE


def test_after_a_commit_or_rollback_of_the_borrowers_own_nothing_needs_to_be_sent(
    driver: PyMySQL, connection: Any
) -> None:
    ask(connection, "insert into t values (300, 1)")
    connection.rollback()
    assert driver.settled(connection, False)
    ask(connection, "select * from t")
    connection.commit()
    assert driver.settled(connection, False)


def test_a_foreign_connection_learns_to_tell_with_the_first_rollback(driver: PyMySQL, mariadb: MariaDB) -> None:
    with opened(PyMySQL(connect=lambda: stock(mariadb))) as connection:
        assert driver.state(connection) is UNKNOWN
        driver.rollback(connection)
        assert driver.settled(connection, False)
        assert isinstance(connection, pymysql.connections.Connection)
        ask(connection, "select * from mysql.user")
        assert driver.state(connection) is UNKNOWN


def test_a_foreign_subclass_learns_to_tell_too(driver: PyMySQL, mariadb: MariaDB) -> None:
    class Mine(pymysql.connections.Connection):  # type: ignore[type-arg]
        pass

    with opened(PyMySQL(connect=lambda: stock(mariadb, Mine))) as connection:
        driver.rollback(connection)
        assert driver.settled(connection, False) and isinstance(connection, Mine)


def test_a_connection_whose_class_cannot_be_changed_stays_unknown(driver: PyMySQL) -> None:
    class Compiled:
        __slots__ = ("open", "rollbacks", "server_status")

        def __init__(self) -> None:
            self.open, self.server_status, self.rollbacks = True, 2, 0

        def rollback(self) -> None:
            self.rollbacks += 1

        def _read_query_result(self) -> None: ...
        def _read_ok_packet(self) -> None: ...

    connection = Compiled()
    driver.rollback(connection)
    assert connection.rollbacks == 1
    assert driver.state(connection) is UNKNOWN and not driver.settled(connection, True)
    assert driver.peek(connection) and driver.descriptor(connection) is None


def test_a_pymysql_built_otherwise_stays_unknown(driver: PyMySQL) -> None:
    class Rewritten:
        open = True

        def rollback(self) -> None: ...

    connection = Rewritten()
    driver.rollback(connection)
    assert driver.state(connection) is UNKNOWN and not driver.settled(connection, True)


def stock(mariadb: MariaDB, kind: Any = pymysql.connections.Connection, **options: Any) -> Any:
    return kind(host=mariadb.host, port=mariadb.port, user="root", ssl_disabled=True, **options)


def test_reset_replays_what_pymysql_sends_only_at_connect(database: str) -> None:
    url = f"{database}?ssl=false&collation=utf8mb4_bin&sql_mode=ANSI&init_command=set%20@who%3D7"
    question = "select @@collation_connection, @@sql_mode like '%ANSI%', @who, @@autocommit, database()"
    with opened(driver_for(url)) as connection:
        made = ask(connection, question)
        assert made == (("utf8mb4_bin", 1, 7, 0, "pymysql_scars"),)
        connection.rollback()
        connection.set_character_set("latin1")
        connection.autocommit(True)
        for dirt in ("set sql_mode = ''", "set @who = 8", "use mysql"):
            ask(connection, dirt)
        driver_for(url).reset(connection)
        assert ask(connection, question) == made
        assert connection.charset == "utf8mb4" and connection.encoding == "utf8"


def test_reset_works_without_a_database_and_with_a_foreign_cursor_class(mariadb: MariaDB) -> None:
    class Refusing(pymysql.cursors.Cursor):
        def execute(self, *args: Any, **options: Any) -> int:
            raise AssertionError("the pool's own statements are none of this cursor's business")

    driver = PyMySQL({"host": mariadb.host, "port": mariadb.port, "user": "root", "cursorclass": Refusing})
    with opened(driver) as connection:
        driver.reset(connection)
        assert driver.settled(connection, False)


def test_reset_releases_table_locks(driver: PyMySQL, connection: Any, other: Any) -> None:
    ask(connection, "lock tables t write")
    driver.reset(connection)
    ask(other, "update t set v = 1 where id = 1")


def test_a_server_that_knows_no_reset_is_not_asked_twice(
    driver: PyMySQL, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any) -> None:
        raise pymysql.OperationalError(1047, "Unknown command")

    assert driver.can_reset
    monkeypatch.setattr(type(connection), "_read_ok_packet", refuse)
    with pytest.raises(pymysql.OperationalError):
        driver.reset(connection)
    assert not driver.can_reset


def test_another_failure_of_a_reset_says_nothing_about_the_server(driver: PyMySQL, other: Any) -> None:
    with opened(driver) as connection:
        ask(other, f"kill {connection.thread_id()}")
        with pytest.raises(pymysql.Error):
            driver.reset(connection)
    assert driver.can_reset


def test_pymysql_names_another_version_than_its_own() -> None:
    # Why nothing in the driver compares versions.
    assert pymysql.__version__ != pymysql.VERSION_STRING


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[ssl.SSLContext]:
    """The SSL contexts that PyMySQL builds from now on."""
    made: list[ssl.SSLContext] = []
    build = ssl.create_default_context

    def create(*args: Any, **options: Any) -> ssl.SSLContext:
        made.append(build(*args, **options))
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", create)
    return made


@pytest.fixture(scope="module")
def secure() -> Iterator[MariaDB]:
    require(MariaDB)
    with MariaDB(tls=True) as server:
        yield server


def cipher(connection: Any) -> str:
    return str(ask(connection, "show status like 'Ssl_cipher'")[0][1])


def test_one_ssl_context_serves_all_connections_of_a_driver(secure: MariaDB, contexts: list[ssl.SSLContext]) -> None:
    driver = driver_for(secure.url)
    for _ in range(3):
        with opened(driver) as connection:
            assert cipher(connection)
    assert len(contexts) == 1


def test_tls_is_tried_and_done_without_where_the_server_has_none(
    mariadb: MariaDB, contexts: list[ssl.SSLContext]
) -> None:
    driver = driver_for(mariadb.url)
    for _ in range(3):
        with opened(driver) as connection:
            assert not cipher(connection)
    assert len(contexts) <= 1  # PyMySQL before 1.2 does not try


def test_tls_can_be_demanded_verified_and_switched_off(mariadb: MariaDB, secure: MariaDB) -> None:
    with pytest.raises(pymysql.OperationalError):
        driver_for(f"{mariadb.url}?ssl=true").connect(10)
    with opened(driver_for(f"{secure.url}?ssl=true")) as connection:
        assert cipher(connection)
    with opened(driver_for(f"{secure.url}?ssl=false")) as connection:
        assert not cipher(connection)
    with opened(driver_for(f"{secure.url}?ssl_ca={secure.certificate}&ssl_verify_identity=true")) as connection:
        assert cipher(connection)
    with pytest.raises(pymysql.OperationalError, match=r"(?i)certificate"):
        driver_for(f"{secure.url}?ssl_verify_cert=true").connect(10)


def test_a_context_of_the_callers_own_is_used_as_it_is(secure: MariaDB, contexts: list[ssl.SSLContext]) -> None:
    mine = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    mine.load_verify_locations(secure.certificate)
    driver = driver_for(secure.url, configure=lambda parameters: parameters | {"ssl": mine})
    with opened(driver) as connection:
        assert cipher(connection)
    assert not contexts


def test_a_killed_session_is_seen_through_tls(secure: MariaDB) -> None:
    driver = driver_for(secure.url)
    with opened(driver) as connection, opened(driver) as other:
        assert cipher(connection)
        assert driver.peek(connection)
        ask(other, f"kill {connection.thread_id()}")
        descriptor = driver.descriptor(connection)
        assert descriptor is not None
        wait_for_goodbye(descriptor)
        assert not driver.peek(connection)


def test_a_read_timeout_closes_the_connection(database: str) -> None:
    driver = driver_for(f"{database}?ssl=false&read_timeout=0.05")
    with opened(driver) as connection:
        error = failing(connection, "select sleep(5)")
        assert not driver.peek(connection)
        assert driver.is_disconnect(error, connection)
        assert driver.state(connection) is UNKNOWN and not driver.settled(connection, False)


@pytest.mark.parametrize("option", ["", "&read_timeout=60"])
def test_a_server_that_accepts_and_says_nothing_costs_no_more_than_the_timeout(
    database: str, mariadb: MariaDB, proxy: Callable[[int], FaultProxy], option: str
) -> None:
    silent = proxy(mariadb.port)
    silent.set(mode="blackhole")
    driver = driver_for(database.replace(str(mariadb.port), str(silent.port)) + "?ssl=false" + option)
    failed: list[BaseException] = []

    def attempt() -> None:
        try:
            driver.connect(0.05)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(20)
    assert isinstance(failed[0], pymysql.OperationalError)


@pytest.mark.parametrize(("option", "expected"), [("", None), ("&read_timeout=60", 60)])
def test_the_limit_of_the_connect_does_not_outlive_it(database: str, option: str, expected: float | None) -> None:
    with opened(driver_for(f"{database}?ssl=false{option}"), 5.0) as connection:
        ask(connection, "select 1")
        assert connection._read_timeout == expected and connection._sock.gettimeout() == expected
        assert connection.connect_timeout == 5.0
    with opened(driver_for(f"{database}?ssl=false&connect_timeout=9"), 5.0) as connection:
        assert connection.connect_timeout == 9
    with opened(driver_for(f"{database}?ssl=false"), float("inf")) as connection:
        ask(connection, "select 1")


def test_keepalive_is_on(connection: Any) -> None:
    sock = connection._sock
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
    assert [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names] == [30, 10, 3]


def test_a_system_that_names_the_options_otherwise_keeps_its_own_times(
    driver: PyMySQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "TCP_KEEPIDLE")
    with opened(driver) as connection:
        assert connection._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 10


def test_a_unix_socket_works_and_is_the_servers_key(mariadb: MariaDB) -> None:
    path = mariadb.folder / "socket"
    for url in (f"mysql://root@/test?unix_socket={path}", f"mysql://root@/test?host={path}"):
        driver = driver_for(url)
        assert driver.server_key == str(path)
        with opened(driver) as connection:
            assert driver.ping(connection) and driver.peek(connection)


def test_an_unread_byte_is_a_broken_conversation(driver: PyMySQL, connection: Any) -> None:
    # The server never speaks first, so whatever waits there belongs to a question whose asker is gone.
    connection._write_bytes(b"\x01\x00\x00\x00\x0e")  # a ping, whose answer nobody reads
    while driver.peek(connection):
        os.sched_yield()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (pymysql.OperationalError(2006, "gone"), True),
        (pymysql.OperationalError(2013, "lost"), True),
        (pymysql.OperationalError(1927, "killed"), True),
        (pymysql.err.InternalError(4031, "idle too long"), True),
        (pymysql.InterfaceError(0, ""), True),
        (pymysql.OperationalError(1205, "lock wait"), False),
        (pymysql.OperationalError(), False),
        (ValueError(2006), False),
    ],
)
def test_some_error_numbers_mean_that_the_connection_is_gone(
    driver: PyMySQL, connection: Any, error: Exception, expected: bool
) -> None:
    assert driver.is_disconnect(error, connection) is expected
