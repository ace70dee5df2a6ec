"""What does all this mean for a pool? Numbers in, warnings out; nothing is asked here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from threadpool_db.config import PoolConfig

#: the pool's own defaults, which the server's limits are held against
DEFAULTS = PoolConfig()
_CROWDED = 0.8


class Limit(NamedTuple):
    """So many connections may be open, and so many of others are."""

    whose: str
    most: int
    others: int


class Advice(NamedTuple):
    about: str
    message: str


def arithmetic(limits: Sequence[Limit], workers: int, max_size: int) -> Iterator[Advice]:
    """Do the pools fit? Of several limits the tightest one is told, and one that can never be met before all others."""
    if not limits:
        return
    need = workers * max_size
    needed = f"{workers} x {max_size} = {need} connections"
    least = min(limits, key=lambda limit: limit.most)
    limit = least if need > least.most else min(limits, key=lambda limit: limit.most - limit.others)
    free = limit.most - limit.others
    if need > limit.most:
        room = limit.most // workers
        remedy = f"max_size={room} at most" if room else "fewer workers"
        words = f"do not fit: {limit.whose} allows {limit.most}; {remedy}, a higher limit, or a pooler"
    elif need > free:
        words = f"fit in the {limit.most} that {limit.whose} allows, but not beside the {limit.others} that others have"
        words += " open now"
    elif 2 * need > free:
        words = f"fit once in the {free} that {limit.whose} has left, but not twice: in a deployment where old and new"
        words += " workers run side by side, connects will fail"
    else:
        return
    yield Advice("arithmetic", f"{needed} {words}")


def crowding(limits: Iterable[Limit]) -> Iterator[Advice]:
    """Is it nearly full already?"""
    for limit in limits:
        if limit.others >= limit.most * _CROWDED:
            yield Advice(
                "connections", f"{limit.others} of the {limit.most} connections that {limit.whose} allows are in use"
            )


def idle_limit(name: str, seconds: float | None) -> Iterator[Advice]:
    """Does the server end an idle session before the pool does?"""
    ours = DEFAULTS.max_idle
    if seconds is not None and ours is not None and seconds <= ours:
        below = f"{seconds * 0.8:g}"
        yield Advice(
            "timeouts",
            f"{name}: the server ends a session that is idle for {seconds:g} s, the pool keeps one for {ours:g} s "
            f"(max_idle): set max_idle={below}, or keepalive={below} to keep them open",
        )


def pooling(told: object, first: Sequence[object], second: Sequence[object]) -> str | None:
    """Does a pooler stand in front, and of what mode? By the session's name: as the protocol told it at the login, and
    as the session itself answered, transaction after transaction, on two connections.

    A direct server tells one truth three times. One session that answers on both connections, or two that answer on
    one, is a transaction-mode pooler for sure.
    """
    if set(first) & set(second) or len(set(first)) > 1 or len(set(second)) > 1:
        return "transaction"
    return "session" if first and told != first[0] else None


def shown_timeouts(timeouts: Mapping[str, float | None]) -> str:
    """In seconds; what is without limit is named as such at the end."""
    limited = [f"{name} {seconds:g} s" for name, seconds in timeouts.items() if seconds is not None]
    free = [name for name, seconds in timeouts.items() if seconds is None]
    return "; ".join([*limited, *([f"without limit: {', '.join(free)}"] if free else [])])
