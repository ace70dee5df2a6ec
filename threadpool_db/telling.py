"""What does the pool tell people? Its numbers when somebody asks, and of a lease that went wrong by itself."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import TYPE_CHECKING, Any

from threadpool_db.core.entry import LEASED
from threadpool_db.core.line import Report
from threadpool_db.core.stats import Hold, Snapshot
from threadpool_db.drivers.sockets import socket_silence
from threadpool_db.lease import where

if TYPE_CHECKING:
    from threadpool_db.pool import ConnectionPool


def snapshot(pool: ConnectionPool[Any]) -> Snapshot:
    """All under the lock at once, but for the lines, which take their time to work out."""
    with pool._lock:
        ledger, now = pool._ledger, pool._now()
        held = [(e.holder, now - e.taken_at, e.code, e.instruction) for e in ledger.entries if e.state is LEASED]
        numbers = Snapshot(
            name=pool.name,
            counts=ledger.counts(),
            closed=ledger.closed,
            checkouts=ledger.checkouts,
            timeouts=pool._timeouts,
            refused=pool._refused,
            opened=ledger.opened_count,
            closures=ledger.closures,
            connect_failures=ledger.connect_failures,
            dead=ledger.dead_count,
            lost=pool._lost,
            expired=pool._expired,
            wait=ledger.wait_times.summary(zeros=max(0, ledger.checkouts - sum(ledger.wait_times.counts))),
            use=ledger.use_times.summary(),
            connect=ledger.connect_times.summary(),
            connect_error=ledger.connect_error,
            failing_for=max(0.0, now - ledger.failing_since),
        )
    if not held:  # as in an outage, when every thread that is refused gets a snapshot
        return numbers
    held.sort(key=lambda hold: -hold[1])
    holders = tuple(
        Hold(holder.name if holder else "nobody yet", seconds, where(code, instruction))
        for holder, seconds, code, instruction in held
    )
    return dataclasses.replace(numbers, holders=holders)


def tell(pool: ConnectionPool[Any], report: Report) -> None:
    """To the observers and the log, outside the lock."""
    kind, entry, seconds = report
    place = where(entry.code, entry.instruction)
    who = entry.holder.name if entry.holder else "nobody"
    if kind == "lost":
        pool._observers.tell(kind, seconds, f"a lease taken at {place} was dropped without checkin")
        _Leak(f"pool {pool.name!r}: a lease taken at {place} was dropped without checkin; its connection was closed")
    elif kind == "expired":
        pool._observers.tell(kind, seconds, f"taken away from {who} after {seconds:.1f} s, who took it at {place}")
    elif kind == "leak":
        pool._observers.tell(kind, seconds, f"held by {who} for {seconds:.1f} s, taken at {place}")
    elif entry.inactive_at != entry.in_use_since:
        silent = socket_silence(entry.socket)
        if silent is not None and silent >= (pool._config.inactive_after or math.inf):
            entry.inactive_at = entry.in_use_since
            pool._observers.tell(
                "inactive", silent, f"held by {who}, who has not used it for {silent:.1f} s, taken at {place}"
            )


class _Leak:
    """Warns as it dies, which is at once: where warnings are errors, this one must not hit the innocent thread that
    found the leak, and an error in a finaliser hits nobody; pytest still reports it."""

    def __init__(self, message: str) -> None:
        self._message = message

    def __del__(self) -> None:
        warnings.warn(self._message, ResourceWarning, stacklevel=2, source=self)
