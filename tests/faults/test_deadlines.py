"""Is a lease that is held too long ended everywhere: in its thread, on its socket and at the server?"""

from __future__ import annotations

import sqlite3
import time

import pytest

from tests.drivers import ask
from tests.faults.bank import Bank, Watcher, assert_nothing_lost, eventually
from tests.faults.bounds import best_of, note
from tests.faults.test_black_hole import HOW_OFTEN, Ticker
from tests.proxy import FaultProxy
from tests.scene import SOON, background
from tests.test_left_behind import leak_reported_elsewhere
from threadpool_db import ConnectFailed, LeaseExpired, PoolError, PoolTimeout, create_pool
from threadpool_db.testing import Latch

LIMIT = 0.5
AT_ONCE = 2.0  # for what would last a minute if nobody ended it; the machine may be busy
SIZE = 2


def test_a_statement_that_lasts_too_long_is_ended_here_and_at_the_server_and_its_slot_serves_the_next(any_bank):
    site, heard = any_bank.site, Watcher()
    with site.pool(max_size=1, max_lease=LIMIT, observers=[heard]) as pool:
        pool.execute("select 1")

        def nap():
            with pool.checkout() as connection:
                begun = time.monotonic()
                try:
                    ask(connection, site.nap)
                except site.module.Error as error:
                    return time.monotonic() - begun, error

        napping = background(nap)
        eventually(lambda: site.running(site.nap), "the nap has begun")
        waiter = background(pool.checkout)
        lasted, error = napping.result(SOON)
        assert not isinstance(error, PoolError)
        assert LIMIT / 2 < lasted < LIMIT + AT_ONCE
        ended = time.monotonic()
        lease = waiter.result(SOON)
        assert ask(lease.connection, "select 1")[0] == (1,)
        lease.checkin()
        eventually(lambda: not site.running(site.nap), "nobody naps at the server")
        assert time.monotonic() - ended < AT_ONCE
        assert (heard.seen["expired"], heard.seen["disconnected"], pool.stats().expired) == (1, 1, 1)
        assert_nothing_lost(any_bank, pool)


def test_a_transaction_that_holds_on_for_too_long_is_not_committed_and_lets_go_of_its_locks(bank):
    site, heard = bank.site, Watcher()
    with site.pool(max_size=SIZE, max_lease=LIMIT, observers=[heard]) as pool:
        with pytest.raises(LeaseExpired, match=f"max_lease={LIMIT:g} s"), pool.transaction() as connection:
            ask(connection, "update account set balance = 0 where id = 1")
            heard.wait_for("disconnected")
            site.command("update account set balance = balance where id = 1")  # it would wait for the lock
        assert_nothing_lost(bank, pool)


@pytest.mark.parametrize("policy", ["operation", "thread"])
def test_an_operation_that_lasts_too_long_gets_the_drivers_own_error_and_the_next_one_works(bank, policy):
    site = bank.site
    with site.pool(max_size=1, max_lease=LIMIT, checkout=policy) as pool:
        pool.execute("select 1")
        with pytest.raises(site.module.Error) as caught:
            pool.execute(site.nap)
        assert not isinstance(caught.value, PoolError)
        assert pool.execute("select 1") == [(1,)]
        pool.release()
        eventually(lambda: not site.running(site.nap), "nobody naps at the server")
        assert_nothing_lost(bank, pool)


def test_a_thread_may_keep_a_connection_for_longer_than_max_lease(bank):
    with bank.site.pool(max_size=1, max_lease=LIMIT, checkout="thread") as pool:
        session = pool.execute(bank.site.session)
        ends = time.monotonic() + 3 * LIMIT
        eventually(lambda: time.monotonic() > ends, "three times its limit")
        assert pool.execute(bank.site.session) == session
        assert pool.stats().expired == 0
        pool.release()


def test_only_the_session_that_is_old_enough_is_ended(bank):
    """A server gives its names to others in time: one that is younger than ours was is somebody else."""
    site = bank.site
    with site.pool(max_size=SIZE) as pool, pool.checkout() as ours, pool.checkout() as other:
        driver = pool._upkeep.driver
        session = driver.session(ours)
        assert session == ask(ours, site.session)[0][0]
        ours.rollback()
        driver.end_session(other, session, 1e6)
        assert ask(ours, site.session)[0][0] == session
        driver.end_session(other, session, 0.0)
        eventually(lambda: session not in site.sessions(), "it is ended")
        driver.end_session(other, session, 0.0)  # nobody has that name any more
        with pytest.raises(site.module.Error):
            ask(ours, "select 1")


def fall_silent(bank: Bank, hole: FaultProxy) -> None:
    """Leases expire whose calls have fallen into a black hole."""
    site = bank.site
    heard, begun, silent = Watcher(), Latch(), Latch()
    options = {"max_lease": LIMIT, "connect_timeout": site.shortest_connect, "check_timeout": LIMIT}
    begun.open()

    def fall_in():
        with pool.checkout() as connection:
            start = time.monotonic()
            ask(connection, "select 1")
            begun()
            silent()
            with pytest.raises(site.module.Error):
                ask(connection, site.nap)
            return time.monotonic() - start - LIMIT

    with site.pool(hole.port, max_size=SIZE, observers=[heard], **options) as pool:
        falling = [background(fall_in) for _ in range(SIZE)]
        begun.wait_for(SIZE)
        hole.set(mode="blackhole")
        silent.open()
        with Ticker() as ticker:
            overruns = [one.result(SOON) for one in falling]
            heard.wait_for("disconnected", SIZE)
            # the keeper tries to reach the server for those sessions, with the same driver: until it has given up
            patience = time.monotonic() + site.shortest_connect
            while time.monotonic() < patience:
                with pytest.raises((PoolTimeout, ConnectFailed)):
                    pool.checkout(timeout=0.1)
        assert (pool.stats().expired, pool.stats().in_use) == (SIZE, 0)
        note("a borrower", max(overruns))
        note("a thread", ticker.longest)
        hole.cut()  # or the naps that it has swallowed would begin now
        hole.set(mode="pass")
        assert_nothing_lost(bank, pool)


