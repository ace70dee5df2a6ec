"""Does ThreadPool leave out what says nothing new, and only that? On real servers, with each round trip counted."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest
import sqlalchemy
from sqlalchemy import event, exc, text
from sqlalchemy.pool import QueuePool

from tests.ext.conftest import Questions, sessions, until, waiting
from tests.scene import SOON, background, put_at_hand
from tests.servers import MariaDB, Postgres
from threadpool_db.drivers.base import OPEN
from threadpool_db.drivers.sockets import Socket, poll_socket
from threadpool_db.ext.sqlalchemy import ThreadPool
from threadpool_db.ext.sqlalchemy.thrift import Thrift

MakeEngine = Callable[..., Any]


@dataclass
class Site:
    """A server, and how its driver is spoken to."""

    url: sqlalchemy.URL
    session: str  # which session of yours is this?
    kill: str  # end that one
    read_lock: str  # of one row, or an error at once
    proxy: Questions | None = None

    def through(self, questions: Callable[[int], Questions]) -> Site:
        assert self.url.port is not None
        proxy = questions(self.url.port)
        return Site(self.url.set(port=proxy.port), self.session, self.kill, self.read_lock, proxy)

    def asked(self, action: Callable[[], object]) -> int:
        """Round trips."""
        assert self.proxy is not None
        before = self.proxy.asked
        action()
        return self.proxy.asked - before


def descriptor(connection: Any) -> int:
    number: int = getattr(connection, "_sock", connection).fileno()
    return number


@pytest.fixture(params=["psycopg2", "psycopg", "pymysql"])
def site(request: pytest.FixtureRequest) -> Site:
    if request.param != "pymysql":
        url = postgresql(request.getfixturevalue("postgres"), request.param)
        return Site(url, "select pg_backend_pid()", "select pg_terminate_backend({})", "for update nowait")
    url = sqlalchemy.make_url(request.getfixturevalue("mariadb").url).set(drivername="mysql+pymysql")
    return Site(url, "select connection_id()", "kill {}", "for update nowait")


def postgresql(server: Postgres, driver: str) -> sqlalchemy.URL:
    return sqlalchemy.make_url(server.url).set(drivername=f"postgresql+{driver}")


@pytest.fixture
def counted(site: Site, questions: Callable[[int], Questions]) -> Site:
    return site.through(questions)


@pytest.fixture
def table(site: Site) -> Any:
    """With one row, and the engine of somebody else."""
    engine = sqlalchemy.create_engine(site.url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.execute(text("drop table if exists threadpool_db_thrift"))
        connection.execute(text("create table threadpool_db_thrift (n int)"))
        connection.execute(text("insert into threadpool_db_thrift values (1)"))
    yield engine
    with engine.begin() as connection:
        connection.execute(text("drop table threadpool_db_thrift"))


INSERT, COUNT = "insert into threadpool_db_thrift values (2)", "select count(*) from threadpool_db_thrift"


def rows(engine: Any) -> int:
    with engine.connect() as connection:
        count: int = connection.scalar(text(COUNT))
        return count


def lend(engine: Any) -> None:
    engine.connect().close()


def insert(engine: Any) -> None:
    with engine.begin() as connection:
        connection.execute(text(INSERT))


def warm(engine: Any) -> None:
    """What only the first connection costs, and PyMySQL's first rollback, is over."""
    lend(engine)
    lend(engine)


