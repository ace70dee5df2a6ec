"""Is somebody told when the pool is in trouble for long, and nobody when it is not?"""

from __future__ import annotations

import gc
import logging
import queue
import threading

import pytest

from tests.scene import SOON, join, scene
from tests.test_servers import eventually
from threadpool_db import Alarm, Alarms, Backoff, Event, Pool, PoolUnavailable
from threadpool_db.alarms import Lookout
from threadpool_db.testing import FakeClock, Latch, ScriptedDriver, WatchedClock
from threadpool_db.waiting import Clock

STEADY = Backoff(1.0, 1.0, "exp")
REFUSED = ConnectionRefusedError("no")


class Bell:
    """Hooks and observer in one. What it hears comes from a worker."""

    def __init__(self):
        self.heard = queue.Queue()
        self.events = queue.Queue()
        self.threads = set()

    def on(self, alarm):
        self.threads.add(threading.current_thread())
        self.heard.put(("on", alarm))

    def off(self, alarm):
        self.threads.add(threading.current_thread())
        self.heard.put(("off", alarm))

    def __call__(self, event):
        if event.kind in ("alarm", "cleared"):
            self.events.put(event)

    def next(self):
        return self.heard.get(timeout=SOON)

    @property
    def hooks(self):
        return {"on_alarm": self.on, "on_clear": self.off, "observers": [self]}


@pytest.fixture
def bell():
    return Bell()


def full(s, waiting=1):
    """All connections are lent, and so many wait."""
    held = s.pool.checkout()
    return held, s.line_up(waiting)


def cut_off(s):
    """It had a connection, lost it, and gets no other."""
    lease = s.pool.checkout()
    s.driver.always("connect", REFUSED)
    lease.discard()


def looks(clock):
    """How many samples are planned."""
    return sum(getattr(alarm._task, "__func__", None) is Lookout._sample for _, alarm in clock.keeper._plan)


def pass_time(s, seconds, step=0.5):
    """What workers do in each step is done before the next one."""
    for _ in range(round(seconds / step)):
        s.clock.advance(step)
        assert eventually(lambda: s.pool.stats().counts.opening == 0)


def test_a_line_that_stands_for_an_interval_raises_the_alarm_and_one_that_moves_for_an_interval_clears_it(bell):
    with scene(background=True, max_size=1, timeout=100, name="orders", **bell.hooks) as s:
        held, waiting = full(s, 2)
        s.clock.advance(5.0)
        assert bell.heard.empty()  # at the first sample somebody had waited 0.5 s, and this has been so for 4.5
        s.clock.advance(0.5)
        alarm = Alarm("overload", "orders", 5.0, "the first in line has waited for 5.5 s, 2 wait")
        assert bell.next() == ("on", alarm)
        held.checkin()
        for waiter in waiting:
            waiter.result(SOON).checkin()
        s.clock.advance(5.0)
        assert bell.heard.empty()
        s.clock.advance(0.5)
        assert bell.next() == ("off", Alarm("overload", "orders", 5.5, "over after 5.5 s"))
        events = [bell.events.get(timeout=SOON) for _ in range(2)]
        assert events == [
            Event("alarm", "orders", 5.0, "overload: the first in line has waited for 5.5 s, 2 wait"),
            Event("cleared", "orders", 5.5, "overload: over after 5.5 s"),
        ]


def test_a_line_that_moves_raises_none_however_long_it_is(bell):
    """Somebody waits all the time, and nobody for 0.5 s."""
    with scene(background=True, max_size=1, timeout=100, **bell.hooks) as s:
        held, (waiter,) = full(s)
        for _ in range(30):
            s.clock.advance(0.4)
            held.checkin()
            held = waiter.result(SOON)
            (waiter,) = s.line_up(1)
        held.checkin()
        join(waiter)[0].checkin()
        s.clock.advance(20.0)
        assert bell.heard.empty()


def test_one_good_sample_begins_the_interval_anew(bell):
    with scene(background=True, max_size=1, timeout=100, **bell.hooks) as s:
        for _ in range(3):
            held, (waiter,) = full(s)
            s.clock.advance(5.0)
            held.checkin()
            waiter.result(SOON).checkin()
            s.clock.advance(0.5)
        assert bell.heard.empty()


