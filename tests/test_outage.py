"""What do the callers of a pool see while its database is out of reach? (The rules are in tests/core, real servers in
tests/faults.)"""

from __future__ import annotations

import math

import pytest

from tests.scene import SOON, Seen, background, join, scene
from tests.test_servers import eventually
from threadpool_db import Backoff, ConnectFailed, Event, Pool, PoolUnavailable
from threadpool_db.testing import FakeClock, ScriptedDriver

STEADY = Backoff(10.0, 10.0, "exp")
REFUSED = ConnectionRefusedError("no")


def cut_off(s, error=REFUSED):
    """It had a connection, lost it, and gets no other."""
    lease = s.pool.checkout()
    s.driver.always("connect", error)
    lease.discard()


def told(future):
    with pytest.raises(PoolUnavailable) as caught:
        future.result(SOON)
    return caught.value


def test_those_who_wait_and_those_who_come_are_refused_each_with_an_error_of_his_own_and_the_cause():
    with scene(max_size=2, timeout=100, grace=5.0, backoff=STEADY, background=False) as s:
        cut_off(s)
        waiting = s.line_up(2)
        s.clock.advance(4.9)
        assert not any(future.done() for future in waiting)
        s.clock.advance(0.1)
        errors = [told(future) for future in waiting]
        errors.append(told(s.borrow()))
        assert len(set(errors)) == 3
        assert all(error.__cause__ is REFUSED for error in errors)
        assert errors[-1].snapshot.refused == 3 and errors[-1].snapshot.failing_for == 5.0
        for words in ("out of reach", "for 5.0 s with ConnectionRefusedError", "grace=5 s", "0 in use"):
            assert words in str(errors[-1])
        assert s.pool.stats().timeouts == 0


@pytest.mark.parametrize("background", [False, True])
def test_one_connect_is_tried_in_each_step_and_serves_whoever_asks_if_it_succeeds(background):
    with scene(max_size=2, timeout=100, grace=0.0, backoff=STEADY, background=background) as s:
        cut_off(s)
        told(s.borrow())
        tries = s.driver.calls["connect"]
        for _ in range(3):
            told(s.borrow())
        assert s.driver.calls["connect"] == tries
        s.driver.always("connect", None)
        s.clock.advance(10.0)
        if background:  # somebody was refused: it is tried without waiting for the next one who asks
            assert eventually(lambda: s.pool.stats().idle == 1)
        lease = s.borrow().result(SOON)
        assert s.driver.calls["connect"] == tries + 1
        lease.checkin()
        assert s.pool.stats().connect_error is None and s.pool.stats().failing_for == 0.0


def test_a_pool_that_has_never_connected_says_at_once_that_it_could_not():
    with scene(max_size=2, timeout=100, grace=5.0, backoff=STEADY) as s:
        s.driver.always("connect", REFUSED)
        for _ in range(3):
            with pytest.raises(ConnectFailed) as caught:
                s.pool.checkout()
            assert caught.value.__cause__ is REFUSED
        s.clock.advance(5.0)
        told(s.borrow())


def test_pools_of_one_server_share_what_they_know_of_it():
    clock = FakeClock()
    driver = ScriptedDriver(clock)
    options = {"clock": clock, "timeout": 100, "grace": 5.0, "backoff": STEADY, "background": False}
    with Pool(driver, name="one", **options) as one, Pool(driver, name="other", **options) as other:
        for pool in (one, other):
            pool.checkout().discard()
        driver.script("connect", REFUSED)
        first = background(one.checkout)
        clock.wait_for_sleepers(1)
        second = background(other.checkout)
        clock.wait_for_sleepers(2)
        assert driver.calls["connect"] == 3
        clock.advance(4.9)
        assert driver.calls["connect"] == 3
        clock.advance(0.1)
        told(first)  # its own news: connects of ``other`` have not failed
        clock.advance(5.0)
        (lease,) = join(second)
        lease.checkin()
        assert driver.calls["connect"] == 4


