"""What can be told of any open connection, whatever the database? How to ask it; its socket; its TLS on our side."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

from threadpool_db.drivers.base import Driver

Rows = list[tuple[Any, ...]]


class Session:
    """A connection, and the driver that made it."""

    def __init__(self, driver: Driver[Any], connection: Any) -> None:
        self.driver, self.connection = driver, connection
        #: the parts that could not be asked, and why
        self.untold: list[str] = []

    def ask(self, sql: str) -> Rows:
        with contextlib.closing(self.connection.cursor()) as cursor:
            cursor.execute(sql)
            return [tuple(row) for row in cursor.fetchall()]

    def try_to_ask(self, what: str, sql: str) -> Rows:
        """No rows where the server does not know the question or does not answer it to this account."""
        try:
            return self.ask(sql)
        except Exception as error:
            if self.driver.is_disconnect(error, self.connection):
                raise
            self.untold.append(f"{what}: {' '.join(str(error).split())}")
            return []

    def close(self) -> None:
        self.driver.close(self.connection)

    @property
    def tls(self) -> dict[str, Any]:
        """What our own end of the connection says: of the way to the next hop, pooler or server."""
        stream = getattr(self.connection, "_sock", None)  # PyMySQL's
        if isinstance(stream, ssl.SSLSocket):
            cipher = stream.cipher()
            verified = stream.context.verify_mode == ssl.CERT_REQUIRED
            return _tls(stream.version(), cipher[0] if cipher else None, verified)
        libpq = next(
            (c for c in (getattr(self.connection, "pgconn", None), getattr(self.connection, "info", None)) if c), None
        )
        if libpq is not None and libpq.ssl_in_use:
            attribute: Callable[[str], Any] = getattr(libpq, "ssl_attribute", lambda name: None)  # psycopg 3 has none
            return _tls(attribute("protocol"), attribute("cipher"), None)
        return {"encrypted": False, "protocol": None, "cipher": None, "verified": False}

    def socket_facts(self) -> tuple[bool, dict[str, Any] | None]:
        """Does the connection stay on this machine? And its TCP keepalive; None without TCP."""
        descriptor = self.driver.descriptor(self.connection)
        if descriptor is None:
            return True, None
        with socket.socket(fileno=os.dup(descriptor)) as duplicate:
            if duplicate.family not in (socket.AF_INET, socket.AF_INET6):
                return True, None
            peer = ipaddress.ip_address(duplicate.getpeername()[0].partition("%")[0])
            facts: dict[str, Any] = {"on": bool(duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))}
            for name, option in (("idle", "TCP_KEEPIDLE"), ("interval", "TCP_KEEPINTVL"), ("count", "TCP_KEEPCNT")):
                number = getattr(socket, option, None)
                facts[name] = None if number is None else duplicate.getsockopt(socket.IPPROTO_TCP, number)
            return peer.is_loopback, facts


def _tls(protocol: str | None, cipher: str | None, verified: bool | None) -> dict[str, Any]:
    return {"encrypted": True, "protocol": protocol, "cipher": cipher, "verified": verified}
