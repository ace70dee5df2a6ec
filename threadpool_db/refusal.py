"""What to tell whoever got no connection? The reason, the numbers, who has them since when and what for, what to do.

Read at night by somebody who has not read this code: HikariCP's message and DBConnection's numbered advice were the
examples. First what happened and why, then who, then what to do, fitted to what was found; the likeliest help is number
one. Never a URL, never a parameter, nothing that the database said: only counts, threads, lines and names of classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from threadpool_db.core.stats import Hold, Snapshot

#: Seconds of silence from which on it is not the statement that takes the time, but what lies between two of them.
LONG = 1.0

_DATABASE_UP = "Make sure that the database is up, reachable and lets this user in."
_COME_AGAIN = "In the application: answer this error with 503 and Retry-After."


@dataclass(frozen=True)
class Words:
    """How the reader's own world speaks: what the options are called, and what gives a thread the connection it has."""

    max_size: str = "max_size"
    timeout: str = "timeout"
    use_your_own: str = (
        "Use the connection that this thread already holds instead of a second one: connection(), transaction() "
        "and execute() use it, checkout() always takes another one."
    )


WORDS = Words()


def timeout_message(
    snapshot: Snapshot,
    waited: float,
    timeout: float,
    held_here: int,
    words: Words = WORDS,
) -> str:
    """``held_here``: connections that the refused thread holds itself."""
    begin = f"pool {snapshot.name!r}: no connection within {timeout:g} s (waited {waited:.2f} s)."
    advice = _advice(snapshot, held_here, words)
    if not snapshot.paused:
        room = f"{words.max_size}, if the server has room for more connections, or " if _full(snapshot) else ""
        if not _failing(snapshot):  # more patience brings no database back
            advice.append(f"Only then raise {room}{words.timeout}." if advice else f"Raise {room}{words.timeout}.")
    return _message(f"{begin} {_reason(snapshot, timeout)}", snapshot, held_here, advice)


def overloaded_message(snapshot: Snapshot, max_waiting: float, held_here: int = 0, words: Words = WORDS) -> str:
    begin = (
        f"pool {snapshot.name!r}: refused at once, {snapshot.waiting} threads are waiting already "
        f"(max_waiting={max_waiting:g})."
    )
    advice = _advice(snapshot, held_here, words)
    advice.append(_COME_AGAIN)
    if not snapshot.paused:
        advice.append(
            f"Only if the server has room for more connections, raise {words.max_size}; only if callers can wait "
            "longer, max_waiting."
        )
    return _message(f"{begin} {_reason(snapshot)}", snapshot, held_here, advice)


def shed_message(snapshot: Snapshot, waited: float, shed: object, held_here: int = 0, words: Words = WORDS) -> str:
    """``shed``: the option, as the reader has set it."""
    begin = (
        f"pool {snapshot.name!r}: turned away after waiting {waited:.2f} s, so that others wait less: for some time "
        f"nobody has been served in time (shed={shed!r})."
    )
    advice = _advice(snapshot, held_here, words)
    advice.append(_COME_AGAIN)
    if not snapshot.paused:
        advice.append(
            f"If this lasts, more is asked than the pool can serve. If the server has room for more connections, raise "
            f"{words.max_size}; else make the queries faster, or ask less."
        )
        advice.append("Only if callers can wait longer, raise the target or the interval of shed.")
    return _message(f"{begin} {_reason(snapshot)}", snapshot, held_here, advice)


def unavailable_message(snapshot: Snapshot, grace: float, background: bool = True) -> str:
    """``background``: does the pool try by itself, or only by those who ask?"""
    begin = (
        f"pool {snapshot.name!r}: refused at once, the database is out of reach. Connects have failed for "
        f"{snapshot.failing_for:.1f} s{_with(snapshot)}, nothing is connected, and nobody waits for it any longer "
        f"(grace={grace:g} s)."
    )
    tries = "The pool goes on trying by itself" if background else "One of those who ask tries again"
    come_again = (
        f"{_COME_AGAIN} {tries}, with growing pauses, and {'' if background else 'the pool '}serves again after the "
        "first connect that succeeds: no restart is needed."
    )
    return _message(begin, snapshot, 0, [_DATABASE_UP, come_again])


def not_ready_message(snapshot: Snapshot, waited: float, ready: int, wanted: int) -> str:
    return (
        f"pool {snapshot.name!r}: {ready} of min_size={wanted:g} connections are there after {waited:.2f} s. "
        f"{_reason(snapshot)} {_counts(snapshot)}.\n"
        "  1. Make sure that the database lets so many in, and answers quickly.\n"
        "  2. Give wait() a longer timeout, or lower min_size."
    )


def connect_failed_message(name: str, cause: BaseException) -> str:
    return (
        f"pool {name!r}: could not connect to the database ({type(cause).__name__}, the cause above). "
        "Check that it is up and reachable, and the user, password and database name."
    )


def nested_message(name: str, size: int) -> str:
    return (
        f"pool {name!r}: refused, for this wait would never end: all {size} connections are held by threads that wait "
        "for this same pool, this one included. Use the connection that the thread already has (connection(), "
        "transaction() and execute() use it, checkout() always takes another one), or give it back first."
    )


