"""The same pools over a real server: how their users write one operation.

Each connect is noted, whoever begins it, with its end. A peer that is not installed, or a server that is not on this
machine, is left out with a line.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.bench.contestants import DBUTILS, OURS, PATIENCE, PSYCOPG, QUEUEPOOL, THREADPOOL, Contestant
from tests.servers import MariaDB, Postgres, Server, missing_programs

#: An operation is so long that not the processor but the number of connections limits the rate.
OPERATION = 0.010


@dataclass
class Connect:
    begun: float
    over: float = math.inf
    succeeded: bool = False


@dataclass
class Site:
    """A private server and one way to connect to it."""

    server: Server
    connects: list[Connect] = field(default_factory=list)  # of all contestants so far

    @property
    def postgresql(self) -> bool:
        return isinstance(self.server, Postgres)

    @property
    def statement(self) -> str:
        return f"select {'pg_sleep' if self.postgresql else 'sleep'}({OPERATION})"

    def noted(self, connect: Callable[[], Any]) -> Any:
        self.connects.append(this := Connect(time.perf_counter()))
        try:
            connection = connect()
            this.succeeded = True
            return connection
        finally:
            this.over = time.perf_counter()

    def connect(self) -> Any:
        if self.postgresql:
            import psycopg2

            return self.noted(lambda: psycopg2.connect(self.conninfo))
        import pymysql

        # without a word on TLS, PyMySQL reads all the system's certificates for each connect: 40 ms of the processor
        options: dict[str, Any] = {"port": self.server.port, "user": "root", "database": "test", "ssl_disabled": True}
        return self.noted(lambda: pymysql.connect(host=self.server.host, **options))

    @property
    def conninfo(self) -> str:
        return f"host={self.server.host} port={self.server.port} user=postgres dbname=postgres sslmode=disable"

    @property
    def dialect(self) -> str:
        return "postgresql+psycopg2://" if self.postgresql else "mysql+pymysql://"


Maker = Callable[[Site, int], Contestant]


def ours(site: Site, size: int) -> Contestant:
    from threadpool_db import Pool

    driver = "psycopg2" if site.postgresql else "pymysql"
    pool = Pool(site.connect, driver, max_size=size, timeout=PATIENCE)
    block = f"with pool.connection() as it, it.cursor() as cursor: cursor.execute({site.statement!r})"
    return Contestant(OURS, pool, "", "", pool.close, block)


def sqlalchemy(site: Site, size: int, *, name: str = QUEUEPOOL, **options: Any) -> Contestant:
    from sqlalchemy import create_engine

    engine = create_engine(
        site.dialect, creator=site.connect, pool_size=size, max_overflow=0, pool_timeout=PATIENCE, **options
    )
    block = f"with pool.connect() as it: it.exec_driver_sql({site.statement!r})"
    return Contestant(name, engine, "", "", engine.dispose, block)


def sqlalchemy_with_pre_ping(site: Site, size: int) -> Contestant:
    return sqlalchemy(site, size, name=f"{QUEUEPOOL}, pre_ping", pool_pre_ping=True)


def ours_for_sqlalchemy(site: Site, size: int) -> Contestant:
    from threadpool_db.ext.sqlalchemy import ThreadPool

    return sqlalchemy(site, size, name=THREADPOOL, poolclass=ThreadPool)


def psycopg(site: Site, size: int) -> Contestant:
    import psycopg
    from psycopg_pool import ConnectionPool

    class Counted(psycopg.Connection[Any]):
        @classmethod
        def connect(cls, conninfo: str = "", **options: Any) -> Any:
            return site.noted(functools.partial(super().connect, conninfo, **options))

    pool = ConnectionPool(
        site.conninfo, connection_class=Counted, min_size=0, max_size=size, timeout=PATIENCE, open=True
    )
    block = f"with pool.connection() as it: it.execute({site.statement!r})"
    return Contestant(PSYCOPG, pool, "", "", pool.close, block)


def dbutils(site: Site, size: int) -> Contestant:
    from dbutils.pooled_db import PooledDB

    connect: Any = functools.partial(site.connect)
    connect.dbapi = __import__("psycopg2" if site.postgresql else "pymysql")
    pool = PooledDB(connect, maxconnections=size, blocking=True)
    block = f"with pool.connection() as it, it.cursor() as cursor: cursor.execute({site.statement!r})"
    return Contestant(DBUTILS, pool, "", "", pool.close, block)


MAKERS: tuple[Maker, ...] = (ours, ours_for_sqlalchemy, sqlalchemy, sqlalchemy_with_pre_ping, dbutils)
#: psycopg_pool is for PostgreSQL alone.
MAKERS_OF: dict[type[Server], tuple[Maker, ...]] = {Postgres: (*MAKERS, psycopg), MariaDB: MAKERS}


@contextlib.contextmanager
def started(kind: type[Server], say: Callable[[str], None]) -> Iterator[Site | None]:
    if missing := missing_programs(kind):
        say(f"left out: {kind.__name__} ({', '.join(missing)} not on this machine)")
        yield None
        return
    with kind() as server:
        yield Site(server)


@contextlib.contextmanager
def invited(maker: Maker, site: Site, size: int, say: Callable[[str], None]) -> Iterator[Contestant | None]:
    """The contestant, closed at the end; None if it cannot take part."""
    try:
        contestant = maker(site, size)
    except ImportError as missing:
        say(f"left out: {maker.__name__.replace('_', ' ')} ({missing})")
        yield None
        return
    try:
        yield contestant
    finally:
        contestant.close()
