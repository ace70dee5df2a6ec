"""How does a simulated load look over time? Waits, who is served and who is not, and connections, as one picture.

Of one run, or of several beside each other that share their axes: what would another timeout have done?
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

from threadpool_db.core.overload import CoDel, Shed
from threadpool_db.outcome import SERVED, Outcome
from threadpool_db.picture import BLUE, ORANGE, Line, Picture, Point, Row, ticks
from threadpool_db.scenario import Scenario

PARTS = 60  # that the time is cut into: each of a few pixels, and of enough requests for a percentile

_WAITS = (Line("p99 of those served", ORANGE, 4), Line("p50", BLUE, 2))
_ENDS = (Line("turned away", ORANGE, 4), Line("served", BLUE, 2))
_CONNECTIONS = (Line("open or being opened", BLUE, 2),)


class Run(NamedTuple):
    """``name``: the heading of its panels, where there are several."""

    name: str
    scenario: Scenario
    outcome: Outcome


def timeline(runs: Sequence[Run], title: str = "What would happen at this load?", about: Sequence[str] = ()) -> str:
    """The SVG. ``about``: up to two lines under the title; without them they say what was simulated.

    The longest of the runs gives the time axis; a wait or a request belongs to the moment at which it ended."""
    until = max(run.outcome.until for run in runs)
    waits = [_waits(run.outcome, until) for run in runs]
    longest = max((y for panel in waits for points in panel for _, y in points if not math.isnan(y)), default=0)
    unit, name = (1.0, "s") if longest >= 1.5 else (1e3, "ms")
    rows = [
        Row(f"wait, {name}", [_times(panel, unit) for panel in waits], _WAITS, levels=_levels(runs, _timeout, unit)),
        Row("requests per second", [_ends(run.outcome, until) for run in runs], _ENDS, levels=_levels(runs, _capacity)),
        Row("connections", [[_connections(run.outcome)] for run in runs], _CONNECTIONS, True, _levels(runs, _max_size)),
    ]
    each = f"Each point is of {until / PARTS:.3g} s; seed {runs[0].scenario.seed}."
    about = about or [_load(runs[0].scenario), f"{_pool(runs[0].scenario)} {each}"]
    parts = 6 if len(runs) == 1 else 5
    cases = [run.name for run in runs]
    return Picture(title, about, cases, (), rows, "time, s", ticks(until, parts), (0.0, until), False).svg()


# --- The lines --------------------------------------------------------------------------------------------------------


def _parts(outcome: Outcome, until: float) -> list[list[tuple[float, bool]]]:
    """Of each part of the time: how long those who ended in it had waited, and whether they were served."""
    parts: list[list[tuple[float, bool]]] = [[] for _ in range(PARTS)]
    for came, waited, ended in zip(outcome.came, outcome.waited, outcome.ends, strict=True):
        parts[min(PARTS - 1, int((came + waited) / until * PARTS))].append((waited, ended == SERVED))
    return parts


def _middle(part: int, until: float) -> float:
    return (part + 0.5) * until / PARTS


def _waits(outcome: Outcome, until: float) -> list[list[Point]]:
    """p99 and p50 in seconds; nan where nobody was served."""
    lines: list[list[Point]] = [[], []]
    for number, part in enumerate(_parts(outcome, until)):
        served = sorted(waited for waited, was_served in part if was_served)
        for line, share in zip(lines, (0.99, 0.5), strict=True):
            wait = served[min(len(served) - 1, int(share * len(served)))] if served else math.nan
            line.append((_middle(number, until), wait))
    return lines


def _ends(outcome: Outcome, until: float) -> list[list[Point]]:
    """Turned away and served, per second."""
    lines: list[list[Point]] = [[], []]
    for number, part in enumerate(_parts(outcome, until)):
        served = sum(was_served for _, was_served in part)
        for line, many in zip(lines, (len(part) - served, served), strict=True):
            line.append((_middle(number, until), many * PARTS / until))
    return lines


def _connections(outcome: Outcome) -> list[Point]:
    """In steps; of what changes more often than can be seen, the last in each two-hundredth of the time."""
    points: list[Point] = [(0.0, 0.0)]
    moments = [when for when, _ in outcome.sizes]
    for number in range(1, 201):
        moment = outcome.until * number / 200
        size = float(outcome.size_at(moment))
        if size != points[-1][1]:
            changed = moments[max(0, bisect_left(moments, moment) - 1)]
            changed = max(changed, points[-1][0])
            points += [(changed, points[-1][1]), (changed, size)]
    return [*points, (outcome.until, points[-1][1])]


def _times(lines: Sequence[Sequence[Point]], unit: float) -> list[list[Point]]:
    return [[(x, y * unit) for x, y in points] for points in lines]


# --- The words --------------------------------------------------------------------------------------------------------


def _levels(
    runs: Sequence[Run], what: Callable[[Run], tuple[float, str] | None], unit: float = 1.0
) -> list[tuple[float, str]]:
    """One height for all panels, or none where they differ in it."""
    found = {what(run) for run in runs}
    return [(level[0] * unit, level[1]) for level in found if level is not None and len(found) == 1]


def _timeout(run: Run) -> tuple[float, str] | None:
    timeout = run.scenario.timeout
    return (timeout, f"timeout {timeout:g} s") if timeout < math.inf else None


def _capacity(run: Run) -> tuple[float, str] | None:
    limit, service = run.scenario.max_size, run.scenario.service
    return (limit / service, f"capacity: {limit:g} connections / {_shown(service)}") if _is_limit(run) else None


def _max_size(run: Run) -> tuple[float, str] | None:
    return (run.scenario.max_size, f"max_size {run.scenario.max_size:g}") if _is_limit(run) else None


def _is_limit(run: Run) -> bool:
    """Of several pools it is not the limit of all."""
    return run.scenario.max_size < math.inf and not run.scenario.tenants and run.scenario.processes == 1


def _load(of: Scenario) -> str:
    who = [f"{of.rate:,g} requests a second at random moments"] if of.rate else []
    if of.burst:
        who.append(f"{of.burst:,g} at once at {of.burst_at:g} s")
    if of.threads:
        who.append(f"{of.threads:,g} threads that think for {_shown(of.think)}")
    spread = "" if of.spread == "fixed" else f" on average, {of.spread}"
    failing = f" An outage from {of.outage[0]:g} to {of.outage[1]:g} s." if of.outage else ""
    return f"{'; '.join(who)}; a use takes {_shown(of.service)}{spread}.{failing}"


def _pool(of: Scenario) -> str:
    shed = "" if of.shed is None else f", shed={_name(of.shed)}"
    full = "" if of.max_waiting is None else f", max_waiting={of.max_waiting:g}"
    size = f"max_size={of.max_size:g}"
    if of.tenants:
        many = f"{of.tenants:,} tenants on {of.servers:,} servers"
        size = f"{many}, budget={of.budget:g}, per_tenant_max={of.per_tenant_max}"
    each = f"{of.processes} processes: " if of.processes > 1 else ""
    return f"{each}{size}, timeout={of.timeout:g}{full}{shed}."


def _name(shed: Shed) -> str:
    """A rule of the reader's own by its class alone: nobody knows what its repr comes to."""
    if not isinstance(shed, CoDel):
        return type(shed).__name__
    rule = "" if shed.rule is CoDel().rule else f", {getattr(shed.rule, '__name__', shed.rule)}"
    return f"CoDel({shed.target:g}, {shed.interval:g}{rule})"


def _shown(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1e3:g} ms"
