"""Does the next borrower of a raw SQLite connection find anything of the one before?

What cannot be wiped closes the connection, what is only an attribute is put back, and all else costs nothing.
"""

from __future__ import annotations

import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.drivers import ask, opened
from threadpool_db import Pool, create_pool
from threadpool_db.drivers.choose import driver_for
from threadpool_db.drivers.sqlite import Sqlite
from threadpool_db.drivers.watched_sqlite import watched

Saying = Callable[[Any], object]


@pytest.fixture
def url(tmp_path: Path) -> str:
    with opened(driver_for(f"sqlite:///{tmp_path}/test.db")) as connection:
        ask(connection, "create table t (a int, b text)")
    return f"sqlite:///{tmp_path}/test.db?pragma.foreign_keys=on&pragma.busy_timeout=77"


@pytest.fixture
def pool(url: str) -> Iterator[Pool]:
    with create_pool(url, max_size=1, min_size=1) as pool:
        yield pool


def say(sql: str) -> Saying:
    return lambda connection: ask(connection, sql)


def attempt(action: Saying) -> Saying:
    """Some builds of Python or SQLite do not know it, others refuse it."""

    def attempting(connection: Any) -> None:
        try:
            action(connection)
        except (sqlite3.Error, AttributeError):
            pass

    return attempting


DIRT: dict[str, Saying] = {
    "attach": say("attach ':memory:' as other"),
    "a temporary table": say("create temp table tt (a int)"),
    "a temporary table by its schema": say("create table temp.tt (a int)"),
    "a temporary view": say("create temporary view v as select 1"),
    "a temporary trigger": say("create temp trigger r after insert on t begin select 1; end"),
    "a temporary index": lambda c: c.executescript("create temp table tt (a int); create index temp.i on tt (a)"),
    "a pragma": say("pragma foreign_keys = off"),
    "a pragma with brackets": say("pragma cache_size(5)"),
    "a pragma of a schema": say("pragma main.synchronous = 0"),
    "a pragma with a comment": say("/* no harm */ pragma\n /* done */ [query_only] = 1"),
    "a script": lambda connection: connection.executescript("select 1; pragma foreign_keys = off;"),
    "a cursor": lambda connection: connection.cursor().execute("attach ':memory:' as other"),
    "a function": lambda connection: connection.create_function("f", 0, int),
    "an aggregate": lambda connection: connection.create_aggregate("f", 0, list),
    "a collation": lambda connection: connection.create_collation("c", lambda a, b: 0),
    "an authorizer": lambda connection: connection.set_authorizer(lambda *what: 0),
    "a trace": lambda connection: connection.set_trace_callback(len),
    "a progress handler": lambda connection: connection.set_progress_handler(int, 1000),
    "an extension": attempt(say("select load_extension('no_such')")),
}
if sys.version_info >= (3, 11):
    DIRT |= {
        "a limit": lambda connection: connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 9),
        "another database": attempt(lambda connection: connection.deserialize(connection.serialize())),
        "a window function": attempt(lambda connection: connection.create_window_function("f", 0, None)),
    }
if sys.version_info >= (3, 12):
    DIRT |= {
        "another way of transactions": lambda connection: setattr(connection, "autocommit", True),
        "a configuration": lambda connection: connection.setconfig(sqlite3.SQLITE_DBCONFIG_DQS_DML, True),
    }

PUT_BACK: dict[str, Saying] = {
    "row_factory": lambda connection: setattr(connection, "row_factory", sqlite3.Row),
    "text_factory": lambda connection: setattr(connection, "text_factory", bytes),
    "isolation_level": lambda connection: setattr(connection, "isolation_level", "IMMEDIATE"),
}

