"""What does the pool need to know of a database? The Driver protocol, and the driver for any PEP 249 module.

A driver is the only code that talks to a database. The pool calls it outside its lock, and never twice at a time for
one connection. Two kinds of method, and the difference is the point of this package:

*local*     ``peek``, ``state``, ``autocommit``, ``settled``, ``descriptor``, ``session``, ``interrupt``: never a round
            trip, never blocks, a microsecond at most; the first four run at every checkout and checkin.
*remote*    ``connect``, ``close``, ``ping``, ``begin``, ``commit``, ``rollback``, ``reset``, ``set_autocommit``,
            ``end_session``: may talk to the server, may raise the database's own errors.
"""

from __future__ import annotations

import contextlib
import copy
import enum
import inspect
import os
import select
import socket
import stat
import sys
import types
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

C = TypeVar("C")


class TransactionState(enum.Enum):
    """What a driver knows, without asking the server, of a connection's transaction."""

    IDLE = "idle"  # surely none open
    OPEN = "open"
    FAILED = "failed"  # open, and the server accepts nothing but its end
    BUSY = "busy"  # in the middle of a statement: nothing can be said to the server now
    UNKNOWN = "unknown"


IDLE, OPEN, FAILED = TransactionState.IDLE, TransactionState.OPEN, TransactionState.FAILED
BUSY, UNKNOWN = TransactionState.BUSY, TransactionState.UNKNOWN


class Driver(Generic[C]):
    """Opens, closes and looks after connections of one kind; the pool is generic over them.

    Subclass it for anything that can be opened and closed: only ``connect`` is required. The defaults describe an
    object without transactions, session state or a socket.
    """

    name = "driver"
    #: whose SQL it speaks, for ``core.statement.judge``; "": who knows
    dialect = ""
    #: False: ``peek`` has nothing to look at, and the pool does not call it
    peeks = False
    #: False: the connections have no autocommit mode that can be read and switched
    has_autocommit = False
    #: True: ``reset`` brings a connection back to how ``connect`` made it. Only a driver that made the connection
    #: itself, from parameters, can promise that; what a foreign callable did to it would be lost.
    can_reset = False
    #: False: to close a connection while another thread is in the middle of a call on it may crash the process. One
    #: that is taken away is then only interrupted, and closes when its borrower is through with it.
    closes_in_use = True
    #: so many references a connection has to itself, for who wants to know whether anybody else has one
    own_references = 0

    def connect(self, timeout: float) -> C:
        """Open a connection, within about ``timeout`` seconds where the database's client allows a limit."""
        raise TypeError(f"{type(self).__name__} does not say how to connect")

    def close(self, connection: C) -> None:
        """Close it. The pool ignores errors here: there is nobody to tell."""

    def peek(self, connection: C) -> bool:
        """Local look: False if the connection is surely dead, True otherwise."""
        return True

    def ping(self, connection: C) -> bool:
        """Ask the server, one round trip, and leave no transaction open. An exception counts as False."""
        return True

    def adopt(self, connection: C) -> None:
        """Local: somebody else's callable made this connection; let it tell, from its next rollback on, what our own
        tell, if it can be made to. ``rollback`` does so too."""

    def state(self, connection: C) -> TransactionState:
        """Local: is a transaction open? Exact, or UNKNOWN; never a guess."""
        return IDLE

    def autocommit(self, connection: C) -> bool | None:
        """Local: the mode the connection is in now; None where there is no such mode."""
        return None

    def settled(self, connection: C, autocommit: bool | None) -> bool:
        """Local: surely no transaction open, and the mode still ``autocommit``? Asked at every checkin."""
        return self.state(connection) is IDLE and self.autocommit(connection) is autocommit

    def set_autocommit(self, connection: C, on: bool) -> None:
        """Switch the mode; called only while no transaction is open."""

    def begin(self, connection: C) -> None:
        """Open a transaction now; in a driver without autocommit the next statement does."""

    def commit(self, connection: C) -> None:
        """Commit whatever transaction is open, one opened by a hand-written BEGIN too."""

    def rollback(self, connection: C) -> None:
        """Roll back whatever transaction is open, one opened by a hand-written BEGIN too."""

    def reset(self, connection: C) -> None:
        """Wipe all session state: settings, temporary tables, locks, prepared statements, any open transaction.

        The autocommit mode afterwards is the driver's affair: the pool sets it again.
        """

    def descriptor(self, connection: C) -> int | None:
        """Local: the file descriptor of the connection's socket, None where there is none to be had."""
        return None

    def interrupt(self, connection: C) -> None:
        """Local, and from any thread, the only method that is called while another one uses the connection: make the
        call that it is stuck in fail. Not needed where there is a ``descriptor``: the pool cuts that socket."""

    def session(self, connection: C) -> Hashable | None:
        """Local: the server's own name for this session, by which another one can end it; None where there is none."""
        return None

    def end_session(self, other: C, session: Hashable, age: float) -> None:
        """Over another connection: end the session of that name, if it is at least ``age`` seconds old, for a server
        gives its names to others too in time."""

    def is_disconnect(self, error: BaseException, connection: C) -> bool:
        """Does this error mean that the connection is of no more use?"""
        return False

    @property
    def server_key(self) -> Hashable:
        """Which server: (host, port) or a path; pools with the same key share the knowledge that it is down."""
        return id(self)

    def recognise(self, connection: C) -> Driver[C]:
        """The driver to use from now on, asked once about the first connection: see ``choose.Undecided``."""
        return self


