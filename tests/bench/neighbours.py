"""What do the tenants of one budget suffer from each other? From busy ones, from one that is down, from being many.

The server is a fake whose connects and statements are sleeps: what is left is ours, on real threads.

*Crowded*  two tenants keep all permits busy with statements of 10 ms, and twenty others ask once a second, each of them
           for the same statement. How long does each of the twenty wait for its connection, and what does it cost the
           two? Slices with the twenty and without take turns
*Down*     six threads use eight tenants. Beside them four threads ask for one more, whose server answers, refuses
           connections, or says nothing. How long do the operations of the eight take?
*Warm*     one pair of checkout and checkin of a tenant, of 10,000 that all have a connection, beside one of a pool
           that is found in a dict of as many keys. It is always the same tenant: with others the processor's caches
           would be measured, which the one pool does not need
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from tests.bench.contestants import PATIENCE, Contestant, Noop, at_once
from tests.bench.pairs import Pairs
from tests.bench.policies import percentile
from threadpool_db import Budget, Pool, PoolError, TenantPools
from threadpool_db.drivers.base import Driver

CONNECT, STATEMENT = 0.004, 0.010
CAP, PER_TENANT, BUSY_THREADS, SMALL = 10, 5, 8, 20
SLICE, WARM_UP = 2.0, 0.3
MANY = 10_000
UP, REFUSED, SILENT = "up", "refused", "silent"


class Server(Driver[object]):
    """All defaults, and it takes its time."""

    name = "sleeps"

    def __init__(self, state: str = UP) -> None:
        self.state = state

    def connect(self, timeout: float) -> object:
        if self.state == SILENT:
            time.sleep(timeout)
            raise TimeoutError("no answer")
        if self.state == REFUSED:
            raise ConnectionRefusedError("refused")
        time.sleep(CONNECT)
        return object()


class Timed:
    """Threads that do one thing over and over until a slice ends; what they report is of the time after its warm-up."""

    def __init__(self, seconds: float) -> None:
        self.begin = time.perf_counter() + WARM_UP
        self.end = self.begin + seconds

    def repeat(self, action: Callable[[], float], pause: Callable[[], float] = lambda: 0.0) -> list[float]:
        found = []
        time.sleep(pause())
        while (asked := time.perf_counter()) < self.end:
            value = action()
            if asked >= self.begin and time.perf_counter() < self.end:
                found.append(value)
            rest = pause()
            if rest:
                time.sleep(max(0.0, rest - (time.perf_counter() - asked)))
        return found


class Crowded:
    """``run`` adds rounds; the results are of all rounds so far."""

    def __init__(self, seconds: float = SLICE) -> None:
        self._seconds = seconds
        server = Server()
        self._tenants: TenantPools[str] = TenantPools(
            lambda key: server, budget=Budget(CAP), per_tenant_max=PER_TENANT, timeout=PATIENCE
        )
        self.close = self._tenants.close
        self._alone: list[float] = []
        self._beside: list[float] = []
        self._waits: dict[str, list[float]] = {f"small{n}": [] for n in range(SMALL)}

    def run(self, rounds: int) -> None:
        for number in range(rounds):
            for crowded in (False, True) if number % 2 else (True, False):
                self._slice(crowded)

    def _slice(self, crowded: bool) -> None:
        timed = Timed(self._seconds)
        dice = random.Random(len(self._alone))

        def ask(key: str) -> float:
            asked = time.perf_counter()
            with self._tenants.checkout(key):
                waited = time.perf_counter() - asked
                time.sleep(STATEMENT)
            return waited

        def small(key: str) -> list[float]:
            first = iter([dice.random()])
            return timed.repeat(lambda: ask(key), lambda: next(first, 1.0))

        with ThreadPoolExecutor(2 * BUSY_THREADS + SMALL) as crowd:
            busy = [
                crowd.submit(timed.repeat, lambda key=f"busy{n % 2}": ask(key))  # type: ignore[misc]
                for n in range(2 * BUSY_THREADS)
            ]
            asking = {key: crowd.submit(small, key) for key in self._waits} if crowded else {}
            rate = sum(len(one.result()) for one in busy) / self._seconds
            for key, one in asking.items():
                self._waits[key] += one.result()
        (self._beside if crowded else self._alone).append(rate)

    @property
    def kept(self) -> float:
        """What is left of the two's throughput when the others are there."""
        return median(self._beside) / median(self._alone)

    @property
    def p99(self) -> float:
        """Of the one of the twenty that waited longest, seconds."""
        return max(percentile(waits, 99) for waits in self._waits.values() if waits)


class Down:
    """As ``Crowded``, for each state of the one server."""

    STATES = (UP, REFUSED, SILENT)

    def __init__(self, seconds: float = SLICE) -> None:
        self._seconds = seconds
        self._waits: dict[str, list[float]] = {state: [] for state in self.STATES}
        self._rounds = 0

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            first = self._rounds % len(self.STATES)
            for state in self.STATES[first:] + self.STATES[:first]:
                self._waits[state].append(percentile(self._slice(state), 99))
            self._rounds += 1

    def _slice(self, state: str) -> list[float]:
        timed, healthy, ill = Timed(self._seconds), Server(), Server(state)
        dice = random.Random(self._rounds)

        def serve(key: str) -> float:
            asked = time.perf_counter()
            with tenants.checkout(key):
                time.sleep(STATEMENT)
            return time.perf_counter() - asked

        def try_it() -> float:
            try:
                return serve("ill")
            except PoolError:
                time.sleep(0.05)
                return 0.0

        with (
            TenantPools(
                lambda key: ill if key == "ill" else healthy, budget=Budget(CAP), per_tenant_max=PER_TENANT, timeout=1.0
            ) as tenants,
            ThreadPoolExecutor(10) as crowd,
        ):
            others = [crowd.submit(timed.repeat, lambda: serve(f"well{dice.randrange(8)}")) for _ in range(6)]
            tries = [crowd.submit(timed.repeat, try_it, lambda: 0.02) for _ in range(4)]
            waits = [wait for one in others for wait in one.result()]
            for one in tries:
                one.result()
        return waits

    def ratios(self) -> dict[str, float]:
        """The eight's p99 beside a server that is down by that beside one that is up, medians of the slices."""
        up = median(self._waits[UP])
        return {state: median(self._waits[state]) / up for state in (REFUSED, SILENT)}


ONE, OF_MANY = "a pool in a dict", "one of many tenants"


@contextlib.contextmanager
def warm(many: int = MANY) -> Iterator[Pairs]:
    """Two racers; see ``times``."""
    driver = Noop(at_once)
    key = f"tenant{many // 2}"
    with Pool(driver, max_size=5, timeout=PATIENCE, max_idle=None, background=False) as pool:
        options: dict[str, Any] = {"budget": Budget(many), "timeout": PATIENCE, "max_idle": None, "background": False}
        with TenantPools(lambda key: driver, **options) as tenants:
            keys = [f"tenant{n}" for n in range(many)]
            for each in keys:
                tenants.checkout(each).checkin()
            assert len(tenants) == many
            pools = dict.fromkeys(keys, pool)
            yield Pairs(
                [
                    Contestant(ONE, pools, f"pool[{key!r}].checkout()", "it.checkin()"),
                    Contestant(OF_MANY, tenants, f"pool[{key!r}].checkout()", "it.checkin()"),
                ]
            )


def times(pairs: Pairs) -> float:
    costs = pairs.microseconds()
    return costs[OF_MANY] / costs[ONE]
