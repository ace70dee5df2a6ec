"""How does one app serve hundreds of databases? A pool for each tenant, made at its first use, all under one budget.

    tenants = TenantPools(lambda key: f"postgresql://app@{host_of(key)}/{key}", budget=Budget(50))

    rows = tenants.execute("acme", "select id from orders")
    with tenants["acme"].transaction() as conn: ...

A tenant is there from the first use of its name; nobody registers it. ``factory(key)`` says where its database is: a
URL, a function that connects, or a Driver. A pool without a connection that nobody refers to is garbage, with its name
and all that it knew: ten thousand tenants that were used once leave nothing. As long as it has a connection it is kept
here. Ecto's pools of hundreds of tenants were the question; they never came to be.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from threadpool_db import fork
from threadpool_db.budget import Budget, Spending
from threadpool_db.checkout.blocks import ConnectionBlock, Scope, TransactionBlock
from threadpool_db.checkout.proxy import Proxy
from threadpool_db.config import PoolConfig
from threadpool_db.core.sizing import Counts
from threadpool_db.core.stats import Snapshot
from threadpool_db.database import Face
from threadpool_db.drivers.choose import driver_for
from threadpool_db.errors import PoolClosed
from threadpool_db.knowledge import fresh
from threadpool_db.lease import Lease
from threadpool_db.result import Parameters, Result
from threadpool_db.tenant import Engines, Source, Tenant
from threadpool_db.waiting import REAL_TIME

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from typing_extensions import Self

K = TypeVar("K", bound=Hashable)

#: So many of the keys that the factory refused are remembered, the last ones.
REMEMBERED = 1000

#: What a pool of many may not have of its own -> why.
_NOT_HERE = {
    "max_size": "it is per_tenant_max",
    "min_size": "a tenant keeps nothing open that it does not use",
    "min_idle": "a tenant keeps nothing open that it does not use",
    "name": "each pool is called by its tenant; name= is that of all",
}


@dataclass(frozen=True)
class TenantStats(Generic[K]):
    """All tenants that have a connection or somebody who waits for one: each one's numbers, its engine's apart, and the
    sums of all."""

    tenants: dict[K, Snapshot]
    counts: Counts
    budget: Spending
    engines: dict[K, Snapshot]


class TenantPools(Generic[K]):
    """``factory(key)`` may raise, for a tenant that does not exist: whoever asked gets that error, and so does whoever
    asks within ``unknown_for`` seconds, without another call.

    ``per_tenant_max``: a tenant's connections at most. ``max_idle``: seconds until an unused one is closed.
    ``engines``: a ``TenantEngines`` of ``ext.sqlalchemy``, for ``engine(key)``. ``learn``: a function of a connection,
    which finds out what is worth knowing of a database, for ``knowledge(key)``. All other options are those of a pool,
    and hold for each.
    """

    def __init__(
        self,
        factory: Callable[[K], Source],
        *,
        budget: Budget,
        per_tenant_max: int = 5,
        max_idle: float | None = 60.0,
        unknown_for: float = 1.0,
        name: str = "tenants",
        driver: str | None = None,
        engines: Engines | None = None,
        learn: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> None:
        if not callable(factory):
            raise TypeError(f"factory={factory!r}: must be a function of a tenant's key")
        if not isinstance(budget, Budget):
            raise TypeError(f"budget={budget!r}: must be a Budget(limit)")
        if not isinstance(unknown_for, (int, float)) or isinstance(unknown_for, bool) or not unknown_for >= 0:
            raise ValueError(f"unknown_for={unknown_for!r}: must be seconds from 0 on")
        if learn is not None and not callable(learn):
            raise TypeError(f"learn={learn!r}: must be a function of a connection, or None")
        if engines is not None and not callable(getattr(engines, "make", None)):
            raise TypeError(
                f"engines={engines!r}: must be a TenantEngines(), from threadpool_db.ext.sqlalchemy, or None"
            )
        if engines is not None and options.get("configure") is not None:
            raise TypeError('configure: not with engines=, for SQLAlchemy has a way of its own, the event "do_connect"')
        for option, why in _NOT_HERE.items():
            if option in options:
                raise TypeError(f"option {option!r}: not for a pool of many: {why}")
        options |= {"max_size": per_tenant_max, "max_idle": max_idle, "budget": budget}
        self.name, self.budget = name, budget
        self._config = PoolConfig.from_options(options)  # of all, but for the name; checked once
        self._factory, self._driver = factory, driver
        self._engines, self._learn = engines, learn
        self._unknown_for = unknown_for
        self._clock = options.get("clock") or REAL_TIME
        self._unknown: OrderedDict[K, tuple[float, Exception]] = OrderedDict()
        self._known: weakref.WeakValueDictionary[K, Tenant[K]] = weakref.WeakValueDictionary()
        self._here = threading.local()  # the scope that this thread is in
        self._closed = False
        self._start_afresh()
        fork.watch_keeper(self)

    def _start_afresh(self) -> None:
        self._lock = self._clock.lock()
        self._making: dict[K, Any] = {}  # somebody asks the factory; others wait for his answer
        self._open: dict[K, Tenant[K]] = {}  # have a connection, or are about to

    _after_fork_in_child = _start_afresh  # the child's have none yet, and its locks may be held by a thread not here

    def _at_exit(self, until: float) -> None:
        """Nothing is its own: the pools close what they have."""

    # --- One of them ------------------------------------------------------------------------------------------------

    def __getitem__(self, key: K) -> Tenant[K]:
        """The tenant's pool, with all that a pool has. Opens nothing. The factory's error, PoolClosed."""
        tenant = self._open.get(key)
        return self._find(key) if tenant is None else tenant

    def _find(self, key: K) -> Tenant[K]:
        with self._lock:
            turn = self._making.setdefault(key, self._clock.lock())
        try:
            with turn:
                tenant = self._known.get(key)
                return self._make(key) if tenant is None else tenant
        finally:
            with self._lock:
                self._making.pop(key, None)

    def _make(self, key: K) -> Tenant[K]:
        if self._closed:
            raise PoolClosed(f"the tenants' pools {self.name!r} are closed; create others")
        self._refuse_unknown(key)
        try:
            source = self._factory(key)
            made = Tenant(self, key, source, driver_for(source, self._driver, self._config.configure))
        except Exception as error:
            self._remember(key, error)
            raise
        self._known[key] = made
        return made

    def _refuse_unknown(self, key: K) -> None:
        with self._lock:
            until, error = self._unknown.get(key, (-math.inf, None))
        if error is not None and self._clock.now() < until:
            raise fresh(error)

    def _remember(self, key: K, error: Exception) -> None:
        if not self._unknown_for:
            return
        kept = fresh(error)  # of this one the frames are others'
        with self._lock:
            self._unknown[key] = self._clock.now() + self._unknown_for, kept
            self._unknown.move_to_end(key)
            while len(self._unknown) > REMEMBERED:
                self._unknown.popitem(last=False)

    def _heard(self, key: K) -> None:
        """Of a connection that was opened or closed, or could not be opened: is the tenant to be kept?"""
        with self._lock:
            tenant = self._known.get(key)
            if tenant is not None and tenant.connected:
                self._open[key] = tenant
            else:
                self._open.pop(key, None)

    def checkout(self, key: K, timeout: float | None = None) -> Lease[Any]:
        return self[key].checkout(timeout)

    def connection(self, key: K, timeout: float | None = None) -> ConnectionBlock:
        return self[key].connection(timeout)

    def transaction(self, key: K, timeout: float | None = None) -> TransactionBlock:
        return self[key].transaction(timeout)

    def execute(
        self, key: K, sql: str, parameters: Parameters | None = None, *, timeout: float | None = None
    ) -> Result:
        return self[key].execute(sql, parameters, timeout=timeout)

    def engine(self, key: K) -> Engine:
        """SQLAlchemy's engine of this tenant, the same one as long as it lives; see ``Tenant.engine``."""
        return self[key].engine

    def knowledge(self, key: K) -> Any:
        """What is known of this tenant's database; see ``Tenant.knowledge``."""
        return self[key].knowledge

    def proxy(self, key: K, *, autocommit: bool | None = None, timeout: float | None = None) -> Proxy:
        return self[key].proxy(autocommit=autocommit, timeout=timeout)

    # --- All of them ------------------------------------------------------------------------------------------------

    def scope(self) -> TenantScope:
        """``with tenants.scope()``: one request. At its end this thread lets go of what it kept of any tenant."""
        return TenantScope(self)

    def stats(self) -> TenantStats[K]:
        """The numbers of all that have a connection or somebody in line, and their sums."""
        with self._lock:
            open_now = dict(self._open)
        found = {key: tenant.stats() for key, tenant in open_now.items()}
        pools = {key: pool for key, tenant in open_now.items() if (pool := tenant._engines_pool) is not None}
        engines = {key: pool.stats() for key, pool in pools.items()}
        counted = [one.counts[1:] for one in (*found.values(), *engines.values())]
        sums = [sum(numbers) for numbers in zip(*counted, strict=True)] or [0] * 5
        return TenantStats(found, Counts(float(self.budget.limit), *sums), self.budget.stats(), engines)

    def __iter__(self) -> Iterator[K]:
        """The keys of those that have a connection, at this moment."""
        with self._lock:
            return iter(list(self._open))

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, key: object) -> bool:
        return key in self._open

    def forget(self, key: K, timeout: float = 5.0) -> None:
        """The tenant has moved, or is gone: close its pool, its engine's too, and ask the factory when it is next asked
        for."""
        with self._lock:
            self._unknown.pop(key, None)
            tenant = self._known.pop(key, None)
            self._open.pop(key, None)
        if tenant is not None:
            tenant.close(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Close all pools, with one deadline; see ``Pool.close``."""
        until = self._clock.now() + timeout
        self._closed = True
        with self._lock:
            tenants = list(self._known.values())
        for tenant in tenants:
            tenant.close(max(0.0, until - self._clock.now()))
        with self._lock:
            self._open.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<TenantPools {self.name!r} {len(self._open)} with a connection, {self.budget!r}>"


class TenantScope:
    """A scope of each tenant that its thread uses in it. Scopes nest, and only the outermost lets go."""

    def __init__(self, tenants: TenantPools[Any], make: Callable[[Face], Scope] = Scope) -> None:
        self._tenants, self._make = tenants, make
        self._scopes: list[Scope] = []
        self._outermost = False

    def __enter__(self) -> None:
        here = self._tenants._here
        self._outermost = getattr(here, "scope", None) is None
        if self._outermost:
            here.scope = self

    def _touched(self, tenant: Tenant[Any]) -> None:
        here = self._tenants._here
        here.scope = None  # to enter a scope asks for the hold, which is what brought us here
        try:
            scope = self._make(tenant)
            scope.__enter__()
            self._scopes.append(scope)
        finally:
            here.scope = self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._outermost:
            return
        self._tenants._here.scope = None
        raised: BaseException | None = None
        while self._scopes:
            try:
                self._scopes.pop().__exit__(kind, error, trace)
            except BaseException as failure:
                raised = raised or failure
        if raised is not None:
            try:
                raise raised
            finally:
                raised = None
