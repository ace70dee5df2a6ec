"""What must hold in every state, and across every event? The ledger's promises, as checks on a world (``world.py``).

Each has a name, which a broken one reports:

capacity            never more connections than ``max_size``, those being opened and closed included; when it is lowered
                    no more than there are, and none of them idle
paused              nothing is lent, idle or about to be opened, and nobody is refused for it
connect limit       at most ``max_connecting`` connects at once
connects wanted     none is ordered but for somebody who waits, or to keep ready what should be
backoff             after a failed connect none is told to open before the delay is over, and nothing opened in advance
legal states        a connection's states follow one another by the table in ``core/entry.py``
one holder          each is in one hand or on the shelf, and nowhere else; none is lost
closed once         what is let go of is ordered closed, once, and nothing is gone without
closed for a reason an order to close has one: worn, stale, dead, silent, one too many, wanted elsewhere
not kept            what has such a reason is not on the shelf
fresh               lent as USE only after a recent use, as PING only after silence, worn or stale ones never
shelf in order      by last use, so that the next to go is the one used last (fifo: the one idle longest)
no needless waiting nobody waits while one is idle or may be opened; in the background: nor without a connect for him
in order            first come, first served; who comes back into line has his old place
short ways          ``take`` and ``give`` answer alone where no other rule has a say
told                whoever is granted or refused something by another one's event is named in ``orders.wake``
wakes by itself     a head that only time can help knows when to wake
retired in time     ``due`` is not later than what it is for; no event leaves anything overdue
kept ready          as many as there should be, connected or idle, as soon as nothing forbids it
asked in time       what has been silent for ``keepalive`` is asked after, coldest first, a few at once; it is no use
at rest             a ledger that has nothing to look after is not due
refusals            for a reason: closed, full, a pool that never connected, one's own connect that nobody retries, or
                    a database that has been out of reach for ``grace``
fails fast          then nobody waits; and one is tried all the same, in the background
closed              no newcomer, nobody waiting, nothing idle
counts              the ledger's numbers are those of the world
permits             as many taken as there are connections; what another pool has waited for longer goes there
audit               where no interrupt has struck it finds nothing, changes nothing, and orders what a tick would
never trips         no event that may happen raises

in time             nobody is handed anything whose time is over
turned away         only by shedding, who has waited for more than twice the target, and when nobody was served within
                    it for an interval; in time where nothing moves, and no connection idles for it

Those of leases with a limit are in ``promises_holding.py``.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from threadpool_db.core.entry import TRANSITIONS

if TYPE_CHECKING:
    from tests.core.world import World

FAILURES = ("failed", "failed, gone", "connect failed", "connect given up")
LEGAL = {state.value: frozenset(after.value for after in ways) for state, ways in TRANSITIONS.items()}


class Broken(AssertionError):
    """A promise was not kept. ``path``: the events that led there."""

    def __init__(self, promise: str, detail: str) -> None:
        super().__init__(promise, detail)
        self.promise, self.detail = promise, detail
        self.path: list[str] = []

    def __str__(self) -> str:
        return "\n  ".join([f"{self.promise}: {self.detail}", *self.path])


class Done(NamedTuple):
    """One event: by the holder of which ticket, which connection came back, which is to be gone, what was ordered."""

    ticket: Any = None
    entry: Any = None
    gone: Any = None
    orders: Any = None
    taken: Any = None


class Before:
    """What the promises remember of the state before an event."""

    def __init__(self, world: World) -> None:
        ledger = world.ledger
        self.line = list(ledger.line)
        self.idle = list(ledger.idle)
        self.closing = list(world.closing)
        self.spare = spare(world)
        self.steps = [
            (caller.ticket, caller.ticket.step, caller.ticket.entry, caller.ticket.wake_at)
            for caller in world.callers
            if caller.ticket is not None
        ]
        self.live = world.live
        self.opening = world.opening
        self.total = len(world.entries)
        self.due = ledger.due
        shared = world.shared
        self.rivals = shared is not None and bool(shared.rivals)
        self.wanted = shared is not None and not shared.promised and shared.wants_since is not None
        head_since = self.line[0].since if self.line else world.now
        self.wanted_first = self.wanted and shared is not None and (shared.wants_since or 0) < head_since


def after_time(world: World) -> None:
    """Nothing happened but a step of time: whoever it helps must wake by himself."""
    line = world.ledger.line
    if line and not world.setting.background:
        head = next(iter(line))
        if head.wake_at > world.now and could_open(world) and world.now >= world.retry_at:
            raise Broken("wakes by itself", f"{head!r} could be served now, and sleeps until {head.wake_at}")
    due_in_time(world)


def after_event(world: World, name: str, before: Before, done: Done) -> None:
    take_note(world, before, done)
    moved(world, name, before)
    holders(world)
    closings(world, name, before, done)
    short_ways(world, name, before, done)
    limits(world, before)
    connects(world, done)
    questions(world, before, done)
    line(world, name, before, done)
    refusals(world, name, before, done)
    shelf(world, name, before, done)
    numbers(world)
    fails_fast(world, done)
    calmed(world, before)


def take_note(world: World, before: Before, done: Done) -> None:
    """Bring the world's own list up to date, and see that exactly what should be gone is."""
    for entry in world.ledger.entries:
        if entry not in world.entries:
            if entry.word != "opening":
                raise Broken("legal states", f"a connection began its life {entry.word}")
            entry.lent_at, entry.ends_at = world.now, math.inf
            entry.answered, entry.served, entry.spoiled, entry.stale = world.now, 0, False, False
            entry.heard = world.now
            entry.begin(world.now)
            world.entries.append(entry)
    for entry in [e for e in world.entries if e.word == "gone"]:
        if entry is not done.gone:
            raise Broken("closed once", "a connection is gone that nobody closed or took away")
        world.entries.remove(entry)
    if done.orders is not None:
        world.connecting += done.orders.open
        world.asked += done.orders.ask
    if done.gone in world.entries:
        raise Broken("one holder", f"a connection should be gone, and is {done.gone.word}")


