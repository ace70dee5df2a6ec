"""What must hold where a keeper works for the pool? Its threads are tasks of the schedule like all others.

The promises of ``world.py``, read for a pool whose connects are ordered, and these:

a leaf              the keeper's lock is taken inside no other, and no other inside it but by a finaliser that strikes
                    there; nor is a server waited for
never does I/O      the scheduler waits for no server
no lost job         none lies in its queue while a worker rests or one more may be started
few workers         never more than ``max_connecting`` and one, ``CLOSERS`` for goodbyes; as many as the keeper thinks
looked after        whatever is due is planned by then, and somebody sleeps who will wake in time
given up in time    every connect has an alarm while it lasts, and none that outlives it
too late            what arrives after that is closed, and lent to nobody
taken away          whoever keeps one for too long loses it, is told so, and is the only one who ever sees that
kept ready          as many are open, or being opened, as there should be
goes home           when nothing is left to do, nobody is left to do it
gone at once        a pool that its users have dropped is freed, whatever is planned, queued or under way for it
"""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from tests.core.promises import Broken
from tests.interleave.scheduler import Scheduler, Task
from tests.interleave.world import World, next_try
from threadpool_db.background import CLOSERS
from threadpool_db.config import PoolConfig
from threadpool_db.core.entry import CLOSING, OPENING
from threadpool_db.errors import LeaseExpired


