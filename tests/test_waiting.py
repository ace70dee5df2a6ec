"""Is the line fair, and does each place in it end when it should?"""

from __future__ import annotations

import math
import random
import threading
import time

import pytest

from tests.scene import SOON, background, join, leak_reported, scene
from threadpool_db import PoolOverloaded, PoolTimeout
from threadpool_db.core.line import Ticket
from threadpool_db.testing import FakeClock, Latch, WatchedClock
from threadpool_db.waiting import Clock, Gate, Holder, Mailbox, Waiter

# --- Order ------------------------------------------------------------------------------------------------------------


def test_twenty_waiters_are_served_in_the_order_in_which_they_came():
    served = []
    with scene(max_size=1) as s:

        def visit(n):
            with s.pool.checkout():
                served.append(n)

        held = s.pool.checkout()
        visits = []
        for n in range(20):
            visits.append(background(visit, n))
            s.clock.wait_for_sleepers(n + 1)
        held.checkin()
        join(*visits)
        assert served == list(range(20))
        s.assert_nothing_lost()


def test_a_returned_connection_belongs_to_the_first_in_line_before_he_has_woken_up():
    with scene(max_size=1) as s:
        held = s.pool.checkout()
        [waiter] = s.line_up(1)
        held.checkin()
        with pytest.raises(PoolTimeout):
            s.pool.checkout(timeout=0)
        assert waiter.result(SOON).connection.number == 1


def test_whoever_gives_back_and_asks_again_does_not_overtake_a_waiter():
    with scene(max_size=1) as s:
        held = s.pool.checkout()
        [waiter] = s.line_up(1)
        held.checkin()
        again = s.borrow()
        lease = waiter.result(SOON)
        s.clock.wait_for_sleepers(1)
        lease.checkin()
        assert again.result(SOON).connection.number == 1


def test_five_returns_wake_exactly_the_five_earliest_waiters():
    with scene(max_size=5, max_connecting=5) as s:
        held = [s.pool.checkout() for _ in range(5)]
        waiters = s.line_up(10)
        for lease in held:
            lease.checkin()
        leases = join(*waiters[:5])
        assert not any(waiter.done() for waiter in waiters[5:])
        for lease in leases:
            lease.checkin()
        join(*waiters[5:])


def test_nobody_takes_without_waiting_what_somebody_else_waits_for():
    with scene(max_size=2, max_connecting=1) as s:
        latch = Latch()
        s.driver.script("connect", latch)
        opener = s.borrow()
        latch.wait_for(1)
        [waiter] = s.line_up(1)
        with pytest.raises(PoolTimeout):
            s.pool.checkout(timeout=0)
        latch.open()
        assert {lease.connection.number for lease in join(opener, waiter)} == {1, 2}


# --- Deadlines --------------------------------------------------------------------------------------------------------


def test_a_waiter_is_turned_away_when_its_own_time_is_over_and_not_a_moment_before():
    with scene(max_size=1) as s:
        held = s.pool.checkout()
        short, long = s.line_up(1, timeout=5) + s.line_up(1, timeout=8)
        s.clock.advance(4.999)
        s.clock.wait_for_sleepers(2)  # both have looked after themselves meanwhile
        s.clock.advance(0.001)
        with pytest.raises(PoolTimeout, match=r"within 5 s \(waited 5.00 s\)"):
            short.result(SOON)
        held.checkin()
        assert long.result(SOON).connection.number == 1


def test_a_waiter_that_gave_up_costs_nobody_a_connection():
    with scene(max_size=1) as s:
        held = s.pool.checkout()
        [waiter] = s.line_up(1, timeout=1)
        s.clock.advance(1)
        with pytest.raises(PoolTimeout):
            waiter.result(SOON)
        held.checkin()
        with s.pool.checkout(timeout=0) as connection:
            assert connection.number == 1
        assert (s.driver.made, s.driver.closed) == (1, 0)


def test_infinite_patience_never_ends():
    with scene(max_size=1, timeout=5) as s:
        held = s.pool.checkout()
        [waiter] = s.line_up(1, timeout=math.inf)
        s.clock.advance(1e9)
        s.clock.wait_for_sleepers(1)  # it has looked after itself meanwhile
        held.checkin()
        assert waiter.result(SOON)


