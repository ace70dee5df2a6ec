"""What does a program get that wants one PEP 249 connection and nothing to do with pools? ``Proxy``.

It is no connection, it borrows one: for each statement in autocommit, otherwise from a thread's first statement until
its ``commit()`` or ``rollback()``. All of that is ``Face``'s: each statement is an operation as ``execute``'s are,
joins the transaction or block that its thread is in, and is judged by the same rules. So threads may share a proxy,
each has a transaction of its own; and in one thread two proxies of one pool share one.

What is gone is not begun again in silence: a transaction whose connection was lost is to be rolled back, as with any
connection, before the next statement. The driver's own errors pass through. Where the mistake is the caller's, the
error is the pool's and, at once, the driver's ``InterfaceError`` or the like: PEP 249 has programs catch that.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from threadpool_db.checkout.blocks import ConnectionBlock
from threadpool_db.checkout.pin import Begun
from threadpool_db.checkout.proxy_cursor import Cursor
from threadpool_db.config import check_timeout
from threadpool_db.drivers.base import BUSY, FAILED, IDLE
from threadpool_db.errors import PoolMisuse, StaleLease, TransactionAborted
from threadpool_db.lease import caller, entry_of
from threadpool_db.patched import outlived

if TYPE_CHECKING:
    from typing_extensions import Self

    from threadpool_db.database import Face

R = TypeVar("R")

#: PEP 249's exceptions, which a connection has as attributes
_ERRORS = (
    "Warning", "Error", "InterfaceError", "DatabaseError", "DataError", "OperationalError", "IntegrityError",
    "InternalError", "ProgrammingError", "NotSupportedError",
)  # fmt: skip


class Proxy:
    """A PEP 249 connection over a pool, made by ``Pool.proxy()``. Threads may share it.

    ``with proxy`` commits at the end, or rolls back on an error, and does not close it, as with psycopg2 and sqlite3.
    """

    def __init__(self, face: Face, autocommit: bool | None, timeout: float | None) -> None:
        if autocommit not in (None, True, False):
            raise ValueError(f"autocommit={autocommit!r}: must be True, False, or None for the pool's own option")
        if timeout is not None:
            check_timeout(timeout)
        self._face = face
        self._timeout = timeout
        self._autocommit = bool(face._config.autocommit if autocommit is None else autocommit)
        self._mine = threading.local()
        self._errors = _errors_in(getattr(face._upkeep.driver, "_module", None))
        self.closed = False

    # --- PEP 249 ----------------------------------------------------------------------------------------------------

    def cursor(self, *args: Any, **options: Any) -> Cursor:
        """A cursor; borrows nothing yet. The arguments are for the driver's own ``cursor()``."""
        self._begun()
        return Cursor(self, args, options)

    def commit(self) -> None:
        """Commit what this thread has begun, if anything. TransactionAborted if the database had given it up."""
        begun = self._begun()
        self._forbid_inside("commit")
        if self._end(begun, commit=True) is FAILED:
            raise self._error(
                TransactionAborted,
                "a statement of this transaction failed and the error was swallowed; the database has given the "
                "transaction up, and it was rolled back",
            )

    def rollback(self) -> None:
        """Roll back what this thread has begun, if anything; after a lost connection, start anew."""
        begun = self._record()
        self._refuse_if_closed(begun)
        self._forbid_inside("rollback")
        try:
            self._end(begun, commit=False)
        finally:
            begun.open = False

    def close(self) -> None:
        """Refuse every use from now on, and roll back what this thread has begun. A second time changes nothing.

        Another thread's transaction is rolled back when that thread uses the proxy again, or at its or its scope's end.
        """
        self.closed = True
        self._abandon(self._record())

    @property
    def autocommit(self) -> bool:
        """Is each statement an operation of its own? Chosen when the proxy is made."""
        return self._autocommit

    @autocommit.setter
    def autocommit(self, on: bool) -> None:
        if bool(on) is not self._autocommit:
            raise PoolMisuse(
                f"pool {self._face.name!r}: the threads that share a proxy share its mode; "
                f"make another one, proxy(autocommit={bool(on)})"
            )

    def __getattr__(self, name: str) -> Any:
        if name not in _ERRORS:
            raise AttributeError(
                f"a proxy has no {name!r}; what a driver's connection has beside PEP 249 is in connection()"
            )
        if not self._errors:
            with self.connection():  # whose errors they are, the first connection shows
                pass
        if name not in self._errors:
            raise AttributeError(f"the driver has no {name!r}")
        return self._errors[name]

    def __enter__(self) -> Self:
        self._begun()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.commit()
        else:
            with contextlib.suppress(Exception):  # the first error is the one to see
                self.rollback()

    # --- Beyond it --------------------------------------------------------------------------------------------------

    def execute(self, operation: Any, *parameters: Any, **options: Any) -> Cursor:
        """A new cursor that has run this statement, as sqlite3's and psycopg's connections have it."""
        cursor = self.cursor()
        cursor._run("execute", operation, caller(), (operation, *parameters), options)
        return cursor

    def connection(self) -> ConnectionBlock:
        """``with proxy.connection() as real``: the driver's own connection, the one of this thread's transaction."""
        self._begun()
        return _Meeting(self)

    def __repr__(self) -> str:
        return f"<Proxy of pool {self._face.name!r}{' closed' if self.closed else ''}>"

    # --- What cursors need ------------------------------------------------------------------------------------------

    def _operate(self, sql: Any, frame: FrameType, action: Callable[[Any], R]) -> R:
        begun = self._begun()
        return self._face._operate(_text(sql), self._timeout, frame, self._autocommit, action, begun)

    def _begun(self) -> Begun:
        """This thread's record, if the proxy may be used here and now."""
        begun = self._record()
        self._refuse_if_closed(begun)
        if begun.open:
            hold = self._face._hold()
            lease = hold.lease
            hold.current()  # what has ended, it forgets
            if hold.begun is not begun:
                if lease is not None and lease.expired:
                    raise lease._ended()
                raise self._error(
                    TransactionAborted,
                    "the connection of this thread's transaction was lost, or is of the process before a fork; nothing "
                    "of it was committed; call rollback() before the next statement",
                )
        return begun

    def _meet(self, connection: Any) -> None:
        """A connection shows whose errors they are."""
        if not self._errors:
            self._errors = _errors_of(connection)

    def _error(self, kind: type[PoolMisuse], message: str, name: str = "InterfaceError") -> PoolMisuse:
        """An error of the pool's, which the driver's name for it catches too."""
        theirs = self._errors.get(name)
        both: type[PoolMisuse] = kind if theirs is None else _both(kind, theirs)
        return both(f"pool {self._face.name!r}: {message}")

    # --- This thread's transaction ----------------------------------------------------------------------------------

    def _record(self) -> Begun:
        hold = self._face._hold()
        guard: _Guard | None = getattr(self._mine, "guard", None)
        if guard is None or (guard.begun.hold is not hold and not guard.begun.open):  # none, or that of before a fork
            if outlived(self._mine):
                self._mine = threading.local()
            guard = self._mine.guard = _Guard(self._face, Begun(hold))
        return guard.begun

    def _end(self, begun: Begun, commit: bool) -> Any:
        """End what this thread's connection has open, and let go of it if nothing keeps it. Its state before that."""
        face = self._face
        hold = face._hold()
        lease = hold.current()
        if lease is None or not lease.active:
            return None
        entry, driver = entry_of(lease), face._upkeep.driver
        hold.unsettled = True
        try:
            state = driver.state(entry.connection)
            if state is BUSY and hold.readers:  # their rows would be in the way of the answer
                for reader in hold.readers[:] if hold.begun is not None else ():
                    reader.shut()
                state = driver.state(entry.connection) if hold.begun is not None else IDLE
            if state is not IDLE:
                end = driver.commit if commit else driver.rollback
                end(entry.connection)
        except BaseException as error:
            face._after(hold, lease, error, True)
            raise
        hold.over()
        face._after(hold, lease, None, True)
        return state

    def _forbid_inside(self, what: str) -> None:
        if self._face._hold().transactions:
            raise PoolMisuse(
                f"pool {self._face.name!r}: {what}() inside a transaction() block, whose end decides; leave it first"
            )

    def _refuse_if_closed(self, begun: Begun) -> None:
        if self.closed:
            self._abandon(begun)
            raise self._error(StaleLease, "this proxy was closed; ask the pool for another one")

    def _abandon(self, begun: Begun) -> None:
        """Let go of what this thread has by this proxy."""
        hold = self._face._hold()
        with contextlib.suppress(Exception):
            for reader in [reader for reader in hold.readers if reader.proxy is self]:
                reader.use(reader.shut)
            if hold.begun is begun and not hold.transactions:
                self._end(begun, commit=False)
        begun.open = False


