"""What if the file is the trouble? Another process has locked it, or the disk is full. SQLite's own errors pass through
within its busy timeout; what was begun is rolled back, and the connection is of use again."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.scene import SOON, background
from threadpool_db import ConnectFailed, PoolTimeout, create_pool

BUSY = 0.2  # SQLite's own patience, for a lock
AT_ONCE = 2.0  # the machine may be busy
SIZE = 2

LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
connection.execute("select * from t").fetchone()
print("locked", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    connection.execute("create table t (x text)")
    connection.execute("insert into t values ('there')")
    connection.commit()
    connection.close()
    return path


@contextmanager
def locked(file: Path, how: str) -> Iterator[None]:
    """By another process."""
    command = [sys.executable, "-c", LOCKER, str(file), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as locker:
        try:
            assert locker.stdout is not None and locker.stdout.readline() == b"locked\n"
            yield
        finally:
            locker.kill()


def assert_all_there(pool: Any, opened: int, rows: int) -> None:
    stats = pool.stats()
    assert (stats.in_use, stats.waiting, stats.total, stats.opened) == (0, 0, opened, opened)
    leases = [pool.checkout() for _ in range(opened)]
    for lease in leases:
        assert not lease.connection.in_transaction
        lease.checkin()
    assert pool.execute("select count(*) from t") == [(rows,)]


def fails(action: Any, words: str) -> float:
    begun = time.monotonic()
    with pytest.raises(sqlite3.OperationalError, match=words):
        action()
    return time.monotonic() - begun


def insert(pool: Any) -> None:
    with pool.transaction() as connection:
        connection.execute("insert into t values ('new')")


def test_while_another_process_has_locked_the_file_its_own_error_passes_through_and_nothing_is_lost(
    file: Path,
) -> None:
    with create_pool(f"sqlite:///{file}?timeout={BUSY}", max_size=SIZE) as pool:
        with pool.checkout(), pool.checkout():
            pass
        with locked(file, "begin exclusive"):
            for action in (lambda: pool.execute("select * from t"), lambda: insert(pool)):
                assert BUSY / 2 < fails(action, "database is locked") < BUSY + AT_ONCE
            # both connections wait for the lock, and a third borrower for them, as long as he likes
            busy = [background(insert, pool) for _ in range(SIZE)]
            third = background(pool.execute, "select * from t", timeout=0.05)
            assert isinstance(third.exception(SOON), (PoolTimeout, sqlite3.OperationalError))
            for one in busy:
                assert isinstance(one.exception(SOON), sqlite3.OperationalError)
        insert(pool)
        assert_all_there(pool, SIZE, rows=2)


def test_a_commit_that_a_reader_elsewhere_forbids_leaves_nothing_half_done(file: Path) -> None:
    with create_pool(f"sqlite:///{file}?timeout={BUSY}", max_size=SIZE) as pool:
        with pool.checkout(), pool.checkout():
            pass
        with locked(file, "begin"):  # and then reads
            fails(lambda: insert(pool), "database is locked")
            assert_all_there(pool, SIZE, rows=1)
        insert(pool)
        assert_all_there(pool, SIZE, rows=2)


def test_a_connect_that_needs_the_locked_file_fails_as_connects_do_and_the_next_one_works(file: Path) -> None:
    url = f"sqlite:///{file}?timeout={BUSY}&pragma.journal_mode=truncate&pragma.user_version=7"

    with create_pool(url, max_size=SIZE, timeout=1.0) as pool:
        with locked(file, "begin exclusive"):
            with pytest.raises(ConnectFailed) as told:  # it has never connected
                pool.checkout()
            assert isinstance(told.value.__cause__, sqlite3.OperationalError)
        pool.execute("select 1")
        pool.recycle()
        with locked(file, "begin exclusive"), pytest.raises(PoolTimeout) as late:
            pool.checkout(timeout=BUSY)
        assert isinstance(late.value.__cause__, (sqlite3.OperationalError, type(None)))
        assert pool.execute("select x from t", timeout=SOON) == [("there",)]
        stats = pool.stats()
        assert stats.total == stats.idle == stats.opened - stats.closures


# A full disk ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, where that may be made."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], stderr=subprocess.DEVNULL
    )
    if not made or made.returncode:
        pytest.skip("may not mount a small file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(pool: Any) -> None:
    with pool.transaction() as connection:
        for _ in range(200):
            connection.execute("insert into t values (?)", ("x" * 4000,))


def until_full(pool: Any) -> None:
    """All that was in a transaction that met the end of the space is undone, and its connection serves the next."""
    pool.execute("create table t (x text)")
    pool.execute("insert into t values ('there')")
    opened = pool.stats().opened
    fails(lambda: fill(pool), "database or disk is full")
    assert not pool.in_transaction
    assert pool.execute("select x from t") == [("there",)]
    insert(pool)

    def by_hand() -> None:
        with pool.scope():
            pool.execute("begin")
            for _ in range(200):
                pool.execute("insert into t values (?)", ("y" * 4000,))
            pool.execute("commit")  # a real disk is asked only now

    fails(by_hand, "database or disk is full")
    assert pool.stats().opened == opened == 1
    assert_all_there(pool, 1, rows=2)
    together = [background(fill, pool) for _ in range(3)]
    for one in together:
        assert isinstance(one.exception(SOON), sqlite3.OperationalError)
    assert_all_there(pool, 1, rows=2)


def test_a_full_database_costs_its_transaction_and_not_its_connection(tmp_path: Path) -> None:
    with create_pool(f"sqlite:///{tmp_path}/full.db?pragma.max_page_count=40", max_size=1) as pool:
        until_full(pool)


def test_a_full_disk_costs_its_transaction_and_not_its_connection(small_disk: Path) -> None:
    with create_pool(f"sqlite:///{small_disk}/full.db", max_size=1) as pool:
        until_full(pool)
