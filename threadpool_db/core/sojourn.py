"""Should the pool be larger, or smaller? Asked at random moments, and answered by how long things wait in it.

After sbroker's regulator and the Sojourn pool of DBConnection 1 (Erlang, Elixir). To open a connection for everybody
who waits opens too many, too late: by the time they are there the rush is over. So the queue is sampled, and only when
there has been hardly an idle connection for a while is one more opened, then the next one sooner, and sooner.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from threadpool_db.core.pace import Pace, Repeated
from threadpool_db.core.sizing import Advice, Counts, Elastic


@dataclass(frozen=True)
class Sojourn(Elastic):
    """Up to ``core`` connections are opened as soon as somebody waits. One more only if he has to wait for long enough:
    when in all samples of ``interval`` seconds nothing had been idle for ``target``; and then, as long as that goes on,
    after ``interval / sqrt(n)`` each. Beyond ``core`` one is closed when it has been idle for ``idle`` seconds,
    ``interval`` later, and the next ones at the same pace.

    A sample is taken each ``sample`` seconds, made half as long or up to half as long again by chance, so that neither
    pools nor a periodic load fall into step with it; and only while somebody waits or there are more than ``core``.
    """

    core: int
    target: float = 0.005
    interval: float = 0.1
    idle: float = 1.0
    sample: float = 0.05
    draw: Callable[[], float] = field(default=random.random, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.core, bool) or not isinstance(self.core, int) or self.core < 1:
            raise ValueError(f"Sojourn(core={self.core!r}): must be a whole number from 1 on")
        for name in ("target", "interval", "idle", "sample"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
                raise ValueError(f"Sojourn({name}={value!r}): must be seconds above 0, and finite")

    def begin(self) -> Regulator:
        return Regulator(self)


class Valve:
    """May it grow? Opens once the queue has been slow in all samples of an interval, and once more at each step of the
    pace, if a sample since the last time says that it still is."""

    __slots__ = ("armed_until", "fresh", "in_row", "pace")

    def __init__(self, interval: float) -> None:
        self.pace = Pace(interval)
        self.rest()

    def rest(self) -> None:
        self.armed_until = math.inf
        self.in_row = self.fresh = False

    def sampled(self, slow: bool, now: float) -> None:
        if not slow:
            self.rest()
        elif self.in_row:
            self.fresh = True
        elif self.armed_until == math.inf:
            self.armed_until = now + self.pace.interval

    @property
    def opens_at(self) -> float:
        """If no sample comes before."""
        if self.in_row:
            return self.pace.at if self.fresh else math.inf
        return self.armed_until

    def use(self, now: float) -> None:
        if self.in_row:
            self.pace.go_on()
        else:
            self.pace.begin(now)
        self.in_row, self.fresh = True, False


class Regulator(Elastic):
    """The state of one pool."""

    def __init__(self, settings: Sojourn) -> None:
        self.settings = settings
        self.valve = Valve(settings.interval)
        self.shrink = Repeated(settings.interval)
        self.sample_at = -math.inf
        self.beyond = False  # was it asked last about one that is more than the core?

    def may_open(self, counts: Counts, now: float) -> bool:
        self.beyond = counts.total >= self.settings.core
        return not self.beyond or now >= self.valve.opens_at

    def opens(self, now: float) -> None:
        if self.beyond:
            self.valve.use(now)

    def look(self, counts: Counts, idle_for: float, waited: float, now: float) -> Advice:
        settings = self.settings
        more = counts.connected > settings.core
        if not more and not counts.waiting:
            self.valve.rest()
            self.shrink.rest()
            self.sample_at = -math.inf
            return Advice()
        if now >= self.sample_at:
            self.valve.sampled(counts.waiting > 0 or idle_for < settings.target, now)
            self.sample_at = now + settings.sample * (0.5 + settings.draw())
        again = min(self.sample_at, self.valve.opens_at if self.valve.opens_at > now else math.inf)
        if not more or not counts.idle or idle_for < settings.idle:
            self.shrink.rest()
            return Advice(min(again, now + settings.idle - idle_for))
        close = self.shrink.acts(now)
        return Advice(min(again, self.shrink.at), close)

    def __repr__(self) -> str:
        return repr(self.settings)
