"""Which driver speaks to this? A URL says it, a connection's type says it, or the caller does.

No message made here quotes any part of a URL but its scheme and the names of its options, and no exception made here
has another one as its context: urllib's quote the text they could not read, which is often half a password.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

from threadpool_db.drivers.base import Driver
from threadpool_db.drivers.client import Client, as_bool
from threadpool_db.drivers.dbapi import Dbapi
from threadpool_db.drivers.psycopg import Psycopg
from threadpool_db.drivers.psycopg2 import Psycopg2
from threadpool_db.drivers.pymysql import PyMySQL
from threadpool_db.drivers.sqlite import Sqlite

Configure = Callable[[dict[str, Any]], Mapping[str, Any]]

_CLIENTS: dict[str, type[Client[Any]]] = {
    "psycopg2": Psycopg2,
    "psycopg": Psycopg,
    "pymysql": PyMySQL,
    "sqlite": Sqlite,
}
#: which drivers speak to it; the first where the URL asks for none
_SCHEMES = {
    "postgresql": ("psycopg2", "psycopg"),
    "postgres": ("psycopg2", "psycopg"),
    "mysql": ("pymysql",),
    "mariadb": ("pymysql",),
    "sqlite": ("sqlite",),
}
#: the module that a connection's class comes from
_MODULES = {{"sqlite": "sqlite3"}.get(name, name): client for name, client in _CLIENTS.items()}

_EXAMPLES = "postgresql://user@host/name, mysql://user@host/name or sqlite:///file.db"
_ENCODE = "a '/', '?', '#', '@' or ':' in a user name or password is written %2F, %3F, %23, %40 or %3A"

#: what is wanted as something else than text; libpq takes everything as text
_NUMBERS = {
    "psycopg": {"prepare_threshold"},
    "pymysql": {"connect_timeout", "read_timeout", "write_timeout", "max_allowed_packet", "client_flag"},
    "sqlite": {"timeout", "cached_statements", "detect_types"},
}
_SWITCHES = {
    "psycopg2": {"autocommit"},
    "psycopg": {"autocommit"},
    "pymysql": {
        "autocommit", "local_infile", "use_unicode", "binary_prefix", "ssl",
        "ssl_disabled", "ssl_verify_cert", "ssl_verify_identity",
    },
    "sqlite": {"autocommit", "uri", "check_same_thread"},
}  # fmt: skip


def driver_for(
    source: str | Callable[[], Any] | Driver[Any], driver: str | None = None, configure: Configure | None = None
) -> Driver[Any]:
    """The driver for a URL, for a callable that opens a connection, or the driver itself."""
    if driver is not None and driver not in (*_CLIENTS, "dbapi"):
        raise ValueError(f"unknown driver {driver!r}{_nearest(driver, (*_CLIENTS, 'dbapi'))}")
    if isinstance(source, str):
        name, parameters = parse(source)
        if driver not in (None, name):
            raise ValueError(f"url is for the driver {name!r}, but driver is {driver!r}: leave one of the two out")
        return _CLIENTS[name](parameters, configure=configure)
    if configure is not None:
        raise ValueError("configure changes the parameters of a url: with a driver or a callable there are none")
    if isinstance(source, Driver):
        if driver is not None:
            raise ValueError("driver is given twice: as an object, and by name")
        return source
    if not callable(source):
        kind = type(source).__name__
        raise ValueError(
            f"url must be text like {_EXAMPLES}, or a function that opens a connection; it is of type {kind}"
        )
    if driver is None:
        return Undecided(source)
    return Dbapi(source) if driver == "dbapi" else _CLIENTS[driver](connect=source)


class Undecided(Dbapi):
    """Connections from a callable of which nothing is known, until the first one shows its type."""

    name = "pool"  # what a pool is called by default; at its birth there is no better word

    def recognise(self, connection: Any) -> Driver[Any]:
        return (self.known(connection) or Dbapi(self._connect)).recognise(connection)

    def refuses(self, option: str, value: Any) -> str:
        # in time: the driver that is found is asked again
        return super().refuses(option, value) if option == "reset" else ""

    def known(self, connection: Any) -> Driver[Any] | None:
        """The driver for a connection of a module that is known here."""
        for kind in type(connection).__mro__:
            client = _MODULES.get(kind.__module__.partition(".")[0])
            if client is not None:
                return client(connect=self._connect)
        return None


def parse(url: str) -> tuple[str, dict[str, Any]]:
    """The driver's name and its parameters."""
    if re.search(r"[\x00-\x20\x7f]", url):
        _refuse("contains a blank or a control character: write it percent-encoded")
    scheme, separator, _ = url.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        _refuse(f"has no scheme: it should look like {_EXAMPLES}")
    name = _driver_of(scheme.lower())
    if "#" in url:
        _refuse(f"contains a '#': {_ENCODE}")
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), errors="strict")
    except ValueError:
        parts = None
    if parts is None:
        _refuse(f"cannot be read: options are name=value joined by '&', an IPv6 address stands in [], and {_ENCODE}")
    if "@" in parts.path + parts.query and "@" not in parts.netloc and name != "sqlite":
        _refuse(f"has an '@' after the first '/' or '?': {_ENCODE}")
    if not all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", option) for option, _ in pairs):
        _refuse(f"has an option whose name is no name; besides, {_ENCODE}")
    if any("\0" in value for _, value in pairs):
        _refuse("contains a NUL")
    options = {option: _coerce(name, option, value) for option, value in pairs}
    parameters = (_sqlite if name == "sqlite" else _network)(name, parts, options)
    return name, parameters


