"""What can happen to pools that share permits? A small world of several ledgers, played in random order.

Each has callers who come, wait, give up, use what they get and give it back; connects succeed and fail, closes end,
time passes, and whoever asked to be woken by time is. The promises are looked at after every event:

the cap             never more connections than permits, those being opened and closed counted
no hoard            nobody waits for a permit while one is free, nor beside an idle connection that he may have
oldest first        who opens one, or is handed one, has waited longest of all who lack one
closed for need     nothing is closed for others but for somebody who waits, no more than are missing, and nothing that
                    its own pool has opened for somebody and not used yet
coldest first       of what is idle and may be taken it is the one that was used least recently
minimum             no pool loses what its ``min_size`` keeps for it
spared              what a pool has used since it lost one is not taken for the next while, or until it was idle for a
                    connect's time
patience            nothing is closed for whom one of his own pool's would serve, before two connects' time
looks again         where only time can help somebody looks when it does
in the end          when nobody comes any more everybody has been served, or has given up
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tests.core.promises import Broken

FAILURES = ("fails to connect", "is given up")


class Pool:
    """One ledger and what is under way for it."""

    def __init__(self, core: SimpleNamespace, permits: Any, number: int, **rules: Any) -> None:
        self.number = number
        self.ledger = core.ledger.Ledger(core.rules.Rules(**rules), permits=permits, draw=lambda: 0.5)
        self.connecting: list[tuple[Any, Any]] = []  # the slot, and the ticket of the borrower who connects, or None
        self.closing: list[Any] = []
        self.late: list[Any] = []  # connects that were given up, and have not ended yet
        self.waiting: list[Any] = []
        self.using: list[Any] = []
        self.connects: list[float] = []  # how long they took
        self.looked = -math.inf
        self.began: list[float] = []  # for those who wait since then connects have just begun; inf: for nobody

    @property
    def connect(self) -> float:
        return sum(self.connects) / max(1, len(self.connects))

    @property
    def spared_until(self) -> float:
        return self.ledger.gave_up_at + min(max(5 * self.connect, 0.005), 0.25)

    @property
    def coldest_may_go_at(self) -> float:
        coldest: float = min(entry.last_used for entry in self.ledger.idle)
        if coldest <= self.ledger.gave_up_at:
            return -math.inf
        return min(self.spared_until, coldest + max(self.connect, 0.001))

    @property
    def has_spare(self) -> bool:
        """Something idle, beyond its minimum."""
        ledger = self.ledger
        return bool(ledger.idle) and len(ledger.entries) - ledger.closing > ledger.rules.min_size

    def read(self, orders: Any, now: float) -> None:
        """Carry out what was ordered, and see what became of those who wait."""
        self.looked = now  # so that it knows that a backoff is over
        covered = [ticket.since for ticket in self.ledger.line][: self.ledger.opening]
        self.began = [math.inf] * max(0, len(orders.open) - len(covered)) + covered[-len(orders.open) or len(covered) :]
        self.connecting += [(entry, None) for entry in orders.open]
        self.closing += orders.close
        for ticket in [*self.waiting]:
            word = ticket.step.value
            if word == "wait":
                continue
            self.waiting.remove(ticket)
            if word == "open":
                self.connecting.append((ticket.entry, ticket))
                self.began.append(ticket.since)
            elif word in ("use", "ping"):
                self.using.append(ticket.entry)


class Sharing:
    def __init__(self, core: SimpleNamespace, limit: int, pools: list[dict[str, Any]], seed: int) -> None:
        self.core, self.limit, self.random = core, limit, random.Random(seed)
        self.permits = core.permits.SharedPermits(limit)
        self.now = 100.0
        self.pools = [Pool(core, self.permits, n, **rules) for n, rules in enumerate(pools)]
        self.story: list[str] = []
        self.lost: dict[Pool, float] = {}
        self.served = 0

    # --- What can happen --------------------------------------------------------------------------------------------

    def play(self, events: int) -> None:
        try:
            for _ in range(events):
                self.happen(*self.random.choice(self.possible()))
            self.end()
        except Broken as broken:
            broken.path = self.story
            raise

    def possible(self) -> list[tuple[str, Pool, Callable[[], Any]]]:
        found: list[tuple[str, Pool, Callable[[], Any]]] = []
        for pool in self.pools:
            found.append(("comes", pool, lambda pool=pool: self.come(pool)))
            if pool.waiting:
                found.append(("gives up", pool, lambda pool=pool: self.give_up(pool)))
            found += self.endings(pool)
        found.append(("time", self.pools[0], lambda: self.pass_time(self.random.choice((0.001, 0.004, 0.02)))))
        return found

    def endings(self, pool: Pool) -> list[tuple[str, Pool, Callable[[], Any]]]:
        """What is bound to happen some day."""
        found: list[tuple[str, Pool, Callable[[], Any]]] = []
        if pool.using:
            found += [("gives back", pool, lambda: self.give_back(pool))] * 2
            found.append(("discards", pool, lambda: self.give_back(pool, reusable=False)))
        if pool.connecting:
            found += [("connects", pool, lambda: self.connect(pool))] * 3
            found.append(("fails to connect", pool, lambda: self.fail(pool)))
            if pool.connecting[0][1] is None:
                found.append(("is given up", pool, lambda: self.give_up_connect(pool)))
        if pool.late:
            found.append(("ends at last", pool, lambda: pool.ledger.failed(pool.late.pop(0), self.now, OSError())))
        if pool.closing:
            found.append(("closes", pool, lambda: pool.ledger.closed_one(pool.closing.pop(0), self.now)))
        return found

    def end(self) -> None:
        """Nobody comes any more."""
        for _ in range(2000):
            left = [ending for pool in self.pools for ending in self.endings(pool) if ending[0] not in FAILURES]
            if left:
                self.happen(*self.random.choice(left))
            elif any(pool.waiting for pool in self.pools):
                self.happen("time", self.pools[0], lambda: self.pass_time(0.1))
            else:
                return
        raise Broken("in the end", f"{[pool.waiting for pool in self.pools]} wait still")

    def come(self, pool: Pool) -> Any:
        entry = pool.ledger.take(self.now)
        if entry is not None:
            pool.using.append(entry)
            return None
        ticket = self.core.line.Ticket(pool)
        pool.waiting.append(ticket)
        if pool.ledger.queue(ticket, self.now):
            return None
        return pool.ledger.join(ticket, self.now)

    def give_up(self, pool: Pool) -> Any:
        ticket = pool.waiting.pop(self.random.randrange(len(pool.waiting)))
        return pool.ledger.leave(ticket, self.now)

    def give_back(self, pool: Pool, reusable: bool = True) -> Any:
        entry = pool.using.pop(self.random.randrange(len(pool.using)))
        self.served += 1
        self.now += 0.0001  # no two uses end in the same moment
        if reusable and pool.ledger.give(entry, self.now):
            return None
        older = self.missing(but=pool)
        if reusable and (head := pool.ledger.hand(entry, self.now, [])) is not None:
            if older and older[0] < head.since:
                raise Broken("oldest first", f"handed to {head}, and somebody waits since {older[0]}")
            orders = self.core.line.Orders()
            orders.wake.append(head)
            return orders
        return pool.ledger.checkin(entry, self.now, reusable=reusable)

    def connect(self, pool: Pool) -> Any:
        entry, ticket = pool.connecting.pop(0)
        pool.connects.append(self.now - entry.opened_at)
        if ticket is not None:
            pool.waiting.append(ticket)
        return pool.ledger.opened(entry, self.now, ticket)

    def fail(self, pool: Pool) -> Any:
        entry, ticket = pool.connecting.pop(0)
        if ticket is not None:
            pool.waiting.append(ticket)
        return pool.ledger.failed(entry, self.now, OSError("refused"), ticket)

    def give_up_connect(self, pool: Pool) -> Any:
        entry, _ = pool.connecting.pop(0)
        pool.late.append(entry)
        return pool.ledger.overdue(entry, self.now, TimeoutError())

    def pass_time(self, seconds: float) -> Any:
        self.now += seconds
        for pool in self.pools:
            head = pool.ledger.line.head
            woken = head is not None and head.wake_at <= self.now
            if woken:
                head.wake_at = math.inf
            if woken or (pool.ledger.rules.background and pool.ledger.due <= self.now):
                self.carry_out(pool, pool.ledger.tick(self.now))
        return None

    # --- And must hold ----------------------------------------------------------------------------------------------

    def happen(self, name: str, pool: Pool, event: Callable[[], Any]) -> None:
        self.story.append(f"{self.now:.4f} {name} ({pool.number})")
        self.carry_out(pool, event())
        self.look()

    def carry_out(self, pool: Pool, orders: Any) -> None:
        if orders is None:  # a short way settles nothing
            pool.read(self.core.line.Orders(), self.now)
            return
        self.apply(pool, orders)
        for ledger, more in self.permits.settle(self.now):
            self.apply(next(each for each in self.pools if each.ledger is ledger), more)

    def apply(self, pool: Pool, orders: Any) -> None:
        idle = {each: [*each.ledger.idle] for each in self.pools}
        idle[pool] += orders.close
        pool.read(orders, self.now)
        if pool.ledger.gave_up_at > self.lost.get(pool, -math.inf):
            self.passed_on(pool, orders.close[-1], idle)
            self.lost[pool] = pool.ledger.gave_up_at
        for since in pool.began:
            # of a pool whose first connect is under way its length is a guess, which the event itself may have changed
            known = [(want, other) for want, other in self.wants() if other.connect or not other.ledger.entries]
            older = [want for want, other in known if other is not pool and want < since]
            if older:
                raise Broken("oldest first", f"pool {pool.number} opens one, and somebody waits since {older[0]}")

    def passed_on(self, pool: Pool, entry: Any, idle: dict[Pool, list[Any]]) -> None:
        """One of this pool's was closed for another one's sake."""
        ledger, lost = pool.ledger, self.lost.get(pool, -math.inf)
        if len(ledger.entries) - ledger.closing < ledger.rules.min_size:
            raise Broken("minimum", f"pool {pool.number} has {len(ledger.entries)}, {ledger.closing} of them closing")
        wants = self.wants()
        if not any(want <= self.now for want, other in wants if other is not pool):
            raise Broken("patience", f"pool {pool.number} lost one at {self.now}, and others want one at {wants}")
        if self.coming() > len(wants):
            raise Broken("closed for need", f"{self.coming()} permits are there or coming, and {len(wants)} are wanted")
        warm = self.now < entry.last_used + max(pool.connect, 0.001)
        if warm and entry.last_used > lost and self.now < max(lost, 0.0) + (pool.spared_until - ledger.gave_up_at):
            raise Broken("spared", f"pool {pool.number} lost one at {lost} and one used since at {self.now}")
        if entry.last_used < self.now:
            others = [e for each in idle if each is pool or self.may_lose(each) for e in idle[each]]
            if any(other.last_used < entry.last_used for other in others):
                raise Broken("coldest first", f"{entry} was closed, and one of {others} was used before")
        elif entry.last_used <= entry.opened_at and ledger.line:
            raise Broken("closed for need", f"{entry} was opened and not used")
        elif ledger.line and ledger.line.head.since < wants[self.coming() - 1][0]:
            raise Broken("oldest first", f"{entry} was wanted here for longer")

    def may_lose(self, pool: Pool) -> bool:
        """The coldest of what it has idle?"""
        if not pool.has_spare:
            return False
        return self.now >= pool.coldest_may_go_at

    def wants(self) -> list[tuple[float, Pool]]:
        """Who waits, without a connect for him, where his pool would let him have one? By our own reckoning, and when
        it is his turn to be closed one for."""
        found = []
        for pool in self.pools:
            ledger = pool.ledger
            covered = ledger.opening if ledger.rules.background else 0
            free = min(ledger.rules.max_size - len(ledger.entries), ledger.rules.max_connecting - ledger.opening)
            if pool.looked < ledger.reach.retry_at or free <= 0:
                continue
            line = sorted((t for t in pool.waiting if t.step.value == "wait"), key=lambda t: t.arrival)
            later = self.patience(pool)
            found += [(ticket.since + later, pool) for ticket in line[covered : covered + int(free)]]
        return sorted(found, key=lambda each: each[0])

    def patience(self, pool: Pool) -> float:
        """For so long, in seconds, he may wait for one of his own pool's."""
        if len(pool.ledger.entries) <= len(pool.closing) + len(pool.late):
            return 0.0
        return 2 * min(pool.connect or self.permits.connect, 0.1)

    def used(self) -> int:
        return sum(len(pool.ledger.entries) for pool in self.pools)

    def coming(self) -> int:
        """Permits that are free, or will be in a moment."""
        return self.limit - self.used() + sum(len(pool.closing) for pool in self.pools)

    def missing(self, but: Pool) -> list[float]:
        """Since when those wait for whom there is no permit, nor one to come; none if ``but`` may lose nothing."""
        ledger = but.ledger
        if self.now < but.spared_until or len(ledger.entries) - ledger.closing <= ledger.rules.min_size:
            return []
        return [since for since, pool in self.wants()[self.coming() :] if pool is not but]

    def look(self) -> None:
        if self.used() > self.limit:
            raise Broken("the cap", f"{self.used()} of {self.limit}")
        wants = self.wants()
        if wants and self.used() < self.limit:
            raise Broken("no hoard", f"pool {wants[0][1].number} waits, and {self.used()} of {self.limit} are used")
        if len(wants) <= self.coming():
            return
        looks = min(pool.ledger.due if pool.ledger.rules.background else self.wakes(pool) for pool in self.pools)
        if (moment := wants[self.coming()][0]) > self.now:
            if looks > moment + 1e-9:
                raise Broken("looks again", f"at {looks}, when one may be taken at {moment}")
            return
        for pool in self.pools:
            if self.may_lose(pool):
                raise Broken("no hoard", f"pool {wants[-1][1].number} waits, and pool {pool.number} has an idle one")
        spared = [pool for pool in self.pools if self.now < pool.spared_until and pool.has_spare]
        moment = min((pool.coldest_may_go_at for pool in spared), default=math.inf)
        if looks > moment + 1e-9:
            raise Broken("looks again", f"at {looks}, when one may be had at {moment}")

    def wakes(self, pool: Pool) -> float:
        head = pool.ledger.line.head
        return math.inf if head is None else head.wake_at
