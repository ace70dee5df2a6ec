"""Who is held up by a server that takes all and says nothing? Its own waiters, until their deadline; nobody else."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.faults.bank import Site, meet_all
from tests.proxy import FaultProxy
from tests.scene import SOON, background
from threadpool_db import ConnectFailed, PoolTimeout

PATIENCE = 0.6  # the timeout of those who wait for the black hole
SLACK = 0.05  # what is allowed beyond it, and to every thread that has nothing to do with it
SIZE = 10
ROUNDS = 5  # the machine may be busy with somebody else's work: the best round counts


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


def one_round(site: Site, hole: FaultProxy, options: dict[str, Any], known: bool) -> dict[str, float]:
    """Seconds too long, each way. ``known``: all connections are open when their server falls silent."""
    overruns: list[float] = []
    others: list[float] = []

    def wait_in_vain(pool) -> None:
        start = time.monotonic()
        with pytest.raises((PoolTimeout, ConnectFailed)):
            pool.checkout(timeout=PATIENCE)
        overruns.append(time.monotonic() - start - PATIENCE)

    with site.pool(max_size=2) as well, site.pool(hole.port, max_size=SIZE, connect_timeout=2, **options) as pool:
        well.execute("select 1")
        if known:
            hole.set(mode="pass")
            meet_all(site, pool, SIZE)
        hole.set(mode="blackhole")
        with Ticker() as ticker:
            waiters = [background(wait_in_vain, pool) for _ in range(2 * SIZE)]
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                start = time.monotonic()
                well.execute("select 1")
                others.append(time.monotonic() - start)
            for waiter in waiters:
                waiter.result(SOON)
        assert len(others) > 20
        assert pool.stats().in_use == 0
        assert pool.stats().waiting == 0
        pool.close(timeout=0)
    return {"a waiter": max(overruns), "another pool": max(others), "a thread": ticker.longest}


@pytest.mark.parametrize("known", [False, True], ids=["never connected", "all connected"])
def test_no_waiter_outwaits_its_deadline_and_nobody_else_is_held_up(any_bank, proxy, known):
    hole = proxy(any_bank.site.server.port)
    # whoever holds a connection that is used without a question asks the black hole himself, in his own time
    options = {"ping_after": 0, "check_timeout": 0.3} if known else {}
    seen = []
    for _ in range(ROUNDS):
        seen.append(one_round(any_bank.site, hole, options, known))
        if all(seconds <= SLACK for seconds in seen[-1].values()):
            return
    pytest.fail(f"held up for longer than {SLACK:g} s in each round: {seen}")
