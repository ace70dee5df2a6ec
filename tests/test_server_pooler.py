"""Does everything work behind a transaction-mode pooler that can, and is the rest refused before it does harm?

A real PgBouncer with five server sessions stands between; what is lent here are its clients' connections.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import random
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.drivers import ask
from tests.faults.bank import Bank, Load, Site, eventually
from tests.servers import PgBouncer, Postgres
from threadpool_db import LeaseExpired, Pool, PoolConfig, PoolError, PoolMisuse, create_pool
from threadpool_db.checkout.permitted import behind_pooler
from threadpool_db.core.statement import Judgement, judge
from threadpool_db.lease import entry_of
from threadpool_db.testing import ScriptedDriver

psycopg2 = pytest.importorskip("psycopg2")
psycopg = pytest.importorskip("psycopg")

POLICIES = ["operation", "thread"]
THREADS, SIZE, SESSIONS = 64, 16, 5


class PooledSite(Site):
    """The bank's site as it is behind PgBouncer; its superuser goes straight to the server."""

    def __init__(self, pgbouncer: PgBouncer, driver: str = "psycopg2") -> None:
        super().__init__(pgbouncer.postgres, tls=False)
        self.pgbouncer, self.driver = pgbouncer, driver
        self.error: type[Exception] = (psycopg if driver == "psycopg" else psycopg2).Error

    def url(self, port: int | None = None) -> str:
        return super().url(port or self.pgbouncer.port).replace("://", f"+{self.driver}://", 1)

    def pool(self, port: int | None = None, **options: Any) -> Any:
        return create_pool(self.url(port), **{"server_pooler": True} | options)

    def server_sessions(self) -> int:
        place = {"host": self.pgbouncer.host, "port": self.pgbouncer.port}
        with closing(psycopg2.connect(user="postgres", dbname="pgbouncer", **place)) as console:
            console.autocommit = True
            return len(ask(console, "show servers"))


class Requests(Bank):
    """Each operation is a request of its own, with a scope around it."""

    def operate(self, pool: Any, dice: random.Random) -> None:
        with pool.scope():
            super().operate(pool, dice)


@pytest.fixture(scope="module")
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    require(PgBouncer)
    with PgBouncer(postgres, default_pool_size=SESSIONS) as server:
        yield server


@pytest.fixture(params=["psycopg2", "psycopg"])
def site(request: pytest.FixtureRequest, pgbouncer: PgBouncer, caplog: Any) -> PooledSite:
    caplog.set_level(logging.CRITICAL, "threadpool_db")
    return PooledSite(pgbouncer, request.param)


@pytest.fixture
def bank(site: PooledSite) -> Iterator[Requests]:
    yield Requests(site)
    site.command("drop table account", "drop table receipt")


# The bank -------------------------------------------------------------------------------------------------------------


def assert_all_is_well(bank: Bank, pool: Pool) -> None:
    eventually(lambda: pool.stats().in_use == 0, "nobody holds a connection")
    stats = pool.stats()
    assert (stats.waiting, stats.counts.opening, stats.counts.closing, stats.lost) == (0, 0, 0, 0)
    assert stats.idle == stats.total == stats.opened - stats.closures <= SIZE
    bank.assert_balanced()


def run_the_bank(bank: Requests, policy: str, operations: int) -> None:
    with bank.site.pool(max_size=SIZE, checkout=policy, timeout=30) as pool:
        with Load(bank, pool, THREADS) as load:
            load.go_on(operations)
        assert load.failures == []
        assert pool.stats().opened == SIZE
        assert bank.site.server_sessions() == SESSIONS
        assert_all_is_well(bank, pool)
    assert len(bank.confirmed) > operations / 3


@pytest.mark.parametrize("policy", POLICIES)
def test_the_whole_bank_runs_through_pgbouncer_without_an_error(bank, policy):
    run_the_bank(bank, policy, 1500)


