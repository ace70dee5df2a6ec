"""What is a session told once, and can its driver say it? When it is made, and again when it has been wiped.

In this order: ``init_sql``, which may still write, then ``isolation``, then ``read_only``, and then the hook
``on_connect`` has its say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Generic, TypeVar

from threadpool_db.config import PoolConfig
from threadpool_db.drivers.base import IDLE, Driver
from threadpool_db.errors import ConnectFailed, PoolMisuse
from threadpool_db.hooks import REPLACE, Hooks
from threadpool_db.waiting import Clock

C = TypeVar("C")
Saying = tuple[str, Callable[[], object]]


class Unusable(ConnectFailed):
    """It could connect, and no more: the server has answered, and its other pools have no reason to despair of it."""


class Session(Generic[C]):
    """What the options say of each session, to be said through one driver."""

    def __init__(self, driver: Driver[C], config: PoolConfig, clock: Clock, hooks: Hooks[C] | None = None) -> None:
        """ValueError: the driver cannot do what an option asks of it."""
        self._driver, self._config, self._clock = driver, config, clock
        self._hook = hooks.connected if hooks is not None and hooks.on_connect is not None else None
        for option in ("init_sql", "isolation", "read_only", "reset", "disconnect_on"):
            value = getattr(config, option)
            if value not in (None, (), "auto", "never") and (reason := driver.refuses(option, value)):
                # of init_sql not the value: there may be a secret in it
                raise ValueError(f"{option}{'' if option == 'init_sql' else f'={value!r}'}: {reason}")
        self.is_told_something = bool(config.init_sql) or config.isolation is not None or config.read_only is not None
        self.is_told_something = self.is_told_something or self._hook is not None

    def prepare(self, connection: C, until: float = math.inf) -> None:
        """All of it. ConnectFailed names what failed; ``until``: when somebody else cuts it short."""
        for what, say in self._everything(connection):
            try:
                answer = say()
            except PoolMisuse:
                raise
            except Exception as error:
                late = self._clock.now() >= until
                how = self._late if late else "failed"
                # without the traceback: it is kept as a cause, and would keep all our callers' frames
                raise (ConnectFailed if late else Unusable)(
                    f"a new connection could not be used: {what} {how} ({type(error).__name__}, the cause above)"
                ) from error.with_traceback(None)
            if self._clock.now() >= until:  # cut off, and the hook did not mind
                raise ConnectFailed(f"a new connection could not be used: {what} {self._late}")
            if answer is REPLACE:
                raise Unusable(f"a new connection could not be used: {what} answered REPLACE")

    @property
    def _late(self) -> str:
        return f"took longer than connect_timeout={self._config.connect_timeout:g} s"

    def characterise(self, connection: C) -> None:
        """Only what holds for its transactions."""
        for _, say in self._characteristics(connection):
            say()

    def _everything(self, connection: C) -> Iterator[Saying]:
        statements = tuple(self._config.init_sql)
        for number, sql in enumerate(statements, 1):
            yield f"statement {number} of {len(statements)} of init_sql", partial(self._driver.run, connection, sql)
        if statements:
            yield "the commit after init_sql", partial(self._commit, connection)
        yield from self._characteristics(connection)
        if self._hook is not None:
            yield "the hook on_connect", partial(self._hook, connection)

    def _characteristics(self, connection: C) -> Iterator[Saying]:
        driver, isolation, read_only = self._driver, self._config.isolation, self._config.read_only
        if isolation is not None:
            yield f"isolation={isolation!r}", partial(driver.set_isolation, connection, isolation)
        if read_only is not None:
            yield f"read_only={read_only!r}", partial(driver.set_read_only, connection, read_only)

    def _commit(self, connection: C) -> None:
        if self._driver.state(connection) is not IDLE:
            self._driver.commit(connection)
