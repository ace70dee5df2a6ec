"""Who may not borrow, because he would wait for himself?

Whoever opens the pool's connections, for the time of the connect; a hook, in the pool that calls it; and the last of
the holders, when all others wait for this same pool already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from threadpool_db.core.entry import GONE, LEASED, Entry
from threadpool_db.errors import PoolMisuse
from threadpool_db.hooks import inside
from threadpool_db.lease import held
from threadpool_db.patched import keep_up
from threadpool_db.waiting import Holder

if TYPE_CHECKING:
    from threadpool_db.pool import ConnectionPool


def this_thread(pool: ConnectionPool[Any]) -> Holder:
    """This thread, as the pool knows it."""
    here = pool._here
    try:
        holder: Holder = here.holder
    except AttributeError:
        entry = getattr(here, "connecting", None)
        # not its note alone: an interrupt may have struck before that was taken back
        if entry is not None and entry.connection is None and entry.state is not GONE:
            raise PoolMisuse(
                f"pool {pool.name!r}: whatever opens the pool's connections cannot borrow one from it meanwhile; "
                "connect without the pool there"
            ) from None
        if hook := inside(here):
            raise PoolMisuse(
                f"pool {pool.name!r}: the hook {hook} cannot borrow from the pool that calls it; use the "
                "connection that it is given"
            ) from None
        keep_up(pool)
        holder = pool._here.holder = Holder()
    return holder


def open_into(pool: ConnectionPool[Any], entry: Entry) -> None:
    """Connect in this thread, which may not borrow from the pool meanwhile: ``checkout`` finds no holder, and asks
    ``this_thread`` why."""
    here, holder = pool._here, pool._holder()
    here.connecting = entry
    try:
        del here.holder
        pool._upkeep.open(entry)
    finally:
        here.holder = holder
        here.connecting = None


def would_never_end(pool: ConnectionPool[Any], holder: Holder) -> bool:
    """Under the lock: is every connection held by a thread that waits for this pool, once ``holder`` does too?"""
    entries = pool._ledger.entries
    if len(entries) < pool._ledger.rules.max_size:
        return False
    for entry in entries:  # ends at the first in most cases, which ``all`` with its generator makes dear
        its = entry.holder
        if entry.state is not LEASED or its is None or not (its is holder or its.waiting) or not held(entry):
            return False
    return True
