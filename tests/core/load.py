"""What would happen at this load? The real ledger under a clock that jumps from event to event.

Requests arrive, wait in line, use a connection for a while and give it back; the keeper connects, closes, and ticks
when something is due. No thread and no real time: a minute of load takes a second or two.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from threadpool_db.core.ledger import Ledger
from threadpool_db.core.line import REFUSED, USE, WAIT, Orders, Refusal, Ticket
from threadpool_db.core.rules import Rules


class Request(NamedTuple):
    """``ended``: served, shed or late. ``waited`` seconds until then."""

    came: float
    waited: float
    ended: str


@dataclass
class Outcome:
    requests: list[Request] = field(default_factory=list)
    sizes: list[tuple[float, int]] = field(default_factory=list)  # when, and how many there were from then on
    connects: int = 0
    used: float = 0.0  # seconds, of all connections

    def waits(self, since: float = 0.0) -> list[float]:
        """Of those served from then on, sorted."""
        return sorted(r.waited for r in self.requests if r.ended == "served" and r.came + r.waited >= since)

    def percentile(self, share: float, since: float = 0.0) -> float:
        waits = self.waits(since)
        return waits[min(len(waits) - 1, int(share * len(waits)))]

    def many(self, ended: str, since: float = 0.0) -> int:
        return sum(r.ended == ended and r.came + r.waited >= since for r in self.requests)


def poisson(rate: float, until: float, seed: int = 1, begin: float = 0.0) -> Iterator[float]:
    """When they come, so many in a second."""
    draw = random.Random(seed)
    now = begin
    while (now := now + draw.expovariate(rate)) < until:
        yield now


def evenly(every: float, until: float, begin: float = 0.0) -> Iterator[float]:
    return itertools.takewhile(lambda now: now < until, (begin + n * every for n in itertools.count()))


class Load:
    """One run. ``work``: seconds of a use, or what draws them; ``patience``: of each who waits."""

    def __init__(
        self,
        arrivals: Iterable[float],
        work: float | Callable[[], float],
        size: int,
        patience: float = math.inf,
        connect: float = 0.0,
        connected: bool = True,
        **ledger: Any,
    ) -> None:
        rules = ledger.pop("rules", None) or Rules(max_size=size, background=True, max_connecting=math.inf)
        self.ledger = Ledger(rules, draw=lambda: 0.5, **ledger)
        self.patience, self.connect = patience, connect
        self.work = work if callable(work) else lambda: work
        self.outcome = Outcome()
        self._order = itertools.count()
        self._plan: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._arrivals = iter(arrivals)
        self.now = 0.0
        if connected:
            first = [Ticket(holder="seen") for _ in range(size)]
            for ticket in first:
                self._obey(self.ledger.join(ticket, 0.0))
            while self._plan:
                self._step()
            for ticket in first:
                self._obey(self.ledger.checkin(ticket.entry, self.now))
        self._next_arrival()

    def run(self, until: float = math.inf) -> Outcome:
        while self._plan or self.ledger.due < until:
            due = self.ledger.due
            if not self._plan or due < self._plan[0][0]:
                if due >= until:
                    break
                self.now = max(self.now, due)
                self._obey(self.ledger.tick(self.now))
            elif self._plan[0][0] >= until:
                break
            else:
                self._step()
        return self.outcome

    def _step(self) -> None:
        self.now, _, happen, subject = heapq.heappop(self._plan)
        happen(*subject)

    def _at(self, when: float, happen: Callable[..., None], *subject: Any) -> None:
        heapq.heappush(self._plan, (when, next(self._order), happen, subject))

    def _next_arrival(self) -> None:
        when = next(self._arrivals, None)
        if when is not None:
            self._at(when, self._arrive)

    def _arrive(self) -> None:
        self._next_arrival()
        entry = self.ledger.take(self.now)
        if entry is not None:
            self._use(entry, self.now)
            return
        ticket = Ticket()
        ticket.deadline = self.now + self.patience
        if not self.ledger.queue(ticket, self.now):
            self._obey(self.ledger.join(ticket, self.now))
        if ticket.step is WAIT and self.patience < math.inf:
            self._at(ticket.deadline, self._give_up, ticket)
        elif ticket.step is not WAIT and ticket.holder is None:
            self._woken(ticket)

    def _give_up(self, ticket: Ticket) -> None:
        if ticket.step is WAIT:
            self._obey(self.ledger.leave(ticket, self.now))
            self._woken(ticket)

    def _use(self, entry: Any, came: float) -> None:
        seconds = self.work()
        self.outcome.requests.append(Request(came, self.now - came, "served"))
        self.outcome.used += seconds
        self._at(self.now + seconds, self._give_back, entry)

    def _give_back(self, entry: Any) -> None:
        if self.ledger.give(entry, self.now):
            return
        head = self.ledger.hand(entry, self.now)
        if head is None:
            self._obey(self.ledger.checkin(entry, self.now))
        else:
            self._woken(head)

    def _woken(self, ticket: Ticket) -> None:
        """Once: ``holder`` says that it was seen to."""
        if ticket.step is WAIT or ticket.holder is not None:
            return
        ticket.holder = "seen"
        if ticket.step is USE:
            self._use(ticket.entry, ticket.since)
        else:
            assert ticket.step is REFUSED, ticket
            ended = {Refusal.SHED: "shed", Refusal.FULL: "full"}.get(ticket.refusal, "late")  # type: ignore[arg-type]
            self.outcome.requests.append(Request(ticket.since, self.now - ticket.since, ended))

    def _connected(self, entry: Any) -> None:
        self.outcome.connects += 1
        self._obey(self.ledger.opened(entry, self.now))

    def _closed(self, entry: Any) -> None:
        self._obey(self.ledger.closed_one(entry, self.now))

    def _obey(self, orders: Orders) -> None:
        for ticket in orders.wake:
            self._woken(ticket)
        for entry in orders.open:
            self._at(self.now + self.connect, self._connected, entry)
        for entry in orders.close:
            self._at(self.now, self._closed, entry)
        if orders.open or orders.close:
            self.outcome.sizes.append((self.now, self.ledger.counts().connected))