def test_the_timeout_of_the_pool_holds_for_whoever_brings_none():
    with scene(max_size=1, timeout=3) as s, s.pool.checkout():
        [waiter] = s.line_up(1)
        s.clock.advance(3)
        with pytest.raises(PoolTimeout, match="within 3 s"):
            waiter.result(SOON)


def test_a_timeout_and_a_hand_over_at_the_same_moment_lose_nothing():
    """The waiter gets either the connection or the error; the count is exact after each round."""
    served = refused = 0
    with scene(max_size=1) as s:
        for _ in range(300):
            held = s.pool.checkout()
            [waiter] = s.line_up(1, timeout=1)
            start = threading.Barrier(2)

            def give_back(start=start, held=held):
                start.wait()
                held.checkin()

            giving = background(give_back)
            start.wait()
            s.clock.advance(1)
            giving.result(SOON)
            try:
                waiter.result(SOON).checkin()
                served += 1
            except PoolTimeout:
                refused += 1
            s.assert_nothing_lost()
        stats = s.pool.stats()
        assert served + refused == 300
        assert (stats.timeouts, stats.checkouts) == (refused, 300 + served)
        assert (s.driver.made, s.driver.closed) == (1, 0)


def test_random_short_timeouts_in_real_time_lose_nothing():
    got = [0] * 6
    gone = [0] * 6
    with scene(clock=WatchedClock(), max_size=2) as s:

        def rush(n):
            dice = random.Random(n)
            for _ in range(400):
                try:
                    with s.pool.checkout(timeout=dice.choice((0, 1e-5, 1e-4, 5e-4, 2e-3))):
                        got[n] += 1
                        time.sleep(dice.choice((0, 0, 1e-4)))
                except PoolTimeout:
                    gone[n] += 1

        join(*[background(rush, n) for n in range(6)])
        assert sum(got) + sum(gone) == 6 * 400
        s.assert_nothing_lost()
        stats = s.pool.stats()
        assert (stats.checkouts, stats.timeouts) == (sum(got), sum(gone))
        assert s.driver.most_open <= 2


# --- A full line ------------------------------------------------------------------------------------------------------


def test_a_full_line_refuses_newcomers_at_once():
    with scene(max_size=1, max_waiting=2) as s:
        held = s.pool.checkout()
        waiters = s.line_up(2)
        with pytest.raises(PoolOverloaded, match=r"2 threads are waiting already \(max_waiting=2\)") as caught:
            s.pool.checkout()
        assert caught.value.snapshot.waiting == 2
        held.checkin()
        waiters[0].result(SOON).checkin()
        waiters[1].result(SOON).checkin()
        assert s.pool.stats().refused == 1
        s.assert_nothing_lost()


def test_max_waiting_zero_lends_only_what_needs_no_wait():
    with scene(max_size=1, max_waiting=0) as s:
        with s.pool.checkout(), pytest.raises(PoolOverloaded):
            s.pool.checkout(timeout=60)
        s.pool.checkout().checkin()


# --- Interrupts -------------------------------------------------------------------------------------------------------


class InterruptibleClock(FakeClock):
    """Calls ``at_waking`` in a thread that has just been woken at its gate; an interrupt arrives just then."""

    at_waking = staticmethod(lambda: None)

    def wait(self, gate, until):
        super().wait(gate, until)
        self.at_waking()


def interrupt():
    raise KeyboardInterrupt


def test_an_interrupted_waiter_leaves_the_line():
    with scene(clock=InterruptibleClock(), max_size=1) as s:
        held = s.pool.checkout()
        [waiter] = s.line_up(1, timeout=5)
        s.clock.at_waking = interrupt
        s.clock.advance(5)
        with pytest.raises(KeyboardInterrupt):
            waiter.result(SOON)
        assert s.pool.stats().waiting == 0
        held.checkin()
        s.assert_nothing_lost()


def test_a_waiter_interrupted_between_the_grant_and_its_waking_passes_the_connection_on():
    with scene(clock=InterruptibleClock(), max_size=1) as s:
        held = s.pool.checkout()
        first, second = s.line_up(2)
        s.clock.at_waking = lambda: (setattr(s.clock, "at_waking", lambda: None), interrupt())
        held.checkin()
        with pytest.raises(KeyboardInterrupt):
            first.result(SOON)
        lease = second.result(SOON)
        assert lease.connection.number == 1
        lease.checkin()
        s.assert_nothing_lost()


