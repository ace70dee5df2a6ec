"""Is the count exact after everything has gone wrong at once?

Real threads in real time over a driver whose connects fail, whose connections die, and whose closes raise; borrowers
that give back, discard, detach, drop, overrun, hand over to another thread, are interrupted at work and in line, and
die with what they hold; with a keeper and without; and all the while the process forks, and its children use the pool.
At the end nobody holds anything, and what the pool calls its own is what the driver has open.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import random
import signal
import threading
import time
import warnings
import weakref
from collections import Counter

import pytest

from tests.scene import Scene, background, in_child, scene
from tests.scene import until as until_true
from threadpool_db import Backoff, ConnectFailed, Fixed, Overflow, PoolMisuse, PoolOverloaded, PoolTimeout
from threadpool_db.core.sizing import Elastic
from threadpool_db.drivers.base import BUSY, FAILED, IDLE, OPEN, UNKNOWN
from threadpool_db.testing import ScriptedConnection, ScriptedDriver, WatchedClock

THREADS = 24
REFUSALS = (PoolTimeout, PoolOverloaded)
ORDERLY = {"checkin": 60, "block": 20, "discard": 5, "drop": 4, "twice": 2, "recycle": 1}
DISORDERLY = ORDERLY | {"cycle": 2, "detach": 2, "hand over": 3, "die sticky": 2, "die with it": 1}
STATES = (IDLE, IDLE, IDLE, IDLE, OPEN, FAILED, UNKNOWN, BUSY)

SETTINGS = {
    "small": {"max_size": 4},
    "orderly": {"max_size": 3},
    "one": {"max_size": 1, "max_connecting": 1},
    "overflow": {"max_size": 8, "sizing": Overflow(6, 0), "max_connecting": 4},
    "short lives": {"max_size": 6, "max_lifetime": 0.05, "max_idle": 0.02, "max_uses": 7, "ping_after": 0.001},
    "fixed and fussy": {"max_size": 5, "sizing": Fixed(), "max_waiting": 10, "ping_after": 0},
    "kept": {"background": True, "max_size": 4, "min_size": 2, "min_idle": 1},
    "kept, short lives": {
        "background": True,
        "max_size": 6,
        "min_size": 2,
        "max_lifetime": 0.05,
        "max_idle": 0.02,
        "keepalive": 0.01,
        "max_lease": 0.5,
    },
}
#: In which nothing ends by itself, and so the numbers stand still.
LONG_LIVES = {
    "max_lifetime": None,
    "max_idle": None,
    "keepalive": None,
    "min_size": 0,
    "min_idle": 0,
    "max_lease": None,
}


@pytest.fixture(autouse=True)
def quiet_log(caplog):
    caplog.set_level(logging.CRITICAL, "threadpool_db")


class Interrupted(BaseException):
    """Raised where the driver or a gate is called, as KeyboardInterrupt would be."""


def of_the_keeper() -> bool:
    """Its threads are nobody's to interrupt."""
    return threading.current_thread().name.startswith("threadpool_db-")


drivers: weakref.WeakSet[UnreliableDriver] = weakref.WeakSet()


def lock_all() -> None:
    """A child must not find one locked by a thread that it has not got."""
    for driver in list(drivers):
        driver._lock.acquire()


def unlock_all() -> None:
    for driver in list(drivers):
        driver._lock.release()


def unlock_in_child() -> None:
    for driver in list(drivers):
        driver.begin_in_child()
    unlock_all()


os.register_at_fork(before=lock_all, after_in_parent=unlock_all, after_in_child=unlock_in_child)


