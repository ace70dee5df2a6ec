"""Why did it fail, and what is to be done? One word for programs, one clause for people.

A failed connect of libpq has no SQLSTATE, only the server's words; so they are looked for, and in a language in which
they read differently the answer is only less helpful. PyMySQL's errors have numbers.
"""

from __future__ import annotations

import errno
import socket
import ssl

from threadpool_db.checkup.limited import StepTimeout
from threadpool_db.checkup.network import NotADatabase, NoTLS
from threadpool_db.errors import PoolMisuse

_PASSWORD = "check the user name and the password; special characters of a url are written %40, %3A, %2F"
_REFUSED = (
    "nobody listens there: is the server running, is the port right, and does it listen on that address "
    "(listen_addresses, bind-address)?"
)
_SILENT = (
    "nothing came back in time: a firewall that drops, a wrong address, or a server that hangs; a longer --timeout "
    "tells which"
)
_TLS = (
    "compare what the url asks for (sslmode, sslrootcert, ssl, ssl_ca) with what the server offers and its certificate"
)
_DATABASE = "create the database, or correct its name at the end of the url"
_FULL = (
    "the server or this role has no connection left: fewer workers or a smaller max_size, a higher limit, or a pooler"
)
_HOST = "the server lets nobody in from this address: pg_hba.conf, or the host part of the account"
_OTHER = "is it the right port? The error is the client's own"
_STARTING = "the server is not ready: wait until it has started, or recovered"
_BUSY_FILE = "another process has locked the file: find who holds it, or wait; WAL mode locks less"

#: in the order in which they are looked for; libpq tells of each address it has tried, and the last word may count
_WORDS: tuple[tuple[str, str, str], ...] = (
    ("password authentication failed", "password", _PASSWORD),
    (
        "no password supplied",
        "password",
        "the server wants a password: the url has none, nor has PGPASSWORD or ~/.pgpass",
    ),
    ("no encryption", "tls", "the server takes no one here without TLS, or without being listed: sslmode, pg_hba.conf"),
    ("no pg_hba.conf entry", "host", _HOST),
    ("too many", "full", _FULL),
    ("slots are reserved", "full", _FULL),
    ("no more connections allowed", "full", _FULL),
    ("ssl negotiation", "not_a_database", _OTHER),
    ("expected authentication request", "not_a_database", _OTHER),
    ("ssl", "tls", _TLS),
    ("certificate", "tls", _TLS),
    ("connection refused", "refused", _REFUSED),
    ("timeout expired", "silent", _SILENT),
    ("could not translate host name", "dns", "the name is not known here: check the host in the url"),
    ("starting up", "starting", _STARTING),
    ("shutting down", "starting", _STARTING),
    ("not accepting connections", "starting", _STARTING),
    ("connection option", "url", "correct that option of the url"),
    ("invalid", "url", "correct that option of the url"),
    ("database is locked", "locked", _BUSY_FILE),
    ("not a database", "not_a_database", "the file is no SQLite database, or an encrypted one: check the path"),
    ("unable to open", "file", "check the path, and the rights on the file and its folder"),
    ("cryptography", "client", "pip install cryptography, for the server's way to log in; or use TLS"),
    ("caching_sha2_password", "client", "pip install cryptography, for the server's way to log in; or use TLS"),
)

_CODES: dict[int, tuple[str, str]] = {
    1044: ("database", "GRANT the account the database, or correct its name at the end of the url"),
    1045: ("password", _PASSWORD),
    1049: ("database", _DATABASE),
    1129: ("host", "the server has blocked this host after too many errors: FLUSH HOSTS there"),
    1130: ("host", _HOST),
    1698: ("password", "the account logs in by another way than a password, such as unix_socket: use another account"),
    **dict.fromkeys((1040, 1203, 1226, 1135), ("full", _FULL)),
    2026: ("tls", _TLS),
    2013: ("silent", "the connection was lost in the login: a proxy with nobody behind, or a server that hangs"),
    3159: ("tls", "the server takes no one without TLS: add ?ssl=true"),
}


def explain(error: BaseException, database: str) -> tuple[str, str]:
    """The reason and the remedy."""
    if isinstance(error, (StepTimeout, socket.timeout, TimeoutError)):
        if database == "mysql" and not isinstance(error, StepTimeout):
            return "silent", _SILENT + "; where a server of another kind listens, it is silent too"
        return "silent", _SILENT
    if isinstance(error, socket.gaierror):
        return "dns", "the name is not known here: check the host in the url, and the DNS of this machine or container"
    if isinstance(error, ConnectionRefusedError):
        return "refused", _REFUSED
    if isinstance(error, FileNotFoundError):
        if database == "sqlite":
            return "file", "check the path, or create the database; a pool's first connection would make an empty one"
        return "refused", "there is no such socket: is the server running, and is that its folder?"
    if isinstance(error, (IsADirectoryError, PermissionError)):
        return "file", "check the path, and the rights on it"
    if isinstance(error, NotADatabase):
        return "not_a_database", "correct the port, or the scheme of the url"
    if isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL):
        return (
            "unreachable",
            "no way leads there from this machine: check the address, routes, a VPN, the container's network",
        )
    if isinstance(error, PoolMisuse):
        return "driver", "install it where this command runs"
    if isinstance(error, (ssl.SSLError, NoTLS)):
        return "tls", _TLS
    return (
        _by_code(error)
        or _by_words(str(error).lower())
        or ("other", "see the error; it is the client's or the server's")
    )


def _by_code(error: BaseException) -> tuple[str, str] | None:
    code = error.args[0] if error.args else None
    if isinstance(code, str) and code.partition(":")[0].isdigit():  # Refused
        code = int(code.partition(":")[0])
    if code == 2003:  # can't connect: the reason is in the words
        return _by_words(str(error).lower()) or ("refused", _REFUSED)
    return _CODES.get(code) if isinstance(code, int) else None


def _by_words(said: str) -> tuple[str, str] | None:
    if "role" in said and "does not exist" in said:
        return "password", "there is no such role: create it, or correct the user name in the url"
    if "database" in said and "does not exist" in said:
        return "database", _DATABASE
    return next(((reason, remedy) for words, reason, remedy in _WORDS if words in said), None)