class _Meeting(ConnectionBlock):
    def __init__(self, proxy: Proxy) -> None:
        super().__init__(proxy._face, proxy._timeout)
        self._proxy = proxy

    def __enter__(self) -> Any:
        connection = self._enter(caller(), None).connection
        self._proxy._meet(connection)
        return connection


class _Guard:
    """Notices that its proxy was dropped, or that its thread has ended: kept in the proxy's ``threading.local``."""

    __slots__ = ("begun", "face")

    def __init__(self, face: Face, begun: Begun) -> None:
        self.face = face
        self.begun = begun

    def __del__(self) -> None:
        hold = self.begun.hold
        if hold.begun is not self.begun or not self.begun.open:
            return
        # Not for its thread's next operation to join: that one closes it, or the block around it does.
        self.begun.open = hold.found_open = False
        if hold.lease is not None and hold.lease.active and not self.face._elsewhere(hold):
            hold.drop()


def _text(sql: Any) -> str | bytes:
    """Of a statement that is put together by the driver's own classes: its text, or what no rule calls clean."""
    if isinstance(sql, (str, bytes)):
        return sql
    try:
        return str(sql.as_string(None))
    except Exception:
        return repr(sql)


def _errors_of(connection: Any) -> dict[str, Any]:
    """PEP 249's exceptions, as attributes of the connection, or of the module that it comes from."""
    kinds = type(connection).__mro__
    modules = [kind.__module__.rsplit(".", up)[0] for kind in kinds for up in range(kind.__module__.count(".") + 1)]
    found = (_errors_in(source) for source in (connection, *(sys.modules.get(name) for name in modules)))
    return next(filter(None, found), {})


def _errors_in(source: Any) -> dict[str, Any]:
    return {
        name: getattr(source, name) for name in _ERRORS if hasattr(source, "InterfaceError") and hasattr(source, name)
    }


_mixed: dict[tuple[type, type], type[PoolMisuse]] = {}


def _both(kind: type[PoolMisuse], theirs: type[Exception]) -> type[PoolMisuse]:
    if (kind, theirs) not in _mixed:
        _mixed[kind, theirs] = type(kind.__name__, (kind, theirs), {"__module__": kind.__module__})
    return _mixed[kind, theirs]
