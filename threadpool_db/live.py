"""What can an operator change while it runs? Pause and resume, wait, check, other settings, and in the end close.

The bodies of the pool's methods of these names. The ledger decides, at once and under the lock, what becomes of
everybody; this room tells it, and sleeps where its caller is to wait for what follows: at a gate of its own, which the
pool opens whenever something has changed the long way. Nobody polls.

``close`` in its order: newcomers are refused, those in line are woken to hear it, what is idle is closed; whoever has a
connection has until the deadline to give it back; then it is cut, as at ``max_lease``. Roads not taken: to leave it to
its borrower for ever (psycopg_pool), for then a stuck statement outlives the pool; to cut it at once (HikariCP), for
then a rolling restart fails what would have ended in a second.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from threadpool_db.config import PoolConfig, check_timeout
from threadpool_db.core.entry import CLOSING, IDLE, LEASED
from threadpool_db.core.line import Orders, Refusal
from threadpool_db.core.overload import MaxWaiting
from threadpool_db.errors import PoolClosed, PoolError, PoolTimeout, PoolUnavailable
from threadpool_db.observe import release_name
from threadpool_db.refusal import not_ready_message, unavailable_message
from threadpool_db.telling import snapshot

if TYPE_CHECKING:
    from threadpool_db.pool import ConnectionPool

#: What a pool is made of cannot be changed: option -> why.
FIXED = {
    "alarms": "a trouble under way has been judged by them so far",
    "autocommit": "each connection was made in its mode, and what borrowers expect of it is in their code",
    "background": "its waiters count on whoever connects for them",
    "budget": "its lock is the pool's own",
    "checkout": "threads keep connections, or do not, and their code counts on it",
    "clock": "its lock and its gates are of that clock",
    "configure": "its driver has it already; a callable can look up what it returns each time",
    "name": "metrics and logs know it by that name",
    "on_alarm": "who was told that trouble began is to be told of its end",
    "on_checkin": "some connections would have met one hook and not the other",
    "on_checkout": "some connections would have met one hook and not the other",
    "on_clear": "who was told that trouble began is to be told of its end",
    "on_close": "some connections would have met one hook and not the other",
    "on_connect": "some connections would have met one hook and not the other",
    "reset": "connections that were not watched so far could not be cleaned",
    "server_pooler": "what its connections have been told would stay in the pooler's sessions",
    "sizing": "it keeps what it has counted",
    "stats_dir": "others read there",
}
#: A session is told these when it is made: other connections.
RENEWING = ("init_sql", "isolation", "read_only")


@dataclass(frozen=True)
class Checked:
    """What ``check`` found: so many idle ones were asked, so many of them were alive and dead; ``busy`` were lent, and
    so in use; ``unasked`` were closed with a dead one, having been silent as long, or were left when time was over."""

    asked: int = 0
    alive: int = 0
    dead: int = 0
    busy: int = 0
    unasked: int = 0


# --- Pause and resume -------------------------------------------------------------------------------------------------


def pause(pool: ConnectionPool[Any], timeout: float) -> bool:
    check_timeout(timeout)
    _refuse_closed(pool)
    pool._upkeep.limits_closes = True
    pool._do(pool._decide(pool._ledger.pause, apart=True))
    mine = _holder(pool)
    _watch(pool, lambda: not pool._ledger.paused or _left_to(pool, mine), pool._now() + timeout)
    return pool._ledger.paused and not pool._ledger.entries


def resume(pool: ConnectionPool[Any]) -> None:
    _refuse_closed(pool)
    pool._upkeep.limits_closes = pool._upkeep.limits_all_closes
    pool._tell(pool._ledger.resume)


# --- Other settings ---------------------------------------------------------------------------------------------------


def reconfigure(pool: ConnectionPool[Any], changes: dict[str, Any]) -> list[str]:
    _refuse_closed(pool)
    told: list[str] = []

    def change(now: float) -> Orders:
        # All of it under the lock, for two may reconfigure at once. What may raise comes first.
        old, ledger = pool._config, pool._ledger
        config = PoolConfig.from_options({**_options(old), **changes})
        if pool._budget is not None:
            pool._budget.afford(int(config.min_size), pool._clock, but=ledger)
        changed = [name for name in changes if getattr(config, name) != getattr(old, name)]
        for name in changed:
            if name in FIXED:
                raise ValueError(f"{name}: cannot be changed while the pool runs: {FIXED[name]}; make a new pool")
        if not changed:
            return Orders()
        pool._upkeep.follow(config)
        pool._config = config
        pool._follow(config)
        pool._background.follow(config)
        pool._observers.follow(config.observers)
        pool._lookout = pool._lookout or pool._listen()
        reach = ledger.reach
        reach.server = None if config.backoff is None else reach.server or pool._upkeep.outage()
        overload = MaxWaiting(_or_inf(config.max_waiting)) if "max_waiting" in changed else None
        renew = any(name in changed for name in RENEWING)
        orders = ledger.reconfigure(pool._rules(), now, overload, renew)
        if "shed" in changed:
            orders.add(ledger.shed_by(config.shed, now))
        for name in changed:
            what = (
                name if name == "init_sql" else f"{name} {_said(getattr(old, name))} -> {_said(getattr(config, name))}"
            )
            told.append(what + _consequences(name, config, orders, pool))
        return orders

    pool._do(pool._decide(change, apart=True))
    return told


def _consequences(name: str, config: PoolConfig, orders: Orders, pool: ConnectionPool[Any]) -> str:
    """Of one change, as far as it is seen at once."""
    counts, closed = pool._ledger.counts(), len(orders.close)
    refused = sum(ticket.refusal is Refusal.FULL for ticket in orders.wake)
    served = sum(ticket.entry is not None for ticket in orders.wake)
    parts = []
    if closed and name in (*RENEWING, "max_size", "max_idle", "max_lifetime"):
        parts.append(f"{closed} idle {'one' if closed == 1 else 'ones'} closed")
    if name in RENEWING or name == "max_size":
        later = counts.in_use + counts.opening
        if name == "max_size":
            later = min(later, counts.total - counts.closing - int(min(config.max_size, counts.total)))
        if later > 0:
            parts.append(f"{later} {'closes as it comes' if later == 1 else 'more close as they come'} back")
    if refused and name == "max_waiting":
        parts.append(f"{refused} of those in line refused")
    if served and name == "max_size":
        parts.append(f"{served} of those in line served")
    if orders.open and name in ("max_size", "min_size", "min_idle"):
        parts.append(f"{len(orders.open)} being opened")
    return f": {', '.join(parts)}" if parts else ""


def _options(config: PoolConfig) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def _said(value: object) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else repr(value)


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value


# --- Wait and check ---------------------------------------------------------------------------------------------------


def wait_until_ready(pool: ConnectionPool[Any], timeout: float | None, frame: FrameType) -> None:
    timeout = _patience(pool, timeout)
    start = pool._now()
    deadline = start + timeout
    if not _connected(pool):
        # whoever borrows is told what there is to tell: at once of a first connect that failed, or of an open breaker
        pool.checkout(timeout, _frame=frame).checkin()

    def ready() -> bool:
        _refuse_closed(pool)
        there = _connected(pool) >= pool._config.min_size and not pool._ledger.paused
        return there or pool._ledger.unavailable(pool._now())

    while not ready():
        # a breaker opens by time alone
        moment = pool._ledger.reach.patient_until
        until = min(deadline, moment) if moment > pool._now() else deadline
        if not _watch(pool, ready, until) and pool._now() >= deadline:
            raise PoolTimeout(
                not_ready_message(
                    numbers := pool.stats(), pool._now() - start, _connected(pool), pool._config.min_size
                ),
                numbers,
            ) from pool._ledger.reach.error
    if pool._ledger.unavailable(pool._now()):
        numbers = snapshot(pool)
        refused: PoolError = PoolUnavailable(
            unavailable_message(numbers, pool._config.grace, pool._config.background), numbers
        )
        raise refused from numbers.connect_error


def check_idle(pool: ConnectionPool[Any], timeout: float | None) -> Checked:
    deadline = pool._now() + _patience(pool, timeout)
    with pool._lock:
        ledger = pool._ledger
        todo = sorted(ledger.idle, key=lambda entry: entry.last_used)  # what has been silent longest
        busy = ledger.counts().in_use
    asked = alive = unasked = 0
    for number, entry in enumerate(todo):
        if pool._now() >= deadline:
            unasked += len(todo) - number
            break
        with pool._lock:
            errand = pool._errand(entry) if ledger.take_to_ask(entry, pool._now()) else None
            busy += errand is None and entry.state is LEASED
            unasked += errand is None and entry.state is not LEASED
        if errand is None:
            continue
        asked += 1
        answer = False
        try:
            # one that our deadline cuts short is of no more use: its answer may still come, to somebody else
            answer = pool._upkeep.fit(entry, entry.autocommit, deadline, ask=True)
        finally:
            pool._tell(ledger.asked, entry, bearer=errand, alive=answer)
        alive += answer
        if not answer:
            pool._observers.tell("dead", pool._now() - entry.last_used, "found dead by check()")
    return Checked(asked, alive, asked - alive, busy, unasked)


# --- Close ------------------------------------------------------------------------------------------------------------


def shut_down(pool: ConnectionPool[Any], timeout: float) -> None:
    check_timeout(timeout)
    ledger = pool._ledger
    first = False

    def shut(now: float) -> Orders:
        nonlocal first
        first = not ledger.closed
        return ledger.close(now) if first else Orders()

    pool._upkeep.limits_closes = True
    jobs = pool._decide(shut, apart=True)
    if not first:
        return
    release_name(pool.name, pool)
    mine = _holder(pool)
    deadline = pool._now() + timeout
    pool._do(jobs)
    pool._tell(pool._audit)
    pool._observers.close()
    if not _watch(pool, lambda: _left_to(pool, mine), deadline):
        pool._do(pool._decide(ledger.cut_off, mine, apart=True))
    if pool._config.background:  # else what we had to close is closed, and what others have to is in their hands
        until = pool._now() + pool._config.check_timeout
        _watch(pool, lambda: all(entry.state is not CLOSING for entry in ledger.entries), until)


def let_run_out(pool: ConnectionPool[Any], timeout: float) -> None:
    """As ``shut_down``, for lent connections that are not the pool's to cut: they are closed when they come back."""
    release_name(pool.name, pool)
    pool._tell(pool._ledger.close)
    _watch(pool, lambda: not pool._ledger.entries, pool._now() + timeout)
    pool._observers.close()


