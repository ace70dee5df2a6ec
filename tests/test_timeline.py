"""Does the picture of a simulated load show what the simulator says, and is it always the same one?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from threadpool_db.cli import main
from threadpool_db.core.overload import AllAtOnce, CoDel
from threadpool_db.picture import BLUE, PALE, PANEL_HEIGHT, Line, Picture, Row, ticks
from threadpool_db.scenario import Scenario
from threadpool_db.simulate import simulate
from threadpool_db.timeline import PARTS, Run, timeline

SVG = "{http://www.w3.org/2000/svg}"
OVERLOAD: dict[str, Any] = {"rate": 800, "max_size": 8, "timeout": 1, "duration": 12}


def run(name: str = "", **options: Any) -> Run:
    told = Scenario(**options)
    return Run(name, told, simulate(told))


def texts(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def lines(svg: str) -> list[list[tuple[float, float]]]:
    """The points of each, legends left out."""
    found = ElementTree.fromstring(svg).iter(f"{SVG}polyline")
    drawn = [[tuple(map(float, p.split(","))) for p in line.get("points", "").split()] for line in found]
    return [line for line in drawn if len(line) > 2]  # type: ignore[misc]


# --- Drawing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "whole", "step", "top"),
    [(431, False, 100, 500), (0.02, False, 0.005, 0.025), (2, False, 0.5, 2.5), (2, True, 1, 3), (8, True, 2, 10)],
)
def test_an_axis_has_round_numbers_whatever_its_size(most: float, whole: bool, step: float, top: float) -> None:
    row = Row("apples", [[[(0, most)]]], whole=whole)
    assert (row.step, row.top) == (pytest.approx(step), pytest.approx(top))


def test_where_there_is_nothing_to_be_seen_there_is_still_an_axis() -> None:
    assert Row("apples", [[[(0, 0.0), (1, math.nan)]]]).top > 0
    assert Row("apples", [[[]]]).top > 0


def test_ticks_are_round_and_end_within_the_axis() -> None:
    assert ticks(30) == [(0, "0"), (5, "5"), (10, "10"), (15, "15"), (20, "20"), (25, "25"), (30, "30")]
    assert [label for _, label in ticks(0.7)] == ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"]
    assert ticks(21)[-1] == (20, "20")


def test_a_gap_in_a_line_is_a_gap() -> None:
    row = Row("apples", [[[(0, 1), (1, 1), (2, 1), (3, math.nan), (4, 1), (5, 1), (6, 1)]]])
    drawn = Picture("t", [], [""], [Line("one", BLUE, 1)], [row], "x", [(0, "0"), (6, "6")], last_values=False).svg()
    assert [len(line) for line in lines(drawn)] == [3, 3] and "nan" not in drawn


def test_a_level_above_the_axis_is_neither_drawn_nor_named() -> None:
    def drawn(level: float) -> str:
        look = [Line("one", BLUE, 1)]
        row = Row("apples", [[[(0, 1.0), (1, 1.0)]]], look, levels=[(level, "enough")])
        return Picture("t", [], [""], (), [row], "x", [(0, "0"), (1, "1")]).svg()

    assert "enough" in texts(drawn(1.0)) and drawn(1.0).count("stroke-dasharray") == 2
    assert "enough" not in texts(drawn(9.0)) and "stroke-dasharray" not in drawn(9.0)


def test_on_a_dark_page_every_colour_is_another_one() -> None:
    drawn = timeline([run(**OVERLOAD)])
    style = ElementTree.fromstring(drawn).find(f"{SVG}style")
    assert style is not None and style.text is not None
    assert style.text.startswith("@media (prefers-color-scheme: dark){")
    used = {element.get(where) for element in ElementTree.fromstring(drawn).iter() for where in ("fill", "stroke")}
    assert PALE in used
    assert all(f'="{colour}"]' in style.text for colour in used - {None, "none"})


# --- What is seen -----------------------------------------------------------------------------------------------------


def test_the_axes_have_names_and_units() -> None:
    said = texts(timeline([run(**OVERLOAD)]))
    assert {"wait, ms", "requests per second", "connections", "time, s"} <= set(said)
    assert "wait, s" in texts(timeline([run(**OVERLOAD | {"timeout": 2})]))


def test_the_lines_are_where_the_simulator_says() -> None:
    shown = run(**OVERLOAD)
    p99, p50, turned_away, served, connections = lines(timeline([shown]))
    assert len(p99) == len(p50) == len(turned_away) == len(served) == PARTS
    left, right = connections[0][0], connections[-1][0]
    assert left < p50[0][0] < p50[-1][0] < right, "the middle of its part of the time"

    def height(line: list[tuple[float, float]], axis: float, most: float) -> float:
        return sum(axis - y for _, y in line[PARTS // 2 :]) / (PARTS / 2) / PANEL_HEIGHT * most

    bottoms = [float(y) for y in axes(timeline([shown]))]
    late = shown.outcome.many("late", since=6) / 6
    assert height(p50, bottoms[0], 1000) == pytest.approx(shown.outcome.percentile(0.5, since=6) * 1e3, rel=0.01)
    assert height(served, bottoms[1], 600) == pytest.approx(400, rel=0.01)
    assert height(turned_away, bottoms[1], 600) == pytest.approx(late, rel=0.01)
    assert (bottoms[2] - connections[-1][1]) / PANEL_HEIGHT * 10 == pytest.approx(8, rel=0.01)


def axes(svg: str) -> list[str]:
    """The height of each x axis: the rules of ink that are long."""
    rules = ElementTree.fromstring(svg).iter(f"{SVG}line")
    return [rule.get("y1", "") for rule in rules if rule.get("stroke") == "#1f2933" and rule.get("x1") == "92"]


def test_in_an_outage_nobody_is_served_and_no_wait_is_drawn() -> None:
    drawn = lines(timeline([run(rate=100, outage=(4, 8), duration=12, max_size=4)]))
    assert len(drawn) == 7, "each line of waits in two pieces"
    assert all(len(before) < PARTS / 2 < PARTS - len(after) for before, after in [drawn[:2], drawn[2:4]])


def test_runs_beside_each_other_share_their_axes() -> None:
    without, shed = run("deadline only", **OVERLOAD), run("shedding", **OVERLOAD, shed=CoDel(0.05, 0.5))
    drawn = timeline([without, shed], "Twice the capacity", ["About it."])
    assert {"deadline only", "shedding", "Twice the capacity", "About it."} <= set(texts(drawn))
    p50_without, p50_shed = lines(drawn)[1], lines(drawn)[3]
    bottom = float(axes(drawn)[0])
    assert (bottom - p50_without[-1][1]) == pytest.approx(10 * (bottom - p50_shed[-1][1]), rel=0.05)
    assert "timeout 1 s" in texts(drawn), "both have it"
    assert "timeout 1 s" not in texts(timeline([without, run("patient", **OVERLOAD | {"timeout": 2})]))


def test_it_says_what_was_simulated() -> None:
    class Mine(CoDel):
        """Somebody's own is known by its class."""

    load = {"burst": 50, "burst_at": 1, "threads": 9, "spread": "lognormal", "outage": (2, 3), "duration": 5}
    said = " ".join(texts(timeline([run(**load, max_waiting=7, shed=CoDel(0.1, 1, AllAtOnce))])))
    for words in (
        "50 at once at 1 s; 9 threads that think for 100 ms; a use takes 20 ms on average, lognormal.",
        "An outage from 2 to 3 s.",
        "max_size=10, timeout=10, max_waiting=7, shed=CoDel(0.1, 1, AllAtOnce).",
        "seed 1.",
    ):
        assert words in said
    assert "shed=CoDel(0.05, 2)." in " ".join(texts(timeline([run(rate=1, duration=2, shed=CoDel())])))


