"""What does a pool do in simulated time? Its real ledger, called as the pool calls it, the short ways first.

A ``Course`` is a clock that jumps from event to event; any number of pools may live by one. Nothing here is drawn by
chance: who comes, and how long a use takes, is told from outside.
"""

from __future__ import annotations

import heapq
import itertools
import math
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from threadpool_db.core.entry import Entry
from threadpool_db.core.ledger import Ledger
from threadpool_db.core.line import USE, WAIT, Orders, Refusal, Ticket
from threadpool_db.outcome import FULL, LATE, SERVED, SHED, UNREACHABLE, Outcome

_WHY = {
    None: LATE,
    Refusal.SHED: SHED,
    Refusal.FULL: FULL,
    Refusal.CONNECT_FAILED: UNREACHABLE,
    Refusal.UNAVAILABLE: UNREACHABLE,
}

#: What one of an app's own threads does when its request has ended; None: it was somebody who comes once.
Again = Callable[[], None] | None


class Course:
    """Simulated time, in seconds, and what is to happen in it; ``patience``: of each who waits, for all the same.

    It knows by a weak reference who is to be looked after, or is waited for no longer, as the keeper does: a pool of
    many that is dropped is gone, with all that it knew, or its ledger would go on asking for permits.
    """

    def __init__(self, patience: float = math.inf) -> None:
        self.now = 0.0
        self.patience = patience
        self.plan: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._order = itertools.count()
        self._impatient: deque[tuple[Ticket, weakref.ref[SimulatedPool]]] = deque()  # who came first gives up first

    def at(self, when: float, happen: Callable[[Any], None], subject: Any = None) -> None:
        heapq.heappush(self.plan, (when, next(self._order), happen, subject))

    def waits(self, ticket: Ticket, pool: SimulatedPool) -> None:
        """From now on; its deadline is noted in it."""
        if self.patience < math.inf:
            self._impatient.append((ticket, weakref.ref(pool)))

    def run(self, until: float) -> None:
        """On to this moment, what happens at it excluded."""
        plan, impatient, next_one = self.plan, self._impatient, heapq.heappop
        while True:
            while impatient and impatient[0][0].step is not WAIT:
                impatient.popleft()
            when = plan[0][0] if plan else math.inf
            if impatient and impatient[0][0].deadline <= when:
                late = impatient[0][0].deadline
                if late >= until:
                    break
                self.now = max(self.now, late)
                _give_up(impatient.popleft())
            elif when >= until:
                break
            else:
                self.now, _, happen, subject = next_one(plan)
                happen(subject)
        self.now = max(self.now, until)


