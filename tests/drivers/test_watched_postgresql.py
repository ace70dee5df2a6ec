"""Is what a borrower of a raw connection leaves in its PostgreSQL session heard by both drivers, and then gone?"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import psycopg
import psycopg.rows
import psycopg2
import psycopg2.extensions
import psycopg2.extras
import psycopg2.sql
import pytest

from tests.servers import FaultProxy, Postgres
from threadpool_db import Pool, create_pool

DRIVERS = ["psycopg2", "psycopg"]
DIRT = "set search_path = elsewhere"
Open = Callable[..., Pool]


def url_of(server: Postgres, driver: str, port: int = 0) -> str:
    return server.url.replace(":", f"+{driver}:", 1).replace(str(server.port), str(port or server.port))


@pytest.fixture(params=DRIVERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opener(postgres: Postgres) -> Iterator[Open]:
    pools: list[Pool] = []

    def open_pool(driver: str, **options: Any) -> Pool:
        pools.append(create_pool(url_of(postgres, driver), max_size=1, **options))
        return pools[-1]

    yield open_pool
    for pool in pools:
        pool.close()


@pytest.fixture
def pool(opener: Open, name: str) -> Pool:
    return opener(name)


@pytest.fixture
def two(opener: Open) -> Pool:
    return opener("psycopg2")


@pytest.fixture
def three(opener: Open) -> Pool:
    return opener("psycopg")


def dirtied(pool: Pool, use: Callable[[Any], object]) -> bool:
    """Borrow, use, commit; was it known to leave something? It is gone for the next borrower, in the same session."""
    with pool.connection() as connection:
        pid = connection.info.backend_pid
        use(connection)
        connection.commit()
        heard = pool._upkeep.driver.dirtied(connection)
        assert heard is not pool._upkeep.settled(connection, False)
    with pool.connection() as connection:
        assert connection.info.backend_pid == pid
        assert not pool._upkeep.driver.dirtied(connection)
        assert state(connection) == (0, "", 0, 0, 0, 0)
    return heard


def state(connection: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(
            "select (select count(*) from pg_settings where source = 'session' and name = 'search_path'), "
            "coalesce(current_setting('my.v', true), ''), (select count(*) from pg_listening_channels()), "
            "(select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'), "
            "(select count(*) from pg_prepared_statements where from_sql) "
            "+ (select count(*) from pg_cursors where is_holdable), "
            "(select count(*) from pg_class where relnamespace = pg_my_temp_schema())"
        )
        return tuple(cursor.fetchone())


def through(make: Callable[[Any], Any], method: str, *args: Any, **options: Any) -> Callable[[Any], None]:
    def use(connection: Any) -> None:
        with make(connection) as cursor:
            getattr(cursor, method)(*args, **options)

    return use


def plain(connection: Any) -> Any:
    return connection.cursor()


@pytest.mark.parametrize(
    "sql",
    [
        DIRT,
        b"set search_path = elsewhere",
        "select set_config('my.v', 'x', false)",
        "create temp table tt (a int)",
        "select pg_advisory_lock(7)",
        "listen news",
        "prepare p as select 1",
        "declare c cursor with hold for select 1",
        "select 1; set search_path = elsewhere",
    ],
)
def test_what_a_raw_cursor_leaves_is_gone_for_the_next_borrower(pool: Pool, sql: Any) -> None:
    assert dirtied(pool, through(plain, "execute", sql))


@pytest.mark.parametrize(
    "sql", ["select 1", b"select 1", "set local search_path = elsewhere", "create table if not exists w (a int)"]
)
def test_what_leaves_nothing_causes_no_reset(pool: Pool, sql: Any) -> None:
    assert not dirtied(pool, through(plain, "execute", sql))


@pytest.mark.parametrize("borrow", ["connection", "transaction", "checkout", "lease"])
def test_however_it_was_borrowed(pool: Pool, borrow: str) -> None:
    if borrow == "lease":
        pool.lease().connection.cursor().execute(DIRT)
        pool.lease().connection.commit()
        assert pool.execute("show search_path") == [("elsewhere",)]  # its own
        pool.release()
    else:
        with getattr(pool, borrow)() as connection:
            connection.cursor().execute(DIRT)
            if borrow != "transaction":
                connection.commit()
    assert pool.execute("show search_path") == [('"$user", public',)]
    assert pool.stats().opened == 1


@pytest.fixture
def secret_settings(postgres: Postgres) -> Iterator[None]:
    with closing(psycopg2.connect(postgres.url)) as admin, admin.cursor() as cursor:
        admin.autocommit = True
        cursor.execute(
            "create function to_tokyo(local boolean) returns text language sql as "
            "$$ select set_config('TimeZone', 'Asia/Tokyo', local) $$"
        )
        yield
        cursor.execute("drop function to_tokyo")


TELLING_FUNCTION: dict[str, Callable[[Any], object]] = {
    "in a select": lambda connection: connection.cursor().execute("select to_tokyo(false)"),
    "in a write": lambda connection: connection.cursor().execute("create table told as select to_tokyo(false) as a"),
    "in a block": lambda connection: connection.cursor().execute("do $$ begin perform to_tokyo(false); end $$"),
    "with a value": lambda connection: connection.cursor().execute("select to_tokyo(%s)", (False,)),
    "as bytes": lambda connection: connection.cursor().execute(b"select to_tokyo(false)"),
    "of many": lambda connection: connection.cursor().executemany("select to_tokyo(%s)", [(False,), (False,)]),
}


@pytest.mark.parametrize("how", TELLING_FUNCTION)
@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.usefixtures("secret_settings")
def test_a_setting_that_a_function_changes_is_known_by_the_servers_report(
    opener: Open, name: str, autocommit: bool, how: str
) -> None:
    pool = opener(name, autocommit=autocommit)
    with pool.connection() as connection:
        made = connection.info.parameter_status("TimeZone"), connection.info.backend_pid
        TELLING_FUNCTION[how](connection)
        if how == "in a write":
            connection.cursor().execute("drop table told")
        if not autocommit:
            connection.commit()
        assert connection.info.parameter_status("TimeZone") == "Asia/Tokyo"
        assert not pool._upkeep.settled(connection, autocommit) and pool._upkeep.driver.dirtied(connection)
    with pool.connection() as connection:
        assert (connection.info.parameter_status("TimeZone"), connection.info.backend_pid) == made
        assert pool._upkeep.settled(connection, autocommit)


@pytest.mark.usefixtures("secret_settings")
def test_what_is_put_back_on_our_side_does_not_hide_what_a_function_has_set(three: Pool) -> None:
    lease = three.checkout()
    lease.connection.row_factory = psycopg.rows.dict_row
    lease.connection.execute("select to_tokyo(false)")
    lease.connection.commit()
    lease.connection.execute("select 1")  # begins another one, which is rolled back first
    lease.checkin()
    with three.connection() as connection:
        assert connection.info.parameter_status("TimeZone") != "Asia/Tokyo"


@pytest.mark.usefixtures("secret_settings")
def test_a_function_that_leaves_nothing_causes_no_reset(
    postgres: Postgres, name: str, proxy: Callable[[int], FaultProxy]
) -> None:
    via = proxy(postgres.port)
    with create_pool(url_of(postgres, name, via.port), max_size=1, autocommit=True) as pool:
        with pool.connection() as connection:
            connection.cursor().execute("select to_tokyo(true)")
            assert pool._upkeep.settled(connection, True) and not pool._upkeep.driver.dirtied(connection)
            assert connection.left == 0, "looked at once"
        with pool.connection() as connection:
            connection.autocommit = False
            connection.cursor().execute("select to_tokyo(false)")
            connection.rollback()  # which takes it back, and the server says so
            connection.autocommit = True
            assert pool._upkeep.settled(connection, True)
            before = via.traffic.to_server
        assert via.traffic.to_server == before


def test_who_calls_nothing_unknown_is_asked_nothing(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    driver: Any = pool._upkeep.driver
    with pool.connection() as connection:
        monkeypatch.setattr(driver, "reported", lambda connection: pytest.fail("looked"))
        connection.cursor().execute("select now(), count(*) from pg_class where oid in (1, 2)")
        connection.cursor().execute("set local timezone = 'Asia/Tokyo'")
        connection.commit()
        assert pool._upkeep.settled(connection, False)


def test_what_a_reset_does_not_undo_costs_the_connection(opener: Open, name: str) -> None:
    pool = opener(name)
    with pool.connection() as connection:
        pid = connection.info.backend_pid
        connection.cursor().execute("select setseed(0.5)")
        connection.commit()
    with pool.connection() as connection:
        assert connection.info.backend_pid != pid
        cursor = connection.cursor()
        cursor.execute("select random()")
        assert cursor.fetchone()[0] != pytest.approx(0.985167717)


def test_a_connection_of_dblink_is_not_there_for_the_next_borrower(postgres: Postgres, opener: Open, name: str) -> None:
    pool = opener(name, autocommit=True)
    with pool.connection() as connection:
        connection.cursor().execute("create extension dblink")
        to = f"host=127.0.0.1 port={postgres.port} user=postgres dbname=postgres"
        connection.cursor().execute("select dblink_connect('x', %s)", (to,))
    with pool.connection() as connection:
        cursor = connection.cursor()
        cursor.execute("select dblink_get_connections()")
        assert cursor.fetchone()[0] is None
        cursor.execute("drop extension dblink")


def test_what_a_thread_keeps_keeps_its_state_until_the_scope_ends(opener: Open, name: str) -> None:
    pool = opener(name, checkout="thread")
    with pool.scope():
        pool.execute("select 1")
        with pool.connection() as connection:
            connection.cursor().execute(DIRT)
            connection.commit()
        assert pool.execute("show search_path") == [("elsewhere",)]
        with pool.transaction():
            assert pool.execute("show search_path") == [("elsewhere",)]
        assert pool.execute("show search_path") == [("elsewhere",)]
    assert pool.execute("show search_path") == [('"$user", public',)]


def test_a_kept_session_with_something_in_it_is_not_silently_replaced_when_it_dies(opener: Open, name: str) -> None:
    pool, other = opener(name, checkout="thread"), opener(name)
    pool.execute("select 1")
    with pool.connection() as connection:
        connection.cursor().execute(DIRT)
        connection.commit()
        pid = connection.info.backend_pid
    other.execute("select pg_terminate_backend(%s, 5000)", (pid,))
    with pytest.raises((psycopg2.OperationalError, psycopg.OperationalError)):
        pool.execute("show search_path")
    assert pool.execute("show search_path") == [('"$user", public',)]


def test_a_set_that_was_rolled_back_counts_as_dirty_and_harms_nobody(pool: Pool) -> None:
    def use(connection: Any) -> None:
        connection.cursor().execute(DIRT)
        connection.rollback()

    assert dirtied(pool, use)


def test_the_mark_is_there_before_the_answer(pool: Pool) -> None:
    """Whoever is interrupted while he waits for the answer has sent the statement all the same."""
    with pool.connection() as connection:
        with pytest.raises(Exception, match="division"):
            connection.cursor().execute("set search_path = elsewhere; select 1/0")
        assert pool._upkeep.driver.dirtied(connection)


def test_plain_use_costs_not_one_more_byte(postgres: Postgres, name: str, proxy: Callable[[int], FaultProxy]) -> None:
    gate = proxy(postgres.port)

    def bytes_of(borrow: Callable[[], Any]) -> int:
        sent = 0
        for _ in range(3):
            before = gate.traffic.to_server
            with borrow() as connection:
                with connection.cursor() as cursor:
                    cursor.execute("select 1")
                connection.commit()
            sent = gate.traffic.to_server - before
        return sent

    module: Any = psycopg2 if name == "psycopg2" else psycopg
    bare = module.connect(url_of(postgres, name, gate.port).replace(f"+{name}", ""))
    with closing(bare), create_pool(url_of(postgres, name, gate.port), max_size=1) as pool:
        assert bytes_of(pool.connection) == bytes_of(lambda: _Block(bare))
        with pool.connection() as connection:
            connection.cursor().execute(DIRT)
        before = gate.traffic.to_server
        with pool.connection():
            pass
        assert gate.traffic.to_server == before  # cleaned when it came back, not when it is lent


class _Block:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __enter__(self) -> Any:
        return self._connection

    def __exit__(self, *error: object) -> None:
        pass


def test_the_pools_own_statements_leave_no_mark(pool: Pool) -> None:
    with pool.connection() as connection:
        driver = pool._upkeep.driver
        driver.ping(connection)
        assert driver._drain(connection)  # type: ignore[attr-defined]
        assert driver.settled(connection, False)
        driver.set_autocommit(connection, True)
        driver.begin(connection)
        driver.rollback(connection)
        driver._run(connection, DIRT)  # type: ignore[attr-defined]
        assert not driver.dirtied(connection)
        driver._run(connection, "reset search_path")  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", ["default", "factory"])
def test_a_connection_of_a_callable_is_closed_instead_and_only_then(postgres: Postgres, name: str, way: str) -> None:
    module: Any = psycopg2 if name == "psycopg2" else psycopg
    kind: Any = psycopg2.extras.RealDictCursor if name == "psycopg2" else psycopg.ClientCursor
    options = {"cursor_factory": kind} if way == "factory" else {}
    with create_pool(lambda: module.connect(postgres.url, **options), max_size=1) as pool:
        for number in (1, 1):
            with pool.connection() as connection, connection.cursor() as cursor:
                assert isinstance(
                    cursor, kind if options else module.extensions.cursor if name == "psycopg2" else psycopg.Cursor
                )
                cursor.execute("select 1 as one")
            assert pool.stats().opened == number
        with pool.connection() as connection:
            connection.cursor().execute(DIRT)
            connection.commit()
        assert pool.stats().total == 0
        assert [*pool.execute("show search_path")[0]] in ([('"$user", public')], ["search_path"])


def test_under_sqlalchemy_nobody_listens(postgres: Postgres, name: str) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from threadpool_db.ext.sqlalchemy import ThreadPool

    engine = sqlalchemy.create_engine(url_of(postgres, name), poolclass=ThreadPool)
    try:
        for expected in ('"$user", public', "elsewhere"):  # its user's business, as in QueuePool
            with engine.connect() as connection:
                raw = connection.connection.dbapi_connection
                assert not hasattr(raw.cursor_factory, "heard") and not hasattr(raw, "left")
                assert connection.exec_driver_sql("show search_path").scalar() == expected
                connection.exec_driver_sql(DIRT)
                connection.commit()
                assert engine.pool._driver.settled(raw, False)
                assert not engine.pool._driver.dirtied(raw)
    finally:
        engine.dispose()


class Bare2(psycopg2.extensions.cursor):
    """Calls its base by name, as psycopg2's own manual does."""

    def execute(self, query: Any, vars: Any = None) -> None:
        psycopg2.extensions.cursor.execute(self, query, vars)

    executemany: Any = lambda self, query, vars_list: psycopg2.extensions.cursor.executemany(self, query, vars_list)


