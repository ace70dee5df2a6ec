"""What does the pool tell people? Its numbers when somebody asks, and of a lease that went wrong by itself."""

from __future__ import annotations

import functools
import math
import warnings
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from threadpool_db.core.entry import IDLE, LEASED, Entry
from threadpool_db.core.line import Report
from threadpool_db.core.stats import Hold, Snapshot
from threadpool_db.drivers.base import BUSY, UNKNOWN, TransactionState
from threadpool_db.drivers.sockets import socket_silence
from threadpool_db.lease import where

if TYPE_CHECKING:
    from threadpool_db.pool import ConnectionPool

#: An error names so many holders, and looks at no more of them: many threads may be refused at once.
NAMED = 3


def snapshot(pool: ConnectionPool[Any], looks: float = math.inf, refused: bool = False, late: bool = False) -> Snapshot:
    """All under the lock at once, but for the lines, which take their time to work out, and what the first ``looks`` of
    the holders are doing. ``refused`` or ``late``: one more was."""
    if refused:
        pool._refused.add()
    if late:
        pool._timeouts.add()
    with pool._lock:
        ledger, now = pool._ledger, pool._now()
        held = [
            (now - e.taken_at, e, e.taken_at, e.holder, e.code, e.instruction, e.is_kept, e.last_used > e.taken_at)
            for e in ledger.entries
            if e.state is LEASED
        ]
        found: dict[str, Any] = {
            "name": pool.name,
            "counts": ledger.counts(),
            "closed": ledger.closed,
            "paused": ledger.paused,
            "checkouts": ledger.checkouts,
            "timeouts": pool._timeouts.read(),
            "refused": pool._refused.read(),
            "shed": ledger.shed_count,
            "opened": ledger.opened_count,
            "closures": ledger.closures,
            "connect_failures": ledger.connect_failures,
            "dead": ledger.dead_count,
            "lost": pool._lost,
            "expired": pool._expired,
            "wait": ledger.wait_times.summary(zeros=max(0, ledger.checkouts - sum(ledger.wait_times.counts))),
            "use": ledger.use_times.summary(),
            "connect": ledger.connect_times.summary(),
            "connect_error": ledger.reach.error,
            "failing_for": max(0.0, now - ledger.reach.failing_since),
            "permits": math.inf if pool._budget is None else pool._budget.limit,
            "permits_used": 0 if pool._budget is None else pool._budget.permits.used,
        }
    held.sort(key=lambda hold: -hold[0])
    holders = []
    for n, (seconds, entry, taken_at, holder, code, instruction, kept, used_before) in enumerate(held):
        doing = _doing(pool, entry, taken_at) if n < looks else {}
        # one that lease() gave may be in use at any time; if it was used before, and nothing is open, it likely is not
        kept = kept or (used_before and not (doing.get("in_transaction") or doing.get("in_statement")))
        name = holder.name if holder else "nobody yet"
        holders.append(Hold(name, seconds, where(code, instruction), **doing, kept=kept))
    return Snapshot(**found, holders=tuple(holders))


def _doing(pool: ConnectionPool[Any], entry: Entry, taken_at: float) -> dict[str, Any]:
    """What is somebody's connection doing? A look from outside, which neither waits for its thread nor disturbs it.

    Without the lock: it may have come back, been closed, or be another thread's by now.
    """
    try:
        state, socket = pool._glimpse(entry)
        silent = socket_silence(socket)
    except Exception:
        return {}  # it is being closed, or was never there
    if entry.state is not LEASED or entry.taken_at != taken_at:
        return {}
    return {
        "in_transaction": None if state is BUSY or state is UNKNOWN else state is not TransactionState.IDLE,
        "in_statement": None if state is UNKNOWN else state is BUSY,
        "silent": silent,
    }


def tell(pool: ConnectionPool[Any], report: Report) -> None:
    """To the observers and the log, outside the lock."""
    kind, seconds, say = report.kind, report.seconds, pool._observers.tell
    place = where(report.code, report.instruction)
    who = report.holder.name if report.holder else "nobody"
    if kind == "lost":
        say(kind, seconds, f"a lease taken at {place} was dropped without checkin")
        _Leak(f"pool {pool.name!r}: a lease taken at {place} was dropped without checkin; its connection was closed")
    elif kind == "expired":
        say(kind, seconds, f"taken away from {who} after {seconds:.1f} s, who took it at {place}")
    elif kind == "leak":
        say(kind, seconds, f"held by {who} for {seconds:.1f} s, taken at {place}")
        _follow(pool, report)
    elif kind == "returned":
        say(kind, seconds, f"came back after all: {who} held it for {seconds:.1f} s, taken at {place}")
    elif kind == "rested":
        say("returned", seconds, f"{who} has used it for {seconds:.1f} s and keeps it, taken at {place}")
    elif report.entry.inactive_at != report.since == report.entry.in_use_since:
        silent = socket_silence(report.entry.socket)
        if silent is not None and silent >= (pool._config.inactive_after or math.inf):
            report.entry.inactive_at = report.since
            say("inactive", silent, f"held by {who}, who has not used it for {silent:.1f} s, taken at {place}")
            _follow(pool, report)


def _follow(pool: ConnectionPool[Any], report: Report) -> None:
    """Whoever was told of a use is told of its end: later, or now if it has come meanwhile. Never the end first.

    One that was taken away or lost meanwhile has not come back: that has a report of its own.
    """
    with pool._lock:
        came_back = not pool._ledger.announced(report.entry, report.since) and report.entry.state in (IDLE, LEASED)
        report.seconds = pool._now() - report.since
    if came_back:
        report.kind = "returned"
        tell(pool, report)


def tell_of_outage(pool: ConnectionPool[Any], jobs: deque[Callable[[], None]]) -> None:
    """Under the lock, when connects are failing or were: has everybody been refused from now on, or does one succeed
    at last? Each once; ``jobs`` will say it."""
    ledger, now = pool._ledger, pool._now()
    told, since = pool._out_since < math.inf, pool._out_since
    if not told and not ledger.closed and ledger.unavailable(now):
        pool._out_since = ledger.reach.failing_since
        seconds, error = now - ledger.reach.failing_since, ledger.reach.error
        detail = f"nothing is connected, and connects have failed for {seconds:.1f} s, the last with "
        detail += type(error).__name__
        jobs.append(functools.partial(pool._observers.tell, "unavailable", seconds, detail, error))
    elif told and not ledger.reach.failing:
        pool._out_since = math.inf
        detail = f"connected again, after {now - since:.1f} s"
        jobs.append(functools.partial(pool._observers.tell, "available", now - since, detail))


class _Leak:
    """Warns as it dies, which is at once: where warnings are errors, this one must not hit the innocent thread that
    found the leak, and an error in a finaliser hits nobody; pytest still reports it."""

    def __init__(self, message: str) -> None:
        self._message = message

    def __del__(self) -> None:
        warnings.warn(self._message, ResourceWarning, stacklevel=2, source=self)
