"""Where does a test get a real server?

    with Postgres() as postgres, PgBouncer(postgres) as pgbouncer, FaultProxy(postgres.port) as proxy:
        psycopg2.connect(host=proxy.host, port=proxy.port, user="postgres", dbname="postgres")
        proxy.set(mode="blackhole")
        postgres.kill()

Every server is private: a scratch folder, a loopback port that nobody else has, no password, no fsync (what was
committed survives a killed server, not a power cut). It starts in a fraction of a second, so a test that kills or
restarts one takes its own. Standard library only.

- As root a server runs as an unprivileged user (initdb, postgres and pgbouncer refuse uid 0), dropped to by Popen
  itself: a preexec_fn is unsafe once there are threads.
- A server sits in a session of its own, so Ctrl-C reaches the tests and not the server under their feet.
- A port belongs to its server from the first start to stop(), also while it is down (see ReservedPort). So restart()
  always gets its port back, and a dead server refuses connections.
- Nothing outlives the process that started it: `with` ends a server, atexit ends one that was forgotten, and for a
  process that is itself killed a shell waits at the other end of a pipe. PR_SET_PDEATHSIG would be the obvious tool,
  but it fires when the starting *thread* ends, and tests do restart servers from threads.

`python -m tests.servers` measures start-up times; `--missing` names the Debian packages of servers that are not here.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, TypeVar

from tests.proxy import HOST, FaultProxy, ReservedPort, Traffic

__all__ = [
    "HOST",
    "SERVERS",
    "FaultProxy",
    "MariaDB",
    "PgBouncer",
    "Postgres",
    "ReservedPort",
    "Server",
    "ServerError",
    "Traffic",
    "find_program",
    "missing_packages",
    "missing_programs",
]

START_LIMIT = 30.0
STOP_LIMIT = 15.0
MEMORY_WANTED = 2 << 30


class ServerError(RuntimeError):
    """A server program is missing, or ended or stayed silent when it should have come up; with the end of its log."""


# programs and privileges ----------------------------------------------------------------------------------------------


def find_program(name: str) -> Path | None:
    """A server program on PATH or where distributions hide it; PG_BIN names PostgreSQL's folder outright."""
    folders: list[Path] = []
    if name in ("postgres", "initdb"):
        if chosen := os.environ.get("PG_BIN"):
            folders.append(Path(chosen))
        debian = Path("/usr/lib/postgresql").glob("*/bin")
        folders += sorted(debian, key=lambda path: float(path.parent.name), reverse=True)
    on_path = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    folders += [*on_path, Path("/usr/sbin"), Path("/usr/local/sbin")]
    for folder in folders:
        if os.access(folder / name, os.X_OK):
            return folder / name
    return None


def missing_programs(server: type[Server] | None = None) -> list[str]:
    """Which programs of this server (of every server) are not on this machine?"""
    kinds: Sequence[type[Server]] = [server] if server else SERVERS
    return [name for kind in kinds for name in kind.programs if find_program(name) is None]


def missing_packages() -> list[str]:
    """The Debian packages that bring the missing programs."""
    return [kind.package for kind in SERVERS if missing_programs(kind)]


