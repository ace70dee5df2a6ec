"""What is a shell told of a simulation? A table, or JSON, and a picture; how far it is, where somebody watches; or what
to change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from threadpool_db.outcome import table
from threadpool_db.scenario import BadScenario, read, scenario
from threadpool_db.simulate import simulate
from threadpool_db.timeline import Run, timeline


def forecast(
    path: str | None, options: dict[str, Any], out: TextIO, err: TextIO, as_json: bool = False, svg: str | None = None
) -> int:
    """``options`` come before those of the file; ``svg``: a picture is written there. 0, or 2 where the scenario is bad
    or the picture cannot be written."""
    try:
        told = scenario((read(path) if path else {}) | options)
    except BadScenario as error:
        err.write(f"threadpool-db simulate: {error}\n")
        return 2
    watched = err.isatty()
    outcome = simulate(told, progress(err) if watched else None)
    summary = outcome.summary()
    if watched:
        err.write("\r\x1b[K")
    if as_json:
        json.dump(summary, out, indent=2)
        out.write("\n")
    else:
        out.write(table(summary))
    return 0 if svg is None else write_picture("simulate", svg, timeline([Run("", told, outcome)]), err)


def write_picture(command: str, path: str, svg: str, err: TextIO) -> int:
    """0, or 2 and the reason: the figures have been told by then."""
    try:
        Path(path).write_text(svg, encoding="utf-8")
    except OSError as error:
        err.write(
            f"threadpool-db {command}: --svg: the file cannot be written: {error.strerror}; "
            "name one in a folder that is there and yours to write in\n"
        )
        return 2
    return 0


def progress(err: TextIO) -> Callable[[float], None]:
    """Writes how far it is, over what it wrote before."""

    def tell(share: float) -> None:
        err.write(f"\rsimulating {share:4.0%}")
        err.flush()

    return tell
