"""What comes of a size under a checkout policy? The simulator's word for one worker, told for all of them.

Threads ask again and again, as an app's threads do. Under ``"operation"`` a use is one operation, and what a request is
elsewhere lies between two uses; under ``"thread"`` a use is all of the request.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from threadpool_db.demand import Demand
from threadpool_db.scenario import Scenario
from threadpool_db.simulate import simulate

POLICIES = OPERATION, THREAD = ("operation", "thread")
USES = 10_000  # simulated for each figure: p99 is then within a few percent
LONGER = 1.03  # times as long as when nobody is in its way: a request that takes no more than that lacks nothing
#: Of a request, what passes between two at least: the simulator's threads have to think, and real ones do accept it.
_BREATH = 1e-3


@dataclass(frozen=True)
class Trial:
    """``requests``: served in a second by all workers; ``request``: seconds of one, waits included, on average;
    ``p50`` and ``p99``: seconds that a borrower waits, of those served; ``late``: the share of borrowers whose timeout
    was over first."""

    policy: str
    max_size: int
    connections: int
    fits: bool
    requests: float
    request: float
    p50: float
    p99: float
    late: float


def scene(asked: Demand, policy: str, max_size: int) -> Scenario:
    """One worker: what is simulated. Times are exponential: some operations take a few times the average."""
    breath = max(asked.idle, asked.request * _BREATH)
    if policy == OPERATION:
        held = asked.database / asked.operations
        think = max(asked.outside + asked.idle, asked.request * _BREATH) / asked.operations
    else:
        held, think = asked.request, breath
    # From one end of a thread's use, or of its patience, to the next: both cost the simulator the same.
    cycle = max(held + think, min(held * asked.threads / max_size, asked.timeout + think))
    warm_up = 0.1 + 5 * cycle
    return Scenario(
        threads=asked.threads,
        think=think,
        service=held,
        spread="exponential",
        max_size=max_size,
        timeout=asked.timeout,
        duration=warm_up + USES * cycle / asked.threads,
        warm_up=warm_up,
        seed=asked.seed,
    )


def trial(asked: Demand, policy: str, max_size: int) -> Trial:
    outcome = simulate(scene(asked, policy, max_size))
    found, waits = outcome.summary(), outcome.waits()
    uses = asked.operations if policy == OPERATION else 1
    ended = found["served"] + found["timeouts"]
    return Trial(
        policy,
        max_size,
        asked.workers * max_size,
        max_size <= asked.room,
        asked.workers * found["throughput"] / uses,
        asked.request + uses * sum(waits) / max(1, len(waits)),
        found["wait"]["p50"] or 0.0,
        found["wait"]["p99"] or 0.0,
        found["timeouts"] / max(1, ended),
    )


class Trials:
    """Each made once. ``tell``: called after each with how many there are."""

    def __init__(self, asked: Demand, tell: Callable[[int], None] | None = None) -> None:
        self.asked, self._tell = asked, tell
        self._made: dict[tuple[str, int], Trial] = {}

    def of(self, policy: str, max_size: int) -> Trial:
        key = (policy, max_size)
        if key not in self._made:
            self._made[key] = trial(self.asked, policy, max_size)
            if self._tell is not None:
                self._tell(len(self._made))
        return self._made[key]

    def smallest(self, policy: str) -> int:
        """The smallest size with which one in a hundred waits for no longer than is bearable, hardly anybody in vain,
        and requests are on average hardly longer. With as many connections as threads nobody waits."""
        asked = self.asked
        held = asked.database if policy == OPERATION else asked.request
        # With fewer, the connections alone make requests longer than that, however short the line.
        low, high = math.ceil(held * asked.threads / (asked.request * LONGER + asked.idle)), asked.threads
        while low < high:
            middle = (low + high) // 2
            if self.is_bearable(self.of(policy, middle)):
                high = middle
            else:
                low = middle + 1
        return low

    def is_bearable(self, found: Trial) -> bool:
        lean = found.request <= self.asked.request * LONGER  # p99 alone would let short waits for everybody pass
        return found.p99 <= self.asked.bearable and found.late < 0.001 and lean
