"""Where do the pictures of the documentation come from? The simulator: ``python -m tests.pictures`` draws them anew.

Those that it measures come from the bench. ``tests/test_pictures.py`` holds the files against what is drawn here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from threadpool_db.advisor import advise
from threadpool_db.core.overload import CoDel
from threadpool_db.demand import Demand
from threadpool_db.scenario import Scenario
from threadpool_db.simulate import simulate
from threadpool_db.sizer import picture
from threadpool_db.timeline import Run, timeline

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"
SHED = {"shed": CoDel(0.05, 0.5)}
POOL: dict[str, Any] = {"service": 0.02, "max_size": 8, "min_size": 8}


def run(name: str, **options: Any) -> Run:
    told = Scenario(**POOL | options)
    return Run(name, told, simulate(told))


def overload() -> str:
    load: dict[str, Any] = {"rate": 800, "timeout": 1, "duration": 20}
    return timeline(
        [run("timeout=1", **load), run("timeout=1, shed=CoDel(0.05, 0.5)", **load, **SHED)],
        "Twice what 8 connections can do, with a deadline alone and with shedding",
        [
            "800 requests a second at random moments, a use takes 20 ms. Either way 400 a second are served;",
            "what differs is how long they have waited. Simulated, seed 1; each point is of 0.33 s.",
        ],
    )


def burst() -> str:
    load: dict[str, Any] = {"rate": 200, "burst": 150, "burst_at": 2, "duration": 6}
    return timeline(
        [run("timeout=0.1", timeout=0.1, **load), run("timeout=1, shed=CoDel(0.05, 0.5)", timeout=1, **load, **SHED)],
        "A burst: a short deadline refuses it, shedding lets it be worked off",
        [
            "Half of what 8 connections can do, 200 requests a second of 20 ms, and at 2 s 150 more at once.",
            "Simulated, seed 1; each point is of 0.1 s.",
        ],
    )


def size() -> str:
    return picture(advise(Demand(workers=4, threads=16, database=0.02, outside=0.08, server_limit=100)))


PICTURES: dict[str, Callable[[], str]] = {"overload.svg": overload, "burst.svg": burst, "size.svg": size}


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (FOLDER / name).write_text(draw(), encoding="utf-8")
        print(FOLDER / name)
