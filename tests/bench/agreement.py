"""Does the simulator say what the real pool does? The same loads for both, side by side.

A load runs on the real pool, over connections that do nothing. Then the simulator is told what it is always told, and
does not find out by itself: when requests reached the pool, how long uses took, one after the other, and in the closed
loop the pauses between. What it has to say for itself is who waits for how long, and who is turned away. What is left
are the pool's own microseconds, and how its threads share the interpreter when one hands over to the other.

Road not taken: the average use for all of them. On a busy machine one in a hundred takes ten times as long.

*rate*      served in a second
*p50, p99*  waits of those who were served, from asking the pool until they had a connection

The first second is not counted. A difference is a share of what was simulated; of a wait that was less than ``LEAST``
seconds, of that: no wait at all in the simulator is a few microseconds on threads.

*closed*  16 threads on 4 connections; each asks again when it is done, after some computing or at once
*open*    requests at random moments, twice what 8 connections can do or half of it, each with a second's patience
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from itertools import pairwise

from tests.bench.contention import CONNECTIONS, QUERY, REQUEST, THREADS, Habit, compute
from tests.bench.contestants import PATIENCE, Contestant, invited, ours
from tests.bench.overload import PATIENCE as OPEN_PATIENCE
from tests.bench.overload import SIZE, Request, ours_plain, ours_shedding, requests
from tests.bench.policies import percentile
from tests.bench.promise import Say
from threadpool_db.config import PoolConfig
from threadpool_db.core.overload import CoDel
from threadpool_db.outcome import SERVED, Outcome
from threadpool_db.simulate import Simulation

AGREEMENT = "agreement"
SECONDS, WARM_UP = 4.0, 1.0
LEAST = 0.001
LIMIT = 0.1
FIGURES = ("rate", "p50_ms", "p99_ms")

#: what was measured, or simulated: name of FIGURES -> value
Found = dict[str, float]


def found(waits: list[float], seconds: float) -> Found:
    return {
        "rate": len(waits) / seconds,
        "p50_ms": percentile(waits, 50) * 1e3,
        "p99_ms": percentile(waits, 99) * 1e3,
    }


def of_real(came: list[Request], begin: float, seconds: float) -> Found:
    served = [one for one in came if one.done is not None and begin + WARM_UP <= one.got < begin + seconds]
    return found([one.got - one.began for one in served], seconds - WARM_UP)


def of_outcome(outcome: Outcome, until: float) -> Found:
    rows = zip(outcome.came, outcome.waited, outcome.ends, strict=True)
    waits = [waited for came, waited, end in rows if end == SERVED and WARM_UP <= came + waited < until]
    return found(waits, until - WARM_UP)


# --- Closed -----------------------------------------------------------------------------------------------------------


def closed(contestant: Contestant, habit: Habit, seconds: float) -> tuple[Found, Found]:
    """Of the real pool, and of the simulator."""
    rows: list[list[Request]] = [[] for _ in range(THREADS)]
    barrier = threading.Barrier(THREADS + 1)
    pool, clock = contestant.pool, time.perf_counter
    end = 0.0

    def work(mine: list[Request]) -> None:
        barrier.wait()
        asked = clock()
        while asked < end:
            lease = pool.checkout()
            got = clock()
            time.sleep(habit.hold)
            done = clock()
            lease.checkin()
            mine.append(Request(asked, asked, got, done))
            if habit.compute:
                compute(habit.compute)
            asked = clock()

    threads = [threading.Thread(target=work, args=(mine,)) for mine in rows]
    for thread in threads:
        thread.start()
    begin = clock()
    end = begin + seconds
    barrier.wait()
    for thread in threads:
        thread.join()
    came = [one for mine in rows for one in mine]
    pauses = [(one.done or 0.0, after.asked - (one.done or 0.0)) for mine in rows for one, after in pairwise(mine)]
    run = Simulation([], uses(came), PoolConfig(max_size=CONNECTIONS).rules(), PATIENCE)
    run.loop(THREADS, one_after_the_other(pause for _, pause in sorted(pauses)))
    return of_real(came, begin, seconds), of_outcome(run.run(seconds), seconds)


# --- Open -------------------------------------------------------------------------------------------------------------


def open_(contestant: Contestant, load: float, seconds: float, shed: CoDel | None = None) -> tuple[Found, Found]:
    """Of the real pool, and of the simulator."""
    begin, came = requests(contestant, load, seconds)
    moments = sorted(one.began - begin for one in came)
    run = Simulation(moments, uses(came), PoolConfig(max_size=SIZE).rules(), OPEN_PATIENCE, shed=shed)
    return of_real(came, begin, seconds), of_outcome(run.run(seconds), seconds)


def uses(came: list[Request]) -> Callable[[], float]:
    """The seconds of each, in the order in which they began."""
    return one_after_the_other(one.done - one.got for one in sorted(came, key=by_got) if one.done is not None)


def by_got(one: Request) -> float:
    return one.got


def one_after_the_other(seconds: Iterable[float]) -> Callable[[], float]:
    again = itertools.cycle(seconds)  # a few more may be asked for than there were
    return lambda: next(again)


# --- Both -------------------------------------------------------------------------------------------------------------


LOADS: dict[str, tuple[Callable[..., Contestant], Callable[[Contestant, float], tuple[Found, Found]]]] = {
    f"closed: {QUERY}": (ours, lambda it, seconds: closed(it, QUERY, seconds)),
    f"closed: {REQUEST}": (ours, lambda it, seconds: closed(it, REQUEST, seconds)),
    "open: half the capacity": (ours_plain, lambda it, seconds: open_(it, 0.5, seconds)),
    "open: twice the capacity": (ours_plain, lambda it, seconds: open_(it, 2.0, seconds)),
    "open: twice the capacity, shedding": (
        ours_shedding,
        lambda it, seconds: open_(it, 2.0, seconds, CoDel(0.05, 0.5)),
    ),
}


def beside(real: Found, simulated: Found) -> dict[str, float]:
    """A row of the table: each figure of both, and the difference."""
    row = {}
    for name in FIGURES:
        least = LEAST * 1e3 if name.endswith("_ms") else 1.0
        row[name], row[f"{name}_simulated"] = real[name], simulated[name]
        row[f"{name}_off"] = (real[name] - simulated[name]) / max(simulated[name], least)
    return row


def measure_agreement(say: Say, seconds: float = SECONDS) -> dict[str, dict[str, float]]:
    rows = {}
    for name, (maker, run) in LOADS.items():
        say(f"{AGREEMENT}, {name}: {seconds:g} s")
        with invited((maker,), CONNECTIONS if name.startswith("closed") else SIZE, say) as (contestant,):
            rows[name] = beside(*run(contestant, seconds))
    return rows


def disagreements(rows: dict[str, dict[str, float]]) -> list[str]:
    """A line for each figure that differs by more than LIMIT."""
    return [
        f"{load}: {name} {row[name]:.4g}, simulated {row[f'{name}_simulated']:.4g} ({row[f'{name}_off']:+.0%})"
        for load, row in rows.items()
        for name in FIGURES
        if abs(row[f"{name}_off"]) > LIMIT
    ]
