"""What may a test ask for: which database, which private server, which broken network?

    db_url                          a URL; the test runs once for each database of setup.cfg (or each --db NAME)
    any_db_url                      the same, and once more for each further driver of setup.cfg
    postgres, mariadb, pgbouncer    a server of the whole session: leave it up, and your tables behind nobody's back
    proxy(port)                     a FaultProxy before that port, closed when the test ends

A test that kills or restarts a server takes its own: `with Postgres() as server`. Where a server's programs are missing
a test is skipped, under CI=true it fails. Only pytest is imported here: tests of core and shell also run on
Pythons that have nothing else.
"""

from __future__ import annotations

import configparser
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Formatter

import pytest

from tests.servers import FaultProxy, MariaDB, PgBouncer, Postgres, Server, missing_programs

SERVER_FIXTURES = {"postgresql": "postgres", "mariadb": "mariadb", "pgbouncer": "pgbouncer"}
"""A placeholder of setup.cfg, and the fixture whose server's host:port it stands for."""

databases_key = pytest.StashKey[dict[str, str]]()
any_databases_key = pytest.StashKey[dict[str, str]]()


def read_databases(path: Path, table: str = "db") -> dict[str, str]:
    """A table of setup.cfg: name to URL, placeholders not yet filled in."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(path)
    return dict(parser[table]) if parser.has_section(table) else {}


def placeholders(url: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(url) if name is not None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--db", action="append", metavar="NAME", help="a database of setup.cfg's [db]; all if not given")


def pytest_configure(config: pytest.Config) -> None:
    usual = read_databases(config.rootpath / "setup.cfg")
    known = usual | read_databases(config.rootpath / "setup.cfg", "drivers")
    for name, url in known.items():
        for unknown in set(placeholders(url)) - {"tmp", *SERVER_FIXTURES}:
            raise pytest.UsageError(f"setup.cfg: {name} has an unknown placeholder {{{unknown}}}")
    chosen: list[str] = config.getoption("--db") or []
    for name in chosen:
        if name not in known:
            raise pytest.UsageError(f"--db {name}: setup.cfg's [db] has {', '.join(known) or 'nothing'}")
    config.stash[databases_key] = {name: known[name] for name in chosen or usual}
    config.stash[any_databases_key] = {name: known[name] for name in chosen or known}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    stash = metafunc.config.stash
    for name, databases in (("db_name", stash[databases_key]), ("any_db_name", stash[any_databases_key])):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, list(databases))


@pytest.fixture
def db_url(db_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """One of the chosen databases; its private server is up, its SQLite file is the test's own."""
    return fill_in(request.config.stash[databases_key][db_name], request, tmp_path)


@pytest.fixture
def any_db_url(any_db_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """As db_url, and by way of the other drivers too."""
    return fill_in(request.config.stash[any_databases_key][any_db_name], request, tmp_path)


def fill_in(url: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    values: dict[str, str] = {"tmp": str(tmp_path)}
    for name in placeholders(url):
        if name in SERVER_FIXTURES:
            values[name] = request.getfixturevalue(SERVER_FIXTURES[name]).address
    return url.format(**values)


def require(kind: type[Server]) -> None:
    """Skip the test where this server's programs are missing; fail it under CI=true, where they must not be."""
    if missing := missing_programs(kind):
        line = f"{kind.__name__} is not on this machine ({', '.join(missing)}); Debian has it in {kind.package}"
        if os.environ.get("CI") == "true":
            pytest.fail(line, pytrace=False)
        pytest.skip(line)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    require(Postgres)
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    require(MariaDB)
    with MariaDB() as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    require(PgBouncer)
    with PgBouncer(postgres) as server:
        yield server


@pytest.fixture
def proxy() -> Iterator[Callable[[int], FaultProxy]]:
    """A maker of fault proxies: proxy(postgres.port)."""
    made: list[FaultProxy] = []

    def make(port: int) -> FaultProxy:
        made.append(FaultProxy(port))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(autouse=True)
def _logs_are_on() -> None:
    """Alembic's env.py reads a logging configuration, which turns off every logger that it does not name."""
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("threadpool_db") and isinstance(logger, logging.Logger):
            logger.disabled = False
