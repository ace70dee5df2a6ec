"""How does a block end? ``connection()``, ``transaction()`` and ``scope()``, each in the right way and in any order.

The last block of a thread gives back what was borrowed, commits or rolls back what was begun, and never more: what was
open before it, and what the thread keeps, is not its own to end. The hard part is what a generator, an interrupt, a
dead connection or another thread can do to that; each odd line below has met one of them in a test.
"""

from __future__ import annotations

import warnings
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from threadpool_db.checkout.pin import Hold
from threadpool_db.core.entry import Entry
from threadpool_db.drivers.base import FAILED, IDLE, OPEN
from threadpool_db.errors import PoolError, PoolMisuse, TransactionAborted
from threadpool_db.lease import Lease, caller, entry_of, where
from threadpool_db.result import run

if TYPE_CHECKING:
    from threadpool_db.database import Face


class Block:
    """What ``connection`` and ``transaction`` share: use the thread's lease or borrow one, and end it with the last.

    Blocks belong to their thread and end in reverse order. Where a generator breaks that, nothing may be shared or half
    committed: the lease lasts until the last block has ended, and a block that ends in another thread closes its
    connection.
    """

    def __init__(self, face: Face, timeout: float | None) -> None:
        self._face = face
        self._timeout = timeout
        self._lease: Lease[Any] | None = None
        self._token = object()

    def _enter(self, frame: FrameType, mode: bool | None) -> Entry:
        face = self._face
        if self._lease is not None:
            raise PoolMisuse(f"pool {face.name!r}: this block was entered already; ask the pool for another one")
        self._hold = hold = face._hold()
        self._lease, found = face._lease_for(hold, self._timeout, frame, mode)
        entry = entry_of(self._lease)
        self._found_open = found and face._in_transaction(entry)
        if not hold.blocks:
            hold.found_open = self._found_open
        hold.blocks.append(self._token)
        return entry

    def _leave(self, error: BaseException | None) -> None:
        """The last block gives back what was borrowed; of what the thread keeps, it ends the transaction."""
        hold = self._hold
        hold.unsettled = True
        hold.leave(self._token)
        self._give_back(error)
        hold.unsettled = bool(hold.blocks)

    def _give_back(self, error: BaseException | None) -> None:
        face, hold, lease = self._face, self._hold, self._lease
        assert lease is not None
        if not lease.active:
            if not hold.blocks:
                hold.forget()
                if lease.expired:
                    face._upkeep.close_after_use(entry_of(lease))
            return
        entry = entry_of(lease)
        if error is not None:
            face._upkeep.doom(entry, error)
        elsewhere = face._elsewhere(hold)
        if elsewhere or (_interrupted(error) and face._upkeep.driver.state(entry.connection) is not IDLE):
            if not hold.blocks:
                hold.forget()
            lease.discard()
            if elsewhere and error is None:
                raise PoolMisuse(
                    f"pool {face.name!r}: a block that was entered in another thread ended here; its connection was "
                    "closed, what was not committed is lost; a lease from checkout() may move between threads"
                )
            return
        if hold.blocks:
            return
        error = _ordinary(error)
        if hold.found_open and face._in_transaction(entry):
            return
        if not hold.kept:
            face._let_go(hold, lease, error)
        elif face._upkeep.end_transaction(entry, error):
            entry.autocommit = face._upkeep.driver.autocommit(entry.connection)
            face._keep(hold, entry)
        else:
            hold.forget()
            lease.discard()

    def __del__(self) -> None:
        # Dropped without its end: somebody called __enter__ alone, or an interrupt hit between it and the block.
        hold = getattr(self, "_hold", None)
        if hold is not None and self._token in hold.blocks:
            hold.leave(self._token)
            if not hold.blocks:
                hold.forget()


class ConnectionBlock(Block):
    """``with pool.connection() as conn``."""

    def __enter__(self) -> Any:
        return self._enter(caller(), None).connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)


