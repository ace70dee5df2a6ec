"""What goes over a connection's socket, and what does its client do when the server is silent, or gone?

The kernel's descriptor behind a connection is exchanged for one end of a pair, and the other end is ours: every byte
that the client sends is seen, whatever is written in C and whether or not it is TLS. Nobody measures microseconds.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType


class Wire:
    """Between a connection and its server, until the block ends. At first it is held: nothing comes through.

    ``said()`` counts the bytes that the client has sent so far. ``relaying()`` lets them through, and what the server
    answers, and counts the ``turns``: how often the client spoke after the server. ``hang_up()`` is the server's end.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._ours, theirs = socket.socketpair()  # no TCP: what was sent is to be seen at once
        os.set_blocking(theirs.fileno(), os.get_blocking(descriptor))
        self._server = socket.socket(fileno=os.dup(descriptor))
        os.dup2(theirs.fileno(), descriptor, inheritable=False)
        theirs.close()
        self._inode = os.fstat(descriptor).st_ino
        self._held = b""
        self._bytes = self.turns = 0
        self._servers_turn = self._hung_up = False
        self.ended = False  # has the client closed its end?
        self._left = threading.Event()  # has the server?

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Hung up, it stays so: a call that was slow to notice would go on at the server, which owes it no answer, and
        # read what comes for whoever gets that number next. (It did.)
        with suppress(OSError):
            # another inode: the client has closed it, and the number is somebody else's
            if error is None and not self._hung_up and os.fstat(self._descriptor).st_ino == self._inode:
                os.dup2(self._server.fileno(), self._descriptor, inheritable=False)
        self.hang_up()
        self._server.close()

    def said(self) -> int:
        """So many bytes has the client sent, through which nobody has let yet or long ago."""
        while not self.ended and _ready(0, self._ours):
            self._hear()
        return self._bytes

    def hear(self, seconds: float) -> bool:
        """Wait until the client says something, or closes its end."""
        return bool(_ready(seconds, self._ours))

    def server_left(self, seconds: float) -> bool:
        """While relaying: wait until the server closes its end."""
        return self._left.wait(seconds)

    def hang_up(self) -> None:
        self._hung_up = True
        with suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        self._ours.close()

    @contextmanager
    def relaying(self) -> Iterator[None]:
        bell, rope = socket.socketpair()
        thread = threading.Thread(target=self._relay, args=(bell,), name="wire", daemon=True)
        thread.start()
        try:
            yield
        finally:
            rope.close()
            thread.join()
            bell.close()
            if not self.ended:
                self.said()

    def _relay(self, bell: socket.socket) -> None:
        with suppress(OSError):
            while not self.ended:
                _send(self._server, self._held)
                self._held = b""
                ready = _ready(None, self._ours, self._server, bell)
                if self._ours.fileno() in ready:
                    self._hear()
                elif self._server.fileno() in ready:
                    answer = os.read(self._server.fileno(), 65536)
                    self._servers_turn = False
                    if not answer:
                        self._left.set()
                        self._ours.shutdown(socket.SHUT_WR)
                        return
                    _send(self._ours, answer)
                else:
                    return
        if self.ended:
            with suppress(OSError):
                _send(self._server, self._held)  # its last words
                self._server.shutdown(socket.SHUT_WR)

    def _hear(self) -> None:
        try:
            data = self._ours.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.ended = True
            return
        self.turns += not self._servers_turn
        self._servers_turn = True
        self._bytes += len(data)
        self._held += data


def _ready(seconds: float | None, *ends: socket.socket, events: int = select.POLLIN) -> set[int]:
    """``poll``, for a test's descriptors may have large numbers."""
    poll = select.poll()
    for end in ends:
        poll.register(end, events)
    return {descriptor for descriptor, _ in poll.poll(None if seconds is None else seconds * 1000.0)}


def _send(end: socket.socket, data: bytes) -> None:
    """All of it, though the client may have set its end, which this is a duplicate of, not to block."""
    while data:
        _ready(None, end, events=select.POLLOUT)
        with suppress(BlockingIOError):
            data = data[os.write(end.fileno(), data) :]
