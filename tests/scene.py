"""What does a test of the pool play with? A pool whose driver and clock it rules, threads that borrow, a child process.

    with scene(max_size=1) as s:
        held = s.pool.checkout()
        waiting = s.borrow(timeout=5)       # a Future, of a checkout in a thread of its own
        s.clock.wait_for_sleepers(1)
        held.checkin()
        assert waiting.result(10).connection.number == 1

When a scene ends, its pool is closed, and the driver must have nothing to complain about.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from threadpool_db import Event, Pool
from threadpool_db.testing import FakeClock, ScriptedConnection, ScriptedDriver, WatchedClock

#: Real seconds that a test may wait for what must happen at once.
SOON = 10.0


def background(action: Callable[..., Any], *args: Any, **options: Any) -> Future[Any]:
    """Run it in a thread of its own, which has ended, or soon will have, when the future has a result."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            result = action(*args, **options)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, daemon=True).start()
    return future


def join(*futures: Future[Any]) -> list[Any]:
    return [future.result(SOON) for future in futures]


def until(true: Callable[[], object]) -> None:
    """For what another thread is about to do, and cannot tell."""
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


def put_at_hand(pool: Any, **tools: Any) -> None:
    """Others for what the pool's short ways use: inside, now, acquire, take, give, release, idle."""
    names = ("inside", "now", "acquire", "take", "give", "release", "idle")
    at_hand = dict(zip(names, pool._at_hand, strict=True))
    assert tools.keys() <= at_hand.keys()
    pool._at_hand = tuple((at_hand | tools).values())
    if "now" in tools:
        pool._now = tools["now"]


class Seen(list[Event]):
    """A list of events that is its own observer."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self]


@dataclass
class Scene:
    pool: Pool
    driver: ScriptedDriver
    clock: Any

    def borrow(self, timeout: float | None = None, **options: Any) -> Future[Any]:
        return background(self.pool.checkout, timeout, **options)

    def line_up(self, count: int, timeout: float | None = None) -> list[Future[Any]]:
        """So many waiters, in this order in line."""
        asleep = self.clock.sleepers
        waiters = []
        for n in range(1, count + 1):
            waiters.append(self.borrow(timeout))
            self.clock.wait_for_sleepers(asleep + n)
        return waiters

    def fill(self, count: int) -> None:
        """Open so many connections and leave them idle, number 1 the coldest."""
        leases = [self.pool.checkout() for _ in range(count)]
        for lease in leases:
            lease.checkin()

    def read_mail(self) -> None:
        """What finalisers left is read by whoever comes next and has to wait; nobody does here."""
        self.pool._tell(self.pool._ledger.tick)

    def assert_lent(self, *leases: Any) -> None:
        self.read_mail()
        assert self.pool.stats().in_use == len(leases)

    def assert_nothing_lost(self) -> None:
        """Nobody holds or waits, and what the pool calls idle is what the driver calls open."""
        self.read_mail()
        stats = self.pool.stats()
        assert (stats.in_use, stats.waiting, stats.counts.opening, stats.counts.closing) == (0, 0, 0, 0)
        assert stats.idle == len(self.driver.open)
        assert stats.opened == self.driver.made


@contextmanager
def scene(
    *, clock: WatchedClock | None = None, driver: ScriptedDriver | None = None, autocommit: Any = None, **options: Any
) -> Iterator[Scene]:
    clock = clock or FakeClock()
    driver = driver or ScriptedDriver(clock, autocommit=autocommit)
    options.setdefault("background", False)  # borrowers connect themselves: one thread less to think of
    pool = Pool(driver, clock=clock, **options)
    try:
        yield Scene(pool, driver, clock)
    finally:
        pool.close(timeout=0)
    assert driver.wrong == [], driver.wrong


@contextmanager
def leak_reported(line: str = "") -> Iterator[None]:
    """Somebody drops a lease in this block, and it is noticed there; ``line``: a pattern of what the report names."""
    with pytest.warns(ResourceWarning, match=f"a lease taken at .*{line}.* was dropped without checkin"):
        yield


class SocketDriver(ScriptedDriver):
    """Its connections have a real socket. A ping scripted to ``hang`` lasts until that socket is cut."""

    def __init__(self, clock: WatchedClock | None = None, **options: Any) -> None:
        super().__init__(clock, **options)
        self.ends: dict[ScriptedConnection, tuple[socket.socket, socket.socket]] = {}

    def connect(self, timeout: float) -> ScriptedConnection:
        connection = super().connect(timeout)
        self.ends[connection] = socket.socketpair()
        return connection

    def descriptor(self, connection: ScriptedConnection) -> int:
        return self.ends[connection][0].fileno()

    def hang(self, connection: ScriptedConnection) -> Callable[[], bool]:
        """A ping's answer: wait for the server's, which never comes."""
        return lambda: self.ends[connection][0].recv(1) != b""

    def close(self, connection: ScriptedConnection) -> None:
        super().close(connection)
        for end in self.ends.pop(connection):
            end.close()


def in_child(action: Callable[[], Any]) -> str:
    """Fork, run ``action`` in the child, and return what it returned as text; its failure is the test's."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            try:
                answer, code = str(action()), 0
            except BaseException:
                answer = traceback.format_exc()
            os.write(writer, answer.encode())
            save_coverage()
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, encoding="utf-8") as stream:
        answer = stream.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child failed:\n{answer}"
    return answer


def save_coverage() -> None:
    """A child leaves by ``os._exit``: what it ran would not be counted."""
    coverage = sys.modules.get("coverage")
    current = coverage.Coverage.current() if coverage is not None else None
    if current is not None:
        current.stop()
        current.save()
