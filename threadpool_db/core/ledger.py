"""Who holds, who waits, what next? The pool's rules as a pure machine.

Events come in with the time, orders go out: the ledger never locks, waits, connects or calls back, so that every state
it can reach can be walked through by a test. The pool calls it under its one lock, opens the gates of those that
``orders.wake`` names before letting go of it, and carries out the other orders afterwards.

What it promises, in every state:
- never more than ``max_size`` connections, those being opened and closed included: a slot is reserved before the
  connect and freed after the close;
- one holder for each connection at most;
- nobody waits while one is idle, nor while one may be opened;
- first come, first served: a newcomer never overtakes, and a borrower whose connection proved dead or whose connect
  failed takes its old place again;
- whatever is let go of is closed exactly once, a connect that was given up too, when it ends at last;
- while it is paused nothing is idle, lent or opened, and whoever comes waits;
- where there is a background, a connect is under way for each who waits and for all that should be kept ready, as soon
  as nothing forbids it; and whoever calls ``tick`` at ``due``, and only then, misses nothing.

These have rooms of their own: connects that fail (``reach``, ``failing``), what should be opened and may be
(``opening``), what is kept (``keeping``), what time brings (``due``), an operator's wishes (``steering``), and what
interrupts left (``audit``).

Two events are short, for the case that pays for everything else: ``take`` when one is idle, fresh and nobody waits,
``give`` when it is still good and nobody waits. They answer without making an order.

Roads not taken: waking all and letting them race, as a condition variable suggests (QueuePool, DBUtils: twelve of
sixteen threads get nothing), and a queue of connections instead of a line of waiters (a newcomer overtakes).
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from threadpool_db.core.audit import audit, lose
from threadpool_db.core.due import ask, look, next_due, over, overheld, retire, take_away
from threadpool_db.core.entry import CLOSING, GONE, IDLE, LEASED, OPENING, Entry
from threadpool_db.core.failing import fail_fast, take_failure
from threadpool_db.core.keeping import is_unwanted, put_back
from threadpool_db.core.line import OPEN, PING, USE, WAIT, Line, Orders, Refusal, Report, Step, Ticket
from threadpool_db.core.opening import may_open, reserve, wanted
from threadpool_db.core.outage import Server
from threadpool_db.core.overload import MaxWaiting, Overload, Shed
from threadpool_db.core.reach import Reach
from threadpool_db.core.rules import Rules
from threadpool_db.core.shedding import first_served, look_at_line, next_look, passed_over, too_late
from threadpool_db.core.sizing import Counts, Elastic, Sizing
from threadpool_db.core.stats import BOUNDS, Histogram
from threadpool_db.core.steering import cut_off, pause, reconfigure, resume, shorten_line, take_to_ask

if TYPE_CHECKING:
    from threadpool_db.core.permits import Permits


class Ledger:
    def __init__(
        self,
        rules: Rules,
        sizing: Sizing | None = None,
        overload: Overload | None = None,
        permits: Permits | None = None,
        server: Server | None = None,
        draw: Callable[[], float] = random.random,
        shed: Shed | None = None,
    ) -> None:
        self.sizing = (sizing or Elastic()).begin()
        self.watches_size = type(self.sizing).look is not Elastic.look
        self.look_at = math.inf  # when the sizing wants to look again
        self.shedding = None if shed is None else shed.begin()
        self.overload = overload or MaxWaiting()
        self.permits = permits
        self.rivals: Collection[object] = () if permits is None else permits.rivals
        self.gave_up_at = -math.inf  # when one was last closed for another pool's sake
        self.reach = Reach(rules, server)
        self._draw = draw

        self.entries: set[Entry] = set()  # all that count against max_size
        self.idle: deque[Entry] = deque()  # by last use, the next to go at the right end
        self._shelve = self.idle.append if rules.order == "lifo" else self.idle.appendleft
        self._sign = 1 if rules.order == "lifo" else -1
        self.line = Line()
        self.opening = self.closing = 0
        self.asking: set[Entry] = set()  # lent to the keeper, which asks whether they are alive
        self.generation = 0
        self.closed = self.paused = False
        self.due = math.inf  # when time alone gives tick something to do, at the latest

        self.arrivals = self._joined = self._lent = self.shed_count = 0
        self.opened_count = self.closures = self.connect_failures = self.dead_count = 0
        self.mended = 0  # how often an audit found what an interrupt had left
        self.wait_times, self.use_times, self.connect_times = Histogram(), Histogram(), Histogram()
        self.adopt(rules)

    def adopt(self, rules: Rules) -> None:
        """Go by these rules from now on, and by all that is derived from them. ``order`` is for life."""
        self.rules = self.reach.rules = rules
        self._fresh = rules.freshness
        # where some are to be kept ready, each one taken may order another connect: the long way
        self._carefree = -math.inf if rules.min_idle or not rules.short_ways else rules.freshness.carefree
        self.unattended = min(rules.freshness.max_idle, rules.freshness.keepalive, rules.holding.patience)
        self._quiet_below = min(rules.max_size, self.sizing.quiet_below(rules.max_size))
        self.base = min(rules.max_size, self.sizing.base(rules.max_size))
        # does nothing but somebody who waits ask for a connect, and no sizing has to say whether it may start?
        self.only_on_demand = not (rules.min_size or rules.min_idle) and type(self.sizing).may_open is Elastic.may_open
        self.weigh()

    # --- The short events -------------------------------------------------------------------------------------------

    def take(self, now: float) -> Entry | None:
        """One that is idle and fresh, if there is one; then nobody waits, for nobody ever does while one is idle."""
        idle = self.idle
        if not idle:
            return None
        entry = idle[-1]
        if now - entry.last_used >= self._carefree or now >= entry.expires_at:
            return None
        # the state first: an interrupt before the pop leaves an entry that says LEASED and has no holder, which can
        # be told apart; a popped entry that still says IDLE could not
        entry.state = LEASED
        entry.taken_at = now
        idle.pop()
        self.arrivals += 1
        return entry

    def give(self, entry: Entry, now: float) -> bool:
        """Take it back, if that is all there is to do; False: nothing was done, ``checkin`` must."""
        if self.line or self.rivals or entry.generation != self.generation or now >= self.due or not self._easy:
            return False
        entry.state = IDLE
        entry.last_used = now
        self._shelve(entry)
        used = now - entry.taken_at
        times = self.use_times  # Histogram.add, without the call
        times.counts[bisect_left(BOUNDS, used)] += 1
        times.total += used
        return True

    def hand(self, entry: Entry, now: float, away: list[Ticket]) -> Ticket | None:
        """Pass it on to the head of the line, if that is all there is to do: open that gate. None: ``checkin`` must.

        It stays LEASED, and changes its holder: ``checkin`` without orders. Where there is shedding, whoever is passed
        over for it is added to ``away``, in either case: open their gates too.
        """
        head = self.line.head
        if (
            head is None
            or head.deadline <= now
            or head.wake_at != math.inf  # it keeps watch for the whole line: the next one must be told to
            or self.rivals
            or entry.generation != self.generation
            or now >= self.due
            or not self._easy
            or not self._carefree
        ):
            return None
        if self.shedding is not None and (not self.rules.background or (head := first_served(self, now, away)) is None):
            return None
        self.use_times.add(now - entry.taken_at)
        entry.last_used = entry.taken_at = now
        head.grant(USE, entry)
        self._lent += 1
        if now > head.since:
            self.wait_times.add(now - head.since)
        del self.line[head]
        if self.shedding is not None:
            self.due = min(self.due, next_look(self, now))
        return head

    def queue(self, ticket: Ticket, now: float) -> bool:
        """Into a line that moves only when something comes back. False: nothing was done, ``join`` must."""
        if self.idle or len(self.entries) < self.rules.max_size or self.closed or now >= self.due:
            return False
        if self.reach.failing_since < math.inf:  # it is ``failing``, said without a call
            return False
        if self.shedding is not None and not self.line:
            return False  # it is to be looked at, from now on
        self._arrive(ticket, now)
        if self._admits(len(self.line), now):
            self.line[ticket] = None
        else:
            ticket.refuse(Refusal.FULL)
        return True

    def keep_out(self, ticket: Ticket, now: float) -> bool:
        """Refuse at once who comes while the database is out of reach. False: nothing was done, ``join`` must: it may
        be time for another connect."""
        reach = self.reach
        if self.closed or now >= reach.fill_at or not self.unavailable(now):
            return False
        self._arrive(ticket, now)
        ticket.refuse(Refusal.UNAVAILABLE, reach.error)
        return True

    # --- The line ---------------------------------------------------------------------------------------------------

    def join(self, ticket: Ticket, now: float) -> Orders:
        """A borrower takes a place in line; its ticket may say USE, PING, OPEN or REFUSED at once."""
        orders = Orders()
        self._arrive(ticket, now)
        if self.closed:
            ticket.refuse(Refusal.CLOSED)
            return orders
        if not self.line:
            self._line_begins(now)
        self.line[ticket] = None
        self._settle(now, orders)
        if ticket.step is WAIT and not self._admits(len(self.line) - 1, now):
            del self.line[ticket]
            ticket.refuse(Refusal.FULL)
        return orders

    def snatch(self, ticket: Ticket, now: float) -> Orders:
        """For a borrower who will not wait: what is idle and needs no round trip, or REFUSED at once."""
        orders = Orders()
        self._arrive(ticket, now)
        if now >= self.due:
            retire(self, now, orders)
        quick = next((e for e in reversed(self.idle) if not self._fresh.silent(e, now)), None)
        if quick is None:
            ticket.refuse(Refusal.CLOSED if self.closed else None)
        else:
            self.idle.remove(quick)
            self._grant(ticket, USE, quick, now)
            orders.wake.append(ticket)
        self._settle(now, orders)
        return orders

    def leave(self, ticket: Ticket, now: float) -> Orders:
        """A borrower gave up: its time is over, or it was interrupted. What it was granted meanwhile goes on."""
        orders = Orders()
        entry, step = ticket.entry, ticket.step
        ticket.refuse(None)
        if step is WAIT:
            self.line.pop(ticket, None)
        elif entry is not None and entry.state is OPENING:
            lose(self, entry, now, orders)
        elif entry is not None and entry.state is LEASED and step is not OPEN:
            over(entry, now, orders)
            self._unlend(entry, ticket)
            put_back(self, entry, now, orders)
        self._settle(now, orders)
        return orders

    # --- Connections ------------------------------------------------------------------------------------------------

    def checkin(self, entry: Entry, now: float, reusable: bool = True) -> Orders:
        """A lease ended. ``reusable`` False: in a state nobody else should meet, to be closed."""
        orders = Orders()
        over(entry, now, orders)
        entry.uses += 1
        entry.last_used = now
        self.use_times.add(now - entry.taken_at)
        if reusable:
            put_back(self, entry, now, orders)
        else:
            entry.unfit = True
            self.let_go(entry, orders)
        self._settle(now, orders)
        return orders

    def opened(self, entry: Entry, now: float, ticket: Ticket | None = None) -> Orders:
        """A connect succeeded, for ``ticket``; None: for the next in line, whoever that is."""
        orders = Orders()
        self.opened_count += 1
        self.connect_times.add(now - entry.opened_at)
        if entry.state is CLOSING:  # given up meanwhile: see ``overdue``
            orders.close.append(entry)
            return orders
        self.opening -= 1
        self.reach.succeeded(now)
        entry.opened_at = entry.last_used = entry.asked_at = now
        entry.expires_at = min(entry.expires_at, self._fresh.expires_at(now, self._draw()))
        self.due = now  # one more changes what may be retired, and is to be looked after
        if entry.generation != self.generation or is_unwanted(self):
            self.let_go(entry, orders)
            if ticket is not None:
                self._resume(ticket, now)
        elif ticket is not None:
            self._lend(entry, ticket, now)
            ticket.step = USE
            orders.wake.append(ticket)
        else:
            put_back(self, entry, now, orders)
        self._settle(now, orders)
        return orders

    def failed(
        self, entry: Entry, now: float, error: BaseException, ticket: Ticket | None = None, answered: bool = False
    ) -> Orders:
        """A connect failed. ``ticket``, the one who tried, takes its old place again; None: it went away. ``answered``:
        the server itself said no, to this pool, which is nothing to the other pools of that server.

        A pool that has never connected refuses everybody in line at once: a wrong password is not worth ten seconds.
        Without a backoff nobody retries, ``ticket`` neither.
        """
        orders = Orders()
        if entry.state is CLOSING:  # given up meanwhile: there is nothing to close
            entry.become(GONE)
            self.closing -= 1
            self._forget(entry)
            self._settle(now, orders)
            return orders
        self.abandon(entry)
        if ticket is not None and self.rules.backoff is not None:
            self._resume(ticket, now)
        elif ticket is not None:
            ticket.refuse(Refusal.CONNECT_FAILED, error)
        take_failure(self, entry, error, now, orders, answered)
        self._settle(now, orders)
        return orders

    def overdue(self, entry: Entry, now: float, error: BaseException) -> Orders:
        """A connect takes too long to wait for. Its slot counts until it ends; what it opens is closed on arrival."""
        orders = Orders()
        if entry.state is OPENING:
            entry.become(CLOSING)
            self.opening -= 1
            self.closing += 1
            entry.given_up = True
            take_failure(self, entry, error, now, orders)
            self._settle(now, orders)
        return orders

    def asked(self, entry: Entry, now: float, alive: bool) -> Orders:
        """The keeper asked after an idle connection. That was no use of it: it keeps its place on the shelf."""
        orders = Orders()
        self.asking.remove(entry)
        entry.asked_at = now
        if alive:
            put_back(self, entry, now, orders)
        else:
            self.dead_count += 1
            self._let_go_of_silent(entry, now, orders)
        self.due = now  # others may have waited for their turn to be asked
        self._settle(now, orders)
        return orders

    def dead(self, entry: Entry, now: float, ticket: Ticket | None) -> Orders:
        """A borrower found its connection dead before using it. ``ticket`` takes its old place in line; None: gone."""
        orders = Orders()
        over(entry, now, orders)
        self._unlend(entry, ticket)
        self.dead_count += 1
        self._let_go_of_silent(entry, now, orders)
        if ticket is not None:
            self._resume(ticket, now)
        self._settle(now, orders)
        return orders

    def unwanted(self, entry: Entry, now: float, ticket: Ticket | None) -> Orders:
        """A borrower wants another one in the place of this one, which lives. ``ticket`` takes its old place in line;
        None: gone. If nobody had used it yet, another connect is likely to bring nothing better: it waits its time, as
        after a failed one."""
        orders = Orders()
        self._unlend(entry, ticket)
        new = entry.last_used <= entry.opened_at
        entry.last_used = now
        self.let_go(entry, orders)
        if new:
            self.reach.disappointed(now, self._draw())
            self.due = min(self.due, self.reach.fill_at)
        if ticket is not None:
            self._resume(ticket, now)
        self._settle(now, orders)
        return orders

    def closed_one(self, entry: Entry, now: float) -> Orders:
        """The server has been told: the slot is free."""
        orders = Orders()
        entry.become(GONE)
        self.closing -= 1
        self.closures += 1
        self._forget(entry)
        self._settle(now, orders)
        return orders

    def detach(self, entry: Entry, now: float) -> Orders:
        """The borrower keeps the connection for good; it counts no longer."""
        orders = Orders()
        entry.become(GONE)
        self._forget(entry)
        self._settle(now, orders)
        return orders

    # --- All of them ------------------------------------------------------------------------------------------------

    def recycle(self, now: float, within: float = 0.0) -> Orders:
        """A new generation: idle connections are closed now, all others when they come back. ``within`` seconds: each
        at a random moment of that time, so that the server is not met by all at once."""
        orders = Orders()
        if within > 0:
            for entry in self.entries:
                entry.expires_at = min(entry.expires_at, now + within * self._draw())
            self.due = now
        else:
            self.generation += 1
            self._let_all_idle_go(orders)
        self._settle(now, orders)
        return orders

    def clear(self, now: float) -> Orders:
        """Close what is idle; what is lent stays good."""
        orders = Orders()
        self._let_all_idle_go(orders)
        self._settle(now, orders)
        return orders

    def close(self, now: float) -> Orders:
        """Refuse whoever waits and whoever comes; close what is idle now and the rest when it comes back."""
        orders = Orders()
        self.closed = True
        self.generation += 1
        self.empty(orders)
        return orders

    def empty(self, orders: Orders) -> None:
        """Of a closed one: nobody waits, nothing is idle."""
        self._refuse(len(self.line), Refusal.CLOSED, None, orders)
        self._let_all_idle_go(orders)

    def cut_off(self, mine: object, now: float) -> Orders:
        """A closed one waits no longer: what is lent is taken away, but for what ``mine``, a holder, has himself."""
        orders = Orders()
        cut_off(self, mine, now, orders)
        self._settle(now, orders)
        return orders

    def pause(self, now: float) -> Orders:
        """Lend and open nothing more: close what is idle now, and the rest when it comes back."""
        orders = Orders()
        pause(self, orders)
        self._settle(now, orders)
        return orders

    def resume(self, now: float) -> Orders:
        """Lend again, to those in line first."""
        orders = Orders()
        resume(self, now)
        self._settle(now, orders)
        return orders

    def reconfigure(self, rules: Rules, now: float, overload: Overload | None = None, renew: bool = False) -> Orders:
        """Other rules from now on; with ``renew`` all connections are replaced, as by ``recycle``. Idle ones beyond the
        new ``max_size`` are closed, coldest first, lent ones when they come back; the line is served, or shortened."""
        orders = Orders()
        reconfigure(self, rules, overload, renew, now, orders)
        self._settle(now, orders)
        if overload is not None:
            shorten_line(self, now, orders)
        return orders

    def shed_by(self, shed: Shed | None, now: float) -> Orders:
        """Other rules about whom to turn away, which know nothing yet; None: nobody."""
        orders = Orders()
        self.shedding = None if shed is None else shed.begin()
        if self.shedding is not None:
            self.shedding.begins(now)
        self._settle(now, orders)
        return orders

    def take_to_ask(self, entry: Entry, now: float) -> bool:
        """Off the shelf for a question, if it is there: then ``asked`` must follow."""
        return take_to_ask(self, entry, now)

    def tick(self, now: float) -> Orders:
        """Time has passed: retire, ask, open what had to wait. From ``due`` on there is something to do."""
        orders = Orders()
        self._settle(now, orders)
        return orders

    def give_up(self, entry: Entry, now: float) -> Orders:
        """An idle one is closed for another pool's sake, with which permits are shared."""
        orders = Orders()
        self.idle.remove(entry)
        self.let_go(entry, orders)
        self._settle(now, orders)
        return orders

    def look_again_at(self, moment: float, now: float) -> Orders:
        """Somebody here waits for what another pool may be asked for from ``moment`` on."""
        orders = Orders()
        if self.rules.background:
            self.due = min(self.due, moment)
        elif (head := self.line.head) is not None and head.wake_at > moment:
            head.wake_at = moment
            orders.wake.append(head)
        return orders

    # --- What nobody answers for any more ---------------------------------------------------------------------------

    def lost(self, entry: Entry, now: float) -> Orders:
        """Its lease was dropped without checkin, or whoever worked on it was interrupted: it is closed."""
        orders = Orders()
        lose(self, entry, now, orders)
        self._settle(now, orders)
        return orders

    def revoke(self, entry: Entry, now: float) -> Orders:
        """Take it away from a borrower who will never give it back."""
        orders = Orders()
        orders.reports.append(Report("lost", entry, now - entry.in_use_since))
        take_away(self, entry, now, orders)
        self._settle(now, orders)
        return orders

    def rejoin(self, ticket: Ticket, now: float) -> Orders:
        """Whoever served it, or put it into the line, was interrupted halfway: back to its old place."""
        self.mended += 1
        return self.again(ticket, now)

    def again(self, ticket: Ticket, now: float) -> Orders:
        """What it was granted was taken away before it was used: back to its old place."""
        orders = Orders()
        self._resume(ticket, now)
        self._settle(now, orders)
        return orders

    def announced(self, entry: Entry, since: float) -> bool:
        """People were told of a use that began ``since``: they are to hear of its end. False: it has ended already."""
        if entry.state is not LEASED or entry.in_use_since != since or entry.is_kept:
            return False
        entry.announce(since)
        return True

    def audit(self, now: float, held: Callable[[Entry], bool]) -> Orders:
        """Look after everything; ``held`` tells whether anybody answers for an entry. See the room ``audit``."""
        orders = Orders()
        audit(self, now, held, orders)
        self._settle(now, orders)
        return orders

    # --- Seen from outside ------------------------------------------------------------------------------------------

    @property
    def checkouts(self) -> int:
        """How many times a connection was lent and kept: the short way, or through the line."""
        return self.arrivals - self._joined + self._lent

    def counts(self) -> Counts:
        total, idle = len(self.entries), len(self.idle)
        in_use = total - idle - self.opening - self.closing  # those that the keeper asks after are in its use
        return Counts(self.rules.max_size, idle, in_use, self.opening, self.closing, len(self.line))

    def wants_connection(self, now: float) -> bool:
        """Is one being opened, or would one be if the pause after a failed connect were over?"""
        return self.opening > 0 or wanted(self, max(now, self.reach.fill_at)) > 0

    # --- The rules --------------------------------------------------------------------------------------------------

    def _arrive(self, ticket: Ticket, now: float) -> None:
        ticket.arrival, ticket.since = self.arrivals, now
        self.arrivals += 1
        self._joined += 1

    def _line_begins(self, now: float) -> None:
        """Nobody waited until now."""
        if self.shedding is not None:
            self.shedding.begins(now)
        if self.watches_size:
            self.due = now

    def _admits(self, ahead: int, now: float) -> bool:
        """May one more wait? Those for whom a connect is under way already are in nobody's way."""
        if self.rules.background:
            ahead -= self.opening
        return ahead < 0 or self.overload.admits(ahead, now)

    def _settle(self, now: float, orders: Orders) -> None:
        """Retire what is overdue, then serve the line, oldest first, with what is idle and what may be opened; then
        see to what nobody waits for."""
        overdue = now >= self.due
        if overdue:
            retire(self, now, orders)
            overheld(self, now, orders)
            look(self, now, orders)
        look_at_line(self, now, orders)
        while (head := self.line.head) is not None:
            if self.idle:
                if passed_over(self, head, now, orders.wake):
                    continue
                # off the shelf first, and the ticket last, for whoever reads it uses the entry: an interrupt between
                # leaves an entry that nobody has, never one that two have
                entry = self.idle.pop()
                if entry.state is not IDLE:
                    continue  # a short way out was interrupted before it took it off the shelf: for the audit
                self._lend(entry, head, now)
                del self.line[head]
                head.grant(PING if self._fresh.silent(entry, now) else USE, entry)
                orders.wake.append(head)
            elif self.rules.background:
                break
            elif head.deadline <= now:
                too_late(self, head, orders.wake)
            elif may_open(self, now):
                entry = reserve(self, now)
                del self.line[head]  # the ticket last, here too: what is granted to one in line is granted to it again
                self._grant(head, OPEN, entry, now)
                orders.wake.append(head)
            else:
                # nothing but time may help it: the head, and only the head, wakes by itself and calls tick
                moment = self.reach.next_at(now)
                for other in (self.reach.patient_until, self.look_at):
                    if now < other < (moment if moment > now else math.inf):
                        moment = other
                if head.wake_at != moment and moment > now:
                    head.wake_at = moment
                    orders.wake.append(head)
                break
        if overdue:
            ask(self, now, orders)
            self.due = next_due(self, now)
        if self.rules.background:
            while self.opening < wanted(self, now) and may_open(self, now):
                orders.open.append(reserve(self, now))
        if self.line and self.reach.failing:
            fail_fast(self, now, orders)
        self.due = min(self.due, next_look(self, now))

    def _grant(self, ticket: Ticket, step: Step, entry: Entry, now: float) -> None:
        ticket.grant(step, entry)
        if step is not OPEN:
            self._lend(entry, ticket, now)

    def _lend(self, entry: Entry, ticket: Ticket, now: float) -> None:
        entry.become(LEASED)
        entry.taken_at = now
        self._lent += 1
        if now > ticket.since:
            self.wait_times.add(now - ticket.since)

    def _unlend(self, entry: Entry, ticket: Ticket | None) -> None:
        """It never came to use: the checkout does not count, or not yet."""
        self._lent -= 1
        if ticket is not None and entry.taken_at > ticket.since:
            self.wait_times.remove(entry.taken_at - ticket.since)

    @property
    def coldest(self) -> Entry:
        """Of the idle ones, the one used least recently."""
        return self.idle[0 if self._sign > 0 else -1]

    def rank(self, entry: Entry) -> float:
        """The shelf is sorted by this."""
        return self._sign * entry.last_used

    def let_go(self, entry: Entry, orders: Orders) -> None:
        entry.become(CLOSING)
        self.closing += 1
        orders.close.append(entry)

    def _let_go_of_silent(self, dead: Entry, now: float, orders: Orders) -> None:
        """The silent ones are closed with it, not asked one by one: whatever killed this one likely killed them."""
        dead.unfit = True
        self.let_go(dead, orders)
        for other in [e for e in self.idle if self._fresh.silent(e, now)]:
            self.idle.remove(other)
            other.unfit = True
            self.let_go(other, orders)

    def _let_all_idle_go(self, orders: Orders) -> None:
        while self.idle:  # off the shelf first: one interrupted here must not be found there, half let go of
            self.let_go(self.idle.pop(), orders)

    def abandon(self, entry: Entry) -> None:
        """A reserved slot in which nothing was opened."""
        entry.become(GONE)
        self.opening -= 1
        self._forget(entry)

    def unavailable(self, now: float) -> bool:
        """Is nothing connected, and have connects failed for ``grace``? Then nobody waits."""
        return now >= self.reach.patient_until and len(self.entries) == self.opening + self.closing

    def _forget(self, entry: Entry) -> None:
        self.entries.discard(entry)
        self.weigh()
        if self.permits is not None:
            self.permits.free(self)

    def weigh(self) -> None:
        """How many there are has changed: may ``give`` still answer alone?"""
        few = len(self.entries) <= self._quiet_below
        self._easy = few and not self.paused and self._fresh.max_uses == math.inf

    def _resume(self, ticket: Ticket, now: float) -> None:
        if self.closed:
            ticket.refuse(Refusal.CLOSED)
            return
        if not self.line:
            self._line_begins(now)
        self.line.resume(ticket)

    def _refuse(self, many: int, why: Refusal, cause: BaseException | None, orders: Orders) -> None:
        for _ in range(many):
            ticket, _ = self.line.popitem(last=False)
            ticket.refuse(why, cause)
            orders.wake.append(ticket)
