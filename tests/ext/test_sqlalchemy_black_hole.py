"""What does a server that swallows everything cost an engine's threads? Whoever connects, as long as the driver lets a
connect take; everybody else, his ``pool_timeout``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import create_engine, exc

from tests.ext.conftest import waiting
from tests.proxy import FaultProxy
from tests.scene import background
from threadpool_db.ext.sqlalchemy import ThreadPool

#: Whole seconds, and the least that libpq takes. PyMySQL's own ends with the TCP connect, before it reads the greeting.
CONNECT_TIMEOUT = 2
LIMITS = {
    "postgresql+psycopg2://postgres@{}/postgres": {"connect_timeout": CONNECT_TIMEOUT},
    "mysql+pymysql://root@{}/test": {"connect_timeout": CONNECT_TIMEOUT, "read_timeout": CONNECT_TIMEOUT},
}
PATIENCE = 0.5
SLACK = 0.05  # of the pool's; the driver's limit is its own to keep
ROUNDS = 5


def seconds_of(call: Callable[[], Any], error: type[Exception]) -> float:
    started = time.monotonic()
    with pytest.raises(error):
        call()
    return time.monotonic() - started


@pytest.mark.parametrize("driver", LIMITS)
def test_one_waits_for_the_driver_and_the_others_for_their_own_timeout(
    driver: str, request: pytest.FixtureRequest, proxy: Callable[[int], FaultProxy]
) -> None:
    server = request.getfixturevalue("postgres" if driver.startswith("postgresql") else "mariadb")
    hole = proxy(server.port)
    hole.set(mode="blackhole")
    engine = create_engine(
        driver.format(hole.address),
        poolclass=ThreadPool,
        pool_size=3,
        max_overflow=0,
        max_connecting=1,
        pool_timeout=PATIENCE,
        connect_args=LIMITS[driver],
    )
    pool = engine.pool
    assert isinstance(pool, ThreadPool)
    overruns = []
    for _ in range(ROUNDS):  # what the machine adds varies, what the pool adds does not
        connecting = background(seconds_of, engine.connect, exc.DBAPIError)
        while pool.stats().counts.opening < 1:
            assert not connecting.done()
            time.sleep(0.001)
        others = [background(seconds_of, engine.connect, exc.TimeoutError) for _ in range(3)]
        waiting(pool, 3)
        waited = [other.result(10) for other in others]
        assert min(waited) >= PATIENCE - SLACK
        assert connecting.result(10) <= CONNECT_TIMEOUT + 1
        overruns.append(max(waited) - PATIENCE)
        if overruns[-1] <= SLACK:
            break
    assert min(overruns) <= SLACK, overruns
    hole.set(mode="pass")
    with engine.connect() as connection:
        connection.exec_driver_sql("select 1")
    stats = pool.stats()
    assert (stats.in_use, stats.waiting, stats.counts.opening) == (0, 0, 0)
    engine.dispose()
