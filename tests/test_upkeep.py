"""Does a borrower ever meet a dead connection, or a pool that never lets a hanging one go?"""

from __future__ import annotations

import math
import threading

import pytest

from tests.scene import SOON, SocketDriver, background, leak_reported, scene
from threadpool_db import (
    PoolTimeout,
)
from threadpool_db.drivers.sockets import Socket, poll_socket
from threadpool_db.testing import FakeClock, Latch, WatchedClock

# --- Alive or dead ----------------------------------------------------------------------------------------------------


def test_a_connection_that_looks_dead_is_replaced_without_an_error():
    with scene(max_size=1) as s:
        s.fill(1)
        [idle] = s.driver.open
        idle.alive = False
        with s.pool.checkout() as connection:
            assert connection.number == 2
        stats = s.pool.stats()
        assert (stats.dead, stats.checkouts, s.driver.closed) == (1, 2, 1)


def test_a_pool_full_of_dead_connections_serves_every_borrower():
    with scene(max_size=10) as s:
        s.fill(10)
        for connection in s.driver.open:
            connection.alive = False
        for _ in range(100):
            s.pool.checkout().checkin()
        assert s.pool.stats().dead == 10
        s.assert_nothing_lost()


def test_whoever_got_a_dead_connection_keeps_his_place_in_line():
    with scene(max_size=1) as s:
        s.fill(1)
        [idle] = s.driver.open
        looking, connecting = Latch(), Latch()
        s.driver.script("peek", looking)
        s.driver.script("connect", connecting)
        first = s.borrow()
        looking.wait_for(1)
        [second] = s.line_up(1)
        idle.alive = False
        looking.open()
        connecting.wait_for(1)
        assert s.clock.sleepers == 1
        connecting.open()
        lease = first.result(SOON)
        assert lease.connection.number == 2
        assert not second.done()
        lease.checkin()
        assert second.result(SOON).connection.number == 2


def test_a_dead_connection_handed_over_in_line_is_replaced_too():
    with scene(max_size=1) as s:
        held = s.pool.checkout()
        [waiter] = s.line_up(1)
        s.clock.advance(1)
        held.connection.alive = False
        held.checkin()
        assert waiter.result(SOON).connection.number == 2


def test_a_look_that_is_interrupted_loses_nothing():
    with scene(max_size=1) as s:
        s.fill(1)
        s.driver.script("peek", KeyboardInterrupt)
        try:
            s.pool.checkout()
        except KeyboardInterrupt:
            pass
        with leak_reported(), s.pool.checkout() as connection:
            assert connection.number == 2
        s.assert_nothing_lost()


def test_looks_are_throttled_by_peek_after():
    with scene(peek_after=5) as s:
        s.fill(1)
        s.clock.advance(4)
        s.pool.checkout().checkin()
        assert s.driver.calls["peek"] == 0
        s.clock.advance(5)
        s.pool.checkout().checkin()
        assert s.driver.calls["peek"] == 1


def test_a_connection_is_asked_only_after_long_silence():
    with scene(ping_after=30) as s:
        s.fill(1)
        s.clock.advance(29.9)
        s.pool.checkout().checkin()
        assert s.driver.calls["ping"] == 0
        s.clock.advance(30)
        s.pool.checkout().checkin()
        assert s.driver.calls["ping"] == 1
        s.pool.checkout().checkin()
        assert s.driver.calls["ping"] == 1


@pytest.mark.parametrize("answer", [False, OSError])
def test_after_one_dead_ping_the_silent_rest_is_retired_unasked(answer):
    with scene(max_size=4, ping_after=30) as s:
        s.fill(4)
        s.clock.advance(30)
        s.driver.always("ping", answer)
        with s.pool.checkout() as connection:
            assert connection.number == 5
        assert s.driver.calls["ping"] == 1
        assert (s.driver.closed, s.pool.stats().total) == (4, 1)


def test_a_ping_that_hangs_is_cut_after_check_timeout():
    clock = FakeClock()
    driver = SocketDriver(clock)
    with scene(clock=clock, driver=driver, check_timeout=2, ping_after=30) as s:
        s.fill(1)
        [idle] = driver.open
        s.clock.advance(30)
        asking = Latch()
        driver.script("ping", lambda: (asking(), driver.hang(idle)())[1])
        asking.open()
        borrower = s.borrow(timeout=60)
        asking.wait_for(1)
        s.clock.advance(1.9)
        assert not borrower.done()
        s.clock.advance(0.1)
        with borrower.result(SOON) as connection:
            assert connection.number == 2
        assert s.clock.alarms == 0


def test_a_ping_is_cut_at_the_borrowers_deadline_if_that_comes_first():
    clock = FakeClock()
    driver = SocketDriver(clock)
    with scene(clock=clock, driver=driver, max_size=1, check_timeout=5, ping_after=30) as s:
        s.fill(1)
        [idle] = driver.open
        s.clock.advance(30)
        asking = Latch()
        asking.open()
        driver.script("ping", lambda: (asking(), driver.hang(idle)())[1])
        borrower = s.borrow(timeout=1)
        asking.wait_for(1)
        s.clock.advance(1)
        with pytest.raises(PoolTimeout):
            borrower.result(SOON)
        assert driver.made == 1
        s.assert_nothing_lost()


