"""Is the database in reach, and when may the next connect start? The rules one by one, with the time as an argument."""

from __future__ import annotations

import math
from typing import Any

import pytest

from threadpool_db.core.backoff import Backoff
from threadpool_db.core.outage import Outage
from threadpool_db.core.reach import Reach
from threadpool_db.core.rules import Rules

ERROR, OTHER = OSError("refused"), OSError("timed out")
SLOWLY = Backoff(1.0, 8.0, "exp")


def reach_of(server: Outage | None = None, *, connected: bool = True, **rules: Any) -> Reach:
    """Of a pool that has connected once."""
    made = Reach(Rules(**{"backoff": SLOWLY, "grace": 5.0, **rules}), server)
    if connected:
        made.succeeded(0.0)
    return made


def fail(reach: Reach, *times: float, error: BaseException = ERROR, answered: bool = False) -> None:
    for now in times:
        reach.failed(now, now, error, answered, draw=0.5)


class TestWhileNoneFails:
    def test_one_may_start_at_any_time(self) -> None:
        for reach in (reach_of(), reach_of(connected=False), reach_of(Outage())):
            assert reach.next_at(3.0) == reach.fill_at == -math.inf and reach.admits(3.0)
            assert (reach.failing, reach.error, reach.patient_until) == (False, None, math.inf)

    def test_whoever_has_connected_is_worth_to_be_awaited(self) -> None:
        reach = reach_of(connected=False)
        assert not reach.is_awaited(1.0)
        reach.succeeded(1.0)
        assert reach.is_awaited(1.0)


class TestWhileTheyFail:
    def test_the_next_one_waits_and_each_time_for_longer(self) -> None:
        reach = reach_of()
        waits = []
        for now in (10.0, 11.0, 13.0, 17.0):
            fail(reach, now)
            waits.append(reach.next_at(now) - now)
        assert waits == [1.0, 2.0, 4.0, 8.0]

    def test_the_first_failure_begins_it_and_the_last_is_its_cause(self) -> None:
        reach = reach_of()
        fail(reach, 10.0)
        fail(reach, 11.0, error=OTHER)
        assert (reach.failing, reach.failing_since, reach.error, reach.patient_until) == (True, 10.0, OTHER, 15.0)

    def test_who_hears_late_of_an_early_one_takes_it_for_the_first(self) -> None:
        reach = reach_of()
        fail(reach, 10.0, 9.0)
        assert reach.failing_since == 9.0

    @pytest.mark.parametrize(("background", "fill_at"), [(True, 11.0), (False, -math.inf)])
    def test_what_is_kept_ready_waits_where_somebody_keeps_it(self, background: bool, fill_at: float) -> None:
        reach = reach_of(background=background)
        fail(reach, 10.0)
        assert reach.fill_at == fill_at

    def test_where_nobody_retries_the_next_one_may_start_at_once_but_nothing_is_filled(self) -> None:
        reach = reach_of(backoff=None, background=True)
        fail(reach, 10.0)
        assert reach.failing and reach.next_at(10.0) == -math.inf
        assert 10.0 < reach.fill_at <= 10.0 + Backoff().longest

    def test_a_success_forgets_all_of_it(self) -> None:
        reach = reach_of(background=True)
        fail(reach, 10.0, 11.0)
        reach.succeeded(13.0)
        assert (reach.failing, reach.error) == (False, None)
        assert (reach.next_at(13.0), reach.fill_at, reach.patient_until) == (-math.inf, -math.inf, math.inf)
        fail(reach, 20.0)
        assert (reach.failing_since, reach.next_at(20.0)) == (20.0, 21.0)  # from the shortest delay again

    def test_who_hopes_has_not_connected(self) -> None:
        reach = reach_of(Outage(), connected=False)
        fail(reach, 10.0)
        reach.hope()
        assert not reach.failing and not reach.connected_once
        assert reach.server is not None and reach.server.next_at(10.0) == 11.0  # the others hope for themselves

    def test_other_rules_hold_at_once(self) -> None:
        reach = reach_of()
        fail(reach, 10.0)
        reach.rules = Rules(backoff=Backoff(0.5, 1.5, "exp"), grace=2.0)
        assert reach.patient_until == 12.0
        fail(reach, 11.0)
        assert reach.next_at(11.0) == 12.5


