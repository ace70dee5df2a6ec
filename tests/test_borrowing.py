"""Who opens a connection, who gets it, and what does whoever waits for one find out?"""

from __future__ import annotations

import gc
import math
import threading
import weakref

import pytest

from tests.scene import SOON, background, join, leak_reported, scene
from threadpool_db import (
    Backoff,
    ConnectFailed,
    Pool,
    PoolMisuse,
    PoolTimeout,
)
from threadpool_db.testing import FakeClock, Latch, ScriptedDriver

STEADY = Backoff(1.0, 1.0, "exp")


# --- Opening ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_at_most_max_connecting_borrowers_connect_at_a_time(limit):
    latch, lock = Latch(), threading.Lock()
    inside = most = 0

    def connecting():
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        latch()
        with lock:
            inside -= 1

    with scene(max_size=10, max_connecting=limit) as s:
        s.driver.always("connect", connecting)
        borrowers = [s.borrow() for _ in range(10)]
        latch.wait_for(limit)
        s.clock.wait_for_sleepers(10 - limit)
        assert s.pool.stats().counts.opening == limit
        latch.open()
        assert sorted(lease.connection.number for lease in join(*borrowers)) == list(range(1, 11))
        assert most == limit
        assert s.driver.most_open == 10


def test_a_waiter_takes_a_returned_connection_while_another_still_connects():
    with scene(max_size=2, max_connecting=1) as s:
        held = s.pool.checkout()
        latch = Latch()
        s.driver.script("connect", latch)
        opener = s.borrow()
        latch.wait_for(1)
        [waiter] = s.line_up(1)
        held.checkin()
        assert waiter.result(SOON).connection.number == 1
        latch.open()
        assert opener.result(SOON).connection.number == 2


def test_a_waiter_keeps_its_deadline_while_another_ones_connect_hangs():
    with scene(max_size=1) as s:
        latch = Latch()
        s.driver.script("connect", latch)
        opener = s.borrow(timeout=60)
        latch.wait_for(1)
        [waiter] = s.line_up(1, timeout=5)
        s.clock.advance(5)
        with pytest.raises(PoolTimeout, match="A new connection is being opened"):
            waiter.result(SOON)
        latch.open()
        assert opener.result(SOON).connection.number == 1


def test_a_connection_opened_too_late_goes_to_the_next_in_line():
    with scene(max_size=1) as s:
        latch = Latch()
        s.driver.script("connect", latch)
        opener = s.borrow(timeout=3)
        latch.wait_for(1)
        [waiter] = s.line_up(1, timeout=60)
        s.clock.advance(3)
        latch.open()
        with pytest.raises(PoolTimeout):
            opener.result(SOON)
        assert waiter.result(SOON).connection.number == 1
        assert s.driver.made == 1


def test_a_connection_opened_too_late_for_anybody_stays_for_the_next():
    with scene() as s:
        s.driver.script("connect", lambda: s.clock.advance(20))
        with pytest.raises(PoolTimeout):
            s.pool.checkout(timeout=10)
        with s.pool.checkout(timeout=0) as connection:
            assert connection.number == 1
        s.assert_nothing_lost()


def test_a_wait_that_ends_while_a_slot_comes_free_does_not_start_to_connect():
    with scene(max_size=1) as s:
        held = s.pool.checkout()
        latch = Latch()
        s.driver.script("close", latch)
        [waiter] = s.line_up(1, timeout=5)
        discarding = background(held.discard)
        latch.wait_for(1)
        s.clock.advance(5)
        with pytest.raises(PoolTimeout):
            waiter.result(SOON)
        latch.open()
        discarding.result(SOON)
        assert s.driver.made == 1


def test_the_slot_of_a_connection_that_is_being_closed_still_counts():
    with scene(max_size=1) as s:
        held = s.pool.checkout()
        latch = Latch()
        s.driver.script("close", latch)
        discarding = background(held.discard)
        latch.wait_for(1)
        assert s.pool.stats().counts.closing == 1
        [waiter] = s.line_up(1)
        latch.open()
        discarding.result(SOON)
        assert waiter.result(SOON).connection.number == 2


def test_a_connection_that_cannot_be_closed_frees_its_slot_all_the_same():
    with scene(max_size=1) as s:
        s.driver.script("close", OSError("broken pipe"))
        s.pool.checkout().discard()
        with s.pool.checkout() as connection:
            assert connection.number == 2


def test_the_drivers_connect_limit_is_handed_to_the_driver():
    limits = []

    class Noting(ScriptedDriver):
        def connect(self, timeout):
            limits.append(timeout)
            return super().connect(timeout)

    with scene(driver=Noting(), connect_timeout=3.5) as s:
        s.fill(1)
    assert limits == [3.5]


