"""Does the bench see what the pool keeps for each connection and for each waiter, and is that little?"""

from __future__ import annotations

import threading
import tracemalloc

import pytest

from tests.bench import memory
from tests.bench.contestants import Contestant, invited, ours


class Thorough:
    """A lock that keeps a thousand bytes for each that waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.release = self._lock.release

    def take(self) -> None:
        mine = bytes(1000)
        self._lock.acquire()
        del mine


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_memory_is_what_the_pool_keeps_for_each(traced):
    hoard = Contestant("hoard", [], "pool.append(bytes(1000))", "pass")
    assert memory.of_idle(hoard) == pytest.approx(1000, rel=0.1)
    thorough = Contestant("thorough", Thorough(), "pool.take()", "pool.release()")
    plain = min(memory.of_waiters(memory.at_a_lock()) for _ in range(3))
    assert min(memory.of_waiters(thorough) for _ in range(3)) - plain == pytest.approx(1000, rel=0.3)


def test_the_pool_takes_little_memory_for_each(traced):
    with invited((ours,), memory.CONNECTIONS, print) as (contestant,):
        assert memory.of_idle(contestant) < 1500
