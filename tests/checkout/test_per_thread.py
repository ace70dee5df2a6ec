"""Does ``checkout="thread"`` keep a connection for its thread, from the first operation until the thread lets go?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.checkout import Db, Other, in_thread, prepared, server_url
from tests.drivers import ask, failing
from threadpool_db import Pool, PoolTimeout
from threadpool_db.checkout.per_thread import keeps
from threadpool_db.checkout.pin import Hold
from threadpool_db.testing import FakeClock
from threadpool_db.waiting import Mailbox


@pytest.fixture
def db(db_url: str) -> Iterator[Db]:
    with prepared(db_url) as db:
        yield db


@pytest.fixture(params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Db]:
    """Only the databases behind a socket: nobody else could end a session of SQLite."""
    with prepared(server_url(request, request.param)) as db:
        yield db


@pytest.fixture
def pool(db: Db) -> Pool:
    return db.pool(checkout="thread", max_size=2)


@pytest.fixture
def other() -> Iterator[Other]:
    with closing(Other()) as other:
        yield other


def session(pool: Pool, db: Db) -> int:
    with pool.connection() as connection:
        number: int = db.session(connection)
        return number


def test_the_first_operation_borrows_and_the_thread_keeps_the_connection(pool: Pool) -> None:
    for _ in range(100):
        pool.execute("select 1")
        assert pool.stats().in_use == 1
    assert pool.stats().checkouts == 1
    pool.release()


def test_each_thread_has_another_connection(pool: Pool, db: Db, other: Other) -> None:
    for _ in range(2):
        pool.execute("select 1")
        other(lambda: pool.execute("select 1"))
    assert pool.stats().in_use == 2
    mine, theirs = session(pool, db), other(lambda: session(pool, db))
    assert mine != theirs
    assert session(pool, db) == mine and other(lambda: session(pool, db)) == theirs
    pool.release()
    assert pool.stats().in_use == 1


def test_blocks_alone_make_nothing_sticky(pool: Pool) -> None:
    with pool.connection():
        pass
    with pool.transaction():
        pass
    with pool.scope(), pool.connection():
        pass
    assert pool.stats().in_use == 0


def test_an_operation_in_a_block_neither(pool: Pool) -> None:
    with pool.connection():
        pool.execute("select 1")
    assert pool.stats().in_use == 0


def test_blocks_use_the_connection_that_the_thread_keeps(pool: Pool, db: Db) -> None:
    pool.execute("select 1")
    kept = session(pool, db)
    with pool.transaction() as connection:
        assert db.session(connection) == kept
        ask(connection, db.insert(1))
    assert pool.stats().in_use == 1
    assert db.rows() == [1]
    pool.release()


def test_the_end_of_the_scope_lets_go_and_the_next_operation_borrows_again(pool: Pool) -> None:
    for number in (1, 2):
        with pool.scope():
            pool.execute("select 1")
            pool.execute("select 1")
        assert (pool.stats().in_use, pool.stats().checkouts) == (0, number)


def test_nobody_takes_it_away(db: Db, other: Other) -> None:
    pool = db.pool(checkout="thread", max_size=1)
    pool.execute("select 1")
    with pytest.raises(PoolTimeout, match='use checkout="operation"'):
        other(lambda: pool.execute("select 1", timeout=0))
    pool.release()
    other(lambda: pool.execute("select 1", timeout=0))


def test_in_its_session_state_stays_where_the_thread_left_it(pool: Pool, other: Other) -> None:
    pool.execute("create temporary table t_thread (a int)")
    pool.execute("insert into t_thread values (1)")
    assert len(pool.execute("select * from t_thread")) == 1
    pool.release()
    with pytest.raises(Exception, match="t_thread"):
        pool.execute("select * from t_thread")
    pool.release()


def test_a_block_that_leaves_another_mode_does_not_leave_it_to_the_next_operation(pool: Pool, db: Db) -> None:
    pool.execute("select 1")
    with pool.connection() as connection:
        made = db.made_by.autocommit(connection)
        db.made_by.set_autocommit(connection, not made)
    with pool.connection() as connection:
        assert db.made_by.autocommit(connection) is made
    pool.execute(db.insert(1))
    assert db.rows() == [1]
    pool.release()


def test_a_failed_operation_leaves_the_thread_its_connection(pool: Pool, db: Db) -> None:
    pool.execute(db.insert(1))
    with pytest.raises(Exception, match=r"."):
        pool.execute(db.insert(1))
    pool.execute(db.insert(2))
    assert (pool.stats().opened, pool.stats().checkouts) == (1, 1)
    pool.release()


def test_what_a_thread_keeps_after_an_operation() -> None:
    hold = Hold(Mailbox(()))
    assert keeps(hold)
    assert hold.sticky


class TestDeath:
    def test_killed_between_two_operations_it_is_replaced_without_an_error(self, server: Db) -> None:
        pool = server.pool(checkout="thread", max_size=1)
        pool.execute("select 1")
        with pool.transaction() as connection:
            number = server.session(connection)
        server.kill_session(number, connection)
        pool.execute(server.insert(1))
        assert server.rows() == [1]
        assert pool.stats().opened == 2 and pool.stats().in_use == 1
        pool.release()

    @pytest.mark.parametrize("kind", ["connection", "transaction", "lease"])
    def test_and_so_it_is_for_whatever_comes_next(self, server: Db, kind: str) -> None:
        pool = server.pool(checkout="thread", max_size=1)
        pool.execute("select 1")
        with pool.connection() as connection:
            number = server.session(connection)
        server.kill_session(number, connection)
        if kind == "lease":
            ask(pool.lease().connection, "select 1")
        else:
            with getattr(pool, kind)() as connection:
                ask(connection, "select 1")
        pool.lease().connection.rollback()
        pool.release()
        assert pool.stats().in_use == 0

    def test_killed_inside_a_transaction_the_drivers_error_comes_through_and_the_thread_works_again(
        self, server: Db
    ) -> None:
        pool = server.pool(checkout="thread", max_size=1)
        with pytest.raises(Exception) as caught:
            with pool.transaction() as connection:
                pool.execute(server.insert(1))
                server.kill(connection)
                pool.execute(server.insert(2))
        assert type(caught.value).__module__.partition(".")[0] in ("psycopg2", "pymysql")
        assert not pool.in_transaction
        pool.execute(server.insert(3))
        assert server.rows() == [3]
        pool.release()

    def test_killed_inside_a_handwritten_transaction_likewise(self, server: Db) -> None:
        pool = server.pool(checkout="thread", max_size=1)
        pool.execute("begin")
        with pool.connection() as connection:
            server.kill(connection)
        with pytest.raises(Exception) as caught:
            pool.execute(server.insert(2))
        assert type(caught.value).__module__.partition(".")[0] in ("psycopg2", "pymysql")
        assert not pool.in_transaction
        pool.execute(server.insert(3))
        assert server.rows() == [3]
        pool.release()

    def test_a_commit_that_finds_the_session_dead_raises_and_the_thread_works_again(self, server: Db) -> None:
        pool = server.pool(checkout="thread", max_size=1)
        pool.execute("select 1")
        with pytest.raises(Exception, match=r"."):
            with pool.transaction() as connection:
                pool.execute(server.insert(1))
                server.kill(connection)
        pool.execute(server.insert(3))
        assert server.rows() == [3]
        pool.release()

    def test_one_that_lease_handed_out_is_not_replaced_behind_its_users_back(self, server: Db) -> None:
        pool = server.pool(checkout="thread", max_size=1)
        lease = pool.lease()
        connection = lease.connection
        number = server.session(connection)
        connection.rollback()
        server.kill_session(number, connection)
        with pytest.raises(Exception, match=r"."):
            pool.execute("select 1")
        pool.execute("select 1")
        assert not lease.active
        pool.release()

    def test_lease_itself_replaces_it(self, server: Db) -> None:
        pool = server.pool(checkout="thread", max_size=1)
        lease = pool.lease()
        connection = lease.connection
        number = server.session(connection)
        connection.rollback()
        server.kill_session(number, connection)
        failing(connection, "select 1")
        assert not pool.in_transaction
        again = pool.lease()
        assert again is not lease and not lease.active
        ask(again.connection, "select 1")
        again.connection.rollback()
        pool.release()

    def test_release_of_a_dead_one_works(self, server: Db) -> None:
        pool = server.pool(checkout="thread", max_size=1)
        connection = pool.lease().connection
        server.kill(connection)
        failing(connection, "select 1")
        pool.release()
        assert pool.stats().total == 0

    def test_after_long_silence_the_server_is_asked(self, server: Db) -> None:
        clock = FakeClock()
        pool = server.pool(checkout="thread", max_size=1, clock=clock, ping_after=30.0)
        pool.execute("select 1")
        with pool.connection() as connection:
            asked = []
            count = "show session status like 'Com_admin_commands'"
            if server.name == "pymysql":
                asked.append(int(ask(connection, count)[0][1]))
        clock.advance(31.0)
        pool.execute("select 1")
        if server.name == "pymysql":
            with pool.connection() as connection:
                asked.append(int(ask(connection, count)[0][1]))
            assert asked[1] > asked[0]
        pool.release()

    def test_a_thread_that_ends_leaves_its_connection_clean_to_the_next(self, db: Db) -> None:
        pool = db.pool(checkout="thread", max_size=1)

        def work() -> int:
            pool.execute("create temporary table t_thread (a int)")
            with pool.transaction():
                pool.execute(db.insert(1))
            pool.execute("begin")
            pool.execute(db.insert(2))
            return session(pool, db)

        theirs = in_thread(work)
        with pytest.raises(Exception, match="t_thread"):
            pool.execute("select * from t_thread")
        assert db.rows() == [1]
        if db.name != "sqlite":
            assert session(pool, db) == theirs
        pool.release()

    def test_a_thread_that_ends_in_the_middle_of_a_block_loses_the_connection(self, db: Db) -> None:
        pool = db.pool(checkout="thread", max_size=1)
        pool.execute("select 1")
        pool.release()

        def numbers() -> Iterator[int]:
            with pool.transaction():
                pool.execute(db.insert(1))
                yield 1

        rows = numbers()
        in_thread(lambda: next(rows))
        rows.close()  # type: ignore[attr-defined]
        assert pool.stats().total == 0
        pool.execute(db.insert(2))
        assert db.rows() == [2]
        pool.release()