def _message(begin: str, snapshot: Snapshot, held_here: int, advice: Iterable[str]) -> str:
    here = f" This thread holds {held_here} itself." if held_here else ""
    lines = [f"{begin} {_counts(snapshot)}.{here}"]
    if snapshot.holders:
        lines.append("Held longest:")
        lines += (f"  {hold}" for hold in snapshot.holders[:3])
    lines.append("What to do:")
    lines += (f"  {n}. {line}" for n, line in enumerate(advice, 1))
    return "\n".join(lines)


def _full(snapshot: Snapshot) -> bool:
    return snapshot.in_use >= snapshot.max_size


def _spent(snapshot: Snapshot) -> bool:
    return snapshot.permits_used >= snapshot.permits and not snapshot.counts.idle


def _failing(snapshot: Snapshot) -> bool:
    return snapshot.connect_error is not None and not _full(snapshot)


def _reason(snapshot: Snapshot, timeout: float = math.inf) -> str:
    counts = snapshot.counts
    if snapshot.paused:
        return "The pool is paused: pause() was called, and resume() was not."
    if _full(snapshot):
        return "All are in use."
    if _failing(snapshot):
        since = f" for {snapshot.failing_for:.1f} s" if snapshot.failing_for else ""
        return f"Connects are failing{since}{_with(snapshot)}."
    if _spent(snapshot):
        own = f"{counts.total} of them by this pool"
        return f"All {snapshot.permits:g} permits of its budget are used, {own}, and none came back in time."
    if counts.opening:
        return "A new connection is being opened, which takes longer than that wait."
    if counts.idle:
        if timeout > 0:
            return "What is idle by now came back just too late."
        return "What is idle needs a round trip first, and a timeout of 0 leaves no time for one."
    if counts.closing and counts.in_use + counts.closing >= counts.max_size:
        return "Connections are being closed, which takes long, and keep their places until then."
    return "Nothing is idle, and a timeout of 0 opens nothing." if timeout <= 0 else "Nothing came free in time."


def _with(snapshot: Snapshot) -> str:
    cause = snapshot.connect_error
    return "" if cause is None else f" with {type(cause).__name__} (the cause of this error)"


def _counts(snapshot: Snapshot) -> str:
    c = snapshot.counts
    size = "unlimited" if c.max_size == math.inf else f"{c.max_size:g}"
    return (
        f"{c.in_use} in use, {c.idle} idle, {c.opening} connecting, {c.closing} closing, max_size {size}; "
        f"still waiting: {c.waiting}"
    )


def _advice(snapshot: Snapshot, held_here: int, words: Words) -> list[str]:
    """What fits this situation, the likeliest help first."""
    if snapshot.paused:
        return ["Find out whether the pause is still wanted, for maintenance or a failover; if not, call resume()."]
    advice = []
    if snapshot.connect_error is not None:
        advice.append(_DATABASE_UP)
    elif _spent(snapshot) and not _full(snapshot):
        advice.append(
            "Look at the other pools of this budget (their stats().holders): who holds connections there, and for how "
            "long? Raise the budget's limit if the servers have room for more."
        )
    elif snapshot.counts.opening and not _full(snapshot):
        advice.append(_slow_connects(snapshot))
    if held_here:
        advice.append(words.use_your_own)
    kept = sum(hold.kept for hold in snapshot.holders)
    if kept:
        advice.append(
            f"Kept for their threads and unused: {kept} in all. End requests with scope(), call release(), or use "
            'checkout="operation".'
        )
    return advice + _about([hold for hold in snapshot.holders[:3] if not hold.kept or hold.in_transaction])


def _slow_connects(snapshot: Snapshot) -> str:
    took = f" (they took {snapshot.connect.mean:.2f} s so far)" if snapshot.connect.count else ""
    return (
        f"Find out why connects take so long{took}: the server's load and log, name resolution, the network. Raise "
        "max_connecting if the server can take more of them at a time."
    )


def _about(holds: list[Hold]) -> list[str]:
    """What those who have had one longest should do otherwise."""
    advice, rest = [], []
    idle_in_transaction, in_statement, silent = [], [], []
    for hold in holds:
        quiet = hold.silent is not None and hold.silent >= LONG
        if hold.in_statement:
            in_statement.append(hold)
        elif hold.in_transaction and (quiet or hold.silent is None):
            idle_in_transaction.append(hold)
        elif quiet and hold.in_transaction is False:
            silent.append(hold)
        else:
            rest.append(hold)
    if idle_in_transaction:
        advice.append(
            f"Idle in transaction: {_names(idle_in_transaction)}. Commit before slow work outside the database, at the "
            "lines above: an open transaction holds its connection, and its locks at the server."
        )
    if silent:
        advice.append(
            f"Held without being used: {_names(silent)}. Give the connection back before slow work outside the "
            "database, at the lines above."
        )
    if in_statement:
        advice.append(
            f"Waiting for the server to answer a statement: {_names(in_statement)}. Find slow queries, and what they "
            "wait for: a lock of another session, a missing index."
        )
    if rest:
        advice.append(
            f"Look at the lines above ({_names(rest)}): is a connection held during slow work outside the database, "
            "or are the queries slow?"
        )
    return advice


def _names(holds: list[Hold]) -> str:
    return ", ".join(dict.fromkeys(hold.thread for hold in holds))
