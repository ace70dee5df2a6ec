"""What does borrowing and giving back cost when nobody else wants anything? One thread, one pair after the other.

In each round every contestant runs a burst of about a millisecond, in turns that begin with another one each time. Of
its bursts the tenth fastest of a hundred counts: slower ones were disturbed, and the very fastest of a few hundred is
luck. The garbage collector is off meanwhile, as in every ``timeit``.
"""

from __future__ import annotations

import statistics
import timeit
from dataclasses import dataclass

from tests.bench.contestants import FLOOR, Contestant

BURST = 0.001  # seconds
QUANTILE = 0.1


@dataclass
class Racer:
    contestant: Contestant
    timer: timeit.Timer
    repeat: int
    seconds: list[float]  # for one pair, by round


class Pairs:
    """The race; ``run`` adds rounds, the results are of all rounds so far."""

    def __init__(self, contestants: list[Contestant]) -> None:
        self._racers = [self._prepare(contestant) for contestant in contestants]
        self._rounds = 0

    @staticmethod
    def _prepare(contestant: Contestant) -> Racer:
        timer = timeit.Timer(contestant.pair, "pool = this", globals={"this": contestant.pool})
        timer.timeit(2000)  # the first connect, and what the interpreter specialises
        once = min(timer.repeat(5, 200)) / 200
        return Racer(contestant, timer, max(10, int(BURST / once)), [])

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            first = self._rounds % len(self._racers)
            for racer in self._racers[first:] + self._racers[:first]:
                racer.seconds.append(racer.timer.timeit(racer.repeat) / racer.repeat)
            self._rounds += 1

    def microseconds(self) -> dict[str, float]:
        return {racer.contestant.name: low_quantile(racer.seconds) * 1e6 for racer in self._racers}

    def ratios(self) -> dict[str, float]:
        """Each one's cost as a multiple of the floor's."""
        costs = self.microseconds()
        return {name: cost / costs[FLOOR] for name, cost in costs.items()}

    def figures(self) -> dict[str, dict[str, float]]:
        costs, ratios = self.microseconds(), self.ratios()
        return {name: {"ratio": ratios[name], "microseconds": costs[name]} for name in costs}


def low_quantile(values: list[float]) -> float:
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=round(1 / QUANTILE), method="inclusive")[0]
