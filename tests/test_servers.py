"""Do the private servers and the fault proxy do what the other tests take for granted?"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import placeholders, read_databases, require
from tests.servers import (
    HOST,
    FaultProxy,
    MariaDB,
    PgBouncer,
    Postgres,
    ReservedPort,
    Server,
    ServerError,
    missing_programs,
)

ROOT = Path(__file__).resolve().parent.parent


def connect(port: int, timeout: float = 5.0) -> socket.socket:
    return socket.create_connection((HOST, port), timeout)


def is_refused(port: int) -> bool:
    try:
        connect(port).close()
    except (ConnectionRefusedError, ConnectionResetError):  # a reset: the listener was closed in mid-handshake
        return True
    return False


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """For what another process does in its own time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def is_silent(client: socket.socket, seconds: float = 0.05) -> bool:
    """Nothing to read and no end, now and for a moment."""
    return not select.select([client], [], [], seconds)[0]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class TestServers:
    @pytest.fixture(params=[Postgres, MariaDB, PgBouncer], ids=lambda kind: kind.__name__)
    def server(self, request: pytest.FixtureRequest) -> Iterator[Server]:
        kind: type[Server] = request.param
        require(kind)
        made = PgBouncer(request.getfixturevalue("postgres")) if kind is PgBouncer else kind()
        with made:
            yield made

    def test_a_server_answers_once_it_has_started_and_refuses_once_it_is_stopped(self, server: Server) -> None:
        folder, pid = server.folder, server.pid
        connect(server.port).close()
        server.stop()
        assert is_refused(server.port)
        assert not is_alive(pid)
        assert not folder.exists()

    @pytest.mark.parametrize("how", [None, signal.SIGKILL], ids=["politely", "SIGKILL"])
    def test_a_restart_keeps_the_port(self, server: Server, how: signal.Signals | None) -> None:
        port, pid = server.port, server.pid
        server.restart(how)
        assert (server.port, server.running) == (port, True)
        assert server.pid != pid
        connect(port).close()

    def test_a_killed_server_refuses_until_it_is_started_again_and_nobody_else_gets_its_port(
        self, server: Server
    ) -> None:
        server.kill()
        assert not server.running
        assert is_refused(server.port)
        others = [ReservedPort() for _ in range(50)]
        assert server.port not in {other.number for other in others}
        for other in others:
            other.release()
        server.restart()
        connect(server.port).close()

    def test_stopping_twice_is_harmless_and_starting_twice_is_refused(self, server: Server) -> None:
        with pytest.raises(AssertionError, match="already started"):
            server.start()
        server.stop()
        server.stop()

    def test_a_forked_child_leaves_the_server_alone(self, server: Server) -> None:
        if (child := os.fork()) == 0:
            try:
                server.stop()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert server.running
        connect(server.port).close()


class TestSessions:
    """What a real client sees; on Pythons without drivers these are not run."""

    def test_postgres_takes_statements_and_keeps_committed_rows_over_a_crash(self) -> None:
        psycopg2 = pytest.importorskip("psycopg2")
        require(Postgres)
        with Postgres(tls=True, max_connections=7) as server:
            connection = psycopg2.connect(server.url, sslmode="verify-full", sslrootcert=str(server.certificate))
            cursor = connection.cursor()
            cursor.execute("show max_connections")
            assert cursor.fetchone() == ("7",)
            cursor.execute("create table t (x int); insert into t values (1); commit")
            server.restart(signal.SIGKILL)
            connection.close()
            connection = psycopg2.connect(server.url)
            cursor = connection.cursor()
            cursor.execute("select x from t")
            assert cursor.fetchall() == [(1,)]
            connection.close()

    def test_mariadb_takes_statements_under_tls(self) -> None:
        pymysql = pytest.importorskip("pymysql")
        require(MariaDB)
        with MariaDB(tls=True, wait_timeout=77) as server:
            ca = {"ca": str(server.certificate)}
            connection = pymysql.connect(host=HOST, port=server.port, user="root", database="test", ssl=ca)
            with connection.cursor() as cursor:
                cursor.execute("select @@wait_timeout")
                assert cursor.fetchone() == (77,)
                cursor.execute("show status like 'Ssl_cipher'")
                assert cursor.fetchone()[1]
            connection.close()

    def test_pgbouncer_shares_one_session_between_idle_clients(self, postgres: Postgres) -> None:
        psycopg2 = pytest.importorskip("psycopg2")
        require(PgBouncer)
        with PgBouncer(postgres, default_pool_size=1) as server:
            first, second = psycopg2.connect(server.url), psycopg2.connect(server.url)
            pids = set()
            for connection in (first, second):
                with connection.cursor() as cursor:
                    cursor.execute("select pg_backend_pid()")
                    pids.add(cursor.fetchone())
                connection.commit()
            assert len(pids) == 1
            first.close()
            second.close()


