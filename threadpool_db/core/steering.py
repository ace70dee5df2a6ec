"""What may an operator do to it while it runs? Renew what is connected, close it, pause and resume, change the rules,
have one asked after.

Events of the ledger, each followed by ``settle``, which sees to what follows from it.

*Paused* means: nothing is lent, opened, asked or kept idle, and whoever comes waits in line. It costs the short ways
nothing: ``take`` finds an empty shelf, and ``give`` and ``hand`` decline where ``weigh`` finds no ease. What the pool
knew of its server's being out of reach is forgotten, for the server may be stopped on purpose: a connect that fails in
a pause begins no outage and refuses nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from threadpool_db.core.due import take_away
from threadpool_db.core.entry import IDLE, LEASED, Entry
from threadpool_db.core.line import Orders, Refusal, Report
from threadpool_db.core.serving import admits, settle

if TYPE_CHECKING:
    from threadpool_db.core.freshness import Freshness
    from threadpool_db.core.ledger import Ledger
    from threadpool_db.core.overload import Overload, Shed
    from threadpool_db.core.rules import Rules


def recycle(ledger: Ledger, now: float, within: float = 0.0) -> Orders:
    """A new generation: idle connections are closed now, all others when they come back. ``within`` seconds: each
    at a random moment of that time, so that the server is not met by all at once."""
    orders = Orders()
    if within > 0:
        for entry in ledger.entries:
            entry.expires_at = min(entry.expires_at, now + within * ledger.draw())
        ledger.due = now
    else:
        ledger.generation += 1
        ledger.let_all_idle_go(orders)
    settle(ledger, now, orders)
    return orders


def clear(ledger: Ledger, now: float) -> Orders:
    """Close what is idle; what is lent stays good."""
    orders = Orders()
    ledger.let_all_idle_go(orders)
    settle(ledger, now, orders)
    return orders


def close(ledger: Ledger, now: float) -> Orders:
    """Refuse whoever waits and whoever comes; close what is idle now and the rest when it comes back."""
    orders = Orders()
    ledger.closed = True
    ledger.generation += 1
    ledger.empty(orders)
    return orders


def cut_off(ledger: Ledger, mine: object, now: float) -> Orders:
    """A closed one waits no longer: what is lent is taken away, but for what ``mine``, a holder, has himself."""
    orders = Orders()
    lent = [entry for entry in ledger.entries if entry.state is LEASED and entry not in ledger.asking]
    for entry in lent:
        if mine is None or entry.holder is not mine:
            orders.reports.append(Report("expired", entry, now - entry.in_use_since))
            take_away(ledger, entry, now, orders)
    settle(ledger, now, orders)
    return orders


def pause(ledger: Ledger, now: float) -> Orders:
    """Lend and open nothing more: close what is idle now, and the rest when it comes back."""
    orders = Orders()
    ledger.paused = True
    ledger.weigh()
    ledger.reach.hope()
    ledger.let_all_idle_go(orders)
    settle(ledger, now, orders)
    return orders


def resume(ledger: Ledger, now: float) -> Orders:
    """Lend again, to those in line first."""
    orders = Orders()
    ledger.paused = False
    if ledger.shedding is not None:
        ledger.shedding.begins(now)  # the pause was no overload
    ledger.weigh()
    settle(ledger, now, orders)
    return orders


def reconfigure(
    ledger: Ledger, rules: Rules, now: float, overload: Overload | None = None, renew: bool = False
) -> Orders:
    """Other rules from now on; with ``renew`` all connections are replaced, as by ``recycle``. Idle ones beyond the
    new ``max_size`` are closed, coldest first, lent ones when they come back; the line is served, or shortened."""
    orders = Orders()
    before = ledger.rules.freshness
    ledger.adopt(rules)
    if overload is not None:
        ledger.overload = overload
    if renew:
        ledger.generation += 1
        ledger.let_all_idle_go(orders)
    if ledger.idle:
        surplus = len(ledger.entries) - ledger.closing - rules.max_size
        for entry in sorted(ledger.idle, key=lambda entry: entry.last_used):  # coldest first
            if surplus <= 0:
                break
            surplus -= 1
            ledger.idle.remove(entry)
            ledger.let_go(entry, orders)
    lifetimes = rules.freshness.max_lifetime, rules.freshness.lifetime_jitter
    if lifetimes != (before.max_lifetime, before.lifetime_jitter):
        _other_lifetimes(ledger, before, now)
    ledger.due = now  # nothing that was planned may hold any more
    settle(ledger, now, orders)
    if overload is not None:
        _shorten_line(ledger, now, orders)
    return orders


def _other_lifetimes(ledger: Ledger, before: Freshness, now: float) -> None:
    """They count from when each was opened. What is too old already goes by and by, as though it had been drawn for
    each: a server must not be met by all at once."""
    fresh = ledger.rules.freshness
    for entry in ledger.entries:
        if entry.expires_at < entry.opened_at + before.max_lifetime * (1.0 - before.lifetime_jitter):
            continue  # it is to end sooner, for another reason: recycled within a time
        soonest = now + fresh.max_lifetime * fresh.lifetime_jitter * ledger.draw() if fresh.lifetime_jitter else now
        entry.expires_at = max(soonest, fresh.expires_at(entry.opened_at, ledger.draw()))


def _shorten_line(ledger: Ledger, now: float, orders: Orders) -> None:
    """Whoever has waited longest goes first: he is the most likely to have given up."""
    while (head := ledger.line.head) is not None and not admits(ledger, len(ledger.line) - 1, now):
        del ledger.line[head]
        head.refuse(Refusal.FULL)
        orders.wake.append(head)


def shed_by(ledger: Ledger, shed: Shed | None, now: float) -> Orders:
    """Other rules about whom to turn away, which know nothing yet; None: nobody."""
    orders = Orders()
    ledger.shedding = None if shed is None else shed.begin()
    if ledger.shedding is not None:
        ledger.shedding.begins(now)
    settle(ledger, now, orders)
    return orders


def take_to_ask(ledger: Ledger, entry: Entry, now: float) -> bool:
    """Off the shelf for a question, as in ``due.ask``, if it is there: then ``asked`` must follow."""
    if entry.state is not IDLE or entry not in ledger.idle:
        return False
    ledger.idle.remove(entry)
    entry.become(LEASED)
    entry.taken_at = now
    entry.holder = entry.code = None
    ledger.asking.add(entry)
    return True