CLEAN: dict[str, Saying] = {
    "reads": say("select a, b, length(b), count(*) over () from t"),
    "a pragma that reads": say("pragma foreign_keys"),
    "a pragma with an argument that reads": say("pragma table_info(t)"),
    "a pragma as a table": say("select * from pragma_table_info('t')"),
    "a pragma of the file": say("pragma user_version = 5"),
    "writes": lambda c: c.executemany("insert into t values (?, ?)", [(1, "pragma foreign_keys = off"), (2, "attach")]),
    "tables": lambda c: c.executescript(
        "create table u (a); create index i on u (a); create view w as select 1; alter table u rename to x;"
        "alter table x add column b; create trigger r after insert on x begin select 1; end; analyze; reindex;"
        "drop table x; drop view w"
    ),
    "a transaction": lambda c: c.executescript("begin; savepoint a; release a; rollback"),
    "a level": lambda connection: (
        setattr(connection, "isolation_level", None),
        setattr(connection, "isolation_level", ""),
    ),
}


def state(connection: Any) -> Any:
    factories = connection.row_factory, connection.text_factory, connection.isolation_level
    pragmas = [
        connection.execute(f"pragma {name}").fetchone()
        for name in ("foreign_keys", "cache_size", "synchronous", "query_only", "busy_timeout")
    ]
    schemas = [name for _, name, _ in connection.execute("pragma database_list") if name != "temp"]
    return factories, pragmas, schemas, connection.execute("select count(*) from sqlite_temp_master").fetchone()


@pytest.mark.parametrize("what", DIRT)
def test_a_connection_in_which_something_was_left_is_closed(pool: Pool, what: str) -> None:
    with pool.connection() as connection:
        made = state(connection)
    with pool.connection() as again:
        assert again is connection, "looking at it is clean"
        DIRT[what](again)
    with pool.connection() as other:
        assert other is not again and state(other) == made
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        again.execute("select 1")


@pytest.mark.parametrize("what", PUT_BACK)
def test_an_attribute_is_put_back_and_the_connection_kept(pool: Pool, what: str) -> None:
    for _ in range(2):
        with pool.connection() as connection:
            made = state(connection)
            PUT_BACK[what](connection)
        with pool.connection() as again:
            assert again is connection and state(again) == made


@pytest.mark.parametrize("what", PUT_BACK)
def test_once_put_back_it_is_forgotten(url: str, what: str) -> None:
    driver = driver_for(url)
    with opened(driver) as connection:
        driver.watch(connection)
        PUT_BACK[what](connection)
        assert not driver.settled(connection, False)
        driver.put_back(connection)
        assert not driver.dirtied(connection) and driver.settled(connection, False)


def test_nothing_is_kept_of_a_callables_closed_connection(tmp_path: Path) -> None:
    driver = Sqlite(connect=lambda: sqlite3.connect(tmp_path / "x.db"))
    with opened(driver) as connection:
        driver.watch(connection)
        assert driver._marks
    assert not driver._marks


@pytest.mark.parametrize("what", PUT_BACK)
def test_of_a_callables_connection_too(tmp_path: Path, what: str) -> None:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(tmp_path / "x.db", check_same_thread=False)
        connection.row_factory = lambda cursor, row: [*row]  # another one for each connection
        return connection

    with create_pool(connect, max_size=2) as pool:
        with pool.checkout() as first, pool.checkout() as second:
            factories = first.row_factory, second.row_factory
            PUT_BACK[what](first)
        with pool.checkout() as one, pool.checkout() as other:
            assert {one, other} == {first, second}
            assert (first.row_factory, second.row_factory) == factories
            assert first.text_factory is str and first.isolation_level == ""


@pytest.mark.parametrize("what", CLEAN)
def test_what_leaves_nothing_is_clean(url: str, what: str) -> None:
    driver = driver_for(url)
    with opened(driver) as connection:
        driver.watch(connection)
        CLEAN[what](connection)
        connection.rollback()
        assert driver.settled(connection, False) and not driver.dirtied(connection)


