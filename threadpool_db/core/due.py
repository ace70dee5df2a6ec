"""What must be done because time has passed, and when is the next thing due?

Parts of the ledger's ``tick``, each about one of its own concerns. They see all of the ledger and are called by it
alone, under the same lock.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from threadpool_db.core.entry import IDLE, LEASED, Entry, Reported
from threadpool_db.core.line import Orders, Report
from threadpool_db.core.pace import SHORTEST

if TYPE_CHECKING:
    from threadpool_db.core.ledger import Ledger

#: As many idle connections are asked after at a time; the rest stays there to be lent.
ASKED_AT_ONCE = 2


def retire(ledger: Ledger, now: float, orders: Orders) -> None:
    """Close the idle ones past their lifetime, and past ``max_idle`` all but the fewest that are to be kept, coldest
    first. What is lent and past its lifetime is marked."""
    fresh, rules = ledger.rules.freshness, ledger.rules
    worn = [entry for entry in ledger.idle if fresh.worn(entry, now)]
    spare = _beyond(ledger, ledger.sizing.smallest(rules.min_size, rules.max_size)) - len(worn)
    for entry in sorted(ledger.idle, key=lambda entry: entry.last_used):
        if entry not in worn:
            if spare <= 0 or now < entry.last_used + fresh.max_idle:
                continue
            spare -= 1
        ledger.idle.remove(entry)  # first, here and everywhere: the shelf offers nothing that is half let go of
        ledger.let_go(entry, orders)
    for entry in ledger.entries:
        if entry.state is LEASED and now >= entry.expires_at:
            entry.generation = -1  # its time is over: ``give`` will see that it is of none that lives


def _beyond(ledger: Ledger, smallest: float) -> float:
    """So many idle ones need not be kept, if ``smallest`` are to stay connected."""
    connected = len(ledger.entries) - ledger.opening - ledger.closing
    idle = len(ledger.idle) + len(ledger.asking)
    return min(connected - smallest, idle - ledger.rules.min_idle)


def look(ledger: Ledger, now: float, orders: Orders) -> None:
    """Ask the sizing whether time has told it something, and close what it has idle for too long, one by one, coldest
    first. Never what the rules keep, nor while somebody waits."""
    if ledger.closed:
        return
    while True:
        coldest, head = ledger.coldest if ledger.idle else None, ledger.line.head
        idle_for = 0.0 if coldest is None else now - coldest.last_used
        advice = ledger.sizing.look(ledger.counts(), idle_for, 0.0 if head is None else now - head.since, now)
        ledger.look_at = max(advice.again, now + SHORTEST)
        if not advice.close or coldest is None or head is not None or _beyond(ledger, ledger.rules.min_size) <= 0:
            return
        ledger.idle.remove(coldest)
        ledger.let_go(coldest, orders)


def overheld(ledger: Ledger, now: float, orders: Orders) -> None:
    """Take away what was lent for longer than ``max_lease``, report what was for ``leak_after``, and what no longer."""
    holding = ledger.rules.holding
    if holding.patience == math.inf:
        return
    for entry in [entry for entry in ledger.entries if entry.state is LEASED and entry not in ledger.asking]:
        seconds = now - entry.in_use_since
        if isinstance(entry, Reported) and entry.in_use_since != entry.reported_use:
            over(entry, now, orders, "rested")  # one operation of a thread that keeps it: no short way passed here
        if holding.expired(entry, now):
            take_away(ledger, entry, now, orders)
            orders.reports.append(Report("expired", entry, seconds))
            continue
        if holding.leaks(entry, now):
            entry.reported_at = entry.in_use_since
            orders.reports.append(Report("leak", entry, seconds))
        if seconds >= holding.inactive_after and not entry.is_kept:
            orders.reports.append(Report("quiet?", entry, seconds))


def over(entry: Entry, now: float, orders: Orders, kind: str = "returned") -> None:
    """A use ends. If people have heard of it, they are to hear of that too."""
    if isinstance(entry, Reported):
        end = now if entry.in_use_since == entry.reported_use else entry.last_used
        orders.reports.append(Report(kind, entry, end - entry.reported_use))
        entry.close_report()


def take_away(ledger: Ledger, entry: Entry, now: float, orders: Orders) -> None:
    """From a borrower who may be in the middle of a call; it fails at once, and all later ones do."""
    entry.expired_after = max(now - entry.in_use_since, 1e-9)
    entry.unfit = True
    entry.uses += 1
    ledger.use_times.add(now - entry.taken_at)
    ledger.let_go(entry, orders)
    orders.cut.append(entry)


def ask(ledger: Ledger, now: float, orders: Orders) -> None:
    """Take those that have been silent for ``keepalive`` off the shelf, a few at a time, and have them asked."""
    ask_at = ledger.rules.freshness.ask_at
    for entry in sorted((entry for entry in ledger.idle if entry.state is IDLE), key=ask_at):
        if len(ledger.asking) >= ASKED_AT_ONCE or now < ask_at(entry):
            break
        ledger.idle.remove(entry)
        entry.become(LEASED)
        entry.taken_at = now
        entry.holder = entry.code = None
        ledger.asking.add(entry)
        orders.ask.append(entry)


def next_due(ledger: Ledger, now: float) -> float:
    """When all that was due has been done: the next moment at which time alone gives something to do."""
    fresh, holding = ledger.rules.freshness, ledger.rules.holding
    moments = [ledger.reach.fill_at, math.inf if ledger.closed else ledger.look_at]
    if not ledger.closed:
        moments.append(ledger.reach.patient_until)  # from then on nobody waits, and it is tried though nobody asks
    for entry in () if ledger.closed else ledger.entries:
        if entry.state in (IDLE, LEASED):  # it may be lent and come back by the short ways, which plan nothing
            moments += (entry.expires_at, now + ledger.unattended)
        if entry.state is IDLE:
            moments += (entry.last_used + fresh.max_idle, fresh.ask_at(entry))
    if holding.patience < math.inf:  # also of a closed pool
        moments += (holding.look_at(entry, now) for entry in ledger.entries if entry.state is LEASED)
    return min((moment for moment in moments if moment > now), default=math.inf)
