"""Who is held up by a server that takes all and says nothing? Its own waiters, until their deadline; nobody else."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.faults.bank import Bank, assert_nothing_lost, eventually, meet_all, tried
from tests.faults.bounds import best_of, note
from tests.proxy import FaultProxy
from tests.scene import SOON, background
from threadpool_db import Backoff, ConnectFailed, PoolTimeout

PATIENCE = 0.6  # the timeout of those who wait for the black hole
SIZE = 10


class Ticker:
    """A thread that does nothing but notice how long it was not let run."""

    def __enter__(self) -> Ticker:
        self.longest, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._tick)
        self._thread.start()
        return self

    def _tick(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(0.001):
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def calm_connect(pool: Any) -> float:
    """Of a pool of one: it must connect, and in the keeper's workers."""
    pool.recycle()
    begun = time.monotonic()
    pool.execute("select 1")
    return time.monotonic() - begun


def fall_silent(bank: Bank, hole: FaultProxy, options: dict[str, Any], known: bool) -> None:
    """``known``: all connections are open when their server falls silent."""
    site = bank.site
    overruns: list[float] = []
    others: list[float] = []
    connects: list[float] = []

    def wait_in_vain(pool: Any) -> None:
        start = time.monotonic()
        with pytest.raises((PoolTimeout, ConnectFailed)):
            pool.checkout(timeout=PATIENCE)
        overruns.append(time.monotonic() - start - PATIENCE)

    with site.pool(max_size=2) as well, site.pool(max_size=1) as coming, site.pool(hole.port, **options) as pool:
        well.execute("select 1")
        usual = max(calm_connect(coming) for _ in range(5))
        hole.set(mode="pass")
        if known:
            meet_all(site, pool, SIZE)
        hole.set(mode="blackhole")
        with Ticker() as ticker:
            waiters = [background(wait_in_vain, pool) for _ in range(2 * SIZE)]
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                start = time.monotonic()
                well.execute("select 1")
                others.append(time.monotonic() - start)
                if len(others) % 10 == 0:
                    connects.append(calm_connect(coming))
            for waiter in waiters:
                waiter.result(SOON)
        assert len(others) > 20
        assert pool.stats().in_use == 0
        assert pool.stats().waiting == 0
        note("a waiter", max(overruns))
        note("another pool", max(others))
        note("another pool's connect", max(connects) - usual)
        note("a thread", ticker.longest)
        coming.close()
        well.close()
        hole.set(mode="pass")
        if not known:  # it has never connected, and is told of each failure until what hangs has ended
            eventually(lambda: tried(pool) is None, "it is a server again")
        assert_nothing_lost(bank, pool)


#: in the proof an overrun in most of the rounds is one too many
HOW_OFTEN = pytest.mark.parametrize("most", [False, pytest.param(True, marks=pytest.mark.proof)])


@HOW_OFTEN
@pytest.mark.parametrize("known", [False, True], ids=["never connected", "all connected"])
def test_no_waiter_outwaits_its_deadline_and_nobody_else_is_held_up(any_bank, proxy, known, most):
    hole = proxy(any_bank.site.server.port)
    options: dict[str, Any] = {"max_size": SIZE, "connect_timeout": 2, "backoff": Backoff(0.05, 0.1)}
    if known:
        # whoever holds a connection that is used without a question asks the black hole himself, in his own time
        options |= {"ping_after": 0, "check_timeout": 0.3}
    best_of(lambda: fall_silent(any_bank, hole, options, known), most=most)
