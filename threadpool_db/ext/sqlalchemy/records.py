"""Who gets a connection under SQLAlchemy, and when? A ConnectionPool whose "connections" are SQLAlchemy's records.

SQLAlchemy has objects of its own for a connection and for a checkout, and its own rules for reset, ping, recycling and
invalidation. They stay in charge. Ours is who gets a connection, and when: a ConnectionPool inside, whose "connections"
are SQLAlchemy's *records*. A record is a place that connects again by itself after it was invalidated; so one without
a connection goes round like any other.

Who owns what: an idle record lies in its entry. A lent one is the borrower's alone, and has the entry's claim with it.
So if an interrupt ends a checkout before SQLAlchemy has made anything that would give the record back, the record is
garbage, and its claim tells the pool.
"""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import exc
from sqlalchemy.pool.base import _ConnectionRecord

from threadpool_db import fork
from threadpool_db.borrowing import Borrowing
from threadpool_db.config import PoolConfig
from threadpool_db.core.entry import LEASED, Entry
from threadpool_db.core.line import OPEN
from threadpool_db.core.sizing import Counts, Elastic
from threadpool_db.core.stats import Hold, Snapshot
from threadpool_db.drivers.base import IDLE, UNKNOWN, Driver, TransactionState
from threadpool_db.drivers.sockets import socket_identity
from threadpool_db.errors import ConnectFailed, PoolError, PoolOverloaded, PoolTimeout, PoolUnavailable
from threadpool_db.ext.sqlalchemy.thrift import refuse_busy
from threadpool_db.lease import Claim, Errand
from threadpool_db.pool import ConnectionPool
from threadpool_db.refusal import Words
from threadpool_db.waiting import Holder, Waiter

if TYPE_CHECKING:
    from threadpool_db.ext.sqlalchemy.pool import ThreadPool


#: What create_engine calls the options, and SQLAlchemy what borrows; for the texts of errors.
WORDS = Words(
    max_size="pool_size or max_overflow",
    timeout="pool_timeout",
    use_your_own="Use the Session or Connection that this thread already has instead of a second one.",
)


class CheckoutTimeout(exc.TimeoutError, PoolTimeout):
    """No connection in time: for those who catch SQLAlchemy's error, and for those who catch ours."""

    def __init__(self, message: str, snapshot: Snapshot | None = None) -> None:
        super().__init__(message, code="3o7r")
        self.snapshot = snapshot


class CheckoutOverloaded(exc.TimeoutError, PoolOverloaded):
    """Refused at once, because ``max_waiting`` threads were in line already, or turned away by ``shed``; in both
    languages too."""

    def __init__(self, message: str, snapshot: Snapshot | None = None) -> None:
        super().__init__(message, code="3o7r")
        self.snapshot = snapshot


class CheckoutUnavailable(exc.TimeoutError, PoolUnavailable):
    """Refused at once, because the database is out of reach and ``grace`` is over; in both languages too."""

    def __init__(self, message: str, snapshot: Snapshot | None = None) -> None:
        super().__init__(message)
        self.snapshot = snapshot


class Record(_ConnectionRecord):
    """A record, and while it is lent the right to give it back."""

    __slots__ = ("claim", "pool")

    def __init__(self, pool: ThreadPool) -> None:
        self.claim: Claim | None = None
        self.pool = pool
        super().__init__(pool)


class Settling(Record):
    """A record that comes home without an open transaction, also where SQLAlchemy believes to have ended it.

    The engine rolls back at the end of a Connection, and the pool then need not. But psycopg2's ``rollback()`` in
    autocommit, and sqlite3's in that of Python 3.12, does nothing to a transaction that was begun by hand: the next
    borrower would be in it. And psycopg's does not end a pipeline. Here, because SQLAlchemy is about to put the
    connection out of autocommit.
    """

    __slots__ = ()

    @staticmethod
    def is_for(connection: Any) -> bool:
        """sqlite3's ``autocommit`` is -1 as long as nobody asks for it."""
        return isinstance(getattr(connection, "autocommit", None), bool)

    def checkin(self, _fairy_was_created: bool = True) -> None:
        connection, driver = self.dbapi_connection, self.pool._driver
        if connection is not None and driver is not None:
            try:
                state = driver.state(connection)
                if state not in (IDLE, UNKNOWN):
                    refuse_busy(driver, state)
                    if driver.autocommit(connection):
                        driver.rollback(connection)
            except Exception as error:
                self.invalidate(error)
        super().checkin(_fairy_was_created)


