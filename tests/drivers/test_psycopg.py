"""Does the psycopg driver know psycopg 3's habits? Each test is a scar of the module, or of PostgreSQL."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import psycopg.rows
import pytest

from tests.conftest import require
from tests.drivers import ask, failing, opened, wait_for_data, wait_for_goodbye
from tests.servers import FaultProxy, Postgres
from threadpool_db import Pool, PoolMisuse, create_pool
from threadpool_db.drivers import sockets
from threadpool_db.drivers.base import BUSY, FAILED, IDLE, OPEN, UNKNOWN
from threadpool_db.drivers.choose import driver_for
from threadpool_db.drivers.psycopg import Psycopg
from threadpool_db.drivers.sockets import Socket


def through_psycopg(server: Postgres, port: int = 0) -> str:
    return server.url.replace(":", "+psycopg:", 1).replace(str(server.port), str(port or server.port))


@pytest.fixture
def url(postgres: Postgres) -> str:
    return through_psycopg(postgres)


@pytest.fixture
def driver(url: str) -> Psycopg:
    made = driver_for(url)
    assert isinstance(made, Psycopg)
    return made


@pytest.fixture
def connection(driver: Psycopg) -> Iterator[Any]:
    with opened(driver) as connection:
        yield connection


@pytest.fixture
def other(driver: Psycopg) -> Iterator[Any]:
    """Somebody else's session, in autocommit."""
    with opened(driver) as connection:
        connection.autocommit = True
        yield connection


@pytest.fixture
def pool(url: str) -> Iterator[Pool]:
    with create_pool(url, max_size=1) as pool:
        yield pool


def kill(connection: Any, other: Any) -> None:
    ask(other, f"select pg_terminate_backend({connection.info.backend_pid})")
    wait_for_goodbye(connection.fileno())


class TestNotQuiteIdle:
    """libpq says idle, and yet the next borrower could not use it."""

    def test_a_listener_that_was_dropped_halfway_holds_the_lock(self, driver: Psycopg, connection: Any) -> None:
        connection.autocommit = True
        ask(connection, "listen news")
        ask(connection, "notify news")
        waiting = connection.notifies(timeout=5)
        next(waiting)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert driver.state(connection) is BUSY
        assert not driver.settled(connection, True)
        waiting.close()
        assert driver.settled(connection, True)

    def test_a_pool_closes_it_and_lends_another(self, pool: Pool) -> None:
        with pool.checkout() as connection:
            connection.autocommit = True
            ask(connection, "listen news")
            ask(connection, "notify news")
            waiting = connection.notifies(timeout=5)
            next(waiting)
        assert pool.stats().total == 0
        assert pool.execute("select 1") == [(1,)]

    def test_inside_a_pipeline_it_is_busy_and_afterwards_it_is_not(self, driver: Psycopg, connection: Any) -> None:
        connection.autocommit = True
        with connection.pipeline():
            assert driver.state(connection) is BUSY
            ask(connection, "select 1")
            assert driver.state(connection) is BUSY
            assert not driver.settled(connection, True)
        assert driver.settled(connection, True)

    def test_a_pipeline_that_nobody_left_goes_to_nobody_else(self, pool: Pool) -> None:
        with pool.checkout() as connection:
            pipeline = connection.pipeline()
            pipeline.__enter__()
            connection.execute("select 1")
        assert pool.stats().total == 0
        assert pool.execute("select 1") == [(1,)]
        with pytest.raises(psycopg.OperationalError):
            pipeline.__exit__(None, None, None)

    def test_a_pipeline_that_failed_is_at_rest_once_it_was_left(self, pool: Pool) -> None:
        with pytest.raises(psycopg.errors.DivisionByZero), pool.connection() as connection:
            with connection.pipeline():
                connection.execute("select 1/0")
                connection.execute("select 1")
        assert pool.execute("select 1") == [(1,)]
        assert pool.stats().opened == 1

    def test_an_operation_inside_a_pipeline_of_its_block_has_its_rows(self, pool: Pool) -> None:
        with pool.connection() as connection, connection.pipeline():
            assert pool.execute("select 1") == [(1,)]

    def test_a_transaction_around_a_pipeline_is_committed(self, pool: Pool) -> None:
        with pool.transaction() as connection, connection.pipeline():
            connection.execute("create table piped (a int)")
        pool.execute("drop table piped")
        assert pool.stats().opened == 1 and not pool.in_transaction

    def test_a_transaction_block_that_was_committed_by_hand_is_not_at_rest(
        self, driver: Psycopg, connection: Any
    ) -> None:
        with pytest.raises(psycopg.ProgrammingError), connection.transaction():
            ask(connection, "commit")
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            assert driver.state(connection) is UNKNOWN
            assert not driver.settled(connection, False)
            driver.rollback(connection)

    def test_a_two_phase_transaction_is_not_at_rest_until_its_second_phase(self) -> None:
        require(Postgres)
        with Postgres(max_prepared_transactions=2) as server:
            driver = driver_for(through_psycopg(server))
            with opened(driver) as connection:
                connection.tpc_begin("two phases")
                ask(connection, "select 1")
                connection.tpc_prepare()
                assert driver.state(connection) is UNKNOWN and not driver.settled(connection, False)
                with pytest.raises(psycopg.ProgrammingError):
                    driver.rollback(connection)
                connection.tpc_rollback()
                assert driver.state(connection) is IDLE

    def test_a_copy_under_way_is_busy(self, driver: Psycopg, connection: Any) -> None:
        with connection.cursor().copy("copy (select 1) to stdout") as copy:
            assert driver.state(connection) is BUSY
            list(copy)
        assert driver.state(connection) is OPEN

    def test_rows_that_are_still_streaming_are_busy(self, driver: Psycopg, connection: Any) -> None:
        rows = connection.cursor().stream("select generate_series(1, 3)")
        next(rows)
        assert driver.state(connection) is BUSY
        rows.close()

    def test_a_failed_transaction_is_told_from_an_open_one(self, driver: Psycopg, connection: Any) -> None:
        failing(connection, "select 1/0")
        assert driver.state(connection) is FAILED

    def test_psycopgs_own_with_closes_the_connection_and_costs_no_more(self, pool: Pool) -> None:
        with pool.checkout() as connection, connection:
            ask(connection, "select 1")
        assert pool.stats().total == 0
        assert pool.execute("select 1") == [(1,)]