class UnreliableDriver(ScriptedDriver):
    """Fails now and then, and lets a connection be used by one thread at a time."""

    def __init__(self, clock: WatchedClock, seed: int) -> None:
        super().__init__(clock, autocommit=False)
        self._dice = random.Random(seed)
        self.users: dict[ScriptedConnection, str] = {}
        self.calm = False
        drivers.add(self)

    def _perhaps(self, share: float, error: type[BaseException]) -> None:
        if not self.calm and self._dice.random() < share and not (error is Interrupted and of_the_keeper()):
            raise error

    def begin_in_child(self) -> None:
        """Whatever is open is the parent's."""
        self.open.clear()
        self.users.clear()
        self.wrong.clear()
        self.calm = True

    def connect(self, timeout: float) -> ScriptedConnection:
        self._perhaps(0.03, OSError)
        self._perhaps(0.005, Interrupted)
        time.sleep(self._dice.random() * 0.002)
        return super().connect(timeout)

    def close(self, connection: ScriptedConnection) -> None:
        super().close(connection)
        self._perhaps(0.02, OSError)
        self._perhaps(0.005, Interrupted)

    def peek(self, connection: ScriptedConnection) -> bool:
        self._perhaps(0.002, Interrupted)
        return super().peek(connection) and self._dice.random() > 0.01

    def ping(self, connection: ScriptedConnection) -> bool:
        self._perhaps(0.01, OSError)
        self._perhaps(0.005, Interrupted)
        return super().ping(connection) and self._dice.random() > 0.02

    def rollback(self, connection: ScriptedConnection) -> None:
        self._perhaps(0.02, OSError)
        self._perhaps(0.005, Interrupted)
        super().rollback(connection)