def holders(world: World) -> None:
    """Each connection is in one hand, on the shelf, or on its way out."""
    step, ledger = world.step, world.ledger
    hands = []
    for who, caller in enumerate(world.callers):
        entry, right = caller.has, "leased"
        if caller.ticket is not None and not caller.cut:
            if (entry is None) is not (caller.ticket.step in (step.WAIT, step.REFUSED)):
                raise Broken("one holder", f"{caller.ticket!r} has {entry!r}")
            if entry is not None and entry.holder != who:
                raise Broken("one holder", "a connection does not know its holder")
            if caller.ticket.step is step.OPEN:
                right = "opening"
        if entry is None:
            continue
        if entry.word != right:
            raise Broken("one holder", f"{'ABCDEFGH'[who]} has a connection that is {entry.word}")
        hands.append(entry)
    for entry in world.connecting:
        if entry.word not in ("opening", "closing"):
            raise Broken("one holder", f"somebody connects, and it is {entry.word}")
    for entry in world.asked:
        if entry.word != "leased" or entry.holder is not None:
            raise Broken("one holder", f"it is being asked after, {entry.word} and held by {entry.holder}")
    hands += world.connecting + world.asked
    if len(hands) > len(set(hands)):
        raise Broken("one holder", "a connection has two holders")
    for entry in world.entries:
        state = entry.word
        if state == "idle":
            if ledger.idle.count(entry) != 1:
                raise Broken("one holder", f"an idle connection is on the shelf {ledger.idle.count(entry)} times")
        elif state != "closing" and entry not in hands:
            raise Broken("one holder", f"a connection is {state} and in nobody's hands")
        if entry not in ledger.entries:
            raise Broken("counts", f"the ledger has forgotten a connection that is {state}")
    for entry in ledger.idle:
        if entry.word != "idle":
            raise Broken("one holder", f"a connection on the shelf is {entry.word}")


