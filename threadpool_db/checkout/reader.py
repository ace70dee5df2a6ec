"""How long does a cursor need its connection? For its statement, and then as long as rows are still to come.

A driver's cursor that brings all its rows to our side is read at once, and its connection can go. One that does not
(sqlite3's, a server-side one, any of an unknown module) stays open in a ``Reader``, which keeps the connection in the
hold of its thread until the last row is read. It reads one row ahead, or nobody would know that the last one was the
last. Rows that are here may be read anywhere; those to come, only in the thread that has the connection.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from threadpool_db.checkout.pin import Hold
from threadpool_db.drivers.base import FAILED, OPEN
from threadpool_db.errors import PoolMisuse, StaleLease
from threadpool_db.lease import Lease, entry_of

if TYPE_CHECKING:
    from threadpool_db.checkout.proxy import Proxy

_MOST_AHEAD = 128  # rows that iterating reads ahead, where the driver's cursor has no ``itersize``


class Answer(NamedTuple):
    """One set of rows, as far as they are here, and what the driver's cursor said of it."""

    description: Any = None
    rowcount: int = -1
    lastrowid: Any = None
    rows: deque[Any] | None = None  # None: there is no result set


def answer_of(real: Any, rows: Iterable[Any] = ()) -> Answer:
    has_rows = real.description is not None
    return Answer(real.description, real.rowcount, getattr(real, "lastrowid", None), deque(rows) if has_rows else None)


def read_all(real: Any) -> Answer:
    return answer_of(real, real.fetchall() if real.description is not None else ())


def next_set(real: Any) -> bool:
    """Go on to the next set of rows, if there is one and this module knows of such a thing."""
    try:
        return bool(real.nextset())
    except Exception as error:
        if isinstance(error, AttributeError) or type(error).__name__ == "NotSupportedError":
            return False
        raise


class Reader:
    """A driver's cursor with rows, or whole sets of them, to come. In its hold's ``readers`` as long as it is open."""

    __slots__ = ("advanced", "answer", "chunk", "done", "hold", "lease", "proxy", "real")

    def __init__(self, proxy: Proxy, hold: Hold, real: Any) -> None:
        assert hold.lease is not None
        self.proxy = proxy
        self.hold = hold
        self.lease: weakref.ref[Lease[Any]] = weakref.ref(hold.lease)  # that a lost one is noticed is not ours to stop
        self.real = real
        self.answer = answer_of(real)
        self.advanced = False  # ``real`` stands at the next set already
        self.chunk = 1
        self.done = False  # read to its end; what was shut before that is not

    @property
    def live(self) -> bool:
        """Open, and the connection still there."""
        lease = self.lease()
        return self in self.hold.readers and lease is not None and lease.active

    def use(self, action: Callable[[], None]) -> None:
        """Something that may talk to the server: the end of it is the end of an operation."""
        face, hold, lease = self.proxy._face, self.hold, self.lease()
        if lease is None or not self.live:
            self.real = None
            if lease is not None and lease.expired:
                raise lease._ended()
            raise self.proxy._error(
                StaleLease,
                "the connection of this cursor was given back or closed before all rows were read: its scope, its "
                "proxy or its thread has ended; read them before",
            )
        if face._elsewhere(hold):
            raise self.proxy._error(
                PoolMisuse,
                "this cursor has unread rows, and its connection belongs to the thread that ran the statement; "
                "read them there, or use a cursor for each thread",
            )
        hold.unsettled = True
        try:
            action()
        except BaseException as error:
            self.shut()
            face._after(hold, lease, error, True)
            raise
        face._after(hold, lease, None, True)

    def begin(self) -> None:
        """Before the first row of a set."""
        real = self.real
        if real.description is None and getattr(real, "name", None):
            first = real.fetchmany(2)  # psycopg2's server-side cursors describe their rows only then
            self.answer = answer_of(real, first)
            if len(first) < 2:
                self.finish()
            return
        self.answer = answer_of(real)
        if self.answer.rows is None:
            self.finish()
        else:
            self.read(2)

    def have(self, count: float, ahead: bool = False) -> None:
        """So many rows, and one more, or all there are. ``ahead``: more than that, twice as many each time."""
        rows = self.answer.rows
        if rows is None or self.advanced or len(rows) > count:
            return
        wanted = count + 1 - len(rows)
        if ahead:
            most = getattr(self.real, "itersize", None) or _MOST_AHEAD
            self.chunk = min(2 * self.chunk, most)
            wanted = max(wanted, self.chunk)
        self.use(lambda: self.read(wanted))

    def read(self, wanted: float) -> None:
        rows = self.answer.rows
        assert rows is not None
        if wanted == math.inf:
            rows.extend(self.real.fetchall())
            self.finish()
            return
        got = self.real.fetchmany(int(wanted))
        rows.extend(got)
        if len(got) < wanted:
            self.finish()

    def finish(self) -> None:
        """This set is read. Nothing more to come?"""
        self.advanced = next_set(self.real)
        if not self.advanced:
            self.done = True
            self.shut()

    def go_on(self) -> None:
        """To the next set, dropping what is left of this one."""
        if not self.advanced:
            while self.real.fetchmany(_MOST_AHEAD):
                pass  # an unbuffered one of PyMySQL's knows of a next set only at the end of this one
            self.finish()
        if not self.done:
            self.advanced = False
            self.begin()

    def shut(self) -> None:
        """Close the driver's cursor, and keep the connection no longer. Whoever calls it settles the rest."""
        real, self.real = self.real, None
        with contextlib.suppress(Exception):
            real.close()
        if self in self.hold.readers:
            self.hold.readers.remove(self)

    def drop(self) -> None:
        """From a finaliser, maybe in another thread: nobody will read the rest."""
        hold, face, lease = self.hold, self.proxy._face, self.lease()
        self.real = None
        if self not in hold.readers:
            return
        hold.readers.remove(self)
        if lease is None or not lease.active or lease is not hold.lease or hold.kept or hold.begun is not None:
            return
        if face._elsewhere(hold):
            return  # in the middle of whatever: its next operation gives it back, the end of its scope or of itself
        if face._upkeep.driver.state(entry_of(lease).connection) in (OPEN, FAILED):
            return
        del lease
        hold.drop()