def test_the_settings_are_those_of_the_pool(bell):
    with scene(background=True, max_size=1, timeout=100, alarms=Alarms(target=2.0, interval=1.0), **bell.hooks) as s:
        held, (waiter,) = full(s)
        s.clock.advance(2.9)
        assert bell.heard.empty()
        s.clock.advance(0.2)
        assert bell.next()[1].kind == "overload"
        held.checkin()
        waiter.result(SOON).checkin()


@pytest.mark.parametrize("options", [{}, {"grace": float("inf")}], ids=["refused at once", "everybody waits"])
def test_connects_that_fail_for_an_interval_raise_the_alarm_and_the_first_that_succeeds_leads_to_its_end(bell, options):
    with scene(
        background=True, max_size=1, min_size=1, timeout=100, backoff=STEADY, name="o", **options, **bell.hooks
    ) as s:
        assert eventually(lambda: s.pool.stats().idle == 1)
        cut_off(s)
        assert eventually(lambda: s.pool.stats().connect_failures == 1)
        pass_time(s, 5.0)
        assert bell.heard.empty()
        pass_time(s, 0.5)
        detail = "connects have failed for 5.5 s, the last with ConnectionRefusedError"
        assert bell.next() == ("on", Alarm("unreachable", "o", 5.0, detail))
        s.driver.always("connect", None)
        pass_time(s, 10.0)
        assert bell.next()[1].kind == "unreachable"
        assert bell.heard.empty()


def test_of_an_outage_in_which_requests_come_now_and_then_the_alarm_is_raised_all_the_same(bell):
    """Between two that are refused nobody wants a connection."""
    with scene(background=True, max_size=1, timeout=100, grace=0.5, backoff=STEADY, **bell.hooks) as s:
        cut_off(s)
        for _ in range(7):
            future = s.borrow()
            assert eventually(lambda f=future: f.done() or s.clock.sleepers), "neither refused nor in line"
            pass_time(s, 1.0)
        kinds = [bell.next()[1].kind]
        assert kinds == ["unreachable"]


def test_a_failure_that_nobody_minds_any_more_is_none(bell):
    """Whoever wanted a connection has gone, nobody tries again: nothing is known of the database, and nobody looks."""
    options = {"timeout": 0.2, "backoff": STEADY, "grace": float("inf")}
    with scene(background=True, max_size=1, **options, **bell.hooks) as s:
        cut_off(s)
        future = s.borrow()
        assert eventually(lambda: s.pool.stats().connect_failures == 1)
        s.clock.wait_for_sleepers(1)
        s.clock.advance(0.2)
        assert future.exception(SOON) is not None
        pass_time(s, 30.0)
        assert bell.heard.empty()
        assert s.pool._ledger.reach.failing
        assert looks(s.clock) == 0


def test_out_of_reach_it_is_told_though_nobody_asks_any_more(bell):
    """For the pool goes on trying."""
    with scene(background=True, max_size=1, timeout=0.2, grace=0.5, backoff=STEADY, **bell.hooks) as s:
        cut_off(s)
        future = s.borrow()
        assert eventually(lambda: s.pool.stats().connect_failures == 1)
        s.clock.wait_for_sleepers(1)
        s.clock.advance(0.2)
        assert future.exception(SOON) is not None
        for _ in range(30):
            failures = s.pool.stats().connect_failures
            pass_time(s, 1.0)
            assert eventually(lambda f=failures: s.pool.stats().connect_failures > f or not bell.heard.empty())
        assert bell.next()[1].kind == "unreachable"


def test_a_connect_that_hangs_is_a_failure_too(bell):
    options = {"alarms": Alarms(0.5, 1.0), "connect_timeout": 1.0, "max_connecting": 1}
    with scene(background=True, max_size=1, timeout=100, grace=float("inf"), **options, **bell.hooks) as s:
        lease = s.pool.checkout()
        s.driver.always("connect", latch := Latch())
        lease.discard()
        s.line_up(1)
        latch.wait_for(1)
        s.clock.advance(4.0)
        assert {bell.next()[1].kind for _ in range(2)} == {"overload", "unreachable"}
        latch.open()