@pytest.mark.proof
@pytest.mark.timeout(300)
@pytest.mark.parametrize("policy", POLICIES)
def test_the_whole_bank_runs_through_pgbouncer_for_long_without_an_error(bank, policy):
    for _ in range(10):
        run_the_bank(bank, policy, 5000)
        bank.confirmed.clear()


@pytest.mark.parametrize("policy", POLICIES)
def test_a_restart_of_the_pooler_fails_what_was_in_flight_and_heals(bank, policy):
    site = bank.site
    with site.pool(max_size=SIZE, checkout=policy, timeout=30) as pool:
        with Load(bank, pool, THREADS) as load:
            site.pgbouncer.kill(signal.SIGKILL)
            site.pgbouncer.restart()
            load.go_on(300)
        errors = [deed.error for deed in load.failures]
        assert len(errors) <= THREADS
        assert not any(isinstance(error, PoolError) for error in errors)
        assert_all_is_well(bank, pool)


@pytest.mark.parametrize("policy", POLICIES)
def test_server_sessions_that_are_killed_behind_the_pooler_fail_only_what_they_were_doing(bank, policy):
    site = bank.site
    with site.pool(max_size=SIZE, checkout=policy, timeout=30) as pool:
        with Load(bank, pool, THREADS) as load:
            site.command(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where backend_type = 'client backend' and pid <> pg_backend_pid()"
            )
            load.go_on(300)
        assert len(load.failures) <= SESSIONS
        assert not any(isinstance(deed.error, PoolError) for deed in load.failures)
        assert_all_is_well(bank, pool)


def test_a_restart_of_the_pooler_while_the_pool_is_idle_is_seen_by_the_local_look(site):
    with site.pool(max_size=4) as pool:
        leases = [pool.checkout() for _ in range(4)]
        for lease in leases:
            lease.checkin()
        site.pgbouncer.restart(signal.SIGKILL)
        for _ in range(12):
            assert pool.execute("select 1") == [(1,)]
        assert pool.stats().dead >= 1


# What is refused ------------------------------------------------------------------------------------------------------

LEAVES = [
    ("set search_path to elsewhere", "SET search_path", "SET LOCAL"),
    ("set session timezone to 'UTC'", "SET timezone", "SET LOCAL"),
    ("select set_config('search_path', 'elsewhere', false)", "SET_CONFIG", "SET LOCAL"),
    ("create temp table mine (n int)", "CREATE TEMP", "straight to the server"),
    ("select pg_try_advisory_lock(1)", "PG_TRY_ADVISORY_LOCK", "pg_advisory_xact_lock"),
    ("prepare mine as select 1", "PREPARE", "straight to the server"),
    ("listen mine", "LISTEN", "straight to the server"),
    ("declare mine cursor with hold for select 1", "DECLARE WITH HOLD", "straight to the server"),
    ("discard all", "DISCARD", "straight to the server"),
    ("do $$begin execute 'select 1'; end$$", "DO", "through a cursor"),
    ("frobnicate", "FROBNICATE", "through a cursor"),
]


def places(pool: Pool) -> Iterator[tuple[str, Any]]:
    yield "alone", contextless()
    yield "scope", pool.scope()
    yield "connection", pool.connection()
    yield "transaction", pool.transaction()
    yield "lease", pool.lease()


class contextless:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


@pytest.mark.parametrize("policy", POLICIES)
def test_what_would_stay_in_the_session_is_refused_everywhere_with_a_reason_and_a_remedy(site, policy):
    with site.pool(checkout=policy) as pool:
        for sql, name, remedy in LEAVES:
            for place, around in places(pool):
                with around, pytest.raises(PoolMisuse) as caught:
                    pool.execute(sql)
                message = str(caught.value)
                assert name in message and "server_pooler=True" in message and remedy in message, (place, message)
                pool.release()
        assert pool.stats().in_use == 0


def test_a_statement_that_is_refused_never_reaches_the_server(site):
    with site.pool(max_size=1) as pool:
        with pool.transaction():
            with pytest.raises(PoolMisuse):
                pool.execute("set search_path to elsewhere")
            assert pool.execute("show search_path") == [('"$user", public',)]


