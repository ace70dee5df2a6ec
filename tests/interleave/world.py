"""What plays in a schedule, and what must hold? A real pool, a driver that watches it, borrowers, and the promises.

capacity            never more connections than ``max_size``, those being opened and closed included
one holder          nobody gets a connection that somebody has, that is closed, or in somebody else's transaction
outside the lock    no call of the driver while the lock is held
no needless waiting nobody is in line while one is idle or one may be opened
no lost wake-up     nobody sleeps who was granted or refused something, beside an unread note, or at a gate of a pool
                    that has drained
bounded wait        a checkout ends within its timeout, and nobody gives up before
looked at           a look has shown it alive since its last use
at once             a pool that has never connected says so to whoever failed to, and retries nothing
in order            first come, first served; who comes back into line has his old place
no deadlock         somebody can always go on
closed once         whatever was opened is closed once, by the driver, or detached; ``disconnected`` is told once for it
nothing lost        in the end nobody has one, nothing is on its way, and the pool's numbers are those of the driver
nothing to mend     no audit finds anything to put right where nobody was interrupted
never trips         no error but those that a scenario allows

Time that a thread was ready and not let run, or inside a call of its own to the driver, is not the pool's.

Where somebody was interrupted, at any place, the same holds once an audit has looked: after the play for all that was
lost, and after a patrol's time for whoever waits. Only how often something happened may be one off then.
"""

from __future__ import annotations

import gc
import math
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from types import SimpleNamespace
from typing import Any

from tests.core.promises import Broken
from tests.interleave.scheduler import Abort, Scheduler, Task
from threadpool_db.borrowing import PATROL
from threadpool_db.config import PoolConfig
from threadpool_db.core.entry import CLOSING, GONE, LEASED, OPENING
from threadpool_db.core.line import OPEN as CONNECT
from threadpool_db.core.line import PING, USE, WAIT
from threadpool_db.core.outage import RAMP
from threadpool_db.drivers.base import IDLE, OPEN, Driver, TransactionState
from threadpool_db.errors import (
    ConnectFailed,
    LeaseExpired,
    PoolClosed,
    PoolMisuse,
    PoolOverloaded,
    PoolTimeout,
    PoolUnavailable,
)

REFUSALS: dict[type[BaseException], str] = {
    PoolTimeout: "timeout",
    PoolOverloaded: "overloaded",
    PoolClosed: "closed",
    ConnectFailed: "connect failed",
    PoolMisuse: "misuse",
    PoolUnavailable: "unavailable",
}


class Interrupted(BaseException):
    """What KeyboardInterrupt would be."""


class Connection:
    __slots__ = (
        "__weakref__", "alive", "answers", "autocommit", "caller", "closed", "cut", "driver", "looked_at", "number",
        "state", "user",
    )  # fmt: skip

    def __init__(self, driver: WatchingDriver, number: int) -> None:
        self.driver = driver
        self.number = number
        self.alive = self.answers = True
        self.state: TransactionState = IDLE
        self.autocommit: bool | None = None
        self.closed = False
        self.cut = False  # whatever is under way on it fails
        self.looked_at = True  # since it was last used
        self.user: str | None = None
        self.caller: str | None = None

    def __del__(self) -> None:
        if not self.closed:
            self.driver.collected += 1  # its socket is closed with it, and nobody said goodbye

    def __repr__(self) -> str:
        return f"<connection {self.number}>"


