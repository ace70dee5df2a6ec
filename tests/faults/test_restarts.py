"""What does a restart of the server cost? At most one failed operation for each connection that was open.

Sixteen threads that do not pause, a server that is stopped or killed under them and comes back. What was in flight
fails with the driver's error. What begins later finds dead connections, new ones, or none for a while, and must not
notice; the one thing nobody can help is a statement sent before its server's goodbye has come.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from contextlib import contextmanager
from math import inf

import pytest

from tests.faults.bank import (
    Load,
    Watcher,
    assert_failed_by_the_driver,
    assert_nothing_lost,
    is_drivers,
    meet_all,
)
from threadpool_db import Backoff, PoolTimeout

THREADS = 16
SIZE = 8
TIMEOUT = 10.0

HOW = {"stopped": None, "killed": signal.SIGKILL}


@contextmanager
def lasting_pool(bank):
    """And what it says, which tells how many are open."""
    watcher = Watcher()
    with bank.site.pool(max_size=SIZE, timeout=TIMEOUT, grace=inf, observers=[watcher]) as pool:
        yield pool, watcher
        assert pool.stats().timeouts == 0


def restart_under_load(bank, pool, watcher, how):
    """One restart; how many operations of which kind failed."""
    with Load(bank, pool, THREADS) as load:
        begun, before = time.monotonic(), Counter(watcher.seen)
        bank.site.server.kill(how or bank.site.server.stop_signal)
        # a dying server may still have taken some in
        open_then = watcher.seen["connected"] - before["disconnected"]
        bank.site.server.restart()
        up = time.monotonic()
        load.go_on()
    in_flight = [deed for deed in load.failures if deed.begun < begun]
    later = [deed for deed in load.failures if deed.begun >= begun]
    assert_failed_by_the_driver(bank.site, load.failures)
    assert len(in_flight) <= THREADS
    assert len(later) <= open_then
    slowest = max(deed.over - deed.begun for deed in load.deeds)
    assert slowest < TIMEOUT
    assert_nothing_lost(bank, pool)
    return len(load.deeds), len(in_flight), len(later), open_then, up - begun, slowest


@pytest.mark.parametrize("how", HOW)
def test_a_restart_under_load_fails_what_was_in_flight_and_at_most_one_operation_per_connection(any_bank, how):
    with lasting_pool(any_bank) as (pool, watcher):
        restart_under_load(any_bank, pool, watcher, HOW[how])


@pytest.mark.proof
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", HOW)
def test_a_pool_lives_through_ten_restarts_under_load_each_of_which_costs_at_most_one_operation_per_connection(
    any_bank, how
):
    with lasting_pool(any_bank) as (pool, watcher):
        for _ in range(10):
            print("operations {}, failed in flight {}, later {} of {}, down {:.2f} s, slowest {:.2f} s".format(
                *restart_under_load(any_bank, pool, watcher, HOW[how])
            ))  # fmt: skip
        assert pool.stats().opened >= 10 * SIZE


@pytest.mark.parametrize("how", HOW)
def test_a_restart_while_the_pool_is_idle_costs_nobody_anything(any_bank, how):
    with any_bank.site.pool(max_size=SIZE) as pool:
        meet_all(any_bank.site, pool, SIZE)
        any_bank.site.server.restart(HOW[how])
        for _ in range(3 * SIZE):
            assert pool.execute("select 1") == [(1,)]
        stats = pool.stats()
        assert (stats.timeouts, stats.connect_failures) == (0, 0) and stats.dead >= 1
        assert_nothing_lost(any_bank, pool)


@pytest.mark.parametrize("how", HOW)
def test_while_the_server_is_down_everybody_is_refused_in_time_and_afterwards_nobody(any_bank, how):
    site, patience = any_bank.site, 0.3
    watcher = Watcher()
    options = {"timeout": patience, "grace": inf, "backoff": Backoff(0.05, 0.1), "observers": [watcher]}
    with site.pool(max_size=SIZE, **options) as pool:
        with Load(any_bank, pool) as load:
            site.server.kill(HOW[how] or site.server.stop_signal)
            down = time.monotonic()
            watcher.wait_for("refused", 12)
            still_down = time.monotonic()
            site.server.restart()
            load.go_on()
        refused = [deed for deed in load.failures if not is_drivers(site, deed.error)]
        assert refused and all(isinstance(deed.error, PoolTimeout) for deed in refused)
        blamed = [deed.error.__cause__ for deed in refused if down < deed.begun and deed.over < still_down]
        assert all(is_drivers(site, cause) for cause in blamed)
        assert max(deed.over - deed.begun for deed in refused) < patience + 1.0
        assert_nothing_lost(any_bank, pool)
