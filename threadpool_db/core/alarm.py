"""Has it been bad for long enough to raise the alarm, and good for long enough to clear it?

Hysteresis, as in sbroker's alarms: what is looked at must be the same at every sample for a whole interval before the
alarm changes, and one sample that says otherwise begins the interval anew. So a spike raises none, and trouble that
comes and goes neither raises nor clears one at every turn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: so often it is looked at in one interval
SAMPLES = 10


@dataclass(frozen=True)
class Alarms:
    """When a pool raises its alarms. ``target``: the first in line has waited, or connects have failed, for so many
    seconds. ``interval``: that has been so at each look for so many seconds; and to clear it, has not been so."""

    target: float = 0.5
    interval: float = 5.0

    def __post_init__(self) -> None:
        for name, low in (("target", 0.001), ("interval", 0.1)):
            value = getattr(self, name)
            numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not numeric or not low <= value < math.inf:
                raise ValueError(f"Alarms({name}={value!r}): must be seconds from {low:g} on")

    @property
    def step(self) -> float:
        """Seconds from one sample to the next."""
        return self.interval / SAMPLES


class Hysteresis:
    """Of one condition. ``since``: when the state that ``on`` tells began, which is before it was believed."""

    __slots__ = ("_interval", "_turned_at", "on", "since")

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self.on = False
        self.since = -math.inf
        self._turned_at = math.inf

    def sample(self, holds: bool, now: float) -> bool:
        """Does that change what ``on`` says?"""
        if holds is self.on:
            self._turned_at = math.inf
            return False
        self._turned_at = min(self._turned_at, now)
        if now - self._turned_at < self._interval:
            return False
        self.on, self.since, self._turned_at = holds, self._turned_at, math.inf
        return True

    def end(self, now: float) -> bool:
        """There will be no more samples: nothing is on any longer. Does that change anything?"""
        changed, self.on, self._turned_at = self.on, False, math.inf
        if changed:
            self.since = now
        return changed

    @property
    def calm(self) -> bool:
        """Neither on nor about to be: good samples change nothing."""
        return not self.on and self._turned_at == math.inf
