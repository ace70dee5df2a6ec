"""Does SQLAlchemy's own suite notice that QueuePool is gone? Its pool and reconnect tests, with ThreadPool instead.

    python -m tests.ext.sqlalchemy_suite [--on postgresql] [--pool ThreadPool] [file or pytest option ...]

The tests come from the source release of the SQLAlchemy that is installed, fetched once through pip and kept under
.venv; run are the tests, against the installed code. In the process that runs them this file is a pytest plugin: it
puts the class in place before anything of SQLAlchemy's suite is imported, because decorators there hold QueuePool.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy

from tests.servers import MariaDB, Postgres, Server

ROOT = Path(__file__).resolve().parent.parent.parent
STOCK, OURS = "QueuePool", "ThreadPool"

FILES = ("test/engine/test_pool.py", "test/engine/test_reconnect.py")
#: those where a connection's life or a transaction's end is the question, or many connections are used
ALL_FILES = (
    "test/dialect/test_suite.py",
    "test/engine/test_execute.py",
    *FILES,
    "test/engine/test_transaction.py",
    "test/engine/test_logging.py",
)

#: Tests of how QueuePool is made, not of what it does: twelve items, one or two for each name here.
PRIVATE = {
    "PoolTest::test_recreate_state[QueuePool": "wants a copy's attributes equal, all but QueuePool's lock",
    "QueuePoolTest::test_overflow_reset_on_failed_connect": "reads _overflow",
    "QueuePoolTest::test_error_on_pooled_reconnect_cleanup_invalidate": "reads _overflow and the queue in _pool",
    "QueuePoolTest::test_error_on_pooled_reconnect_cleanup_recycle": "reads _overflow and the queue in _pool",
    "QueuePoolTest::test_error_on_pooled_reconnect_cleanup_wcheckout_event": "reads _overflow and the queue in _pool",
    "QueuePoolTest::test_connect_handler_not_called_for_recycled": "puts a list of its own into the queue in _pool",
    "QueuePoolTest::test_connect_checkout_handler_always_gets_info": "puts a list of its own into the queue in _pool",
    "QueuePoolTest::test_recreate": "reads _max_overflow",
    "MockReconnectTest::test_dialect_initialize_retry_if_exception": "reads the queue in _pool",
    "PrePingRealTest::test_pre_ping_db_stays_shutdown": "reads _overflow",
    # and one that is refused on purpose, on SQLite only
    "OnConnectTest::test_initialize_connect_calls": "wants one database in memory for each connection",
}

#: These count the rollbacks at the end, and want those too that ThreadPool leaves out. With a driver that it does not
#: know it leaves out none: so they are run.
COUNTS_ROLLBACKS = ("ResetAgentTest", "AutocommitIsolationTest")

#: Fails in its teardown with "database is locked", under QueuePool too.
NOT_ON_SQLITE = {"InvalidateDuringResultTest": "drops a table under an open result"}


class Site(NamedTuple):
    """A server, and the driver for it."""

    kind: type[Server]
    drivername: str


SERVERS = {
    "postgresql": Site(Postgres, "postgresql+psycopg2"),
    "psycopg": Site(Postgres, "postgresql+psycopg"),
    "mariadb": Site(MariaDB, "mysql+pymysql"),
}


class Result(NamedTuple):
    """What one pool made of them, each test by its name, with QueuePool's where the name has the pool's."""

    passed: frozenset[str]
    failed: frozenset[str]
    checkouts: int
    output: str


def is_private(name: str) -> bool:
    """Of a test, by the end of its id: is it one that a pool without QueuePool's attributes cannot pass?"""
    group, _, test = name.rpartition("::")
    group = group.rpartition("::")[2].partition("_")[0]
    return any(re.fullmatch(re.escape(private) + r"([\[-].*)?", f"{group}::{test}") for private in PRIVATE)


def missing(stock: Result, ours: Result) -> frozenset[str]:
    """What QueuePool passes and ThreadPool should."""
    return frozenset(name for name in stock.passed - ours.passed if not is_private(name))


def tests() -> Path:
    """The source tree with the tests of the installed version; fetched if this is the first time."""
    installed = version("sqlalchemy")
    tree = ROOT / ".venv" / f"sqlalchemy-{installed}"
    if tree.exists():
        return tree
    tree.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=tree.parent) as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "download", "--no-deps", "-d", folder]
        fetched = subprocess.run(
            [*pip, "--no-binary", "sqlalchemy", f"sqlalchemy=={installed}"], capture_output=True, text=True
        )
        archives = list(Path(folder).glob("*.tar.gz"))
        if not archives:
            raise FileNotFoundError(f"no source of SQLAlchemy {installed} to be had: {fetched.stderr.strip()[-200:]}")
        with tarfile.open(archives[0]) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(folder, [member for member in archive if _wanted(member.name)])
        (unpacked,) = (path for path in Path(folder).iterdir() if path.is_dir())
        try:
            unpacked.rename(tree)
        except OSError:
            if not tree.exists():  # else another run was faster
                raise
    return tree


def _wanted(name: str) -> bool:
    _, _, inner = name.partition("/")
    return inner in ("setup.cfg", "pyproject.toml") or inner.startswith(("test/", "lib/sqlalchemy/testing/plugin/"))


def run(files: Sequence[str] = FILES, pool: str = OURS, server: Site | None = None, *options: str) -> Result:
    """Run these files over this pool, each in a process of its own and on a database of its own: they sleep a lot."""
    tree = tests()
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda file: _run_one(tree, file, pool, server, options), files))
    return Result(
        passed=frozenset().union(*(result.passed for result in results)),
        failed=frozenset().union(*(result.failed for result in results)),
        checkouts=sum(result.checkouts for result in results),
        output="\n".join(result.output for result in results),
    )


