"""How many connections may all these pools have together? A budget: one cap, and one lock, that several pools share.

    budget = Budget(50)
    orders = create_pool(url, max_size=10, budget=budget)
    archive = create_pool(other_url, max_size=10, budget=budget)

Whoever waits where no permit is left gets that of the connection which was used least recently in any other pool; see
``core/permits`` for the rules. A pool's ``max_size`` is its ceiling, its ``min_size`` what others leave it.

One lock, for two would deadlock when each of two pools takes from the other. It is the lock of all these pools, held as
briefly as theirs always is; what a pool is to do for another one's sake it does itself, after its own rules, outside.
"""

from __future__ import annotations

import functools
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from threadpool_db import fork
from threadpool_db.core.line import Orders
from threadpool_db.core.permits import SharedPermits
from threadpool_db.waiting import open_head

if TYPE_CHECKING:
    from threadpool_db.core.ledger import Ledger
    from threadpool_db.pool import ConnectionPool
    from threadpool_db.waiting import Clock


@dataclass(frozen=True)
class Spending:
    """A budget at one moment: so many permits of ``limit`` are ``used``, by connections that are open, being opened or
    being closed; ``pools`` have one or wait for one; ``passed_on`` connections were closed for another pool's sake."""

    limit: int
    used: int
    waiting: int
    pools: int
    passed_on: int


class Budget:
    """``limit``: as many connections may the pools that are made with ``budget=`` have together; it is for life."""

    def __init__(self, limit: int) -> None:
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise ValueError(f"Budget(limit={limit!r}): must be a whole number of connections from 1 on")
        self.limit = limit
        self._clock: Clock | None = None
        self._has_minimums = False  # had a pool ever one?
        self._start_afresh()
        fork.watch_keeper(self)

    def _start_afresh(self) -> None:
        self.permits = SharedPermits(self.limit)
        self._lock: Any = None if self._clock is None else self._clock.lock()
        self._pools: weakref.WeakKeyDictionary[Ledger, weakref.ref[ConnectionPool[Any]]] = weakref.WeakKeyDictionary()
        self._noted: dict[weakref.ref[ConnectionPool[Any]], None] = {}  # have mail

    _after_fork_in_child = _start_afresh  # its pools, which are told later, join again

    def _at_exit(self, until: float) -> None:
        """Nothing is its own: the pools close what they have."""

    # --- For its pools ----------------------------------------------------------------------------------------------

    def afford(self, min_size: int, clock: Clock, but: Ledger | None = None) -> None:
        """May a pool with this ``min_size`` be one of its pools, beside all others? ValueError if not."""
        if self._clock not in (None, clock):
            raise ValueError("budget=...: its other pools go by another clock; give all of them the same one")
        self._has_minimums = self._has_minimums or min_size > 0
        if not self._has_minimums:
            return  # whoever makes room for hundreds that come and go looks at none of the others
        smallest = [ledger.rules.min_size for ledger in [*self._pools] if ledger is not but and not ledger.closed]
        smallest.append(min_size)
        if sum(smallest) > self.limit or (sum(smallest) == self.limit and 0 in smallest):
            raise ValueError(
                f"min_size={min_size!r}: the smallest sizes of all pools of this budget are {sum(smallest)} together, "
                f"which leaves nothing of its {self.limit} permits to others; lower min_size, or raise the limit"
            )

    def join(self, pool: ConnectionPool[Any]) -> Any:
        """A pool begins, or begins afresh in a forked child. The lock is from now on its own."""
        if self._clock is None:
            self._clock = pool._clock
            self._lock = self._clock.lock()
        self._pools[pool._ledger] = weakref.ref(pool)
        return self._lock

    def noted(self, pool: weakref.ref[ConnectionPool[Any]]) -> None:
        """From a finaliser: it left a note with this pool. Whoever waits for a permit in another one would not look
        there, and the pool itself may have nobody who does."""
        self._noted[pool] = None
        for ref in tuple(self.permits.rivals):
            ledger = ref()
            if ledger is not None:
                open_head(ledger.line)

    def settle(self, now: float, jobs: deque[Callable[[], None]], apart: bool) -> None:
        """Under the lock, after each event of each pool: what it means for the others, who add to ``jobs``. ``apart``:
        each close by a worker, for this thread has no time."""
        while self._noted:
            noted = self._noted.popitem()[0]()
            if noted is not None:
                self._add(noted, Orders(), jobs, apart)
        if not self.permits.rivals:
            return
        for ledger, orders in self.permits.settle(now):
            ref = self._pools.get(ledger)
            pool = None if ref is None else ref()
            if pool is not None:
                self._add(pool, orders, jobs, apart)

    def _add(self, pool: ConnectionPool[Any], orders: Orders, jobs: deque[Callable[[], None]], apart: bool) -> None:
        theirs: deque[Callable[[], None]] = deque()
        apart = apart or pool._upkeep.hooks.on_close is not None  # which may take its time, and is not this pool's
        pool._take_orders(orders, theirs, apart)
        job = functools.partial(_carry_out, pool, theirs)
        if orders.close and not apart and not orders.open:
            jobs.append(job)  # first what others do
        else:
            jobs.appendleft(job)  # before what our own pool has to do, which may take its time

    # --- For people -------------------------------------------------------------------------------------------------

    def stats(self) -> Spending:
        """All numbers of this moment."""
        if self._lock is None:
            return Spending(self.limit, 0, 0, 0, 0)
        with self._lock:
            ledgers = [ledger for ledger in [*self._pools] if ledger.entries or ledger.line]
            waiting = sum(len(ledger.line) for ledger in ledgers)
            return Spending(self.limit, self.permits.used, waiting, len(ledgers), self.permits.passed_on)

    def __repr__(self) -> str:
        return f"Budget({self.limit})"


def _carry_out(pool: ConnectionPool[Any], jobs: deque[Callable[[], None]]) -> None:
    pool._do(jobs)
    if pool._config.background:
        pool._background.plan(pool._ledger.due)
