"""Does `threadpool-db check` say which step fails, why, and what to do, and never a password? What needs no driver.

The servers, sound and broken, are in tests/test_cli_servers.py.
"""

from __future__ import annotations

import io
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from threadpool_db.checkup import advice, findings, mysql, network, postgresql
from threadpool_db.checkup.advice import Limit
from threadpool_db.checkup.failures import explain
from threadpool_db.checkup.limited import StepTimeout, limited
from threadpool_db.checkup.network import Place
from threadpool_db.checkup.report import MASK, Report, Secrets
from threadpool_db.cli import main
from threadpool_db.waiting import REAL_TIME


def run(capsys: Any, *arguments: str) -> tuple[int, Any, str]:
    """The exit code, the JSON, and standard error."""
    code = main(["check", "--json", *arguments])
    said = capsys.readouterr()
    return code, json.loads(said.out), said.err


def join_what_was_left() -> None:
    """The threads of steps that did not end in time end now."""
    for thread in threading.enumerate():
        if thread.name == "threadpool_db check":
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    connection = sqlite3.connect(path)
    connection.execute("create table item (id integer)")
    connection.commit()
    connection.close()
    return path


class TestFile:
    def test_all_is_told_of_a_file_that_is_well(self, capsys, file):
        code, told, errors = run(capsys, f"sqlite:///{file}?pragma.journal_mode=wal", "--workers", "3")
        assert (code, errors, told["ok"], told["failure"], told["warnings"]) == (0, "", True, None, [])
        names = [step["name"] for step in told["steps"]]
        assert names == ["url", "file", "open", "query", "write", "second", "server"]
        assert {step["status"] for step in told["steps"]} == {"ok"}
        assert all(step["ms"] >= 0 for step in told["steps"])
        facts = told["facts"]
        assert facts["driver"] == "sqlite"
        assert facts["server"] == {"product": "SQLite", "version": sqlite3.sqlite_version}
        assert facts["journal"] == "wal"
        assert facts["read_only"] == {"read_only": False}
        assert facts["round_trip"]["median_ms"] > 0
        assert "arithmetic" in facts

    def test_the_text_says_the_same_in_lines(self, capsys, file):
        assert main(["check", f"sqlite:///{file}"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("url       ok ") and lines[0].endswith(f"database {file}")
        assert "ms  the write lock was free" in lines[4]
        assert any(line.startswith("journal") and line.endswith("delete") for line in lines)
        assert any(line.startswith("warning: journal mode delete") for line in lines)
        assert lines[-1] == "ok, 1 warning"

    def test_one_that_is_missing_is_not_made(self, capsys, tmp_path):
        code, told, errors = run(capsys, f"sqlite:///{tmp_path}/none.db")
        assert code == 1 and told["failure"]["step"] == "file" and told["failure"]["reason"] == "file"
        assert list(tmp_path.iterdir()) == []
        assert errors.startswith("threadpool-db check: file failed: FileNotFoundError: ")
        assert " -> check the path" in errors and errors.count("\n") == 1

    def test_a_folder_is_no_database(self, capsys, tmp_path):
        code, told, _ = run(capsys, f"sqlite:///{tmp_path}")
        assert code == 1 and (told["failure"]["step"], told["failure"]["reason"]) == ("file", "file")

    def test_another_kind_of_file_is_no_database(self, capsys, tmp_path):
        (tmp_path / "app.db").write_text("not at all " * 100)
        code, told, _ = run(capsys, f"sqlite:///{tmp_path}/app.db")
        assert code == 1 and told["failure"]["reason"] == "not_a_database"

    def test_a_write_lock_of_somebody_else_is_told_by_sqlite_before_the_limit_ends(self, capsys, file):
        writer = sqlite3.connect(file)
        writer.execute("begin immediate")
        code, told, _ = run(capsys, f"sqlite:///{file}", "--timeout", "1")
        writer.close()
        assert code == 1
        assert (told["failure"]["step"], told["failure"]["reason"]) == ("write", "locked")
        assert told["failure"]["error"] == "OperationalError"

    def test_a_call_that_hangs_all_the_same_is_left_alone(self, capsys, file, monkeypatch):
        """To close the connection under it would crash the process."""
        monkeypatch.setattr("threadpool_db.checkup.sqlite.be_patient", lambda *_: None)
        writer = sqlite3.connect(file)
        writer.execute("begin immediate")
        code, told, _ = run(capsys, f"sqlite:///{file}", "--timeout", "0.1")
        assert (code, told["failure"]["step"], told["failure"]["reason"]) == (1, "write", "silent")
        writer.close()
        join_what_was_left()

    def test_one_that_is_opened_for_reading_is_not_locked_for_writing(self, capsys, file):
        code, told, _ = run(capsys, f"sqlite:///file:{file}?mode=ro&uri=true")
        assert code == 0
        assert {"name": "write", "status": "skipped", "ms": None, "detail": "not writable"} in told["steps"]
        assert "read_only" in [warning["about"] for warning in told["warnings"]]

    def test_a_database_in_memory_has_no_file(self, capsys):
        code, told, _ = run(capsys, "sqlite:///file:app?mode=memory&cache=shared&uri=true")
        assert code == 0 and told["steps"][1]["status"] == "skipped"

    def test_nothing_is_left_in_the_file(self, capsys, file):
        before = file.read_bytes()
        assert run(capsys, f"sqlite:///{file}")[0] == 0
        assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


class TestCommandLine:
    def test_it_runs_as_a_module_and_reads_the_url_from_standard_input(self, file):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "threadpool_db", "check", "-", "--json"],
            input=f"sqlite:///{file}\n", capture_output=True, text=True, timeout=30,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["ok"] is True

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["check"],
            ["check", "mysql://a:hush@h/d", "mysql://a:hush@h/e"],
            ["check", "mysql://h/d", "--password=hush"],
            ["check", "mysql://h/d", "--timeout", "mysql://a:hush@h/d"],
            ["check", "mysql://h/d", "--timeout", "0"],
            ["check", "mysql://h/d", "--timeout", "inf"],
            ["check", "mysql://h/d", "--workers", "0"],
            ["check", "mysql://h/d", "--max-size", "hush"],
            ["check", "mysql://h/d", "--driver", "hush"],
            ["check", "mysql://h/d", "--work", "2"],
            ["mysql://a:hush@h/d"],
        ],
    )
    def test_a_wrong_one_ends_with_2_and_quotes_no_argument(self, capsys, arguments):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        said = capsys.readouterr()
        assert stopped.value.code == 2 and said.out == ""
        assert "hush" not in said.err and "://" not in said.err
        assert said.err.splitlines()[-1].endswith("--help")

    def test_it_names_the_argument_that_is_wrong(self, capsys):
        with pytest.raises(SystemExit):
            main(["check", "mysql://h/d", "--timeout", "soon"])
        assert "argument --timeout" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "url", ["mysql://a:hush@h:port/d", "oracle://a:hush@h/d", "a:hush@h/d", "mysql://a:hu sh@h/d"]
    )
    def test_a_url_that_cannot_be_read_is_a_wrong_command_line(self, capsys, url):
        code, told, errors = run(capsys, url)
        assert code == 2 and (told["failure"]["step"], told["failure"]["reason"]) == ("url", "url")
        assert "hush" not in json.dumps(told) + errors

    def test_a_driver_that_does_not_fit_the_url_is_too(self, capsys):
        code, _, errors = run(capsys, "mysql://a:hush@h/d", "--driver", "sqlite")
        assert code == 2 and "hush" not in errors and "asks for the driver 'sqlite'" in errors

    def test_a_driver_that_is_missing_is_named_with_its_extra(self, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "pymysql", None)
        code, told, _ = run(capsys, "mysql://a@h/d")
        assert code == 1 and (told["failure"]["step"], told["failure"]["reason"]) == ("url", "driver")
        assert 'pip install "threadpool-db[mysql]"' in told["failure"]["message"]

    def test_ctrl_c_ends_it_as_a_shell_expects(self, capsys, monkeypatch):
        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("threadpool_db.checkup.steps.limited", interrupt)
        assert main(["check", "sqlite:///x.db"]) == 130
        assert capsys.readouterr().err.endswith("threadpool-db check: interrupted\n")

    def test_who_stops_reading_hears_no_complaint(self):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "threadpool_db", "simulate", "--rate", "9", "--duration", "9"]
        told = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
        os.close(writer)
        assert (told.returncode, told.stderr) == (1, "")