class TestAPoolThatHasNeverConnected:
    def test_it_is_not_held_back_and_says_at_once_why(self) -> None:
        reach = reach_of(connected=False)
        fail(reach, 10.0, 11.0)
        assert not reach.is_awaited(14.999) and reach.next_at(11.0) == -math.inf

    def test_after_its_grace_it_is_held_back_like_any_other(self) -> None:
        reach = reach_of(connected=False)
        fail(reach, 10.0, 15.0)
        assert reach.is_awaited(15.0) and reach.next_at(15.0) == 17.0

    def test_what_others_know_is_nothing_to_it(self) -> None:
        server = Outage()
        fail(reach_of(server), 10.0)
        newcomer = reach_of(server, connected=False)
        assert newcomer.turn_at(10.5) == -math.inf and newcomer.admits(10.5)
        assert server.next_at(10.5) == 11.0

    def test_but_what_it_finds_out_is_told_them(self) -> None:
        server = Outage()
        fail(reach_of(server, connected=False), 10.0)
        assert reach_of(server).next_at(10.5) == -math.inf  # for it has connected meanwhile
        fail(reach_of(server, connected=False), 20.0)
        assert server.next_at(20.5) == 21.0


class TestTheServer:
    def test_what_one_pool_found_out_holds_back_the_others(self) -> None:
        server = Outage()
        one, other = reach_of(server), reach_of(server)
        fail(one, 10.0)
        assert other.next_at(10.5) == other.turn_at(10.5) == 11.0 and not other.admits(10.5)
        assert not other.failing and other.retry_at == -math.inf

    def test_a_turn_that_is_taken_is_used(self) -> None:
        server = Outage()
        one, other = reach_of(server), reach_of(server)
        fail(one, 10.0)
        assert [one.admits(11.0), other.admits(11.0)] == [True, False]

    def test_the_later_of_its_own_time_and_the_servers_holds(self) -> None:
        server = Outage()
        reach = reach_of(server)
        fail(reach, 10.0, answered=True)  # once with a no, which is nobody else's business
        assert (reach.retry_at, reach.turn_at(10.0), reach.next_at(10.0)) == (11.0, -math.inf, 11.0)
        server.failed(10.0, 10.0, 5.0)
        assert (reach.retry_at, reach.turn_at(10.0), reach.next_at(10.0)) == (11.0, 15.0, 15.0)

    def test_it_hears_when_a_failed_connect_began_and_of_each_that_succeeds(self) -> None:
        server = Outage()
        one, other = reach_of(server), reach_of(server)
        fail(one, 10.0)
        other.succeeded(12.0)
        assert server.next_at(12.0) == 12.0  # back, by the ramp
        one.failed(11.0, 12.5, ERROR, False, draw=0.5)  # news of the outage before
        assert server.next_at(13.0) == -math.inf


class TestDisappointed:
    def test_another_one_waits_as_after_a_failed_connect_and_is_no_failure(self) -> None:
        reach = reach_of()
        reach.disappointed(10.0, draw=0.5)
        assert (reach.next_at(10.0), reach.fill_at, reach.failing) == (11.0, 11.0, False)

    def test_it_never_shortens_a_pause(self) -> None:
        reach = reach_of(background=True)
        fail(reach, 10.0, 10.0, 10.0)
        reach.disappointed(10.0, draw=0.5)
        assert (reach.next_at(10.0), reach.fill_at) == (14.0, 14.0)
        nobody_retries = reach_of(backoff=None, background=True)
        fail(nobody_retries, 10.0, 10.0, 10.0)
        until = nobody_retries.fill_at
        nobody_retries.disappointed(10.0, draw=0.0)
        assert nobody_retries.next_at(10.0) < nobody_retries.fill_at == until
