"""Can an operator pause a pool, resume it, wait for it and check it while it runs? Under a clock that stands still."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from tests.scene import SOON, SocketDriver, background, in_child, join, leak_reported, scene
from threadpool_db import (
    Backoff,
    Checked,
    ConnectFailed,
    PoolClosed,
    PoolConfig,
    PoolTimeout,
    PoolUnavailable,
)
from threadpool_db.testing import FakeClock, Latch, ScriptedDriver

STEADY = Backoff(1.0, 1.0, "exp")


# --- Pause and resume -------------------------------------------------------------------------------------------------


def test_a_paused_pool_closes_what_is_idle_and_what_comes_back():
    with scene(max_size=3) as s:
        s.fill(2)
        held = s.pool.checkout()
        assert s.pool.pause(timeout=0) is False
        assert (s.driver.closed, s.pool.stats().in_use) == (1, 1)
        held.checkin()
        assert s.pool.pause() is True
        assert s.driver.open == set()
        assert s.pool.stats().total == 0


def test_pause_waits_until_all_are_back_and_stays_paused_if_they_are_not():
    with scene(max_size=1) as s:
        held = s.borrow().result(SOON)
        pausing = background(s.pool.pause, 5)
        s.clock.wait_for_sleepers(1)
        s.clock.advance(5)
        assert pausing.result(SOON) is False
        assert s.pool.stats().paused
        again = background(s.pool.pause, 5)
        s.clock.wait_for_sleepers(1)
        held.checkin()
        assert again.result(SOON) is True


def test_pause_does_not_wait_for_what_only_its_own_thread_could_give_back():
    with scene() as s, s.pool.checkout():
        assert s.pool.pause(timeout=float("inf")) is False


def test_whoever_waits_for_a_pause_is_woken_when_somebody_resumes():
    with scene() as s:
        held = s.borrow().result(SOON)
        pausing = background(s.pool.pause, 60)
        s.clock.wait_for_sleepers(1)
        s.pool.resume()
        assert pausing.result(SOON) is False
        held.checkin()


def test_all_who_wait_for_the_pool_hear_of_it():
    with scene() as s:
        held = s.borrow().result(SOON)
        watching = [background(s.pool.pause, 60), background(s.pool.pause, 60), background(s.pool.close, 60)]
        s.clock.wait_for_sleepers(3)
        held.checkin()
        assert join(*watching) == [True, True, None]


def test_a_lease_that_is_dropped_ends_the_wait_of_a_pause():
    with scene() as s:
        held = [s.borrow().result(SOON)]
        pausing = background(s.pool.pause, 60)
        s.clock.wait_for_sleepers(1)
        with leak_reported():
            held.clear()
            pausing.result(SOON)
        assert pausing.result() is True


def test_borrowers_wait_in_line_and_are_served_in_order_when_it_is_resumed():
    with scene(max_size=1) as s:
        s.fill(1)
        s.pool.pause()
        waiters = s.line_up(3, timeout=60)
        s.clock.advance(30)
        assert s.driver.open == set()
        s.pool.resume()
        for number, waiter in enumerate(waiters, 1):
            lease = waiter.result(SOON)
            assert s.pool.stats().waiting == 3 - number
            lease.checkin()
        assert s.driver.made == 2


def test_a_borrower_whose_time_is_over_is_told_of_the_pause_and_its_remedy():
    with scene(max_size=1) as s:
        s.pool.pause()
        [waiter] = s.line_up(1, timeout=3)
        s.clock.advance(3)
        with pytest.raises(PoolTimeout, match=r"The pool is paused: (.|\n)*call resume\(\)") as refused:
            waiter.result(SOON)
        assert refused.value.snapshot.paused
        with pytest.raises(PoolTimeout, match="The pool is paused"):
            s.pool.checkout(timeout=0)
        assert s.driver.made == 0


def test_what_was_being_opened_when_it_paused_is_closed_and_its_borrower_waits_at_his_old_place():
    with scene(max_size=2, max_connecting=1) as s:
        s.driver.script("connect", latch := Latch())
        first = s.borrow(60)
        latch.wait_for(1)
        [second] = s.line_up(1, timeout=60)
        pausing = background(s.pool.pause, 60)
        s.clock.wait_for_sleepers(2)
        latch.open()
        assert pausing.result(SOON) is True
        assert s.driver.closed == 1
        s.clock.wait_for_sleepers(2)
        s.driver.script("connect", again := Latch())
        s.pool.resume()
        again.wait_for(1)
        assert not second.done()
        again.open()
        first.result(SOON).checkin()
        second.result(SOON).checkin()


@pytest.mark.parametrize("own_thread", [True, False])
def test_a_connect_that_fails_in_a_pause_refuses_nobody(own_thread):
    with scene(max_size=1, background=not own_thread, backoff=STEADY, grace=1.0) as s:
        s.pool.checkout().discard()
        s.driver.script("connect", fails := Latch())
        borrower = s.borrow(600)
        fails.wait_for(1)
        s.driver.always("connect", OSError)
        s.driver.script("connect")
        background(s.pool.pause, 0).result(SOON)
        fails.open()
        s.clock.wait_for_sleepers(1)
        s.clock.advance(300)
        assert not borrower.done()
        s.driver.always("connect", None)
        s.pool.resume()
        borrower.result(SOON).checkin()


def test_an_outage_before_the_pause_is_forgotten_with_it():
    with scene(max_size=1, backoff=STEADY, grace=1.0) as s:
        s.pool.checkout().discard()
        s.driver.always("connect", OSError)
        [waiter] = s.line_up(1, timeout=600)
        s.pool.pause()
        s.clock.advance(100)
        assert not waiter.done() and s.pool.stats().failing_for == 0
        s.driver.always("connect", None)
        s.pool.resume()
        waiter.result(SOON).checkin()


def test_both_may_be_said_twice_and_what_is_lent_over_a_short_pause_stays_good():
    with scene() as s:
        s.pool.resume()
        held = s.pool.checkout()
        for _ in range(2):
            s.pool.pause(timeout=0)
        for _ in range(2):
            s.pool.resume()
        held.checkin()
        assert s.pool.stats().idle == 1


def test_in_a_pause_nothing_is_kept_ready_or_asked_and_afterwards_all_of_it_is():
    with scene(background=True, min_size=2, keepalive=10) as s:
        s.pool.wait()
        s.pool.pause()
        s.clock.advance(100)
        assert (s.pool.stats().total, s.driver.calls["ping"]) == (0, 0)
        s.pool.resume()
        s.pool.wait()
        assert s.pool.stats().total == 2


def test_max_lease_ends_what_is_lent_in_a_pause_too():
    with scene(background=True, max_lease=10, driver=(driver := SocketDriver(clock := FakeClock())), clock=clock) as s:
        lease = s.borrow().result(SOON)
        pausing = background(s.pool.pause, 60)
        clock.wait_for_sleepers(1)
        clock.advance(10)
        assert pausing.result(SOON) is True
        assert lease.expired and driver.open == set()


def test_a_paused_pool_says_so_and_may_be_recycled_reconfigured_and_closed():
    with scene(max_size=2, name="orders") as s:
        s.pool.pause()
        assert repr(s.pool) == "<Pool 'orders' paused, 0 in use, 0 idle of 2, 0 waiting>"
        s.pool.recycle()
        assert s.pool.reconfigure(max_size=3) == ["max_size 2 -> 3"]
        [waiter] = s.line_up(1)
        s.pool.close()
        with pytest.raises(PoolClosed):
            waiter.result(SOON)
        for change in (s.pool.pause, s.pool.resume, s.pool.reconfigure, s.pool.wait, s.pool.check):
            with pytest.raises(PoolClosed):
                change()


def test_a_child_of_a_paused_pool_is_paused():
    with scene() as s:
        s.pool.pause()

        def child():
            paused = s.pool.stats().paused
            s.pool.resume()
            s.pool.checkout().checkin()
            return paused

        assert in_child(child) == "True"


def test_a_slow_close_holds_up_neither_the_others_nor_the_one_who_pauses_for_longer_than_he_said():
    with scene(background=True, max_size=3) as s:
        s.fill(3)
        s.driver.script("close", slow := Latch())
        pausing = background(s.pool.pause, 5)
        slow.wait_for(1)
        s.clock.wait_for_sleepers(1)
        assert s.driver.calls["close"] == 3
        s.clock.advance(5)
        assert pausing.result(SOON) is False
        slow.open()
        assert s.pool.pause() is True


# --- Wait -------------------------------------------------------------------------------------------------------------


def test_wait_returns_when_min_size_connections_are_there():
    with scene(background=True, min_size=3, max_connecting=1) as s:
        s.pool.wait()
        assert s.pool.stats().total >= 3
        s.pool.wait(timeout=0)


def test_wait_makes_one_connection_where_none_is_to_be_kept():
    with scene() as s:
        s.pool.wait()
        assert s.pool.stats().idle == 1


def test_a_pool_that_is_all_in_use_is_ready():
    with scene(max_size=1) as s, s.pool.checkout():
        s.pool.wait(timeout=0)


def test_wait_says_at_once_that_the_first_connect_failed():
    driver = ScriptedDriver(clock := FakeClock())
    driver.always("connect", OSError("no such user"))
    with scene(background=True, min_size=1, driver=driver, clock=clock) as s:
        with pytest.raises(ConnectFailed) as failed:
            s.pool.wait(timeout=60)
        assert isinstance(failed.value.__cause__, OSError)


def test_wait_says_that_the_database_is_out_of_reach():
    with scene(max_size=1, backoff=STEADY, grace=0) as s:
        s.pool.checkout().discard()
        s.driver.always("connect", OSError)
        with pytest.raises(PoolUnavailable):
            s.pool.checkout()
        with pytest.raises(PoolUnavailable):
            s.pool.wait()


def test_whoever_waits_for_more_is_told_when_the_breaker_opens():
    with scene(background=True, min_size=2, max_connecting=1, backoff=STEADY, grace=5) as s:
        s.pool.wait()
        leases = [s.pool.checkout() for _ in range(2)]
        leases[0].checkin()
        s.driver.always("connect", OSError)
        next(e for e in s.driver.open if e is not leases[1].connection).alive = False
        assert s.pool.check().dead == 1
        late = background(s.pool.wait, 60)
        s.clock.wait_for_sleepers(1)
        leases[1].discard()
        s.clock.advance(5)
        with pytest.raises(PoolUnavailable):
            late.result(SOON)


def test_wait_gives_up_when_its_time_is_over_and_says_how_many_there_are():
    driver = ScriptedDriver(clock := FakeClock())
    driver.script("connect", None, hangs := Latch())
    with scene(background=True, min_size=2, max_connecting=1, driver=driver, clock=clock) as s:
        waiting = background(s.pool.wait, 3)
        hangs.wait_for(1)
        s.clock.wait_for_sleepers(1)
        s.clock.advance(3)
        with pytest.raises(
            PoolTimeout, match=r"1 of min_size=2 connections are there after 3\.00 s\. A new connection is"
        ):
            waiting.result(SOON)
        hangs.open()


@pytest.mark.parametrize("lent", [0, 1])
def test_a_paused_pool_is_not_ready(lent):
    with scene() as s:
        held = [s.pool.checkout() for _ in range(lent)]
        s.pool.pause(timeout=0)
        with pytest.raises(PoolTimeout, match="paused"):
            s.pool.wait(timeout=0)
        for lease in held:
            lease.checkin()


# --- Check ------------------------------------------------------------------------------------------------------------


def test_check_asks_all_that_are_idle_and_leaves_the_busy_ones_alone():
    with scene(max_size=4) as s:
        s.fill(4)
        with s.pool.checkout():
            assert s.pool.check() == Checked(asked=3, alive=3, busy=1)
        assert s.driver.calls["ping"] == 3
        s.assert_nothing_lost()


def test_what_check_finds_dead_is_closed_and_replaced():
    with scene(background=True, max_size=3, min_size=3) as s:
        s.pool.wait()
        s.driver.script("ping", True, False)
        assert s.pool.check() == Checked(asked=3, alive=2, dead=1)
        assert s.pool.stats().dead == 1
        s.pool.wait()
        assert (s.driver.made, len(s.driver.open)) == (4, 3)


def test_a_question_blocks_nobody_and_whoever_waits_meanwhile_gets_the_one_that_answered():
    with scene(max_size=2) as s:
        s.fill(2)
        s.driver.script("ping", slow := Latch())
        checking = background(s.pool.check)
        slow.wait_for(1)
        s.pool.checkout(timeout=0).checkin()
        both = [s.pool.checkout()]
        [waiter] = s.line_up(1)
        slow.open()
        both.append(waiter.result(SOON))
        assert checking.result(SOON) == Checked(asked=1, alive=1, busy=1)
        assert s.driver.made == 2
        for lease in both:
            lease.checkin()


def test_a_black_hole_makes_a_check_no_longer_than_it_may_be():
    clock = FakeClock()
    driver = SocketDriver(clock)
    with scene(driver=driver, clock=clock, max_size=4, check_timeout=2, ping_after=30) as s:
        s.fill(4)
        arrived = Latch()
        arrived.open()
        for connection in sorted(driver.open, key=lambda connection: connection.number):
            hang = driver.hang(connection)
            driver.script("ping", lambda hang=hang: (arrived(), hang())[1])
        checking = background(s.pool.check, timeout=3)
        arrived.wait_for(1)
        clock.advance(2)
        arrived.wait_for(2)
        clock.advance(1)
        assert checking.result(SOON) == Checked(asked=2, dead=2, unasked=2)
        s.assert_nothing_lost()


def test_after_a_dead_one_those_as_silent_are_closed_unasked():
    with scene(max_size=3, ping_after=30) as s:
        s.fill(3)
        s.clock.advance(31)
        s.driver.script("ping", False)
        assert s.pool.check() == Checked(asked=1, dead=1, unasked=2)
        assert s.driver.open == set()


def test_a_check_that_is_interrupted_loses_nothing():
    with scene(driver=ScriptedDriver(clock := FakeClock()), clock=clock) as s:
        s.fill(2)
        s.driver.script("ping", KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            s.pool.check()
        s.assert_nothing_lost()


# --- The page ---------------------------------------------------------------------------------------------------------


def test_the_pages_example_prints_what_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).resolve().parents[1] / "docs" / "operating.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    [printed] = re.findall(r"prints\n\n```\n(.*?)```", page, re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out == printed


def test_the_page_has_every_option():
    page = (Path(__file__).resolve().parents[1] / "docs" / "operating.md").read_text()
    listed = set(re.findall(r"`(\w+)`", page))
    assert {field.name for field in dataclasses.fields(PoolConfig)} <= listed
