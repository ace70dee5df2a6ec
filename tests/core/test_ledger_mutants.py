"""Would the walk notice? Each rule of the ledger is broken on purpose once, and the walk must find it.

A mutant is a change of source text: when the text is edited so that a mutant no longer fits, its test fails, and asks
for the rule's new place. ``by`` is the promise that must catch it, ``world`` the small world in which it does.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.core.promises import Broken
from tests.core.test_ledger_walk import ENDLESS, SETTINGS
from tests.core.walk import Edit, NotFound, load, walk

WORLDS = {setting.name: setting for setting in [*SETTINGS, *ENDLESS]}
LEDGER, LINE, FRESHNESS, SIZING, DUE = "ledger", "line", "freshness", "sizing", "due"
HOLDING, ENTRY, STEERING = "holding", "entry", "steering"
SHEDDING, OVERLOAD, SOJOURN = "shedding", "overload", "sojourn"
REACH, OPENING, FAILING, KEEPING = "reach", "opening", "failing", "keeping"


class Mutant(NamedTuple):
    name: str
    by: str
    room: str
    old: str
    new: str
    world: str = "two slots"


SETTLES = "        self._settle(now, orders)\n        return orders\n"

MUTANTS = [
    # --- how many
    Mutant(
        "closing ones are forgotten in the count", "capacity", OPENING,
        "if len(ledger.entries) >= rules.max_size or",
        "if len(ledger.entries) - ledger.closing >= rules.max_size or",
    ),
    Mutant(
        "the slot is free before the close", "closed once", LEDGER,
        "        entry.become(CLOSING)\n        self.closing += 1\n        orders",
        "        entry.become(CLOSING)\n        entry.become(GONE)\n        self.closing += 1\n        orders",
    ),
    Mutant(
        "one slot too many", "capacity", OPENING,
        "len(ledger.entries) >= rules.max_size", "len(ledger.entries) > rules.max_size",
    ),
    Mutant(
        "connects are not limited", "connect limit", OPENING,
        " or ledger.opening >= rules.max_connecting:", ":", "fifo, one connect at a time",
    ),
    Mutant(
        "a failed connect is still being opened", "counts", LEDGER,
        "        entry.become(GONE)\n        self.opening -= 1\n", "        entry.become(GONE)\n",
    ),
    # --- nobody waits needlessly
    Mutant(
        "a freed slot is offered to nobody", "no needless waiting", LEDGER,
        "        self.closures += 1\n        self._forget(entry)\n        self._settle(now, orders)\n",
        "        self.closures += 1\n        self._forget(entry)\n",
    ),
    Mutant(
        "a connection given back is offered to nobody", "no needless waiting", LEDGER,
        "            self.let_go(entry, orders)\n" + SETTLES + "\n    def opened",
        "            self.let_go(entry, orders)\n        return orders\n\n    def opened",
    ),
    Mutant(
        "the short way back passes the line by", "no needless waiting", LEDGER,
        "if self.line or self.rivals or", "if self.rivals or",
    ),
    Mutant(
        "a late connection is for nobody", "closed for a reason", LEDGER,
        "            orders.wake.append(ticket)\n        else:\n            put_back(self, entry, now, orders)\n",
        "            ticket.step = USE\n",
    ),
    Mutant(
        "a detached one leaves its slot behind", "no needless waiting", LEDGER,
        "        entry.become(GONE)\n        self._forget(entry)\n" + SETTLES,
        "        entry.become(GONE)\n        self._forget(entry)\n        return orders\n",
    ),
    Mutant(
        "a snatch looks at the first only", "no needless waiting", LEDGER,
        "for e in reversed(self.idle) if", "for e in list(self.idle)[-1:] if", "a smallest size, fifo",
    ),
    # --- first come, first served
    Mutant(
        "who comes back into line is the last", "in order", LINE,
        "        for other in (ticket, *reversed(older)):\n            self.move_to_end(other, last=False)\n", "",
    ),
    Mutant(
        "who comes back into line is the first", "in order", LINE,
        "(ticket, *reversed(older))", "(ticket,)",
    ),
    Mutant(
        "the last in line is served first", "in order", LINE,
        "next(iter(self), None)", "next(reversed(self), None)",
    ),
    # --- everybody is told
    Mutant(
        "a grant is not told", "told", LEDGER,
        "else USE, entry)\n                orders.wake.append(head)\n", "else USE, entry)\n",
    ),
    Mutant(
        "a refusal is not told", "told", LEDGER,
        "            ticket.refuse(why, cause)\n            orders.wake.append(ticket)\n",
        "            ticket.refuse(why, cause)\n",
    ),
    Mutant(
        "the head sleeps through the backoff", "wakes by itself", LEDGER,
        "                    head.wake_at = moment\n", "                    pass\n", "backoff",
    ),
    Mutant(
        "a new time to wake is not told", "told", LEDGER,
        "                    head.wake_at = moment\n                    orders.wake.append(head)\n",
        "                    head.wake_at = moment\n", "backoff",
    ),
    # --- one holder
    Mutant(
        "lent, and still on the shelf", "one holder", LEDGER,
        "        entry.taken_at = now\n        idle.pop()\n", "        entry.taken_at = now\n",
    ),
    Mutant(
        "who gave up keeps what he was granted", "one holder", LEDGER,
        "            self._unlend(entry, ticket)\n            put_back(self, entry, now, orders)\n",
        "            self._unlend(entry, ticket)\n",
    ),
    Mutant(
        "who gave up leaves his empty slot behind", "one holder", LEDGER,
        "        elif entry is not None and entry.state is OPENING:\n            lose(self, entry, now, orders)\n", "",
    ),
    Mutant(
        "who came too late gives up another one's slot", "closed once", LEDGER,
        "elif entry is not None and entry.state is OPENING:", "elif entry is not None and step is OPEN:",
    ),
    Mutant(
        "who came too late gives back what is another one's", "one holder", LEDGER,
        " and entry.state is LEASED and step is not OPEN:", " and entry.state is LEASED:",
    ),
    Mutant(
        "who left a dead one gives it back", "never trips", LEDGER,
        " and entry.state is LEASED and step is not OPEN:", " and step is not OPEN:",
    ),
    # --- closing
    Mutant(
        "let go of, never ordered closed", "closed once", LEDGER,
        "        self.closing += 1\n        orders.close.append(entry)\n", "        self.closing += 1\n",
    ),
    Mutant(
        "ordered closed twice", "closed once", LEDGER,
        "        self.closing += 1\n        orders.close.append(entry)\n",
        "        self.closing += 1\n        orders.close += [entry, entry]\n",
    ),
    Mutant(
        "who gave up costs a connection", "closed for a reason", LEDGER,
        "            self._unlend(entry, ticket)\n            put_back(self, entry, now, orders)\n",
        "            self._unlend(entry, ticket)\n            self.let_go(entry, orders)\n",
    ),
    Mutant(
        "clear ends what is lent, too", "closed for a reason", LEDGER,
        'what is lent stays good."""\n', 'what is lent stays good."""\n        self.generation += 1\n',
    ),
    Mutant(
        "a dead one takes the living with it", "closed for a reason", LEDGER,
        "for other in [e for e in self.idle if self._fresh.silent(e, now)]:", "for other in list(self.idle):",
    ),
    Mutant(
        "clear closes nothing", "not kept", LEDGER,
        "        self._let_all_idle_go(orders)\n" + SETTLES + "\n    def close(", SETTLES + "\n    def close(",
    ),
    # --- generations and closing time
    Mutant(
        "the short way back asks for no generation", "not kept", LEDGER,
        "if self.line or self.rivals or entry.generation != self.generation or", "if self.line or self.rivals or",
    ),
    Mutant(
        "the long way back asks for no generation", "not kept", KEEPING,
        "if entry.generation != ledger.generation or ledger._fresh.worn(entry, now):",
        "if ledger._fresh.worn(entry, now):",
    ),
    Mutant(
        "a connect that recycle overtook is used", "fresh", LEDGER,
        "        if entry.generation != self.generation or is_unwanted(self):\n",
        "        if is_unwanted(self):\n",
    ),
    Mutant(
        "recycle spares the idle ones", "not kept", LEDGER,
        "            self.generation += 1\n            self._let_all_idle_go(orders)\n",
        "            self.generation += 1\n",
    ),
    Mutant(
        "a closed pool takes back into line", "closed", LEDGER,
        "            ticket.refuse(Refusal.CLOSED)\n            return\n        if not self.line",
        "            pass\n        if not self.line",
    ),
    Mutant(
        "a closed pool lets newcomers in", "closed", LEDGER,
        "        if self.closed:\n            ticket.refuse(Refusal.CLOSED)\n            return orders\n", "",
    ),
    Mutant(
        "close forgets who waits", "closed", LEDGER,
        "        self._refuse(len(self.line), Refusal.CLOSED, None, orders)\n", "",
    ),
    # --- freshness
    Mutant(
        "lent the short way without a question", "fresh", LEDGER,
        "now - entry.last_used >= self._carefree or ", "", "silence",
    ),
    Mutant(
        "giving up a silent one counts as use", "fresh", LEDGER,
        "            self._unlend(entry, ticket)\n",
        "            self._unlend(entry, ticket)\n            entry.last_used = now\n", "silence",
    ),
    Mutant(
        "nobody is ever told to ask", "fresh", LEDGER,
        "PING if self._fresh.silent(entry, now) else USE", "USE", "silence",
    ),
    Mutant(
        "a lifetime's end is not seen on the way out", "fresh", LEDGER,
        " or now >= entry.expires_at:", ":", "lifetimes",
    ),
    Mutant(
        "due is ignored on the way back", "not kept", LEDGER,
        " or now >= self.due or not self._easy", " or not self._easy", "lifetimes",
    ),
    Mutant(
        "one whose time ended while lent is kept", "not kept", DUE,
        "            entry.generation = -1", "            pass", "lifetimes",
    ),
    Mutant(
        "due is for ever", "retired in time", DUE,
        "return min((moment for moment in moments if moment > now), default=math.inf)", "return math.inf",
        "lifetimes",
    ),
    Mutant(
        "due forgets the lifetimes", "retired in time", DUE,
        "moments += (entry.expires_at, now + ledger.unattended)", "moments.append(now + ledger.unattended)",
        "lifetimes",
    ),
    Mutant(
        "a connection's uses are not counted", "not kept", LEDGER,
        "        entry.uses += 1\n", "", "two uses each",
    ),
    Mutant(
        "the short way back does not count uses", "not kept", LEDGER,
        " and self._fresh.max_uses == math.inf", "", "two uses each",
    ),
    Mutant(
        "max_idle goes below the smallest size", "closed for a reason", DUE,
        "if spare <= 0 or now < entry.last_used", "if now < entry.last_used", "a smallest size, fifo",
    ),
    Mutant(
        "all that is spare is closed, and more", "closed for a reason", DUE,
        "            spare -= 1\n", "", "a smallest size, fifo",
    ),
    Mutant(
        "fixed is not", "closed for a reason", SIZING,
        "        return max_size\n\n\n@dataclass(frozen=True)\nclass Overflow",
        "        return min_size\n\n\n@dataclass(frozen=True)\nclass Overflow", "fixed",
    ),
    Mutant(
        "a worn one is good as long as it is used", "not kept", FRESHNESS,
        "return now >= entry.expires_at or entry.uses", "return entry.uses", "lifetimes",
    ),
    Mutant(
        "an unused one goes to the hot end", "shelf in order", KEEPING,
        "        ledger.idle.insert(bisect_right(ledger.idle, ledger.rank(entry), key=ledger.rank), entry)\n",
        "        ledger._shelve(entry)\n", "silence",
    ),
    Mutant(
        "the shelf is upside down", "shelf in order", LEDGER,
        'self.idle.append if rules.order == "lifo"', 'self.idle.append if rules.order == "fifo"', "silence",
    ),
    # --- overflow, overload, failures, budgets
    Mutant(
        "overflow is kept", "not kept", SIZING,
        "return not self.linger and counts.total - counts.closing >", "return False and 0 >", "overflow",
    ),
    Mutant(
        "overflow counts those on their way out", "closed for a reason", SIZING,
        "return not self.linger and counts.total - counts.closing > ", "return not self.linger and counts.total > ",
        "overflow",
    ),
    Mutant(
        "one more may wait than may", "refusals", LEDGER,
        "return ahead < 0 or self.overload.admits(ahead, now)",
        "return ahead < 0 or self.overload.admits(ahead - 1, now)",
        "one may wait",
    ),
    Mutant(
        "who was handed one still waits", "in order", LEDGER,
        "        del self.line[head]\n        if self.shedding is not None:\n",
        "        if self.shedding is not None:\n", "two slots",
    ),
    Mutant(
        "a stale one is handed on", "fresh", LEDGER,
        "            or entry.generation != self.generation\n            or now >= self.due",
        "            or now >= self.due", "two slots",
    ),
    Mutant(
        "one handed on was never lent", "counts", LEDGER,
        "        head.grant(USE, entry)\n        self._lent += 1", "        head.grant(USE, entry)",
        "two slots",
    ),
    Mutant(
        "a closed pool lets one queue", "closed", LEDGER,
        "self.rules.max_size or self.closed or now >= self.due", "self.rules.max_size or now >= self.due", "two slots",
    ),
    Mutant(
        "one queues though one is idle", "no needless waiting", LEDGER,
        "if self.idle or len(self.entries) <", "if len(self.entries) <", "two slots",
    ),
    Mutant(
        "the watch of the line is handed away", "wakes by itself", LEDGER,
        "or head.wake_at != math.inf", "or False", "backoff",
    ),
    Mutant(
        "the end of the backoff is ignored", "backoff", OPENING,
        "return now >= ledger.reach.retry_at and ", "return ", "backoff",
    ),
    Mutant(
        "a success does not end the backoff", "no needless waiting", REACH,
        "        self.retry_at = self.fill_at = -math.inf\n", "        self.fill_at = -math.inf\n", "backoff",
    ),
    Mutant(
        "it is forgotten that the pool ever connected", "refusals", REACH,
        "        self.connected_once = True\n", "", "backoff",
    ),
    Mutant(
        "a hopeless pool lets everybody wait", "refusals", FAILING,
        "        ledger._refuse(len(ledger.line), Refusal.CONNECT_FAILED, error, orders)\n",
        "        pass\n", "backoff",
    ),
    Mutant(
        "permits are never freed", "permits", LEDGER,
        "        if self.permits is not None:\n            self.permits.free(self)\n", "",
        "a budget shared with an outsider",
    ),
    Mutant(
        "another pool is never let through", "permits", KEEPING,
        "permits.wanted(ledger, now if head is None else head.since, now)", "False",
        "a budget shared with an outsider",
    ),
    Mutant(
        "the short way back passes the budget by", "permits", LEDGER,
        "if self.line or self.rivals or ", "if self.line or ", "a budget shared with an outsider",
    ),
    Mutant(
        "every other pool is let through", "closed for a reason", KEEPING,
        "permits.wanted(ledger, now if head is None else head.since, now)", 'permits.wanted(ledger, float("inf"), now)',
        "a budget shared with an outsider",
    ),
    # --- the short ways, and numbers
    Mutant(
        "nothing is lent the short way", "short ways", LEDGER,
        "        if not idle:\n", "        if True:\n",
    ),
    Mutant(
        "nothing is taken back the short way", "short ways", LEDGER,
        " or not self._easy:", " or True:",
    ),
    Mutant(
        "lifetimes are not set", "retired in time", LEDGER,
        "        entry.expires_at = min(entry.expires_at, self._fresh.expires_at(now, self._draw()))\n", "",
        "lifetimes",
    ),
    Mutant(
        "a snatch is no arrival", "in order", LEDGER,
        "        self._arrive(ticket, now)\n        if now >= self.due:\n", "        if now >= self.due:\n",
    ),
    Mutant(
        "the cause of a failed connect is not kept", "counts", REACH,
        "        self.error = error\n", "",
    ),
    Mutant(
        "a success does not forget the cause", "counts", REACH,
        "        self.error = self._delay = None\n", "        self._delay = None\n",
    ),
    Mutant(
        "the long way out does not note the time", "counts", LEDGER,
        "        entry.become(LEASED)\n        entry.taken_at = now\n", "        entry.become(LEASED)\n", "silence",
    ),
    Mutant(
        "a pool that shrank is not at ease again", "short ways", LEDGER,
        "        self.entries.discard(entry)\n        self.weigh()\n", "        self.entries.discard(entry)\n",
        "overflow",
    ),
    Mutant(
        "the short way out does not note the time", "counts", LEDGER,
        "        entry.state = LEASED\n        entry.taken_at = now\n", "        entry.state = LEASED\n", "silence",
    ),
    Mutant(
        "a dead one was a checkout", "counts", LEDGER,
        "        self._unlend(entry, ticket)\n        self.dead_count += 1\n", "        self.dead_count += 1\n",
    ),
    Mutant(
        "every grant is a wait, kept or not", "counts", LEDGER,
        "            self.wait_times.remove(entry.taken_at - ticket.since)\n", "            pass\n", "silence",
    ),
    # --- in the background: what is opened
    Mutant(
        "more connects than anybody wants", "connects wanted", LEDGER,
        "while self.opening < wanted(self, now) and may_open(self, now):", "while may_open(self, now):", "background",
    ),
    Mutant(
        "one connect is ordered where two are wanted", "kept ready", LEDGER,
        "            while self.opening < wanted(self, now)", "            if self.opening < wanted(self, now)",
        "two kept connected",
    ),
    Mutant(
        "who waits is promised no connect of his own", "no needless waiting", OPENING,
        "many = max(many, many + ready,", "many = max(many + ready,", "kept alive",
    ),
    Mutant(
        "a failed connect is never tried again", "audit", FAILING,
        "    ledger.due = min(ledger.due, reach.patient_until, reach.fill_at if rules.background else math.inf)\n", "",
        "background, backoff",
    ),
    Mutant(
        "the retry is forgotten where something else is due", "no needless waiting", DUE,
        "moments = [ledger.reach.fill_at, ", "moments = [", "background, backoff",
    ),
    Mutant(
        "what is kept ready is tried again at once", "backoff", OPENING,
        "if not (ledger.closed or now < ledger.reach.fill_at):", "if not ledger.closed:", "two kept connected",
    ),
    Mutant(
        "a success does not end the pause of filling", "kept ready", REACH,
        "        self.retry_at = self.fill_at = -math.inf\n", "        self.retry_at = -math.inf\n",
        "two kept connected",
    ),
    Mutant(
        "as many as should be are never reached", "kept ready", OPENING,
        ", rules.min_size - connected)", ")", "two kept connected",
    ),
    Mutant(
        "one that is asked after is replaced", "connects wanted", OPENING,
        "idle = len(ledger.idle) + len(ledger.asking)\n        ready", "idle = len(ledger.idle)\n        ready",
        "kept alive and idle",
    ),
    Mutant(
        "one taken the short way is not made up for", "kept ready", LEDGER,
        "rules.min_idle or not", "not", "one kept idle",
    ),
    Mutant(
        "one snatched is not made up for", "kept ready", LEDGER,
        "            orders.wake.append(ticket)\n        self._settle(now, orders)\n",
        "            orders.wake.append(ticket)\n", "one kept idle",
    ),
    Mutant(
        "what is one too many is opened ahead of demand", "connects wanted", OPENING,
        "min(rules.min_idle - idle, ledger.base - connected - many)", "rules.min_idle - idle",
        "background, overflow",
    ),
    Mutant(
        "a closed pool is filled", "connects wanted", OPENING,
        "if not (ledger.closed or now < ledger.reach.fill_at):", "if not now < ledger.reach.fill_at:",
        "two kept connected",
    ),
    Mutant(
        "who has a connect coming is in the way of others", "connects wanted", LEDGER,
        "            ahead -= self.opening\n", "            pass\n", "background, one may wait",
    ),
    Mutant(
        "one connect that nobody retries ends everybody's wait", "refusals", FAILING,
        "ledger._refuse(1, ", "ledger._refuse(len(ledger.line), ", "background, no retry of connects",
    ),
    Mutant(
        "a connect that nobody retries is tried again for ever", "refusals", FAILING,
        "ledger._refuse(1, ", "ledger._refuse(0, ", "background, no retry of connects",
    ),
    Mutant(
        "who has another connect coming is refused", "refusals", FAILING,
        "background and len(ledger.line) > ledger.opening:", "background and ledger.line:",
        "background, no retry of connects",
    ),
    # --- connects that were given up
    Mutant(
        "the slot of a connect that was given up is free at once", "closed once", LEDGER,
        "            entry.become(CLOSING)\n            self.opening -= 1\n            self.closing += 1\n",
        "            self.abandon(entry)\n", "background",
    ),
    Mutant(
        "a connect that was given up counts as one still", "counts", LEDGER,
        "            self.opening -= 1\n            self.closing += 1\n", "", "background",
    ),
    Mutant(
        "what opened after it was given up is lent", "never trips", LEDGER,
        "            orders.close.append(entry)\n            return orders\n        self.opening -= 1\n",
        "            pass\n        self.opening -= 1\n", "background",
    ),
    Mutant(
        "what opened after it was given up is never closed", "closed once", LEDGER,
        "            orders.close.append(entry)\n            return orders\n", "            return orders\n",
        "background",
    ),
    Mutant(
        "what failed after it was given up is ordered closed", "one holder", LEDGER,
        "            entry.become(GONE)\n            self.closing -= 1\n            self._forget(entry)\n",
        "            orders.close.append(entry)\n", "background",
    ),
    Mutant(
        "the slot of one that failed after it was given up is offered to nobody", "no needless waiting", LEDGER,
        "            self._forget(entry)\n            self._settle(now, orders)\n", "            self._forget(entry)\n",
        "background",
    ),
    Mutant(
        "giving up a connect is no failure", "refusals", LEDGER,
        "            take_failure(self, entry, error, now, orders)\n", "",
        "background",
    ),
    # --- out of reach
    Mutant(
        "who waits is not refused", "wakes by itself", FAILING,
        "    if ledger.unavailable(now):\n", "    if False:\n", "out of reach",
    ),
    Mutant(
        "who waits is refused though something is connected", "refusals", LEDGER,
        " and len(self.entries) == self.opening + self.closing\n", "\n", "out of reach",
    ),
    Mutant(
        "the grace begins anew with each failure", "backoff", REACH,
        "self.failing_since = min(self.failing_since, now)", "self.failing_since = now", "out of reach",
    ),
    Mutant(
        "a success does not end the outage", "refusals", REACH,
        "-math.inf\n        self.failing_since = math.inf\n", "-math.inf\n", "out of reach",
    ),
    Mutant(
        "nobody tries for those who were refused", "no needless waiting", OPENING,
        "        return now >= ledger.reach.fill_at and not ledger.closed\n", "        return 0\n",
        "out of reach, background",
    ),
    Mutant(
        "several try at once", "connects wanted", OPENING,
        "now >= ledger.reach.fill_at and not ledger.closed", "2 * (now >= ledger.reach.fill_at)",
        "out of reach, background",
    ),
    Mutant(
        "a closed pool tries", "connects wanted", OPENING,
        "now >= ledger.reach.fill_at and not ledger.closed", "now >= ledger.reach.fill_at", "out of reach, one slot",
    ),
    Mutant(
        "nobody looks when it is to be tried though nobody asks", "fails fast", DUE,
        "        moments.append(ledger.reach.patient_until)", "        pass", "out of reach, patient",
    ),
    Mutant(
        "nobody looks when the grace is over", "audit", FAILING,
        "reach.patient_until, reach.fill_at if", "reach.fill_at if", "out of reach",
    ),
    Mutant(
        "the head sleeps through the end of the grace", "fails fast", LEDGER,
        "                        moment = other\n", "                        pass\n", "out of reach",
    ),
    Mutant(
        "the head sleeps through the end of the grace behind a connect that hangs", "fails fast", LEDGER,
        "now < other < (moment if moment > now else math.inf):", "now < other < moment:", "out of reach, one at a time",
    ),
    Mutant(
        "out of reach it is tried without a pause", "backoff", REACH,
        "return self.connected_once or now >= self.patient_until", "return self.connected_once", "out of reach",
    ),
    Mutant(
        "a full pool lets one queue in an outage", "audit", LEDGER,
        "        if self.reach.failing_since < math.inf:", "        if False:", "out of reach, one slot",
    ),
    Mutant(
        "who comes to a closed pool hears of the outage", "refusals", LEDGER,
        "if self.closed or now >= reach.fill_at", "if now >= reach.fill_at", "out of reach, background",
    ),
    Mutant(
        "nobody is elected to try", "refusals", LEDGER,
        "if self.closed or now >= reach.fill_at", "if self.closed", "out of reach",
    ),
    # --- questions
    Mutant(
        "an answer is a use", "fresh", LEDGER,
        "        entry.asked_at = now\n", "        entry.asked_at = entry.last_used = now\n", "kept alive",
    ),
    Mutant(
        "all are asked at once", "asked in time", DUE,
        "len(ledger.asking) >= ASKED_AT_ONCE or ", "", "kept alive",
    ),
    Mutant(
        "the warmest is asked first", "asked in time", DUE,
        "if entry.state is IDLE), key=ask_at):", "if entry.state is IDLE), key=ask_at, reverse=True):",
        "kept alive",
    ),
    Mutant(
        "an answer is forgotten", "asked in time", LEDGER,
        "        entry.asked_at = now\n", "", "kept alive",
    ),
    Mutant(
        "due forgets the questions", "asked in time", DUE,
        "moments += (entry.last_used + fresh.max_idle, fresh.ask_at(entry))",
        "moments.append(entry.last_used + fresh.max_idle)", "kept alive, one connect at a time",
    ),
    Mutant(
        "what comes back the short way is not asked in time", "asked in time", LEDGER,
        "self.unattended = min(rules.freshness.max_idle, rules.freshness.keepalive, rules.holding.patience)",
        "self.unattended = rules.freshness.max_idle", "kept alive",
    ),
    Mutant(
        "whoever waits for his turn to be asked waits for ever", "asked in time", LEDGER,
        "        self.due = now  # others may have waited for their turn to be asked\n", "", "kept alive",
    ),
    Mutant(
        "one is asked after when somebody could use it", "no needless waiting", LEDGER,
        "        look_at_line(self, now, orders)\n        while (head", "        look_at_line(self, now, orders)\n"
        "        if overdue:\n            ask(self, now, orders)\n        while (head", "kept alive",
    ),
    Mutant(
        "one that is asked after is somebody's", "one holder", DUE,
        "        entry.holder = entry.code = None\n", "", "kept alive",
    ),
    # --- what is kept, what is due
    Mutant(
        "what should be kept idle is retired", "closed for a reason", DUE,
        "min(connected - smallest, idle - ledger.rules.min_idle)", "(connected - smallest)", "one kept idle, silence",
    ),
    Mutant(
        "a connect under way makes another one spare", "closed for a reason", DUE,
        "return min(connected - smallest,", "return min(connected + ledger.opening - smallest,",
        "one kept connected, silence",
    ),
    Mutant(
        "one more does not make another one spare", "retired in time", LEDGER,
        "        self.due = now  # one more changes what may be retired, and is to be looked after\n", "",
        "one kept connected, silence",
    ),
    Mutant(
        "a closed pool has something to look after", "at rest", DUE,
        "() if ledger.closed else ledger.entries", "ledger.entries", "one kept connected, silence",
    ),
    Mutant(
        "an empty pool has something to look after", "at rest", DUE,
        "moments = [ledger.reach.fill_at, ", "moments = [ledger.reach.fill_at, now + ledger.unattended, ",
        "one kept idle, silence",
    ),
    Mutant(
        "recycled within a time is recycled at once", "closed for a reason", LEDGER,
        "now + within * self._draw()", "now", "recycled within",
    ),
    Mutant(
        "recycled within a time is recycled when somebody looks", "audit", LEDGER,
        "now + within * self._draw())\n            self.due = now\n", "now + within * self._draw())\n",
        "recycled within",
    ),
    Mutant(
        "a connect under way is not recycled", "fresh", LEDGER,
        "min(entry.expires_at, self._fresh.expires_at(now, self._draw()))", "self._fresh.expires_at(now, self._draw())",
        "recycled within",
    ),
    # --- leases with a limit
    Mutant(
        "no lease ever ends", "on time", HOLDING,
        "return now - entry.in_use_since >= self.max_lease and not entry.is_kept", "return False", "a deadline",
    ),
    Mutant(
        "a lease ends too soon", "taken away", HOLDING,
        ">= self.max_lease and", ">= self.max_lease - 1 and", "a deadline",
    ),
    Mutant(
        "what a thread keeps is taken away", "one holder", HOLDING,
        ">= self.max_lease and not entry.is_kept", ">= self.max_lease", "a deadline",
    ),
    Mutant(
        "who goes on using what he kept had it all the time", "taken away", ENTRY,
        "return max(self.taken_at, self.last_used)", "return self.taken_at", "a deadline",
    ),
    Mutant(
        "what is taken away is not cut", "taken away", DUE,
        "    orders.cut.append(entry)\n", "", "a deadline",
    ),
    Mutant(
        "what is taken away is cut twice", "taken away", DUE,
        "    orders.cut.append(entry)\n", "    orders.cut += [entry, entry]\n", "a deadline",
    ),
    Mutant(
        "what is taken away is not ordered closed", "taken away", DUE,
        "    ledger.let_go(entry, orders)\n    orders.cut", "    ledger.let_go(entry, Orders())\n    orders.cut",
        "a deadline",
    ),
    Mutant(
        "nobody hears of it", "taken away", DUE,
        '            orders.reports.append(Report("expired", entry, seconds))\n', "", "a deadline",
    ),
    Mutant(
        "a use that was ended is no use", "counts", DUE,
        "    ledger.use_times.add(now - entry.taken_at)\n", "", "a deadline",
    ),
    Mutant(
        "a closed pool lets its leases be", "on time", DUE,
        "if holding.patience < math.inf:  # also", "if holding.patience < math.inf and not ledger.closed:  # also",
        "a deadline",
    ),
    Mutant(
        "a leak is never said", "on time", HOLDING,
        ">= self.leak_after and not (", ">= math.inf and not (", "leaks and a deadline",
    ),
    Mutant(
        "a leak is said too soon", "leaks", HOLDING,
        ">= self.leak_after and not (", ">= self.leak_after - 1 and not (", "leaks and a deadline",
    ),
    Mutant(
        "a leak is said each time", "leaks", HOLDING,
        "not (entry.is_kept or self.was_reported(entry))", "not entry.is_kept", "leaks and a deadline",
    ),
    Mutant(
        "that it was said is forgotten", "leaks", DUE,
        "            entry.reported_at = entry.in_use_since\n", "", "leaks and a deadline",
    ),
    Mutant(
        "what a thread keeps leaks", "one holder", HOLDING,
        "not (entry.is_kept or self.was_reported(entry))", "not self.was_reported(entry)", "leaks and a deadline",
    ),
    Mutant(
        "due forgets the leaks", "on time", HOLDING,
        "since + self.leak_after, ", "", "leaks and a deadline",
    ),
    Mutant(
        "due forgets the ends", "on time", HOLDING,
        "(since + self.max_lease, since", "(since", "a deadline",
    ),
    Mutant(
        "nobody hears that it came back", "ends", DUE,
        "        orders.reports.append(Report(kind, entry, end - entry.reported_use))\n", "", "leaks and a deadline",
    ),
    Mutant(
        "what is reported goes back the short way", "ends", ENTRY,
        'return float("inf") if written >= 0 else written', "return written", "leaks and a deadline",
    ),
    Mutant(
        "what was reported once is closed", "closed for a reason", DUE,
        "        entry.close_report()\n", "", "leaks and a deadline",
    ),
    Mutant(
        "an end is said of a use that goes on", "ends", DUE,
        "isinstance(entry, Reported) and entry.in_use_since != entry.reported_use", "isinstance(entry, Reported)",
        "leaks and a deadline",
    ),
    Mutant(
        "what was granted, reported and given up is closed", "closed for a reason", LEDGER,
        "            over(entry, now, orders)\n            self._unlend", "            self._unlend",
        "leaks and a deadline",
    ),
    Mutant(
        "what a thread keeps should not be silent", "one holder", DUE,
        "seconds >= holding.inactive_after and not entry.is_kept", "seconds >= holding.inactive_after", "questions",
    ),
    Mutant(
        "silence is asked about at once", "questions", DUE,
        "seconds >= holding.inactive_after and", "", "questions",
    ),
    Mutant(
        "silence is never asked about", "on time", DUE,
        "seconds >= holding.inactive_after and", "False and", "questions",
    ),
    # --- an operator: paused
    Mutant(
        "a pause keeps what is idle", "paused", STEERING,
        "    ledger.reach.hope()\n    ledger._let_all_idle_go(orders)\n", "    ledger.reach.hope()\n", "paused",
    ),
    Mutant(
        "a pause opens all the same", "paused", OPENING,
        "    if ledger.paused:\n        return False\n", "", "paused",
    ),
    Mutant(
        "what comes back in a pause is kept", "paused", KEEPING,
        "return ledger.paused or len(ledger.entries)", "return len(ledger.entries)", "paused",
    ),
    Mutant(
        "what comes back the short way in a pause is kept", "paused", STEERING,
        "    ledger.paused = True\n    ledger.weigh()\n", "    ledger.paused = True\n", "paused",
    ),
    Mutant(
        "whether it is paused weighs nothing", "paused", LEDGER,
        "self._easy = few and not self.paused and ", "self._easy = few and ", "paused",
    ),
    Mutant(
        "what was opened in a pause is used", "paused", LEDGER,
        "        if entry.generation != self.generation or is_unwanted(self):\n",
        "        if entry.generation != self.generation:\n", "paused",
    ),
    Mutant(
        "after a pause nothing goes the short way", "short ways", STEERING,
        "no overload\n    ledger.weigh()\n", "no overload\n", "paused",
    ),
    Mutant(
        "after a pause nobody is served", "no needless waiting", LEDGER,
        "        resume(self, now)\n        self._settle(now, orders)\n", "        resume(self, now)\n", "paused",
    ),
    Mutant(
        "a connect that fails in a pause begins an outage", "refusals", FAILING,
        "    if ledger.paused:  # the server may have been stopped for it: that begins no outage\n",
        "    if False:\n", "paused, background",
    ),
    Mutant(
        "an outage goes on in a pause", "counts", STEERING,
        "    ledger.reach.hope()\n", "", "paused, backoff",
    ),
    # --- and resized
    Mutant(
        "a smaller pool keeps all that are idle", "capacity", STEERING,
        "            surplus -= 1\n            ledger.idle.remove(entry)\n            ledger.let_go(entry, orders)\n",
        "            break\n", "resized",
    ),
    Mutant(
        "a smaller pool closes all that are idle", "closed for a reason", STEERING,
        "            surplus -= 1\n", "", "resized",
    ),
    Mutant(
        "a smaller pool closes the warmest", "closed for a reason", STEERING,
        "key=lambda entry: entry.last_used):  # coldest", "key=lambda entry: -entry.last_used):  # coldest",
        "resized, silence",
    ),
    Mutant(
        "a smaller pool counts those on their way out", "closed for a reason", STEERING,
        "len(ledger.entries) - ledger.closing - rules.max_size", "len(ledger.entries) - rules.max_size", "resized",
    ),
    Mutant(
        "one beyond the new size is kept when it comes back", "capacity", KEEPING,
        "return ledger.paused or len(ledger.entries) - ledger.closing > ledger.rules.max_size", "return ledger.paused",
        "resized",
    ),
    Mutant(
        "the first to come back is closed for those on their way out", "closed for a reason", KEEPING,
        "return ledger.paused or len(ledger.entries) - ledger.closing > ",
        "return ledger.paused or len(ledger.entries) > ",
        "resized",
    ),
    Mutant(
        "the short way back goes by the old size", "capacity", STEERING,
        "    ledger.adopt(rules)\n", "    ledger.rules = rules\n", "resized",
    ),
    Mutant(
        "a pool of another size serves nobody", "retired in time", LEDGER,
        "        reconfigure(self, rules, overload, renew, now, orders)\n        self._settle(now, orders)\n",
        "        reconfigure(self, rules, overload, renew, now, orders)\n", "resized",
    ),
    # --- under load
    Mutant(
        "one whose time is over is handed it", "in time", SHEDDING,
        "    if head.deadline <= now:\n", "    if False:\n", "impatient",
    ),
    Mutant(
        "the short way hands it to one whose time is over", "in time", LEDGER,
        "            or head.deadline <= now\n", "", "impatient",
    ),
    Mutant(
        "one whose time is over is told to connect", "in time", LEDGER,
        "            elif head.deadline <= now:\n", "            elif False:\n", "impatient",
    ),
    Mutant(
        "whose time is over is not told", "told", SHEDDING,
        "    head.refuse(None)\n    wake.append(head)\n", "    head.refuse(None)\n", "impatient",
    ),
    Mutant(
        "who is turned away is not told", "told", SHEDDING,
        "    head.refuse(Refusal.SHED)\n    wake.append(head)\n", "    head.refuse(Refusal.SHED)\n", "shedding",
    ),
    Mutant(
        "nobody looks at a line that does not move", "turned away", LEDGER,
        "fail_fast(self, now, orders)\n        self.due = min(self.due, next_look(self, now))\n",
        "fail_fast(self, now, orders)\n", "shedding",
    ),
    Mutant(
        "the first in line goes unnoticed", "audit", LEDGER,
        "        if self.shedding is not None and not self.line:\n", "        if False:\n", "shedding",
    ),
    Mutant(
        "a line that begins is not told of", "turned away", LEDGER,
        "        if self.shedding is not None:\n            self.shedding.begins(now)\n        if self.watches",
        "        if self.watches", "shedding",
    ),
    Mutant(
        "whoever waits is turned away though one has come back", "refusals", SHEDDING,
        " or ledger.paused or ledger.idle:\n", " or ledger.paused:\n", "shedding",
    ),
    Mutant(
        "a pause is an overload", "refusals", SHEDDING,
        "now < shedding.look_at or ledger.paused or", "now < shedding.look_at or", "shedding, paused",
    ),
    Mutant(
        "it sheds before the interval is over", "refusals", OVERLOAD,
        "        elif now >= self.judge_at:\n", "        else:\n", "shedding",
    ),
    Mutant(
        "it sheds the last one, and the connection idles", "refusals", OVERLOAD,
        "waited <= self.limit or waiting == 1:", "waited <= self.limit:", "shedding",
    ),
    Mutant(
        "a sizing never looks", "retired in time", LEDGER,
        "            look(self, now, orders)\n", "", "lingering",
    ),
    Mutant(
        "nobody remembers when a sizing wants to look", "retired in time", DUE,
        ", math.inf if ledger.closed else ledger.look_at]", "]", "lingering",
    ),
    Mutant(
        "an extra one goes before its time", "closed for a reason", SIZING,
        "idle_for >= self.linger:", "idle_for >= self.linger - 1:", "lingering",
    ),
    Mutant(
        "the base is not kept", "closed for a reason", SIZING,
        "counts.connected <= self.base(", "counts.connected < self.base(", "lingering",
    ),
    Mutant(
        "who waits sleeps while it may grow", "wakes by itself or no needless waiting", LEDGER,
        "for other in (self.reach.patient_until, self.look_at):", "for other in (self.reach.patient_until,):",
        "sojourn, no keeper",
    ),
    Mutant(
        "Sojourn closes its core", "closed for a reason", SOJOURN,
        "more = counts.connected > settings.core", "more = counts.connected > 0", "sojourn",
    ),
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_walk_finds(mutant: Mutant) -> None:
    with pytest.raises(Broken) as broken:
        walk(WORLDS[mutant.world], load([Edit(mutant.room, mutant.old, mutant.new)]))
    assert broken.value.promise in mutant.by.split(" or "), str(broken.value)
    assert broken.value.path, "a broken promise comes with the events that led there"


def test_a_mutant_whose_text_is_gone_is_an_error() -> None:
    with pytest.raises(NotFound, match="0 times"):
        load([Edit("ledger", "no such line", "")])


def test_no_two_mutants_are_the_same() -> None:
    assert len({(mutant.room, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)