class SimulatedPool:
    """``work`` draws the seconds of a use; a connect takes ``connect``. ``outage``: from the first moment to the second
    connects fail, and what was connected before is dead."""

    def __init__(
        self,
        course: Course,
        ledger: Ledger,
        outcome: Outcome,
        work: Callable[[], float],
        connect: float = 0.0,
        outage: tuple[float, float] | None = None,
    ) -> None:
        self.course, self.ledger, self.outcome = course, ledger, outcome
        self._work, self._connect = work, connect
        self._fails_at, self._works_at = outage or (math.inf, math.inf)
        self.many = 0  # connections, those being opened included
        self.planned = math.inf  # it is to be looked after then

    # --- Requests ---------------------------------------------------------------------------------------------------

    def ask(self, again: Again = None) -> None:
        """A request, now. ``again`` is noted in the ``code`` of its ticket and of its connection."""
        ledger, now = self.ledger, self.course.now
        entry = ledger.take(now)
        if entry is not None and not self._is_dead(entry):
            entry.code = again
            self._use(entry, now)
            return
        ticket = Ticket(code=again)
        ticket.deadline = now + self.course.patience
        if entry is not None:
            ticket.arrival, ticket.since = ledger.arrivals - 1, now
            ticket.grant(USE, entry)
        elif not (ledger.queue(ticket, now) or ledger.keep_out(ticket, now)):
            self.obey(ledger.join(ticket, now))
        if ticket.step is not WAIT:
            self._woken(ticket)
        else:
            self.course.waits(ticket, self)

    def _woken(self, ticket: Ticket) -> None:
        """Once: ``holder`` says that it was seen to."""
        if ticket.step is WAIT or ticket.holder is not None:
            return
        entry = ticket.entry
        if entry is None:
            ticket.holder = "seen"
            self._end(ticket.since, _WHY[ticket.refusal])
            _go_on(ticket.code)
        elif self._is_dead(entry):
            self.course.at(self.course.now, self._replace, ticket)  # not at once: each may be followed by a dead one
        else:
            ticket.holder = "seen"
            self._use(entry, ticket.since)

    def _replace(self, ticket: Ticket) -> None:
        assert ticket.entry is not None
        self.obey(self.ledger.dead(ticket.entry, self.course.now, ticket))
        if ticket.step is WAIT and self.course.patience < math.inf:
            self.course.at(ticket.deadline, _give_up, (ticket, weakref.ref(self)))

    def give_up(self, ticket: Ticket) -> None:
        if ticket.step is WAIT:
            self.obey(self.ledger.leave(ticket, self.course.now))
            self._woken(ticket)

    def _end(self, came: float, how: int) -> None:
        self.outcome.add(came, self.course.now - came, how)

    def _use(self, entry: Entry, came: float) -> None:
        self._end(came, SERVED)
        self.course.at(self.course.now + self._work(), self._give_back, entry)

    def _give_back(self, entry: Entry) -> None:
        ledger, now = self.ledger, self.course.now
        again = entry.code
        if self._is_dead(entry):
            self.outcome.broken += 1
            self.obey(ledger.checkin(entry, now, reusable=False))
        elif not ledger.give(entry, now):
            away: list[Ticket] = []
            head = ledger.hand(entry, now, away)
            for ticket in away:
                self._woken(ticket)
            if head is None:
                self.obey(ledger.checkin(entry, now))
            else:
                self._woken(head)
        _go_on(again)

    # --- Connections ------------------------------------------------------------------------------------------------

    def _is_dead(self, entry: Entry) -> bool:
        """The server has gone since it was opened: a look at its socket shows it."""
        return entry.opened_at < self._fails_at <= self.course.now

    def connected(self, entry: Entry) -> None:
        """A connect ends."""
        now = self.course.now
        if self._fails_at <= now < self._works_at:
            self.outcome.failed_connects += 1
            self.obey(self.ledger.failed(entry, now, ConnectionRefusedError("simulated outage")))
        else:
            self.outcome.connects += 1
            self.obey(self.ledger.opened(entry, now))

    def closed(self, entry: Entry) -> None:
        """A goodbye was said."""
        self.obey(self.ledger.closed_one(entry, self.course.now))

    # --- What the ledger wants --------------------------------------------------------------------------------------

    def obey(self, orders: Orders) -> None:
        """What follows from an event. No other event may come between: here nothing is done but planned."""
        self.carry_out(orders)

    def carry_out(self, orders: Orders) -> None:
        for ticket in orders.wake:
            self._woken(ticket)
        for entry in orders.open:
            self.open(entry)
        for entry in orders.close:
            self.close(entry)
        many = len(self.ledger.entries) - self.ledger.closing
        if many != self.many:
            self.sized(many - self.many)
        due = self.ledger.due
        if due < math.inf and not self.course.now < self.planned <= due:  # as ``Background.plan``
            self.planned = due
            self.course.at(max(due, self.course.now), _tend, (weakref.ref(self), due))

    def open(self, entry: Entry) -> None:
        """Begin to connect: ``connected`` follows."""
        self.course.at(self.course.now + self._connect, self.connected, entry)

    def close(self, entry: Entry) -> None:
        """It takes no time, and ``closed`` follows: but what else happens at this moment happens before."""
        self.course.at(self.course.now, self.closed, entry)

    def sized(self, change: int) -> None:
        """It has so many connections more, or less."""
        self.many += change
        self.outcome.sizes.append((self.course.now, self.many))

    def tend(self, planned: float) -> None:
        """Something may be due, if nothing was planned in this one's place."""
        if planned != self.planned:
            return
        self.planned = math.inf
        due = self.ledger.due <= self.course.now
        self.obey(self.ledger.tick(self.course.now) if due else Orders())


def _tend(planned: tuple[weakref.ref[SimulatedPool], float]) -> None:
    pool = planned[0]()
    if pool is not None:
        pool.tend(planned[1])


def _give_up(waits: tuple[Ticket, weakref.ref[SimulatedPool]]) -> None:
    pool = waits[1]()
    if pool is not None:
        pool.give_up(waits[0])


def _go_on(again: Again) -> None:
    if again is not None:
        again()
