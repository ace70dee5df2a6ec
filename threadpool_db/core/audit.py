"""What did an interrupt leave undone? Find every trace of it, and mend it.

KeyboardInterrupt, a ``SystemExit`` raised into a thread, a MemoryError: they may fall between any two bytecodes, also
in the middle of an event. The ledger writes in such an order that no connection is ever offered to two. What can be
left is one that nobody answers for, one missing from the shelf or the line, a count that is off. Who answers for a
connection is known from outside by its claim (``held``), so that can be told from work that is merely under way.

An audit that finds nothing changes nothing; ``ledger.mended`` counts what it found.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING

from threadpool_db.core.due import next_due
from threadpool_db.core.entry import CLOSING, GONE, IDLE, LEASED, OPENING, Entry
from threadpool_db.core.line import WAIT, Orders, Report

if TYPE_CHECKING:
    from threadpool_db.core.ledger import Ledger


def audit(ledger: Ledger, now: float, held: Callable[[Entry], bool], orders: Orders) -> None:
    """``held``: does anybody answer for an entry that is not on the shelf?"""
    _sort_out_shelf(ledger)
    for ticket in [ticket for ticket in ledger.line if ticket.step is not WAIT]:
        del ledger.line[ticket]  # served, and still in line
        ledger.mended += 1
    if any(older.arrival > newer.arrival for older, newer in itertools.pairwise(ledger.line)):
        for ticket in sorted(ledger.line, key=lambda ticket: ticket.arrival):  # one was on its way to its old place
            ledger.line.move_to_end(ticket)
        ledger.mended += 1
    for entry in [entry for entry in ledger.entries if entry.state is GONE]:
        ledger.entries.discard(entry)
        ledger.mended += 1
    _count_anew(ledger)
    for entry in [entry for entry in ledger.entries if entry.state is not IDLE and not held(entry)]:
        ledger.mended += entry.claim is not None  # else its claim has died, and a note of that is on its way
        lose(ledger, entry, now, orders)
    if ledger.closed and (ledger.line or ledger.idle):
        ledger.empty(orders)
        ledger.mended += 1
    if ledger.paused and ledger.idle:
        ledger.let_all_idle_go(orders)
        ledger.mended += 1
    # a thread may have read the clock before others did, and come after them: that too makes it late, and is no mistake
    ledger.due = min(ledger.due, next_due(ledger, now))


def lose(ledger: Ledger, entry: Entry, now: float, orders: Orders) -> None:
    """Nobody answers for this one: let go of it, whatever was being done."""
    ledger.asking.discard(entry)
    entry.unfit = True
    if entry.state is LEASED:
        orders.reports.append(Report("lost", entry, now - entry.taken_at))
        entry.uses += 1
        ledger.use_times.add(now - entry.taken_at)
        ledger.let_go(entry, orders)
    elif entry.state is CLOSING:
        orders.close.append(entry)
    elif entry.state is OPENING and entry.connection is None:
        ledger.abandon(entry)
    elif entry.state is OPENING:
        ledger.opening -= 1
        ledger.let_go(entry, orders)


def _sort_out_shelf(ledger: Ledger) -> None:
    for entry in [entry for entry in ledger.idle if entry.state is not IDLE]:
        ledger.idle.remove(entry)
        ledger.mended += 1
    shelf = set(ledger.idle)
    for entry in [entry for entry in ledger.entries if entry.state is IDLE and entry not in shelf]:
        ledger.idle.insert(bisect_right(ledger.idle, ledger.rank(entry), key=ledger.rank), entry)
        ledger.mended += 1


def _count_anew(ledger: Ledger) -> None:
    opening = sum(entry.state is OPENING for entry in ledger.entries)
    closing = sum(entry.state is CLOSING for entry in ledger.entries)
    asking = {entry for entry in ledger.asking if entry.state is LEASED}
    if (opening, closing, asking) != (ledger.opening, ledger.closing, ledger.asking):
        ledger.opening, ledger.closing, ledger.asking = opening, closing, asking
        ledger.mended += 1
    ledger.weigh()
