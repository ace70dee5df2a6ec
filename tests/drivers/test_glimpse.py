"""What can another thread see of a connection while its borrower is in the middle of a call? Each driver, on its real
server."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from tests.drivers import ask, failing, opened
from tests.faults.bank import eventually
from tests.scene import SOON, background
from threadpool_db import create_pool
from threadpool_db.drivers.base import BUSY, FAILED, IDLE, OPEN, UNKNOWN
from threadpool_db.drivers.choose import driver_for
from threadpool_db.drivers.dbapi import Dbapi

NAPS = {"postgresql": "select pg_sleep(60)", "mysql": "select sleep(60)"}
#: holds sqlite3's own lock all the while
COUNTING = "with recursive n(x) as (select 1 union all select x + 1 from n) select count(*) from n"


def test_it_is_seen_whether_a_transaction_is_open(any_db_url):
    driver = driver_for(any_db_url)
    with opened(driver) as connection:
        driver.set_autocommit(connection, True)
        ask(connection, "select 1")
        assert driver.glimpse(connection) is IDLE
        driver.begin(connection)
        ask(connection, "select 1")
        assert background(driver.glimpse, connection).result(SOON) is OPEN
        failing(connection, "select syntax error here")  # whose answer is here: it is in no statement
        assert driver.glimpse(connection) in (OPEN, FAILED)
        driver.rollback(connection)
        assert driver.glimpse(connection) is IDLE
        driver.ping(connection)
        assert driver.glimpse(connection) is IDLE


def test_a_closed_one_shows_nothing(any_db_url):
    driver = driver_for(any_db_url)
    with opened(driver) as connection:
        driver.close(connection)
        assert driver.glimpse(connection) is UNKNOWN


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
def test_a_statement_is_seen_and_not_waited_for(any_db_url, inside):
    nap = NAPS.get(any_db_url.partition(":")[0].partition("+")[0])
    if nap is None:
        pytest.skip("SQLite does not tell")
    with create_pool(any_db_url, max_size=1, timeout=0) as pool:
        lease = pool.checkout(timeout=SOON)
        connection, driver = lease.connection, pool._upkeep.driver
        driver.set_autocommit(connection, True)
        if inside:
            driver.begin(connection)
        napping = background(failing, connection, nap)
        eventually(lambda: driver.glimpse(connection) is BUSY, "the statement has begun")
        begun = time.monotonic()
        (hold,) = pool.stats().holders
        assert time.monotonic() - begun < 1
        assert (hold.in_statement, hold.in_transaction) == (True, None)
        assert ", in a statement" in str(hold)
        pool._upkeep.cut(lease._claim.entry)
        napping.result(SOON)
        lease.discard()


def test_sqlite_is_looked_at_in_the_middle_of_a_statement(tmp_path):
    driver = driver_for(f"sqlite:///{tmp_path}/test.db")
    with opened(driver) as connection:
        ask(connection, "begin")
        counting = background(failing, connection, COUNTING)
        begun = time.monotonic()
        while time.monotonic() - begun < 0.2:  # long enough for it to be in it
            assert driver.glimpse(connection) is OPEN
        assert not counting.done()
        driver.interrupt(connection)
        with suppress(Exception):
            counting.result(SOON)


def test_what_libpq_is_freeing_is_not_read():
    pytest.importorskip("psycopg2")

    class Closing:
        closed = 1

        def get_transaction_status(self) -> int:
            raise AssertionError("it may be gone by now")

    assert driver_for("postgresql://nowhere/db").glimpse(Closing()) is UNKNOWN


def test_an_answer_of_256_packets_is_an_answer():
    pytest.importorskip("pymysql")

    class Answered:
        open, told, server_status = True, True, 0
        _result, _next_seq_id = object(), 1

    assert driver_for("mysql://nowhere/db").glimpse(Answered()) is IDLE
    Answered._result = None
    assert driver_for("mysql://nowhere/db").glimpse(Answered()) is BUSY
    Answered.open = False
    assert driver_for("mysql://nowhere/db").glimpse(Answered()) is UNKNOWN


def test_a_driver_that_knows_nothing_says_nothing(tmp_path):
    driver = Dbapi(lambda: None)
    assert driver.glimpse(object()) is UNKNOWN
