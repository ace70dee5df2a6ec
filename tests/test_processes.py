"""Do simulated tenants and processes behave as ``TenantPools`` in real ones, and are they told of as they were?"""

from __future__ import annotations

import gc
import json
import weakref
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest

from threadpool_db import processes
from threadpool_db.arrivals import tenant
from threadpool_db.cli import main
from threadpool_db.core.freshness import Freshness
from threadpool_db.core.ledger import Ledger
from threadpool_db.core.line import Orders
from threadpool_db.core.overload import CoDel
from threadpool_db.core.permits import SharedPermits
from threadpool_db.core.rules import Rules
from threadpool_db.core.sizing import Overflow
from threadpool_db.outcome import Outcome
from threadpool_db.processes import Processes
from threadpool_db.scenario import BadScenario, Scenario, read, scenario
from threadpool_db.shared_outcome import SAMPLES, SharedOutcome
from threadpool_db.simulate import simulate
from threadpool_db.simulated import Course, SimulatedPool


def shared(**options: Any) -> SharedOutcome:
    outcome = simulate(Scenario(**options))
    assert isinstance(outcome, SharedOutcome)
    return outcome


# --- Tenants ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipf", [0.0, 1.0, 2.0])
def test_one_request_at_a_time_finds_what_an_lru_of_so_many_connections_would_have(zipf: float) -> None:
    """So seldom that no two meet, and none waits for another one's: then it is a cache, whose hits are known."""
    told = Scenario(
        rate=0.1, service=0.001, connect=0.001, tenants=40, zipf=zipf, budget=8, max_idle=None, duration=20_000
    )
    outcome = simulate(told)
    draw, cache, misses = tenant(told), OrderedDict[int, None](), 0
    for _ in outcome.came:
        one = draw()
        misses += one not in cache
        cache[one] = None
        cache.move_to_end(one)
        if len(cache) > 8:
            cache.popitem(last=False)
    # after half an hour connections are replaced, by chance sooner: of that an LRU knows nothing
    assert len(outcome.came) > 1500
    assert outcome.connects == pytest.approx(misses, rel=0.03 if zipf < 2 else 0.3)
    assert outcome.summary()["hits"] == pytest.approx(1 - misses / len(outcome.came), abs=0.03)


def test_the_first_tenants_are_asked_for_as_often_as_zipf_says() -> None:
    draw = tenant(Scenario(rate=1, tenants=5, budget=1, zipf=1.5))
    often = Counter(draw() for _ in range(50_000))
    assert sorted(often) == [0, 1, 2, 3, 4]
    for n in range(1, 5):
        assert often[n] / often[0] == pytest.approx((n + 1) ** -1.5, rel=0.06)


def test_no_process_has_more_connections_than_its_budget() -> None:
    told = Scenario(rate=400, tenants=50, budget=7, processes=3, timeout=0.5, duration=6)
    run = Processes(told)
    for n in range(1, 601):
        run.run(n / 100)
        assert all(process.permits is not None and process.permits.used <= 7 for process in run.processes)
    assert run.outcome.most == 21, "and they are all used"


def test_a_tenant_has_no_more_connections_than_per_tenant_max() -> None:
    assert shared(threads=20, think=0.001, tenants=1, budget=50, per_tenant_max=3, duration=5).most == 3


def test_evictions_are_what_makes_room_and_what_was_not_used_for_max_idle_goes_by_itself() -> None:
    many = shared(rate=50, tenants=200, zipf=0, budget=10, duration=20)
    assert many.connects > 500 and many.evictions >= many.connects - 10
    few = shared(rate=50, tenants=200, zipf=0, budget=500, per_tenant_max=1, max_idle=1.0, duration=20)
    assert few.connects > 500 and not few.evictions
    assert few.connections == pytest.approx(50, rel=0.3), "those of about the last second"


def test_max_idle_is_by_default_that_of_tenant_pools() -> None:
    assert Scenario(rate=1).max_idle == 300 and Scenario(rate=1, tenants=1, budget=1).max_idle == 60
    assert Scenario(rate=1, tenants=1, budget=1, max_idle=300.0).max_idle == 300


