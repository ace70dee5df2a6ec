"""What must hold while a database is out of reach? A watch over the pools of one server, beside that of ``world.py``.

refused for a reason  whoever is refused as it is out of reach is so while nothing is connected and connects have failed
                      for ``grace``, and his error has the pool's numbers and the cause
nobody waits          from then on nobody is in line; and somebody will look when that moment comes
one tries             of all pools of the server one begins a connect in each step of the backoff
somebody tries        where there is a keeper, whether or not anybody asks
it is over            with the first success, for the pool and for all others of that server
the way back          is a ramp: one connect at the success, and no more than four in the first second

Read from what the ledger is told and from what it orders. How it counts, and what the pools of a server know in common,
is watched from outside: it may be wrong.
"""

from __future__ import annotations

import math
from typing import Any

from tests.core.promises import Broken
from tests.interleave.kept import KeptWorld
from tests.interleave.world import World, next_try
from threadpool_db.borrowing import PATROL
from threadpool_db.core.entry import IDLE, LEASED, OPENING
from threadpool_db.core.line import Refusal
from threadpool_db.core.outage import RAMP, RAMP_CONNECTS

A_BIT = 1e-9


class Server:
    """One server, as its pools should know it. ``delay``: of each step of the backoff.

    Pools ask and tell under different locks, so what two of them do at once has no order; only where one call had ended
    before the other began something is to be said.
    """

    def __init__(self, worlds: tuple[World, ...]) -> None:
        self._worlds = worlds
        self._delay = worlds[0].config.backoff.after(None, 0.5)
        self._failing = False
        self._since = self._back_at = -math.inf
        self._ramp = False
        self._begun: list[float] = []  # since then
        self._changing = self._changes = 0

    def fail(self, promise: str, detail: str) -> None:
        if not any(world.hurt for world in self._worlds):
            self._worlds[0].s.fail(Broken(promise, detail))

    def admits(self, known: Any, now: float) -> bool:
        changes, calm = self._changes, not self._changing
        admitted: bool = known.admits(now)
        if admitted and calm and changes == self._changes:
            self._look_at_begin(now)
        return admitted

    def _look_at_begin(self, now: float) -> None:
        if self._failing:
            if any(abs(now - other) < self._delay - A_BIT for other in self._begun):
                self.fail("one tries", f"a connect began at {now:g}, others at {self._begun}")
            self._begun.append(now)
        elif self._ramp and now < self._back_at + RAMP:
            self._begun = sorted([*self._begun, now])
            steps = [self._back_at + number * RAMP / RAMP_CONNECTS for number in range(len(self._begun))]
            if any(begun < step - A_BIT for begun, step in zip(self._begun, steps, strict=True)):
                self.fail("the way back", f"it is there since {self._back_at:g}, and connects began at {self._begun}")

    def failed(self, known: Any, started: float, now: float, delay: float) -> None:
        self._changing += 1
        self._changes += 1
        try:
            known.failed(started, now, delay)
        finally:
            self._changing -= 1
        if started >= self._back_at and not self._failing:
            self._failing, self._since, self._begun = True, now, []

    def connected(self, known: Any, now: float) -> None:
        self._changes += 1
        changes, calm = self._changes, not self._changing
        self._changing += 1
        try:
            known.connected(now)
        finally:
            self._changing -= 1
        if calm and changes == self._changes and known._step is not None and known._step.failing:
            self.fail("it is over", "a connect has succeeded, and the others do not know")
        if self._failing:
            self._ramp = now - self._since >= RAMP
            self._failing, self._back_at, self._begun = False, now, []


class Known:
    """What the pool was given to know of its server, overheard."""

    def __init__(self, server: Server, known: Any) -> None:
        self._server, self._known = server, known
        self.told = -math.inf  # when it may try next, as it heard last: what other pools find out it hears when it asks
        self.answers: list[float] = []  # in this event
        self.admitted = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._known, name)

    def next_at(self, now: float) -> float:
        moment: float = self._known.next_at(now)
        self.answers.append(moment)
        # where another pool connects between two answers, whoever believed the first has no hour to look again
        self.told = moment if moment >= max(self.answers) else now + PATROL
        return moment

    def admits(self, now: float) -> bool:
        admitted = self._server.admits(self._known, now)
        self.admitted += admitted
        return admitted

    def failed(self, started: float, now: float, delay: float) -> None:
        self._server.failed(self._known, started, now, delay)

    def connected(self, now: float) -> None:
        self.told = -math.inf
        self._server.connected(self._known, now)