class Records(Driver[Record]):
    """Opens and closes records, and leaves all else about them to SQLAlchemy."""

    def __init__(self, pool: ThreadPool, name: str) -> None:
        self.name = name
        self._pool = pool

    def connect(self, timeout: float) -> Record:
        record = self._pool._create_connection()
        try:
            self._pool._meet(record)
        except BaseException:
            record.close()
            raise
        return record

    def close(self, record: Record) -> None:
        inner = self._pool._inner
        if inner._budget is None:
            record.close()
            return
        # somebody else waits for its place: neither a server that takes no goodbye nor a listener may keep it from him
        socket = socket_identity(_descriptor(record.dbapi_connection))
        with inner._upkeep.limits.limited(socket):
            try:
                record.close()
            finally:
                if record.dbapi_connection is not None:
                    self._pool._close_connection(record.dbapi_connection)

    def glimpse(self, record: Record) -> TransactionState:
        known = self._pool._driver  # once the first connection has shown whose they are
        return UNKNOWN if known is None else known.glimpse(record.dbapi_connection)


class Inner(ConnectionPool[Record]):
    _raises_connect_errors = True
    _detects_nesting = False
    _words = WORDS
    _warns_when_dropped = False  # an engine is seldom disposed of, and nobody expects it

    def __init__(self, driver: Driver[Record], config: PoolConfig, *, order: str) -> None:
        #: all that were made, lent ones too: a forked child must find them
        self._records: weakref.WeakSet[Record] = weakref.WeakSet()
        #: with a breaker a place without a connection is let go of: "nothing is connected" must mean that
        self.breaks = config.backoff is not None
        super().__init__(driver, config, order=order)
        # a record's socket changes: only Records knows what it is when it is closed
        self._upkeep.limits_closes = self._upkeep.limits_all_closes = False

    def _start_afresh(self) -> None:
        super()._start_afresh()
        self.meeting = self._clock.lock()  # while the first connection is looked at

    def borrow(self, timeout: float, holder: Holder) -> tuple[Record, float]:
        """The long way; also, when the record was last used."""
        waiter = Waiter(self._clock, holder, None, -1)
        claim = _Turn(self, waiter, timeout).borrow()
        record: Record = claim.entry.connection
        self._records.add(record)
        record.claim = claim
        claim.entry.connection = None
        return record, claim.entry.last_used

    def take_by_mail(self, record: Record) -> None:
        """From a finaliser of SQLAlchemy's, in the middle of our own locked section."""
        claim, record.claim = record.claim, None
        if claim is not None:
            if record.dbapi_connection is None and self.breaks:
                claim.entry.generation = -1
            claim.entry.connection = record
            self._mailbox.post(claim)

    def _checkin_slowly(self, errand: Errand, error: BaseException | None = None) -> None:
        awaited = bool(self._ledger.line)
        self._tell(self._ledger.checkin, errand.entry, bearer=errand)  # SQLAlchemy has cleaned it
        if awaited:
            self._clock.give_way()

    def _holder(self) -> Holder:
        holder = super()._holder()
        if not isinstance(holder, _Thread):
            holder = self._here.holder = _Thread()
        return holder

    def _snapshot(self, looks: float, **counted: bool) -> Snapshot:
        # Between a borrower's line and this room lie up to twenty frames of SQLAlchemy's; to walk them at each checkout
        # costs more than the checkout. So a holder is named by the line where it is now, found when somebody asks.
        frames = sys._current_frames()
        with self._lock:
            for entry in self._ledger.entries:
                if entry.state is LEASED and isinstance(entry.holder, _Thread):
                    entry.code, entry.instruction = entry.holder.place(frames)
        snapshot = super()._snapshot(looks, **counted)
        holders = tuple(_HoldNow(**vars(hold)) for hold in snapshot.holders)
        return dataclasses.replace(snapshot, holders=holders)

    def _glimpse(self, entry: Entry) -> tuple[TransactionState, tuple[int, int] | None]:
        claim = entry.right()
        for record in list(self._records) if claim is not None else ():
            if record.claim is claim:
                return self._upkeep.driver.glimpse(record), socket_identity(_descriptor(record.dbapi_connection))
        return UNKNOWN, None

    def _after_fork_in_child(self) -> None:
        # By what each record has now: one that was invalidated has connected anew, to another descriptor.
        for record in list(self._records):
            record.claim = None
            if record.dbapi_connection is not None:
                fork.bury(record.dbapi_connection, _descriptor(record.dbapi_connection))
        self._records.clear()
        super()._after_fork_in_child()


