"""How does each of hundreds of databases have an engine of SQLAlchemy's? Made at its first use, all under one budget.

    tenants = TenantPools(database_of, budget=Budget(50), engines=TenantEngines(pool_pre_ping=True))

    with Session(tenants.engine("acme")) as session: ...

An engine costs a dialect, a pool and a millisecond or two; what costs most, the statements it has compiled, all of
them share. SQLAlchemy's own key for a compiled statement has the dialect *object* in it, so that one dict that is given
to several engines (``execution_options(compiled_cache=...)``) holds each statement once for each of them. Here what
tells two dialects apart takes the object's place: what they are, and what their servers have told them.

Roads not taken: one dialect for all engines. It remembers what it has learned at its first connect, a server's version,
the OIDs of a database's types, and would tell one tenant's to all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, MutableMapping
from typing import Any

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.engine import URL
from sqlalchemy.util import LRUCache

from threadpool_db.config import PoolConfig
from threadpool_db.drivers.base import Driver
from threadpool_db.drivers.choose import parse
from threadpool_db.errors import PoolMisuse
from threadpool_db.ext.sqlalchemy.pool import ThreadPool
from threadpool_db.ext.sqlalchemy.records import Inner, Records
from threadpool_db.live import let_run_out
from threadpool_db.observe import Observers
from threadpool_db.tenant import Listening, Source, Tenant

#: How SQLAlchemy calls the driver that the core takes for a URL.
_DIALECTS = {"psycopg2": "postgresql+psycopg2", "psycopg": "postgresql+psycopg", "sqlite": "sqlite+pysqlite"}

#: What an engine of many may not have of its own -> why.
_NOT_HERE = {
    "budget": "it is that of TenantPools",
    "creator": "TenantPools' factory says how to connect",
    "logging_name": "loggers are for ever, and there may be hundreds of thousands of tenants",
    "pool": "each engine has its own",
    "poolclass": "it is ThreadPool",
    "pool_logging_name": "loggers are for ever, and there may be hundreds of thousands of tenants",
    "tenant": "it is whoever is asked for",
}

#: Differs from database to database of the same kind, and is in no compiled statement: MySQL's default schema is the
#: database itself; the OIDs are read at connect.
_DATABASES_OWN = {"mysql": {"default_schema_name"}, "mariadb": {"default_schema_name"}, "postgresql": {"_hstore_oids"}}


class TenantEngines:
    """``options``: those of ``create_engine`` and of ``ThreadPool``, for each engine. Where they do not say otherwise
    an engine has up to the tenants' ``per_tenant_max`` connections (``pool_size``, and a ``max_overflow`` of 0).

    ``url``: where the factory of the tenants gives functions that connect, it says the dialect, ``"postgresql://"``.
    ``query_cache_size``: so many compiled statements are kept, for all engines together.
    """

    def __init__(self, *, url: str | None = None, query_cache_size: int = 500, **options: Any) -> None:
        for option, why in _NOT_HERE.items():
            if option in options:
                raise TypeError(f"option {option!r}: not for an engine of many: {why}")
        if "compiled_cache" in options.get("execution_options", {}):
            raise TypeError("execution_options: not with a compiled_cache, for all these engines share one already")
        if not isinstance(query_cache_size, int) or isinstance(query_cache_size, bool) or query_cache_size < 1:
            raise ValueError(f"query_cache_size={query_cache_size!r}: must be a whole number from 1 on")
        self._url = None if url is None else make_url(url)
        self._options = options
        self._compiled: LRUCache[Any, Any] = LRUCache(query_cache_size)

    def make(self, tenant: Tenant[Any], source: Source) -> Engine:
        """For ``Tenant.engine``. PoolMisuse for a source of which no engine can be made."""
        url, creator = self._where(tenant, source)
        compiled = _Compiled(self._compiled)
        options = {"pool_size": tenant._config.max_size, "max_overflow": 0, **self._options}
        options["execution_options"] = {**self._options.get("execution_options", {}), "compiled_cache": compiled}
        if creator is not None:
            options["creator"] = creator
        return create_engine(
            url, poolclass=TenantPool, tenant=tenant, budget=tenant._tenants.budget, query_cache_size=0, **options
        )

    def _where(self, tenant: Tenant[Any], source: Source) -> tuple[URL, Callable[[], Any] | None]:
        if isinstance(source, str):
            driver = parse(source)[0]  # the one that the tenant's pool has too
            scheme = source.partition(":")[0].partition("+")[0].lower()
            return make_url(source).set(drivername=_DIALECTS.get(driver, f"{scheme}+{driver}")), None
        if isinstance(source, Driver) or self._url is None:
            kind = "a Driver" if isinstance(source, Driver) else "a function that connects, and no dialect is known"
            raise PoolMisuse(
                f"pool {tenant.name!r}: its factory gave {kind}, of which no engine can be made; let it give a URL, or "
                'a function and TenantEngines(url="postgresql://")'
            )
        return self._url, source


class TenantPool(ThreadPool):
    """The pool of a tenant's engine, which keeps the tenant as long as anybody has the engine."""

    def __init__(self, creator: Any, tenant: Tenant[Any] | None = None, **kw: Any) -> None:
        assert tenant is not None  # by keyword, and not by that alone: create_engine does not see others
        self._tenant = tenant
        super().__init__(creator, **kw)
        if tenant.closed:  # an engine that is disposed of makes itself another pool
            self.shut(0)

    def _lender(self, config: PoolConfig, order: str) -> Inner:
        return _Inner(self._tenant, Records(self, f"{self._tenant.name}/engine"), config, order)

    def _others(self) -> dict[str, Any]:
        return {"tenant": self._tenant}

    @property
    def connected(self) -> bool:
        return bool(self._inner._ledger.entries)

    def shut(self, timeout: float) -> None:
        """Lend and open nothing more, and wait for ``timeout`` seconds until what is lent has come back."""
        let_run_out(self._inner, timeout)


