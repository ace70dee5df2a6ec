"""By which settings does a ledger go?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from threadpool_db.core.backoff import Backoff
from threadpool_db.core.freshness import Freshness
from threadpool_db.core.holding import Holding


@dataclass(frozen=True)
class Rules:
    """``order`` is which idle connection goes first: the ``"lifo"`` one used last, so that
    the rest can age out, or the ``"fifo"`` one idle longest. ``backoff=None``: a failed connect is its borrower's own
    affair, nobody retries. ``grace``: when nothing is connected and connects have failed for so long, nobody waits any
    more; without a backoff it has no meaning. ``background``: connects are ordered (``orders.open``) and a waiter takes
    whichever comes first; else the head of the line is elected to connect. ``min_size``, ``min_idle`` and ``keepalive``
    need it. ``short_ways`` False: there is more to do at each checkout, and ``take`` never answers."""

    max_size: float = 10
    min_size: int = 0
    min_idle: int = 0
    max_connecting: float = 2
    order: str = "lifo"
    freshness: Freshness = Freshness()
    backoff: Backoff | None = Backoff()
    grace: float = math.inf
    background: bool = False
    holding: Holding = Holding()
    short_ways: bool = True