def _unprivileged() -> dict[str, Any]:
    """Popen's keywords that drop root; none when there is nothing to drop."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "mysql", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise ServerError("running as root, and no unprivileged user is known here: none of postgres, mysql, nobody")


def _scratch(prefix: str) -> Path:
    """A new folder, in memory where there is plenty: that halves the time a server takes to start."""
    memory = Path("/dev/shm")
    in_memory = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > MEMORY_WANTED
    return Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=memory if in_memory else None))


def _hand_over(folder: Path) -> None:
    """Give a folder and all that is in it to the user that the servers run as."""
    if drop := _unprivileged():
        for path in (folder, *folder.rglob("*")):
            os.chown(path, drop["user"], drop["group"])


def _run(command: Sequence[str], text: str = "") -> None:
    """Run a program as the user that the servers run as."""
    done = subprocess.run(
        command, input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", **_unprivileged()
    )
    if done.returncode:
        output = done.stdout.decode(errors="replace")
        raise ServerError(f"{command[0]} ended with {done.returncode}:\n{output[-2000:]}")


class _Certificate(NamedTuple):
    certificate: Path
    key: Path


def _self_signed(folder: Path) -> _Certificate:
    """A certificate for localhost and 127.0.0.1; its own authority, so a client verifies it by naming it as its CA."""
    pair = _Certificate(folder / "server.crt", folder / "server.key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "30", "-subj", "/CN=localhost", "-addext", f"subjectAltName=IP:{HOST},DNS:localhost"]
    subprocess.run([*command, "-keyout", pair.key, "-out", pair.certificate], check=True, capture_output=True)
    pair.key.chmod(0o600)
    return pair


# servers --------------------------------------------------------------------------------------------------------------


class _Guardian:
    """A shell that removes a folder, and kills the server in it, once the process that made them is gone."""

    _script = 'read -r _ && exit; [ "$2" = 0 ] || kill -s KILL -- "-$2" 2>/dev/null; rm -rf -- "$1"'

    def __init__(self, folder: Path, group: int = 0) -> None:
        command = ["sh", "-c", self._script, "guardian", str(folder), str(group)]
        self._shell = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def dismiss(self) -> None:
        self._shell.communicate(b"done\n")


class _Template:
    """A fresh data directory of one kind of server, made once in a process and copied for each of its servers."""

    _made: ClassVar[dict[type[Server], _Template]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, server: Server) -> None:
        self._made_by = os.getpid()
        self._folder = _scratch(f"{type(server).__name__.lower()}-template")
        self._guardian = _Guardian(self._folder)
        atexit.register(self._remove)
        _hand_over(self._folder)
        server._initialise(self._folder / "data")

    @classmethod
    def copy(cls, server: Server) -> None:
        with cls._lock:
            if type(server) not in cls._made:
                cls._made[type(server)] = cls(server)
        source = cls._made[type(server)]._folder / "data"
        subprocess.run(["cp", "-a", str(source), str(server.folder / "data")], check=True)

    def _remove(self) -> None:
        if self._made_by == os.getpid():
            shutil.rmtree(self._folder, ignore_errors=True)
            self._guardian.dismiss()


class Server:
    """One private server: start, stop, kill, restart. A subclass knows how to prepare and when it is ready."""

    package: ClassVar[str]
    programs: ClassVar[Sequence[str]]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    has_data: ClassVar[bool] = True

    host = HOST
    port: int
    folder: Path
    certificate: Path | None = None
    """What a client of a server with tls=True names as its CA."""

    def __init__(self, *, tls: bool = False, **settings: object) -> None:
        self.tls = tls
        self.settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._guardian: _Guardian | None = None
        self._reserved: ReservedPort | None = None
        self._started_by = 0

    def __enter__(self: _S) -> _S:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def start(self: _S) -> _S:
        if missing := missing_programs(type(self)):
            raise ServerError(f"not on this machine: {', '.join(missing)} (Debian: {self.package})")
        assert self._reserved is None, "already started"
        self._started_by = os.getpid()
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self.folder = _scratch(type(self).__name__.lower())
        atexit.register(self.stop)
        try:
            certificate = _self_signed(self.folder) if self.tls else None
            if certificate:
                self.certificate = certificate.certificate
            if self.has_data:
                _Template.copy(self)
            self._configure(certificate)
            _hand_over(self.folder)
            self._spawn()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End it for good: process, port and folder. In a forked child it does nothing: the server is the parent's."""
        if self._reserved is None or self._started_by != os.getpid():
            return
        self.kill(self.stop_signal)
        self._reserved.release()
        self._reserved = None
        self._sweep()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.stop)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the process and keep port and data: clients see a crashed server, or one that was told to stop."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(how)
                try:
                    self._process.wait(STOP_LIMIT)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
                self._wait_until_refused()
            self._process = None
        if self._guardian is not None:
            self._guardian.dismiss()
            self._guardian = None

    def restart(self, how: signal.Signals | None = None) -> None:
        """Down and up again on the same port with the same data; `how` as in kill(), politely by default."""
        self.kill(how or self.stop_signal)
        self._spawn()

    def _initialise(self, data: Path) -> None:
        """Make a data directory, the same for every server of this kind."""
        raise NotImplementedError

    def _configure(self, certificate: _Certificate | None) -> None:
        raise NotImplementedError

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _sweep(self) -> None:
        """Remove what a killed server has left outside its folder."""

    def _ready(self) -> bool:
        raise NotImplementedError

    def _program(self, name: str) -> str:
        path = find_program(name)
        assert path is not None
        return str(path)

    def _spawn(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while True:
            with open(self.folder / "log", "ab") as log:
                self._process = subprocess.Popen(
                    self._command(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    start_new_session=True,
                    **_unprivileged(),
                )
            self._guardian = _Guardian(self.folder, self._process.pid)
            try:
                if self._wait_until_ready(deadline):
                    return
            except BaseException:
                self.kill()
                raise
            ended = self._process.returncode
            self.kill()
            # After SIGKILL the old sessions of PostgreSQL need a moment to notice; until then it refuses to start.
            if "pre-existing shared memory block" not in self.log()[-2000:] or time.monotonic() > deadline:
                raise ServerError(f"{type(self).__name__} ended with {ended}:\n{self.log()[-2000:]}")
            time.sleep(0.02)

    def _wait_until_refused(self) -> None:
        """A child that PostgreSQL had just forked may hold the listening socket for a moment longer."""
        deadline = time.monotonic() + STOP_LIMIT
        while time.monotonic() < deadline:
            try:
                socket.create_connection((self.host, self.port), 1.0).close()
            except ConnectionRefusedError:
                return
            except OSError:
                pass
            time.sleep(0.005)

    def _wait_until_ready(self, deadline: float) -> bool:
        """True once it answers, False if the process ended instead."""
        while time.monotonic() < deadline:
            if not self.running:
                return False
            try:
                if self._ready():
                    return True
            except OSError:
                pass
            time.sleep(0.005)
        raise ServerError(f"{type(self).__name__} was not ready in {START_LIMIT:g} s:\n{self.log()[-2000:]}")


_S = TypeVar("_S", bound=Server)


class Postgres(Server):
    """PostgreSQL; user postgres, database postgres, no password. Settings are those of postgresql.conf."""

    package = "postgresql"
    programs = ("initdb", "postgres")
    stop_signal = signal.SIGINT  # "fast": ends the sessions; SIGTERM would wait for them, SIGQUIT skips the checkpoint

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{self.address}/postgres"

    def _initialise(self, data: Path) -> None:
        command = [self._program("initdb"), f"--pgdata={data}", "--username=postgres", "--auth=trust"]
        _run([*command, "--no-sync", "--no-locale", "--encoding=UTF8"])

    def _configure(self, certificate: _Certificate | None) -> None:
        settings: dict[str, object] = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 120,
            "authentication_timeout": "5s",  # a client that says nothing holds up even a fast shutdown that long
            "shared_buffers": "32MB",
            "dynamic_shared_memory_type": "mmap",  # in the data directory, so a killed server leaves none behind
            "fsync": "off",  # a commit survives a killed server, if not the machine
            "full_page_writes": "off",
            "wal_level": "minimal",
            "max_wal_senders": 0,
            "logging_collector": "off",
        }
        if certificate:
            settings |= {"ssl": "on", "ssl_cert_file": certificate.certificate, "ssl_key_file": certificate.key}
        with open(self.folder / "data" / "postgresql.conf", "a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in (settings | self.settings).items())

    def _command(self) -> list[str]:
        return [self._program("postgres"), "-D", "data"]

    def _status(self) -> list[str]:
        """The lines of postmaster.pid, which a kill leaves behind: pid first, System V ids seventh, state eighth."""
        return [*(self.folder / "data" / "postmaster.pid").read_text().split("\n"), *[""] * 8]

    def _ready(self) -> bool:
        status = self._status()
        return status[0] == str(self.pid) and status[7].strip() == "ready"

    def _sweep(self) -> None:
        try:
            shared_memory = self._status()[6].split()
        except FileNotFoundError:
            return
        if len(shared_memory) == 2 and shutil.which("ipcrm"):
            subprocess.run(["ipcrm", "-m", shared_memory[1]], stderr=subprocess.DEVNULL)


class MariaDB(Server):
    """MariaDB; user root, database test, no password. Settings are those of mariadbd's command line."""

    package = "mariadb-server-core"
    programs = ("mariadbd",)

    _install = ("mysql_system_tables.sql", "mysql_system_tables_data.sql", "maria_add_gis_sp_bootstrap.sql")

    @property
    def url(self) -> str:
        return f"mysql://root@{self.address}/test"

    def _initialise(self, data: Path) -> None:
        # Not mariadb-install-db: it is a script around this, and wants Perl and the client package besides.
        sql = ["CREATE DATABASE mysql;", "CREATE DATABASE test;", "USE mysql;", "SET @auth_root_socket = NULL;"]
        share = self._share()
        sql += [(share / name).read_text() for name in self._install]
        data.mkdir()
        _hand_over(data)
        small = ["--innodb-log-file-size=4M", "--innodb-buffer-pool-size=16M", "--max-allowed-packet=8M"]
        command = [self._program("mariadbd"), "--no-defaults", "--bootstrap", f"--datadir={data}", *small]
        _run(command, "\n".join(sql) + "\n")

    def _configure(self, certificate: _Certificate | None) -> None:
        settings: dict[str, object] = {
            "datadir": self.folder / "data",
            "socket": self.folder / "socket",
            "pid-file": self.folder / "pid",
            "tmpdir": self.folder,
            "bind-address": HOST,
            "port": self.port,
            "max-connections": 150,
            "skip-name-resolve": 1,
            "performance-schema": "OFF",
            "innodb-buffer-pool-size": "32M",
            "innodb-log-file-size": "4M",
            "innodb-flush-log-at-trx-commit": 2,
        }
        if certificate:
            settings |= {"ssl-ca": certificate.certificate}
            settings |= {"ssl-cert": certificate.certificate, "ssl-key": certificate.key}
        settings |= {name.replace("_", "-"): value for name, value in self.settings.items()}
        conf = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self.folder / "my.cnf").write_text(f"[mariadbd]\n{conf}")

    def _share(self) -> Path:
        prefix = Path(self._program("mariadbd")).resolve().parent.parent
        for folder in (prefix / "share/mysql", prefix / "share/mariadb", Path("/usr/share/mysql")):
            if (folder / self._install[0]).exists():
                return folder
        raise ServerError(f"mariadbd is here, its {self._install[0]} is not (Debian: {self.package})")

    def _command(self) -> list[str]:
        return [self._program("mariadbd"), f"--defaults-file={self.folder / 'my.cnf'}"]

    def _ready(self) -> bool:
        with socket.create_connection((self.host, self.port), 1.0) as probe:
            greeting = probe.recv(5)  # the server speaks first; the fifth byte is the protocol's version
            return len(greeting) == 5 and greeting[4] == 10


class PgBouncer(Server):
    """PgBouncer before a Postgres, in transaction mode unless told otherwise. Settings are those of [pgbouncer].

    Every client becomes the server's user postgres, whatever name it gives; the console is database pgbouncer.
    """

    package = "pgbouncer"
    programs = ("pgbouncer",)
    has_data = False

    def __init__(self, postgres: Postgres, *, tls: bool = False, **settings: object) -> None:
        super().__init__(tls=tls, **settings)
        self.postgres = postgres

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{self.address}/postgres"

    def _configure(self, certificate: _Certificate | None) -> None:
        settings: dict[str, object] = {
            "listen_addr": HOST,
            "listen_port": self.port,
            "unix_socket_dir": "",
            "pidfile": self.folder / "pid",
            "auth_type": "any",
            "admin_users": "postgres",
            "ignore_startup_parameters": "extra_float_digits",
            "pool_mode": "transaction",
            "default_pool_size": 4,
            "max_client_conn": 200,
        }
        if certificate:
            settings |= {"client_tls_sslmode": "allow"}
            settings |= {"client_tls_cert_file": certificate.certificate, "client_tls_key_file": certificate.key}
        conf = "".join(f"{name} = {value}\n" for name, value in (settings | self.settings).items())
        target = f"* = host={self.postgres.host} port={self.postgres.port} user=postgres\n"
        (self.folder / "pgbouncer.ini").write_text(f"[databases]\n{target}[pgbouncer]\n{conf}")

    def _command(self) -> list[str]:
        return [self._program("pgbouncer"), str(self.folder / "pgbouncer.ini")]

    def _ready(self) -> bool:
        socket.create_connection((self.host, self.port), 1.0).close()
        return True


SERVERS: Sequence[type[Server]] = (Postgres, MariaDB, PgBouncer)


# as a tool ------------------------------------------------------------------------------------------------------------


def _measure(label: str, make: Callable[[], Server], runs: int = 3) -> None:
    times: list[tuple[float, float, float]] = []
    for _ in range(runs):
        begun = time.perf_counter()
        with make() as server:
            up = time.perf_counter()
            server.restart()
            again = time.perf_counter()
        times.append((up - begun, again - up, time.perf_counter() - again))
    start, restart, stop = (min(column) for column in zip(*times, strict=True))
    print(f"{label:24} start {start:.3f} s   restart {restart:.3f} s   stop {stop:.3f} s", flush=True)


def _main(arguments: Sequence[str]) -> int:
    if "--missing" in arguments:
        print(" ".join(missing_packages()))
        return 0
    for kind in (Postgres, MariaDB):
        if missing := missing_programs(kind):
            print(f"{kind.__name__:24} not here: {', '.join(missing)}")
            continue
        _measure(kind.__name__, kind)
        _measure(f"{kind.__name__} with TLS", partial(kind, tls=True))
    if missing := missing_programs(PgBouncer) + missing_programs(Postgres):
        print(f"{'PgBouncer':24} not here: {', '.join(missing)}")
    else:
        with Postgres() as postgres:
            _measure("PgBouncer", partial(PgBouncer, postgres))
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
