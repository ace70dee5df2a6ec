"""What does the pool do to a connection? Opens it, sees that it is fit, cleans up after a borrower, closes it.

Everything that asks the driver is here, outside the pool's lock, about one entry at a time, and knows nothing of who
waits. Answers are True or False, where False says "of no more use"; only ``open`` raises what the database said.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from threadpool_db.config import PoolConfig
from threadpool_db.core.entry import CLOSING, Entry
from threadpool_db.core.outage import Outage
from threadpool_db.drivers.base import BUSY, IDLE, UNKNOWN, Driver
from threadpool_db.drivers.sockets import socket_identity
from threadpool_db.errors import PoolMisuse
from threadpool_db.grip import in_use
from threadpool_db.hooks import REPLACE, Hooks
from threadpool_db.keeper import outage_of
from threadpool_db.limits import Limits
from threadpool_db.reset import wipe
from threadpool_db.session import Session, Unusable
from threadpool_db.waiting import Clock

C = TypeVar("C")


class Upkeep(Generic[C]):
    """``driver`` may change once: from an undecided one to the one that the first connection turned out to need."""

    def __init__(
        self, driver: Driver[C], config: PoolConfig, clock: Clock, tell: Callable[..., None] = lambda *event: None
    ) -> None:
        self._config = config
        self._clock = clock
        self._tell = tell  # the observers
        self.now = clock.now
        self.limits: Limits[C] = Limits(config, clock)
        self._limited, self._stopped, self.cut = self.limits.limited, self.limits.stopped, self.limits.cut
        self.hooks: Hooks[C] = Hooks(config, clock, self.limits, tell)
        # cut a close short after ``check_timeout``: somebody waits for it, or for its slot
        self.limits_all_closes = self.limits_closes = config.background or config.budget is not None
        self.adopt(driver)

    def adopt(self, driver: Driver[C]) -> None:
        """Work with this driver from now on. ValueError: it cannot do what an option asks of it."""
        config = None
        while config is not self._config:  # others may be set meanwhile
            config = self._config
            session = possible(driver, config, self._clock, self.hooks)
            self._dooming: frozenset[object] = frozenset(config.disconnect_on or ())
            if config.disconnect_on is None and not config.read_only:
                self._dooming = driver.read_only_codes
            self.driver, self._session = driver, session
            self.hooks.driver = self.limits.driver = driver
            self.settled = driver.settled if config.on_checkin is None else _never
            self.peek = driver.peek if driver.peeks else None

    def follow(self, config: PoolConfig) -> None:
        """Go by these settings from now on. ValueError, and nothing has changed: the driver cannot do what one asks."""
        possible(self.driver, config, self._clock, self.hooks)
        self._config = self.limits.config = self.hooks.config = config
        self.adopt(self.driver)

    def outage(self) -> Outage:
        """Shared with all pools of the same server."""
        return outage_of(self._clock, self.driver.server_key)

    def open(self, entry: Entry) -> None:
        """Connect, and note what will be needed of a connection as it was made."""
        until = self._clock.now() + self._config.connect_timeout
        connection: C | None = self.driver.connect(self._config.connect_timeout)
        if connection is None:
            raise TypeError("the connect callable returned None instead of a connection")
        entry.connection = connection
        try:
            self._make_ready(entry, connection, until)
        except BaseException:
            # Not by ``close``: the frames of this error have the connection, which looks as though it were in use, and
            # would stay open, with what init_sql has locked, as long as anybody keeps the error.
            entry.connection = None
            with contextlib.suppress(Exception):
                self.driver.close(connection)
            raise

    def _make_ready(self, entry: Entry, connection: C, until: float) -> None:
        driver, config = self.driver.recognise(connection), self._config
        if driver is not self.driver:
            try:
                self.adopt(driver)
            except ValueError as error:
                raise PoolMisuse(str(error)) from None
        entry.socket = socket_identity(driver.descriptor(connection))
        if self._session.is_told_something:
            with self._stopped(until, partial(self.limits.stop, entry.socket, connection)):
                self._session.prepare(connection, until)
        made, wanted = driver.autocommit(connection), config.autocommit
        if made is not None and wanted is not None and made is not wanted:
            with self._stopped(until, partial(self.limits.stop, entry.socket, connection)):
                driver.set_autocommit(connection, wanted)
            made = wanted
        entry.made_autocommit = entry.autocommit = made
        if config.server_pooler:
            driver.forgo_names(connection)
        else:  # a pooler makes its names up: by one of them we would end a stranger's session
            entry.session = driver.session(connection)
        entry.reset_first = config.reset == "always"
        if config.reset != "never":
            driver.watch(connection)  # the last thing: what was said until here is part of how it was made

    def is_answer(self, error: BaseException) -> bool:
        """Did a connect fail because the server said no, or did it succeed, and what came then fail?"""
        return isinstance(error, Unusable) or self.driver.is_answer(error)

    def close(self, entry: Entry) -> Exception | None:
        """Close it, after ``on_close`` has had it, if it is in order. An error is returned: there is nobody to raise it
        to."""
        try:
            if self.hooks.on_close is not None and entry.state is CLOSING and not entry.unfit:
                entry.unfit = True  # whoever is interrupted now: the hook is not called again
                if self._looks_alive(entry):
                    self.hooks.leaving(entry)
        except BaseException:
            self._close(entry)
            raise
        return self._close(entry)  # in no variable: its frames would be kept by it, and keep all our callers'

    def _close(self, entry: Entry) -> Exception | None:
        if entry.expired_after:
            self.cut(entry)  # or the close would wait for the call that its borrower is stuck in
        if not self.driver.closes_in_use and in_use(entry, self.driver.own_references):
            if not entry.expired_after:
                entry.connection = None
            return None  # it closes with its borrower's block, or with the last reference to it
        with self._limited(entry.socket) if self.limits_closes else contextlib.nullcontext():
            # from here on it counts as closed: whoever is interrupted now, nobody closes it a second time
            connection, entry.connection = entry.connection, None
            try:
                if connection is not None:
                    self.driver.close(connection)
            except Exception as error:
                return error
        return None

    def close_after_use(self, entry: Entry) -> None:
        """One that was taken away, and left open until its borrower, whose thread this is, had come to his end."""
        connection, entry.connection = entry.connection, None
        if connection is not None and not self.driver.closes_in_use:
            with contextlib.suppress(Exception):
                self.driver.close(connection)

    # --- Before a borrower gets it ----------------------------------------------------------------------------------

    def fit(self, entry: Entry, autocommit: bool | None, deadline: float, ask: bool) -> bool:
        """Alive, by a look, and where ``ask`` says so by a round trip; and in the mode wanted."""
        if not self._looks_alive(entry):
            return False
        return (not ask or self._answers(entry, deadline)) and self.in_mode(entry, autocommit, deadline)

    def _looks_alive(self, entry: Entry) -> bool:
        try:
            return self.peek is None or self.peek(entry.connection)
        except Exception:
            return False  # there is none any more: its borrower was held up until it was taken away

    def alive(self, entry: Entry) -> bool:
        """One that its thread kept, between two uses: a look, and after long silence a round trip."""
        now = self._clock.now()
        ask = now - entry.last_used >= self._config.ping_after
        return self.fit(entry, entry.autocommit, now + self._config.check_timeout, ask)

    def in_mode(self, entry: Entry, autocommit: bool | None, deadline: float = math.inf) -> bool:
        """Put an idle connection into an autocommit mode, None for the one it was made in, if it is not.

        A round trip for some clients, cut off as in ``_answers``.
        """
        wanted = entry.made_autocommit if autocommit is None else autocommit
        if entry.made_autocommit is None or entry.autocommit is wanted or wanted is None:
            return True
        try:
            with self._limited(entry.socket, deadline - self._clock.now()):
                self.driver.set_autocommit(entry.connection, wanted)
        except Exception:
            return False
        entry.autocommit = wanted
        return True

    def _answers(self, entry: Entry, deadline: float) -> bool:
        """One round trip, cut off from outside after ``check_timeout`` or at the deadline."""
        try:
            with self._limited(entry.socket, deadline - self._clock.now()):
                return self.driver.ping(entry.connection)
        except Exception:
            return False

    # --- After a borrower had it ------------------------------------------------------------------------------------

    def clean(self, entry: Entry, error: BaseException | None) -> bool:
        """Nothing of one borrower's transaction or session may reach the next, and nothing of ``on_checkin``'s, which
        has its say when that is done."""
        if not self.scrub(entry, error):
            return False
        if self.hooks.on_checkin is None:
            return True
        answer = self.hooks.returned(entry)
        if answer is REPLACE:
            entry.generation = -1  # of none that lives: closed when it comes back, and in order
        elif answer is not None and not self.scrub(entry, None):
            self.hooks.left_dirty()
            return False
        return answer is not None

    def scrub(self, entry: Entry, error: BaseException | None) -> bool:
        """What ``clean`` does, and the hook is not asked."""
        if (error is not None and self.doom(entry, error)) or not self.end_transaction(entry, error):
            return False
        try:
            if self._config.reset != "never" and not wipe(self, entry):
                return False
            entry.autocommit = self.driver.autocommit(entry.connection)
        except Exception:
            return False
        return True

    def doom(self, entry: Entry, error: BaseException | None) -> bool:
        """An error of ``disconnect_on``, or one that was made of it? Then nobody gets the connection again, though it
        lives: whoever has it may bring his transaction to its end."""
        if not self._dooming:
            return False
        for _ in range(10):  # causes may go round in a circle
            if error is None:
                break
            if self.driver.code(error) in self._dooming:
                entry.generation = -1  # of none that lives: closed when it comes back
                return True
            error = error.__cause__
        return False

    def end_transaction(self, entry: Entry, error: BaseException | None) -> bool:
        """Roll back what is open; the driver's own state decides. ``error``: what the borrower's code ended with."""
        driver, connection = self.driver, entry.connection
        try:
            state = driver.state(connection)
            if state is BUSY or (error is not None and self._spoilt(entry.connection, error, state)):
                return False
            if state is not IDLE:
                with self._limited(entry.socket):
                    driver.rollback(connection)
                return driver.state(connection) in (IDLE, UNKNOWN)
        except Exception:
            return False
        return True

    def _spoilt(self, connection: C, error: BaseException, state: Any) -> bool:
        if isinstance(error, Exception):
            return self.driver.is_disconnect(error, connection)
        return state is not IDLE  # interrupted anywhere in a statement: its answer may still be on the way


def possible(driver: Driver[C], config: PoolConfig, clock: Clock, hooks: Hooks[C] | None = None) -> Session[C]:
    """What its sessions are told. ValueError: the driver cannot do what an option asks of it."""
    if config.server_pooler:
        driver.expect_pooler()
    return Session(driver, config, clock, hooks)


def _never(connection: Any, autocommit: bool | None) -> bool:
    """No connection is settled as long as ``on_checkin`` has not had it."""
    return False
