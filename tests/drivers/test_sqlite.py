"""Does the SQLite driver know both of sqlite3's ways with transactions, and what is a database for a pool at all?"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.drivers import ask, failing, opened
from tests.scene import SOON, background
from threadpool_db.drivers.base import IDLE, OPEN, UNKNOWN
from threadpool_db.drivers.choose import driver_for
from threadpool_db.drivers.sqlite import Sqlite
from threadpool_db.errors import PoolMisuse


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


@pytest.mark.parametrize("level", ["", "DEFERRED", "IMMEDIATE", "EXCLUSIVE"])
def test_the_isolation_level_survives_a_stay_in_autocommit(url: str, level: str) -> None:
    driver = driver_for(f"{url}?isolation_level={level}")
    with opened(driver) as connection:
        driver.set_autocommit(connection, True)
        assert connection.isolation_level is None
        driver.set_autocommit(connection, True)
        driver.set_autocommit(connection, False)
        assert connection.isolation_level == level
        driver.set_autocommit(connection, False)
        assert connection.isolation_level == level


def test_begin_in_autocommit_keeps_the_promise_of_the_isolation_level(url: str) -> None:
    driver = driver_for(f"{url}?isolation_level=IMMEDIATE&timeout=0")
    with opened(driver) as connection, opened(driver) as other:
        driver.set_autocommit(connection, True)
        driver.begin(connection)
        assert "locked" in str(failing(other, "begin immediate"))
        driver.begin(connection)  # one is open: nothing to do
        driver.commit(connection)
        assert driver.settled(connection, True)


@pytest.mark.parametrize("known", ["sqlite", None])
def test_a_foreign_connections_level_is_noted_as_well(tmp_path: Path, known: str | None) -> None:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(tmp_path / "x.db", isolation_level="IMMEDIATE", check_same_thread=False)

    first = driver_for(connect, known)
    with opened(first) as connection:
        driver = first.recognise(connection)
        assert isinstance(driver, Sqlite)
        driver.set_autocommit(connection, True)
        driver.set_autocommit(connection, False)
        assert connection.isolation_level == "IMMEDIATE"


def test_a_connection_made_in_autocommit_gets_the_librarys_own_level(url: str) -> None:
    driver = driver_for(f"{url}?autocommit=true")
    with opened(driver) as connection:
        assert driver.settled(connection, True)
        driver.set_autocommit(connection, False)
        assert connection.isolation_level == ""


def test_a_select_begins_nothing_but_our_begin_does(url: str) -> None:
    driver = driver_for(url)
    with opened(driver) as connection:
        ask(connection, "create table t (a int)")
        ask(connection, "select * from t")
        assert driver.state(connection) is IDLE
        driver.begin(connection)
        assert driver.state(connection) is OPEN
        driver.rollback(connection)


def test_an_unfinished_select_does_not_disturb(url: str) -> None:
    driver = driver_for(url)
    with opened(driver) as connection, opened(driver) as other:
        ask(connection, "create table t (a int)")
        ask(connection, "insert into t values (1), (2), (3)")
        connection.commit()
        with closing(connection.execute("select * from t")) as cursor:
            cursor.fetchone()
            assert driver.settled(connection, False)
            assert driver.ping(connection)
            driver.rollback(connection)
        ask(other, "insert into t values (4)")
        driver.commit(other)


def test_any_thread_may_use_a_connection(url: str) -> None:
    driver = driver_for(f"{url}?check_same_thread=true")
    answers: list[bool] = []
    with opened(driver) as connection:
        thread = threading.Thread(target=lambda: answers.append(driver.ping(connection)))
        thread.start()
        thread.join()
    assert answers == [True]


def test_pragmas_are_set_on_each_connection(url: str) -> None:
    driver = driver_for(f"{url}?pragma.journal_mode=wal&pragma.foreign_keys=on&pragma.busy_timeout=77")
    for _ in range(2):
        with opened(driver) as connection:
            assert ask(connection, "pragma journal_mode") == [("wal",)]
            assert ask(connection, "pragma foreign_keys") == [(1,)]
            assert ask(connection, "pragma busy_timeout") == [(77,)]


@pytest.mark.parametrize("option", ["pragma.x%3D1;drop=1", "pragma.user_version=1;drop", "pragma.a.b=1", "pragma.a="])
def test_a_pragma_is_a_word_and_a_value(url: str, option: str) -> None:
    with pytest.raises(ValueError):
        driver_for(f"{url}?{option}")


def test_a_connection_that_fails_at_its_pragmas_is_closed(url: str) -> None:
    closed: list[sqlite3.Connection] = []

    class Watched(sqlite3.Connection):
        def close(self) -> None:
            closed.append(self)
            super().close()

    driver = driver_for(
        f"{url}?pragma.journal_mode=delete", configure=lambda parameters: {**parameters, "factory": Watched}
    )
    blocked = driver_for(f"{url}?timeout=0")
    with opened(blocked) as other:
        ask(other, "pragma journal_mode=wal")
        ask(other, "create table t (a int)")
        ask(other, "begin immediate")
        with pytest.raises(sqlite3.OperationalError):
            driver_for(f"{url}?timeout=0&pragma.journal_mode=delete", configure=driver._configure).connect(1)  # type: ignore[attr-defined]
    assert len(closed) == 1


def test_options_reach_sqlite(url: str) -> None:
    driver = driver_for(f"{url}?timeout=0.25&cached_statements=7")
    with opened(driver) as connection:
        assert ask(connection, "pragma busy_timeout") == [(250,)]


def test_options_of_a_file_uri_go_to_sqlite_itself(tmp_path: Path) -> None:
    with opened(driver_for(f"sqlite:///{tmp_path}/test.db")) as connection:
        ask(connection, "create table t (a int)")
    with opened(
        driver_for(f"sqlite:///file:{tmp_path}/test.db?mode=ro&uri=true&cache=private&timeout=1")
    ) as connection:
        assert ask(connection, "select * from t") == []
        assert "readonly" in str(failing(connection, "insert into t values (1)"))


def test_a_named_database_in_memory_can_be_shared() -> None:
    driver = driver_for("sqlite:///file:shared_by_name?mode=memory&cache=shared&uri=true")
    with opened(driver) as connection, opened(driver) as other:
        ask(connection, "create table t (a int)")
        ask(connection, "insert into t values (1)")
        driver.commit(connection)
        assert ask(other, "select * from t") == [(1,)]


@pytest.mark.parametrize(
    "bad",
    ["sqlite:///:memory:", "sqlite:///", "sqlite://", "sqlite:///file::memory:?uri=true", "sqlite:///%3Amemory%3A"],
)
def test_a_database_in_memory_is_refused_with_a_remedy(bad: str) -> None:
    with pytest.raises(ValueError, match=r"sqlite:///app\.db"):
        driver_for(bad)


def test_a_relative_file_is_the_same_one_after_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    driver = driver_for("sqlite:///here.db")
    os.mkdir("elsewhere")
    monkeypatch.chdir("elsewhere")
    driver.connect(1).close()
    assert driver.server_key == str(tmp_path / "here.db") and (tmp_path / "here.db").exists()


def test_a_missing_folder_is_sqlites_own_error_at_connect(tmp_path: Path) -> None:
    driver = driver_for(f"sqlite:///{tmp_path}/missing/test.db")
    with pytest.raises(sqlite3.OperationalError):
        driver.connect(1)


def test_a_path_object_and_bytes_name_a_file_too(tmp_path: Path) -> None:
    for name in (tmp_path / "x.db", os.fsencode(tmp_path / "x.db")):
        driver = Sqlite({"database": name})
        assert driver.server_key == str(tmp_path / "x.db")
        driver.connect(1).close()


def test_a_file_taken_away_ends_its_connections(url: str, tmp_path: Path) -> None:
    driver = driver_for(url)
    with opened(driver) as connection:
        ask(connection, "create table t (a int)")
        (tmp_path / "test.db").unlink()
        error = failing(connection, "insert into t values (1)")
        # Python 3.10 keeps SQLite's error code to itself
        assert driver.is_disconnect(error, connection) is hasattr(error, "sqlite_errorcode")


def test_an_sqlite_without_locks_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "threadsafety", 0)
    with pytest.raises(PoolMisuse, match="THREADSAFE"):
        driver_for(url)


class Modern(sqlite3.Connection):
    """A connection of Python 3.12 with autocommit=True or False, on any Python: its rules, by hand."""

    autocommit: bool = True  # type: ignore[assignment, unused-ignore]

    def commit(self) -> None:
        self._end("commit")

    def rollback(self) -> None:
        self._end("rollback")

    def _end(self, sql: str) -> None:
        if not self.autocommit:
            self.execute(sql).close()
            self.execute("begin").close()


def modern(path: Path, autocommit: bool) -> Any:
    connection = sqlite3.connect(path, isolation_level=None, factory=Modern)
    connection.autocommit = autocommit
    if not autocommit:
        connection.execute("begin").close()
    return connection


def real(path: Path, autocommit: bool) -> Any:
    return sqlite3.connect(path, autocommit=autocommit)  # type: ignore[call-overload, unused-ignore]


MODERN = [modern, real] if sys.version_info >= (3, 12) else [modern]


@pytest.mark.parametrize("make", MODERN)
def test_the_way_of_python_3_12_in_autocommit(tmp_path: Path, make: Any) -> None:
    driver = Sqlite(connect=lambda: make(tmp_path / "x.db", True))
    with opened(driver) as connection:
        ask(connection, "create table t (a int)")
        assert driver.settled(connection, True)
        for end, rows in ((driver.rollback, []), (driver.commit, [(1,)])):
            driver.begin(connection)
            ask(connection, "insert into t values (1)")
            assert driver.state(connection) is OPEN
            end(connection)
            end(connection)
            assert driver.settled(connection, True)
            assert ask(connection, "select * from t") == rows


@pytest.mark.parametrize("make", MODERN)
def test_the_way_of_python_3_12_out_of_autocommit_is_never_at_rest(tmp_path: Path, make: Any) -> None:
    driver = Sqlite(connect=lambda: make(tmp_path / "x.db", False))
    with opened(driver) as connection:
        assert driver.state(connection) is UNKNOWN and not driver.settled(connection, False)
        assert driver.autocommit(connection) is False
        driver.begin(connection)
        ask(connection, "create table t (a int)")
        driver.rollback(connection)
        assert ask(connection, "select * from sqlite_master") == []
        ask(connection, "create table t (a int)")
        driver.commit(connection)
        driver.set_autocommit(connection, True)
        assert driver.autocommit(connection) is True
        assert len(ask(connection, "select * from sqlite_master")) == 1


def test_an_interrupt_ends_a_query_that_another_thread_is_in(url: str) -> None:
    driver = driver_for(url)
    with opened(driver) as connection:
        begun = threading.Event()
        connection.create_function("begun", 0, begun.set)
        endless = "with recursive c(x) as (select begun() union all select 1 from c) select count(*) from c"
        asking = background(failing, connection, endless)
        assert begun.wait(SOON)
        driver.interrupt(connection)
        assert "interrupted" in str(asking.result(SOON))
        assert driver.ping(connection)
        assert driver.session(connection) is None
