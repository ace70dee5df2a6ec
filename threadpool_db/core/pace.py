"""How fast may the same remedy be repeated? The n-th follows the one before by ``interval / sqrt(n)``.

The control law of CoDel (Nichols and Jacobson, 2012), as sbroker has it for its queues and its valves: slow at first,
for one remedy may do, and faster as long as it does not. If trouble is back within eight intervals, it goes on nearly
where it was.
"""

from __future__ import annotations

import math

#: Whatever asks to be looked at again is, but not before so many seconds: a rounding error must not become a loop.
SHORTEST = 0.0001
#: Trouble that is back after so many intervals is new.
FORGOTTEN = 8


class Pace:
    """``at``: from when on the next remedy may follow; seconds, as ``interval``."""

    __slots__ = ("_many", "at", "interval")

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.at = -math.inf
        self._many = 0

    def begin(self, now: float) -> None:
        """The first remedy against this trouble has been used."""
        soon = now - self.at < FORGOTTEN * self.interval
        self._many = self._many - 2 if soon and self._many > 2 else 1
        self.at = now + self.interval / math.sqrt(self._many)

    def go_on(self) -> None:
        """One more has."""
        self._many += 1
        self.at += self.interval / math.sqrt(self._many)


class Repeated:
    """A remedy for trouble that has lasted for ``interval``, again and again as long as it lasts, at CoDel's pace."""

    __slots__ = ("at", "pace", "under_way")

    def __init__(self, interval: float) -> None:
        self.pace = Pace(interval)
        self.rest()

    def rest(self) -> None:
        """There is no trouble."""
        self.under_way = False
        self.at = math.inf  # when it is next to be used, if the trouble lasts

    def acts(self, now: float) -> bool:
        """There is trouble: is it to be used now? True counts as used."""
        if self.at == math.inf:
            self.at = now + self.pace.interval
        if now < self.at:
            return False
        if self.under_way:
            self.pace.go_on()
        else:
            self.pace.begin(now)
        self.under_way = True
        self.at = self.pace.at
        return True