def test_a_tenant_that_is_not_used_is_dropped_with_all_it_knew() -> None:
    run = Processes(Scenario(burst=1, tenants=1, budget=1, max_idle=5.0, duration=30))
    run.run(1)
    (process,) = run.processes
    (ledger,) = [each for each in gc.get_objects() if isinstance(each, Ledger) and each.permits is process.permits]
    gone = weakref.ref(ledger)
    del ledger
    gc.collect()
    assert gone() is not None and process.waiting == 0
    run.run(6)
    assert gone() is None
    process.ask(0)
    run.run(7)
    assert run.outcome.connects == 2


def test_who_is_idle_makes_room_at_once_and_who_is_busy_when_he_is_done() -> None:
    run = Processes(Scenario(burst=1, burst_at=29, service=2, connect=1, tenants=2, budget=1, duration=30))
    (process,) = run.processes
    for when, whose in ((0, 0), (0.5, 1), (10, 0)):
        run.run(when)
        process.ask(whose)
    run.run(20)
    assert [request.waited for request in run.outcome.requests] == [1, 3.5, 1]
    assert (run.outcome.connects, run.outcome.evictions) == (3, 2)


def test_of_one_server_so_many_are_connected_to_at_a_time_as_the_keeper_has_workers() -> None:
    told: dict[str, Any] = {
        "burst": 400, "tenants": 400, "zipf": 0, "budget": 300, "per_tenant_max": 1, "connect": 1, "service": 60,
    }  # fmt: skip
    one, two = Processes(Scenario(**told)), Processes(Scenario(**told, servers=2))
    assert one.run(1.5).connects == 11 and one.run(2.5).connects == 22
    assert two.run(1.5).connects == 22


class Looked(SharedPermits):
    """Those of the pools, which look at all ledgers each time."""

    closing = 0


@pytest.mark.parametrize(
    "options",
    [
        {"rate": 300, "tenants": 60, "budget": 12, "processes": 2, "duration": 4},
        {"rate": 80, "tenants": 30, "zipf": 0.3, "budget": 3, "per_tenant_max": 2, "timeout": 0.1, "duration": 8},
        {"burst": 200, "tenants": 40, "zipf": 0, "budget": 20, "max_idle": 0.05, "connect": 0.01, "duration": 5},
        {"threads": 30, "think": 0.01, "tenants": 9, "budget": 7, "spread": "lognormal", "duration": 4},
        {
            "rate": 100,
            "tenants": 20,
            "budget": 6,
            "servers": 3,
            "outage": (2, 4),
            "sizing": Overflow(2, 0.1),
            "duration": 7,
        },
        {"rate": 300, "burst": 50, "burst_at": 1, "tenants": 30, "budget": 8, "shed": CoDel(0.02, 0.2), "duration": 4},
    ],
)
def test_with_an_index_goes_who_goes_by_the_permits_of_the_pools(options: dict[str, Any], monkeypatch: Any) -> None:
    def story() -> Any:
        outcome = shared(**options)
        return outcome.requests, outcome.samples, outcome.evictions

    indexed = story()
    monkeypatch.setattr(processes, "IndexedPermits", Looked)
    assert indexed == story()
    assert indexed[2] > 20


# --- Servers and processes --------------------------------------------------------------------------------------------


def test_what_servers_have_is_what_all_processes_have_there() -> None:
    told: dict[str, Any] = {"rate": 200, "tenants": 40, "budget": 10, "processes": 4, "duration": 5}
    one, many = shared(**told), shared(**told, servers=8)
    assert one.most_at_server == one.most == 40
    assert 5 <= many.most_at_server < 40 and many.most == 40
    assert (one.connects, one.evictions) == (many.connects, many.evictions), "nobody is slowed down by a server"


def test_the_same_requests_come_to_whatever_processes_with_whatever_budget() -> None:
    few = shared(rate=100, tenants=30, budget=5, duration=10)
    many = shared(rate=100, tenants=30, budget=50, processes=4, duration=10)
    alone = simulate(Scenario(rate=100, max_size=100, duration=10))
    assert set(few.came) == set(many.came) == set(alone.came)


def test_without_tenants_each_process_has_one_pool_of_its_own() -> None:
    outcome = shared(rate=10, min_size=3, processes=4, duration=5)
    assert outcome.size_at(4) == 12 and outcome.connects == 12
    busy = shared(rate=2000, max_size=2, processes=4, timeout=0.2, duration=5, warm_up=1)
    assert busy.most == 8 and busy.summary()["throughput"] == pytest.approx(8 / 0.02, rel=0.02)


