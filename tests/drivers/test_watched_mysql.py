"""Does the next borrower of a raw MySQL connection find anything of the one before? And does he who leaves nothing pay?

What a borrower said at a cursor, in whatever way, is noticed, and wiped before anybody else gets the connection; what
leaves nothing sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pymysql
import pymysql.connections
import pymysql.cursors
import pytest

from tests.drivers import ask, opened
from tests.servers import FaultProxy, MariaDB
from threadpool_db import Pool, create_pool
from threadpool_db.drivers import watched_pymysql
from threadpool_db.drivers.choose import driver_for
from threadpool_db.drivers.pymysql import PyMySQL

Cursor = pymysql.cursors.Cursor
ROUTINES = (
    "create procedure sets_mode() set sql_mode = 'ANSI'",
    "create procedure only_reads() select 1",
    "create function sets_user_variable() returns int begin set @hidden = 7; return 1; end",
    "create function sets_mode_too() returns int begin set sql_mode = 'ANSI'; return 1; end",
    "create trigger sets_it before insert on triggering for each row set @hidden = 7",
)


@pytest.fixture(scope="module")
def database(mariadb: MariaDB) -> Iterator[str]:
    with opened(driver_for(f"{mariadb.url}?autocommit=true")) as connection:
        ask(connection, "create database watched")
        ask(connection, "use watched")
        ask(connection, "create table t (id int primary key auto_increment, v varchar(50)) engine=innodb")
        ask(connection, "create table triggering (a int)")
        for routine in ROUTINES:
            ask(connection, routine)
        yield mariadb.url.replace("/test", "/watched")
        ask(connection, "drop database watched")


@pytest.fixture
def pool(database: str) -> Iterator[Pool]:
    with create_pool(f"{database}?ssl=false", max_size=1, min_size=1) as pool:
        yield pool


@pytest.fixture
def foreign(mariadb: MariaDB, database: str) -> Iterator[Pool]:
    """Over a callable of somebody else's."""

    def connect() -> Any:
        return pymysql.connect(host=mariadb.host, port=mariadb.port, user="root", database="watched", ssl_disabled=True)

    with create_pool(connect, max_size=1) as pool:
        yield pool


@pytest.fixture
def driver(database: str) -> PyMySQL:
    made = driver_for(f"{database}?ssl=false")
    assert isinstance(made, PyMySQL)
    return made


@pytest.fixture
def connection(driver: PyMySQL) -> Iterator[Any]:
    with opened(driver) as connection:
        driver.watch(connection)
        yield connection


def session(connection: Any) -> tuple[Any, ...]:
    """What there is to see of a session."""
    return ask(  # type: ignore[no-any-return]
        connection,
        "select @@sql_mode, @a, @hidden, database(), is_free_lock('watched'), @@character_set_client, @@autocommit, "
        "(select count(*) from information_schema.session_variables where variable_name = 'max_statement_time' "
        "and variable_value > 0)",
    )[0]


def say(sql: str | bytes, args: Any = None, kind: Any = None) -> Callable[[Any], None]:
    def saying(connection: Any) -> None:
        with connection.cursor(kind) as cursor:
            cursor.execute(sql, args)
            cursor.fetchall()

    return saying


class Shouting(pymysql.cursors.DictCursor):
    """Somebody's own: it rewrites what it is given."""

    def execute(self, query: Any, args: Any = None) -> Any:
        return super().execute(f"{query} /* ! */", args)


class Adding(Cursor):
    def execute(self, query: Any, args: Any = None) -> Any:
        super().execute("select get_lock('watched', 0)")
        return super().execute(query, args)


class Rewriting(Cursor):
    def mogrify(self, query: Any, args: Any = None) -> str:
        return "set @a = 5"

    def _query(self, q: Any) -> Any:
        return super()._query("set @a = 5")


class Bypassing(Cursor):
    def execute(self, query: Any, args: Any = None) -> Any:
        return Cursor.execute(self, query, args)


