"""Is ``pool.proxy()`` what PEP 249 describes, over each driver, both policies, and a module that nobody knows?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tests.checkout import Db, prepared
from tests.drivers import ask
from threadpool_db import Pool, PoolMisuse, StaleLease
from threadpool_db.checkout.proxy import Proxy
from threadpool_db.checkout.proxy_cursor import Cursor

MODULES = {"sqlite": "sqlite3", "psycopg2": "psycopg2", "psycopg": "psycopg", "pymysql": "pymysql"}
SHAPES = [
    ("operation", "url", True),
    ("operation", "url", False),
    ("thread", "url", False),
    ("operation", "dbapi", False),
]


class Shape(NamedTuple):
    checkout: str
    how: str
    autocommit: bool

    def __str__(self) -> str:
        return f"{self.checkout}-{self.how}-{'autocommit' if self.autocommit else 'transactions'}"


@pytest.fixture(params=[Shape(*shape) for shape in SHAPES], ids=str)
def shape(request: pytest.FixtureRequest) -> Shape:
    shape: Shape = request.param
    return shape


@pytest.fixture
def db(shape: Shape, any_db_url: str) -> Iterator[Db]:
    with prepared(any_db_url, shape.how) as db:
        yield db


@pytest.fixture
def pool(shape: Shape, db: Db) -> Iterator[Pool]:
    pool = db.pool(checkout=shape.checkout, max_size=2)
    yield pool
    pool.release()
    assert pool.stats().in_use == 0


@pytest.fixture
def proxy(shape: Shape, pool: Pool) -> Iterator[Proxy]:
    proxy = pool.proxy(autocommit=shape.autocommit)
    yield proxy
    proxy.close()


@pytest.fixture
def five(proxy: Proxy, db: Db) -> Cursor:
    """A cursor before the rows 1 to 5, which nobody has fetched."""
    cursor = proxy.cursor()
    cursor.executemany(f"insert into {db.table} values ({db.mark})", [(n,) for n in range(1, 6)])
    proxy.commit()
    cursor.execute(db.select)
    return cursor


def numbers(rows: Any) -> Any:
    """Of one row, or of several."""
    if isinstance(rows, list):
        return [row[0] for row in rows]
    return rows if rows is None else rows[0]


class TestConnection:
    def test_begins_nothing_by_itself_and_borrows_nothing(self, proxy: Proxy, pool: Pool) -> None:
        proxy.cursor()
        proxy.commit()
        proxy.rollback()
        assert pool.stats().checkouts == 0

    def test_has_the_drivers_own_exceptions(self, proxy: Proxy, db: Db) -> None:
        module = __import__(MODULES[db.name])
        for name in (
            "Warning Error InterfaceError DatabaseError DataError OperationalError IntegrityError InternalError "
            "ProgrammingError NotSupportedError"
        ).split():
            assert getattr(proxy, name) is getattr(module, name)
        with pytest.raises(AttributeError, match=r"connection\(\)"):
            proxy.set_isolation_level  # noqa: B018

    def test_the_drivers_error_comes_through(self, proxy: Proxy, db: Db) -> None:
        cursor = proxy.cursor()
        cursor.execute(db.insert(1))
        proxy.commit()
        with pytest.raises(proxy.IntegrityError):
            cursor.execute(db.insert(1))
        proxy.rollback()
        cursor.execute(db.insert(2))
        proxy.commit()
        assert db.rows() == [1, 2]

    def test_commits_rolls_back_and_rolls_back_at_close(self, pool: Pool, db: Db) -> None:
        proxy = pool.proxy()
        for number, end in ((1, proxy.commit), (2, proxy.rollback), (3, proxy.close)):
            proxy.cursor().execute(db.insert(number))
            assert number not in db.rows()
            end()
            assert db.rows() == [1]

    def test_in_autocommit_each_statement_is_there_at_once(self, pool: Pool, db: Db) -> None:
        proxy = pool.proxy(autocommit=True)
        proxy.execute(db.insert(1))
        assert db.rows() == [1]
        proxy.rollback()
        assert db.rows() == [1]

    def test_as_a_context_it_commits_or_rolls_back_and_stays_open(self, pool: Pool, db: Db) -> None:
        proxy = pool.proxy()
        with proxy as same:
            assert same is proxy
            proxy.execute(db.insert(1))
        with pytest.raises(ZeroDivisionError), proxy:
            proxy.execute(db.insert(2))
            raise ZeroDivisionError
        with proxy:
            proxy.execute(db.insert(3))
        assert db.rows() == [1, 3]

    @pytest.mark.parametrize("use", ["cursor", "commit", "rollback", "connection", "execute", "__enter__"])
    def test_after_close_every_use_is_an_error_of_both(self, proxy: Proxy, db: Db, use: str) -> None:
        proxy.execute("select 1").fetchall()
        cursor = proxy.cursor()
        proxy.close()
        proxy.close()
        for forbidden in (lambda: getattr(proxy, use)(*(["select 1"] * (use == "execute"))), cursor.fetchone):
            with pytest.raises(StaleLease, match="proxy was closed") as caught:
                forbidden()
            assert isinstance(caught.value, proxy.InterfaceError)


class TestCursor:
    def test_before_anything_it_knows_nothing(self, proxy: Proxy) -> None:
        cursor = proxy.cursor()
        assert (cursor.description, cursor.rowcount, cursor.lastrowid, cursor.arraysize) == (None, -1, None, 1)
        assert cursor.connection is proxy

    def test_describes_the_columns(self, proxy: Proxy, five: Cursor) -> None:
        assert [(column[0], len(column)) for column in five.description] == [("id", 7)]
        five.fetchall()
        assert five.description[0][0] == "id"

    def test_counts_rows(self, proxy: Proxy, db: Db, five: Cursor) -> None:
        assert five.rowcount in (5, -1)
        for sql, count in ((f"update {db.table} set id = id + 10", 5), (f"delete from {db.table} where id > 13", 2)):
            five.execute(sql)
            assert (five.rowcount, five.description) == (count, None)

    def test_names_the_last_row_id_where_the_driver_does(self, proxy: Proxy, db: Db) -> None:
        cursor = proxy.cursor()
        cursor.execute(db.insert(7))
        assert cursor.lastrowid == {"sqlite": 1, "psycopg": None}.get(db.name, 0)

    @pytest.mark.parametrize(
        ("calls", "expected"),
        [
            ("all all", [[1, 2, 3, 4, 5], []]),
            ("one one all one", [1, 2, [3, 4, 5], None]),
            ("one one one one one one one", [1, 2, 3, 4, 5, None, None]),
            ("many many2 many3 many", [[1], [2, 3], [4, 5], []]),
            ("many5 one", [[1, 2, 3, 4, 5], None]),
            ("many4 one many4", [[1, 2, 3, 4], 5, []]),
            ("many9 all", [[1, 2, 3, 4, 5], []]),
            ("many0 one list", [[], 1, [2, 3, 4, 5]]),
            ("list one", [[1, 2, 3, 4, 5], None]),
            ("next next all", [1, 2, [3, 4, 5]]),
        ],
    )
    def test_gives_each_row_once_however_it_is_asked(self, five: Cursor, calls: str, expected: list[Any]) -> None:
        ways: dict[str, Callable[[], Any]] = {
            "one": five.fetchone,
            "all": five.fetchall,
            "many": five.fetchmany,
            "list": lambda: list(five),
            "next": lambda: next(five),
        }
        ways |= {f"many{size}": lambda size=size: five.fetchmany(size) for size in range(10)}
        assert [numbers(ways[call]()) for call in calls.split()] == expected

    def test_a_thousand_rows_come_in_order(self, proxy: Proxy, db: Db) -> None:
        proxy.cursor().executemany(f"insert into {db.table} values ({db.mark})", [(n,) for n in range(1000)])
        assert numbers(list(proxy.execute(db.select))) == list(range(1000))

    def test_arraysize_is_what_fetchmany_takes(self, five: Cursor) -> None:
        five.arraysize = 2
        assert numbers(five.fetchmany()) == [1, 2]
        assert numbers(five.fetchmany()) == [3, 4]

    @pytest.mark.parametrize("fetch", ["fetchone", "fetchmany", "fetchall", "__next__"])
    def test_where_there_is_no_result_set_fetching_is_an_error(self, proxy: Proxy, db: Db, fetch: str) -> None:
        cursor = proxy.cursor()
        with pytest.raises(PoolMisuse, match="no rows to fetch"):
            getattr(cursor, fetch)()
        cursor.execute(db.insert(1))
        with pytest.raises(proxy.ProgrammingError, match="no rows to fetch"):
            getattr(cursor, fetch)()

    def test_takes_parameters_in_the_drivers_style(self, proxy: Proxy, five: Cursor, db: Db) -> None:
        five.execute(f"select id from {db.table} where id = {db.mark}", (3,))
        assert numbers(five.fetchall()) == [3]

    def test_a_new_statement_drops_what_was_unread(self, five: Cursor) -> None:
        five.execute("select 7")
        assert numbers(five.fetchall()) == [7]

    def test_after_an_error_it_has_no_old_rows(self, proxy: Proxy, five: Cursor) -> None:
        with pytest.raises(proxy.DatabaseError):
            five.execute("select syntax error here")
        assert five.description is None
        with pytest.raises(proxy.ProgrammingError, match="no rows"):
            five.fetchone()

    def test_sizes_are_for_the_driver_to_heed(self, proxy: Proxy) -> None:
        cursor = proxy.cursor()
        cursor.setinputsizes(4)
        cursor.setoutputsize(100, 0)
        cursor.execute("select 1")
        assert numbers(cursor.fetchall()) == [1]

    def test_there_is_one_set_of_rows(self, five: Cursor) -> None:
        assert five.nextset() is None
        with pytest.raises(PoolMisuse, match="no rows"):
            five.fetchone()

    def test_two_cursors_do_not_disturb_each_other(self, proxy: Proxy, five: Cursor, db: Db) -> None:
        assert five.fetchone()[0] == 1
        other = proxy.execute(f"select id from {db.table} where id > 3 order by id")
        assert (five.fetchone()[0], other.fetchone()[0], five.fetchone()[0], other.fetchone()[0]) == (2, 4, 3, 5)
        proxy.execute(db.insert(6))
        proxy.commit()
        assert numbers(five.fetchall()) in ([4, 5], [4, 5, 6])

    @pytest.mark.parametrize("use", ["fetchone", "fetchall", "__next__", "nextset", "__enter__", "execute"])
    def test_after_close_every_use_is_an_error(self, proxy: Proxy, five: Cursor, use: str) -> None:
        with five as same:
            assert same is five
        five.close()
        with pytest.raises(StaleLease, match="cursor was closed"):
            getattr(five, use)(*(["select 1"] * (use == "execute")))
        with pytest.raises(proxy.Error, match="cursor was closed"):
            five.fetchmany()


class TestProcedures:
    def test_a_driver_without_them_says_so(self, proxy: Proxy, pool: Pool, db: Db) -> None:
        has_them = db.name in ("psycopg2", "pymysql")
        with pool.scope(), pytest.raises(proxy.Error if has_them else proxy.NotSupportedError) as caught:
            proxy.cursor().callproc("nothing")
        assert ("callproc" in str(caught.value)) is not has_them

    def test_one_may_answer_with_several_sets(self, proxy: Proxy, pool: Pool, db: Db) -> None:
        if db.name == "psycopg2":
            with pool.scope():
                cursor = proxy.cursor()
                cursor.callproc("abs", (-3,))
                assert numbers(cursor.fetchall()) == [3]
                proxy.rollback()
        elif db.name == "pymysql":
            from pymysql.cursors import SSCursor

            ask(db.other, f"create procedure {db.table}_two() begin select 1; select 2 union select 3; end")
            try:
                for kind in ((), (SSCursor,)):
                    with pool.scope():
                        cursor = proxy.cursor(*kind)
                        cursor.callproc(f"{db.table}_two")
                        assert numbers(cursor.fetchall()) == [1]
                        assert cursor.nextset()
                        assert numbers(cursor.fetchone()) == 2
                        assert cursor.nextset()  # the procedure's own end
                        assert cursor.description is None
                        assert cursor.nextset() is None
                        proxy.rollback()
            finally:
                ask(db.other, f"drop procedure {db.table}_two")

    def test_it_may_do_anything_so_it_needs_a_scope(self, any_db_url: str) -> None:
        with prepared(any_db_url) as db:
            if db.name == "pymysql":
                with pytest.raises(PoolMisuse, match=r"CALL.*scope\(\)"):
                    db.pool().proxy().cursor().callproc("anything")
