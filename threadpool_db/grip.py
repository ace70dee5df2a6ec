"""Does somebody still have a connection that the pool has let go of? Counted by the references to it."""

from __future__ import annotations

import sys

from threadpool_db.core.entry import Entry


def in_use(entry: Entry, own_references: int) -> bool:
    """Let go of without its borrower's doing, who still has the connection: taken away, or its lease was dropped?"""
    return bool(entry.expired_after or entry.last_used <= entry.taken_at) and (
        _references(entry) > _ALONE + own_references
    )


def _references(entry: Entry) -> int:
    """To its connection; PyPy does not count."""
    return sys.getrefcount(entry.connection) if hasattr(sys, "getrefcount") else 0


def _count_alone() -> int:
    entry = Entry(0.0, 0)
    entry.connection = object()
    return _references(entry)


_ALONE = _count_alone()
