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
import math
from collections.abc import Callable, Iterable
from typing import Any

from threadpool_db.arrivals import arrivals, draw, service, sizing, thoughts
from threadpool_db.core.entry import OPENING
from threadpool_db.core.ledger import Ledger
from threadpool_db.core.line import Ticket
from threadpool_db.core.outage import Outage
from threadpool_db.core.overload import MaxWaiting
from threadpool_db.core.rules import Rules
from threadpool_db.outcome import Outcome
from threadpool_db.processes import Processes
from threadpool_db.scenario import Scenario
from threadpool_db.simulated import Course, SimulatedPool


def simulate(scenario: Scenario, progress: Callable[[float], None] | None = None) -> Outcome:
    """Run it to its end. ``progress`` is told the share that is done, about a hundred times. Of many tenants or several
    processes it is a ``SharedOutcome``."""
    run = Processes(scenario) if scenario.tenants or scenario.processes > 1 else _one_pool(scenario)
    if progress is not None:
        for hundredth in range(1, 101):
            run.run(scenario.duration * hundredth / 100)
            progress(hundredth / 100)
    return run.run(scenario.duration)


def _one_pool(scenario: Scenario) -> Simulation:
    run = Simulation(
        arrivals(scenario),
        service(scenario),
        scenario.config().rules(),
        patience=scenario.timeout,
        connect=scenario.connect,
        outage=scenario.outage,
        draw=draw(scenario, "ledger").random,
        server=Outage(),
        sizing=sizing(scenario),
        overload=MaxWaiting(math.inf if scenario.max_waiting is None else scenario.max_waiting),
        shed=scenario.shed,
    )
    run.outcome.warm_up = scenario.warm_up
    if scenario.threads:
        run.loop(int(scenario.threads), thoughts(scenario))
    return run


class Simulation:
    """One pool's run, which may go on: ``run(5)``, a look, ``run(10)``. ``arrivals``: when who comes, in order;
    ``work`` draws the seconds of a use; ``patience``: of each who waits; ``connected``: so many are there before the
    first one comes. The rest is the ledger's."""

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
        self.course = Course(patience)
        self._pool = SimulatedPool(self.course, self.ledger, self.outcome, work, connect, outage)
        self._arrivals = iter(arrivals)
        self._begin_with(connected)
        self._next_arrival()
        self._pool.obey(self.ledger.tick(0.0))

    def _begin_with(self, connected: int) -> None:
        first = [Ticket(holder="seen") for _ in range(connected)]
        for ticket in first:
            self._pool.obey(self.ledger.join(ticket, 0.0))
        for entry in [entry for entry in self.ledger.entries if entry.state is OPENING]:
            self._pool.connected(entry)
        self.course.plan.clear()
        self._pool.planned = math.inf
        for ticket in first:
            assert ticket.entry is not None
            self._pool.obey(self.ledger.checkin(ticket.entry, 0.0))

    @property
    def now(self) -> float:
        return self.course.now

    def loop(self, threads: int, think: Callable[[], float]) -> None:
        """So many threads, each of which thinks, asks, and when that has ended thinks again."""

        def ask(_: None) -> None:
            self._pool.ask(again)

        def again() -> None:
            self.course.at(self.course.now + think(), ask)

        for _ in range(threads):
            again()

    def run(self, until: float) -> Outcome:
        """On to this moment, what happens at it excluded."""
        self.course.run(until)
        self.outcome.until, self.outcome.waiting = until, len(self.ledger.line)
        return self.outcome

    def _next_arrival(self) -> None:
        when = next(self._arrivals, None)
        if when is not None:
            self.course.at(when, self._come)

    def _come(self, _: None) -> None:
        self._next_arrival()
        self._pool.ask()
