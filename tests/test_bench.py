"""Does the bench run, and are its figures of the right order?

The strict limits are for ``python -m tests.bench --check``. The bench runs in a process of its own: coverage's tracing
here would slow our pool down and no peer's.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests import environments
from tests.bench import baseline, burst, policies, recovery, served, sites
from tests.bench.__main__ import main
from tests.bench.baseline import compare, save, this_python
from tests.bench.burst import BURST, Bursts
from tests.bench.contention import HABITS, QUERY
from tests.bench.contestants import (
    DBUTILS,
    FLOOR,
    OURS,
    QUEUEPOOL,
    Contestant,
    ours,
    ours_for_sqlalchemy,
    sqlalchemy,
)
from tests.bench.memory import MEMORY
from tests.bench.middleware import middleware
from tests.bench.musts import OPENED_LIMIT
from tests.bench.operation import AGAIN, BARE, EXECUTE, JUDGEMENT, OPERATION, operations
from tests.bench.promise import until_clear
from tests.bench.reporting import REPORTING, reports
from tests.bench.tables import Figures, tables
from tests.conftest import require
from tests.servers import HOST, Postgres
from threadpool_db.picture import Line, Picture, Row

ROOT = Path(__file__).resolve().parent.parent
ATTEMPTS = 3  # somebody else may need the processors just now


def figures_of_a_run(folder: Path) -> dict[str, Any]:
    file = folder / "figures.json"
    command = [sys.executable, "-m", "tests.bench", "--smoke", "--compare", "--json", str(file)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert ran.returncode == 0, ran.stderr
    assert f"| {OURS} |" in ran.stdout
    figures: dict[str, Any] = json.loads(file.read_text())["figures"]
    return figures


def complaints(figures: dict[str, Any]) -> list[str]:
    """What is out of bounds so wide that only a broken pool, or a broken bench, breaks them."""
    pairs, crowd = figures["pair"], figures[str(QUERY)]
    found = []
    if pairs[OURS]["ratio"] > 3.0:
        found.append(f"a pair costs {pairs[OURS]['ratio']:.2f}x the floor")
    if DBUTILS in pairs and pairs[OURS]["ratio"] > 1.5 * pairs[DBUTILS]["ratio"]:
        found.append(f"a pair costs {pairs[OURS]['ratio'] / pairs[DBUTILS]['ratio']:.2f}x DBUtils")
    if crowd[OURS]["fairness"] < 0.5:
        found.append(f"fairness {crowd[OURS]['fairness']:.2f}")
    if crowd[OURS]["ratio"] < 0.5:
        found.append(f"{crowd[OURS]['ratio']:.0%} of the floor's rate")
    return found


@pytest.mark.timeout(180)
def test_the_bench_runs_and_the_pool_is_of_the_right_order(tmp_path):
    for _ in range(ATTEMPTS):
        figures = figures_of_a_run(tmp_path)
        found = complaints(figures)
        if not found:
            break
    assert not found
    assert set(figures) == {"pair", *map(str, HABITS)}
    assert all({FLOOR, OURS} <= set(contestants) for contestants in figures.values())


# --- Each question, in small ------------------------------------------------------------------------------------------


def test_a_burst_on_a_cold_pool_opens_few_connections_and_fails_nobody():
    bursts = Bursts((ours, ours_for_sqlalchemy))
    bursts.run(1)
    for found in bursts.figures().values():
        assert found["opened"] <= OPENED_LIMIT and found["errors"] == 0


def test_a_pool_that_opens_one_for_each_is_seen_to_do_so():
    pytest.importorskip("sqlalchemy")
    bursts = Bursts((sqlalchemy,))
    bursts.run(1)
    assert bursts.figures()[QUEUEPOOL]["opened"] == burst.THREADS


def test_whoever_gets_nothing_in_a_burst_is_an_error():
    nothing = Contestant("a pool without connections", [], "pool.pop()", "pass")
    assert burst.burst(nothing, burst.SlowConnect()) == burst.Outcome(opened=0, served=0.0, errors=burst.THREADS)


def test_an_operation_costs_more_than_a_bare_cursor_and_judgement_hardly_anything():
    with operations(print) as race:
        race.run(5)
        figures = race.sections()
    assert 0 < figures[OPERATION][EXECUTE]["added"] < 10
    assert figures[OPERATION][BARE]["microseconds"] < figures[OPERATION][EXECUTE]["microseconds"]
    assert figures[JUDGEMENT][AGAIN]["ratio"] < 5
    assert all(f"| {name} |" in tables(figures) for name in (BARE, EXECUTE, AGAIN))


def test_reports_add_hardly_anything_to_a_pair():
    with reports(print) as race:
        for _ in range(ATTEMPTS):
            race.run(10)
            if race.added() < 1:
                break
        assert race.added() < 1
        assert race.microseconds()[REPORTING] > 0


def test_the_rate_is_full_again_where_the_first_full_window_begins():
    early = [1.0, 1.3, 1.32]
    full = [2.0 + n / 100 for n in range(20)]
    assert recovery.full_at(early + full, enough=8) == 2.0
    assert recovery.full_at(early, enough=8) is None
    assert recovery.full_at([], enough=8) is None


def test_a_restart_under_load_is_recovered_from():
    pytest.importorskip("psycopg2")
    require(Postgres)
    with sites.started(Postgres, print) as site, sites.invited(sites.ours, site, 8, print) as contestant:
        found = recovery.restart_under_load(site, contestant)
    assert found.failed <= 8
    assert 0.0 <= found.first <= found.full < recovery.LIMIT
    assert found.connects >= 1


# --- Checkout policies, and the middleware ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pools():
    pytest.importorskip("psycopg2")
    require(Postgres)
    with policies.both(print) as pools:
        yield pools


def test_per_operation_serves_more_where_a_request_is_mostly_elsewhere(pools):
    found = policies.Policies(pools, threads=(10,), shares=(1.0, 0.1), seconds=0.2)
    for _ in range(ATTEMPTS):
        found.run(1, print)
        sections = found.sections()
        of = sections[policies.section(10)]["10%"]
        if of["rate_ratio"] > 1.5 and of["p99_ratio"] < 0.8:
            break
    assert of["rate_ratio"] > 1.5 and of["p99_ratio"] < 0.8
    assert [row.split(" | ")[0] for row in tables(sections).splitlines()[2:]] == ["| 100%", "| 10%"]
    drawn = ElementTree.fromstring(policies.picture(sections, "Nothing & nobody"))
    text = " ".join(drawn.itertext())
    assert "10 threads" in text and "requests per second" in text and "p99 latency, ms" in text
    assert "Nothing & nobody" in text and 'checkout="operation"' in text


def test_back_to_back_the_policies_are_about_as_fast(pools):
    race = policies.BackToBack(pools, seconds=0.2)
    race.run(1)
    ratios = race.ratios()
    assert set(ratios) == {5, 10}
    assert all(0.5 < ratio < 2 for ratio in ratios.values())


def test_of_a_request_that_is_partly_within_a_slice_that_part_counts():
    class Slow(policies.Request):
        def serve(self, pool):
            time.sleep(self.seconds)

    found = policies.run_slice(None, Slow(0.0, seconds=0.2), threads=2, seconds=0.3)  # whole ones: 6.7 or 13.3 1/s
    assert found.rate == pytest.approx(10, rel=0.15)
    assert all(latency >= 0.2 for latency in found.latencies)
    assert (
        policies.run_slice(None, Slow(0.0, seconds=0.2), threads=1, seconds=0.05).p99 >= 0.2
    )  # though none ends in it


def test_a_request_that_fails_ends_the_slice_with_its_error():
    class Failing(policies.Request):
        def serve(self, pool):
            if next(pool) == 5:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        policies.run_slice(itertools.count(), Failing(0.0), threads=3, seconds=60)


def test_gunicorn_serves_more_with_a_connection_for_each_operation():
    pytest.importorskip("psycopg2")
    require(Postgres)
    with served.gunicorns(print, clients=30) as race:
        for _ in range(ATTEMPTS):
            race.run(1, seconds=0.5)
            if race.ratio > 1.2:
                break
        assert race.ratio > 1.2 and not race.errors


def test_a_gunicorn_that_does_not_come_up_is_said_so():
    pytest.importorskip("gunicorn")
    gunicorn = served.Gunicorn("sqlite://", "neither")
    try:
        with pytest.raises(RuntimeError, match="gunicorn does not answer"):
            gunicorn.wait_until_ready()
    finally:
        gunicorn.stop()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b""])
def test_an_answer_that_is_not_what_was_asked_for_is_an_error(answer):
    def answer_badly():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=answer_badly)
        thread.start()
        clients = served.Clients(listener.getsockname()[1], 1)
        clients.finish()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert (clients.answers, clients.errors) == (0, 1)


def test_the_middleware_adds_little_to_a_request_without_database():
    with middleware() as race:
        for _ in range(ATTEMPTS):
            race.run(10)
            if max(race.added().values()) < 8:
                break
        assert all(0 < times < 8 for times in race.added().values())


def test_panels_in_a_row_share_their_axis_and_lines_that_meet_have_one_number():
    look = [Line("one", "red", 1, "circle"), Line("two", "blue", 1, "square")]
    apart, together = [[(1, 100.0), (0, 431.0)], [(1, 100.0), (0, 50.0)]], [[(1, 50.0), (0, 50.0)]] * 2
    row = Row("apples", [apart, together])
    assert (row.step, row.top) == (100, 500)
    drawn = ElementTree.fromstring(Picture("t", ["a"], ["x", "y"], look, [row], "pears", [(1, "1"), (0, "0")]).svg())
    paths = [line.get("points", "").split() for line in drawn.iter("{http://www.w3.org/2000/svg}polyline")][2:]
    heights = [path[-1].split(",")[1] for path in paths]
    assert heights[1] == heights[2] == heights[3] != heights[0]
    texts = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("431") == 1 and texts.count("50") == 2


def test_a_picture_is_of_the_policies_or_the_overload_alone(capsys):
    with pytest.raises(SystemExit):
        main(["--smoke", "--picture", "there.svg"])
    assert "--picture is what --policies and --overload draw" in capsys.readouterr().err


# --- The tools around it ----------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.setattr(baseline, "BASELINE", tmp_path / "baseline.json")


def some_figures(pair: float, fairness: float = 0.98) -> Figures:
    return {
        "pair": {OURS: {"ratio": pair, "microseconds": 2.0}},
        "crowd": {OURS: {"ratio": 0.97, "fairness": fairness}},
        "restart": {OURS: {"failed": 0, "first_ms": 320.0}},
    }


def test_without_a_baseline_compare_says_so(saved):
    assert compare(some_figures(1.8)) == [f"no baseline for Python {this_python()}; --save makes one"]


def test_compare_names_what_moved_and_by_how_much(saved):
    save(some_figures(1.8))
    assert compare(some_figures(1.98, 0.9))[0].startswith("nothing moved by more than 15%")
    assert compare(some_figures(2.7)) == [f"pair, {OURS}, ratio: 1.80 -> 2.70 (+50%)"]
    assert compare({"pair": some_figures(1.8)["pair"]}) == ["crowd: not measured now"]
    assert compare(some_figures(1.8) | {"crowd": {}}) == [f"crowd, {OURS}: not measured now"]


def test_the_baseline_keeps_ratios_and_other_pythons(saved):
    baseline.BASELINE.write_text('{"2.7": {"python": "2.7.18", "figures": {}}}')
    save(some_figures(1.8))
    known = baseline.read_baseline()
    assert set(known) == {"2.7", this_python()}
    assert known[this_python()]["figures"] == {
        "pair": {OURS: {"ratio": 1.8}},
        "crowd": {OURS: {"ratio": 0.97, "fairness": 0.98}},
    }


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ("no yes yes", "holds: cheap: batch 3"),
        ("yes yes no", "holds: cheap: batch 2"),
        ("no no no no no yes yes", "DOES NOT HOLD: cheap: batch 5"),
        ("yes no yes no yes yes", "DOES NOT HOLD: cheap: batch 5"),  # one lucky batch is no yes
    ],
)
def test_a_check_goes_on_until_it_holds_twice_in_a_row_or_gives_up(answers, told, capsys):
    batches = ((answer == "yes", f"batch {n}") for n, answer in enumerate(answers.split(), 1))
    assert until_clear("cheap", 5, lambda: next(batches), lambda line: None) is told.startswith("holds")
    assert capsys.readouterr().out.splitlines() == [told]


def test_what_is_asked_for_once_is_answered_at_once():
    assert until_clear("modest", 1, lambda: (True, "8 connects"), lambda line: None)
    assert not until_clear("modest", 1, lambda: (False, "9 connects"), lambda line: None)


def test_each_python_that_figures_are_told_of_is_measured_by_the_proof():
    here, elsewhere = sys.version_info[:2], {environment.python for environment in environments.measured()}
    assert {f"{major}.{minor}" for major, minor in environments.MEASURED} == set(baseline.read_baseline())
    assert elsewhere == set(environments.MEASURED) - {here}
    (proof,) = re.findall(r"^proof:\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text().replace(" .venv/.dev", ""), re.M)
    assert proof.split("\n")[-3:-1] == [
        "\t@$(PY) -m tests.bench --check",
        "\t@$(PY) -m tests.environments --measure $(ALL)",
    ]


def test_a_table_has_the_floor_first_and_then_from_the_best_to_the_worst():
    crowd = {"rate": 1.0, "fairness": 1.0, "longest_wait_ms": 1.0}
    figures = {str(QUERY): {name: {"ratio": n, **crowd} for name, n in (("slow", 0.5), ("fast", 1.1), (FLOOR, 1.0))}}
    heading, _, *rows = tables(figures).splitlines()
    assert heading.startswith(f"| {QUERY} | rate / floor's | fairness |")
    assert [row.split(" | ")[:2] for row in rows] == [[f"| {FLOOR}", "1.00"], ["| fast", "1.10"], ["| slow", "0.50"]]


def test_the_saved_baseline_is_of_this_bench():
    sections = {"pair", *map(str, HABITS)}
    for python, known in json.loads(baseline.BASELINE.read_text()).items():
        assert known["python"].startswith(f"{python}.")
        assert sections <= set(known["figures"]) <= sections | {BURST, MEMORY}
