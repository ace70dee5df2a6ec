"""What if that is all there is to do? The events that make no order.

They are what a checkout costs. ``take`` and ``give`` are for the case that pays for everything else: one is idle and
fresh, or still good, and nobody waits. ``hand``, ``queue`` and ``keep_out`` are for a crowd: a line that moves only
when something comes back, and a database that is out of reach. Each is tried first, and does nothing where more would
follow from it: then the long event of that kind must be told.

Whether ``take`` and ``give`` may answer alone is worked out beforehand, whenever that changes: see ``adopt`` and
``weigh`` of the ledger.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING

from threadpool_db.core.entry import IDLE, LEASED, Entry
from threadpool_db.core.line import USE, Refusal, Ticket
from threadpool_db.core.serving import admits, arrive
from threadpool_db.core.shedding import first_served, next_look
from threadpool_db.core.stats import BOUNDS

if TYPE_CHECKING:
    from threadpool_db.core.ledger import Ledger


def take(ledger: Ledger, now: float) -> Entry | None:
    """One that is idle and fresh, if there is one; then nobody waits, for nobody ever does while one is idle."""
    idle = ledger.idle
    if not idle:
        return None
    entry = idle[-1]
    if now - entry.last_used >= ledger.carefree or now >= entry.expires_at:
        return None
    # the state first: an interrupt before the pop leaves an entry that says LEASED and has no holder, which can
    # be told apart; a popped entry that still says IDLE could not
    entry.state = LEASED
    entry.taken_at = now
    idle.pop()
    ledger.arrivals += 1
    return entry


def give(ledger: Ledger, entry: Entry, now: float) -> bool:
    """Take it back, if that is all there is to do; False: nothing was done, ``checkin`` must."""
    if ledger.line or ledger.rivals or entry.generation != ledger.generation or now >= ledger.due or not ledger.easy:
        return False
    entry.state = IDLE
    entry.last_used = now
    ledger.shelve(entry)
    used = now - entry.taken_at
    times = ledger.use_times  # Histogram.add, without the call
    times.counts[bisect_left(BOUNDS, used)] += 1
    times.total += used
    return True


def hand(ledger: Ledger, entry: Entry, now: float, away: list[Ticket]) -> Ticket | None:
    """Pass it on to the head of the line, if that is all there is to do: open that gate. None: ``checkin`` must.

    It stays LEASED, and changes its holder: ``checkin`` without orders. Where there is shedding, whoever is passed
    over for it is added to ``away``, in either case: open their gates too.
    """
    head = ledger.line.head
    if (
        head is None
        or head.deadline <= now
        or head.wake_at != math.inf  # it keeps watch for the whole line: the next one must be told to
        or ledger.rivals
        or entry.generation != ledger.generation
        or now >= ledger.due
        or not ledger.easy
        or not ledger.carefree
    ):
        return None
    if ledger.shedding is not None and (
        not ledger.rules.background or (head := first_served(ledger, now, away)) is None
    ):
        return None
    ledger.use_times.add(now - entry.taken_at)
    entry.last_used = entry.taken_at = now
    head.grant(USE, entry)
    ledger.lent += 1
    if now > head.since:
        ledger.wait_times.add(now - head.since)
    del ledger.line[head]
    if ledger.shedding is not None:
        ledger.due = min(ledger.due, next_look(ledger, now))
    return head


def queue(ledger: Ledger, ticket: Ticket, now: float) -> bool:
    """Into a line that moves only when something comes back. False: nothing was done, ``join`` must."""
    if ledger.idle or len(ledger.entries) < ledger.rules.max_size or ledger.closed or now >= ledger.due:
        return False
    if ledger.reach.failing_since < math.inf:  # it is ``failing``, said without a call
        return False
    if ledger.shedding is not None and not ledger.line:
        return False  # it is to be looked at, from now on
    arrive(ledger, ticket, now)
    if admits(ledger, len(ledger.line), now):
        ledger.line[ticket] = None
    else:
        ticket.refuse(Refusal.FULL)
    return True


def keep_out(ledger: Ledger, ticket: Ticket, now: float) -> bool:
    """Refuse at once who comes while the database is out of reach. False: nothing was done, ``join`` must: it may
    be time for another connect."""
    reach = ledger.reach
    if ledger.closed or now >= reach.fill_at or not ledger.unavailable(now):
        return False
    arrive(ledger, ticket, now)
    ticket.refuse(Refusal.UNAVAILABLE, reach.error)
    return True
