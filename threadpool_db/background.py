"""What is done for a pool while nobody asks? Connects, questions and closings, handed to the keeper's workers.

The keeper gets this object and never the pool itself, of which it knows by a weak reference only: a pool that its users
have dropped is gone, whatever is planned or under way for it.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from threadpool_db.config import PoolConfig
from threadpool_db.core.entry import OPENING, Entry
from threadpool_db.keeper import Alarm, Task, keeper_of
from threadpool_db.lease import Errand
from threadpool_db.nesting import open_into
from threadpool_db.orders import close_one, tell_of_start

if TYPE_CHECKING:
    from threadpool_db.pool import ConnectionPool

#: As many connections of one server are closed at a time.
CLOSERS = 8

#: Of all pools under a budget so many connect to one server at a time, at most.
BUDGET_CONNECTS = 10


class Background:
    """One pool's dealings with the keeper."""

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        self._pool = weakref.ref(pool)
        self._keeper = keeper_of(pool._clock)
        self._now = pool._clock.now
        self.follow(pool._config)
        self._planned = math.inf

    def follow(self, config: PoolConfig) -> None:
        """Go by these settings from now on."""
        self._connect_timeout = config.connect_timeout
        # Hundreds of pools of one server are not to connect one after the other; each connect has a permit.
        at_once = 0 if config.budget is None else min(config.budget.limit, BUDGET_CONNECTS)
        self._workers = max(config.max_connecting, at_once) + 1  # connects that hang must leave somebody for the rest

    # --- What the pool says -----------------------------------------------------------------------------------------

    def plan(self, due: float) -> None:
        """Something is due by then, and the ledger's ``tick`` is to be called.

        Not under the pool's lock: a finaliser may give a lease back in the middle of the keeper's locked section. Nor
        under any other: two who plan at once plan two alarms, of which one is in vain. What must not be is a note of an
        alarm that there is none of any more.
        """
        if due < math.inf and not self._now() < self._planned <= due:
            self._keeper.at(due, self._tend)
            self._planned = due

    def order_cut(self, entry: Entry) -> None:
        """Its borrower's time is over, and he may be in the middle of a call."""
        self._keeper.at(self._now(), functools.partial(self._cut, entry))

    def order_open(self, errand: Errand) -> None:
        """Connect into the slot that the ledger reserved; whoever is first in line then gets it."""
        late = self._keeper.at(self._now() + self._connect_timeout, functools.partial(self._give_up, errand.entry))
        self._work(functools.partial(self._open, errand, late))

    def order_ask(self, errand: Errand) -> None:
        """Is an idle connection still alive?"""
        self._work(functools.partial(self._ask, errand))

    def order_close(self, errand: Errand) -> None:
        """One that hangs holds up neither a borrower, nor the other closes, nor the connects of other pools.
        The job has the pool itself, which its users may drop before the last goodbye is said."""
        pool, jobs = self._pool(), deque[Callable[[], None]]()
        if pool is not None:
            jobs.append(functools.partial(close_one, pool, errand, jobs))
            self._keeper.do(("closes", pool._upkeep.driver.server_key), functools.partial(pool._do, jobs), CLOSERS)

    def poke(self) -> None:
        """From a finaliser: there is a note in the mailbox."""
        self._keeper.poke(self._tend)

    # --- In the scheduler's thread, which waits for no server -------------------------------------------------------

    def _tend(self) -> None:
        pool = self._pool()
        if pool is not None:
            self._planned = math.inf
            self._work_off(pool._decide(pool._audit))

    def _give_up(self, entry: Entry) -> None:
        """A connect takes too long for anybody to wait for it."""
        pool = self._pool()
        if pool is not None:
            error = TimeoutError(f"a connect took longer than connect_timeout={self._connect_timeout:g} s")
            self._work_off(pool._decide(pool._ledger.overdue, entry, error=error))
            if entry.given_up:
                # not by the server's workers, all of which may hang
                tell = functools.partial(self._tell_of_failure, self._connect_timeout, error)
                self._keeper.do(("tell", pool.name), tell, 1)

    def _cut(self, entry: Entry) -> None:
        pool = self._pool()
        if pool is not None:
            pool._upkeep.cut(entry)

    def _work_off(self, jobs: deque[Callable[[], None]]) -> None:
        pool = self._pool()
        if jobs and pool is not None:
            self._work(functools.partial(pool._do, jobs))

    def _work(self, job: Task) -> None:
        pool = self._pool()
        if pool is not None:
            self._keeper.do(pool._upkeep.driver.server_key, job, self._workers)

    # --- In a worker ------------------------------------------------------------------------------------------------

    def _open(self, errand: Errand, late: Alarm) -> None:
        pool, entry = self._pool(), errand.entry
        if pool is None:
            return
        started = self._now()
        error: BaseException | None = None
        if entry.state is OPENING:
            try:
                open_into(pool, entry)
            except BaseException as failure:
                error = failure.with_traceback(None)  # kept as a cause, and it knows this frame: a circle
        late.cancel()
        if entry.connection is None:
            answered = error is not None and pool._upkeep.is_answer(error)
            pool._tell(pool._ledger.failed, entry, bearer=errand, error=error, answered=answered)
            if not entry.given_up:  # else that was told already; only the ledger knows which came first
                self._tell_of_failure(self._now() - started, error)
        else:
            tell_of_start(pool, entry, self._now() - started)
            pool._tell(pool._ledger.opened, entry, bearer=errand)

    def _tell_of_failure(self, seconds: float, error: BaseException | None) -> None:
        pool = self._pool()
        if pool is not None:
            if pool._lookout is not None:
                pool._lookout.connect_failed()
            pool._observers.tell("connect_failed", seconds, error=error)

    def _ask(self, errand: Errand) -> None:
        pool, entry = self._pool(), errand.entry
        if pool is None:
            return
        alive = False
        try:
            alive = pool._upkeep.fit(entry, entry.autocommit, math.inf, ask=True)
        finally:
            pool._tell(pool._ledger.asked, entry, bearer=errand, alive=alive)