def test_what_is_tried_again_only_after_a_long_pause_is_wanted_all_the_time(bell):
    """``min_size`` wants it; between two tries, 20 s apart, nothing fails and nobody waits."""
    options = {"backoff": Backoff(20.0, 20.0, "exp"), "alarms": Alarms(target=2.0, interval=5.0)}
    with scene(background=True, max_size=1, min_size=1, **options, **bell.hooks) as s:
        assert eventually(lambda: s.pool.stats().idle == 1)
        cut_off(s)
        assert eventually(lambda: s.pool.stats().connect_failures == 1)
        pass_time(s, 6.5)
        assert bell.heard.empty()
        pass_time(s, 13.0)
        assert bell.next()[0] == "on"
        assert bell.heard.empty() and s.pool.stats().connect_failures == 1


def test_a_connect_under_way_is_wanted_though_nobody_waits_for_it(bell):
    with scene(background=True, max_size=1, grace=0.0, backoff=STEADY, connect_timeout=100, **bell.hooks) as s:
        cut_off(s)
        assert isinstance(s.borrow().exception(SOON), PoolUnavailable)
        assert eventually(lambda: s.pool.stats().connect_failures == 1)
        s.driver.always("connect", latch := Latch())
        assert isinstance(s.borrow().exception(SOON), PoolUnavailable)
        s.clock.advance(1.0)
        latch.wait_for(1)
        assert s.pool.stats().waiting == 0
        s.clock.advance(15.0)
        assert bell.next()[0] == "on"
        assert bell.heard.empty()
        latch.open()


# --- What it costs ----------------------------------------------------------------------------------------------------


def test_nobody_looks_where_nobody_listens_and_while_nobody_waits(bell):
    with scene(background=True, max_size=1, timeout=100) as s:
        held, (waiter,) = full(s)
        assert looks(s.clock) == 0
        held.checkin()
        waiter.result(SOON).checkin()
    with scene(background=True, max_size=1, timeout=100, **bell.hooks) as s:
        s.pool.checkout().checkin()
        assert looks(s.clock) == 0
        held, waiting = full(s, 3)
        assert looks(s.clock) == 1  # for all of them
        held.checkin()
        for waiter in waiting:
            waiter.result(SOON).checkin()
        s.clock.advance(0.5)
        assert looks(s.clock) == 0


def test_whoever_waits_after_the_last_look_begins_it_anew(bell):
    with scene(background=True, max_size=1, timeout=100, **bell.hooks) as s:
        for _ in range(2):
            held, (waiter,) = full(s)
            s.clock.advance(5.5)
            assert bell.next()[0] == "on"
            held.checkin()
            waiter.result(SOON).checkin()
            s.clock.advance(5.5)
            assert bell.next()[0] == "off"


def test_of_two_that_are_planned_at_once_one_is_in_vain(bell):
    with scene(background=True, max_size=1, timeout=100, **bell.hooks) as s:
        held, (waiter,) = full(s)
        lookout = s.pool._lookout
        s.clock.advance(0.2)
        lookout._plan(s.clock.now() + 0.5)  # as a second thread that looked in the same moment
        assert looks(s.clock) == 2
        s.clock.advance(1.0)
        assert looks(s.clock) == 1
        held.checkin()
        waiter.result(SOON).checkin()


def test_a_look_that_never_came_is_planned_again(bell):
    with scene(background=True, max_size=1, timeout=100, **bell.hooks) as s:
        held, (first,) = full(s)
        s.clock.keeper._plan.clear()  # an interrupt, or the keeper's end
        s.clock.advance(0.9)
        (second,) = s.line_up(1)
        assert looks(s.clock) == 0  # it may only be late: whoever waits then must not put it off for ever
        s.clock.advance(0.2)
        assert eventually(lambda: looks(s.clock) == 1)  # planned by who waits already, and looks around every second
        s.clock.keeper._plan.clear()
        s.clock.advance(1.1)
        assert eventually(lambda: looks(s.clock) == 1)
        held.checkin()
        for waiter in (first, second):
            waiter.result(SOON).checkin()


