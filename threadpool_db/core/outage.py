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
    pool's: so all of it is one reference to a step, which never changes but that another one follows it, once.
    """

    __slots__ = ("__weakref__", "_back_since", "_since", "_step")

    def __init__(self) -> None:
        self._step: _Step | None = None
        self._since = self._back_since = -math.inf

    def admits(self, now: float) -> bool:
        step = self._current()
        return step is None or self._free(step, now) or (now >= step.at and step.use(now))

    def next_at(self, now: float) -> float:
        step = self._current()
        return -math.inf if step is None or self._free(step, now) else step.at

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

    def _current(self) -> _Step | None:
        step = self._step
        while step is not None and (following := step.following) is not None:
            step = following
        return step

    def _free(self, step: _Step, now: float) -> bool:
        return not step.failing and now >= self._back_since + RAMP


class _Step:
    """From ``at`` on one connect may start. With that it is used up, also if we never hear of that connect again: from
    ``delay`` later on another one may."""

    __slots__ = ("_following", "at", "delay", "failing")

    def __init__(self, at: float, delay: float, failing: bool) -> None:
        self.at, self.delay, self.failing = at, delay, failing
        self._following: dict[str, _Step] = {}

    @property
    def following(self) -> _Step | None:
        return self._following.get("it")

    def use(self, now: float) -> bool:
        """True for one alone, also of several who come at once, under different locks: ``setdefault`` keeps the first.
        With a turn that was taken here and a next step that was put into its place there, two of them got it."""
        mine = _Step((now if self.failing else self.at) + self.delay, self.delay, self.failing)
        return self._following.setdefault("it", mine) is mine
