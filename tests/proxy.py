"""How does a test break the network between a pool and its server?

    with FaultProxy(postgres.port) as proxy:
        psycopg2.connect(host=proxy.host, port=proxy.port, ...)
        proxy.set(mode="blackhole")

It is a TCP proxy that fails on command and counts every byte. Standard library only.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Literal, NamedTuple, TypeVar

HOST = "127.0.0.1"

T = TypeVar("T")
Mode = Literal["pass", "blackhole", "refuse"]


class ReservedPort:
    """A loopback port kept for one user: bound, never listening.

    With SO_REUSEADDR on both sockets somebody else may bind and listen on it as long as this one does not listen, and
    the kernel hands a bound port to nobody who asks for "any". While nobody listens, connecting is refused.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((HOST, 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        self._socket.close()


class Traffic(NamedTuple):
    """What has gone through a proxy: connections accepted, those open now, bytes sent on to server and clients."""

    accepted: int
    open: int
    to_server: int
    to_client: int


class _Flow:
    """One direction of a connection: what was read from `source` and is not yet written to `sink`."""

    __slots__ = ("due", "ended", "shut", "sink", "source")

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.due: deque[tuple[float, memoryview]] = deque()
        self.ended = False
        self.shut = False


class _Link:
    """A client's connection with the one to the server that answers it."""

    __slots__ = ("allowance", "closed", "down", "drop_when_sent", "up")

    def __init__(self, client: socket.socket, server: socket.socket, allowance: int | None) -> None:
        self.up = _Flow(client, server)
        self.down = _Flow(server, client)
        self.allowance = allowance
        self.drop_when_sent = False
        self.closed = False


class FaultProxy:
    """A TCP proxy on a port of its own that fails on command. Whatever is set holds when the call returns.

    set(mode="pass")        forward; each end's FIN and RST are passed on as well
    set(mode="blackhole")   read nothing, forward nothing, close nothing; new connections open and stay silent
    set(mode="refuse")      new connections are refused; open ones go on
    set(latency=0.02)       every chunk arrives that many seconds late, in each direction
    set(drop_after=n)       each connection is closed after n more bytes to its client (0: at the next byte)
    cut(), reset()          end all open connections at both ends, by FIN or by RST; returns how many
    traffic                 exact counts, taken between two chunks: an answer that a client has read is in them, and
                            so is the question before it

    One thread owns every socket and all state; other threads send it commands. So there is no lock, and nothing is
    forwarded between the moment a command returns and the next one.
    """

    _chunk = 65536
    _backlog_limit = 1 << 20

    host = HOST

    def __init__(self, port: int, host: str = HOST) -> None:
        self._target = (host, port)
        self._mode: Mode = "pass"
        self._latency = 0.0
        self._delaying = False  # has a latency ever been set?
        self._drop_after: int | None = None
        self._accepted = self._to_server = self._to_client = 0
        self._links: set[_Link] = set()
        self._commands: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self._listener: socket.socket | None = None
        self._alarm, self._bell = socket.socketpair()
        self._alarm.setblocking(False)
        self._selector.register(self._alarm, selectors.EVENT_READ, self._on_alarm)
        self._apply_mode("pass")
        self._thread = threading.Thread(target=self._run, name=f"fault-proxy-{self.port}", daemon=True)
        self._thread.start()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def traffic(self) -> Traffic:
        return self._ask(lambda: Traffic(self._accepted, len(self._links), self._to_server, self._to_client))

    def set(
        self,
        *,
        mode: Mode | None = None,
        latency: float | None = None,
        drop_after: int | None = None,
    ) -> None:
        """Change what is named and leave the rest; a negative drop_after ends an earlier one."""

        def apply() -> None:
            if latency is not None:
                self._latency = latency
                self._delaying = self._delaying or latency > 0
            if drop_after is not None:
                self._drop_after = drop_after if drop_after >= 0 else None
                for link in self._links:
                    link.allowance = self._drop_after
            if mode is not None:
                self._apply_mode(mode)

        self._ask(apply)

    def cut(self) -> int:
        return self._ask(lambda: self._end_all(reset=False))

    def reset(self) -> int:
        return self._ask(lambda: self._end_all(reset=True))

    def close(self) -> None:
        """Stop, ending what is open. A second call does nothing."""
        if self._thread.is_alive():
            self._ask(self._finish)
            self._thread.join()
            self._bell.close()

    # Below this line everything runs in the proxy's own thread, except _ask and the constructor.

    def _ask(self, command: Callable[[], T]) -> T:
        answer: Future[T] = Future()
        self._commands.put((command, answer))
        with contextlib.suppress(BrokenPipeError):  # it was awake, has read the command, and it was the last one
            self._bell.send(b"!")
        return answer.result(10.0)

    def _run(self) -> None:
        while not self._closing:
            for key, events in self._selector.select(self._patience()):
                key.data(events)
            if self._delaying:
                for link in list(self._links):
                    self._deliver(link)
            self._obey()

    def _patience(self) -> float | None:
        """Seconds until a delayed chunk is due; None when only a socket or a command can bring work."""
        if not self._delaying or self._mode == "blackhole":
            return None
        now = time.monotonic()
        heads = [flow.due[0][0] for link in self._links for flow in (link.up, link.down) if flow.due]
        late = [when - now for when in heads if when > now]
        return min(late, default=None)

    def _obey(self) -> None:
        while True:
            try:
                command, answer = self._commands.get_nowait()
            except Empty:
                return
            try:
                answer.set_result(command())
            except BaseException as error:
                answer.set_exception(error)

    def _on_alarm(self, events: int) -> None:
        self._alarm.recv(4096)

    def _apply_mode(self, mode: Mode) -> None:
        if mode not in ("pass", "blackhole", "refuse"):
            raise ValueError(f"mode {mode!r}: pass, blackhole or refuse")
        self._mode = mode
        if self._listener is not None and mode == "refuse":
            self._watch(self._listener, 0)
            self._listener.close()
            self._listener = None
        if mode != "refuse":
            if self._listener is None:
                self._listener = socket.create_server((self.host, self.port), backlog=200)
                self._listener.setblocking(False)
            # In a black hole the kernel still completes the handshake, and nobody takes the connection from it.
            self._watch(self._listener, selectors.EVENT_READ if mode == "pass" else 0, self._on_connect)
        for link in list(self._links):
            self._deliver(link)

    def _watch(self, what: socket.socket, events: int, handler: Callable[..., None] | None = None, *args: Any) -> None:
        """Watch for these events, 0 for none at all: a socket left in the selector would report HUP for ever."""
        known = self._selector.get_map().get(what)
        if not events:
            if known is not None:
                self._selector.unregister(what)
        elif known is None:
            assert handler is not None
            self._selector.register(what, events, partial(handler, *args))
        elif known.events != events:
            self._selector.modify(what, events, known.data)

    def _on_connect(self, events: int) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        self._accepted += 1
        server = socket.socket()
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.connect_ex(self._target)  # a failure comes back as the first read's error, and goes to the client as RST
        link = _Link(client, server, self._drop_after)
        self._links.add(link)
        self._watch_link(link)

    def _watch_link(self, link: _Link) -> None:
        if link.closed:
            return
        now = time.monotonic()
        silent = self._mode == "blackhole"
        for reads, writes in ((link.up, link.down), (link.down, link.up)):
            events = 0
            backlog = sum(len(chunk) for _, chunk in reads.due)
            if not silent and not reads.ended and not link.drop_when_sent and backlog < self._backlog_limit:
                events |= selectors.EVENT_READ
            if not silent and writes.due and writes.due[0][0] <= now:
                events |= selectors.EVENT_WRITE
            self._watch(reads.source, events, self._on_ready, link, reads)

    def _on_ready(self, link: _Link, flow: _Flow, events: int) -> None:
        """`flow` is the one that reads from the socket that is ready; the other one writes to it."""
        if events & selectors.EVENT_READ and not link.closed and self._mode != "blackhole":
            self._receive(link, flow)
        self._deliver(link)

    def _receive(self, link: _Link, flow: _Flow) -> None:
        try:
            data = flow.source.recv(self._chunk)
        except BlockingIOError:
            return
        except OSError:
            self._end(link, reset=True)
            return
        if not data:
            flow.ended = True
            return
        if flow is link.down and link.allowance is not None:
            data = data[: link.allowance]
            link.allowance -= len(data)
            link.drop_when_sent = link.allowance == 0
        if data:
            flow.due.append((time.monotonic() + self._latency if self._latency else 0.0, memoryview(data)))

    def _deliver(self, link: _Link) -> None:
        """Write all that is due, pass on a FIN whose data is out, and watch for what is left."""
        if link.closed:
            return
        if self._mode != "blackhole":
            try:
                for flow in (link.up, link.down):
                    self._send(link, flow)
            except OSError:
                self._end(link, reset=True)
                return
            if (link.drop_when_sent and not link.down.due) or (link.up.shut and link.down.shut):
                self._end(link, reset=False)
                return
        self._watch_link(link)

    def _send(self, link: _Link, flow: _Flow) -> None:
        now = time.monotonic()
        while flow.due and flow.due[0][0] <= now:
            when, chunk = flow.due[0]
            try:
                sent = flow.sink.send(chunk)
            except BlockingIOError:
                return
            if flow is link.up:
                self._to_server += sent
            else:
                self._to_client += sent
            if sent == len(chunk):
                flow.due.popleft()
            else:
                flow.due[0] = (when, chunk[sent:])
        if flow.ended and not flow.due and not flow.shut:
            flow.shut = True
            flow.sink.shutdown(socket.SHUT_WR)

    def _end_all(self, reset: bool) -> int:
        links = list(self._links)
        for link in links:
            self._end(link, reset)
        return len(links)

    def _end(self, link: _Link, reset: bool) -> None:
        link.closed = True
        self._links.discard(link)
        for end in (link.up.source, link.down.source):
            self._watch(end, 0)
            if reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                self._say_goodbye(end)
            end.close()

    def _say_goodbye(self, end: socket.socket) -> None:
        """FIN first, then throw away what is unread: closing over unread bytes would send RST instead."""
        try:
            end.shutdown(socket.SHUT_WR)
            while end.recv(self._chunk):
                pass
        except OSError:
            pass

    def _finish(self) -> None:
        self._closing = True
        self._end_all(reset=False)
        if self._listener is not None:
            self._listener.close()
        self._reserved.release()
        self._selector.close()
        self._alarm.close()
