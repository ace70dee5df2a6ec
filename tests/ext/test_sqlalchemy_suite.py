"""Do SQLAlchemy's own tests notice that QueuePool is gone? Each file is run with both pools, and what one passes the
other must pass: but for what looks into QueuePool's private attributes."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from tests.conftest import require
from tests.ext import sqlalchemy_suite
from tests.ext.sqlalchemy_suite import ALL_FILES, FILES, OURS, SERVERS, STOCK


def assert_no_difference(database: str, files: Sequence[str], least: int) -> None:
    server = SERVERS.get(database)
    if server is not None:
        require(server.kind)
    try:
        sqlalchemy_suite.tests()
    except FileNotFoundError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    stock = sqlalchemy_suite.run(files, STOCK, server)
    ours = sqlalchemy_suite.run(files, OURS, server)
    # QueuePool's failures are SQLAlchemy's affair, or this machine's
    assert not ours.failed - stock.failed, ours.output
    assert not sqlalchemy_suite.missing(stock, ours)
    # the private ones, by their names; in SQLite's case one more that is refused on purpose
    assert len(stock.passed - ours.passed) == 12 + (files is ALL_FILES and server is None)
    assert len(ours.passed) >= least and ours.checkouts > 1000


@pytest.mark.timeout(500)
@pytest.mark.parametrize("database", ["postgresql", pytest.param("sqlite", marks=pytest.mark.proof)])
def test_the_pool_and_reconnect_tests_pass_as_with_queuepool(database: str) -> None:
    assert_no_difference(database, FILES, least=180)


@pytest.mark.proof
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("database", ["sqlite", *SERVERS])
def test_all_that_use_a_pool_pass_as_with_queuepool(database: str) -> None:
    assert_no_difference(database, ALL_FILES, least=1800)
