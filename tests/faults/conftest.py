"""What do the fault tests break? A server of each kind that nobody else uses, and the ways to it.

The server lives as long as the tests of this folder: restarting it costs less than starting one. Whatever a test did to
it, the next one finds it up, and the bank new.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import require
from tests.faults.bank import Bank, Site
from tests.servers import MariaDB, Postgres, Server

KINDS: dict[str, type[Server]] = {"postgresql": Postgres, "mariadb": MariaDB}
MODULES = {"postgresql": "psycopg2", "mariadb": "pymysql"}


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


@pytest.fixture(params=["postgresql", "postgresql-tls", "mariadb", "mariadb-tls"])
def any_bank(request: pytest.FixtureRequest, breakable: Callable[[str], Server]) -> Bank:
    """A new bank, reached plainly and through TLS: for what happens to a socket."""
    kind, _, tls = request.param.partition("-")
    return Bank(Site(breakable(kind), tls=bool(tls)))


@pytest.fixture(params=["psycopg2", "psycopg", "pymysql"])
def driver_bank(request: pytest.FixtureRequest, breakable: Callable[[str], Server]) -> Bank:
    """A new bank, reached plainly, by each driver: for what a client does when the wire is to blame."""
    return _reached_by(request.param, breakable, tls=False)


@pytest.fixture(params=["psycopg2", "psycopg", "pymysql"])
def tls_bank(request: pytest.FixtureRequest, breakable: Callable[[str], Server]) -> Bank:
    """A new bank, reached through TLS, by each driver."""
    return _reached_by(request.param, breakable, tls=True)


def _reached_by(driver: str, breakable: Callable[[str], Server], tls: bool) -> Bank:
    pytest.importorskip(driver)
    return Bank(Site(breakable("mariadb" if driver == "pymysql" else "postgresql"), tls=tls, driver=driver))


@pytest.fixture(autouse=True)
def _quiet_log(caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL, "threadpool_db")