def closings(world: World, name: str, before: Before, done: Done) -> None:
    """Ordered closed once, and only for a reason."""
    ordered = [] if done.orders is None else done.orders.close
    for entry in world.entries:
        if entry.word == "closing":
            times = ordered.count(entry) + before.closing.count(entry) + world.connecting.count(entry)
            if entry in before.closing and name == "closed one" and entry not in world.closing:
                raise Broken("closed once", "closed, and not gone")
            if times != 1:
                raise Broken("closed once", f"a connection that was let go of was ordered closed {times} times")
        elif entry in ordered:
            raise Broken("closed once", f"ordered closed, and still {entry.word}")
    world.closing += ordered
    for entry in ordered:
        if entry not in world.entries:
            raise Broken("closed once", "ordered closed, and gone already")
        if entry in done.orders.cut or may_close(world, name, before, done, entry):
            continue
        if world.lingers(entry):
            if world.connected < world.core_size:
                raise Broken("closed for a reason", "one that was not extra was closed for lingering")
            continue
        if world.now - entry.answered < world.setting.max_idle:
            raise Broken("closed for a reason", "a good connection was ordered closed")
        # spare is judged before the line is served
        served = sum(other.word == "leased" and other not in world.asked for other in before.idle)
        if spare(world, served) < 0:
            raise Broken("closed for a reason", "one more than was spare was closed for idleness")


def may_close(world: World, name: str, before: Before, done: Done, entry: Any) -> bool:
    setting = world.setting
    if entry.stale or entry.spoiled or world.worn(entry):
        return True
    if entry in before.idle:
        silent = world.now - entry.answered >= setting.ping_after
        if name == "shrink":
            return beyond(world, before, done, entry)
        return name in ("clear", "recycle", "close", "pause") or (name.startswith("dead") and silent)
    if entry is not done.entry:
        return False
    if world.paused or before.live > world.max_size:
        return True
    if name == "opened":
        return False  # for him
    return before.wanted_first or (not before.line and before.live > world.base)


def beyond(world: World, before: Before, done: Done, entry: Any) -> bool:
    """``max_size`` was lowered: the coldest go, and no more of them than there are too many."""
    many = len(done.orders.close)
    colder = sum(other.answered < entry.answered for other in before.idle)
    return many <= before.live - world.max_size and colder < many


def short_ways(world: World, name: str, before: Before, done: Done) -> None:
    """One that is idle and fresh is to be had at once, and a good one taken back where no rule has a say."""
    setting, now = world.setting, world.now
    if name == "take" and done.taken is None and before.idle and not setting.min_idle:
        entry = before.idle[-1]
        if now - entry.answered < min(setting.ping_after, setting.max_idle) and not world.worn(entry):
            raise Broken("short ways", "one is idle and fresh, and was not taken")
    if name == "give" and done.orders is not None and not before.line:
        ruled = world.paused or before.rivals or setting.max_uses < math.inf or before.total > world.keeps
        entry, heard_of = done.entry, any(report.kind == "returned" for report in done.orders.reports)
        if not (ruled or heard_of or entry.stale or world.worn(entry) or now >= before.due):
            raise Broken("short ways", "a good one was not taken back")


def limits(world: World, before: Before) -> None:
    setting, total = world.setting, len(world.entries)
    if total > world.max_size and (total > before.total or (world.live > world.max_size and world.ledger.idle)):
        raise Broken("capacity", f"{total} connections, {before.total} before")
    if world.paused and (world.ledger.idle or world.opening > before.opening):
        raise Broken("paused", "one is idle, or about to be opened")
    if world.opening > setting.max_connecting:
        raise Broken("connect limit", f"more than {setting.max_connecting:g} connects at once")
    if world.shared is not None and world.shared.used != len(world.entries):
        raise Broken("permits", f"{world.shared.used} permits for {len(world.entries)} connections")


def connects(world: World, done: Done) -> None:
    """In the background none is ordered that nobody wants; what makes up for one too few is in ``undone``."""
    if done.orders is None or not done.orders.open:
        return
    setting = world.setting
    opening, waiting = world.opening, wanting(world)
    if not setting.background or world.shut:
        raise Broken("connects wanted", "the keeper is told to open one")
    if opening <= waiting:
        if world.now < world.retry_at:
            raise Broken("backoff", f"told to open at {world.now}, before {world.retry_at}")
    elif world.now < world.fill_at:
        raise Broken("backoff", f"opened in advance at {world.now}, before {world.fill_at}")
    elif not too_few(world, opening - 1 - waiting, opening - 1):
        raise Broken("connects wanted", f"{opening} connects for {waiting} who wait")


