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

This is its state, what it is made of, and what can happen to it: the class reads as a table of contents. Each kind of
event has a room of its own: those that make no order (``shortways``), the line's (``serving``), a connection's
(``fate``), an operator's (``steering``). They are functions that see all of the ledger, as their helpers are: connects
that fail (``reach``, ``failing``), what should be opened and may be (``opening``), what is kept (``keeping``), who in
line goes without (``shedding``), what time brings (``due``), and what interrupts left (``audit``). What follows from an
event for all others is always the same question, and ``settle`` answers it.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from threadpool_db.core import fate, serving, shortways, steering
from threadpool_db.core.audit import audit
from threadpool_db.core.entry import CLOSING, GONE, LEASED, Entry
from threadpool_db.core.line import Line, Orders, Refusal
from threadpool_db.core.opening import wanted
from threadpool_db.core.outage import Server
from threadpool_db.core.overload import MaxWaiting, Overload, Shed
from threadpool_db.core.reach import Reach
from threadpool_db.core.rules import Rules
from threadpool_db.core.serving import settle
from threadpool_db.core.sizing import Counts, Elastic, Sizing
from threadpool_db.core.stats import Histogram

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
        self.draw = draw

        self.entries: set[Entry] = set()  # all that count against max_size
        self.idle: deque[Entry] = deque()  # by last use, the next to go at the right end
        self.shelve = self.idle.append if rules.order == "lifo" else self.idle.appendleft  # at the hot end
        self._sign = 1 if rules.order == "lifo" else -1
        self.line = Line()
        self.opening = self.closing = 0
        self.asking: set[Entry] = set()  # lent to the keeper, which asks whether they are alive
        self.generation = 0
        self.closed = self.paused = False
        self.due = math.inf  # when time alone gives tick something to do, at the latest

        self.arrivals = self.shed_count = 0
        self.joined = self.lent = 0  # of those that came, how many took the long way; and were lent one there
        self.opened_count = self.closures = self.connect_failures = self.dead_count = 0
        self.mended = 0  # how often an audit found what an interrupt had left
        self.wait_times, self.use_times, self.connect_times = Histogram(), Histogram(), Histogram()
        self.adopt(rules)

    def adopt(self, rules: Rules) -> None:
        """Go by these rules from now on, and by all that is derived from them. ``order`` is for life."""
        self.rules = self.reach.rules = rules
        self.fresh = rules.freshness
        # where some are to be kept ready, each one taken may order another connect: the long way
        self.carefree = -math.inf if rules.min_idle or not rules.short_ways else rules.freshness.carefree
        self.unattended = min(rules.freshness.max_idle, rules.freshness.keepalive, rules.holding.patience)
        self.quiet_below = min(rules.max_size, self.sizing.quiet_below(rules.max_size))
        self.base = min(rules.max_size, self.sizing.base(rules.max_size))
        # does nothing but somebody who waits ask for a connect, and no sizing has to say whether it may start?
        self.only_on_demand = not (rules.min_size or rules.min_idle) and type(self.sizing).may_open is Elastic.may_open
        self.weigh()

    # --- Without orders, where nothing more follows -----------------------------------------------------------------

    take, give, hand = shortways.take, shortways.give, shortways.hand
    queue, keep_out = shortways.queue, shortways.keep_out

    # --- A place in line --------------------------------------------------------------------------------------------

    join, snatch, leave = serving.join, serving.snatch, serving.leave
    again, rejoin = serving.again, serving.rejoin

    # --- What has become of a connection ----------------------------------------------------------------------------

    opened, failed, overdue = fate.opened, fate.failed, fate.overdue
    checkin, dead, unwanted, detach = fate.checkin, fate.dead, fate.unwanted, fate.detach
    asked, give_up, revoke, lost = fate.asked, fate.give_up, fate.revoke, fate.lost
    closed_one = fate.closed_one

    # --- What an operator wants -------------------------------------------------------------------------------------

    recycle, clear, take_to_ask = steering.recycle, steering.clear, steering.take_to_ask
    pause, resume = steering.pause, steering.resume
    reconfigure, shed_by = steering.reconfigure, steering.shed_by
    close, cut_off = steering.close, steering.cut_off

    # --- What time brings, and what nobody told ---------------------------------------------------------------------

    def tick(self, now: float) -> Orders:
        """Time has passed: retire, ask, open what had to wait. From ``due`` on there is something to do."""
        orders = Orders()
        settle(self, now, orders)
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
        settle(self, now, orders)
        return orders

    # --- Seen from outside ------------------------------------------------------------------------------------------

    @property
    def checkouts(self) -> int:
        """How many times a connection was lent and kept: the short way, or through the line."""
        return self.arrivals - self.joined + self.lent

    def counts(self) -> Counts:
        total, idle = len(self.entries), len(self.idle)
        in_use = total - idle - self.opening - self.closing  # those that the keeper asks after are in its use
        return Counts(self.rules.max_size, idle, in_use, self.opening, self.closing, len(self.line))

    def wants_connection(self, now: float) -> bool:
        """Is one being opened, or would one be if the pause after a failed connect were over?"""
        return self.opening > 0 or wanted(self, max(now, self.reach.fill_at)) > 0

    def unavailable(self, now: float) -> bool:
        """Is nothing connected, and have connects failed for ``grace``? Then nobody waits."""
        return now >= self.reach.patient_until and len(self.entries) == self.opening + self.closing

    # --- What the rooms do with it ----------------------------------------------------------------------------------

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

    def let_all_idle_go(self, orders: Orders) -> None:
        while self.idle:  # off the shelf first: one interrupted here must not be found there, half let go of
            self.let_go(self.idle.pop(), orders)

    def abandon(self, entry: Entry) -> None:
        """A reserved slot in which nothing was opened."""
        entry.become(GONE)
        self.opening -= 1
        self.forget(entry)

    def forget(self, entry: Entry) -> None:
        self.entries.discard(entry)
        self.weigh()
        if self.permits is not None:
            self.permits.free(self)

    def weigh(self) -> None:
        """How many there are has changed: may ``give`` still answer alone?"""
        few = len(self.entries) <= self.quiet_below
        self.easy = few and not self.paused and self.fresh.max_uses == math.inf

    def refuse(self, many: int, why: Refusal, cause: BaseException | None, orders: Orders) -> None:
        for _ in range(many):
            ticket, _ = self.line.popitem(last=False)
            ticket.refuse(why, cause)
            orders.wake.append(ticket)

    def empty(self, orders: Orders) -> None:
        """Of a closed one: nobody waits, nothing is idle."""
        self.refuse(len(self.line), Refusal.CLOSED, None, orders)
        self.let_all_idle_go(orders)
