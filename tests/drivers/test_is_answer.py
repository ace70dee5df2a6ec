"""A connect failed: has the server answered, or is it out of reach? A no to these parameters is one pool's trouble; a
server that is not there, or busy, is everybody's."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Any

import pytest

from tests.conftest import require
from tests.drivers import ask, opened
from tests.servers import MariaDB, Postgres
from threadpool_db.drivers.choose import driver_for


def refusal_of(url: str, name: str) -> tuple[bool, BaseException]:
    """Whether the failure of this connect is the server's answer, and the failure."""
    driver = driver_for(url.replace("postgresql:", f"postgresql+{name}:"))
    with ExitStack() as held:
        try:
            while True:  # the first one, unless the server has its limit still before it
                held.enter_context(opened(driver))
        except Exception as error:
            return driver.is_answer(error), error


@pytest.mark.parametrize("name", ["psycopg2", "psycopg"])
class TestPostgresql:
    @pytest.fixture(autouse=True)
    def _imported(self, name: str) -> None:
        pytest.importorskip(name)

    def test_a_role_or_a_database_that_is_not_there_is_one(self, postgres: Postgres, name: str) -> None:
        at = postgres.address
        assert refusal_of(f"postgresql://nobody_here@{at}/postgres", name)[0]
        assert refusal_of(f"postgresql://postgres@{at}/no_such_database", name)[0]

    def test_a_wrong_password_is_one(self, name: str) -> None:
        require(Postgres)
        with Postgres() as server:
            with opened(driver_for(server.url)) as boss:
                boss.autocommit = True
                ask(boss, "create role guarded login password 'right'")
                rules = server.folder / "data" / "pg_hba.conf"
                rules.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
            server.restart()
            answered, said = refusal_of(f"postgresql://guarded:wrong@{server.address}/postgres", name)
            assert answered and "password authentication failed" in str(said)

    def test_nobody_at_home_is_none(self, name: str) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))  # and not listening
            answered, said = refusal_of(f"postgresql://x@127.0.0.1:{bound.getsockname()[1]}/x", name)
        assert not answered and "refused" in str(said)

    def test_a_server_at_its_limit_is_none(self, name: str) -> None:
        require(Postgres)
        with Postgres(max_connections=4, superuser_reserved_connections=1) as server:
            with opened(driver_for(server.url)) as boss:
                boss.autocommit = True
                ask(boss, "create role guest login")
                answered, said = refusal_of(f"postgresql://guest@{server.address}/postgres", name)
                assert not answered and ("reserved" in str(said) or "too many" in str(said))
                answered, said = refusal_of(server.url, name)
                assert not answered and "too many clients" in str(said)

    @pytest.mark.parametrize(
        "words",
        [
            "the database system is starting up",
            "the database system is shutting down",
            "the database system is in recovery mode",
            "the database system is not accepting connections",
        ],
    )
    def test_a_server_on_its_way_up_or_down_is_none(self, name: str, words: str) -> None:
        driver: Any = driver_for(f"postgresql+{name}://x@h/x")
        failed = driver._module.OperationalError(f"connection to server failed: FATAL:  {words}")
        assert not driver.is_answer(failed)
        assert not driver.is_answer(ValueError("FATAL"))


class TestMariadb:
    @pytest.fixture(autouse=True)
    def _imported(self) -> None:
        pytest.importorskip("pymysql")

    @staticmethod
    def refusal_of(url: str) -> tuple[bool, int]:
        answered, error = refusal_of(url, "pymysql")
        return answered, error.args[0]

    def test_a_wrong_password_is_one(self, mariadb: MariaDB) -> None:
        with opened(driver_for(mariadb.url)) as boss:
            ask(boss, "create user guarded identified by 'right'")
            try:
                assert self.refusal_of(f"mysql://guarded:wrong@{mariadb.address}/test") == (True, 1045)
            finally:
                ask(boss, "drop user guarded")

    def test_a_database_that_is_not_there_is_one(self, mariadb: MariaDB) -> None:
        assert self.refusal_of(f"mysql://root@{mariadb.address}/no_such_database") == (True, 1049)

    def test_nobody_at_home_is_none(self) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))  # and not listening
            assert self.refusal_of(f"mysql://x@127.0.0.1:{bound.getsockname()[1]}/x") == (False, 2003)

    def test_a_server_at_its_limit_is_none(self) -> None:
        require(MariaDB)
        with MariaDB(max_connections=10) as server:
            with opened(driver_for(server.url)) as boss:
                ask(boss, "create user guest")
                assert self.refusal_of(f"mysql://guest@{server.address}/information_schema") == (False, 1040)

    @pytest.mark.parametrize("code", [1040, 1053, 1135, 2013, None])
    def test_what_is_about_the_server_itself_or_has_no_number_is_none(self, code: int | None) -> None:
        driver: Any = driver_for("mysql://x@h/x")
        numbers = () if code is None else (code, "why")
        assert not driver.is_answer(driver._module.err.OperationalError(*numbers))
        assert not driver.is_answer(ValueError(1045))
