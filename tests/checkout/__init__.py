"""What do the tests of checkout and database share? A database with one table, pools over it, and threads to play in.

with prepared(db_url) as db:
    pool = db.pool(checkout="thread", max_size=1)       # closed when the block ends
    pool.execute(db.insert(1))
    assert db.rows() == [1]                             # over a connection of its own
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.drivers import ask, wait_for_goodbye
from threadpool_db import Pool, create_pool
from threadpool_db.drivers.choose import driver_for

#: Real seconds after which what must happen at once has not happened.
SOON = 10.0

BROKEN = "select syntax error here"
SESSION_ID = dict.fromkeys(("psycopg2", "psycopg"), "select pg_backend_pid()") | {"pymysql": "select connection_id()"}
KILL = dict.fromkeys(("psycopg2", "psycopg"), "select pg_terminate_backend({})") | {"pymysql": "kill {}"}


class Db:
    """A database that has the empty table ``table (id int primary key)``, and somebody else's connection to it."""

    def __init__(self, url: str, how: str) -> None:
        # what costs more than all else here: a disk, and the system's certificates read for each of so many pools
        self.url = url + {"sqlite": "?pragma.synchronous=off", "mysql": "?ssl=false"}.get(urlsplit(url).scheme, "")
        self.how = how
        self.made_by = driver_for(self.url)
        self.name = self.made_by.name
        self.table = f"checkout_{os.getpid()}"
        self.mark = "?" if self.name == "sqlite" else "%s"
        self.other = self.made_by.connect(SOON)
        self.made_by.set_autocommit(self.other, True)
        self.pools: list[Pool] = []
        ask(self.other, f"drop table if exists {self.table}")
        engine = " engine=innodb" if self.name == "pymysql" else ""
        ask(self.other, f"create table {self.table} (id int primary key){engine}")

    @property
    def gives_up(self) -> bool:
        """Does this database give a transaction up when a statement of it fails?"""
        return self.name in ("psycopg2", "psycopg")

    @property
    def knows(self) -> bool:
        """Does the pool's driver know whether a transaction is open?"""
        return self.how != "dbapi"

    def pool(self, **options: Any) -> Pool:
        options = {"timeout": SOON, **options}
        if self.how == "url":
            made = create_pool(self.url, **options)
        else:
            made = create_pool(stock(self.url), driver="dbapi" if self.how == "dbapi" else None, **options)
        self.pools.append(made)
        return made

    def insert(self, number: int) -> str:
        return f"insert into {self.table} values ({number})"

    @property
    def select(self) -> str:
        return f"select id from {self.table} order by id"

    def rows(self) -> list[int]:
        """What everybody sees."""
        return [row[0] for row in ask(self.other, self.select)]

    def session(self, connection: Any) -> Any:
        """Which session of the server, or which object where there is no server."""
        return id(connection) if self.name == "sqlite" else ask(connection, SESSION_ID[self.name])[0][0]

    def kill(self, connection: Any) -> None:
        """Another client ends this connection's session; returns when the goodbye is here. Asks the connection."""
        self.kill_session(self.session(connection), connection)

    def kill_session(self, session: int, connection: Any) -> None:
        ask(self.other, KILL[self.name].format(session))
        descriptor = self.made_by.descriptor(connection)
        assert descriptor is not None
        wait_for_goodbye(descriptor)

    def close(self) -> None:
        for pool in self.pools:
            pool.close(timeout=2)
        # whatever a test left holding a lock of the table would hang this statement
        assert all(pool.stats().total == 0 for pool in self.pools)
        ask(self.other, f"drop table {self.table}")
        self.other.close()


@contextmanager
def prepared(url: str, how: str = "url") -> Iterator[Db]:
    """``how`` pools connect: by "url", by a "callable" that is recognised, or by one taken for any "dbapi" module's."""
    db = Db(url, how)
    yield db
    db.close()


def server_url(request: pytest.FixtureRequest, server: str) -> str:
    """Of the private server "postgres" or "mariadb"; where its driver is missing the test is skipped."""
    pytest.importorskip({"postgres": "psycopg2", "mariadb": "pymysql"}[server])
    url: str = request.getfixturevalue(server).url
    return url


def stock(url: str) -> Callable[[], Any]:
    """How somebody who knows nothing of us would connect."""
    parts = urlsplit(url)
    if parts.scheme == "postgresql+psycopg":
        import psycopg

        return lambda: psycopg.connect(url.replace("+psycopg", ""))
    if parts.scheme == "postgresql":
        import psycopg2

        return lambda: psycopg2.connect(url)
    if parts.scheme == "mysql":
        import pymysql

        return lambda: pymysql.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=parts.username,
            database=parts.path[1:],
            ssl_disabled=True,
        )
    import sqlite3

    def connect() -> Any:
        connection = sqlite3.connect(parts.path[1:], check_same_thread=False)
        connection.execute("pragma synchronous=off")
        return connection

    return connect


def in_thread(action: Callable[[], Any]) -> Any:
    """Run it in another thread that has ended when this returns; what it raised is raised here."""
    with closing(Other()) as other:
        return other(action)


class Other:
    """Another thread, which does one thing after the other: ``other(lambda: ...)`` returns what it returned there."""

    def __init__(self) -> None:
        self._todo: Callable[[], Any] | None = None
        self._given, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._work, name="other", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while True:
            assert self._given.acquire(timeout=10 * SOON)
            todo, self._todo = self._todo, None
            if todo is None:
                return
            self._result: Any = None
            self._error: BaseException | None = None
            try:
                self._result = todo()
            except BaseException as error:
                self._error = error
            todo = None
            self._done.release()

    def __call__(self, action: Callable[[], Any]) -> Any:
        return self.start(action)()

    def start(self, action: Callable[[], Any]) -> Callable[[], Any]:
        """Let it begin; what is returned waits for the end."""
        self._todo = action
        self._given.release()
        return self._finish

    def _finish(self) -> Any:
        assert self._done.acquire(timeout=SOON), "the other thread is still busy"
        result, error = self._result, self._error
        self._result = self._error = None
        try:
            if error is not None:
                raise error
            return result
        finally:
            del error  # its traceback has this frame

    def close(self) -> None:
        """Let the thread end, and wait until it has."""
        self._given.release()
        self._thread.join(SOON)
        assert not self._thread.is_alive()
