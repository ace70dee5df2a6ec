"""Who gets a connection when sixteen threads want four, and how many in a second?

Each thread borrows, holds the connection, gives it back, and borrows again, at once or after some computing. To hold is
``time.sleep``: like a query it lets the other threads run. To compute is a loop in Python for so much of the thread's
own processor time: like a template it does not. A slice is half a second of that, after a warm-up, with threads of its
own; the contestants' slices take turns, the floor among them.

*rate*      borrowings in a second, 90th percentile of the slices: a disturbance can only slow a slice down
*fairness*  the slowest thread's borrowings by the fastest thread's, within a slice, median of the slices
*longest*   the longest wait in any slice; a wait that outlasts its slice counts as far as the slice's end

Without a hold and without a pause the threads mostly wait for the interpreter, which is not fair, and not for the pool.

Roads not taken, measured on a busy machine. The median of each round's ratio to the floor: spreads as wide, and lower,
for a disturbance costs whoever hands over more than the floor. The best of 50 ms instead of the best slices: half the
spread, but a pool that hands over is the less even within a slice, and its best moments flatter it by a fiftieth.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.bench.contestants import FLOOR, Contestant
from tests.bench.pairs import low_quantile

THREADS, CONNECTIONS = 16, 4
WARM_UP = 0.1


@dataclass(frozen=True)
class Habit:
    """What a thread does with a connection, and before the next one, in seconds."""

    hold: float
    compute: float = 0.0

    def __str__(self) -> str:
        pause = f", {self.compute * 1e3:g} ms of computing between" if self.compute else ""
        return f"{THREADS} threads on {CONNECTIONS} connections held {self.hold * 1e3:g} ms{pause}"


GRAB, QUERY, REQUEST = Habit(0.0), Habit(0.0005), Habit(0.005, compute=0.001)
HABITS = (GRAB, QUERY, REQUEST)

_WORK = """
def work(pool, begin, end):
    borrowed, longest = 0, 0.0
    asked = clock()
    while asked < end:
        it = {take}
        got = clock()
        if got > begin:
            borrowed += got < end
            waited = min(got, end) - asked
            if waited > longest:
                longest = waited
        {hold}
        {give}
        {compute}
        asked = clock()
    return borrowed, longest
"""


@dataclass(frozen=True)
class Slice:
    rate: float
    fairness: float
    longest: float


class Contention:
    """One habit, all contestants; ``run`` adds rounds, the results are of all rounds so far."""

    def __init__(self, contestants: list[Contestant], habit: Habit, seconds: float = 0.5) -> None:
        self._seconds = seconds
        self._crowds = [(contestant, compile_work(contestant, habit)) for contestant in contestants]
        self.slices: dict[str, list[Slice]] = {contestant.name: [] for contestant in contestants}
        self._rounds = 0

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            first = self._rounds % len(self._crowds)
            for contestant, work in self._crowds[first:] + self._crowds[:first]:
                self.slices[contestant.name].append(run_slice(work, contestant.pool, self._seconds))
            self._rounds += 1

    def rates(self) -> dict[str, float]:
        return {name: -low_quantile([-one.rate for one in slices]) for name, slices in self.slices.items()}

    def ratios(self) -> dict[str, float]:
        """Each one's rate by the floor's."""
        rates = self.rates()
        return {name: rate / rates[FLOOR] for name, rate in rates.items()}

    def fairness(self) -> dict[str, float]:
        return {name: median(one.fairness for one in slices) for name, slices in self.slices.items()}

    def longest(self) -> dict[str, float]:
        return {name: max(one.longest for one in slices) for name, slices in self.slices.items()}

    def figures(self) -> dict[str, dict[str, float]]:
        rates, ratios, fairness, longest = self.rates(), self.ratios(), self.fairness(), self.longest()
        return {
            name: {
                "ratio": ratios[name],
                "fairness": fairness[name],
                "rate": rates[name],
                "longest_wait_ms": longest[name] * 1e3,
            }
            for name in rates
        }


Work = Callable[[Any, float, float], tuple[int, float]]


def compile_work(contestant: Contestant, habit: Habit) -> Work:
    """What each thread does, from the contestant's own two lines."""
    code = _WORK.format(
        take=contestant.take,
        give=contestant.give,
        hold=f"sleep({habit.hold})" if habit.hold else "pass",
        compute=f"compute({habit.compute})" if habit.compute else "pass",
    )
    names: dict[str, Any] = {"clock": time.perf_counter, "sleep": time.sleep, "compute": compute}
    exec(code, names)
    work: Work = names["work"]
    return work


def compute(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def run_slice(work: Work, pool: Any, seconds: float) -> Slice:
    begin = 0.0

    def start() -> None:
        nonlocal begin
        begin = time.perf_counter() + WARM_UP

    barrier = threading.Barrier(THREADS, action=start)

    def one_thread(_: int) -> tuple[int, float]:
        barrier.wait()
        return work(pool, begin, begin + seconds)

    with ThreadPoolExecutor(THREADS) as threads:
        results = list(threads.map(one_thread, range(THREADS)))
    borrowed = [count for count, _ in results]
    return Slice(
        rate=sum(borrowed) / seconds,
        fairness=min(borrowed) / max(1, *borrowed),
        longest=max(longest for _, longest in results),
    )
