"""What should a pool know of a MySQL or MariaDB server? Asked in a few statements that any account may send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from threadpool_db.checkup.advice import Limit, shown_timeouts
from threadpool_db.checkup.network import Place, mysql_version
from threadpool_db.checkup.report import Report
from threadpool_db.checkup.sessions import Session

IDENTITY = "SELECT CONNECTION_ID()"
#: in seconds, 0: none; but max_execution_time is MySQL's, in milliseconds
_TIMEOUTS = (
    "wait_timeout",
    "interactive_timeout",
    "idle_transaction_timeout",
    "max_statement_time",
    "max_execution_time",
)
_READ_ONLY = ("read_only", "super_read_only", "innodb_read_only", "transaction_read_only", "tx_read_only")
_NUMBERS = ("max_connections", "max_user_connections")
_SETTINGS = (
    "SHOW VARIABLES WHERE Variable_name IN "
    f"({', '.join(repr(name) for name in (*_TIMEOUTS, *_READ_ONLY, *_NUMBERS, 'session_track_state_change'))})"
)
_OPEN = "SHOW GLOBAL STATUS LIKE 'Threads_connected'"
_MINE = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = SUBSTRING_INDEX(CURRENT_USER(), '@', 1)"
_TLS = "SHOW SESSION STATUS WHERE Variable_name IN ('Ssl_version', 'Ssl_cipher')"
_STATE_CHANGED = 0x4000


def places(given: Mapping[str, Any]) -> list[Place]:
    if given.get("unix_socket"):
        return [Place(given["unix_socket"], 0)]
    if "read_default_file" in given and not given.get("host"):
        return []
    return [Place(given.get("host") or "localhost", given.get("port") or 3306)]


def asked_tls(given: Mapping[str, Any]) -> tuple[str, bool]:
    if given.get("ssl_disabled"):
        return "ssl=false", False
    options = sorted(name for name in given if name.startswith("ssl"))
    return (f"{', '.join(options)} in the url", True) if options else ("nothing, which is PyMySQL's choice", False)


def logged_in(connection: Any) -> str:
    return (
        f"{mysql_version(connection.get_server_info())}, user {_text(connection.user)}, database {_text(connection.db)}"
    )


def verified(given: Mapping[str, Any]) -> bool:
    """Not asked: our end of the connection knows."""
    return False


def _text(name: Any) -> str:
    """PyMySQL keeps the one as bytes and the other as text."""
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name or "")


def examine(session: Session, report: Report, open_here: int, pooler: str | None) -> list[Limit]:
    """The facts, and the limits that the pools have to fit in."""
    [(user, database, version)] = session.ask("SELECT CURRENT_USER(), DATABASE(), VERSION()")
    product, _, number = mysql_version(version).partition(" ")
    settings: dict[str, str] = dict(session.try_to_ask("settings", _SETTINGS))
    report.fact(
        "server",
        f"{product} {number}, account {user}, database {database}",
        {"product": product, "version": number, "user": user, "database": database},
    )
    on = [name for name in _READ_ONLY if settings.get(name, "OFF") not in ("OFF", "0")]
    report.fact("read_only", ", ".join(on) or "no", {"read_only": bool(on), "by": on})
    if on:
        report.warn("read_only", f"the server is a replica, or takes no writes: {', '.join(on)}; name the primary")
    timeouts = {name: float(settings[name]) or None for name in _TIMEOUTS if name in settings}
    if timeouts.get("max_execution_time"):
        timeouts["max_execution_time"] = float(settings["max_execution_time"]) / 1000
    report.fact("timeouts", shown_timeouts(timeouts), timeouts)
    _session_tracking(session, report)
    limits = _connections(session, report, settings, open_here if pooler is None else 0)
    return limits if pooler is None else []


def server_tls(session: Session) -> dict[str, Any] | None:
    said: dict[str, str] = dict(session.try_to_ask("tls", _TLS))
    if not said:
        return None
    protocol, cipher = said.get("Ssl_version") or None, said.get("Ssl_cipher") or None
    return {"encrypted": cipher is not None, "protocol": protocol, "cipher": cipher}


def _session_tracking(session: Session, report: Report) -> None:
    """Asked for in each handshake of ours; whether the server keeps it is seen in the answer to a harmless SET."""
    session.ask("SET SESSION sql_warnings = @@SESSION.sql_warnings")
    works = bool(session.connection.server_status & _STATE_CHANGED)
    report.fact("session_tracking", "works" if works else "does not work", works)
    if not works:
        report.warn(
            "session_tracking",
            "the server does not tell what a statement leaves in its session (an old one, or a proxy): what functions "
            "and triggers set is not noticed between two borrowers; reset='always' wipes it",
        )


def _connections(session: Session, report: Report, settings: dict[str, str], open_here: int) -> list[Limit]:
    if "max_connections" not in settings:
        return []
    most, mine = int(settings["max_connections"]), int(settings.get("max_user_connections", 0))
    said = session.try_to_ask("open sessions", _OPEN)
    in_use = int(said[0][1]) if said else open_here
    said = session.try_to_ask("own sessions", _MINE)
    own = int(said[0][0]) if said else open_here
    value = {"limit": most, "user_limit": mine or None, "usable": min(most, mine or most), "in_use": in_use}
    words = f"{most} at most" + f"; this account {mine}" * bool(mine)
    words += f"; {in_use} open now" + f", {open_here} of them by this check" * bool(open_here)
    report.fact("connections", words, value)
    found = [Limit("the server", most, in_use - open_here)]
    if mine:
        found.append(Limit("the account", mine, own - open_here))
    return found
