"""Who runs next? A clock whose locks, gates, threads and time belong to a scheduler: one thread runs at a time.

Threads are real, and each stands at a baton of its own; whoever runs hands the baton on at a *point* (an operation of a
lock or a gate, a call of the driver, with ``fine`` also a line of the pool) to the one that a strategy names. So a
schedule is a function of its strategy alone, and comes again as often as it is asked for.

Time is a number. It jumps to the next deadline when nobody can run, and now and then although somebody could, as on a
machine that is too slow: whoever was held up by that is excused for so long.

The test's own thread is the first task. It may play a part before and after the others; ``go`` lets them run. Threads
of the system are kept between schedules: a switch costs 4 µs, a new thread 50.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterable
from types import CodeType, FrameType
from typing import Any

from tests.core.promises import Broken
from threadpool_db.waiting import Clock

#: More points than any honest schedule has.
TOO_LONG = 20_000
#: The most that a strategy may let pass before it is asked again.
FAR = 100


class Abort(BaseException):
    """The schedule is over; whoever is still in the middle of something goes home."""


class Task:
    """One thread of a schedule."""

    __slots__ = (
        "baton", "busy", "daemon", "deadline", "excuse", "finalising", "holds", "job", "name", "ready", "stands_at",
        "until",
    )  # fmt: skip

    def __init__(self, name: str, baton: Any, job: Callable[[], None] | None, daemon: bool) -> None:
        self.name = name
        self.baton = baton
        self.job = job
        self.daemon = daemon
        self.ready = True
        self.until = math.inf  # when it wakes by itself
        self.stands_at = ""  # what it waits for, when it is not ready
        self.deadline = math.inf  # of its current checkout
        self.excuse = 0.0  # seconds that it could have run, and was not let
        self.busy = 0.0  # seconds inside the driver
        self.holds = 0  # locks
        self.finalising = False  # in the middle of whatever it does, a finaliser has struck it

    def __repr__(self) -> str:
        return self.name


class Worker:
    """A thread of the system, that plays one task after another."""

    parked: list[Worker] = []

    def __init__(self) -> None:
        self.baton = threading.Lock()
        self.baton.acquire()
        self.play: Callable[[], None] | None = None
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()

    def _live(self) -> None:
        while True:
            self.baton.acquire()
            play, self.play = self.play, None
            assert play is not None
            play()
            del play

    @classmethod
    def get(cls) -> Worker:
        return cls.parked.pop() if cls.parked else cls()


class Planned:
    """A task that the pool has planned, and may take back."""

    def __init__(self, alarms: list[tuple[float, Callable[[], None]]], planned: tuple[float, Callable[[], None]]):
        self._alarms, self._planned = alarms, planned

    def cancel(self) -> None:
        if self._planned in self._alarms:
            self._alarms.remove(self._planned)


class SchedulerLock:
    """A re-entrant lock of one schedule. ``watches``: who looks whenever it is let go."""

    __slots__ = ("_scheduler", "depth", "owner", "queue", "watches")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.owner: Task | None = None
        self.depth = 0
        self.queue: list[Task] = []
        self.watches: tuple[Callable[[], None], ...] = ()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        s = self._scheduler
        if self.owner is s.current:
            self.depth += 1
            return True
        if s.leaf is not None and not s.aborting:
            if self is s.leaf and s.current.holds:
                s.fail(Broken("a leaf", f"{s.current} takes the keeper's lock inside another"))
            if s.leaf.owner is s.current and not s.current.finalising:
                s.fail(Broken("a leaf", f"{s.current} takes a lock inside the keeper's"))
        s.point("takes the lock")
        me = s.current
        while self.owner is not None and not s.aborting:
            self.queue.append(me)
            s.block(me, "the lock")
        self.owner, self.depth = me, 1
        me.holds += 1
        return True

    def release(self) -> None:
        s = self._scheduler
        if self.owner is not s.current:
            if s.aborting:
                return
            raise RuntimeError("cannot release un-acquired lock")
        if self.depth > 1:
            self.depth -= 1
            return
        if not s.aborting:
            try:
                for watch in self.watches:
                    watch()
            except Broken as broken:
                s.fail(broken)
        self.owner, self.depth = None, 0
        s.current.holds -= 1
        if self.queue:
            for task in self.queue:
                task.ready = True
            self.queue.clear()
            s.woke()
        s.point("lets the lock go")

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return self.owner is self._scheduler.current


class SchedulerGate:
    """A gate of one schedule: a raw lock, already taken."""

    __slots__ = ("_scheduler", "opened", "sleeper")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.opened = False
        self.sleeper: Task | None = None

    def release(self) -> None:
        if self.opened:
            raise RuntimeError("release unlocked lock")
        self.opened = True
        s = self._scheduler
        if self.sleeper is not None and not self.sleeper.ready:
            self.sleeper.ready = True
            s.woke()
        s.point("opens a gate")

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if blocking:
            self._scheduler.wait(self, math.inf if timeout < 0 else self._scheduler.time + timeout)
            return True
        was, self.opened = self.opened, False
        return was

    def locked(self) -> bool:
        return not self.opened


class Strategy:
    """Says who runs next, and by ``fuse`` in how many points the scheduler shall ask again."""

    def begin(self, scheduler: Scheduler) -> None:
        scheduler.fuse = TOO_LONG

    def pick(self, scheduler: Scheduler, ready: list[Task], current: Task | None) -> Task | None:
        """One of ``ready``; None lets time jump first. ``current``: who runs now, None if it cannot go on."""
        return ready[0] if current is None else current

    def woke(self, scheduler: Scheduler) -> None:
        """Somebody has become ready."""


class Scheduler(Clock):
    """A clock for ``config.clock``. One schedule at a time: ``begin``, ``spawn`` the tasks, ``go``, ``end``."""

    def __init__(self) -> None:
        self.main = Task("main", threading.Lock(), None, daemon=True)
        self.main.baton.acquire()
        self.current = self.main
        self.tasks: list[Task] = []
        self.running = self.aborting = False
        self.begin(Strategy())

    def begin(self, strategy: Strategy, start: float = 1000.0, fine: Iterable[str] = (), record: bool = False) -> None:
        """``fine``: source files within which every line is a point."""
        self.strategy = strategy
        self.time = start
        self.tasks = [self.main]
        self.main.ready, self.main.until, self.main.stands_at = True, math.inf, ""
        self.main.holds, self.main.finalising = 0, False
        self.current = self.main
        self.running = self.aborting = False
        self.broken: BaseException | None = None
        self.points = self.steps = 0
        self.way = 0  # a hash of who went on at which step, and when time passed: as many as there are schedules
        self.fuse: float = TOO_LONG
        self.alarms: list[tuple[float, Callable[[], None]]] = []
        self.fine = frozenset(fine)
        self.tracer_of: Callable[[Task], Any] = self._tracer_of
        self.log: list[str] | None = [] if record else None
        self.at_rest: list[Callable[[], None]] = []  # who looks when nobody can go on before time passes
        self.hurries = 0
        self.started = 0
        #: For pools without a background: it plans their tasks itself, at once in a task of its own.
        self.keeper: Any = self
        self.leaf: SchedulerLock | None = None  # inside which no other may be taken
        vars(self).pop("outages", None)  # what another order has left there of servers

    # --- What a Clock does ------------------------------------------------------------------------------------------

    def now(self) -> float:
        return self.time

    def lock(self) -> SchedulerLock:
        return SchedulerLock(self)

    def gate(self) -> SchedulerGate:
        return SchedulerGate(self)

    def wait(self, gate: SchedulerGate, until: float) -> None:
        self.point("lies down")
        if self.aborting:
            raise Abort
        me = self.current
        if not gate.opened:
            if until <= self.time:
                return
            if until > me.deadline + me.excuse + 1e-9:
                self.fail(Broken("bounded wait", f"{me} would sleep until {until:g}, its time is over {me.deadline:g}"))
            gate.sleeper, me.until = me, until
            try:
                self.block(me, "a gate")
            finally:
                gate.sleeper, me.until = None, math.inf
        gate.opened = False

    def give_way(self) -> None:
        self.point("gives way")

    def start(self, run: Callable[[], None], name: str) -> None:
        self.started += 1
        self.spawn(run, f"{name.rpartition('-')[2]} {self.started}", daemon=True)

    def at(self, when: float, task: Callable[[], None]) -> Planned:
        planned = (when, task)
        self.alarms.append(planned)
        return Planned(self.alarms, planned)

    # --- Tasks ------------------------------------------------------------------------------------------------------

    def spawn(self, job: Callable[[], None], name: str, daemon: bool = False) -> Task:
        """A new task, ready to run; who goes first is the strategy's affair."""
        worker = Worker.get()
        task = Task(name, worker.baton, job, daemon)
        self.tasks.append(task)

        def play() -> None:
            self._play(task, worker)

        worker.play = play
        if self.running:
            self.woke()
            self.point(f"starts {name}")
        return task

    def _play(self, task: Task, worker: Worker) -> None:
        job, task.job = task.job, None
        assert job is not None
        worker.thread.name = task.name
        sys.settrace(self.tracer_of(task))
        try:
            if not self.aborting:
                job()
        except Abort:
            pass
        except BaseException as error:
            if not self.aborting:
                self.broken = error
        finally:
            sys.settrace(None)
        del job
        task.ready = False
        task.stands_at = "its end"
        self.tasks.remove(task)
        if self.log is not None:
            self.log.append(f"{task.name}: ends")
        if self.broken is not None:
            self.aborting = True
        if self.aborting or (self.main.stands_at == "the others" and all(each.daemon for each in self.tasks)):
            self.main.ready = True
            following = self.main
        else:
            following = self._next()
        Worker.parked.append(worker)
        self.way = hash((self.way, self.steps, following.name))
        self.current = following
        following.baton.release()

    def sleep(self, seconds: float, what: str) -> None:
        """The running task is busy for so long, in a driver for instance."""
        me = self.current
        me.until = self.time + seconds
        try:
            self.block(me, what)
        finally:
            me.until = math.inf

    def go(self, calm: float = 0.0) -> None:
        """From the first task: let the others run to their end, and daemons for ``calm`` more seconds. Raises what is
        broken."""
        self.running = True
        self.strategy.begin(self)
        try:
            while any(not task.daemon for task in self.tasks):
                self.block(self.main, "the others")
            if calm:
                self.sleep(calm, "calm")
        finally:
            self.running = False
            self.fuse = TOO_LONG

    def end(self) -> None:
        """Send everybody home who is left."""
        self.aborting, self.fuse = True, TOO_LONG
        self.main.ready = True
        while len(self.tasks) > 1:
            task = self.tasks[-1]
            self.current = task
            task.baton.release()
            self.main.baton.acquire()
            self.current = self.main
        self.running = False

    # --- The baton --------------------------------------------------------------------------------------------------

    def point(self, what: str) -> None:
        """Somebody else may run here."""
        if self.log is not None and not self.aborting:
            self._note(what)
        self.steps += 1
        self.fuse -= 1
        if self.fuse <= 0:
            self._consult()

    def _consult(self) -> None:
        me = self.current
        self.points += 1
        if self.aborting:
            raise Abort
        if not self.running or self.points > TOO_LONG:
            self.fail(Broken("no deadlock", f"{me} goes round and round"))
        ready = [task for task in self.tasks if task.ready]
        following = self.strategy.pick(self, ready, me)
        while following is None:
            self._pass_time()
            ready = [task for task in self.tasks if task.ready]
            following = self.strategy.pick(self, ready, me)
        if following is not me:
            self._switch(following)

    def woke(self) -> None:
        if self.running:
            self.strategy.woke(self)

    def block(self, me: Task, what: str) -> None:
        """Until somebody makes it ready, or its time has come."""
        if self.aborting:
            raise Abort
        me.ready = False
        me.stands_at = what
        following = self._next()
        if following is not me:
            self._switch(following)
        elif self.aborting:  # the first task, which finds that something is broken
            self._stop()
        me.stands_at = ""

    def _next(self) -> Task:
        """Whose turn is it, now that the current task cannot go on?"""
        while True:
            ready = [task for task in self.tasks if task.ready]
            if not ready:
                try:
                    for look in self.at_rest if self.running else ():
                        look()
                    moved = self._pass_time(rest=True)
                except BaseException as broken:
                    self.broken, self.aborting = broken, True
                    return self.main
                if not moved:
                    stuck = "; ".join(f"{t} waits for {t.stands_at}" for t in self.tasks if t.stands_at)
                    self.broken, self.aborting = Broken("no deadlock", stuck), True
                    return self.main
                continue
            if not self.running:
                return ready[0]
            following = self.strategy.pick(self, ready, None)
            if following is not None:
                return following
            self._pass_time()

    def _switch(self, following: Task) -> None:
        me = self.current
        self.way = hash((self.way, self.steps, following.name))
        self.current = following
        following.baton.release()
        me.baton.acquire()
        if self.aborting:
            self._stop()

    def fail(self, broken: BaseException) -> None:
        """A promise is broken: everybody goes home, and the first task raises it."""
        if not self.aborting:
            self.broken, self.aborting, self.fuse = broken, True, TOO_LONG
            if self.current is not self.main:
                self._switch(self.main)
        self._stop()

    def _stop(self) -> None:
        if self.current is self.main and self.broken is not None:
            raise self.broken
        raise Abort

    # --- Time -------------------------------------------------------------------------------------------------------

    def _pass_time(self, rest: bool = False) -> bool:
        """Jump to the next deadline; False if there is none. Not at rest, it is a hurry: who was ready is excused."""
        next_time = math.inf
        for task in self.tasks:
            if not task.ready and task.until < next_time:
                next_time = task.until
        for when, _ in self.alarms:
            next_time = min(next_time, when)
        if next_time == math.inf:
            return False
        passed = max(0.0, next_time - self.time)
        if not rest:
            self.hurries += 1
            for task in self.tasks:
                if task.ready or task.until == math.inf:
                    task.excuse += passed
        if self.log is not None:
            self.log.append(f"      {'' if rest else 'in a hurry, '}the time is {next_time:g}")
        self.time = max(self.time, next_time)
        self.way = hash((self.way, self.steps, rest))
        for task in self.tasks:
            if not task.ready and task.until <= self.time:
                task.ready = True
                self.woke()
        for alarm in [alarm for alarm in self.alarms if alarm[0] <= self.time]:
            self.alarms.remove(alarm)
            self._ring(alarm[1])
        return True

    def _ring(self, ring: Callable[[], None]) -> None:
        worker = Worker.get()
        task = Task("alarm", worker.baton, ring, daemon=True)
        self.tasks.append(task)
        worker.play = lambda: self._play(task, worker)

    # --- Lines ------------------------------------------------------------------------------------------------------

    def _tracer_of(self, task: Task) -> Any:
        if not self.fine:
            return None
        files = self.fine

        def at_line(frame: FrameType, event: str, argument: object) -> Any:
            if event == "line":
                if self.log is not None and not self.aborting:
                    self.log.append(f"{self.current.name}: {place(frame)}")
                self.steps += 1
                self.fuse -= 1
                if self.fuse <= 0:
                    self._consult()
            return at_line

        def at_call(frame: FrameType, event: str, argument: object) -> Any:
            return at_line if frame.f_code.co_filename in files else None

        return at_call

    def _note(self, what: str) -> None:
        """Who does what, from which line of the pool."""
        assert self.log is not None
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and not _of_the_pool(frame.f_code):
            frame = frame.f_back
        self.log.append(f"{self.current.name}: {what}{f', {place(frame)}' if frame else ''}")


def _of_the_pool(code: CodeType) -> bool:
    return "threadpool_db" in code.co_filename.rpartition("/")[0] or code.co_filename.startswith("<edited")


def place(frame: FrameType) -> str:
    name = frame.f_code.co_filename.rpartition("/")[2].strip("<>").removeprefix("edited ")
    return f"{name}:{frame.f_lineno} {frame.f_code.co_name}"