def wanting(world: World) -> int:
    """For how many should a connect be under way? For one while the database is out of reach, also if nobody asks."""
    if world.unavailable:
        return int(world.now >= world.fill_at and not world.shut)
    return len(world.ledger.line)


def fails_fast(world: World, done: Done) -> None:
    """When nothing is connected and connects have failed for long enough, nobody waits."""
    if done.orders is None or world.ledger.due <= world.now:
        return
    line, patience = world.ledger.line, world.failing_since + world.setting.grace
    if world.unavailable and line:
        raise Broken("fails fast", "somebody waits")
    if line and world.now < patience:
        head = next(iter(line))
        if world.ledger.due > patience or (not world.setting.background and head.wake_at > patience):
            raise Broken("fails fast", f"nobody looks at {patience}, when those in line are to be refused")


def too_few(world: World, surplus: int, opening: int) -> bool:
    """Should one more be made ready, when so many are under way, ``surplus`` of them for nobody who waits?"""
    setting = world.setting
    if world.unavailable and opening:
        return False
    coming = world.connected + len(world.ledger.line) + surplus
    idle = len(world.ledger.idle) + len(world.asked) + surplus
    return coming < setting.min_size or (idle < setting.min_idle and coming < world.base)


def questions(world: World, before: Before, done: Done) -> None:
    """Are the right ones asked after?"""
    if len(world.asked) > world.setting.asked_at_once:
        raise Broken("asked in time", f"{len(world.asked)} are asked after at once")
    if done.orders is None or not done.orders.ask:
        return
    latest = max(entry.heard for entry in done.orders.ask)
    if world.now - latest < world.setting.keepalive:
        raise Broken("asked in time", f"asked after {world.now - latest} of silence")
    if any(entry.heard < latest for entry in world.ledger.idle):
        raise Broken("asked in time", "a colder one was not asked")
    if world.ledger.line:
        raise Broken("no needless waiting", "one is asked after, which might be lent")
    if world.shut:
        raise Broken("closed", "one is asked after")


def spare(world: World, served: int = 0) -> float:
    """So many idle ones need not be kept; ``served``: as it was before so many of them were lent."""
    setting, idle = world.setting, len(world.ledger.idle) + len(world.asked) + served
    return min(world.connected - world.smallest, idle - setting.min_idle if setting.min_idle else math.inf)


def could_open(world: World) -> bool:
    """Would everything but time allow one more?"""
    return (
        not world.paused
        and len(world.entries) < world.max_size
        and world.opening < world.setting.max_connecting
        and (world.shared is None or world.shared.free_one())
        and (not world.setting.sizing.startswith("Sojourn") or grows(world))
    )


def grows(world: World) -> bool:
    """When it may grow beyond its core is Sojourn's to know (``test_sojourn.py``); the ledger must do it then."""
    return len(world.entries) < world.core_size or world.now >= world.ledger.sizing.valve.opens_at


