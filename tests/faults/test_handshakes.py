"""What if a server takes the connection and then does not come to terms? It says nothing, or half of a TLS handshake.

Connects are in the keeper's workers: who waits is bounded by his own timeout. The attempt is ended by the driver, where
its connect limit reaches that far, and the slot is free when it has ended, not before.
"""

from __future__ import annotations

import random
import socket
import time
from math import inf
from typing import Any

import pytest

from tests.faults.bank import SOON, Bank, Site, eventually, is_drivers, meet_all, tried
from tests.faults.meddler import Meddler
from tests.scene import background, join
from threadpool_db import Backoff, PoolTimeout

SIZE, WAITERS = 2, 3
PATIENCE = 0.3


def places(site: Site) -> list[int]:
    """After so many bytes of the server's: before its first word, before its half of the handshake, within it, and in
    the login that comes after it."""
    first = 1  # PostgreSQL's whole answer to the question for TLS
    if not site.postgresql:
        with socket.create_connection((site.server.host, site.server.port)) as probe:
            first = 4 + int.from_bytes(probe.recv(3), "little")  # MariaDB's greeting
    with Meddler(site.server.port) as wire, site.pool(wire.port) as pool:
        pool.checkout().checkin()
        login = wire.traffic.to_client - 30
    assert login > first + 500
    return [0, first, first + 200, login]


def stalled(bank: Bank, after: int, way: dict[str, Any]) -> None:
    """One pool whose connects all stall there."""
    site = bank.site
    limit = max(site.shortest_connect, 1.0)
    options = {"max_size": SIZE, "timeout": PATIENCE, "connect_timeout": limit, "backoff": Backoff(0.05, 0.1)}
    options["grace"] = inf  # else whoever comes is refused at once, and none of this is met
    with Meddler(site.server.port) as wire, site.pool(wire.port, **options, **way) as pool:
        eventually(lambda: tried(pool) is None, "the server is met")
        pool.recycle()
        eventually(lambda: pool.stats().total == 0, "it is closed, and so is what came too late")
        opened = pool.stats().opened
        wire.stall(after)
        begun = time.monotonic()
        for one in [background(pool.checkout) for _ in range(WAITERS)]:
            assert isinstance(one.exception(SOON), PoolTimeout)
        eventually(lambda: pool.stats().total == 0, "the driver has given up, and the slot is free")
        assert time.monotonic() - begun < 2 * limit + 2.0
        stats = pool.stats()
        assert (stats.in_use, stats.waiting, stats.counts.opening, stats.counts.closing) == (0, 0, 0, 0)
        assert stats.connect_failures >= 1 and stats.opened == stats.closures == opened
        assert isinstance(stats.connect_error, TimeoutError) or is_drivers(site, stats.connect_error)
        wire.heal()
        meet_all(site, pool, SIZE)
        assert pool.stats().opened - pool.stats().closures == SIZE
        bank.transfer(pool, random.Random(after))
        assert pool.stats().in_use == 0


@pytest.mark.timeout(120)
def test_a_tls_handshake_that_stalls_holds_up_its_waiters_until_their_timeout_and_its_slot_until_the_driver_gives_up(
    tls_bank: Any,
) -> None:
    site = tls_bank.site
    ways: list[dict[str, Any]] = [{"background": True}, {"background": False}]
    join(*[background(stalled, tls_bank, after, way) for after in places(site) for way in ways])
    eventually(lambda: not site.sessions(), "no session is left of all of them")
    tls_bank.assert_balanced()
