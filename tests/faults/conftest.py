"""What do the fault tests break? A server of each kind that nobody else uses, and the ways to it.

The server lives as long as the tests of this folder: restarting it costs less than starting one. Whatever a test did to
it, the next one finds it up, and the bank new.

Every pool that a test makes is timed, see ``bounds``. A test in which one was late is tried again, all of it: the
machine may be busy. In the proof most of the rounds must then be in time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from tests.conftest import require
from tests.faults import bounds
from tests.faults.bank import Bank, Site
from tests.servers import MariaDB, Postgres, Server
from threadpool_db import ConnectionPool
from threadpool_db.testing import FakeClock

HERE = Path(__file__).parent
KINDS: dict[str, type[Server]] = {"postgresql": Postgres, "mariadb": MariaDB}
MODULES = {"postgresql": "psycopg2", "mariadb": "pymysql"}
DRIVERS = ["psycopg2", "psycopg", "pymysql"]


@pytest.fixture(scope="package")
def breakable() -> Iterator[Callable[[str], Server]]:
    """The server of a kind, up. It speaks TLS with whoever asks for it."""
    servers: dict[str, Server] = {}

    def get(kind: str) -> Server:
        pytest.importorskip(MODULES[kind])
        require(KINDS[kind])
        if kind not in servers:
            servers[kind] = KINDS[kind](tls=True).start()
        if not servers[kind].running:
            servers[kind].restart()
        return servers[kind]

    yield get
    for server in servers.values():
        server.stop()


@pytest.fixture(params=["postgresql", "mariadb"])
def bank(request: pytest.FixtureRequest, breakable: Callable[[str], Server]) -> Bank:
    """A new bank, reached plainly."""
    return Bank(Site(breakable(request.param), tls=False))


def in_proof(*params: str) -> list[Any]:
    return [pytest.param(param, marks=pytest.mark.proof) for param in params]


#: In CI one server is reached plainly and the other through TLS, in the proof each in all ways.
EITHER_WAY = ["postgresql", "mariadb-tls", *in_proof("postgresql-tls", "mariadb")]


@pytest.fixture(params=[*EITHER_WAY, *in_proof("psycopg", "psycopg-tls")])
def any_bank(request: pytest.FixtureRequest, breakable: Callable[[str], Server]) -> Bank:
    """A new bank, reached plainly and through TLS: for what happens to a socket."""
    return _reached_by(request.param, breakable)


@pytest.fixture(params=["postgresql", "mariadb", *in_proof("postgresql-tls", "mariadb-tls", "psycopg-tls")])
def bank_or_tls(request: pytest.FixtureRequest, breakable: Callable[[str], Server]) -> Bank:
    """A new bank, reached plainly; in the proof through TLS too."""
    return _reached_by(request.param, breakable)


@pytest.fixture(params=["psycopg2", "pymysql", *in_proof("psycopg")])
def driver_bank(request: pytest.FixtureRequest, breakable: Callable[[str], Server]) -> Bank:
    """A new bank, reached plainly, by each driver: for what a client does when the wire is to blame."""
    return _reached_by(request.param, breakable)


@pytest.fixture(params=["psycopg2-tls", *in_proof("psycopg-tls", "pymysql-tls")])
def tls_bank(request: pytest.FixtureRequest, breakable: Callable[[str], Server]) -> Bank:
    """A new bank, reached through TLS, by each driver."""
    return _reached_by(request.param, breakable)


@pytest.fixture(params=["psycopg2", "pymysql", *in_proof("psycopg", *(f"{driver}-tls" for driver in DRIVERS))])
def wired_bank(request: pytest.FixtureRequest, breakable: Callable[[str], Server]) -> Bank:
    """A new bank, reached by each driver; in the proof through TLS too, which holds back what it has not got whole."""
    return _reached_by(request.param, breakable)


def _reached_by(way: str, breakable: Callable[[str], Server]) -> Bank:
    """``way``: a kind of server or a driver, and whether through TLS."""
    name, _, tls = way.partition("-")
    driver = MODULES.get(name, name)
    pytest.importorskip(driver)
    return Bank(
        Site(
            breakable("mariadb" if driver == "pymysql" else "postgresql"),
            tls=bool(tls),
            driver="" if name in MODULES else name,
        )
    )


@pytest.fixture(autouse=True)
def _quiet_log(caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL, "threadpool_db")


# In time? -------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pool, however it is made. Not one whose time the test makes itself."""
    make = ConnectionPool.__init__

    def make_timed(pool: Any, *args: Any, **options: Any) -> None:
        make(pool, *args, **options)
        if not isinstance(pool._clock, FakeClock):
            bounds.time_pool(pool)

    monkeypatch.setattr(ConnectionPool, "__init__", make_timed)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    bounds.begin()
    yield
    bounds.check()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
    report = yield
    report.late = call.excinfo is not None and isinstance(call.excinfo.value, bounds.Late)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Only a test that was late, and nothing else, gets another try, from its fixtures on."""
    if not item.path.is_relative_to(HERE):
        return None  # a conftest's hook hears of every test
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    rounds, in_time = 0, 0
    while True:
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        rounds += 1
        failed = [report for report in reports if report.failed]
        if failed and not all(getattr(report, "late", False) for report in failed):
            break
        in_time += not failed
        needed = 1 if rounds == in_time or "proof" not in item.keywords else (bounds.ROUNDS + 1) // 2
        if in_time >= needed or rounds - in_time > bounds.ROUNDS - needed:
            break
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
