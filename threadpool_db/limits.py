"""What if a call does not come back? Its socket is cut, from outside, at an hour that was noted before it began; and
what is stuck on a connection that is taken away is ended at the server too."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Generic, TypeVar

from threadpool_db.config import PoolConfig
from threadpool_db.core.entry import Entry
from threadpool_db.drivers.base import IDLE, Driver
from threadpool_db.drivers.sockets import cut_socket, socket_identity
from threadpool_db.keeper import Alarm, Keeper, keeper_of
from threadpool_db.waiting import Clock

C = TypeVar("C")

#: An alarm is planned no further ahead, and then again: a cancelled one lies in the keeper's plan until its hour, and a
#: busy pool would collect millions of those whose hour is a borrower's deadline.
STEP = 1.0


class Limits(Generic[C]):
    driver: Driver[C]

    def __init__(self, config: PoolConfig, clock: Clock) -> None:
        self.config = config
        self._clock = clock
        self._keeper = keeper_of(clock)

    def limited(self, socket: tuple[int, int] | None, seconds: float = math.inf) -> AbstractContextManager[None]:
        """A round trip of the pool's own: its socket is cut, from outside, after ``check_timeout`` or ``seconds``."""
        limit = max(0.0, min(self.config.check_timeout, seconds))
        return self.stopped(self._clock.now() + limit, partial(cut_socket, socket))

    @contextlib.contextmanager
    def stopped(self, when: float, stop: Callable[[], None]) -> Iterator[None]:
        watch = _Watch(self._keeper, self._clock, when, stop)
        watch.plan()
        try:
            yield
        finally:
            watch.end()

    def stop(self, socket: tuple[int, int] | None, connection: C) -> None:
        """Also where there is no socket."""
        cut_socket(socket)
        with contextlib.suppress(Exception):
            self.driver.interrupt(connection)

    def cut(self, entry: Entry) -> None:
        """Make whatever call is stuck on it fail, from any thread and without waiting; have it ended at the server too.

        The keeper comes here, and so does whoever closes it: the first who finds it in use has its session ended.
        """
        connection, session = entry.connection, None
        if connection is None:
            return  # closed already, and cut before that
        try:
            idle = self.driver.state(connection) is IDLE
        except Exception:
            idle = False  # somebody is closing it
        if not idle:
            session, entry.session = entry.session, None
        cut_socket(entry.socket)
        with contextlib.suppress(Exception):
            self.driver.interrupt(connection)
        if session is not None:
            # a server of its own, so that a black hole's worth of them holds up no connect
            server = ("end sessions", self.driver.server_key)
            self._keeper.do(server, partial(self.end_session, session, entry.opened_at), 1)

    def end_session(self, session: Hashable, since: float) -> None:
        """Over a connection of its own: most servers run a statement to its end, whether or not its client is there.

        Where that does not work the server is out of reach, and will end it as it ends what a crashed client leaves.
        """
        with contextlib.suppress(Exception):
            other = self.driver.connect(self.config.connect_timeout)
            try:
                with self.limited(socket_identity(self.driver.descriptor(other))):
                    self.driver.end_session(other, session, self._clock.now() - since)
            finally:
                self.driver.close(other)


class _Watch:
    """Over one call, until it ends or its hour has come."""

    __slots__ = ("_alarm", "_clock", "_keeper", "_stop", "_when")

    def __init__(self, keeper: Keeper, clock: Clock, when: float, stop: Callable[[], None]) -> None:
        self._keeper = keeper
        self._clock = clock
        self._when = when
        self._stop: Callable[[], None] | None = stop
        self._alarm: Alarm | None = None

    def plan(self) -> None:
        self._alarm = self._keeper.at(min(self._when, self._clock.now() + STEP), self._ring)

    def end(self) -> None:
        self._stop = None  # first: it may be about to be planned again
        if self._alarm is not None:
            self._alarm.cancel()

    def _ring(self) -> None:
        stop = self._stop
        if stop is None:
            return
        if self._clock.now() >= self._when:
            stop()
        else:
            self.plan()
