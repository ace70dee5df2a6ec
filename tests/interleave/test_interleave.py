"""Does the pool keep its promises in every order of its threads? The real pool, on a scheduler, in many orders.

``scenarios.py`` says what the threads do, ``world.py`` what must hold. A failure prints its schedule, step by step, and
names the order that brings it back; to see one again:

    python -m tests.interleave "four on two" priorities 31 fine
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest

from tests.core.promises import Broken
from tests.interleave.explore import Explorer, quiet
from tests.interleave.injection import Injection
from tests.interleave.kept_scenarios import KEPT
from tests.interleave.kept_struck import APART, KEPT_COLLECTED
from tests.interleave.order import Order, orders
from tests.interleave.outage_scenarios import OUTAGES, OUTAGES_COLLECTED, OUTAGES_OF_ONE, OUTAGES_STRUCK
from tests.interleave.plays import UNDISTURBED as ALL
from tests.interleave.scenarios import COLLECTED, SCENARIOS, STRUCK, Scenario
from tests.interleave.shared import SHARED, SHARED_COLLECTED

#: Different schedules of each scenario that CI tries, as many as its kind affords; a few have not so many.
SHARE = {
    **dict.fromkeys(SCENARIOS, 1_560),
    **dict.fromkeys(KEPT, 300),
    **dict.fromkeys(SHARED, 100),
    **dict.fromkeys(OUTAGES, 50),
}
SHARE |= {scenario: 400 for scenario in SCENARIOS if scenario.tiny}
#: By so many preemptions nearly all scenarios have fewer schedules than that: 14 to 1,700, and each is tried.
EVERY = 1_700
#: Then so many as they come, and after that those that seldom come twice.
MIXED = 600
#: Orders of each scenario that the proof tries, which goes on where CI stops.
PROOF = {
    **dict.fromkeys(SCENARIOS, 1_000),
    **dict.fromkeys(KEPT, 1_500),
    **dict.fromkeys(SHARED, 1_000),
    **dict.fromkeys(OUTAGES, 600),
}

#: What the driver's connect has returned and nobody has stored yet no finaliser of ours can know of.
UNREACHABLE = {"upkeep.py open": "closed once: 1 closed by the garbage collector alone"}


@pytest.fixture(autouse=True)
def in_quiet() -> Iterator[None]:
    with quiet():
        yield


def test_fifty_thousand_different_orders_are_tried_at_least() -> None:
    assert sum(SHARE[scenario] for scenario in ALL) >= 50_000


@pytest.mark.parametrize("scenario", ALL, ids=str)
def test_the_promises_hold_in_many_orders(scenario: Scenario) -> None:
    explorer, share = Explorer(scenario), SHARE[scenario]
    if scenario in SCENARIOS:
        explorer.exhaust(bound=1, most=EVERY)
    for order in chain(orders(MIXED, fine=8), (Order("walk", seed) for seed in range(MIXED, MIXED + 3 * share))):
        if len(explorer.ways) >= share:
            break
        explorer.explore([order])
    assert len(explorer.ways) >= share, f"only {len(explorer.ways)} different ones of {explorer.schedules}"
    assert not set(scenario.sees) - set(explorer.outcomes), "the scenario is not about what it says"


@pytest.mark.parametrize("scenario", [each for each in SCENARIOS if each.tiny], ids=str)
def test_the_promises_hold_in_every_order_of_two_preemptions(scenario: Scenario) -> None:
    explorer = Explorer(scenario)
    assert explorer.exhaust(bound=2, most=20_000)
    assert explorer.schedules > 20


@pytest.mark.proof
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", ALL, ids=str)
def test_the_promises_hold_in_very_many_orders(scenario: Scenario) -> None:
    Explorer(scenario).explore(orders(PROOF[scenario], first=MIXED + 3 * SHARE[scenario]))


# --- What strikes in the middle ---------------------------------------------------------------------------------------


def strike(
    scenario: Scenario, kind: str, seeds: int, stride: int = 1, victim: str = "A", first: int = 0
) -> dict[str, set[str]]:
    """Strike every place that the victim comes to, ``stride`` by ``stride``, for each of so many seeds. Each begins
    somewhere else, so that ``stride`` seeds strike every place. What it cost, and where."""
    explorer = Explorer(scenario)
    cost: dict[str, set[str]] = defaultdict(set)
    strikes: Counter[int] = Counter()
    arrived = 0
    for seed in range(first, first + seeds):
        number = 1 + (seed - first) * stride // seeds % stride
        while True:
            order = Order(("walk", "priorities")[seed % 2], seed, injection=Injection(kind, victim, number))
            try:
                world = explorer.order(order)
            except Broken as broken:
                explorer.tell(broken, order)
                raise
            striker = world.striker
            if not striker.struck or (kind == "collect" and not striker.garbage):  # the play is over
                break
            assert striker.by == victim, f"{order} has struck {striker.by}"
            strikes[seed] += 1
            arrived += kind == "collect" or explorer.outcomes["interrupted"] > 0
            explorer.outcomes.clear()
            if world.all_found:
                file, function = striker.struck.split()
                place = f"{file.partition(':')[0]} {function}"
                for found in world.all_found:
                    if found != UNREACHABLE.get(place):
                        cost[f"{file} {function}"].add(f"{found} ({order})")
            number += stride
    assert 2 * len(strikes) > seeds, f"only {len(strikes)} of {seeds} orders were struck"
    assert strikes.total() * stride > 30 * seeds, f"only {strikes.total()} strikes"
    # an interrupt in a finaliser goes no further
    assert arrived >= 0.75 * strikes.total(), f"{strikes.total()} strikes, and only {arrived} felt"
    return cost


def victims(*groups: list[Scenario]) -> Any:
    """In each play a borrower, and where there are such a worker and the scheduler too."""
    return pytest.mark.parametrize(
        ("scenario", "victim"),
        [
            pytest.param(scenario, victim, id=f"{scenario}-{victim}")
            for group in groups
            for scenario in group
            for victim in (("A", "worker", "keeper") if scenario.options.get("background") else "A")
        ],
    )


@pytest.mark.parametrize("scenario", STRUCK, ids=str)
def test_an_interrupt_anywhere_loses_nothing(scenario: Scenario) -> None:
    assert not strike(scenario, "interrupt", 3)


@pytest.mark.parametrize("scenario", KEPT, ids=str)
def test_an_interrupt_anywhere_loses_nothing_where_a_keeper_connects(scenario: Scenario) -> None:
    assert not strike(scenario, "interrupt", 2, stride=13)


@pytest.mark.parametrize("scenario", SHARED, ids=str)
def test_an_interrupt_anywhere_loses_nothing_of_a_budget(scenario: Scenario) -> None:
    assert not strike(scenario, "interrupt", 2, stride=101)


@pytest.mark.parametrize("scenario", OUTAGES_STRUCK, ids=str)
def test_an_interrupt_anywhere_in_an_outage_loses_nothing(scenario: Scenario) -> None:
    assert not strike(scenario, "interrupt", 2, stride=11)


#: Between two places that are struck, of one seed; the proof strikes them all. Workers and the scheduler come to more.
STRIDES = {"A": 127, "worker": 251, "keeper": 251}


@victims(COLLECTED)
def test_a_collection_anywhere_costs_nothing(scenario: Scenario, victim: str) -> None:
    assert not strike(scenario, "collect", 2, stride=31, victim=victim)


@victims(KEPT_COLLECTED, SHARED_COLLECTED[-1:], OUTAGES_COLLECTED[-1:])
def test_a_collection_anywhere_costs_nothing_where_more_is_going_on(scenario: Scenario, victim: str) -> None:
    assert not strike(scenario, "collect", 2 + (victim != "A"), STRIDES[victim], victim)


@pytest.mark.parametrize(
    "wrong", [{"victim": "nobody"}, {"stride": 10_000}, {"kind": "collect"}], ids=["nobody", "too rare", "no garbage"]
)
def test_strikes_that_do_not_happen_are_noticed(wrong: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match=r"only \d+"):
        strike(STRUCK[0], **{"kind": "interrupt", "seeds": 2, "stride": 11, **wrong})


@pytest.mark.parametrize("play", APART, ids=str)
def test_a_finaliser_may_meet_those_who_are_busy_with_something_else(play: Scenario) -> None:
    Explorer(play).explore(orders(300))


# --- The proof strikes far more ---------------------------------------------------------------------------------------


@pytest.mark.proof
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", STRUCK, ids=str)
def test_an_interrupt_anywhere_in_more_orders(scenario: Scenario) -> None:
    assert not strike(scenario, "interrupt", 9, first=3)


@pytest.mark.proof
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", [*KEPT, *SHARED], ids=str)
def test_an_interrupt_anywhere_in_more_orders_where_more_is_going_on(scenario: Scenario) -> None:
    assert not strike(scenario, "interrupt", 22, stride=11, first=2)


@pytest.mark.proof
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", [*OUTAGES_STRUCK, *OUTAGES_OF_ONE], ids=str)
def test_an_interrupt_anywhere_in_an_outage_in_more_orders(scenario: Scenario) -> None:
    assert not strike(scenario, "interrupt", 7, stride=7)


@pytest.mark.proof
@pytest.mark.timeout(1800)
@victims(COLLECTED, KEPT_COLLECTED, SHARED_COLLECTED, OUTAGES_COLLECTED)
def test_a_collection_anywhere_in_more_orders(scenario: Scenario, victim: str) -> None:
    assert not strike(scenario, "collect", 6, stride=23, victim=victim, first=3)


# --- What a failure prints --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fine", [False, True], ids=["at operations", "at every line"])
@pytest.mark.parametrize("scenario", ALL[::5], ids=str)
def test_an_order_comes_again_step_by_step(scenario: Scenario, fine: bool) -> None:
    explorer = Explorer(scenario)
    for seed in range(10):
        order = Order(("walk", "priorities")[seed % 2], seed, fine)
        logs = []
        for _ in range(2):
            explorer.order(order, record=True)
            logs.append(explorer.scheduler.log)
        assert logs[0] == logs[1]
        assert len(logs[0] or []) > 20
