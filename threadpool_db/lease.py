"""What does a borrower hold? A lease: the right to a connection, given back exactly once.

The right itself is a ``Claim``, one for each connection. On the shelf the connection's entry keeps it; at any other
time somebody bears it who answers for the connection: a lease, a waiter who was granted it, an errand of the pool's
own. It moves under the pool's lock, before any I/O, so two threads that end one lease end it once. A claim that nobody
has any more is garbage, and its finaliser tells the pool: that is how a lease dropped without checkin is found, and any
work on a connection that an interrupt ended between two bytecodes. The price of that in the common case is nothing: the
claim moves, no finaliser runs, nothing is allocated but the lease.

So, while nobody is inside the lock: the claim is at home if and only if the connection is on the shelf. Whatever breaks
that was orphaned, and the audit closes it.
"""

from __future__ import annotations

import functools
import weakref
from sys import _getframe as getframe
from types import CodeType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from threadpool_db.core.entry import GONE, IDLE, LEASED, Entry
from threadpool_db.errors import LeaseExpired, PoolError, PoolMisuse, StaleLease
from threadpool_db.waiting import Mailbox

if TYPE_CHECKING:
    from threadpool_db.pool import ConnectionPool

C = TypeVar("C")


class Claim:
    """The one right to say what becomes of an entry. A new one makes the one before worthless."""

    __slots__ = ("__weakref__", "entry", "mailbox")

    def __init__(self, entry: Entry, mailbox: Mailbox) -> None:
        self.mailbox: Mailbox | None = mailbox
        self.entry = entry
        entry.right = weakref.ref(self)

    def __del__(self) -> None:
        entry = getattr(self, "entry", None)  # None: interrupted before it had one
        # a claim that its entry keeps dies with the entry, with nothing to tell
        if entry is not None and entry.claim is None and entry.state is not IDLE and entry.state is not GONE:
            # the weak reference lives as long as this method runs, and who is woken by the note looks at it
            mailbox, self.mailbox = self.mailbox, None
            if mailbox is not None:
                mailbox.post(entry)


class Errand:
    """Something that the pool itself does with one connection, outside its lock; bears the claim meanwhile."""

    __slots__ = ("claim", "entry")

    def __init__(self, claim: Claim) -> None:
        self.entry = claim.entry
        self.claim: Claim | None = claim


def held(entry: Entry) -> bool:
    """Under the lock: does anybody answer for this entry, which is not on the shelf?"""
    claim = None if entry.right is None else entry.right()
    return entry.claim is None and claim is not None and claim.mailbox is not None


class Lease(Generic[C]):
    """A borrowed connection. Give it back with ``checkin``, or use it in a ``with`` block, which yields the connection.

    It belongs to the object, not to the thread: it may move to another thread, and only one may use it at a time.
    """

    __slots__ = ("__weakref__", "_claim", "_entered", "_pool")

    def __init__(self, pool: ConnectionPool[C], claim: Claim) -> None:
        self._pool = pool
        self._claim: Claim | None = claim

    @property
    def connection(self) -> C:
        """The driver's own connection. Whoever asks is from then on named as its holder. StaleLease after the end."""
        claim = self._claim
        connection: C | None = None if claim is None else claim.entry.connection
        if claim is None or connection is None or claim.entry.state is not LEASED:
            raise self._ended()
        claim.entry.holder = self._pool._holder()
        return connection

    @property
    def active(self) -> bool:
        """Is there still a connection behind it?"""
        return self._claim is not None and self._claim.entry.state is LEASED

    def _ended(self) -> PoolError:
        """Why there is no connection behind it any more: the error for whoever uses it all the same."""
        pool, claim = self._pool, self._claim
        if claim is None or not claim.entry.expired_after:
            return StaleLease(f"pool {pool.name!r}: this lease has ended; check out another one")
        entry, limit = claim.entry, pool._config.max_lease
        why = f"longer than max_lease={limit:g} s" if limit is not None else "and its thread has ended"
        remedy = "raise max_lease"
        if pool.closed and (limit is None or entry.expired_after < limit):
            why, remedy = "until the pool was closed", "give close() a longer timeout"
        return LeaseExpired(
            f"pool {pool.name!r}: this lease was taken at {where(entry.code, entry.instruction)} and held for "
            f"{entry.expired_after:.1f} s, {why}; its connection was closed. Do slow work outside of the lease, "
            f"or {remedy}"
        )

    @property
    def expired(self) -> bool:
        """Was it taken away, because ``max_lease`` was over?"""
        return self._claim is not None and self._claim.entry.expired_after > 0

    @property
    def taken_from_use(self) -> bool:
        """And not while its thread merely kept it between two uses?"""
        return self._claim is not None and self._claim.entry.expired_after > 0 and not self._claim.entry.is_kept

    def checkin(self) -> None:
        """Give the connection back. A second time warns and does nothing."""
        self._pool._checkin(self)

    def discard(self) -> None:
        """Give it back to be closed, because it is known to be broken or in a strange state."""
        self._pool._discard(self)

    def detach(self) -> C:
        """Keep the connection for good: the pool forgets it, and the caller closes it. StaleLease after the end."""
        return self._pool._detach(self)

    def __enter__(self) -> C:
        connection = self.connection
        entered = getattr(self, "_entered", None)
        if entered is not None:
            raise PoolMisuse(
                f"pool {self._pool.name!r}: this lease is in use by {entered} already; one thread at a time"
            )
        self._entered = self._pool._holder().name
        return connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._claim is not None:
            self._pool._checkin(self, error)

    def __repr__(self) -> str:
        return f"<Lease of pool {self._pool.name!r} {'active' if self.active else 'ended'}>"


def entry_of(lease: Lease[Any]) -> Entry:
    """The record behind an active lease, for the rooms above."""
    claim = lease._claim
    assert claim is not None
    return claim.entry


def caller() -> FrameType:
    """Our caller's caller. Our caller itself, if no Python has called it: ``gevent.spawn(pool.execute, sql)``."""
    try:
        return getframe(2)
    except ValueError:
        return getframe(1)


@functools.lru_cache(256)
def where(code: CodeType | Any, instruction: int) -> str:
    """``file:line (function)`` of a code object and an instruction in it; worked out only when somebody asks,
    and once for those who ask again and again, as under overload."""
    if not isinstance(code, CodeType):
        return "an unknown line"
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= instruction < end and number is not None:
            line = number
    return f"{code.co_filename}:{line} ({code.co_name})"
