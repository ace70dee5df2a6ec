"""Do the sessions of a parent survive what its children do? Real databases, real processes, and real ends of them.

The play runs as a program of its own (this file, with a URL): its children end as programs do, with every finaliser
of every driver, which those of a test runner must not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import require
from tests.servers import MariaDB, Postgres
from threadpool_db import Pool, StaleLease, create_pool

ROOT = Path(__file__).resolve().parents[2]
SESSION = {
    "psycopg2": "select pg_backend_pid()",
    "psycopg": "select pg_backend_pid()",
    "pymysql": "select connection_id()",
    "sqlite": "select 1",
}
SIZE = 4


def ask(connection, sql):
    cursor = connection.cursor()
    cursor.execute(sql)
    rows = cursor.fetchall() if cursor.description else []
    cursor.close()
    return rows


def in_child(action) -> None:
    """The child goes on to the end of the program; here its success is waited for."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        action()
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status


def use(pool: Pool) -> list[object]:
    """Open all the connections that it may have, and use each; their sessions."""
    leases = [pool.checkout() for _ in range(SIZE)]
    sessions = [ask(lease.connection, SESSION[pool.name]) for lease in leases]
    for lease in leases:
        lease.checkin()
    assert pool.execute("select 1") == [(1,)]
    return sessions


def play(url: str) -> None:
    global the_pool  # for the life of each process, as in an app: its end is no "dropped without close()"
    pool = the_pool = create_pool(url, max_size=SIZE)
    pool.execute("create table if not exists fork_play (id integer)")
    pool.execute("delete from fork_play")
    sessions = sorted(use(pool))
    held = pool.checkout()
    ask(held.connection, "insert into fork_play values (1)")  # a transaction is open all the while

    in_child(lambda: None)

    def child() -> None:
        try:
            held.connection  # noqa: B018
        except StaleLease:
            held.checkin()
        else:
            raise AssertionError("the parent's lease is no lease of the child's")
        mine = sorted(use(pool))
        assert pool.name == "sqlite" or not [session for session in mine if session in sessions]
        in_child(lambda: use(pool))
        in_child(pool.close)
        assert sorted(use(pool)) == mine
        assert pool.stats().opened == SIZE

    in_child(child)
    in_child(child)

    held.connection.commit()
    held.checkin()
    assert pool.execute("select id from fork_play") == [(1,)]
    assert sorted(use(pool)) == sessions
    stats = pool.stats()
    assert (stats.opened, stats.dead, stats.total, stats.in_use) == (SIZE, 0, SIZE, 0)
    pool.execute("drop table fork_play")
    pool.close()
    print("the parent is well")


def run_play(url: str) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.faults.test_fork", url]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert told.returncode == 0, told.stderr[-4000:]
    assert told.stderr == ""
    assert told.stdout.splitlines() == ["the parent is well"]


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_a_parents_sessions_survive_its_children_on_postgresql(postgres, driver):
    pytest.importorskip(driver)
    run_play(postgres.url.replace(":", f"+{driver}:", 1))


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_a_parents_sessions_survive_its_children_on_postgresql_with_tls(driver):
    pytest.importorskip(driver)
    require(Postgres)
    with Postgres(tls=True) as server:
        run_play(f"{server.url}?sslmode=require".replace(":", f"+{driver}:", 1))


def test_a_parents_sessions_survive_its_children_on_mariadb(mariadb):
    pytest.importorskip("pymysql")
    run_play(mariadb.url)


def test_a_parents_sessions_survive_its_children_on_mariadb_with_tls():
    pytest.importorskip("pymysql")
    require(MariaDB)
    with MariaDB(tls=True) as server:
        run_play(f"{server.url}?ssl=true")


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_parents_connections_survive_its_children_on_sqlite(tmp_path, journal):
    run_play(f"sqlite:///{tmp_path}/fork.db?pragma.journal_mode={journal}")


if __name__ == "__main__":
    play(sys.argv[1])