class Watch:
    """Over one pool of it."""

    def __init__(self, w: World, server: Server) -> None:
        self._w = w
        self._ledger = ledger = w.ledger
        self._grace = ledger.rules.grace
        self._failing_since = math.inf
        self._failed_at = -math.inf
        self._entries: dict[Any, None] = dict.fromkeys(ledger.entries)
        self._late_since = math.inf
        ledger.reach.server = Known(server, ledger.reach.server)
        ledger.opened = self._hears(ledger.opened, self._opened)
        ledger.failed = self._hears(ledger.failed, self._failed)
        ledger.overdue = self._hears(ledger.overdue, self._failed)
        w.pool._take_orders = self._take_orders(w.pool._take_orders)
        w.pool._lock.watches += (self._at_release,)
        w.at_refusal = self._at_refusal
        w.s.at_rest.append(self._at_rest)

    def out_of_reach(self) -> bool:
        connected = any(entry.state in (IDLE, LEASED) for entry in self._ledger.entries)
        return not connected and self._w.s.time >= self._failing_since + self._grace

    def _fail(self, promise: str, detail: str) -> None:
        if not self._w.hurt:
            self._w.s.fail(Broken(promise, detail))

    def _hears(self, event: Any, told: Any) -> Any:
        def listening(entry: Any, now: float, *rest: Any, **more: Any) -> Any:
            awaited = entry.state is OPENING  # else it was given up meanwhile, or is told too late that it should be
            orders = event(entry, now, *rest, **more)
            if awaited:
                told(now)
            return orders

        return listening

    def _opened(self, now: float) -> None:
        self._failing_since, self._failed_at = math.inf, -math.inf
        if self._ledger.reach.failing_since < math.inf or self._ledger.reach.error is not None:
            self._fail("it is over", "a connect has succeeded, and the pool has not noticed")

    def _failed(self, now: float) -> None:
        self._failing_since = min(self._failing_since, now)
        self._failed_at = now

    def _take_orders(self, take: Any) -> Any:
        def listening(orders: Any, *rest: Any) -> None:
            refused = [ticket for ticket in orders.wake if ticket.refusal is Refusal.UNAVAILABLE]
            if refused and not self.out_of_reach():
                self._fail("refused for a reason", f"{refused}, failing since {self._failing_since:g}")
            take(orders, *rest)

        return listening

    def _at_refusal(self, error: BaseException) -> None:
        if type(error).__name__ != "PoolUnavailable":
            return
        snapshot = getattr(error, "snapshot", None)
        if snapshot is None or snapshot.counts.max_size != self._ledger.rules.max_size:
            self._fail("refused for a reason", f"an error with {snapshot!r}")
        if not isinstance(error.__cause__, OSError):
            self._fail("refused for a reason", f"an error with the cause {error.__cause__!r}")

    def _at_release(self) -> None:
        ledger, gone = self._ledger, self.out_of_reach()
        ledger.reach.server.answers.clear()
        begun = [entry for entry in ledger.entries if entry not in self._entries]
        if len(begun) > ledger.reach.server.admitted:
            self._fail("one tries", "a connect began, and the pool has not asked what the others know")
        ledger.reach.server.admitted = 0
        for entry in begun:
            if entry.opened_at < self._failed_at + self._w.config.backoff.shortest - A_BIT:
                self._fail("one tries", f"it failed at {self._failed_at:g}, and began again at {entry.opened_at:g}")
            if gone:
                self._w.outcomes["tried"] += 1
        self._entries = dict.fromkeys(ledger.entries)

    def _at_rest(self) -> None:
        w, ledger = self._w, self._ledger
        waiting = list(ledger.line)
        if self.out_of_reach():
            if w.hurt:
                self._look_at_the_hurt(waiting)
            elif waiting:
                self._fail("nobody waits", f"{waiting} do, it has failed since {self._failing_since:g}")
            elif isinstance(w, KeptWorld) and not (ledger.opening or ledger.closed):
                self._look_at_prober(w)
        elif waiting and not w.hurt and self._failing_since < math.inf:
            self._look_at_watch(waiting[0], self._failing_since + self._grace)

    def _look_at_prober(self, w: KeptWorld) -> None:
        moment = next_try(self._ledger, w.s.time)
        planned = min((when for when, _ in w._alarms("_tend")), default=math.inf)
        if w.could_open(at=moment) and (moment <= w.s.time or planned > moment):
            self._fail("somebody tries", f"one might at {moment:g}, and planned is {planned:g}")

    def _look_at_watch(self, head: Any, moment: float) -> None:
        w = self._w
        if isinstance(w, KeptWorld):
            awake = min((when for when, _ in w._alarms("_tend")), default=math.inf)
        else:
            task = w.task(head.holder.name)
            awake = math.inf if task is None else task.until
        if moment > w.s.time and awake > moment:
            self._fail("nobody waits", f"{head!r} is to be refused at {moment:g}, and somebody looks at {awake:g}")

    def _look_at_the_hurt(self, waiting: list[Any]) -> None:
        if not waiting:
            self._late_since = math.inf
        elif self._w.s.time > self._late_since + PATROL + A_BIT:
            self._w.find(f"nobody waits: {waiting} do, out of reach for longer than a patrol")
        else:
            self._late_since = min(self._late_since, self._w.s.time)


def watch(*worlds: World) -> None:
    """That play with one server."""
    server = Server(worlds)
    for w in worlds:
        w.allowed.add("unavailable")
        Watch(w, server)