def switching(driver):
    """A switch of the autocommit mode that hangs until its socket is cut."""
    asking = Latch()
    asking.open()

    def switch():
        [connection] = driver.open
        asking()
        connection.alive = driver.hang(connection)()
        raise OSError("cut")

    driver.script("set_autocommit", switch)
    return asking


@pytest.mark.parametrize("there", [0, 1], ids=["made by the borrower", "idle"])
def test_a_switch_of_the_mode_is_cut_at_the_borrowers_deadline_if_that_comes_first(there):
    clock = FakeClock()
    driver = SocketDriver(clock, autocommit=False)
    with scene(clock=clock, driver=driver, max_size=1, check_timeout=5) as s:
        s.fill(there)
        asking = switching(driver)
        borrower = s.borrow(timeout=1, _autocommit=True)
        asking.wait_for(1)
        clock.advance(1)
        with pytest.raises(PoolTimeout):
            borrower.result(SOON)
        assert driver.made == 1
        s.assert_nothing_lost()


def test_a_switch_that_fails_late_leaves_its_borrower_only_the_rest_of_his_time():
    clock = FakeClock()
    driver = SocketDriver(clock, autocommit=False)
    with scene(clock=clock, driver=driver, max_size=1, check_timeout=2) as s:
        s.fill(1)
        asking = switching(driver)
        driver.script("connect", connecting := Latch())
        borrower = s.borrow(timeout=5, _autocommit=True)
        asking.wait_for(1)
        clock.advance(2)
        connecting.wait_for(1)
        clock.advance(3)
        connecting.open()
        with pytest.raises(PoolTimeout, match=r"waited 5\.00 s"):
            borrower.result(SOON)
        s.assert_nothing_lost()


@pytest.mark.parametrize("first_is_dead", [False, True])
def test_who_has_no_patience_at_all_gets_what_is_there_switched_all_the_same(first_is_dead):
    clock = FakeClock()
    driver = SocketDriver(clock, autocommit=False)
    with scene(clock=clock, driver=driver, max_size=2, check_timeout=2) as s:
        s.fill(2)
        [cold, hot] = sorted(driver.open, key=lambda connection: connection.number)
        hot.alive = not first_is_dead
        driver.script("set_autocommit", lambda: clock.advance(1))  # a limit of 0 would be over
        with s.pool.checkout(timeout=0, _autocommit=True) as connection:
            assert connection is (cold if first_is_dead else hot)
            assert connection.autocommit
            assert poll_socket(driver.descriptor(connection)) is Socket.QUIET


def test_a_ping_that_hangs_is_cut_in_real_time_and_disturbs_nobody():
    clock = WatchedClock()
    driver = SocketDriver(clock)
    with scene(clock=clock, driver=driver, max_size=2, check_timeout=0.2, ping_after=0.001) as s:
        with s.pool.checkout() as connection:
            pass
        asking = Latch()
        asking.open()
        hanging = driver.hang(connection)
        driver.script("ping", lambda: (asking(), hanging())[1])
        threading.Event().wait(0.01)  # the silence that makes it ask
        borrower = s.borrow()
        asking.wait_for(1)
        with s.pool.checkout() as other:  # while the ping still hangs
            assert other.number == 2
            with borrower.result(SOON) as replacement:
                assert replacement.number == 3


def test_a_silent_connection_is_not_asked_for_somebody_whose_time_is_over():
    with scene(clock=(clock := FakeClock()), max_size=1, ping_after=0.001) as s:
        held = s.pool.checkout()
        [waiter] = s.line_up(1, timeout=5)
        clock.advance(5)
        with pytest.raises(PoolTimeout):
            waiter.result(SOON)
        held.checkin()
        assert s.driver.calls["ping"] == 0


# --- Retiring ---------------------------------------------------------------------------------------------------------


def test_a_connection_past_its_lifetime_is_replaced_at_checkout():
    with scene(max_lifetime=100, lifetime_jitter=0, ping_after=math.inf, max_idle=None) as s:
        s.fill(1)
        s.clock.advance(99.9)
        with s.pool.checkout() as connection:
            assert connection.number == 1
        s.clock.advance(0.1)
        with s.pool.checkout() as connection:
            assert connection.number == 2


def test_a_lease_held_past_the_lifetime_is_closed_on_its_return():
    with scene(max_lifetime=100, lifetime_jitter=0) as s:
        held = s.pool.checkout()
        s.clock.advance(1000)
        assert not held.connection.closed
        held.checkin()
        assert (s.driver.closed, s.pool.stats().total) == (1, 0)


def test_a_waiter_is_served_by_a_replacement_when_the_returned_one_has_expired():
    with scene(max_size=1, max_lifetime=100, lifetime_jitter=0) as s:
        held = s.pool.checkout()
        s.clock.advance(100)
        [waiter] = s.line_up(1)
        held.checkin()
        assert waiter.result(SOON).connection.number == 2


