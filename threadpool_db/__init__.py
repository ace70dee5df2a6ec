"""The database connection pool for threaded Python.

    pool = create_pool("postgresql://app@db/app", max_size=10)
    with pool.transaction() as conn: ...
    rows = pool.execute("select 1")

The house, from the roof down; imports run only downwards:

    cli          the command threadpool-db              checkup/    a connect taken apart, for `check`
    simulate     the rules under a load that is not there: scenario, outcome; forecast for the command
    advisor      which policy and size: demand, trial; interview and sizer for the command
    picture      figures as SVG                         timeline    a simulated load over time
    ext/         one file for each framework            testing     the fakes that we test with
    database     execute, connection, transaction       checkout/   how long a lease lasts, how a block ends
    tenants      a pool for each of many databases      tenant, knowledge   what one of them has
    pool         the one lock, which a budget shares    borrowing   the long way to a connection
    live         what an operator can change            returning   the long ways back
    background   what is done while nobody asks         keeper      a process's scheduler and its workers
    orders       what becomes of the ledger's orders    aftermath   what finalisers and interrupts left
    nesting      who would wait for himself             reset       what must not reach the next borrower
    upkeep       what is done to a connection           session, lease, telling, waiting, fork, refusal, patched
    hooks        what the user's own code says of it    limits, grip, showing
    budget       how many connections several pools may have together: core/permits has its rules
    observe      who is told what the pool does         logbook: how often    alarms: when it is in trouble for long
    drivers/     the only I/O to databases              config      every option and its check
    contract/    does a driver keep what the pool relies on
    core/        the rules, pure: start with core/ledger.py, which says what the others hold
    errors       what can go wrong, and who must act
"""

from threadpool_db.budget import Budget, Spending
from threadpool_db.checkout.proxy import Proxy
from threadpool_db.config import PoolConfig
from threadpool_db.core.alarm import Alarms
from threadpool_db.core.backoff import Backoff
from threadpool_db.core.overload import CoDel
from threadpool_db.core.sizing import Advice, Counts, Elastic, Fixed, Overflow
from threadpool_db.core.sojourn import Sojourn
from threadpool_db.core.stats import Snapshot
from threadpool_db.database import Pool, create_pool
from threadpool_db.drivers.base import Driver, TransactionState
from threadpool_db.errors import (
    ConnectFailed,
    LeaseExpired,
    PoolClosed,
    PoolError,
    PoolMisuse,
    PoolOverloaded,
    PoolTimeout,
    PoolUnavailable,
    StaleLease,
    TransactionAborted,
)
from threadpool_db.hooks import KEEP, REPLACE, Outcome
from threadpool_db.lease import Lease
from threadpool_db.live import Checked
from threadpool_db.observe import Alarm, Event
from threadpool_db.pool import ConnectionPool
from threadpool_db.result import Result
from threadpool_db.tenants import TenantPools, TenantStats

__version__ = "0.1.0"

__all__ = [
    "KEEP",
    "REPLACE",
    "Advice",
    "Alarm",
    "Alarms",
    "Backoff",
    "Budget",
    "Checked",
    "CoDel",
    "ConnectFailed",
    "ConnectionPool",
    "Counts",
    "Driver",
    "Elastic",
    "Event",
    "Fixed",
    "Lease",
    "LeaseExpired",
    "Outcome",
    "Overflow",
    "Pool",
    "PoolClosed",
    "PoolConfig",
    "PoolError",
    "PoolMisuse",
    "PoolOverloaded",
    "PoolTimeout",
    "PoolUnavailable",
    "Proxy",
    "Result",
    "Snapshot",
    "Sojourn",
    "Spending",
    "StaleLease",
    "TenantPools",
    "TenantStats",
    "TransactionAborted",
    "TransactionState",
    "create_pool",
]
