"""How does psycopg (3) say what the pool asks? PostgreSQL tells its state for nothing; the traps are psycopg's own.

- Idle is not always idle. A ``notifies()`` that somebody began and dropped halfway holds the connection's lock, and the
  next borrower would wait for it for ever; a pipeline that was not left answers nothing until it is; a
  ``transaction()`` or a two-phase transaction that psycopg still believes in forbids the next one's ``commit()``.
- psycopg prepares what it has seen often, by names that it remembers. Whatever wipes a session has to let it know.
- Its notifications wait in three places: the socket, libpq, and the connection's backlog. ``notifies()`` looks at the
  first and the last.

``cancel()`` and ``cancel_safe()`` are never called: a server that is gone would hold them.

What is left in a session is heard by the classes of ``watched_psycopg``.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from threadpool_db.drivers.base import BUSY, IDLE, UNKNOWN, Driver, TransactionState
from threadpool_db.drivers.client import as_bool
from threadpool_db.drivers.postgresql import END_SESSION, REPORTED, STATES, TRANSACTION_IDLE, Postgresql
from threadpool_db.drivers.sockets import Socket, poll_socket
from threadpool_db.drivers.watched_psycopg import FACTORIES, SETTINGS, watched
from threadpool_db.drivers.watching import OURS, SESSION
from threadpool_db.errors import PoolMisuse

if TYPE_CHECKING:
    from psycopg import Connection

LAST_CALL = 0.5  # seconds that a call on a connection that was cut may take to fail
_THRESHOLD = 5  # psycopg's own: what was run so often is prepared
_REPORTED = tuple(name.encode() for name in REPORTED)


class Psycopg(Postgresql["Connection[Any]"]):
    """PostgreSQL through psycopg 3."""

    name = "psycopg"
    requires = "psycopg"
    extra = "psycopg"
    #: has the pool asked to watch anything? SQLAlchemy's does not
    _watches = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._watched: Any = watched()

    def open(self, parameters: dict[str, Any], timeout: float) -> Connection[Any]:
        autocommit = as_bool("autocommit", parameters.pop("autocommit", False))
        # ours from the start: one that is given another class later is a little slower at every attribute
        kind = self._watched.connections(self._module.Connection)
        connection: Any = kind.connect(**{**self.defaults(timeout), **parameters}, autocommit=autocommit)
        connection.left = 0
        connection._threshold_chosen = "prepare_threshold" in parameters
        self._note(connection)
        return connection  # type: ignore[no-any-return]

    def _note(self, connection: Any) -> None:
        """How it was made, on our side of the socket."""
        connection._made = [(name, getattr(connection, name)) for name in SETTINGS]
        connection._made_handlers = list(connection._notice_handlers), list(connection._notify_handlers)

    def forgo_names(self, connection: Connection[Any]) -> None:
        # What was asked for stays: a pooler may know of prepared statements.
        if not getattr(connection, "_threshold_chosen", connection.prepare_threshold != _THRESHOLD):
            connection.prepare_threshold = None

    def recognise(self, connection: Connection[Any]) -> Driver[Connection[Any]]:
        if isinstance(connection, self._module.AsyncConnection):
            raise PoolMisuse("the connect callable returned an AsyncConnection: this pool is for threads, not asyncio")
        return self

    def close(self, connection: Connection[Any]) -> None:
        # Its own close() takes no lock and frees what a call of another thread is reading: a segmentation fault. One
        # that was taken away has been cut, so such a call is about to fail. Who has the lock after that is no call, but
        # a notifies() that was dropped halfway.
        last_call_is_over = connection.lock.acquire(timeout=LAST_CALL)
        try:
            connection.close()
        finally:
            if last_call_is_over:
                connection.lock.release()

    def peek(self, connection: Connection[Any]) -> bool:
        try:
            seen = poll_socket(connection.pgconn.socket)
        except self._module.Error:  # closed
            return False
        if seen is Socket.QUIET:
            return True
        return seen is Socket.READABLE and self._drain(connection)

    def _drain(self, connection: Connection[Any]) -> bool:
        """Something is unread: a NOTIFY, which libpq takes in without a round trip, or a session's last words.

        Three looks, because where the system has no RDHUP the first read finds the server's FATAL message and only
        the second one the end of the stream. Still readable after that is a busy listener, and alive.
        """
        if self.state(connection) is not IDLE:
            return False
        pgconn = connection.pgconn
        said: list[Any] = []
        note = said.append
        connection._notice_handlers.append(note)
        try:
            for _ in range(3):
                pgconn.consume_input()
                while (news := pgconn.notifies()) is not None:
                    # left in libpq, notifies() would not see it: that waits for the socket
                    if pgconn.notify_handler is not None:
                        pgconn.notify_handler(news)
                seen = poll_socket(pgconn.socket)
                if seen is not Socket.READABLE:
                    # Last words whose goodbye has not come yet: libpq takes an idle session's FATAL for a notice.
                    # Nothing else is said to an idle session.
                    return seen is Socket.QUIET and not said
        except Exception:  # the end of the stream; or a notify handler's own error, which is nobody's here to raise
            return False
        finally:
            connection.remove_notice_handler(note)
        return True

    def ping(self, connection: Connection[Any]) -> bool:
        # In autocommit one round trip is the whole ping; else it would be BEGIN, nothing and ROLLBACK. Idle, the mode
        # is a flag on our side of the socket.
        made = connection.autocommit
        connection.autocommit = True
        try:
            self._run(connection, "")
        finally:
            if self.state(connection) is IDLE:
                connection.autocommit = made
        return True

    def state(self, connection: Connection[Any]) -> TransactionState:
        state = STATES[connection.pgconn.transaction_status]
        if state is UNKNOWN:
            return state
        if connection._pipeline is not None or connection.lock.locked():
            return BUSY
        # A rollback of these raises, and so nobody else gets the connection.
        return UNKNOWN if state is IDLE and (connection._num_transactions or connection._tpc) else state

    def glimpse(self, connection: Connection[Any]) -> TransactionState:
        return Psycopg.state(self, connection)  # numbers of libpq's, and whether a lock is taken: it waits for none

    def autocommit(self, connection: Connection[Any]) -> bool:
        return connection.autocommit

    def settled(self, connection: Connection[Any], autocommit: bool | None) -> bool:
        # ``_autocommit``: the property costs as much as all the rest
        return (
            connection.pgconn.transaction_status == TRANSACTION_IDLE
            and connection._autocommit is autocommit
            and connection._pipeline is None
            and not (connection._num_transactions or connection._tpc or connection.lock.locked())
            and not (self._watches and connection.left and self.found(connection))  # type: ignore[attr-defined]
        )

    def watch(self, connection: Any) -> None:
        self._watches = True
        self._note(connection)
        if not hasattr(connection, "heard"):
            connection.__class__ = self._watched.connections(type(connection)) or type(connection)
        self._begin_afresh(connection)
        if hasattr(connection, "heard"):
            connection.noted = self.reported(connection)

    def reported(self, connection: Connection[Any]) -> tuple[Any, ...]:
        return tuple(map(connection.pgconn.parameter_status, _REPORTED))

    def dirtied(self, connection: Any) -> bool:
        return self._watches and bool(self.found(connection) & SESSION)

    def put_back(self, connection: Any) -> bool:
        if connection.left & OURS:
            left = connection.left
            self._begin_afresh(connection)
            connection.left |= left & ~OURS
        return False

    def _begin_afresh(self, connection: Any) -> None:
        """As it was made, and clean; but what no class of ours can be made of is never known to be clean."""
        connection.left = 0 if hasattr(connection, "heard") else SESSION
        for name, value in connection._made:
            if name in FACTORIES or getattr(connection, name) != value:
                setattr(connection, name, value)
        connection._notice_handlers[:], connection._notify_handlers[:] = connection._made_handlers
        connection.left &= SESSION

    def set_autocommit(self, connection: Connection[Any], on: bool) -> None:
        connection.autocommit = on

    def begin(self, connection: Connection[Any]) -> None:
        if not connection.autocommit:
            return  # psycopg does, before the next statement
        words = ["BEGIN"]
        if connection.isolation_level is not None:
            words += ["ISOLATION LEVEL", connection.isolation_level.name.replace("_", " ")]
        if connection.read_only is not None:
            words += ["READ ONLY" if connection.read_only else "READ WRITE"]
        if connection.deferrable is not None:
            words += ["DEFERRABLE" if connection.deferrable else "NOT DEFERRABLE"]
        self._run(connection, " ".join(words))

    def commit(self, connection: Connection[Any]) -> None:
        connection.commit()  # in autocommit too: it asks libpq whether there is a transaction

    def rollback(self, connection: Connection[Any]) -> None:
        connection.rollback()

    def reset(self, connection: Connection[Any]) -> None:
        self.refuse_lasting(connection)
        connection.rollback()
        connection.autocommit = True
        connection._prepared.clear()  # as psycopg does after its own ROLLBACK; 3.2 would not notice a DISCARD ALL
        self._run(connection, "DISCARD ALL")
        self._begin_afresh(connection)
        if connection._notifies_backlog:
            connection._notifies_backlog.clear()
        connection.autocommit = as_bool("autocommit", self._parameters.get("autocommit", False))

    def descriptor(self, connection: Connection[Any]) -> int | None:
        return None if connection.closed else connection.pgconn.socket

    def session(self, connection: Connection[Any]) -> Hashable | None:
        return None if connection.closed else connection.pgconn.backend_pid

    def end_session(self, other: Connection[Any], session: Hashable, age: float) -> None:
        other.autocommit = True
        self._run(other, END_SESSION, (session, age))

    def buffered(self, cursor: Any) -> bool:
        return not isinstance(cursor, self._module.ServerCursor)

    def is_disconnect(self, error: BaseException, connection: Connection[Any]) -> bool:
        if connection.closed:
            return True
        return self.hangs_up(error, getattr(error, "sqlstate", None))

    def code(self, error: BaseException) -> str | None:
        return getattr(error, "sqlstate", None)

    def run(self, connection: Connection[Any], sql: str) -> None:
        made = connection.autocommit
        connection.autocommit = True
        try:
            self._run(connection, sql)
        finally:
            if self.state(connection) is IDLE:
                connection.autocommit = made

    def _forgo(self, connection: Any, attribute: str) -> None:
        if getattr(connection, attribute) is not None:
            setattr(connection, attribute, None)

    def _run(self, connection: Connection[Any], sql: str, parameters: tuple[Any, ...] | None = None) -> None:
        # A cursor of our own, whatever cursor_factory or cursor() the connection has: those are for its users.
        # And never prepared: behind a pooler a name of ours may be unknown, or somebody else's.
        with self._watched.silent(connection, row_factory=self._module.rows.tuple_row) as cursor:
            cursor.execute(sql, parameters, prepare=False)
