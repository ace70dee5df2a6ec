"""Does anybody notice when the server ends every session behind an idle pool?"""

from __future__ import annotations

import pytest

from tests.conftest import require
from tests.drivers import ask, wait_for_goodbye
from tests.scene import background, join
from tests.servers import MariaDB, Postgres
from threadpool_db import Pool, create_pool

SIZE = 10
OPERATIONS = 100
KILL = {
    "psycopg2": "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() "
    "and backend_type = 'client backend' and application_name = 'the_victims'",
    "pymysql": "select concat('kill ', id) from information_schema.processlist where user = 'the_victims'",
}


def filled(url: str) -> tuple[Pool, list[int]]:
    """A pool with all its connections open and idle, and their sockets."""
    pool = create_pool(url, max_size=SIZE)
    leases = [pool.checkout() for _ in range(SIZE)]
    sockets = [pool._upkeep.driver.descriptor(lease.connection) for lease in leases]
    for lease in leases:
        lease.checkin()
    assert pool.stats().idle == SIZE
    return pool, sockets


def assert_nobody_noticed(pool: Pool) -> None:
    for _ in range(OPERATIONS):
        assert pool.execute("select 1") == [(1,)]
    stats = pool.stats()
    # the last one used comes first: one at a time, an operation meets them all only as it needs them
    assert 1 <= stats.dead <= SIZE
    assert (stats.timeouts, stats.connect_failures, stats.in_use) == (0, 0, 0)


def assert_no_thread_noticed(pool: Pool) -> None:
    def some():
        return [pool.execute("select 1") for _ in range(OPERATIONS // 10)]

    answers = join(*[background(some) for _ in range(10)])
    assert answers == [[[(1,)]] * (OPERATIONS // 10)] * 10
    assert pool.stats().in_use == 0


@pytest.mark.parametrize("look", [assert_nobody_noticed, assert_no_thread_noticed])
def test_postgresql_ends_every_session_and_the_next_operations_all_succeed(postgres, look):
    psycopg2 = pytest.importorskip("psycopg2")
    pool, sockets = filled(f"{postgres.url}?application_name=the_victims")
    with pool:
        killer = psycopg2.connect(postgres.url)
        assert len(ask(killer, KILL["psycopg2"])) == SIZE
        killer.close()
        for socket in sockets:
            wait_for_goodbye(socket)
        look(pool)


@pytest.mark.parametrize("look", [assert_nobody_noticed, assert_no_thread_noticed])
def test_mariadb_ends_every_session_and_the_next_operations_all_succeed(mariadb, look):
    pymysql = pytest.importorskip("pymysql")
    killer = pymysql.connect(host=mariadb.host, port=mariadb.port, user="root", database="test", ssl_disabled=True)
    ask(killer, "create or replace user the_victims")
    ask(killer, "grant all on test.* to the_victims")
    pool, sockets = filled(f"mysql://the_victims@{mariadb.address}/test")
    with pool:
        orders = ask(killer, KILL["pymysql"])
        assert len(orders) == SIZE
        for (order,) in orders:
            ask(killer, order)
        for socket in sockets:
            wait_for_goodbye(socket)
        look(pool)
    ask(killer, "drop user the_victims")
    killer.close()


@pytest.mark.parametrize(("kind", "module"), [(Postgres, "psycopg2"), (MariaDB, "pymysql")])
def test_a_server_that_crashed_and_came_back_is_not_noticed(kind, module):
    pytest.importorskip(module)
    require(kind)
    with kind() as server:
        pool, sockets = filled(server.url)
        with pool:
            server.kill()
            for socket in sockets:
                wait_for_goodbye(socket)
            server.restart()
            assert_nobody_noticed(pool)
