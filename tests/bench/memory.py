"""How much memory does a pool take for a connection that lies idle, and for a thread that waits?

By ``tracemalloc``, in bytes, with the pool's own code as it is: nothing here depends on how busy the machine is.

*idle*    all of a thousand opened at once, all given back: what is allocated then and was not before, without the
          connections themselves, by their number. The first one was opened before: lazy imports and caches do not count
*waiter*  two hundred threads that wait for the only connection, less what as many threads take that wait at a plain
          lock, by their number: a place in line, and whatever else the pool has for a thread that it knows
"""

from __future__ import annotations

import gc
import sys
import threading
import time
import tracemalloc
from typing import Any

from tests.bench import contestants
from tests.bench.contestants import FOR_CONNECTS, Contestant, Maker, invited

MEMORY = "memory"
CONNECTIONS, WAITERS = 1000, 200
LOOK_EVERY, SAME_LOOKS = 0.02, 5

_FILL = """
def fill(pool, count):
    taken = [{take} for _ in range(count)]
    for it in taken:
        {give}
"""
_WAIT = """
def hold(pool):
    it = {take}
    yield
    {give}

def wait(pool):
    it = {take}
    {give}
"""


def measure_memory(makers: tuple[Maker, ...] = FOR_CONNECTS) -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, float]] = {}
    with invited(makers, 1, lambda line: None):  # all modules are imported before anything counts
        tracemalloc.start()
    try:
        for _ in range(3):  # what the interpreter grows for its first so many threads, it keeps
            of_waiters(at_a_lock())
        for maker in makers:
            with invited((maker,), CONNECTIONS, lambda line: None) as present:
                for contestant in present:
                    figures[contestant.name] = {"idle": of_idle(contestant)}
            with invited((maker,), 1, lambda line: None) as present:
                for contestant in present:
                    plain = of_waiters(at_a_lock())
                    figures[contestant.name]["waiter"] = of_waiters(contestant) - plain
    finally:
        tracemalloc.stop()
    return figures


def of_idle(contestant: Contestant) -> float:
    """Bytes for each connection."""
    fill = _compile(_FILL, contestant)["fill"]
    fill(contestant.pool, 1)
    tracemalloc.clear_traces()
    fill(contestant.pool, CONNECTIONS)
    return _allocated() / (CONNECTIONS - 1)


def of_waiters(contestant: Contestant) -> float:
    """Bytes for each thread that waits, the thread itself included."""
    names = _compile(_WAIT, contestant)
    holding = names["hold"](contestant.pool)
    next(holding)
    tracemalloc.clear_traces()
    threads = [threading.Thread(target=names["wait"], args=(contestant.pool,)) for _ in range(WAITERS)]
    for thread in threads:
        thread.start()
    _until_all_wait(threads)
    waiting = _allocated()
    next(holding, None)
    for thread in threads:
        thread.join()
    return waiting / WAITERS


def at_a_lock() -> Contestant:
    return Contestant("lock", threading.Lock(), "pool.acquire()", "pool.release()")


def _compile(code: str, contestant: Contestant) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code.format(take=contestant.take, give=contestant.give), names)
    return names


_NOT_THE_POOLS = [tracemalloc.Filter(False, file) for file in (__file__, contestants.__file__, tracemalloc.__file__)]


def _allocated() -> int:
    """Bytes since the traces were cleared, but neither those of the fakes nor of the measuring."""
    gc.collect()
    snapshot = tracemalloc.take_snapshot().filter_traces(_NOT_THE_POOLS)
    return sum(statistic.size for statistic in snapshot.statistics("filename"))


def _until_all_wait(threads: list[threading.Thread]) -> None:
    """No pool can be asked that, but a thread that stays at one instruction for long waits there."""
    same = 0
    before: list[tuple[int, int]] = []
    while same < SAME_LOOKS:
        time.sleep(LOOK_EVERY)
        frames = sys._current_frames()
        now = [(id(frames[thread.ident]), frames[thread.ident].f_lasti) for thread in threads if thread.ident in frames]
        same = same + 1 if now == before and len(now) == len(threads) else 0
        before = now
