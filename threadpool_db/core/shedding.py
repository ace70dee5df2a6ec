"""Who in line gets nothing any more? Those whose time is over, and those who are turned away so that others need not
wait as long.

Parts of how the ledger serves its line: they see all of it and are called by it alone, under the same lock. When it is
enough, ``overload`` knows. In a pause nobody is turned away: it is no overload.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from threadpool_db.core.line import Orders, Refusal, Ticket
from threadpool_db.core.pace import SHORTEST

if TYPE_CHECKING:
    from threadpool_db.core.ledger import Ledger


def passed_over(ledger: Ledger, head: Ticket, now: float, wake: list[Ticket]) -> bool:
    """There is a connection for the head of the line: does he not get it? Then he is added to ``wake``."""
    if head.deadline <= now:
        too_late(ledger, head, wake)
        return True
    if ledger.shedding is None or not ledger.shedding.sheds(now - head.since, len(ledger.line), now):
        return False
    turn_away(ledger, head, wake)
    return True


def first_served(ledger: Ledger, now: float, wake: list[Ticket]) -> Ticket | None:
    """There is a connection: who gets it?"""
    while (head := ledger.line.head) is not None and passed_over(ledger, head, now, wake):
        pass
    return head


def look_at_line(ledger: Ledger, now: float, orders: Orders) -> None:
    """There is none, and it takes long."""
    shedding = ledger.shedding
    if shedding is None or now < shedding.look_at or ledger.paused or ledger.idle:
        return
    while (head := ledger.line.head) is not None and shedding.overdue(now - head.since, len(ledger.line), now):
        turn_away(ledger, head, orders.wake)


def turn_away(ledger: Ledger, head: Ticket, wake: list[Ticket]) -> None:
    del ledger.line[head]
    ledger.shed_count += 1
    head.refuse(Refusal.SHED)
    wake.append(head)


def too_late(ledger: Ledger, head: Ticket, wake: list[Ticket]) -> None:
    """He cannot use it any more: his time is over, though he has yet to wake and say so."""
    del ledger.line[head]
    head.refuse(None)
    wake.append(head)


def next_look(ledger: Ledger, now: float) -> float:
    """When the line is next to be looked at."""
    if ledger.shedding is None or not ledger.line or ledger.paused:
        return math.inf
    return max(ledger.shedding.look_at, now + SHORTEST)