class TestPreparedStatements:
    def test_a_reset_takes_them_and_psycopg_knows(self, driver: Psycopg, connection: Any) -> None:
        connection.autocommit = True
        for _ in range(2):
            for _ in range(10):
                assert connection.execute("select %s", (1,)).fetchone() == (1,)
            assert len(ask(connection, "select name from pg_prepared_statements")) == 1
            driver.reset(connection)
            connection.autocommit = True
            assert ask(connection, "select name from pg_prepared_statements") == []

    def test_what_was_prepared_survives_a_checkin(self, pool: Pool) -> None:
        for _ in range(10):
            pool.execute("select %s", (1,))
        assert pool.execute("select count(*) from pg_prepared_statements") == [(1,)]

    @pytest.mark.parametrize(("text", "threshold"), [("none", None), ("0", 0), ("7", 7)])
    def test_the_url_says_from_when_on_or_never(self, url: str, text: str, threshold: int | None) -> None:
        with opened(driver_for(f"{url}?prepare_threshold={text}")) as connection:
            assert connection.prepare_threshold == threshold

    def test_our_own_statements_are_never_prepared(self, url: str) -> None:
        driver = driver_for(f"{url}?prepare_threshold=0")
        with opened(driver) as connection:
            driver.ping(connection)
            driver.set_autocommit(connection, True)
            driver.begin(connection)
            driver.commit(connection)
            assert connection.execute("select count(*) from pg_prepared_statements", prepare=False).fetchone() == (0,)


class TestReset:
    def test_brings_back_what_was_set_on_our_side_of_the_socket(self, driver: Psycopg, connection: Any) -> None:
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        connection.read_only = connection.deferrable = True
        connection.row_factory = psycopg.rows.dict_row
        connection.cursor_factory = psycopg.ClientCursor
        connection.prepare_threshold = None
        connection.prepared_max = 1
        driver.reset(connection)
        assert (connection.isolation_level, connection.read_only, connection.deferrable) == (None, None, None)
        assert (connection.prepare_threshold, connection.prepared_max) == (5, 100)
        assert not isinstance(connection.cursor(), psycopg.ClientCursor)
        assert ask(connection, "show transaction_isolation") == [("read committed",)]

    def test_keeps_what_the_parameters_set(self, url: str) -> None:
        def configure(parameters: dict[str, Any]) -> dict[str, Any]:
            return parameters | {"row_factory": psycopg.rows.dict_row, "options": "-c search_path=mine"}

        driver = driver_for(url, configure=configure)
        with opened(driver) as connection:
            ask(connection, "set search_path = yours")
            driver.reset(connection)
            assert ask(connection, "show search_path") == [{"search_path": "mine"}]

    def test_empties_the_mailbox_and_forgets_who_listened(self, driver: Psycopg, connection: Any, other: Any) -> None:
        heard: list[Any] = []
        connection.autocommit = True
        ask(connection, "listen news")
        ask(other, "notify news")
        ask(connection, "select 1")
        connection.add_notify_handler(heard.append)
        connection.add_notice_handler(heard.append)
        driver.reset(connection)
        connection.autocommit = True
        ask(connection, "listen news")
        ask(connection, "notify news")
        ask(connection, "do $$ begin raise notice 'for nobody'; end $$")
        assert heard == []
        assert len(list(connection.notifies(timeout=0, stop_after=9))) == 1


