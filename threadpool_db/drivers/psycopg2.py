"""How does psycopg2 say what the pool asks? PostgreSQL tells its state for nothing; the traps are psycopg2's own.

Three of them decide the shape of this file:

- In autocommit ``commit()`` and ``rollback()`` do nothing, also to a transaction that a hand-written BEGIN opened.
- Out of autocommit psycopg2 sends BEGIN by a flag of its own, ``status``. After a hand-written COMMIT the flag still
  says "begun": the next statements of the next borrower would each commit at once. ``rollback()`` clears it.
- A dead idle session does not raise in ``rollback()``, and ``closed`` learns of it only from a failed call.

What is left in a session is heard by the classes of ``watched_psycopg2``.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from threadpool_db.drivers.base import IDLE, UNKNOWN, TransactionState
from threadpool_db.drivers.client import as_bool
from threadpool_db.drivers.postgresql import END_SESSION, REPORTED, STATES, TRANSACTION_IDLE, Postgresql
from threadpool_db.drivers.sockets import Socket, poll_socket
from threadpool_db.drivers.watched_psycopg2 import watched
from threadpool_db.drivers.watching import OURS, SESSION

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

#: psycopg2.extensions.STATUS_READY: psycopg2 itself believes that no transaction was begun
_READY = 1


class Psycopg2(Postgresql["Connection"]):
    """PostgreSQL through psycopg2."""

    name = "psycopg2"
    requires = "psycopg2"
    extra = "postgresql"
    read_only_attribute = "readonly"
    #: has the pool asked to watch anything? SQLAlchemy's does not
    _watches = False
    #: the listening class of cursors of a callable's connections, and their attributes: of the last one, and mostly of
    #: them all, for nothing can be attached to one
    _factory: Any = None
    _made: tuple[Any, ...] = (None, None, None)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._watched: Any = watched()
        if not self.can_reset:
            self.settled = self._settled_foreign  # type: ignore[method-assign]

    def open(self, parameters: dict[str, Any], timeout: float) -> Connection:
        autocommit = as_bool("autocommit", parameters.pop("autocommit", False))
        kind = parameters.get("connection_factory") or self._module.extensions.connection
        parameters["connection_factory"] = self._watched.connections(kind) or kind
        connection: Connection = self._module.connect(**{**self.defaults(timeout), **parameters})
        if autocommit:
            connection.autocommit = True
        return connection

    @property
    def closes_in_use(self) -> bool:  # type: ignore[override]
        # In a greenlet's call psycopg2 goes to the hub with the connection's own lock in its hands. Whoever else wants
        # that lock then stops the only thread there is, for ever.
        return self._module.extensions.get_wait_callback() is None

    def close(self, connection: Connection) -> None:
        connection.close()

    def peek(self, connection: Connection) -> bool:
        if connection.closed:
            return False
        seen = poll_socket(connection.fileno())
        if seen is Socket.QUIET:
            return True
        return seen is Socket.READABLE and self._drain(connection)

    def _drain(self, connection: Connection) -> bool:
        """Something is unread: a NOTIFY, which libpq takes in without a round trip, or a session's last words.

        Three looks, because where the system has no RDHUP the first read finds the server's FATAL message and only
        the second one the end of the stream. Still readable after that is a busy listener, and alive.
        """
        if connection.async_ or connection.status != _READY or connection.get_transaction_status() != TRANSACTION_IDLE:
            return False
        said = list(connection.notices)
        for _ in range(3):
            try:
                connection.poll()
            except self._module.Error:
                return False
            seen = poll_socket(connection.fileno())
            if seen is not Socket.READABLE:
                # Last words whose goodbye has not come yet: libpq takes an idle session's FATAL for a notice (measured:
                # 30 of 200 killed sessions looked alive for up to 6 ms). Nothing else is said to an idle session.
                return seen is Socket.QUIET and connection.notices == said
        return True

    def ping(self, connection: Connection) -> bool:
        # In autocommit one round trip is the whole ping; else it would be BEGIN, SELECT and ROLLBACK. Idle, the mode
        # is a flag on our side of the socket.
        made = connection.autocommit
        connection.autocommit = True
        try:
            self._run(connection, "SELECT 1")
        finally:
            if not connection.closed:
                connection.autocommit = made
        return True

    def state(self, connection: Connection) -> TransactionState:
        state = STATES[connection.get_transaction_status()]
        return UNKNOWN if state is IDLE and connection.status != _READY else state

    def glimpse(self, connection: Connection) -> TransactionState:
        # Two numbers of libpq's, read without its lock. ``closed`` is set before libpq frees them, without the GIL.
        return UNKNOWN if connection.closed else Psycopg2.state(self, connection)

    def autocommit(self, connection: Connection) -> bool:
        return connection.autocommit

    def settled(self, connection: Connection, autocommit: bool | None) -> bool:
        return (
            connection.get_transaction_status() == TRANSACTION_IDLE
            and connection.status == _READY
            and connection.autocommit is autocommit
            and not (self._watches and connection.left and self.found(connection))  # type: ignore[attr-defined]
        )

    def _settled_foreign(self, connection: Connection, autocommit: bool | None) -> bool:
        return (
            connection.get_transaction_status() == TRANSACTION_IDLE
            and connection.status == _READY
            and connection.autocommit is autocommit
            and not (self._watches and self.dirtied(connection))
        )

    def watch(self, connection: Any) -> None:
        self._watches = True
        try:
            kind = connection.cursor_factory or type(connection.cursor())
        except self._module.Error:  # a LoggingConnection that nobody has told where to log
            return
        if isinstance(connection, self._watched.connection):
            connection.cursor_factory = kind
            connection.made_factory = connection.cursor_factory
            self._heard(connection)
        else:
            self._factory = self._watched.cursors(kind)
            connection.cursor_factory = self._factory or kind
            self._made = _attributes(connection)

    def _heard(self, connection: Any) -> None:
        """Clean from here on. Of cursors that cannot be made to listen nobody knows."""
        made = connection.made_factory
        connection.left = 0 if made is None or hasattr(made, "heard") else SESSION
        connection.noted = self.reported(connection)

    def reported(self, connection: Connection) -> tuple[Any, ...]:
        return tuple(map(connection.get_parameter_status, REPORTED))

    def put_back(self, connection: Any) -> bool:
        if isinstance(connection, self._watched.connection):
            if connection.left & OURS:
                connection.cursor_factory = connection.made_factory
                connection.left &= ~OURS
            return False
        if _attributes(connection) == self._made or connection.autocommit:
            return False  # in autocommit each was a SET, which nobody can take back who does not know what was before
        connection.isolation_level, connection.readonly, connection.deferrable = self._made
        return True  # and if it was in autocommit meanwhile, psycopg2 has told the server to forget what it was told

    def dirtied(self, connection: Any) -> bool:
        if isinstance(connection, self._watched.connection):
            return bool(self.found(connection) & SESSION)
        if not self._watches or (
            connection.cursor_factory is self._factory
            and connection.isolation_level is self._made[0]
            and connection.readonly is self._made[1]
            and connection.deferrable is self._made[2]
        ):
            return False
        return not hasattr(connection.cursor_factory, "heard") or _attributes(connection) != self._made

    def set_autocommit(self, connection: Connection, on: bool) -> None:
        connection.autocommit = on

    def begin(self, connection: Connection) -> None:
        if connection.autocommit:
            self._run(connection, "BEGIN")

    def commit(self, connection: Connection) -> None:
        self._end(connection, "COMMIT", connection.commit)

    def rollback(self, connection: Connection) -> None:
        self._end(connection, "ROLLBACK", connection.rollback)

    def _end(self, connection: Connection, sql: str, otherwise: Any) -> None:
        if not connection.autocommit:
            otherwise()
        if connection.get_transaction_status() != TRANSACTION_IDLE:
            # begun by hand in autocommit, which may have been left since: psycopg2 knows nothing of it
            self._run(connection, sql)
            if not connection.autocommit:
                otherwise()  # and believes to have begun another one for our statement

    def reset(self, connection: Connection) -> None:
        if isinstance(connection, self._watched.connection):
            self.refuse_lasting(connection)
        if connection.autocommit:
            self.rollback(connection)  # psycopg2's reset() knows of no hand-written BEGIN, and DISCARD ALL would fail
        connection.reset()  # out of autocommit; ABORT where psycopg2 began; then DISCARD ALL
        connection.autocommit = as_bool("autocommit", self._parameters.get("autocommit", False))
        connection.notices.clear()
        connection.notifies.clear()
        if isinstance(connection, self._watched.connection):
            connection.cursor_factory = connection.made_factory
            self._heard(connection)

    def descriptor(self, connection: Connection) -> int | None:
        return None if connection.closed else connection.fileno()

    def session(self, connection: Connection) -> Hashable | None:
        return None if connection.closed else connection.get_backend_pid()

    def end_session(self, other: Connection, session: Hashable, age: float) -> None:
        other.autocommit = True
        with self._module.extensions.cursor(other) as cursor:
            cursor.execute(END_SESSION, (session, age))

    def buffered(self, cursor: Any) -> bool:
        return cursor.name is None

    def is_disconnect(self, error: BaseException, connection: Connection) -> bool:
        if connection.closed:
            return True
        return self.hangs_up(error, getattr(error, "pgcode", None))

    def code(self, error: BaseException) -> str | None:
        return getattr(error, "pgcode", None)

    def run(self, connection: Connection, sql: str) -> None:
        made = connection.autocommit
        connection.autocommit = True
        try:
            self._run(connection, sql)
        finally:
            if not connection.closed:
                connection.autocommit = made

    def _forgo(self, connection: Connection, attribute: str) -> None:
        if getattr(connection, attribute) is not None:
            setattr(connection, attribute, None)

    def _run(self, connection: Connection, sql: str) -> None:
        # The plain cursor, whatever cursor_factory or overridden cursor() the connection has: those are for its users.
        with self._module.extensions.cursor(connection) as cursor:
            cursor.execute(sql)


def _attributes(connection: Connection) -> tuple[Any, ...]:
    """What a borrower may have set on our side of the socket, where no rollback reaches."""
    return connection.isolation_level, connection.readonly, connection.deferrable
