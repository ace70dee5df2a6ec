"""Who is compared? The pools, each as its users call it, over connections that do nothing.

A contestant is a pool and the two lines of code that its users write; what is measured is compiled from those lines, so
that no adapter of the bench's own stands between. The connections are fakes with the few attributes that the pool looks
at: what is left is the pool's own work. A peer that is not installed, or is not written yet, is left out with a line.

A pool starts empty, and ``connect`` is what its every connect does: it is given the kind of fake to make, and may
count, or take its time.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from tests.bench.floor import Floor
from threadpool_db.config import PoolConfig
from threadpool_db.drivers.base import Driver
from threadpool_db.pool import ConnectionPool

FLOOR, OURS, DBUTILS = "floor", "threadpool_db", "DBUtils PooledDB"
QUEUEPOOL, PSYCOPG, THREADPOOL = "SQLAlchemy QueuePool", "psycopg_pool", "threadpool_db ThreadPool"
PATIENCE = 60.0  # nobody is meant to time out here

#: What a connect does with the kind of connection that it is to make.
Connect = Callable[[type], Any]


@dataclass(frozen=True)
class Contestant:
    """``take`` is an expression that borrows from ``pool``, ``give`` a statement that returns ``it``."""

    name: str
    pool: Any
    take: str
    give: str
    close: Callable[[], object] = lambda: None
    block: str = ""  # a whole statement instead, for pairs only

    @property
    def pair(self) -> str:
        return self.block or f"it = {self.take}; {self.give}"


def at_once(kind: type) -> Any:
    return kind()


class Noop(Driver[object]):
    """All defaults: an object without transactions, session state or a socket."""

    name = "noop"

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    def connect(self, timeout: float) -> object:
        return self._connect(object)


class FakeConnection:
    """What DBUtils and SQLAlchemy call on a connection that is only lent and returned."""

    def rollback(self) -> None:
        pass

    def close(self) -> None:
        pass


class FakePsycopg2:
    """What psycopg2's pool looks at; the real one's are C attributes too, of about the same cost."""

    closed = 0
    info = types.SimpleNamespace(transaction_status=0)

    def close(self) -> None:
        pass


class FakePsycopg:
    """What psycopg_pool looks at, and the slots that it writes to."""

    pgconn = types.SimpleNamespace(transaction_status=0)  # TransactionStatus.IDLE
    _pool: Any = None

    def close(self) -> None:
        pass


def floor(size: int, connect: Connect = at_once) -> Contestant:
    return Contestant(FLOOR, Floor(size), "pool.take()", "pool.give(it)")


def ours(size: int, connect: Connect = at_once) -> Contestant:
    pool = ConnectionPool(Noop(connect), PoolConfig(max_size=size, timeout=PATIENCE))
    return Contestant(OURS, pool, "pool.checkout()", "it.checkin()", pool.close)


def ours_as_a_block(size: int, connect: Connect = at_once) -> Contestant:
    from threadpool_db.database import Pool

    pool = Pool(Noop(connect), max_size=size, timeout=PATIENCE)
    return Contestant(f"{OURS}, with connection()", pool, "", "", pool.close, block="with pool.connection(): pass")


def ours_for_sqlalchemy(size: int, connect: Connect = at_once) -> Contestant:
    from threadpool_db.ext.sqlalchemy import ThreadPool

    pool = ThreadPool(lambda: connect(FakeConnection), pool_size=size, max_overflow=0, timeout=PATIENCE)
    return Contestant(THREADPOOL, pool, "pool.connect()", "it.close()", pool.dispose)


def sqlalchemy(size: int, connect: Connect = at_once) -> Contestant:
    from sqlalchemy.pool import QueuePool

    pool = QueuePool(lambda: connect(FakeConnection), pool_size=size, max_overflow=0, timeout=PATIENCE)
    return Contestant(QUEUEPOOL, pool, "pool.connect()", "it.close()", pool.dispose)


def psycopg(size: int, connect: Connect = at_once) -> Contestant:
    from psycopg_pool import ConnectionPool as PsycopgPool

    class Fake(FakePsycopg):
        @classmethod
        def connect(cls, conninfo: str, **kwargs: Any) -> Any:
            return connect(cls)

    fake: Any = Fake
    pool = PsycopgPool(connection_class=fake, min_size=0, max_size=size, timeout=PATIENCE, open=True)
    return Contestant(PSYCOPG, pool, "pool.getconn()", "pool.putconn(it)", pool.close)


def dbutils(size: int, connect: Connect = at_once) -> Contestant:
    from dbutils.pooled_db import PooledDB

    module = types.SimpleNamespace(
        threadsafety=1,
        connect=lambda: connect(FakeConnection),
        OperationalError=OSError,
        InterfaceError=OSError,
        InternalError=OSError,
    )
    pool = PooledDB(module, maxconnections=size, blocking=True)
    return Contestant(DBUTILS, pool, "pool.connection()", "it.close()", pool.close)


def psycopg2(size: int, connect: Connect = at_once) -> Contestant:
    import psycopg2
    from psycopg2.pool import ThreadedConnectionPool

    with mock.patch.object(psycopg2, "connect", FakePsycopg2):  # all its connections are made here
        pool = ThreadedConnectionPool(size, size)
    return Contestant("psycopg2 ThreadedConnectionPool", pool, "pool.getconn()", "pool.putconn(it)", pool.closeall)


Maker = Callable[[int, Connect], Contestant]

FOR_PAIRS: tuple[Maker, ...] = (
    floor,
    ours,
    ours_as_a_block,
    ours_for_sqlalchemy,
    psycopg2,
    dbutils,
    psycopg,
    sqlalchemy,
)
#: psycopg2's pool raises when it is empty, and cannot take part.
FOR_CONTENTION: tuple[Maker, ...] = (floor, ours, ours_for_sqlalchemy, psycopg, sqlalchemy, dbutils)
#: The floor connects to nothing, and keeps nothing.
FOR_CONNECTS: tuple[Maker, ...] = FOR_CONTENTION[1:]


@contextlib.contextmanager
def invited(
    makers: tuple[Maker, ...], size: int, say: Callable[[str], None], connect: Connect = at_once
) -> Iterator[list[Contestant]]:
    """Those who can take part, with up to ``size`` connections each; closed at the end."""
    present: list[Contestant] = []
    with contextlib.ExitStack() as closing:
        for maker in makers:
            try:
                contestant = maker(size, connect)
            except ImportError as missing:
                say(f"left out: {maker.__name__.replace('_', ' ')} ({missing})")
                continue
            closing.callback(contestant.close)
            present.append(contestant)
        yield present
