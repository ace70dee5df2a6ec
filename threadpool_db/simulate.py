"""What would happen at this load? The real ledger under a clock that jumps from event to event.

    outcome = simulate(Scenario(rate=800, service=0.02, max_size=8, timeout=1, shed=CoDel(0.05, 0.5), duration=60))
    outcome.summary()

Requests arrive, wait in line, use a connection for a while and give it back; connects and closes end, and the ledger
ticks when something is due. It is called as the pool calls it, the short ways first, so what is simulated is what runs.
No thread, no real time, and the same seed gives the same outcome.

What is not there: the pool's own microseconds, the threads' fight for the interpreter, and round trips of the pool's
own, pings and rollbacks. The database takes as long however many connections it has.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from threadpool_db.core.entry import OPENING, Entry
from threadpool_db.core.ledger import Ledger
from threadpool_db.core.line import USE, WAIT, Orders, Refusal, Ticket
from threadpool_db.core.outage import Outage
from threadpool_db.core.overload import MaxWaiting
from threadpool_db.core.rules import Rules
from threadpool_db.core.sojourn import Sojourn
from threadpool_db.outcome import FULL, LATE, SERVED, SHED, UNREACHABLE, Outcome
from threadpool_db.scenario import Scenario

_WHY = {
    None: LATE,
    Refusal.SHED: SHED,
    Refusal.FULL: FULL,
    Refusal.CONNECT_FAILED: UNREACHABLE,
    Refusal.UNAVAILABLE: UNREACHABLE,
}


def simulate(scenario: Scenario, progress: Callable[[float], None] | None = None) -> Outcome:
    """Run it to its end. ``progress`` is told the share that is done, about a hundred times."""
    config = scenario.config()
    sizing = scenario.sizing
    if isinstance(sizing, Sojourn) and sizing.draw is random.random:
        sizing = dataclasses.replace(sizing, draw=_draw(scenario, "sizing").random)
    comes = [_poisson(scenario.rate, _draw(scenario, "rate"))] if scenario.rate else []
    if scenario.burst:
        comes.append(itertools.repeat(scenario.burst_at, int(scenario.burst)))
    run = Simulation(
        heapq.merge(*comes),
        _service(scenario),
        config.rules(),
        patience=scenario.timeout,
        connect=scenario.connect,
        outage=scenario.outage,
        draw=_draw(scenario, "ledger").random,
        server=Outage(),
        sizing=sizing,
        overload=MaxWaiting(math.inf if scenario.max_waiting is None else scenario.max_waiting),
        shed=scenario.shed,
    )
    run.outcome.warm_up = scenario.warm_up
    if scenario.threads:
        think = _draw(scenario, "think")
        run.loop(int(scenario.threads), lambda: think.expovariate(1 / scenario.think))
    if progress is not None:
        for hundredth in range(1, 101):
            run.run(scenario.duration * hundredth / 100)
            progress(hundredth / 100)
    return run.run(scenario.duration)


class Simulation:
    """One run, which may go on: ``run(5)``, a look, ``run(10)``. ``arrivals``: when who comes, in order; ``work``
    draws the seconds of a use; ``patience``: of each who waits; ``connected``: so many are there before the first
    one comes. The rest is the ledger's."""

    def __init__(
        self,
        arrivals: Iterable[float],
        work: Callable[[], float],
        rules: Rules,
        patience: float = math.inf,
        connect: float = 0.0,
        outage: tuple[float, float] | None = None,
        draw: Callable[[], float] = lambda: 0.5,
        connected: int = 0,
        **ledger: Any,
    ) -> None:
        self.ledger = Ledger(dataclasses.replace(rules, background=True), draw=draw, **ledger)
        self.outcome = Outcome()
        self.now = 0.0
        self._work, self._patience, self._connect = work, patience, connect
        self._fails_at, self._works_at = outage or (math.inf, math.inf)
        self._order = itertools.count()
        self._plan: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._impatient: deque[Ticket] = deque()  # all have the same patience: who came first gives up first
        self._think: Callable[[], float] | None = None
        self._arrivals = iter(arrivals)
        first = [Ticket(holder="seen") for _ in range(connected)]
        for ticket in first:
            self._obey(self.ledger.join(ticket, 0.0))
        for entry in [entry for entry in self.ledger.entries if entry.state is OPENING]:
            self._connected(entry)
        self._plan.clear()
        for ticket in first:
            assert ticket.entry is not None
            self._obey(self.ledger.checkin(ticket.entry, 0.0))
        self._next_arrival()
        self._obey(self.ledger.tick(0.0))

    def loop(self, threads: int, think: Callable[[], float]) -> None:
        """So many threads, each of which thinks, asks, and when that has ended thinks again."""
        self._think = think
        for _ in range(threads):
            self._at(self.now + think(), self._arrive, True)

    def run(self, until: float) -> Outcome:
        """On to this moment, what happens at it excluded."""
        plan, impatient, ledger = self._plan, self._impatient, self.ledger
        while True:
            while impatient and impatient[0].step is not WAIT:
                impatient.popleft()
            when = plan[0][0] if plan else math.inf
            late = impatient[0].deadline if impatient else math.inf
            due = ledger.due
            if min(when, late, due) >= until:
                break
            if due < when and due < late:
                self.now = max(self.now, due)
                self._obey(ledger.tick(self.now))
            elif late <= when:
                self.now = max(self.now, late)
                self._give_up(impatient.popleft())
            else:
                self.now, _, happen, subject = heapq.heappop(plan)
                happen(subject)
        self.outcome.until, self.outcome.waiting = until, len(ledger.line)
        return self.outcome

    # --- Requests ---------------------------------------------------------------------------------------------------

    def _next_arrival(self) -> None:
        when = next(self._arrivals, None)
        if when is not None:
            self._at(when, self._come, None)

    def _come(self, _: None) -> None:
        self._next_arrival()
        self._arrive(False)

    def _arrive(self, looped: bool) -> None:
        """``looped``: one of the threads, which comes again. Its ticket and its connection note it in ``code``."""
        ledger, now = self.ledger, self.now
        entry = ledger.take(now)
        if entry is not None and not self._is_dead(entry):
            entry.code = looped
            self._use(entry, now)
            return
        ticket = Ticket(code=looped)
        ticket.deadline = now + self._patience
        if entry is not None:
            ticket.arrival, ticket.since = ledger.arrivals - 1, now
            ticket.grant(USE, entry)
        elif not (ledger.queue(ticket, now) or ledger.keep_out(ticket, now)):
            self._obey(ledger.join(ticket, now))
        if ticket.step is not WAIT:
            self._woken(ticket)
        elif self._patience < math.inf:
            self._impatient.append(ticket)

    def _woken(self, ticket: Ticket) -> None:
        """Once: ``holder`` says that it was seen to."""
        if ticket.step is WAIT or ticket.holder is not None:
            return
        entry = ticket.entry
        if entry is None:
            ticket.holder = "seen"
            self._end(ticket.since, _WHY[ticket.refusal])
            self._again(ticket.code)
        elif self._is_dead(entry):
            self._at(self.now, self._replace, ticket)  # not at once: each may be followed by the next dead one
        else:
            ticket.holder = "seen"
            self._use(entry, ticket.since)

    def _replace(self, ticket: Ticket) -> None:
        assert ticket.entry is not None
        self._obey(self.ledger.dead(ticket.entry, self.now, ticket))
        if ticket.step is WAIT and self._patience < math.inf:
            self._at(ticket.deadline, self._give_up, ticket)

    def _give_up(self, ticket: Ticket) -> None:
        if ticket.step is WAIT:
            self._obey(self.ledger.leave(ticket, self.now))
            self._woken(ticket)

    def _end(self, came: float, how: int) -> None:
        self.outcome.add(came, self.now - came, how)

    def _use(self, entry: Entry, came: float) -> None:
        self._end(came, SERVED)
        self._at(self.now + self._work(), self._give_back, entry)

    def _give_back(self, entry: Entry) -> None:
        ledger, now = self.ledger, self.now
        looped = entry.code
        if self._is_dead(entry):
            self.outcome.broken += 1
            self._obey(ledger.checkin(entry, now, reusable=False))
        elif not ledger.give(entry, now):
            away: list[Ticket] = []
            head = ledger.hand(entry, now, away)
            for ticket in away:
                self._woken(ticket)
            if head is None:
                self._obey(ledger.checkin(entry, now))
            else:
                self._woken(head)
        self._again(looped)

    def _again(self, looped: bool) -> None:
        if looped and self._think is not None:
            self._at(self.now + self._think(), self._arrive, True)

    # --- Connections ------------------------------------------------------------------------------------------------

    def _is_dead(self, entry: Entry) -> bool:
        """The server has gone since it was opened: a look at its socket shows it."""
        return entry.opened_at < self._fails_at <= self.now

    def _connected(self, entry: Entry) -> None:
        if self._fails_at <= self.now < self._works_at:
            self.outcome.failed_connects += 1
            self._obey(self.ledger.failed(entry, self.now, ConnectionRefusedError("simulated outage")))
        else:
            self.outcome.connects += 1
            self._obey(self.ledger.opened(entry, self.now))

    def _closed(self, entry: Entry) -> None:
        self._obey(self.ledger.closed_one(entry, self.now))

    def _obey(self, orders: Orders) -> None:
        for ticket in orders.wake:
            self._woken(ticket)
        for entry in orders.open:
            self._at(self.now + self._connect, self._connected, entry)
        for entry in orders.close:
            self._at(self.now, self._closed, entry)
        if orders.open or orders.close:
            counts = self.ledger.counts()
            self.outcome.sizes.append((self.now, counts.total - counts.closing))

    def _at(self, when: float, happen: Callable[[Any], None], subject: Any) -> None:
        heapq.heappush(self._plan, (when, next(self._order), happen, subject))


def _draw(scenario: Scenario, what: str) -> random.Random:
    """For each use of chance one of its own: with another pool the same requests come."""
    return random.Random(f"{scenario.seed} {what}")


def _poisson(rate: float, draw: random.Random) -> Iterator[float]:
    now = 0.0
    while True:
        now += draw.expovariate(rate)
        yield now


def _service(scenario: Scenario) -> Callable[[], float]:
    """What draws the seconds of a use, of the mean that was asked for."""
    mean, sigma, draw = scenario.service, scenario.sigma, _draw(scenario, "service")
    if scenario.spread == "exponential":
        return lambda: draw.expovariate(1 / mean)
    if scenario.spread == "lognormal":
        middle = math.log(mean) - sigma * sigma / 2
        return lambda: draw.lognormvariate(middle, sigma)
    return lambda: mean
