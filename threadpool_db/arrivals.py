"""Who comes when, and how long is a use? By chance, and for the same seed the same.

Each use of chance has its own stream of numbers: with another pool the same requests come.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator

from threadpool_db.core.sizing import Sizing
from threadpool_db.core.sojourn import Sojourn
from threadpool_db.scenario import Scenario


def draw(scenario: Scenario, what: str) -> random.Random:
    """The chance that is for this alone."""
    return random.Random(f"{scenario.seed} {what}")


def arrivals(scenario: Scenario) -> Iterator[float]:
    """When who comes, in order, without end; those of the burst at once. ``threads`` come by themselves."""
    comes = [_poisson(scenario.rate, draw(scenario, "rate"))] if scenario.rate else []
    if scenario.burst:
        comes.append(itertools.repeat(scenario.burst_at, int(scenario.burst)))
    return heapq.merge(*comes)


def thoughts(scenario: Scenario) -> Callable[[], float]:
    """What draws the seconds for which a thread thinks."""
    think = draw(scenario, "think")
    return lambda: think.expovariate(1 / scenario.think)


def tenant(scenario: Scenario, stream: str = "tenants") -> Callable[[], int]:
    """What draws whose a request is, by Zipf's law: tenant 0 is the one asked for most."""
    shares = [*itertools.accumulate(rank**-scenario.zipf for rank in range(1, max(1, int(scenario.tenants)) + 1))]
    chance, everything, last = draw(scenario, stream).random, shares[-1], len(shares) - 1
    return lambda: bisect_right(shares, chance() * everything, hi=last)


def service(scenario: Scenario) -> Callable[[], float]:
    """What draws the seconds of a use, of the mean that was asked for."""
    mean, sigma, chance = scenario.service, scenario.sigma, draw(scenario, "service")
    if scenario.spread == "exponential":
        return lambda: chance.expovariate(1 / mean)
    if scenario.spread == "lognormal":
        middle = math.log(mean) - sigma * sigma / 2
        return lambda: chance.lognormvariate(middle, sigma)
    return lambda: mean


def sizing(scenario: Scenario) -> Sizing:
    """The scenario's; one that samples by chance does so by the seed's."""
    if isinstance(scenario.sizing, Sojourn) and scenario.sizing.draw is random.random:
        return dataclasses.replace(scenario.sizing, draw=draw(scenario, "sizing").random)
    return scenario.sizing


def _poisson(rate: float, chance: random.Random) -> Iterator[float]:
    now = 0.0
    while True:
        now += chance.expovariate(rate)
        yield now
