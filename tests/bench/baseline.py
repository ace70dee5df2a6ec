"""What has moved since the baseline was saved? It holds what depends least on the machine: ratios, fairness, counts and
bytes; of each minor version of Python its own."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

from tests.bench.tables import Figures

BASELINE = Path(__file__).with_name("baseline.json")
MOVED = 0.15
KEPT = frozenset(("ratio", "fairness", "opened", "idle"))


def this_python() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def read_baseline() -> dict[str, Any]:
    known: dict[str, Any] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    return known


def save(figures: Figures) -> None:
    kept = {
        section: {
            name: {key: round(value, 3) for key, value in of.items() if key in KEPT} for name, of in contestants.items()
        }
        for section, contestants in figures.items()
        if any(KEPT & set(of) for of in contestants.values())
    }
    known = read_baseline() | {this_python(): {"python": platform.python_version(), "figures": kept}}
    BASELINE.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def compare(figures: Figures) -> list[str]:
    """A line for each figure that has moved; one line where there is nothing to compare with."""
    known = read_baseline().get(this_python())
    if known is None:
        return [f"no baseline for Python {this_python()}; --save makes one"]
    moved = []
    for section, contestants in known["figures"].items():
        if section not in figures:
            moved.append(f"{section}: not measured now")
            continue
        for name, of in contestants.items():
            for key, before in of.items():
                now = figures[section].get(name, {}).get(key)
                if now is None:
                    moved.append(f"{section}, {name}: not measured now")
                    break
                if abs(now - before) > MOVED * max(
                    abs(before), MOVED
                ):  # a fairness near 0 has no percentage to speak of
                    change = f" ({now / before - 1:+.0%})" if before else ""
                    moved.append(f"{section}, {name}, {key}: {before:.2f} -> {now:.2f}{change}")
    return moved or [f"nothing moved by more than {MOVED:.0%} since Python {known['python']} was measured"]
