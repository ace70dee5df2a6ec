"""The simulator for tests of the core: any arrivals, any rules, connections that are there when the first one comes."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from threadpool_db.core.rules import Rules
from threadpool_db.simulate import Simulation


def poisson(rate: float, until: float, seed: int = 1, begin: float = 0.0) -> Iterator[float]:
    """When they come, so many in a second."""
    draw = random.Random(seed)
    now = begin
    while (now := now + draw.expovariate(rate)) < until:
        yield now


def evenly(every: float, until: float, begin: float = 0.0) -> Iterator[float]:
    return itertools.takewhile(lambda now: now < until, (begin + n * every for n in itertools.count()))


class Load(Simulation):
    """``work``: seconds of a use, or what draws them. ``connected``: all of ``size``, at no cost, before anybody."""

    def __init__(
        self,
        arrivals: Iterable[float],
        work: float | Callable[[], float],
        size: int,
        patience: float = math.inf,
        connect: float = 0.0,
        connected: bool = True,
        **ledger: Any,
    ) -> None:
        rules = ledger.pop("rules", None) or Rules(max_size=size, max_connecting=math.inf)
        draw = work if callable(work) else lambda: work
        super().__init__(arrivals, draw, rules, patience, connect, connected=size if connected else 0, **ledger)
