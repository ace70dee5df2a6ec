"""On what is a driver proved? Connections of its own, threads beside, a wire, and a verdict in words."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, NamedTuple

from threadpool_db.contract.acts import Acts
from threadpool_db.contract.wire import Wire
from threadpool_db.drivers.base import IDLE, UNKNOWN, Driver

#: after so many seconds a call that must not wait, or must end, is held to be stuck
PATIENCE = 5.0


class Broken(Exception):
    """The promise under proof is not kept; the text says how."""


class Misled(ValueError):
    """What was said of the database is not so: nothing can be proved by these acts."""


class Promise(NamedTuple):
    """One of them: its name, what is promised, for which claims, and which acts show it."""

    name: str
    sentence: str
    check: Callable[[Bench], None]
    of: tuple[str, ...]
    acts: tuple[str, ...]
    wired: tuple[str, ...]
    unwired: tuple[str, ...]

    def claimed(self, driver: Driver[Any]) -> bool:
        """Does the driver say that it can do it: by a method of its own, or by a flag?"""
        return not self.of or any(claims(driver, name) for name in self.of)

    def missing(self, bench: Bench) -> list[str]:
        needed = self.acts + (self.wired if bench.wired else self.unwired)
        return [name for name in needed if getattr(bench.acts, name) is None]


def promise(
    sentence: str, *, of: str = "", acts: str = "", wired: str = "", unwired: str = ""
) -> Callable[[Callable[[Bench], None]], Promise]:
    """``of`` names what claims it, any of these; ``wired`` and ``unwired`` are acts for drivers with and without a
    socket."""

    def made(check: Callable[[Bench], None]) -> Promise:
        parts = [tuple(names.split()) for names in (of, acts, wired, unwired)]
        return Promise(check.__name__, sentence, check, *parts)

    return made


def claims(driver: Driver[Any], name: str) -> bool:
    ours = getattr(type(driver), name)
    if callable(ours):
        return ours is not getattr(Driver, name) or name in vars(driver)
    return bool(getattr(driver, name))


class Call:
    """A call in a thread of its own."""

    def __init__(self, what: str, call: Callable[[], Any]) -> None:
        self.what = what
        self.value: Any = None
        self.error: Exception | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run, name=f"contract-{what}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.value = self._call()
        except Exception as error:
            self.error = error

    def ended(self, seconds: float | None = None) -> bool:
        self._thread.join(PATIENCE if seconds is None else seconds)
        return not self._thread.is_alive()


class Bench:
    """The driver, what was said of its database, and what every promise needs."""

    def __init__(self, driver: Driver[Any], acts: Acts) -> None:
        self.driver, self.acts = driver, acts
        self._stuck: list[Call] = []
        connection = driver.connect(10.0)
        try:
            self.driver = driver.recognise(connection)
            self.wired = self.driver.descriptor(connection) is not None
        finally:
            with suppress(Exception):
                self.driver.close(connection)

    @property
    def modes(self) -> tuple[bool | None, ...]:
        return (False, True) if self.driver.has_autocommit else (None,)

    @contextmanager
    def opened(self, mode: bool | None = None) -> Iterator[Any]:
        """A connection at rest, in that mode."""
        connection = self.driver.connect(10.0)
        try:
            self.rest(connection)
            if mode is not None:
                self.driver.set_autocommit(connection, mode)
            yield connection
        finally:
            while self._stuck:
                self._stuck.pop().ended(0.3)  # to close it under a call that has only been late crashes sqlite3
            with suppress(Exception):  # the promise has closed it, or found it broken
                self.driver.close(connection)

    def rest(self, connection: Any) -> None:
        """As the pool does at a checkin: a rollback of whatever is not surely idle."""
        if self.driver.state(connection) is not IDLE:
            self.driver.rollback(connection)

    def change(self, connection: Any) -> None:
        """An open transaction with a change in it."""
        assert self.acts.change is not None
        if self.driver.has_autocommit and self.driver.autocommit(connection):
            self.driver.begin(connection)
        self.acts.change(connection)

    def seen(self, connection: Any) -> Any:
        """What is to be seen of changes, and nothing left open by the look, if nothing was."""
        return self._ask("seen", connection)

    def left(self, connection: Any) -> Any:
        return self._ask("left", connection)

    def _ask(self, act: str, connection: Any) -> Any:
        at_rest = self.driver.state(connection) is IDLE
        answer = getattr(self.acts, act)(connection)
        if at_rest:
            self.rest(connection)
        return answer

    def fails(self, what: str, call: Callable[[], Any]) -> Exception:
        """The error that this must raise."""
        try:
            call()
        except Exception as error:
            return error
        raise Broken(f"{what} raised no error")

    def promptly(self, what: str, call: Callable[[], Any], wire: Wire | None = None) -> Any:
        """In another thread, so that one that waits is found out; at once, if it is heard on the wire."""
        running = Call(what, call)
        if wire is not None:
            until = time.monotonic() + PATIENCE
            while not running.ended(0.01) and time.monotonic() < until:
                if wire.said():
                    self._stuck.append(running)
                    raise Broken(f"{what} sent {wire.said()} bytes to the server, and waits for an answer")
        if not running.ended(None if wire is None else 0.0):
            self._stuck.append(running)
            raise Broken(f"{what} still waits after {PATIENCE:g} s, while the other side is silent")
        if running.error is not None:
            raise running.error
        return running.value

    def silence(self, connection: Any) -> AbstractContextManager[Wire | None]:
        """The other side answers nothing; a wire to look at where there is a socket."""
        if self.wired:
            return self.wire(connection)
        return contextlib.nullcontext() if self.acts.silence is None else self.acts.silence(connection)

    def wire(self, connection: Any) -> Wire:
        descriptor = self.driver.descriptor(connection)
        if descriptor is None:
            raise Broken("descriptor gave one at first, and None later, of an open connection")
        return Wire(descriptor)

    def deaths(self) -> list[Callable[[], AbstractContextManager[Any]]]:
        """Ways to a connection whose other side is gone: hung up without a word, and as ``kill`` does it."""
        return [self.hung_up] * self.wired + [self.killed] * (self.acts.kill is not None)

    @contextmanager
    def hung_up(self) -> Iterator[Any]:
        with self.opened() as connection, self.wire(connection) as wire:
            wire.hang_up()
            yield connection

    @contextmanager
    def killed(self) -> Iterator[Any]:
        assert self.acts.kill is not None
        with self.opened() as connection:
            self.acts.kill(connection)
            yield connection

    def must_rest(self, connection: Any, mode: bool | None, after: str) -> None:
        """Nothing open, and the mode as it was, as far as the driver can tell."""
        state = self.driver.state(connection)
        if state not in (IDLE, UNKNOWN):
            raise Broken(f"after {after} the state is {state.value}")
        if (glimpse := self.driver.glimpse(connection)) not in (IDLE, UNKNOWN):
            raise Broken(f"after {after} glimpse is {glimpse.value}")
        if self.driver.autocommit(connection) is not mode and self.driver.has_autocommit:
            raise Broken(f"after {after} autocommit is {self.driver.autocommit(connection)}, and it was {mode}")
        if self.driver.settled(connection, mode) is not (state is IDLE):
            raise Broken(f"after {after} the state is {state.value}, and settled says otherwise")
