"""How does a process end that still has connections? With a goodbye on what is idle, soon, and without a word more."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import pytest

from tests.faults.bank import Site, eventually
from threadpool_db.fork import FAREWELL

#: Seconds that an interpreter may take to start, on a machine that is busy.
START = 5.0

PRELUDE = """
import os, sys, threading, time
from threadpool_db import create_pool
from threadpool_db.testing import ScriptedDriver

def fall_silent(*args):
    threading.Event().wait()

def report(what):
    os.write(1, f"{what} {time.monotonic()}\\n".encode())
"""


def run(program: str, *arguments: object) -> tuple[list[str], float]:
    """What it has written, and how many seconds it took from the last line of its main thread to its end."""
    code = PRELUDE + textwrap.dedent(program) + "\nreport('end')\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    ended = time.monotonic()
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.rsplit(" ", 1) for line in done.stdout.splitlines()]
    [end] = [float(when) for what, when in lines if what == "end"]
    return [what for what, _ in lines if what != "end"], ended - end


SAID = """
pool = create_pool(ScriptedDriver(), max_size=8{options})
pool._upkeep.driver.close = lambda connection: report("goodbye")
leases = [pool.checkout() for _ in range(3)]
{leases}
for lease in leases: lease.checkin()
"""


@pytest.mark.parametrize("options", ["", ", background=False", ", min_size=3", ", min_size=3, max_lease=9"])
def test_what_is_idle_is_closed_with_a_goodbye_and_nothing_is_opened_any_more(options):
    said, _ = run(SAID.format(options=options, leases="pool._upkeep.driver.script('connect', *[fall_silent] * 9)"))
    assert said.count("goodbye") == 3


def test_a_pool_that_was_closed_has_said_its_goodbyes():
    said, _ = run(SAID.format(options="", leases="") + "pool.close()\n")
    assert said == ["goodbye"] * 3


def test_what_daemon_threads_still_have_holds_up_nobody():
    said, seconds = run("""
        pool = create_pool(ScriptedDriver(), max_size=2)
        ready = threading.Barrier(4)
        def work():
            lease = pool.checkout()
            ready.wait()
            fall_silent()
        def wait():
            ready.wait()
            pool.checkout(timeout=60)
        for action in (work, work, wait):
            threading.Thread(target=action, daemon=True).start()
        ready.wait()
        while not pool.stats().waiting: time.sleep(0.001)
    """)
    assert (said, seconds < FAREWELL + 1) == ([], True)


def test_a_connect_that_hangs_holds_up_nobody():
    _, seconds = run("""
        import socket
        silent = socket.create_server(("127.0.0.1", 0))
        driver = ScriptedDriver()
        begun = threading.Event()
        driver.always("connect", lambda: (begun.set(), socket.create_connection(silent.getsockname()).recv(1)))
        pool = create_pool(driver, min_size=2)
        begun.wait()
    """)
    assert seconds < FAREWELL + 1


def test_a_goodbye_that_takes_long_is_the_last_one():
    said, seconds = run("""
        pool = create_pool(ScriptedDriver(), max_size=8)
        def close(connection):
            report("goodbye")
            time.sleep(0.6)
        pool._upkeep.driver.close = close
        for lease in [pool.checkout() for _ in range(8)]: lease.checkin()
    """)
    assert said == ["goodbye", "goodbye"]
    assert seconds < FAREWELL + 1


def test_whoever_uses_the_pool_at_the_end_still_may():
    said, _ = run("""
        import atexit
        pool = create_pool(ScriptedDriver(), max_size=8)
        def farewell():
            with pool.checkout() as connection: report(connection.number)
        atexit.register(farewell)
    """)
    assert said == ["1"]


def test_a_forked_child_that_exits_closes_nothing_of_its_parents():
    said, _ = run("""
        driver = ScriptedDriver()
        pool = create_pool(driver, max_size=8)
        pool.checkout().checkin()
        parent = os.getpid()
        driver.close = lambda connection: report(f"{connection} {'parent' if os.getpid() == parent else 'child'}")
        pid = os.fork()
        if pid == 0:
            with pool.checkout(): pass
            sys.exit()
        assert os.waitpid(pid, 0)[1] == 0
    """)
    assert said == ["<connection 2> child", "<connection 1> parent"]


# --- As the servers see it --------------------------------------------------------------------------------------------

SESSIONS = """
pool = create_pool(sys.argv[1], max_size=4)
leases = [pool.checkout() for _ in range(4)]
for lease in leases[:3]: lease.checkin()
"""


def test_postgresql_hears_no_unexpected_end(postgres):
    pytest.importorskip("psycopg2")
    site = Site(postgres, tls=False)
    site.create_user()
    site.command("alter system set log_disconnections = on", "select pg_reload_conf()")
    log = len(postgres.log())
    run(SESSIONS + "leases[3].checkin()\n", site.url())
    eventually(lambda: postgres.log()[log:].count("disconnection: session time") >= 4, "four sessions have ended")
    site.command("alter system reset log_disconnections", "select pg_reload_conf()")
    assert "unexpected EOF" not in postgres.log()[log:]


def test_mariadb_counts_no_aborted_client_but_the_one_that_was_lent(mariadb):
    pytest.importorskip("pymysql")
    site = Site(mariadb, tls=False)
    site.create_user()

    def aborted() -> int:
        return int(site.command("show global status like 'Aborted_clients'")[0][1])

    before = aborted()
    run(SESSIONS + "leases[3].checkin()\n", site.url())
    eventually(lambda: not site.sessions(), "all sessions have ended")
    assert aborted() == before
    run(
        SESSIONS + "threading.Thread(target=fall_silent, args=leases[3:], daemon=True).start(); del leases\n",
        site.url(),
    )
    eventually(lambda: aborted() == before + 1, "the one that was lent is missed")


def test_a_child_of_a_process_with_sessions_exits_and_they_go_on(postgres):
    pytest.importorskip("psycopg2")
    site = Site(postgres, tls=False)
    site.create_user()
    said, _ = run(
        """
        pool = create_pool(sys.argv[1], max_size=4)
        lent = pool.checkout()
        pool.execute("select 1")
        pid = os.fork()
        if pid == 0:
            pool.execute("select 1")
            sys.exit()
        assert os.waitpid(pid, 0)[1] == 0
        with pool.transaction(), lent as connection:
            pool.execute("select 1")
            connection.cursor().execute("select 1")
        report(f"{pool.stats().opened} {pool.stats().dead}")
        """,
        site.url(),
    )
    assert said == ["2 0"]
