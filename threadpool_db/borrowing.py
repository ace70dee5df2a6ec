"""How does a thread get a connection that is not simply there? It stands in line, and does what its ticket says.

The long way of ``checkout``. The ledger decides; this room sleeps at the waiter's own gate, looks at what it was
granted, connects into the slot that was reserved, and makes the error for those who get nothing. Whatever interrupts
it, the place in line and all that was granted to it go back.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from threadpool_db.aftermath import LATELY
from threadpool_db.core.entry import LEASED, OPENING, Entry
from threadpool_db.core.line import OPEN, PING, REFUSED, USE, WAIT, Orders, Refusal
from threadpool_db.errors import (
    ConnectFailed,
    PoolClosed,
    PoolError,
    PoolMisuse,
    PoolOverloaded,
    PoolTimeout,
    PoolUnavailable,
)
from threadpool_db.lease import Claim
from threadpool_db.nesting import open_into, would_never_end
from threadpool_db.orders import tell_of_end, tell_of_start
from threadpool_db.refusal import (
    connect_failed_message,
    nested_message,
    overloaded_message,
    shed_message,
    timeout_message,
    unavailable_message,
)
from threadpool_db.showing import Showing
from threadpool_db.telling import NAMED
from threadpool_db.telling import snapshot as take_snapshot
from threadpool_db.waiting import Holder, Waiter

if TYPE_CHECKING:
    from threadpool_db.core.stats import Snapshot
    from threadpool_db.pool import ConnectionPool

#: A waiter is woken by whoever serves it. Yet every so many seconds it looks for itself: an interrupt may have ended a
#: thread just before it would have served others, and nobody else would notice before they all time out.
PATROL = 1.0


class Borrowing:
    """One checkout that takes the long way."""

    def __init__(self, pool: ConnectionPool[Any], waiter: Waiter, timeout: float, autocommit: bool | None) -> None:
        self._pool = pool
        self._ledger = pool._ledger
        self._clock = pool._clock
        self._waiter = waiter
        self._autocommit = autocommit
        self._timeout = timeout
        self._begin(self._clock.now())
        self._patrol_at = self._start + PATROL
        self._opened: Entry | None = None  # by this thread, for this lease
        self._showing = None if pool._config.on_checkout is None else Showing(pool, waiter, self._deadline, autocommit)

    def _begin(self, now: float) -> None:
        self._start = now
        self._deadline = self._waiter.deadline = now + self._timeout
        # without any patience what is there is made ready all the same
        self._ready_by = self._deadline if self._timeout > 0 else math.inf

    def borrow(self, dead: Claim | None = None, arrival: int = -1) -> Claim:
        """``dead``: the claim to a connection that was taken the short way and proved dead, in place ``arrival``."""
        pool, waiter, claim = self._pool, self._waiter, dead
        try:
            if dead is None:
                if self._timeout <= 0:
                    pool._tell(self._ledger.snatch, waiter, apart=True)
                elif not self._queue():
                    pool._tell(self._ledger.join, waiter, apart=True)
            else:
                waiter.claim = dead
                waiter.arrival, waiter.since = arrival, dead.entry.taken_at
                self._begin(waiter.since)  # what proved dead by a round trip has cost some of the time
                self._replace(dead.entry)
            while True:
                claim = self._stand()
                if self._made_by_me(claim.entry) or pool._upkeep.fit(
                    claim.entry, self._autocommit, self._ready_by, ask=waiter.step is PING
                ):
                    if self._showing is None or self._showing.wanted(claim.entry):
                        return claim
                    self._replace(claim.entry, unwanted=True)
                else:
                    self._replace(claim.entry)
        except BaseException as error:
            waiter.holder.waiting, claim = False, None  # or whoever keeps the error keeps it
            if self._showing is not None:
                self._showing.take_back(error)
            if waiter.step is not REFUSED or waiter.claim is not None:
                pool._tell(self._leave, apart=True)
            raise

    def _queue(self) -> bool:
        """The usual cases: into the line of a full pool and to sleep, under one lock; or away from a database that is
        out of reach, where each thread comes again and again. False: there may be more to do."""
        pool, waiter = self._pool, self._waiter
        if self._ledger.reach.failing and not self._ledger.rules.background:
            return False  # he may be the one who tries: not a turn at the lock more than it takes
        with pool._lock:
            if not (self._ledger.queue(waiter, self._start) or self._ledger.keep_out(waiter, self._start)):
                return False
            self._lie_down()
        self._doze()
        return True

    def _stand(self) -> Claim:
        """Until there is a connection to use or to ask."""
        waiter = self._waiter
        while True:
            step = waiter.step
            if step is REFUSED:
                raise self._refusal()
            # a place whose time is over starts nothing that takes time, neither a connect nor a round trip
            late = step is not USE and self._timeout > 0 and self._clock.now() >= self._deadline
            if late:
                self._pool._tell(self._leave, apart=True)
            elif step is WAIT:
                self._sleep()
            elif waiter.claim is None:
                self._pool._tell(self._patrol, apart=True)
            elif step is OPEN:
                self._open()
            else:
                claim: Claim = waiter.claim
                return claim

    def _sleep(self) -> None:
        """Once, at the waiter's own gate."""
        with self._pool._lock:
            self._lie_down()
        self._doze()

    def _lie_down(self) -> None:
        """Under the lock: from here on the pool takes this thread for asleep."""
        pool, waiter = self._pool, self._waiter
        if waiter.step is not WAIT:
            return
        holder: Holder = waiter.holder
        if pool._detects_nesting and not pool._mailbox.notes and would_never_end(pool, holder):
            raise PoolMisuse(nested_message(pool.name, len(self._ledger.entries)))
        holder.waiting = True

    def _doze(self) -> None:
        pool, waiter = self._pool, self._waiter
        if not waiter.holder.waiting:
            return  # served meanwhile
        try:
            if pool._lookout is not None:
                pool._lookout.watch()
            # a note posted from here on opens the gate; one posted before is read below
            if not pool._mailbox.notes:
                waiter.gate.sleep(self._clock, min(self._deadline, waiter.wake_at, self._patrol_at))
        finally:
            waiter.holder.waiting = False
        if waiter.step is WAIT:
            now = self._clock.now()
            if now >= waiter.wake_at:
                waiter.wake_at = math.inf
            if now >= self._patrol_at:
                self._patrol_at = now + PATROL
                pool._tell(self._patrol, apart=True)
            else:
                pool._tell(self._ledger.tick, apart=True)

    def _leave(self, now: float) -> Orders:
        """Under the lock, as an event."""
        if not self._pool._bring_home(self._waiter):
            self._waiter.entry = None  # nothing was granted, or the claim to it got lost: it is not ours to pass on
        return self._ledger.leave(self._waiter, now)

    def _patrol(self, now: float) -> Orders:
        """Under the lock, as an event. Whoever should have served this waiter may have been interrupted halfway."""
        waiter = self._waiter
        waits = waiter.step is WAIT
        astray = (waits and waiter not in self._ledger.line) or not (waits or waiter.claim or waiter.step is REFUSED)
        # first: what is granted below has its claim at home until the orders are read
        orders = self._pool._audit_again(now)
        if astray:
            orders.add(self._ledger.rejoin(waiter, now))
        return orders

    def _open(self) -> None:
        """Connect, in this thread, into the slot that the ledger reserved for this waiter."""
        pool, waiter, entry = self._pool, self._waiter, self._waiter.entry
        assert entry is not None
        started = self._clock.now()
        try:
            open_into(pool, entry)
        except PoolMisuse:
            raise
        except Exception as error:
            pool._observers.tell("connect_failed", self._clock.now() - started, error=error)
            retries = pool._config.backoff is not None and not pool._raises_connect_errors
            answered = pool._upkeep.is_answer(error)
            ticket = waiter if retries else None
            pool._tell(self._ledger.failed, entry, bearer=waiter, error=error, ticket=ticket, answered=answered)
            if pool._raises_connect_errors:
                raise
            if not retries:
                failed = self._connect_failed(error)
                raise failed from failed.__cause__
            if waiter.step is not REFUSED:
                # the ledger keeps it as a cause for others: with its traceback also every frame of our callers, and
                # a lease dropped in one of them would not be noticed
                error.__traceback__ = None
            return
        except BaseException:
            if entry.connection is not None:  # open, and then interrupted on the way here
                pool._upkeep.close(entry)
            raise
        try:
            now = self._clock.now()
            late = now >= self._deadline
            # told first: once the ledger knows it, somebody else may have closed it and said so
            tell_of_start(pool, entry, now - started)
            pool._tell(self._ledger.opened, entry, bearer=waiter, ticket=None if late else waiter)
        except BaseException:
            if entry.state is OPENING:  # interrupted before the ledger knew of it: nobody else would close it
                try:
                    pool._upkeep.close(entry)
                finally:
                    tell_of_end(pool, entry)
            raise
        self._opened = entry
        if late:
            # what was opened too late is the next one's
            waiter.entry, waiter.step = None, REFUSED

    def _made_by_me(self, entry: Entry) -> bool:
        """Opened a moment ago by this thread, for this lease: fit, unless the mode is another one."""
        return entry is self._opened and self._pool._upkeep.in_mode(entry, self._autocommit, self._ready_by)

    def _replace(self, entry: Entry, unwanted: bool = False) -> None:
        """It proved dead, or is not wanted. Whoever has time left takes his old place in line; else what is there and
        quick will do."""
        pool, waiter = self._pool, self._waiter
        patient = self._timeout > 0
        mine = waiter.claim is not None and waiter.claim.entry.right() is waiter.claim
        end = self._ledger.unwanted if unwanted else self._ledger.dead
        pool._tell(end, entry, bearer=waiter, ticket=waiter if patient else None, apart=True)
        if not mine and patient:
            pool._tell(self._ledger.again, waiter)  # it was taken away meanwhile, and is not ours to bury
        if not unwanted:
            pool._observers.tell("dead", self._clock.now() - entry.last_used, "found dead before use, replaced")
        if not patient:
            pool._tell(self._ledger.snatch, waiter, apart=True)

    def _refusal(self) -> PoolError:
        """A fresh error each time: one shared between waiters would collect their tracebacks."""
        pool, waiter = self._pool, self._waiter
        if waiter.refusal is Refusal.CLOSED:
            return PoolClosed(f"pool {pool.name!r} is closed; create another one")
        cause, waiter.cause = waiter.cause, None  # else a circle: its traceback knows this waiter
        if waiter.refusal is Refusal.CONNECT_FAILED and cause is not None:
            return PoolMisuse(str(cause)) if isinstance(cause, PoolMisuse) else self._connect_failed(cause)
        if waiter.refusal is Refusal.UNAVAILABLE:
            return self._unavailable(cause)
        full, shed = waiter.refusal is Refusal.FULL, waiter.refusal is Refusal.SHED
        snapshot, waited = self._picture(late=not (full or shed)), self._waited()
        # what is his nobody else takes or gives back, and the copy is made at once: no further turn at the lock
        lent = [entry for entry in tuple(self._ledger.entries) if entry.state is LEASED]
        words, here = pool._words, sum(entry.holder is waiter.holder for entry in lent)
        error: PoolOverloaded | PoolTimeout
        if shed:
            error = PoolOverloaded(shed_message(snapshot, waited, pool._config.shed, here, words), snapshot)
        elif full:
            error = PoolOverloaded(overloaded_message(snapshot, pool._config.max_waiting or 0, here, words), snapshot)
        else:
            error = PoolTimeout(timeout_message(snapshot, waited, self._timeout, here, words), snapshot)
        error.__cause__, error.waited = snapshot.connect_error, waited
        pool._observers.tell("refused", waited, error=error)
        return error

    def _picture(self, late: bool) -> Snapshot:
        """Many are refused at a time, and what they are told of is the same: one look at the pool does for all of them.
        Each would cost those who are served some of their time. ``late``: his time was over, nobody turned him away."""
        pool, now = self._pool, self._clock.now()
        snapshot, seen_at = pool._picture
        if snapshot is not None and now < seen_at + LATELY:
            (pool._timeouts if late else pool._refused).add()
            return snapshot
        snapshot = pool._snapshot(NAMED, refused=not late, late=late)
        pool._picture = snapshot, now
        return snapshot

    def _unavailable(self, cause: BaseException | None) -> PoolUnavailable:
        pool = self._pool
        # The lock once, and no audit: in an outage every thread comes this way again and again, and with dozens of
        # them each further turn at the lock costs milliseconds. Nothing is lent, so there are no lines to work out.
        snapshot = take_snapshot(pool, NAMED, refused=True)
        error = PoolUnavailable(unavailable_message(snapshot, pool._config.grace, pool._config.background), snapshot)
        error.__cause__, error.waited = cause, self._waited()
        pool._observers.tell("refused", error.waited, error=error)
        return error

    def _waited(self) -> float:
        return self._clock.now() - self._start

    def _connect_failed(self, cause: BaseException) -> ConnectFailed:
        if isinstance(cause, ConnectFailed):  # it could connect, and no more; the message is that of another waiter
            error = ConnectFailed(f"pool {self._pool.name!r}: {cause}")
            error.__cause__ = cause.__cause__
            return error
        error = ConnectFailed(connect_failed_message(self._pool.name, cause))
        error.__cause__ = cause
        return error
