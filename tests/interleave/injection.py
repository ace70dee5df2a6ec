"""What if something strikes in the middle? An exception or a finaliser, at any place of the pool's code, in any order.

``interrupt``   raises where Python would deliver a KeyboardInterrupt: after a call, at the start of a function, when a
                loop goes round.
``collect``     runs a finaliser before any bytecode, as a garbage collection or a last reference would: one drops a
                lease, one gives a lease back.

A place has a number: the how manieth of its kind that the victim comes to in this schedule.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from tests.interleave.scheduler import Task, place
from tests.interleave.world import Interrupted, World
from tests.test_interrupts import interruptible

ROOT = str(Path(__file__).resolve().parents[2] / "threadpool_db")


class Injection(NamedTuple):
    kind: str
    victim: str
    number: int

    def __str__(self) -> str:
        return f"{self.kind} {self.number} in {self.victim}"


class Striker:
    """Puts one injection into one schedule, counting the places of all tasks of that name. ``struck``: where it
    fell; "" when the schedule has fewer places. ``by``: whom, in whose code; ``garbage``: how much was collected."""

    def __init__(self, world: World, injection: Injection) -> None:
        self._world = world
        self._injection = injection
        self._seen = 0
        self.struck = self.by = ""
        self.garbage = 0
        self.counting = False  # the play has begun
        self.locked = False  # did the victim hold the lock?
        self._plain: Callable[[Task], Any] = world.s.tracer_of
        world.s.tracer_of = self._tracer_of

    def _tracer_of(self, task: Task) -> Any:
        if task.name.partition(" ")[0] != self._injection.victim:  # "worker 7" is a worker
            return self._plain(task)
        # CPython 3.12 looks at this one, and only here, before it traces any
        sys._getframe(1).f_trace_opcodes = True
        anywhere = self._injection.kind != "interrupt"
        files: dict[str, bool] = {}

        def at_opcode(frame: FrameType, event: str, argument: object) -> Any:
            if event == "opcode" and self.counting and (anywhere or frame.f_lasti in interruptible(frame.f_code)):
                self._seen += 1
                if self._seen == self._injection.number:
                    self._strike(frame)
            return at_opcode

        def at_call(frame: FrameType, event: str, argument: object) -> Any:
            name = frame.f_code.co_filename
            if name not in files:
                files[name] = name.startswith((ROOT, "<edited "))
            if not files[name]:
                return None
            frame.f_trace = at_opcode  # before the next line, or CPython 3.13 ignores that
            frame.f_trace_opcodes = True
            return at_opcode

        return at_call

    def _strike(self, frame: FrameType) -> None:
        world = self._world
        self.struck, self.by = place(frame), world.s.current.name.partition(" ")[0]
        self.locked = world.pool._lock._is_owned()
        if world.s.log is not None:
            world.s.log.append(f"{self._injection.victim}: {self._injection.kind} strikes, {self.struck}")
        if self._injection.kind == "interrupt":
            for each in (world, *world.others):
                each.hurt = True
            sys.settrace(None)
            raise Interrupted
        self.garbage = len(world.garbage)
        world.collect()
