"""How many connects should be under way, and may one start now?

Parts of how the ledger settles what follows from an event: they see all of it and are called by it alone, under the
same lock. What time has to say after connects have failed is known in the room ``reach``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from threadpool_db.core.entry import Entry

if TYPE_CHECKING:
    from threadpool_db.core.ledger import Ledger


def wanted(ledger: Ledger, now: float) -> float:
    """How many connects should be under way: one for each who waits, and what is to be kept ready. While the
    database is out of reach it is one, whether or not anybody asks: he would be refused."""
    if ledger.unavailable(now):
        return now >= ledger.reach.fill_at and not ledger.closed
    many: float = len(ledger.line)
    if not (ledger.closed or now < ledger.reach.fill_at):
        rules = ledger.rules
        connected = len(ledger.entries) - ledger.opening - ledger.closing
        idle = len(ledger.idle) + len(ledger.asking)
        ready = min(rules.min_idle - idle, ledger.base - connected - many)  # none that is one too many
        many = max(many, many + ready, rules.min_size - connected)
    return many


def could_open(ledger: Ledger, now: float) -> bool:
    """Is nothing of its own in the way of one more? The server's turn and a permit of those it shares may be."""
    rules = ledger.rules
    if ledger.paused:
        return False
    if len(ledger.entries) >= rules.max_size or ledger.opening >= rules.max_connecting:
        return False
    return now >= ledger.reach.retry_at and ledger.sizing.may_open(ledger.counts(), now)


def may_open(ledger: Ledger, now: float) -> bool:
    """True: one is about to be, for a permit and the server's turn have been taken for it."""
    if not could_open(ledger, now):
        return False
    reach, permits = ledger.reach, ledger.permits
    turn = reach.turn_at(now)
    if now >= turn:
        if permits is not None and not permits.take(ledger, now):
            return False
        if reach.admits(now):  # last: a turn that is taken is used
            return True
        if permits is not None:
            permits.free(ledger)  # another pool of that server was faster
    ledger.due = min(ledger.due, turn if now < turn else now)
    return False


def reserve(ledger: Ledger, now: float) -> Entry:
    """The slot, before the connect."""
    ledger.sizing.opens(now)
    entry = Entry(now, ledger.generation)
    ledger.entries.add(entry)
    ledger.opening += 1
    ledger.weigh()
    return entry