# --- Failed connects --------------------------------------------------------------------------------------------------


def test_a_pool_that_never_connected_passes_the_failure_to_everyone_waiting_at_once():
    refused = ConnectionRefusedError("nobody there")
    with scene(max_size=3, max_connecting=1) as s:
        latch = Latch()

        def fail():
            latch()
            raise refused

        s.driver.script("connect", fail)
        opener = s.borrow(timeout=60)
        latch.wait_for(1)
        waiters = s.line_up(3, timeout=60)
        latch.open()
        errors = [future.exception(SOON) for future in (opener, *waiters)]  # no time has passed
        assert {type(error) for error in errors} == {ConnectFailed}
        assert len({id(error) for error in errors}) == 4
        assert all(error.__cause__ is refused for error in errors)
        assert s.driver.calls["connect"] == 1
        s.assert_nothing_lost()


def test_after_a_first_failure_the_next_borrower_simply_tries_again():
    with scene() as s:
        s.driver.script("connect", OSError("no"))
        with pytest.raises(ConnectFailed):
            s.pool.checkout()
        s.pool.checkout().checkin()


def test_a_pool_that_once_connected_tries_again_with_backoff_until_it_works():
    tried = []
    with scene(max_size=1, grace=math.inf, backoff=STEADY, timeout=10) as s:
        s.pool.checkout().discard()

        def refuse():
            tried.append(s.clock.now())
            raise OSError("restarting")

        s.driver.always("connect", refuse)
        start = s.clock.now()
        waiter = s.borrow()
        for _ in range(3):
            s.clock.wait_for_sleepers(1)
            s.clock.advance(1)
        s.clock.wait_for_sleepers(1)
        assert [when - start for when in tried] == [0, 1, 2, 3]
        s.driver.always("connect", None)
        s.clock.advance(1)
        assert waiter.result(SOON).connection.number == 2
        assert s.pool.stats().connect_failures == 4


def test_everyone_waits_for_his_own_deadline_while_connects_fail():
    broken = OSError("down")
    with scene(max_size=2, grace=math.inf, backoff=STEADY) as s:
        s.pool.checkout().discard()
        s.driver.always("connect", broken)
        short, long = s.line_up(1, timeout=2.5) + s.line_up(1, timeout=4.5)
        for moment in (1, 1):
            s.clock.advance(moment)
            s.clock.wait_for_sleepers(2)
        s.clock.advance(0.5)
        with pytest.raises(PoolTimeout, match="Connects are failing") as caught:
            short.result(SOON)
        assert caught.value.__cause__ is broken
        assert "OSError" in str(caught.value)
        assert "database is up" in str(caught.value)
        for _ in range(2):
            s.clock.wait_for_sleepers(1)
            s.clock.advance(1)
        with pytest.raises(PoolTimeout):
            long.result(SOON)
        s.assert_nothing_lost()


def test_only_one_of_many_waiters_tries_when_the_backoff_ends():
    with scene(max_size=10, max_connecting=1, grace=math.inf, backoff=STEADY) as s:
        s.pool.checkout().discard()
        s.driver.always("connect", OSError)
        before = s.driver.calls["connect"]
        waiters = s.line_up(5, timeout=60)
        assert s.driver.calls["connect"] == before + 1
        s.clock.advance(1)
        s.clock.wait_for_sleepers(5)
        assert s.driver.calls["connect"] == before + 2
        s.driver.always("connect", None)
        s.clock.advance(1)
        for asleep, served in zip((3, 2, 1), waiters[1:4], strict=True):  # and the way back is a ramp
            served.result(SOON)
            s.clock.wait_for_sleepers(asleep)
            s.clock.advance(0.25)
        join(*waiters)


def test_whoever_failed_to_connect_keeps_his_place_in_line():
    with scene(max_size=2, max_connecting=1, backoff=STEADY) as s:
        held = s.pool.checkout()
        s.driver.script("connect", OSError)
        first, second = s.line_up(2)
        held.checkin()
        assert first.result(SOON).connection.number == 1
        assert not second.done()
        s.clock.advance(1)
        assert second.result(SOON).connection.number == 2


def test_the_backoff_starts_afresh_after_a_success():
    with scene(max_size=1, grace=math.inf, backoff=Backoff(1.0, 8.0, "exp")) as s:
        s.pool.checkout().discard()
        for _ in range(2):
            s.driver.script("connect", OSError, OSError)
            waiter = s.borrow(timeout=60)
            for delay in (1, 2):
                s.clock.wait_for_sleepers(1)
                s.clock.advance(delay)
            waiter.result(SOON).discard()


