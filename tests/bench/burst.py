"""What does a burst of threads do to a pool that is still cold, and to the server behind it?

Fifty threads ask at once, the pool may have fifty connections, a connect takes 150 ms and the work 2 ms: what the first
few connections could serve is over long before a fiftieth is open. Each contestant has the burst for itself, on a fresh
pool; to connect and to work is ``time.sleep``, so this says nothing about the machine.

*opened*  connects begun until the last thread had its turn, the most of all rounds
*served*  from the start until the last thread had its connection, median of the rounds
*errors*  of all rounds
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.bench.contestants import FOR_CONNECTS, Contestant, Maker, invited

BURST = "burst"
THREADS = 50
CONNECT, WORK = 0.150, 0.002

_TURN = """
def turn(pool):
    it = {take}
    got = clock()
    sleep({work})
    {give}
    return got
"""


@dataclass(frozen=True)
class Outcome:
    opened: int
    served: float
    errors: int


class Bursts:
    """``run`` adds rounds, the results are of all rounds so far."""

    def __init__(self, makers: tuple[Maker, ...] = FOR_CONNECTS) -> None:
        self._makers = makers
        self.outcomes: dict[str, list[Outcome]] = {}

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            for maker in self._makers:
                connect = SlowConnect()
                with invited((maker,), THREADS, lambda line: None, connect) as present:
                    for contestant in present:
                        outcome = burst(contestant, connect)
                        self.outcomes.setdefault(contestant.name, []).append(outcome)

    def figures(self) -> dict[str, dict[str, float]]:
        return {
            name: {
                "opened": max(one.opened for one in outcomes),
                "served_ms": median(one.served for one in outcomes) * 1e3,
                "errors": sum(one.errors for one in outcomes),
            }
            for name, outcomes in self.outcomes.items()
        }


class SlowConnect:
    def __init__(self) -> None:
        self.begun: list[float] = []

    def __call__(self, kind: type) -> Any:
        self.begun.append(time.perf_counter())
        time.sleep(CONNECT)
        return kind()


def burst(contestant: Contestant, connect: SlowConnect) -> Outcome:
    names: dict[str, Any] = {"clock": time.perf_counter, "sleep": time.sleep}
    exec(_TURN.format(take=contestant.take, give=contestant.give, work=WORK), names)
    begin = 0.0

    def start() -> None:
        nonlocal begin
        begin = time.perf_counter()

    barrier = threading.Barrier(THREADS, action=start)

    def one_thread(_: int) -> float | None:
        barrier.wait()
        try:
            got: float = names["turn"](contestant.pool)
        except Exception:
            return None
        return got

    with ThreadPoolExecutor(THREADS) as threads:
        got = list(threads.map(one_thread, range(THREADS)))
    served = [at for at in got if at is not None]
    return Outcome(len(connect.begun), max(served, default=begin) - begin, THREADS - len(served))
