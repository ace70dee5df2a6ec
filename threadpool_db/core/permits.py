"""Who may open one more, where several pools share a cap? Whoever has waited longest, in whichever pool.

Each connection of a pool is a permit in use, one that is being opened or closed too. Where none is left, the idle
connection that was used least recently, in any other pool, is closed for whoever waits (PgBouncer does so for the pools
of one database); where none is idle, the next that comes back to a pool whose own head of the line has waited less
(PgBouncer leaves out this part, and starves). The permit goes on only when that connection has been closed. Nothing is
closed to fill a minimum, nor below the ``min_size`` of the pool that would lose it.

Who has a connection to wait for in his own pool waits for that first: for two connects' time he takes nothing from
another pool, and there he stands behind those who came that much later. For what he takes costs a connect here, and
most likely one there: waiting for as long as the dearer way would cost is at most twice as bad as knowing (ski rental).
Without this, 16 threads on 60 databases by Zipf kept half as many of their connections as an LRU of pools of one did.
A permit that is free is nobody's loss, and he has it at once.

A pool that has lost one is spared for a while: what it has used since is not taken. Else two busy pools would take each
other's in turn, and every use would cost a connect. The while is as long as five of its connects, so that at most a
fifth of the time goes into them. What has been idle for one connect's time would save no more than it costs those who
wait, and what lies unused since then is no loss: they go at once.

Ledgers are known by weak references: a pool that was dropped is gone, with its connections. Permits are not counted but
looked at, so there is no count that an interrupt could spoil.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Protocol

from threadpool_db.core.entry import CLOSING, Entry
from threadpool_db.core.line import Orders
from threadpool_db.core.opening import could_open, wanted

if TYPE_CHECKING:
    from threadpool_db.core.ledger import Ledger

#: A pool that has lost one is spared for so many of its connects, between so many seconds.
CONNECTS, SHORTEST, LONGEST = 5, 0.005, 0.25
#: Who has one of his own to wait for takes none from another pool for so many connects, of so many seconds at most.
PATIENCE, LONGEST_CONNECT = 2, 0.1


class Permits(Protocol):
    """A cap that several ledgers share; all of it is called under the lock they share."""

    @property
    def rivals(self) -> Collection[object]:
        """Those that were refused a permit and may want one still; always the same one. While there are any, nobody
        takes a short way back."""
        ...

    def take(self, ledger: Ledger, now: float) -> bool:
        """May this ledger open one more? True: it is about to."""
        ...

    def free(self, ledger: Ledger) -> None:
        """One of this ledger's slots came free."""
        ...

    def wanted(self, ledger: Ledger, since: float, now: float) -> bool:
        """One came back: is it to be closed for another ledger's waiter, in line since before ``since``?"""
        ...


#: Somebody waits since then, in seconds, and his ledger would open one for him; ``inf``: it is for a minimum. Who has
#: one of his own to wait for is as one who comes later; until then, nothing is closed for him.
Need = tuple[float, "Ledger"]


