"""Does the pool lend, size, close and count as it promises?"""

from __future__ import annotations

import math
from concurrent.futures import Future

import pytest

from tests.scene import SOON, background, join, leak_reported, scene
from threadpool_db import (
    Backoff,
    ConnectionPool,
    Fixed,
    LeaseExpired,
    Overflow,
    Pool,
    PoolClosed,
    PoolConfig,
    PoolMisuse,
    PoolTimeout,
    StaleLease,
)
from threadpool_db.core.sizing import Elastic
from threadpool_db.testing import Latch, ScriptedDriver

STEADY = Backoff(1.0, 1.0, "exp")


# --- Lending what there is --------------------------------------------------------------------------------------------


def test_making_a_pool_opens_nothing():
    with scene() as s:
        assert s.driver.made == 0
        s.pool.checkout().checkin()
        assert s.driver.made == 1


def test_the_connection_used_last_is_lent_first():
    with scene(max_size=4) as s:
        s.fill(4)
        for _ in range(3):
            with s.pool.checkout() as connection:
                assert connection.number == 4


def test_a_fifo_pool_lends_the_connection_idle_longest():
    driver = ScriptedDriver()
    with ConnectionPool(driver, PoolConfig(max_size=4), order="fifo") as pool:
        leases = [pool.checkout() for _ in range(4)]
        for lease in leases:
            lease.checkin()
        seen = []
        for _ in range(5):
            with pool.checkout() as connection:
                seen.append(connection.number)
        assert seen == [1, 2, 3, 4, 1]


def test_a_released_connection_moves_between_threads():
    with scene() as s:
        lease = s.borrow().result(SOON)
        lease.checkin()
        with s.pool.checkout() as connection:
            assert connection.number == 1


def test_no_time_takes_only_what_is_there():
    with scene() as s:
        with pytest.raises(PoolTimeout, match="Nothing is idle"):
            s.pool.checkout(timeout=0)
        assert s.driver.made == 0
        s.fill(1)
        with s.pool.checkout(timeout=0) as connection:
            assert connection.number == 1


def test_no_time_takes_nothing_that_needs_a_round_trip():
    with scene(ping_after=30) as s:
        s.fill(1)
        s.clock.advance(30)
        with pytest.raises(PoolTimeout, match="needs a round trip"):
            s.pool.checkout(timeout=0)
        assert s.driver.calls["ping"] == 0
        assert s.pool.stats().idle == 1


def test_no_time_and_a_dead_connection_take_the_next_idle_one():
    with scene() as s:
        s.fill(2)
        s.driver.script("peek", False)
        with s.pool.checkout(timeout=0) as connection:
            assert connection.number == 1
        s.driver.script("peek", False)
        with pytest.raises(PoolTimeout):
            s.pool.checkout(timeout=0)
        assert s.driver.made == 2


# --- Size -------------------------------------------------------------------------------------------------------------


def test_an_overflow_pool_closes_the_extra_ones_once_nobody_waits():
    with scene(max_size=3, sizing=Overflow(2, 0)) as s:
        leases = [s.pool.checkout() for _ in range(3)]
        [waiter] = s.line_up(1)
        leases[0].checkin()
        last = waiter.result(SOON)
        assert s.driver.closed == 0
        leases[1].checkin()
        leases[2].checkin()
        assert s.driver.closed == 2
        last.checkin()
        assert s.pool.stats().idle == len(s.driver.open) == 1


def test_a_fixed_pool_gives_up_nothing_for_being_idle():
    with scene(max_size=3, sizing=Fixed(), max_idle=10, max_lifetime=None) as s:
        s.fill(3)
        s.clock.advance(1000)
        held = s.pool.checkout()
        held.checkin()
        assert s.pool.stats().total >= 2


def test_a_pool_without_a_limit_opens_one_for_everybody():
    with scene(max_size=math.inf, max_connecting=math.inf) as s:
        leases = [s.pool.checkout() for _ in range(60)]
        assert s.driver.most_open == 60
        assert "max_size inf" not in repr(s.pool)
        for lease in leases:
            lease.checkin()
        s.assert_nothing_lost()


# --- Inside the lock --------------------------------------------------------------------------------------------------


