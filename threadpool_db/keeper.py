"""Who acts when no borrower does? A process's keeper: one scheduler that never does I/O, and a few workers that do.

The scheduler calls due tasks, each of which decides under its own pool's lock and hands whatever talks to a server to a
worker. A worker may hang with its server for as long as the server likes: each server has workers of its own, up to a
limit, so one black hole holds up its own pools and nobody else.

Threads are started when there is something to do and end when there is nothing left: the master of a preloading
gunicorn takes none over the fork, and a forked child starts its own. The lock here is a leaf: it may be taken under a
pool's lock, and no other is ever taken under it.
"""

from __future__ import annotations

import heapq
import itertools
import weakref
from collections import deque
from collections.abc import Callable, Hashable

from threadpool_db import fork
from threadpool_db.core.outage import Outage
from threadpool_db.observe import logger
from threadpool_db.waiting import Clock, Gate

Task = Callable[[], None]

#: A worker without a job stays so many seconds: connects come in clusters.
LINGER = 2.0


class Alarm:
    """A task planned for a time. ``cancel`` is safe from anywhere, also when it has rung."""

    __slots__ = ("_task",)

    def __init__(self, task: Task) -> None:
        self._task: Task | None = task

    def cancel(self) -> None:
        self._task = None

    @property
    def cancelled(self) -> bool:
        return self._task is None

    def ring(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task()


class _Server:
    """One server's jobs and workers."""

    __slots__ = ("jobs", "resting", "starting", "workers")

    def __init__(self) -> None:
        self.jobs: deque[Task] = deque()
        self.resting: list[Gate] = []
        self.workers = 0
        self.starting = _Starting()


class _Starting:
    """Threads on their way. Whoever starts one may be interrupted before it does: one that has not come after a second
    is expected no longer."""

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since: list[float] = []

    def expect(self, now: float) -> None:
        self._since.append(now)

    def arrived(self) -> None:
        if self._since:
            self._since.pop(0)

    def count(self, now: float) -> int:
        while self._since and now - self._since[0] >= 1.0:
            self._since.pop(0)
        return len(self._since)


class Keeper:
    """Plans tasks and runs jobs, with the threads, the lock and the time of one clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start_afresh()
        fork.watch_keeper(self)

    def _start_afresh(self) -> None:
        self._lock = self._clock.lock()
        self._gate = Gate(self._clock)
        self._numbers = itertools.count()  # tasks cannot be compared, and those of one time keep their order
        self._plan: list[tuple[float, int, Alarm]] = []
        self._pokes: deque[Task] = deque()
        self._scheduling = False
        self._starting = _Starting()
        self._ended = False
        self._servers: dict[Hashable, _Server] = {}

    _after_fork_in_child = _start_afresh

    def _at_exit(self, until: float) -> None:
        """No thread can be started any more, and none that is left may hold up the end: what is planned is dropped.

        Whoever still uses a pool, in an exit function of his own, does for himself what a worker would do.
        """
        self._ended = True

    # --- Tasks ------------------------------------------------------------------------------------------------------

    def at(self, when: float, task: Task) -> Alarm:
        """Call ``task`` at ``when``, in the scheduler's thread: it may take a pool's lock, and waits for no more."""
        alarm = Alarm(task)
        if self._ended:
            return alarm
        now = self._clock.now()
        try:
            with self._lock:
                heapq.heappush(self._plan, (when, next(self._numbers), alarm))
                soonest = self._plan[0][2] is alarm
                idle = not self._scheduling and not self._starting.count(now)
                if idle:
                    self._starting.expect(now)
            if idle:
                if not self._start(self._schedule, "threadpool_db-keeper"):
                    self._starting.arrived()  # it stays planned, and the next one that plans something tries again
            elif soonest:
                self._gate.open()
        except BaseException:
            # an interrupt: it may be planned, and nobody been told. A scheduler too many goes home at once
            self._gate.open()
            self._start(self._schedule, "threadpool_db-keeper")
            raise
        return alarm

    def poke(self, task: Task) -> None:
        """For finalisers, which may interrupt our own locked section: the scheduler, if it is there, calls it soon."""
        self._pokes.append(task)
        self._gate.open()

    def _schedule(self) -> None:
        with self._lock:
            self._starting.arrived()
            if self._scheduling:
                return  # one that was expected no longer
            self._gate = Gate(self._clock)  # by what starts threads now: gevent may have patched that since
            self._scheduling = True
        while True:
            while self._pokes:
                _run(self._pokes.popleft())
            with self._lock:
                while self._plan and self._plan[0][2].cancelled:
                    heapq.heappop(self._plan)
                if not self._plan:
                    self._scheduling = False
                    return
                when, _, alarm = self._plan[0]
                due = when <= self._clock.now()
                if due:
                    heapq.heappop(self._plan)
            if due:
                _run(alarm.ring)
            else:
                self._gate.sleep(self._clock, when)
            del alarm  # not over the sleep: what it refers to may be waiting to be freed

    # --- Jobs -------------------------------------------------------------------------------------------------------

    def do(self, server: Hashable, job: Task, limit: float) -> None:
        """Run ``job`` in a worker, with at most ``limit`` of them at a time for this server; the rest wait in order."""
        if self._ended:
            _run(job)
            return

        def work(linger: float = LINGER) -> None:
            self._work(server, limit, linger)

        try:
            with self._lock:
                state = self._servers.setdefault(server, _Server())
                state.jobs.append(job)
                if state.resting:
                    state.resting.pop().open()
                    return
                now = self._clock.now()
                if state.workers + state.starting.count(now) >= limit:
                    return
                state.starting.expect(now)
            started = self._start(work, "threadpool_db-worker")
        except BaseException:
            # an interrupt: it may be in the queue, and nobody been told. A worker too many goes home at once
            self._start(work, "threadpool_db-worker")
            raise
        if not started:
            work(linger=0.0)  # slower for the caller than he deserves, but nothing is left undone

    def _work(self, server: Hashable, limit: float, linger: float) -> None:
        gate = Gate(self._clock)
        rested = False
        with self._lock:
            state = self._servers.setdefault(server, _Server())
            state.starting.arrived()
            if state.workers >= limit and linger:
                return  # one that was expected no longer
            state.workers += 1
        while True:
            with self._lock:
                if rested:
                    try:
                        state.resting.remove(gate)  # its time was over, nobody woke it
                    except ValueError:
                        # Woken, and a busier one may have taken the job: then it rests again. When it went home
                        # instead, a third of the operations on many databases started a thread.
                        rested = not linger
                job = state.jobs.popleft() if state.jobs else None
                if job is None and rested:
                    # a whole rest in vain
                    state.workers -= 1
                    if state.jobs:  # from a finaliser, in the middle of this
                        state.workers += 1
                        rested = False
                        continue
                    if not (state.workers or state.starting.count(self._clock.now())) and (
                        self._servers.get(server) is state
                    ):
                        del self._servers[server]
                    return
                if job is None:
                    state.resting.append(gate)
            if job is not None:
                _run(job)
                job, rested = None, False
            else:
                gate.sleep(self._clock, self._clock.now() + linger)
                rested = True

    def _start(self, run: Task, name: str) -> bool:
        """False: the system has no thread to give, or the interpreter is at its end."""
        try:
            self._clock.start(run, name)
        except RuntimeError:
            return False
        return True


def keeper_of(clock: Clock) -> Keeper:
    """The keeper of this clock, and so of the process: all pools in real time share one clock."""
    keeper: Keeper | None = clock.keeper
    return keeper or vars(clock).setdefault("keeper", Keeper(clock))


def outage_of(clock: Clock, server: Hashable) -> Outage:
    """What the pools of one server know of its being out of reach; kept as long as one of them lives."""
    outages: weakref.WeakValueDictionary[Hashable, Outage]
    outages = vars(clock).setdefault("outages", weakref.WeakValueDictionary())
    outage = outages.get(server)  # pools come by hundreds
    return outages.setdefault(server, Outage()) if outage is None else outage


def _run(task: Task) -> None:
    """An error here is a mistake of ours, or of somebody's driver; the thread goes on."""
    try:
        task()
    except BaseException:
        logger.exception("a background task failed")
