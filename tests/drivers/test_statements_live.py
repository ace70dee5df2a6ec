"""Do servers agree with the corpus of statements? Each one is run, and its session is looked at before and after.

What is called clean must leave every piece of state as it was, after ROLLBACK, with autocommit on and off. What is
called dirty must show that it leaves something: an error in the corpus would prove nothing.

Then texts that nobody would write: quotes, comments and escapes at random around one assignment, under each of the
server's settings that changes how it reads them. Where the server has assigned, the judgement must be dirty.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from random import Random
from typing import Any

import pymysql
import pytest
from pymysql.constants import CLIENT

from tests.core.statements import CORPUS, Case
from tests.drivers import ask
from tests.scene import until
from tests.servers import MariaDB, Postgres
from threadpool_db.core.statement import judge

psycopg2 = pytest.importorskip("psycopg2")

State = dict[str, Sequence[Any]]  # what is asked for, and the rows or the error
Open = Callable[[], Any]


def answer(connection: Any, sql: str) -> Sequence[Any]:
    try:
        return ask(connection, sql) or ()
    except Exception as error:
        return type(error).__name__, str(error)


def run(connection: Any, sql: str) -> None:
    """All statements of a text, their rows read to the end."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(sql)
        while getattr(cursor, "nextset", None) and hasattr(connection, "query") and cursor.nextset():
            pass


def check(cases: list[Case], connect: Callable[[bool], Any], state: Callable[[Any], State]) -> None:
    wrong = []
    for autocommit in (True, False):
        connection = connect(autocommit)
        fresh = state(connection)
        for case in cases:
            dirty = case.kind == "dirty"
            if case.live in ("refused", "unseen", "own"):
                continue
            refused = ""
            try:
                run(connection, case.sql)
            except Exception as error:
                refused = str(error)
            with suppress(Exception):
                # in a transaction PostgreSQL takes back what is dirty too
                run(connection, "commit" if dirty else "rollback")
            after = state(connection)
            left = [{*after[name]} ^ {*was} for name, was in fresh.items() if after[name] != was]
            # the second time a CREATE finds what the first has made, and VACUUM wants no transaction
            if bool(left) is not dirty or (refused and autocommit):
                wrong.append((case.sql, left, refused))
            if left:
                connection.close()
                connection = connect(autocommit)
        connection.close()
    assert not wrong, "\n".join(map(str, wrong))


# PostgreSQL -----------------------------------------------------------------------------------------------------------

POSTGRESQL_STATE = {
    "settings": "select name, setting from pg_settings where source = 'session' and name not like 'transaction_%'",
    # one's own that was SET LOCAL is '' afterwards and not NULL, and nothing but the session's end cures it
    "own settings": "select nullif(current_setting('my.v', true), ''), current_setting('my.secret', true), "
    "current_setting('auto_explain.log_format', true)",
    "users": "select current_user, session_user, current_setting('role')",
    "statements": "select name from pg_prepared_statements",
    "cursors": "select name from pg_cursors where name <> ''",
    "locks": "select classid, objid, mode from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'",
    "channels": "select * from pg_listening_channels()",
    "temporary": "select oid from pg_class where relnamespace = pg_my_temp_schema() "
    "union select oid from pg_proc where pronamespace = pg_my_temp_schema()",
}


@pytest.fixture
def postgres_lab(postgres: Postgres) -> Iterator[str]:
    with closing(psycopg2.connect(postgres.url)) as admin:
        admin.autocommit = True
        run(admin, "drop database if exists statements")
        run(admin, "create database statements")
        url = postgres.url.rpartition("/")[0] + "/statements"
        with closing(psycopg2.connect(url)) as connection, connection:
            run(
                connection,
                """
                create extension tablefunc; create extension xml2; create extension pg_trgm; create extension dblink;
                create foreign data wrapper made_wrapper; create server made_server foreign data wrapper made_wrapper;
                create table t (id serial primary key, v int);
                create sequence s;
                create function f() returns int language sql as 'select 1';
                create procedure leaves() language plpgsql as $$ begin set work_mem = '8MB'; end $$;
                create procedure harmless() language plpgsql as $$ begin null; end $$;
                create role somebody;
                """,
            )
        yield url
        run(admin, "drop database statements")
        run(admin, "drop role somebody")


