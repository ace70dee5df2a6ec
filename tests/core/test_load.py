"""Under load: what becomes of those who come? The real ledger with shedding and sizings, in simulated time.

The numbers are promises of the documentation; ``load.py`` is the clock.
"""

from __future__ import annotations

import math

import pytest

from tests.core.load import Load, evenly, poisson
from threadpool_db.core.freshness import Freshness
from threadpool_db.core.overload import AllAtOnce, CoDel, Spaced
from threadpool_db.core.rules import Rules
from threadpool_db.core.sizing import Elastic, Overflow
from threadpool_db.core.sojourn import Sojourn

SIZE, WORK, PATIENCE = 8, 0.02, 1.0
CAPACITY = SIZE / WORK
FAST = CoDel(0.05, 0.5)


# --- Shedding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overload", [1.2, 2.0, 4.0])
def test_under_overload_waits_stay_near_twice_the_target_at_full_goodput(overload: float) -> None:
    outcome = Load(poisson(overload * CAPACITY, 5), WORK, SIZE, PATIENCE, shed=FAST).run(5)
    assert len(outcome.waits(1)) >= 0.97 * CAPACITY * 4
    assert outcome.percentile(0.5, 1) <= 0.12 and outcome.percentile(0.99, 1) <= 0.25


def test_without_shedding_everybody_waits_almost_as_long_as_he_would() -> None:
    outcome = Load(poisson(2 * CAPACITY, 5), WORK, SIZE, PATIENCE).run(5)
    assert outcome.percentile(0.5, 2) > 0.95


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_nobody_is_turned_away_below_capacity(load: float) -> None:
    assert not Load(poisson(load * CAPACITY, 10), WORK, SIZE, PATIENCE, shed=FAST).run(10).many("shed")


def test_a_burst_that_drains_is_served() -> None:
    outcome = Load([0.0] * 1000, 0.01, 10, 5.0, shed=CoDel()).run(10)
    assert outcome.many("served") == 1000


def test_so_is_one_that_takes_longer_than_an_interval() -> None:
    longer = Load([0.0] * 1000, 0.1, 10, 30.0, shed=CoDel()).run(30)
    assert longer.many("served") == 1000
    theirs = Load([0.0] * 1000, 0.1, 10, 30.0, shed=CoDel(rule=AllAtOnce)).run(30)
    assert theirs.many("served") < 500, "DBConnection's rule cuts it"


def test_one_at_a_time_does_not_end_an_overload() -> None:
    outcome = Load(poisson(2 * CAPACITY, 5), WORK, SIZE, PATIENCE, shed=CoDel(0.05, 0.5, Spaced)).run(5)
    assert outcome.percentile(0.5, 2) > 0.9


def test_when_the_overload_is_over_so_is_the_shedding() -> None:
    arrivals = [*poisson(2 * CAPACITY, 3), *poisson(0.5 * CAPACITY, 8, begin=3.0)]
    outcome = Load(arrivals, WORK, SIZE, PATIENCE, shed=FAST).run(8)
    assert outcome.many("shed") > 300 and not outcome.many("shed", since=3.3)
    assert outcome.percentile(0.99, 3.5) < 0.05


def test_where_uses_are_long_the_connections_do_not_idle() -> None:
    outcome = Load(evenly(0.05, 20), 0.3, 4, 5.0, shed=FAST).run(20)
    assert outcome.many("shed", 1) > 50
    assert len(outcome.waits(1)) >= 0.97 * 4 / 0.3 * 19


def test_where_nothing_comes_back_they_are_turned_away_after_two_intervals() -> None:
    outcome = Load(evenly(0.25, 3), math.inf, 2, 30.0, shed=FAST).run(10)
    assert outcome.many("served") == 2
    first, *rest = [request for request in outcome.requests if request.ended == "shed"]
    assert first.waited == pytest.approx(1.0) and first.came == pytest.approx(0.5)
    assert all(request.waited <= 1.0 + 1e-9 for request in rest) and len(rest) == 9


# --- Sizing -----------------------------------------------------------------------------------------------------------


def test_a_load_that_goes_up_and_down_costs_overflow_no_connects() -> None:
    arrivals = sorted(now + 0.001 * n for now in evenly(0.1, 20) for n in range(11 if int(now * 10) % 2 else 10))
    lingering = Load(arrivals, 0.05, 12, connected=False, connect=0.01, sizing=Overflow(2)).run(20)
    poolboys = Load(arrivals, 0.05, 12, connected=False, connect=0.01, sizing=Overflow(2, 0)).run(20)
    assert lingering.connects <= 12 < poolboys.connects


def test_when_the_rush_is_over_the_extra_ones_go_and_the_base_stays() -> None:
    load = Load([0.0] * 12, 0.05, 12, sizing=Overflow(4, linger=5))
    load.run(4.9)
    assert load.ledger.counts().connected == 12
    load.run(30)
    assert load.ledger.counts().connected == 8


def test_as_pooler_does_the_idle_ones_are_culled_to_the_initial_size() -> None:
    rules = Rules(max_size=10, min_size=2, background=True, max_connecting=math.inf, freshness=Freshness(max_idle=5))
    load = Load([0.0] * 10, lambda: 0.1, 10, rules=rules)
    load.run(5.05)
    assert load.ledger.counts().connected == 10
    load.run(5.2)
    assert load.ledger.counts().connected == 2


def test_sojourn_opens_one_after_the_other_under_a_rush() -> None:
    everybody = Load(poisson(300, 3), 0.05, 20, connected=False, connect=0.05, sizing=Elastic()).run(3)
    few = Load(poisson(300, 3), 0.05, 20, connected=False, connect=0.05, sizing=Sojourn(4, draw=lambda: 0.5))
    outcome = few.run(3)
    assert everybody.connects == 20
    grown = [when for when, size in outcome.sizes if size > 4]
    assert grown[0] >= 0.1 and len(grown) >= 11, "four at once, and from then on what is needed, at a growing pace"
    assert outcome.percentile(0.9, 2) < 0.05, "and then it is enough"


def test_a_hiccup_makes_sojourn_open_none() -> None:
    load = Load([0.0] * 8, 0.04, 20, connected=False, connect=0.0, sizing=Sojourn(4))
    assert load.run(5).connects == 4


def test_sojourn_shrinks_to_its_core_when_the_rush_is_over() -> None:
    load = Load([*poisson(300, 2), 20.0], 0.05, 20, connected=False, connect=0.01, sizing=Sojourn(4))
    load.run(2.0)
    assert load.ledger.counts().connected > 10
    load.run(19.0)
    assert load.ledger.counts().connected == 4 and load.ledger.look_at == math.inf
