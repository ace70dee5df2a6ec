"""Let them wait, or turn them away? Who may join the line, and who has waited in vain for too long.

A line with nothing but a deadline makes everybody wait for almost all of it, as soon as more come than are served:
whoever is served is always the one who is about to give up. To shed means to turn some away sooner, so that those who
are served have waited little. A burst must not be mistaken for that: it is worked off, and costs nobody but itself.

``CoDel`` is what a user sets; each line begins a state of its own, by one of these rules:

- ``Standing``, the default, is this project's; its docstring tells why;
- ``AllAtOnce`` is DBConnection's (Elixir): while even the shortest wait of an interval exceeds the target, whoever has
  waited for more than twice the target is turned away;
- ``Spaced`` is sbroker's (Erlang), the CoDel of routers: one at a time, each ``interval / sqrt(n)`` after the last.

All are pure: they see how long the head of the line has waited, how many wait, and the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from threadpool_db.core.pace import Repeated


class Overload(Protocol):
    """Asked under the pool's lock for each newcomer who would have to wait: quick, and never calling back."""

    def admits(self, waiting: int, now: float) -> bool:
        """``waiting`` are in line already: may one more join?"""
        ...


@dataclass(frozen=True)
class MaxWaiting:
    """At most ``limit`` in line, as in psycopg_pool and pooler; the deadline of each waiter does the rest."""

    limit: float = math.inf

    def admits(self, waiting: int, now: float) -> bool:
        return waiting < self.limit


class Shedding(Protocol):
    """What one line knows of its own overload. Asked under the pool's lock: quick, and never calling back."""

    #: when ``overdue`` is to be asked, if nothing is handed over before; ``inf``: not
    look_at: float

    def begins(self, now: float) -> None:
        """The line was empty until now."""
        ...

    def sheds(self, waited: float, waiting: int, now: float) -> bool:
        """There is a connection for the head of the line, who has waited so long: turn him away? ``waiting``: how many
        are in line, he included. Asked again about the next one, until the answer is no: that one gets it."""
        ...

    def overdue(self, waited: float, waiting: int, now: float) -> bool:
        """The same, at ``look_at``, when there is none."""
        ...


class Shed(Protocol):
    """What a pool is told by its option ``shed``."""

    def begin(self) -> Shedding:
        """The state of one line: for each pool a fresh one."""
        ...


class Standing:
    """Turns away what will not be worked off, at once, down to twice the target.

    For ``interval`` seconds nobody was served within ``target``: then the line is judged, and again after each interval
    of this kind. At the pace of that interval, newcomers counted and those turned away not, would it be worked off
    within ``PATIENCE`` intervals? Then it is a burst, and is let be. If not it stands, and until it is judged otherwise
    whoever has waited for more than twice the target is turned away as soon as a connection would be his. One that is
    served within the target, or an empty line, ends it at once.

    Why not DBConnection's: it cuts a burst that takes longer than an interval to drain down to nothing, though nobody
    is to come after it, and reacts a whole interval later to a true overload, for its intervals begin by the clock.
    Why not sbroker's: at twice the capacity as many must be turned away as are served, hundreds in a second, and one
    each ``interval / sqrt(n)`` gets there after minutes. Why twice the target: a line cut down to the target would be
    empty every other moment, and connections idle. For the same reason the last one in line is never turned away when
    a connection is there: where a use takes longer than the target there may be nobody who has waited less.

    Where nothing is handed over for two intervals it turns away whoever has waited for more than twice the target.
    """

    PATIENCE = 4

    def __init__(self, target: float, interval: float) -> None:
        self.target, self.interval = target, interval
        self.limit = 2 * target
        self.stands = False
        self.judge_at = math.inf
        self.length = self.turned_away = 0  # of the line when the interval began, and since
        self.moved_at = 0.0
        self.look_at = math.inf

    def begins(self, now: float) -> None:
        self._rest()
        self._moved(now)

    def sheds(self, waited: float, waiting: int, now: float) -> bool:
        self._moved(now)
        if waited <= self.target:
            self._rest()
            return False
        if self.judge_at == math.inf:
            self._watch(waiting, now)
        elif now >= self.judge_at:
            worked_off = self.length - self.turned_away - waiting
            self.stands = waiting > self.PATIENCE * worked_off
            self._watch(waiting, now)
        if not self.stands or waited <= self.limit or waiting == 1:
            return False
        self.turned_away += 1
        return True

    def overdue(self, waited: float, waiting: int, now: float) -> bool:
        quiet_until = max(self.moved_at + 2 * self.interval, now + self.limit - waited)
        self.look_at = quiet_until
        return now >= quiet_until

    def _watch(self, waiting: int, now: float) -> None:
        self.judge_at = now + self.interval
        self.length, self.turned_away = waiting, 0

    def _rest(self) -> None:
        self.stands = False
        self.judge_at = math.inf
        self.length = self.turned_away = 0

    def _moved(self, now: float) -> None:
        self.moved_at = now
        self.look_at = now + 2 * self.interval


