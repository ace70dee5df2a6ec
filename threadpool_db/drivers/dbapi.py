"""How does the pool treat a PEP 249 module that it knows nothing about? Conservatively."""

from __future__ import annotations

import copy
import inspect
import os
import stat
import types
from collections.abc import Callable, Hashable
from typing import Any

from threadpool_db.drivers.base import UNKNOWN, Driver, TransactionState
from threadpool_db.drivers.sockets import Socket, poll_socket


class Dbapi(Driver[Any]):
    """Connections of any PEP 249 module.

    It cannot see whether a transaction is open (state UNKNOWN, one rollback at every checkin), and has no autocommit
    mode to offer. Its ping is ``SELECT 1``, which every database but Oracle's older ones answers.

    The first connection shows what more there is, and nothing is sent to find out: ``closed`` and ``fileno()`` as files
    have them, and the data ``autocommit`` and ``in_transaction``. Where a property of the module's own Python code
    stands behind one of the latter two it is not even read: that of mysql.connector asks the server.
    """

    name = "dbapi"
    closes_in_use = False  # most modules have threadsafety 1
    ping_sql = "SELECT 1"
    #: was there a first connection; has it ``closed``, a socket, ``in_transaction``; in which mode was it made
    _met = _closes = _has_socket = _confesses = False
    _made: bool | None = None

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect

    def recognise(self, connection: Any) -> Driver[Any]:
        if self._met:
            return self
        known = copy.copy(self)  # another object, for the pool to see that something has changed
        known._met = True
        closed = getattr(connection, "closed", None)
        known._closes = isinstance(closed, int) and not closed
        known._has_socket = _is_socket(connection)
        known.peeks = known._closes or known._has_socket
        known._made = _datum(connection, "autocommit")
        known._confesses = _datum(connection, "in_transaction") is False
        return known

    def connect(self, timeout: float) -> Any:
        return self._connect()

    def close(self, connection: Any) -> None:
        connection.close()

    def peek(self, connection: Any) -> bool:
        if self._closes and connection.closed:
            return False
        # Readable is no death: who knows what this protocol says unasked.
        return not self._has_socket or poll_socket(connection.fileno()) is not Socket.GONE

    def ping(self, connection: Any) -> bool:
        self.run(connection, self.ping_sql)
        self.rollback(connection)
        return True

    def state(self, connection: Any) -> TransactionState:
        # Not what in_transaction says: sqlite3's is true inside a savepoint, whose release would commit.
        return UNKNOWN

    def begin(self, connection: Any) -> None:
        # In autocommit each statement of the transaction would be committed at once, and nobody told.
        if self._made is not None and connection.autocommit:
            connection.autocommit = False

    def commit(self, connection: Any) -> None:
        connection.commit()
        self._ended(connection)

    def rollback(self, connection: Any) -> None:
        if self._made is not None and connection.autocommit:
            # In autocommit psycopg2's does nothing to a hand-written BEGIN, and does not say so. It believes in a
            # transaction once a statement was sent out of autocommit; then it ends that one too.
            connection.autocommit = False
            self.run(connection, self.ping_sql)
        connection.rollback()
        self._ended(connection)

    def _ended(self, connection: Any) -> None:
        if self._made is not None and connection.autocommit is not self._made:
            connection.autocommit = self._made
        if self._confesses and connection.in_transaction:
            raise RuntimeError("the connection says that it still is in a transaction")

    def descriptor(self, connection: Any) -> int | None:
        if not self._has_socket or (self._closes and connection.closed):
            return None
        descriptor: int = connection.fileno()
        return descriptor if descriptor >= 0 else None

    def is_disconnect(self, error: BaseException, connection: Any) -> bool:
        return self._closes and bool(connection.closed)

    def code(self, error: BaseException) -> str | int | None:
        """Where most modules have it: what is no code is in nobody's ``disconnect_on``."""
        for name in ("sqlstate", "pgcode", "errno"):
            code = getattr(error, name, None)
            if code is not None:
                return code  # type: ignore[no-any-return]
        return error.args[0] if error.args and isinstance(error.args[0], (int, str)) else None

    @property
    def server_key(self) -> Hashable:
        return id(self._connect)

    def run(self, connection: Any, sql: str) -> None:
        """Send one statement of the pool's own and read whatever it answers."""
        cursor = connection.cursor()
        try:
            cursor.execute(sql)
            if cursor.description is not None:
                cursor.fetchall()
        finally:
            cursor.close()


def _datum(connection: Any, name: str) -> bool | None:
    """An attribute that is a bool and can be read without running anybody's Python code; else None."""
    if isinstance(inspect.getattr_static(connection, name, None), (bool, *_PLAIN)):
        value = getattr(connection, name)
        return value if isinstance(value, bool) else None
    return None


#: slots, and attributes of types written in C, whose modules keep them in memory
_PLAIN = (types.MemberDescriptorType, types.GetSetDescriptorType)


def _is_socket(connection: Any) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(connection.fileno()).st_mode)
    except Exception:  # no such method, or one that has another meaning
        return False