class TestSecrets:
    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://app:p%40ss%3Aw%2Frd+%27x@h/d",
            "postgresql://app:p@ss:w/rd+'x@h/d",  # cannot be read, and yet
            "postgresql://app@h/d?password=p%40ss%3Aw%2Frd%2B%27x",
            "postgresql://app@h/d?a=b&sslpassword=p%40ss%3Aw%2Frd%2B%27x",
        ],
    )
    def test_a_password_is_hidden_however_it_is_written(self, url):
        hide = Secrets(url).hide
        plain = "p@ss:w/rd+'x"
        forms = [plain, "p%40ss%3Aw%2Frd%2B%27x", "p@ss:w/rd+\\'x", repr(plain)[1:-1], repr(plain.encode())[2:-1], url]
        for form in forms:
            assert "ss" not in hide(f"<{form}>").replace("sslpassword", "").replace("password", "")
        assert hide("nothing") == "nothing"

    def test_what_a_url_means_by_a_plus_and_by_a_second_at(self):
        assert Secrets("mysql://h/d?password=a+b").hide("a b") == MASK
        assert Secrets("mysql://a:hush@h/d?options=x@y").hide("hush") == MASK

    def test_lists_and_dicts_are_gone_through_and_keys_and_numbers_stay(self):
        hidden = Secrets("mysql://a:5432@h/d").hide({"5432": ["x5432y", 5432, None, {"a": ("5432",)}]})
        assert hidden == {"5432": [f"x{MASK}y", 5432, None, {"a": [MASK]}]}

    def test_the_environment_has_one_too(self, monkeypatch):
        monkeypatch.setenv("PGPASSWORD", "from-outside")
        assert Secrets("postgresql://h/d").hide("is from-outside") == f"is {MASK}"

    def test_letters_that_are_not_ascii_are_hidden_in_the_ways_of_python(self):
        hide = Secrets("mysql://a:gr%C3%BC%C3%9Fe@h/d").hide
        assert hide("grüße " + str("grüße".encode())) == f"{MASK} b'{MASK}'"

    @pytest.mark.parametrize("as_json", [False, True])
    def test_a_report_hides_whatever_comes_in(self, as_json):
        out, err = io.StringIO(), io.StringIO()
        report = Report("mysql://a:hush@h/d", out, err, as_json)
        report.begin("login")
        report.ended(0.1, "with hush")
        report.skipped("tls", "for hush")
        report.fact("server", "is hush", {"user": "hush"})
        report.warn("x", "hush!")
        report.begin("query")
        report.failed(0.1, RuntimeError("said\n  hush"), "other", "do not say hush")
        report.finish()
        assert "hush" not in out.getvalue() + err.getvalue()
        assert err.getvalue() == f"threadpool-db check: query failed: RuntimeError: said {MASK} -> do not say {MASK}\n"
        assert MASK in out.getvalue()