#: ConnectFailed: what others in line get, with ``grace``, when a pool's very first connect fails
_BOTH: dict[type[PoolError], Any] = {
    PoolTimeout: CheckoutTimeout,
    PoolOverloaded: CheckoutOverloaded,
    PoolUnavailable: CheckoutUnavailable,
    ConnectFailed: CheckoutUnavailable,
}


class _Turn(Borrowing):
    """``timeout`` bounds the wait alone, as in QueuePool: 0 still connects where there is room."""

    def __init__(self, pool: Inner, waiter: Waiter, timeout: float) -> None:
        super().__init__(pool, waiter, timeout or 1e-9, None)

    def _begin(self, now: float) -> None:
        super()._begin(now)
        if self._timeout <= 1e-9:
            self._waiter.deadline = math.inf  # the ledger serves nobody who is late

    def _stand(self) -> Claim:
        if self._waiter.step is OPEN:
            self._open()
        return super()._stand()

    def _open(self) -> None:
        self._deadline = math.inf
        super()._open()

    def _refusal(self) -> PoolError:
        self._timeout = round(self._timeout, 6)
        error = super()._refusal()
        kind = next((ours for base, ours in _BOTH.items() if isinstance(error, base)), None)
        if kind is None:
            return error
        both: PoolError = kind(str(error), getattr(error, "snapshot", None) or self._pool.stats())
        both.__cause__ = error.__cause__
        if hasattr(both, "waited"):
            both.waited = getattr(error, "waited", 0.0)
        return both


@dataclass(frozen=True)
class KeepIdle(Elastic):
    """Up to ``most`` idle ones are kept, the rest are closed on their return: QueuePool's rule.

    Not Overflow's, which closes whatever comes back while more than ``pool_size`` exist: an app that always has a few
    more in use would connect anew for most of its checkouts.
    """

    most: float

    def one_too_many(self, counts: Counts, now: float) -> bool:
        return counts.idle > self.most

    def quiet_below(self, max_size: float) -> float:
        return self.most


#: the standard library, this package, and whatever is installed beside SQLAlchemy: drivers, frameworks
_LIBRARIES = (
    *(str(Path(file).parents[up]) for file, up in ((os.__file__, 0), (__file__, 2), (sqlalchemy.__file__, 1))),
    "<",
)


class _Thread(Holder):
    __slots__ = ("thread",)

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.current_thread()

    def place(self, frames: dict[int, FrameType]) -> tuple[Any, int]:
        """Where this thread is now, in code that is no library's if there is any."""
        innermost = frame = frames.get(self.thread.ident or 0) if self.thread.is_alive() else None
        while frame is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
            frame = frame.f_back
        frame = frame or innermost
        return (None, -1) if frame is None else (frame.f_code, frame.f_lasti)


class _HoldNow(Hold):
    _place = "now at"


def _descriptor(connection: Any) -> int | None:
    """psycopg's connections and mysqlclient's tell it themselves, PyMySQL's has a socket that does."""
    try:
        descriptor = getattr(connection, "_sock", connection).fileno()
    except Exception:
        return None
    return descriptor if isinstance(descriptor, int) and descriptor >= 0 else None
