"""Use it, look at it, ping it, or retire it? Judged from a connection's times alone.

A round trip on each checkout (SQLAlchemy's pre_ping, most pools' test-on-borrow) costs more than many a query. A
connection used a moment ago is almost surely alive, and one whose peer said goodbye shows it to a local look; so the
round trip is kept for long silence. HikariCP has the throttle, nobody the look.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from threadpool_db.core.entry import Entry


@dataclass(frozen=True)
class Freshness:
    """The time limits of a connection's life, in seconds; ``inf`` switches one off.

    ``max_lifetime`` is shortened for each connection by a random share of up to ``lifetime_jitter``, so that a pool
    filled in one burst does not empty in one.
    """

    ping_after: float = 30.0
    max_lifetime: float = 1800.0
    lifetime_jitter: float = 0.1
    max_idle: float = 300.0
    max_uses: float = math.inf
    keepalive: float = math.inf

    def expires_at(self, opened_at: float, draw: float) -> float:
        """When a connection opened at ``opened_at`` ends; ``draw`` is a random number in [0, 1)."""
        return opened_at + self.max_lifetime * (1.0 - self.lifetime_jitter * draw)

    def worn(self, entry: Entry, now: float) -> bool:
        """Too old, or used too often, to be used again?"""
        return now >= entry.expires_at or entry.uses >= self.max_uses

    def silent(self, entry: Entry, now: float) -> bool:
        """Unused for so long that it should be asked before it is used again?"""
        return now - entry.last_used >= self.ping_after

    def ask_at(self, entry: Entry) -> float:
        """When an idle one should be asked whether it is alive, to keep it so. An answer is no use of it."""
        return max(entry.last_used, entry.asked_at) + self.keepalive

    @property
    def carefree(self) -> float:
        """Silent for less than this many seconds and within its lifetime: to be used without a second thought."""
        return min(self.ping_after, self.max_idle)