class Dbapi(Driver[Any]):
    """Connections of any PEP 249 module, about which nothing else is known. Conservative.

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


#: Linux; the constant is missing from some builds' ``select`` (PyPy) but the number is the kernel's.
_RDHUP = getattr(select, "POLLRDHUP", 0x2000)
_HUNG_UP = _RDHUP | getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0) | getattr(select, "POLLNVAL", 0)


class Socket(enum.Enum):
    """What a zero-timeout poll says of a socket."""

    QUIET = "quiet"
    READABLE = "readable"  # something unread, the peer has not hung up: what that means only the driver knows
    GONE = "gone"


def poll_socket(descriptor: int) -> Socket:
    """Look at a socket without waiting, 0.3 µs. A peer that said goodbye is seen whether or not TLS is on.

    A fresh poll object each time: a kept one outlives the descriptor's number, which the system gives to somebody else.
    """
    if descriptor < 0:
        return Socket.GONE
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | _RDHUP)
    events = poll.poll(0)
    if not events:
        return Socket.QUIET
    return Socket.GONE if events[0][1] & _HUNG_UP else Socket.READABLE


def socket_identity(descriptor: int | None) -> tuple[int, int] | None:
    """The descriptor and the inode behind it; to be noted at connect, for ``cut_socket``."""
    if descriptor is None:
        return None
    try:
        return descriptor, os.fstat(descriptor).st_ino
    except OSError:
        return None


#: where struct tcp_info of Linux has tcpi_last_data_sent and tcpi_last_data_recv, in milliseconds
_LAST_SENT, _LAST_RECEIVED = 44, 52


def socket_silence(identity: tuple[int, int] | None) -> float | None:
    """For how many seconds has nothing been said on that socket, in either direction? The kernel knows.

    None where it does not: no TCP, no Linux, or no longer that socket.
    """
    if identity is None or not hasattr(socket, "TCP_INFO"):
        return None
    descriptor, inode = identity
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
        if os.fstat(duplicate.fileno()).st_ino == inode:
            info = duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            ages = [int.from_bytes(info[at : at + 4], sys.byteorder) for at in (_LAST_SENT, _LAST_RECEIVED)]
            return min(ages) / 1000.0
    return None


def cut_socket(identity: tuple[int, int] | None) -> None:
    """End whatever call is stuck on that socket, from another thread.

    Shuts down a duplicate, because the descriptor's number may be closed and given to somebody else at any moment;
    after the ``dup`` its inode says whether it still is ours. psycopg's own ``cancel()`` would hold the GIL meanwhile.
    """
    if identity is None:
        return
    descriptor, inode = identity
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
        if os.fstat(duplicate.fileno()).st_ino == inode:
            duplicate.shutdown(socket.SHUT_RDWR)
