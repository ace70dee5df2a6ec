"""What does `threadpool-db check` find out about real servers, and which step does it blame when one is broken?"""

from __future__ import annotations

import io
import json
import signal
import socket
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import require
from tests.faults.bank import eventually
from tests.servers import FaultProxy, MariaDB, PgBouncer, Postgres, ReservedPort
from tests.test_cli import join_what_was_left, run
from threadpool_db.checkup.report import MASK, Report
from threadpool_db.checkup.steps import check
from threadpool_db.cli import main

psycopg2 = pytest.importorskip("psycopg2")
pymysql = pytest.importorskip("pymysql")
pytest.importorskip("psycopg")

PASSWORD = "p@ss:w/rd %é'x"
POSTGRESQL_DRIVERS = ["psycopg2", "psycopg"]


def command(server: Postgres, *statements: str) -> None:
    with closing(
        psycopg2.connect(host=server.host, port=server.port, user="postgres", dbname="postgres")
    ) as connection:
        connection.autocommit = True
        for statement in statements:
            connection.cursor().execute(statement)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Postgres]:
    """PostgreSQL with TLS, and a role that has a password and at most seven connections."""
    require(Postgres)
    with Postgres(tls=True) as server:
        hba = server.folder / "data" / "pg_hba.conf"
        hba.write_text("host all app all scram-sha-256\nhost all all all trust\n")
        secret = PASSWORD.replace("'", "''")
        command(server, f"create role app login connection limit 7 password '{secret}'", "select pg_reload_conf()")
        yield server


@pytest.fixture(scope="module")
def strict() -> Iterator[MariaDB]:
    """MariaDB with TLS that is a replica, ends idle sessions soon, and has an account with a password."""
    require(MariaDB)
    with MariaDB(tls=True, wait_timeout=100, read_only=1, max_connections=20) as server:
        with closing(pymysql.connect(host=server.host, port=server.port, user="root", database="test")) as connection:
            secret = pymysql.converters.escape_string(PASSWORD)
            connection.cursor().execute(f"create user app identified by '{secret}' with max_user_connections 9")
            connection.cursor().execute("grant select on test.* to app")
        yield server


def url_of(server: Any, user: str = "app", password: str = PASSWORD, database: str = "", scheme: str = "") -> str:
    scheme = scheme or server.url.partition(":")[0]
    database = database or server.url.rpartition("/")[2]
    return f"{scheme}://{user}:{quote(password, safe='')}@{server.address}/{database}"


def warned(told: Any) -> list[str]:
    return [warning["about"] for warning in told["warnings"]]


def assert_failed(told: Any, code: int, errors: str, step: str, reason: str) -> None:
    assert (code, told["ok"]) == (1, False)
    assert (told["failure"]["step"], told["failure"]["reason"]) == (step, reason)
    assert told["steps"][-1]["name"] == step and told["steps"][-1]["status"] == "failed"
    assert told["failure"]["remedy"] and errors.count("\n") == 1
    assert errors.startswith(f"threadpool-db check: {step} failed: {told['failure']['error']}: ")


def assert_no_secret(text: str) -> None:
    for form in (PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD), PASSWORD.replace("'", "\\'")):
        assert form not in text


# Sound servers --------------------------------------------------------------------------------------------------------


def test_every_database_is_checked_step_by_step(any_db_url, capsys):
    if any_db_url.startswith("sqlite"):
        sqlite3.connect(any_db_url.removeprefix("sqlite:///")).execute("create table x (y)").connection.close()
    code, told, errors = run(capsys, any_db_url)
    assert (code, errors, told["ok"]) == (0, "", True)
    assert {step["status"] for step in told["steps"]} == {"ok"}
    if not any_db_url.startswith("sqlite"):
        names = [step["name"] for step in told["steps"]]
        assert names == ["url", "resolve", "tcp", "greeting", "tls", "login", "query", "second", "server"]
        assert told["warnings"] == []
        assert told["facts"]["tls"]["encrypted"] is False and told["facts"]["tls"]["local"] is True
        assert told["facts"]["keepalive"] == {"on": True, "idle": 30, "interval": 10, "count": 3}
        assert told["facts"]["read_only"]["read_only"] is False
        assert told["facts"]["pooler"] is None