def test_without_backoff_a_failed_connect_is_its_borrowers_own_affair():
    broken = OSError("no")
    with scene(max_size=1, backoff=None) as s:
        s.pool.checkout().discard()
        latch = Latch()

        def fail():
            latch()
            raise broken

        s.driver.script("connect", fail)
        opener = s.borrow()
        latch.wait_for(1)
        [waiter] = s.line_up(1)
        latch.open()
        with pytest.raises(ConnectFailed) as caught:
            opener.result(SOON)
        assert caught.value.__cause__ is broken
        waiter.result(SOON).checkin()
        s.assert_nothing_lost()


def test_a_misuse_inside_the_connect_reaches_its_caller_and_leaves_no_slot_behind():
    with scene(max_size=1) as s:
        s.driver.script("connect", PoolMisuse("configure must return the parameters"))
        with pytest.raises(PoolMisuse, match="configure"):
            s.pool.checkout()
        s.assert_nothing_lost()
        s.fill(1)


def test_an_interrupted_connect_frees_its_slot_for_the_next_in_line():
    with scene(max_size=1) as s:
        latch = Latch()

        def interrupted():
            latch()
            raise KeyboardInterrupt

        s.driver.script("connect", interrupted)
        opener = s.borrow()
        latch.wait_for(1)
        [waiter] = s.line_up(1)
        latch.open()
        with pytest.raises(KeyboardInterrupt):
            opener.result(SOON)
        waiter.result(SOON).checkin()
        s.assert_nothing_lost()


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_connection_that_cannot_be_made_ready_is_closed(error):
    driver = ScriptedDriver(autocommit=False)
    with Pool(driver, autocommit=True, max_size=1, background=False) as pool:
        driver.script("set_autocommit", error)
        with pytest.raises(ConnectFailed if error is OSError else KeyboardInterrupt):
            pool.checkout()
        assert driver.open == set()
        pool.checkout().checkin()
        assert len(driver.open) == 1
    assert driver.wrong == []


# --- Deadlock ---------------------------------------------------------------------------------------------------------


def test_waiting_for_a_connection_that_this_thread_holds_itself_is_a_misuse():
    with scene(max_size=1) as s, s.pool.checkout(), pytest.raises(PoolMisuse, match="would never end"):
        s.pool.checkout(timeout=math.inf)


def test_two_threads_that_each_hold_one_and_wait_for_another_are_told():
    with scene(max_size=2) as s:
        mine = s.pool.checkout()

        def nested():
            with s.pool.checkout():
                return s.pool.checkout(timeout=60)

        other = background(nested)
        s.clock.wait_for_sleepers(1)
        with pytest.raises(PoolMisuse, match="all 2 connections are held by threads that wait"):
            s.pool.checkout(timeout=60)
        mine.checkin()  # the other one had only to wait
        other.result(SOON).checkin()
        s.assert_nothing_lost()


def test_a_sticky_lease_counts_as_held():
    with scene(max_size=1) as s:
        s.pool.lease()
        with pytest.raises(PoolMisuse, match="would never end"):
            s.pool.checkout()
        s.pool.release()


def test_a_thread_that_can_wait_with_profit_is_not_told_off():
    with scene(max_size=2) as s:
        mine = s.pool.checkout()
        theirs = s.borrow().result(SOON)  # held by a thread that waits for nothing
        nested = background(theirs.checkin)
        nested.result(SOON)
        s.pool.checkout().checkin()
        mine.checkin()


def test_a_thread_that_was_granted_one_and_has_not_woken_yet_does_not_count_as_waiting():
    class Drowsy(FakeClock):
        at_waking = staticmethod(lambda: None)

        def wait(self, gate, until):
            super().wait(gate, until)
            self.at_waking()

    with scene(clock=Drowsy(), max_size=2) as s:
        mine = s.pool.checkout()
        done = Latch()

        def two():
            with s.pool.checkout(), s.pool.checkout():
                done()

        greedy = background(two)
        s.clock.wait_for_sleepers(1)
        drowsy = Latch()
        s.clock.at_waking = drowsy
        mine.checkin()  # now the other thread has both, and does not know it yet
        drowsy.wait_for(1)
        s.clock.at_waking = lambda: None
        waiter = s.borrow(timeout=60)
        s.clock.wait_for_sleepers(1)
        drowsy.open()
        done.open()
        greedy.result(SOON)
        waiter.result(SOON).checkin()