def test_threads_belong_to_processes_evenly_and_never_ask_for_more_than_they_are() -> None:
    outcome = shared(threads=8, think=0.001, service=0.05, max_size=9, processes=4, duration=20)
    assert outcome.most == 8, "two of each process"
    two = shared(threads=3, think=0.001, service=0.05, max_size=1, processes=2, duration=20, warm_up=1)
    assert two.summary()["throughput"] == pytest.approx(2 / 0.0505, rel=0.05)
    assert two.waiting <= 1


def test_while_the_servers_are_down_tenants_are_refused_and_then_served_again() -> None:
    outcome = shared(rate=100, tenants=20, budget=10, servers=2, outage=(5, 10), duration=30)
    failed = [request for request in outcome.requests if request.ended == "unreachable"]
    assert len(failed) > 200 and all(5 <= request.came + request.waited < 13 for request in failed)
    assert outcome.failed_connects > 5
    assert outcome.percentile(0.99, since=20) < 0.1


# --- What is told -----------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_outcome_and_to_be_told_how_far_it_is_changes_nothing() -> None:
    told: dict[str, Any] = {
        "rate": 150, "threads": 6, "burst": 40, "burst_at": 1, "spread": "lognormal", "tenants": 30, "budget": 6,
        "servers": 3, "processes": 2, "outage": (3, 4), "shed": [0.05, 0.5], "sizing": "sojourn:2", "duration": 8,
    }  # fmt: skip

    def run(seed: int, *progress: Any) -> Any:
        outcome = simulate(scenario({**told, "seed": seed}), *progress)
        assert isinstance(outcome, SharedOutcome)
        return outcome.requests, outcome.samples, outcome.evictions

    shares = list[float]()
    assert run(1) == run(1) == run(1, shares.append) != run(2)
    assert len(shares) == 100


def test_over_time_it_is_told_what_there_was_and_its_sums_are_those_of_the_whole() -> None:
    outcome = shared(rate=100, tenants=30, budget=5, servers=3, processes=2, duration=24)
    assert [sample.when for sample in outcome.samples] == [n / 10 for n in range(1, SAMPLES + 1)]
    assert all(sample.connections <= sample.most <= 10 for sample in outcome.samples)
    assert max(sample.most_at_server for sample in outcome.samples) == outcome.most_at_server
    assert outcome.samples[-1].connects == outcome.connects
    for parts in (1, 7, 10, 240):
        slices = outcome.over_time(parts)
        assert sum(part.served for part in slices) == outcome.many("served")
        assert sum(part.evictions for part in slices) == outcome.evictions
        assert slices[-1].connections == outcome.samples[-1].connections == outcome.size_at(24)
    whole = outcome.over_time(1)[0]
    assert whole.hits == outcome.summary()["hits"] and whole.most_at_server == outcome.most_at_server


def test_what_was_open_only_between_two_samples_is_told_of() -> None:
    outcome = shared(
        burst=10, burst_at=0.2, service=0.1, max_size=5, max_connecting=5, max_idle=0.05, processes=2, duration=240
    )
    first, second = outcome.samples[:2]
    assert (first.connections, first.most, first.most_at_server) == (0, outcome.most, outcome.most_at_server)
    assert outcome.most == outcome.most_at_server >= 5 and (second.most, second.most_at_server) == (0, 0)


def test_who_is_told_to_look_sooner_looks_once_and_not_ever_after() -> None:
    rules = Rules(min_size=1, background=True, freshness=Freshness(max_idle=1))  # due once a second, for ever
    pool = SimulatedPool(Course(), Ledger(rules, draw=lambda: 0.5), Outcome(), lambda: 1.0)
    pool.obey(pool.ledger.tick(0.0))
    for n in range(1, 21):
        pool.course.run(n / 100)
        pool.ledger.due = pool.course.now + 0.001
        pool.obey(Orders())
    pool.course.run(5)
    assert pool.many == 1 and len(pool.course.plan) == 1