@pytest.mark.parametrize("driver", POSTGRESQL_DRIVERS)
def test_postgresql_tells_its_limits_and_its_tls(guarded, driver, capsys):
    code, told, _ = run(capsys, url_of(guarded), "--driver", driver, "--workers", "4", "--max-size", "2")
    assert code == 0
    facts = told["facts"]
    assert facts["driver"] == driver
    assert facts["server"]["user"] == "app" and facts["server"]["database"] == "postgres"
    assert facts["tls"]["protocol"].startswith("TLSv1") and facts["tls"]["server"]["encrypted"]
    assert facts["tls"]["encrypted"] and not facts["tls"]["verified"]
    limits = {"limit": 120, "reserved": 3, "role_limit": 7, "database_limit": None, "usable": 7}
    assert facts["connections"].items() >= limits.items() and facts["connections"]["in_use"] >= 2
    assert facts["arithmetic"] == {"workers": 4, "max_size": 2, "total": 8, "fits": False}
    [warning] = told["warnings"]
    assert "the role allows 7; max_size=1 at most" in warning["message"]
    assert_no_secret(json.dumps(told, ensure_ascii=False))


def test_one_number_is_enough_for_the_arithmetic(guarded, capsys):
    _, told, _ = run(capsys, url_of(guarded), "--max-size", "3")
    assert told["facts"]["arithmetic"].items() >= {"workers": 1, "max_size": 3, "total": 3}.items()
    _, told, _ = run(capsys, url_of(guarded), "--workers", "2")
    assert told["facts"]["arithmetic"].items() >= {"workers": 2, "max_size": 10, "total": 20}.items()


@pytest.mark.parametrize(("user", "most"), [("app", 7), ("postgres", 120)])
def test_our_own_connections_do_not_count(guarded, capsys, user, most):
    def fits(size: int) -> Any:
        return run(capsys, url_of(guarded, user), "--max-size", str(size))[1]["facts"]["arithmetic"]["fits"]

    eventually(lambda: fits(most), "sessions of earlier checks have ended at the server too")
    assert not fits(most + 1)


def test_our_own_connections_do_not_count_for_mariadb(strict, capsys):
    def fits(user: str, size: int) -> Any:
        return run(capsys, url_of(strict, user, PASSWORD if user == "app" else ""), "--max-size", str(size))[1][
            "facts"
        ]["arithmetic"]["fits"]

    for user, most in (("app", 9), ("root", 20)):
        eventually(lambda user=user, most=most: fits(user, most), "sessions of earlier checks have ended there too")
        assert not fits(user, most + 1)


def test_what_others_have_open_counts(guarded, capsys):
    place = {"host": guarded.host, "port": guarded.port, "user": "app", "password": PASSWORD, "dbname": "postgres"}
    with closing(psycopg2.connect(**place)), closing(psycopg2.connect(**place)):
        _, told, _ = run(capsys, url_of(guarded), "--max-size", "6")
    assert told["facts"]["arithmetic"]["fits"] is False
    assert "that others have open now" in told["warnings"][0]["message"]


def test_a_limit_of_the_database_counts(guarded, capsys):
    command(guarded, "create database small connection limit 5")
    _, told, _ = run(capsys, url_of(guarded, database="small"), "--max-size", "6")
    assert told["facts"]["connections"]["usable"] == 5
    assert "the database allows 5" in told["warnings"][0]["message"]


def test_a_superuser_has_the_reserved_ones_too(guarded, capsys):
    _, told, _ = run(capsys, guarded.url)
    assert told["facts"]["connections"]["usable"] == 120


@pytest.mark.parametrize(
    ("options", "encrypted", "verified"),
    [("sslmode=disable", False, False), ("sslmode=require", True, False), ("sslmode=verify-full", True, True)],
)
def test_the_tls_that_was_asked_for(guarded, capsys, options, encrypted, verified):
    code, told, _ = run(capsys, f"{url_of(guarded)}?{options}&sslrootcert={guarded.certificate}"
                        if verified else f"{url_of(guarded)}?{options}")  # fmt: skip
    assert code == 0
    assert (told["facts"]["tls"]["encrypted"], told["facts"]["tls"]["verified"]) == (encrypted, verified)
    [tls] = [step for step in told["steps"] if step["name"] == "tls"]
    assert tls["detail"] == f"asked: {options}"


def test_timeouts_of_the_server_are_held_against_the_pools_own(guarded, capsys):
    command(
        guarded,
        "create role hasty login",
        "alter role hasty set idle_session_timeout = '100s'",
        "alter role hasty set statement_timeout = 1500",
        "alter role hasty set default_transaction_read_only = on",
    )
    _, told, _ = run(capsys, guarded.url.replace("postgres@", "hasty@"))
    assert told["facts"]["timeouts"]["idle_session_timeout"] == 100
    assert told["facts"]["timeouts"]["statement_timeout"] == 1.5
    assert told["facts"]["timeouts"]["lock_timeout"] is None
    assert told["facts"]["read_only"] == {"read_only": True, "standby": False, "by_default": True}
    assert warned(told) == ["read_only", "timeouts"]
    assert "max_idle=80" in told["warnings"][1]["message"]