def line(world: World, name: str, before: Before, done: Done) -> None:
    """Who was served, in what order, and does everybody know?"""
    ledger, now, step = world.ledger, world.now, world.step
    waiting = list(ledger.line)
    last_served = -1
    steps = {ticket: known for ticket, *known in before.steps}
    for caller in world.callers:
        ticket = caller.ticket
        if ticket is None or caller.cut:
            continue
        old_step, old_entry, old_wake = steps.get(ticket, (step.WAIT, None, math.inf))
        if ticket.step is step.WAIT and ticket not in ledger.line:
            raise Broken("in order", f"{ticket!r} waits, and is not in the line")
        changed = ticket.step is not old_step or ticket.entry is not old_entry
        sooner = ticket.step is step.WAIT and ticket.wake_at < old_wake
        if (changed or sooner) and ticket is not done.ticket and ticket not in done.orders.wake:
            raise Broken("told", f"{ticket!r} would sleep on")
        if not changed or ticket.entry is None:
            continue
        if ticket.entry is not old_entry:
            last_served = max(last_served, ticket.arrival)
            if ticket.deadline <= now and ticket is not done.ticket:
                raise Broken("in time", f"{ticket!r} was granted something when his time was over")
            lent(world, before, ticket.entry, ticket.step)
        elif ticket.entry.taken_at != now:
            raise Broken("counts", f"opened and lent now, at {now}, and it says at {ticket.entry.taken_at}")
        elif ticket.entry.stale:
            raise Broken("fresh", "opened for a generation that is over, and used")
        elif world.paused:
            raise Broken("paused", "opened, and used")
        elif world.live > world.max_size:
            raise Broken("capacity", "opened beyond a size that was lowered, and used")
        if ticket.step is not step.OPEN:
            world.lent += 1
            world.waited += now > ticket.since
            world.wait_time += now - ticket.since
            ticket.entry.lent_at = now
            ticket.entry.begin(now)
    if name in ("join", "snatch"):
        others = [caller for caller in world.callers if caller.ticket is not done.ticket]
        last = max([max(c.arrival, -1 if c.ticket is None else c.ticket.arrival) for c in others], default=-1)
        if done.ticket.since != now or done.ticket.arrival <= last:
            raise Broken("in order", f"a newcomer is {done.ticket!r}, waiting since {done.ticket.since}")
    if done.taken is not None:
        last_served = ledger.arrivals
        lent(world, before, done.taken, step.USE)
    for ticket in waiting:
        if ticket.step is not step.WAIT:
            raise Broken("in order", f"{ticket!r} is in the line and does not wait")
        if ticket.arrival < last_served:
            raise Broken("in order", f"somebody who came after {ticket!r} was served before it")
    if any(a.arrival >= b.arrival for a, b in itertools.pairwise(waiting)):
        raise Broken("in order", f"the line stands {waiting}")
    if not waiting:
        return
    if ledger.idle:
        raise Broken("no needless waiting", "one is idle")
    if could_open(world) and not world.setting.background:
        if now >= world.retry_at and done.orders is not None:
            raise Broken("no needless waiting", "one may be opened")
        if waiting[0].wake_at > max(now, world.retry_at):
            raise Broken("wakes by itself", f"the head could try again at {world.retry_at}")


def turned_away(world: World, before: Before, ticket: Any) -> bool:
    """Rightly so?"""
    if world.setting.shed is None or world.paused or world.ledger.idle:
        return False
    target, interval = world.setting.shed
    calm_at = world.calm_at if before.line else world.now
    return world.now - ticket.since >= 2 * target and world.now - calm_at >= interval


def served(world: World, before: Before) -> list[Any]:
    """Who has just been handed one."""
    step = world.step
    old = {ticket: known for ticket, known, *_ in before.steps}
    tickets = [caller.ticket for caller in world.callers if caller.ticket is not None]
    return [t for t in tickets if t.step in (step.USE, step.PING) and old.get(t) is not t.step]


def moved(world: World, name: str, before: Before) -> None:
    if served(world, before) or not before.line or name == "resume":
        world.moved_at = world.now


def calmed(world: World, before: Before) -> None:
    """What the next event is judged by."""
    target = (world.setting.shed or (0, 0))[0]
    in_time = any(world.now - ticket.since <= target for ticket in served(world, before))
    if in_time or not world.ledger.line or not before.line:
        world.calm_at = world.now


def lent(world: World, before: Before, entry: Any, how: Any) -> None:
    """A connection, or an empty slot, was granted."""
    setting, step = world.setting, world.step
    if world.paused:
        raise Broken("paused", "something was granted")
    if how is step.OPEN:
        if world.now < world.retry_at:
            raise Broken("backoff", f"told to open at {world.now}, before {world.retry_at}")
        return
    silent = world.now - entry.answered
    if entry.taken_at != world.now:
        raise Broken("counts", f"lent now, at {world.now}, and it says at {entry.taken_at}")
    if entry.stale or entry.spoiled or world.worn(entry):
        raise Broken("fresh", "lent although stale, worn or in a strange state")
    if entry in before.idle and silent >= setting.max_idle and min(before.spare, spare(world)) > 0:
        raise Broken("fresh", "lent although idle for too long")
    if how is step.USE and silent >= setting.ping_after:
        raise Broken("fresh", f"lent unasked after {silent} of silence")
    if how is step.PING and silent < setting.ping_after:
        raise Broken("fresh", f"to be asked after {silent} of silence")