def test_a_question_to_the_session_is_answered_inside_its_transaction_alone(site):
    site.command(
        "drop sequence if exists tickets", "create sequence tickets", "grant all on sequence tickets to public"
    )
    with site.pool() as pool:
        for place, around in places(pool):
            with around:
                if place == "transaction":
                    ((ticket,),) = pool.execute("select nextval('tickets')")
                    assert pool.execute("select lastval()") == [(ticket,)]
                else:
                    pool.execute("select nextval('tickets')")
                    if place == "connection":
                        pool.execute("commit")
                    with pytest.raises(PoolMisuse, match=r"LASTVAL.*server_pooler=True.*transaction\(\)"):
                        pool.execute("select lastval()")
            pool.release()
        pool.execute("begin")
        ((ticket,),) = pool.execute("select nextval('tickets')")
        assert pool.execute("select lastval()") == [(ticket,)]
        pool.execute("commit")
        with pool.transaction():
            pool.execute("select nextval('tickets')")
            pool.execute("commit")
            with pytest.raises(PoolMisuse, match="LASTVAL"):  # the block goes on, the transaction does not
                pool.execute("select lastval()")
    site.command("drop sequence tickets")


def test_what_ends_with_its_transaction_is_welcome(site):
    with site.pool() as pool:
        with pool.transaction():
            pool.execute("set transaction isolation level serializable")
            pool.execute("set local search_path to elsewhere")
            pool.execute("select set_config('TimeZone', 'Asia/Tokyo', true), pg_advisory_xact_lock(1)")
            pool.execute("declare mine cursor for select generate_series(1, 9)")
            assert pool.execute("fetch 2 from mine") == [(1,), (2,)]
            assert pool.execute("show search_path") == [("elsewhere",)]
            assert pool.execute("show transaction_isolation") == [("serializable",)]
        for _ in range(SESSIONS):
            assert pool.execute("show search_path") == [('"$user", public',)]


def test_named_cursors_work_inside_a_transaction(site):
    # psycopg2 does not take a BEGIN in autocommit, such as that of transaction(), for one
    with site.pool() as pool, pool.connection() as connection:
        with connection.cursor(name="mine") as cursor:
            cursor.execute("select generate_series(1, 500)")
            assert [row[0] for row in itertools.islice(cursor, 3)] == [1, 2, 3]


def test_where_the_first_connection_shows_the_driver_the_first_statement_is_judged_all_the_same(site):
    def connect() -> Any:
        module = psycopg if site.driver == "psycopg" else psycopg2
        return module.connect(host="127.0.0.1", port=site.pgbouncer.port, user="postgres", dbname="postgres")

    with create_pool(connect, server_pooler=True) as pool:
        with pytest.raises(PoolMisuse, match="SET LOCAL"):
            pool.execute("set search_path to elsewhere")
        with pool.transaction():
            pool.execute("set local search_path to elsewhere")
    with create_pool(connect) as pool:  # MySQL's SET LOCAL would stay, and the connection be closed for that
        pool.execute("set local search_path to elsewhere")
        assert pool.stats().closures == 0


@pytest.mark.parametrize("autocommit", [None, True, False])
def test_every_autocommit_works(site, autocommit):
    site.command("drop table if exists kept", "create table kept (n int)", "grant all on kept to public")
    with site.pool(autocommit=autocommit) as pool:
        pool.execute("insert into kept values (1)")
        with pool.transaction():
            pool.execute("insert into kept values (2)")
        with pool.connection() as connection:
            ask(connection, "insert into kept values (3)")
            connection.commit()
    assert site.command("select count(*) from kept") == [(3,)]
    site.command("drop table kept")


def test_only_a_driver_that_cannot_tell_takes_the_block_for_the_transaction():
    driver = ScriptedDriver()
    driver.dialect, driver.has_autocommit = "postgresql", False
    with Pool(driver, server_pooler=True) as pool:
        for around in (pool.scope(), pool.connection()):
            with around, pytest.raises(PoolMisuse, match="LASTVAL"):
                pool.execute("select lastval()")
        with pool.transaction(), pytest.raises(AttributeError):  # it gets as far as a cursor, which there is none of
            pool.execute("select lastval()")