def test_keepalive_that_somebody_switched_off_is_told(guarded, capsys):
    _, told, _ = run(capsys, f"{guarded.url}?keepalives=0")
    assert told["facts"]["keepalive"]["on"] is False and warned(told) == ["keepalive"]


def test_a_standby_is_told(capsys):
    require(Postgres)
    with Postgres(wal_level="replica") as server:
        server.kill(signal.SIGINT)
        (server.folder / "data" / "standby.signal").touch()
        server.restart()
        code, told, _ = run(capsys, server.url)
    assert code == 0 and told["facts"]["read_only"]["standby"] is True
    assert "target_session_attrs=read-write" in told["warnings"][0]["message"]


@pytest.mark.parametrize("driver", POSTGRESQL_DRIVERS)
@pytest.mark.parametrize("mode", ["transaction", "session", "statement"])
def test_pgbouncer_is_found_out(postgres, capsys, mode, driver):
    require(PgBouncer)
    with PgBouncer(postgres, pool_mode=mode) as server:
        for _ in range(2):  # what a first one left prepared in the server's session, the second one would stumble over
            code, told, _ = run(capsys, server.url, "--driver", driver, "--workers", "100", "--max-size", "10")
    assert code == 0
    assert told["facts"]["pooler"] == mode and warned(told) == ["pooler"]
    assert ("server_pooler=True" in told["warnings"][0]["message"]) is (mode != "statement")
    assert told["facts"]["arithmetic"]["fits"] is None


def test_a_pooler_in_use_is_found_out(pgbouncer, capsys):
    """Others hold sessions of it meanwhile, so the two connections may get different ones."""
    place = {"host": pgbouncer.host, "port": pgbouncer.port, "user": "postgres", "dbname": "postgres"}
    with closing(psycopg2.connect(**place)) as other:
        other.cursor().execute("select 1")
        _, told, _ = run(capsys, pgbouncer.url)
    assert told["facts"]["pooler"] == "transaction"


def test_mariadb_tells_its_limits_and_its_tls(strict, capsys):
    code, told, _ = run(capsys, url_of(strict), "--workers", "3", "--max-size", "4")
    assert code == 0
    facts = told["facts"]
    assert facts["server"]["product"] == "MariaDB" and facts["server"]["user"] == "app@%"
    assert facts["tls"]["encrypted"] and not facts["tls"]["verified"] and facts["tls"]["server"]["encrypted"]
    assert facts["tls"]["protocol"] == facts["tls"]["server"]["protocol"]
    assert facts["connections"].items() >= {"limit": 20, "user_limit": 9, "usable": 9}.items()
    assert facts["connections"]["in_use"] >= 2
    assert facts["timeouts"]["wait_timeout"] == 100 and facts["timeouts"]["max_statement_time"] is None
    assert facts["read_only"] == {"read_only": True, "by": ["read_only"]}
    assert facts["session_tracking"] is True and facts["pooler"] is None
    assert warned(told) == ["read_only", "timeouts", "arithmetic"]
    assert "the account allows 9; max_size=3" in told["warnings"][2]["message"]
    assert_no_secret(json.dumps(told, ensure_ascii=False))


def test_a_server_that_does_not_tell_what_a_statement_leaves(strict, capsys):
    _, told, _ = run(capsys, url_of(strict) + "?init_command=SET%20session_track_state_change=0")
    assert told["facts"]["session_tracking"] is False and "session_tracking" in warned(told)


def test_a_certificate_that_pymysql_has_verified(strict, capsys):
    _, told, _ = run(capsys, f"{url_of(strict)}?ssl_ca={strict.certificate}&ssl_verify_cert=true")
    assert told["facts"]["tls"]["verified"] is True
    assert any(step["detail"] == "asked: ssl_ca, ssl_verify_cert in the url" for step in told["steps"])


def test_a_unix_socket_is_local_and_has_no_keepalive(strict, capsys):
    code, told, _ = run(capsys, f"mysql://root@/test?unix_socket={strict.folder / 'socket'}")
    assert code == 0 and told["facts"]["tls"]["local"] is True and "keepalive" not in told["facts"]
    assert told["steps"][2]["detail"].startswith(str(strict.folder))