class WatchingDriver(Driver[Connection]):
    """Connections to nowhere; every call is a point of the schedule, or takes time where the scenario says so."""

    name = "watching"
    peeks = True
    can_reset = True

    def __init__(self, scheduler: Scheduler) -> None:
        self._s = scheduler
        self.inside: Callable[[], bool] = lambda: False
        self.most: float = math.inf
        self._made: list[weakref.ref[Connection]] = []
        self.made = self.closed = self.collected = self.connecting = 0
        self.seconds: dict[str, float] = {}  # method -> how long it takes
        self.first_seconds: dict[str, list[float]] = {}  # and how long its next calls do
        self.failures = 0
        self.down_until = -math.inf  # no connect succeeds before
        self.server: Hashable = None  # whose name drivers of the same one have in common
        self.too_many: Callable[[str], None] = lambda detail: None
        self.cut_in_cleaning: Callable[[], None] = lambda: None
        self.fails: dict[str, list[type[BaseException] | None]] = {}  # method -> what its next calls raise

    @property
    def open(self) -> list[Connection]:
        made = [reference() for reference in self._made]
        return [connection for connection in made if connection is not None and not connection.closed]

    @property
    def count(self) -> int:
        """How many are open."""
        return self.made - self.closed - self.collected

    def _call(self, method: str, connection: Connection | None = None) -> None:
        s = self._s
        if s.aborting:
            return
        if self.inside():
            s.fail(Broken("outside the lock", f"{method} inside the lock"))
        if connection is not None and connection.cut and method != "close":
            raise OSError("cut")
        if connection is not None:
            if connection.closed:
                s.fail(Broken("closed once", f"{method} of {connection}, which is closed"))
            if connection.caller is not None and not connection.cut:
                s.fail(Broken("one holder", f"{method} of {connection} while {connection.caller} is in a call for it"))
            if connection.user not in (None, s.current.name) and not connection.cut:
                s.fail(Broken("one holder", f"{method} of {connection}, which {connection.user} uses"))
            connection.caller = s.current.name
        try:
            first = self.first_seconds.get(method)
            seconds = first.pop(0) if first else self.seconds.get(method, 0.0)
            if seconds:
                s.current.busy += seconds
                s.sleep(seconds, f"the driver's {method}")
            else:
                s.point(f"driver: {method}")
        finally:
            if connection is not None:
                connection.caller = None
        if connection is not None and connection.cut and method != "close":
            if method == "rollback":
                self.cut_in_cleaning()
            raise OSError("cut")
        steps = self.fails.get(method)
        if steps and steps[0] is None:
            steps.pop(0)
        elif steps:
            self.failures += method == "connect"
            # in no variable: that would keep this frame, and with it the frames and leases of all who called
            raise steps.pop(0)(method)  # type: ignore[misc]
        if method == "connect" and s.time < self.down_until:
            self.failures += 1
            raise OSError(method)

    @property
    def server_key(self) -> Hashable:
        return self.server or super().server_key

    def connect(self, timeout: float) -> Connection:
        self.connecting += 1
        if self.count + self.connecting > self.most and not self._s.aborting:
            self.too_many(f"{self.count} open, {self.connecting} connecting")
        try:
            self._call("connect")
            self.made += 1
            connection = Connection(self, self.made)
            self._made.append(weakref.ref(connection))
        finally:
            self.connecting -= 1
        return connection

    def close(self, connection: Connection) -> None:
        try:
            self._call("close", connection)
        finally:
            self.closed += not connection.closed
            connection.closed = True

    def peek(self, connection: Connection) -> bool:
        self._call("peek", connection)
        connection.looked_at = True
        return connection.alive

    def ping(self, connection: Connection) -> bool:
        self._call("ping", connection)
        return connection.answers

    def interrupt(self, connection: Connection) -> None:
        if self._s.current.holds:
            self._s.fail(Broken("outside the lock", "interrupt inside the lock"))
        connection.cut = True

    def state(self, connection: Connection) -> TransactionState:
        return connection.state

    def autocommit(self, connection: Connection) -> bool | None:
        return None

    def rollback(self, connection: Connection) -> None:
        self._call("rollback", connection)
        connection.state = IDLE


class Entries(dict[Any, None]):
    """A set whose order does not depend on addresses: a schedule must come again."""

    add = dict.setdefault

    def discard(self, entry: Any) -> None:
        self.pop(entry, None)


def repeatable(shell: SimpleNamespace) -> Any:
    """The shell's pool, without what chance and addresses decide."""

    class Repeatable(shell.pool.ConnectionPool):  # type: ignore[misc, name-defined]
        _warns_when_dropped = False

        def _start_afresh(self) -> None:
            super()._start_afresh()
            self._ledger.entries = Entries()
            self._ledger.draw = lambda: 0.5
            self.name = "pool"  # the automatic one depends on what else lives

    return Repeatable


def next_try(ledger: Any, now: float) -> float:
    """As the ledger says it. But its own lines must not run here, where an interrupt that is injected into them would
    strike the watchers."""
    reach, server = ledger.reach, ledger.reach.server
    moment: float = max(reach.retry_at, getattr(server, "told", -math.inf))
    step = server._step
    gone = now >= reach.failing_since + ledger.rules.grace and len(ledger.entries) == ledger.opening + ledger.closing
    if step is not None and (reach.connected_once or gone) and (step.failing or now < server._back_since + RAMP):
        while step._following:
            (step,) = step._following.values()
        moment = max(moment, step.at)
    return moment


