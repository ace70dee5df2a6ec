"""What would several processes do, each with its tenants' pools under one budget? Real ledgers and real permits.

A tenant's pool is made at its first use and dropped, with all that it knows, when it has no connection and nobody
waits, as ``TenantPools`` does. Each process has permits of its own; what they meet in is the servers. All live by one
clock, so that what a server has is known at each moment. Without tenants each process has one pool, which lasts.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import weakref
from collections import deque
from collections.abc import Callable

from threadpool_db.arrivals import arrivals, draw, service, sizing, tenant, thoughts
from threadpool_db.background import BUDGET_CONNECTS
from threadpool_db.core.entry import Entry
from threadpool_db.core.ledger import Ledger
from threadpool_db.core.line import Orders
from threadpool_db.core.outage import Outage
from threadpool_db.core.overload import MaxWaiting
from threadpool_db.indexed_permits import IndexedPermits
from threadpool_db.scenario import Scenario
from threadpool_db.shared_outcome import SAMPLES, SharedOutcome
from threadpool_db.simulated import Again, Course, SimulatedPool


class Processes:
    """One run, which may go on, as ``Simulation``: ``run(5)``, a look, ``run(10)``."""

    def __init__(self, scenario: Scenario) -> None:
        self.course = Course(scenario.timeout)
        self.outcome = SharedOutcome(int(scenario.servers), scenario.warm_up)
        self._samples = (scenario.duration * n / SAMPLES for n in range(1, SAMPLES + 1))
        self._sample_at = next(self._samples)
        self.course.at(scenario.warm_up, self._warmed_up)
        make = _Pools(scenario, self.course, self.outcome)
        self.processes = [Process(scenario, make) for _ in range(int(scenario.processes))]
        self._arrivals = arrivals(scenario)
        self._tenant = tenant(scenario, "tenants")
        self._process = draw(scenario, "processes").random
        for process in self.processes if not scenario.tenants else ():
            pool = process.pool(0)
            pool.obey(pool.ledger.tick(0.0))  # it may have a min_size
        self._next_arrival()
        think, whose = thoughts(scenario), tenant(scenario, "tenants of threads")
        for _, process in zip(range(int(scenario.threads)), itertools.cycle(self.processes), strict=False):
            self._thread(process, think, whose)

    def run(self, until: float) -> SharedOutcome:
        """On to this moment, what happens at it excluded."""
        while self._sample_at <= until:
            self.course.run(self._sample_at)
            self.outcome.sample(self._sample_at, self._evictions)
            self._sample_at = next(self._samples, math.inf)
        self.course.run(until)
        self.outcome.until, self.outcome.evictions = until, self._evictions
        self.outcome.waiting = sum(process.waiting for process in self.processes)
        return self.outcome

    @property
    def _evictions(self) -> int:
        return sum(process.evictions for process in self.processes)

    def _warmed_up(self, _: None) -> None:
        self.outcome.warmed_up(self._evictions)

    def _next_arrival(self) -> None:
        when = next(self._arrivals, None)
        if when is not None:
            self.course.at(when, self._come)

    def _come(self, _: None) -> None:
        self._next_arrival()
        self.processes[int(self._process() * len(self.processes))].ask(self._tenant())

    def _thread(self, process: Process, think: Callable[[], float], whose: Callable[[], int]) -> None:
        """One that thinks, asks, and when that has ended thinks again."""

        def ask(_: None) -> None:
            process.ask(whose(), again)

        def again() -> None:
            self.course.at(self.course.now + think(), ask)

        again()


class Process:
    """One worker: its permits, and a pool for each tenant that it uses now."""

    def __init__(self, scenario: Scenario, make: _Pools) -> None:
        self._make = make
        self._lasting = not scenario.tenants
        budget = scenario.budget
        self.permits = None if budget is None else IndexedPermits(int(budget))
        # as ``Background.follow``
        workers = max(scenario.max_connecting, 0 if budget is None else min(budget, BUDGET_CONNECTS)) + 1
        self._servers = [
            Server(number, workers, scenario.outage is not None) for number in range(int(scenario.servers))
        ]
        self._pools: dict[int, TenantPool] = {}
        self._of: dict[Ledger, TenantPool] = {}

    @property
    def evictions(self) -> int:
        return 0 if self.permits is None else self.permits.passed_on

    @property
    def waiting(self) -> int:
        return sum(len(ledger.line) for ledger in self._of)

    def server_of(self, tenant: int) -> Server:
        return self._servers[tenant % len(self._servers)]

    def ask(self, tenant: int, again: Again = None) -> None:
        """A request for this tenant, now."""
        pool = self._pools.get(tenant) or self.pool(tenant)
        pool.ask(again)
        if not pool.ledger.entries:
            self._drop_if_unused(pool)

    def pool(self, tenant: int) -> TenantPool:
        """A new one for this tenant, who has none."""
        pool = self._pools[tenant] = self._make(self, tenant)
        self._of[pool.ledger] = pool
        return pool

    def settle(self, pool: TenantPool, now: float) -> None:
        """After each event of this pool: what it means for the others."""
        permits = self.permits
        if permits is not None and permits.rivals:
            for ledger, orders in permits.settle(now):
                self._of[ledger].carry_out(orders)
        if not pool.ledger.entries:
            self._drop_if_unused(pool)

    def _drop_if_unused(self, pool: TenantPool) -> None:
        unused = not (self._lasting or pool.ledger.entries or pool.ledger.line)
        if unused and self._pools.get(pool.tenant) is pool:  # what was planned for it may come when it was dropped
            del self._pools[pool.tenant], self._of[pool.ledger]


class Server:
    """One server, as one process sees it: ``workers`` connect at a time, the rest waits in order. What is known of its
    being out of reach, if it ``fails`` at all, is kept as long as one of its pools lives."""

    def __init__(self, number: int, workers: float, fails: bool) -> None:
        self.number, self._fails = number, fails
        self._free = workers
        self._jobs: deque[tuple[TenantPool, Entry]] = deque()
        self._outage: weakref.ref[Outage] | None = None

    def outage(self) -> Outage | None:
        if not self._fails:
            return None  # a tenth of the time went into asking it
        known = None if self._outage is None else self._outage()
        if known is None:
            known = Outage()
            self._outage = weakref.ref(known)
        return known

    def open(self, pool: TenantPool, entry: Entry) -> None:
        if self._free > 0:
            self._free -= 1
            pool.begin(entry)
        else:
            self._jobs.append((pool, entry))

    def ended(self) -> None:
        """A worker is free."""
        self._free += 1
        if self._jobs:
            self.open(*self._jobs.popleft())


class TenantPool(SimulatedPool):
    """One of many of its process."""

    outcome: SharedOutcome

    def __init__(
        self,
        process: Process,
        tenant: int,
        course: Course,
        ledger: Ledger,
        outcome: SharedOutcome,
        work: Callable[[], float],
        scenario: Scenario,
    ) -> None:
        super().__init__(course, ledger, outcome, work, scenario.connect, scenario.outage)
        self.process, self.tenant = process, tenant
        self._server, self._permits = process.server_of(tenant), process.permits

    def obey(self, orders: Orders) -> None:
        self.carry_out(orders)
        self.process.settle(self, self.course.now)

    def close(self, entry: Entry) -> None:
        if self._permits is not None:
            self._permits.closing += 1
        super().close(entry)

    def closed(self, entry: Entry) -> None:
        if self._permits is not None:
            self._permits.closing -= 1
        super().closed(entry)

    def open(self, entry: Entry) -> None:
        self._server.open(self, entry)

    def begin(self, entry: Entry) -> None:
        super().open(entry)

    def connected(self, entry: Entry) -> None:
        self._server.ended()
        super().connected(entry)

    def sized(self, change: int) -> None:
        self.many += change
        self.outcome.sized(self._server.number, change)


class _Pools:
    """What all pools of all processes have in common, and how one is made."""

    def __init__(self, scenario: Scenario, course: Course, outcome: SharedOutcome) -> None:
        self._scenario, self._course, self._outcome = scenario, course, outcome
        self._rules = dataclasses.replace(scenario.config().rules(), background=True)
        self._sizing = sizing(scenario)
        self._overload = MaxWaiting(math.inf if scenario.max_waiting is None else scenario.max_waiting)
        self._work = service(scenario)
        self._draw = draw(scenario, "ledger").random

    def __call__(self, process: Process, tenant: int) -> TenantPool:
        ledger = Ledger(
            self._rules,
            self._sizing,
            self._overload,
            process.permits,
            process.server_of(tenant).outage(),
            self._draw,
            self._scenario.shed,
        )
        return TenantPool(process, tenant, self._course, ledger, self._outcome, self._work, self._scenario)
