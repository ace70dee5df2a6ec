"""Does the psycopg2 driver know psycopg2's habits? Each test is a scar of the module, or of PostgreSQL."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2.extensions
import psycopg2.extras
import pytest

from tests.conftest import require
from tests.drivers import ask, failing, opened, wait_for_data, wait_for_goodbye
from tests.servers import FaultProxy, Postgres
from threadpool_db.drivers import sockets
from threadpool_db.drivers.base import BUSY, FAILED, IDLE, OPEN, UNKNOWN
from threadpool_db.drivers.choose import driver_for
from threadpool_db.drivers.psycopg2 import Psycopg2
from threadpool_db.drivers.sockets import Socket


@pytest.fixture
def driver(postgres: Postgres) -> Psycopg2:
    made = driver_for(postgres.url)
    assert isinstance(made, Psycopg2)
    return made


@pytest.fixture
def connection(driver: Psycopg2) -> Iterator[Any]:
    with opened(driver) as connection:
        yield connection


@pytest.fixture
def other(driver: Psycopg2) -> Iterator[Any]:
    """Somebody else's session, in autocommit."""
    with opened(driver) as connection:
        connection.autocommit = True
        yield connection


def kill(connection: Any, other: Any) -> None:
    ask(other, f"select pg_terminate_backend({connection.info.backend_pid})")
    wait_for_goodbye(connection.fileno())


def test_psycopg2s_own_rollback_ignores_a_handwritten_begin_in_autocommit_and_ours_does_not(
    driver: Psycopg2, connection: Any
) -> None:
    connection.autocommit = True
    ask(connection, "begin")
    connection.rollback()
    assert driver.state(connection) is OPEN
    driver.rollback(connection)
    assert driver.state(connection) is IDLE


def test_a_handwritten_commit_leaves_psycopg2_believing_in_a_transaction(driver: Psycopg2, connection: Any) -> None:
    ask(connection, "select 1")
    ask(connection, "commit")
    # The server is idle, but psycopg2 would send no BEGIN before the next statement.
    assert connection.get_transaction_status() == psycopg2.extensions.TRANSACTION_STATUS_IDLE
    assert driver.state(connection) is UNKNOWN
    assert not driver.settled(connection, False)
    driver.rollback(connection)
    assert driver.settled(connection, False)
    ask(connection, "select 1")
    assert driver.state(connection) is OPEN


def test_a_prepared_two_phase_transaction_is_not_at_rest(postgres: Postgres) -> None:
    with Postgres(max_prepared_transactions=2) as server:
        driver = driver_for(server.url)
        with opened(driver) as connection:
            connection.tpc_begin("two phases")
            ask(connection, "select 1")
            connection.tpc_prepare()
            assert driver.state(connection) is UNKNOWN
            with pytest.raises(psycopg2.ProgrammingError):
                driver.rollback(connection)
            connection.tpc_rollback()
            assert driver.state(connection) is IDLE


def test_a_failed_transaction_is_told_from_an_open_one(driver: Psycopg2, connection: Any) -> None:
    failing(connection, "select 1/0")
    assert driver.state(connection) is FAILED


def test_a_statement_under_way_is_busy(postgres: Postgres, driver: Psycopg2) -> None:
    connection = psycopg2.connect(postgres.url, async_=True)
    try:
        while connection.poll() != psycopg2.extensions.POLL_OK:
            select.select([connection], [connection], [], 1)
        connection.cursor().execute("select 1")
        assert driver.state(connection) is BUSY
        wait_for_data(connection.fileno())
        assert not driver.peek(connection)
    finally:
        connection.close()


def test_discard_all_fails_inside_a_handwritten_transaction_and_our_reset_does_not(
    driver: Psycopg2, connection: Any
) -> None:
    connection.autocommit = True
    ask(connection, "begin")
    with pytest.raises(psycopg2.errors.ActiveSqlTransaction):
        connection.reset()
    driver.reset(connection)
    assert driver.settled(connection, False)


