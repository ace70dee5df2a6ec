"""What does the driver for any PEP 249 module find out about a module that it does not know, and at what price?"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import psycopg2
import psycopg2.extensions
import pymysql
import pytest

from tests.drivers import ask, opened, wait_for_goodbye
from tests.servers import FaultProxy, MariaDB, Postgres
from threadpool_db import Pool
from threadpool_db.drivers.base import UNKNOWN, Driver
from threadpool_db.drivers.choose import driver_for
from threadpool_db.drivers.dbapi import Dbapi


def met(connection: Any) -> Driver[Any]:
    """The driver once it has seen that connection."""
    return Dbapi(lambda: connection).recognise(connection)


@pytest.fixture
def autocommitting(postgres: Postgres) -> Iterator[Callable[[], Any]]:
    """A callable whose connections are in autocommit, and a table ``plain``."""

    def connect() -> Any:
        connection = psycopg2.connect(postgres.url)
        connection.autocommit = True
        return connection

    maker = connect()
    ask(maker, "create table plain (id int primary key)")
    yield connect
    ask(maker, "drop table plain")
    maker.close()


class Minimal:
    """No more than PEP 249 asks for; with a memory of what was called."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def close(self) -> None:
        self.calls.append("close")

    def commit(self) -> None:
        self.calls.append("commit")

    def rollback(self) -> None:
        self.calls.append("rollback")


class Asking(Minimal):
    """As mysql.connector: whoever reads this sends a query."""

    @property
    def autocommit(self) -> bool:
        self.calls.append("SELECT @@autocommit")
        return True

    @property
    def in_transaction(self) -> bool:
        self.calls.append("SELECT @@in_transaction")
        return False


class Confessing(Minimal):
    """Its rollback does nothing, and it says so."""

    def __init__(self, in_transaction: bool = False) -> None:
        super().__init__()
        self.in_transaction = in_transaction


def test_of_a_minimal_module_nothing_is_known() -> None:
    connection = Minimal()
    driver = met(connection)
    assert not driver.peeks and driver.peek(connection)
    assert driver.descriptor(connection) is None and driver.autocommit(connection) is None
    assert driver.state(connection) is UNKNOWN and not driver.is_disconnect(OSError(), connection)
    driver.begin(connection)
    driver.commit(connection)
    driver.rollback(connection)
    assert connection.calls == ["commit", "rollback"]


def test_a_property_of_the_modules_own_is_not_read() -> None:
    connection = Asking()
    driver = met(connection)
    driver.begin(connection)
    driver.rollback(connection)
    assert connection.calls == ["rollback"]


def test_it_is_asked_about_the_first_connection_alone() -> None:
    first, second = Confessing(), Minimal()
    unmet = Dbapi(lambda: first)
    driver = unmet.recognise(first)
    assert driver is not unmet, "for the pool to see that something has changed"
    assert driver.server_key == unmet.server_key
    assert driver.recognise(second) is driver
    assert type(driver_for(lambda: first).recognise(first)) is Dbapi


def test_a_rollback_after_which_a_transaction_is_still_open_is_none() -> None:
    connection = Confessing()
    driver = met(connection)
    driver.rollback(connection)
    connection.in_transaction = True
    with pytest.raises(RuntimeError, match="still"):
        driver.rollback(connection)


def test_a_pool_closes_what_still_says_that_it_is_in_a_transaction() -> None:
    made: list[Confessing] = []

    def connect() -> Confessing:
        made.append(Confessing())
        return made[-1]

    with Pool(connect, driver="dbapi") as pool:
        with pool.checkout() as connection:
            connection.in_transaction = True
        assert pool.stats().total == 0
        assert made[0].calls == ["rollback", "close"]


def test_one_that_is_in_a_transaction_from_birth_is_not_believed() -> None:
    connection = Confessing(in_transaction=True)
    met(connection).rollback(connection)


def test_psycopg2_shows_its_socket_its_end_and_its_mode(postgres: Postgres) -> None:
    with opened(driver_for(lambda: psycopg2.connect(postgres.url), "dbapi")) as connection:
        driver = met(connection)
        assert driver.peeks and driver.descriptor(connection) == connection.fileno()
        assert not driver.is_disconnect(OSError(), connection)
        connection.autocommit = True
        driver.rollback(connection)
        assert connection.autocommit is False, "the mode that the first one was made in"
        connection.close()
        assert not driver.peek(connection) and driver.descriptor(connection) is None
        assert driver.is_disconnect(psycopg2.OperationalError(), connection)


def test_psycopg_shows_its_socket_and_its_end(postgres: Postgres) -> None:
    with opened(driver_for(lambda: psycopg.connect(postgres.url), "dbapi")) as connection:
        driver = met(connection)
        assert driver.peeks and driver.descriptor(connection) == connection.fileno()
        connection.close()
        assert not driver.peek(connection) and driver.descriptor(connection) is None


