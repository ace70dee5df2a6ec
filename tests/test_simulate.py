"""Does the simulator agree with what the documentation promises, and does it refuse nonsense?"""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from threadpool_db.cli import main
from threadpool_db.core.overload import CoDel
from threadpool_db.core.sizing import Overflow
from threadpool_db.core.sojourn import Sojourn
from threadpool_db.forecast import forecast
from threadpool_db.scenario import BadScenario, Scenario, read, scenario
from threadpool_db.simulate import simulate

FAST = CoDel(0.05, 0.5)


# --- What docs/load.md says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "shed", "p50", "p99", "served"),
    [(0.8, FAST, 0.0, 0.021, 0.8), (1.2, FAST, 0.093, 0.11, 1), (2, FAST, 0.097, 0.1, 1), (2, None, 0.99, 1, 1)],
)
def test_the_table_of_overloads(times: float, shed: CoDel | None, p50: float, p99: float, served: float) -> None:
    outcome = simulate(Scenario(rate=times * 400, max_size=8, timeout=1, shed=shed, duration=21, warm_up=1))
    assert outcome.percentile(0.5) == pytest.approx(p50, rel=0.06, abs=0.001)
    assert outcome.percentile(0.99) == pytest.approx(p99, rel=0.15)
    assert outcome.summary()["throughput"] == pytest.approx(served * 400, rel=0.03)
    assert times > 1 or not outcome.many("shed")


def test_a_burst_on_connections_that_are_there_is_served() -> None:
    outcome = simulate(
        Scenario(burst=1000, burst_at=1, service=0.01, min_size=10, timeout=5, shed=CoDel(), duration=10)
    )
    assert outcome.many("served") == 1000 and outcome.waits()[-1] == pytest.approx(0.99)


# --- The pool's options -----------------------------------------------------------------------------------------------


def test_a_line_that_is_full_refuses_at_once() -> None:
    outcome = simulate(Scenario(burst=50, burst_at=1, min_size=2, max_size=2, max_waiting=5, duration=5))
    assert (outcome.many("served"), outcome.many("full")) == (7, 43)
    assert all(request.waited == 0 for request in outcome.requests if request.ended == "full")


def test_who_has_waited_for_the_timeout_gives_up_then() -> None:
    outcome = simulate(Scenario(burst=5, burst_at=1, min_size=1, max_size=1, service=1, timeout=2.5, duration=9))
    assert [request.ended for request in outcome.requests] == ["served"] * 3 + ["late"] * 2
    assert {request.waited for request in outcome.requests if request.ended == "late"} == {2.5}


def test_connects_are_limited_and_cost_their_time() -> None:
    outcome = simulate(Scenario(burst=4, service=9, connect=1, max_size=4, max_connecting=2, duration=5))
    assert [request.waited for request in outcome.requests] == [1, 1, 2, 2]
    assert outcome.size_at(0.5) == 2 and outcome.size_at(1.5) == 4


def test_extra_connections_go_when_they_have_lingered() -> None:
    outcome = simulate(Scenario(burst=6, max_size=6, max_connecting=6, sizing=Overflow(4, 2), duration=9))
    assert outcome.size_at(1) == 6 and outcome.size_at(8) == 2


def test_an_outage_breaks_uses_refuses_after_the_grace_and_ends() -> None:
    told = Scenario(rate=100, service=0.05, max_size=10, timeout=5, outage=(10, 14), duration=30)
    outcome = simulate(told)
    broken = [request for request in outcome.requests if request.ended == "unreachable"]
    assert 0 < outcome.broken <= 10 and outcome.failed_connects > 3
    assert len(broken) > 200 and all(10 < request.came + request.waited < 17 for request in broken)
    assert max(request.waited for request in broken) < 1.5, "nobody waits for longer than the grace"
    assert not [r for r in outcome.requests if r.ended == "served" and 10.1 < r.came + r.waited < 14]
    assert outcome.percentile(0.99, since=20) < 0.05


def test_idle_connections_that_are_all_dead_are_replaced_however_many() -> None:
    told = Scenario(burst=600, max_size=600, max_connecting=600, max_idle=None, outage=(2, 3), rate=0.5, duration=20)
    outcome = simulate(told)
    assert outcome.many("served", since=5) > 3 and not outcome.many("unreachable", since=8)


# --- Determinism ------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_outcome_and_another_one_another() -> None:
    def run(seed: int) -> Any:
        told = Scenario(
            rate=300, threads=10, burst=50, spread="lognormal", max_size=8, timeout=0.5, shed=FAST, sizing=Sojourn(2),
            outage=(3, 4), duration=8, seed=seed,
        )  # fmt: skip
        outcome = simulate(told)
        return outcome.requests, outcome.sizes, outcome.connects

    assert run(1) == run(1) != run(2)


def test_to_be_told_how_far_it_is_changes_nothing() -> None:
    told, shares = Scenario(rate=100, duration=5), list[float]()
    assert simulate(told, shares.append).requests == simulate(told).requests
    assert len(shares) == 100 and shares == sorted(shares) and shares[-1] == 1


def test_with_another_pool_the_same_requests_come() -> None:
    few, many = (simulate(Scenario(rate=50, max_size=size, duration=20)) for size in (1, 30))
    came = set(few.came)
    assert len(came) > 900 and came <= set(many.came)


