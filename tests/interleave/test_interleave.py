"""Does the pool keep its promises in every order of its threads? The real pool, on a scheduler, in many orders.

``scenarios.py`` says what the threads do, ``world.py`` what must hold. A failure prints its schedule, step by step, and
names the order that brings it back; to see one again:

    python -m tests.interleave "four on two" priorities 31 fine
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.core.promises import Broken
from tests.interleave.explore import Explorer, Order, orders, quiet
from tests.interleave.injection import Injection
from tests.interleave.kept import KeptWorld
from tests.interleave.kept_scenarios import KEPT, KEPT_COLLECTED
from tests.interleave.outage_scenarios import OUTAGES, OUTAGES_COLLECTED, OUTAGES_OF_ONE, OUTAGES_STRUCK
from tests.interleave.scenarios import COLLECTED, SCENARIOS, STRUCK, Scenario
from tests.interleave.shared import SHARED

ALL = [*SCENARIOS, *KEPT, *SHARED, *OUTAGES]

#: Schedules of each scenario that CI tries, as many as its kind affords; and the proof, which goes on where CI stops.
SHARE = {
    **dict.fromkeys(SCENARIOS, 1_600),
    **dict.fromkeys(KEPT, 300),
    **dict.fromkeys(SHARED, 100),
    **dict.fromkeys(OUTAGES, 50),
}
PROOF = {
    **dict.fromkeys(SCENARIOS, 1_600),
    **dict.fromkeys(KEPT, 2_400),
    **dict.fromkeys(SHARED, 1_200),
    **dict.fromkeys(OUTAGES, 1_000),
}

#: What the driver's connect has returned and nobody has stored yet no finaliser of ours can know of.
UNREACHABLE = {"upkeep.py open": "closed once: 1 closed by the garbage collector alone"}


@pytest.fixture(autouse=True)
def in_quiet() -> Iterator[None]:
    with quiet():
        yield


def test_fifty_thousand_orders_are_tried_at_least() -> None:
    assert sum(SHARE[scenario] for scenario in ALL) >= 50_000


@pytest.mark.parametrize("scenario", ALL, ids=str)
def test_the_promises_hold_in_many_orders(scenario: Scenario) -> None:
    explorer = Explorer(scenario)
    explorer.explore(orders(SHARE[scenario]))
    assert not set(scenario.sees) - set(explorer.outcomes), "the scenario is not about what it says"


@pytest.mark.parametrize("scenario", [each for each in SCENARIOS if each.tiny], ids=str)
def test_the_promises_hold_in_every_order_of_two_preemptions(scenario: Scenario) -> None:
    explorer = Explorer(scenario)
    assert explorer.exhaust(bound=2, most=20_000)
    assert explorer.schedules > 20


@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", ALL, ids=str)
def test_the_promises_hold_in_very_many_orders(scenario: Scenario) -> None:
    Explorer(scenario).explore(orders(PROOF[scenario], first=SHARE[scenario]))


def strike(scenario: Scenario, kind: str, seeds: range, stride: int = 1, victim: str = "A") -> dict[str, set[str]]:
    """Strike every place that the victim comes to, ``stride`` by ``stride``, for each seed. What it cost, and where."""
    explorer = Explorer(scenario)
    cost: dict[str, set[str]] = defaultdict(set)
    for seed in seeds:
        number, struck = 1 + seed % stride, True
        while struck:
            order = Order(("walk", "priorities")[seed % 2], seed, injection=Injection(kind, victim, number))
            try:
                world = explorer.order(order)
            except Broken as broken:
                explorer.tell(broken, order)
                raise
            struck = world.striker.struck != ""
            if world.found:
                file, function = world.striker.struck.split()
                place = f"{file.partition(':')[0]} {function}"
                for found in world.found:
                    if found != UNREACHABLE.get(place):
                        cost[f"{file} {function}"].add(f"{found} ({order})")
            number += stride
    assert explorer.schedules * stride > 30 * len(seeds)
    return cost


@pytest.mark.parametrize("scenario", STRUCK, ids=str)
def test_an_interrupt_anywhere_loses_nothing(scenario: Scenario) -> None:
    assert not strike(scenario, "interrupt", range(3))


@pytest.mark.parametrize("scenario", KEPT, ids=str)
def test_an_interrupt_anywhere_loses_nothing_where_a_keeper_connects(scenario: Scenario) -> None:
    assert not strike(scenario, "interrupt", range(2), stride=13)


@pytest.mark.parametrize("scenario", OUTAGES_STRUCK, ids=str)
def test_an_interrupt_anywhere_in_an_outage_loses_nothing(scenario: Scenario) -> None:
    assert not strike(scenario, "interrupt", range(2), stride=11)


@pytest.mark.parametrize("scenario", OUTAGES_COLLECTED, ids=str)
def test_a_collection_anywhere_in_an_outage_costs_nothing(scenario: Scenario) -> None:
    assert not strike(scenario, "collect", range(2), stride=149)


@pytest.mark.parametrize("scenario", COLLECTED, ids=str)
def test_a_collection_anywhere_costs_nothing(scenario: Scenario) -> None:
    assert not strike(scenario, "collect", range(2), stride=23)


@pytest.mark.parametrize("victim", ["A", "worker"])
@pytest.mark.parametrize("scenario", KEPT_COLLECTED, ids=str)
def test_a_collection_anywhere_costs_nothing_where_a_keeper_connects(scenario: Scenario, victim: str) -> None:
    assert not strike(scenario, "collect", range(2), stride=11 if victim == "A" else 151, victim=victim)


def test_a_finaliser_may_give_a_lease_back_while_its_thread_is_inside_the_keeper() -> None:
    """A is inside the keeper's lock when it strikes; B is inside the pool's, and wants the keeper's."""

    def play(w: KeptWorld) -> None:
        garbage = w.pool.checkout()
        scheduler.leaf = None  # not forbidden, it can be seen to end badly
        keepers_lock = w.keeper._lock

        def interrupted() -> None:
            with keepers_lock:  # as in ``Keeper.at``
                scheduler.point("is struck by a finaliser")
                garbage.checkin()

        w.driver.inside = lambda: False
        w.part("A", interrupted)
        w.part("B", lambda: w.pool._tell(w.ledger.recycle, within=1.0))

    explorer = Explorer(Scenario("a finaliser inside the keeper", play, {"background": True}))
    scheduler = explorer.scheduler
    explorer.explore(orders(300))


