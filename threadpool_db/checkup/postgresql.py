"""What should a pool know of a PostgreSQL server? Asked in a few statements that any role may send."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from threadpool_db.checkup.advice import Limit, shown_timeouts
from threadpool_db.checkup.network import Place
from threadpool_db.checkup.report import Report
from threadpool_db.checkup.sessions import Session

#: the session's own name for itself
IDENTITY = "SELECT pg_backend_pid()"
_TIMEOUTS = (  # milliseconds, 0: none; some are younger than the server may be
    "idle_session_timeout",
    "idle_in_transaction_session_timeout",
    "statement_timeout",
    "transaction_timeout",
    "lock_timeout",
)
_NUMBERS = ("max_connections", "superuser_reserved_connections", "reserved_connections", "tcp_keepalives_idle")
_SETTINGS = (
    "SELECT name, setting FROM pg_settings WHERE name IN "
    f"({', '.join(repr(name) for name in (*_TIMEOUTS, *_NUMBERS, 'default_transaction_read_only'))})"
)
_WHO = "SELECT session_user, current_database(), current_setting('server_version'), pg_is_in_recovery()"
_LIMITS = (
    "SELECT rolsuper, rolconnlimit, datconnlimit FROM pg_roles, pg_database "
    "WHERE rolname = session_user AND datname = current_database()"
)
# Who is not allowed to see what a session of others is still sees whose it is. Background workers without a user, such
# as autovacuum, do not count for the limit.
_OPEN = (
    "SELECT count(*), count(CASE WHEN usename = session_user THEN 1 END), "
    "count(CASE WHEN datname = current_database() THEN 1 END) FROM pg_stat_activity "
    "WHERE usesysid IS NOT NULL AND datid IS NOT NULL AND coalesce(backend_type, '') <> 'parallel worker'"
)
_TLS = "SELECT ssl, version, cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def places(given: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> list[Place]:
    """As libpq decides it; none where only libpq knows."""
    if "service" in given or "PGSERVICE" in environment:
        return []
    hosts = str(given.get("hostaddr") or environment.get("PGHOSTADDR") or given.get("host") or "")
    hosts = hosts or environment.get("PGHOST", "")
    ports = str(given.get("port") or environment.get("PGPORT") or "").split(",")
    places = []
    for at, host in enumerate(hosts.split(",")):
        port = (ports[at] if len(ports) == len(hosts.split(",")) else ports[0]) or "5432"
        if host.startswith("/"):
            places.append(Place(f"{host}/.s.PGSQL.{port}", 0))
        elif host and not host.startswith("@"):
            places.append(Place(host, int(port)))
    return places


def asked_tls(given: Mapping[str, Any]) -> tuple[str, bool]:
    """In words, and whether no connection is wanted without."""
    mode = given.get("sslmode") or os.environ.get("PGSSLMODE") or ""
    return f"sslmode={mode or 'prefer'}" + " (libpq's own choice)" * (not mode), mode in (
        "require",
        "verify-ca",
        "verify-full",
    )


def logged_in(connection: Any) -> str:
    """Known since the login, without a question."""
    info = connection.info
    return f"PostgreSQL {_number(info.parameter_status('server_version'))}, user {info.user}, database {info.dbname}"


def verified(given: Mapping[str, Any]) -> bool:
    mode = str(given.get("sslmode") or os.environ.get("PGSSLMODE") or "")
    return mode.startswith("verify-") or (mode == "require" and "sslrootcert" in given)


def examine(session: Session, report: Report, open_here: int, pooler: str | None) -> list[Limit]:
    """The facts, and the limits that the pools have to fit in: none behind a pooler, which has limits of its own."""
    [(user, database, version, standby)] = session.ask(_WHO)
    version = _number(version)
    settings: dict[str, str] = dict(session.try_to_ask("settings", _SETTINGS))
    report.fact(
        "server",
        f"PostgreSQL {version}, user {user}, database {database}",
        {"product": "PostgreSQL", "version": version, "user": user, "database": database},
    )
    _read_only(report, bool(standby), settings.get("default_transaction_read_only") == "on")
    timeouts = {name: int(settings[name]) / 1000 or None for name in _TIMEOUTS if name in settings}
    report.fact("timeouts", shown_timeouts(timeouts), timeouts)
    limits = _connections(session, report, settings, open_here if pooler is None else 0)
    return limits if pooler is None else []


def server_tls(session: Session) -> dict[str, Any] | None:
    """The server's own word of its end."""
    for on, protocol, cipher in session.try_to_ask("tls", _TLS):
        return {"encrypted": on, "protocol": protocol, "cipher": cipher}
    return None


def _number(version: str | None) -> str:
    """15.4 (Debian 15.4-1) is 15.4."""
    return (version or "of unknown version").partition(" (")[0]


def _read_only(report: Report, standby: bool, by_default: bool) -> None:
    words = "a standby: every write fails" if standby else "by default, each transaction may say otherwise"
    report.fact(
        "read_only",
        words if standby or by_default else "no",
        {"read_only": standby or by_default, "standby": standby, "by_default": by_default},
    )
    if standby:
        report.warn(
            "read_only",
            "the server is a standby: every write fails; name all servers of the cluster in the url, with "
            "target_session_attrs=read-write, unless the pool is meant for reading: read_only=True",
        )
    elif by_default:
        report.warn("read_only", "default_transaction_read_only is on for this role or database: writes fail")


def _connections(session: Session, report: Report, settings: dict[str, str], open_here: int) -> list[Limit]:
    if "max_connections" not in settings:
        return []
    most = int(settings["max_connections"])
    for_superusers = int(settings["superuser_reserved_connections"])
    reserved = for_superusers + int(settings.get("reserved_connections", 0))
    [(superuser, role, database)] = session.try_to_ask("limits", _LIMITS) or [(False, -1, -1)]
    [(in_use, of_role, of_database)] = session.try_to_ask("open sessions", _OPEN) or [(open_here,) * 3]
    usable = most if superuser else most - reserved
    value = {
        "limit": most,
        "reserved": reserved,
        "role_limit": None if role < 0 else role,
        "database_limit": None if database < 0 else database,
        "usable": min(n for n in (usable, role, database) if n >= 0),
        "in_use": in_use,
    }
    words = f"{most} at most, {reserved} of them reserved for {'superusers like this one' if superuser else 'others'}"
    words += f"; this role {role}" * (role >= 0) + f"; this database {database}" * (database >= 0)
    words += f"; {in_use} open now" + f", {open_here} of them by this check" * bool(open_here)
    report.fact("connections", words, value)
    found = [Limit("the server", usable, in_use - open_here)]
    # neither binds a superuser
    if role >= 0 and not superuser:
        found.append(Limit("the role", role, of_role - open_here))
    if database >= 0 and not superuser:
        found.append(Limit("the database", database, of_database - open_here))
    return found
