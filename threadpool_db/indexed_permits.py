"""Who goes, where nothing interrupts? By the rules of ``core/permits``, with an index in place of a look at all.

In a pool an interrupt may come between any two bytecodes, so ``SharedPermits`` counts nothing and looks at each ledger
anew: at fifty of them, a dozen times for each connection that is evicted. A simulation of a million evictions would
spend a quarter of an hour on that, and it knows no interrupts. Here is nothing decided: the index only says how many
there are, and in which order the rules are to look. A test holds both to the same outcome.
"""

from __future__ import annotations

import heapq
import math

from threadpool_db.core.entry import Entry
from threadpool_db.core.ledger import Ledger
from threadpool_db.core.permits import SharedPermits


class IndexedPermits(SharedPermits):
    """``closing`` is for whoever carries out the orders: so many of all connections are being closed.

    It counts on a simulation's ways: a connect that is under way is not given up, and nobody gives back what he has not
    used, so that what is idle in a ledger is only ever followed by what was used later.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.closing = 0
        self._used = 0
        # Of each ledger that has a connection a number, in the order of ``_holders``. The heap has numbers, for it has
        # outdated ones too, and would keep a ledger that is gone.
        self._numbers: dict[Ledger, int] = {}
        self._numbered: dict[int, Ledger] = {}
        self._next = 0
        # By a moment before which nothing that is idle there, now or later, was used last. It is a bound only: the
        # short ways, which tell nobody, make the coldest one a warmer one.
        self._coldest: list[tuple[float, int]] = []
        self._looks_at: list[Ledger] = []

    # --- What there is ----------------------------------------------------------------------------------------------

    def take(self, ledger: Ledger, now: float) -> bool:
        taken = super().take(ledger, now)
        if taken:
            self._used += 1
            if ledger not in self._numbers:
                self._numbers[ledger], self._numbered[self._next] = self._next, ledger
                heapq.heappush(self._coldest, (-math.inf, self._next))
                self._next += 1
        return taken

    def free(self, ledger: Ledger) -> None:
        self._used -= 1
        if not ledger.entries:
            del self._numbered[self._numbers.pop(ledger)]
        super().free(ledger)

    @property
    def used(self) -> int:
        return self._used

    def _spent(self) -> tuple[int, int]:
        return self._used, max(0, self.limit - self._used) + self.closing

    # --- Which one goes ---------------------------------------------------------------------------------------------

    def _least_recently_used(self, now: float) -> tuple[tuple[Entry, Ledger] | None, float]:
        """The rules are asked about one ledger after the other, that with the coldest first: until they name one."""
        moment, heap, again = math.inf, self._coldest, []
        found = None
        while heap and found is None:
            since, number = heap[0]
            ledger = self._numbered.get(number)
            if ledger is None:
                heapq.heappop(heap)
                continue
            coldest = ledger.coldest.last_used if ledger.idle else now
            if coldest > since:
                heapq.heapreplace(heap, (coldest, number))  # and it is another one's turn
                continue
            again.append(heapq.heappop(heap))
            if ledger.idle:
                self._looks_at = [ledger]
                found, one = super()._least_recently_used(now)
                moment = min(moment, one)
        self._looks_at = []
        for one_of_them in again:
            heapq.heappush(heap, one_of_them)
        return found, moment

    def _having(self) -> list[Ledger]:
        return self._looks_at
