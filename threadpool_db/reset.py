"""What of one borrower's session would reach the next, though his transaction is rolled back?

Settings, temporary tables, locks, and attributes of the connection object. A session that was dirtied is reset, and
told again what each connection is told when it is made; one that cannot be reset is of no more use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from threadpool_db.core.entry import Entry
from threadpool_db.errors import ConnectFailed, PoolMisuse
from threadpool_db.lease import where

if TYPE_CHECKING:
    from threadpool_db.upkeep import Upkeep


def wipe(upkeep: Upkeep[Any], entry: Entry) -> bool:
    """What survives a rollback: settings of the session, and attributes of the connection object."""
    driver, connection = upkeep.driver, entry.connection
    if driver.put_back(connection):
        with upkeep._limited(entry.socket):
            upkeep._session.characterise(connection)
    if entry.reset_first or driver.dirtied(connection):
        if upkeep._config.server_pooler:
            upkeep._tell("leftover", upkeep._clock.now() - entry.taken_at, _leftover(entry))
            return False  # a reset would wipe whichever session comes, and not the one that needs it
        if not driver.can_reset:
            return False
        began = upkeep._clock.now()
        with upkeep._limited(entry.socket):
            driver.reset(connection)
        with upkeep._limited(entry.socket):
            _replay(upkeep, connection)
        upkeep._tell("reset", upkeep._clock.now() - began)
        driver.watch(connection)
        entry.reset_first = upkeep._config.reset == "always"
    return True


def _replay(upkeep: Upkeep[Any], connection: Any) -> None:
    try:
        upkeep._session.prepare(connection)
    except (ConnectFailed, PoolMisuse) as error:
        upkeep.hooks.replay_failed(error)
        raise


def _leftover(entry: Entry) -> str:
    return (
        f"a lease taken at {where(entry.code, entry.instruction)} left something in a session of the pooler's, where "
        "other clients may meet it; to close our connection does not undo it: use SET LOCAL inside transaction()"
    )
