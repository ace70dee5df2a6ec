"""Is there anybody at the address, and is it a database? From the name to the server's first word, without a client.

A client says of all this only that it failed. Here each part has a time and an error of its own: the name, each of its
addresses, the first byte. The addresses are tried at the same time, so a dead one does not use up the others' time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from threadpool_db.waiting import REAL_TIME

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_CLIENT_SSL = 0x800
_PROTOCOL = 10  # MySQL's, since 1998


class NotADatabase(Exception):
    """Somebody answers, in another language."""


class Refused(Exception):
    """The server's own no, before any login."""


class NoTLS(Exception):
    """The URL demands what the server does not offer."""


class Place(NamedTuple):
    """Where a server is said to be: a host and port, or with port 0 the path of a Unix socket."""

    host: str
    port: int

    @property
    def is_path(self) -> bool:
        return not self.port

    def __str__(self) -> str:
        if self.is_path:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Address(NamedTuple):
    """One of a place's addresses, as getaddrinfo has it; and what a person reads."""

    family: int
    target: Any
    shown: str


class Attempt(NamedTuple):
    address: Address
    seconds: float
    error: OSError | None


class Greeting(NamedTuple):
    who: str
    tls: bool


def resolve(places: Sequence[Place]) -> tuple[list[Address], list[tuple[Place, OSError]]]:
    """All addresses of all places, and the places that have none. Raises if there is not one address."""
    found: dict[Any, Address] = {}
    unknown: list[tuple[Place, OSError]] = []
    for place in places:
        if place.is_path:
            found[place.host] = Address(socket.AF_UNIX, place.host, place.host)
            continue
        try:
            answers = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label of more than 63 letters
            unknown.append((place, error if isinstance(error, OSError) else socket.gaierror(str(error))))
            continue
        for family, _, _, _, target in answers:
            found.setdefault(target, Address(family, target, str(Place(str(target[0]), int(target[1])))))
    if not found:
        raise unknown[0][1]
    return list(found.values()), unknown


def open_all(addresses: Sequence[Address], timeout: float) -> tuple[socket.socket | None, list[Attempt]]:
    """Connect to all of them at once. The socket of the first in order that opens, and how each one went."""
    began = REAL_TIME.now()
    opened: dict[Address, socket.socket] = {}
    attempts: dict[Address, Attempt] = {}

    def settle(address: Address, end: socket.socket, code: int) -> None:
        error = OSError(code, os.strerror(code)) if code else None
        attempts[address] = Attempt(address, REAL_TIME.now() - began, error)
        if code:
            end.close()
        else:
            opened[address] = end

    with selectors.DefaultSelector() as selector:
        for address in addresses:
            end = socket.socket(address.family, socket.SOCK_STREAM)
            end.setblocking(False)
            code = end.connect_ex(address.target)
            if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
                selector.register(end, selectors.EVENT_WRITE, address)
            else:
                settle(address, end, code)
        while selector.get_map() and (left := began + timeout - REAL_TIME.now()) > 0:
            for key, _ in selector.select(left):
                end = key.fileobj  # type: ignore[assignment]
                selector.unregister(end)
                settle(key.data, end, end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        for key in list(selector.get_map().values()):
            settle(key.data, key.fileobj, errno.ETIMEDOUT)  # type: ignore[arg-type]
    order = [attempts[address] for address in addresses]
    chosen = next((opened.pop(attempt.address) for attempt in order if attempt.error is None), None)
    for end in opened.values():
        end.close()
    return chosen, order


def greet(end: socket.socket, database: str, timeout: float) -> Greeting:
    """The first word of a server. Closes the socket."""
    with contextlib.closing(end):
        end.settimeout(timeout)
        return _GREETINGS[database](end)


def _postgresql(end: socket.socket) -> Greeting:
    end.sendall(_SSL_REQUEST)
    said = end.recv(256)
    if said in (b"S", b"N"):
        return Greeting("PostgreSQL", said == b"S")
    if said[:1] == b"E":
        raise Refused(_text(said[1:]))
    raise NotADatabase(_whose("PostgreSQL", said))


def _mysql(end: socket.socket) -> Greeting:
    said = b""
    while len(said) < 4 or len(said) < min(4 + int.from_bytes(said[:3], "little"), 1024):
        more = end.recv(1024)
        if not more:
            break
        said += more
        if len(said) >= 5 and (said[3] or said[4] not in (_PROTOCOL, 0xFF)):
            break
    if len(said) >= 7 and said[3] == 0 and said[4] == 0xFF:
        raise Refused(f"{int.from_bytes(said[5:7], 'little')}: {_text(said[7:])}")
    version, nul, rest = said[5:].partition(b"\0")
    if len(said) < 5 or said[3] or said[4] != _PROTOCOL or not nul or len(rest) < 15:
        raise NotADatabase(_whose("MySQL", said))
    offers = struct.unpack_from("<H", rest, 13)[0] & _CLIENT_SSL
    return Greeting(mysql_version(version.decode(errors="replace")), bool(offers))


def mysql_version(said: str) -> str:
    """MariaDB calls itself 5.5.5-10.11.2-MariaDB-log, so that old replicas would take it, and MySQL 8.4.0."""
    number = said.removeprefix("5.5.5-").partition("-")[0]
    return f"{'MariaDB' if 'mariadb' in said.lower() else 'MySQL'} {number}"


_GREETINGS: dict[str, Callable[[socket.socket], Greeting]] = {"postgresql": _postgresql, "mysql": _mysql}


def _whose(wanted: str, said: bytes) -> str:
    if not said:
        return f"it is no {wanted}, or a proxy with none behind: it hung up without a word"
    if len(said) > 5 and said[3:5] == bytes((0, _PROTOCOL)):
        return f"it is no {wanted}: it speaks MySQL's protocol"
    return f"it is no {wanted}: it said {said[:40]!r}"


def _text(said: bytes) -> str:
    return " ".join(said.decode(errors="replace").replace("\0", " ").split())