def test_pymysql_shows_nothing(mariadb: MariaDB) -> None:
    parts = urlsplit(mariadb.url)
    with opened(
        driver_for(
            lambda: pymysql.connect(host=parts.hostname, port=parts.port, user="root", ssl_disabled=True), "dbapi"
        )
    ) as connection:
        driver = met(connection)
        assert not driver.peeks and driver.descriptor(connection) is None
        driver.begin(connection)
        assert driver.ping(connection)


def test_sqlite3s_hand_written_begin_is_ended_by_its_rollback(tmp_path: Path) -> None:
    with opened(driver_for(lambda: sqlite3.connect(tmp_path / "x.db", isolation_level=None), "dbapi")) as connection:
        driver = met(connection)
        assert not driver.peeks
        ask(connection, "begin")
        assert connection.in_transaction
        driver.rollback(connection)
        assert not connection.in_transaction


@pytest.mark.skipif(not hasattr(sqlite3, "LEGACY_TRANSACTION_CONTROL"), reason="Python 3.12 brought it")
@pytest.mark.parametrize("mode", [True, False])
def test_sqlite3s_newer_way_keeps_its_mode_and_ends_its_transactions(tmp_path: Path, mode: bool) -> None:
    with opened(driver_for(lambda: sqlite3.connect(tmp_path / "x.db", autocommit=mode), "dbapi")) as connection:
        driver = met(connection)
        ask(connection, "create table t (a int)")
        driver.commit(connection)
        for end in (driver.rollback, driver.commit):
            driver.begin(connection)
            ask(connection, "insert into t values (1)")
            end(connection)
            assert connection.autocommit is mode
        assert ask(connection, "select a from t") == [(1,)]
        driver.rollback(connection)
        ask(connection, "begin" if mode else "insert into t values (2)")
        driver.rollback(connection)
        assert connection.in_transaction is not mode
        assert ask(connection, "select a from t") == [(1,)]


def test_to_get_to_know_a_connection_sends_nothing(
    postgres: Postgres, mariadb: MariaDB, proxy: Callable[[int], FaultProxy]
) -> None:
    for server, connect in (
        (postgres, lambda port: psycopg2.connect(host="127.0.0.1", port=port, user="postgres")),
        (postgres, lambda port: psycopg.connect(host="127.0.0.1", port=port, user="postgres")),
        (mariadb, lambda port: pymysql.connect(host="127.0.0.1", port=port, user="root", ssl_disabled=True)),
    ):
        through = proxy(server.port)
        connection = connect(through.port)
        before = through.traffic
        driver = met(connection)
        driver.peek(connection)
        driver.descriptor(connection)
        driver.begin(connection)
        assert through.traffic == before
        connection.close()


def test_a_transaction_of_connections_made_in_autocommit_is_one(autocommitting: Callable[[], Any]) -> None:
    with Pool(autocommitting, driver="dbapi", max_size=1) as pool:
        with pytest.raises(KeyError), pool.transaction() as connection:
            ask(connection, "insert into plain values (1)")
            raise KeyError
        with pool.transaction():
            pool.execute("insert into plain values (2)")
        with pool.connection() as connection:
            assert connection.autocommit is True
            ask(connection, "insert into plain values (3)")
        assert pool.execute("select id from plain order by id") == [(2,), (3,)]
        assert pool.stats().opened == 1


def test_a_mode_that_a_borrower_changed_is_put_back(autocommitting: Callable[[], Any]) -> None:
    with Pool(autocommitting, driver="dbapi", max_size=1) as pool:
        with pool.checkout() as connection:
            connection.autocommit = False
        with pool.checkout() as connection:
            assert connection.autocommit is True


def test_a_hand_written_begin_in_autocommit_reaches_nobody_else(autocommitting: Callable[[], Any]) -> None:
    with Pool(autocommitting, driver="dbapi", max_size=1) as pool:
        with pool.checkout() as connection:
            ask(connection, "begin")
            ask(connection, "insert into plain values (1)")
        with pool.checkout() as again:
            assert again.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE
            assert again.autocommit is True
            assert ask(again, "select id from plain") == []


def test_a_killed_session_is_replaced_before_its_borrower_sees_it(autocommitting: Callable[[], Any]) -> None:
    with Pool(autocommitting, driver="dbapi", max_size=1) as pool:
        with pool.checkout() as connection:
            session, descriptor = connection.info.backend_pid, connection.fileno()
        other = autocommitting()
        ask(other, f"select pg_terminate_backend({session})")
        other.close()
        wait_for_goodbye(descriptor)
        assert pool.execute("select 1") == [(1,)]
        assert pool.stats().dead == 1


def test_what_can_be_read_is_no_death_where_the_protocol_is_unknown() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        driver = met(ours)
        theirs.send(b"unasked")
        assert driver.peek(ours)
        theirs.close()
        assert not driver.peek(ours)


def test_a_file_is_no_socket() -> None:
    with open(os.devnull) as file:
        driver = met(file)
        assert driver.descriptor(file) is None
        assert driver.peek(file)
        file.close()
        assert not driver.peek(file)
