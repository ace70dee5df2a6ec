"""What is a shell told of a simulation? A table, or JSON; how far it is, where somebody watches; or what to change."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TextIO

from threadpool_db.outcome import table
from threadpool_db.scenario import BadScenario, read, scenario
from threadpool_db.simulate import simulate


def forecast(path: str | None, options: dict[str, Any], out: TextIO, err: TextIO, as_json: bool = False) -> int:
    """``options`` come before those of the file. 0, or 2 where the scenario is bad."""
    try:
        told = scenario((read(path) if path else {}) | options)
    except BadScenario as error:
        err.write(f"threadpool-db simulate: {error}\n")
        return 2
    watched = err.isatty()
    summary = simulate(told, _progress(err) if watched else None).summary()
    if watched:
        err.write("\r\x1b[K")
    if as_json:
        json.dump(summary, out, indent=2)
        out.write("\n")
    else:
        out.write(table(summary))
    return 0


def _progress(err: TextIO) -> Callable[[float], None]:
    def tell(share: float) -> None:
        err.write(f"\rsimulating {share:4.0%}")
        err.flush()

    return tell
