"""What if two pools share a cap? Pools of a test's own under one lock, with the permits that the core asks for.

No product class shares permits yet. These do what one will have to: a lock in common, and a look at all the others
whenever a ledger has decided something, for the core's protocol tells of slots, not of those who leave the line.

the cap             never more connections than permits, those of all pools counted, being opened and closed included
yields              who opens is the one who has waited longest, in whichever pool, if his own pool lets him
no idle hoard       nobody waits for a permit beside a connection that is idle in another pool
"""

from __future__ import annotations

import functools
import math
from collections import deque
from typing import Any

from tests.core.promises import Broken
from tests.interleave.scenarios import Play, Scenario
from tests.interleave.world import World, next_try
from threadpool_db.core.line import PING, USE
from threadpool_db.waiting import Clock

SHARED: list[Scenario] = []


class Cap:
    """So many permits for several pools. Whoever has waited longest gets the next one."""

    def __init__(self, permits: int, clock: Clock) -> None:
        self.permits, self.lock = permits, clock.lock()
        self._now = clock.now
        self.pools: list[Any] = []
        self._looking = False

    @property
    def used(self) -> int:
        return sum(len(pool._ledger.entries) for pool in self.pools)

    def take(self, ledger: Any) -> bool:
        return self.free_one(ledger)

    def free(self, ledger: Any) -> None:
        """The count is that of the entries, and ``look`` follows every event."""

    def free_one(self, ledger: Any) -> bool:
        return self.used < self.permits and not self._older(ledger, self._since(ledger))

    def wanted(self, ledger: Any, since: float) -> bool:
        return self.used >= self.permits and self._older(ledger, since)

    def look(self, jobs: Any) -> None:
        """Under the lock: let whoever has waited longest have what is free, or what is idle elsewhere."""
        if self._looking:
            return
        self._looking = True
        try:
            for pool in sorted(self.pools, key=lambda pool: self._since(pool._ledger)):
                if not self._wants(pool._ledger):
                    continue
                if self.used >= self.permits:
                    idle = next((each for each in self.pools if each is not pool and each._ledger.idle), None)
                    if idle is not None:
                        self._tell(idle, idle._ledger.clear, jobs)
                elif self.free_one(pool._ledger):
                    self._tell(pool, pool._ledger.tick, jobs)
        finally:
            self._looking = False

    def _tell(self, pool: Any, event: Any, jobs: Any) -> None:
        """What another pool is to do it does itself, after its own rules: it may have drained by that."""
        theirs: deque[Any] = deque()
        pool._take_orders(event(self._now()), theirs)
        if theirs:
            jobs.append(functools.partial(pool._do, theirs))
        if pool._config.background:
            jobs.append(lambda: pool._background.plan(pool._ledger.due))

    def _older(self, ledger: Any, since: float) -> bool:
        others = (pool._ledger for pool in self.pools if pool._ledger is not ledger)
        return any(self._wants(other) and self._since(other) < since for other in others)

    @staticmethod
    def _since(ledger: Any) -> float:
        return ledger.line.head.since if ledger.line else math.inf

    def _wants(self, ledger: Any) -> bool:
        """Has it somebody who waits, without a connect for him, and whom it would let open?"""
        opening = ledger.opening if ledger.rules.background else 0
        room = len(ledger.entries) < ledger.rules.max_size and ledger.opening < ledger.rules.max_connecting
        return len(ledger.line) > opening and room and next_try(ledger, self._now()) <= self._now()