def test_postgresql_agrees(postgres_lab: str) -> None:
    def connect(autocommit: bool) -> Any:
        connection = psycopg2.connect(postgres_lab)
        connection.autocommit = autocommit
        return connection

    def state(connection: Any) -> State:
        found = {name: ask(connection, sql) for name, sql in POSTGRESQL_STATE.items()}
        connection.rollback()
        return found

    check(CORPUS["postgresql"], connect, state)


# MariaDB --------------------------------------------------------------------------------------------------------------

# what every statement moves, or no two sessions share
_OWN = (
    "TIMESTAMP LAST_INSERT_ID IDENTITY ERROR_COUNT WARNING_COUNT RAND_SEED1 RAND_SEED2 LAST_GTID IN_TRANSACTION "
    "PSEUDO_THREAD_ID"
)
MARIADB_STATE = {
    "transaction, table locks": "delete from untouched",
    "handlers": "handler t read first limit 0",
    "handlers by name": "handler h read first limit 0",
    "variables": "select variable_name, session_value from information_schema.system_variables "
    f"where variable_scope like 'SESSION%' and variable_name not in {tuple(_OWN.split())} order by 1",
    "user variables": "select variable_name, variable_value from information_schema.user_variables",
    "database": "select database(), current_role()",
    "lock": "select is_used_lock('l') = connection_id()",
    "temporary tables": "select count(*) from tt",
    "prepared statements": "execute p",
    "xa": "select @@in_transaction",
    "backup locks": "backup stage start",
    "backup": "backup stage end",
    "flushed": "lock table t write",
    "unlocked": "unlock tables",
}


@pytest.fixture
def mariadb_lab(mariadb: MariaDB) -> Iterator[dict[str, Any]]:
    login = {"host": mariadb.host, "port": mariadb.port, "user": "root", "ssl_disabled": True}
    with closing(pymysql.connect(**login, autocommit=True)) as admin:
        run(admin, "create database statements")
        run(admin, "use statements")
        run(admin, "create table t (id int auto_increment primary key, v int)")
        run(admin, "create table untouched (a int)")
        run(admin, "create sequence s")
        run(admin, "create function f() returns int return 1")
        run(admin, "create procedure leaves() set @a = 1")
        run(admin, "create procedure harmless() begin end")
        run(admin, "create user somebody")
        run(admin, "create role some_role")
        yield {**login, "database": "statements"}
        for what in ("database statements", "database if exists made_db", "user somebody", "role some_role"):
            run(admin, f"drop {what}")


def test_mariadb_agrees(mariadb_lab: dict[str, Any]) -> None:
    def connect(autocommit: bool) -> Any:
        # the server ends a session after its connection was closed, and only then is its lock free
        with closing(pymysql.connect(**mariadb_lab)) as other:
            until(lambda: [*answer(other, "select is_free_lock('l')")] == [(1,)])
        return pymysql.connect(**mariadb_lab, autocommit=autocommit, client_flag=CLIENT.MULTI_STATEMENTS)

    def state(connection: Any) -> State:
        return {name: answer(connection, sql) for name, sql in MARIADB_STATE.items()}

    check(CORPUS["mysql"], connect, state)


@pytest.mark.parametrize("case", [case for case in CORPUS["mysql"] if case.live == "own"], ids=lambda case: case.sql)
def test_mariadb_agrees_about_the_database_that_a_session_is_in(mariadb_lab: dict[str, Any], case: Case) -> None:
    for autocommit in (True, False):
        with closing(pymysql.connect(**mariadb_lab, client_flag=CLIENT.MULTI_STATEMENTS)) as connection:
            run(connection, "create or replace database own character set latin1")
            run(connection, "use own")
            connection.autocommit(autocommit)
            before = answer(connection, "select database(), @@character_set_database, @@collation_database")
            run(connection, case.sql)
            run(connection, "rollback")
            assert answer(connection, "select database(), @@character_set_database, @@collation_database") != before
            run(connection, "drop database if exists own")


