"""May we open one more? Is one too many? A small protocol, and the rules most pools have.

``max_size`` is the ledger's own business: no rule is asked beyond it, nor may one close what ``min_size`` and
``min_idle`` keep. A rule sees plain numbers and keeps whatever state it likes; the ledger asks it under the pool's
lock, so it must be quick and must not call back. Whatever rule it is: a pool grows while somebody waits, never after
somebody was refused. Rules of your own begin with ``Elastic`` and change what they want; ``docs/load.md`` has one of
ten lines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Counts(NamedTuple):
    """How many connections are where; ``max_size`` may be ``inf``."""

    max_size: float
    idle: int
    in_use: int
    opening: int
    closing: int
    waiting: int

    @property
    def total(self) -> int:
        """All that count against ``max_size``."""
        return self.idle + self.in_use + self.opening + self.closing

    @property
    def connected(self) -> int:
        return self.idle + self.in_use


class Advice(NamedTuple):
    """``again``: when to look again at the latest, ``inf`` for not before something happens. ``close``: is the one that
    has been idle longest to be closed now? Then it is asked again at once, about the next one."""

    again: float = math.inf
    close: bool = False


class Sizing(Protocol):
    """How a pool grows and shrinks between nothing and ``max_size``."""

    def begin(self) -> Sizing:
        """The one for one pool: itself, if it keeps no state, else a fresh one."""
        ...

    def may_open(self, counts: Counts, now: float) -> bool:
        """Somebody waits, or too few are ready, and there is room below ``max_size``: open one more?"""
        ...

    def opens(self, now: float) -> None:
        """It was asked a moment ago, and one is opened."""
        ...

    def one_too_many(self, counts: Counts, now: float) -> bool:
        """One came back and nobody waits (it counts as idle already): close it?"""
        ...

    def quiet_below(self, max_size: float) -> float:
        """Up to this many connections ``one_too_many`` is surely False, and is not asked. ``-1`` to be always asked."""
        ...

    def base(self, max_size: float) -> float:
        """Up to this many it lets stay open for as long as they like: so many may be kept ready."""
        ...

    def smallest(self, min_size: int, max_size: float) -> float:
        """Idle ones past ``max_idle`` are closed down to this many."""
        ...

    def look(self, counts: Counts, idle_for: float, waited: float, now: float) -> Advice:
        """Time has passed, or somebody begins to wait. ``idle_for``: seconds for which the one used least recently has
        been idle, 0 if none is; ``waited``: those for which the head of the line has waited, 0 if nobody does."""
        ...


class Elastic:
    """Grows when somebody waits, shrinks by ``max_idle``, oldest first, to ``min_size``. The default; with these two it
    is also how pooler (Erlang) culls back to its initial size."""

    def begin(self) -> Sizing:
        return self

    def may_open(self, counts: Counts, now: float) -> bool:
        return True

    def opens(self, now: float) -> None:
        pass

    def one_too_many(self, counts: Counts, now: float) -> bool:
        return False

    def quiet_below(self, max_size: float) -> float:
        return max_size

    def base(self, max_size: float) -> float:
        return max_size

    def smallest(self, min_size: int, max_size: float) -> float:
        return min_size

    def look(self, counts: Counts, idle_for: float, waited: float, now: float) -> Advice:
        return Advice()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Fixed(Elastic):
    """Grows when somebody waits and stays: idle connections are replaced when their lifetime ends, never given up."""

    def smallest(self, min_size: int, max_size: float) -> float:
        return max_size


@dataclass(frozen=True)
class Overflow(Elastic):
    """Of ``max_size``, ``extra`` are for rushes: they are closed when one has been idle for ``linger`` seconds.

    Poolboy (Erlang) and SQLAlchemy's ``max_overflow`` close them on their return, and so does ``linger=0``: a load that
    goes up and down around the base then opens and closes one each time.
    """

    extra: float
    linger: float = 5.0

    def __post_init__(self) -> None:
        if not self.extra >= 0:
            raise ValueError(f"Overflow(extra={self.extra!r}): the number of extra connections must be 0 or more")
        if not self.linger >= 0:
            raise ValueError(f"Overflow(linger={self.linger!r}): must be seconds, 0 or more")

    def one_too_many(self, counts: Counts, now: float) -> bool:
        return not self.linger and counts.total - counts.closing > self.base(counts.max_size)

    def quiet_below(self, max_size: float) -> float:
        return max_size if self.linger else self.base(max_size)

    def base(self, max_size: float) -> float:
        # inf - inf is nan: a pool without a limit whose every connection is extra keeps none
        return max_size - self.extra if self.extra < max_size else 0

    def look(self, counts: Counts, idle_for: float, waited: float, now: float) -> Advice:
        if not self.linger or counts.connected <= self.base(counts.max_size):
            return Advice()
        if counts.idle and idle_for >= self.linger:
            return Advice(now + self.linger, close=True)
        return Advice(now + self.linger - idle_for)