class _Inner(Inner):
    def __init__(self, tenant: Tenant[Any], driver: Records, config: PoolConfig, order: str) -> None:
        self._tenant = tenant
        super().__init__(driver, config, order=order)

    def _observe(self, config: PoolConfig) -> Observers:
        return Listening(self._tenant, self.name, self._tenant._config.observers, self._now)


class _Compiled(MutableMapping[Any, Any]):
    """The shared cache as one engine sees it: what its dialect is stands for the dialect itself.

    What a dialect is, it knows after its first connect. Nothing is compiled for a Connection before, and what it then
    asks its server it does not ask by an engine's execution options.
    """

    def __init__(self, shared: LRUCache[Any, Any]) -> None:
        self._shared = shared
        self._kind: Any = None

    def _key(self, key: Any) -> Any:
        dialect, *rest = key
        if self._kind is None:
            self._kind = kind_of(dialect)
        return (self._kind, *rest)

    def __getitem__(self, key: Any) -> Any:
        return self._shared[self._key(key)]

    def get(self, key: Any, default: Any = None) -> Any:
        return self._shared.get(self._key(key), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        self._shared[self._key(key)] = compiled

    def __delitem__(self, key: Any) -> None:
        del self._shared[self._key(key)]

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._shared))

    def __len__(self) -> int:
        return len(self._shared)


def kind_of(dialect: Any) -> object:
    """All that a statement compiled for a dialect may depend on: its class, its settings, and what its server told it.
    Two that differ in something which does not matter share nothing, which costs time and no more."""
    others = _DATABASES_OWN.get(dialect.name, set())
    return type(dialect), frozenset((name, _told(value)) for name, value in vars(dialect).items() if name not in others)


def _told(value: Any) -> object:
    if value is None or isinstance(value, (int, float, str, bytes)):
        return value
    if isinstance(value, (dict, frozenset, list, set, tuple)):
        return repr(value)
    if callable(value):  # a json_serializer, or a class
        return value if isinstance(value, Hashable) else object()
    return type(value)  # a part of the dialect, made after its settings: its identifier_preparer
