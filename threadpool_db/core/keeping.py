"""A connection is to be had again, or for the first time: keep it, or close it?

Parts of the ledger, which see all of it and are called by it alone, under the same lock. What its age and its uses say
is ``freshness``'s to know, and whether it is one too many ``sizing``'s.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from threadpool_db.core.entry import IDLE, Entry
from threadpool_db.core.line import Orders

if TYPE_CHECKING:
    from threadpool_db.core.ledger import Ledger


def put_back(ledger: Ledger, entry: Entry, now: float, orders: Orders) -> None:
    """On the shelf, unless it is of no more use, or one too many, or another pool has waited longer for it."""
    head, permits = ledger.line.head, ledger.permits
    if entry.generation != ledger.generation or ledger.fresh.worn(entry, now):
        ledger.let_go(entry, orders)
    elif is_unwanted(ledger):
        ledger.let_go(entry, orders)
    elif (
        permits is not None
        and entry.last_used > entry.opened_at  # what was opened a moment ago is for those for whom it was opened
        and permits.wanted(ledger, now if head is None else head.since, now)
    ):
        ledger.let_go(entry, orders)
    else:
        entry.become(IDLE)
        # where its last use puts it, which is not the hot end if its borrower gave up before using it
        ledger.idle.insert(bisect_right(ledger.idle, ledger.rank(entry), key=ledger.rank), entry)
        ledger.due = min(ledger.due, entry.last_used + ledger.unattended)
        many = head is None and len(ledger.entries) > ledger.quiet_below
        if many and ledger.sizing.one_too_many(ledger.counts(), now):
            ledger.idle.remove(entry)
            ledger.let_go(entry, orders)


def is_unwanted(ledger: Ledger) -> bool:
    """Must whatever comes to be had now be closed: in a pause, or beyond a ``max_size`` that was lowered?"""
    return ledger.paused or len(ledger.entries) - ledger.closing > ledger.rules.max_size
