"""Does a pool keep its word in seconds? Each checkout ends within its ``timeout``, each round trip of the pool's own
within ``check_timeout``, whatever the server or the wire does; measured inside every pool of every cell.

No cell can forget it: ``conftest`` has each pool timed from its birth on, and asks when a cell has ended. A program of
its own, in a process of its own, says ``time_pool(pool)`` and prints the ``overrun``, which its cell ``note``s.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from math import inf
from sys import _getframe as getframe
from typing import Any

#: seconds beyond the word, for the machine
SLACK = 0.05
#: the machine may be busy with somebody else's work: the best round counts; in the proof most of them must be good
ROUNDS = 5
#: what the pool says to a server on its own account. A commit is its user's, or a part of a connect
TRIPS = ("ping", "rollback", "reset", "run", "set_isolation", "set_read_only", "set_autocommit", "end_session", "close")


class Late(AssertionError):
    """Somebody was held up for too long. A busy machine may be to blame, and the cell is tried again."""


class Bounds:
    """Times a pool. A borrower who connects for himself (``background=False``) has the connect's limit besides."""

    def __init__(self, pool: Any) -> None:
        upkeep, driver = pool._upkeep, pool._upkeep.driver
        self._name, self._timed_pool = pool.name, weakref.ref(pool)
        self._seen: list[tuple[str, float]] = []
        self._connecting = threading.local()
        checkout, make_ready = pool.checkout, upkeep._make_ready

        def timed_checkout(timeout: float | None = None, *, _frame: Any = None, **options: Any) -> Any:
            config = upkeep._config
            limit = config.timeout if timeout is None else timeout
            if not config.background:
                limit += config.connect_timeout
            options["_frame"] = _frame or getframe(1)  # whose line is remembered
            return self._measure("checkout", lambda: limit, checkout, timeout, **options)

        def timed_making_ready(entry: Any, connection: Any, until: float) -> None:
            """What a session is told when it is made is a part of its connect, and has that limit."""
            left = max(until - time.monotonic(), 0.0)
            self._connecting.now = True
            try:
                self._measure("making ready", lambda: left, make_ready, entry, connection, until)
            finally:
                self._connecting.now = False

        pool.checkout, upkeep._make_ready = timed_checkout, timed_making_ready
        for name in TRIPS:
            setattr(driver, name, self._timed(name, upkeep, getattr(driver, name)))

    def _timed(self, name: str, upkeep: Any, trip: Callable[..., Any]) -> Callable[..., Any]:
        def limit() -> float:
            return inf if getattr(self._connecting, "now", False) else upkeep._config.check_timeout

        return lambda *args: self._measure(name, limit, trip, *args)

    def _measure(
        self, what: str, limit: Callable[[], float], call: Callable[..., Any], *args: Any, **options: Any
    ) -> Any:
        begun = time.monotonic()
        try:
            return call(*args, **options)
        finally:
            self._seen.append((what, time.monotonic() - begun - limit()))

    def is_of(self, pool: Any) -> bool:
        return self._timed_pool() is pool

    def overruns(self, what: str) -> list[float]:
        """Seconds beyond the limit, negative if there was time left."""
        return [seconds for name, seconds in list(self._seen) if name == what]

    @property
    def overrun(self) -> float:
        """Of the one that was latest."""
        return max((seconds for _, seconds in list(self._seen)), default=-inf)

    def __str__(self) -> str:
        late = sorted(((seconds, what) for what, seconds in list(self._seen) if seconds > SLACK), reverse=True)
        return f"pool {self._name!r}: " + ", ".join(f"{what} by {seconds:.3f} s" for seconds, what in late[:5])


# What a cell has seen -------------------------------------------------------------------------------------------------

_pools: list[Bounds] = []
_noted: dict[str, float] = {}


def time_pool(pool: Any) -> Bounds:
    """From now on; time that a test makes is not ours to measure."""
    _pools.append(bounds := Bounds(pool))
    return bounds


def bounds_of(pool: Any) -> Bounds:
    """Of one that was timed from its birth on."""
    [found] = [bounds for bounds in _pools if bounds.is_of(pool)]
    return found


def note(what: str, overrun: float) -> None:
    """Seconds too long of something else that must not be held up."""
    _noted[what] = max(overrun, _noted.get(what, -inf))


def begin() -> None:
    _pools.clear()
    _noted.clear()


def check() -> None:
    """Late: something took longer than its limit and ``SLACK``."""
    late = [str(bounds) for bounds in _pools if bounds.overrun > SLACK]
    late += [f"{what} by {seconds:.3f} s" for what, seconds in _noted.items() if seconds > SLACK]
    if late:
        raise Late(f"longer than {SLACK:g} s beyond the limit: " + "; ".join(late))


def best_of(cell: Callable[[], Any], rounds: int = ROUNDS, most: bool = False) -> None:
    """A round of this was in time, or most of them. What is said about anything but seconds holds in every round."""
    kept, late, needed = 0, [], (rounds + 1) // 2 if most else 1
    while kept < needed:
        begin()
        try:
            cell()
            check()
        except Late as error:
            late.append(str(error))
            if len(late) > rounds - needed:
                raise Late("\n".join(late)) from None
        else:
            kept += 1
    begin()  # what was late is told, and forgiven
