"""What if the server says nothing at all? A black hole in a ping, and a server that stands still and goes on later."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.bank import Load, assert_nothing_lost, meet_all
from tests.scene import SOON, background
from threadpool_db import PoolTimeout

SIZE = 4


@contextmanager
def ticking():
    """A thread that ticks; the longest that the interpreter kept it from that, in seconds."""
    longest, stop = [0.0], threading.Event()

    def tick():
        last = time.monotonic()
        while not stop.wait(0.005):
            now = time.monotonic()
            longest[0] = max(longest[0], now - last)
            last = now

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    yield longest
    stop.set()
    thread.join()


def test_a_ping_into_a_black_hole_ends_after_check_timeout_and_its_borrower_gets_another_connection(any_bank, proxy):
    wire = proxy(any_bank.site.server.port)

    def reopen(event):
        if event.kind == "dead":
            wire.set(mode="pass")

    options = {"max_size": SIZE, "ping_after": 0, "check_timeout": 0.5, "observers": [reopen]}
    with any_bank.site.pool(wire.port, **options) as pool:
        meet_all(any_bank.site, pool, SIZE)
        dead = pool.stats().dead
        wire.set(mode="blackhole")
        begun = time.monotonic()
        with ticking() as longest:
            assert pool.execute("select 1") == [(1,)]
        assert 0.4 < time.monotonic() - begun < 0.5 + 1.0
        assert longest[0] < 0.4  # the interpreter was free all the while
        assert pool.stats().dead == dead + 1
        assert pool.stats().total == 1  # whatever silenced that one has silenced the rest
        assert_nothing_lost(any_bank, pool)


def test_in_a_black_hole_everybody_is_refused_in_time_and_afterwards_nobody(any_bank, proxy):
    site, timeout = any_bank.site, 0.5
    wire = proxy(site.server.port)
    options = {"ping_after": 0, "check_timeout": 0.3, "connect_timeout": site.shortest_connect, "timeout": timeout}
    with site.pool(wire.port, max_size=SIZE, **options) as pool:
        meet_all(site, pool, SIZE)
        wire.set(mode="blackhole")
        begun = time.monotonic()
        asking = [background(pool.execute, "select 1") for _ in range(3 * SIZE)]
        for one in asking:
            assert isinstance(one.exception(SOON), PoolTimeout)
        # libpq's connects hang for two seconds: in the keeper's workers, which holds up nobody
        assert time.monotonic() - begun < timeout + 1.0
        wire.set(mode="pass")
        assert_nothing_lost(any_bank, pool)


# A server that stands still -------------------------------------------------------------------------------------------


def family(pid):
    """A process and its children: PostgreSQL's sessions are in groups of their own."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [pid, *map(int, children.read_text().split())]


@contextmanager
def frozen(server):
    """First the parent, so that no child is born meanwhile."""
    os.kill(server.pid, signal.SIGSTOP)
    stopped = family(server.pid)
    try:
        for pid in stopped[1:]:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in reversed(stopped):
            os.kill(pid, signal.SIGCONT)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds a server's processes in Linux's /proc")
def test_a_server_that_stands_still_for_longer_than_every_timeout_is_used_again_when_it_goes_on(any_bank):
    site = any_bank.site
    options = {"timeout": 0.5, "check_timeout": 0.3, "connect_timeout": site.shortest_connect, "ping_after": 0}
    with site.pool(max_size=SIZE + 2, **options) as pool:
        with Load(any_bank, pool, threads=12) as load:
            with frozen(site.server):
                load.wait_for(PoolTimeout, begun=time.monotonic() + site.shortest_connect + 0.2)
            load.go_on()
        strange = [deed.error for deed in load.failures if not isinstance(deed.error, (PoolTimeout, site.module.Error))]
        assert strange == []
        assert_nothing_lost(any_bank, pool)
