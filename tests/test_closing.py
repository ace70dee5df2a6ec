"""Does close do one thing after the other, in time, whoever is in its way? Under a clock that stands still."""

from __future__ import annotations

import pytest

from tests.faults.bank import Watcher
from tests.scene import SOON, SocketDriver, background, scene
from threadpool_db import LeaseExpired, PoolClosed
from threadpool_db.testing import FakeClock, Latch, ScriptedDriver, WatchedClock

BOTH = pytest.mark.parametrize("keeper", [True, False], ids=["background", "no background"])


@BOTH
def test_newcomers_are_refused_and_waiters_woken_before_anybody_gives_back(keeper):
    with scene(max_size=1, background=keeper) as s:
        held = s.borrow().result(SOON)
        waiters = s.line_up(2)
        closing = background(s.pool.close, timeout=60)
        for waiter in waiters:
            with pytest.raises(PoolClosed):
                waiter.result(SOON)
        with pytest.raises(PoolClosed):
            s.pool.checkout()
        assert held.active and not closing.done()
        held.checkin()
        closing.result(SOON)
        assert s.driver.open == set()


@BOTH
def test_what_is_idle_is_closed_while_it_waits_for_the_rest(keeper):
    with scene(max_size=2, background=keeper) as s:
        s.fill(2)
        held = s.borrow().result(SOON)
        closing = background(s.pool.close, timeout=60)
        s.clock.wait_for_sleepers(1)
        assert s.driver.closed == 1 and held.active
        held.checkin()
        closing.result(SOON)


@BOTH
def test_at_the_deadline_the_call_of_whoever_still_has_one_fails(keeper):
    clock = FakeClock()
    driver, heard = SocketDriver(clock), Watcher()
    with scene(driver=driver, clock=clock, max_size=2, background=keeper, observers=[heard]) as s:
        inside = Latch()
        inside.open()

        def stuck():
            with s.pool.checkout() as connection:
                end = driver.ends[connection][0]
                inside()
                try:
                    return end.recv(1)  # until the socket is cut
                except OSError:
                    return b""  # and closed before this thread got there

        borrower = background(stuck)
        inside.wait_for(1)
        closing = background(s.pool.close, timeout=5)
        clock.wait_for_sleepers(1)
        clock.advance(4.9)
        assert not borrower.done()
        clock.advance(0.1)
        closing.result(SOON)
        assert borrower.result(SOON) == b""
        assert (s.pool.stats().expired, s.pool.stats().total, driver.calls["close"]) == (1, 0, 1)
        assert heard.seen["expired"] == 1


@BOTH
def test_with_no_time_what_is_lent_is_cut_at_once_and_its_borrower_is_told_why(keeper):
    with scene(background=keeper) as s:
        lease = s.borrow().result(SOON)
        s.pool.close(timeout=0)
        assert s.driver.open == set()
        with pytest.raises(LeaseExpired, match=r"until the pool was closed; .* give close\(\) a longer timeout"):
            lease.connection  # noqa: B018
        lease.checkin()
        assert s.driver.calls["close"] == 1


@BOTH
def test_what_the_closing_thread_has_itself_is_left_to_it(keeper):
    with scene(max_size=2, background=keeper) as s:
        mine, other = s.pool.checkout(), s.borrow().result(SOON)
        s.pool.close(timeout=0)
        assert mine.active and not other.active
        mine.checkin()
        assert s.driver.open == set()


def test_who_was_granted_one_and_has_not_woken_yet_is_told_that_the_pool_is_closed():
    with scene(max_size=1) as s:
        held = s.borrow().result(SOON)
        s.driver.script("peek", woken := Latch())
        [waiter] = s.line_up(1)
        held.checkin()
        woken.wait_for(1)
        s.pool.close(timeout=0)
        woken.open()
        with pytest.raises((PoolClosed, LeaseExpired)):
            waiter.result(SOON).connection  # noqa: B018
        s.driver.wrong.clear()  # it was closed in the middle of the look, as a cut one is


def test_one_slow_close_holds_up_no_other():
    with scene(background=True, max_size=3) as s:
        s.fill(3)
        s.driver.script("close", slow := Latch())
        closing = background(s.pool.close, timeout=60)
        slow.wait_for(1)
        s.clock.wait_for_sleepers(1)
        assert s.driver.calls["close"] == 3
        assert s.pool.stats().counts.closing == 1
        slow.open()
        closing.result(SOON)
        assert s.pool.stats().total == 0


def test_the_slow_closes_of_one_pool_hold_up_no_other_pool_of_that_server():
    class Neighbour(ScriptedDriver):
        server_key = "the server"

    clock = WatchedClock()  # with the keeper of the process, whose workers are few
    one, other = Neighbour(clock), Neighbour(clock)
    options = {"clock": clock, "background": True, "check_timeout": 60}
    with scene(driver=one, max_size=6, **options) as a, scene(driver=other, **options) as b:
        a.fill(6)
        one.always("close", slow := Latch())
        closing = background(a.pool.close, timeout=60)
        slow.wait_for(6)
        b.pool.checkout(timeout=SOON).checkin()
        b.pool.close()
        assert other.open == set() and not closing.done()
        slow.open()
        closing.result(SOON)


@BOTH
def test_a_close_that_hangs_is_cut_short_and_close_returns(keeper):
    clock = FakeClock()
    driver = SocketDriver(clock)
    with scene(driver=driver, clock=clock, background=keeper, check_timeout=2) as s:
        s.fill(1)
        [connection] = driver.open
        goodbye = driver.hang(connection)
        arrived = Latch()
        arrived.open()
        driver.script("close", lambda: (arrived(), goodbye()))
        closing = background(s.pool.close, timeout=0)
        arrived.wait_for(1)
        assert not closing.done()
        clock.advance(2)
        closing.result(SOON)


def test_a_second_close_returns_at_once_while_the_first_waits():
    with scene() as s:
        held = s.borrow().result(SOON)
        first = background(s.pool.close, timeout=60)
        s.clock.wait_for_sleepers(1)
        s.pool.close(timeout=60)
        assert held.active and not first.done()
        held.checkin()
        first.result(SOON)


def test_two_who_close_at_once_close_once():
    with scene(max_size=3) as s:
        s.fill(3)
        for closing in [background(s.pool.close) for _ in range(4)]:
            closing.result(SOON)
        assert s.driver.calls["close"] == 3


def test_a_connect_under_way_is_waited_for_and_closed():
    with scene(background=True) as s:
        s.driver.script("connect", latch := Latch())
        borrower = s.borrow()
        latch.wait_for(1)
        closing = background(s.pool.close, timeout=60)
        with pytest.raises(PoolClosed):
            borrower.result(SOON)
        assert not closing.done()
        latch.open()
        closing.result(SOON)
        assert s.driver.open == set() and s.driver.made == 1


def test_a_time_that_makes_no_sense_closes_nothing():
    with scene() as s:
        for close in (s.pool.close, s.pool.pause):
            with pytest.raises(ValueError, match="timeout=-1"):
                close(timeout=-1)
        assert not s.pool.closed
