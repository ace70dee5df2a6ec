"""What if the wire turns an answer into something else? It may be a lie to whoever asked; nobody else may hear of it.

Seeded noise, and noise behind a header that is as it should be, so that the client reads on. Who asked gets an error,
or the noise for an answer where it happens to make sense; a client that waits for the rest of what was announced is
ended by ``max_lease``, and the pool's own round trips by ``check_timeout``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from tests.drivers import ask
from tests.faults.bank import SOON, Bank, Watcher, assert_nothing_lost, eventually
from tests.faults.meddler import Lie, Meddler, babble, noise
from threadpool_db import Backoff, PoolTimeout

ONE = {"max_size": 1, "grace": inf, "backoff": Backoff(0.01, 0.02)}
OWN = {**ONE, "check_timeout": 0.6, "max_lease": 0.5, "timeout": 1.5}
#: PostgreSQL's answer begins with a type and a length, MariaDB's with a length, a number, and a kind
HEADER = 5
KINDS: dict[str, Callable[[int], Lie]] = {"noise": noise, "babble": lambda seed: babble(seed, HEADER)}


@pytest.fixture(params=KINDS)
def lie(request: pytest.FixtureRequest) -> Callable[[int], Lie]:
    return lambda seed: KINDS[request.param](seed)


def answered(connection: Any, sql: str) -> Any:
    """Its rows; or the error, of whatever class a client stumbles with."""
    try:
        return ask(connection, sql)
    except Exception as error:
        return error


def assert_the_next_is_served(pool: Any, seed: int) -> None:
    for n in range(3):
        assert pool.execute(f"select 'the next, {seed}, {n}'", timeout=SOON) == [(f"the next, {seed}, {n}",)]
        with pool.checkout(timeout=SOON) as connection:
            assert list(ask(connection, f"select {seed} + {n}")) == [(seed + n,)]


def in_a_statement(bank: Bank, lie: Callable[[int], Lie], seed: int) -> None:
    with Meddler(bank.site.server.port) as wire, bank.site.pool(wire.port, **OWN) as pool:
        with pool.checkout() as connection:
            ask(connection, "select 1")
            wire.garble(lie(seed))
            answered(connection, "select 'mine', 'and mine alone'")
            wire.heal()
        assert_the_next_is_served(pool, seed)
        assert_nothing_lost(bank, pool)


def in_a_round_trip(bank: Bank, lie: Callable[[int], Lie], seed: int) -> None:
    """A rollback, and whatever else the pool says when a connection comes back, and the ping before the next use."""
    watcher = Watcher()
    options = {**OWN, "ping_after": 0, "reset": "always", "max_lease": None, "observers": [watcher]}
    with Meddler(bank.site.server.port) as wire, bank.site.pool(wire.port, **options) as pool:
        with pool.checkout() as connection:
            ask(connection, "update account set balance = 0 where id = 1")
            wire.garble(lie(seed))
        assert pool.stats().in_use == 0
        wire.heal()
        assert_the_next_is_served(pool, seed)
        wire.garble(lie(seed + 1))
        with contextlib.suppress(PoolTimeout):
            pool.checkout(timeout=0.2).checkin()
        wire.heal()
        assert_the_next_is_served(pool, seed)
        assert_nothing_lost(bank, pool)


def in_a_connect(bank: Bank, lie: Callable[[int], Lie], seed: int) -> None:
    limit = bank.site.shortest_connect
    options = {**OWN, "timeout": 0.2, "connect_timeout": limit}
    with Meddler(bank.site.server.port) as wire, bank.site.pool(wire.port, **options) as pool:
        pool.execute("select 1", timeout=SOON)
        pool.recycle()
        wire.garble(lie(seed))
        with pytest.raises(PoolTimeout):
            pool.checkout()
        wire.heal()
        # what was begun has failed; or, begun last, it has met the healed wire, and is there for the next one
        eventually(lambda: pool.stats().total == pool.stats().idle, "nothing is under way")
        assert pool.stats().connect_failures >= 1
        assert_the_next_is_served(pool, seed)
        assert_nothing_lost(bank, pool)


@pytest.mark.parametrize("where", [in_a_statement, in_a_round_trip, in_a_connect])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.proof) for seed in range(100, 112))])
def test_garbage_instead_of_an_answer_reaches_nobody_but_who_asked(
    driver_bank: Bank, lie: Callable[[int], Lie], where: Callable[..., None], seed: int
) -> None:
    where(driver_bank, lie, seed)
