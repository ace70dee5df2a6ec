"""Let them wait, or turn them away? A small protocol, and the plain limit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Overload(Protocol):
    """Asked under the pool's lock for each newcomer who would have to wait: quick, and never calling back."""

    def admits(self, waiting: int, now: float) -> bool:
        """``waiting`` are in line already: may one more join?"""
        ...


@dataclass(frozen=True)
class MaxWaiting:
    """At most ``limit`` in line, as in psycopg_pool and pooler; the deadline of each waiter does the rest."""

    limit: float = math.inf

    def admits(self, waiting: int, now: float) -> bool:
        return waiting < self.limit