def test_a_waiter_interrupted_with_an_empty_slot_in_hand_passes_it_on():
    with scene(clock=InterruptibleClock(), max_size=1) as s:
        held = s.pool.checkout()
        first, second = s.line_up(2)
        s.clock.at_waking = lambda: (setattr(s.clock, "at_waking", lambda: None), interrupt())
        held.discard()
        with pytest.raises(KeyboardInterrupt):
            first.result(SOON)
        second.result(SOON).checkin()
        s.assert_nothing_lost()


# --- The mailbox ------------------------------------------------------------------------------------------------------


def test_a_note_wakes_the_head_of_the_line_and_nobody_else():
    clock = FakeClock()
    line = {}
    waiters = [Waiter(clock, Holder(), None, -1) for _ in range(2)]
    for waiter in waiters:
        line[waiter] = None
    asleep = [background(waiter.gate.sleep, clock, math.inf) for waiter in waiters]
    clock.wait_for_sleepers(2)
    mailbox = Mailbox(line)
    mailbox.post("a note")
    asleep[0].result(SOON)
    assert clock.sleepers == 1
    assert list(mailbox.notes) == ["a note"]
    waiters[1].gate.open()
    asleep[1].result(SOON)


def test_a_note_for_an_empty_line_just_lies_there():
    mailbox = Mailbox({})
    mailbox.post(1)
    assert list(mailbox.notes) == [1]


def test_a_line_that_changes_under_the_finaliser_is_looked_at_again():
    class Changing(dict):
        looks = 0

        def __iter__(self):
            self.looks += 1
            if self.looks == 1:
                raise RuntimeError("changed size during iteration")
            return super().__iter__()

    line = Changing()
    Mailbox(line).post(1)
    assert line.looks == 2


def test_a_lease_dropped_while_somebody_waits_serves_him_at_once():
    with scene(max_size=1) as s:
        dropped = [s.pool.checkout()]
        [waiter] = s.line_up(1, timeout=1000)
        with leak_reported():
            dropped.clear()
            assert waiter.result(SOON).connection.number == 2  # no time has passed
        assert s.driver.closed == 1


def test_a_lease_dropped_by_a_thread_that_ends_serves_the_waiter_at_once():
    with scene(max_size=1) as s:
        latch = Latch()

        def forget():
            lease = s.pool.checkout()
            latch()
            assert lease

        forgetful = background(forget)
        latch.wait_for(1)
        [waiter] = s.line_up(1, timeout=1000)
        with leak_reported():
            latch.open()
            forgetful.result(SOON)
            waiter.result(SOON)


def test_a_note_whose_poke_woke_somebody_who_was_served_meanwhile_is_read_all_the_same():
    with scene(clock=InterruptibleClock(), max_size=2) as s:
        lease, dropped = s.pool.checkout(), [s.pool.checkout()]
        closing, drowsy = Latch(), Latch()
        s.driver.script("close", closing)
        discarding = background(lease.discard)
        closing.wait_for(1)
        first, second = s.line_up(2)
        s.clock.at_waking = lambda: (setattr(s.clock, "at_waking", lambda: None), drowsy())
        with leak_reported():
            dropped.clear()  # pokes the first in line, who wakes slowly
            drowsy.wait_for(1)
            closing.open()  # and is granted the slot of the other one
            discarding.result(SOON)
            second.result(SOON).checkin()  # while he is still drowsy
        drowsy.open()
        first.result(SOON).checkin()
        s.assert_nothing_lost()


# --- Clock, gate, holder ----------------------------------------------------------------------------------------------


def test_a_gate_opened_twice_lets_one_sleep_through_and_shuts_again():
    clock = Clock()
    gate = Gate(clock)
    gate.open()
    gate.open()
    gate.sleep(clock, math.inf)
    begun = clock.now()
    gate.sleep(clock, begun + 0.01)
    assert clock.now() >= begun + 0.01


def test_a_sleep_until_a_past_time_is_none():
    clock = Clock()
    Gate(clock).sleep(clock, clock.now() - 1)


def test_a_gate_sleeps_longer_than_a_lock_can():
    clock = Clock()
    gate = Gate(clock)
    asleep = background(gate.sleep, clock, clock.now() + 2 * threading.TIMEOUT_MAX)
    gate.open()
    asleep.result(SOON)


def test_a_holder_and_a_ticket_say_who_they_are():
    assert repr(Holder()) == f"<Holder {threading.current_thread().name}>"
    assert repr(Ticket()) == "<Ticket -1 wait>"