def share(w: World, permits: int) -> tuple[World, World]:
    """Two pools like that of ``w``, which nobody uses."""
    cap = Cap(permits, w.s)

    class Sharing(w.shell.repeatable):  # type: ignore[misc, name-defined]
        def _start_afresh(self) -> None:
            super()._start_afresh()
            self._lock = cap.lock
            self._inside = cap.lock._is_owned
            self._acquire, self._release = cap.lock.acquire, cap.lock.release
            self._ledger.permits = cap
            self._ledger.weigh()
            cap.pools.append(self)

        def _take_orders(self, orders: Any, jobs: Any, apart: bool = False) -> None:
            super()._take_orders(orders, jobs, apart)
            cap.look(jobs)

    one, two = (type(w)(w.s, w.shell, w.config, Sharing) for _ in range(2))
    for each in (one, two):
        each.permits = cap
        w.others.append(each)

    lines: dict[World, list[Any]] = {one: [], two: []}

    def at_release() -> None:
        if cap.used > permits:
            raise Broken("the cap", f"{cap.used} of {permits}")
        count = sum(each.driver.count + each.driver.connecting for each in (one, two))
        if count > permits:
            raise Broken("the cap", f"{count} of {permits} open or being opened")
        for each, other in ((one, two), (two, one)):
            line, lines[each] = lines[each], list(each.ledger.line)
            if next_try(other.ledger, other.s.time) > -math.inf:
                continue  # it has failed, and time may have passed since this one was served
            for ticket in line:
                given = ticket not in lines[each] and ticket.step in (USE, PING)
                if given and cap._wants(other.ledger) and cap._since(other.ledger) < ticket.since:
                    raise Broken("yields", f"{ticket!r} was served, and {other.ledger.line} has waited longer")

    def at_rest() -> None:
        for each, other in ((one, two), (two, one)):
            if cap._wants(each.ledger) and (cap.used < permits or other.ledger.idle):
                raise Broken("no idle hoard", f"{each.ledger.line} beside {other.ledger.idle}, {cap.used} are used")

    cap.lock.watches += (at_release,)
    w.s.at_rest.append(at_rest)
    return one, two


def shared(play: Play) -> Play:
    """Once where borrowers connect, and once where a keeper does."""
    name = play.__name__.replace("_", " ")
    SHARED.append(Scenario(name, play, {"max_size": 2}))
    SHARED.append(Scenario(f"{name}, with a keeper", play, {"max_size": 2, "background": True}))
    return play


@shared
def two_pools_and_one_permit(w: World) -> None:
    one, two = share(w, permits=1)
    one.part("A", one.visit, times=2)
    two.part("B", two.visit)
    two.part("C", two.visit)


@shared
def two_pools_and_two_permits(w: World) -> None:
    one, two = share(w, permits=2)
    one.fill(2)
    one.part("A", one.visit, seconds=0.2)
    one.part("B", one.visit, seconds=0.1)
    one.part("C", one.visit)
    two.part("D", two.visit, seconds=0.1)
    two.part("E", two.visit)


@shared
def who_waits_for_a_permit_gives_up(w: World) -> None:
    one, two = share(w, permits=1)
    one.fill(1)
    one.part("A", one.visit, seconds=1.0)
    two.part("B", two.visit, timeout=1.0)
    one.part("C", one.visit, timeout=2.0)
    two.part("D", two.visit, timeout=1.5)


@shared
def a_permit_that_fails_to_connect(w: World) -> None:
    one, two = share(w, permits=1)
    one.fill(1)
    two.fill(1)
    two.driver.fails["connect"] = [OSError]
    two.driver.seconds["connect"] = 0.1
    one.part("A", one.visit, times=2)
    two.part("B", two.visit)
    two.part("C", two.visit, end="discard")


@shared
def a_pool_is_closed_and_its_permits_go_on(w: World) -> None:
    one, two = share(w, permits=2)
    one.allowed.add("closed")
    one.part("A", one.visit, seconds=0.2)
    one.part("B", one.visit)
    two.part("C", two.visit, times=2)
    one.part("closer", one.close, timeout=3)


@shared
def who_has_waited_longest_is_next(w: World) -> None:
    def come(to: World, at: float) -> None:
        w.s.sleep(at, "nobody comes")
        to.visit(seconds=0.1)

    one, two = share(w, permits=1)
    one.fill(1)
    one.part("A", one.visit, seconds=1.0)
    two.part("B", come, two, 0.2)
    one.part("C", come, one, 0.4)
    two.part("D", come, two, 0.6)
