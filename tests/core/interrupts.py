"""What does an interrupt leave, wherever it strikes, and does an audit mend all of it?

In every reachable state of a small world every event that could happen next is struck: by an exception before each line
of the core that it executes (``grain="opcode"``: before each bytecode), and once more as it returns, so that its orders
are lost. Then whoever was struck does what the pool does for him, an audit is made, and the promises must hold again.

``Shell`` is the pool as far as an audit sees it: who has the claim to which connection. What the event's bearer had is
at home; what the event granted or ordered never left the lock; all else is where it was.
"""

from __future__ import annotations

import functools
import math
import sys
from collections import Counter, deque
from types import CodeType, FrameType, FunctionType, SimpleNamespace
from typing import Any

from tests.core.promises import Broken
from tests.core.setting import CUT, HOME, LINE, Caller, Setting
from tests.core.walk import story
from tests.core.world import AT_WORK, Event, World

#: Events of somebody who has a connection, or an empty slot, and says what becomes of it.
BEARING = frozenset("leave, give, checkin, discard, detach, opened, failed, dead".split(", "))
AND_GOES = frozenset({"dead, gone", "failed, gone", "opened too late"})  # his going is an event of its own
LEAVES = frozenset({"join", "snatch", "dead", "opened", "failed", *AND_GOES})  # when struck, as the pool has it
NOT_OF_THE_LEDGER = frozenset({"time passes", "outsider takes", "outsider gives", "use", "keep", "use again"})

KEEPER, WAITER, NEWCOMER = "the keeper, who audits", "a waiter, who looks for himself", "somebody new"


class Struck(BaseException):
    """As KeyboardInterrupt."""


@functools.lru_cache(maxsize=1)
def events_of(ledger: type) -> frozenset[CodeType]:
    """All that can be asked of a ledger, in whichever room it is written."""
    asked = [getattr(each, "fget", each) for each in vars(ledger).values()]
    return frozenset(each.__code__ for each in asked if isinstance(each, FunctionType))


class Strike:
    """Lets events happen and raises at the ``at``-th step of the ledger's, if there are so many."""

    def __init__(self, at: int, grain: str, ledger_calls: float, events: frozenset[CodeType]) -> None:
        self.left, self.grain, self.calls, self.events = at, grain, ledger_calls, events
        self.outermost: FrameType | None = None

    def __call__(self, frame: FrameType, what: str, arg: Any) -> Any:
        file = frame.f_code.co_filename
        if what != "call" or self.calls <= 0 or not ("threadpool_db/core" in file or file.startswith("<edited")):
            return None
        if self.outermost is None:
            if frame.f_code not in self.events:
                return None
            self.outermost = frame
        frame.f_trace_opcodes, frame.f_trace_lines = self.grain == "opcode", self.grain == "line"
        return self.step

    def step(self, frame: FrameType, what: str, arg: Any) -> Any:
        ends = what == "return" and frame is self.outermost
        if what == self.grain or ends:
            self.left -= 1
            if not self.left:
                raise Struck
        if ends:
            self.outermost = None
            self.calls -= 1
        return self.step


def strikes(world: World, event: Event, at: int, grain: str) -> bool:
    """False: the event was over before."""
    name, who = event
    before = sys.gettrace()
    sys.settrace(Strike(at, grain, 1 if name in AND_GOES else math.inf, events_of(type(world.ledger))))
    try:
        world._do(name, who)
        return False
    except Struck:
        return True
    finally:
        sys.settrace(before)


