"""How does a program talk to a database through a pool? ``Face``: operations, blocks and scopes over ``checkout``.

Each thread has one ``Hold`` for each pool. ``connection``, ``transaction`` and ``execute`` use the lease that is in it,
and borrow one only if there is none; whoever borrowed cleans up. ``checkout`` is below all this: always a new lease.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from sys import _getframe as getframe
from types import FrameType
from typing import Any, TypeVar

from threadpool_db.checkout import per_operation, per_thread, permitted
from threadpool_db.checkout.blocks import ConnectionBlock, Scope, TransactionBlock
from threadpool_db.checkout.pin import Begun, Hold, ThreadEnd, act
from threadpool_db.checkout.proxy import Proxy
from threadpool_db.config import PoolConfig
from threadpool_db.core.entry import Entry
from threadpool_db.core.statement import judge
from threadpool_db.drivers.base import BUSY, FAILED, OPEN, UNKNOWN, Driver
from threadpool_db.drivers.choose import Undecided, driver_for
from threadpool_db.errors import PoolMisuse, StaleLease
from threadpool_db.lease import Lease, caller, entry_of, where
from threadpool_db.patched import keep_up
from threadpool_db.pool import ConnectionPool
from threadpool_db.result import Parameters, Result, run

R = TypeVar("R")
_KEEPS = {"operation": per_operation.keeps, "thread": per_thread.keeps}


class Face(ConnectionPool[Any]):
    """A pool of database connections with the habits of a database library on top."""

    def _start_afresh(self) -> None:
        super()._start_afresh()
        self._mine = threading.local()
        self._pins_told: set[tuple[str, str]] = set()
        self._keeps = _KEEPS[self._config.checkout]
        self._may_be_brief = self._config.checkout == "operation"
        self._looks_after_sessions = self._config.reset != "never"

    # --- Operations -------------------------------------------------------------------------------------------------

    def execute(self, sql: str, parameters: Parameters | None = None, *, timeout: float | None = None) -> Result:
        """Run one statement: borrow, run, give back. ``parameters`` in the driver's own style.

        Joins the transaction or block that this thread is in. Outside of one it is committed at once. A hand-written
        BEGIN pins the connection to the thread until the transaction ends. The driver's errors pass through.
        """
        try:
            frame = getframe(1)
        except ValueError:
            frame = getframe()  # see caller()
        if self._may_be_brief:
            hold, dialect = self._hold(), self._upkeep.driver.dialect
            if hold.lease is None and not hold.blocks and hold.taken_away is None and dialect:
                judged = judge(sql, dialect)
                if not (judged.dirty or judged.begins or judged.asks_session):
                    return self._operate_briefly(hold, sql, parameters, timeout, frame)
        mode = self._operation_mode
        return self._operate(sql, timeout, frame, mode, lambda connection: run(connection, sql, parameters))

    def _operate_briefly(
        self, hold: Hold, sql: str, parameters: Parameters | None, timeout: float | None, frame: FrameType
    ) -> Result:
        """The common case of ``_operate``, at two thirds of its cost: a thread that holds nothing, a statement that
        leaves nothing. The hold knows nothing of it."""
        lease = self.checkout(timeout, _frame=frame, _autocommit=self._operation_mode)
        entry, upkeep = entry_of(lease), self._upkeep
        connection = entry.connection
        if connection is None:
            raise lease._ended()  # taken away a moment ago
        try:
            result = run(connection, sql, parameters)
            if entry.autocommit is not True:
                upkeep.driver.commit(connection)
        except BaseException as error:
            self._checkin(lease, error)
            raise
        try:
            settled = upkeep.settled(connection, entry.autocommit)
            if not settled and hold.lease is None and not hold.blocks and self._in_transaction(entry):
                hold.lease = lease  # a function of the database has begun one
                return result
        except Exception:
            settled = False
        self._checkin(lease, settled=settled)
        return result

    def _operate(
        self,
        sql: str | bytes,
        timeout: float | None,
        frame: FrameType,
        mode: bool | None,
        action: Callable[[Any], R],
        begun: Begun | None = None,
    ) -> R:
        """One operation, ``execute``'s or a proxy's: in mode False it begins what a proxy is to end (``begun``)."""
        hold = self._hold()
        judged = judge(sql, dialect := self._upkeep.driver.dialect)
        if judged.dirty or judged.asks_session:
            self._refuse(hold, sql, timeout)
        lease, found = self._lease_for(hold, timeout, frame, mode)
        entry, driver = entry_of(lease), self._upkeep.driver
        connection = entry.connection
        if connection is None:
            raise lease._ended()  # taken away a moment ago
        joined = bool(hold.blocks) or (found and self._in_transaction(entry))
        if driver.dialect != dialect:  # the first connection has shown whose SQL it is
            judged = judge(sql, driver.dialect)
        implicit = mode is False and begun is not None
        begins = not joined and not implicit and entry.autocommit is not True and judged.begins
        try:
            if begins and not driver.has_autocommit:
                raise PoolMisuse(
                    f"pool {self.name!r}: this driver cannot tell how long a hand-written BEGIN holds; "
                    "use transaction()"
                )
            if judged.dirty and self._looks_after_sessions:
                if not (hold.kept or hold.blocks or self._config.checkout == "thread"):
                    self._tell_of_pin(judged.why, where(frame.f_code, frame.f_lasti))
                entry.reset_first = hold.pinned = True
            result = act(hold, action, connection)
            if begun is not None and not joined and (implicit or judged.begins):
                hold.begun, begun.open = begun, True
            elif not joined and not begins and entry.autocommit is not True:
                driver.commit(connection)
        except BaseException as error:
            self._after(hold, lease, error, joined)
            raise
        self._after(hold, lease, None, joined or judged.begins)
        return result

    def _refuse(self, hold: Hold, sql: str | bytes, timeout: float | None) -> None:
        """It leaves something in the session, or asks for it: PoolMisuse, if nothing here holds a session for it."""
        lease = hold.current()
        kept = self._config.checkout == "thread" or not self._looks_after_sessions or lease is not None or hold.blocks
        if kept and not self._config.server_pooler:
            return
        if isinstance(self._upkeep.driver, Undecided):
            self.checkout(timeout).checkin()  # the first connection shows whose SQL this is
        driver = self._upkeep.driver
        judged = judge(sql, driver.dialect)
        if self._config.server_pooler:
            inside = bool(hold.transactions)
            if lease is not None and driver.has_autocommit:
                inside = self._in_transaction(entry_of(lease))
            why = permitted.behind_pooler(judged, driver.dialect, inside)
        else:
            why = permitted.without_session(judged, bool(hold.scopes))
        if why:
            raise PoolMisuse(f"pool {self.name!r}: {why}")

    def _tell_of_pin(self, why: str, place: str) -> None:
        """Once for each statement: it makes per-operation checkout hold a connection for the rest of the scope."""
        if (why, place) not in self._pins_told:
            self._pins_told.add((why, place))
            self._observers.tell("pinned", 0.0, f"{why} at {place} keeps its connection until the scope ends")

    def _after(self, hold: Hold, lease: Lease[Any], error: BaseException | None, joined: bool) -> None:
        """An operation ended: keep the connection, or let go of it?"""
        if error is not None and lease.active:
            self._upkeep.doom(entry_of(lease), error)
        if not hold.blocks:
            if lease.active:
                self._settle(hold, lease, error, joined)
            if hold.lease is lease and not lease.active and (error is not None or not joined):
                hold.forget()  # taken away meanwhile: there is nobody left to be told of it
            hold.unsettled = False

    def _settle(self, hold: Hold, lease: Lease[Any], error: BaseException | None, joined: bool) -> None:
        entry = entry_of(lease)
        if error is not None and (
            not joined or not isinstance(error, Exception) or self._upkeep.driver.is_disconnect(error, entry.connection)
        ):
            # outside a transaction nothing of a failed operation may stay; after an interrupt nothing is sure
            if not self._upkeep.end_transaction(entry, error):
                hold.forget()
                lease.discard()
                return
        elif self._in_transaction(entry):
            return
        if not lease.active:
            return  # nor was it asked: it was taken away before
        if self._keeps(hold):
            self._keep(hold, entry)
        else:
            self._let_go(hold, lease, error)

    # --- Blocks -----------------------------------------------------------------------------------------------------

    def connection(self, timeout: float | None = None) -> ConnectionBlock:
        """``with pool.connection() as conn``: the driver's own connection, rolled back at the end unless committed."""
        return ConnectionBlock(self, timeout)

    def transaction(self, timeout: float | None = None) -> TransactionBlock:
        """``with pool.transaction() as conn``: commit on success, roll back on error; inside one, a savepoint.

        TransactionAborted if the block ends well but the database had given the transaction up.
        """
        return TransactionBlock(self, timeout)

    def scope(self) -> Scope:
        """``with pool.scope()``: one request. Borrows nothing; at its end this thread lets go of its lease and pins."""
        return Scope(self)

    @property
    def in_transaction(self) -> bool:
        """Is this thread's connection inside a transaction, one begun by a hand-written BEGIN too?

        The driver knows, or the server is asked. Of a driver that cannot tell: inside ``transaction()``.
        """
        hold = self._hold()
        lease = hold.current()
        return lease is not None and (bool(hold.transactions) or self._in_transaction(entry_of(lease)))

    def proxy(self, *, autocommit: bool | None = None, timeout: float | None = None) -> Proxy:
        """A PEP 249 connection that borrows a real one for each operation or transaction; threads may share it.

        ``autocommit``: True makes each statement an operation of its own, False begins a transaction with a thread's
        first statement. None is the pool's option, and without one False, as PEP 249 has it.
        """
        return Proxy(self, autocommit, timeout)

    # --- Sticky leases ----------------------------------------------------------------------------------------------

    def lease(self, timeout: float | None = None) -> Lease[Any]:
        """This thread's own lease, kept from now on until ``release()``, its scope's end or its own end.

        Its connection is in the mode in which it was made, and stays in whatever mode its user sets. Asked for again,
        it is the same lease, unless its connection has died: then it is a new one.
        """
        hold = self._hold()
        lease, _ = self._lease_for(hold, timeout, caller(), None, renew=True)
        hold.sticky = hold.leased = True
        hold.unsettled = bool(hold.blocks)
        return lease

    def release(self) -> None:
        """Let go of this thread's lease. Nothing to let go of is fine; inside a transaction or a block: PoolMisuse."""
        hold = self._hold()
        if hold.blocks:
            raise PoolMisuse(
                f"pool {self.name!r}: release() inside a connection() or transaction() block; leave it first"
            )
        lease = hold.current()
        hold.taken_away = None
        if lease is None:
            return
        if self._in_transaction(entry_of(lease)):
            raise PoolMisuse(f"pool {self.name!r}: release() inside an open transaction; commit or roll back first")
        self._let_go(hold, lease, None)

    def close(self, timeout: float = 5.0) -> None:
        """As ``ConnectionPool.close``; what this thread itself keeps between operations goes first."""
        hold = self._hold()
        lease = hold.current()
        if lease is not None and not hold.blocks:
            self._let_go(hold, lease, None)
        super().close(timeout)

    # --- What the blocks are made of --------------------------------------------------------------------------------

    @property
    def _operation_mode(self) -> bool | None:
        """The autocommit mode of ``execute`` and ``transaction``."""
        return True if self._config.autocommit is None else None

    def _hold(self) -> Hold:
        try:
            thread: ThreadEnd = self._mine.thread
        except AttributeError:
            keep_up(self)
            thread = self._mine.thread = ThreadEnd(Hold(self._mailbox))
        return thread.hold

    def _elsewhere(self, hold: Hold) -> bool:
        """Does it belong to another thread? That of a parent process is nobody's here, its lease has ended."""
        return hold is not self._hold() and hold.mailbox is self._mailbox

    def _lease_for(
        self, hold: Hold, timeout: float | None, frame: FrameType, mode: bool | None, renew: bool = False
    ) -> tuple[Lease[Any], bool]:
        """The lease for what comes next, and whether the thread had it already; one of its own, if any is of use."""
        lease = hold.current()
        if hold.taken_away is not None:
            # The rest of his transaction would run on another connection, each statement committed by itself.
            ended, hold.taken_away = hold.taken_away, None
            raise ended._ended()
        if lease is None and hold.blocks:
            if hold.lease is not None and hold.lease.expired:
                raise hold.lease._ended()
            raise StaleLease(
                f"pool {self.name!r}: the connection of the block around this line was given back or closed meanwhile"
            )
        hold.unsettled = True
        if lease is not None and (hold.blocks or self._still_of_use(hold, lease, mode, renew)):
            return lease, True
        hold.lease = lease = self.checkout(timeout, _frame=frame, _autocommit=mode)
        return lease, False

    def _still_of_use(self, hold: Hold, lease: Lease[Any], mode: bool | None, renew: bool) -> bool:
        """Is what the thread kept between two operations good for the next one, in its mode?

        It may have died in the meantime. If nobody else has the connection, and nothing in its session is worth an
        error, another one takes its place.
        """
        entry = entry_of(lease)
        if self._in_transaction(entry):
            self._take_up(entry)
            return True
        if hold.leased:
            entry.autocommit = mode = self._upkeep.driver.autocommit(entry.connection)  # its user's choice
        if hold.pinned or hold.readers or (hold.leased and not renew) or self._upkeep.driver.dirtied(entry.connection):
            self._upkeep.in_mode(entry, mode)
            self._take_up(entry)
            return True
        of_use = not self._ledger.closed and entry.generation >= 0
        if of_use and self._upkeep.alive(entry) and self._upkeep.in_mode(entry, mode):
            self._take_up(entry)
            return True
        hold.forget()
        if lease.taken_from_use:
            raise lease._ended()  # in this moment: what its transaction looked like is not known any more
        lease.discard()
        return False

    def _in_transaction(self, entry: Entry) -> bool:
        """Is one open, by the driver's own state? Where it does not know, the server does.

        Of a driver that can never tell the answer is no: what it leaves open is rolled back when it comes back. A
        proxy's transaction lasts until its end, unless the driver says that there is none.
        """
        upkeep, connection = self._upkeep, entry.connection
        if connection is None:
            return False  # taken away, and closed
        state = upkeep.driver.state(connection)
        if (state is UNKNOWN or state is BUSY) and self._hold().begun is not None:
            return True
        if state is UNKNOWN and upkeep.driver.has_autocommit:
            upkeep.fit(entry, entry.autocommit, self._now() + self._config.check_timeout, ask=True)
            state = upkeep.driver.state(connection)
        return state is OPEN or state is FAILED

    def _keep(self, hold: Hold, entry: Entry) -> None:
        """The thread keeps it between two operations; that it was used now counts for its liveness."""
        entry.last_used = self._now()
        entry.kept = math.nan if hold.leased or hold.readers else entry.taken_at  # or what lease() gave may be in use
        hold.over()

    def _take_up(self, entry: Entry) -> None:
        """The use of what was kept begins, for ``max_lease``: the hour first, for the keeper may look at any moment."""
        if entry.is_kept:
            entry.last_used = self._now()
            entry.kept = math.nan

    def _let_go(self, hold: Hold, lease: Lease[Any], error: BaseException | None) -> None:
        for reader in hold.readers[:]:
            reader.shut()
        hold.over()
        hold.forget()
        self._checkin(lease, error)


class Pool(Face):
    """``Pool(connect, **options)`` or ``Pool(url, **options)``; see ``create_pool``."""

    def __init__(
        self, source: str | Callable[[], Any] | Driver[Any], driver: str | None = None, **options: Any
    ) -> None:
        config = PoolConfig.from_options(options)
        super().__init__(driver_for(source, driver, config.configure), config)


def create_pool(source: str | Callable[[], Any] | Driver[Any], driver: str | None = None, **options: Any) -> Pool:
    """A pool over a database: a URL, a callable that connects, or a ready Driver.

    ``driver`` names the driver of a callable ("psycopg2", "pymysql", "sqlite", "dbapi"); without it, it is recognised
    by the first connection's type. Opens nothing yet. TypeError for an unknown option, ValueError for an impossible
    value or URL, PoolMisuse for a driver that is not installed.
    """
    return Pool(source, driver, **options)
