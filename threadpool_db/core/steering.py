"""What may an operator change while it runs? Pause and resume, other rules, a question to one, an end to what is lent.

Events of the ledger, each the part that is about its own concern; the ledger settles what follows from it.

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

if TYPE_CHECKING:
    from threadpool_db.core.freshness import Freshness
    from threadpool_db.core.ledger import Ledger
    from threadpool_db.core.overload import Overload
    from threadpool_db.core.rules import Rules


def pause(ledger: Ledger, orders: Orders) -> None:
    ledger.paused = True
    ledger.weigh()
    ledger.reach.hope()
    ledger._let_all_idle_go(orders)


def resume(ledger: Ledger, now: float) -> None:
    ledger.paused = False
    if ledger.shedding is not None:
        ledger.shedding.begins(now)  # the pause was no overload
    ledger.weigh()


def reconfigure(
    ledger: Ledger, rules: Rules, overload: Overload | None, renew: bool, now: float, orders: Orders
) -> None:
    """Other rules from now on. ``renew``: for connections, too, so that those there are are of an old generation."""
    before = ledger.rules.freshness
    ledger.adopt(rules)
    if overload is not None:
        ledger.overload = overload
    if renew:
        ledger.generation += 1
        ledger._let_all_idle_go(orders)
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


def _other_lifetimes(ledger: Ledger, before: Freshness, now: float) -> None:
    """They count from when each was opened. What is too old already goes by and by, as though it had been drawn for
    each: a server must not be met by all at once."""
    fresh = ledger.rules.freshness
    for entry in ledger.entries:
        if entry.expires_at < entry.opened_at + before.max_lifetime * (1.0 - before.lifetime_jitter):
            continue  # it is to end sooner, for another reason: recycled within a time
        soonest = now + fresh.max_lifetime * fresh.lifetime_jitter * ledger._draw() if fresh.lifetime_jitter else now
        entry.expires_at = max(soonest, fresh.expires_at(entry.opened_at, ledger._draw()))


def shorten_line(ledger: Ledger, now: float, orders: Orders) -> None:
    """Whoever has waited longest goes first: he is the most likely to have given up."""
    while (head := ledger.line.head) is not None and not ledger._admits(len(ledger.line) - 1, now):
        del ledger.line[head]
        head.refuse(Refusal.FULL)
        orders.wake.append(head)


def take_to_ask(ledger: Ledger, entry: Entry, now: float) -> bool:
    """Off the shelf for a question, as in ``due.ask``, if it is there."""
    if entry.state is not IDLE or entry not in ledger.idle:
        return False
    ledger.idle.remove(entry)
    entry.become(LEASED)
    entry.taken_at = now
    entry.holder = entry.code = None
    ledger.asking.add(entry)
    return True


def cut_off(ledger: Ledger, mine: object, now: float, orders: Orders) -> None:
    """Of a closed one: take away what is lent, but for what ``mine``, the holder who closes it, has himself."""
    lent = [entry for entry in ledger.entries if entry.state is LEASED and entry not in ledger.asking]
    for entry in lent:
        if mine is None or entry.holder is not mine:
            orders.reports.append(Report("expired", entry, now - entry.in_use_since))
            take_away(ledger, entry, now, orders)