class InterruptingClock(WatchedClock):
    """Now and then a thread that sleeps at its gate is interrupted, before or just after it was woken."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._dice = random.Random(seed)
        self.calm = False

    def wait(self, gate, until):
        self._perhaps()
        super().wait(gate, until)
        self._perhaps()

    def _perhaps(self):
        if not self.calm and not of_the_keeper() and self._dice.random() < 0.01:
            raise Interrupted


class Borrower:
    def __init__(self, s: Scene, seed: int, ways: dict[str, int]) -> None:
        self.scene = s
        self.ways = ways
        self.dice = random.Random(seed)
        self.outcomes: Counter[str] = Counter()

    def run(self, until: float) -> Counter[str]:
        while time.monotonic() < until:
            try:
                self.visit()
            except (*REFUSALS, ConnectFailed, Interrupted, ZeroDivisionError, ConnectionResetError) as error:
                self.outcomes[type(error).__name__] += 1
                if isinstance(error, Interrupted) and isinstance(error.__context__, REFUSALS):
                    # counted by the pool, and then interrupted on its way here
                    self.outcomes[type(error.__context__).__name__] += 1
            except PoolMisuse:
                # every connection is in garbage of threads that wait, or on its way to another thread
                self.outcomes["PoolMisuse"] += 1
                gc.collect()
        return self.outcomes

    def visit(self) -> None:
        dice, pool = self.dice, self.scene.pool
        timeout = dice.choice((0, 0.0005, 0.005, 0.5, 1))
        way = dice.choices(list(self.ways), list(self.ways.values()))[0]
        if way.startswith("die"):
            background(self.die, timeout, sticky=way == "die sticky").result(30)
            self.outcomes["died"] += 1
            return
        lease = pool.checkout(timeout=timeout)
        self.outcomes["lent"] += 1
        if way == "block":
            with lease as connection:
                self.use(connection)
            return
        self.use(lease.connection)
        if way == "detach":
            ScriptedDriver.close(self.scene.driver, lease.detach())
        elif way == "drop":
            del lease
        elif way == "cycle":
            cycle: list[object] = [lease]
            cycle.append(cycle)
            if dice.random() < 0.1:
                del cycle, lease
                gc.collect()
        elif way == "hand over":
            background(lease.checkin)
        elif way == "twice":
            lease.checkin()
            lease.checkin()
        elif way == "recycle":
            lease.checkin()
            pool.recycle()
        else:
            getattr(lease, way)()

    def die(self, timeout: float, sticky: bool) -> None:
        """In a thread of its own, which keeps one until its end, or leaves it to the garbage collector."""
        lease = self.scene.pool.lease(timeout) if sticky else self.scene.pool.checkout(timeout)
        if not sticky:
            cycle: list[object] = [lease]
            cycle.append(cycle)
        self.use(lease.connection)

    def use(self, connection: ScriptedConnection) -> None:
        """Nobody else is in it, and it is as clean as a new one."""
        users, me = self.scene.driver.users, threading.current_thread().name
        if connection.closed or connection.state is not IDLE or connection.autocommit is not False:
            self.scene.driver.wrong.append(f"{connection} {connection.state} was lent to {me}")
        other = users.setdefault(connection, me)
        if other is not me:
            self.scene.driver.wrong.append(f"{connection} is used by {me} and {other}")
        try:
            if self.dice.random() < 0.3:
                time.sleep(self.dice.random() * 0.001)
            connection.state = self.dice.choice(STATES)
            connection.autocommit = self.dice.random() < 0.05
            error = self.dice.choices((None, ZeroDivisionError, ConnectionResetError, Interrupted), (94, 2, 2, 2))[0]
            if error is not None:
                raise error
        finally:
            del users[connection]


def fork_again_and_again(s: Scene, until: float) -> int:
    """Each child forgets what the others here hold, and has a pool as good as new. How many there were."""

    def use_it() -> str:
        signal.alarm(20)  # if it hangs
        s.clock.calm = True
        before = s.pool.stats()
        assert before.waiting == 0 and before.total <= s.pool._config.min_size
        for _ in range(3):
            s.pool.checkout(timeout=10).checkin()
        until_true(lambda: s.pool.stats().in_use == 0)  # the keeper may be asking after one
        assert 1 <= len(s.driver.open) <= s.pool.stats().max_size
        s.pool.close()
        assert s.driver.open == set() and s.driver.wrong == []
        return "well"

    children = 0
    while time.monotonic() < until:
        assert in_child(use_it) == "well"
        children += 1
        time.sleep(0.1)
    return children


def storm(seconds: float, seed: int, setting: str) -> None:
    ways = ORDERLY if setting == "orderly" else DISORDERLY
    clock = InterruptingClock(seed)
    driver = UnreliableDriver(clock, seed)
    options = {"backoff": Backoff(0.0005, 0.002), "sizing": Elastic(), "grace": math.inf} | SETTINGS[setting]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with scene(clock=clock, driver=driver, **options) as s:
            until = time.monotonic() + seconds
            running = [background(Borrower(s, seed * 1000 + n, ways).run, until) for n in range(THREADS)]
            forking = background(fork_again_and_again, s, until)
            outcomes = sum((one.result(seconds + 30) for one in running), Counter())
            assert forking.result(30) > 0
            driver.calm = clock.calm = True
            if options.get("background"):
                s.pool.reconfigure(**LONG_LIVES)
            gc.collect()
            settle(s)
            assert driver.wrong == []
            if ways is ORDERLY:
                assert outcomes["PoolMisuse"] == 0
                assert driver.most_open <= s.pool.stats().max_size
            else:
                assert outcomes["died"] > 0
            assert outcomes["lent"] > 20 and outcomes["Interrupted"] > 0
            assert_exact(s, outcomes)
            s.pool.close()
            assert driver.open == set()


def settle(s: Scene) -> None:
    """Threads that were handed a lease have still to give it back; and the last notes to be read."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        s.read_mail()
        stats = s.pool.stats()
        if stats.in_use == stats.counts.closing == stats.counts.opening == 0:
            return
        time.sleep(0.001)


def assert_exact(s: Scene, outcomes: Counter[str]) -> None:
    stats = s.pool.stats()
    assert (stats.in_use, stats.waiting, stats.counts.opening, stats.counts.closing) == (0, 0, 0, 0)
    assert stats.idle == stats.total == len(s.driver.open) <= stats.max_size
    assert stats.opened == s.driver.made
    assert stats.checkouts >= outcomes["lent"]
    assert stats.timeouts == outcomes["PoolTimeout"]
    assert stats.refused == outcomes["PoolOverloaded"]
    held = []  # and every slot is of use
    while len(held) < min(stats.max_size, 20):
        held.append(s.pool.checkout(timeout=5))
    assert len({lease.connection for lease in held}) == len(held)
    for lease in held:
        lease.discard() if s.pool.stats().in_use % 2 else lease.checkin()


@pytest.mark.parametrize("setting", SETTINGS)
def test_after_a_storm_the_count_is_exact(setting):
    storm(0.6, 1, setting)


@pytest.mark.proof
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("setting", SETTINGS)
def test_after_a_long_storm_the_count_is_exact(setting, seed):
    storm(10.0, seed, setting)
