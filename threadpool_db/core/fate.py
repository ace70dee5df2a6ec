"""What has become of a connection? It was opened or was not, came back, was found dead, was closed, was lost.

Events of the ledger, told by whoever answers for that connection. Whether one that is to be had again is kept is the
room ``keeping``'s to say, and what follows for those who wait, ``settle``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from threadpool_db.core.audit import lose
from threadpool_db.core.due import over, take_away
from threadpool_db.core.entry import CLOSING, GONE, OPENING, Entry
from threadpool_db.core.failing import take_failure
from threadpool_db.core.keeping import is_unwanted, put_back
from threadpool_db.core.line import USE, Orders, Refusal, Report, Ticket
from threadpool_db.core.serving import lend, settle, take_old_place, unlend

if TYPE_CHECKING:
    from threadpool_db.core.ledger import Ledger


def checkin(ledger: Ledger, entry: Entry, now: float, reusable: bool = True) -> Orders:
    """A lease ended. ``reusable`` False: in a state nobody else should meet, to be closed."""
    orders = Orders()
    over(entry, now, orders)
    entry.uses += 1
    entry.last_used = now
    ledger.use_times.add(now - entry.taken_at)
    if reusable:
        put_back(ledger, entry, now, orders)
    else:
        entry.unfit = True
        ledger.let_go(entry, orders)
    settle(ledger, now, orders)
    return orders


def opened(ledger: Ledger, entry: Entry, now: float, ticket: Ticket | None = None) -> Orders:
    """A connect succeeded, for ``ticket``; None: for the next in line, whoever that is."""
    orders = Orders()
    ledger.opened_count += 1
    ledger.connect_times.add(now - entry.opened_at)
    if entry.state is CLOSING:  # given up meanwhile: see ``overdue``
        orders.close.append(entry)
        return orders
    ledger.opening -= 1
    ledger.reach.succeeded(now)
    entry.opened_at = entry.last_used = entry.asked_at = now
    entry.expires_at = min(entry.expires_at, ledger.fresh.expires_at(now, ledger.draw()))
    ledger.due = now  # one more changes what may be retired, and is to be looked after
    if entry.generation != ledger.generation or is_unwanted(ledger):
        ledger.let_go(entry, orders)
        if ticket is not None:
            take_old_place(ledger, ticket, now)
    elif ticket is not None:
        lend(ledger, entry, ticket, now)
        ticket.step = USE
        orders.wake.append(ticket)
    else:
        put_back(ledger, entry, now, orders)
    settle(ledger, now, orders)
    return orders


def failed(
    ledger: Ledger, entry: Entry, now: float, error: BaseException, ticket: Ticket | None = None, answered: bool = False
) -> Orders:
    """A connect failed. ``ticket``, the one who tried, takes its old place again; None: it went away. ``answered``:
    the server itself said no, to this pool, which is nothing to the other pools of that server.

    A pool that has never connected refuses everybody in line at once: a wrong password is not worth ten seconds.
    Without a backoff nobody retries, ``ticket`` neither.
    """
    orders = Orders()
    if entry.state is CLOSING:  # given up meanwhile: there is nothing to close
        entry.become(GONE)
        ledger.closing -= 1
        ledger.forget(entry)
        settle(ledger, now, orders)
        return orders
    ledger.abandon(entry)
    if ticket is not None and ledger.rules.backoff is not None:
        take_old_place(ledger, ticket, now)
    elif ticket is not None:
        ticket.refuse(Refusal.CONNECT_FAILED, error)
    take_failure(ledger, entry, error, now, orders, answered)
    settle(ledger, now, orders)
    return orders


def overdue(ledger: Ledger, entry: Entry, now: float, error: BaseException) -> Orders:
    """A connect takes too long to wait for. Its slot counts until it ends; what it opens is closed on arrival."""
    orders = Orders()
    if entry.state is OPENING:
        entry.become(CLOSING)
        ledger.opening -= 1
        ledger.closing += 1
        entry.given_up = True
        take_failure(ledger, entry, error, now, orders)
        settle(ledger, now, orders)
    return orders


def asked(ledger: Ledger, entry: Entry, now: float, alive: bool) -> Orders:
    """The keeper asked after an idle connection. That was no use of it: it keeps its place on the shelf."""
    orders = Orders()
    ledger.asking.remove(entry)
    entry.asked_at = now
    if alive:
        put_back(ledger, entry, now, orders)
    else:
        ledger.dead_count += 1
        _let_go_of_silent(ledger, entry, now, orders)
    ledger.due = now  # others may have waited for their turn to be asked
    settle(ledger, now, orders)
    return orders


def dead(ledger: Ledger, entry: Entry, now: float, ticket: Ticket | None) -> Orders:
    """A borrower found its connection dead before using it. ``ticket`` takes its old place in line; None: gone."""
    orders = Orders()
    over(entry, now, orders)
    unlend(ledger, entry, ticket)
    ledger.dead_count += 1
    _let_go_of_silent(ledger, entry, now, orders)
    if ticket is not None:
        take_old_place(ledger, ticket, now)
    settle(ledger, now, orders)
    return orders


def unwanted(ledger: Ledger, entry: Entry, now: float, ticket: Ticket | None) -> Orders:
    """A borrower wants another one in the place of this one, which lives. ``ticket`` takes its old place in line;
    None: gone. If nobody had used it yet, another connect is likely to bring nothing better: it waits its time, as
    after a failed one."""
    orders = Orders()
    unlend(ledger, entry, ticket)
    new = entry.last_used <= entry.opened_at
    entry.last_used = now
    ledger.let_go(entry, orders)
    if new:
        ledger.reach.disappointed(now, ledger.draw())
        ledger.due = min(ledger.due, ledger.reach.fill_at)
    if ticket is not None:
        take_old_place(ledger, ticket, now)
    settle(ledger, now, orders)
    return orders


def closed_one(ledger: Ledger, entry: Entry, now: float) -> Orders:
    """The server has been told: the slot is free."""
    orders = Orders()
    entry.become(GONE)
    ledger.closing -= 1
    ledger.closures += 1
    ledger.forget(entry)
    settle(ledger, now, orders)
    return orders


def detach(ledger: Ledger, entry: Entry, now: float) -> Orders:
    """The borrower keeps the connection for good; it counts no longer."""
    orders = Orders()
    entry.become(GONE)
    ledger.forget(entry)
    settle(ledger, now, orders)
    return orders


def give_up(ledger: Ledger, entry: Entry, now: float) -> Orders:
    """An idle one is closed for another pool's sake, with which permits are shared."""
    orders = Orders()
    ledger.idle.remove(entry)
    ledger.let_go(entry, orders)
    settle(ledger, now, orders)
    return orders


def lost(ledger: Ledger, entry: Entry, now: float) -> Orders:
    """Its lease was dropped without checkin, or whoever worked on it was interrupted: it is closed."""
    orders = Orders()
    lose(ledger, entry, now, orders)
    settle(ledger, now, orders)
    return orders


def revoke(ledger: Ledger, entry: Entry, now: float) -> Orders:
    """Take it away from a borrower who will never give it back."""
    orders = Orders()
    orders.reports.append(Report("lost", entry, now - entry.in_use_since))
    take_away(ledger, entry, now, orders)
    settle(ledger, now, orders)
    return orders


def _let_go_of_silent(ledger: Ledger, dead: Entry, now: float, orders: Orders) -> None:
    """The silent ones are closed with it, not asked one by one: whatever killed this one likely killed them."""
    dead.unfit = True
    ledger.let_go(dead, orders)
    for other in [e for e in ledger.idle if ledger.fresh.silent(e, now)]:
        ledger.idle.remove(other)
        other.unfit = True
        ledger.let_go(other, orders)