class SharedPermits:
    """``limit`` permits. ``settle`` must follow each event of each ledger, under the same lock."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.rivals: dict[weakref.ref[Ledger], None] = {}
        self.connect = 0.01  # seconds that one took, by the pool that closed one last
        self.passed_on = 0  # connections closed for another pool's sake
        self._looker: Callable[[], Ledger | None] = lambda: None  # who was told last to look when only time can help
        self._holders: dict[weakref.ref[Ledger], None] = {}  # who has one; in order, so that a replay is a replay

    # --- The ledgers ask --------------------------------------------------------------------------------------------

    def take(self, ledger: Ledger, now: float) -> bool:
        # it takes part with all that it needs from now on: who is refused here may be the first in need
        self.rivals[weakref.ref(ledger)] = None
        left = max(0, self.limit - self.used)
        if not left or not any(one is ledger for _, one in self._needs(now)[:left]):
            return False
        self._holders[weakref.ref(ledger)] = None
        return True

    def free(self, ledger: Ledger) -> None:
        self.connect = mean(ledger) or self.connect
        if not ledger.entries:
            self._holders.pop(weakref.ref(ledger), None)

    def wanted(self, ledger: Ledger, since: float, now: float) -> bool:
        if not self.rivals or self._kept_for(ledger) or now < self._spared_until(ledger):
            return False
        needs = self._needs(now)
        _, provided = self._spent()
        if provided >= len(needs) or needs[provided][0] >= since:
            return False
        self._passes_on(ledger, now)
        return True

    # --- What follows from an event ---------------------------------------------------------------------------------

    def settle(self, now: float) -> Iterator[tuple[Ledger, Orders]]:
        """What the ledgers do now that permits are free, or wanted by others; each is to be carried out before the next
        is asked for."""
        while self.rivals:
            needs = self._needs(now)
            if not needs:
                return
            first = needs[0][1]
            used, provided = self._spent()
            if used < self.limit:
                before = len(first.entries)
                yield first, first.tick(now)
                if len(first.entries) <= before:
                    self.rivals.pop(weakref.ref(first), None)  # another of its server's pools was faster
                continue
            if provided >= len(needs):
                return
            since, waits = needs[provided]
            if since > now:
                yield from self._look_again(waits, since, now)
                return
            idle, moment = self._least_recently_used(now)
            if idle is None:
                if moment < math.inf:
                    yield from self._look_again(waits, moment, now)
                return
            entry, owner = idle
            self._passes_on(owner, now)
            yield owner, owner.give_up(entry, now)

    def _look_again(self, ledger: Ledger, moment: float, now: float) -> Iterator[tuple[Ledger, Orders]]:
        """Somebody is to look at ``moment`` at the latest. An event of any pool is a look too, so most of those that
        are planned are in vain (measured: five of seven): one at a time will do, and then there is another one."""
        looker = self._looker()
        if looker is None or not looker.rules.background or not now < looker.due <= moment:
            self._looker = weakref.ref(ledger)
            yield ledger, ledger.look_again_at(moment, now)

    @property
    def used(self) -> int:
        return sum([len(ledger.entries) for ledger in self._having()])

    def _having(self) -> list[Ledger]:
        return [ledger for ref in [*self._holders] if (ledger := ref()) is not None]

    def _needs(self, now: float) -> list[Need]:
        """Who lacks a connection that a permit would bring, longest waits first? Who lacks none is no rival."""
        needs: list[Need] = []
        for ref in [*self.rivals]:
            ledger = ref()
            theirs = [] if ledger is None else self._needs_of(ledger, now)
            if theirs:
                needs += theirs
            else:
                del self.rivals[ref]
        needs.sort(key=_since)
        return needs

    def _needs_of(self, ledger: Ledger, now: float) -> list[Need]:
        many = lacking(ledger, now)
        if not many:
            return []
        covered = ledger.opening if ledger.rules.background else 0  # for the first of them one is under way
        later = self._patience(ledger)
        needs = [(ticket.since + later, ledger) for ticket in islice(ledger.line, covered, covered + many)]
        return needs + [(math.inf, ledger)] * (many - len(needs))

    def _patience(self, ledger: Ledger) -> float:
        if len(ledger.entries) == ledger.closing:
            return 0.0  # there is none to wait for
        # of a pool that has just been made nothing is known
        return PATIENCE * min(mean(ledger) or self.connect, LONGEST_CONNECT)

    def _spent(self) -> tuple[int, int]:
        """So many permits are used; and so many are there, or about to come free: of what is being closed. What was
        given up while it connects ends when its server likes."""
        used = closing = 0
        for ledger in self._having():
            used += len(ledger.entries)
            if ledger.closing:
                closing += sum([entry.state is CLOSING and not entry.given_up for entry in ledger.entries])
        return used, max(0, self.limit - used) + closing

    def _least_recently_used(self, now: float) -> tuple[tuple[Entry, Ledger] | None, float]:
        """The one that was idle longest, and whose it is; or when the first of those that are spared may be taken."""
        found: tuple[Entry, Ledger] | None = None
        moment = math.inf
        for ledger in self._having():
            if not ledger.idle or self._kept_for(ledger):
                continue
            entry = ledger.coldest
            if entry.last_used > ledger.gave_up_at:
                while_warm = max(mean(ledger), SHORTEST / CONNECTS)
                until = min(self._spared_until(ledger), entry.last_used + while_warm)
                if now < until:
                    moment = min(moment, until)
                    continue
            if found is None or entry.last_used < found[0].last_used:
                found = entry, ledger
        return found, moment

    def _kept_for(self, ledger: Ledger) -> bool:
        """Is all that it has its minimum?"""
        return len(ledger.entries) - ledger.closing <= ledger.rules.min_size

    def _spared_until(self, ledger: Ledger) -> float:
        return ledger.gave_up_at + min(max(CONNECTS * mean(ledger), SHORTEST), LONGEST)

    def _passes_on(self, ledger: Ledger, now: float) -> None:
        ledger.gave_up_at = now
        self.passed_on += 1


def lacking(ledger: Ledger, now: float) -> int:
    """How many connects would it start now, had it permits? Asked for all that may want one at each event of each."""
    rules, reach, opening = ledger.rules, ledger.reach, ledger.opening
    if ledger.only_on_demand and reach.failing_since == math.inf and not ledger.paused:
        many: float = len(ledger.line)  # what ``wanted`` and ``could_open`` would say, at a fifth of their cost
    elif could_open(ledger, now):
        many = wanted(ledger, now) if rules.background else len(ledger.line)
    else:
        return 0
    if rules.background:
        many -= opening
    if many > rules.max_connecting - opening:
        many = rules.max_connecting - opening
    if many > rules.max_size - len(ledger.entries):
        many = rules.max_size - len(ledger.entries)
    return 0 if many <= 0 or now < reach.retry_at or now < reach.turn_at(now) else int(many)


def mean(ledger: Ledger) -> float:
    """Seconds that its connects took; 0 where none was measured."""
    return ledger.connect_times.total / (ledger.opened_count or 1)


_since = itemgetter(0)
