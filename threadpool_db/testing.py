"""How do you test code that waits, without waiting? A clock that stands still, a driver that does as it is told.

    clock = FakeClock()
    driver = ScriptedDriver(clock)
    pool = Pool(driver, max_size=1, clock=clock)
    driver.script("connect", OSError("no route"), latch := Latch())    # the first fails, the second waits for the latch

Real threads and no sleeps: a test starts a thread, waits until it is parked (``clock.wait_for_sleepers(1)``, or
``latch.wait_for(1)`` for one that is inside the driver), moves the time or opens the latch, and looks at the outcome.
Every wait of this module ends in an error after some real seconds: a wrong test fails, it does not hang.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from threadpool_db.drivers.base import IDLE, OPEN, Driver, TransactionState
from threadpool_db.keeper import Alarm
from threadpool_db.waiting import Clock

#: Real seconds after which a wait that only a wrong test can have gives up.
PATIENCE = 20.0


class WatchedClock(Clock):
    """The real time. Knows whether this thread is inside a lock that it made, where no I/O may happen."""

    def __init__(self) -> None:
        self._locks: list[Any] = []

    def lock(self) -> Any:
        lock = super().lock()
        self._locks.append(lock)
        return lock

    @property
    def inside(self) -> bool:
        return any(lock._is_owned() for lock in self._locks)


class FakeKeeper:
    """Has no scheduler: its tasks are run by ``FakeClock.advance``. Each job has a thread of its own, at once."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._plan: list[tuple[float, Alarm]] = []
        self._lock = threading.RLock()

    def at(self, when: float, task: Callable[[], None]) -> Alarm:
        alarm = Alarm(task)
        with self._lock:
            self._plan.append((when, alarm))
        return alarm

    def poke(self, task: Callable[[], None]) -> None:
        self._plan.append((self._clock.now(), Alarm(task)))  # no lock: for finalisers

    def do(self, server: Hashable, job: Callable[[], None], limit: float) -> None:
        self._clock.start(job, "fake-worker")

    def next_alarm(self) -> tuple[float, Alarm]:
        """The soonest and its hour, which is ``inf`` if there is none. One that has rung is planned no more."""
        with self._lock:
            self._plan = [planned for planned in self._plan if not planned[1].cancelled]
            return min(self._plan, key=lambda planned: planned[0], default=(math.inf, Alarm(lambda: None)))

    @property
    def planned(self) -> int:
        with self._lock:
            return sum(not alarm.cancelled for _, alarm in self._plan)