def test_who_closes_hears_of_a_lease_that_is_dropped_meanwhile() -> None:
    def play(w: KeptWorld) -> None:
        def close() -> None:
            w.rest(0.1)
            w.pool.close(timeout=5.0)
            if w.s.time >= 1005.0 and not w.s.hurries:
                raise Broken("no lost wake-up", "close() slept its whole timeout beside the note of a dropped lease")

        w.fill(1)
        w.part("A", w.visit, seconds=0.5, end="drop", timeout=0)
        w.part("closer", close)

    Explorer(Scenario("closed beside a note", play, {"background": True})).explore(orders(100))


@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", STRUCK, ids=str)
def test_an_interrupt_anywhere_in_more_orders(scenario: Scenario) -> None:
    assert not strike(scenario, "interrupt", range(3, 12))


@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", KEPT, ids=str)
def test_an_interrupt_anywhere_in_more_orders_where_a_keeper_connects(scenario: Scenario) -> None:
    assert not strike(scenario, "interrupt", range(2, 4))


@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", [*OUTAGES_STRUCK, *OUTAGES_OF_ONE], ids=str)
def test_an_interrupt_anywhere_in_an_outage_in_more_orders(scenario: Scenario) -> None:
    assert not strike(scenario, "interrupt", range(2), stride=3)


@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", COLLECTED, ids=str)
def test_a_collection_anywhere_in_more_orders(scenario: Scenario) -> None:
    assert not strike(scenario, "collect", range(6))


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
