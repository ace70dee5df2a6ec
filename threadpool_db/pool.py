"""The pool: one lock around the ledger, and everything that the ledger orders done outside it.

A checkout takes the lock once and a checkin once, when a connection is idle and fresh and nobody waits. All other ways
to a connection are in ``borrowing``, all other ways back in ``returning``. What the ledger orders becomes jobs in
``orders``; what they do to a connection is in ``upkeep``, and without a borrower in ``background``.

The lock guards the ledger, the claims and the holders' ``waiting`` marks. While it is held there is no I/O, no callback
and no log. It is re-entrant only so that a finaliser which lands inside it cannot deadlock; such a visitor must not
touch the ledger, which it might find half written, and leaves a note instead.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from sys import _getframe as getframe
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from threadpool_db import fork
from threadpool_db.aftermath import LATELY, audit, audit_again
from threadpool_db.alarms import Lookout
from threadpool_db.background import Background
from threadpool_db.borrowing import Borrowing
from threadpool_db.config import PoolConfig, check_timeout
from threadpool_db.core.entry import GONE, LEASED, Entry
from threadpool_db.core.ledger import Ledger
from threadpool_db.core.line import Orders, Ticket
from threadpool_db.core.overload import MaxWaiting
from threadpool_db.core.rules import Rules
from threadpool_db.core.stats import Snapshot
from threadpool_db.drivers.base import Driver, TransactionState
from threadpool_db.errors import PoolMisuse
from threadpool_db.lease import Claim, Errand, Lease, caller
from threadpool_db.live import Checked, check_idle, pause, reconfigure, resume, shut_down, wait_until_ready
from threadpool_db.nesting import this_thread
from threadpool_db.observe import Observers, claim_name
from threadpool_db.orders import Job, do_jobs, take_orders
from threadpool_db.patched import outlived, too_late
from threadpool_db.refusal import WORDS
from threadpool_db.returning import after_hand, checkin_slowly, detach, discard, wake, warn_ended
from threadpool_db.telling import snapshot
from threadpool_db.upkeep import Upkeep, possible
from threadpool_db.waiting import REAL_TIME, Holder, Mailbox, Onlookers, Tally, Waiter

if TYPE_CHECKING:
    from typing_extensions import Self

C = TypeVar("C")
Bearer = Errand | Waiter | None


class ConnectionPool(Generic[C]):
    """Lends the connections of one driver. ``checkout`` and ``checkin``, and nothing about what is done between.

    ``config`` is checked already, see ``PoolConfig.from_options``; ``order`` is that of ``Rules``.
    """

    #: SQLAlchemy's adapter passes a failed connect to its caller unchanged, and lets threads wait for themselves
    _raises_connect_errors = False
    #: how its users speak, for the texts of errors
    _words = WORDS
    _detects_nesting = True
    _warns_when_dropped = True

    def __init__(self, driver: Driver[C], config: PoolConfig, *, order: str = "lifo") -> None:
        self._config = config
        self._idle_order = order
        self._clock = config.clock or REAL_TIME
        self._now = self._clock.now
        possible(
            driver, config, self._clock
        )  # before the name is taken: whoever keeps the error keeps us, and our name
        if config.budget is not None:
            config.budget.afford(int(config.min_size), self._clock)
        self.name = claim_name(self, config.name, driver.name)
        self._observers = self._observe(config)
        self._follow(config)
        self._upkeep = Upkeep(driver, config, self._clock, self._observers.tell)
        self._start_afresh()
        fork.watch(self)
        if config.min_size or config.min_idle:
            self._tell(self._ledger.tick)

    def _observe(self, config: PoolConfig) -> Observers:
        return Observers(self.name, config.observers, self._now)

    def _follow(self, config: PoolConfig) -> None:
        """Go by these settings from now on."""
        self._timeout = config.timeout
        self._peek_after = config.peek_after or -math.inf  # 0: also if it came back while we waited for the lock

    def _listen(self) -> Lookout | None:
        """Somebody who looks out for trouble, if anybody wants to hear of it."""
        heard = self._config.observers or self._config.on_alarm or self._config.on_clear
        return Lookout(self) if heard and self._config.background else None

    def _start_afresh(self) -> None:
        """An empty ledger and a new lock: at birth, and in a forked child, where no lock of the parent's is safe."""
        limit, budget = self._config.max_waiting, self._config.budget
        self._ledger = Ledger(
            self._rules(),
            self._config.sizing,
            MaxWaiting(math.inf if limit is None else limit),
            None if budget is None else budget.permits,
            server=None if self._config.backoff is None else self._upkeep.outage(),
            shed=self._config.shed,
        )
        self._budget = budget
        self._lock = self._clock.lock() if budget is None else budget.join(self)
        self._inside = self._lock._is_owned
        # What the short ways need, fetched at once: CPython does not keep in mind where an object has a function of its
        # own, and asks the class first, each time.
        ledger, lock = self._ledger, self._lock
        self._at_hand = (self._inside, self._now, lock.acquire, ledger.take, ledger.give, lock.release, ledger.idle)
        self._here = self._upkeep.hooks.here = threading.local()
        self._background = Background(self)
        self._lookout = self._listen()
        self._out_since = math.inf  # since when the database has been out of reach, once that was told
        self._onlookers = Onlookers()  # of all that happens the long way
        pokes = [self._onlookers.open]
        if self._config.background:
            pokes.append(self._background.poke)
        if budget is not None:
            itself = weakref.ref(self)
            hash(itself)  # while we live: a finaliser that comes after us could not, and it is a key there
            pokes.append(functools.partial(budget.noted, itself))
        self._mailbox = Mailbox(self._ledger.line, tuple(pokes))
        self._timeouts, self._refused = Tally(), Tally()
        self._lost = self._expired = 0
        self._audited_at = -math.inf
        self._picture: tuple[Snapshot | None, float] = (None, -math.inf)  # that the last who were refused were told of

    def _rules(self) -> Rules:
        rules = self._config.rules()
        return rules if rules.order == self._idle_order else dataclasses.replace(rules, order=self._idle_order)

    # --- Borrowing --------------------------------------------------------------------------------------------------

    def checkout(
        self, timeout: float | None = None, *, _frame: FrameType | None = None, _autocommit: bool | None = None
    ) -> Lease[C]:
        """Borrow a connection, always a new lease, in the autocommit mode in which connections are made.

        ``timeout``: seconds for all of it, waiting, connecting and checking; None is the pool's, 0 takes only what is
        there and needs no round trip, ``inf`` waits for ever. Raises PoolTimeout, PoolOverloaded, ConnectFailed,
        PoolClosed, PoolMisuse.

        For the rooms above: ``_frame``, whose line is remembered, and ``_autocommit``, the mode wanted.
        """
        try:
            frame = _frame or getframe(1)
        except ValueError:
            frame = getframe()  # see caller()
        try:
            holder = self._here.holder
        except AttributeError:
            holder = self._holder()
        if timeout is not None:
            check_timeout(timeout)
        inside, clock, acquire, take, _, release, idle = self._at_hand
        if inside():
            raise PoolMisuse(f"pool {self.name!r}: a finaliser that interrupted the pool cannot borrow from it")
        if not idle:  # nor in a moment, most likely: where many wait, each turn at the lock is somebody else's delay
            return self._borrow_slowly(timeout, holder, frame, _autocommit)
        now = clock()
        # The bare calls cost half of what ``with`` does. An interrupt may fall before the lock is ours.
        try:
            acquire()
            entry = take(now)
            if entry is not None:
                entry.holder = holder
                entry.code = frame.f_code
                entry.instruction = frame.f_lasti
                claim = entry.claim
                entry.claim = None
                arrival = self._ledger.arrivals - 1
        finally:
            try:
                release()
            except RuntimeError:
                pass
        if entry is None:
            return self._borrow_slowly(timeout, holder, frame, _autocommit)
        peek = self._upkeep.peek
        try:
            dead = peek is not None and now - entry.last_used >= self._peek_after and not peek(entry.connection)
        except Exception:
            dead = True  # there is none any more: this thread was held up until it was taken away
        if dead or (
            entry.autocommit is not (entry.made_autocommit if _autocommit is None else _autocommit)
            and not self._upkeep.in_mode(entry, _autocommit, self._ready_by(now, timeout))
        ):
            return self._borrow_slowly(timeout, holder, frame, _autocommit, claim, arrival)
        return Lease(self, claim)

    def _ready_by(self, now: float, timeout: float | None) -> float:
        """When a connection that is there must be in its borrower's mode; who has no patience at all gets it too."""
        seconds = self._timeout if timeout is None else timeout
        return now + seconds if seconds > 0 else math.inf

    def _borrow_slowly(
        self,
        timeout: float | None,
        holder: Holder,
        frame: FrameType,
        autocommit: bool | None,
        dead: Claim | None = None,
        arrival: int = -1,
    ) -> Lease[C]:
        """The long way."""
        if outlived(self._here):
            raise too_late(self)
        waiter = Waiter(self._clock, holder, frame.f_code, frame.f_lasti)
        borrowing = Borrowing(self, waiter, self._timeout if timeout is None else timeout, autocommit)
        claim = borrowing.borrow(dead, arrival)
        holder.gate = waiter.gate
        return Lease(self, claim)

    _holder = this_thread  # or why it may not borrow now

    # --- Carrying out orders ----------------------------------------------------------------------------------------

    def _tell(self, event: Callable[..., Orders], *subject: Any, bearer: Bearer = None, **more: Any) -> None:
        """Tell the ledger of an event under the lock, wake whom it names, and do the rest outside.

        ``bearer`` has the claim to the entry that the event is about. It goes home, and on to whoever gets the entry
        next. One that is worth nothing any more has nothing to say: somebody else answers for that entry now.
        """
        self._do(self._decide(event, *subject, bearer=bearer, **more))

    def _decide(
        self,
        event: Callable[..., Orders],
        *subject: Any,
        bearer: Bearer = None,
        apart: bool = False,
        jobs: deque[Job] | None = None,
        **more: Any,
    ) -> deque[Job]:
        """The part of it that never waits for a server. The jobs must be done. ``apart``: each close by a worker, but
        see ``_has_time``; ``jobs``: add to these, which somebody is doing."""
        if self._inside():
            raise PoolMisuse(f"pool {self.name!r}: a finaliser that interrupted the pool cannot use it")
        jobs = deque() if jobs is None else jobs
        with self._lock:
            if bearer is not None and not self._bring_home(bearer):
                return jobs
            orders = event(*subject, self._now(), **more)
            self._take_orders(orders, jobs, apart)
            if self._budget is not None:
                self._budget.settle(self._now(), jobs, apart and not self._has_time(subject))
        if self._config.background:
            self._background.plan(self._ledger.due)
        for entry in orders.cut:
            self._background.order_cut(entry)
        return jobs

    def _has_time(self, subject: tuple[Any, ...]) -> bool:
        """A borrower who joins the line will wait: for as long as a close may take at most? Then he makes the room that
        he waits for himself. By a worker it came two turns of threads later, the permit unused meanwhile."""
        waiter = subject[0] if subject else None
        return isinstance(waiter, Waiter) and waiter.deadline - waiter.since > self._config.check_timeout

    def _bring_home(self, bearer: Errand | Waiter) -> bool:
        """Under the lock. False: there was none, or it is worth nothing."""
        claim, bearer.claim = bearer.claim, None
        if claim is None or claim.entry.state is GONE or claim.entry.right() is not claim:
            return False
        claim.entry.claim = claim
        return True

    def _send_out(self, entry: Entry) -> Claim:
        """Under the lock: the claim to an entry, for whoever answers for it from now on."""
        claim: Claim | None = entry.claim
        if claim is None:
            claim = Claim(entry, self._mailbox)
        entry.claim = None
        return claim

    def _errand(self, entry: Entry) -> Errand:
        return Errand(self._send_out(entry))

    _audit, _audit_again = audit, audit_again  # under the lock, as events
    _take_orders = take_orders  # under the lock
    _do = do_jobs

    # --- Giving back ------------------------------------------------------------------------------------------------

    def checkin(self, lease: Lease[C]) -> None:
        """Give a lease back. An open transaction is rolled back first; one given back already warns and is ignored."""
        self._own(lease)
        self._checkin(lease)

    def _own(self, lease: Lease[C]) -> None:
        if not isinstance(lease, Lease):
            raise PoolMisuse(
                f"pool {self.name!r}: expected the lease that checkout() gave, not a {type(lease).__name__}"
            )
        if lease._pool is not self:
            raise PoolMisuse(f"pool {self.name!r}: this lease belongs to pool {lease._pool.name!r}; give it back there")

    def _checkin(self, lease: Lease[C], error: BaseException | None = None, settled: bool = False) -> None:
        """``settled``: as the driver has just said."""
        claim = lease._claim
        if claim is None:
            self._warn_ended()
            return
        entry = claim.entry
        try:
            settled = settled or (error is None and self._upkeep.settled(entry.connection, entry.autocommit))
        except Exception:
            settled = False
        inside, clock, acquire, _, give, release, _ = self._at_hand
        if inside():
            # somebody's finaliser, in the middle of our own locked section
            lease._claim = None
            self._mailbox.post(claim)
            return
        now = clock()
        turned_away, errand = None, None
        try:
            acquire()
            first = lease._claim is not None
            lease._claim = None
            if first and entry.state is LEASED:
                # the claim is home before the entry can be taken by anybody else; and not here any more, or the next
                # borrower could not lose it as long as this thread waits for the interpreter
                entry.claim, claim = claim, None
                if settled and not entry.reset_first:
                    if give(entry, now):
                        return
                    turned_away = self._hand(entry, now)
                if turned_away is None:
                    errand = self._errand(entry)
        finally:
            try:
                release()
            except RuntimeError:
                pass
        if turned_away is not None:
            self._after_hand(turned_away)
        elif errand is not None:
            self._checkin_slowly(errand, error)
        elif not first:
            self._warn_ended()

    def _hand(self, entry: Entry, now: float) -> list[Ticket] | None:
        """Under the lock: straight to the head of the line, if nothing else has to be done; ``_after_hand`` must follow
        for those who were turned away for it. None: it was not."""
        away: list[Ticket] = []
        waiter = self._ledger.hand(entry, now, away)
        for ticket in away:
            ticket.holder.waiting = False
        if waiter is None:
            wake(away)
            return None
        assert isinstance(waiter, Waiter)
        waiter.holder.waiting = False
        waiter.claim, entry.claim = entry.claim, None
        waiter.gate.open()
        return away

    _after_hand = after_hand
    _checkin_slowly = checkin_slowly
    _discard, _detach = discard, detach
    _warn_ended = warn_ended

    # --- Telling ----------------------------------------------------------------------------------------------------

    def stats(self) -> Snapshot:
        """All numbers of this moment, read under the lock at once, when what interrupts have left is put right."""
        return self._snapshot(math.inf)

    def _snapshot(self, looks: float, **counted: bool) -> Snapshot:
        """Of so many of the holders, those who have had theirs longest, with what they are doing. ``counted``: see
        ``telling.snapshot``; after the audit, for what that orders may be interrupted, and then nobody was refused."""
        if not self._inside() and (not counted or self._now() >= self._audited_at + LATELY):
            self._tell(self._audit, apart=True)
        return snapshot(self, looks, **counted)

    def _glimpse(self, entry: Entry) -> tuple[TransactionState, tuple[int, int] | None]:
        """What somebody's connection is doing, as far as that can be seen from this thread; and its socket."""
        return self._upkeep.driver.glimpse(entry.connection), entry.socket

    # --- All of it --------------------------------------------------------------------------------------------------

    def recycle(self, within: float = 0.0) -> None:
        """Replace every connection: idle ones are closed now, lent ones when they come back.

        ``within`` seconds: each at a random moment of that time, so that a server is not met by all of them at once.
        """
        self._tell(self._ledger.recycle, within=within)

    def close(self, timeout: float = 5.0) -> None:
        """Refuse newcomers and waiters, close what is idle, and wait up to ``timeout`` seconds for what is lent.

        Then it is cut, with ``timeout=0`` at once: the call that runs on it fails, at the server too, later ones raise
        LeaseExpired. What this thread itself holds is closed when it comes back. A server's slow goodbye costs at most
        ``check_timeout``. A second close does nothing, and does not wait for the first.
        """
        shut_down(self, timeout)

    def pause(self, timeout: float = 5.0) -> bool:
        """As PgBouncer's PAUSE: lend nothing until ``resume``. Idle connections are closed, lent ones when they come
        back; borrowers wait in line, each for no longer than his own timeout.

        True: nothing is connected any more. False: after ``timeout`` seconds something is; the pool stays paused all
        the same, and ``pause`` again goes on waiting.
        """
        return pause(self, timeout)

    def resume(self) -> None:
        """Lend again, to those in line first. Of a pool that is not paused: nothing."""
        resume(self)

    def reconfigure(self, **changes: Any) -> list[str]:
        """Other options from now on, all of them or, with an error, none. What was done, a sentence for each change.

        TypeError for an unknown name, ValueError for an impossible value and for an option that needs a new pool.
        """
        return reconfigure(self, changes)

    def wait(self, timeout: float | None = None) -> None:
        """Until ``min_size`` connections are there, and at least one. ConnectFailed at once if the pool's first connect
        fails, PoolUnavailable when the database is out of reach, PoolTimeout after ``timeout`` seconds."""
        wait_until_ready(self, timeout, caller())

    def check(self, timeout: float | None = None) -> Checked:
        """Ask each idle connection, one after the other, whether it is alive; what is dead is replaced.
        At most ``timeout`` seconds for all, None is the pool's, and ``check_timeout`` for each."""
        return check_idle(self, timeout)

    @property
    def closed(self) -> bool:
        return self._ledger.closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        # The drivers' own finalisers close the connections; whoever forgot close() should hear of it. Not at the end of
        # the process, though: a web app's pool lives as long as that.
        ledger = self.__dict__.get("_ledger")
        if ledger is None or ledger.closed or not self._warns_when_dropped or sys.is_finalizing():
            return
        # Not those being opened: a tenant's pool may have been found again by its key, and be in use, by now.
        connections = len(ledger.entries) - ledger.opening
        if connections:
            message = f"pool {self.name!r} was dropped without close(), with {connections} connections"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        c = self._ledger.counts()
        paused = "paused, " if self._ledger.paused else ""
        state = "closed" if self._ledger.closed else f"{paused}{c.in_use} in use, {c.idle} idle of {c.max_size:g}"
        return f"<{type(self).__name__} {self.name!r} {state}, {c.waiting} waiting>"

    # --- Processes --------------------------------------------------------------------------------------------------

    def _at_exit(self, until: float) -> None:
        """The process ends, and its daemon threads with what they have. Close what is idle, while there is time."""
        self._ledger.rules = dataclasses.replace(self._ledger.rules, min_size=0, min_idle=0)
        self._upkeep.hooks.on_close = None  # the keeper has gone, and nobody would cut off one that hangs
        jobs = self._decide(self._ledger.clear)
        while jobs and time.monotonic() < until:
            jobs.popleft()()

    def _after_fork_in_child(self) -> None:
        """Forget what the parent has; leases of the parent become stale, and the child connects for itself."""
        before = self._ledger
        fork.forget(before.entries)
        self._start_afresh()
        self._ledger.closed, self._ledger.paused = before.closed, before.paused
