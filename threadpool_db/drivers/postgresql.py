"""What do the two drivers of PostgreSQL share? Everything that libpq and the server say, whatever client asks."""

from __future__ import annotations

import math
from collections.abc import Hashable
from types import MappingProxyType
from typing import Any

from threadpool_db.drivers.base import BUSY, FAILED, IDLE, OPEN, UNKNOWN, C
from threadpool_db.drivers.client import KEEPALIVE_COUNT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, Client
from threadpool_db.drivers.watching import LASTING, PERHAPS, SESSION

#: by libpq's PGTransactionStatusType; a closed connection's is the last
STATES = (IDLE, BUSY, OPEN, FAILED, UNKNOWN)
TRANSACTION_IDLE = 0
#: the SQLSTATEs after which the server hangs up: shutdown, crash and idle_session_timeout are 57P0x
_HANGS_UP = ("25P03", "25P04")
#: also FATAL, and yet about the server and not about whoever asked (SQLSTATE 57P03 and 53300)
_BUSY = (
    "starting up",
    "shutting down",
    "recovery",
    "not accepting connections",
    "too many clients",
    "slots are reserved",
)
#: what the server reports by itself whenever it changes, by whatever means, as far as a session can change it
REPORTED = (
    "search_path", "TimeZone", "DateStyle", "IntervalStyle", "client_encoding", "application_name",
    "session_authorization", "is_superuser", "default_transaction_read_only", "standard_conforming_strings",
)  # fmt: skip
_LONGEST_TIMEOUT = 2**31 - 1  # libpq's is an int

#: its arguments are the process id and the least age in seconds
END_SESSION = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE pid = %s AND backend_start <= clock_timestamp() - make_interval(secs => %s)"
)


class Postgresql(Client[C]):
    """A client of libpq."""

    dialect = "postgresql"
    peeks = True
    has_autocommit = True
    read_only_codes = frozenset({"25006"})  # read_only_sql_transaction
    code_type = str
    read_only_attribute = "read_only"
    for_a_session = MappingProxyType({"options": "ALTER ROLE ... SET at the server, or SET LOCAL inside transaction()"})

    def defaults(self, timeout: float) -> dict[str, Any]:
        """What libpq gets where the url says nothing else."""
        return {
            # Whole seconds, for each address, and at least 2: libpq makes 2 of 1, and "for ever" of 0.
            "connect_timeout": max(2, math.ceil(min(timeout, _LONGEST_TIMEOUT))),
            "keepalives": 1,
            "keepalives_idle": KEEPALIVE_IDLE,
            "keepalives_interval": KEEPALIVE_INTERVAL,
            "keepalives_count": KEEPALIVE_COUNT,
        }

    def hangs_up(self, error: BaseException, code: str | None) -> bool:
        """Does the server end the session with an error of this SQLSTATE?"""
        code = code or ""
        return isinstance(error, self._module.Error) and (code.startswith(("08", "57P0")) or code in _HANGS_UP)

    # A function that nobody knows was called: what it has set, as far as the server reports it, is here already. To
    # look at all of it costs some microseconds, which only those pay who have called one.

    def reported(self, connection: C) -> tuple[Any, ...]:
        """Local: what the server has reported last."""
        raise NotImplementedError

    def found(self, connection: Any) -> int:
        """Local: the connection's mark, once it is known whether something perhaps was left. In no transaction."""
        left: int = connection.left
        if left & PERHAPS:
            changed = connection.noted is not None and self.reported(connection) != connection.noted
            left = connection.left = left & ~PERHAPS | SESSION * changed
        return left

    def refuse_lasting(self, connection: Any) -> None:
        """An error where DISCARD ALL would not take away what was left; the pool closes the connection then."""
        if connection.left & LASTING:
            raise self._module.InterfaceError("DISCARD ALL does not undo what was done in this session")

    # By what the session does by default, and never by the client's own attributes: those are words of the BEGIN that
    # the client sends, so that in autocommit, or after a BEGIN written by hand, nothing would hold (and psycopg2, on
    # its way out of autocommit, would put the session's defaults back).

    def set_isolation(self, connection: C, level: str) -> None:
        self._forgo(connection, "isolation_level")
        self.run(connection, f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {level.upper()}")

    def set_read_only(self, connection: C, on: bool) -> None:
        self._forgo(connection, self.read_only_attribute)
        self.run(connection, f"SET SESSION CHARACTERISTICS AS TRANSACTION READ {'ONLY' if on else 'WRITE'}")

    def _forgo(self, connection: C, attribute: str) -> None:
        """Let the session decide: this attribute is None from now on, and counts as made so."""
        raise NotImplementedError

    def is_answer(self, error: BaseException) -> bool:
        # A failed connect has no SQLSTATE, only the server's own words after libpq's. Where they are in a language in
        # which "FATAL" is another word, the other pools of that server hold back for one step of the backoff.
        said = str(error)
        return isinstance(error, self._module.Error) and "FATAL" in said and not any(word in said for word in _BUSY)

    def address(self) -> Hashable:
        given = self._parameters
        host = given.get("host") or given.get("hostaddr") or given.get("service") or ""
        port = given.get("port") or 5432
        return f"{host}/.s.PGSQL.{port}" if str(host).startswith("/") else (host, port)