class KeptWorld(World):
    """A pool with ``background``, and a keeper of its own, or that of the world it is played with."""

    calm = 12.345  # no scenario plans anything for that moment

    def __init__(self, scheduler: Scheduler, shell: SimpleNamespace, config: PoolConfig, make: Any = None) -> None:
        if scheduler.keeper is scheduler:
            keeper = scheduler.keeper = shell.keeper.Keeper(scheduler)
            scheduler.leaf = keeper._lock
            keeper._lock.watches = (self._at_keepers_release,)
        self.keeper = scheduler.keeper
        self.dropped: weakref.ref[Any] | None = None
        self.late: list[Any] = []  # slots whose connect was given up
        super().__init__(scheduler, shell, config, make)
        self._background = self.pool._background
        lock, leaf = self.pool._lock, scheduler.leaf

        def inside() -> bool:
            me = scheduler.current
            if (
                me.finalising
            ):  # somebody's finaliser gives a lease back: in whose thread, and inside what, it chose itself
                return lock._is_owned()
            return lock._is_owned() or leaf._is_owned() or me.name.startswith("keeper")

        self.driver.inside = inside
        give_up = self.ledger.overdue

        def overdue(entry: Any, *rest: Any, **more: Any) -> Any:
            if entry.state is OPENING:
                self.late.append(entry)
                self.overdue += 1
                self.outcomes["overdue"] += 1
            return give_up(entry, *rest, **more)

        self.ledger.overdue = overdue

    # --- Parts ------------------------------------------------------------------------------------------------------

    def rest(self, seconds: float) -> None:
        """Time passes and nobody comes."""
        self.s.sleep(seconds, "nobody comes")

    def overstay(self, seconds: float = 0.0, end: str = "") -> None:
        """Use one for so long that it may be taken away."""
        lease = self.borrow()
        if lease is None:
            return
        with contextlib.suppress(OSError, LeaseExpired):
            self.use(lease, seconds, end)
        if lease.expired:
            self.outcomes["expired"] += 1
            try:
                connection = lease.connection
            except LeaseExpired:
                pass
            else:
                self.s.fail(Broken("taken away", f"{self.s.current} still has {connection}"))
        lease.checkin()

    def may_be(self, refusal: str) -> bool:
        """A connect that is given up is a failed one, and time may jump over that of any."""
        return super().may_be(refusal) or (refusal == "connect failed" and self.overdue > 0)

    def use(self, lease: Any, seconds: float = 0.0, end: str = "") -> None:
        if self.late and any(entry.connection is lease.connection for entry in self.late):
            self.s.fail(Broken("too late", f"{self.s.current} got {lease.connection}, which had been given up"))
        super().use(lease, seconds, end)

    def drop(self) -> None:
        """Nobody has the pool any more."""
        self.s.at_rest.remove(self._at_rest)
        self.dropped = weakref.ref(self.pool)
        self.pool = None
        self.outcomes["dropped"] += 1

    # --- Promises ---------------------------------------------------------------------------------------------------

    def should_open(self, at: float | None = None) -> bool:
        return self.ledger.opening < len(self.ledger.line) and self.could_open(at)

    def _look_at_first_failure(self) -> None:
        if self.ledger.line:
            raise Broken("at once", f"{list(self.ledger.line)} wait for a database that nobody has ever reached")

    def _limit_of(self, key: Any) -> float:
        """Goodbyes have workers of their own."""
        return CLOSERS if isinstance(key, tuple) and key[:1] == ("closes",) else self._limit

    def _at_keepers_release(self) -> None:
        for key, server in self.keeper._servers.items():
            if server.workers > self._limit_of(key):
                raise Broken("few workers", f"{server.workers} of {self._limit_of(key)}")

    @property
    def _limit(self) -> float:
        return self.config.max_connecting + 1

    @property
    def _workers(self) -> list[Task]:
        return [task for task in self.s.tasks if task.name.startswith("worker")]

    def _alarms(self, job: str) -> list[tuple[float, Any]]:
        """When which task of this pool's is planned to call its ``job``."""
        return [(when, task) for when, task in self._planned if self._is(task, job)]

    @property
    def _planned(self) -> list[tuple[float, Any]]:
        return [(when, alarm._task) for when, _, alarm in self.keeper._plan if alarm._task is not None]

    def _is(self, task: Any, job: str) -> bool:
        method = task.func if isinstance(task, functools.partial) else task
        return getattr(method, "__self__", None) is self._background and method.__name__ == job

    def _at_rest(self) -> None:
        if not self.hurt:
            self._look_at_keeper()
        super()._at_rest()

    def _look_at_keeper(self) -> None:
        keeper, s = self.keeper, self.s
        servers = keeper._servers.values()
        for key, server in keeper._servers.items():
            if server.jobs and (server.resting or server.workers < self._limit_of(key)):
                raise Broken(
                    "no lost job", f"{len(server.jobs)} wait, {server.workers} workers, {len(server.resting)} rest"
                )
        if len(self._workers) != sum(server.workers for server in servers):
            raise Broken(
                "few workers", f"{self._workers} live, {sum(server.workers for server in servers)} are counted"
            )
        soonest = min((when for when, _ in self._planned), default=math.inf)
        schedulers = [task for task in s.tasks if task.name.startswith("keeper")]
        if len(schedulers) > 1 or min((task.until for task in schedulers), default=math.inf) > soonest:
            raise Broken("looked after", f"{schedulers} sleep through {soonest:g}")

    def _look_at_watch(self, line: list[Any]) -> None:
        ledger, now = self.ledger, self.s.time
        planned = min((when for when, _ in self._alarms("_tend")), default=math.inf)
        if ledger.due < planned:
            raise Broken("looked after", f"something is due at {ledger.due:g}, and planned for {planned:g}")
        retry_at = next_try(ledger, now)
        if line and retry_at > now and self.should_open(at=retry_at) and planned > retry_at:
            raise Broken("looked after", f"{line[0]!r} could be served at {retry_at:g}, planned is {planned:g}")
        missing = self._missing(len(ledger.idle) + len(ledger.asking)) - ledger.opening
        if missing > 0 and now >= ledger.reach.fill_at and self.could_open():
            raise Broken("kept ready", f"{missing} more should be on their way")

    def _missing(self, idle: int) -> float:
        """How many more should be open, if so many are idle."""
        ledger, rules = self.ledger, self.ledger.rules
        connected = len(ledger.entries) - ledger.opening - ledger.closing
        ready = min(rules.min_idle - idle, rules.max_size - connected - len(ledger.line))
        return 0 if ledger.closed else max(rules.min_size - connected, ready)

    def _look_at_slots(self) -> None:
        entries = self.ledger.entries
        jobs = [job for server in self.keeper._servers.values() for job in server.jobs]
        queued = sum(self._is(job, "_open") for job in jobs)
        unborn = [entry for entry in entries if entry.connection is None and entry.state in (OPENING, CLOSING)]
        owed = len(unborn) - queued - self.driver.connecting  # which somebody has yet to order, after a job of his
        held_up = len(jobs) > queued or any(task.stands_at == "the driver's close" for task in self.s.tasks)
        if owed and (owed < 0 or not held_up):
            raise Broken(
                "nothing lost", f"{len(unborn)} to be opened, {self.driver.connecting} in the driver, {queued} queued"
            )
        guarded = [task.args[0] for _, task in self._alarms("_give_up")]
        unguarded = [entry for entry in unborn if entry.state is OPENING and entry not in guarded]
        if len(unguarded) > owed:
            raise Broken("given up in time", f"{unguarded} have no alarm")
        if any(entry not in unborn for entry in guarded):
            raise Broken("given up in time", "an alarm has outlived its connect")
        if not jobs and not any(task.stands_at.startswith("the driver's") for task in self._workers):
            self._look_at_lent()

    # --- The end ----------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        if self.pool is not None:
            self.audit()
        self.s.sleep(self.calm, "calm")  # whoever was held up until now goes on
        if self.dropped is None:
            super().finish()
        elif self.dropped() is not None:
            keepers = [type(each).__name__ for each in gc.get_referrers(self.dropped())]
            raise Broken("gone at once", f"{', '.join(keepers)} keep the pool")
        self.s.sleep(1e5, "a long silence")  # everything planned has had its time
        if not self.hurt:
            self._look_at_those_left()

    def _look_at_the_end(self) -> None:
        """Later: a closed pool's connects may still be under way."""

    def _look_at_those_left(self) -> None:
        if len(self.s.tasks) > 1:
            raise Broken("goes home", f"{self.s.tasks[1:]} are left")
        if self.keeper._plan or self.keeper._servers:
            raise Broken("goes home", f"{len(self.keeper._plan)} planned, {len(self.keeper._servers)} servers")
        if self.dropped is None:
            super()._look_at_the_end()

    def complaints(self) -> Iterator[str]:
        self.outcomes["dead"] += self.ledger.dead_count
        missing = self._missing(len(self.ledger.idle))
        if missing > 0:
            yield f"kept ready: {missing} more should be open"
        yield from super().complaints()