def test_the_remedy_is_one_that_the_database_has():
    clean = Judgement()
    assert behind_pooler(clean, "postgresql", False) == behind_pooler(clean, "mysql", True) == ""
    dirty = judge("set time_zone = '+01:00'", "mysql")
    assert "SET STATEMENT" in behind_pooler(dirty, "mysql", True) and "SET LOCAL" not in behind_pooler(
        dirty, "mysql", True
    )
    assert "at the server" in behind_pooler(Judgement(dirty=True, why="SET x"), "", True)


def test_on_mariadb_the_same_is_refused(mariadb):
    pytest.importorskip("pymysql")
    with create_pool(mariadb.url, server_pooler=True) as pool:
        for sql in (
            "set sql_mode = ''",
            "select get_lock('mine', 0)",
            "set @a = 1",
            "create temporary table t (n int)",
        ):
            with pool.transaction(), pytest.raises(PoolMisuse, match="server_pooler=True"):
                pool.execute(sql)
        with pool.scope(), pytest.raises(PoolMisuse, match="LAST_INSERT_ID"):
            pool.execute("select last_insert_id()")
        with pool.transaction():
            pool.execute("select 1")
            assert len(pool.execute("select last_insert_id()")) == 1
            assert pool.execute("set statement max_statement_time = 9 for select 1") == [(1,)]


# What is not done -----------------------------------------------------------------------------------------------------


def test_a_connection_with_a_leftover_is_closed_not_reset_and_people_are_told(site):
    events: list[Any] = []
    with site.pool(observers=[events.append]) as pool:
        driver = pool._upkeep.driver
        driver.reset = lambda connection: pytest.fail("reset")
        with pool.checkout() as connection:
            ask(connection, "select 1")
            next(iter(pool._ledger.entries)).reset_first = True
        assert pool.stats().closures == 1 and pool.stats().total == 0
        (told,) = [event for event in events if event.kind == "leftover"]
        assert Path(__file__).name in told.detail and "SET LOCAL" in told.detail


def test_sessions_have_no_name_by_which_a_strangers_could_be_ended(site):
    for pooler in (True, False):
        with site.pool(server_pooler=pooler) as pool, pool.connection():
            assert (entry_of(pool._hold().lease).session is None) is pooler


def test_an_overdue_statement_is_cut_without_a_side_connection(site):
    with site.pool(max_size=1, max_lease=0.2) as pool:
        pool._upkeep.limits.end_session = lambda *session: pytest.fail("a session was ended by name")
        with pytest.raises((site.error, LeaseExpired)):
            pool.execute("select pg_sleep(20)")
        assert pool.execute("select 1") == [(1,)]
        assert pool.stats().expired == 1


# psycopg's names ------------------------------------------------------------------------------------------------------


@pytest.fixture
def by_psycopg(pgbouncer: PgBouncer) -> PooledSite:
    return PooledSite(pgbouncer, "psycopg")


def threshold_of(source: Any, **options: Any) -> Any:
    with create_pool(source, server_pooler=True, **options) as pool, pool.connection() as connection:
        return connection.prepare_threshold


def test_psycopg_prepares_nothing_unless_it_was_asked_to(by_psycopg):
    url = by_psycopg.url()
    dsn = f"host=127.0.0.1 port={by_psycopg.pgbouncer.port} user=postgres dbname=postgres"
    assert threshold_of(url) is None
    assert threshold_of(f"{url}&prepare_threshold=5") == 5
    assert threshold_of(url, configure=lambda parameters: parameters | {"prepare_threshold": 5}) == 5
    assert threshold_of(lambda: psycopg.connect(dsn)) is None
    assert threshold_of(lambda: psycopg.connect(dsn, prepare_threshold=0)) == 0
    with create_pool(url) as pool, pool.connection() as connection:
        assert connection.prepare_threshold == 5


# PgBouncer's own errors -----------------------------------------------------------------------------------------------