class Shell:
    """Around a world in which ``event`` is about to be struck."""

    def __init__(self, world: World, event: Event) -> None:
        self.world, self.ledger, self.now = world, world.ledger, world.now
        self.name, self.who = event
        self.known = set(world.entries)
        self.out = {entry for entry in world.entries if entry.word != "idle"}
        self.asked = set(world.asked)
        self.subject = self._bears()
        self.out.discard(self.subject)
        self.asked.discard(self.subject)

    def _bears(self) -> Any:
        name, world = self.name, self.world
        if name in AT_WORK:
            if name == "connect given up":
                return None  # whoever connects does not hear of it
            work = {"closed one": world.closing, "answered": world.asked, "dead when asked": world.asked}
            return work.get(name, world.connecting)[self.who]
        return world.callers[self.who].has if name in BEARING or name in AND_GOES else None

    def held(self, entry: Any) -> bool:
        return entry in self.out

    def tell(self, event: Any, *subject: Any) -> Any:
        """An event that nothing interrupts: its orders are carried out."""
        for entry in self.ledger.entries:
            entry.claim = "at home" if entry in self.known and entry not in self.out else None
        try:
            orders = event(*subject)
        except AssertionError as error:
            raise Broken("never trips", f"{event.__name__}: {error}") from error
        granted = [ticket.entry for ticket in orders.wake if ticket.entry is not None]
        for entry in (*granted, *orders.open, *orders.ask, *orders.close):
            if entry in self.out and entry not in orders.cut:
                raise Broken("one holder", f"{event.__name__}: one that is {entry.word} is somebody else's")
            self.out.add(entry)
        self.asked.update(orders.ask)
        self.known |= self.ledger.entries
        return orders

    def after_strike(self) -> None:
        """What becomes of the thread that was struck?"""
        callers, who = self.world.callers, self.who
        if self.name in AT_WORK or who < 0:
            return
        ticket = callers[who].ticket
        if self.name == "leave" and ticket in self.ledger.line:
            return  # nobody comes for what will be granted to it: as lost as any lease, later
        callers[who] = Caller()
        if ticket is not None and self.name in LEAVES:
            ticket.entry = None
            self.tell(self.ledger.leave, ticket, self.now)

    def audit(self) -> Any:
        return self.tell(self.ledger.audit, self.now, self.held)

    def rejoin(self) -> bool:
        """Whoever waits looks for himself now and then: is he in line, or is what he was granted his?"""
        anybody = False
        for who, caller in enumerate(self.world.callers):
            ticket = caller.ticket
            if ticket is None or caller.mode == CUT:
                continue
            value = ticket.step.value
            if value == "refused":
                self.world.callers[who] = Caller()
            elif ticket not in self.ledger.line if value == "wait" else ticket.entry not in self.out:
                self.tell(self.ledger.rejoin, ticket, self.now)
                anybody = True
        return anybody

    def newcomer(self) -> None:
        """Somebody joins before anybody has looked; what he finds half done must not be his error."""
        ticket = self.world.core.line.Ticket(len(self.world.callers))
        self.world.callers.append(Caller(LINE, ticket))
        self.tell(self.ledger.join, ticket, self.now)

    def recover(self, first: str) -> bool:
        """Who comes first? False: nobody had to look for his lost place."""
        self.after_strike()
        if first == NEWCOMER:
            self.newcomer()
        lost = first == WAITER and self.rejoin()
        self.audit()
        lost |= first != WAITER and self.rejoin()
        self.check()
        return lost

    # --- What must hold now -----------------------------------------------------------------------------------------

    def check(self) -> None:
        self.entries()
        self.line()
        self.time()
        mended, before = self.ledger.mended, self.world.shape(self.world.core.line.Orders())
        after = self.world.shape(self.audit())
        if after != before or self.ledger.mended > mended:
            raise Broken("audit", f"a second one did {after}, it was {before}")

    def entries(self) -> None:
        ledger = self.ledger
        words = Counter(entry.word for entry in ledger.entries)
        if len(ledger.entries) > ledger.rules.max_size:
            raise Broken("capacity", f"{len(ledger.entries)} connections")
        asked = {entry for entry in self.asked if entry.word == "leased"}
        if (ledger.opening, ledger.closing, ledger.asking) != (words["opening"], words["closing"], asked):
            raise Broken("counts", f"{ledger.opening} opening, {ledger.closing} closing, in truth {dict(words)}")
        for entry in ledger.entries:
            shelved = ledger.idle.count(entry)
            if shelved != (entry.word == "idle"):
                raise Broken("one holder", f"one that is {entry.word} is on the shelf {shelved} times")
            if entry.word == "gone" or not (shelved or entry in self.out):
                raise Broken("one holder", f"one that is {entry.word} is nobody's")
        for entry in self.known:
            if entry.word != "gone" and entry not in ledger.entries:
                raise Broken("counts", f"one that is {entry.word} is forgotten")
            ended = entry is self.subject and self.name in ("closed one", "detach")
            if entry.word == "gone" and entry.connection and not ended:
                raise Broken("closed once", "gone, and nobody closed it")
        if ledger.paused and ledger.idle:
            raise Broken("paused", "one is on the shelf")
        ranks = [ledger.rank(entry) for entry in ledger.idle]
        if ranks != sorted(ranks):
            raise Broken("shelf in order", f"{ranks}")

    def line(self) -> None:
        ledger = self.ledger
        arrivals = [ticket.arrival for ticket in ledger.line]
        if arrivals != sorted(arrivals):
            raise Broken("in order", f"the line stands {arrivals}")
        hands = []
        for caller in self.world.callers:
            ticket = caller.ticket
            waits = ticket is not None and ticket.step.value == "wait"
            if caller.mode == LINE and waits is not (ticket in ledger.line):
                raise Broken("in order", f"{ticket!r} is {'not ' if waits else ''}in line")
            if caller.mode != HOME and caller.has is not None:
                hands.append(caller.has)
        if any(ticket.step.value != "wait" for ticket in ledger.line):
            raise Broken("in order", "somebody in line does not wait")
        if len(hands) > len(set(hands)):
            raise Broken("one holder", "a connection has two holders")

    def time(self) -> None:
        """Nobody waits needlessly, and nothing will be looked at too late."""
        ledger, rules = self.ledger, self.ledger.rules
        if ledger.line:
            room = len(ledger.entries) < rules.max_size and ledger.opening < rules.max_connecting
            served = rules.background and ledger.opening >= len(ledger.line)
            room = room and not ledger.paused
            if ledger.idle or (room and self.now >= ledger.reach.next_at(self.now) and not served):
                raise Broken("no needless waiting", f"{ledger!r}")
        right = self.world.core.due.next_due(ledger, self.now)
        if ledger.due > right:
            raise Broken("on time", f"due at {ledger.due}, should be at {right}")


