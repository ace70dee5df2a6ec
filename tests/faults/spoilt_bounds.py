"""Cells that break a bound on purpose: ``test_bounds.py`` runs them in a process of their own, and sees them fail.

No server is needed: the driver sleeps, has no socket that could be cut, and so nobody ends it at its limit.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from typing import Any

import pytest

from tests.faults.bounds import note
from threadpool_db import Pool, PoolTimeout
from threadpool_db.testing import ScriptedDriver, WatchedClock

LIMIT, TOO_LONG = 0.05, 0.15
rounds: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def counted(request: pytest.FixtureRequest) -> None:
    rounds[request.node.name] += 1
    print(f"{request.node.name}: round {rounds[request.node.name]}")


def visit(times: int = 1, seconds: float = TOO_LONG, said: str = "ping", **options: Any) -> None:
    clock = WatchedClock()
    driver = ScriptedDriver(clock)
    answer = True if said == "ping" else None
    driver.always(said, lambda: time.sleep(seconds) or answer)
    options = {"max_size": 1, "ping_after": 0.0, "check_timeout": LIMIT, "background": False, **options}
    with Pool(driver, clock=clock, **options) as pool:
        for _ in range(1 + times):
            with contextlib.suppress(PoolTimeout):
                pool.checkout().checkin()


def test_a_round_trip_that_nobody_ends() -> None:
    visit()


def test_a_goodbye_that_nobody_ends() -> None:
    visit(times=0, said="close", ping_after=30.0)


def test_a_checkout_that_outlasts_its_timeout() -> None:
    visit(check_timeout=5.0, timeout=LIMIT, background=True)


def test_something_else_that_is_held_up() -> None:
    note("a ticker", TOO_LONG)


def test_in_time() -> None:
    visit(seconds=0.0)


def test_late_twice_for_the_machine_was_busy() -> None:
    visit(seconds=TOO_LONG if rounds["test_late_twice_for_the_machine_was_busy"] < 3 else 0.0)


def test_late_and_wrong() -> None:
    visit()
    raise AssertionError("wrong")


@pytest.mark.proof
def test_in_the_proof_most_must_be_in_time() -> None:
    visit(seconds=TOO_LONG if rounds["test_in_the_proof_most_must_be_in_time"] < 4 else 0.0)
