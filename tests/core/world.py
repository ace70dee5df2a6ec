"""What can happen in a small world: a few callers, two slots, time in whole steps?

A world is a ledger and the callers around it, each doing what a thread of the pool may do: join the line or snatch,
find a granted connection dead or good, connect in time, too late or in vain, give up, give back, detach. Between any
two events every other caller may act, because the pool lets go of its lock there; connections ordered closed are
closed any time later. In a background world connects are ordered, too, and end any time later, well or badly, in time
or when they were given up; so do questions; and a keeper ticks whenever something is due, before time goes on, and
never else. That keeper audits each time, as the pool's does, and as long as nobody is interrupted that is a tick and no
more. Where leases have a limit, borrowers may keep theirs between two uses, and whoever's was taken away finds out any
time later; the pool does not tell the ledger of it then. An operator may pause the ledger and resume it, and lower its
``max_size`` by one and raise it again. Beside the ledger the world keeps a few facts of its own (the
shadow), for the promises to compare: when a connection really answered last, whether it is of an old generation, who
has been lent how many.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import OrderedDict, deque
from collections.abc import Iterator
from types import BuiltinMethodType, SimpleNamespace
from typing import Any

from tests.core import promises, promises_holding
from tests.core.promises import Broken, Done
from tests.core.setting import CUT, HOME, KEPT, LINE, TAKEN, USING, Caller, Setting, Shared, watched

Event = tuple[str, int]


def half() -> float:
    return 0.5


#: What ends work that was ordered; the number says which.
AT_WORK = frozenset(
    {
        *("closed one", "connected", "connect failed", "connect given up"),
        *("connected at last", "connect failed at last", "answered", "dead when asked"),
    }
)
ERROR = OSError("refused")


class World:
    """One state. ``clone`` it, let an event ``happen``, compare ``key``."""

    def __init__(self, setting: Setting, core: SimpleNamespace) -> None:
        self.setting, self.core = setting, core
        if not hasattr(core.opening.Entry, "clone"):
            core.opening.Entry = watched(core.opening.Entry, core.due.Reported)
        core.due.ASKED_AT_ONCE = setting.asked_at_once
        self.shared = Shared() if setting.shared else None
        self.ledger = core.ledger.Ledger(
            core.rules.Rules(
                max_size=setting.max_size,
                min_size=setting.min_size,
                min_idle=setting.min_idle,
                max_connecting=setting.max_connecting,
                order=setting.order,
                freshness=core.freshness.Freshness(
                    ping_after=setting.ping_after,
                    max_lifetime=setting.max_lifetime,
                    lifetime_jitter=0.0,
                    max_idle=setting.max_idle,
                    max_uses=setting.max_uses,
                    keepalive=setting.keepalive,
                ),
                backoff=None if setting.backoff is None else core.backoff.Backoff(*setting.backoff, kind="exp"),
                grace=setting.grace,
                background=setting.background,
                holding=core.holding.Holding(setting.max_lease, setting.leak_after, setting.inactive_after),
            ),
            eval(setting.sizing, {**vars(core.sizing), **vars(core.sojourn), "half": half}),
            core.overload.MaxWaiting(setting.max_waiting),
            self.shared,
            draw=lambda: 0.5,
            shed=None if setting.shed is None else core.overload.CoDel(*setting.shed),
        )
        self.step = core.line.Step
        self.now = 0
        self.callers = [Caller() for _ in range(setting.callers)]
        self.entries: list[Any] = []  # all that are not gone
        self.closing: list[Any] = []  # ordered closed, and not closed yet
        self.connecting: list[Any] = []  # ordered opened, and the connect has not ended yet
        self.asked: list[Any] = []  # ordered asked, and there is no answer yet
        self.ever_connected = False
        self.shut = self.failing = self.paused = False
        self.max_size = setting.max_size  # as it is now
        self.delay: float | None = None
        self.retry_at = self.fill_at = -math.inf
        self.failing_since = math.inf
        self.wait_time = self.use_time = 0
        self.calm_at = self.moved_at = 0  # when somebody was last served in time, or nobody waited; or anything moved
        self.lent = self.waited = self.returned = self.opened = self.failures = self.closures = self.dead = 0
        if setting.background:
            try:
                self.happen(("tick", -1))  # so that it is filled
            except Broken as broken:
                broken.path = ["tick"]
                raise

    # --- What can happen --------------------------------------------------------------------------------------------

    def events(self) -> Iterator[Event]:
        """All that could happen next; of callers who are alike, what the first one does. Call ``key`` before."""
        return (event for event in self._all_events() if event[0] not in self.setting.leave_out)

    def _all_events(self) -> Iterator[Event]:
        step = self.step
        seen = set()
        for who, caller in enumerate(self.callers):
            if self.looks[who] in seen:
                continue
            seen.add(self.looks[who])
            if caller.mode == HOME:
                yield from (("take", who), ("join", who), ("snatch", who))
            elif caller.mode == TAKEN:
                yield from (("use", who), ("dead", who), ("dead, gone", who))
            elif caller.mode == USING:
                yield from (("give", who), ("checkin", who), ("discard", who), ("detach", who))
                # a clock so coarse that all of it would be one moment is not the pool's
                if self.setting.keeps and self.now > caller.entry.lent_at:
                    yield "keep", who
            elif caller.mode == KEPT:
                yield from (("use again", who), ("give", who), ("checkin", who), ("discard", who))
            elif caller.mode == CUT:
                yield "find it cut", who
                if caller.ticket is not None:
                    yield from (("leave", who), ("dead", who))
            elif caller.ticket.step is step.WAIT:
                yield "leave", who
            elif caller.ticket.step is step.OPEN:
                yield from (("opened", who), ("opened too late", who), ("failed", who), ("failed, gone", who))
                yield "leave", who
            else:
                yield from (("use", who), ("dead", who), ("dead, gone", who), ("leave", who))
        seen.clear()
        if self.closing:  # one is like another
            yield "closed one", 0
        for which, entry in enumerate(self.connecting):
            if self.look(entry) not in seen:
                seen.add(self.look(entry))
                if entry.word == "opening":
                    yield from (("connected", which), ("connect failed", which), ("connect given up", which))
                else:
                    yield from (("connected at last", which), ("connect failed at last", which))
        for which, _ in enumerate(self.asked):
            yield from (("answered", which), ("dead when asked", which))
        if not self.ledger.closed:
            yield from (("recycle", -1), ("clear", -1), ("close", -1))
            if self.setting.recycles_within:
                yield "recycle within", -1
            if self.setting.pauses:
                yield ("resume" if self.paused else "pause"), -1
            if self.setting.resizes:
                yield ("shrink" if self.max_size == self.setting.max_size else "grow"), -1
        if self.setting.timed:
            due, sloppy = self.ledger.due <= self.now, not (self.setting.background and self.setting.punctual)
            if due or sloppy:
                yield "tick", -1
            if not due or sloppy:
                yield "time passes", -1
        if self.shared is not None:
            yield (
                ("outsider gives" if self.shared.outside or self.shared.wants_since is not None else "outsider takes"),
                -1,
            )

    def describe(self, event: Event) -> str:
        name, who = event
        if who < 0 or name in AT_WORK:
            return name
        return f"{'ABCDEFGH'[who]}: {name}"

    def happen(self, event: Event) -> None:
        """Let it happen, and hold the ledger to its promises. Raises Broken."""
        name, who = event
        if name == "time passes":
            self.now += 1
            promises.after_time(self)
            promises_holding.in_time(self)
            return
        before = promises.Before(self)
        try:
            done = self._do(name, who)
        except Broken:
            raise
        except Exception as error:
            raise Broken("never trips", f"{type(error).__name__}: {error}") from error
        promises_holding.reports(self, name, done.orders)
        promises.after_event(self, name, before, done)
        promises_holding.in_time(self)
        self._look_around()

    def _do(self, name: str, who: int) -> Done:
        ledger, now = self.ledger, self.now
        if name in AT_WORK:
            return self._work_ends(name, who)
        caller = self.callers[who] if who >= 0 else Caller()
        ticket, entry = caller.ticket, caller.entry if caller.ticket is None else caller.ticket.entry
        if name == "take":
            entry = ledger.take(now)
            if entry is not None:
                self.lent += 1
                entry.holder, entry.lent_at = who, now
                entry.begin(now)
                self.callers[who] = Caller(TAKEN, entry=entry, arrival=ledger.arrivals - 1)
            return Done(taken=entry)
        if name in ("join", "snatch"):
            ticket = self.core.line.Ticket(who)
            ticket.deadline = now + self.setting.patience
            self.callers[who] = Caller(LINE, ticket)
            if name == "join" and (ledger.queue(ticket, now) or ledger.keep_out(ticket, now)):
                return Done(ticket)
            return Done(ticket, orders=(ledger.join if name == "join" else ledger.snatch)(ticket, now))
        if name == "use":
            self.callers[who] = Caller(USING, entry=entry)
            return Done(ticket)
        if name == "keep":
            caller.mode = KEPT
            entry.last_used, entry.kept = now, entry.taken_at
            return Done()
        if name == "use again":
            caller.mode = USING
            entry.kept, entry.last_used = math.nan, now
            entry.begin(now)
            return Done()
        if caller.mode == CUT:
            return self._finds_it_cut(name, who)
        if name == "leave":
            opening = ticket.step is self.step.OPEN
            if entry is not None and not opening:
                self._unlent(entry, ticket)
            came_back, gone = (None, entry) if opening else (entry, None)
            return Done(ticket, came_back, gone, ledger.leave(ticket, now))
        if name in ("dead", "dead, gone"):
            self._unlent(entry, None if name == "dead, gone" else ticket)
            self.dead += 1
            entry.spoiled = True
            if name == "dead, gone":
                return Done(ticket, orders=self._go(who, ledger.dead(entry, now, None)))
            if ticket is None:
                ticket = self.core.line.Ticket(who)
                ticket.arrival, ticket.since = caller.arrival, entry.taken_at
                self.callers[who] = Caller(LINE, ticket)
            return Done(ticket, orders=ledger.dead(entry, now, ticket))
        if name in ("give", "checkin", "discard"):
            self.callers[who] = Caller()
            self.returned += 1
            entry.answered = entry.heard = now
            entry.served += 1
            self.use_time += now - entry.lent_at
            entry.spoiled = name == "discard"
            if name == "give":
                if ledger.give(entry, now):
                    return Done(entry=entry)
                orders = self.core.line.Orders()
                if (head := ledger.hand(entry, now, orders.wake)) is not None:
                    orders.wake.append(head)
                else:
                    orders.add(ledger.checkin(entry, now))
                return Done(entry=entry, orders=orders)
            return Done(entry=entry, orders=ledger.checkin(entry, now, reusable=not entry.spoiled))
        if name == "detach":
            self.callers[who] = Caller()
            return Done(gone=entry, orders=ledger.detach(entry, now))
        if name in ("opened", "opened too late"):
            self.opened += 1
            self._answers_at_last(entry)
            if name == "opened":
                return Done(ticket, entry, orders=ledger.opened(entry, now, ticket))
            return Done(ticket, entry, orders=self._go(who, ledger.opened(entry, now)))
        if name in ("failed", "failed, gone"):
            self._failed()
            if name == "failed":
                return Done(ticket, gone=entry, orders=ledger.failed(entry, now, ERROR, ticket))
            return Done(ticket, gone=entry, orders=self._go(who, ledger.failed(entry, now, ERROR)))
        if name == "tick":
            for waiting in ledger.line:
                if waiting.wake_at <= now:
                    waiting.wake_at = math.inf  # whoever woke by himself has used it up
            return Done(orders=ledger.audit(now, self.answered_for) if self.setting.background else ledger.tick(now))
        if name in ("recycle", "close"):
            for entry in self.entries:
                entry.stale = True
            self.shut = name == "close"
            return Done(orders=getattr(ledger, name)(now))
        if name == "recycle within":
            for entry in self.entries:
                entry.ends_at = min(entry.ends_at, now + 1)
            return Done(orders=ledger.recycle(now, within=2))
        if name == "clear":
            return Done(orders=ledger.clear(now))
        if name == "pause":
            self.paused, self.failing, self.delay = True, False, None
            self.retry_at = self.fill_at = -math.inf
            self.failing_since = math.inf
            return Done(orders=ledger.pause(now))
        if name == "resume":
            self.paused = False
            return Done(orders=ledger.resume(now))
        if name in ("shrink", "grow"):
            self.max_size += 1 if name == "grow" else -1
            return Done(orders=ledger.reconfigure(dataclasses.replace(ledger.rules, max_size=self.max_size), now))
        assert self.shared is not None
        if name == "outsider takes":
            if self.shared.free_one():
                self.shared.outside = 1
            else:
                self.shared.rivals.append(now)
            return Done()
        # the outsider gives back, or goes away: whoever had no permit may try again
        self.shared.outside, self.shared.promised = 0, False
        self.shared.rivals.clear()
        return Done(orders=ledger.tick(now))

    def _finds_it_cut(self, name: str, who: int) -> Done:
        """His claim is worth nothing: the ledger is not told what he has to say of the connection."""
        ticket = self.callers[who].ticket
        if name == "dead":  # he was granted it, and never had it: to his old place
            self.callers[who] = Caller(LINE, ticket)
            return Done(ticket, orders=self.ledger.rejoin(ticket, self.now))
        if name == "find it cut":
            self.callers[who] = Caller()
            return Done()
        self.callers[who] = Caller(LINE, ticket)
        return Done(ticket, orders=self.ledger.leave(ticket, self.now))

    def answered_for(self, entry: Any) -> bool:
        """Does anybody bear the claim to it? As long as no interrupt strikes: whenever it is not on the shelf."""
        at_work = entry in self.closing or entry in self.connecting or entry in self.asked
        return at_work or any(entry is caller.has for caller in self.callers)

    def _work_ends(self, name: str, which: int) -> Done:
        ledger, now = self.ledger, self.now
        if name == "closed one":
            self.closures += 1
            entry = self.closing.pop(which)
            return Done(gone=entry, orders=ledger.closed_one(entry, now))
        if name in ("answered", "dead when asked"):
            entry = self.asked.pop(which)
            entry.heard = now
            entry.spoiled = name != "answered"
            self.dead += entry.spoiled
            return Done(entry=entry, orders=ledger.asked(entry, now, alive=not entry.spoiled))
        if name == "connect given up":
            self._failed()
            return Done(orders=ledger.overdue(self.connecting[which], now, ERROR))
        entry = self.connecting.pop(which)
        if name == "connected":
            self.opened += 1
            self._answers_at_last(entry)
            return Done(entry=entry, orders=ledger.opened(entry, now))
        if name == "connect failed":
            self._failed()
            return Done(gone=entry, orders=ledger.failed(entry, now, ERROR))
        if name == "connect failed at last":
            return Done(gone=entry, orders=ledger.failed(entry, now, ERROR))
        self.opened += 1
        entry.connection, entry.spoiled = "made", True
        return Done(entry=entry, orders=ledger.opened(entry, now))

    def _answers_at_last(self, entry: Any) -> None:
        self.ever_connected, self.failing, self.delay = True, False, None
        self.retry_at = self.fill_at = -math.inf
        self.failing_since = math.inf
        entry.answered = entry.heard = self.now
        entry.connection = "made"
        entry.ends_at = min(entry.ends_at, self.now + self.setting.max_lifetime)

    def _failed(self) -> None:
        self.failures += 1
        if self.paused:
            return
        self.failing = True
        self.failing_since = min(self.failing_since, self.now)
        shortest, longest = self.setting.backoff or (0, 0)
        patient = (self.ever_connected or self.unavailable) and self.setting.backoff is not None
        if self.setting.background or patient:
            self.delay = shortest if self.delay is None else min(2 * self.delay, longest)
            self.fill_at = self.now + self.delay
        if patient:
            self.retry_at = self.fill_at

    @property
    def unavailable(self) -> bool:
        """Nobody should have to wait."""
        return self.now >= self.failing_since + self.setting.grace and not self.connected

    @property
    def base(self) -> float:
        """No more than this many are kept when nobody waits."""
        return self.max_size - 1 if self.setting.sizing.startswith("Overflow(1, ") else self.max_size

    @property
    def keeps(self) -> float:
        """And of those, so many are closed on their return."""
        return self.max_size if self.setting.linger else self.base

    @property
    def core_size(self) -> float:
        """Down to so many those are closed that linger."""
        return 1 if self.setting.sizing.startswith("Sojourn(1, ") else self.base

    def lingers(self, entry: Any) -> bool:
        """Has it been idle for longer than an extra one may?"""
        return self.setting.linger > 0 and self.now - entry.answered >= self.setting.linger

    @property
    def smallest(self) -> float:
        """Idle ones past ``max_idle`` are closed down to this many."""
        return self.max_size if self.setting.sizing == "Fixed()" else self.setting.min_size

    @property
    def live(self) -> int:
        """How many connections there are, without those on their way out."""
        return sum(entry.word != "closing" for entry in self.entries)

    @property
    def opening(self) -> int:
        """How many connects are under way that nobody gave up."""
        return sum(entry.word == "opening" for entry in self.entries)

    @property
    def connected(self) -> int:
        """How many are idle or lent."""
        return sum(entry.word in ("idle", "leased") for entry in self.entries)

    def worn(self, entry: Any) -> bool:
        return self.now >= entry.ends_at or entry.served >= self.setting.max_uses

    def _go(self, who: int, orders: Any) -> Any:
        """Home with an error; every borrower leaves then, whatever his ticket says, and that must change nothing."""
        ticket = self.callers[who].ticket
        if ticket is not None:
            more = self.ledger.leave(ticket, self.now)
            orders.add(more)
        self.callers[who] = Caller()
        return orders

    def _unlent(self, entry: Any, ticket: Any) -> None:
        self.lent -= 1
        if ticket is not None:
            self.waited -= entry.lent_at > ticket.since
            self.wait_time -= entry.lent_at - ticket.since

    def _look_around(self) -> None:
        """What the callers find when they wake: who was granted one has been lent one, who was refused goes home."""
        for who, caller in enumerate(self.callers):
            if caller.ticket is not None and caller.ticket.step is self.step.REFUSED:
                self.callers[who] = Caller()

    def audit(self) -> None:
        """The last event of this world. No interrupt has struck: it does what a tick would. Raises Broken."""
        ledger, mended = self.ledger, self.ledger.mended
        if ledger.due > self.now and (self.setting.background or not ledger.line):
            ticked = self.shape(self.core.line.Orders())  # nothing is due
        else:
            other = self.clone()
            ticked = other.shape(other.ledger.tick(self.now))
        audited = self.shape(ledger.audit(self.now, self.answered_for))
        if ledger.mended > mended:
            raise Broken("audit", "mended what was whole")
        if audited != ticked:
            raise Broken("audit", f"did {audited}, a tick does {ticked}")

    def shape(self, orders: Any) -> Any:
        """All that an audit may change."""
        ledger = self.ledger
        return (
            tuple(ledger.counts()),
            (ledger.due, ledger.generation, len(ledger.asking)),
            [ticket.arrival for ticket in ledger.line],
            [(entry.word, entry.last_used) for entry in ledger.idle],
            [None if caller.ticket is None else caller.ticket.step.value for caller in self.callers],
            [len(getattr(orders, kind)) for kind in orders.__slots__],
        )

    # --- Two states, or one? ----------------------------------------------------------------------------------------

    def look(self, entry: Any) -> Any:
        """All that will ever matter of a connection, in times relative to now."""
        state = entry.word
        now, horizon = self.now, self.setting.horizon
        left = max(0, entry.expires_at - now)
        if state == "opening":
            return state, entry.stale, left
        if state == "closing":
            return (state,)
        return (
            state,
            entry.stale,
            entry.own_generation == self.ledger.generation,
            left,
            min(now - entry.last_used, horizon),
            min(now - entry.answered, horizon),
            min(now - entry.heard, self.setting.keepalive) if self.setting.keepalive < math.inf else 0,
            min(entry.served, self.setting.max_uses) if self.setting.max_uses < math.inf else 0,
            self.use(entry) if state == "leased" and entry not in self.asked else (),
        )

    def use(self, entry: Any) -> Any:
        """The same of its use."""
        now, horizon = self.now, self.setting.held_for
        if not horizon:
            return ()
        times = min(now - entry.begun, horizon), min(now - entry.questioned, horizon)
        return *times, entry.leaked, self.setting.keeps and now > entry.lent_at

    def key(self) -> Any:
        """Equal for states that cannot be told apart by anything that may still happen."""
        ledger, now = self.ledger, self.now
        ranks = {
            arrival: rank
            for rank, arrival in enumerate(
                sorted(
                    caller.arrival if caller.ticket is None else caller.ticket.arrival
                    for caller in self.callers
                    if caller.mode in (LINE, TAKEN) or (caller.mode == CUT and caller.ticket is not None)
                )
            )
        }
        looks: list[Any] = []
        for caller in self.callers:
            ticket = caller.ticket
            if caller.mode == HOME:
                looks.append((HOME,))
            elif caller.mode == CUT:
                looks.append((CUT,) if ticket is None else (CUT, ranks[ticket.arrival]))
            elif caller.mode in (USING, KEPT):
                # when it last answered no longer matters: it will have answered when it comes back
                entry = caller.entry
                uses = entry.served if self.setting.max_uses < math.inf else 0
                current = entry.own_generation == ledger.generation
                # how long it is kept must change nothing, and is told apart to see that it does not
                kept_for = min(self.now - entry.last_used, self.setting.held_for)
                use = self.use(entry) if caller.mode == USING else (kept_for,)
                told = (entry.announced is not None) + (entry.announced == entry.begun)
                looks.append((caller.mode, entry.stale, current, max(0, entry.expires_at - now), uses, use, told))
            elif ticket is None:
                behind = self.shared is not None and self.shared.before(caller.entry.taken_at)
                looks.append((TAKEN, ranks[caller.arrival], behind, self.look(caller.entry)))
            else:
                entry = () if ticket.entry is None else self.look(ticket.entry)
                wake_in = (max(-1, ticket.wake_at - now), self.hurry(ticket))
                behind = self.shared is not None and self.shared.before(ticket.since)
                looks.append((LINE, ranks[ticket.arrival], ticket.step.value, wake_in, behind, entry))
        self.looks = looks
        shared = self.shared and (
            self.shared.outside,
            self.shared.promised,
            self.shared.before(now),
            self.shared.wants_since is None,
        )
        reach = ledger.reach
        return (
            tuple(sorted(looks)),
            tuple(map(self.look, ledger.idle)),
            len(self.closing),
            tuple(sorted(map(self.look, self.connecting))),
            tuple(sorted(map(self.look, self.asked))),
            (self.paused, ledger.paused, self.max_size, ledger.rules.max_size, ledger.easy),
            (ledger.closed, reach.connected_once, max(0, reach.retry_at - now), max(0, reach.fill_at - now)),
            (self.ever_connected, max(0, self.retry_at - now), max(0, self.fill_at - now), max(0, ledger.due - now)),
            self.delay and (self.delay, reach._delay),
            self.setting.grace < math.inf and self.ways_to_fail(),
            self.load(),
            shared,
        )

    def load(self) -> Any:
        """What the rules of load remember."""
        ledger, now, setting = self.ledger, self.now, self.setting
        state: list[Any] = [max(0, ledger.look_at - now)] if ledger.watches_size else []
        if ledger.watches_size:
            state += told(ledger.sizing, now)
        if setting.shed is not None:
            limit = 2 * setting.shed[1] + 1
            state += told(ledger.shedding, now)
            state += [min(limit, now - self.calm_at), min(limit, now - self.moved_at)]
        return tuple(state)

    def hurry(self, ticket: Any) -> Any:
        """How long has he waited, and how long will he, as far as that changes anything?"""
        waited = 0 if self.setting.shed is None else min(self.now - ticket.since, 2 * self.setting.shed[0] + 1)
        return waited, max(0, ticket.deadline - self.now)

    def ways_to_fail(self) -> Any:
        reach, now, grace = self.ledger.reach, self.now, self.setting.grace
        since = (max(0, self.failing_since + grace - now), max(0, reach.failing_since + grace - now))
        return since

    def clone(self) -> World:
        """A copy that shares nothing that changes."""
        new = World.__new__(World)
        new.__dict__.update(self.__dict__)
        same: dict[int, Any] = {id(None): None}
        for entry in self.entries:
            same[id(entry)] = entry.clone()
        new.entries = [same[id(entry)] for entry in self.entries]
        new.closing = [same[id(entry)] for entry in self.closing]
        new.connecting = [same[id(entry)] for entry in self.connecting]
        new.asked = [same[id(entry)] for entry in self.asked]
        new.callers = []
        for caller in self.callers:
            ticket = caller.ticket
            if ticket is not None:
                same[id(ticket)] = copied = ticket.__class__(ticket.holder)
                copied.arrival, copied.since, copied.step = ticket.arrival, ticket.since, ticket.step
                copied.deadline = ticket.deadline
                copied.entry, copied.wake_at = same[id(ticket.entry)], ticket.wake_at
                ticket = copied
            new.callers.append(Caller(caller.mode, ticket, same[id(caller.entry)], caller.arrival))
        if self.shared is not None:
            new.shared = Shared()
            new.shared.__dict__.update(self.shared.__dict__)
            new.shared.rivals = self.shared.rivals.copy()
        new.ledger = self._clone_ledger(same)
        new.ledger.permits = new.shared
        new.ledger.rivals = () if new.shared is None else new.shared.rivals
        return new

    def _clone_ledger(self, same: dict[int, Any]) -> Any:
        old = self.ledger
        new = old.__class__.__new__(old.__class__)
        new.__dict__.update(old.__dict__)
        for name, kind in changeable(old):
            value = getattr(old, name)
            if kind in (deque, set):
                copied = kind([same[id(entry)] for entry in value])
            elif kind is BuiltinMethodType:  # a method of the shelf, which was copied before
                copied = getattr(new.idle, value.__name__)
            elif name == "reach":
                copied = copy.copy(value)  # of plain values
            elif name in ("shedding", "sizing"):
                copied = copy.deepcopy(value)
            elif issubclass(kind, OrderedDict):
                copied = kind.fromkeys([same[id(ticket)] for ticket in value])
            else:
                copied = kind.__new__(kind)
                copied.counts, copied.total = value.counts.copy(), value.total
            setattr(new, name, copied)
        return new


def told(rule: Any, now: float) -> list[Any]:
    """All that a rule's state is, in times relative to now; what is long ago is alike."""
    slots = [name for kind in type(rule).__mro__ for name in getattr(kind, "__slots__", ())]
    state: list[Any] = []
    for name in sorted({*slots, *getattr(rule, "__dict__", {})}):
        value = getattr(rule, name)
        if name in ("settings", "target", "interval", "limit"):
            continue
        if name.endswith(("at", "until")):
            # CoDel forgets what is eight intervals ago; all others only ask whether two have passed, or one
            ago = {"look_at": 0, "judge_at": 0, "sample_at": 0, "armed_until": 0, "moved_at": 2, "at": 9}[name]
            state.append(max(-ago, value - now))
        elif isinstance(value, (bool, int, float)):
            state.append(value)
        else:
            state += told(value, now)
    return state


def changeable(ledger: Any) -> list[tuple[str, Any]]:
    """Which of its attributes change from inside, and their kinds; one that the world cannot copy is an error."""
    ledger_class = ledger.__class__
    if ledger_class not in _CHANGEABLE:
        _CHANGEABLE[ledger_class] = []
        for name, value in vars(ledger).items():
            if isinstance(value, (OrderedDict, deque, set, BuiltinMethodType)) or hasattr(value, "counts"):
                _CHANGEABLE[ledger_class].append((name, type(value)))
            elif isinstance(value, (list, dict)) and name != "rivals":  # they are the budget's
                raise TypeError(f"the world cannot copy the ledger's {name}")
        _CHANGEABLE[ledger_class].append(("reach", type(ledger.reach)))
        _CHANGEABLE[ledger_class] += [(name, type(getattr(ledger, name))) for name in ("shedding", "sizing")]
        if odd := [name for name, value in vars(ledger.reach).items() if isinstance(value, (list, dict, set, deque))]:
            raise TypeError(f"the world cannot copy what the ledger's reach has in {odd}")
    return _CHANGEABLE[ledger_class]


_CHANGEABLE: dict[type, list[tuple[str, Any]]] = {}
