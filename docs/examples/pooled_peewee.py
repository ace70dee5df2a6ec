"""peewee over a pool of ours, in the place of ``playhouse.pool``.

    pool = create_pool("postgresql://app@db/app", max_size=10)
    db = PooledPostgresql(pool)

peewee runs in autocommit and sends BEGIN and COMMIT by itself: between two queries outside a transaction its threads
hold no connection.
"""

from __future__ import annotations

from typing import Any

import peewee


class Pooled:
    """Mix it in before one of peewee's databases."""

    def __init__(self, pool: Any, **options: Any) -> None:
        self.pool = pool
        super().__init__(pool.name, **options)

    def _connect(self) -> Any:
        return self.pool.proxy(autocommit=True)

    def _set_server_version(self, proxy: Any) -> None:
        with proxy.connection() as real:  # what the driver has beside PEP 249
            super()._set_server_version(real)

    def is_connection_usable(self) -> bool:
        return not self.is_closed()  # the pool has looked, and looks again before each use


class PooledSqlite(Pooled, peewee.SqliteDatabase):
    pass


class PooledPostgresql(Pooled, peewee.PostgresqlDatabase):
    pass


class PooledMySQL(Pooled, peewee.MySQLDatabase):
    pass
