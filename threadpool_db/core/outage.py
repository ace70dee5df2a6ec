"""Is the server out of reach, and who may try it? One answer for all pools of one server.

While connects fail, one is tried in each step of the backoff, by whichever pool asks first. When one succeeds the way
back is a ramp: four in the first second, the first at once; then only ``max_connecting`` limits. A plain backoff, even
a shared one, only delays the herd (postgres.js, pull request 1180, has the idea of the prober and of the ramp).
"""

from __future__ import annotations

import math
from typing import Protocol

#: seconds after the first success in which connects are rationed, and how many may start in them; and an outage that is
#: shorter needs no such way back
RAMP, RAMP_CONNECTS = 1.0, 4


class Server(Protocol):
    """Asked and told under the pool's lock, by all pools of one server: quick, and never calling back."""

    def admits(self, now: float) -> bool:
        """May a connect start? True: it is about to."""
        ...

    def next_at(self, now: float) -> float:
        """When one may start; a time that has passed if it may now."""
        ...

    def failed(self, started: float, now: float, delay: float) -> None:
        """One that began at ``started`` found the server out of reach; the next one not before ``delay`` seconds."""
        ...

    def connected(self, now: float) -> None:
        """One succeeded."""
        ...


class Outage:
    """Times in seconds on the pool's clock.

    Pools that share it come under different locks, and a lock of its own could deadlock with a finaliser that wants a
    pool's: so all of it is one reference to a step that never changes, and a turn that only one can take.
    """

    __slots__ = ("__weakref__", "_back_since", "_since", "_step")

    def __init__(self) -> None:
        self._step: _Step | None = None
        self._since = self._back_since = -math.inf

    def admits(self, now: float) -> bool:
        step = self._step
        if step is None or self._free(step, now):
            return True
        if now < step.next_at or not (step.take() or now >= step.at + step.delay):
            return False
        # a step is used up when a connect starts in it, also if we never hear of that connect again
        self._step = _Step((now if step.failing else step.at) + step.delay, step.delay, step.failing)
        return True

    def next_at(self, now: float) -> float:
        step = self._step
        return -math.inf if step is None or self._free(step, now) else step.next_at

    def failed(self, started: float, now: float, delay: float) -> None:
        if started >= self._back_since:  # else news of the outage before
            if self._step is None or not self._step.failing:
                self._since = now
            self._step = _Step(now + delay, delay, failing=True)

    def connected(self, now: float) -> None:
        step = self._step
        if step is not None and step.failing:
            self._back_since = now
            # after a mere stumble there is no herd
            self._step = _Step(now, RAMP / RAMP_CONNECTS, failing=False) if now - self._since >= RAMP else None

    def _free(self, step: _Step, now: float) -> bool:
        return not step.failing and now >= self._back_since + RAMP


class _Step:
    """From ``at`` on one connect may start, and the next one ``delay`` later."""

    __slots__ = ("_turn", "at", "delay", "failing")

    def __init__(self, at: float, delay: float, failing: bool) -> None:
        self.at, self.delay, self.failing = at, delay, failing
        self._turn = [True]

    @property
    def next_at(self) -> float:
        """Later than ``at`` if the turn was taken, and an interrupt struck before the next step was in its place."""
        return self.at if self._turn else self.at + self.delay

    def take(self) -> bool:
        try:
            return self._turn.pop()
        except IndexError:
            return False
