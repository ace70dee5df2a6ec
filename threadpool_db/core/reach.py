"""Is the database in reach of this pool, and when may its next connect start?

One for each ledger, told of every connect that succeeded or failed. It knows nothing of those who wait, of slots and of
what is connected: who is refused, and what is opened, is decided elsewhere. What all pools of a server know of it
together (``outage``) is told and asked from here alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from threadpool_db.core.backoff import Backoff

if TYPE_CHECKING:
    from threadpool_db.core.outage import Server
    from threadpool_db.core.rules import Rules


class Reach:
    """Times in seconds on the pool's clock; ``draw`` is a random number in [0, 1)."""

    def __init__(self, rules: Rules, server: Server | None) -> None:
        self.rules, self.server = rules, server
        self.connected_once = False
        self.error: BaseException | None = None  # of the last connect that failed, if none succeeded since
        self.failing_since = math.inf
        self.retry_at = -math.inf  # none starts before
        self.fill_at = -math.inf  # nothing is opened ahead of demand before
        self._delay: float | None = None

    # --- What happened ----------------------------------------------------------------------------------------------

    def succeeded(self, now: float) -> None:
        self.connected_once = True
        self.hope()
        if self.server is not None:
            self.server.connected(now)

    def hope(self) -> None:
        """Forget that connects have failed."""
        self.error = self._delay = None
        self.retry_at = self.fill_at = -math.inf
        self.failing_since = math.inf

    def failed(self, started: float, now: float, error: BaseException, answered: bool, draw: float) -> None:
        """A connect that began at ``started`` did. ``answered``: the server itself said no, to this pool, which is
        nothing to the other pools of that server."""
        self.error = error
        self._delay = (self.rules.backoff or Backoff()).after(self._delay, draw)
        self.failing_since = min(self.failing_since, now)
        if self.server is not None and not answered:
            self.server.failed(started, now, self._delay)
        if self.rules.backoff is not None and self.is_awaited(now):
            self.retry_at = now + self._delay
        if self.rules.background:
            self.fill_at = now + self._delay

    def disappointed(self, now: float, draw: float) -> None:
        """What was opened was not wanted: another one is likely to be no better, and waits its time as after a failed
        connect."""
        self.retry_at = max(self.retry_at, now + (self.rules.backoff or Backoff()).after(None, draw))
        self.fill_at = max(self.fill_at, self.retry_at)

    # --- What follows from it ---------------------------------------------------------------------------------------

    @property
    def failing(self) -> bool:
        """Has no connect succeeded since one failed?"""
        return self.failing_since < math.inf

    @property
    def patient_until(self) -> float:
        """From then on nobody waits, where nothing is connected: connects will have failed for ``grace``."""
        return self.failing_since + self.rules.grace

    def is_awaited(self, now: float) -> bool:
        """Is the database worth to be tried with a pause between, as one that will come back? That of a pool which has
        never connected is not, within its ``grace``: a wrong password is not worth ten seconds."""
        return self.connected_once or now >= self.patient_until

    def next_at(self, now: float) -> float:
        """When the next connect may start; a time that has passed if now."""
        return max(self.retry_at, self.turn_at(now))

    def turn_at(self, now: float) -> float:
        """When the server, with all its pools, lets the next one start."""
        server = self._server(now)
        return -math.inf if server is None else server.next_at(now)

    def admits(self, now: float) -> bool:
        """May a connect start, says the server? True: it is about to, for a turn that is taken is used."""
        server = self._server(now)
        return server is None or server.admits(now)

    def _server(self, now: float) -> Server | None:
        """What all its pools know of it; nothing to one that has never connected, and is to say at once why."""
        return self.server if self.is_awaited(now) else None
