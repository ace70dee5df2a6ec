"""What becomes of the ledger's orders? Jobs, noted under the lock, and done when it is released.

Nothing of an order may get lost on the way from one to the other: a job left undone is a slot that nobody gets.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from threadpool_db.aftermath import read_mailbox
from threadpool_db.core.entry import Entry
from threadpool_db.core.line import WAIT, Orders
from threadpool_db.lease import Errand
from threadpool_db.telling import tell, tell_of_outage
from threadpool_db.waiting import Waiter

if TYPE_CHECKING:
    from threadpool_db.pool import ConnectionPool

Job = Callable[[], None]


def take_orders(pool: ConnectionPool[Any], orders: Orders, jobs: deque[Job], apart: bool = False) -> None:
    """Under the lock: read the mail, wake whom it concerns, and note what is to be done outside. ``apart``: closes by
    workers, where there are any: a borrower who finds something to close has a deadline of his own."""
    mail = read_mailbox(pool, orders)
    for ticket in orders.wake:
        assert isinstance(ticket, Waiter)
        if ticket.step is not WAIT:
            # who was granted something no longer waits, although he has yet to wake up. Never the other way round:
            # whoever is told to wake at another time may have woken just now, to give up
            ticket.holder.waiting = False
            if ticket.entry is not None:
                ticket.claim = pool._send_out(ticket.entry)
        ticket.gate.open()
    if pool._ledger.reach.failing or pool._out_since < math.inf:
        tell_of_outage(pool, jobs)
    for report in orders.reports:
        pool._lost += report.kind == "lost"
        pool._expired += report.kind == "expired"
    background, errand = pool._background, pool._errand
    # first what others do: it must not wait for our slow closes
    jobs.extendleft(functools.partial(background.order_open, errand(entry)) for entry in orders.open)
    jobs.extendleft(functools.partial(background.order_ask, errand(entry)) for entry in orders.ask)
    if apart and pool._config.background:
        jobs.extendleft(functools.partial(background.order_close, errand(entry)) for entry in orders.close)
    else:
        jobs.extend(functools.partial(close_one, pool, errand(entry), jobs) for entry in orders.close)
    jobs.extend(functools.partial(tell, pool, report) for report in orders.reports)
    jobs.extend(mail)


def do_jobs(pool: ConnectionPool[Any], jobs: deque[Job]) -> None:
    """Outside the lock, all of them, whatever strikes in between."""
    interrupt: BaseException | None = None
    while jobs:
        try:
            pool._onlookers.open()
            jobs.popleft()()
        except BaseException as failure:
            interrupt = interrupt or failure  # a job left undone would be a slot lost: first the rest
    pool._onlookers.open()
    if interrupt is not None:
        try:
            raise interrupt
        finally:
            interrupt = None  # or it and this frame would keep each other, and all our callers' frames, alive


def close_one(pool: ConnectionPool[Any], errand: Errand, jobs: deque[Job]) -> None:
    """Its slot is free only after the close, and what that frees may order more, which is added to ``jobs``, by all of
    them: a list of its own, of which these were copies, was once what the second of two closes added to."""
    entry = errand.entry
    error: BaseException | None = None
    done = False
    try:
        error = pool._upkeep.close(entry)
        done = True  # one that was taken away may be left open on purpose, as long as its borrower uses it
    finally:
        # else interrupted before it began: whoever finds the errand lost closes it
        if done or entry.connection is None:
            try:
                # What is closed next for others is done by others: or who began with one would go on for them all.
                shared = pool._budget is not None
                pool._decide(pool._ledger.closed_one, entry, bearer=errand, jobs=jobs, apart=shared)
            finally:
                tell_of_end(pool, entry, error=error)
        error = None  # it knows this frame by its traceback: a circle that would keep all our callers' frames alive


def tell_of_start(pool: ConnectionPool[Any], entry: Entry, seconds: float) -> None:
    entry.told = True  # first: an interrupt in an observer must not keep the end from those who heard of the start
    pool._observers.tell("connected", seconds)


def tell_of_end(pool: ConnectionPool[Any], entry: Entry, detail: str = "", error: BaseException | None = None) -> None:
    """Once, though whoever closed it was interrupted and somebody else comes to close it again."""
    if entry.told:
        entry.told = False
        pool._observers.tell("disconnected", pool._now() - entry.opened_at, detail, error)