class Rewriting2(psycopg2.extensions.cursor):
    def execute(self, query: Any, vars: Any = None) -> None:
        super().execute(f"{DIRT}; {query}", vars)


class Bare3(psycopg.Cursor[Any]):
    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        return psycopg.Cursor.execute(self, query, params, **options)


class Rewriting3(psycopg.ClientCursor[Any]):
    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        return super().execute(f"{DIRT}; {query}", params, **options)


class Final(psycopg2.extensions.cursor):
    def __init_subclass__(cls) -> None:
        raise TypeError("nobody may")


class Final3(psycopg.Cursor[Any]):
    def __init_subclass__(cls) -> None:
        raise TypeError("nobody may")


def of(kind: Any) -> Callable[[Any], Any]:
    return lambda connection: connection.cursor(cursor_factory=kind)


class TestPsycopg2:
    @pytest.mark.parametrize(
        "use",
        [
            through(
                plain, "execute", psycopg2.sql.SQL("set {} = elsewhere").format(psycopg2.sql.Identifier("search_path"))
            ),
            through(plain, "executemany", "select set_config('my.v', %s, false)", [("x",), ("y",)]),
            through(plain, "callproc", "set_config", ("my.v", "x", False)),
            through(plain, "callproc", b"pg_advisory_lock", (7,)),
            through(plain, "copy_expert", "copy (select set_config('my.v', 'x', false)) to stdout", io.StringIO()),
            through(lambda c: c.cursor("mine", withhold=True), "execute", "select 1"),
            through(lambda c: c.cursor("mine", None, True), "execute", b"select 1"),
            through(of(psycopg2.extensions.cursor), "execute", DIRT),
            through(of(psycopg2.extras.DictCursor), "execute", DIRT),
            through(of(psycopg2.extras.RealDictCursor), "callproc", "pg_advisory_lock", (7,)),
            through(of(psycopg2.extras.NamedTupleCursor), "executemany", DIRT + " -- %s", [(1,)]),
            through(lambda c: c.cursor(None, psycopg2.extras.DictCursor), "execute", DIRT),
            through(of(Bare2), "execute", DIRT),
            through(of(Bare2), "executemany", DIRT + " -- %s", [(1,)]),
            through(of(Rewriting2), "execute", "select 1"),
            through(of(Final), "execute", "select 1"),
            through(of(lambda *args, **options: psycopg2.extras.DictCursor(*args, **options)), "execute", "select 1"),
            lambda c: c.set_session(readonly=True),
            lambda c: c.set_isolation_level(psycopg2.extensions.ISOLATION_LEVEL_SERIALIZABLE),
            lambda c: setattr(c, "isolation_level", "SERIALIZABLE"),
            lambda c: setattr(c, "readonly", True),
            lambda c: setattr(c, "deferrable", True),
            lambda c: c.set_client_encoding("LATIN1"),
            lambda c: c.reset(),
        ],
    )
    def test_is_dirty(self, two: Pool, use: Callable[[Any], Any]) -> None:
        assert dirtied(two, use)
        with two.connection() as connection:
            assert connection.isolation_level is connection.readonly is connection.deferrable is None
            assert connection.encoding == "UTF8"

    @pytest.mark.parametrize(
        "use",
        [
            through(plain, "executemany", "select %s", [(1,), (2,)]),
            through(plain, "callproc", "now"),
            through(plain, "mogrify", DIRT),
            through(plain, "copy_expert", b"copy (select 1) to stdout", io.StringIO()),
            through(lambda c: c.cursor("mine"), "execute", "select 1"),
            through(of(psycopg2.extras.RealDictCursor), "execute", "select 1"),
            through(of(Bare2), "execute", "select 1"),
            lambda c: c.set_session(autocommit=False),
            lambda c: c.set_client_encoding("UTF8"),
            lambda c: psycopg2.extras.execute_values(c.cursor(), "select * from (values %s) v", [(1,), (2,)]),
            lambda c: psycopg2.extras.execute_batch(c.cursor(), "select %s", [(1,), (2,)]),
            lambda c: psycopg2.extras.register_json(c),
        ],
    )
    def test_is_clean(self, two: Pool, use: Callable[[Any], Any]) -> None:
        assert not dirtied(two, use)

    def test_the_old_word_for_autocommit_is_no_dirt(self, two: Pool) -> None:
        with two.connection() as connection:
            connection.set_isolation_level(0)
            assert not two._upkeep.driver.dirtied(connection)

    def test_what_a_value_that_is_no_statement_raises_is_psycopg2s_own(self, two: Pool) -> None:
        with two.connection() as connection, connection.cursor() as cursor:
            for value in (None, 7, bytearray(b"select 1")):
                with pytest.raises((TypeError, psycopg2.ProgrammingError)) as ours:
                    cursor.execute(value)
                with pytest.raises(type(ours.value), match=re.escape(str(ours.value))):
                    psycopg2.extensions.cursor(connection).execute(value)

    def test_its_extras_work_as_before(self, two: Pool) -> None:
        extras = psycopg2.extras
        with two.connection() as connection:
            for kind, expected in [
                (extras.DictCursor, 1),
                (extras.RealDictCursor, {"one": 1}),
                (extras.NamedTupleCursor, (1,)),
            ]:
                with connection.cursor(cursor_factory=kind) as cursor:
                    assert isinstance(cursor, kind) and type(cursor).__name__ == kind.__name__
                    cursor.execute("select 1 as one")
                    row = cursor.fetchone()
                    assert (row["one"] if kind is extras.DictCursor else row) == expected
                with connection.cursor("named", cursor_factory=kind) as cursor:
                    cursor.execute("select 1 as one")
                    assert len(list(cursor)) == 1

    @pytest.mark.parametrize("parameter", ["connection_factory", "cursor_factory"])
    def test_a_factory_among_the_parameters_stays_in_force_and_is_heard(self, opener: Open, parameter: str) -> None:
        extras = psycopg2.extras
        factory = {"connection_factory": extras.RealDictConnection, "cursor_factory": extras.RealDictCursor}[parameter]
        pool = opener("psycopg2", configure=lambda given: given | {parameter: factory})
        for _ in range(2):
            with pool.connection() as connection:
                assert isinstance(connection, (extras.RealDictConnection, psycopg2.extensions.connection))
                with connection.cursor() as cursor:
                    cursor.execute("select 1 as one")
                    assert cursor.fetchone() == {"one": 1}
                assert not pool._upkeep.driver.dirtied(connection)
                with connection.cursor() as cursor:
                    cursor.execute(DIRT)
                assert pool._upkeep.driver.dirtied(connection)
                connection.commit()
        assert pool.execute("show search_path")[0]["search_path"] == '"$user", public'
        assert pool.stats().opened == 1

    def test_cursors_that_cannot_be_heard_count_as_dirty_each_time(self, opener: Open) -> None:
        pool = opener("psycopg2", configure=lambda given: given | {"cursor_factory": Final})
        for _ in range(2):
            with pool.connection() as connection:
                assert type(connection.cursor()) is Final
                assert pool._upkeep.driver.dirtied(connection)
        assert pool.stats().opened == 1

    def test_a_factory_that_a_borrower_set_is_heard_and_put_back_without_a_reset(
        self, postgres: Postgres, proxy: Callable[[int], FaultProxy]
    ) -> None:
        gate = proxy(postgres.port)
        with create_pool(url_of(postgres, "psycopg2", gate.port), max_size=1) as pool:
            with pool.connection() as connection:
                before = gate.traffic.to_server
                connection.cursor_factory = psycopg2.extras.DictCursor
                assert isinstance(connection.cursor(), psycopg2.extras.DictCursor)
            with pool.connection() as connection:
                assert not isinstance(connection.cursor(), psycopg2.extras.DictCursor)
                assert gate.traffic.to_server == before and pool._upkeep.settled(connection, False)
                made = connection.cursor_factory
                connection.cursor_factory = psycopg2.extras.DictCursor
                connection.cursor().execute(DIRT)
                connection.commit()
                connection.cursor_factory = made
            with pool.connection() as connection:
                connection.cursor_factory = psycopg2.extras.DictCursor
                connection.cursor_factory = None
                assert not pool._upkeep.driver.dirtied(connection)
                assert not isinstance(connection.cursor(), psycopg2.extras.DictCursor)
            assert pool.execute("show search_path") == [('"$user", public',)]
            assert pool.stats().opened == 1

    def test_of_a_callables_connection_a_changed_factory_counts_as_dirty(self, postgres: Postgres) -> None:
        with create_pool(lambda: psycopg2.connect(postgres.url), max_size=1) as pool:
            with pool.connection() as connection:
                connection.cursor_factory = psycopg2.extras.DictCursor
            assert pool.stats().total == 0

    def test_a_logging_connection_that_logs_nowhere_yet_is_left_alone(self, opener: Open) -> None:
        log = io.StringIO()
        pool = opener(
            "psycopg2", configure=lambda given: given | {"connection_factory": psycopg2.extras.LoggingConnection}
        )
        with pool.connection() as connection:
            connection.initialize(log)
            connection.cursor().execute(DIRT)
            assert pool._upkeep.driver.dirtied(connection)
        assert DIRT in log.getvalue()


