"""May we open one more? Is one too many? A small protocol, and the rules most pools have.

``max_size`` is the ledger's own business: no rule is asked beyond it. A rule sees plain numbers and keeps whatever
state it likes; the ledger asks it under the pool's lock, so it must be quick and must not call back.
"""

from __future__ import annotations

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


class Sizing(Protocol):
    """How a pool grows and shrinks between nothing and ``max_size``."""

    def may_open(self, counts: Counts, now: float) -> bool:
        """Somebody waits, or too few are ready, and there is room below ``max_size``: open one more?"""
        ...

    def one_too_many(self, counts: Counts, now: float) -> bool:
        """One came back and nobody waits (it counts as idle already): close it?"""
        ...

    def quiet_below(self, max_size: float) -> float:
        """Up to this many connections ``one_too_many`` is surely False, and is not asked. ``-1`` to be always asked."""
        ...

    def smallest(self, min_size: int, max_size: float) -> float:
        """Idle ones past ``max_idle`` are closed down to this many."""
        ...


class Elastic:
    """Grows when somebody waits, shrinks by ``max_idle``. The default."""

    def may_open(self, counts: Counts, now: float) -> bool:
        return True

    def one_too_many(self, counts: Counts, now: float) -> bool:
        return False

    def quiet_below(self, max_size: float) -> float:
        return max_size

    def smallest(self, min_size: int, max_size: float) -> float:
        return min_size

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Fixed(Elastic):
    """Grows when somebody waits and stays: idle connections are replaced when their lifetime ends, never given up."""

    def smallest(self, min_size: int, max_size: float) -> float:
        return max_size


@dataclass(frozen=True)
class Overflow(Elastic):
    """Of ``max_size``, ``extra`` are closed on their return once nobody waits (Poolboy; SQLAlchemy's max_overflow)."""

    extra: float

    def __post_init__(self) -> None:
        if not self.extra >= 0:
            raise ValueError(f"Overflow(extra={self.extra!r}): the number of extra connections must be 0 or more")

    def one_too_many(self, counts: Counts, now: float) -> bool:
        return counts.total - counts.closing > self.quiet_below(counts.max_size)

    def quiet_below(self, max_size: float) -> float:
        # inf - inf is nan: a pool without a limit whose every connection is extra keeps none
        return max_size - self.extra if self.extra < max_size else 0