# Texts at random ------------------------------------------------------------------------------------------------------

BEGINNINGS = ["", "select ", "select 1", "select 1 as ", "select '1"]
NOISE = {
    "postgresql": [*"' \" \\ -- /* */ /**/ /*/* $a$ $$ $1 $a a$ E' e' U&' '' \\' \\\\ x 1".split(), " ", "\n", "\r"],
    "mysql": [*"' \" ` \\ -- # /* */ /**/ /*! /*!99999 /*M! '' \"\" \\' \\\\ x 1".split(), " ", "\n", "\r", "-- "],
}
ASSIGNMENTS = {
    "postgresql": [";set my.v=1", ";set my.v=1;", "set my.v=1;", "select set_config($$my.v$$,$$1$$,false)"],
    "mysql": [";set @a=1", ";set @a=1;", "select @a:=1", ",@a:=1", " into @a", "@a:=1"],
}


def check_random_texts(dialect: str, attempt: Callable[[str], None], assigned: Callable[[], bool]) -> None:
    random, hits = Random(dialect), 0
    for _ in range(1500):
        before, after = (random.choices(NOISE[dialect], k=random.randrange(5)) for _ in range(2))
        text = "".join([random.choice(BEGINNINGS), *before, random.choice(ASSIGNMENTS[dialect]), *after])
        with suppress(Exception):
            attempt(text)
        if assigned():
            hits += 1
            assert judge(text, dialect).dirty, text
            assert judge(text, "").dirty, text
    assert hits >= 30


@pytest.mark.parametrize("conforming", ["on", "off"])
def test_no_text_sets_something_in_postgresql_unseen(postgres: Postgres, conforming: str) -> None:
    options = f"-c standard_conforming_strings={conforming} -c escape_string_warning=off"
    with closing(psycopg2.connect(postgres.url, options=options)) as connection:
        connection.autocommit = True

        def assigned() -> bool:
            found = bool(ask(connection, "select current_setting('my.v', true)")[0][0])
            if found:
                ask(connection, "reset my.v")
            return found

        check_random_texts("postgresql", lambda text: run(connection, text), assigned)


@pytest.mark.parametrize("mode", ["", "NO_BACKSLASH_ESCAPES", "ANSI_QUOTES"])
def test_no_text_sets_something_in_mariadb_unseen(mariadb: MariaDB, mode: str) -> None:
    login = {"host": mariadb.host, "port": mariadb.port, "user": "root", "ssl_disabled": True, "autocommit": True}
    with closing(pymysql.connect(**login, client_flag=CLIENT.MULTI_STATEMENTS)) as connection:
        run(connection, f"set sql_mode = '{mode}'")

        def assigned() -> bool:
            found = ask(connection, "select @a")[0][0] is not None
            if found:
                run(connection, "set @a = null")
            return found

        check_random_texts("mysql", lambda text: run(connection, text), assigned)


# SQLite ---------------------------------------------------------------------------------------------------------------

SQLITE_STATE = {
    "databases": "select name from pragma_database_list where name <> 'temp' order by name",
    "temporary": "select name from temp.sqlite_master",
    "pragmas": "select * from pragma_foreign_keys, pragma_cache_size, pragma_busy_timeout, pragma_recursive_triggers",
}


def test_sqlite_agrees(tmp_path: Any) -> None:
    def connect(autocommit: bool) -> Any:
        connection = sqlite3.connect(tmp_path / "db", isolation_level=None if autocommit else "")
        ask(connection, "create table if not exists t (id integer primary key, v int)")
        return connection

    def state(connection: Any) -> State:
        return {name: ask(connection, sql) for name, sql in SQLITE_STATE.items()}

    check(CORPUS["sqlite"], connect, state)