def test_reset_brings_back_encoding_isolation_and_empty_mailboxes(
    driver: Psycopg2, connection: Any, other: Any
) -> None:
    connection.set_client_encoding("LATIN1")
    connection.set_session(isolation_level="SERIALIZABLE", readonly=True)
    ask(connection, "do $$ begin raise notice 'for somebody else'; end $$")
    ask(connection, "listen news")
    connection.commit()
    ask(other, "notify news")
    ask(connection, "select 1")
    assert connection.notices and connection.notifies
    driver.reset(connection)
    assert connection.encoding == "UTF8"
    assert connection.isolation_level is None and connection.readonly is None
    assert not connection.notices and not connection.notifies
    assert ask(connection, "show transaction_isolation") == [("read committed",)]


def test_reset_keeps_what_the_parameters_set(postgres: Postgres) -> None:
    driver = driver_for(f"{postgres.url}?options=-c%20search_path%3Dmine")
    with opened(driver) as connection:
        ask(connection, "set search_path = yours")
        driver.reset(connection)
        assert ask(connection, "show search_path") == [("mine",)]


def test_the_rollback_of_a_killed_idle_session_is_silent_and_the_look_is_not(
    driver: Psycopg2, connection: Any, other: Any
) -> None:
    kill(connection, other)
    driver.rollback(connection)
    assert connection.closed == 0
    assert not driver.peek(connection)


def test_a_notification_waiting_in_the_socket_is_no_death(driver: Psycopg2, connection: Any, other: Any) -> None:
    ask(connection, "listen news")
    connection.commit()
    ask(other, "notify news")
    wait_for_data(connection.fileno())
    assert driver.peek(connection)
    assert len(connection.notifies) == 1
    assert driver.settled(connection, False)