def test_what_only_the_client_knows_is_skipped(postgres, tmp_path, monkeypatch, capsys):
    services = tmp_path / "services"
    services.write_text(f"[x]\nhost={postgres.host}\nport={postgres.port}\nuser=postgres\ndbname=postgres\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    code, told, _ = run(capsys, "postgresql:///?service=x")
    assert code == 0
    assert [step["name"] for step in told["steps"] if step["status"] == "skipped"] == [
        "resolve",
        "tcp",
        "greeting",
        "tls",
    ]


# Servers that say no --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", POSTGRESQL_DRIVERS)
def test_a_wrong_password(guarded, driver, capsys):
    code, told, errors = run(capsys, url_of(guarded, password=f"x{PASSWORD}"), "--driver", driver)
    assert_failed(told, code, errors, "login", "password")
    assert_no_secret(json.dumps(told, ensure_ascii=False) + errors)


def test_a_wrong_password_of_mariadb(strict, capsys):
    code, told, errors = run(capsys, url_of(strict, password=f"x{PASSWORD}"))
    assert_failed(told, code, errors, "login", "password")
    assert_no_secret(json.dumps(told, ensure_ascii=False) + errors)


def test_a_missing_database_a_missing_role(guarded, strict, capsys):
    code, told, errors = run(capsys, guarded.url + "x")
    assert_failed(told, code, errors, "login", "database")
    code, told, errors = run(capsys, strict.url + "x")
    assert_failed(told, code, errors, "login", "database")
    code, told, errors = run(capsys, guarded.url.replace("postgres@", "nobody@"))
    assert_failed(told, code, errors, "login", "password")


def test_tls_that_is_demanded_and_not_offered(postgres, capsys):
    code, told, errors = run(capsys, f"{postgres.url}?sslmode=require")
    assert_failed(told, code, errors, "tls", "tls")


def test_tls_that_is_demanded_of_a_mariadb_without(mariadb, capsys):
    code, told, errors = run(capsys, f"{mariadb.url}?ssl=true")
    assert_failed(told, code, errors, "tls", "tls")


def test_a_certificate_of_another_authority(guarded, strict, capsys):
    code, told, errors = run(capsys, f"{url_of(guarded)}?sslmode=verify-full&sslrootcert={strict.certificate}")
    assert_failed(told, code, errors, "login", "tls")
    code, told, errors = run(capsys, f"{url_of(strict)}?ssl_ca={guarded.certificate}&ssl_verify_cert=true")
    assert_failed(told, code, errors, "login", "tls")


# Broken networks ------------------------------------------------------------------------------------------------------


@contextmanager
def listener(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """Whoever connects is talked to; the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    end, _ = server.accept()
                    with end:
                        talk(end)
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


SCHEMES = ["postgresql", "postgresql+psycopg", "mysql"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_port_where_nobody_listens(scheme, capsys):
    port = ReservedPort()
    code, told, errors = run(capsys, f"{scheme}://app:hush@127.0.0.1:{port.number}/app")
    port.release()
    assert_failed(told, code, errors, "tcp", "refused")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_black_hole(scheme, postgres, proxy, capsys):
    hole = proxy(postgres.port)
    hole.set(mode="blackhole")
    code, told, errors = run(capsys, f"{scheme}://app:hush@{hole.address}/app", "--timeout", "0.2")
    assert_failed(told, code, errors, "greeting", "silent")
    assert told["steps"][-1]["ms"] < 2000


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00" * 40, b""])
def test_somebody_else_at_the_port(scheme, words, capsys):
    def talk(end: socket.socket) -> None:
        end.sendall(words)
        if not words:
            end.shutdown(socket.SHUT_WR)
        while end.recv(100):  # and does not hang up
            pass

    with listener(talk) as port:
        code, told, errors = run(capsys, f"{scheme}://app:hush@127.0.0.1:{port}/app")
    assert_failed(told, code, errors, "greeting", "not_a_database")


def test_the_other_database_at_the_port(mariadb, postgres, capsys):
    code, told, errors = run(capsys, f"postgresql://app@{mariadb.address}/test")
    assert_failed(told, code, errors, "greeting", "not_a_database")
    assert "it speaks MySQL's protocol" in errors
    code, told, errors = run(capsys, f"mysql://app@{postgres.address}/test", "--timeout", "0.2")
    assert_failed(told, code, errors, "greeting", "silent")
    assert "a server of another kind" in errors


def test_a_mysql_that_says_no_in_its_greeting(capsys):
    words = b"\xff" + struct.pack("<H", 1040) + b"Too many connections"

    def talk(end: socket.socket) -> None:
        end.sendall(len(words).to_bytes(3, "little") + b"\0" + words)

    with listener(talk) as port:
        code, told, errors = run(capsys, f"mysql://app@127.0.0.1:{port}/test")
    assert_failed(told, code, errors, "greeting", "full")
    assert "1040: Too many connections" in errors


@pytest.mark.parametrize("driver", POSTGRESQL_DRIVERS)
def test_a_login_that_hangs_is_left_behind_at_the_limit(driver, capsys):
    """libpq itself waits for two seconds at least."""
    over = threading.Event()

    def talk(end: socket.socket) -> None:
        end.recv(8)
        end.sendall(b"N")
        if end.recv(1000):  # who has only asked for the greeting hangs up
            over.wait(30)

    with listener(talk) as port:
        began = time.monotonic()
        code, told, errors = run(
            capsys, f"postgresql://app@127.0.0.1:{port}/app", "--driver", driver, "--timeout", "0.3"
        )
        took = time.monotonic() - began
        over.set()
    assert_failed(told, code, errors, "login", "silent")
    assert told["failure"]["error"] == "StepTimeout" and took < 1.8


class Tripwire(io.StringIO):
    """An output that does something as soon as a step is named."""

    def __init__(self, step: str, action: Callable[[], None]) -> None:
        super().__init__()
        self.step, self.action = step, action

    def write(self, text: str) -> int:
        if text.startswith(self.step):
            self.action()
        return super().write(text)


@pytest.mark.parametrize("step", ["query", "second", "server"])
@pytest.mark.parametrize("name", ["postgres", "mariadb"])
def test_a_server_that_falls_silent_in_the_middle(step, name, request, proxy):
    server = request.getfixturevalue(name)
    between: FaultProxy = proxy(server.port)
    out = Tripwire(step, lambda: between.set(mode="blackhole"))  # each step is named before it begins
    url = server.url.replace(server.address, between.address)
    report = Report(url, out, io.StringIO())
    assert check(report, url, None, 0.3, None, None) == 1
    assert report.failure is not None
    assert (report.failure["step"], report.failure["reason"]) == (step, "silent")
    if step != "second":  # libpq itself gives up a login after two seconds
        join_what_was_left()
    [line] = [line for line in out.getvalue().splitlines() if line.startswith(step)]
    assert "failed" in line


def test_a_name_that_is_not_known(monkeypatch, capsys):
    def lookup(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    code, told, errors = run(capsys, "postgresql://app@db.example/app")
    assert_failed(told, code, errors, "resolve", "dns")


def test_a_resolver_that_hangs(monkeypatch, capsys):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(30) and [])
    code, told, errors = run(capsys, "mysql://app@db.example/app", "--timeout", "0.1")
    over.set()
    assert_failed(told, code, errors, "resolve", "silent")


def test_an_address_of_several_that_does_not_answer_is_a_warning(postgres, capsys):
    dead = ReservedPort()
    code, told, _ = run(capsys, f"postgresql://postgres@127.0.0.1:{dead.number},{postgres.address}/postgres")
    dead.release()
    assert code == 0 and warned(told) == ["tcp"]
    assert "Connection refused" in told["warnings"][0]["message"]


def test_a_socket_that_is_not_there(tmp_path, capsys):
    code, told, errors = run(capsys, f"mysql://root@/test?unix_socket={tmp_path}/none")
    assert_failed(told, code, errors, "tcp", "refused")


# Secrets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_json", [False, True])
def test_a_drivers_own_error_shows_no_password(guarded, monkeypatch, capsys, as_json):
    """As libpq's do of a connection string that it cannot read."""
    url = url_of(guarded)

    def connect(**given: Any) -> Any:
        raise psycopg2.OperationalError(f"cannot use {given['password']!r} of {url} (password={given['password']})")

    monkeypatch.setattr(psycopg2, "connect", connect)
    assert main(["check", url, *["--json"] * as_json]) == 1
    said = capsys.readouterr()
    assert_no_secret(said.out + said.err)
    assert MASK in said.err and "login failed: OperationalError" in said.err


def test_the_hint_at_the_other_driver(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    code, told, errors = run(capsys, "postgresql://app:hush@h/app")
    assert_failed(told, code, errors, "url", "driver")
    assert "--driver psycopg" in told["failure"]["remedy"]
