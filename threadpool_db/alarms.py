"""Is the pool in trouble for so long that somebody should be told? It is looked at while there is a reason to.

The first to wait, or a connect that fails, begins it; the keeper's scheduler takes a sample from time to time, and a
look that finds nothing ends it. Nobody listens: nobody looks. The rule is in ``core/alarm.py``. Whoever is told is
told in a worker, one after the other, and may take his time.
"""

from __future__ import annotations

import functools
import math
import weakref
from typing import TYPE_CHECKING, Any

from threadpool_db.core.alarm import Hysteresis
from threadpool_db.keeper import keeper_of
from threadpool_db.observe import Alarm

if TYPE_CHECKING:
    from threadpool_db.core.ledger import Ledger
    from threadpool_db.pool import ConnectionPool

OVERLOAD, UNREACHABLE = "overload", "unreachable"


class Lookout:
    """One pool's, of which it knows by a weak reference only."""

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        self._pool = weakref.ref(pool)
        self._keeper = keeper_of(pool._clock)
        self._now = pool._clock.now
        self._config = pool._config
        self._alarms = pool._config.alarms
        self._rules = {kind: Hysteresis(self._alarms.interval) for kind in (OVERLOAD, UNREACHABLE)}
        self._next = -math.inf  # sample; there is none to come
        self._failed_at = -math.inf

    def watch(self) -> None:
        """Somebody waits. Not under the pool's lock, and no other: see ``Background.plan``. Two who begin at once plan
        two samples, one of which is in vain; one that has not come a whole step after its time never will."""
        now = self._now()
        if now > self._next + self._alarms.step:
            self._plan(now + self._alarms.step)

    def connect_failed(self) -> None:
        self._failed_at = self._now()
        self.watch()

    def _plan(self, when: float) -> None:
        self._keeper.at(when, self._sample)
        self._next = when

    def _sample(self) -> None:
        """In the scheduler's thread."""
        pool = self._pool()
        if pool is None:
            return
        with pool._lock:
            # Whoever joins the line does so under this lock, and looks then whether a sample is to come.
            now = self._now()
            if now < self._next:
                return
            found = self._look(pool._ledger, now)
            told = [news for kind, detail in found.items() if (news := self._judge(kind, detail, now, pool))]
            ends = not (pool._ledger.line or any(found.values()) or self._uneasy(now))
            if ends:
                self._next = -math.inf
        if not ends:
            self._plan(now + self._alarms.step)
        for alarm, on in told:
            hook = self._config.on_alarm if on else self._config.on_clear
            self._keeper.do(("tell", pool.name), functools.partial(pool._observers.alarm, alarm, on, hook), 1)

    def _look(self, ledger: Ledger, now: float) -> dict[str, str]:
        """Under the lock: what is wrong, in words; empty where nothing is."""
        found = dict.fromkeys(self._rules, "")
        target, head = self._alarms.target, ledger.line.head
        if head is not None and now - head.since >= target:
            found[OVERLOAD] = f"the first in line has waited for {now - head.since:.1f} s, {len(ledger.line)} wait"
        # Between two requests that are refused at once nothing is wanted for a moment: what failed of late counts too.
        wanted = ledger.wants_connection(now) or now - self._failed_at < self._alarms.interval
        seconds = now - ledger.reach.failing_since
        if ledger.reach.failing and seconds >= target and wanted:
            error = type(ledger.reach.error).__name__
            found[UNREACHABLE] = f"connects have failed for {seconds:.1f} s, the last with {error}"
        return found

    def _judge(self, kind: str, detail: str, now: float, pool: ConnectionPool[Any]) -> tuple[Alarm, bool] | None:
        rule = self._rules[kind]
        began = rule.since
        if not (rule.end(now) if pool._ledger.closed else rule.sample(bool(detail), now)):
            return None
        if rule.on:
            return Alarm(kind, pool.name, now - rule.since, detail), True
        seconds = rule.since - began
        return Alarm(kind, pool.name, seconds, f"over after {seconds:.1f} s"), False

    def _uneasy(self, now: float) -> bool:
        """Is an alarm on, or about to be, or did a connect fail a moment ago?"""
        return not all(rule.calm for rule in self._rules.values()) or now - self._failed_at < self._alarms.target