# --- Scenarios that make no sense -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "nobody comes; set one of them above 0"),
        ({"rate": -1}, "rate=-1: must be a number from 0"),
        ({"rate": True}, "rate=True"),
        ({"rate": math.inf}, "finite"),
        ({"burst": 1.5}, "burst=1.5: must be a whole number"),
        ({"threads": 1, "think": 0}, "think=0: must be a number above 0"),
        ({"rate": 1, "spread": "normal"}, "must be one of fixed, exponential, lognormal"),
        ({"rate": 1, "duration": 5, "warm_up": 5}, "warm_up=5: must be less than duration=5"),
        ({"burst": 1, "burst_at": 60}, "burst_at=60: must be less than duration"),
        ({"rate": 1, "outage": "12,10"}, "such as 10,12"),
        ({"rate": 1, "outage": 3}, "such as 10,12"),
        ({"rate": 1, "seed": "x"}, "seed='x'"),
        ({"rate": 1, "max_size": 0}, "max_size=0: must be a whole number from 1"),
        ({"rate": 1, "min_size": 11}, "min_size=11: must be at most 10"),
        ({"rate": 1, "shed": "soon"}, "such as 0.05,0.5"),
        ({"rate": 1, "shed": "0,1"}, "shed: CoDel(target=0.0): must be seconds above 0"),
        ({"rate": 1, "sizing": "big"}, "sojourn:CORE"),
        ({"rate": 1, "sizing": "sojourn:0"}, "sizing: Sojourn(core=0)"),
        ({"rate": 1, "max_sise": 3}, "max_sise: did you mean max_size?"),
        ({"rate": 1, "pool_size": 3}, "did you mean max_size?"),
    ],
)
def test_it_is_refused_with_the_remedy(options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadScenario) as caught:
        scenario(options)
    assert says in str(caught.value)


def test_texts_and_lists_mean_the_same_as_objects() -> None:
    texts = {"rate": 1, "shed": [0.05, 0.5], "sizing": "overflow:2,0", "outage": [1, 2]}
    assert scenario(texts) == Scenario(rate=1, shed=FAST, sizing=Overflow(2, 0), outage=(1, 2))
    assert scenario({"rate": 1, "shed": True}) == scenario({"rate": 1, "shed": "default"}) != scenario({"rate": 1})
    assert scenario({"rate": 1, "shed": "off"}) == scenario({"rate": 1, "shed": False}) == Scenario(rate=1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"rate": 1,\n "max_sise": 3}', "line 2: max_sise: did you mean max_size?"),
        ('{\n\n"burst": "rate",\n"rate": "many"}', "line 3: burst='rate'"),
        ('{"service": 1,\n"shed": "rate",\n"rate": 1}', "line 2: shed: must be off"),
        ('{"rate": 1,\n}', "is no JSON: "),
        ("[1]", "must be one object"),
    ],
)
def test_of_a_file_the_line_is_told(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "load.json"
    file.write_text(text)
    with pytest.raises(BadScenario) as caught:
        read(str(file))
    assert says in str(caught.value)


def test_toml_is_read_where_python_can(tmp_path: Path) -> None:
    file = tmp_path / "load.toml"
    file.write_text('rate = 1\nshed = "default"\nsigma = 0\n')
    says = "line 3: sigma=0" if sys.version_info >= (3, 11) else "TOML needs Python 3.11"
    with pytest.raises(BadScenario, match=says):
        read(str(file))


# --- The command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("simulate --rate 800 --max-size 8 --timeout 1 --shed 0.05,0.5 --duration 6 --warm-up 1".split()) == 0
    said = capsys.readouterr()
    assert "400.0 a second, for 5 s" in said.out and "p99 100.0 ms" in said.out and not said.err
    assert len(said.out.splitlines()) == 17


def test_options_come_before_those_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "load.json"
    file.write_text('{"burst": 30, "burst_at": 1, "max_size": 2, "min_size": 2, "max_waiting": 5, "duration": 5}')
    assert main(["simulate", str(file), "--max-waiting", "8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["served"], told["refused"], told["connections"]) == (10, 20, 2)


def test_where_nobody_is_served_there_is_no_wait(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "simulate --rate 10 --outage 0,99 --timeout 0.5 --duration 20".split()
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["served"] == 0 and told["wait"] == {"p50": None, "p90": None, "p99": None, "max": None}
    assert main(arguments) == 0 and "p50 -" in capsys.readouterr().out


def test_a_bad_scenario_ends_with_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate"]) == 2
    said = capsys.readouterr()
    assert said.err == "threadpool-db simulate: rate, burst, threads: nobody comes; set one of them above 0\n"
    assert not said.out
    assert main(["simulate", str(tmp_path / "s3cret")]) == 2
    assert capsys.readouterr().err == (
        "threadpool-db simulate: the scenario file cannot be read: No such file or directory\n"
    )


def test_who_watches_sees_how_far_it_is() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out, err = io.StringIO(), Terminal()
    assert forecast(None, {"rate": 10.0, "duration": 5.0}, out, err) == 0
    assert "\rsimulating  50%" in err.getvalue() and err.getvalue().endswith("\r\x1b[K")