@HOW_OFTEN
def test_leases_in_a_black_hole_end_in_time_and_hold_up_no_thread(bank_or_tls, proxy, most):
    best_of(lambda: fall_silent(bank_or_tls, proxy(bank_or_tls.site.server.port)), most=most)


def test_a_long_query_of_sqlite_is_interrupted(tmp_path):
    heard = Watcher()
    count = "with recursive c(x) as (select 1 union all select x + 1 from c) select count(*) from c"
    with create_pool(f"sqlite:///{tmp_path}/long.db", max_lease=LIMIT, max_size=1, observers=[heard]) as pool:
        for _ in range(3):
            begun = time.monotonic()
            with pytest.raises(sqlite3.OperationalError, match="interrupted"):
                pool.execute(count)
            assert time.monotonic() - begun < LIMIT + AT_ONCE
        pool.execute("create table t (x int)")
        with pytest.raises(LeaseExpired), pool.transaction() as connection:
            connection.execute("insert into t values (1)")
            heard.wait_for("expired", 4)
        assert pool.execute("select * from t") == []
        assert pool.stats().expired == 4


def test_an_sqlite_connection_is_never_closed_under_a_thread_that_uses_it(tmp_path):
    """Measured on Python 3.10 to 3.13: a segmentation fault."""
    with create_pool(f"sqlite:///{tmp_path}/busy.db", max_lease=0.02, max_size=SIZE) as pool:

        def work():
            for _ in range(5):
                lease = pool.checkout()
                connection = lease.connection
                while not lease.expired:
                    try:
                        connection.execute("select 1").fetchall()
                    except sqlite3.OperationalError:
                        break  # interrupted
                for _ in range(200):
                    try:
                        connection.execute("select 1").fetchall()
                    except sqlite3.OperationalError:
                        pass
                connection.close()
                lease.checkin()

        for one in [background(work) for _ in range(SIZE)]:
            one.result(SOON)
        with leak_reported_elsewhere(r"test_deadlines\.py", 20):
            for _ in range(20):
                escaped = pool.checkout().connection  # its lease is lost at once, and the keeper hears of it
                for _ in range(100):
                    escaped.execute("select 1").fetchall()
                escaped.close()
        assert pool.execute("select 1") == [(1,)]


def test_a_psycopg_connection_is_never_closed_under_a_thread_that_uses_it(postgres):
    """Measured with psycopg 3.3 on libpq 18: a segmentation fault."""
    psycopg = pytest.importorskip("psycopg")
    url = postgres.url.replace("postgresql:", "postgresql+psycopg:") + "?application_name=taken"
    sessions = "select pid from pg_stat_activity where application_name = 'taken'"
    with create_pool(url, max_lease=0.02, max_size=SIZE) as pool:

        def work():
            for _ in range(15):
                lease = pool.checkout()
                connection = lease.connection
                with pytest.raises(psycopg.Error):
                    while True:
                        connection.execute("select 1, repeat('x', 100000)").fetchall()
                assert lease.expired
                lease.checkin()

        for one in [background(work) for _ in range(SIZE)]:
            one.result(SOON)
        assert pool.execute("select 1") == [(1,)]
        assert pool.stats().expired == 15 * SIZE
        eventually(lambda: len(pool.execute(sessions)) == pool.stats().total, "what was taken away is closed")


# --- Reports ----------------------------------------------------------------------------------------------------------


def test_a_holder_that_says_nothing_is_reported_and_one_that_talks_is_not(bank):
    site, events = bank.site, []
    heard = Watcher()
    with site.pool(max_size=SIZE, inactive_after=0.7, leak_after=0.2, observers=[events.append, heard]) as pool:
        with pool.checkout() as silent, pool.checkout() as talking:
            assert silent is not talking
            until = time.monotonic() + SOON
            while not heard.seen["inactive"]:
                ask(talking, "select 1")
                assert time.monotonic() < until
            more = time.monotonic() + 0.8  # it is said once
            while time.monotonic() < more:
                ask(talking, "select 1")
        said = [(event.kind, event.detail) for event in events if event.kind in ("inactive", "leak")]
        assert sorted(kind for kind, _ in said) == ["inactive", "leak", "leak"]
        assert all("MainThread" in detail and "test_deadlines.py:" in detail for _, detail in said)
        assert_nothing_lost(bank, pool)


# --- Deaths -----------------------------------------------------------------------------------------------------------


def test_a_transaction_dropped_with_its_lease_ends_at_the_server_though_nobody_comes(bank):
    with bank.site.pool(max_size=SIZE) as pool:
        lease = pool.checkout()
        ask(lease.connection, "update account set balance = 0 where id = 1")
        # InnoDB renews its list of transactions when nobody has asked for it for a tenth of a second
        eventually(lambda: time.sleep(0.15) or list(bank.site.sessions().values()) == [True], "it is in a transaction")
        dropped = time.monotonic()
        with leak_reported_elsewhere(r"test_deadlines\.py"):
            del lease
            eventually(lambda: not bank.site.sessions(), "the session is closed")
        assert time.monotonic() - dropped < AT_ONCE
        assert_nothing_lost(bank, pool)
