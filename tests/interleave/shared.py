"""What if two pools share a budget?

the cap             never more connections than permits, those of all pools counted, being opened and closed included
yields              nobody is lent what another one has waited for longer, in whichever pool, if his own pool lets him
                    open and has none to wait for, but where the pool that would lose it has just lost one
no idle hoard       nobody waits for a permit beside a connection that is idle in another pool, with that exception
no lost wake-up     nor beside an unread note of another pool, for what was lost there is a permit
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tests.core.promises import Broken
from tests.interleave.scenarios import Play, Scenario
from tests.interleave.world import World, next_try
from threadpool_db.core.entry import CLOSING
from threadpool_db.core.line import PING, USE
from threadpool_db.core.permits import LONGEST, LONGEST_CONNECT, PATIENCE

SHARED: list[Scenario] = []
SHARED_COLLECTED: list[Scenario] = []


class Look:
    """At all the pools of a budget, from outside: no line of the product's runs here, where it could be struck."""

    def __init__(self, permits: int) -> None:
        self.permits = permits
        self.worlds: list[World] = []

    @property
    def used(self) -> int:
        return sum(len(world.ledger.entries) for world in self.worlds)

    @property
    def coming(self) -> int:
        """Permits that are free, or will be when what is being closed is closed."""
        closing = (entry for world in self.worlds for entry in world.ledger.entries if entry.state is CLOSING)
        return self.permits - self.used + sum(not entry.given_up for entry in closing)

    def free_one(self, ledger: Any) -> bool:
        since = self.since(ledger) + self.patience(ledger)
        others = (world.ledger for world in self.worlds if world.ledger is not ledger)
        return self.used < self.permits and not any(self.wants(other) and self.since(other) < since for other in others)

    @staticmethod
    def since(ledger: Any) -> float:
        return next((ticket.since for ticket in ledger.line), math.inf)

    @staticmethod
    def patience(ledger: Any) -> float:
        """So long he may wait for one of his own pool's, at most."""
        return PATIENCE * LONGEST_CONNECT if len(ledger.entries) > ledger.closing else 0.0

    def wants(self, ledger: Any) -> int:
        """How many wait there without a connect for them, and would be let open one?"""
        opening = ledger.opening if ledger.rules.background else 0
        room = min(ledger.rules.max_size - len(ledger.entries), ledger.rules.max_connecting - ledger.opening)
        now = self.worlds[0].s.time
        return int(min(len(ledger.line) - opening, room)) if next_try(ledger, now) <= now else 0

    def spares(self, world: World) -> bool:
        """It has lost one not long ago, and may keep what it has used since."""
        return world.s.time < world.ledger.gave_up_at + LONGEST


def share(w: World, permits: int) -> tuple[World, World]:
    """Two pools like that of ``w``, which nobody uses."""
    look, budget = Look(permits), w.shell.budget.Budget(permits)
    config = dataclasses.replace(w.config, budget=budget)
    one, two = (type(w)(w.s, w.shell, config) for _ in range(2))
    look.worlds += (one, two)
    for each in (one, two):
        each.permits = look
        w.others.append(each)

    lines: dict[World, list[Any]] = {one: [], two: []}

    def at_release() -> None:
        if look.used > permits:
            raise Broken("the cap", f"{look.used} of {permits}")
        count = sum(each.driver.count + each.driver.connecting for each in (one, two))
        if count > permits and not one.hurt:
            raise Broken("the cap", f"{count} of {permits} open or being opened")
        if one.hurt:
            if count > permits:
                one.find(f"the cap: {count} of {permits} open or being opened")
            lines.update({one: [], two: []})  # a place in line would keep what was granted to it
            return  # what an interrupt has left undone each pool finds for itself
        for each, other in ((one, two), (two, one)):
            line, lines[each] = lines[each], list(each.ledger.line)
            if next_try(other.ledger, other.s.time) > -math.inf or look.spares(each):
                continue  # it has failed, and time may have passed since this one was served
            for ticket in line:
                given = ticket not in lines[each] and ticket.step in (USE, PING)
                missing = look.wants(other.ledger) > look.coming
                other_since = look.since(other.ledger) + look.patience(other.ledger)
                if given and missing and other_since < ticket.since and used_before(ticket.entry):
                    raise Broken("yields", f"{ticket!r} was served, and {other.ledger.line} has waited longer")

    def at_rest() -> None:
        for each, other in () if one.hurt else ((one, two), (two, one)):
            idle = [entry for entry in other.ledger.idle if not look.spares(other) or cold(entry, other)]
            if w.s.time < look.since(each.ledger) + look.patience(each.ledger):
                idle = []  # one of his own pool's may come first
            if look.wants(each.ledger) > max(0, look.coming - (permits - look.used)) and (look.used < permits or idle):
                raise Broken("no idle hoard", f"{each.ledger.line} beside {idle}, {look.used} are used")
            notes = other.pool._mailbox.notes
            if notes and look.wants(each.ledger):
                raise Broken("no lost wake-up", f"{each.ledger.line} beside {len(notes)} notes of the other pool")

    one.pool._lock.watches += (at_release,)
    w.s.at_rest.append(at_rest)
    return one, two


def used_before(entry: Any) -> bool:
    return bool(entry.last_used > entry.opened_at)


def cold(entry: Any, world: World) -> bool:
    return bool(entry.last_used <= world.ledger.gave_up_at)


def shared(play: Play, among: list[Scenario] = SHARED) -> Play:
    """Once where borrowers connect, and once where a keeper does."""
    name = play.__name__.replace("_", " ")
    among.append(Scenario(name, play, {"max_size": 2}))
    among.append(Scenario(f"{name}, with a keeper", play, {"max_size": 2, "background": True}))
    return play


@shared
def two_pools_and_one_permit(w: World) -> None:
    one, two = share(w, permits=1)
    one.part("A", one.visit, times=2)
    two.part("B", two.visit)
    two.part("C", two.visit)


@shared
def two_who_would_take_it_from_each_other(w: World) -> None:
    one, two = share(w, permits=1)
    one.part("A", one.visit, seconds=0.001, times=3)
    two.part("B", two.visit, seconds=0.001, times=3)


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
def a_lease_is_dropped_in_another_pool(w: World) -> None:
    one, two = share(w, permits=1)
    one.part("A", one.visit, end="drop")
    two.part("B", two.visit)
    two.part("C", two.visit)


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


# --- Plays for a finaliser that strikes a borrower, a worker or the scheduler: see injection.py


def collected(play: Play) -> Play:
    return shared(play, SHARED_COLLECTED)


def throw_away(w: World, *pools: World) -> None:
    """A lease of each: the first is dropped, the others given back, by whoever is struck by a collection."""
    dropped = [pools[0].pool.checkout()]
    w.garbage.append(dropped.clear)
    for each in pools:
        each.garbage = w.garbage
        if each is not pools[0]:
            w.garbage.append(each.pool.checkout().checkin)


@collected
def the_only_permit_is_garbage(w: World) -> None:
    one, two = share(w, permits=1)
    throw_away(w, two)
    one.part("A", one.visit, timeout=1.0)
    two.part("B", two.visit, timeout=1.5)
    one.part("C", one.visit, timeout=1.5)


@collected
def both_permits_are_garbage(w: World) -> None:
    one, two = share(w, permits=2)
    throw_away(w, one, two)
    one.part("A", one.visit, end="discard")
    two.part("B", two.visit, times=2)
    one.part("C", one.visit)
