"""Should the pool be larger, or smaller? sbroker's vectors, seen on the original in milliseconds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from threadpool_db.core.sizing import Advice, Counts
from threadpool_db.core.sojourn import Regulator, Sojourn


def regulator(core: int = 2, **more: Any) -> Regulator:
    return Sojourn(core, target=5, interval=100, idle=1000, **{"sample": 5, "draw": lambda: 0.5, **more}).begin()


def counts(in_use: int, idle: int = 0, waiting: int = 0, closing: int = 0) -> Counts:
    return Counts(12, idle, in_use, 0, closing, waiting)


def growth(sample: int, until: int) -> list[int]:
    """When it opens, if somebody always waits and asks each millisecond."""
    rule, total, opened = regulator(sample=sample), 2, []
    for now in range(sample, until):
        rule.look(counts(total, waiting=1), 0.0, 1.0, now)
        if total < 12 and rule.may_open(counts(total, waiting=1), now):
            rule.opens(now)
            total += 1
            opened.append(now)
    return opened


def test_it_grows_by_the_golden_vector() -> None:
    assert growth(5, 700) == [105, 205, 276, 334, 384, 429, 469, 507, 543, 576]


def test_each_step_needs_a_sample_of_its_own() -> None:
    assert growth(50, 700) == [150, 250, 321, 379, 429, 474, 514, 552, 600, 650]


def test_up_to_the_core_it_opens_at_once() -> None:
    rule = regulator(core=3)
    for total in range(3):
        assert rule.may_open(counts(total, waiting=1), 0)
        rule.opens(0)
    assert not rule.may_open(counts(3, waiting=1), 0)
    assert rule.valve.opens_at == math.inf, "the core's do not count"


def test_one_sample_that_finds_one_idle_for_long_enough_begins_anew() -> None:
    rule = regulator()
    rule.look(counts(3), 0.0, 0.0, 0)
    rule.look(counts(2, idle=1), 5.0, 0.0, 60)
    rule.look(counts(3), 0.0, 0.0, 65)
    assert not rule.may_open(counts(3, waiting=1), 164)
    rule.look(counts(2, idle=1), 4.9, 0.0, 70)
    assert rule.may_open(counts(3, waiting=1), 165)


def test_who_waits_is_slow_though_one_has_just_come_back() -> None:
    rule = regulator()
    rule.look(counts(1, idle=1, waiting=1), 50.0, 1.0, 0)
    assert rule.may_open(counts(2, waiting=1), 100)


def test_between_two_samples_it_does_not_look() -> None:
    rule = regulator(sample=50)
    assert rule.look(counts(3), 0.0, 0.0, 0).again == 50
    rule.look(counts(2, idle=1), 40.0, 0.0, 40)
    assert rule.valve.opens_at == 100
    rule.look(counts(2, idle=1), 50.0, 0.0, 50)
    assert rule.valve.opens_at == math.inf


def test_samples_are_spread_by_chance() -> None:
    draws = iter([0.0, 1.0, 0.25])
    rule = regulator(sample=100, draw=lambda: next(draws))
    times = [0.0]
    for _ in range(3):
        rule.look(counts(2, waiting=1), 0.0, 1.0, times[-1])
        times.append(rule.sample_at)
    assert times == [0, 50, 200, 275]


def test_it_sleeps_while_nobody_waits_and_there_are_no_more_than_the_core() -> None:
    rule = regulator()
    rule.look(counts(2, waiting=1), 0.0, 1.0, 0)
    assert rule.look(counts(2), 0.0, 0.0, 50) == Advice(math.inf)
    assert not rule.may_open(counts(2, waiting=1), 200), "what it knew is out of date"


def test_it_shrinks_by_the_golden_vector() -> None:
    rule, idle, closed = regulator(core=1, sample=10_000), 30, []
    for now in range(3000):
        if rule.look(counts(0, idle=idle), now, 0.0, now).close:
            idle -= 1
            closed.append(now)
    assert closed[:12] == [1100, 1200, 1271, 1329, 1379, 1424, 1464, 1502, 1538, 1571, 1603, 1633]
    assert idle == 1


def test_it_says_when_to_look_again_in_order_to_shrink() -> None:
    rule = regulator(sample=10_000)
    assert rule.look(counts(0, idle=3), 400.0, 0.0, 0) == Advice(600.0)
    assert rule.look(counts(0, idle=3), 1000.0, 0.0, 600) == Advice(700.0)
    assert rule.look(counts(0, idle=3), 1100.0, 0.0, 700) == Advice(800.0, close=True)


def test_one_used_again_ends_the_shrinking() -> None:
    rule = regulator(sample=10_000)
    rule.look(counts(0, idle=3), 1000.0, 0.0, 0)
    rule.look(counts(0, idle=3), 10.0, 0.0, 50)
    assert not rule.look(counts(0, idle=3), 1000.0, 0.0, 100).close
    assert rule.look(counts(0, idle=3), 1100.0, 0.0, 200).close


def test_what_is_on_its_way_out_is_no_more() -> None:
    assert regulator(core=2).look(counts(0, idle=2, closing=1), 5000.0, 0.0, 0) == Advice(math.inf)


@pytest.mark.parametrize("core", [0, -1, 1.5, True, "2"])
def test_an_impossible_core_is_refused(core: Any) -> None:
    with pytest.raises(ValueError, match=r"Sojourn\(core=.*: must be a whole number from 1 on"):
        Sojourn(core)


@pytest.mark.parametrize("name", ["target", "interval", "idle", "sample"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "1"])
def test_an_impossible_time_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"Sojourn\({name}=.*: must be seconds above 0"):
        Sojourn(2, **{name: value})


def test_each_pool_has_a_state_of_its_own() -> None:
    settings = Sojourn(2)
    assert settings.begin() is not settings.begin()
    assert (
        repr(settings.begin())
        == repr(settings)
        == ("Sojourn(core=2, target=0.005, interval=0.1, idle=1.0, sample=0.05)")
    )