class Visited(Elastic):
    """A sizing rule is asked under the pool's lock: there something runs as a finaliser would, once."""

    def __init__(self):
        self.visit = None
        self.outcome = Future()

    def may_open(self, counts, now):
        visit, self.visit = self.visit, None
        if visit is not None:
            try:
                self.outcome.set_result(visit())
            except BaseException as error:
                self.outcome.set_exception(error)
        return True


def test_a_finaliser_that_gives_back_inside_the_locked_section_does_it_by_mail():
    with scene(max_size=2, sizing=(sizing := Visited())) as s:
        first = s.pool.checkout()
        sizing.visit = first.checkin
        second = s.pool.checkout()
        sizing.outcome.result(SOON)
        assert not first.active
        s.assert_lent(second)
        second.checkin()
        s.assert_nothing_lost()
        assert s.driver.closed == 0


@pytest.mark.parametrize("ending", ["discard", "detach"])
def test_a_finaliser_that_ends_a_lease_otherwise_inside_the_locked_section_loses_nothing(ending):
    with scene(max_size=2, sizing=(sizing := Visited())) as s:
        first = s.pool.checkout()
        connection = first.connection
        sizing.visit = getattr(first, ending)
        with leak_reported():
            s.pool.checkout().checkin()
            sizing.outcome.exception(SOON)
            s.read_mail()
        assert connection.closed
        s.assert_nothing_lost()


def test_a_finaliser_that_borrows_inside_the_locked_section_is_refused():
    with scene(sizing=(sizing := Visited())) as s:
        sizing.visit = s.pool.checkout
        s.pool.checkout().checkin()
        with pytest.raises(PoolMisuse, match="finaliser"):
            sizing.outcome.result(SOON)
        s.assert_nothing_lost()


@pytest.mark.parametrize("use", [Pool.recycle, Pool.close])
def test_a_finaliser_may_not_change_the_pool_inside_the_locked_section(use):
    with scene(sizing=(sizing := Visited())) as s:
        sizing.visit = lambda: use(s.pool)
        s.pool.checkout().checkin()
        with pytest.raises(PoolMisuse, match="finaliser"):
            sizing.outcome.result(SOON)
        s.assert_nothing_lost()


def test_a_lease_collected_inside_the_locked_section_comes_back_by_mail():
    with scene(max_size=2, sizing=(sizing := Visited())) as s:
        garbage = [s.pool.checkout()]
        sizing.visit = garbage.clear
        with leak_reported():
            s.pool.checkout().checkin()
            s.read_mail()
        s.assert_nothing_lost()
        assert s.driver.closed == 1


# --- Closing ----------------------------------------------------------------------------------------------------------


def test_a_closed_pool_refuses_everybody():
    with scene() as s:
        s.fill(1)
        s.pool.close()
        assert s.pool.closed
        for timeout in (None, 0, 5):
            with pytest.raises(PoolClosed, match="is closed"):
                s.pool.checkout(timeout)
        assert s.driver.open == set()


def test_close_turns_the_waiters_away_at_once():
    with scene(max_size=1) as s:
        held = s.pool.checkout()
        waiters = s.line_up(3)
        s.pool.close(timeout=0)
        held.checkin()
        errors = [waiter.exception(SOON) for waiter in waiters]
        assert {type(error) for error in errors} == {PoolClosed}
        assert len({id(error) for error in errors}) == 3


def test_close_waits_for_what_is_lent():
    with scene(max_size=2) as s:
        latch = Latch()

        def hold():
            with s.pool.checkout():
                latch()

        holding = background(hold)
        latch.wait_for(1)
        closing = background(s.pool.close, timeout=60)
        s.clock.wait_for_sleepers(1)
        latch.open()
        closing.result(SOON)
        holding.result(SOON)
        assert s.driver.open == set()


def test_close_waits_no_longer_than_told_and_what_is_lent_then_is_taken_away():
    with scene(max_size=1) as s:
        lease = s.borrow().result(SOON)
        closing = background(s.pool.close, timeout=5)
        s.clock.wait_for_sleepers(1)
        s.clock.advance(4.9)
        assert s.driver.closed == 0
        s.clock.advance(0.1)
        closing.result(SOON)
        assert s.driver.closed == 1
        with pytest.raises(LeaseExpired, match=r"held for 5.0 s, until the pool was closed;.*give close\(\) a longer"):
            lease.connection  # noqa: B018
        lease.checkin()
        assert s.driver.closed == 1


