"""When to try the database again? Delays between failed connects, as pure arithmetic.

The three kinds and their formulas are DBConnection's; ``rand_exp`` is its default: each delay is drawn between the
last one and three times as much, so it grows and yet no two pools stay in step.
"""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("rand_exp", "exp", "rand")


@dataclass(frozen=True)
class Backoff:
    """Delays in seconds, from ``shortest`` to ``longest``. Holds no state: the caller keeps the last delay."""

    shortest: float = 0.1
    longest: float = 2.0
    kind: str = "rand_exp"

    def __post_init__(self) -> None:
        if not 0 <= self.shortest <= self.longest < float("inf"):
            raise ValueError(
                f"Backoff(shortest={self.shortest!r}, longest={self.longest!r}): "
                "both must be seconds with 0 <= shortest <= longest"
            )
        if self.kind not in KINDS:
            raise ValueError(f"Backoff(kind={self.kind!r}): the kind must be one of {', '.join(KINDS)}")

    def after(self, previous: float | None, draw: float) -> float:
        """The delay after ``previous`` (None: the first failure); ``draw`` is a random number in [0, 1)."""
        if self.kind == "rand":
            return self._between(self.shortest, self.longest, draw)
        if self.kind == "exp":
            return self.shortest if previous is None else min(2 * previous, self.longest)
        # rand_exp never draws below the last delay until a third of the longest is reached: see DBConnection.Backoff
        last = self.shortest if previous is None else previous
        settled = max(self.shortest, self.longest / 3)
        return self._between(min(last, settled), min(3 * last, self.longest), draw)

    @staticmethod
    def _between(low: float, high: float, draw: float) -> float:
        return low + (high - low) * draw
