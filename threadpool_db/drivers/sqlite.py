"""How does sqlite3 say what the pool asks? No server, no socket: what can be wrong is a transaction left open.

Python has two ways to rule transactions. The old one, ``isolation_level``: None is autocommit, else a BEGIN of that
level comes before the first change (not before a SELECT). The one of Python 3.12, ``autocommit=True`` or ``False``,
is used only by who asks for it; with False a transaction is open at any time, so "is one open" has no answer there.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from threadpool_db.drivers.base import IDLE, OPEN, UNKNOWN, TransactionState
from threadpool_db.drivers.client import Client
from threadpool_db.drivers.watched_sqlite import LEGACY, Mark, watched
from threadpool_db.errors import PoolMisuse

if TYPE_CHECKING:
    from sqlite3 import Connection

_PRAGMA = "pragma."
#: SQLITE_READONLY_DBMOVED: the file was deleted or replaced under the connection
_MOVED = 1032


class Sqlite(Client["Connection"]):
    """SQLite through the standard library's sqlite3.

    Parameters are sqlite3.connect's, and ``pragma.NAME`` for what shall be set on each connection. A database in
    memory is refused: each connection would get one of its own.
    """

    name = "sqlite"
    dialect = "sqlite"
    requires = "sqlite3"
    has_autocommit = True
    code_type = int
    closes_in_use = False  # sqlite3 of each Python from 3.10 to 3.13 dies of a segmentation fault

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.own_references = _own_references(self._module)
        self.can_reset = False  # temporary tables and pragmas cannot be wiped
        if self._module.threadsafety == 0:
            raise PoolMisuse("this Python's SQLite was built without locks (SQLITE_THREADSAFE=0): not for threads")
        #: what a connection gets back when it leaves autocommit, and how BEGIN is said: one for all, because nothing
        #: can be attached to a sqlite3.Connection, not even a weak reference; and one source makes them all alike
        self._level = ""
        #: of connections that are not ours, by id: watched from their making on, so a new one has a new mark
        self._marks: dict[int, Mark] = {}
        if self._connect is None:
            self._parameters = {**self._parameters, "database": _file(self._parameters)}
            _pragmas(dict(self._parameters))

    def expect_pooler(self) -> None:
        raise ValueError("server_pooler=True: SQLite has no server that a pooler could stand before; leave it out")

    def connect(self, timeout: float) -> Connection:
        connection = super().connect(timeout)
        self.recognise(connection)
        return connection

    def recognise(self, connection: Connection) -> Sqlite:
        self._level = getattr(connection, "isolation_level", None) or self._level
        return self

    def open(self, parameters: dict[str, Any], timeout: float) -> Connection:
        parameters["database"] = _file(parameters)
        pragmas = _pragmas(parameters)
        # Which thread made it is of no interest in a pool: never two threads at once have it.
        factory = parameters.get("factory", self._module.Connection)
        if isinstance(factory, type) and issubclass(factory, self._module.Connection):
            factory = watched(factory)
        given = {**parameters, "factory": factory, "check_same_thread": False}
        connection: Connection = self._module.connect(**given)
        try:
            for statement in pragmas:
                connection.execute(statement).close()
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self, connection: Connection) -> None:
        self._marks.pop(id(connection), None)
        connection.close()

    def ping(self, connection: Connection) -> bool:
        connection.execute("SELECT 1").close()
        return True

    def state(self, connection: Connection) -> TransactionState:
        try:
            if not connection.in_transaction:
                return IDLE
        except self._module.ProgrammingError:  # closed
            return UNKNOWN
        return UNKNOWN if _modern(connection) is False else OPEN

    def glimpse(self, connection: Connection) -> TransactionState:
        return Sqlite.state(self, connection)  # a flag of SQLite's; a subclass's own state may wait

    def autocommit(self, connection: Connection) -> bool:
        modern = _modern(connection)
        return connection.isolation_level is None if modern is None else modern

    def watch(self, connection: Any) -> None:
        if hasattr(connection, "mark"):
            connection.watch()
        else:
            mark = self._marks[id(connection)] = Mark()
            mark.note(connection)

    def put_back(self, connection: Connection) -> bool:
        mark = self._mark(connection)
        if mark is not None and mark.watching and not mark.left:
            mark.put_back(connection)
        return False

    def dirtied(self, connection: Connection) -> bool:
        mark = self._mark(connection)
        return mark is not None and mark.watching and mark.left

    def _mark(self, connection: Connection) -> Mark | None:
        return getattr(connection, "mark", None) or self._marks.get(id(connection))

    def settled(self, connection: Connection, autocommit: bool | None) -> bool:
        mark = getattr(connection, "mark", None)
        try:
            if mark is None:  # not one of ours
                mark = self._marks.get(id(connection))
                if mark is not None and mark.moved(connection):
                    return False
            elif mark.touched:
                return False
            return not connection.in_transaction and self.autocommit(connection) is autocommit
        except self._module.ProgrammingError:  # closed
            return False

    def set_autocommit(self, connection: Connection, on: bool) -> None:
        if _modern(connection) is not None:
            connection.autocommit = on  # type: ignore[attr-defined, unused-ignore]
        elif on is not self.autocommit(connection):
            connection.isolation_level = None if on else self._level  # type: ignore[assignment, unused-ignore]

    def begin(self, connection: Connection) -> None:
        if not connection.in_transaction:
            connection.execute(f"BEGIN {connection.isolation_level or self._level}").close()

    def commit(self, connection: Connection) -> None:
        self._end(connection, "COMMIT", connection.commit)

    def rollback(self, connection: Connection) -> None:
        self._end(connection, "ROLLBACK", connection.rollback)

    def _end(self, connection: Connection, sql: str, otherwise: Any) -> None:
        # With autocommit=True the methods do nothing, also to a transaction that a hand-written BEGIN opened.
        if _modern(connection) is not True:
            otherwise()
        elif connection.in_transaction:
            connection.execute(sql).close()

    def run(self, connection: Connection, sql: str) -> None:
        modern = _modern(connection)
        if modern is False:
            # there a transaction is open at any time, inside which some pragmas do nothing, and do not say so
            connection.autocommit = True  # type: ignore[attr-defined, unused-ignore]
        try:
            connection.execute(sql).fetchall()
        finally:
            if modern is False:
                connection.autocommit = False  # type: ignore[attr-defined, unused-ignore]

    def set_isolation(self, connection: Connection, level: str) -> None:
        """They are."""

    def set_read_only(self, connection: Connection, on: bool) -> None:
        self.run(connection, f"PRAGMA query_only = {'ON' if on else 'OFF'}")

    def refuses(self, option: str, value: Any) -> str:
        if option == "isolation" and value != "serializable":
            return "SQLite's transactions are all 'serializable'"
        if option == "disconnect_on" and sys.version_info < (3, 11):
            return "sqlite3's errors tell their codes from Python 3.11 on"
        return super().refuses(option, value)

    def code(self, error: BaseException) -> int | None:
        return getattr(error, "sqlite_errorcode", None)

    def interrupt(self, connection: Connection) -> None:
        connection.interrupt()

    def is_disconnect(self, error: BaseException, connection: Connection) -> bool:
        if isinstance(error, self._module.Error) and getattr(error, "sqlite_errorcode", 0) == _MOVED:
            return True
        try:
            return connection.total_changes < 0
        except self._module.ProgrammingError:
            return True

    def address(self) -> Hashable:
        return str(self._parameters["database"])


def _own_references(module: Any) -> int:
    """The cache of statements refers to its connection: two references, from CPython 3.10 to 3.13."""
    if not hasattr(sys, "getrefcount"):
        return 0
    connection, thing = module.connect(":memory:"), object()
    try:
        return sys.getrefcount(connection) - sys.getrefcount(thing)
    finally:
        connection.close()


def _modern(connection: Connection) -> bool | None:
    """Python 3.12's ``autocommit``, where somebody chose it; None is the old way."""
    mode = getattr(connection, "autocommit", LEGACY)
    return None if mode == LEGACY else bool(mode)


def _file(parameters: Any) -> str:
    """The database file, the same one even after a change of the working directory."""
    name = os.fspath(parameters.get("database") or "")
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if name in ("", ":memory:") or (name.startswith("file::memory:") and "cache=shared" not in name):
        raise ValueError(
            "the url or database is in memory, where each connection of a pool would see its own: name a file, "
            "sqlite:///app.db, or share one by name, sqlite:///file:app?mode=memory&cache=shared&uri=true"
        )
    return name if parameters.get("uri") else os.path.abspath(name)


def _pragmas(parameters: dict[str, Any]) -> list[str]:
    """Take the pragmas out of the parameters, as statements."""
    names = [name for name in parameters if name.startswith(_PRAGMA)]
    settings = [f"{name.removeprefix(_PRAGMA)} = {parameters.pop(name)}" for name in names]
    if not all(re.fullmatch(r"[A-Za-z_]+ = [A-Za-z0-9_.+-]+", setting) for setting in settings):
        raise ValueError("a pragma is set to one word or number, as in the url option pragma.journal_mode=wal")
    return [f"PRAGMA {setting}" for setting in settings]
