"""What does a thread see that waits in an overloaded pool? Shedding and sizing in the real pool, with a fake clock."""

from __future__ import annotations

import pytest

from tests.scene import SOON, join, scene, until
from threadpool_db import CoDel, Elastic, Overflow, PoolConfig, PoolOverloaded, PoolTimeout, Sojourn
from threadpool_db.core.overload import AllAtOnce, Spaced, Standing
from threadpool_db.core.sizing import Advice

STRICT = CoDel(0.05, 0.5)


def overload(s, many=4):
    """Two hand-overs too late, an interval apart, and a line that does not get shorter."""
    held = s.pool.checkout()
    waiters = s.line_up(2)
    s.clock.advance(0.2)
    held.checkin()
    held = waiters.pop(0).result(SOON)
    waiters += s.line_up(many)
    s.clock.advance(0.45)
    late = s.line_up(1)
    s.clock.advance(0.06)
    return held, waiters, late[0]


@pytest.mark.parametrize("background", [True, False])
def test_who_has_waited_too_long_is_turned_away_and_who_has_not_is_served(background):
    with scene(max_size=1, shed=STRICT, name="orders", background=background) as s:
        held, old, young = overload(s)
        held.checkin()
        served = young.result(SOON)
        for waiter in old:
            with pytest.raises(PoolOverloaded) as caught:
                waiter.result(SOON)
            error = caught.value
            assert str(error).startswith("pool 'orders': turned away after waiting 0.")
            assert "(shed=CoDel(target=0.05, interval=0.5, rule=" in str(error)
            assert error.snapshot.name == "orders" and 0.5 <= error.waited < 0.8
        numbers = s.pool.stats()
        assert (numbers.shed, numbers.refused, numbers.timeouts, numbers.waiting) == (5, 5, 0, 0)
        assert len({id(waiter.exception()) for waiter in old}) == 5, "each has an error of his own"
        served.checkin()
        s.assert_nothing_lost()


def test_the_error_numbers_what_to_do():
    with scene(max_size=1, shed=STRICT) as s:
        held, old, young = overload(s, 1)
        held.checkin()
        young.result(SOON).checkin()
        text = str(old[0].exception(SOON))
        for line in ("1. ", "2. ", "503 and Retry-After", "raise max_size", "raise the target or the interval of shed"):
            assert line in text


def test_without_it_everybody_waits_for_his_own_time():
    with scene(max_size=1) as s:
        held, old, young = overload(s)
        held.checkin()
        for waiter in [*old, young]:
            waiter.result(SOON).checkin()
        assert s.pool.stats().shed == 0


def test_nothing_is_handed_to_one_whose_time_is_over():
    with scene(max_size=1) as s:
        held = s.pool.checkout()
        [impatient] = s.line_up(1, timeout=1)
        [patient] = s.line_up(1)
        s.clock._time += 2  # he should have woken, and was not let run
        held.checkin()
        patient.result(SOON).checkin()
        with pytest.raises(PoolTimeout, match=r"within 1 s \(waited 2.00 s\)"):
            impatient.result(SOON)
        assert s.driver.closed == 0
        s.assert_nothing_lost()


class OneAtATime(Standing):
    """Looks at the line again soon after each hand-over, and then turns the next one away."""

    def sheds(self, waited, waiting, now):
        self.look_at = now + 0.1
        return False

    def overdue(self, waited, waiting, now):
        return now >= self.look_at


def test_a_line_that_moved_is_looked_at_when_its_rule_wants_it():
    with scene(max_size=1, shed=CoDel(1, 50, OneAtATime), background=True) as s:
        held = s.pool.checkout()
        first, second = s.line_up(2)
        held.checkin()
        held = first.result(SOON)
        assert not second.done()
        s.clock.advance(0.11)
        with pytest.raises(PoolOverloaded, match=r"turned away after waiting 0\.11 s"):
            second.result(SOON)
        held.checkin()


def test_where_all_are_turned_away_the_connection_is_there_for_the_next():
    class Nobody(Standing):
        def sheds(self, waited, waiting, now):
            return waited > 0

    with scene(max_size=1, shed=CoDel(1, 50, Nobody), background=True) as s:
        held = s.pool.checkout()
        waiters = s.line_up(3)
        s.clock.advance(0.1)
        held.checkin()
        for waiter in waiters:
            with pytest.raises(PoolOverloaded):
                waiter.result(SOON)
        s.pool.checkout().checkin()
        s.assert_nothing_lost()


@pytest.mark.parametrize("background", [True, False])
def test_where_nothing_comes_back_the_keeper_turns_them_away_or_they_do_it_themselves(background):
    with scene(max_size=1, shed=STRICT, background=background) as s:
        held = s.pool.checkout()
        waiters = s.line_up(2)
        for _ in range(11):
            s.clock.advance(0.1)
        for waiter in waiters:
            with pytest.raises(PoolOverloaded, match=r"turned away after waiting 1\.\d\d s"):
                waiter.result(SOON)
        held.checkin()


def test_a_pause_turns_nobody_away():
    with scene(max_size=1, shed=STRICT, background=True) as s:
        s.fill(1)
        s.pool.pause()
        waiters = s.line_up(2)
        s.clock.advance(8)
        assert not any(waiter.done() for waiter in waiters)
        s.pool.resume()
        for waiter in waiters:
            waiter.result(SOON).checkin()


