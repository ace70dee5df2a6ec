"""May its borrower have it? ``on_checkout`` is asked, after the pool itself has found the connection fit.

Whatever the hook did to a connection that its borrower then does not get, because the hook raised or an interrupt came
between, nobody else gets to see: it is cleaned as after a borrower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from threadpool_db.core.entry import LEASED, Entry
from threadpool_db.waiting import Waiter

if TYPE_CHECKING:
    from threadpool_db.pool import ConnectionPool


class Showing:
    """Of one checkout."""

    def __init__(self, pool: ConnectionPool[Any], waiter: Waiter, deadline: float, autocommit: bool | None) -> None:
        self._upkeep = pool._upkeep
        self._waiter = waiter
        self._deadline = deadline
        self._autocommit = autocommit
        self._shown: Entry | None = None

    def wanted(self, entry: Entry) -> bool:
        upkeep, self._shown = self._upkeep, entry
        if upkeep.hooks.wanted(entry, self._deadline) and not entry.expired_after:
            try:
                entry.autocommit = upkeep.driver.autocommit(entry.connection)  # the hook may have changed it
                if upkeep.in_mode(entry, self._autocommit, self._deadline):
                    return True
            except Exception:
                pass  # there is none any more: the hook took so long that it was taken away
        self._shown = None
        return False

    def take_back(self, error: BaseException) -> None:
        """The borrower does not get it: clean it, before it goes back, or see that it is closed."""
        entry, claim = self._shown, self._waiter.claim
        if entry is None or claim is None or entry.state is not LEASED or entry.right() is not claim:
            return  # not shown, or taken away meanwhile
        generation, entry.generation = entry.generation, -1  # of none that lives: closed when it goes back
        entry.last_used, entry.unfit = self._upkeep.now(), True
        if self._upkeep.scrub(entry, error):
            entry.generation, entry.unfit = generation, False
