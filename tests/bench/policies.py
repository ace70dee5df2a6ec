"""What does a checkout policy give, and what does it cost, as a request spends less of its time in the database?

The experiment of Rails' own discussion of it. A request is a scope of its own: three statements that sleep in the
server, and ``time.sleep`` between them, which stands for somebody else's service. It takes 90 ms when nobody is in its
way; what changes is the share of that which it spends in the database. Threads that do not pause make such requests,
5 to 40 of them, over one pool of 5 connections under each policy, on a private PostgreSQL; the policies' slices take
turns.

*rate*  requests in a second, 90th percentile of the slices: a disturbance can only slow a slice down. A request that
        is only partly within a slice counts as that part: threads that began together also end together, and whole
        ones would come in heaps
*p99*   of the requests that were under way within a slice, from its scope's begin to its end, waiting included; for the
        same reason 10th percentile of the slices. Of those that end within it there may be none: forty threads that
        began together have all their first statements behind them before any has its second

A slice begins when each thread has had its first turn, and nobody stops before all have come to its end: until then
the line is not as long as it is going to be.
"""

from __future__ import annotations

import contextlib
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.bench.contestants import PATIENCE
from tests.bench.pairs import low_quantile
from tests.bench.sites import started
from tests.servers import Postgres
from threadpool_db import Pool, create_pool
from threadpool_db.picture import BLUE, ORANGE, Line, Picture, Row

OPERATION, THREAD = POLICIES = ("operation", "thread")
CONNECTIONS = 5
THREADS = (5, 10, 20, 40)
SHARES = (1.0, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1)
ROUNDS = 4
SETTLE = 0.1

