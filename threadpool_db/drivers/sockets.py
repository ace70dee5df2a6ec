"""What can be told of a socket, and done to it, without the client that owns it? A look, its silence, its end."""

from __future__ import annotations

import contextlib
import enum
import os
import select
import socket
import sys
from typing import Any

#: Linux; the constant is missing from some builds' ``select`` (PyPy) but the number is the kernel's.
_RDHUP = getattr(select, "POLLRDHUP", 0x2000)
_HUNG_UP = _RDHUP | getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0) | getattr(select, "POLLNVAL", 0)


def _system_poll() -> Any:
    """gevent's goes round its hub, which takes 10 µs and as long as other greenlets like, and knows of no RDHUP."""
    gevent = sys.modules.get("gevent.monkey")
    return getattr(select, "poll", None) if gevent is None else gevent.get_original("select", "poll")


#: asked for at once: what an import before the patch finds here is the system's too
_poll = _system_poll()


class Socket(enum.Enum):
    """What a zero-timeout poll says of a socket."""

    QUIET = "quiet"
    READABLE = "readable"  # something unread, the peer has not hung up: what that means only the driver knows
    GONE = "gone"


def poll_socket(descriptor: int) -> Socket:
    """Look at a socket without waiting, 0.3 µs. A peer that said goodbye is seen whether or not TLS is on.

    A fresh poll object each time: a kept one outlives the descriptor's number, which the system gives to somebody else.
    """
    if descriptor < 0:
        return Socket.GONE
    poll = _poll()
    poll.register(descriptor, select.POLLIN | _RDHUP)
    events = poll.poll(0)
    if not events:
        return Socket.QUIET
    return Socket.GONE if events[0][1] & _HUNG_UP else Socket.READABLE


def socket_identity(descriptor: int | None) -> tuple[int, int] | None:
    """The descriptor and the inode behind it; to be noted at connect, for ``cut_socket``."""
    if descriptor is None:
        return None
    try:
        return descriptor, os.fstat(descriptor).st_ino
    except OSError:
        return None


#: where struct tcp_info of Linux has tcpi_last_data_sent and tcpi_last_data_recv, in milliseconds
_LAST_SENT, _LAST_RECEIVED = 44, 52


def socket_silence(identity: tuple[int, int] | None) -> float | None:
    """For how many seconds has nothing been said on that socket, in either direction? The kernel knows.

    None where it does not: no TCP, no Linux, or no longer that socket.
    """
    if identity is None or not hasattr(socket, "TCP_INFO"):
        return None
    descriptor, inode = identity
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
        if os.fstat(duplicate.fileno()).st_ino == inode:
            info = duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            ages = [int.from_bytes(info[at : at + 4], sys.byteorder) for at in (_LAST_SENT, _LAST_RECEIVED)]
            return min(ages) / 1000.0
    return None


def cut_socket(identity: tuple[int, int] | None) -> None:
    """End whatever call is stuck on that socket, from another thread.

    Shuts down a duplicate, because the descriptor's number may be closed and given to somebody else at any moment;
    after the ``dup`` its inode says whether it still is ours. psycopg's own ``cancel()`` would hold the GIL meanwhile.
    """
    if identity is None:
        return
    descriptor, inode = identity
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
        if os.fstat(duplicate.fileno()).st_ino == inode:
            duplicate.shutdown(socket.SHUT_RDWR)
