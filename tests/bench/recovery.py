"""How soon does a pool work again after its server was restarted?

Sixteen threads that do not pause, eight connections, a real server that is stopped and started under them. Each
contestant has it for itself, in turns. An operation is 10 ms of sleep in the server, so the connections limit the rate
and not the processor; a thread whose operation failed pauses for 5 ms, or it would do nothing but fail.

The clock starts when the server is known to accept connections again: it has said so, or has accepted one.

*failed*     operations begun from then on that failed, the most of all rounds
*meanwhile*  operations that failed before then, median: some pools fail whoever asks, others let them wait
*first*      until an operation has succeeded, median
*full*       until the rate of a tenth of a second is 80 % of what it was before, median; at most ``LIMIT``
*connects*   under way or begun in the first second, the most of all rounds
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.bench.contestants import Contestant
from tests.bench.sites import MAKERS_OF, Site, invited, started
from tests.servers import MariaDB, Postgres, Server

KINDS: tuple[type[Server], ...] = (Postgres, MariaDB)
THREADS, CONNECTIONS = 16, 8
WARM_UP, BEFORE, AFTER, LIMIT = 0.5, 0.5, 1.0, 8.0
PAUSE = 0.005
WINDOW, FULL = 0.1, 0.8

#: one operation: when begun, when over, did it succeed?
Deed = tuple[float, float, bool]


@dataclass(frozen=True)
class Outcome:
    failed: int
    meanwhile: int
    first: float
    full: float
    connects: int


def section(kind: type[Server]) -> str:
    return f"{kind.__name__} restarted"


class Recoveries:
    """``run`` adds rounds, the results are of all rounds so far."""

    def __init__(self, kind: type[Server]) -> None:
        self._kind = kind
        self.outcomes: dict[str, list[Outcome]] = {}

    def run(self, rounds: int, say: Callable[[str], None] = lambda line: None) -> None:
        logging.disable(logging.CRITICAL)  # psycopg_pool tells of each failed connect
        try:
            with started(self._kind, say) as site:
                for done in range(rounds):
                    if site is not None:
                        say(f"{section(self._kind)}: round {done + 1} of {rounds}")
                        self._run_round(site, say)
        finally:
            logging.disable(logging.NOTSET)

    def _run_round(self, site: Site, say: Callable[[str], None]) -> None:
        for maker in MAKERS_OF[self._kind]:
            with invited(maker, site, CONNECTIONS, say) as contestant:
                if contestant is not None:
                    outcome = restart_under_load(site, contestant)
                    self.outcomes.setdefault(contestant.name, []).append(outcome)

    def figures(self) -> dict[str, dict[str, float]]:
        return {
            name: {
                "failed": max(one.failed for one in outcomes),
                "meanwhile": median(one.meanwhile for one in outcomes),
                "first_ms": median(one.first for one in outcomes) * 1e3,
                "full_ms": median(one.full for one in outcomes) * 1e3,
                "connects": max(one.connects for one in outcomes),
            }
            for name, outcomes in self.outcomes.items()
        }


class Load:
    """The threads; ``deeds`` are of all of them, each appended when it is over."""

    def __init__(self, contestant: Contestant) -> None:
        names: dict[str, Any] = {}
        exec(f"def operate(pool):\n    {contestant.block}", names)
        self._operate: Callable[[Any], None] = names["operate"]
        self._pool = contestant.pool
        self._over = threading.Event()
        self._threads = ThreadPoolExecutor(THREADS)
        self.deeds: list[Deed] = []

    def __enter__(self) -> Load:
        self._running = [self._threads.submit(self._run) for _ in range(THREADS)]
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._threads.shutdown()
        for running in self._running:
            running.result()

    def _run(self) -> None:
        while not self._over.is_set():
            begun = time.perf_counter()
            try:
                self._operate(self._pool)
            except Exception:
                self.deeds.append((begun, time.perf_counter(), False))
                time.sleep(PAUSE)
            else:
                self.deeds.append((begun, time.perf_counter(), True))

    def successes(self, since: float) -> list[float]:
        return sorted(over for _, over, succeeded in list(self.deeds) if succeeded and over >= since)


def restart_under_load(site: Site, contestant: Contestant) -> Outcome:
    with Load(contestant) as load:
        time.sleep(WARM_UP + BEFORE)
        stopped = time.perf_counter()
        rate = len(load.successes(stopped - BEFORE)) / BEFORE
        site.server.kill(site.server.stop_signal)
        down = time.perf_counter()
        site.server.restart()
        back = time.perf_counter()
        enough = FULL * rate * WINDOW
        time.sleep(AFTER)
        while full_at(load.successes(down), enough) is None and time.perf_counter() < back + LIMIT:
            time.sleep(WINDOW)
    connects = [connect for connect in site.connects if connect.begun >= down]
    # by its end: a server that is starting lets one wait, and turns away others that began later
    back = min([back, *(connect.over for connect in connects if connect.succeeded)])
    successes = load.successes(down)
    full = full_at(successes, enough)
    failures = [begun for begun, over, succeeded in load.deeds if not succeeded and over >= stopped]
    return Outcome(
        failed=sum(begun >= back for begun in failures),
        meanwhile=sum(begun < back for begun in failures),
        first=max(0.0, successes[0] - back) if successes else LIMIT,
        full=LIMIT if full is None else max(0.0, full - back),
        connects=sum(connect.over >= back and connect.begun < back + AFTER for connect in connects),
    )


def full_at(successes: list[float], enough: float) -> float | None:
    """When did the first window begin in which there were enough of them?"""
    for index, at in enumerate(successes):
        if bisect_left(successes, at + WINDOW) - index >= enough:
            return at
    return None
