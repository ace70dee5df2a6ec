"""What does a proof need to know of the databases that we have drivers for? The acts of each."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

from tests.drivers import ask, opened, wait_for_goodbye
from threadpool_db.contract import Act, Acts
from threadpool_db.drivers.base import Driver
from threadpool_db.drivers.choose import driver_for

TABLE = f"proved_{os.getpid()}"


def says(sql: str) -> Act:
    """The first value of the answer."""

    def act(connection: Any) -> Any:
        rows = ask(connection, sql)
        return rows[0][0] if rows else None

    return act


def at(url: str) -> Callable[[str, int], Driver[Any]]:
    """The same URL, at another address."""
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[0]
    return lambda host, port: driver_for(parts._replace(netloc=f"{netloc}@{host}:{port}").geturl())


@contextmanager
def acts_for(url: str, driver: Driver[Any]) -> Iterator[Acts]:
    """For as long as there is a table to change."""
    with opened(driver_for(url)) as keeper:
        driver_for(url).set_autocommit(keeper, True)
        engine = " engine=innodb" if url.startswith("mysql") else ""
        ask(keeper, f"create table {TABLE} (id int){engine}")
        try:
            yield (_sqlite if url.startswith("sqlite") else _served)(url, driver)
        finally:
            ask(keeper, f"drop table {TABLE}")


def _sqlite(url: str, driver: Driver[Any]) -> Acts:
    @contextmanager
    def silence(connection: Any) -> Iterator[None]:
        with closing(sqlite3.connect(urlsplit(url).path[1:])) as other:
            other.execute("begin exclusive")  # whoever reads or writes the file waits for five seconds
            yield

    def attach(connection: Any) -> None:
        connection.row_factory = sqlite3.Row

    return Acts(
        use=says("select 1"),
        change=says(f"insert into {TABLE} values (1)"),
        seen=says(f"select count(*) from {TABLE}"),
        err=says("select syntax error here"),
        by_hand=says("begin"),
        leave=says("pragma cache_size = 77"),
        left=says("pragma cache_size"),
        words="pragma cache_size = 77",
        attach=attach,
        attached=lambda connection: connection.row_factory,
        isolation=lambda connection: "serializable",
        silence=silence,
        stall=says("with recursive n(x) as (select 1 union all select x + 1 from n) select count(*) from n"),
    )


def _served(url: str, driver: Driver[Any]) -> Acts:
    mysql = url.startswith("mysql")
    session, kill = (
        ("select connection_id()", "kill {}")
        if mysql
        else (
            "select pg_backend_pid()",
            "select pg_terminate_backend({})",
        )
    )
    isolation = "select @@tx_isolation" if mysql else "show transaction isolation level"
    leave = "set @@wait_timeout = 4321" if mysql else "set statement_timeout = 4321"
    parts = urlsplit(url)

    def end(connection: Any) -> None:
        descriptor, name = driver.descriptor(connection), says(session)(connection)
        driver.rollback(connection)
        with opened(driver_for(url)) as other:
            ask(other, kill.format(name))
        assert descriptor is not None
        wait_for_goodbye(descriptor)

    attach, attached, stream = _CLIENTS[driver.name]

    def read(connection: Any) -> Any:
        cursor = connection.cursor()
        cursor.execute("select 1")
        return cursor

    return Acts(
        use=says("select 1"),
        change=says(f"insert into {TABLE} values (1)"),
        seen=says(f"select count(*) from {TABLE}"),
        err=says("select syntax error here"),
        by_hand=says("begin"),
        leave=says(leave),
        left=says("select @@wait_timeout" if mysql else "show statement_timeout"),
        words=leave,
        attach=attach,
        attached=attached,
        isolation=says(isolation),
        read=read,
        stream=stream,
        kill=end,
        elsewhere=at(url),
        refused=driver_for(parts._replace(path="/no_such_database").geturl()),
    )


def _psycopg2() -> tuple[Act, Act, Act]:
    import psycopg2.extras

    def attach(connection: Any) -> None:
        connection.cursor_factory = psycopg2.extras.DictCursor

    def stream(connection: Any) -> Any:
        cursor = connection.cursor("stream")
        cursor.execute("select 1")
        return cursor

    return attach, lambda connection: connection.cursor_factory, stream


def _psycopg() -> tuple[Act, Act, Act]:
    import psycopg.rows

    def attach(connection: Any) -> None:
        connection.row_factory = psycopg.rows.dict_row

    def stream(connection: Any) -> Any:
        cursor = connection.cursor("stream")
        cursor.execute("select 1")
        return cursor

    return attach, lambda connection: connection.row_factory, stream


def _pymysql() -> tuple[Act, Act, Act]:
    import pymysql.cursors

    def attach(connection: Any) -> None:
        connection.cursorclass = pymysql.cursors.DictCursor

    def stream(connection: Any) -> Any:
        cursor = connection.cursor(pymysql.cursors.SSCursor)
        cursor.execute("select 1")
        return cursor

    return attach, lambda connection: connection.cursorclass, stream


_CLIENTS = {"psycopg2": _psycopg2(), "psycopg": _psycopg(), "pymysql": _pymysql()}