# --- What they share --------------------------------------------------------------------------------------------------


def _watch(pool: ConnectionPool[Any], done: Callable[[], bool], deadline: float) -> bool:
    """Sleep until it is ``done``, which is asked under the lock; False: the deadline came first."""
    with pool._onlookers.one(pool._clock) as gate:
        while True:
            with pool._lock:
                if done():
                    return True
            if pool._mailbox.notes:  # not otherwise: what we tell the pool wakes all who watch it, us too
                pool._tell(pool._ledger.tick)
            elif pool._now() >= deadline:
                return False
            else:
                gate.sleep(pool._clock, deadline)


def _left_to(pool: ConnectionPool[Any], mine: object) -> bool:
    """Is nothing there any more but what only this thread could give back?"""
    return all(entry.state is LEASED and mine is not None and entry.holder is mine for entry in pool._ledger.entries)


def _connected(pool: ConnectionPool[Any]) -> int:
    with pool._lock:
        return sum(entry.state is IDLE or entry.state is LEASED for entry in pool._ledger.entries)


def _holder(pool: ConnectionPool[Any]) -> object:
    return pool._here.__dict__.get("holder")


def _patience(pool: ConnectionPool[Any], timeout: float | None) -> float:
    _refuse_closed(pool)
    if timeout is not None:
        check_timeout(timeout)
    return pool._timeout if timeout is None else timeout


def _refuse_closed(pool: ConnectionPool[Any]) -> None:
    if pool._ledger.closed:
        raise PoolClosed(f"pool {pool.name!r} is closed; create another one")