class TransactionBlock(Block):
    """``with pool.transaction() as conn``."""

    def __enter__(self) -> Any:
        face = self._face
        entry = self._enter(caller(), face._operation_mode)
        hold, connection = self._hold, entry.connection
        self._savepoint: str | None = None
        try:
            # in autocommit the driver knows: what it does not find open, the user or the server has ended
            if self._found_open or (hold.transactions and face._upkeep.driver.autocommit(connection) is not True):
                self._savepoint = f"threadpool_db_{len(hold.transactions) + 1}"
                run(connection, f"SAVEPOINT {self._savepoint}")
            else:
                face._upkeep.driver.begin(connection)
        except BaseException as error:
            self._leave(error)
            raise
        hold.transactions.append(self._token)
        return connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hold, lease = self._hold, self._lease
        assert lease is not None
        hold.unsettled = True
        in_order = hold.transactions[-1:] == [self._token]
        try:
            if not self._face._elsewhere(hold):
                self._finish(lease, error, in_order)
        except BaseException as raised:
            self._leave(raised)
            if lease.expired and isinstance(raised, Exception) and not isinstance(raised, PoolError):
                raise lease._ended() from raised  # taken away in the middle of this
            raise
        self._leave(error)

    def _finish(self, lease: Lease[Any], error: BaseException | None, in_order: bool) -> None:
        name = self._face.name
        if not lease.active:
            if error is None and lease.expired:
                raise lease._ended()
            if error is None:
                raise TransactionAborted(
                    f"pool {name!r}: the connection of this transaction was given back or closed before its end; "
                    "the transaction was not committed"
                )
        elif not in_order:
            lease.discard()
            if error is None:
                raise PoolMisuse(
                    f"pool {name!r}: this transaction() block ended before one that was begun inside it; "
                    "all of it was rolled back"
                )
        elif _interrupted(error):
            return
        elif self._savepoint is None:
            self._finish_outermost(lease, error)
        elif error is None:
            self._release(entry_of(lease).connection, self._savepoint)
        elif not self._undone(entry_of(lease).connection, self._savepoint):
            lease.discard()

    def _finish_outermost(self, lease: Lease[Any], error: BaseException | None) -> None:
        if error is not None:
            self._roll_back(lease, error)
            return
        driver, connection = self._face._upkeep.driver, entry_of(lease).connection
        try:
            state = driver.state(connection)
            if state is FAILED:
                raise TransactionAborted(
                    f"pool {self._face.name!r}: a statement of this transaction failed and the error was swallowed; "
                    "the database has given the transaction up, and it was rolled back"
                )
            if state is not IDLE:
                driver.commit(connection)
        except BaseException as raised:
            self._roll_back(lease, raised)
            raise

    def _roll_back(self, lease: Lease[Any], error: BaseException) -> None:
        """Here and now, for there may be a connection() block around, which would go on in the failed transaction."""
        if not _interrupted(error) and not self._face._upkeep.end_transaction(entry_of(lease), _ordinary(error)):
            lease.discard()

    def _release(self, connection: Any, savepoint: str) -> None:
        """The inner transaction is a part of the outer one from now on."""
        state = self._face._upkeep.driver.state(connection)
        if state is FAILED:
            run(connection, f"ROLLBACK TO SAVEPOINT {savepoint}")
            run(connection, f"RELEASE SAVEPOINT {savepoint}")
            raise TransactionAborted(
                f"pool {self._face.name!r}: a statement of this inner transaction failed and the error was swallowed; "
                "it was rolled back to where it began"
            )
        # Where the driver cannot tell the savepoint stays: in sqlite3's old way it may be all that holds the
        # transaction open, and its release would commit.
        if state is OPEN:
            run(connection, f"RELEASE SAVEPOINT {savepoint}")

    def _undone(self, connection: Any, savepoint: str) -> bool:
        """Roll back to where the inner transaction began: the outer one goes on as if it had never been.

        False: it cannot be undone alone, so nothing of the outer one may be committed either. MySQL, for one, rolls
        back everything on a deadlock.
        """
        driver = self._face._upkeep.driver
        if driver.state(connection) is IDLE:
            return True  # ended by hand meanwhile
        try:
            run(connection, f"ROLLBACK TO SAVEPOINT {savepoint}")
            if driver.state(connection) is OPEN:
                run(connection, f"RELEASE SAVEPOINT {savepoint}")
        except Exception:
            return False
        return True


class Scope:
    """``with pool.scope()``; scopes nest, and only the outermost lets go."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._hold: Hold | None = None

    def __enter__(self) -> None:
        if self._hold is not None:
            raise PoolMisuse(f"pool {self._face.name!r}: this scope was entered already; ask the pool for another one")
        hold = self._face._hold()
        hold.scopes += 1
        self._hold = hold

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        face, hold = self._face, self._hold
        assert hold is not None
        self._hold = None
        hold.scopes -= 1
        lease = hold.current()
        hold.taken_away = None if not hold.scopes else hold.taken_away
        if face._elsewhere(hold):
            if lease is not None and not hold.scopes and not hold.blocks:
                hold.forget()
                lease.discard()
            if error is None:
                raise PoolMisuse(f"pool {face.name!r}: {self} that was entered in another thread ended here")
            return
        if hold.scopes:
            return
        if hold.blocks:
            hold.sticky = False  # the block around lets go
            return
        if lease is None:
            return
        entry = entry_of(lease)
        left_open = face._in_transaction(entry)
        place = where(entry.code, entry.instruction)
        face._let_go(hold, lease, error)
        if left_open and error is None:
            warnings.warn(
                f"pool {face.name!r}: {self} ended inside an open transaction, which was rolled back; "
                f"the connection was taken at {place}",
                RuntimeWarning,
                stacklevel=2,
            )

    def __str__(self) -> str:
        return "a scope"

    def __del__(self) -> None:
        hold = self._hold
        if hold is not None:  # dropped without its end, as a block may be
            hold.scopes -= 1
            if not (hold.scopes or hold.blocks or self._face._elsewhere(hold)):
                hold.drop()


def _interrupted(error: BaseException | None) -> bool:
    """By something that may strike anywhere, also while an answer is on its way?"""
    return error is not None and not isinstance(error, (Exception, GeneratorExit))


def _ordinary(error: BaseException | None) -> BaseException | None:
    """A generator that is closed stands at a yield, never in the middle of a statement: its connection is as usual."""
    return None if isinstance(error, GeneratorExit) else error