class TestLifetime:
    script = "import sys; from tests.servers import *; s = %s().start(); print(s.port, s.folder, flush=True); %s"

    def start(self, then: str) -> tuple[subprocess.Popen[str], int, Path]:
        require(Postgres)
        code = self.script % ("Postgres", then)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert process.stdout is not None
        port, folder = process.stdout.readline().split()
        process.stdout.close()
        return process, int(port), Path(folder)

    def test_a_forgotten_server_ends_with_the_process(self) -> None:
        process, port, folder = self.start("pass")
        assert process.wait(30) == 0
        assert is_refused(port)
        assert not folder.exists()

    def test_a_server_ends_after_a_process_that_was_killed(self) -> None:
        process, port, folder = self.start("import signal; signal.pause()")
        process.kill()
        process.wait()
        assert eventually(lambda: is_refused(port) and not folder.exists())


class TestFailures:
    def test_a_server_that_will_not_start_says_why_and_leaves_nothing(self) -> None:
        require(Postgres)
        server = Postgres(shared_buffers="nonsense")
        with pytest.raises(ServerError, match="shared_buffers"):
            server.start()
        assert not server.folder.exists()

    def test_a_missing_program_is_named_with_its_package(self) -> None:
        class Imaginary(Server):
            package = "imaginary-server"
            programs = ("imaginaryd",)

        assert missing_programs(Imaginary) == ["imaginaryd"]
        with pytest.raises(ServerError, match=r"imaginaryd.*imaginary-server"):
            Imaginary().start()

    @pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
    def test_a_missing_server_skips_a_test_and_fails_it_under_ci(
        self, ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Imaginary(Server):
            package = "imaginary-server"
            programs = ("imaginaryd",)

        monkeypatch.setenv("CI", ci)
        with pytest.raises(outcome, match=r"Imaginary .*imaginaryd.*imaginary-server"):
            require(Imaginary)


class Echo:
    """A server in this process, so that a test of the proxy sees both ends; accept() gives the server's."""

    def __init__(self) -> None:
        self.listener = socket.create_server((HOST, 0))
        self.listener.settimeout(5.0)
        self.port: int = self.listener.getsockname()[1]
        self.open: list[socket.socket] = []

    def accept(self) -> socket.socket:
        end, _ = self.listener.accept()
        end.settimeout(5.0)
        self.open.append(end)
        return end

    def close(self) -> None:
        for end in (self.listener, *self.open):
            end.close()


class TestFaultProxy:
    @pytest.fixture
    def echo(self) -> Iterator[Echo]:
        made = Echo()
        yield made
        made.close()

    @pytest.fixture
    def via(self, echo: Echo, proxy: Callable[[int], FaultProxy]) -> FaultProxy:
        return proxy(echo.port)

    @pytest.fixture
    def ends(self, echo: Echo, via: FaultProxy) -> Iterator[tuple[socket.socket, socket.socket]]:
        """A client's socket and the server's that answers it."""
        with connect(via.port) as client:
            yield client, echo.accept()

    Ends = tuple[socket.socket, socket.socket]

    def test_bytes_pass_in_both_directions_and_every_one_is_counted(self, via: FaultProxy, ends: Ends) -> None:
        client, server = ends
        client.sendall(b"question")
        assert server.recv(100) == b"question"
        server.sendall(b"the answer")
        assert client.recv(100) == b"the answer"
        assert via.traffic == (1, 1, len(b"question"), len(b"the answer"))

    def test_more_than_the_buffers_hold_arrives_whole_and_in_order(self, via: FaultProxy, ends: Ends) -> None:
        client, server = ends
        sent = b"".join(number.to_bytes(4, "big") for number in range(1 << 20))
        client.setblocking(False)
        server.setblocking(False)
        position, received = 0, bytearray()
        while len(received) < len(sent):
            readable, writable, _ = select.select([server], [client] if position < len(sent) else [], [], 5.0)
            assert readable or writable
            if writable:
                position += client.send(sent[position : position + 100_000])
            if readable:
                received += server.recv(100_000)
        assert received == sent
        assert via.traffic.to_server == len(sent)

    def test_a_reader_that_does_not_read_does_not_hold_up_the_others(self, echo: Echo, via: FaultProxy) -> None:
        with connect(via.port) as deaf, connect(via.port) as other:
            flooding, answering = echo.accept(), echo.accept()
            flooding.setblocking(False)
            try:
                while select.select([], [flooding], [], 0.05)[1]:
                    flooding.send(bytes(100_000))
            except BlockingIOError:
                pass
            answering.sendall(b"here")
            assert other.recv(100) == b"here"
            assert deaf.recv(1) == b"\0"

    @pytest.mark.parametrize("first", ["client", "server"])
    def test_a_fin_is_passed_on_after_the_data_before_it(self, via: FaultProxy, ends: Ends, first: str) -> None:
        client, server = ends
        near, far = (client, server) if first == "client" else (server, client)
        near.sendall(b"last words")
        near.shutdown(socket.SHUT_WR)
        assert (far.recv(100), far.recv(100)) == (b"last words", b"")
        far.sendall(b"still open the other way")
        assert near.recv(100) == b"still open the other way"
        assert via.traffic.open == 1
        far.shutdown(socket.SHUT_WR)
        assert near.recv(100) == b""
        assert via.traffic.open == 0

    def test_a_reset_of_one_end_is_passed_on(self, ends: Ends) -> None:
        client, server = ends
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        server.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)

    def test_a_server_that_is_down_resets_the_client(self, proxy: Callable[[int], FaultProxy]) -> None:
        nobody = ReservedPort()
        try:
            # the reset may come while the client still believes that it connects
            with pytest.raises(ConnectionResetError), connect(proxy(nobody.number).port) as client:
                client.recv(1)
        finally:
            nobody.release()

    def test_a_black_hole_is_silent_and_a_healed_network_delivers(self, via: FaultProxy, ends: Ends) -> None:
        client, server = ends
        via.set(mode="blackhole")
        client.sendall(b"anyone?")
        server.sendall(b"hello?")
        server.shutdown(socket.SHUT_WR)
        assert is_silent(client)
        assert is_silent(server)
        assert via.traffic == (1, 1, 0, 0)
        via.set(mode="pass")
        assert server.recv(100) == b"anyone?"
        assert (client.recv(100), client.recv(100)) == (b"hello?", b"")

    def test_in_a_black_hole_a_new_connection_opens_and_hears_nothing(self, echo: Echo, via: FaultProxy) -> None:
        via.set(mode="blackhole")
        with connect(via.port) as client:
            client.sendall(b"login")
            assert is_silent(client)
            assert via.traffic.accepted == 0
            via.set(mode="pass")
            assert echo.accept().recv(100) == b"login"

    def test_a_black_hole_costs_no_cpu(self, via: FaultProxy, ends: Ends) -> None:
        client, _ = ends
        via.set(mode="blackhole")
        client.sendall(b"waiting in the kernel")
        before = time.process_time()
        assert is_silent(client, 0.2)
        assert time.process_time() - before < 0.1

    def test_refusing_hits_new_connections_only_and_can_be_taken_back(self, via: FaultProxy, ends: Ends) -> None:
        client, server = ends
        via.set(mode="refuse")
        assert is_refused(via.port)
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        via.set(mode="pass")
        connect(via.port).close()

    def test_an_unknown_mode_is_an_error_of_the_caller(self, via: FaultProxy, ends: Ends) -> None:
        with pytest.raises(ValueError, match="lossy"):
            via.set(mode="lossy")  # type: ignore[arg-type]
        ends[0].sendall(b"x")
        assert ends[1].recv(1) == b"x"

    def test_latency_delays_each_direction_and_keeps_the_order(self, via: FaultProxy, ends: Ends) -> None:
        client, server = ends
        via.set(latency=0.03)
        begun = time.monotonic()
        client.sendall(b"a")
        assert server.recv(1) == b"a"
        server.sendall(b"b")
        assert client.recv(1) == b"b"
        assert time.monotonic() - begun >= 0.06
        client.sendall(b"slow")
        via.set(latency=0.0)
        client.sendall(b" and fast")
        received = server.recv(100)
        while len(received) < len(b"slow and fast"):
            received += server.recv(100)
        assert received == b"slow and fast"

    def test_drop_after_ends_a_connection_in_the_middle_of_an_answer(self, via: FaultProxy, ends: Ends) -> None:
        client, server = ends
        server.sendall(b"before")
        assert client.recv(100) == b"before"
        via.set(drop_after=4)
        server.sendall(b"answer")
        assert (client.recv(100), client.recv(100)) == (b"answ", b"")
        assert via.traffic[1:] == (0, 0, len(b"beforeansw"))

    def test_drop_after_nothing_loses_an_answer_whose_question_arrived(self, via: FaultProxy, ends: Ends) -> None:
        client, server = ends
        via.set(drop_after=0)
        client.sendall(b"commit")
        assert server.recv(100) == b"commit"
        assert is_silent(client)
        server.sendall(b"ok")
        assert client.recv(100) == b""

    def test_a_negative_drop_after_ends_an_earlier_one(self, via: FaultProxy, ends: Ends) -> None:
        client, server = ends
        via.set(drop_after=0)
        via.set(drop_after=-1)
        server.sendall(b"ok")
        assert client.recv(100) == b"ok"

    def test_cut_sends_fin_to_both_ends_even_with_bytes_unread(self, via: FaultProxy, ends: Ends) -> None:
        client, server = ends
        via.set(mode="blackhole")
        client.sendall(b"never delivered")
        assert via.cut() == 1
        assert client.recv(100) == b""
        assert server.recv(100) == b""
        assert via.traffic.open == 0
        assert via.cut() == 0

    def test_reset_sends_rst_to_both_ends(self, via: FaultProxy, ends: Ends) -> None:
        assert via.reset() == 1
        for end in ends:
            with pytest.raises(ConnectionResetError):
                end.recv(1)

    def test_a_closed_proxy_refuses_and_closing_again_is_harmless(self, via: FaultProxy, ends: Ends) -> None:
        via.close()
        via.close()
        assert ends[0].recv(1) == b""
        assert is_refused(via.port)

    def test_a_statement_costs_the_same_bytes_each_time(
        self, postgres: Postgres, proxy: Callable[..., FaultProxy]
    ) -> None:
        psycopg2 = pytest.importorskip("psycopg2")
        via = proxy(postgres.port)
        connection = psycopg2.connect(host=HOST, port=via.port, user="postgres", dbname="postgres")
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("select 1")
        before = via.traffic
        for _ in range(100):
            cursor.execute("select 1")
        after = via.traffic
        query = len(b"Q") + 4 + len(b"select 1\0")
        assert after.to_server - before.to_server == 100 * query
        connection.close()


class TestDatabaseTable:
    def test_the_table_of_setup_cfg_names_the_databases_that_tests_run_on(self) -> None:
        table = read_databases(ROOT / "setup.cfg")
        assert {"sqlite", "postgresql", "mariadb"} <= set(table)
        assert placeholders(table["postgresql"]) == ["postgresql"]

    def test_a_url_comes_with_its_server_up(self, db_name: str, db_url: str) -> None:
        assert "{" not in db_url
        if db_name in ("postgresql", "mariadb"):
            port = int(db_url.rsplit(":", 1)[1].split("/")[0])
            connect(port).close()
