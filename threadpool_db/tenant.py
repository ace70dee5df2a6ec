"""What does one tenant have? A pool of its own and, on demand, an engine and what is known of its database.

All three have one life: as long as anything of it has a connection, or anybody refers to any of it. Made by
``TenantPools``, which it tells when it has a connection and when it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from threadpool_db.checkout.pin import Hold
from threadpool_db.config import PoolConfig
from threadpool_db.core.stats import Snapshot
from threadpool_db.database import Face
from threadpool_db.drivers.base import Driver
from threadpool_db.errors import PoolClosed, PoolMisuse, PoolTimeout
from threadpool_db.knowledge import Knowledge, Unready
from threadpool_db.observe import Observer, Observers

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from threadpool_db.tenants import TenantPools, TenantScope

K = TypeVar("K", bound=Hashable)
Source = str | Callable[[], Any] | Driver[Any]


class Engines(Protocol):
    """Makes engines of SQLAlchemy, of which these rooms know nothing: see ``ext.sqlalchemy.TenantEngines``."""

    def make(self, tenant: Tenant[Any], source: Source) -> Engine:
        """One whose pool is a ``LastingPool`` and joins the tenant's budget."""
        ...


class LastingPool(Protocol):
    """What a tenant asks of its engine's pool."""

    @property
    def connected(self) -> bool: ...

    def stats(self) -> Snapshot: ...

    def shut(self, timeout: float) -> None: ...


class Tenant(Face, Generic[K]):
    """A pool like any other, and ``engine`` and ``knowledge``."""

    def __init__(self, tenants: TenantPools[K], key: K, source: Source, driver: Driver[Any]) -> None:
        self.key = key
        self._tenants = tenants
        self._source = source
        self._engine: Engine | None = None
        self._knowledge: Knowledge | None = None
        super().__init__(driver, tenants._config.named(f"{tenants.name}/{key}"))

    def _start_afresh(self) -> None:
        super()._start_afresh()
        self._making = self._clock.lock()  # its engine
        if self._knowledge is None:
            self._knowledge = Knowledge(self._clock)
        else:
            self._knowledge.start_afresh()

    # --- SQLAlchemy -------------------------------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The tenant's engine, made at its first use; connects nothing. PoolMisuse without ``engines=``, PoolClosed."""
        return self._make_engine() if self._engine is None else self._engine

    def _make_engine(self) -> Engine:
        engines = self._tenants._engines
        if engines is None:
            raise PoolMisuse(
                f"pool {self.name!r}: these tenants have no engines; create them with TenantPools(..., "
                "engines=TenantEngines()), from threadpool_db.ext.sqlalchemy"
            )
        with self._making:
            if self.closed:
                raise PoolClosed(f"pool {self.name!r} is closed, and so is its engine; ask the tenants for another one")
            if self._engine is None:
                self._engine = engines.make(self, self._source)
            return self._engine

    @property
    def _engines_pool(self) -> LastingPool | None:
        pool: Any = None if self._engine is None else self._engine.pool
        return pool  # type: ignore[no-any-return]

    @property
    def connected(self) -> bool:
        """Has it a connection, or is one being opened or closed?"""
        pool = self._engines_pool
        return bool(self._ledger.entries) or (pool is not None and pool.connected)

    # --- What is known of its database ------------------------------------------------------------------------------

    @property
    def knowledge(self) -> Any:
        """What ``learn`` made of a connection of this tenant, once: others who ask meanwhile wait for it, for at most
        ``timeout``, the pool's. An error of ``learn``'s is that of all who waited for it, and is not remembered."""
        known = self._knowledge
        assert known is not None
        if known.known:
            return known.answer
        learn = self._tenants._learn
        if learn is None:
            raise PoolMisuse(f"pool {self.name!r}: nothing is to be known here; create TenantPools(..., learn=...)")

        def ask() -> Any:
            with self.connection() as connection:
                return learn(connection)

        try:
            return known.find_out(ask, self._hold(), self._now() + self._timeout)
        except Unready as unready:
            mine = unready.mine
        if mine:
            raise PoolMisuse(f"pool {self.name!r}: learn= asks for the knowledge that it is to find out itself")
        raise PoolTimeout(
            f"pool {self.name!r}: not known within {self._timeout:g} s, another thread is still finding it out. "
            "Look at what learn= does, and how long its statements take; only then raise timeout.",
            self.stats(),
        )

    # --- Its life ---------------------------------------------------------------------------------------------------

    def close(self, timeout: float = 5.0) -> None:
        """As ``Pool.close``, and its engine lends and opens nothing more: what is idle is closed, what is lent when it
        comes back, for SQLAlchemy's connections are never taken away."""
        until = self._now() + timeout
        super().close(timeout)
        with self._making:
            pool = self._engines_pool
        if pool is not None:
            pool.shut(max(0.0, until - self._now()))

    def _observe(self, config: PoolConfig) -> Observers:
        return Listening(self, self.name, config.observers, self._now)

    def _hold(self) -> Hold:
        hold = super()._hold()
        if not hold.scopes:
            scope: TenantScope | None = getattr(self._tenants._here, "scope", None)
            if scope is not None:
                scope._touched(self)
        return hold


class Listening(Observers):
    """All tenants have one log: loggers are for ever, and there may be hundreds of thousands of tenants."""

    def __init__(self, tenant: Tenant[Any], pool: str, observers: Iterable[Observer], now: Callable[[], float]) -> None:
        super().__init__(pool, observers, now, log=tenant._tenants.name)
        self._key = tenant.key
        self._heard = tenant._tenants._heard

    def tell(self, kind: str, seconds: float = 0.0, detail: str = "", error: BaseException | None = None) -> None:
        if kind in ("connected", "disconnected", "connect_failed"):
            self._heard(self._key)
        super().tell(kind, seconds, detail, error)
