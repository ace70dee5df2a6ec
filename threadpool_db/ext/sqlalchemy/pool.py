"""What does SQLAlchemy see? A Pool with QueuePool's arguments, whose waiters are served in the order they came.

Its own rules for reset, ping, recycling and invalidation stay in charge. Two things differ from QueuePool: who has
waited longest is served first, and a borrower whose connect fails passes its turn on at once, where QueuePool lets the
next one sleep on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sqlalchemy import exc
from sqlalchemy.pool import Pool
from sqlalchemy.pool.base import ResetStyle
from sqlalchemy.util import asbool, bool_or_str

from threadpool_db.budget import Budget
from threadpool_db.config import PoolConfig
from threadpool_db.core.backoff import Backoff
from threadpool_db.core.overload import Shed
from threadpool_db.core.sizing import Counts
from threadpool_db.core.stats import Snapshot
from threadpool_db.drivers.base import Driver
from threadpool_db.drivers.sqlite import Sqlite
from threadpool_db.errors import PoolMisuse
from threadpool_db.ext.sqlalchemy.records import Inner, KeepIdle, Record, Records, Settling
from threadpool_db.ext.sqlalchemy.thrift import Thrift, driver_of, refuse_private_memory, refuse_session_options
from threadpool_db.lease import Claim

#: create_engine's names for what Pool calls otherwise
_PUBLIC = {"pre_ping": "pool_pre_ping", "recycle": "pool_recycle", "echo": "echo_pool"}


class ThreadPool(Pool):
    """A pool for ``create_engine``. ``creator``, ``pool_size``, ``max_overflow``, ``timeout``, ``use_lifo`` and all
    other arguments mean what they mean for QueuePool.

    ``max_connecting``: at most so many threads open new connections at a time; the others wait for what comes first, a
    new one or one given back. ``max_waiting``: more than this in line are refused at once (CheckoutOverloaded).
    ``ping_after``: ``pool_pre_ping`` asks a connection that was silent for so many seconds; one used since is only
    looked at, where the driver is known. 0: it asks at every checkout, as QueuePool does.
    ``shed``: ``CoDel(target, interval)`` turns some of those who wait away when the pool is overloaded, so that the
    others wait less (CheckoutOverloaded). None: each waits for his ``timeout``.
    ``grace``: when nothing is connected, and connects have failed for so many seconds, one borrower tries in each step
    of a growing pause and the others are refused at once (CheckoutUnavailable). None: each tries for himself.
    ``budget``: a Budget, the cap that this pool shares with others, of SQLAlchemy and of the core.
    """

    _is_asyncio = False  # or create_async_engine would take it, and block its loop
    _sqla_logger_namespace = "sqlalchemy.pool.impl.ThreadPool"  # beside QueuePool's

    # Every own argument must be positional-or-keyword: create_engine does not see the others.
    def __init__(
        self,
        creator: Any,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float = 30.0,
        use_lifo: bool = False,
        max_connecting: float = 2,
        max_waiting: float | None = None,
        ping_after: float = 30.0,
        grace: float | None = None,
        shed: Shed | None = None,
        budget: Budget | None = None,
        **kw: Any,
    ) -> None:
        refuse_session_options(kw, "ThreadPool")
        for name, read in (("pre_ping", _switch), ("recycle", _recycling), ("echo", _echo)):
            if name in kw:
                kw[name] = read(_PUBLIC[name], kw[name])
        self._met = False
        self._record = Record
        self._driver: Driver[Any] | None = None
        self._peek: Callable[[Any], bool] | None = None
        super().__init__(creator, **kw)
        self._size = _whole("pool_size", pool_size, 0)
        # without a pool_size there is no limit, whatever max_overflow says
        self._overflow_limit = _whole("max_overflow", max_overflow, -1) if self._size else -1
        self._use_lifo = _switch("pool_use_lifo", use_lifo)
        self._timeout = _seconds("pool_timeout", timeout)
        self._max_connecting = _limit("max_connecting", max_connecting, 1)
        self._max_waiting = _limit("max_waiting", math.inf if max_waiting is None else max_waiting, 0)
        self._ping_after = _seconds("ping_after", ping_after)
        self._shed = shed
        self._grace = None if grace is None else _seconds("grace", grace, "for no breaker")
        endless = self._overflow_limit == -1
        options = {
            "max_size": math.inf if endless else self._size + self._overflow_limit,
            "sizing": KeepIdle(self._size or math.inf),
            "timeout": self._timeout,
            "max_connecting": self._max_connecting,
            "max_waiting": self._max_waiting,
            "shed": shed,
            # SQLAlchemy's own pool_pre_ping and pool_recycle do this, on checkout
            "ping_after": math.inf,
            "max_lifetime": None,
            "max_idle": None,
            "backoff": None if self._grace is None else Backoff(),
            "grace": self._grace or 0.0,
            "background": False,  # whoever listens to "connect" expects the borrower's own thread
            "budget": budget,
        }
        self._budget = budget
        self._inner = self._lender(PoolConfig.from_options(options), "lifo" if self._use_lifo else "fifo")

    def _lender(self, config: PoolConfig, order: str) -> Inner:
        return Inner(Records(self, self.logging_name or "sqlalchemy"), config, order=order)

    # No property: it is read twice at each checkin, and written, here and by create_engine, hardly ever.
    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_dialect" and self._driver is not None:
            value = Thrift(value, self._driver)
        super().__setattr__(name, value)

    def _create_connection(self) -> Record:
        return self._record(self)

    def _meet(self, record: Record) -> None:
        """The first connection shows what can be known of all of them; two may be first at the same time."""
        with self._inner.meeting:
            if self._met:
                return
            driver = driver_of(record.dbapi_connection)
            if driver is not None:
                if isinstance(driver, Sqlite) and self._inner._ledger.rules.max_size > 1:
                    refuse_private_memory(driver, record.dbapi_connection, lambda: self._invoke_creator(record))
                dialect, self._driver = self._dialect, driver
                self._dialect = dialect
                if self._reset_on_return is ResetStyle.reset_rollback and Settling.is_for(record.dbapi_connection):
                    self._record = record.__class__ = Settling
                self._peek = driver.peek if driver.peeks else None
            self._met = True

    def _look(self, record: Record, silent: float) -> None:
        """A dead connection is replaced before its borrower sees it; a live one need not be asked so soon again."""
        connection = record.dbapi_connection
        if connection is None or self._peek is None:
            return
        if not self._peek(connection):
            try:
                record.invalidate(exc.DisconnectionError("the server has closed it"))
            except BaseException as error:  # a listener's: the place must not be lost with it
                record._checkin_failed(error, _fairy_was_created=False)
                raise
        elif self._ping_after and silent < self._ping_after:  # below 0: used while its borrower stood in line
            record.fresh = True

    def _do_get(self) -> Record:
        # ConnectionPool.checkout without the lease. The bare calls of the lock cost half of what ``with`` does; an
        # interrupt may fall between any two of these lines, before the lock is ours too.
        inner = self._inner
        try:
            holder = inner._here.holder
        except AttributeError:
            holder = inner._holder()
        inside, clock, acquire, take, _, release, idle = inner._at_hand
        if inside():
            raise PoolMisuse(f"pool {inner.name!r}: a finaliser that interrupted the pool cannot borrow from it")
        now, entry = clock(), None
        if idle:
            try:
                acquire()
                entry = take(now)
                if entry is not None:
                    entry.holder = holder
                    record: Record = entry.connection
                    record.claim = entry.claim
                    entry.connection = entry.claim = None
                    last_used = entry.last_used
            finally:
                try:
                    release()
                except RuntimeError:
                    pass
        if entry is None:
            record, last_used = inner.borrow(self._timeout, holder)
        if self._peek is not None:
            self._look(record, now - last_used)
        return record

    # Pool's own would call _do_return_conn, a frame more for each checkin
    def _return_conn(self, record: Any) -> None:
        inner = self._inner
        inside, clock, acquire, _, give, release, _ = inner._at_hand
        if inside():
            inner.take_by_mail(record)
            return
        now = clock()
        try:
            acquire()
            claim: Claim | None = record.claim
            if claim is None:
                return  # given back already, or another process's
            entry = claim.entry
            if record.dbapi_connection is None and inner.breaks:
                entry.generation = -1  # the long way, which lets go of it
            entry.connection = record
            entry.claim = claim
            record.claim = claim = None
            if give(entry, now):
                return
            turned_away = inner._hand(entry, now)
            if turned_away is None:
                errand = inner._errand(entry)
        finally:
            try:
                release()
            except RuntimeError:
                pass
        if turned_away is not None:
            inner._after_hand(turned_away)
        else:
            inner._checkin_slowly(errand)

    _do_return_conn = _return_conn

    def recreate(self) -> ThreadPool:
        """Another pool with the same arguments and listeners; connects nothing."""
        self.logger.info("Pool recreating")
        dialect: Any = self._dialect
        return self.__class__(
            self._creator,
            pool_size=self._size,
            max_overflow=self._overflow_limit,
            timeout=self._timeout,
            use_lifo=self._use_lifo,
            max_connecting=self._max_connecting,
            max_waiting=self._max_waiting,
            ping_after=self._ping_after,
            grace=self._grace,
            shed=self._shed,
            budget=self._budget,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            _dispatch=self.dispatch,
            dialect=dialect.dialect if type(dialect) is Thrift else dialect,
            **self._others(),
        )

    def _others(self) -> dict[str, Any]:
        """Arguments of a subclass."""
        return {}

    def dispose(self) -> None:
        """Close what is idle. What is lent stays good and comes back here."""
        self._inner._tell(self._inner._ledger.clear)
        self.logger.info("Pool disposed. %s", self.status())

    def status(self) -> str:
        counts = self._counts()
        return (
            f"Pool size: {self._size}  Connections in pool: {counts.idle} Current Overflow: {self.overflow()} "
            f"Current Checked out connections: {counts.total - counts.idle} Waiting: {counts.waiting}"
        )

    def stats(self) -> Snapshot:
        """All numbers of this moment."""
        return self._inner.stats()

    def size(self) -> int:
        """``pool_size``; 0 is no limit."""
        return self._size

    def timeout(self) -> float:
        return self._timeout

    def checkedin(self) -> int:
        return self._counts().idle

    def checkedout(self) -> int:
        counts = self._counts()
        return counts.total - counts.idle

    def overflow(self) -> int:
        """How many there are beyond ``pool_size``: negative while the pool fills, as QueuePool counts."""
        return self._counts().total - self._size if self._size else 0

    def _counts(self) -> Counts:
        return self._inner._ledger.counts()


def _whole(name: str, value: Any, lowest: int) -> int:
    """A whole number; as text too, which is all that a configuration file has."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = lowest - 1
    if number < lowest or (not isinstance(value, str) and number != value):
        raise ValueError(f"{name}={value!r}: must be a whole number from {lowest} on")
    return number


def _seconds(name: str, value: Any, none: str = "to wait for ever") -> float:
    try:
        seconds = math.inf if value is None else float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not seconds >= 0:
        raise ValueError(f"{name}={value!r}: must be seconds from 0 on, or None {none}")
    return seconds


def _limit(name: str, value: Any, lowest: int) -> float:
    return math.inf if value in (math.inf, "inf") else _whole(name, value, lowest)


def _recycling(name: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r}: must be whole seconds, or -1 for never") from None


def _echo(name: str, value: Any) -> Any:
    try:
        return bool_or_str("debug")(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"{name}={value!r}: must be true, false or 'debug'") from None


def _switch(name: str, value: Any) -> bool:
    try:
        return bool(asbool(value))
    except ValueError:
        raise ValueError(f"{name}={value!r}: must be true or false") from None
