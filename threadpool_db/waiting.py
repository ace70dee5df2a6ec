"""How does a thread wait? Clock and Waiter; the one room that makes locks, threads and time.

Everything is made through the ``threading`` attribute at call time, never ``from threading import RLock``: gevent
patches the module's attributes, and a lock bound before that blocks the whole hub. Tests put a Clock of their own here.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from threadpool_db.core.line import Ticket

#: 0.3 µs. ``time.sleep(0)`` gives way too, but on Linux it does not come back for 80.
_give_way: Callable[[], None] = getattr(os, "sched_yield", lambda: time.sleep(0))


class Clock:
    """Time, locks and threads, as the operating system has them. Seconds are floats of a monotonic clock."""

    now: Callable[[], float] = staticmethod(time.monotonic)
    #: who acts for the pools of this clock: see keeper.keeper_of
    keeper: Any = None

    def lock(self) -> Any:
        """A re-entrant lock: a finaliser may run in a thread that holds it."""
        return threading.RLock()

    def gate(self) -> Any:
        """A raw lock, already taken: who waits acquires it, who wakes releases it."""
        gate = threading.Lock()
        gate.acquire()
        return gate

    def wait(self, gate: Any, until: float) -> None:
        """Sleep until the gate is opened or the clock says ``until`` (``inf``: for ever), and shut it again."""
        if until == math.inf:
            gate.acquire()
            return
        seconds = until - self.now()
        if seconds > 0:
            gate.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))

    def give_way(self) -> None:
        """Let another thread run, if one is ready to: for a thread that has just woken one."""
        _give_way()

    def start(self, run: Callable[[], None], name: str) -> None:
        """Run it in a thread of its own, which holds up no exit of the process."""
        threading.Thread(target=run, name=name, daemon=True).start()


#: Shared by all pools that are given no other.
REAL_TIME = Clock()


class Holder:
    """A thread as one pool knows it; kept in a ``threading.local``, because thread idents are used again."""

    __slots__ = ("_thread", "gate", "name", "seen_dead", "waiting")

    def __init__(self, name: str | None = None) -> None:
        thread = threading.current_thread()
        self._thread = weakref.ref(thread)
        self.name = name or thread.name
        self.waiting = False  # for this pool; written under its lock
        self.gate: Gate | None = None  # of its last wait, for its next one: to make a lock costs more than to use it
        self.seen_dead = False  # by an audit: what its finaliser has not settled by the next one, it never will

    @property
    def ended(self) -> bool:
        thread = self._thread()
        return thread is None or not thread.is_alive()

    def __repr__(self) -> str:
        return f"<Holder {self.name}>"


class Gate:
    """What one thread sleeps at. Opening it is safe anywhere, in a finaliser too; opening an open one does nothing."""

    __slots__ = ("_gate",)

    def __init__(self, clock: Clock) -> None:
        self._gate = clock.gate()

    def open(self) -> None:
        try:
            self._gate.release()
        except RuntimeError:
            return

    def sleep(self, clock: Clock, until: float) -> None:
        clock.wait(self._gate, until)


class Tally:
    """Counts without a lock: where many are told no, they must not stand in line for that as well.

    ``next`` of an ``itertools.count`` is one step of the interpreter, which no thread and no interrupt divides. Nothing
    but its ``repr`` says where it stands without taking a number.
    """

    __slots__ = ("_numbers",)

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def add(self) -> None:
        next(self._numbers)

    def read(self) -> int:
        return int(repr(self._numbers)[len("count(") : -1])


class Onlookers:
    """Threads that wait for the pool itself to change, to close or to be ready, each at a gate of its own.

    Whoever comes looks before he sleeps: what changes between the two has opened his gate.
    """

    __slots__ = ("_gates",)

    def __init__(self) -> None:
        self._gates: list[Gate] = []

    def open(self) -> None:
        """Safe anywhere, in a finaliser too."""
        for gate in tuple(self._gates):
            gate.open()

    @contextlib.contextmanager
    def one(self, clock: Clock) -> Iterator[Gate]:
        gate = Gate(clock)
        self._gates.append(gate)
        try:
            yield gate
        finally:
            self._gates.remove(gate)


class Waiter(Ticket):
    """A place in line with a gate of its own: whoever grants it something wakes this thread and no other."""

    __slots__ = ("gate",)

    def __init__(self, clock: Clock, holder: Holder, code: Any, instruction: int) -> None:
        super().__init__(holder, code, instruction)
        gate, holder.gate = holder.gate, None  # a wait inside this one, in a finaliser, makes its own
        self.gate = gate or Gate(clock)


class Mailbox:
    """Where finalisers leave notes, because they can do no more: they run at any moment in any thread, also inside
    the locked section of their own.

    A note alone would lie there until somebody looks: a waiter would sleep its whole timeout beside it. So the head of
    the line is poked, and whoever else may care (``pokes``). Whoever joins the line looks into the box after joining:
    either it sees the note, or the note's poke sees it.
    """

    __slots__ = ("_line", "_pokes", "notes")

    def __init__(self, line: Any, pokes: tuple[Callable[[], None], ...] = ()) -> None:
        self._line = line
        self._pokes = pokes
        self.notes: deque[Any] = deque()

    def post(self, note: Any) -> None:
        self.notes.append(note)
        open_head(self._line)
        for poke in self._pokes:
            poke()


def open_head(line: Any) -> None:
    """Wake whoever is first in line. Safe anywhere, in a finaliser too."""
    while True:
        try:
            head = next(iter(line), None)
        except RuntimeError:  # the line changed under the iterator: look again
            continue
        if head is not None:
            head.gate.open()
        return