def test_without_a_background_nobody_looks(bell):
    with scene(background=False, max_size=1, timeout=100, observers=[bell]) as s:
        held, (waiter,) = full(s)
        s.clock.advance(20.0)
        held.checkin()
        waiter.result(SOON).checkin()
        assert bell.events.empty()


def test_the_threads_end_when_there_is_nothing_left_to_look_at(bell):
    """In real time."""
    clock = Clock()
    driver = ScriptedDriver()
    options = {"alarms": Alarms(0.001, 0.1), "max_lifetime": None, "max_idle": None}
    with Pool(driver, clock=clock, max_size=1, **options, **bell.hooks) as pool:
        held = pool.checkout()
        thread = threading.Thread(target=lambda: pool.checkout().checkin())
        thread.start()
        assert bell.next()[0] == "on"
        held.checkin()
        assert bell.next()[0] == "off"
        thread.join()
        assert eventually(lambda: not clock.keeper._scheduling)
        assert clock.keeper._plan == []


# --- Who is told, and how ---------------------------------------------------------------------------------------------


def test_hooks_are_called_outside_the_lock_and_not_by_whoever_moves_the_time(bell):
    clock, inside = FakeClock(), []
    hooks = bell.hooks | {"on_alarm": lambda alarm: (inside.append(clock.inside), bell.on(alarm))}
    with scene(clock=clock, background=True, max_size=1, timeout=100, **hooks) as s:
        held, (waiter,) = full(s)
        s.clock.advance(5.5)
        bell.next()
        held.checkin()
        waiter.result(SOON).checkin()
    assert inside == [False]
    assert threading.current_thread() not in bell.threads


def test_a_hook_that_blocks_holds_up_nobody_but_itself(bell):
    clock = WatchedClock()
    latch = Latch()
    options = {"alarms": Alarms(0.001, 0.1), "on_alarm": latch, "on_clear": bell.off}
    with Pool(ScriptedDriver(clock), clock=clock, max_size=1, max_lease=None, **options) as pool:
        held = pool.checkout()
        thread = threading.Thread(target=lambda: pool.checkout().checkin())
        thread.start()
        latch.wait_for(1)
        held.checkin()
        thread.join(SOON)
        pool.recycle()
        pool.checkout().checkin()  # a connect in the background
        assert bell.heard.empty()
        latch.open()
        assert bell.next()[0] == "off"  # in their order


def test_a_hook_that_raises_is_logged_and_the_next_one_is_called(bell, caplog):
    def broken(alarm):
        raise ValueError("in the hook")

    with scene(background=True, max_size=1, timeout=100, name="orders", on_alarm=broken, on_clear=bell.off) as s:
        held, (waiter,) = full(s)
        s.clock.advance(5.5)
        assert eventually(lambda: any(record.exc_info for record in caplog.records))
        held.checkin()
        waiter.result(SOON).checkin()
        s.clock.advance(5.5)
        assert bell.next()[0] == "off"
    told = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert (logging.ERROR, "pool orders: on_alarm raised") in told
    assert told[0][0] == logging.WARNING
    assert told[0][1].startswith("pool orders: alarm: overload: the first in line has waited for 5.5 s")


def test_a_pool_that_is_closed_clears_its_alarms_at_once(bell):
    with scene(background=True, max_size=1, timeout=100, **bell.hooks) as s:
        held, (waiter,) = full(s)
        s.clock.advance(5.5)
        assert bell.next()[0] == "on"
        s.pool.close(timeout=0)
        assert waiter.exception(SOON) is not None
        s.clock.advance(0.5)
        assert bell.next()[0] == "off"
        assert looks(s.clock) == 0
        held.checkin()


def test_a_pool_that_is_dropped_is_gone_with_its_alarms(bell):
    clock = FakeClock()
    pool = Pool(ScriptedDriver(clock), clock=clock, max_size=1, **bell.hooks)
    pool._lookout.watch()
    assert looks(clock) == 1
    del pool
    gc.collect()
    clock.advance(0.5)
    assert looks(clock) == 0