def _driver_of(scheme: str) -> str:
    database, _, wanted = scheme.partition("+")
    names = _SCHEMES.get(database, ())
    if not names:
        _refuse(f"has the unknown scheme {scheme!r}{_nearest(database, _SCHEMES)}: it should look like {_EXAMPLES}")
    if wanted in names:
        return wanted
    if wanted and (database, wanted) != ("sqlite", "pysqlite"):
        spelled = " or ".join(f"{database}+{name}" for name in names)
        _refuse(f"asks for the driver {wanted!r}; for {database} it is {spelled}, and {names[0]} if it names none")
    return names[0]


def _network(name: str, parts: Any, options: dict[str, Any]) -> dict[str, Any]:
    """postgresql://user:password@host:port/name?option=value, mysql:// alike."""
    credentials, _, servers = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    hosts, ports = _servers(servers)
    libpq = name in _SCHEMES["postgresql"]
    database_option = "dbname" if libpq else "database"
    parameters = {
        "host": ",".join(hosts),
        "port": ",".join(ports),
        "user": _decode(user),
        "password": _decode(password),
        database_option: _decode(parts.path[1:]),
    }
    parameters = {option: value for option, value in parameters.items() if value.strip(",")} | options
    if not (parameters.get(database_option) or "service" in parameters):
        _refuse(f"names no database: end it with /name, or give ?{database_option}=name")
    return parameters if libpq else _for_pymysql(parameters)


def _for_pymysql(parameters: dict[str, Any]) -> dict[str, Any]:
    if "," in parameters.get("host", ""):
        _refuse("names several hosts, which only libpq understands")
    if parameters.get("host", "").startswith("/"):
        parameters["unix_socket"] = parameters.pop("host")
    if "port" in parameters:
        parameters["port"] = int(_port(parameters["port"]))
    if "ssl" in parameters:
        # PyMySQL's own option is a dict: a filled one demands TLS, an empty one tries it.
        demanded = parameters.pop("ssl")
        parameters |= {"ssl": {"verify_mode": None}} if demanded else {"ssl_disabled": True}
    if not parameters.get("password", "").isascii():
        # PyMySQL encodes in latin-1, where most letters are missing; mysql and every server since 5.5 mean UTF-8.
        parameters["password"] = parameters["password"].encode()
    return parameters


def _sqlite(name: str, parts: Any, options: dict[str, Any]) -> dict[str, Any]:
    """sqlite:///relative/file, sqlite:////absolute/file, sqlite:///file:name?uri=true with SQLite's own options."""
    if parts.netloc:
        _refuse("names a host, and SQLite has none: a file is written sqlite:///relative.db or sqlite:////absolute.db")
    level = options.get("isolation_level", "")
    if options.pop("autocommit", False) or level.lower() == "none":
        options["isolation_level"] = None
    file = _decode(parts.path[1:])
    if options.get("uri"):
        ours = {*_NUMBERS[name], *_SWITCHES[name], "isolation_level"}
        theirs = {option: options.pop(option) for option in list(options) if option not in ours and "." not in option}
        file += "".join(f"{'&' if '?' in file or at else '?'}{o}={v}" for at, (o, v) in enumerate(theirs.items()))
    return {"database": file, **options}


def _servers(text: str) -> tuple[list[str], list[str]]:
    """host, host:port, [::1]:port, or several of them with commas between, as libpq has it."""
    hosts, ports = [], []
    for server in text.split(","):
        found = re.fullmatch(r"(?:\[([0-9A-Za-z:.%_-]+)\]|([^:\[\]]*))(?::(.*))?", server)
        if found is None:
            _refuse(f"has no readable host: an IPv6 address stands in [], and {_ENCODE}")
        hosts.append(_decode(found[1] or found[2] or ""))
        ports.append(_port(found[3]) if found[3] else "")
    return hosts, ports


def _port(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        _refuse(f"has a port that is no number from 1 to 65535; besides, {_ENCODE}")
    return text


def _decode(text: str) -> str:
    raw = unquote_to_bytes(text)
    try:
        decoded = raw.decode()
    except UnicodeDecodeError:
        decoded = "\0"
    if "\0" in decoded:
        _refuse("contains a NUL, or a percent-encoding that is not UTF-8")
    return decoded


def _coerce(name: str, option: str, text: str) -> Any:
    wrong = ""
    try:
        if option in _SWITCHES[name]:
            return as_bool(option, text)
        if option == "prepare_threshold" and text.lower() == "none":
            return None
        if option in _NUMBERS.get(name, ()):
            return float(text) if "." in text else int(text)
    except ValueError:
        wrong = "a number" if option in _NUMBERS.get(name, ()) else "true or false"
    if wrong:
        _refuse(f"has the option {option}, which must be {wrong}")
    return text


def _nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(known)})"


def _refuse(what: str) -> NoReturn:
    raise ValueError(f"url {what}")
