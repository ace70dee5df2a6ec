"""What becomes of a pool when its process forks, or ends? A child forgets, and never closes, what it inherited.

A close in the child sends the goodbye over the socket that it shares with its parent, and ends the parent's session
(measured: psycopg2, psycopg and PyMySQL alike). So every inherited descriptor is pointed at the null device, and the
connection objects are kept for ever, so that no finaliser of theirs ever runs: SQLite's would clean up a journal that
the parent still uses. ``os.register_at_fork`` needs nothing from the user; it runs before gunicorn's ``post_fork``.

A process that ends says goodbye on its idle connections, or the server would log each as lost. What is lent then is a
daemon thread's; its connection goes with the process.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import time
import weakref
from typing import Any, Protocol

from threadpool_db.core.entry import GONE, Entry


class Watched(Protocol):
    def _after_fork_in_child(self) -> None: ...

    def _at_exit(self, until: float) -> None: ...


_keepers: weakref.WeakSet[Any] = weakref.WeakSet()
_pools: weakref.WeakSet[Any] = weakref.WeakSet()
_inherited: list[Any] = []

#: Seconds that the end of a process waits for all its pools together.
FAREWELL = 1.0


def watch(pool: Watched) -> None:
    """From now on the pool is told, in each forked child, that it is one, and at the end of the process."""
    _pools.add(pool)


def pools() -> list[Any]:
    """All that live in this process, those inherited too."""
    return list(_pools)


def watch_keeper(keeper: Watched) -> None:
    """As ``watch``, and before any pool is told: what a pool then plans must meet a keeper that has begun afresh."""
    _keepers.add(keeper)


def bury(connection: object, descriptor: int | None) -> None:
    """Forget an inherited connection without a word to its server."""
    _inherited.append(connection)
    with contextlib.suppress(ImportError, AttributeError):
        # the list is emptied when the child ends, and SQLite's finaliser would then roll back the parent's transaction
        # and delete its journal (seen: "disk I/O error" in the parent). This reference nobody ever takes back.
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    if descriptor is not None:
        with contextlib.suppress(OSError):
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, descriptor, inheritable=False)
            os.close(null)


def forget(entries: set[Entry]) -> None:
    """All that a pool has of its parent's: leases of it are stale, and give nothing back."""
    for entry in list(entries):
        entry.state, entry.generation = GONE, -1  # of no generation that lives
        if entry.connection is not None:
            bury(entry.connection, entry.socket[0] if entry.socket else None)
        entry.connection = None


def _after_fork_in_child() -> None:
    for one in [*_keepers, *_pools]:
        one._after_fork_in_child()


@atexit.register
def _at_exit() -> None:
    until = time.monotonic() + FAREWELL
    for one in [*_keepers, *_pools]:
        one._at_exit(until)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
