"""What does a pool do that is asked for twice what it can serve? Whom it serves, and after what wait.

Requests come by chance, at twice the capacity, whatever becomes of those before them: each is taken up by a thread that
is there already, as in a server, borrows, works for 20 ms (``time.sleep``) and gives back, or gives up after a second.
What counts is what happens after the first second. Of contestants that are installed, one after the other; a load is
the same for all, by its seed.

*p50, p99*  waits of those who were served
*goodput*   served, as a share of what the connections can do
*refused*   of those who came
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.bench.contestants import OURS, Connect, Contestant, Maker, Noop, at_once, invited, psycopg, sqlalchemy
from tests.bench.pairs import Pairs
from threadpool_db.config import PoolConfig
from threadpool_db.core.overload import CoDel
from threadpool_db.core.sojourn import Sojourn
from threadpool_db.pool import ConnectionPool

OVERLOAD = "overload"
SIZE, WORK, PATIENCE = 8, 0.02, 1.0
SHEDDING = f"{OURS}, shed=CoDel(0.05, 0.5)"
REGULATED = f"{OURS}, with shed and Sojourn"
P50_LIMIT, P99_LIMIT, GOODPUT_LIMIT = 0.12, 0.25, 0.97
ADDED_LIMIT = 0.25  # times the floor, by a pair with shedding and sizing on


def ours_plain(size: int, connect: Connect = at_once) -> Contestant:
    pool = ConnectionPool(Noop(connect), PoolConfig(max_size=size, timeout=PATIENCE))
    return Contestant(OURS, pool, "pool.checkout()", "it.checkin()", pool.close)


def ours_shedding(size: int, connect: Connect = at_once) -> Contestant:
    pool = ConnectionPool(Noop(connect), PoolConfig(max_size=size, timeout=PATIENCE, shed=CoDel(0.05, 0.5)))
    return Contestant(SHEDDING, pool, "pool.checkout()", "it.checkin()", pool.close)


def ours_regulated(size: int, connect: Connect = at_once) -> Contestant:
    config = PoolConfig(max_size=size, timeout=60.0, shed=CoDel(), sizing=Sojourn(2))
    pool = ConnectionPool(Noop(connect), config)
    return Contestant(REGULATED, pool, "pool.checkout()", "it.checkin()", pool.close)


def _patient(make: Maker) -> Maker:
    """A peer with a second's patience."""

    def made(size: int, connect: Connect = at_once) -> Contestant:
        contestant = make(size, connect)
        name = "_timeout" if hasattr(contestant.pool, "_timeout") else "timeout"
        setattr(contestant.pool, name, PATIENCE)
        return contestant

    made.__name__ = make.__name__
    return made


MAKERS: tuple[Maker, ...] = (ours_plain, ours_shedding, _patient(sqlalchemy), _patient(psycopg))

_REQUEST = """
def request(pool, asked):
    began = clock()
    try:
        it = {take}
    except Exception:
        return asked, began, clock(), None
    got = clock()
    sleep({work})
    done = clock()
    {give}
    return asked, began, got, done
"""


class Request(NamedTuple):
    """Moments: it came, a thread took it up and asked the pool, it got a connection or was refused, its work was done
    (None: refused)."""

    asked: float
    began: float
    got: float
    done: float | None


def requests(contestant: Contestant, load: float, seconds: float) -> tuple[float, list[Request]]:
    """When it began, and all of them; ``load``: times the capacity."""
    names: dict[str, Any] = {"clock": time.perf_counter, "sleep": time.sleep}
    exec(_REQUEST.format(take=contestant.take, give=contestant.give, work=WORK), names)
    request = names["request"]
    draw, results = random.Random(1), []
    came: queue.SimpleQueue[float] = queue.SimpleQueue()

    def serve() -> None:
        while asked := came.get():
            results.append(Request(*request(contestant.pool, asked)))

    # whoever comes waits for at most PATIENCE and works for WORK: twice as many as there can be at a time
    threads = [threading.Thread(target=serve) for _ in range(int(2 * load * SIZE / WORK * (PATIENCE + WORK)))]
    for thread in threads:
        thread.start()
    begin = when = time.perf_counter()
    while (when := when + draw.expovariate(load * SIZE / WORK)) < begin + seconds:
        if (pause := when - time.perf_counter()) > 0:
            time.sleep(pause)
        came.put(time.perf_counter())
    for _ in threads:
        came.put(0.0)
    for thread in threads:
        thread.join()
    return begin, results


def overload(contestant: Contestant, load: float, seconds: float) -> dict[str, float]:
    """``load``: times the capacity."""
    begin, results = requests(contestant, load, seconds)
    counted = [one for one in results if begin + 1 <= one.got < begin + seconds]
    waits = sorted(one.got - one.asked for one in counted if one.done is not None)
    return {
        "p50_ms": waits[len(waits) // 2] * 1e3,
        "p99_ms": waits[int(len(waits) * 0.99)] * 1e3,
        "goodput": len(waits) / ((seconds - 1) * SIZE / WORK),
        "refused": 1 - len(waits) / len(counted),
    }


def measure_overload(
    say: Callable[[str], None], load: float = 2.0, seconds: float = 5.0
) -> dict[str, dict[str, float]]:
    figures = {}
    for maker in MAKERS:
        with invited((maker,), SIZE, say) as present:
            for contestant in present:
                say(f"{OVERLOAD}, {load:g} times the capacity for {seconds:g} s: {contestant.name}")
                figures[contestant.name] = overload(contestant, load, seconds)
    return figures


class Regulated(Pairs):
    def added(self) -> float:
        """Times the floor."""
        ratios = self.ratios()
        return ratios[REGULATED] - ratios[OURS]