def test_what_was_connected_and_evicted_in_the_warm_up_does_not_count() -> None:
    told: dict[str, Any] = {"burst": 30, "rate": 0.5, "tenants": 1, "budget": 10, "connect": 0.001, "duration": 50}
    assert shared(**told, warm_up=10).summary()["hits"] == 1.0
    assert 0.8 < shared(**told).summary()["hits"] < 1
    many: dict[str, Any] = {"rate": 50, "tenants": 100, "budget": 5, "duration": 10}
    late, whole = shared(**many, warm_up=5), shared(**many)
    assert 0 < late.summary()["evictions"] < whole.summary()["evictions"] == whole.evictions == late.evictions


def test_the_table_has_what_an_operator_of_many_asks_for(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "simulate --rate 60 --tenants 30 --zipf 0.5 --budget 5 --servers 3 --processes 2 --duration 10"
    assert main(arguments.split()) == 0
    said = capsys.readouterr().out
    assert "needed no connect" in said and "connections at most at one" in said and "%" in said
    assert main([*arguments.split(), "--per-tenant-max", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0 < told["hits"] < 1 and told["evictions"] > 50 and told["most_at_server"] <= told["connections"] == 10
    assert set(told["over_time"][0]) == {
        "begin", "served", "turned_away", "connections", "most_at_server", "hits", "evictions",
    }  # fmt: skip


def test_where_nobody_is_served_there_are_no_hits(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "simulate --rate 5 --tenants 30 --budget 5 --outage 0,99 --timeout 0.5 --duration 10"
    assert main(arguments.split()) == 0 and "hits         - needed" in capsys.readouterr().out
    assert main([*arguments.split(), "--json"]) == 0 and json.loads(capsys.readouterr().out)["hits"] is None


# --- Scenarios that make no sense -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tenants": 5}, "tenants=5: needs a budget, which all tenants of a process share, such as budget=50"),
        ({"tenants": 1.5, "budget": 5}, "tenants=1.5: must be a whole number from 0"),
        ({"tenants": 5, "budget": 0}, "budget=0: must be a whole number from 1"),
        ({"tenants": 5, "budget": "all"}, "budget='all': must be a whole number"),
        ({"tenants": 5, "budget": True}, "budget=True"),
        ({"tenants": 5, "budget": 5, "max_size": 3}, "max_size=3: not with tenants: it is per_tenant_max"),
        ({"tenants": 5, "budget": 5, "min_size": 1}, "min_size=1: not with tenants: they keep nothing open"),
        ({"tenants": 5, "budget": 5, "per_tenant_max": 0}, "per_tenant_max=0: must be a whole number from 1"),
        ({"tenants": 5, "budget": 5, "zipf": -1}, "zipf=-1: must be a number from 0"),
        ({"tenants": 5, "budget": 5, "servers": 0}, "servers=0: must be a whole number from 1"),
        ({"processes": 0}, "processes=0: must be a whole number from 1"),
        ({"servers": 2}, "servers=2: means nothing without tenants; set tenants too"),
        ({"budget": 2}, "budget=2: means nothing without tenants"),
        ({"zipf": 0}, "zipf=0: means nothing without tenants"),
        ({"tenant": 3}, "tenant: did you mean tenants?"),
    ],
)
def test_it_is_refused_with_the_remedy(options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadScenario) as caught:
        scenario({"rate": 1} | options)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"tenants": 5,\n "budget": 0}', "line 2: budget=0"),
        ('{"zipf": 1,\n "tenants": -5}', "line 2: tenants=-5"),
        ('{"zipf": 1,\n\n "tennants": 5}', "line 3: tennants: did you mean tenants?"),
        ('{"servers": 1,\n\n "zipf": "much"}', "line 3: zipf='much'"),
    ],
)
def test_of_a_file_the_line_is_told(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "load.json"
    file.write_text(text)
    with pytest.raises(BadScenario) as caught:
        read(str(file))
    assert says in str(caught.value)


def test_a_file_may_have_all_of_it_in_any_order(tmp_path: Path) -> None:
    file = tmp_path / "load.json"
    file.write_text(
        '{"zipf": 0, "servers": 3, "budget": 5, "per_tenant_max": 2, "rate": 9, "processes": 2, "tenants": 7}'
    )
    assert scenario(read(str(file))) == Scenario(
        rate=9, tenants=7, zipf=0, budget=5, per_tenant_max=2, servers=3, processes=2
    )
    file.write_text('{"tenants": 0, "rate": 1}')
    assert scenario(read(str(file))) == Scenario(rate=1)