OWN_ERRORS = {
    "query_timeout": lambda pool: pool.execute("select pg_sleep(20)"),
    "idle_transaction_timeout": lambda pool: idle_in_a_transaction(pool),
    "query_wait_timeout": lambda pool: wait_for_a_session(pool),
}


def idle_in_a_transaction(pool: Pool) -> None:
    with pool.transaction() as connection:
        ask(connection, "select 1")
        lease = pool._hold().lease
        eventually(lambda: not pool._upkeep.driver.peek(entry_of(lease).connection), "the pooler hangs up")
        ask(connection, "select 2")


def wait_for_a_session(pool: Pool) -> None:
    with pool.transaction() as connection:
        ask(connection, "select 1")
        with pool.checkout() as other:
            ask(other, "select 2")


@pytest.mark.parametrize("setting", OWN_ERRORS)
def test_after_an_error_of_the_poolers_own_the_connection_is_not_lent_again(site, setting):
    settings = {"default_pool_size": 1, setting: 0.3}
    with PgBouncer(site.pgbouncer.postgres, **settings) as pgbouncer:
        with PooledSite(pgbouncer, site.driver).pool(max_size=2) as pool:
            driver = pool._upkeep.driver
            seen: list[bool] = []
            judge_error = driver.is_disconnect
            driver.is_disconnect = lambda error, connection: seen.append(judge_error(error, connection)) or seen[-1]
            with pytest.raises(site.error):
                OWN_ERRORS[setting](pool)
            assert True in seen
            assert pool.stats().closures >= 1
            for _ in range(3):
                assert pool.execute("select 1") == [(1,)]


# Options --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Later(PoolConfig):
    """With the options that would have to hold for a session."""

    isolation: str | None = None
    read_only: bool | None = None
    init_sql: tuple[str, ...] = ()
    reset: str = "auto"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"isolation": "serializable"}, r"isolation='serializable': not with server_pooler=True.*SET TRANSACTION"),
        ({"read_only": False}, r"read_only=False: not with server_pooler=True.*SET TRANSACTION"),
        ({"init_sql": ("set role 'secret'",)}, r"init_sql=\.\.\.: not with server_pooler=True.*SET LOCAL"),
        ({"reset": "always"}, "reset='always': not with server_pooler=True"),
    ],
)
def test_what_would_be_set_once_for_a_connection_is_refused(options, words):
    with pytest.raises(ValueError, match=words) as caught:
        Later(server_pooler=True, **options)
    assert "secret" not in str(caught.value)
    Later(server_pooler=True)


def test_server_pooler_is_on_or_off():
    with pytest.raises(ValueError, match="server_pooler='pgbouncer': must be one of True, False"):
        PoolConfig(server_pooler="pgbouncer")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u:secret@h/d?options=-csearch_path%3Dx", "option options.*server_pooler=True.*ALTER ROLE"),
        ("postgresql+psycopg://u:secret@h/d?options=-csearch_path%3Dx", "option options.*server_pooler=True"),
        ("mysql://u:secret@h/d?init_command=set+@a%3D1", "option init_command.*server_pooler=True.*configuration"),
        ("mysql://u:secret@h/d?sql_mode=ANSI", "option sql_mode.*server_pooler=True"),
        ("sqlite:///secret.db", "server_pooler=True: SQLite has no server"),
    ],
)
def test_parameters_that_need_a_session_are_refused(url, words):
    for _ in range(2):  # no name is left taken by the pool that was not made
        with pytest.raises(ValueError, match=words) as caught:
            create_pool(url, server_pooler=True, name="refused")
        assert "secret" not in str(caught.value)
    create_pool(url, name="refused").close()


def test_sqlite_from_a_callable_is_refused_by_its_first_connection(tmp_path):
    import sqlite3

    with create_pool(lambda: sqlite3.connect(tmp_path / "bank.db"), server_pooler=True) as pool:
        for _ in range(2):
            with pytest.raises(PoolMisuse, match="SQLite has no server"):
                pool.execute("select 1", timeout=1)
            assert pool.stats().idle == 0