class TestLook:
    def test_the_rollback_of_a_killed_idle_session_is_silent_and_the_look_is_not(
        self, driver: Psycopg, connection: Any, other: Any
    ) -> None:
        kill(connection, other)
        driver.rollback(connection)
        assert not connection.closed
        assert not driver.peek(connection)

    def test_a_notification_in_the_socket_is_no_death_and_reaches_its_listener(
        self, driver: Psycopg, connection: Any, other: Any
    ) -> None:
        connection.autocommit = True
        ask(connection, "listen news")
        ask(other, "notify news")
        wait_for_data(connection.fileno())
        assert driver.peek(connection)
        assert driver.settled(connection, True)
        assert [notify.channel for notify in connection.notifies(timeout=0)] == ["news"]

    def test_a_handler_that_fails_costs_the_connection_and_nobody_an_error(
        self, driver: Psycopg, connection: Any, other: Any
    ) -> None:
        connection.autocommit = True
        connection.add_notify_handler(lambda notify: 1 / 0)
        ask(connection, "listen news")
        ask(other, "notify news")
        wait_for_data(connection.fileno())
        assert not driver.peek(connection)

    def test_a_listener_that_never_comes_to_rest_is_alive(
        self, driver: Psycopg, connection: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("threadpool_db.drivers.psycopg.poll_socket", lambda descriptor: Socket.READABLE)
        assert driver.peek(connection)
        assert connection._notice_handlers == []

    def test_last_words_whose_goodbye_has_not_come_yet_are_a_death(
        self, driver: Psycopg, connection: Any, other: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kill(connection, other)
        seen = iter([Socket.READABLE, Socket.QUIET])
        monkeypatch.setattr("threadpool_db.drivers.psycopg.poll_socket", lambda descriptor: next(seen))
        assert not driver.peek(connection)
        assert next(seen, None) is None

    def test_without_rdhup_the_second_read_finds_the_end(
        self, driver: Psycopg, connection: Any, other: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kill(connection, other)
        monkeypatch.setattr(sockets, "_RDHUP", 0)
        monkeypatch.setattr(sockets, "_HUNG_UP", 0)
        assert not driver.peek(connection)
        assert connection.closed

    def test_something_unread_inside_a_transaction_is_for_nobody_to_consume(
        self, driver: Psycopg, connection: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("threadpool_db.drivers.psycopg.poll_socket", lambda descriptor: Socket.READABLE)
        ask(connection, "select 1")
        assert not driver.peek(connection)

    def test_a_killed_session_is_seen_through_tls(self) -> None:
        require(Postgres)
        with Postgres(tls=True) as server:
            driver = driver_for(f"{through_psycopg(server)}?sslmode=require")
            with opened(driver) as connection, opened(driver) as other:
                other.autocommit = True
                assert connection.pgconn.ssl_in_use
                assert driver.peek(connection)
                kill(connection, other)
                assert not driver.peek(connection)


def test_a_ping_is_one_round_trip_in_either_mode(postgres: Postgres, proxy: Callable[[int], FaultProxy]) -> None:
    through = proxy(postgres.port)
    driver = driver_for(through_psycopg(postgres, through.port))
    with opened(driver) as connection:
        for mode in (False, True):
            driver.set_autocommit(connection, mode)
            before = through.traffic.to_server
            driver.ping(connection)
            assert through.traffic.to_server - before == len(b"Q....\0")
            assert driver.settled(connection, mode)


def test_a_round_trip_into_a_black_hole_ends_when_its_socket_is_cut(
    postgres: Postgres, proxy: Callable[[int], FaultProxy]
) -> None:
    through = proxy(postgres.port)
    with opened(driver_for(through_psycopg(postgres, through.port))) as connection:
        driver = Psycopg(connect=lambda: connection)
        through.set(mode="blackhole")
        alarm = threading.Timer(0.1, sockets.cut_socket, [sockets.socket_identity(driver.descriptor(connection))])
        alarm.start()
        with pytest.raises(psycopg.OperationalError) as caught:
            driver.ping(connection)
        alarm.join()
        assert driver.is_disconnect(caught.value, connection)


def test_in_autocommit_a_transaction_begins_at_the_level_that_the_connection_has(
    driver: Psycopg, connection: Any
) -> None:
    connection.autocommit = True
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = connection.deferrable = True
    driver.begin(connection)
    assert ask(connection, "show transaction_isolation") == [("repeatable read",)]
    assert ask(connection, "show transaction_read_only") == [("on",)]
    assert ask(connection, "show transaction_deferrable") == [("on",)]
    driver.rollback(connection)
    connection.read_only = connection.deferrable = False
    driver.begin(connection)
    assert ask(connection, "show transaction_read_only") == [("off",)]
    assert ask(connection, "show transaction_deferrable") == [("off",)]


def test_a_foreign_cursor_never_sees_our_own_statements(postgres: Postgres) -> None:
    class Counting(psycopg.Cursor[Any]):
        made = 0

        def __init__(self, *args: Any, **options: Any) -> None:
            type(self).made += 1
            super().__init__(*args, **options)

    driver = Psycopg(connect=lambda: psycopg.connect(postgres.url, cursor_factory=Counting))
    with opened(driver) as connection:
        driver.ping(connection)
        driver.set_autocommit(connection, True)
        driver.begin(connection)
        driver.commit(connection)
    assert Counting.made == 0


def test_keepalive_is_on_unless_the_caller_says_otherwise(url: str) -> None:
    def options(url: str) -> list[int]:
        driver = driver_for(url)
        with opened(driver) as connection, socket.socket(fileno=os.dup(connection.fileno())) as twin:
            tcp = [twin.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{name}")) for name in _KEEP]
            return [twin.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), *tcp]

    assert options(url) == [1, 30, 10, 3]
    assert options(f"{url}?keepalives_idle=77") == [1, 77, 10, 3]
    assert options(f"{url}?keepalives=0")[0] == 0


_KEEP = ("IDLE", "INTVL", "CNT")


@pytest.mark.parametrize(
    ("timeout", "option", "expected"),
    [(0.1, "", "2"), (2.1, "", "3"), (float("inf"), "", "2147483647"), (5.0, "?connect_timeout=9", "9")],
)
def test_the_connect_timeout_is_whole_seconds_and_at_least_two(
    url: str, timeout: float, option: str, expected: str
) -> None:
    with opened(driver_for(url + option), timeout) as connection:
        assert connection.info.get_parameters()["connect_timeout"] == expected


def test_a_descriptor_given_to_somebody_else_is_not_looked_at(driver: Psycopg) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = driver.connect(10)
        number = connection.fileno()
        connection.close()
        os.dup2(ours.fileno(), number)
        try:
            assert not driver.peek(connection)
            assert driver.descriptor(connection) is None and driver.session(connection) is None
        finally:
            os.close(number)


@pytest.mark.parametrize(
    ("code", "expected"),
    [("57P01", True), ("08006", True), ("25P03", True), ("57014", False), ("40001", False), (None, False)],
)
def test_some_sqlstates_mean_that_the_server_hangs_up(
    driver: Psycopg, connection: Any, code: str | None, expected: bool
) -> None:
    class Failed(psycopg.OperationalError):
        sqlstate = code

    assert driver.is_disconnect(Failed(), connection) is expected


def test_a_session_is_ended_over_another_connection_if_it_is_old_enough(
    driver: Psycopg, connection: Any, other: Any
) -> None:
    session = driver.session(connection)
    assert session == ask(connection, "select pg_backend_pid()")[0][0]
    driver.end_session(other, session, 3600.0)
    assert driver.peek(connection)
    driver.end_session(other, session, 0.0)
    wait_for_goodbye(connection.fileno())
    assert not driver.peek(connection)


def test_a_subclass_is_still_psycopg_and_an_asynchronous_connection_is_refused(postgres: Postgres) -> None:
    class Mine(psycopg.Connection[Any]):
        pass

    undecided = driver_for(lambda: Mine.connect(postgres.url))
    with opened(undecided) as connection:
        driver = undecided.recognise(connection)
        assert isinstance(driver, Psycopg)
        foreign = psycopg.AsyncConnection(connection.pgconn)
        with pytest.raises(PoolMisuse, match="not asyncio"):
            undecided.recognise(foreign)