def test_the_pools_own_statements_are_clean(url: str) -> None:
    driver = driver_for(f"{url}&isolation_level=IMMEDIATE")
    with opened(driver) as connection:
        driver.watch(connection)
        for mode in (True, False, True, False):
            driver.set_autocommit(connection, mode)
            driver.begin(connection)
            driver.rollback(connection)
            assert driver.ping(connection) and driver.settled(connection, mode)


def test_a_statement_that_is_known_costs_no_look(url: str) -> None:
    driver = driver_for(url)
    with opened(driver) as connection:
        driver.watch(connection)
        looks: list[Any] = []
        connection.mark.theirs = lambda *what: looks.append(what) or 0
        for _ in range(3):
            ask(connection, "select a from t")
        assert len(looks) == 2, "select, and read t.a, once"


class Mine(sqlite3.Connection):
    """Somebody's own, with an authorizer that lets nobody read t.b."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.set_authorizer(lambda action, table, column, *where: action == 20 and column == "b")
        self.note = "mine"


def test_somebodys_own_factory_and_authorizer_stay(url: str) -> None:
    driver = driver_for(url, configure=lambda parameters: {**parameters, "factory": Mine})
    with opened(driver) as connection:
        driver.watch(connection)
        assert isinstance(connection, Mine) and connection.note == "mine"
        with pytest.raises(sqlite3.DatabaseError, match=r"prohibited|authorized"):
            ask(connection, "select b from t")
        assert ask(connection, "select a from t") == [] and not driver.dirtied(connection)
        ask(connection, "attach ':memory:' as x")
        assert driver.dirtied(connection)


def test_a_factory_that_is_no_class_is_called(url: str) -> None:
    driver = driver_for(url, configure=lambda given: {**given, "factory": lambda *a, **o: sqlite3.Connection(*a, **o)})
    with opened(driver) as connection:
        driver.watch(connection)
        assert type(connection) is sqlite3.Connection and driver.settled(connection, False)


def test_a_callable_may_make_connections_that_are_watched(tmp_path: Path) -> None:
    kind = watched(sqlite3.Connection)
    assert watched(kind) is kind

    def connect() -> Any:
        return sqlite3.connect(tmp_path / "x.db", factory=kind, check_same_thread=False)

    with create_pool(connect, max_size=1) as pool:
        with pool.connection() as connection:
            ask(connection, "select 1")
        with pool.connection() as again:
            assert again is connection
            ask(again, "create temp table tt (a)")
        with pool.connection() as other:
            assert other is not connection


def test_nobody_is_watched_until_the_pool_says_so(url: str) -> None:
    driver = driver_for(url)
    with opened(driver) as connection:
        ask(connection, "attach ':memory:' as x")
        connection.row_factory = sqlite3.Row
        assert driver.settled(connection, False)
        connection.create_function("f", 0, int)
        assert not driver.dirtied(connection) and driver.settled(connection, False)
        assert connection.row_factory is sqlite3.Row
        driver.watch(connection)
        assert not driver.dirtied(connection)


@pytest.mark.skipif(not hasattr(sys, "getrefcount"), reason="this Python does not count")
def test_a_watch_keeps_no_connection_alive(url: str) -> None:
    driver = driver_for(url)
    with opened(driver) as connection:
        before = sys.getrefcount(connection)
        driver.watch(connection)
        assert sys.getrefcount(connection) == before


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Also where the tests were started in a shell's background, which has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_in_the_authorizer_fails_its_statement_and_no_other(url: str) -> None:
    """sqlite3 swallows it: what it says is all that is left of it."""

    def interrupted(*what: Any) -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    driver = driver_for(url)
    with opened(driver) as connection:
        driver.watch(connection)
        connection.mark.theirs = interrupted
        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            ask(connection, "select a from t")
        connection.mark.theirs = None
        assert ask(connection, "select a from t") == []
        assert driver.settled(connection, False) and not driver.dirtied(connection)
