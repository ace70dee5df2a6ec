"""What is a shell told of a pool's size? The answer and its reasons, as text, JSON and a picture; or what to change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from textwrap import wrap
from typing import Any, TextIO

from threadpool_db.advisor import Answer, advise
from threadpool_db.demand import BadDemand, demand, shown
from threadpool_db.forecast import write_picture
from threadpool_db.interview import interview
from threadpool_db.picture import BLUE, ORANGE, Line, Picture, Point, Row
from threadpool_db.trial import OPERATION, POLICIES, THREAD, Trial

WIDTH = 119  # of the table

#: As in docs/checkout-policies.md: the lower one is thick and is seen through the other.
_LINES = {
    THREAD: Line('checkout="thread"', ORANGE, 5, "square"),
    OPERATION: Line('checkout="operation"', BLUE, 2.5, "circle"),
}


def size(
    options: dict[str, Any], into: TextIO, out: TextIO, err: TextIO, as_json: bool = False, svg: str | None = None
) -> int:
    """What is missing in ``options`` is asked for where ``into`` is a terminal. 0, or 2 where something makes no sense
    or the picture cannot be written."""
    try:
        asked = demand(interview(options, into, err) if into.isatty() else options)
    except BadDemand as error:
        err.write(f"threadpool-db size: {error}\n")
        return 2
    watched = err.isatty()
    answer = advise(asked, (lambda done: _tell(err, done)) if watched else None)
    if watched:
        err.write("\r\x1b[K")
    if as_json:
        json.dump(answer.summary(), out, indent=2)
        out.write("\n")
    else:
        out.write(text(answer))
    return 0 if svg is None else write_picture("size", svg, picture(answer), err)


def _tell(err: TextIO, done: int) -> None:
    err.write(f"\rsimulated {done}")
    err.flush()


def text(answer: Answer) -> str:
    """The call to copy, why, the warnings, and the table."""
    lines = [f'create_pool(url, checkout="{answer.policy}", max_size={answer.max_size})', ""]
    for number, reason in enumerate(answer.reasons, 1):
        lines += wrap(f"{number}. {reason}", WIDTH, subsequent_indent="   ", break_on_hyphens=False)
    for warning in answer.warnings:
        lines += ["", *wrap(f"warning: {warning}", WIDTH, subsequent_indent="   ", break_on_hyphens=False)]
    return "\n".join([*lines, "", *_table(answer)]) + "\n"


def _table(answer: Answer) -> list[str]:
    columns = "".join(f"{name:>12}" for name in ("requests/s", "a request", "p50 wait", "p99 wait"))
    heads = [f'checkout="{policy}"' for policy in POLICIES]
    lines = [
        f"{'':>23}{''.join(f'{head:>48}' for head in heads)}",
        f"{'max_size':>10}{'connections':>13}{columns * 2}",
    ]
    for one in sorted({trial.max_size for trial in answer.trials}):
        both = [
            trial for policy in POLICIES for trial in answer.trials if (trial.policy, trial.max_size) == (policy, one)
        ]
        note = "  <- this" if one == answer.max_size else "" if both[0].fits else "  does not fit"
        lines.append(f"{one:>10}{both[0].connections:>13,}{''.join(map(_cells, both))}{note}")
    return lines


def _cells(found: Trial) -> str:
    return f"{found.requests:>12,.0f}{shown(found.request):>12}{shown(found.p50):>12}{shown(found.p99):>12}"


def picture(answer: Answer) -> str:
    """The table as SVG: for each size, side by side and not to scale, what both policies give."""
    asked = answer.asked
    sizes = sorted({trial.max_size for trial in answer.trials})
    unit, name = (1.0, "s") if max(trial.p99 for trial in answer.trials) >= 1.5 else (1e3, "ms")

    def row(title: str, of: str, times: float, levels: Sequence[tuple[float, str]] = ()) -> Row:
        lines: dict[str, list[Point]] = {policy: [] for policy in _LINES}
        for one in answer.trials:
            lines[one.policy].append((float(sizes.index(one.max_size)), getattr(one, of) * times))
        return Row(title, [list(lines.values())], levels=levels)

    bearable = [(asked.bearable * unit, f"{shown(asked.bearable)}: all right")]

    busy = "always busy" if asked.rate is None else f"{asked.rate:,g} requests a second"
    return Picture(
        f'checkout="{answer.policy}", max_size={answer.max_size}',
        [
            f"{asked.workers} workers of {asked.threads} threads, {busy}; a request is {shown(asked.database)} in the "
            f"database, in {asked.operations} operations, and {shown(asked.outside)} elsewhere.",
            f"Simulated, times exponential, seed {asked.seed}. {asked.free} connections of the server are for the app.",
        ],
        [""],
        list(_LINES.values()),
        [row("requests per second", "requests", 1.0), row(f"p99 wait, {name}", "p99", unit, bearable)],
        "max_size of each worker",
        [(float(place), str(one)) for place, one in enumerate(sizes)],
        (0.0, max(1.0, len(sizes) - 1.0)),
    ).svg()
