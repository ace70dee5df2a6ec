"""How does a step end that does not end? It runs in a thread of its own, and is left behind there.

libpq's connect cannot be interrupted from outside, getaddrinfo neither. A thread that is given up holds up no exit of
the process, and what it still brings is handed to ``late``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from threadpool_db.waiting import Clock, Gate

T = TypeVar("T")


class StepTimeout(Exception):
    """The step has not ended in time."""


def limited(clock: Clock, work: Callable[[], T], timeout: float, late: Callable[[T], object] | None = None) -> T:
    """Its result or its error, within so many seconds."""
    gate = Gate(clock)
    outcomes: list[Any] = []  # whoever is first in it has decided

    def run() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = work()
        except BaseException as caught:
            error = caught
        ours = (error, result)
        outcomes.append(ours)
        if outcomes[0] is ours:
            gate.open()
        elif error is None and late is not None:
            late(result)

    clock.start(run, "threadpool_db check")
    gate.sleep(clock, clock.now() + timeout)
    outcomes.append(None)
    if outcomes[0] is None:
        raise StepTimeout(f"it has not ended in {timeout:g} s")
    error, result = outcomes[0]
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]