def test_a_pool_without_limits_has_no_capacity_to_be_compared_with() -> None:
    drawn = timeline([run(rate=100, max_size=math.inf, timeout=math.inf, duration=5)])
    assert "stroke-dasharray" not in drawn and "inf ms" not in drawn


def test_of_several_pools_together_the_size_of_one_is_no_limit() -> None:
    assert "max_size 4" in texts(timeline([run(rate=100, max_size=4, duration=5)]))
    many = {"tenants": 20, "servers": 3, "budget": 6, "per_tenant_max": 4}
    for several, told in (
        ({"max_size": 4, "processes": 2}, "2 processes: max_size=4, timeout=10."),
        (many | {"processes": 1}, "20 tenants on 3 servers, budget=6, per_tenant_max=4, timeout=10."),
    ):
        said = texts(timeline([run(rate=100, duration=5, **several)]))
        assert "max_size 4" not in said and not [words for words in said if words.startswith("capacity")]
        assert any(words.startswith(told) for words in said)


def test_the_same_seed_gives_the_same_bytes_and_another_one_others() -> None:
    first, again, other = (timeline([run(rate=300, duration=4, seed=seed)]) for seed in (1, 1, 2))
    assert first == again != other


# --- The command ------------------------------------------------------------------------------------------------------


def test_the_command_draws_beside_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "load.svg"
    assert main(f"simulate --rate 100 --duration 4 --svg {file}".split()) == 0
    assert "connections  " in capsys.readouterr().out
    assert file.read_text() == timeline([run(rate=100, duration=4)])


def test_a_picture_that_cannot_be_written_ends_with_2_after_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(f"simulate --rate 100 --duration 4 --svg {tmp_path / 'nowhere' / 'load.svg'}".split()) == 2
    said = capsys.readouterr()
    assert "served" in said.out
    assert said.err == (
        "threadpool-db simulate: --svg: the file cannot be written: No such file or directory; "
        "name one in a folder that is there and yours to write in\n"
    )