def test_close_does_not_wait_for_what_only_its_own_thread_could_give_back():
    with scene() as s:
        held = s.pool.checkout()
        s.pool.close(timeout=math.inf)
        held.checkin()
        assert s.driver.open == set()


def test_a_connection_that_was_being_opened_when_the_pool_closed_is_closed():
    with scene(max_size=1) as s:
        latch = Latch()
        s.driver.script("connect", latch)
        opener = s.borrow()
        latch.wait_for(1)
        closing = background(s.pool.close, timeout=60)
        s.clock.wait_for_sleepers(1)
        latch.open()
        closing.result(SOON)
        with pytest.raises(PoolClosed):
            opener.result(SOON)
        assert (s.driver.made, s.driver.closed) == (1, 1)


def test_a_second_close_does_nothing():
    with scene() as s:
        s.fill(2)
        s.pool.close()
        s.pool.close()
        assert s.driver.closed == 2


def test_a_pool_is_a_context_manager_that_closes():
    driver = ScriptedDriver()
    with Pool(driver) as pool:
        pool.checkout().checkin()
    assert pool.closed
    assert driver.open == set()


def test_an_interrupt_in_one_close_does_not_keep_the_others_open():
    with scene(max_size=3) as s:
        s.fill(3)
        s.driver.script("close", KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            s.pool.close()
        assert s.driver.open == set()
        assert s.pool.stats().total == 0


# --- Numbers ----------------------------------------------------------------------------------------------------------


def test_stats_add_up_while_all_kinds_of_things_go_on():
    with scene(max_size=4, max_connecting=1) as s:
        s.fill(2)
        held = s.pool.checkout()
        also = s.pool.checkout()
        latch = Latch()
        s.driver.script("connect", latch)
        opener = s.borrow()
        latch.wait_for(1)
        waiters = s.line_up(2)
        stats = s.pool.stats()
        assert (stats.idle, stats.in_use, stats.counts.opening, stats.waiting) == (0, 2, 1, 2)
        assert stats.total == 3 and stats.max_size == 4
        assert not stats.closed
        latch.open()
        for lease in (held, also):
            lease.checkin()
        leases = join(opener, *waiters)
        assert s.pool.stats().total <= 4
        for lease in leases:
            lease.checkin()
        stats = s.pool.stats()
        assert stats.checkouts == stats.use.count == stats.wait.count == 2 + 2 + 3
        assert stats.opened == stats.connect.count == s.driver.made
        s.assert_nothing_lost()


def test_times_are_measured():
    with scene(max_size=1) as s:
        s.driver.script("connect", lambda: s.clock.advance(0.2))
        held = s.pool.checkout()
        [waiter] = s.line_up(1)
        s.clock.advance(3)
        held.checkin()
        waiter.result(SOON).checkin()
        stats = s.pool.stats()
        assert (stats.connect.total, stats.use.total, stats.wait.total) == pytest.approx((0.2, 3, 3.2))
        assert stats.wait.percentile(1.0) == 5.0


def test_each_wait_is_counted_once_however_often_it_was_granted_something():
    with scene(max_size=1, backoff=STEADY, grace=5) as s:
        s.pool.checkout().discard()
        s.driver.script("connect", OSError, OSError)
        [waiter] = s.line_up(1)
        s.clock.advance(1)
        s.clock.wait_for_sleepers(1)
        s.clock.advance(1)
        waiter.result(SOON).checkin()
        stats = s.pool.stats()
        assert stats.checkouts == stats.wait.count == 2
        assert stats.wait.total == pytest.approx(2)


def test_the_pool_says_in_one_line_how_it_is():
    with scene(max_size=2, name="orders") as s:
        with s.pool.checkout():
            assert repr(s.pool) == "<Pool 'orders' 1 in use, 0 idle of 2, 0 waiting>"
        s.pool.close()
        assert repr(s.pool) == "<Pool 'orders' closed, 0 waiting>"


def test_a_lease_that_outlives_its_pool_is_still_closed():
    driver = ScriptedDriver()
    pool = Pool(driver)
    lease = pool.checkout()
    pool.close()
    assert lease.active
    lease.checkin()
    assert driver.open == set()
    with pytest.raises(StaleLease):
        lease.connection  # noqa: B018
