"""How does PyMySQL say what the pool asks? Hardly at all: its transaction flag is old news after most answers.

The server tells the state of the transaction in its OK packets, and PyMySQL copies it from those alone. The end of a
result set carries it too but is not copied, an error carries none. So after ``SELECT ... FOR UPDATE`` with autocommit
off, or a CALL that failed after its START TRANSACTION, ``server_status`` says "none open" while rows are locked.

Therefore connections get a subclass here that remembers one more bit, ``told``: is the flag of the last answer? With
it the state is exact, or UNKNOWN. Connections from a foreign callable are given that class when the pool gets them, or
first rolls them back; those that cannot take it stay UNKNOWN, at one rollback a checkin, and count as dirty. What else
the subclass hears, and what is said behind its back: ``watched_pymysql``. Roads not taken: guessing by the private
``_result`` alone, which looks the same after a commit and after a failed statement.

The subclass also keeps the SSL context. PyMySQL from 1.2 tries TLS by itself and reads the system's certificates for
each connection, 14 ms of processor time; ours does it once, and decides all else (whether TLS is asked for, demanded,
verified) exactly as PyMySQL does. Passing ``ssl=context`` would not: it makes TLS a demand.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Hashable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from threadpool_db.drivers.base import BUSY, IDLE, OPEN, UNKNOWN, TransactionState
from threadpool_db.drivers.client import KEEPALIVE_COUNT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, Client
from threadpool_db.drivers.sockets import Socket, poll_socket
from threadpool_db.drivers.watched_pymysql import CURSORCLASS, telling

if TYPE_CHECKING:
    from pymysql.connections import Connection  # noqa: F401

_IN_TRANSACTION, _AUTOCOMMIT = 1, 2
_COM_QUERY, _COM_RESET_CONNECTION = 3, 0x1F
_UNKNOWN_COMMAND = 1047
_NO_SUCH_THREAD = 1094
#: of the server's own errors (1000 to 1999) those about itself: no memory, too many connections, no thread, shutdown
_BUSY = frozenset({1037, 1040, 1041, 1053, 1135})
#: killed; gone away; lost; commands out of sync; ... ; the server shuts down; disconnected for inactivity
_HANGS_UP = frozenset({1053, 1927, 2006, 2013, 2014, 2045, 2055, 4031})
_LONGEST_TIMEOUT = 31536000  # PyMySQL takes no more


class PyMySQL(Client["Connection[Any]"]):
    """MySQL and MariaDB through PyMySQL."""

    name = "pymysql"
    dialect = "mysql"
    requires = "pymysql"
    extra = "mysql"
    peeks = True
    has_autocommit = True
    #: the server is read-only; the transaction is, as some clusters have it after a failover; InnoDB is
    read_only_codes = frozenset({1290, 1792, 1836})
    code_type = int
    for_a_session = MappingProxyType(
        dict.fromkeys(("init_command", "sql_mode"), "set it in the pooler's or the server's own configuration")
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._contexts: dict[str, Any] = {}
        self._classes: dict[type, type] = {}
        self._deaf = False  # connections that cannot be watched count as dirty

    def open(self, parameters: dict[str, Any], timeout: float) -> Any:
        limit = parameters.setdefault("connect_timeout", min(max(timeout, 0.01), _LONGEST_TIMEOUT))
        parameters["defer_connect"] = True
        connection: Any = self._class_for(self._module.connections.Connection)(**parameters)
        # connect_timeout covers the TCP handshake only. A server that accepts and then says nothing would hold us for
        # ever, so the reads until the login is through get the limit too; and the writes, because the TLS handshake
        # goes by whichever of the two came last, a write.
        patience = [(name, getattr(connection, name, None)) for name in ("_read_timeout", "_write_timeout")]
        for name, seconds in patience:
            setattr(connection, name, min(seconds or math.inf, limit))
        connection.connect()
        for name, seconds in patience:
            setattr(connection, name, seconds)
        _keep_alive(connection._sock)
        connection._made = (
            connection.charset,
            getattr(connection, "collation", None),  # PyMySQL 1.1 and newer
            connection.encoding,
            connection.get_autocommit(),
            connection.cursorclass,
        )
        return connection

    def _class_for(self, kind: type) -> type:
        """The subclass of a connection class that knows whether its transaction flag is fresh."""
        if kind not in self._classes:
            self._classes[kind] = telling(kind, self._contexts, self._module)
        return self._classes[kind]

    def close(self, connection: Any) -> None:
        connection.close()

    def peek(self, connection: Any) -> bool:
        # Readable is as bad as gone: in this protocol the server never speaks first.
        sock = getattr(connection, "_sock", None)
        if sock is None:
            return bool(connection.open)
        return poll_socket(sock.fileno()) is Socket.QUIET

    def ping(self, connection: Any) -> bool:
        connection.ping(reconnect=False)
        return True

    def state(self, connection: Any) -> TransactionState:
        if not connection.open:
            return UNKNOWN
        result = getattr(connection, "_result", None)
        if getattr(result, "unbuffered_active", False):
            return BUSY  # rows are still coming, nobody knows how many: the next command would read them all first
        if getattr(connection, "server_status", 0) & _IN_TRANSACTION:
            return OPEN
        return IDLE if getattr(connection, "told", False) else UNKNOWN

    def glimpse(self, connection: Any) -> TransactionState:
        # The flag is that of the last answer. A command was sent and nothing of its answer has come: its first packet
        # is to have the number 1. So has the 256th of an answer, but then the result of that is here.
        if connection._result is None and connection._next_seq_id == 1 and connection.open:
            return BUSY
        return PyMySQL.state(self, connection)

    def autocommit(self, connection: Any) -> bool:
        return bool(connection.server_status & _AUTOCOMMIT)

    def settled(self, connection: Any, autocommit: bool | None) -> bool:
        try:
            if not connection.told or connection.left or connection._sock is None:
                return False
        except AttributeError:
            return False
        status = connection.server_status
        return not status & _IN_TRANSACTION and bool(status & _AUTOCOMMIT) is autocommit

    def set_autocommit(self, connection: Any, on: bool) -> None:
        connection.autocommit(on)  # no round trip where the server is in that mode already

    def begin(self, connection: Any) -> None:
        # Also where autocommit is off and the next statement would do it: the flag then says so.
        connection.begin()

    def commit(self, connection: Any) -> None:
        connection.commit()

    def rollback(self, connection: Any) -> None:
        self.adopt(connection)
        connection.rollback()

    def adopt(self, connection: Any) -> None:
        if not hasattr(connection, "told"):
            try:
                connection.__class__ = self._class_for(type(connection))
                connection.told = connection.hears = False
            except TypeError:  # a class of another memory layout: nothing lost but a rollback at each checkin
                pass

    def watch(self, connection: Any) -> None:
        self.adopt(connection)
        if hasattr(connection, "left"):
            connection.watch()
        else:
            self._deaf = True

    def put_back(self, connection: Any) -> bool:
        if getattr(connection, "left", None) == CURSORCLASS:
            connection.left, connection.cursorclass = None, connection.made_cursorclass
            connection.left = False
        return False

    def dirtied(self, connection: Any) -> bool:
        return bool(getattr(connection, "left", self._deaf))

    def reset(self, connection: Any) -> None:
        watched = getattr(connection, "left", None) is not None
        connection.left, connection.hears = None, True  # nothing is noted while the pool itself speaks
        try:
            connection._execute_command(_COM_RESET_CONNECTION, b"")
            connection._read_ok_packet()
        except self._module.err.MySQLError as error:
            if error.args[:1] == (_UNKNOWN_COMMAND,):
                self.can_reset = False  # a server before MySQL 5.7.3, MariaDB 10.2.4: the pool closes instead
            raise
        # It forgets what PyMySQL sent after the login, and keeps the database that a USE has chosen.
        *told, connection.cursorclass = connection._made
        if connection.db and (getattr(connection, "moved", True) or not watched):
            connection.select_db(connection.db)
        _tell_again(connection, *told)
        if connection.init_command is not None:
            self.run(connection, connection.init_command)
            connection.autocommit(told[-1])
        if watched:
            connection.left = connection.moved = False

    def run(self, connection: Any, sql: str) -> None:
        with connection.cursor(self._module.cursors.Cursor) as cursor:
            cursor.execute(sql)

    def set_isolation(self, connection: Any, level: str) -> None:
        self.run(connection, f"SET SESSION TRANSACTION ISOLATION LEVEL {level.upper()}")

    def set_read_only(self, connection: Any, on: bool) -> None:
        self.run(connection, f"SET SESSION TRANSACTION READ {'ONLY' if on else 'WRITE'}")

    def code(self, error: BaseException) -> int | None:
        ours = isinstance(error, self._module.err.MySQLError) and error.args
        return error.args[0] if ours and isinstance(error.args[0], int) else None

    def descriptor(self, connection: Any) -> int | None:
        sock = getattr(connection, "_sock", None)
        return None if sock is None else sock.fileno()

    def session(self, connection: Any) -> Hashable | None:
        return connection.thread_id() if connection.open else None

    def end_session(self, other: Any, session: Hashable, age: float) -> None:
        with other.cursor(self._module.cursors.Cursor) as cursor:
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Uptime'")
            row = cursor.fetchone()
            if row is None or float(row[1]) < age - 1:
                return  # a server started anew, which counts its sessions anew
            try:
                cursor.execute(f"KILL {int(str(session))}")
            except self._module.err.MySQLError as error:
                if error.args[:1] != (_NO_SUCH_THREAD,):
                    raise

    def buffered(self, cursor: Any) -> bool:
        return not isinstance(cursor, self._module.cursors.SSCursor)

    def is_disconnect(self, error: BaseException, connection: Any) -> bool:
        if not connection.open:
            return True
        if not isinstance(error, self._module.err.MySQLError):
            return False
        return error.args[:1] == (0,) or bool(_HANGS_UP.intersection(error.args[:1]))

    def is_answer(self, error: BaseException) -> bool:
        code = error.args[0] if error.args else None
        return isinstance(error, self._module.err.Error) and code in range(1000, 2000) and code not in _BUSY

    def address(self) -> Hashable:
        given = self._parameters
        return given.get("unix_socket") or (given.get("host") or "localhost", given.get("port") or 3306)


def _tell_again(connection: Any, charset: str, collation: str | None, encoding: str, autocommit: bool) -> None:
    """What PyMySQL told the server after the login, in one statement instead of up to three."""
    words = [f"NAMES {charset}" + (f" COLLATE {collation}" if collation else ""), f"autocommit = {int(autocommit)}"]
    if connection.sql_mode is not None:
        words.append(f"sql_mode = {connection.escape(connection.sql_mode)}")
    connection.charset, connection.collation, connection.encoding = charset, collation, encoding
    connection.autocommit_mode = autocommit
    connection._execute_command(_COM_QUERY, f"SET {', '.join(words)}")
    connection._read_ok_packet()


def _keep_alive(sock: Any) -> None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wanted = {"TCP_KEEPIDLE": KEEPALIVE_IDLE, "TCP_KEEPINTVL": KEEPALIVE_INTERVAL, "TCP_KEEPCNT": KEEPALIVE_COUNT}
    for name, value in wanted.items():
        if hasattr(socket, name):  # macOS has other names for the first
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