class TestNetwork:
    def test_what_listens_nowhere_else_is_said_of_each_address(self, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            good, bad = listener.getsockname(), bound.getsockname()
            addresses = [network.Address(socket.AF_INET, target, str(target)) for target in (bad, good, good)]
            addresses[2] = addresses[2]._replace(shown="again")
            end, attempts = network.open_all(addresses, 5.0)
            assert end is not None and end.getpeername() == good
            end.close()
            assert [type(one.error) for one in attempts] == [ConnectionRefusedError, type(None), type(None)]

    def test_nobody_at_any_address(self):
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            address = network.Address(socket.AF_INET, bound.getsockname(), "there")
            end, [attempt] = network.open_all([address], 5.0)
        assert end is None and isinstance(attempt.error, ConnectionRefusedError)

    def test_an_address_that_does_not_answer_is_given_up(self):
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            target = full.getsockname()
            crowd = [socket.socket() for _ in range(3)]
            for one in crowd:  # so that its queue takes no more
                one.setblocking(False)
                one.connect_ex(target)
            end, [attempt] = network.open_all([network.Address(socket.AF_INET, target, "there")], 0.1)
            for one in crowd:
                one.close()
        assert end is None and isinstance(attempt.error, TimeoutError)

    def test_a_name_that_is_not_known_is_left_out_if_another_one_is(self, monkeypatch):
        def lookup(host: str, port: int, **_: Any) -> Any:
            if host == "gone":
                raise socket.gaierror(socket.EAI_NONAME, "not known")
            return [(socket.AF_INET, 0, 0, "", ("10.0.0.5", port))] * 2

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        addresses, unknown = network.resolve([Place("gone", 1), Place("here", 2)])
        assert [address.shown for address in addresses] == ["10.0.0.5:2"]
        assert [place.host for place, _ in unknown] == ["gone"]
        with pytest.raises(socket.gaierror):
            network.resolve([Place("gone", 1)])

    @pytest.mark.parametrize(
        ("given", "environment", "places"),
        [
            ({"host": "a"}, {}, [("a", 5432)]),
            ({"host": "a,b", "port": "1,2"}, {}, [("a", 1), ("b", 2)]),
            ({"host": "a,b", "port": "1"}, {}, [("a", 1), ("b", 1)]),
            ({"host": "a", "hostaddr": "10.0.0.1"}, {"PGPORT": "7"}, [("10.0.0.1", 7)]),
            ({"host": "/run/pg", "port": "7"}, {}, [("/run/pg/.s.PGSQL.7", 0)]),
            ({}, {"PGHOST": "c"}, [("c", 5432)]),
            ({}, {}, []),
            ({"host": "@abstract"}, {}, []),
            ({"host": "a", "service": "x"}, {}, []),
            ({"host": "a"}, {"PGSERVICE": "x"}, []),
        ],
    )
    def test_where_libpq_would_go(self, given, environment, places):
        assert postgresql.places(given, environment) == [Place(*place) for place in places]

    def test_where_pymysql_would_go(self):
        assert mysql.places({}) == [Place("localhost", 3306)]
        assert mysql.places({"host": "a", "port": 7}) == [Place("a", 7)]
        assert mysql.places({"unix_socket": "/run/my"}) == [Place("/run/my", 0)]
        assert mysql.places({"read_default_file": "my.cnf"}) == []

    def test_an_address_of_version_6_is_shown_in_brackets(self):
        assert str(Place("::1", 5432)) == "[::1]:5432"

    def test_the_names_of_the_servers(self):
        assert network.mysql_version("5.5.5-10.11.2-MariaDB-log") == "MariaDB 10.11.2"
        assert network.mysql_version("8.4.0") == "MySQL 8.4.0"


class TestLimit:
    def test_a_result_and_an_error_come_through(self):
        assert limited(REAL_TIME, lambda: 42, 5.0) == 42
        with pytest.raises(ZeroDivisionError):
            limited(REAL_TIME, lambda: 1 // 0, 5.0)

    def test_what_comes_too_late_is_handed_over(self):
        go_on, done = threading.Event(), threading.Event()
        got: list[str] = []

        def late(result: str) -> None:
            got.append(result)
            done.set()

        with pytest.raises(StepTimeout, match="not ended in"):
            limited(REAL_TIME, lambda: go_on.wait() and "late", 0.02, late)
        assert got == []
        go_on.set()
        assert done.wait(10) and got == ["late"]


class TestAdvice:
    def test_of_several_limits_the_tightest_one_is_told(self):
        never, crowded, wide = Limit("never", 5, 0), Limit("crowded", 8, 7), Limit("wide", 90, 0)
        for limits, need, whose in (([wide, crowded, never], 6, "never"), ([wide, crowded, never], 5, "crowded")):
            [(_, message)] = advice.arithmetic(limits, 1, need)
            assert whose in message
        assert list(advice.arithmetic([], 9, 9)) == []

    @pytest.mark.parametrize(
        ("limit", "workers", "max_size", "said"),
        [
            (Limit("the server", 97, 0), 4, 12, ""),
            (Limit("the server", 97, 0), 4, 13, "not twice"),
            (Limit("the server", 97, 50), 4, 12, "beside the 50 that others have open now"),
            (Limit("the server", 97, 49), 4, 12, "not twice"),
            (Limit("the server", 97, 0), 4, 25, "do not fit: the server allows 97; max_size=24 at most"),
            (Limit("the role", 3, 0), 4, 1, "do not fit: the role allows 3; fewer workers"),
        ],
    )
    def test_the_arithmetic(self, limit, workers, max_size, said):
        told = [message for _, message in advice.arithmetic([limit], workers, max_size)]
        assert len(told) == (1 if said else 0)
        assert said in "".join(told)

    def test_a_server_that_is_nearly_full(self):
        assert [about for about, _ in advice.crowding([Limit("a", 10, 8), Limit("b", 10, 7)])] == ["connections"]

    @pytest.mark.parametrize(("seconds", "said"), [(None, ""), (301, ""), (300, "max_idle=240"), (2, "keepalive=1.6")])
    def test_an_idle_session_that_the_server_ends_before_the_pool_does(self, seconds, said):
        told = [message for _, message in advice.idle_limit("wait_timeout", seconds)]
        assert len(told) == (1 if said else 0)
        assert said in "".join(told)

    @pytest.mark.parametrize(("mode", "warned"), [(None, ["timeouts"]), ("session", [])])
    def test_behind_a_pooler_the_servers_timeouts_are_not_about_us(self, mode, warned):
        report = Report("", io.StringIO(), io.StringIO())
        report.fact("timeouts", "", {"idle_session_timeout": 10.0, "wait_timeout": None})
        findings.hold_against_the_defaults(report, [], mode)
        assert [warning["about"] for warning in report.warnings] == warned

    @pytest.mark.parametrize(
        ("told", "first", "second", "mode"),
        [
            (7, [7, 7], [8], None),
            (99, [7, 7], [7], "transaction"),  # one session for two connections
            (99, [7, 8], [9], "transaction"),  # two sessions for one connection
            (99, [7, 7], [8, 9], "transaction"),
            (99, [7, 7], [8], "session"),
        ],
    )
    def test_the_mode_of_a_pooler(self, told, first, second, mode):
        assert advice.pooling(told, first, second) == mode

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (RuntimeError("FATAL:  no pg_hba.conf entry for host"), "host"),
            (RuntimeError('no pg_hba.conf entry for host "x", no encryption'), "tls"),
            (RuntimeError("FATAL: sorry, too many clients already"), "full"),
            (RuntimeError("FATAL: the database system is starting up"), "starting"),
            (RuntimeError("fe_sendauth: no password supplied"), "password"),
            (RuntimeError('invalid connection option "colour"'), "url"),
            (RuntimeError("'cryptography' package is required for sha256_password"), "client"),
            (RuntimeError(2003, "Can't connect: [Errno 111] Connection refused"), "refused"),
            (RuntimeError(1040, "Too many connections"), "full"),
            (network.Refused("1130: Host is not allowed"), "host"),
            (OSError(113, "No route to host"), "unreachable"),
            (PermissionError(13, "Permission denied"), "file"),
            (RuntimeError("something"), "other"),
        ],
    )
    def test_the_reason_of_an_error(self, error, reason):
        assert explain(error, "postgresql")[0] == reason

    def test_timeouts_are_told_in_seconds_and_the_rest_by_name(self):
        assert advice.shown_timeouts({"a": 60.0, "b": None, "c": 0.5}) == "a 60 s; c 0.5 s; without limit: b"
        assert advice.shown_timeouts({}) == ""