class World:
    """A pool, and the parts that a scenario plays with it. ``make``: of a driver and a config, the pool."""

    #: Seconds that those who act unasked are given after the last part.
    calm = 0.0

    def __init__(self, scheduler: Scheduler, shell: SimpleNamespace, config: PoolConfig, make: Any = None) -> None:
        self.s = scheduler
        self.shell, self.config = shell, config
        self.driver = driver = WatchingDriver(scheduler)
        driver.too_many = self._too_many
        driver.cut_in_cleaning = lambda: self.outcomes.update(["taken while cleaned"])
        driver.most = config.max_size
        self.pool = pool = (make or shell.repeatable)(driver, config)
        driver.inside = pool._lock._is_owned
        self.ledger = pool._ledger
        pool._observers._observers = (self._hear,)
        self.others: list[World] = []  # that are played with it: pools with a lock in common
        self.told: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.allowed = {"timeout"}
        self.at_refusal: Callable[[BaseException], None] = lambda error: None
        self.detached: list[Connection] = []
        self.held: dict[Connection, str] = {}
        self.tickets: dict[str, Any] = {}
        self.numbers: dict[str, int] = {}
        self.permits: Any = None
        self.garbage: list[Callable[[], None]] = []  # what a collection runs
        self.hurt = False  # somebody was interrupted: what that may cost is counted, not refused
        self.found: list[str] = []
        self.failed_first: set[str] = set()  # whose connect failed before any succeeded
        self._arrivals = self._failures = 0
        self._line: list[Any] = []
        self.parts: list[tuple[str, Callable[[], None]]] = []
        pool._lock.watches += (self._at_release,)
        scheduler.at_rest.append(self._at_rest)

    def _hear(self, event: Any) -> None:
        self.told[event.kind] += 1

    def collect(self) -> None:
        me = self.s.current
        me.finalising = True
        try:
            while self.garbage:
                self.garbage.pop()()
        finally:
            me.finalising = False

    # --- Parts ------------------------------------------------------------------------------------------------------

    def part(self, name: str, play: Callable[..., None], *arguments: Any, **options: Any) -> None:
        """Somebody who does this in the schedule to come."""

        def job() -> None:
            try:
                play(*arguments, **options)
            except Interrupted:
                self.outcomes["interrupted"] += 1
            except Exception as error:
                if not self.hurt or isinstance(error, Broken):
                    raise
                self.find(f"never trips: somebody else meets {type(error).__name__}")

        self.parts.append((name, job))

    def fill(self, count: int) -> None:
        leases = [self.pool.checkout() for _ in range(count)]
        for lease in reversed(leases):
            lease.checkin()

    def visit(self, timeout: float = 5.0, end: str = "checkin", seconds: float = 0.0, times: int = 1) -> None:
        for _ in range(times):
            lease = self.borrow(timeout)
            if lease is None:
                continue
            try:
                self.use(lease, seconds, end)
            except (OSError, LeaseExpired):
                if not (self.pool.closed and lease.expired):
                    raise
                self.outcomes["expired"] += 1  # whoever closes has waited for long enough
                lease.checkin()
                continue
            if end == "drop":
                lease = None
                self.s.point("has dropped it")
            elif end == "detach":
                self.detached.append(lease.detach())
            elif end == "discard":
                lease.discard()
            elif end == "block":
                with lease:
                    pass
            else:
                lease.checkin()

    def borrow(self, timeout: float | None = 5.0) -> Any:
        """A lease, or None where the pool refused as the scenario allows."""
        s = self.s
        me = s.current
        patience = self.pool._timeout if timeout is None else timeout
        me.excuse, me.busy, me.deadline = 0.0, 0.0, s.time + patience
        early = False
        try:
            lease = self.pool.checkout(timeout)
        except tuple(REFUSALS) as error:
            why = REFUSALS[type(error)]
            if not self.may_be(why) and self.hurt:
                self.find(f"never trips: somebody else meets {type(error).__name__}")
            elif not self.may_be(why):
                s.fail(Broken("never trips", f"{me}: {type(error).__name__}: {error}"))
            self.at_refusal(error)
            early = why == "timeout" and s.time < me.deadline
            lease = None
            self.outcomes[why] += 1
        finally:
            me.deadline, deadline = math.inf, me.deadline
            self.tickets.pop(me.name, None)
        if s.aborting:
            raise Abort
        if early:
            s.fail(Broken("bounded wait", f"{me} gave up {deadline - s.time:g} s before its time"))
        if s.time > deadline + me.excuse + me.busy + 1e-9:
            s.fail(Broken("bounded wait", f"{me} was kept {s.time - deadline:g} s too long"))
        if lease is not None:
            self.outcomes["lent"] += 1
            if me.name in self.failed_first:
                s.fail(Broken("at once", f"{me} could not connect, and was not told"))
        return lease

    def may_be(self, refusal: str) -> bool:
        return refusal in self.allowed

    def close(self, timeout: float) -> None:
        s = self.s
        deadline = s.time + timeout
        self._closer = s.current
        self.pool.close(timeout)
        if self.ledger.entries and s.time < deadline:
            s.fail(Broken("bounded wait", f"close() did not wait for {len(self.ledger.entries)} connections"))

    def use(self, lease: Any, seconds: float = 0.0, end: str = "") -> None:
        """Nobody else has it, and it is as good as new."""
        s = self.s
        connection: Connection = lease.connection
        if connection.cut:
            raise OSError("cut")
        if connection.user is not None:
            s.fail(Broken("one holder", f"{s.current} got {connection}, which {connection.user} uses"))
        if connection.closed:
            s.fail(Broken("one holder", f"{s.current} got {connection}, which is closed"))
        if not connection.looked_at:
            s.fail(Broken("looked at", f"{s.current} got {connection}, and nobody looked whether it lives"))
        if connection.state is not IDLE:
            s.fail(Broken("one holder", f"{s.current} got {connection} in somebody's transaction"))
        if self.driver.count > self.driver.most:
            self._too_many(f"{self.driver.count} open")
        connection.looked_at = False
        self.held[connection] = connection.user = s.current.name
        try:
            if seconds:
                s.sleep(seconds, "its work")
            else:
                s.point("works")
            if connection.cut:
                raise OSError("cut")
            if end == "dirty":
                connection.state = OPEN
        finally:
            connection.user = None
            self.held.pop(connection, None)

    def _too_many(self, detail: str) -> None:
        if not self.hurt:
            self.s.fail(Broken("capacity", detail))
        self.find(f"capacity: {detail}")

    def find(self, complaint: str) -> None:
        if complaint not in self.found:
            self.found.append(complaint)

    # --- Promises ---------------------------------------------------------------------------------------------------

    def could_open(self, at: float | None = None) -> bool:
        """Now, or at another time, if nothing else changes."""
        ledger = self.ledger
        return (
            len(ledger.entries) < ledger.rules.max_size
            and ledger.opening < ledger.rules.max_connecting
            and (self.s.time if at is None else at) >= next_try(ledger, self.s.time)
            and (self.permits is None or self.permits.free_one(ledger))
            and not (ledger.watches_size and ledger.entries)  # beyond its core of one, when is proved by the walk
        )

    def should_open(self, at: float | None = None) -> bool:
        """Somebody waits: should a connect for him be under way, and is not?"""
        return self.could_open(at)

    def _at_release(self) -> None:
        """Whenever the lock is let go."""
        ledger = self.ledger
        if ledger.arrivals != self._arrivals:
            self._arrivals = ledger.arrivals
            self.numbers[self.s.current.name] = ledger.arrivals - 1
        if ledger.connect_failures != self._failures:
            self._failures = ledger.connect_failures
            if not ledger.reach.connected_once:
                self._look_at_first_failure()
        if len(ledger.entries) > ledger.rules.max_size:
            raise Broken("capacity", f"{len(ledger.entries)} connections")
        if self.hurt:
            self._line = []  # a place in line would keep what was granted to it
            borrowing = {task.name for task in self.s.tasks if task.deadline < math.inf}
            self.tickets.update({t.holder.name: t for t in ledger.line if t.holder.name in borrowing})
        elif (ledger.line or self._line) and self.s.running:
            self._look_at_line(list(ledger.line))

    def _look_at_first_failure(self) -> None:
        self.failed_first.add(self.s.current.name)

    def _look_at_line(self, line: list[Any]) -> None:
        if line:
            if self.ledger.idle:
                raise Broken("no needless waiting", f"{line[0]!r} is in line beside an idle connection")
            # after a backoff the head is on its way
            if self.should_open() and next_try(self.ledger, self.s.time) == -math.inf:
                raise Broken("no needless waiting", f"{line[0]!r} is in line, and one may be opened")
        last = -1
        for ticket in line:
            name = ticket.holder.name
            self.tickets[name] = ticket
            if ticket.arrival <= last or ticket.arrival != self.numbers.get(name):
                raise Broken("in order", f"{name} came as {self.numbers.get(name)}, and stands in {line}")
            last = ticket.arrival
        for ticket in self._line:
            served = line and ticket not in line and ticket.step in (USE, PING, CONNECT)
            if served and line[0].arrival < ticket.arrival:
                raise Broken("in order", f"{ticket!r} was served before {line[0]!r}")
        self._line = line

    def _at_rest(self) -> None:
        """Nobody can go on before time passes."""
        if self.hurt:
            self._look_at_the_hurt()
            return
        ledger, pool = self.ledger, self.pool
        line = list(ledger.line)
        if line and pool._mailbox.notes:
            raise Broken("no lost wake-up", f"{line} sleep beside a note that nobody reads")
        if line and (ledger.idle or self.should_open()):
            raise Broken("no needless waiting", f"{line} sleep, and could be served")
        self._look_at_watch(line)
        for task in self.s.tasks:
            ticket = self.tickets.get(task.name)
            if ticket is not None and task.stands_at == "a gate" and ticket.step is not WAIT:
                raise Broken("no lost wake-up", f"{task} sleeps, and was told {ticket.step.value}")
            if task is self._closer and task.stands_at == "a gate" and not ledger.entries:
                raise Broken("no lost wake-up", "close() waits for a pool that has drained")
        self._look_at_slots()

    def _look_at_watch(self, line: list[Any]) -> None:
        """Who wakes when time alone will help?"""
        retry_at = next_try(self.ledger, self.s.time)
        head = self.task(line[0].holder.name) if line else None
        if head is not None and self.could_open(at=retry_at) and head.until > retry_at:
            raise Broken("no needless waiting", f"{head} sleeps through {retry_at:g}, when it could be served")

    def _look_at_slots(self) -> None:
        ledger = self.ledger
        if ledger.opening != self.driver.connecting:
            raise Broken("nothing lost", f"{ledger.opening} opening, {self.driver.connecting} of them in the driver")
        self._look_at_lent()

    def _look_at_lent(self) -> None:
        for entry in self.ledger.entries if not self.garbage else ():
            connection = entry.connection
            nobody = connection not in self.held and (connection is None or connection.caller is None)
            if entry.state is LEASED and nobody and not self._has_note(entry):
                raise Broken("nothing lost", f"{entry.connection} is lent, and nobody has it")

    def _look_at_the_hurt(self) -> None:
        """What an interrupt has left undone a waiter finds by himself, on his next patrol."""
        ledger = self.ledger
        line = list(ledger.line)
        asleep = [ticket for ticket in self._tickets() if ticket.step is not WAIT or ticket not in ledger.line]
        served = ledger.idle or self.should_open() or self.pool._mailbox.notes
        if not asleep and not (line and served):
            self._needless_since = math.inf
        elif self.s.time > self._needless_since + PATROL + 1e-9:
            what = f"{asleep} sleep" if asleep else f"{line} wait beside {len(ledger.idle)} idle"
            self.find(f"no needless waiting: {what} for longer than a patrol")
        else:
            self._needless_since = min(self._needless_since, self.s.time)

    def _tickets(self) -> list[Any]:
        """Of those who sleep at the gate of their place in line."""
        sleepers = [(task, self.tickets.get(task.name)) for task in self.s.tasks if task.stands_at == "a gate"]
        return [ticket for _, ticket in sleepers if ticket is not None]

    def _has_note(self, entry: Any) -> bool:
        return any(note is entry or getattr(note, "entry", None) is entry for note in self.pool._mailbox.notes)

    def begin(self) -> None:
        """Before the first part is played."""
        self.lent_before = self.pool.stats().checkouts
        for name, job in self.parts:
            self.s.spawn(job, name)
        self.parts.clear()

    def finish(self) -> None:
        """After the last part has been played, by the first task."""
        for complaint in self.complaints():
            if self.hurt:
                self.find(complaint)
            else:
                raise Broken(complaint.partition(": ")[0], complaint.partition(": ")[2])
        self.pool.close(timeout=0)
        self._look_at_the_end()

    def _look_at_the_end(self) -> None:
        if self.driver.count:
            raise Broken("closed once", f"{self.driver.count} open after the end")
        if self.hurt:
            return
        if self.told["connected"] != self.told["disconnected"] or self.told["connected"] != self.driver.made:
            raise Broken("closed once", f"{self.driver.made} made, told {dict(self.told)}")

    def audit(self) -> None:
        """Whatever an interrupt has left is found now."""
        self.pool.stats()
        if self.hurt:
            gc.collect()  # jobs that know their list are a circle
            self.pool.stats()

    def complaints(self) -> Iterator[str]:
        pool, ledger, driver = self.pool, self.ledger, self.driver
        self.audit()
        if ledger.mended and not self.hurt:
            yield f"nothing to mend: {ledger.mended} times it was done, and nobody was interrupted"
        for connection in self.detached:
            if connection.closed or connection not in driver.open:
                yield f"closed once: {connection} was detached, and closed"
                continue
            driver.close(connection)
        if pool._mailbox.notes:
            yield "nothing lost: a note is left in the box"
        if ledger.line:
            yield f"nothing lost: {list(ledger.line)} in line, and nobody waits"
        for entry in ledger.entries:
            if entry.state in (LEASED, OPENING, CLOSING, GONE):
                yield f"nothing lost: a slot is {entry.state.value} for ever{self._describe(entry)}"
            elif entry not in ledger.idle:
                yield f"nothing lost: a slot is idle and not on the shelf{self._describe(entry)}"
        if ledger.opening or ledger.closing:
            yield f"nothing lost: {ledger.opening} opening, {ledger.closing} closing"
        idle = [entry.connection for entry in ledger.idle]
        for connection in idle:
            if connection not in driver.open or connection.closed:
                yield f"nothing lost: {connection} is idle, and closed"
        known = {id(entry.connection) for entry in ledger.entries}
        for connection in driver.open:
            if id(connection) not in known:
                yield f"nothing lost: {connection} is open, and the pool has forgotten it"
        if len(set(map(id, idle))) != len(idle):
            yield "one holder: a connection is idle twice"
        if driver.collected:
            yield f"closed once: {driver.collected} closed by the garbage collector alone"
        stats = pool.stats()
        if not self.hurt:
            # one that was taken away before its borrower had looked at it was lent, and nobody got it
            if not 0 <= stats.checkouts - self.lent_before - self.outcomes["lent"] <= stats.expired:
                yield f"nothing lost: {stats.checkouts} checkouts counted, {self.outcomes['lent']} lent"
            refused = stats.refused - self.outcomes["unavailable"]
            for kind, count in (("timeout", stats.timeouts), ("overloaded", refused)):
                if count != self.outcomes[kind]:
                    yield f"nothing lost: {count} counted as {kind}, {self.outcomes[kind]} were"
            if not 0 <= stats.connect_failures - driver.failures <= self.overdue:
                yield f"nothing lost: {stats.connect_failures} failed connects counted, {driver.failures} were"
            if not self.outcomes["expired"] <= stats.expired == self.told["expired"]:
                yield f"nothing lost: {stats.expired} counted as expired, {self.outcomes['expired']} were"
            if stats.opened != driver.made:
                yield f"nothing lost: {stats.opened} counted as opened, {driver.made} made"
        if pool._lock.owner not in (None, self.s.main):
            yield "no deadlock: the lock is held by nobody who lives"

    def _describe(self, entry: Any) -> str:
        """What an audit could tell it by."""
        marks = [
            "no connection" if entry.connection is None else "closed" if entry.connection.closed else "open",
            "its claim at home" if entry.claim is not None else "its claim away",
            "a holder" if entry.holder is not None else "no holder",
            *(["on the shelf"] if entry in self.ledger.idle else []),
        ]
        return f" ({', '.join(marks)})"

    lent_before = 0
    _closer: Task | None = None
    _needless_since = math.inf  # somebody who was hurt has left others waiting for nothing
    overdue = 0  # connects given up, which count as failed whether they fail or not
    striker: Any = None  # see injection.py

    @property
    def all_found(self) -> list[str]:
        """Whatever a strike has cost, in this pool or in one that is played with it."""
        return [found for each in (self, *self.others) for found in each.found]

    def task(self, name: str) -> Task | None:
        return next((task for task in self.s.tasks if task.name == name), None)
