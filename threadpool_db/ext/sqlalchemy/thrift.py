"""Which of SQLAlchemy's own round trips may be left out? Those whose answer the driver knows already.

``pool_pre_ping`` asks the server at each checkout; here a connection that was used a moment ago, and whose socket is
quiet, is not asked again. ``pool_reset_on_return`` rolls back at each checkin, after a commit too; here only what is
open is rolled back. Of a driver that nobody here knows, both are done as SQLAlchemy has them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import exc

from threadpool_db.drivers.base import BUSY, IDLE, UNKNOWN, Driver, TransactionState
from threadpool_db.drivers.choose import Undecided
from threadpool_db.drivers.pymysql import PyMySQL
from threadpool_db.drivers.sqlite import Sqlite


class Thrift:
    """The dialect as the pool sees it: SQLAlchemy's own, but for the rollback at the end.

    In all else it passes for the dialect: ``event.listen(pool._dialect, ...)`` is a thing that people do.
    """

    dialect: Any
    driver: Driver[Any]

    def __init__(self, dialect: Any, driver: Driver[Any]) -> None:
        # the last two at hand: they are asked for at every checkin
        self.__dict__.update(dialect=dialect, driver=driver, is_async=dialect.is_async, do_rollback=self._roll_back)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self.dialect)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dialect, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dialect, name, value)
        if name in ("is_async", "do_rollback"):
            self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        delattr(self.dialect, name)
        self.__dict__.pop(name, None)

    def _roll_back(self, fairy: Any) -> None:
        driver, connection = self.driver, fairy.dbapi_connection
        if driver.settled(
            connection, False
        ):  # the shortest question, and mostly enough: in no autocommit, nothing open
            return
        state = driver.state(connection)
        if state is IDLE:
            return
        if state is BUSY and fairy.is_detached:
            return  # it is closed next, and an error would prevent that
        refuse_busy(driver, state)
        if state is UNKNOWN:
            driver.adopt(connection)
        self.dialect.do_rollback(fairy)
        # in autocommit psycopg2's and sqlite3's rollback() does nothing, also to a transaction begun by hand
        if driver.state(connection) not in (IDLE, UNKNOWN):
            driver.rollback(connection)
            if driver.state(connection) not in (IDLE, UNKNOWN):
                raise exc.InvalidRequestError("it is still in a transaction after a rollback, and will be closed")


def refuse_busy(driver: Driver[Any], state: TransactionState) -> None:
    """Raise for a connection in the middle of a statement: SQLAlchemy then closes it. A rollback would wait for whoever
    still reads from it, maybe for ever, or would be queued in a pipeline; and the next borrower would be in there too.

    Of PyMySQL's what was not read yet is known to come, and its rollback reads it first.
    """
    if state is BUSY and not isinstance(driver, PyMySQL):
        raise exc.InvalidRequestError("it was given back in the middle of a statement, and will be closed")


def driver_of(connection: Any) -> Driver[Any] | None:
    """The driver for SQLAlchemy's connections, by the type of the first; None for one that is not known here."""
    driver = Undecided(lambda: None).known(connection)
    return None if driver is None else driver.recognise(connection)


def refuse_session_options(names: Iterable[str], what: str) -> None:
    """``names`` that have a meaning in a pool of the core, and none here: SQLAlchemy looks after sessions itself."""
    for name in names:
        if name in _SESSION_OPTIONS:
            raise TypeError(
                f"{what} has {name!r}, which SQLAlchemy's engine has its own way for: {_SESSION_OPTIONS[name]}"
            )


_SESSION_OPTIONS = {
    "init_sql": 'a listener to the event "connect"',
    "isolation": "create_engine(isolation_level=...)",
    "disconnect_on": 'a listener to the event "handle_error" that sets is_disconnect',
    "read_only": 'the execution option postgresql_readonly, or a listener to the event "connect"',
    "reset": "create_engine(pool_reset_on_return=...)",
    "on_connect": 'a listener to the event "connect"',
    "on_checkout": 'a listener to the event "checkout"',
    "on_checkin": 'a listener to the event "checkin"',
    "on_close": 'a listener to the event "close"',
}


def refuse_private_memory(driver: Sqlite, connection: Any, connect: Callable[[], Any]) -> None:
    """A SQLite database in memory is each connection's own, unless it was given a name that others can open it by."""
    if any(name == "main" and file for _, name, file in connection.execute("PRAGMA database_list").fetchall()):
        return
    try:
        if not _lock(driver, connection):
            return  # by others, who must see it
        other = connect()
        try:
            if not _lock(driver, other):
                return
        finally:
            other.close()
    finally:
        driver.rollback(connection)
    raise exc.ArgumentError(
        "ThreadPool: this SQLite database is in memory, where each connection of a pool would see its own; name a "
        "file, use poolclass=StaticPool, or share one by name, "
        "sqlite:///file:app?mode=memory&cache=shared&uri=true&check_same_thread=false"
    )


def _lock(driver: Sqlite, connection: Any) -> bool:
    """Be the only one who may write, until the rollback; False if somebody else is."""
    try:
        driver.begin(connection)
        connection.execute("PRAGMA user_version = 1").close()  # Python may have sent a BEGIN that locks nothing
    except sqlite3.OperationalError:
        return False
    return True
