"""What do the drivers of real databases share? Parameters to connect with, or somebody else's callable that does it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Any

from threadpool_db.drivers.base import C, Driver
from threadpool_db.errors import PoolMisuse

#: TCP keepalive, in seconds: silent for so long, asked again so often, so many answers missing. A peer that vanished
#: without a goodbye is then visible to ``peek`` after a minute, and not after the kernel's two hours.
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 30, 10, 3


class Client(Driver[C]):
    """What the drivers of real databases share: parameters that we connect with, or a callable that does it for us.

    ``configure`` gets a copy of the parameters before each connect and returns the ones to use: fresh passwords.
    """

    #: the client module, imported when the first driver is made, and the extra that brings it
    requires = ""
    extra = ""
    #: parameters that set something for a whole session, and what to do instead behind a transaction-mode pooler
    for_a_session: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        parameters: Mapping[str, Any] | None = None,
        *,
        connect: Callable[[], Any] | None = None,
        configure: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
    ) -> None:
        if (parameters is None) is (connect is None):
            raise TypeError(f"{type(self).__name__} takes connection parameters or connect=, one of the two")
        self._parameters: Mapping[str, Any] = dict(parameters or {})
        self._connect = connect
        self._configure = configure
        self._module: Any = _require(self.requires, self.extra)
        self.can_reset = connect is None

    def connect(self, timeout: float) -> C:
        if self._connect is not None:
            connection: C = self._connect()
            return connection
        parameters = dict(self._parameters)
        if self._configure is not None:
            configured: object = self._configure(parameters)
            if not isinstance(configured, Mapping):
                raise PoolMisuse(f"configure must return the parameters, it returned {type(configured).__name__}")
            parameters = dict(configured)
        return self.open(parameters, timeout)

    def expect_pooler(self) -> None:
        for name, remedy in self.for_a_session.items():
            if self._parameters.get(name):
                raise ValueError(
                    f"url has the option {name}, which sets something for a session; with server_pooler=True there is "
                    f"none: {remedy}"
                )

    def open(self, parameters: dict[str, Any], timeout: float) -> C:
        """Connect with these parameters, which are ours to change."""
        raise NotImplementedError

    def address(self) -> Hashable:
        """The server that the parameters name."""
        raise NotImplementedError

    @property
    def server_key(self) -> Hashable:
        return self.address() if self._connect is None else id(self._connect)

    def __repr__(self) -> str:
        # Never the callable's own repr: a functools.partial shows its arguments, the password among them.
        what = self.address() if self._connect is None else getattr(self._connect, "__qualname__", "a callable")
        return f"<{self.name} driver: {what}>"


def _require(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        remedy = f'pip install "threadpool-db[{extra}]"' if extra else "it is part of Python, but not of this build"
        raise PoolMisuse(f"the module {module.partition('.')[0]} is missing: {remedy}") from error


def as_bool(name: str, value: object) -> bool:
    """An option that is on or off, as a value or as the text of a URL."""
    text = str(value).lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{name} must be true or false")
