"""What have finalisers and interrupts left for the pool to look after?

Both parts run under the pool's lock, as events of its own: the audit, and the reading of the mailbox.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from threadpool_db.core.entry import GONE, IDLE, LEASED
from threadpool_db.core.line import Orders
from threadpool_db.lease import Claim, Errand, held

if TYPE_CHECKING:
    from threadpool_db.pool import ConnectionPool


#: Seconds. Whoever has waited long or is refused asks for an audit of all: where that is hundreds, one will do.
LATELY = 0.1


def audit_again(pool: ConnectionPool[Any], now: float) -> Orders:
    """An audit, if the last one was not a moment ago."""
    return audit(pool, now) if now >= pool._audited_at + LATELY else Orders()


def audit(pool: ConnectionPool[Any], now: float) -> Orders:
    """Look after everything that an interrupt or a lost finaliser has orphaned."""
    pool._audited_at = now
    orders = pool._ledger.audit(now, held)
    for entry in [entry for entry in pool._ledger.entries if entry.state is LEASED and entry.is_kept]:
        # Kept by a thread that has ended. Its finaliser gives it back; if it has not by the second time we look, a
        # traceback that somebody keeps has its lease, and an interrupt has struck the finaliser.
        if entry.holder.ended:
            if entry.holder.seen_dead:
                orders.add(pool._ledger.revoke(entry, now))
            entry.holder.seen_dead = True
    return orders


def read_mailbox(pool: ConnectionPool[Any], orders: Orders) -> list[Callable[[], None]]:
    """What finalisers left. A lost lease's connection is closed: nobody knows who still uses it."""
    jobs: list[Callable[[], None]] = []
    notes = pool._mailbox.notes
    while notes:
        note = notes.popleft()
        if isinstance(note, Claim):
            if note.entry.state is LEASED:
                note.entry.kept = math.nan  # its thread has ended, and we answer for it now
                jobs.append(functools.partial(pool._checkin_slowly, Errand(note)))
        elif note.state is not IDLE and note.state is not GONE and not held(note) and note not in orders.close:
            orders.add(pool._ledger.lost(note, pool._now()))
    return jobs
