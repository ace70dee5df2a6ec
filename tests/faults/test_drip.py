"""What if an answer comes, but a byte at a time? No single read times out, and the whole never ends.

So the pool's own round trips are ended from outside, after ``check_timeout``, however busy the wire looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.drivers import ask
from tests.faults.bank import SOON, Bank, assert_nothing_lost
from tests.faults.bounds import bounds_of
from tests.faults.meddler import Meddler
from threadpool_db import PoolTimeout

GAP = 0.1  # between two bytes: the shortest answer to a round trip has eleven
LIMIT = 0.4
SIZE = 2
OWN = {"check_timeout": LIMIT, "max_size": SIZE, "timeout": 1.0}


@contextmanager
def dripping(bank: Bank, trip: str, early: float = 0.1, **options: Any) -> Iterator[tuple[Meddler, Any]]:
    """A pool with one connection, and afterwards: that trip was cut, and nothing is lost."""
    with Meddler(bank.site.server.port) as wire, bank.site.pool(wire.port, **{**OWN, **options}) as pool:
        pool.execute("select 1", timeout=SOON)
        bounds = bounds_of(pool)
        yield wire, pool
        assert max(bounds.overruns(trip)) > -early  # it did not fail for another reason, before its time
        wire.heal()
        assert pool.execute("select 1", timeout=SOON) == [(1,)]
        assert pool.stats().opened == 2
        assert_nothing_lost(bank, pool)


def ping(bank: Bank) -> None:
    with dripping(bank, "ping", ping_after=0) as (wire, pool):
        wire.drip(GAP)
        with pytest.raises(PoolTimeout):  # the connect that should replace it drips too
            pool.checkout()
        assert (pool.stats().dead, pool.stats().in_use) == (1, 0)


def rollback(bank: Bank) -> None:
    with dripping(bank, "rollback") as (wire, pool):
        with pool.checkout() as connection:
            ask(connection, "update account set balance = 0 where id = 1")
            wire.drip(GAP)
        assert (pool.stats().total, pool.stats().in_use) == (0, 0)


def reset(bank: Bank) -> None:
    said = "set statement_timeout = 54321" if bank.site.postgresql else "set @left = 1"
    with dripping(bank, "reset", autocommit=True) as (wire, pool):
        with pool.checkout() as connection:
            ask(connection, said)
            wire.drip(GAP)
        assert (pool.stats().total, pool.stats().in_use) == (0, 0)


def mode(bank: Bank) -> None:
    """Where a switch of the autocommit mode is a round trip, which it is not to libpq's clients."""
    with dripping(bank, "set_autocommit") as (wire, pool):
        wire.drip(GAP)
        with pytest.raises(PoolTimeout):
            pool.checkout()
        assert pool.stats().in_use == 0


def mode_in_a_hurry(bank: Bank) -> None:
    """By a borrower who has less time than a round trip of the pool's own."""
    with dripping(bank, "set_autocommit", check_timeout=LIMIT + 0.2, early=0.25) as (wire, pool):
        wire.drip(GAP)
        with pytest.raises(PoolTimeout):
            pool.checkout(timeout=LIMIT)
        assert pool.stats().in_use == 0


@pytest.mark.parametrize("trip", [ping, rollback, reset, mode, mode_in_a_hurry])
def test_a_round_trip_whose_answer_drips_is_ended_in_time_and_its_connection_closed(
    wired_bank: Bank, trip: Callable[[Bank], None]
) -> None:
    if trip in (mode, mode_in_a_hurry) and wired_bank.site.postgresql:
        pytest.skip("the mode is a flag on our side of the socket")
    trip(wired_bank)


def test_a_connect_that_drips_is_given_up_in_time_and_closed_when_it_ends(wired_bank: Bank) -> None:
    site = wired_bank.site
    options = {**OWN, "connect_timeout": LIMIT, "timeout": LIMIT / 2}
    with Meddler(site.server.port) as wire, site.pool(wire.port, **options) as pool:
        pool.execute("select 1", timeout=SOON)
        pool.recycle()
        wire.drip(0.002)
        with pytest.raises(PoolTimeout):
            pool.checkout()
        assert pool.stats().total <= SIZE
        wire.heal()
        assert_nothing_lost(wired_bank, pool)
