"""When must a thread keep its connection? The rule that both checkout policies share.

A connection never leaves a thread inside an open transaction, whoever opened it and however: the driver's own state is
asked, so a hand-written ``BEGIN`` counts. And what a statement leaves in the session (a setting, a lock, a temporary
table; ``core/statement.py`` judges it) must not reach the next borrower: such a statement pins the connection to its
thread, and the connection is reset when the outermost holder ends.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from threadpool_db.errors import PoolMisuse
from threadpool_db.lease import Lease
from threadpool_db.waiting import Holder, Mailbox

if TYPE_CHECKING:
    from threadpool_db.checkout.reader import Reader

R = TypeVar("R")


class Hold:
    """What one thread has of one pool: its lease, if any, and why it keeps it."""

    __slots__ = (
        "begun", "blocks", "found_open", "lease", "leased", "mailbox", "pinned", "readers", "scopes", "sticky",
        "taken_away", "transactions", "unsettled",
    )  # fmt: skip

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.lease: Lease[Any] | None = None
        # lists of tokens, not counters: to end what has ended already, after an interrupt, then changes nothing
        self.blocks: list[object] = []  # connection() and transaction() blocks around us
        self.transactions: list[object] = []  # those of them that are transaction()
        self.unsettled = False  # something was begun with the lease, and has not come to its end
        self.scopes = 0
        self.found_open = False  # the outermost block found a transaction open, begun by hand: not its own to end
        self.sticky = False  # lease(), or the policy, keeps it between operations
        self.pinned = False  # a statement left something in the session
        self.leased = False  # by lease(): its user rightly has the connection, and sets its mode, between operations
        self.taken_away: Lease[Any] | None = None  # from a transaction begun by hand: who goes on with it is to be told
        self.begun: Begun | None = None  # a proxy's transaction: open until its commit() or rollback()
        self.readers: list[Reader] = []  # cursors of proxies whose rows are not all here yet

    def current(self) -> Lease[Any] | None:
        """The lease that this thread holds; one that was ended directly is forgotten, by blocks when they end.

        One that an interrupted end left behind is closed: what is open in it was not for whoever comes now to commit.
        """
        lease = self.lease
        abandoned = self.begun is not None and not self.begun.open  # its proxy was dropped
        if (self.unsettled or abandoned) and not self.blocks:
            if _acting(self):
                raise PoolMisuse(
                    "this thread is in the middle of an operation on its connection; what that calls back (a function "
                    "of the database, an adapter of parameters) needs a connection of its own: checkout()"
                )
            self.forget()
            if lease is not None and lease.active:
                lease.discard()
            return None
        if lease is not None and not lease.active:
            if not self.blocks:
                taken_away = lease if lease.taken_from_use and self.begun is None else None
                self.forget()
                self.taken_away = taken_away
            return None
        return lease

    def forget(self) -> None:
        self.lease = self.taken_away = None
        self.sticky = self.pinned = self.leased = self.unsettled = False
        self.begun = None  # its record stays open: whoever began it is to be told that it is lost
        self.readers.clear()

    def over(self) -> None:
        """No transaction is open any more, and its end was in order."""
        if self.begun is not None:
            self.begun.open = False
            self.begun = None

    def drop(self) -> None:
        """From a finaliser, in the hold's own thread: what kept the lease is garbage. Give it back, by mail.

        Not if a cursor keeps it, or a block, whose hold is never settled. Nor if anything refers to the lease but us:
        then the finaliser has struck in the middle of an operation, whose end settles everything.
        """
        if self.readers or self.unsettled or self.lease is None or _references(self) > _ALONE:
            return
        lease = self.lease
        claim, lease._claim = lease._claim, None
        self.forget()
        if claim is not None:
            claim.entry.holder = _NOBODY  # our thread may be the next to wait for it
            self.mailbox.post(claim)

    def leave(self, block: object) -> None:
        """A block has ended. A second time changes nothing."""
        for blocks in (self.blocks, self.transactions):
            if block in blocks:
                blocks.remove(block)

    @property
    def kept(self) -> bool:
        """Is it kept between operations? A pin by something in the session lasts as long as the scope around it."""
        return self.sticky or (self.pinned and self.scopes > 0) or bool(self.readers)


def act(hold: Hold, action: Callable[[Any], R], connection: Any) -> R:
    """One operation with what the hold has. The frame of this call is how ``_acting`` knows of it."""
    return action(connection)


def _acting(hold: Hold) -> bool:
    """Is the hold's thread in the middle of an operation, or did an interrupt leave the hold like this?"""
    frame: FrameType | None = sys._getframe()
    while frame is not None and not (frame.f_code is act.__code__ and frame.f_locals["hold"] is hold):
        frame = frame.f_back
    return frame is not None


class Begun:
    """A proxy's transaction in one thread, as the proxy knows it: open, while its hold knows nothing of it, is lost."""

    __slots__ = ("hold", "open")

    def __init__(self, hold: Hold) -> None:
        self.hold = hold
        self.open = False


def _references(hold: Hold) -> float:
    """To its lease. Where nobody counts, who knows."""
    return sys.getrefcount(hold.lease) if hasattr(sys, "getrefcount") else math.inf


def _count_alone() -> float:
    hold = Hold(Mailbox(()))
    hold.lease = object()  # type: ignore[assignment]
    return _references(hold)


_ALONE = _count_alone()
_NOBODY = Holder("nobody, it was dropped")


class ThreadEnd:
    """Notices that its thread has ended: kept in a ``threading.local`` and nowhere else.

    Not the hold itself: the frames of a traceback that somebody keeps, a failed future's, would keep it alive.
    """

    __slots__ = ("hold",)

    def __init__(self, hold: Hold) -> None:
        self.hold = hold

    def __del__(self) -> None:
        # A connection that nobody else has is cleaned and lent again: its claim goes back by mail. If lease() handed it
        # out, or a cursor is open on it, somebody may use it still: closed. What is in a block, a generator's, ends
        # with the block.
        hold = self.hold
        lease = hold.lease
        if lease is not None and lease._claim is not None and not hold.blocks:
            claim, lease._claim = lease._claim, None
            if hold.leased or hold.readers:
                claim.entry.generation = -1  # of none that lives: closed when it comes back
            hold.mailbox.post(claim)