class Turnstile:
    """A lock that counts how often it was taken."""

    def __init__(self, lock):
        self._lock, self.turns = lock, 0
        self.release, self._is_owned = lock.release, lock._is_owned

    def acquire(self, *args, **options):
        self.turns += not self._lock._is_owned()
        return self._lock.acquire(*args, **options)

    def __enter__(self):
        self.acquire()

    def __exit__(self, *error):
        self.release()


class CountingClock(FakeClock):
    def lock(self):
        return Turnstile(super().lock())


def test_a_refusal_takes_the_lock_twice_for_each_turn_costs_milliseconds_among_dozens_of_threads():
    clock = CountingClock()
    driver = ScriptedDriver(clock)
    with Pool(driver, clock=clock, grace=0.0, backoff=STEADY, background=False) as pool:
        lease = pool.checkout()
        driver.always("connect", REFUSED)
        lease.discard()
        for _ in range(2):
            turns = pool._lock.turns
            with pytest.raises(PoolUnavailable):
                pool.checkout()
        assert pool._lock.turns - turns == 2  # the line, the error


# --- What observers hear of it ----------------------------------------------------------------------------------------


@pytest.fixture
def seen():
    return Seen()


def of_outages(seen):
    return [event for event in seen if event.kind.endswith("available")]


@pytest.mark.parametrize("background", [False, True])
def test_an_outage_is_told_once_when_nobody_waits_any_more_and_once_when_it_is_over(seen, background):
    refused = ConnectionRefusedError("no")
    options = {"backoff": Backoff(10.0, 10.0, "exp"), "grace": 5.0, "background": background}
    with scene(observers=[seen], max_size=1, timeout=100, name="orders", **options) as s:
        for _ in range(2):
            seen.clear()
            lease = s.pool.checkout()
            s.driver.always("connect", refused)
            lease.discard()
            waiter = s.borrow()
            assert eventually(lambda: s.pool.stats().failing_for < math.inf and s.clock.sleepers == 1)
            s.clock.advance(4.9)
            assert of_outages(seen) == []
            s.clock.advance(0.1)
            assert isinstance(waiter.exception(SOON), PoolUnavailable)
            for _ in range(3):
                with pytest.raises(PoolUnavailable):
                    s.pool.checkout()
            detail = "nothing is connected, and connects have failed for 5.0 s, the last with ConnectionRefusedError"
            assert eventually(lambda: of_outages(seen) != [])
            assert of_outages(seen) == [Event("unavailable", "orders", 5.0, detail, refused)]
            s.driver.always("connect", None)
            s.clock.advance(5.0)
            assert not background or eventually(lambda: s.pool.stats().idle == 1)
            s.pool.checkout().checkin()
            assert eventually(lambda: len(of_outages(seen)) == 2)
            assert of_outages(seen)[1:] == [Event("available", "orders", 10.0, "connected again, after 10.0 s")]


def test_connects_that_fail_while_others_are_connected_are_no_outage(seen):
    with scene(observers=[seen], max_size=2, timeout=100, grace=1.0, backoff=Backoff(1.0, 1.0, "exp")) as s:
        held = s.pool.checkout()
        s.driver.always("connect", OSError)
        (waiter,) = s.line_up(1)
        s.clock.advance(20.0)
        assert of_outages(seen) == []
        held.checkin()
        waiter.result(SOON).checkin()


def test_a_closed_pool_tells_of_no_outage(seen):
    options = {"grace": 1.0, "backoff": Backoff(1.0, 1.0, "exp")}
    with scene(observers=[seen], max_size=1, timeout=100, **options) as s:
        held = s.pool.checkout()
        s.driver.always("connect", OSError)
        held.discard()
        (waiter,) = s.line_up(1)
        s.pool.close(timeout=0)
        assert waiter.exception(SOON) is not None
        s.clock.advance(20.0)
        s.pool.stats()
        assert of_outages(seen) == []
