"""Who goes, where nothing interrupts? By the rules of ``core/permits``, with an index in place of a look at all.

In a pool an interrupt may come between any two bytecodes, so ``SharedPermits`` counts nothing and looks at each ledger
anew: at fifty of them, a dozen times for each connection that is evicted. A simulation of a million evictions would
spend a quarter of an hour on that, and it knows no interrupts. Here is nothing decided: the index only says how many
there are, and in which order the rules are to look. A test holds both to the same outcome.
"""

from __future__ import annotations

import heapq
import math

from threadpool_db.core.entry import CLOSING, Entry
from threadpool_db.core.ledger import Ledger
from threadpool_db.core.permits import SharedPermits


class IndexedPermits(SharedPermits):
    """``touched`` must follow each event of each ledger but the short ones, before ``settle``."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._sum = 0
        self._counted: dict[Ledger, int] = {}  # the connections of each that has one
        self._changed: Ledger | None = None  # it took a permit, and may have one more since
        self._with_closing: set[Ledger] = set()
        # In the order in which they came to have a connection, which is that of ``_holders``. Not in the heap itself,
        # where an outdated one would keep a ledger that is gone.
        self._numbers: dict[Ledger, int] = {}
        self._numbered: dict[int, Ledger] = {}
        self._next = 0
        # By a moment before which nothing that is idle there now or later was used last, and by number. It is a bound
        # only: the short ways, which tell nobody, make the coldest one a warmer one.
        self._coldest: list[tuple[float, int]] = []
        self._bounds: dict[int, float] = {}  # those in the heap that are not outdated
        self._looks_at: list[Ledger] = []

    # --- What there is ----------------------------------------------------------------------------------------------

    def take(self, ledger: Ledger, now: float) -> bool:
        taken = super().take(ledger, now)
        if taken:
            self._changed = ledger
        return taken

    def free(self, ledger: Ledger) -> None:
        if self._changed is ledger:
            self._changed = None
        self._count(ledger)
        super().free(ledger)

    def wanted(self, ledger: Ledger, since: float, now: float) -> bool:
        self.touched(ledger)
        return super().wanted(ledger, since, now)

    def touched(self, ledger: Ledger) -> None:
        if self._changed is ledger:
            self._count_changed()
        if ledger.closing:
            self._with_closing.add(ledger)
        else:
            self._with_closing.discard(ledger)
        if ledger.idle:
            number, coldest = self._numbers[ledger], ledger.coldest.last_used
            if coldest < self._bounds[number]:
                self._bound(number, coldest)

    @property
    def used(self) -> int:
        self._count_changed()
        return self._sum

    def _count_changed(self) -> None:
        if self._changed is not None:
            self._count(self._changed)
            self._changed = None

    def _count(self, ledger: Ledger) -> None:
        many, before = len(ledger.entries), self._counted.get(ledger, 0)
        self._sum += many - before
        if many:
            self._counted[ledger] = many
            if not before:
                self._numbers[ledger], self._numbered[self._next] = self._next, ledger
                self._bound(self._next, -math.inf)
                self._next += 1
        elif before:
            number = self._numbers.pop(ledger)
            del self._counted[ledger], self._numbered[number]
            del self._bounds[number]
            self._with_closing.discard(ledger)

    def _spent(self) -> tuple[int, int]:
        used, closing = self.used, 0
        for ledger in self._with_closing:
            closing += sum([entry.state is CLOSING and not entry.given_up for entry in ledger.entries])
        return used, max(0, self.limit - used) + closing

    def _provided(self) -> int:
        return self._spent()[1]

    # --- Which one goes ---------------------------------------------------------------------------------------------

    def _least_recently_used(self, now: float) -> tuple[tuple[Entry, Ledger] | None, float]:
        """The rules are asked about one ledger after the other, that with the coldest first: until they name one."""
        moment, again = math.inf, []
        found = None
        while self._coldest and found is None:
            since, number = heapq.heappop(self._coldest)
            if self._bounds.get(number) != since:
                continue  # outdated
            ledger = self._numbered[number]
            coldest = ledger.coldest.last_used if ledger.idle else now
            if coldest > since:
                self._bound(number, coldest)  # and it is another one's turn
                continue
            again.append((since, number))
            self._looks_at = [ledger]
            found, one = super()._least_recently_used(now)
            moment = min(moment, one)
        self._looks_at = []
        for since, number in again:
            self._bound(number, since)
        return found, moment

    def _having(self) -> list[Ledger]:
        return self._looks_at

    def _bound(self, number: int, since: float) -> None:
        self._bounds[number] = since
        heapq.heappush(self._coldest, (since, number))
