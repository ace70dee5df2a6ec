"""What does whoever holds on for too long meet, in each way of borrowing and on each database?"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from tests.checkout import Db, prepared
from tests.drivers import ask
from tests.faults.bank import Watcher
from threadpool_db import LeaseExpired, Pool

LIMIT = 0.3


@pytest.fixture
def db(db_url: str) -> Iterator[Db]:
    with prepared(db_url) as db:
        yield db


@pytest.fixture
def expiry() -> Watcher:
    return Watcher()


@pytest.fixture
def pool(db: Db, expiry: Watcher) -> Iterator[Pool]:
    pool = db.pool(max_size=1, max_lease=LIMIT, observers=[expiry])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield pool
    pool.release()
    assert (pool.stats().expired, pool.stats().in_use) == (1, 0)


def test_a_transaction_that_ends_well_but_too_late_is_not_committed(pool: Pool, db: Db, expiry: Watcher) -> None:
    with pytest.raises(LeaseExpired, match=f"test_max_lease.py.*max_lease={LIMIT:g} s"), pool.transaction():
        pool.execute(db.insert(1))
        expiry.wait_for("disconnected")
    pool.execute(db.insert(2))
    assert db.rows() == [2]


def test_the_error_of_an_inner_one_passes_the_outer_one_unchanged(pool: Pool, db: Db, expiry: Watcher) -> None:
    with pytest.raises(LeaseExpired), pool.transaction():
        pool.execute(db.insert(1))
        with pool.transaction():
            expiry.wait_for("disconnected")
    pool.execute(db.insert(2))
    assert db.rows() == [2]


def test_an_operation_in_its_block_says_so(pool: Pool, db: Db, expiry: Watcher) -> None:
    with pool.connection():
        expiry.wait_for("disconnected")
        with pytest.raises(LeaseExpired, match=f"max_lease={LIMIT:g} s"):
            pool.execute(db.insert(1))
    assert db.rows() == []


def test_a_block_that_is_left_too_late_is_silent_and_the_next_one_is_another_connection(
    pool: Pool, db: Db, expiry: Watcher
) -> None:
    with pool.connection() as connection:
        ask(connection, db.insert(1))
        expiry.wait_for("disconnected")
    with pool.connection() as other:
        assert other is not connection
        ask(other, db.insert(2))
        other.commit()
    assert db.rows() == [2]


def test_a_lease_may_be_given_back_too_late_in_silence(pool: Pool, db: Db, expiry: Watcher) -> None:
    lease = pool.checkout()
    expiry.wait_for("disconnected")
    with pytest.raises(LeaseExpired, match=r"test_max_lease\.py"):
        _ = lease.connection
    lease.checkin()
    assert pool.execute(db.select) == []
