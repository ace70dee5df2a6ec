"""What goes to the log, at which level, and how often? A storm of the same kind fills no disk.

In each ten seconds of the pool's clock five lines of a kind are written. The rest is counted, and the first line of the
pool after that, of whatever kind, is preceded by one that tells the number. What the level shuts out costs nothing and
is not counted.

No lock: a finaliser may have something to say in the middle of a line, in the same thread. So a line is a token that
only one can take, a line too many is a step of a counter, and whoever takes the window out of the table tells its
number. Each is one step that the interpreter does not divide.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable

LINES, WINDOW = 5, 10.0

#: of every kind of event; all others are DEBUG
LEVELS = {
    **dict.fromkeys(("connect_failed", "lost", "expired", "leftover", "leak", "inactive", "pinned"), logging.WARNING),
    "hook_failed": logging.WARNING,
    # who hears of the beginning hears of the end
    **dict.fromkeys(("unavailable", "available", "alarm", "cleared"), logging.WARNING),
    **dict.fromkeys(("dead", "refused", "replaced", "returned"), logging.INFO),
}


class _Window:
    """Ten seconds of one kind."""

    __slots__ = ("left", "level", "more")

    def __init__(self, level: int) -> None:
        self.level = level
        self.left = [True] * LINES
        self.more = itertools.count()


class Logbook:
    """One pool's. ``now``: the pool's clock."""

    def __init__(self, log: logging.Logger, pool: str, now: Callable[[], float]) -> None:
        self._log = log
        self._pool = pool
        self._now = now
        self._windows: dict[tuple[str, float], _Window] = {}
        self._start = -math.inf  # of the window in which a line was last asked for

    def event(self, kind: str, level: int, detail: str, error: BaseException | None) -> None:
        """Of a level that is not shut out."""
        if not self._admits(kind, level):
            return
        name = "" if error is None else type(error).__name__
        self._log.log(
            level,
            "pool %s: %s%s%s",
            self._pool,
            kind.replace("_", " "),
            f": {detail}" if detail else "",
            f" ({name})" if name and name not in detail else "",
            extra={"pool": self._pool, "event": kind},
        )

    def raised(self, what: str) -> None:
        """What somebody gave us to call has raised, just now."""
        if self._log.isEnabledFor(logging.ERROR) and self._admits(f"{what} raised", logging.ERROR):
            self._log.exception("pool %s: %s raised", self._pool, what)

    def tell_of_more(self, before: float = math.inf) -> None:
        """How many lines were left out, in windows that began ``before``."""
        for kind, window_start in self._windows.copy():
            if window_start >= before:
                continue
            window = self._windows.pop((kind, window_start), None)
            more = 0 if window is None else next(window.more)
            if window is not None and more:
                self._log.log(
                    window.level,
                    "pool %s: %s, %d more within %g s",
                    self._pool,
                    kind.replace("_", " "),
                    more,
                    WINDOW,
                    extra={"pool": self._pool, "event": kind, "suppressed": more},
                )

    def _admits(self, kind: str, level: int) -> bool:
        start = self._now() // WINDOW
        if start != self._start:
            self._start = start
            self.tell_of_more(before=start)
        window = self._windows.get((kind, start))
        if window is None:
            window = self._windows.setdefault((kind, start), _Window(level))
        try:
            return window.left.pop()
        except IndexError:
            next(window.more)
            return False