class FakeClock(WatchedClock):
    """Time that moves by ``advance`` alone. A wait ends when its gate opens or when its hour has come."""

    def __init__(self, start: float = 1000.0) -> None:
        super().__init__()
        self._time = start
        self._changed = threading.Condition(threading.RLock())
        self._sleepers: list[tuple[Any, float]] = []
        self.keeper = FakeKeeper(self)

    def now(self) -> float:
        return self._time

    def wait(self, gate: Any, until: float) -> None:
        me = (gate, until)
        with self._changed:
            if until <= self._time:
                return
            self._sleepers.append(me)
            self._changed.notify_all()
        try:
            if not gate.acquire(timeout=PATIENCE):
                raise AssertionError(f"asleep for {PATIENCE:g} real seconds: no gate was opened, no time moved")
        finally:
            with self._changed:
                self._sleepers.remove(me)
                self._changed.notify_all()

    def advance(self, seconds: float) -> None:
        """Move the time: ring the alarms on the way, each at its hour and in this thread, and wake whose time it is."""
        target = self._time + seconds
        while True:
            with self._changed:
                when, alarm = self.keeper.next_alarm()
                self._time = max(self._time, min(target, when))
                for gate, until in self._sleepers:
                    if until <= self._time and gate.locked():
                        gate.release()
                if when > target:
                    return
            alarm.ring()

    @property
    def sleepers(self) -> int:
        """How many threads are asleep at a gate that nobody has opened yet."""
        with self._changed:
            return sum(gate.locked() for gate, _ in self._sleepers)

    @property
    def alarms(self) -> int:
        """How many tasks are planned."""
        planned: int = self.keeper.planned
        return planned

    def wait_for_sleepers(self, count: int) -> None:
        """Until exactly so many threads are asleep, in line for a connection or in ``close``."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.sleepers == count, PATIENCE):
                raise TimeoutError(f"{self.sleepers} threads are asleep, not {count}")


class Latch:
    """A door in somebody's way: whoever calls it stands before it until it is opened, and it stays open then."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = False
        self.arrived = 0

    def __call__(self, *args: object) -> None:
        with self._changed:
            self.arrived += 1
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._open, PATIENCE):
                raise AssertionError(f"nobody opened the latch within {PATIENCE:g} real seconds")

    def open(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def wait_for(self, count: int = 1) -> None:
        """Until so many have arrived, all in all."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.arrived >= count, PATIENCE):
                raise TimeoutError(f"{self.arrived} have arrived at the latch, not {count}")


class ScriptedConnection:
    """A connection to nowhere. What it should look like to the pool is set on it directly."""

    def __init__(self, number: int, autocommit: bool | None) -> None:
        self.number = number  # 1 for the first that its driver made
        self.alive = True  # what a look at it says
        self.answers = True  # what a ping says
        self.state: TransactionState = IDLE
        self.autocommit = autocommit
        self.dirty = False  # was something said on it that a rollback does not undo?
        self.watched = False
        self.closed = False
        self.told: list[str] = []  # what its session remembers
        self.caller: str | None = None  # the thread that is inside a call of the driver for it

    def __repr__(self) -> str:
        return f"<connection {self.number}{' closed' if self.closed else ''}>"


class ScriptedDriver(Driver[ScriptedConnection]):
    """Opens numbered connections to nowhere, does what ``script`` says, counts, and watches what the pool does.

    ``wrong`` collects what no pool may do: I/O inside its own lock (known only with a clock of this module, the
    pool's), two threads in one connection, a call for a closed one, a second close. Assert that it stays empty.
    """

    name = "scripted"
    peeks = True
    can_reset = True

    def __init__(self, clock: WatchedClock | None = None, *, autocommit: bool | None = None) -> None:
        self._clock = clock
        self._made_autocommit = autocommit
        self.has_autocommit = autocommit is not None
        self._lock = threading.RLock()  # re-entrant: a finaliser may call the driver, too
        self._scripts: dict[str, deque[object]] = {}
        self._rules: dict[str, object] = {}
        self.calls: Counter[str] = Counter()  # of every method but the local questions
        self.open: set[ScriptedConnection] = set()
        self.made = self.closed = self.most_open = 0
        self.wrong: list[str] = []

    def script(self, method: str, *steps: object) -> None:
        """What the next calls of a method do, one step each.

        An exception or its class is raised; a callable is called without arguments, a Latch for instance, and then
        the call goes on; anything else but None is the answer, and so is what a callable returns.
        """
        with self._lock:
            self._scripts.setdefault(method, deque()).extend(steps)

    def always(self, method: str, step: object) -> None:
        """What a method does whenever its script is at an end; None: as usual."""
        with self._lock:
            self._rules[method] = step

    def forget_scripts(self) -> None:
        """From now on everything goes as usual."""
        with self._lock:
            self._scripts.clear()
            self._rules.clear()

    def connect(self, timeout: float) -> ScriptedConnection:
        with self._call("connect"), self._lock:
            self.made += 1
            connection = ScriptedConnection(self.made, self._made_autocommit)
            self.open.add(connection)
            self.most_open = max(self.most_open, len(self.open))
        return connection

    def close(self, connection: ScriptedConnection) -> None:
        with self._lock:
            self.open.discard(connection)
            self.closed += not connection.closed
        with self._call("close", connection):
            connection.closed = True

    def peek(self, connection: ScriptedConnection) -> bool:
        with self._call("peek", connection) as answer:
            return connection.alive if answer is None else bool(answer)

    def ping(self, connection: ScriptedConnection) -> bool:
        with self._call("ping", connection) as answer:
            return connection.answers if answer is None else bool(answer)

    def state(self, connection: ScriptedConnection) -> TransactionState:
        return connection.state

    def glimpse(self, connection: ScriptedConnection) -> TransactionState:
        return connection.state

    def autocommit(self, connection: ScriptedConnection) -> bool | None:
        return connection.autocommit

    def watch(self, connection: ScriptedConnection) -> None:
        connection.watched = True

    def dirtied(self, connection: ScriptedConnection) -> bool:
        return connection.dirty

    def set_autocommit(self, connection: ScriptedConnection, on: bool) -> None:
        with self._call("set_autocommit", connection):
            connection.autocommit = on

    def begin(self, connection: ScriptedConnection) -> None:
        with self._call("begin", connection):
            connection.state = OPEN

    def commit(self, connection: ScriptedConnection) -> None:
        with self._call("commit", connection):
            connection.state = IDLE

    def rollback(self, connection: ScriptedConnection) -> None:
        with self._call("rollback", connection):
            connection.state = IDLE

    def reset(self, connection: ScriptedConnection) -> None:
        with self._call("reset", connection):
            connection.state, connection.autocommit, connection.dirty = IDLE, self._made_autocommit, False
            connection.told.clear()

    def run(self, connection: ScriptedConnection, sql: str) -> None:
        with self._call("run", connection):
            connection.told.append(sql)

    def set_isolation(self, connection: ScriptedConnection, level: str) -> None:
        with self._call("set_isolation", connection):
            connection.told.append(level)

    def set_read_only(self, connection: ScriptedConnection, on: bool) -> None:
        with self._call("set_read_only", connection):
            connection.told.append("read only" if on else "read write")

    def code(self, error: BaseException) -> str | int | None:
        return getattr(error, "code", None)

    def is_disconnect(self, error: BaseException, connection: ScriptedConnection) -> bool:
        return isinstance(error, ConnectionError)

    @contextmanager
    def _call(self, method: str, connection: ScriptedConnection | None = None) -> Iterator[object]:
        """Around each call: count it, watch the pool, and do what the script says; yields the scripted answer."""
        me = threading.current_thread().name
        with self._lock:
            self.calls[method] += 1
            steps = self._scripts.get(method)
            step = steps.popleft() if steps else self._rules.get(method)
            if self._clock is not None and self._clock.inside:
                self.wrong.append(f"{method} inside the pool's lock")
            if connection is not None and connection.closed:
                self.wrong.append(f"{method} of {connection}")
            if connection is not None and connection.caller is not None:
                self.wrong.append(f"{method} of {connection} in {me} while {connection.caller} is in a call for it")
            if connection is not None:
                connection.caller = me
        try:
            if isinstance(step, BaseException) or (isinstance(step, type) and issubclass(step, BaseException)):
                raise step
            yield step() if callable(step) else step
        finally:
            if connection is not None:
                connection.caller = None