def refusals(world: World, name: str, before: Before, done: Done) -> None:
    step, setting, ledger, now = world.step, world.setting, world.ledger, world.now
    # a connect that was ordered is for one of those in line, who is not counted then
    ordered = world.opening if setting.background else 0
    # a connect failed that nobody retries, and there are too few for those in line
    left = before.opening - 1
    abandoned = (
        name in FAILURES
        and not world.paused
        and setting.background
        and setting.backoff is None
        and len(before.line) > left
    )
    for caller in world.callers:
        ticket = caller.ticket
        if ticket is None or ticket.step is not step.REFUSED:
            continue
        why = "nothing" if ticket.refusal is None else ticket.refusal.value
        own = ticket is done.ticket
        if why == "closed":
            right = world.shut
        elif why == "full":
            right = own and name == "join" and len(before.line) - ordered >= setting.max_waiting
        elif why == "shed":
            right = turned_away(world, before, ticket)
        elif why == "unavailable":
            right = world.unavailable and ticket.cause is not None
            if own and name == "join":
                tries = world.ever_connected and world.now >= world.retry_at and could_open(world)
                right = right and not world.shut and (setting.background or not tries)
        elif why == "connect failed":
            his = (ticket in before.line[:1] and abandoned) if setting.background else own
            right = his if setting.backoff is None else not world.ever_connected
            right = right and name in FAILURES and ticket.cause is not None and (own or not world.paused)
            abandoned = False
        else:
            right = (own and name in ("leave", "snatch", "failed, gone")) or ticket.deadline <= now
        if not right:
            raise Broken("refusals", f"{ticket!r} was refused: {why}")
    if name == "join" and done.ticket.step is step.WAIT and len(before.line) - ordered >= setting.max_waiting:
        raise Broken("refusals", f"let into a line of {len(before.line)}")
    if (
        name == "snatch"
        and done.ticket.step is step.REFUSED
        and any(
            world.now - entry.answered < min(setting.ping_after, setting.max_idle) and not world.worn(entry)
            for entry in ledger.idle
        )
    ):
        raise Broken("no needless waiting", "got nothing though one was idle and fresh")
    if abandoned:
        raise Broken("refusals", "a connect failed that nobody retries, and nobody was told")
    hopeless = name in FAILURES and setting.backoff is not None and not world.ever_connected and not world.paused
    if hopeless and ledger.line:
        raise Broken("refusals", "the pool never connected, and somebody still waits")
    if world.shut and (ledger.line or ledger.idle or any(e.word == "opening" for e in ledger.entries if not e.stale)):
        raise Broken("closed", "somebody waits, or something is idle or about to be")


def shelf(world: World, name: str, before: Before, done: Done) -> None:
    """What may be kept?"""
    ledger, now, setting = world.ledger, world.now, world.setting
    for entry in ledger.idle:
        if entry.last_used != entry.answered:
            raise Broken("fresh", f"last used at {entry.answered}, and it says at {entry.last_used}")
        if entry.stale or entry.spoiled:
            raise Broken("not kept", "a stale or spoiled one is on the shelf")
        if world.worn(entry) and entry is done.entry:
            raise Broken("not kept", "a worn one is on the shelf")
        if entry is done.entry and before.wanted_first and entry.last_used > entry.opened_at:
            raise Broken("permits", "kept, though another pool has waited longer")
    kept = world.connected if setting.background else world.live
    if ledger.idle and kept > world.keeps:
        raise Broken("not kept", f"{kept} are kept, {world.keeps:g} may be while nobody waits")
    if ledger.idle and name in ("clear", "recycle", "close", "pause"):
        raise Broken("not kept", "one is idle still")
    answered = [entry.answered for entry in ledger.idle]
    if answered != sorted(answered, reverse=setting.order == "fifo"):
        raise Broken("shelf in order", f"last used at {answered}")
    due_in_time(world)
    looked_at = name == "tick" and before.due <= now
    watched = setting.held_for > 0 and world.connected > 0
    hopes = not world.shut and now < world.failing_since + setting.grace < math.inf
    rests = looked_at and (world.shut or not world.connected) and not watched and now >= world.fill_at and not hopes
    rests = rests and not (ledger.line and setting.shed) and not ledger.watches_size  # a sizing may look once in vain
    if rests and ledger.due < math.inf:
        raise Broken("at rest", f"there is nothing to look after, and it is due at {ledger.due}")
    if done.orders is None or world.shut or name == "connected at last":
        return
    if ledger.due <= now:
        raise Broken("retired in time", f"{ledger.due} is still due")
    if left := undone(world, looked_at):
        raise Broken(*left)