class Foreign:
    """No subclass of PyMySQL's: only what a cursor needs."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def __enter__(self) -> Foreign:
        return self

    def __exit__(self, *error: object) -> None: ...

    def execute(self, query: Any, args: Any = None) -> None:
        self.connection.query(query)

    def fetchall(self) -> None: ...


class Raw:
    """A value that its encoder writes as it is."""

    def __init__(self, sql: str) -> None:
        self.sql = sql


def with_many(*rows: Any) -> Callable[[Any], None]:
    def saying(connection: Any) -> None:
        with connection.cursor() as cursor:
            cursor.executemany("set @a = %s", rows)

    return saying


def added(connection: Any) -> None:
    with connection.cursor(Adding) as cursor:
        cursor.executemany("insert into t (v) values (%s)", [("x",)])


def in_the_rows(connection: Any) -> None:
    """A generator of rows asks the same connection."""

    def rows() -> Iterator[Any]:
        say("select get_lock('watched', 0)")(connection)
        yield ("x",)

    with connection.cursor() as cursor:
        cursor.executemany("insert into t (v) values (%s)", rows())


def procedure(name: str) -> Callable[[Any], None]:
    def saying(connection: Any) -> None:
        with connection.cursor() as cursor:
            cursor.callproc(name)

    return saying


def half_read(connection: Any) -> None:
    with closing(connection.cursor(pymysql.cursors.SSCursor)) as cursor:
        cursor.execute("select sets_user_variable()")
        cursor.fetchone()


DIRT: dict[str, Callable[[Any], None]] = {
    "a setting": say("set sql_mode = 'ANSI'"),
    "a setting with a value": say("set sql_mode = %s", ("ANSI",)),
    "a setting by name": say("set sql_mode = %(mode)s", {"mode": "ANSI"}),
    "a user variable": say("set @a = 1"),
    "a user variable in a select": say("select @a := 1"),
    "bytes": say(b"set @a = 1"),
    "a temporary table": say("create temporary table tt (a int)"),
    "a lock": say("select get_lock('watched', 0)"),
    "a lock by value": say("select get_lock(%s, 0)", ("watched",)),
    "a lock let out of quotes": say("select '%s'", (", get_lock(0x77617463686564, 0), ",)),
    "a lock let out of a comment": say("select 1 /* %s */", ("*/, get_lock(0x77617463686564, 0) -- ",)),
    "table locks": say("lock tables t read"),
    "a prepared statement": say("prepare p from 'select 1'"),
    "use": say("use test"),
    "select_db": lambda connection: connection.select_db("test"),
    "another charset": lambda connection: connection.set_character_set("latin1"),
    "query": lambda connection: connection.query("set @a = 1"),
    "a command": lambda connection: connection._execute_command(0x1F, b"") or connection._read_ok_packet(),
    "executemany": with_many((1,), (2,)),
    "executemany's rows": in_the_rows,
    "executemany's additions": added,
    "callproc": procedure("sets_mode"),
    "a function that sets a user variable": say("select sets_user_variable()"),
    "a function that sets a setting": say("select sets_mode_too() from seq_1_to_3"),
    "a function in an insert": say("insert into t (v) values (sets_user_variable())"),
    "a function, unbuffered": say("select sets_user_variable()", None, pymysql.cursors.SSCursor),
    "a function, unbuffered, half read": half_read,
    "a trigger": say("insert into triggering values (1)"),
    "a DictCursor": say("set @a = 1", None, pymysql.cursors.DictCursor),
    "an SSCursor": say("set @a = 1", None, pymysql.cursors.SSCursor),
    "an SSDictCursor": say("set @a = %s", (1,), pymysql.cursors.SSDictCursor),
    "a cursor of one's own": say("set @a = 1", None, Shouting),
    "a cursor that rewrites": say("select %s", (1,), Rewriting),
    "a cursor that goes past us": say("set @a = 1", None, Bypassing),
    "a foreign cursor": say("set @a = 1", None, Foreign),
    "a cursor made by hand": lambda connection: Cursor(connection).execute("set @a = 1"),
    "a cursor from a function": say("set @a = 1", None, lambda connection: Cursor(connection)),
}
#: what only the server can tell, and its word is asked for at the login
BY_THE_SERVERS_WORD = {name for name in DIRT if "function" in name and "cursor" not in name} | {"a trigger"}


def clean(*statements: Any) -> Callable[[Any], None]:
    def saying(connection: Any) -> None:
        for statement in statements:
            say(*(statement if isinstance(statement, tuple) else (statement,)))(connection)

    return saying


def many_inserts(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.executemany("insert into t (v) values (%s)", [("get_lock(",), ("set",), ("x" * 50,)])
        cursor.executemany("update t set v = %s where id = %s", [("a", 1), ("b", 2)])


def transactions(connection: Any) -> None:
    connection.begin()
    connection.rollback()
    connection.ping(reconnect=False)
    connection.show_warnings()
    connection.select_db("watched")
    connection.autocommit(True)
    connection.autocommit(False)
    connection.commit()


CLEAN: dict[str, Callable[[Any], None]] = {
    "reads": clean("select 1", "select * from t", b"select 1", "show tables", "explain select 1"),
    "values": clean(("select %s", ("set @a = 1; get_lock(",)), ("select %(a)s", {"a": "'"}), ("select 'a', %s", (1,))),
    "writes": clean("insert into t (v) values ('a')", "update t set v = 'b'", "delete from t"),
    "many writes": many_inserts,
    "transactions": transactions,
    "other cursors": clean(
        ("select %s", (1,), pymysql.cursors.DictCursor),
        ("select 1", None, pymysql.cursors.SSCursor),
        ("select 1", None, Bypassing),
        ("select %s", (1,), Shouting),
        ("select 1", None, Foreign),
    ),
    "a procedure's text": clean("create table if not exists u (a int)", "drop table u"),
}


@pytest.mark.parametrize("what", DIRT)
def test_the_next_borrower_finds_nothing_of_it(pool: Pool, what: str) -> None:
    with pool.connection() as connection:
        made = session(connection)
        number = connection.thread_id()
    with pool.connection() as connection:
        DIRT[what](connection)
    with pool.connection() as connection:
        assert connection.thread_id() == number, "reset, not closed"
        assert session(connection) == made
        ask(connection, "select * from t")  # no table lock, and the database is the right one
        with pytest.raises(pymysql.Error):
            ask(connection, "select * from tt")
        with pytest.raises(pymysql.Error):
            ask(connection, "execute p")


@pytest.mark.parametrize("what", DIRT)
def test_it_is_noticed_and_once_reset_forgotten(driver: PyMySQL, connection: Any, what: str) -> None:
    assert not driver.dirtied(connection)
    connection.rollback()
    assert driver.settled(connection, False)
    DIRT[what](connection)
    assert driver.dirtied(connection)
    connection.rollback()
    assert not driver.settled(connection, False)
    driver.reset(connection)
    assert not driver.dirtied(connection) and driver.settled(connection, False)
    DIRT["a user variable"](connection)
    assert driver.dirtied(connection), "and watched again"


@pytest.mark.parametrize("what", DIRT)
def test_of_a_callables_connection_the_next_borrower_finds_nothing_either(foreign: Pool, what: str) -> None:
    with foreign.connection() as connection:
        number = connection.thread_id()
        DIRT[what](connection)
    with foreign.connection() as connection:
        assert (connection.thread_id() == number) is (what in BY_THE_SERVERS_WORD), "closed, it cannot be reset"


@pytest.mark.parametrize("what", CLEAN)
def test_what_leaves_nothing_is_clean(driver: PyMySQL, connection: Any, what: str) -> None:
    CLEAN[what](connection)
    connection.rollback()
    assert not driver.dirtied(connection) and driver.settled(connection, False)


@pytest.mark.parametrize("statement", ["select v from t where id = 1", "insert into t (v) values ('a')"])
def test_a_borrower_who_leaves_nothing_pays_nothing(
    database: str, mariadb: MariaDB, proxy: Callable[[int], FaultProxy], statement: str
) -> None:
    via = proxy(mariadb.port)
    url = f"{database}?ssl=false&autocommit=true".replace(mariadb.address, via.address)
    with create_pool(url, max_size=1) as pool:
        with pool.connection() as connection:
            ask(connection, statement)
        before = via.traffic.to_server
        for _ in range(10):
            with pool.connection() as connection:
                ask(connection, statement)
        assert via.traffic.to_server - before == 10 * (len(statement) + 5), (
            "a packet's head and the command: five bytes"
        )


def test_the_servers_word_costs_no_round_trip(
    database: str, mariadb: MariaDB, proxy: Callable[[int], FaultProxy]
) -> None:
    def commands(made: Any) -> int:
        with closing(made) as connection:
            return int(ask(connection, "show session status like 'Questions'")[0][1])

    ours = commands(driver_for(f"{database}?ssl=false").connect(10))
    theirs = commands(
        pymysql.connect(host=mariadb.host, port=mariadb.port, user="root", database="watched", ssl_disabled=True)
    )
    assert ours == theirs


def test_a_server_that_does_not_know_tracking_is_connected_to_without(
    driver: PyMySQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_pymysql, "_TRACK", ", no_such_variable = 1")
    with opened(driver) as connection:
        driver.watch(connection)
        assert ask(connection, "select sets_user_variable()") == ((1,),)
        assert not driver.dirtied(connection), "nobody says it"
        ask(connection, "set @a = 1")
        assert driver.dirtied(connection)
        driver.reset(connection)
        assert driver.settled(connection, False)


def test_a_wrong_charset_is_still_an_error(connection: Any, driver: PyMySQL) -> None:
    with pytest.raises(pymysql.Error):
        connection.set_character_set("utf8mb4", "no_such_collation")
    assert ask(connection, "select 1") == ((1,),)


@pytest.fixture
def admin(mariadb: MariaDB) -> Iterator[Any]:
    login = {"host": mariadb.host, "port": mariadb.port, "user": "root", "ssl_disabled": True, "autocommit": True}
    with closing(pymysql.connect(**login)) as connection:
        yield connection


def questions(admin: Any) -> int:
    """How many commands the whole server has had, this one not."""
    return int(ask(admin, "show global status like 'Questions'")[0][1]) - 1


RESET, SET, INIT_DB, ROLLBACK = 1, 1, 1, 1


@pytest.mark.parametrize(
    ("options", "dirt", "expected"),
    [
        ("", say("set @a = 1"), RESET + SET),
        ("&autocommit=true", say("set @a = 1"), RESET + SET),
        ("&charset=latin1&collation=latin1_bin&sql_mode=ANSI", say("set @a = 1"), RESET + SET),
        ("", say("set autocommit = 1"), RESET + SET),
        ("", lambda connection: connection.set_character_set("latin1"), RESET + SET),
        ("", say("select sets_user_variable()"), ROLLBACK + RESET + SET),
        ("", clean("set @a = 1", "create temporary table used (a int)"), RESET + SET),
        ("&init_command=set%20@b%3D7", say("set @a = 1"), RESET + SET + 1),
        ("", lambda connection: connection.autocommit(True) or say("set @a = 1")(connection), RESET + SET),
        ("", say("use test"), RESET + INIT_DB + SET),
        ("", clean("set @a = 1", "use test"), RESET + INIT_DB + SET),
        ("", clean("set @a = 1", b"/*!50000use test*/"), RESET + INIT_DB + SET),
        ("", clean("set @a = 1", "execute immediate concat('us', 'e test')"), RESET + INIT_DB + SET),
        ("", clean("set @a = 1", f"select '{'x' * 5000}'"), ROLLBACK + RESET + INIT_DB + SET),
        ("", lambda connection: say("set @a = 1")(connection) or connection.select_db("test"), RESET + INIT_DB + SET),
    ],
)
def test_a_reset_takes_as_few_round_trips_as_can_be(
    database: str, admin: Any, options: str, dirt: Callable[[Any], None], expected: int
) -> None:
    with create_pool(f"{database}?ssl=false{options}", max_size=1) as pool:
        with pool.connection() as connection:
            made, mode, number = session(connection), connection.get_autocommit(), connection.thread_id()
            modes = connection.autocommit_mode
            connection.rollback()
        lease = pool.checkout()
        dirt(lease.connection)
        before = questions(admin)
        lease.checkin()
        assert questions(admin) - before - 1 == expected
        with pool.connection() as connection:
            assert (session(connection), connection.get_autocommit(), connection.thread_id()) == (made, mode, number)
            assert connection.autocommit_mode is modes, "for a connect of PyMySQL's own"
            connection.rollback()
            say("select sets_user_variable()")(connection)
            assert pool._upkeep.driver.dirtied(connection), "the server goes on telling"


def test_after_a_reset_the_current_database_is_noticed_anew(database: str) -> None:
    with create_pool(f"{database}?ssl=false", max_size=1) as pool:
        for _ in range(2):
            with pool.connection() as connection:
                say("use test")(connection)
            with pool.connection() as connection:
                assert ask(connection, "select database()") == (("watched",),)
                say("set @a = 1")(connection)


@pytest.mark.parametrize("how", ["drop database own", "create or replace schema own"])
@pytest.mark.parametrize("kind", ["url", "callable"])
def test_a_database_that_is_dropped_and_made_again_is_there_for_the_next_borrower(
    mariadb: MariaDB, admin: Any, kind: str, how: str
) -> None:
    def connect() -> Any:
        return pymysql.connect(host=mariadb.host, port=mariadb.port, user="root", database="own", ssl_disabled=True)

    ask(admin, "create database own")
    with create_pool(mariadb.url.replace("/test", "/own?ssl=false") if kind == "url" else connect, max_size=1) as pool:
        pool.execute(how)  # not refused outside of scopes: mostly it is about another one
        if "drop" in how:
            ask(admin, "create database own")
        assert pool.execute("select database()") == [("own",)]
        with pool.connection() as connection:
            ask(connection, how)
            ask(connection, "create database if not exists own")
        assert pool.execute("select database()") == [("own",)]
    ask(admin, "drop database own")


def test_a_value_that_is_no_literal_is_judged_in_its_place(database: str) -> None:
    encoders = {**pymysql.converters.conversions, Raw: lambda value, mapping=None: value.sql}
    driver = driver_for(f"{database}?ssl=false", configure=lambda parameters: {**parameters, "conv": encoders})
    with opened(driver) as connection:
        driver.watch(connection)
        say("select %s", (Raw("1"),))(connection)
        assert not driver.dirtied(connection)
        say("select %s", (Raw("get_lock('watched', 0)"),))(connection)
        assert driver.dirtied(connection)


def test_another_cursorclass_is_put_back_without_a_reset(
    database: str, mariadb: MariaDB, proxy: Callable[[int], FaultProxy]
) -> None:
    via = proxy(mariadb.port)
    with create_pool(f"{database}?ssl=false&autocommit=true".replace(mariadb.address, via.address), max_size=1) as pool:
        with pool.connection() as connection:
            connection.cursorclass = pymysql.cursors.DictCursor
            assert ask(connection, "select 1 as a") == [{"a": 1}]
            before = via.traffic.to_server
        with pool.connection() as connection:
            assert via.traffic.to_server == before
            assert connection.cursorclass is Cursor and ask(connection, "select 1") == ((1,),)
            connection.cursorclass = pymysql.cursors.DictCursor
            ask(connection, "set @a = 1")
        with pool.connection() as connection:
            assert ask(connection, "select @a") == ((None,),)


def test_a_cursor_is_of_the_class_that_was_asked_for(connection: Any) -> None:
    for kind in (Cursor, pymysql.cursors.DictCursor, pymysql.cursors.SSCursor, Shouting, Rewriting, Foreign):
        cursor = connection.cursor(kind)
        assert isinstance(cursor, kind)
    assert type(connection.cursor(Rewriting)) is Rewriting


def test_an_error_in_a_statement_does_not_stop_the_listening(driver: PyMySQL, connection: Any) -> None:
    for wrong in (("select %s %s", (1,)), ("select syntax error here", None)):
        with pytest.raises(pymysql.Error):
            say(*wrong)(connection)
    with pytest.raises(pymysql.Error), connection.cursor() as cursor:
        cursor.executemany("insert into no_such_table values (%s)", [(1,)])
    assert not driver.dirtied(connection)
    connection.query("set @a = 1")
    assert driver.dirtied(connection)


def test_many_rows_are_judged_once_and_without_their_values(
    driver: PyMySQL, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[Any] = []
    judge = watched_pymysql.judge
    monkeypatch.setattr(watched_pymysql, "judge", lambda sql, dialect: judged.append(sql) or judge(sql, dialect))
    with connection.cursor() as cursor:
        cursor.executemany("replace into t (v) values (%s)", [("x" * 40,)] * 1000)
        assert [len(sql) for sql in judged] == [30]
        cursor.execute("select get_lock('watched', 0)")  # which the server would not tell
    assert driver.dirtied(connection), "the next statement of the same cursor is judged again"


def test_what_was_said_before_the_watch_is_how_it_was_made(database: str) -> None:
    driver = driver_for(f"{database}?ssl=false&init_command=set%20@a%3D7&sql_mode=ANSI")
    with opened(driver) as connection:
        assert not driver.dirtied(connection)
        ask(connection, "set @b = 1")
        assert not driver.dirtied(connection), "nobody watches"
        driver.watch(connection)
        assert not driver.dirtied(connection)
        driver.set_autocommit(connection, True)
        driver.begin(connection)
        driver.rollback(connection)
        driver.ping(connection)
        assert driver.settled(connection, True)


def test_a_connection_that_cannot_be_watched_counts_as_dirty(driver: PyMySQL) -> None:
    class Rewritten:
        open = True

    connection = Rewritten()
    driver.watch(connection)
    assert driver.dirtied(connection)