def later(engine: Any, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """So much silence."""
    inner = engine.pool._inner
    now = inner._now
    for name in ("_now", "_at_hand"):
        monkeypatch.setattr(inner, name, getattr(inner, name))  # for the end
    put_at_hand(inner, now=lambda: now() + seconds)


class TestDead:
    """A session that its server has ended while it lay in the pool."""

    def kill_idle(self, engine: Any, site: Site, other: Any) -> int:
        with engine.connect() as connection:
            session: int = connection.scalar(text(site.session))
            number = descriptor(connection.connection.dbapi_connection)
        with other.connect() as connection:
            connection.exec_driver_sql(site.kill.format(session))
        until(lambda: poll_socket(number) is Socket.GONE)
        return session

    @pytest.mark.parametrize("pre_ping", [False, True])
    def test_is_replaced_before_anybody_sees_an_error(
        self, site: Site, table: Any, engine_for: MakeEngine, pre_ping: bool
    ) -> None:
        engine = engine_for(site.url, pool_size=1, max_overflow=0, pool_pre_ping=pre_ping)
        killed = self.kill_idle(engine, site, table)
        with engine.connect() as connection:
            assert connection.scalar(text(site.session)) != killed

    def test_is_told_to_listeners_as_after_a_ping_that_failed(
        self, site: Site, table: Any, engine_for: MakeEngine
    ) -> None:
        def heard(**options: Any) -> list[str]:
            told: list[str] = []
            engine = engine_for(site.url, pool_size=1, max_overflow=0, **options)
            self.kill_idle(engine, site, table)
            for name in ("connect", "checkout", "close", "checkin", "reset"):
                event.listen(engine, name, lambda *arguments, name=name: told.append(name))

            @event.listens_for(engine, "invalidate")
            def invalidate(connection: Any, record: Any, error: Any) -> None:
                told.append(f"invalidate {isinstance(error, exc.DisconnectionError)}")

            lend(engine)
            return told

        theirs = heard(poolclass=QueuePool, pool_pre_ping=True)
        assert heard() == heard(pool_pre_ping=True) == theirs
        assert theirs == ["invalidate True", "close", "connect", "checkout", "reset", "checkin"]

    def test_costs_no_place_if_a_listener_raises(self, site: Site, table: Any, engine_for: MakeEngine) -> None:
        engine = engine_for(site.url, pool_size=1, max_overflow=0, pool_timeout=0)
        killed = self.kill_idle(engine, site, table)
        fails = [True]

        @event.listens_for(engine, "invalidate")
        def invalidate(*arguments: Any) -> None:
            if fails.pop():
                fails.append(False)
                raise RuntimeError("a listener's")

        with pytest.raises(RuntimeError, match="a listener's"):
            engine.connect()
        assert engine.pool.checkedout() == 0
        with engine.connect() as connection:
            assert connection.scalar(text(site.session)) != killed


class TestPing:
    def test_of_a_connection_used_a_moment_ago_sends_no_byte(self, counted: Site, engine_for: MakeEngine) -> None:
        engine = engine_for(counted.url, pool_pre_ping=True)
        warm(engine)
        assert counted.proxy is not None
        before = counted.proxy.traffic
        for _ in range(20):
            lend(engine)
        assert counted.proxy.traffic == before

    def test_is_sent_once_after_long_silence(
        self, counted: Site, engine_for: MakeEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = engine_for(counted.url, pool_pre_ping=True, ping_after=5)
        warm(engine)
        later(engine, monkeypatch, 4.9)
        assert counted.asked(lambda: lend(engine)) == 0
        later(engine, monkeypatch, 5.0)
        assert [counted.asked(lambda: lend(engine)) for _ in range(2)] == [1, 0]

    def test_without_pre_ping_is_never_sent(
        self, counted: Site, engine_for: MakeEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = engine_for(counted.url)
        warm(engine)
        later(engine, monkeypatch, 1e6)
        assert counted.asked(lambda: lend(engine)) == 0

    def test_is_always_sent_with_ping_after_0(self, counted: Site, engine_for: MakeEngine) -> None:
        engine = engine_for(counted.url, pool_pre_ping=True, ping_after=0)
        warm(engine)
        assert [counted.asked(lambda: lend(engine)) for _ in range(3)] == [1, 1, 1]

    def test_is_then_sent_to_one_that_was_handed_over_too(self, counted: Site, engine_for: MakeEngine) -> None:
        engine = engine_for(counted.url, pool_size=1, max_overflow=0, pool_pre_ping=True, ping_after=0)
        warm(engine)
        held = engine.connect()

        def hand_over() -> None:
            next_one = background(engine.connect)
            waiting(engine.pool, 1)
            held.close()
            next_one.result(SOON).close()

        assert counted.asked(hand_over) == 1

    def test_is_always_sent_to_a_driver_that_is_not_known(
        self, mariadb: MariaDB, questions: Callable[[int], Questions], engine_for: MakeEngine
    ) -> None:
        """And each rollback too."""

        class Foreign:
            def __init__(self, connection: Any) -> None:
                self.connection = connection

            def __getattr__(self, name: str) -> Any:
                return getattr(self.connection, name)

        proxy = questions(mariadb.port)

        def connect() -> Any:
            return Foreign(pymysql.connect(host=proxy.host, port=proxy.port, user="root", database="test"))

        engine = engine_for("mysql+pymysql://", creator=connect, pool_pre_ping=True)
        warm(engine)
        costs = []
        for _ in range(3):
            before = proxy.asked
            lend(engine)
            costs.append(proxy.asked - before)
        assert costs == [2, 2, 2]


class TestRoundTrips:
    def test_are_those_of_the_app_alone(self, counted: Site, table: Any, engine_for: MakeEngine) -> None:
        engine = engine_for(counted.url, pool_pre_ping=True)
        warm(engine)
        postgres = counted.url.drivername.startswith("postgresql")
        assert counted.asked(lambda: insert(engine)) == (3 if postgres else 2)  # PostgreSQL's clients say BEGIN
        assert counted.asked(lambda: lend(engine)) == 0
        assert rows(table) == 2

    def test_are_more_with_queuepool(self, counted: Site, table: Any, engine_for: MakeEngine) -> None:
        """Or there would be nothing to leave out, and the counting would be wrong."""
        engine = engine_for(counted.url, poolclass=QueuePool, pool_pre_ping=True)
        warm(engine)
        postgres = counted.url.drivername.startswith("postgresql")
        assert counted.asked(lambda: insert(engine)) == 4
        assert counted.asked(lambda: lend(engine)) == (1 if postgres else 2)

    def test_a_dialect_is_initialised_once_for_all_connections_and_pools(
        self, counted: Site, engine_for: MakeEngine
    ) -> None:
        def connects(**options: Any) -> list[int]:
            engine = engine_for(counted.url, **options)
            lent = []
            costs = [counted.asked(lambda: lent.append(engine.connect())) for _ in range(2)]
            for connection in lent:
                connection.close()
            old = engine.pool
            engine.dispose(close=False)  # a goodbye now would be counted at some time or other
            costs.append(counted.asked(lambda: lent.append(engine.raw_connection())))
            asked = counted.proxy.asked
            old.dispose()  # two goodbyes, which are not to be counted as questions of the next engine
            until(lambda: counted.proxy.asked == asked + 2)
            return costs

        first, second, recreated = ours = connects()
        assert first > second == recreated
        assert ours == connects(poolclass=QueuePool)


class TestRollback:
    """Left out where nothing is open; never where something is."""

    def test_ends_a_select_for_update_that_nobody_committed(
        self, site: Site, table: Any, engine_for: MakeEngine
    ) -> None:
        engine = engine_for(site.url, pool_size=1, max_overflow=0)
        warm(engine)
        with engine.begin() as connection:  # the last word of the server was "no transaction"
            connection.execute(text("select 1"))
        raw = engine.raw_connection()
        raw.cursor().execute("select n from threadpool_db_thrift for update")
        with table.connect() as other:
            want = text(f"select n from threadpool_db_thrift {site.read_lock}")
            with pytest.raises(exc.OperationalError):
                other.execute(want)
            other.rollback()
            raw.close()
            assert other.scalar(want) == 1

    @pytest.mark.parametrize("end", ["commit", "rollback", None])
    def test_reset_on_return_means_what_it_says(
        self, site: Site, table: Any, engine_for: MakeEngine, end: str | None
    ) -> None:
        engine = engine_for(site.url, pool_size=1, max_overflow=0, pool_reset_on_return=end)
        raw = engine.raw_connection()
        raw.cursor().execute(INSERT)
        raw.close()
        assert rows(table) == (2 if end == "commit" else 1)
        with engine.connect() as connection:
            assert connection.scalar(text(COUNT)) == (1 if end == "rollback" else 2)
            connection.rollback()

    def test_listeners_to_reset_hear_what_queuepools_hear(self, site: Site, table: Any, engine_for: MakeEngine) -> None:
        def heard(**options: Any) -> list[Any]:
            told: list[Any] = []
            engine = engine_for(site.url, **options)
            event.listen(engine, "reset", lambda connection, record, state: told.append(state))
            lend(engine)
            rows(engine)
            insert(engine)
            raw = engine.raw_connection()
            raw.detach()
            raw.close()
            return told

        assert heard() == heard(poolclass=QueuePool)
        assert [state.transaction_was_reset for state in heard()] == [False, True, False, False]

    def test_a_session_that_died_in_its_transaction_is_replaced(
        self, site: Site, table: Any, engine_for: MakeEngine
    ) -> None:
        engine = engine_for(site.url, pool_size=1, max_overflow=0)
        raw: Any = engine.raw_connection()
        cursor = raw.cursor()
        cursor.execute(site.session)
        (session,) = cursor.fetchone()
        cursor.execute(INSERT)
        number = descriptor(raw.dbapi_connection)
        with table.connect() as other:
            other.exec_driver_sql(site.kill.format(session))
        until(lambda: poll_socket(number) is Socket.GONE)
        raw.close()
        assert sessions(engine, site.session, 1) != [session]
        assert rows(table) == 1


def by_option(engine: Any) -> Any:
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def by_engine(engine: Any) -> Any:
    return engine.connect()


def begin_by_hand(connection: Any, table: str) -> None:
    connection.exec_driver_sql("BEGIN")
    connection.exec_driver_sql(f"insert into {table} values (2)")


class TestBeginByHand:
    """In autocommit, where the driver's own rollback() may do nothing to it."""

    @pytest.mark.parametrize("everywhere", [False, True])
    def test_is_rolled_back_at_the_end_of_a_connection(
        self, site: Site, table: Any, engine_for: MakeEngine, everywhere: bool
    ) -> None:
        options = {"isolation_level": "AUTOCOMMIT"} if everywhere else {}
        engine = engine_for(site.url, pool_size=1, max_overflow=0, **options)
        connection = by_engine(engine) if everywhere else by_option(engine)
        begin_by_hand(connection, "threadpool_db_thrift")
        connection.close()
        with engine.connect() as again:
            assert again.scalar(text(COUNT)) == 1
            again.execute(text(INSERT))
            again.commit()
        assert rows(table) == 2

    def test_is_rolled_back_at_the_end_of_a_raw_connection(
        self, site: Site, table: Any, engine_for: MakeEngine
    ) -> None:
        engine = engine_for(site.url, pool_size=1, max_overflow=0, isolation_level="AUTOCOMMIT")
        raw = engine.raw_connection()
        cursor = raw.cursor()
        cursor.execute("BEGIN")
        cursor.execute(INSERT)
        raw.close()
        assert rows(engine) == 1

    def test_stays_open_if_the_pool_is_told_not_to_reset(self, site: Site, table: Any, engine_for: MakeEngine) -> None:
        engine = engine_for(
            site.url, pool_size=1, max_overflow=0, isolation_level="AUTOCOMMIT", pool_reset_on_return=None
        )
        raw = engine.raw_connection()
        raw.cursor().execute("BEGIN")
        raw.cursor().execute(INSERT)
        raw.close()
        assert rows(table) == 1
        raw = engine.raw_connection()
        raw.cursor().execute("COMMIT")
        raw.close()
        assert rows(table) == 2

    @pytest.mark.parametrize("everywhere", [False, True])
    def test_is_rolled_back_on_sqlite_too(self, engine_for: MakeEngine, tmp_path: Path, everywhere: bool) -> None:
        options = {"isolation_level": "AUTOCOMMIT"} if everywhere else {}
        engine = engine_for(f"sqlite:///{tmp_path}/db", pool_size=1, max_overflow=0, **options)
        self.leave_one_on(engine, by_engine if everywhere else by_option)

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has no autocommit=True")
    def test_is_rolled_back_in_python_3_12s_autocommit(self, engine_for: MakeEngine, tmp_path: Path) -> None:
        connect = {"autocommit": True}
        engine = engine_for(f"sqlite:///{tmp_path}/db", pool_size=1, max_overflow=0, connect_args=connect)
        self.leave_one_on(engine, by_engine)

    def leave_one_on(self, engine: Any, borrow: Callable[[Any], Any]) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("create table t (n int)")
        connection = borrow(engine)
        begin_by_hand(connection, "t")
        connection.close()
        raw: Any = engine.raw_connection()
        assert isinstance(raw.dbapi_connection, sqlite3.Connection) and not raw.dbapi_connection.in_transaction
        assert raw.cursor().execute("select count(*) from t").fetchone() == (0,)

    def test_whose_rollback_fails_costs_the_connection_and_no_error(
        self, postgres: Any, engine_for: MakeEngine
    ) -> None:
        url = sqlalchemy.make_url(postgres.url).set(drivername="postgresql+psycopg2")
        engine = engine_for(url, pool_size=1, max_overflow=0, isolation_level="AUTOCOMMIT")
        connection = engine.connect()
        connection.exec_driver_sql("BEGIN")
        session = connection.scalar(text("select pg_backend_pid()"))
        with sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool).connect() as other:
            assert other.scalar(text("select pg_terminate_backend(:pid, 10000)"), {"pid": session})
        connection.close()
        assert isinstance(engine.pool, ThreadPool) and engine.pool.checkedout() == 0
        assert sessions(engine, "select pg_backend_pid()", 1) != [session]


class TestInTheMiddle:
    """Of a statement, when it comes back: a rollback would wait, or be queued, and the next borrower be in it too."""

    @pytest.fixture
    def engine(self, postgres: Postgres, engine_for: MakeEngine) -> Any:
        return engine_for(postgresql(postgres, "psycopg"), pool_size=1, max_overflow=0, pool_timeout=5)

    def assert_next_is_another(self, engine: Any, closed: Any) -> None:
        assert closed.closed and engine.pool.checkedout() == 0
        with engine.connect() as connection:
            assert connection.scalar(text("select 1")) == 1
            assert connection.connection.driver_connection is not closed

    def test_of_a_pipeline_that_nobody_left_it_is_closed(self, engine: Any) -> None:
        raw = engine.raw_connection()
        connection = raw.driver_connection
        pipeline = connection.pipeline()
        pipeline.__enter__()
        connection.execute("select 1")
        raw.close()
        self.assert_next_is_another(engine, connection)

    def test_of_a_pipeline_that_the_engine_rolled_back_it_is_closed(self, engine: Any) -> None:
        """SQLAlchemy then leaves out the pool's rollback."""
        borrowed = engine.connect()
        assert borrowed.scalar(text("select 1")) == 1
        connection = borrowed.connection.driver_connection
        pipeline = connection.pipeline()
        pipeline.__enter__()
        borrowed.close()
        self.assert_next_is_another(engine, connection)

    @pytest.mark.parametrize("detached", [False, True])
    def test_of_notifications_that_somebody_still_reads_it_is_closed_and_nobody_waits(
        self, engine: Any, detached: bool
    ) -> None:
        raw = engine.raw_connection()
        connection = raw.driver_connection
        connection.autocommit = True
        connection.execute("listen news")
        connection.execute("notify news")
        reading = connection.notifies(timeout=SOON)
        next(reading)
        if detached:
            raw.detach()
        background(raw.close).result(SOON)
        self.assert_next_is_another(engine, connection)

    def test_of_rows_that_pymysql_reads_one_by_one_it_reads_the_rest_and_is_lent_again(
        self, mariadb: MariaDB, engine_for: MakeEngine
    ) -> None:
        url = sqlalchemy.make_url(mariadb.url).set(drivername="mysql+pymysql")
        engine = engine_for(url, pool_size=1, max_overflow=0)
        raw = engine.raw_connection()
        connection = raw.driver_connection
        cursor = raw.driver_connection.cursor(pymysql.cursors.SSCursor)
        cursor.execute("select seq from seq_1_to_100")
        assert cursor.fetchone() == (1,)
        with pytest.warns(UserWarning, match="Previous unbuffered result was left incomplete"):
            raw.close()
        with engine.connect() as again:
            assert again.scalar(text("select 2")) == 2
            assert again.connection.driver_connection is connection


def test_a_rollback_after_which_it_is_still_open_is_an_error() -> None:
    """So SQLAlchemy closes it."""

    class Stubborn:
        def settled(self, *arguments: Any) -> bool:
            return False

        def state(self, connection: Any) -> Any:
            return OPEN

        def rollback(self, connection: Any) -> None: ...

    class Dialect:
        is_async = False

        def do_rollback(self, fairy: Any) -> None: ...

    class Fairy:
        dbapi_connection = None
        is_detached = False

    with pytest.raises(exc.InvalidRequestError, match="still in a transaction"):
        Thrift(Dialect(), Stubborn()).do_rollback(Fairy())  # type: ignore[arg-type]
