"""Can a real server be restarted behind a paused pool, and does a pool that closes end what runs at a real server?"""

from __future__ import annotations

import time

import pytest

from tests.drivers import ask
from tests.faults.bank import SOON, Load, assert_nothing_lost, eventually
from tests.scene import background
from threadpool_db import LeaseExpired


def test_a_restart_in_a_pause_fails_nobody_who_had_time(bank):
    with bank.site.pool(max_size=6, timeout=60, grace=0.5) as pool:
        with Load(bank, pool, 12) as load:
            assert pool.pause(timeout=SOON) is True
            eventually(lambda: not bank.site.sessions(), "the server has no session of ours")
            bank.site.server.restart()
            assert pool.stats().waiting == 12
            pool.resume()
            load.go_on()
        assert load.failures == []
        assert_nothing_lost(bank, pool)
        stats = pool.stats()
        assert (stats.timeouts, stats.refused, stats.dead, stats.connect_failures) == (0, 0, 0, 0)


def test_close_ends_a_statement_that_still_runs_at_the_server_too(bank):
    pool = bank.site.pool(max_size=2)
    lease = pool.checkout()
    pool.checkout().discard()

    def nap():
        connection = lease.connection
        with pytest.raises(bank.site.module.Error):
            ask(connection, bank.site.nap)

    napping = background(nap)
    eventually(lambda: bank.site.running(bank.site.nap), "the statement runs")
    start = time.monotonic()
    pool.close(timeout=0.3)
    assert 0.3 <= time.monotonic() - start < 3
    napping.result(SOON)
    with pytest.raises(LeaseExpired, match="until the pool was closed"):
        lease.connection  # noqa: B018
    eventually(lambda: not bank.site.running(bank.site.nap), "the statement is ended")
    assert pool.stats().total == 0