#: by section, by share
Sections = dict[str, dict[str, dict[str, float]]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """``seconds``: all of it; ``share``: of that in the database. The server sleeps for whole milliseconds."""

    share: float
    seconds: float = 0.090
    statements: int = 3

    @property
    def statement(self) -> str:
        return f"select pg_sleep({self.share * self.seconds / self.statements:.3f})"

    @property
    def outside(self) -> float:
        """Each of the pauses between two statements."""
        return (1 - self.share) * self.seconds / (self.statements - 1)

    def serve(self, pool: Pool) -> None:
        with pool.scope():
            for number in range(self.statements):
                if number and self.outside:
                    time.sleep(self.outside)
                pool.execute(self.statement)


@dataclass(frozen=True)
class Slice:
    rate: float
    latencies: list[float]

    @property
    def p99(self) -> float:
        return percentile(self.latencies, 99)


def percentile(values: list[float], percent: int) -> float:
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def run_slice(pool: Pool, request: Request, threads: int, seconds: float) -> Slice:
    begin = 0.0
    past: list[int] = []  # those who have come to the end
    line = request.seconds * max(1.0, threads / CONNECTIONS)  # what the last one in it waits, at most

    def start() -> None:
        nonlocal begin
        begin = time.perf_counter() + line + SETTLE

    barrier = threading.Barrier(threads, action=start)

    def one_thread(number: int) -> tuple[float, list[float]]:
        barrier.wait()
        end = begin + seconds
        served, latencies, told = 0.0, [], False
        while len(past) < threads:
            asked = time.perf_counter()
            try:
                request.serve(pool)
            except BaseException:
                past.extend(range(threads))  # or the others would wait for this one
                raise
            over = time.perf_counter()
            served += max(0.0, min(over, end) - max(asked, begin)) / (over - asked)
            if asked < end and over > begin:
                latencies.append(over - asked)
            if over > end and not told:  # it may have begun after that too, on a machine that had no time for it
                told = True
                past.append(number)
        return served, latencies

    with ThreadPoolExecutor(threads) as crowd:
        results = list(crowd.map(one_thread, range(threads)))
    return Slice(sum(served for served, _ in results) / seconds, [one for _, more in results for one in more])


class Policies:
    """The pools of one server; ``run`` adds rounds, the results are of all rounds so far."""

    def __init__(
        self,
        pools: dict[str, Pool],
        threads: Iterable[int] = THREADS,
        shares: Iterable[float] = SHARES,
        seconds: float = 0.5,
    ) -> None:
        self._pools = pools
        self._cells = [(count, share) for count in threads for share in shares]
        self._seconds = seconds
        self.slices: dict[tuple[int, float, str], list[Slice]] = {}

    def run(self, rounds: int, say: Say) -> None:
        for done in range(rounds):
            for cell, (threads, share) in enumerate(self._cells):
                say(f"policies, round {done + 1} of {rounds}: {threads} threads, {share:.0%} in the database")
                turns = list(self._pools.items())
                for policy, pool in turns[:: 1 if (cell + done) % 2 else -1]:
                    found = run_slice(pool, Request(share), threads, self._seconds)
                    self.slices.setdefault((threads, share, policy), []).append(found)

    def sections(self) -> Sections:
        """Of each number of threads, of each share: both policies, and ``operation``'s by ``thread``'s."""
        found: Sections = {}
        for threads, share in self._cells:
            of: dict[str, float] = {"share": share}
            for policy in POLICIES:
                slices = self.slices[threads, share, policy]
                of[f"{policy}_rate"] = -low_quantile([-one.rate for one in slices])
                of[f"{policy}_p99_ms"] = low_quantile([one.p99 for one in slices]) * 1e3
            of["rate_ratio"] = of[f"{OPERATION}_rate"] / of[f"{THREAD}_rate"]
            of["p99_ratio"] = of[f"{OPERATION}_p99_ms"] / of[f"{THREAD}_p99_ms"]
            found.setdefault(section(threads), {})[f"{share:.0%}"] = of
        return found


class BackToBack:
    """All of a request in the database: five statements of 1 ms, one after the other. What does it cost to give the
    connection back in between? With as many threads as connections nobody waits, and a checkout costs what it costs;
    with twice as many each checkin hands its connection to another thread, which is still asleep.
    """

    REQUEST = Request(share=1.0, seconds=0.005, statements=5)
    THREADS = (CONNECTIONS, 2 * CONNECTIONS)

    def __init__(self, pools: dict[str, Pool], seconds: float = 0.3) -> None:
        self._pools = pools
        self._seconds = seconds
        self._rates: dict[tuple[int, str], list[float]] = {}

    def run(self, rounds: int) -> None:
        for done in range(rounds):
            for threads in self.THREADS:
                turns = list(self._pools.items())
                for policy, pool in turns[:: 1 if done % 2 else -1]:
                    found = run_slice(pool, self.REQUEST, threads, self._seconds)
                    self._rates.setdefault((threads, policy), []).append(found.rate)

    def ratios(self) -> dict[int, float]:
        """By number of threads: the rate of ``operation`` by that of ``thread``, of each the 90th percentile."""
        rates = {key: -low_quantile([-rate for rate in found]) for key, found in self._rates.items()}
        return {threads: rates[threads, OPERATION] / rates[threads, THREAD] for threads in self.THREADS}


def measure_policies(say: Say) -> tuple[Sections, str]:
    """All of it, and what it was measured with; nothing without PostgreSQL."""
    with both(say) as pools:
        if pools is None:
            return {}, ""
        policies = Policies(pools)
        policies.run(ROUNDS, say)
        server = str(pools[OPERATION].execute("show server_version")[0][0]).partition(" ")[0]
        return policies.sections(), f"PostgreSQL {server}, psycopg2, Python {platform.python_version()}"


def section(threads: int) -> str:
    return f"{threads} threads on {CONNECTIONS} connections"


@contextlib.contextmanager
def both(say: Say) -> Iterator[dict[str, Pool] | None]:
    """A pool under each policy, all connections open; None without PostgreSQL, and it is said why."""
    with started(Postgres, say) as site, contextlib.ExitStack() as closing:
        if site is None:
            yield None
            return
        options = {"min_size": CONNECTIONS, "max_size": CONNECTIONS, "timeout": PATIENCE}
        pools = {
            policy: closing.enter_context(create_pool(site.server.url, checkout=policy, **options))  # type: ignore[attr-defined]
            for policy in POLICIES
        }
        for pool in pools.values():
            pool.wait()
        yield pools


LINES = {
    THREAD: Line('checkout="thread"', ORANGE, 5, "square"),
    OPERATION: Line('checkout="operation"', BLUE, 2.5, "circle"),
}


def picture(sections: Sections, about: str) -> str:
    """``about``: what it was measured with."""

    def row(title: str, key: str) -> Row:
        panels = [
            [[(of["share"], of[f"{policy}_{key}"]) for of in shares.values()] for policy in LINES]
            for shares in sections.values()
        ]
        return Row(title, panels)

    request, ticks = Request(1.0), [of["share"] for of in next(iter(sections.values())).values()]
    return Picture(
        f"What a checkout policy gives: one pool of {CONNECTIONS} connections, 5 to 40 threads",
        [
            f"A request takes {request.seconds * 1e3:g} ms when nobody is in its way: {request.statements} statements, "
            "and between them waiting for somebody else's service.",
            f"Each is a scope of its own. {about}.",
        ],
        [f"{name.partition(' ')[0]} threads" for name in sections],
        list(LINES.values()),
        [row("requests per second", "rate"), row("p99 latency, ms", "p99_ms")],
        "share of its time that a request spends in the database, %",
        [(share, f"{share * 100:.0f}") for share in ticks],
    ).svg()