def test_a_listener_that_never_comes_to_rest_is_alive(
    driver: Psycopg2, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threadpool_db.drivers.psycopg2.poll_socket", lambda descriptor: Socket.READABLE)
    assert driver.peek(connection)


def test_without_rdhup_the_second_read_finds_the_end(
    driver: Psycopg2, connection: Any, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(connection, other)
    monkeypatch.setattr(sockets, "_RDHUP", 0)
    monkeypatch.setattr(sockets, "_HUNG_UP", 0)
    assert not driver.peek(connection)
    assert connection.closed


def test_something_unread_inside_a_transaction_is_for_nobody_to_consume(
    driver: Psycopg2, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threadpool_db.drivers.psycopg2.poll_socket", lambda descriptor: Socket.READABLE)
    ask(connection, "select 1")
    assert not driver.peek(connection)


def test_a_ping_is_one_round_trip_in_either_mode(postgres: Postgres, proxy: Callable[[int], FaultProxy]) -> None:
    through = proxy(postgres.port)
    driver = driver_for(postgres.url.replace(str(postgres.port), str(through.port)))
    with opened(driver) as connection:
        for mode in (False, True):
            driver.set_autocommit(connection, mode)
            before = through.traffic.to_server
            driver.ping(connection)
            assert through.traffic.to_server - before == len(b"Q....SELECT 1.")


@pytest.mark.parametrize("how", [{"isolation_level": "SERIALIZABLE"}, {"readonly": True}, {"deferrable": True}])
def test_a_ping_leaves_the_session_settings_alone(driver: Psycopg2, connection: Any, how: dict[str, Any]) -> None:
    connection.set_session(**how)
    before = (connection.isolation_level, connection.readonly, connection.deferrable)
    assert driver.ping(connection)
    assert driver.state(connection) is IDLE and connection.autocommit is False
    assert (connection.isolation_level, connection.readonly, connection.deferrable) == before
    if "isolation_level" in how:
        assert ask(connection, "show transaction_isolation") == [("serializable",)]
    if "readonly" in how:
        assert ask(connection, "show transaction_read_only") == [("on",)]


def test_a_foreign_cursor_factory_never_sees_our_own_statements(postgres: Postgres) -> None:
    class Counting(psycopg2.extensions.cursor):
        made = 0

        def __init__(self, *args: Any, **options: Any) -> None:
            type(self).made += 1
            super().__init__(*args, **options)

    driver = Psycopg2(connect=lambda: psycopg2.connect(postgres.url, cursor_factory=Counting))
    with opened(driver) as connection:
        driver.ping(connection)
        driver.set_autocommit(connection, True)
        driver.begin(connection)
        driver.commit(connection)
    assert Counting.made == 0


def test_keepalive_is_on_unless_the_caller_says_otherwise(postgres: Postgres) -> None:
    def options(url: str) -> tuple[int, int, int, int]:
        driver = driver_for(url)
        with opened(driver) as connection, socket.socket(fileno=os.dup(connection.fileno())) as twin:
            tcp = [twin.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{name}")) for name in _KEEP]
            return (twin.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), tcp[0], tcp[1], tcp[2])

    assert options(postgres.url) == (1, 30, 10, 3)
    assert options(f"{postgres.url}?keepalives_idle=77") == (1, 77, 10, 3)
    assert options(f"{postgres.url}?keepalives=0")[0] == 0


_KEEP = ("IDLE", "INTVL", "CNT")


@pytest.mark.parametrize(
    ("timeout", "option", "expected"),
    [(0.1, "", "2"), (2.1, "", "3"), (float("inf"), "", "2147483647"), (5.0, "?connect_timeout=9", "9")],
)
def test_the_connect_timeout_is_whole_seconds_and_at_least_two(
    postgres: Postgres, timeout: float, option: str, expected: str
) -> None:
    with opened(driver_for(postgres.url + option), timeout) as connection:
        assert connection.info.dsn_parameters["connect_timeout"] == expected


def test_a_killed_session_is_seen_through_tls() -> None:
    require(Postgres)
    with Postgres(tls=True) as server:
        driver = driver_for(f"{server.url}?sslmode=require")
        with opened(driver) as connection, opened(driver) as other:
            other.autocommit = True
            assert connection.info.ssl_in_use
            assert driver.peek(connection)
            kill(connection, other)
            assert not driver.peek(connection)


def test_a_descriptor_given_to_somebody_else_is_not_looked_at(driver: Psycopg2) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = driver.connect(10)
        number = connection.fileno()
        connection.close()
        os.dup2(ours.fileno(), number)
        try:
            assert not driver.peek(connection)
            assert driver.descriptor(connection) is None
        finally:
            os.close(number)


@pytest.mark.parametrize(
    ("code", "expected"),
    [("57P01", True), ("08006", True), ("25P03", True), ("57014", False), ("40001", False), (None, False)],
)
def test_some_sqlstates_mean_that_the_server_hangs_up(
    driver: Psycopg2, connection: Any, code: str | None, expected: bool
) -> None:
    class Failed(psycopg2.OperationalError):
        pgcode = code

    assert driver.is_disconnect(Failed(), connection) is expected


def test_a_subclass_made_by_a_factory_is_still_psycopg2(postgres: Postgres) -> None:
    undecided = driver_for(lambda: psycopg2.connect(postgres.url, connection_factory=psycopg2.extras.LoggingConnection))
    with opened(undecided) as connection:
        assert isinstance(undecided.recognise(connection), Psycopg2)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_begin_by_hand_in_autocommit_is_ended_though_autocommit_was_left_since(
    driver: Psycopg2, connection: Any, end: str
) -> None:
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("begin")
    connection.autocommit = False
    getattr(driver, end)(connection)
    assert driver.state(connection) is IDLE


def test_a_connection_in_use_is_not_closed_by_others_where_a_wait_callback_is_set(driver: Psycopg2) -> None:
    """gevent's, say: psycopg2 would wait for the connection's lock, and stop the thread of all greenlets for ever."""
    assert driver.closes_in_use
    psycopg2.extensions.set_wait_callback(psycopg2.extras.wait_select)
    try:
        assert not driver.closes_in_use
    finally:
        psycopg2.extensions.set_wait_callback(None)
    assert driver.closes_in_use