def _run_one(tree: Path, file: str, pool: str, server: Site | None, options: tuple[str, ...]) -> Result:
    with contextlib.ExitStack() as closing:
        # SQLAlchemy's suite takes a SQLite file's name apart at "_" and ".": none of either may be in the folder's
        folder = Path(tempfile.gettempdir()) / f"sqlalchemysuite{uuid.uuid4().hex}"
        folder.mkdir()
        closing.callback(shutil.rmtree, folder, ignore_errors=True)
        url = closing.enter_context(prepared(*server)) if server else f"sqlite:///{folder}/query.db"
        report = folder / "report.json"
        # -s: the installed SQLAlchemy, not a lib/ beside the tests
        command = [sys.executable, "-s", "-m", "pytest", "-q", "-p", "tests.ext.sqlalchemy_suite"]
        command += ["-p", "no:cacheprovider", "--rootdir", str(tree), "-c", str(tree / "pyproject.toml")]
        command += ["--dburi", url, str(tree / file), *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
        environment |= {_POOL: pool, _REPORT: str(report)}
        # in a folder of its own: an attached SQLite file has the same name in every run
        ran = subprocess.run(
            command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        told = json.loads(report.read_text()) if report.exists() else {"passed": [], "failed": [file], "checkouts": 0}
    return Result(frozenset(told["passed"]), frozenset(told["failed"]), told["checkouts"], ran.stdout)


@contextlib.contextmanager
def prepared(kind: type[Server], drivername: str) -> Iterator[str]:
    """A server with the schemas that SQLAlchemy's tests want to find there, and its URL."""
    # two-phase transactions are off by default
    settings = {"max_prepared_transactions": 10} if kind is Postgres else {}
    with kind(**settings) as server:
        url = sqlalchemy.make_url(server.url).set(drivername=drivername)
        engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            if kind is MariaDB:
                connection.exec_driver_sql(f"ALTER DATABASE {url.database} CHARACTER SET utf8mb4")
            for schema in ("test_schema", "test_schema_2"):
                connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        yield url.render_as_string(hide_password=False)


# --- In the process that runs SQLAlchemy's tests ----------------------------------------------------------------------

_POOL, _REPORT = "THREADPOOL_DB_SUITE_POOL", "THREADPOOL_DB_SUITE_REPORT"

checkouts = 0
outcomes: dict[str, set[str]] = {"passed": set(), "failed": set(), "skipped": set()}


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Before SQLAlchemy's conftest."""
    import sqlalchemy.pool.impl

    from threadpool_db.ext.sqlalchemy import ThreadPool

    if os.environ[_POOL] == STOCK:
        return

    class Counted(ThreadPool):
        def connect(self):  # type: ignore[no-untyped-def]
            global checkouts
            checkouts += 1
            return super().connect()

    Counted.__name__ = OURS
    stock = sqlalchemy.pool.impl.QueuePool
    for module in (sqlalchemy, sqlalchemy.pool, sqlalchemy.pool.impl):
        vars(module)["QueuePool"] = Counted
    left = [n for n, m in sys.modules.items() if n.startswith("sqlalchemy") and getattr(m, "QueuePool", None) is stock]
    assert not left, f"QueuePool is still in {left}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    out = [item for item in items if any(_is_left_out(item, config))]
    if out:
        items[:] = [item for item in items if item not in out]
        config.hook.pytest_deselected(items=out)


def _is_left_out(item: pytest.Item, config: pytest.Config) -> Iterator[bool]:
    group = _group(item)
    yield os.environ[_POOL] == OURS and is_private(f"{group}::{item.name}".replace(OURS, STOCK))
    yield group in NOT_ON_SQLITE and any(url.startswith("sqlite") for url in config.getoption("dburi"))


def _group(item: Any) -> str:
    # a class that runs against a database has it in its name: PrePingRealTest_sqlite+pysqlite_3_40_1
    kind = getattr(item, "cls", None)
    return kind.__name__.partition("_")[0] if kind else ""


@pytest.fixture(autouse=True)
def _no_driver_is_known(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the rollbacks that say nothing new are counted."""
    if _group(request.node) in COUNTS_ROLLBACKS:
        monkeypatch.setattr("threadpool_db.ext.sqlalchemy.pool.driver_of", lambda connection: None)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    outcomes[report.outcome].add(report.nodeid.replace(OURS, STOCK))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = outcomes["passed"] - outcomes["failed"] - outcomes["skipped"]  # setup and teardown report too
    told = {"passed": sorted(passed), "failed": sorted(outcomes["failed"]), "checkouts": checkouts}
    Path(os.environ[_REPORT]).write_text(json.dumps(told))
    terminalreporter.write_line(f"{checkouts} checkouts from {OURS}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", choices=SERVERS, help="a private server, or this driver; a SQLite file if not given")
    parser.add_argument("--pool", choices=(OURS, STOCK), help="one of them; both are run, and compared, if not given")
    arguments, others = parser.parse_known_args()
    files = tuple(other for other in others if other.startswith("test/")) or FILES
    options = [other for other in others if other not in files]
    results = {}
    for pool in (arguments.pool,) if arguments.pool else (STOCK, OURS):
        results[pool] = result = run(files, pool, SERVERS.get(arguments.on), *options)
        print(result.output)
    for pool, result in results.items():
        print(f"SQLAlchemy {version('sqlalchemy')}, {pool}: {len(result.passed)} passed, {len(result.failed)} failed")
    if arguments.pool:
        return 1 if result.failed else 0
    missed = missing(results[STOCK], results[OURS])
    print(*(f"passes with {STOCK} alone: {name}" for name in sorted(missed)), sep="\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
