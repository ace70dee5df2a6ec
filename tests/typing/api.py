"""Is the public API typed as a user types it? Checked by mypy and never run; ``tests`` does not collect it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typing_extensions import assert_type

from threadpool_db import (
    KEEP,
    REPLACE,
    Backoff,
    ConnectionPool,
    Driver,
    Elastic,
    Event,
    Fixed,
    Lease,
    Outcome,
    Overflow,
    Pool,
    PoolConfig,
    PoolError,
    PoolTimeout,
    Result,
    Snapshot,
    TransactionAborted,
    TransactionState,
    create_pool,
)


def by_url() -> None:
    pool = create_pool("postgresql://app@db/app", max_size=10, timeout=2.5, checkout="thread")
    assert_type(pool, Pool)
    with pool.connection() as connection:
        connection.cursor().execute("select 1")
    with pool.transaction(timeout=1.0) as connection:
        connection.cursor().execute("select 1")
    with pool.scope():
        rows = pool.execute("select a, b from t where a = %s", ("x",), timeout=0.5)
        assert_type(rows, Result)
        assert_type(rows.rowcount, int)
        assert_type(rows.columns, tuple[str, ...])
        for _a, _b in rows:
            pass
        pool.execute("select :a", {"a": 1})
        pool.execute("select ?", [1])
    assert_type(pool.in_transaction, bool)
    assert_type(pool.lease(), Lease[Any])
    pool.release()
    pool.close(timeout=3)


def by_callable_and_options() -> Iterator[Pool]:
    def connect() -> object:
        return object()

    def notice(event: Event) -> None:
        print(event.kind, event.seconds)

    with create_pool(connect, driver="dbapi", sizing=Overflow(2), observers=[notice], backoff=None) as pool:
        assert_type(pool, Pool)
        yield pool
    with Pool(connect, sizing=Fixed(), backoff=Backoff(0.1, 2.0), max_size=float("inf")) as pool:
        yield pool
    yield create_pool("sqlite:///app.db", sizing=Elastic())


def leases(pool: Pool) -> None:
    lease = pool.checkout(timeout=1)
    assert_type(lease.active, bool)
    lease.connection.commit()
    lease.checkin()
    with pool.checkout() as connection:
        connection.commit()
    pool.checkin(pool.checkout())
    pool.checkout().discard()
    pool.checkout().detach().close()


def numbers(pool: Pool) -> None:
    assert_type(pool.stats(), Snapshot)
    assert_type(pool.stats().in_use, int)
    assert_type(pool.name, str)
    assert_type(pool.closed, bool)
    try:
        pool.execute("select 1")
    except PoolTimeout as error:
        assert_type(error.snapshot, Snapshot | None)
    except TransactionAborted:
        pass
    except PoolError:
        pass


class Client:
    """Something else than a database connection."""

    def ask(self, question: str) -> int:
        return len(question)

    def close(self) -> None: ...


class ClientDriver(Driver[Client]):
    name = "client"
    peeks = True

    def connect(self, timeout: float) -> Client:
        return Client()

    def close(self, connection: Client) -> None:
        connection.close()

    def peek(self, connection: Client) -> bool:
        return connection.ask("there?") == 6

    def state(self, connection: Client) -> TransactionState:
        return TransactionState.IDLE


def anything_with_open_and_close() -> None:
    pool = ConnectionPool(ClientDriver(), PoolConfig.from_options({"max_size": 3}))
    assert_type(pool, ConnectionPool[Client])
    lease = pool.checkout()
    assert_type(lease, Lease[Client])
    assert_type(lease.connection, Client)
    assert_type(lease.detach(), Client)
    with pool.checkout() as client:
        assert_type(client, Client)
        assert_type(client.ask("how long?"), int)
    pool.checkin(pool.checkout())


def wrong(pool: Pool) -> None:
    """Each line must be an error: an ignore that is not needed is one, too."""
    pool.execute(1)  # type: ignore[arg-type]
    pool.execute("select 1", "x", 3)  # type: ignore[call-arg]
    pool.connection(timeout="1")  # type: ignore[arg-type]
    pool.checkin(object())  # type: ignore[arg-type]
    pool.in_transaction = True  # type: ignore[misc]
    create_pool(12)  # type: ignore[arg-type]
    ConnectionPool(ClientDriver(), PoolConfig()).checkout().connection.commit()  # type: ignore[attr-defined]


def hooks() -> None:
    def on_checkout(connection: Any) -> Outcome | None:
        return REPLACE if connection.closed else KEEP

    def on_close(connection: Any) -> None:
        connection.cursor().execute("select 1")

    assert_type(create_pool("sqlite:///a.db", on_checkout=on_checkout, on_close=on_close), Pool)
    PoolConfig(on_checkout=on_checkout, on_close=on_close)
