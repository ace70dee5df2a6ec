"""What does a user read who got something wrong? One clear error each, at once, no slot lost, no secret told.

The list is one table. A row is an action, the error that it must end with, and words that its text must contain. The
whole text, causes and their tracebacks included, must not contain the secret.
"""

from __future__ import annotations

import math
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import require
from tests.proxy import ReservedPort
from tests.scene import SOON, background
from tests.servers import Postgres
from threadpool_db import ConnectFailed, Pool, PoolClosed, PoolMisuse, StaleLease, create_pool
from threadpool_db.testing import ScriptedDriver

#: Never written out in a call below: a traceback shows the line.
SECRET = "hunter2"
AT_ONCE = 3.0


class Stage:
    """What a row acts with. The pools that it makes are looked at, and closed, when the row is over."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path, stack: ExitStack) -> None:
        self.request = request
        self.folder = folder
        self.stack = stack
        self.pools: list[Pool] = []
        self.begun = time.monotonic()

    def pool(self, source: Any = None, driver: str | None = None, **options: Any) -> Pool:
        pool = create_pool(ScriptedDriver() if source is None else source, driver, **{"max_size": 1} | options)
        self.pools.append(pool)
        return pool

    @property
    def closed(self) -> Pool:
        pool = self.pool()
        pool.checkout().checkin()
        pool.close()
        return pool

    def lease(self) -> Any:
        lease = self.pool().checkout()
        self.stack.callback(lambda: lease.active and lease.checkin())
        return lease

    def ended(self) -> Any:
        lease = self.pool().checkout()
        lease.checkin()
        return lease

    def server(self, kind: str) -> str:
        """host:port of a server that wants a password; the clock starts when it is up."""
        address = self._server(kind)
        self.begun = time.monotonic()
        return address

    def _server(self, kind: str) -> str:
        if kind == "mysql":
            pytest.importorskip("pymysql")
            return self.request.getfixturevalue("mariadb").address
        pytest.importorskip("psycopg2")
        require(Postgres)
        server = self.stack.enter_context(Postgres())
        (server.folder / "data" / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        server.restart()
        return server.address

    def nowhere(self) -> str:
        """host:port where nobody listens."""
        port = ReservedPort()
        self.stack.callback(port.release)
        return f"127.0.0.1:{port.number}"

    def connect_without(self, module: str, url: str) -> None:
        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        patch.setitem(sys.modules, module, None)
        self.pool(url)


class Row(NamedTuple):
    action: Callable[[Stage], Any]
    error: type[BaseException]
    words: str


def url(text: str) -> Callable[[Stage], Any]:
    return lambda on: on.pool(text.replace("SECRET", SECRET))


def borrow(timeout: Any) -> Callable[[Stage], Any]:
    return lambda on: on.pool().checkout(timeout)


def wrong_password(kind: str, user: str, name: str) -> Callable[[Stage], Any]:
    return lambda on: on.pool(f"{kind}://{user}:{SECRET}@{on.server(kind)}/{name}").execute("select 1")


def unreachable(kind: str, module: str) -> Callable[[Stage], Any]:
    def action(on: Stage) -> Any:
        pytest.importorskip(module)
        return on.pool(f"{kind}://app:{SECRET}@{on.nowhere()}/app").execute("select 1")

    return action


def borrows_from_itself(on: Stage) -> Any:
    def connect():
        return pool.checkout().connection

    pool = on.pool(connect)
    return pool.checkout()


def fails(on: Stage) -> Any:
    def connect():
        raise ValueError("no such service")

    return on.pool(connect).checkout()


def checkin_elsewhere(on: Stage) -> Any:
    lease = on.lease()
    return on.pool(name="elsewhere").checkin(lease)


def enter_in_two_threads(on: Stage) -> Any:
    with (lease := on.lease()):
        return background(lease.__enter__).result(SOON)


def enter_twice(on: Stage) -> Any:
    with (lease := on.lease()), lease:
        pass


def wait_for_oneself(on: Stage) -> Any:
    pool = on.pool()
    with pool.checkout():
        pool.checkout(timeout=math.inf)


def duplicate_name(on: Stage) -> Any:
    on.pool(name="orders")
    on.pool(name="orders")


TABLE = {
    # options
    "unknown option": Row(lambda on: on.pool(pool_size=5), TypeError, "'pool_size'; did you mean 'max_size'?"),
    "misspelt option": Row(lambda on: on.pool(pool_timeout=5), TypeError, "did you mean 'timeout'?"),
    "option of a later version": Row(lambda on: on.pool(stats_dir="x"), TypeError, "'stats_dir' is not available"),
    "no connections": Row(lambda on: on.pool(max_size=0), ValueError, "max_size=0: must be a whole number from 1"),
    "timeout that is no number": Row(lambda on: on.pool(timeout=math.nan), ValueError, "timeout=nan: must be a number"),
    "timeout as text": Row(lambda on: on.pool(timeout="5"), ValueError, "timeout='5': must be a number from 0"),
    "unknown policy": Row(lambda on: on.pool(checkout="request"), ValueError, "'operation', 'thread'"),
    "name that is taken": Row(duplicate_name, ValueError, "name='orders': another open pool"),
    "checkout in the past": Row(borrow(-1), ValueError, "timeout=-1: must be seconds from 0 on"),
    "checkout with a nan": Row(borrow(math.nan), ValueError, "timeout=nan: must be seconds"),
    "checkout with text": Row(borrow("5"), ValueError, "timeout='5': must be seconds"),
    # urls and sources
    "url without a scheme": Row(url("app:SECRET@db/app"), ValueError, "no scheme: it should look like postgresql://"),
    "url of an unknown kind": Row(url("oracle://app:SECRET@db/app"), ValueError, "the unknown scheme 'oracle'"),
    "misspelt scheme": Row(url("postgre://app:SECRET@db/app"), ValueError, "did you mean 'postgres"),
    "another driver": Row(url("postgresql+asyncpg://app:SECRET@db/app"), ValueError, "postgresql+psycopg2"),
    "url with a raw slash": Row(url("postgresql://app:/SECRET@db/app"), ValueError, "is written %2F"),
    "url with a raw hash": Row(url("mysql://app:#SECRET@db/app"), ValueError, "contains a '#'"),
    "url with a blank": Row(url("mysql://app:SECRET @db/app"), ValueError, "contains a blank"),
    "url with a bad port": Row(url("mysql://app:SECRET@db:70000/app"), ValueError, "a port that is no number from 1"),
    "url with a name as port": Row(url("mysql://app:SECRET@db:mysql/app"), ValueError, "a port that is no number"),
    "url without a database": Row(url("postgresql://app:SECRET@db"), ValueError, "names no database"),
    "url with a broken query": Row(url("postgresql://app:SECRET@db/app?x"), ValueError, "cannot be read"),
    "sqlite in memory": Row(url("sqlite:///:memory:"), ValueError, "each connection of a pool would see its own"),
    "sqlite on a host": Row(url("sqlite://SECRET/app.db"), ValueError, "SQLite has none"),
    "no source": Row(lambda on: create_pool(None), ValueError, "or a function that opens a connection"),
    "unknown driver": Row(lambda on: on.pool(lambda: None, "psycopg9"), ValueError, "unknown driver 'psycopg9'"),
    "psycopg2 missing": Row(
        lambda on: on.connect_without("psycopg2", f"postgresql://app:{SECRET}@db/app"),
        PoolMisuse,
        'psycopg2 is missing: pip install "threadpool-db[postgresql]"',
    ),
    "PyMySQL missing": Row(
        lambda on: on.connect_without("pymysql", f"mysql://app:{SECRET}@db/app"),
        PoolMisuse,
        'pymysql is missing: pip install "threadpool-db[mysql]"',
    ),
    # connecting
    "wrong password, PostgreSQL": Row(
        wrong_password("postgresql", "postgres", "postgres"), ConnectFailed, "Check that it is up and reachable"
    ),
    "wrong password, MariaDB": Row(wrong_password("mysql", "root", "test"), ConnectFailed, "the user, password"),
    "nobody listens, PostgreSQL": Row(unreachable("postgresql", "psycopg2"), ConnectFailed, "OperationalError"),
    "nobody listens, MariaDB": Row(unreachable("mysql", "pymysql"), ConnectFailed, "OperationalError"),
    "no such folder, SQLite": Row(
        lambda on: on.pool(f"sqlite:///{on.folder}/missing/app.db").execute("select 1"), ConnectFailed, "unable to open"
    ),
    "connect returns None": Row(
        lambda on: on.pool(lambda: None).checkout(), ConnectFailed, "the connect callable returned None"
    ),
    "connect raises": Row(fails, ConnectFailed, "no such service"),
    "connect borrows from its own pool": Row(borrows_from_itself, PoolMisuse, "cannot borrow one from it meanwhile"),
    "configure returns nothing": Row(
        lambda on: on.pool(f"sqlite:///{on.folder}/app.db", configure=lambda p: None).checkout(),
        PoolMisuse,
        "configure must return the parameters, it returned NoneType",
    ),
    # use after close
    "checkout of a closed pool": Row(lambda on: on.closed.checkout(), PoolClosed, "is closed; create another one"),
    "no wait for a closed pool": Row(lambda on: on.closed.checkout(timeout=0), PoolClosed, "is closed"),
    "execute on a closed pool": Row(lambda on: on.closed.execute("select 1"), PoolClosed, "is closed"),
    "block of a closed pool": Row(lambda on: on.closed.connection().__enter__(), PoolClosed, "is closed"),
    "transaction of a closed pool": Row(lambda on: on.closed.transaction().__enter__(), PoolClosed, "is closed"),
    "sticky lease of a closed pool": Row(lambda on: on.closed.lease(), PoolClosed, "is closed"),
    # leases
    "connection of an ended lease": Row(lambda on: on.ended().connection, StaleLease, "has ended; check out another"),
    "block of an ended lease": Row(lambda on: on.ended().__enter__(), StaleLease, "has ended; check out another"),
    "detach of an ended lease": Row(lambda on: on.ended().detach(), StaleLease, "there is nothing to detach"),
    "second checkin": Row(lambda on: on.ended().checkin(), RuntimeWarning, "given back already; ignored"),
    "discard after checkin": Row(lambda on: on.ended().discard(), RuntimeWarning, "given back already; ignored"),
    "checkin in another pool": Row(checkin_elsewhere, PoolMisuse, "'elsewhere': this lease belongs to pool"),
    "checkin of a connection": Row(lambda on: on.pool().checkin(object()), PoolMisuse, "expected the lease that"),
    "lease entered twice": Row(enter_twice, PoolMisuse, "one thread at a time"),
    "lease in two threads at once": Row(enter_in_two_threads, PoolMisuse, "one thread at a time"),
    "waiting for oneself": Row(wait_for_oneself, PoolMisuse, "this wait would never end"),
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
def test_bad_input_ends_in_one_clear_error_at_once(row, request, tmp_path):
    with ExitStack() as stack:
        stage = Stage(request, tmp_path, stack)
        with pytest.raises(row.error) as caught:
            row.action(stage)
        took = time.monotonic() - stage.begun
        told = "".join(traceback.format_exception(caught.type, caught.value, caught.tb))
        assert type(caught.value) is row.error
        assert row.words in told
        assert SECRET not in told + repr(caught.value) + "".join(map(repr, stage.pools))
        assert took < AT_ONCE
    for pool in stage.pools:
        assert_no_slot_is_lost(pool)


def assert_no_slot_is_lost(pool: Pool) -> None:
    counts = pool.stats().counts
    assert (counts.in_use, counts.opening, counts.closing, counts.waiting) == (0, 0, 0, 0)
    if not pool.closed and pool.name.startswith("scripted"):
        lease = pool.checkout(timeout=1)
        lease.checkin()
    pool.close()


def test_the_drivers_own_errors_pass_through_untouched(tmp_path):
    with create_pool(f"sqlite:///{tmp_path}/app.db", max_size=1) as pool:
        with pytest.raises(sqlite3.OperationalError, match="syntax error"):
            pool.execute("selekt 1")
        assert pool.execute("select 1") == [(1,)]
        assert_no_slot_is_lost(pool)
