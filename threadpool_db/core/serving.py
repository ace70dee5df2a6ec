"""Who waits, who is served next, and with what?

First the events of a borrower in line: he joins it, snatches what is there, leaves, or is put back. Then ``settle``,
which ends all events that make orders, these and those in other rooms: nobody waits while one is idle, nor while one
may be opened. The steps of an event that others need, too, follow at the end.

Roads not taken: waking all and letting them race, as a condition variable suggests (QueuePool, DBUtils: twelve of
sixteen threads get nothing), and a queue of connections instead of a line of waiters (a newcomer overtakes).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from threadpool_db.core.audit import lose
from threadpool_db.core.due import ask, look, next_due, over, overheld, retire
from threadpool_db.core.entry import IDLE, LEASED, OPENING, Entry
from threadpool_db.core.failing import fail_fast
from threadpool_db.core.keeping import put_back
from threadpool_db.core.line import OPEN, PING, USE, WAIT, Orders, Refusal, Step, Ticket
from threadpool_db.core.opening import may_open, reserve, wanted
from threadpool_db.core.shedding import look_at_line, next_look, passed_over, too_late

if TYPE_CHECKING:
    from threadpool_db.core.ledger import Ledger


def join(ledger: Ledger, ticket: Ticket, now: float) -> Orders:
    """A borrower takes a place in line; its ticket may say USE, PING, OPEN or REFUSED at once."""
    orders = Orders()
    arrive(ledger, ticket, now)
    if ledger.closed:
        ticket.refuse(Refusal.CLOSED)
        return orders
    if not ledger.line:
        _line_begins(ledger, now)
    ledger.line[ticket] = None
    settle(ledger, now, orders)
    if ticket.step is WAIT and not admits(ledger, len(ledger.line) - 1, now):
        del ledger.line[ticket]
        ticket.refuse(Refusal.FULL)
    return orders


def snatch(ledger: Ledger, ticket: Ticket, now: float) -> Orders:
    """For a borrower who will not wait: what is idle and needs no round trip, or REFUSED at once."""
    orders = Orders()
    arrive(ledger, ticket, now)
    if now >= ledger.due:
        retire(ledger, now, orders)
    quick = next((e for e in reversed(ledger.idle) if not ledger.fresh.silent(e, now)), None)
    if quick is None:
        ticket.refuse(Refusal.CLOSED if ledger.closed else None)
    else:
        ledger.idle.remove(quick)
        _grant(ledger, ticket, USE, quick, now)
        orders.wake.append(ticket)
    settle(ledger, now, orders)
    return orders


def leave(ledger: Ledger, ticket: Ticket, now: float) -> Orders:
    """A borrower gave up: its time is over, or it was interrupted. What it was granted meanwhile goes on."""
    orders = Orders()
    entry, step = ticket.entry, ticket.step
    ticket.refuse(None)
    if step is WAIT:
        ledger.line.pop(ticket, None)
    elif entry is not None and entry.state is OPENING:
        lose(ledger, entry, now, orders)
    elif entry is not None and entry.state is LEASED and step is not OPEN:
        over(entry, now, orders)
        unlend(ledger, entry, ticket)
        put_back(ledger, entry, now, orders)
    settle(ledger, now, orders)
    return orders


def rejoin(ledger: Ledger, ticket: Ticket, now: float) -> Orders:
    """Whoever served it, or put it into the line, was interrupted halfway: back to its old place."""
    ledger.mended += 1
    return ledger.again(ticket, now)


def again(ledger: Ledger, ticket: Ticket, now: float) -> Orders:
    """What it was granted was taken away before it was used: back to its old place."""
    orders = Orders()
    take_old_place(ledger, ticket, now)
    settle(ledger, now, orders)
    return orders


def settle(ledger: Ledger, now: float, orders: Orders) -> None:
    """Retire what is overdue, then serve the line, oldest first, with what is idle and what may be opened; then
    see to what nobody waits for."""
    overdue = now >= ledger.due
    if overdue:
        retire(ledger, now, orders)
        overheld(ledger, now, orders)
        look(ledger, now, orders)
    look_at_line(ledger, now, orders)
    while (head := ledger.line.head) is not None:
        if ledger.idle:
            if passed_over(ledger, head, now, orders.wake):
                continue
            # off the shelf first, and the ticket last, for whoever reads it uses the entry: an interrupt between
            # leaves an entry that nobody has, never one that two have
            entry = ledger.idle.pop()
            if entry.state is not IDLE:
                continue  # a short way out was interrupted before it took it off the shelf: for the audit
            lend(ledger, entry, head, now)
            del ledger.line[head]
            head.grant(PING if ledger.fresh.silent(entry, now) else USE, entry)
            orders.wake.append(head)
        elif ledger.rules.background:
            break
        elif head.deadline <= now:
            too_late(ledger, head, orders.wake)
        elif may_open(ledger, now):
            entry = reserve(ledger, now)
            del ledger.line[head]  # the ticket last, here too: what is granted to one in line is granted to it again
            _grant(ledger, head, OPEN, entry, now)
            orders.wake.append(head)
        else:
            # nothing but time may help it: the head, and only the head, wakes by itself and calls tick
            moment = ledger.reach.next_at(now)
            for other in (ledger.reach.patient_until, ledger.look_at):
                if now < other < (moment if moment > now else math.inf):
                    moment = other
            if head.wake_at != moment and moment > now:
                head.wake_at = moment
                orders.wake.append(head)
            break
    if overdue:
        ask(ledger, now, orders)
        ledger.due = next_due(ledger, now)
    if ledger.rules.background:
        while ledger.opening < wanted(ledger, now) and may_open(ledger, now):
            orders.open.append(reserve(ledger, now))
    if ledger.line and ledger.reach.failing:
        fail_fast(ledger, now, orders)
    ledger.due = min(ledger.due, next_look(ledger, now))


def _grant(ledger: Ledger, ticket: Ticket, step: Step, entry: Entry, now: float) -> None:
    ticket.grant(step, entry)
    if step is not OPEN:
        lend(ledger, entry, ticket, now)


def lend(ledger: Ledger, entry: Entry, ticket: Ticket, now: float) -> None:
    entry.become(LEASED)
    entry.taken_at = now
    ledger.lent += 1
    if now > ticket.since:
        ledger.wait_times.add(now - ticket.since)


def unlend(ledger: Ledger, entry: Entry, ticket: Ticket | None) -> None:
    """It never came to use: the checkout does not count, or not yet."""
    ledger.lent -= 1
    if ticket is not None and entry.taken_at > ticket.since:
        ledger.wait_times.remove(entry.taken_at - ticket.since)


def _line_begins(ledger: Ledger, now: float) -> None:
    """Nobody waited until now."""
    if ledger.shedding is not None:
        ledger.shedding.begins(now)
    if ledger.watches_size:
        ledger.due = now


def arrive(ledger: Ledger, ticket: Ticket, now: float) -> None:
    ticket.arrival, ticket.since = ledger.arrivals, now
    ledger.arrivals += 1
    ledger.joined += 1


def admits(ledger: Ledger, ahead: int, now: float) -> bool:
    """May one more wait? Those for whom a connect is under way already are in nobody's way."""
    if ledger.rules.background:
        ahead -= ledger.opening
    return ahead < 0 or ledger.overload.admits(ahead, now)


def take_old_place(ledger: Ledger, ticket: Ticket, now: float) -> None:
    if ledger.closed:
        ticket.refuse(Refusal.CLOSED)
        return
    if not ledger.line:
        _line_begins(ledger, now)
    ledger.line.resume(ticket)