def test_a_thread_that_has_given_up_waiting_does_not_count_as_waiting_ever_after():
    """Its place is moved by somebody else's failed connect just after it woke, and just before it leaves the line."""

    class Halting(FakeClock):
        halt = None

        def now(self):
            if self.halt and threading.current_thread() is not threading.main_thread():
                halt, self.halt = self.halt, None
                halt()
            return super().now()

    def fail_at(latch):
        latch()
        raise OSError

    def give_up_and_work():
        with pytest.raises(PoolTimeout):
            s.pool.checkout(timeout=0.5)
        gave_up()
        with s.pool.checkout():
            working()

    def hold_two_and_want_a_third():
        with s.pool.checkout(), s.pool.checkout():
            wants()
            s.pool.checkout(timeout=60).checkin()

    with scene(clock=Halting(), max_size=3, max_connecting=2, backoff=STEADY) as s:
        gave_up, working, wants, woken = Latch(), Latch(), Latch(), Latch()
        s.fill(1)
        held = s.pool.checkout()
        one, two = Latch(), Latch()
        s.driver.script("connect", lambda: fail_at(one), lambda: fail_at(two))
        worker = background(give_up_and_work)
        one.wait_for(1)
        other = s.borrow(timeout=60)
        two.wait_for(1)
        one.open()
        s.clock.wait_for_sleepers(1)
        s.clock.halt = woken
        s.clock.advance(0.5)
        woken.wait_for(1)
        two.open()  # the other one's connect fails: the head of the line is to wake later
        s.clock.wait_for_sleepers(1)
        woken.open()
        gave_up.wait_for(1)
        s.clock.advance(5)
        other.result(SOON).checkin()
        gave_up.open()
        working.wait_for(1)
        held.checkin()
        wanting = background(hold_two_and_want_a_third)
        wants.wait_for(1)
        wants.open()
        s.clock.wait_for_sleepers(1)  # it waits for one that a working thread has, and is not told off
        working.open()
        join(worker, wanting)


def test_whatever_opens_the_connections_cannot_borrow_one_meanwhile():
    pool: Pool

    def connect():
        pool.execute("select 1")

    pool = Pool(connect, driver="dbapi", max_size=2)
    with pytest.raises(PoolMisuse, match="cannot borrow one from it meanwhile"):
        pool.checkout()
    assert pool.stats().total == 0
    with pytest.raises(PoolMisuse):  # and again, not something else
        pool.checkout()


# --- Nothing kept alive -----------------------------------------------------------------------------------------------


@pytest.fixture
def collector_off():
    """What is not freed at once is then seen not to be."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def fail_to_close(s):
    s.fill(1)
    s.driver.script("close", OSError)
    s.pool.recycle()


def be_interrupted(s):
    s.fill(1)
    s.driver.script("close", KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        s.pool.recycle()


def fail_to_connect(s):
    s.driver.script("connect", OSError)
    with pytest.raises(ConnectFailed):
        s.pool.checkout()
    s.fill(1)


def fail_to_connect_again(s):
    s.fill(1)
    s.pool.recycle()
    s.driver.script("connect", OSError)
    s.pool.checkout().checkin()


def time_out(s):
    with pytest.raises(PoolTimeout):
        s.pool.checkout(timeout=0)


def be_too_slow(s):
    s.driver.script("connect", lambda: s.clock.advance(60))
    with pytest.raises(PoolTimeout):
        s.pool.checkout()


@pytest.mark.parametrize(
    "trouble",
    [fail_to_close, be_interrupted, fail_to_connect, fail_to_connect_again, time_out, be_too_slow],
    ids=lambda trouble: trouble.__name__,
)
@pytest.mark.usefixtures("collector_off")
def test_after_trouble_the_frames_of_the_caller_are_free_at_once(trouble):
    class Local:
        pass

    def request():
        local = Local()
        trouble(s)
        return weakref.ref(local)

    with scene(backoff=Backoff(0, 0)) as s:
        assert request()() is None


@pytest.mark.usefixtures("collector_off")
def test_a_lease_dropped_by_a_thread_whose_connect_once_failed_is_noticed_at_once():
    with scene(max_size=2, backoff=STEADY) as s:
        held = s.pool.checkout()

        def forget():
            lease = s.pool.checkout()
            return lease.active

        s.driver.always("connect", OSError)
        forgetful = background(forget)
        s.clock.wait_for_sleepers(1)
        held.checkin()
        assert forgetful.result(SOON)
        with leak_reported("forget"):
            s.read_mail()
        s.assert_nothing_lost()


def test_an_interrupt_on_the_way_out_of_a_connect_forbids_nothing_for_ever():
    with scene(max_size=1) as s:
        seen = []
        s.driver.script("connect", lambda: seen.extend(s.pool._ledger.entries))
        s.pool.checkout().discard()
        here = s.pool._here
        here.connecting = seen[0]  # as it is when the line that takes it back was never reached
        del here.holder
        s.pool.checkout().checkin()
