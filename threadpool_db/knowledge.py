"""What need be found out only once? The first who asks finds out; whoever asks meanwhile waits for what he finds.

An answer is kept. A failure is not: those who waited for it get it too, each a copy of his own, for to try one after
the other would take fifty of them fifty timeouts; whoever asks next tries anew. An interrupt is its own thread's
business: of those who waited one takes over.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from threadpool_db.waiting import Clock, Onlookers


class _Attempt:
    """``over`` is written last, and read without a lock."""

    __slots__ = ("error", "over", "who")

    def __init__(self, who: object) -> None:
        self.who = who
        self.over = False
        self.error: Exception | None = None


class Unready(Exception):
    """Somebody else is finding out still, and the time is over; ``mine``: he waits for himself."""

    def __init__(self, mine: bool) -> None:
        super().__init__()
        self.mine = mine


class Knowledge:
    """One answer. ``known`` may be read at any time, and ``answer`` when it is True."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.known, self.answer = False, None
        self.start_afresh()

    def start_afresh(self) -> None:
        """In a forked child: what is known stays so, and whoever was finding out is not here."""
        self._lock = self._clock.lock()
        self._attempt: _Attempt | None = None
        self._onlookers = Onlookers()

    def find_out(self, ask: Callable[[], Any], who: object, deadline: float) -> Any:
        """``who`` asks, a thread by an object of its own. What ``ask`` raises, or Unready."""
        while not self.known:
            mine = _Attempt(who)
            try:
                with self._lock:
                    if self.known:
                        break
                    attempt = self._attempt = self._attempt or mine
                if attempt is mine:
                    self._ask(ask, mine)
            finally:
                if self._attempt is mine:
                    self._attempt = None
                    mine.over = True
                    self._onlookers.open()
            if attempt is not mine:
                self._wait_for(attempt, who, deadline)
        return self.answer

    def _ask(self, ask: Callable[[], Any], mine: _Attempt) -> None:
        try:
            answer = ask()
        except Exception as error:
            mine.error = fresh(error)  # of this one the frames are others'
            raise
        self.answer, self.known = answer, True

    def _wait_for(self, attempt: _Attempt, who: object, deadline: float) -> None:
        if attempt.who is who:
            raise Unready(mine=True)
        with self._onlookers.one(self._clock) as gate:
            while not attempt.over:
                if self._clock.now() >= deadline:
                    raise Unready(mine=False)
                gate.sleep(self._clock, deadline)
        if attempt.error is not None:
            raise fresh(attempt.error)


def fresh(error: Exception) -> Exception:
    """A copy: one shared by those who get it would collect their tracebacks."""
    try:
        other = copy.copy(error)
    except Exception:
        other = error
    if type(other) is not type(error):
        other = error
    return other.with_traceback(None)
