"""What do the tests of a host's pool share? Connections that do nothing, engines that are disposed of at the end, and a
proxy that counts questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import create_engine, text

from tests.proxy import FaultProxy
from tests.scene import until
from threadpool_db.ext.sqlalchemy import ThreadPool


class Connection:
    def __init__(self, number: int) -> None:
        self.number = number
        self.rolled_back = 0
        self.closed = False

    def rollback(self) -> None:
        self.rolled_back += 1

    def close(self) -> None:
        self.closed = True


class Creator:
    """Makes connections, as long as ``trouble`` does not raise."""

    def __init__(self, trouble: Callable[[], object] = lambda: None) -> None:
        self.made: list[Connection] = []
        self.trouble = trouble

    def __call__(self) -> Any:
        self.trouble()
        self.made.append(Connection(len(self.made) + 1))
        return self.made[-1]


def waiting(pool: ThreadPool, count: int) -> None:
    until(lambda: pool.stats().waiting == count)


def number(connection: Any) -> int:
    found: int = connection.dbapi_connection.number
    return found


@pytest.fixture
def engine_for() -> Iterator[Callable[..., sqlalchemy.Engine]]:
    engines: list[sqlalchemy.Engine] = []

    def make(url: str, **options: Any) -> sqlalchemy.Engine:
        engines.append(create_engine(url, **{"poolclass": ThreadPool, **options}))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


def sessions(engine: sqlalchemy.Engine, ask: str, count: int) -> list[Any]:
    """What so many connections, all lent at the same time, answer: which session of the server are you?"""
    connections = [engine.connect() for _ in range(count)]
    answers = [connection.scalar(text(ask)) for connection in connections]
    for connection in connections:
        connection.close()
    return sorted(answers)


class Questions(FaultProxy):
    """Counts round trips: each time that a client speaks after an answer, or first."""

    def __init__(self, port: int) -> None:
        self._asked = 0
        self._asking: dict[Any, bool] = {}
        super().__init__(port)

    @property
    def asked(self) -> int:
        return self._ask(lambda: self._asked)

    def _receive(self, link: Any, flow: Any) -> None:
        before = len(flow.due)
        super()._receive(link, flow)
        if len(flow.due) > before:
            asking = flow is link.up
            self._asked += asking and not self._asking.get(link)
            self._asking[link] = asking


@pytest.fixture
def questions() -> Iterator[Callable[[int], Questions]]:
    made: list[Questions] = []

    def before(port: int) -> Questions:
        made.append(Questions(port))
        return made[-1]

    yield before
    for one in made:
        one.close()
