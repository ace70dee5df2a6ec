"""What if gevent patches ``threading`` when a pool is there already? The pool begins afresh, as in a forked child.

Its locks and its thread-locals are the system's. They would block the hub, and take all greenlets for one thread. The
usual way there is gunicorn's ``--preload``: a gevent worker patches after the fork. Whoever uses such a pool first is
unknown to it, and so comes by here. One that has connections by then cannot be helped: their sockets block.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from threadpool_db.errors import PoolMisuse

if TYPE_CHECKING:
    from threadpool_db.pool import ConnectionPool


def outlived(local: threading.local) -> bool:
    """Was it made before the patch?"""
    return type(local) is not threading.local


def keep_up(pool: ConnectionPool[Any]) -> None:
    """From a thread, or greenlet, that the pool does not know yet."""
    if outlived(pool._here):
        if pool._ledger.entries:
            raise too_late(pool)
        pool._after_fork_in_child()  # no greenlet runs meanwhile


def too_late(pool: ConnectionPool[Any]) -> PoolMisuse:
    return PoolMisuse(
        f"pool {pool.name!r} was used before gevent patched threading, and its connections would block all greenlets; "
        "call gevent.monkey.patch_all() before the pool's first use"
    )