class AllAtOnce:
    """DBConnection's. Each interval begins with a hand-over and remembers the shortest wait in it; if that exceeded the
    target, then in the next one nobody gets a connection who has waited for more than twice the target.

    And every ``interval`` since ``start`` it is seen to whether the head of the line is still the same: then whoever
    has waited for more than twice the target is turned away. Known gaps, of the original too: a burst that takes longer
    than an interval is cut down in one stroke; where hand-overs are further apart than an interval, nobody ever is.
    """

    def __init__(self, target: float, interval: float, start: float = 0.0) -> None:
        self.target, self.interval = target, interval
        self.slow = self.cuts = False
        self.shortest = 0.0
        self.ends_at = start
        self.seen = start
        self.look_at = start + interval

    def begins(self, now: float) -> None:
        self.shortest = 0.0
        if self.look_at <= now:  # nobody waited then
            self.seen = self.look_at + (now - self.look_at) // self.interval * self.interval
            self.look_at = self.seen + self.interval

    def sheds(self, waited: float, waiting: int, now: float) -> bool:
        if now >= self.ends_at:
            self._end(waited, now)
            return False
        if self.slow and waited > 2 * self.target:
            return True
        self.shortest = min(self.shortest, waited)
        return False

    def overdue(self, waited: float, waiting: int, now: float) -> bool:
        if now >= self.look_at:
            self.cuts = self._poll(now - waited, now)
        self.cuts = self.cuts and waited > 2 * self.target
        return self.cuts

    def _poll(self, since: float, now: float) -> bool:
        self.look_at += self.interval * ((now - self.look_at) // self.interval + 1)
        moved, self.seen = since > self.seen, since
        if moved or now < self.ends_at:
            return False
        self._end(now - since, now)
        return self.slow

    def _end(self, waited: float, now: float) -> None:
        self.slow = self.shortest > self.target
        self.ends_at = now + self.interval
        self.shortest = waited


class Spaced:
    """sbroker's. When nobody has been served within the target for an interval, the one who has waited longest is
    turned away, then another one an interval later, then faster and faster, until one is served within the target."""

    def __init__(self, target: float, interval: float) -> None:
        self.target = target
        self.cut = Repeated(interval)
        self.look_at = math.inf

    def begins(self, now: float) -> None:
        self._served_after(0.0, now)

    def sheds(self, waited: float, waiting: int, now: float) -> bool:
        if waited < self.target:
            self._served_after(waited, now)
            return False
        return self._acts(now)

    def overdue(self, waited: float, waiting: int, now: float) -> bool:
        if waited < self.target:
            self.look_at = now + self.target - waited
            return False
        return self._acts(now)

    def _acts(self, now: float) -> bool:
        acts = self.cut.acts(now)
        self.look_at = self.cut.at
        return acts

    def _served_after(self, waited: float, now: float) -> None:
        self.cut.rest()
        self.look_at = now + self.target - waited


@dataclass(frozen=True)
class CoDel:
    """Turn some away, so that those who are served have waited for not much longer than ``target``.

    ``target``: seconds of waiting that are all right; under lasting overload the served wait for about twice that.
    ``interval``: seconds for which waits must have been longer before anybody is turned away; bursts and hiccups of
    that length cost nobody anything. ``rule``: made anew for each line, with these two numbers, any ``Shedding``.

    ValueError for a number that is not above 0. Names and defaults are DBConnection's ``queue_target`` and
    ``queue_interval``; the idea is that of CoDel (Nichols and Jacobson, "Controlling Queue Delay", 2012).
    """

    target: float = 0.05
    interval: float = 2.0
    rule: Callable[[float, float], Shedding] = Standing

    def __post_init__(self) -> None:
        for name in ("target", "interval"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
                raise ValueError(f"CoDel({name}={value!r}): must be seconds above 0, and finite")
        if not callable(self.rule):
            raise ValueError(f"CoDel(rule={self.rule!r}): must be callable, such as Standing, AllAtOnce or Spaced")

    def begin(self) -> Shedding:
        """The state of one line."""
        return self.rule(self.target, self.interval)
