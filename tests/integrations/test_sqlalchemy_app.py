"""Does an ORM app keep its books over the pool, on each database?

The app runs as a user runs it, in another process; and its parts one by one in this one, over a pool of one or two
connections, so that whoever borrows next is known to get what the one before left.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, make_url, text

from tests.scene import SOON, background
from tests.servers import ReservedPort
from threadpool_db.ext.sqlalchemy import ThreadPool

FOLDER = Path(__file__).resolve().parents[2] / "integrations" / "sqlalchemy"


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", str(FOLDER / "app.py"), *arguments]
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    # whoever runs the tests in the background of a shell ignores Ctrl-C, and it would inherit that
    return subprocess.Popen(
        command, text=True, cwd="/", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **pipes
    )


def finish(process: subprocess.Popen[str], limit: float = 30) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=limit)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


# The app, as a user runs it -------------------------------------------------------------------------------------------


def test_eight_threads_on_four_connections_keep_the_books(db_url: str, app: ModuleType) -> None:
    status, out, err = finish(start("--url", db_url, "--seconds", "1"))
    assert (status, err) == (0, ""), out + err
    counts = {name: int(count.replace(",", "")) for name, count in re.findall(r"^(\w+) +([\d,]+) ", out, re.M)}
    assert set(app.MIX) <= set(counts) and min(counts[name] for name in app.MIX) > 0
    assert (opened := re.search(r"^(\d) opened, [\d,]+ checkouts, 0 timeouts, 0 lost$", out, re.M)), out
    assert 2 <= int(opened[1]) <= 4
    assert re.search(r"50,000 as at first, [1-9][\d,]* payments confirmed", out)
    assert tables(app, db_url) == []


def test_ctrl_c_ends_it_and_drops_the_tables(app: ModuleType, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/books.db"
    process = start("--url", url, "--seconds", "60")
    assert process.stdout is not None
    assert process.stdout.readline() == "sqlite, 8 threads, 60 s\n"
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert (status, err) == (130, "stopped\n")
    assert tables(app, url) == []


def test_its_commands_migrate_audit_and_drop(app: ModuleType, db_url: str) -> None:
    for command, left in (("migrate", 4), ("migrate", 4), ("drop", 0), ("drop", 0)):
        assert app.main([command, "--url", db_url]) == 0
        assert len(tables(app, db_url)) == left


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://bob:secret@127.0.0.1:{port}/x", "Connection refused"),
        ("mysql://bob:secret@127.0.0.1:{port}/x", "Can't connect"),
        ("sqlite:////no/such/folder/books.db", "unable to open database file"),
        ("postgresql://bob:secret@127.0.0.1/x?pool_sise=3", "did you mean 'pool_size'?"),
        ("mysql://bob:secret@127.0.0.1/x?pool_timeout=soon", "pool_timeout='soon'"),
    ],
)
def test_what_is_wrong_with_a_url_is_one_clear_line(
    url: str, expected: str, app: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    port = ReservedPort()
    try:
        assert app.main(["migrate", "--url", url.format(port=port.number)]) == 1
    finally:
        port.release()
    err = capsys.readouterr().err
    assert err.startswith("ledger: ") and err.count("\n") == 1 and expected in err and "secret" not in err, err


# Its parts ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("app", "ledger"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import app

    assert app.__file__ == str(FOLDER / "app.py")
    yield app
    for name in ("app", "ledger"):
        sys.modules.pop(name, None)


def tables(app: ModuleType, url: str) -> list[str]:
    engine = app.make_engine(make_url(url), 1)
    try:
        return [name for name in sqlalchemy.inspect(engine).get_table_names() if name.startswith(app.PREFIX)]
    finally:
        engine.dispose()


#: A test that fails with a transaction in hand would have its tables dropped when the server's patience ends.
IMPATIENT = {
    "mysql": {"init_command": "set lock_wait_timeout = 5"},
    "postgresql": {"options": "-c lock_timeout=5s"},
    "sqlite": {"timeout": "5"},
}


@pytest.fixture
def ledger(app: ModuleType, db_url: str) -> Iterator[Any]:
    """With five accounts, over two connections."""
    url = make_url(db_url)
    ledger = app.Ledger(app.make_engine(url.update_query_dict(IMPATIENT[url.get_backend_name()]), 2))
    try:
        app.migrate(ledger.engine)
        ledger.open_accounts(5)
        yield ledger
        assert ledger.engine.pool.checkedout() == 0
    finally:
        app.drop(ledger.engine)
        ledger.engine.dispose()


def books(ledger: Any, entries: int) -> None:
    assert ledger.audit() == {"money": 5_000, "wrong_accounts": 0, "wrong_entries": 0, "entries": entries}


def test_the_pool_is_the_one_that_the_url_asks_for(ledger: Any) -> None:
    assert type(ledger.engine.pool) is ThreadPool
    assert (ledger.engine.pool.size(), ledger.engine.pool.stats().max_size) == (2, 2)


def test_the_migrations_make_what_the_models_say(ledger: Any, app: ModuleType) -> None:
    def ours(thing: Any, name: str | None, kind: str, *others: Any) -> bool:
        return kind != "table" or str(name).startswith(app.PREFIX)

    with ledger.engine.connect() as connection:
        options = {"version_table": f"{app.PREFIX}version", "include_object": ours}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, app.Base.metadata) == []


def test_a_transfer_that_is_not_covered_changes_nothing(ledger: Any) -> None:
    assert ledger.transfer(1, 2, 600) and not ledger.transfer(1, 2, 401)
    assert (ledger.balance(1), ledger.balance(2)) == (400, 1_600)
    books(ledger, entries=1)


def test_a_payment_that_the_database_refuses_takes_no_other_with_it(ledger: Any) -> None:
    assert ledger.pay(1, [(2, 300), (3, 800), (4, 700), (5, 1)]) == 2
    assert [ledger.balance(n) for n in range(1, 6)] == [0, 1_300, 1_000, 1_700, 1_000]
    books(ledger, entries=2)


def test_a_statement_is_a_stream_and_whoever_borrows_next_sees_nothing_of_one_that_was_left(ledger: Any) -> None:
    assert ledger.pay(1, [(2, 1)] * 60) == 60
    streamed: list[bool] = []
    event.listen(
        ledger.engine, "before_cursor_execute", lambda *a: "ORDER BY" in a[2] and streamed.append(a[4]._is_server_side)
    )
    for _ in range(5):  # more often than there are connections
        assert ledger.statement(1, most=3) == (3, -3)
        assert ledger.balance(1) == 940
    assert ledger.statement(1) == (60, -60)
    assert streamed == [ledger.engine.name != "sqlite"] * 6  # sqlite3's cursors are streams in any case
    assert ledger.engine.pool.stats().opened <= 2, "none was thrown away for it"


def test_after_each_kind_of_session_a_connection_is_as_the_engine_made_it(ledger: Any) -> None:
    engine = ledger.engine
    own = "SERIALIZABLE" if engine.name == "sqlite" else "READ COMMITTED"
    engine.dispose()
    for request in (ledger.audit, lambda: ledger.balance(1), lambda: ledger.statement(1), lambda: ledger.pay(1, [])):
        request()
        with engine.connect() as connection:
            assert connection.get_isolation_level() == own
            assert not autocommits(connection.connection.driver_connection)
    assert engine.pool.stats().opened == 1, "all of them had this one"


def test_each_kind_of_session_has_its_own_level_while_it_lasts(ledger: Any) -> None:
    snapshot = "SERIALIZABLE" if ledger.engine.name == "sqlite" else "REPEATABLE READ"
    with ledger.snapshot() as session, ledger.glance() as other:
        assert session.connection().get_isolation_level() == snapshot
        assert autocommits(other.connection().connection.driver_connection)


def autocommits(raw: Any) -> bool:
    if hasattr(raw, "get_autocommit"):  # PyMySQL
        return bool(raw.get_autocommit())
    return raw.isolation_level is None if hasattr(raw, "in_transaction") else bool(raw.autocommit)


def test_an_audit_sees_one_moment_though_money_moves_between_its_statements(ledger: Any) -> None:
    moved: list[bool] = []

    def between(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        if "sum" in statement and not moved:
            moved.append(False)
            moved[0] = background(ledger.transfer, 1, 2, 50).result(SOON)

    event.listen(ledger.engine, "after_cursor_execute", between)
    books(ledger, entries=0)
    assert moved == [True]
    books(ledger, entries=1)


def test_the_audit_sees_a_penny_that_went_astray(ledger: Any, app: ModuleType) -> None:
    ledger.transfer(1, 2, 5)
    with ledger.engine.begin() as connection:
        connection.execute(text(f"UPDATE {app.PREFIX}lines SET amount = amount + 1 WHERE amount > 0"))
        connection.execute(text(f"UPDATE {app.PREFIX}accounts SET balance = balance - 1 WHERE id = 5"))
    seen = ledger.audit()
    assert seen == {"money": 4_999, "wrong_accounts": 2, "wrong_entries": 1, "entries": 1}
    with pytest.raises(app.Failed, match="wrong_accounts 2, not 0, wrong_entries 1, not 0"):
        app.check(seen)


def test_a_failing_worker_fails_the_run(ledger: Any, app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise app.Failed("the books are wrong")

    monkeypatch.setattr(ledger, "audit", broken)
    with pytest.raises(app.Failed, match="the books are wrong"):
        app.run(ledger, threads=2, seconds=60)
    monkeypatch.undo()
