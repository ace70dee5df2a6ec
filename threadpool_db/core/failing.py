"""Connects fail: who is refused, and when?

Parts of the ledger, which see all of it and are called by it alone, under the same lock. When the next connect may
start is another question, for the room ``reach``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from threadpool_db.core.line import Orders, Refusal

if TYPE_CHECKING:
    from threadpool_db.core.entry import Entry
    from threadpool_db.core.ledger import Ledger


def take_failure(
    ledger: Ledger, entry: Entry, error: BaseException, now: float, orders: Orders, answered: bool = False
) -> None:
    """A pool that has never connected refuses everybody in line at once; one that has tries again after a delay.
    Where nobody retries, one in line goes without: the connect was his, and is not ordered again."""
    ledger.connect_failures += 1
    if ledger.paused:  # the server may have been stopped for it: that begins no outage
        return
    rules, reach = ledger.rules, ledger.reach
    reach.failed(entry.opened_at, now, error, answered, ledger.draw())
    if rules.backoff is None:
        if rules.background and len(ledger.line) > ledger.opening:
            ledger.refuse(1, Refusal.CONNECT_FAILED, error, orders)
    elif not reach.is_awaited(now):
        ledger.refuse(len(ledger.line), Refusal.CONNECT_FAILED, error, orders)
    ledger.due = min(ledger.due, reach.patient_until, reach.fill_at if rules.background else math.inf)


def fail_fast(ledger: Ledger, now: float, orders: Orders) -> None:
    """When the database has been out of reach for long enough nobody waits: a connect that is tried may hang."""
    if ledger.unavailable(now):
        ledger.refuse(len(ledger.line), Refusal.UNAVAILABLE, ledger.reach.error, orders)
