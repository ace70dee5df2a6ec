"""What can go wrong, divided by who must act.

    PoolError
    ├── PoolMisuse            the caller: the code that asked is wrong
    │   ├── StaleLease            a lease was used after its end
    │   └── TransactionAborted    a failed transaction was asked to commit
    ├── PoolClosed            the caller: the pool was closed
    ├── PoolTimeout           the operator: nothing came free in time (also a TimeoutError)
    ├── PoolOverloaded        the operator: the line is full, or was shortened so that others wait less
    ├── PoolUnavailable       the operator: the database has been out of reach for a while
    ├── ConnectFailed         the database: no connection could be opened; the driver's error is the cause
    └── LeaseExpired          the caller: a lease was held past its deadline and taken away

The operator's three carry ``snapshot``, the pool's numbers at that moment, because a stranger reads them at night;
where many are refused at a time, those of one look for all of them, a tenth of a second old at most.
Errors of the database driver itself pass through untouched. Each raise makes a fresh exception: one shared between
waiters would collect their tracebacks. No message holds a password: URLs are never quoted, only their parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpool_db.core.stats import Snapshot


class PoolError(Exception):
    """Root of everything that the pool itself raises."""


class PoolMisuse(PoolError):
    """The calling code is wrong; the message says how to mend it."""


class StaleLease(PoolMisuse):
    """A lease was used after its end, or in a process that did not take it."""


class TransactionAborted(PoolMisuse):
    """A transaction block ended without an error although the database had already given the transaction up."""


class PoolClosed(PoolError):
    """The pool was closed, before the call or while it waited."""


class _Refusal(PoolError):
    """What the operator's errors share: the pool's numbers at the moment of the refusal.

    ``snapshot`` is None only where an error was made without a pool, as in a test.
    ``waited``: seconds in line before it.
    """

    waited: float = 0.0

    def __init__(self, message: str, snapshot: Snapshot | None = None) -> None:
        super().__init__(message)
        self.snapshot = snapshot


class PoolTimeout(_Refusal, TimeoutError):
    """No connection within ``timeout`` seconds. The last connect error, if any, is the cause."""


class PoolOverloaded(_Refusal):
    """Refused at once, for ``max_waiting`` threads were in line already; or after ``waited`` seconds in line, turned
    away by ``shed`` so that others need not wait as long."""


class PoolUnavailable(_Refusal):
    """Refused at once: nothing is connected and connects have failed for a while."""


class ConnectFailed(PoolError):
    """A connection could not be opened. The driver's own error is the ``__cause__``."""


class LeaseExpired(PoolError):
    """The lease was held longer than ``max_lease`` seconds and its connection was cut."""