@pytest.mark.parametrize("kept", [False, True], ids=["alone", "with a keeper"])
def test_while_people_wait_and_a_slot_is_free_the_replacement_is_opened_before_the_retirement(kept):
    with scene(max_size=3, max_lifetime=100, lifetime_jitter=0, background=kept) as s:
        worn = [s.pool.checkout(), s.pool.checkout()]
        s.clock.advance(100)
        connecting, closing = Latch(), Latch()
        s.driver.script("connect", connecting)
        s.driver.script("close", closing)
        waiters = s.line_up(2, timeout=50) if kept else [s.borrow(timeout=50)]
        connecting.wait_for(1)  # for somebody who waits, though nobody has retired yet
        connecting.open()
        with waiters[0].result(SOON) as replacement:
            assert (replacement.number, s.driver.closed, len(s.driver.open)) == (3, 0, 3)
            returning = background(worn[0].checkin)
            closing.wait_for(1)
            assert s.driver.calls["connect"] == 3, "its slot is free before it is closed"
            closing.open()
            returning.result(SOON)
            for waiter in waiters[1:]:
                assert waiter.result(SOON).connection.number == 4
        worn[1].checkin()
        assert s.driver.most_open == 3


def test_a_checkin_retires_the_idle_ones_whose_time_is_over():
    with scene(max_size=3, max_lifetime=100, lifetime_jitter=0, max_idle=None) as s:
        s.fill(2)
        s.clock.advance(50)
        leases = [s.pool.checkout() for _ in range(3)]
        leases[0].checkin()
        leases[1].checkin()
        s.clock.advance(50)
        leases[2].checkin()
        assert {connection.number for connection in s.driver.open} == {3}


def test_each_connection_draws_its_own_end_of_life():
    with scene(max_size=50, max_connecting=50, max_lifetime=100, lifetime_jitter=0.5, max_idle=None) as s:
        s.fill(50)
        s.clock.advance(49.9)
        s.pool.checkout().checkin()
        assert s.driver.closed == 0
        ends = []
        while s.driver.open - {c for c in s.driver.open if c.number > 50}:
            s.clock.advance(1)
            before = s.driver.closed
            s.pool.checkout().checkin()
            ends += [s.clock.now()] * (s.driver.closed - before)
        assert ends[0] - 1000 >= 50 and ends[-1] - 1000 <= 101
        assert len(set(ends)) > 5


def test_connections_idle_too_long_are_closed_coldest_first():
    with scene(max_size=3, max_idle=100, max_lifetime=None) as s:
        s.fill(3)
        s.clock.advance(60)
        s.pool.checkout().checkin()
        s.clock.advance(40)
        s.pool.checkout().checkin()
        assert {connection.number for connection in s.driver.open} == {3}


def test_a_connection_is_used_max_uses_times():
    with scene(max_size=1, max_uses=3) as s:
        seen = []
        for _ in range(7):
            with s.pool.checkout() as connection:
                seen.append(connection.number)
        assert seen == [1, 1, 1, 2, 2, 2, 3]


def test_recycle_closes_the_idle_ones_now_and_the_lent_ones_on_their_return():
    with scene(max_size=3) as s:
        s.fill(3)
        held = s.pool.checkout()
        s.pool.recycle()
        assert s.driver.open == {held.connection}
        held.checkin()
        assert s.driver.open == set()
        with s.pool.checkout() as connection:
            assert connection.number == 4


def test_a_connection_that_was_being_opened_during_a_recycle_is_opened_again():
    with scene(max_size=1) as s:
        latch = Latch()
        s.driver.script("connect", latch)
        opener = s.borrow()
        latch.wait_for(1)
        s.pool.recycle()
        latch.open()
        assert opener.result(SOON).connection.number == 2
        assert s.driver.closed == 1


# --- What a borrower left ---------------------------------------------------------------------------------------------


def test_a_connection_is_watched_from_the_moment_it_is_ready():
    with scene(max_size=1) as s:
        ready = []
        s.driver.watch = lambda connection: ready.append(s.pool._upkeep.driver.autocommit(connection))
        s.fill(1)
        assert ready == [None]


def test_what_a_borrower_left_is_wiped_before_anybody_else_gets_it():
    with scene(max_size=1) as s:
        with s.pool.checkout() as connection:
            assert connection.watched
            connection.dirty = True
        assert (connection.dirty, s.driver.calls["reset"]) == (False, 1)
        with s.pool.checkout() as again:
            assert again is connection
        assert s.driver.calls["reset"] == 1


def test_what_a_borrower_left_where_nothing_can_be_reset_costs_the_connection():
    with scene(max_size=1) as s:
        s.driver.can_reset = False
        with s.pool.checkout() as connection:
            connection.dirty = True
        assert connection.closed and s.driver.calls["reset"] == 0


def test_what_is_on_our_side_of_the_socket_is_put_back_and_nothing_is_reset():
    with scene(max_size=1) as s:
        s.driver.put_back = lambda connection: setattr(connection, "dirty", False)
        with s.pool.checkout() as connection:
            connection.dirty = True
        assert not connection.closed and s.driver.calls["reset"] == 0
        with s.pool.checkout() as again:
            assert again is connection
