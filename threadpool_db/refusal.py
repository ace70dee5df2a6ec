"""What to tell whoever got no connection? The numbers, who has them since when and from which line, and what to do.

Read at night by somebody who has not read this code: HikariCP's message and DBConnection's numbered advice were the
examples. Never a URL, never a parameter: only counts, threads and lines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from threadpool_db.core.stats import Snapshot


def timeout_message(
    snapshot: Snapshot,
    waited: float,
    timeout: float,
    held_here: int,
    idle_holders: int,
    names: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """``held_here``: connections that the refused thread holds itself; ``idle_holders``: leases kept for a thread
    between two operations; ``names``: what the options are called where they have other names."""
    parts = [
        f"pool {snapshot.name!r}: no connection within {timeout:g} s (waited {waited:.2f} s).",
        _reason(snapshot) + ".",
        _counts(snapshot) + ".",
    ]
    if snapshot.holders:
        longest = "; ".join(str(hold) for hold in snapshot.holders[:3])
        parts.append(f"Held longest: {longest}.")
    if held_here:
        parts.append(f"This thread holds {held_here} of them itself.")
    if snapshot.connect_error is not None:
        parts.append(f"The last connect failed with {type(snapshot.connect_error).__name__} (the cause above).")
    advice = _advice(snapshot, held_here, idle_holders, names)
    return " ".join(parts) + "\n" + "\n".join(f"  {n}. {line}" for n, line in enumerate(advice, 1))


def overloaded_message(snapshot: Snapshot, max_waiting: float, names: Mapping[str, str] = MappingProxyType({})) -> str:
    return (
        f"pool {snapshot.name!r}: refused at once, {snapshot.waiting} threads are waiting already "
        f"(max_waiting={max_waiting:g}). {_counts(snapshot)}. Answer with 503 and let the caller come again later; "
        f"raise max_waiting or {names.get('max_size', 'max_size')} if the database can do more."
    )


def unavailable_message(snapshot: Snapshot, grace: float, names: Mapping[str, str] = MappingProxyType({})) -> str:
    cause = snapshot.connect_error
    what = f" with {type(cause).__name__} (the cause above)" if cause is not None else ""
    return (
        f"pool {snapshot.name!r}: refused at once, the database is out of reach. Connects have failed for "
        f"{snapshot.failing_for:.1f} s{what}, nothing is connected, and nobody waits for it any longer "
        f"({names.get('grace', 'grace')}={grace:g} s). {_counts(snapshot)}.\n"
        "  1. Make sure that the database is up, reachable and lets this user in.\n"
        "  2. Answer with 503 and let the caller come again: it is tried again with growing pauses, and the first "
        "connect that succeeds lets everybody in."
    )


def connect_failed_message(name: str, cause: BaseException) -> str:
    return (
        f"pool {name!r}: could not connect to the database ({type(cause).__name__}, the cause above). "
        "Check that it is up and reachable, and the user, password and database name."
    )


def nested_message(name: str, size: int) -> str:
    return (
        f"pool {name!r}: this wait would never end: all {size} connections are held by threads that wait for this "
        "same pool, this one included. Use the connection that the thread already has (connection(), transaction() "
        "and execute() do, checkout() never does), or give it back first."
    )


def _reason(snapshot: Snapshot) -> str:
    counts = snapshot.counts
    if snapshot.connect_error is not None and counts.in_use < counts.max_size:
        return "Connects are failing"
    if counts.in_use >= counts.max_size:
        return "All are in use"
    if counts.opening:
        return "A connect is under way"
    if counts.idle:
        return "What is idle needs a round trip first"
    return "Nothing is idle"


def _counts(snapshot: Snapshot) -> str:
    c = snapshot.counts
    size = "unlimited" if c.max_size == math.inf else f"{c.max_size:g}"
    return (
        f"{c.in_use} in use, {c.idle} idle, {c.opening} connecting, {c.closing} closing, max_size {size}; "
        f"{c.waiting} waiting"
    )


def _advice(snapshot: Snapshot, held_here: int, idle_holders: int, names: Mapping[str, str]) -> list[str]:
    advice = []
    if snapshot.connect_error is not None:
        advice.append("Make sure that the database is up, reachable and lets this user in.")
    if held_here:
        advice.append("Use the connection that this thread already holds instead of a second one.")
    if idle_holders:
        advice.append(
            f"{idle_holders} of them are kept for their threads and idle: end requests with scope(), call release(), "
            'or use checkout="operation".'
        )
    advice.append("Look at the lines above: is a connection held during slow work outside the database?")
    size, timeout = names.get("max_size", "max_size"), names.get("timeout", "timeout")
    advice.append(f"Find slow queries; then raise {size}, if the server has room, or {timeout}.")
    return advice
