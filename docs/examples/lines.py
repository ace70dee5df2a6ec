"""A driver for a server that answers each line with a line, as Redis or memcached do in their ways."""

from __future__ import annotations

import math
import socket
from collections.abc import Hashable

from threadpool_db.drivers.base import BUSY, IDLE, OPEN, Driver, TransactionState
from threadpool_db.drivers.sockets import Socket, poll_socket


class Lines:
    """The connection. ``USE name`` is remembered by the server, and so by us."""

    def __init__(self, address: tuple[str, int], timeout: float) -> None:
        self.socket = socket.create_connection(address, None if timeout == math.inf else timeout)
        self.replies = self.socket.makefile("rb")
        self.owed = 0  # answers that nobody has read yet
        self.used = False
        try:
            self.ask("PING")  # the kernel accepts for a server that hangs
        except BaseException:
            self.close()
            raise
        self.socket.settimeout(None)

    def ask(self, line: str) -> str:
        self.owed += 1
        self.used = self.used or line.startswith("USE ")
        self.socket.sendall(line.encode() + b"\n")
        reply = self.replies.readline()
        if not reply.endswith(b"\n"):
            raise ConnectionError("the server hung up")
        self.owed -= 1
        return reply[:-1].decode()

    def close(self) -> None:
        self.replies.close()
        self.socket.close()


class LineDriver(Driver[Lines]):
    name = "lines"
    peeks = True

    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)

    def connect(self, timeout: float) -> Lines:
        return Lines(self.address, timeout)

    def close(self, connection: Lines) -> None:
        connection.close()

    def peek(self, connection: Lines) -> bool:
        # Readable is as bad as gone: this server never speaks first.
        return poll_socket(connection.socket.fileno()) is Socket.QUIET

    def ping(self, connection: Lines) -> bool:
        return connection.ask("PING") == "PONG"

    def state(self, connection: Lines) -> TransactionState:
        if connection.owed:
            return BUSY  # or the next borrower would read an answer that is not his
        return OPEN if connection.used else IDLE

    def rollback(self, connection: Lines) -> None:
        connection.ask("RESET")
        connection.used = False

    def descriptor(self, connection: Lines) -> int | None:
        number = connection.socket.fileno()
        return number if number >= 0 else None

    def is_disconnect(self, error: BaseException, connection: Lines) -> bool:
        return isinstance(error, OSError)

    @property
    def server_key(self) -> Hashable:
        return self.address
