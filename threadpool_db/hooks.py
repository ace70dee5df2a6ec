"""What do the user's hooks say of a connection? ``on_connect``, ``on_checkout``, ``on_checkin``, ``on_close``.

A hook is called with the driver's own connection, outside the pool's lock, by whichever thread connects, borrows, gives
back or closes. It answers None or KEEP, to go on, or REPLACE: this one is closed, and another takes its place. Or it
raises. The same holds for all four:

- What it leaves open is committed, or a setting that it makes would be undone by the next rollback. What cannot be
  committed (a failed transaction, half a statement) is a PoolMisuse that names the hook.
- It cannot borrow from the pool that calls it: that would ask the hook again, or wait for the place that it holds up.
- A round trip of it that does not come back is cut off from outside; one whose time was over has failed, whatever it
  made of the error.
"""

from __future__ import annotations

import enum
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Generic, TypeVar

from threadpool_db.config import PoolConfig
from threadpool_db.core.entry import Entry
from threadpool_db.drivers.base import BUSY, FAILED, IDLE, OPEN, UNKNOWN, Driver
from threadpool_db.errors import PoolMisuse
from threadpool_db.limits import Limits
from threadpool_db.waiting import Clock

C = TypeVar("C")


class Outcome(enum.Enum):
    """What a hook answers; None is KEEP."""

    KEEP = "keep"
    REPLACE = "replace"  # close this connection; another one takes its place


KEEP, REPLACE = Outcome.KEEP, Outcome.REPLACE
Hook = Callable[[Any], "Outcome | None"]

_LEFT = {OPEN: "a transaction that does not end", FAILED: "a failed transaction", BUSY: "the middle of a statement"}


class Hooks(Generic[C]):
    """The hooks of one pool. ``here`` is the pool's own: while a hook runs, its thread has no holder there."""

    driver: Driver[C]
    here: threading.local

    def __init__(self, config: PoolConfig, clock: Clock, limits: Limits[C], tell: Callable[..., None]) -> None:
        self.config = config
        self._now = clock.now
        self._limits = limits
        self._tell = tell
        self.on_connect, self.on_checkout = config.on_connect, config.on_checkout
        self.on_checkin, self.on_close = config.on_checkin, config.on_close

    def connected(self, connection: C) -> Outcome | None:
        """``on_connect``; what it raises and answers is for whoever prepares the session, who also limits its time."""
        return self._ask("on_connect", connection)

    def wanted(self, entry: Entry, deadline: float) -> bool:
        """``on_checkout``: may the borrower have it? What the hook raises in time is the borrower's."""
        now = self._now()
        # who does not wait has no deadline that a hook could keep
        until = deadline if deadline > now else now + self.config.check_timeout
        try:
            with self._stopped(entry, until):
                answer = self._ask("on_checkout", entry.connection)
        except Exception as error:
            if self._now() < until and not entry.expired_after:
                raise
            entry.unfit = True
            answer = self._failed("on_checkout", now, until, error)
        else:
            if self._now() >= until:
                entry.unfit = True
                answer = self._failed("on_checkout", now, until)
            elif answer is REPLACE:
                self._tell("replaced", self._now() - now, "on_checkout answered REPLACE")
        return answer is not REPLACE

    def returned(self, entry: Entry) -> Outcome | None:
        """``on_checkin``, of a connection that is clean. KEEP, REPLACE, or None: it is of no more use."""
        now = self._now()
        until = now + self.config.check_timeout
        try:
            with self._stopped(entry, until):
                answer = self._ask("on_checkin", entry.connection)
        except Exception as error:
            self._failed("on_checkin", now, until, error)
            return None
        if self._now() >= until:
            self._failed("on_checkin", now, until)
            return None
        if answer is REPLACE:
            self._tell("replaced", self._now() - now, "on_checkin answered REPLACE")
        return answer or KEEP

    def leaving(self, entry: Entry) -> None:
        """``on_close``. Closed it will be, whatever happens here."""
        now = self._now()
        until = now + self.config.check_timeout
        try:
            with self._stopped(entry, until):
                self._ask("on_close", entry.connection)
        except Exception as error:
            self._failed("on_close", now, until, error)
        else:
            if self._now() >= until:
                self._failed("on_close", now, until)

    def left_dirty(self) -> None:
        """After ``on_checkin`` the connection would not come clean."""
        self._tell("hook_failed", 0.0, "on_checkin left something in the session that cannot be wiped; it is closed")

    def replay_failed(self, error: Exception) -> None:
        """``on_connect``, or something else that a session is told, failed after a reset."""
        self._tell("hook_failed", 0.0, f"after a reset: {error}", error.__cause__ or error)

    def _failed(self, name: str, begun: float, until: float, error: Exception | None = None) -> Outcome:
        what = f"{name} raised" if error is not None else f"{name} failed"
        if self._now() >= until:
            what = f"{name} did not come back for {until - begun:g} s"
        # without the traceback, whose frames have the connection: it would look as though it were in use
        self._tell("hook_failed", self._now() - begun, what, error and error.with_traceback(None))
        return REPLACE

    def _stopped(self, entry: Entry, until: float) -> AbstractContextManager[None]:
        return self._limits.stopped(until, partial(self._limits.stop, entry.socket, entry.connection))

    def _ask(self, name: str, connection: C) -> Outcome | None:
        here = self.here
        holder = here.__dict__.pop("holder", None)
        note = _Inside(name)
        here.hook = weakref.ref(note)
        try:
            answer: object = getattr(self, name)(connection)
            if answer is not None and not isinstance(answer, Outcome):
                raise PoolMisuse(
                    f"{name} returned a {type(answer).__name__}: a hook returns None or KEEP, to go on, or REPLACE"
                )
            if answer is not REPLACE:
                self._end_transaction(name, connection)
            return answer
        finally:
            here.hook = None
            if holder is not None:
                here.holder = holder

    def _end_transaction(self, name: str, connection: C) -> None:
        driver = self.driver
        state = driver.state(connection)
        if state is OPEN or state is UNKNOWN:
            driver.commit(connection)
            state = driver.state(connection)
        if state is not IDLE and state is not UNKNOWN:
            raise PoolMisuse(
                f"{name} left its connection in {_LEFT[state]}; let it end what it begins, with commit() or rollback()"
            )


class _Inside:
    """That a thread is inside a hook. Referred to weakly: an interrupt that lets the note stand does not let this."""

    __slots__ = ("__weakref__", "name")

    def __init__(self, name: str) -> None:
        self.name = name


def inside(here: threading.local) -> str:
    """The hook that this thread is inside of; "" for none."""
    note = getattr(here, "hook", None)
    hook = None if note is None else note()
    return "" if hook is None else hook.name