def due_in_time(world: World) -> None:
    """What is overdue is due; a keeper that ticks when something is due misses nothing."""
    if world.ledger.due > world.now and not world.shut and (left := undone(world)):
        promise, detail = left
        raise Broken(promise, f"{detail}, and nothing is due until {world.ledger.due}")


def undone(world: World, looked_at: bool = False) -> tuple[str, str] | None:
    """Is there something that a tick should do now?"""
    setting, now, ledger = world.setting, world.now, world.ledger
    # how many are idle changes with each use: what only that makes spare is retired when it is looked at next
    patient = setting.min_idle > 0 and not looked_at and ledger.due <= now + setting.max_idle
    for entry in ledger.idle:
        if world.worn(entry):
            return "retired in time", "a worn one is on the shelf"
        if now - entry.answered >= setting.max_idle and spare(world) > 0 and not patient:
            return "retired in time", "one has been idle for too long"
        extra = "Overflow" in setting.sizing and world.connected > world.core_size and spare(world) > 0
        if extra and world.lingers(entry) and ledger.due > now + setting.linger:  # it looks that often
            return "retired in time", "an extra one has lingered for too long"
        if now - entry.heard >= setting.keepalive and len(world.asked) < setting.asked_at_once:
            return "asked in time", "one has been silent for too long"
    if setting.shed is not None and ledger.line and not world.paused and setting.background:
        target, interval = setting.shed
        head = next(iter(ledger.line))
        late = ledger.due > now + 2 * target  # one who has come back is looked at with those who are there
        if now - world.moved_at >= 2 * interval and now - head.since >= 2 * target and late:
            return "turned away", f"{head!r} waits in a line that does not move"
    if not setting.background or now < world.retry_at or not could_open(world):
        return None
    surplus = world.opening - wanting(world)
    if surplus < 0:
        return "no needless waiting", "one may be opened"
    if now >= world.fill_at and too_few(world, surplus, world.opening):
        return "kept ready", "there should be more"
    return None


def numbers(world: World) -> None:
    ledger = world.ledger
    states = [entry.word for entry in world.entries]
    right = (
        world.max_size,
        states.count("idle"),
        states.count("leased"),
        states.count("opening"),
        states.count("closing"),
        sum(caller.ticket is not None and caller.ticket.step is world.step.WAIT for caller in world.callers),
    )
    if tuple(ledger.counts()) != right:
        raise Broken("counts", f"{ledger.counts()}, in truth {right}")
    told = (ledger.checkouts, ledger.opened_count, ledger.closures, ledger.connect_failures, ledger.dead_count)
    true = (world.lent, world.opened, world.closures, world.failures, world.dead)
    if told != true:
        raise Broken("counts", f"checkouts, opened, closures, failures, dead: {told}, in truth {true}")
    if (ledger.reach.error is not None) is not world.failing:
        raise Broken("counts", f"the last connect error is {ledger.reach.error!r}")
    timed = [sum(times.counts) for times in (ledger.wait_times, ledger.use_times, ledger.connect_times)]
    timed += [ledger.wait_times.total, ledger.use_times.total]
    true_times = [world.waited, world.returned, world.opened, world.wait_time, world.use_time]
    if timed != true_times:
        raise Broken("counts", f"waits, uses, connects; time waited, used: {timed}, in truth {true_times}")