def by(factory: str, kind: Any) -> Callable[[Any], None]:
    def use(connection: Any) -> None:
        setattr(connection, factory, kind)
        with connection.cursor(*(["mine"] if factory == "server_cursor_factory" else [])) as cursor:
            cursor.execute("select 1")

    return use


class TestPsycopg:
    @pytest.mark.parametrize(
        "use",
        [
            lambda c: c.execute(DIRT),
            lambda c: c.execute(psycopg.sql.SQL("set {} = elsewhere").format(psycopg.sql.Identifier("search_path"))),
            through(plain, "executemany", "select set_config('my.v', %s, false)", [("x",), ("y",)]),
            lambda c: list(c.cursor().stream("select set_config('my.v', 'x', false)")),
            lambda c: _copied(c, "copy (select set_config('my.v', 'x', false)) to stdout"),
            through(lambda c: c.cursor("mine", withhold=True), "execute", "select 1"),
            through(lambda c: c.cursor("mine"), "execute", "select set_config('my.v', 'x', false)"),
            through(psycopg.ClientCursor, "execute", "select 1"),  # made from its class: foreign
            through(partial(psycopg.ServerCursor, name="mine"), "execute", "select 1"),
            lambda c: _piped(c, DIRT),
            by("cursor_factory", Rewriting3),
            by("cursor_factory", lambda *args, **options: psycopg.Cursor(*args, **options)),
        ],
    )
    def test_is_dirty(self, three: Pool, use: Callable[[Any], Any]) -> None:
        assert dirtied(three, use)

    @pytest.mark.parametrize(
        "use",
        [
            lambda c: c.execute("select %s", (1,), binary=True),
            through(plain, "executemany", "select %s", [(1,), (2,)], returning=True),
            lambda c: list(c.cursor().stream("select 1")),
            lambda c: _copied(c, b"copy (select 1) to stdout"),
            through(lambda c: c.cursor("mine"), "execute", "select 1"),
            lambda c: _piped(c, "select 1"),
            lambda c: psycopg.sql.SQL("select {}").format(1).as_string(c),
        ],
    )
    def test_is_clean(self, three: Pool, use: Callable[[Any], Any]) -> None:
        assert not dirtied(three, use)

    def test_what_was_set_on_our_side_of_the_socket_is_put_back_without_a_reset(
        self, postgres: Postgres, proxy: Callable[[int], FaultProxy]
    ) -> None:
        gate = proxy(postgres.port)
        with create_pool(url_of(postgres, "psycopg", gate.port), max_size=1) as pool:
            with pool.connection() as connection:
                before = gate.traffic.to_server
                connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
                connection.read_only = connection.deferrable = True
                connection.row_factory = psycopg.rows.dict_row
                connection.cursor_factory = psycopg.ClientCursor
                connection.server_cursor_factory = psycopg.RawServerCursor
                connection.prepare_threshold, connection.prepared_max = None, 7
                connection.add_notice_handler(print)
                connection.add_notify_handler(print)
                assert not pool._upkeep.driver.dirtied(connection)
                assert not pool._upkeep.settled(connection, False)
                assert isinstance(connection.cursor(), psycopg.ClientCursor)
            with pool.connection() as connection:
                assert (connection.isolation_level, connection.read_only, connection.deferrable) == (None, None, None)
                assert connection.row_factory is psycopg.rows.tuple_row
                assert not isinstance(connection.cursor(), psycopg.ClientCursor)
                assert not issubclass(connection.server_cursor_factory, psycopg.RawServerCursor)
                assert (connection.prepare_threshold, connection.prepared_max) == (5, 100)
                assert connection._notice_handlers == connection._notify_handlers == []
            assert gate.traffic.to_server == before

    def test_each_setter_and_handler_is_noticed_by_itself(self, three: Pool) -> None:
        setters: list[Callable[[Any], Any]] = [
            lambda c: c.add_notice_handler(print),
            lambda c: c.add_notify_handler(print),
            lambda c: c.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE),
            lambda c: c.set_read_only(True),
            lambda c: c.set_deferrable(True),
        ]
        for use in setters:
            with three.connection() as connection:
                assert type(connection).heard is psycopg.Connection
                assert three._upkeep.settled(connection, False)
                use(connection)
                assert not three._upkeep.settled(connection, False)
                assert not three._upkeep.driver.dirtied(connection)

    def test_cursors_that_cannot_be_heard_count_as_dirty_each_time(self, opener: Open) -> None:
        pool = opener("psycopg", configure=lambda given: given | {"cursor_factory": Final3})
        for _ in range(2):
            with pool.connection() as connection:
                assert connection.cursor_factory is Final3
                assert pool._upkeep.driver.dirtied(connection)
        assert pool.stats().opened == 1

    @pytest.mark.parametrize("kind", [psycopg.ClientCursor, psycopg.RawCursor, Bare3])
    def test_a_factory_of_another_class_is_heard(self, three: Pool, kind: Any) -> None:
        for sql, expected in (("select 1", False), (DIRT, True)):

            def use(connection: Any, sql: str = sql) -> None:
                connection.cursor_factory = kind
                assert isinstance(connection.cursor(), kind) and type(connection.cursor()).__name__ == kind.__name__
                connection.execute(sql)

            with three.connection() as connection:
                use(connection)
                assert three._upkeep.driver.dirtied(connection) is expected

    def test_settings_and_marks_of_a_callables_connection_are_known_too(self, postgres: Postgres) -> None:
        class Mine(psycopg.Connection[Any]):
            pass

        def connect() -> Any:
            connection = Mine.connect(postgres.url, row_factory=psycopg.rows.dict_row)
            connection.add_notice_handler(print)
            connection.execute(DIRT)  # part of how it was made
            connection.commit()
            return connection

        with create_pool(connect, max_size=1) as pool:
            with pool.connection() as connection:
                assert isinstance(connection, Mine)
                connection.row_factory = psycopg.rows.tuple_row
            with pool.connection() as connection:
                assert connection.row_factory is psycopg.rows.dict_row
                assert connection._notice_handlers == [print]
                assert pool.stats().opened == 1
                psycopg.ClientCursor(connection).execute("select 1")
            assert pool.stats().total == 0


def _copied(connection: Any, sql: Any) -> None:
    with connection.cursor().copy(sql) as copy:
        list(copy)


def _piped(connection: Any, sql: str) -> None:
    with connection.pipeline():
        connection.execute(sql)
