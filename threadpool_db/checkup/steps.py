"""Where does it go wrong? A connect taken apart: each step with a time, a limit and an error of its own.

    url, resolve, tcp, greeting, tls, login, query, second, server          PostgreSQL, MySQL, MariaDB
    url, file, open, query, write, second, server                           SQLite

The first step that fails is the last one. Everything is said through the drivers that a pool would use, so what works
here works there; only the steps before the login are done by hand, because a client says of them no more than "failed".
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import socket
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

from threadpool_db.checkup import advice, findings, mysql, network, postgresql, sqlite
from threadpool_db.checkup.failures import explain
from threadpool_db.checkup.limited import StepTimeout, limited
from threadpool_db.checkup.report import Report
from threadpool_db.checkup.sessions import Session
from threadpool_db.drivers.base import Driver
from threadpool_db.drivers.choose import driver_for, parse
from threadpool_db.drivers.sockets import cut_socket, socket_identity
from threadpool_db.errors import PoolMisuse
from threadpool_db.waiting import REAL_TIME

T = TypeVar("T")

FAILED, USAGE = 1, 2
_ROUND_TRIPS = 20
_PACKAGES = {"psycopg2": ("psycopg2-binary", "psycopg2"), "psycopg": ("psycopg",), "pymysql": ("PyMySQL",)}
_TELLERS: dict[str, ModuleType] = {"postgresql": postgresql, "mysql": mysql, "sqlite": sqlite}


class _Stop(Exception):
    """A step has failed, and has been told."""


def check(
    report: Report, url: str, driver: str | None, timeout: float, workers: int | None, max_size: int | None
) -> int:
    """All steps; the exit code. ``report`` has then told everything."""
    checking = _Check(report, timeout)
    try:
        return checking.run(url, driver, workers, max_size)
    except _Stop:
        return checking.code
    finally:
        checking.close()
        report.finish()


class _Check:
    def __init__(self, report: Report, timeout: float) -> None:
        self.report, self.timeout = report, timeout
        #: what others get who have a limit of their own: theirs says more than ours
        self.patience = 0.8 * timeout
        self.code = 0
        self.driver: Driver[Any]
        self.given: dict[str, Any] = {}
        self.database = ""
        self.sessions: list[Session] = []

    def run(self, url: str, driver: str | None, workers: int | None, max_size: int | None) -> int:
        self._step("url", lambda: self._understand(url, driver), self._told_of_url)
        if self.database == "sqlite":
            self._check_file(workers or max_size)
        else:
            self._check_server(workers, max_size)
        return 0

    def _check_server(self, workers: int | None, max_size: int | None) -> None:
        telling = _TELLERS[self.database]
        self._reach(telling)
        first = self._login(telling)
        names = [name for name, _ in self._query(first, telling.IDENTITY)]
        second, mode = self._step(
            "second",
            lambda: self._look_for_a_pooler(first, names, telling.IDENTITY),
            lambda found: "another connection" + ("" if found[1] is None else ", and a pooler"),
            late=lambda found: found[0].close(),
        )
        self.sessions.append(second)
        limits = self._step("server", lambda: self._examine(first, telling, mode), lambda _: "asked for its settings")
        findings.tell_mode(self.report, mode)
        findings.hold_against_the_defaults(self.report, limits, mode)
        if workers or max_size:
            findings.tell_arithmetic(self.report, limits, mode, workers, max_size)

    def _check_file(self, counted: int | None) -> None:
        writable = True
        path = sqlite.path_of(self.given)
        if path is None:
            self.report.skipped("file", "a database in memory")
        else:
            found = path
            writable = self._step("file", lambda: sqlite.look_at(found, self.given), lambda told: told[0])[1]
        first = self._step("open", self._open_file, lambda session: "", late=Session.close)
        self.sessions.append(first)
        self._query(first, sqlite.IDENTITY)
        if writable:
            self._step("write", lambda: sqlite.take_the_write_lock(first), lambda _: "the write lock was free")
        else:
            self.report.skipped("write", "not writable")
        second = self._step("second", self._open_file, lambda session: "another connection", late=Session.close)
        self.sessions.append(second)
        self._step("server", lambda: sqlite.examine(first, self.report, writable), lambda _: "asked for its settings")
        if counted:
            words = "SQLite has one writer at a time, whatever the number of connections"
            self.report.fact("arithmetic", words, None)

    def close(self) -> None:
        for session in self.sessions:
            with contextlib.suppress(Exception):
                limited(REAL_TIME, session.close, 1.0)

    # --- The steps ------------------------------------------------------------------------------------------------

    def _understand(self, url: str, driver: str | None) -> None:
        scheme, separator, rest = url.partition("://")
        if driver is not None and separator and "+" not in scheme:
            url = f"{scheme}+{driver}://{rest}"
        name, self.given = parse(url)
        self.driver = driver_for(url, driver)
        self.database = self.driver.dialect
        for package in _PACKAGES.get(name, ()):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                self.report.fact("driver", f"{name} {importlib.metadata.version(package)}", name)
                return
        self.report.fact("driver", name, name)

    def _told_of_url(self, _: None) -> str:
        given = self.given
        parts = {"host": "host", "port": "port", "socket": "unix_socket", "user": "user", "database": "database"}
        parts["database"] = "dbname" if self.database == "postgresql" else "database"
        shown = [f"{word} {given[key]}" for word, key in parts.items() if given.get(key)]
        return f"driver {self.driver.name}; {', '.join(shown)}"

    def _reach(self, telling: ModuleType) -> None:
        """From the name to the first word of whoever answers."""
        places: list[network.Place] = telling.places(self.given)
        if not places:
            for step in ("resolve", "tcp", "greeting", "tls"):
                self.report.skipped(step, "only the client knows the address")
            return
        addresses, unknown = self._step(
            "resolve", lambda: network.resolve(places), lambda done: ", ".join(one.shown for one in done[0])
        )
        for place, error in unknown:
            self.report.warn("resolve", f"{place.host} is not known here ({error}); the other hosts of the url are")
        end = self._step("tcp", lambda: self._open(addresses), lambda done: self._told_of_attempts(done[1]))[0]
        greeting = self._step(
            "greeting",
            lambda: network.greet(end, self.database, self.patience),
            lambda said: f"{said.who} answers, and offers {'TLS' if said.tls else 'no TLS'}",
        )
        words, demanded = telling.asked_tls(self.given)
        self._step("tls", lambda: self._compare(greeting, demanded and len(places) == 1), lambda _: f"asked: {words}")

    def _open(self, addresses: list[network.Address]) -> tuple[socket.socket, list[network.Attempt]]:
        end, attempts = network.open_all(addresses, self.patience)
        if end is None:
            *_, last = (attempt.error for attempt in attempts)
            assert last is not None
            raise OSError(last.errno, self._told_of_attempts(attempts))
        for one in attempts:
            if one.error is not None:
                self.report.warn(
                    "tcp",
                    f"{one.address.shown} does not answer ({one.error.strerror}), another address does: a connect may "
                    "try it first, and wait for connect_timeout",
                )
        return end, attempts

    def _told_of_attempts(self, attempts: list[network.Attempt]) -> str:
        return ", ".join(
            f"{one.address.shown} {one.error.strerror if one.error else f'{one.seconds * 1000:.1f} ms'}"
            for one in attempts
        )

    def _compare(self, greeting: network.Greeting, demanded: bool) -> None:
        if demanded and not greeting.tls:
            raise network.NoTLS("the url demands TLS, and the server offers none")

    def _login(self, telling: ModuleType) -> Session:
        def told(session: Session) -> str:
            words: str = telling.logged_in(session.connection)
            return words + (", encrypted" if session.tls["encrypted"] else ", not encrypted")

        session = self._step("login", self._connect, told, late=Session.close)
        self.sessions.append(session)
        return session

    def _connect(self) -> Session:
        connection = self.driver.connect(self.patience)
        self.driver.set_autocommit(connection, True)
        self.driver.forgo_names(connection)  # behind a pooler one of them may be somebody else's
        return Session(self.driver, connection)

    def _open_file(self) -> Session:
        session = Session(self.driver, self.driver.connect(self.patience))
        sqlite.be_patient(session, self.patience)
        return session

    def _query(self, session: Session, sql: str) -> list[tuple[Any, float]]:
        """Round trips: the answer and the seconds of each."""

        def ask() -> tuple[Any, float]:
            began = REAL_TIME.now()
            [(answer,)] = session.ask(sql)
            return answer, REAL_TIME.now() - began

        tell = partial(findings.tell_round_trips, self.report)
        return self._step("query", lambda: [ask() for _ in range(_ROUND_TRIPS + 1)], tell)

    def _look_for_a_pooler(self, first: Session, names: list[Any], sql: str) -> tuple[Session, str | None]:
        """A second connection, and the mode of the pooler that lends both of them their sessions."""
        second = self._connect()
        try:
            [(name,)] = second.ask(sql)
            mode = advice.pooling(self.driver.session(first.connection), names, [name])
            if mode == "transaction" and not self._begins(second):
                mode = "statement"
        except BaseException:
            second.close()
            raise
        return second, mode

    def _begins(self, session: Session) -> bool:
        """In statement mode a BEGIN is refused, and the connection closed."""
        try:
            self.driver.begin(session.connection)
            self.driver.rollback(session.connection)
        except Exception:
            return False
        return True

    def _examine(self, session: Session, telling: ModuleType, mode: str | None) -> list[advice.Limit]:
        limits: list[advice.Limit] = telling.examine(session, self.report, len(self.sessions), mode)
        verified = session.tls["verified"]
        findings.tell_tls(
            self.report,
            session,
            telling.verified(self.given) if verified is None else verified,
            telling.server_tls(session),
            mode,
        )
        for what in session.untold:
            self.report.warn("untold", f"not told by the server: {what}")
        return limits

    # --- One step -------------------------------------------------------------------------------------------------

    def _step(
        self,
        name: str,
        work: Callable[[], T],
        describe: Callable[[T], str],
        late: Callable[[T], object] | None = None,
    ) -> T:
        """Do it within the limit, and tell."""
        self.report.begin(name)
        began = REAL_TIME.now()
        try:
            result = limited(REAL_TIME, work, self.timeout, late)
            self.report.ended(REAL_TIME.now() - began, describe(result))
            return result
        except Exception as error:
            if isinstance(error, StepTimeout):
                self._abandon()
            reason, remedy = self._explained(error, name)
            self.code = USAGE if name == "url" and reason == "url" else FAILED
            self.report.failed(REAL_TIME.now() - began, error, reason, remedy)
            raise _Stop from error

    def _abandon(self) -> None:
        """Some thread is still in the middle of a call on one of them: make it fail."""
        for session in self.sessions:
            descriptor = self.driver.descriptor(session.connection)
            if descriptor is None:
                self.driver.interrupt(session.connection)
            else:
                cut_socket(socket_identity(descriptor))
        if not self.driver.closes_in_use:
            self.sessions.clear()

    def _explained(self, error: Exception, step: str) -> tuple[str, str]:
        if step == "url" and isinstance(error, ValueError):
            return "url", "correct the url"
        if isinstance(error, PoolMisuse):
            other = "psycopg" if "psycopg2" in str(error) else "psycopg2"
            if "psycopg" in str(error) and importlib.util.find_spec(other) is not None:
                return "driver", f"install it where this command runs, or use --driver {other}, which is there"
        return explain(error, self.database)
