"""Has it been lent for too long? Say so once, or take it away.

A lease that is never given back is the commonest way to an empty pool. ``leak_after`` and ``inactive_after`` only
report (as HikariCP's leak detection does); ``max_lease`` ends it (as DBConnection's deadline does).
Time that a thread keeps a connection between two operations, as it may for as long as it likes, does not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from threadpool_db.core.entry import Entry


@dataclass(frozen=True)
class Holding:
    """Limits in seconds of one use, from the checkout, or from where the thread went on using what it keeps."""

    max_lease: float = math.inf
    leak_after: float = math.inf
    inactive_after: float = math.inf

    def expired(self, entry: Entry, now: float) -> bool:
        return now - entry.in_use_since >= self.max_lease and not entry.is_kept

    def leaks(self, entry: Entry, now: float) -> bool:
        """For so long in use that it should be reported, if it was not yet?"""
        return now - entry.in_use_since >= self.leak_after and not (entry.is_kept or self.was_reported(entry))

    def was_reported(self, entry: Entry) -> bool:
        return entry.reported_at == entry.in_use_since

    @property
    def patience(self) -> float:
        """Nothing needs to be looked at earlier than so long after it was lent."""
        return min(self.max_lease, self.leak_after, self.inactive_after)

    def look_at(self, entry: Entry, now: float) -> float:
        """When a lent one is next to be looked at."""
        since = entry.in_use_since
        moments = (since + self.max_lease, since + self.leak_after, since + self.inactive_after)
        return min(moment for moment in (*moments, now + self.patience) if moment > now)