def test_it_may_be_switched_on_and_off_while_it_runs():
    with scene(max_size=1, background=True) as s:
        held = s.pool.checkout()
        [waiter] = s.line_up(1)
        told = s.pool.reconfigure(shed=STRICT)
        assert told[0].startswith("shed None -> CoDel(target=0.05, interval=0.5")
        s.clock.advance(1.1)
        with pytest.raises(PoolOverloaded):
            waiter.result(SOON)
        s.pool.reconfigure(shed=None)
        [waiter] = s.line_up(1)
        s.clock.advance(9)
        assert not waiter.done()
        held.checkin()
        waiter.result(SOON).checkin()


def test_pools_that_share_an_option_share_no_state():
    config = PoolConfig(shed=CoDel(rule=Spaced), sizing=Sojourn(2))
    with scene(shed=config.shed, sizing=config.sizing) as one, scene(shed=config.shed, sizing=config.sizing) as two:
        mine, theirs = one.pool._ledger, two.pool._ledger
        assert isinstance(mine.shedding, Spaced) and mine.shedding is not theirs.shedding
        assert mine.sizing is not theirs.sizing


@pytest.mark.parametrize("wrong", [0.05, CoDel, "codel", Standing(0.05, 1.0)])
def test_what_begins_no_line_is_refused(wrong):
    with pytest.raises(ValueError, match=r"shed=.*: must be CoDel\(target, interval\)"):
        PoolConfig(shed=wrong)


@pytest.mark.parametrize("rule", [Standing, AllAtOnce, Spaced])
def test_whoever_can_be_served_at_once_is_whatever_the_rule(rule):
    with scene(max_size=2, shed=CoDel(0.05, 0.5, rule)) as s:
        for _ in range(20):
            s.clock.advance(0.3)
            with s.pool.checkout(), s.pool.checkout():
                pass
        assert s.pool.stats().refused == 0


# --- Sizing -----------------------------------------------------------------------------------------------------------


def test_extra_ones_linger_and_then_go():
    with scene(max_size=3, sizing=Overflow(2, linger=5), background=True) as s:
        s.fill(3)
        s.clock.advance(4.9)
        assert s.pool.stats().idle == 3
        s.clock.advance(0.2)
        until(lambda: s.pool.stats().total == 1)
        assert s.driver.made == 3


def test_an_extra_one_in_use_stays():
    with scene(max_size=2, sizing=Overflow(1, linger=5), background=True) as s:
        s.fill(2)
        held = s.pool.checkout()
        s.clock.advance(4)
        s.pool.checkout().checkin()
        s.clock.advance(4)
        assert s.pool.stats().total == 2
        s.clock.advance(1.1)
        until(lambda: s.pool.stats().total == 1)
        held.checkin()


def test_sojourn_opens_its_core_at_once_and_one_more_for_who_waits_long_enough():
    with scene(max_size=3, sizing=Sojourn(1, draw=lambda: 0.5), background=True) as s:
        first = s.pool.checkout()
        [second] = s.line_up(1)
        s.clock.advance(0.09)
        assert s.driver.made == 1
        s.clock.advance(0.02)
        join(second)[0].checkin()
        assert s.driver.made == 2
        first.checkin()
        for _ in range(60):
            s.clock.advance(0.05)
        until(lambda: s.pool.stats().total == 1)


def test_without_a_background_who_waits_grows_it_himself():
    with scene(max_size=2, sizing=Sojourn(1, draw=lambda: 0.5)) as s:
        first = s.pool.checkout()
        [second] = s.line_up(1)
        for _ in range(6):
            s.clock.advance(0.05)
        second.result(SOON).checkin()
        first.checkin()


class Steady(Elastic):
    """The one of docs/load.md."""

    def __init__(self):
        self.free_at = 0.0

    def begin(self):
        return Steady()

    def may_open(self, counts, now):
        return counts.total < 1 or now >= self.free_at

    def opens(self, now):
        self.free_at = now + 1.0

    def look(self, counts, idle_for, waited, now):
        if counts.connected > 1 or counts.waiting:
            return Advice(again=now + 1.0, close=counts.connected > 1 and idle_for > 60)
        return Advice()


def test_a_regulator_of_ones_own_is_asked_at_its_hour():
    with scene(max_size=3, sizing=Steady(), background=True, max_idle=None, max_lifetime=None) as s:
        first = s.pool.checkout()
        [second] = s.line_up(1)
        s.clock.advance(0.9)
        assert s.driver.made == 1
        s.clock.advance(0.2)
        second.result(SOON).checkin()
        first.checkin()
        s.clock.advance(62)
        until(lambda: s.pool.stats().total == 1)


class Greedy(Elastic):
    """Closes whatever is idle, and wants to look again and again."""

    def look(self, counts, idle_for, waited, now):
        return Advice(again=now, close=True)


def test_no_regulator_closes_what_is_to_be_kept_or_keeps_the_keeper_busy():
    with scene(max_size=3, min_size=2, sizing=Greedy(), background=True) as s:
        s.fill(3)
        for _ in range(5):
            s.clock.advance(0.0001)
        until(lambda: s.pool.stats().total == 2)
        assert s.driver.made == 3
