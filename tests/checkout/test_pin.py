"""Does nothing that one borrower leaves in a session reach the next?

Which statements leave anything is ``core/statement.py``'s to say. Each kind is asked for on the server afterwards,
over a connection that we made, which is reset, and over one that somebody's callable made, which is closed instead.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.checkout import Db, in_thread, prepared, server_url, stock
from tests.drivers import ask
from threadpool_db import Pool, PoolMisuse, create_pool
from threadpool_db.checkout.pin import Hold, ThreadEnd
from threadpool_db.waiting import Mailbox


class Dirt(NamedTuple):
    """Something that outlives a rollback, and a question whose answer is 1 while it is there."""

    sql: str
    question: str


DIRT = {
    "postgres": [
        Dirt("set search_path = elsewhere", "select count(*) from pg_settings where setting = 'elsewhere'"),
        Dirt("/* why */ set session statement_timeout = 4321", "select count(*) from pg_settings where setting='4321'"),
        Dirt("create temp table tt as select 1 as a", "select a from tt"),
        Dirt("listen news", "select count(*) from pg_listening_channels()"),
        Dirt("prepare p as select 1", "select count(*) from pg_prepared_statements where name = 'p'"),
    ],
    "mariadb": [
        Dirt("set sql_mode = 'ANSI_QUOTES'", "select @@sql_mode like '%ANSI_QUOTES%'"),
        Dirt("set local sql_mode = 'ANSI_QUOTES'", "select @@sql_mode like '%ANSI_QUOTES%'"),
        Dirt("set transaction read only", "select @@in_transaction"),
        Dirt("set @a = 1", "select @a"),
        Dirt("create temporary table tt as select 1 as a", "select a from tt"),
        Dirt("prepare p from 'select 1'", "execute p"),
    ],
}
CASES = [pytest.param(server, dirt, id=f"{server}-{dirt.sql}") for server, dirts in DIRT.items() for dirt in dirts]


def answer(connection: Any, question: str) -> int:
    try:
        return int(ask(connection, question)[0][0] or 0)
    except Exception:
        return 0


class TestOnTheServer:
    @pytest.fixture(params=["url", "callable"])
    def how(self, request: pytest.FixtureRequest) -> str:
        how: str = request.param
        return how

    @pytest.fixture
    def make(self, request: pytest.FixtureRequest, how: str) -> Iterator[Callable[..., tuple[Db, Pool]]]:
        made: list[Any] = []

        def make(server: str, **options: Any) -> tuple[Db, Pool]:
            context = prepared(server_url(request, server), how)
            made.append(context)
            db = context.__enter__()
            return db, db.pool(max_size=1, **options)

        yield make
        for context in made:
            context.__exit__(None, None, None)

    @pytest.mark.parametrize(("server", "dirt"), CASES)
    @pytest.mark.parametrize("holder", ["scope", "connection", "transaction", "lease", "thread"])
    def test_the_next_borrower_gets_a_clean_session(
        self, make: Callable[..., tuple[Db, Pool]], server: str, dirt: Dirt, holder: str, how: str
    ) -> None:
        if dirt.sql == "set transaction read only" and holder == "transaction":
            holder = "scope"  # the server refuses it in a transaction
        db, pool = make(server, checkout="thread" if holder == "thread" else "operation")
        with pool.connection() as connection:
            before = db.session(connection)
        if holder in ("lease", "thread"):
            if holder == "lease":
                pool.lease()
            pool.execute(dirt.sql)
            pool.release()
        else:
            with getattr(pool, holder)():
                pool.execute(dirt.sql)
        assert pool.stats().in_use == 0
        with pool.connection() as connection:
            assert (db.session(connection) == before) is (how == "url")
            assert answer(connection, dirt.question) == 0
        pool.execute(db.insert(1))
        assert db.rows() == [1]

    def test_it_is_there_while_the_scope_lasts(self, make: Callable[..., tuple[Db, Pool]]) -> None:
        for server, dirts in DIRT.items():
            _, pool = make(server)
            for dirt in dirts:
                if "transaction" in dirt.sql:
                    continue
                with pool.scope():
                    pool.execute(dirt.sql)
                    with pool.connection() as connection:
                        found = answer(connection, dirt.question)
                    assert found == 1, dirt

    def test_table_locks_are_let_go_of(self, make: Callable[..., tuple[Db, Pool]]) -> None:
        db, pool = make("mariadb")
        with pool.scope():
            pool.execute(f"lock tables {db.table} write")
            pool.execute(db.insert(1))
        db.rows()  # would wait for the lock

    def test_set_transaction_is_the_next_transactions_own_in_its_scope(
        self, make: Callable[..., tuple[Db, Pool]]
    ) -> None:
        db, pool = make("mariadb")
        with pool.scope():
            pool.execute("set transaction read only")
            with pytest.raises(Exception, match="READ ONLY"), pool.transaction():
                pool.execute(db.insert(1))
        with pool.transaction():
            pool.execute(db.insert(1))
        assert db.rows() == [1]

    def test_what_ends_with_the_transaction_neither_pins_nor_resets(self, make: Callable[..., tuple[Db, Pool]]) -> None:
        _, pool = make("postgres")
        for statement in ("set local search_path = elsewhere", "set transaction read only"):
            pool.execute(statement)
            with pool.transaction():
                pool.execute(statement)
            with pool.scope():
                pool.execute(statement)
                assert pool.stats().in_use == 0
        with pool.connection() as connection:
            assert ask(connection, "show search_path")[0][0] == '"$user", public'
        assert pool.stats().opened == 1

    def test_a_mode_set_by_hand_holds_for_the_scope_and_no_longer(self, make: Callable[..., tuple[Db, Pool]]) -> None:
        db, pool = make("mariadb")
        with pool.scope():
            pool.execute("set autocommit = 0")
            pool.execute(db.insert(1))
            assert pool.in_transaction and db.rows() == []
            pool.execute("rollback")
            pool.execute(db.insert(2))
            pool.execute("commit")
        assert db.rows() == [2]
        pool.execute(db.insert(3))
        assert db.rows() == [2, 3]

    def test_a_thread_that_ends_with_it_leaves_a_clean_session(self, make: Callable[..., tuple[Db, Pool]]) -> None:
        _, pool = make("postgres")

        scope = pool.scope()

        def work() -> None:
            scope.__enter__()
            pool.execute("set search_path = elsewhere")

        in_thread(work)
        assert pool.execute("show search_path")[0][0] == '"$user", public'


def test_the_first_statement_of_a_pool_that_knows_no_driver_yet_is_as_safe(request: pytest.FixtureRequest) -> None:
    with create_pool(stock(server_url(request, "mariadb")), max_size=1) as pool:
        with pytest.raises(PoolMisuse, match="leaves something in the session"):
            pool.execute("set local sql_mode = 'ANSI_QUOTES'")


class TestThreadEnd:
    def test_a_thread_that_had_nothing_leaves_nothing(self) -> None:
        mailbox = Mailbox(())
        ThreadEnd(Hold(mailbox))
        gc.collect()
        assert not mailbox.notes

    def test_a_traceback_that_somebody_keeps_does_not_keep_the_lease(self, db_url: str) -> None:
        kept = []
        with prepared(db_url) as db:
            pool = db.pool(checkout="thread", max_size=1)

            def work() -> None:
                pool.execute("select 1")
                try:
                    pool.execute("select syntax error here")
                except Exception as error:
                    kept.append(error)

            in_thread(work)
            assert kept[0].__traceback__ is not None
            pool.execute("select 1", timeout=1)
            pool.release()
            kept.clear()


class TestQuestions:
    """What only the same session can answer: ``LAST_INSERT_ID()`` and its kind."""

    ASKING = {
        "postgresql": "select lastval()",
        "mariadb": "select last_insert_id()",
        "sqlite": "select last_insert_rowid()",
    }

    def test_where_nothing_holds_a_connection_they_are_refused(self, db_name: str, db_url: str) -> None:
        with create_pool(db_url, max_size=2) as pool:
            with pytest.raises(PoolMisuse, match="asks the session about an earlier one"):
                pool.execute(self.ASKING[db_name])
            with pool.scope(), pytest.raises(PoolMisuse, match="asks the session about an earlier one"):
                pool.execute(self.ASKING[db_name])
            assert pool.stats().in_use == 0

    def test_in_a_block_they_get_the_blocks_own_answer(self, db_name: str, db_url: str) -> None:
        with prepared(db_url) as db, db.pool(max_size=2) as pool, pool.transaction():
            if db_name == "postgresql":
                pool.execute("create temporary sequence counting")
                assert pool.execute("select nextval('counting')") == pool.execute("select lastval()")
            else:
                pool.execute(db.insert(7))
                assert len(pool.execute(self.ASKING[db_name])) == 1


def test_what_pins_is_told_once_for_each_statement(tmp_path: Path) -> None:
    told: list[str] = []
    observers = [lambda event: told.append(event.detail) if event.kind == "pinned" else None]
    with create_pool(f"sqlite:///{tmp_path}/pins.db", observers=observers) as pool:
        for _ in range(3):
            with pool.scope():
                pool.execute("pragma cache_size = 77")
                pool.execute("pragma cache_size = 78")  # it is pinned already
        with pool.scope():
            pool.execute("create temp table mine (id int)")
        with pool.connection():
            pool.execute("pragma cache_size = 79")  # a block holds it anyway
    assert len(told) == 2
    assert "PRAGMA" in told[0] and "TEMP" in told[1].upper()
    assert all("test_pin.py:" in one and "until the scope ends" in one for one in told)
    with create_pool(f"sqlite:///{tmp_path}/pins.db", checkout="thread", observers=observers) as pool, pool.scope():
        pool.execute("pragma cache_size = 77")
    assert len(told) == 2