def strike_everywhere(setting: Setting, core: SimpleNamespace, grain: str = "line") -> int:
    """All states, all events, all steps of each. How many strikes? Raises Broken, with the events that led there."""
    start = World(setting, core)
    came_from: dict[Any, tuple[Any, str]] = {start.key(): (None, "")}
    frontier = deque([(start.key(), start)])
    count = 0
    while frontier:
        here, world = frontier.popleft()
        for event in world.events():
            label = world.describe(event)
            try:
                count += strike_each_step(world, event, grain)
            except Broken as broken:
                broken.path = story(came_from, here, f"{label}, {broken.path[0]}")
                raise
            after = world.clone()
            after.happen(event)
            there = after.key()
            if there not in came_from:
                came_from[there] = (here, label)
                frontier.append((there, after))
    return count


def strike_each_step(world: World, event: Event, grain: str) -> int:
    at = 0
    while event[0] not in NOT_OF_THE_LEDGER:
        at += 1
        for first in (NEWCOMER, KEEPER, WAITER):
            struck = world.clone()
            shell = Shell(struck, event)
            if not strikes(struck, event, at, grain):
                return at - 1
            if first == NEWCOMER and event[0] == "take":
                continue  # nothing of the interpreter's looks for signals between its write of the state and its pop
            try:
                if not shell.recover(first) and first == KEEPER:
                    break  # nobody else has lost his place
            except Broken as broken:
                broken.path = [f"struck at its {grain} {at}, then comes {first}"]
                raise
    return 0
