"""What do many databases cost under one cap? Zipf's traffic over real databases of one PostgreSQL, by three ways.

The n-th of DATABASES is asked as often as 1/n, by THREADS threads without a pause. An operation borrows the driver's
own connection, runs a statement of STATEMENT seconds and gives it back, rolled back; all three do just that. None may
have more than CAP connections open at any time, which is counted from before a connect until after the close.

*TenantPools*   a pool for each database, under a ``Budget(CAP)``
*LRU*           what people write: an ``OrderedDict`` of SQLAlchemy QueuePools of so many connections each, no more of
                them than fit under the cap. Where another one is needed, the one that was used least recently and is
                not in use now is disposed of; if all are in use the thread waits until one is not
*NullPool*      a connection for each operation, and a semaphore of CAP

*rate*      operations in a second, median of the slices, which take turns
*hits*      operations that needed no connect
*p50, p99*  from asking until the connection is there, median of the slices
*evicted*   connections closed to make room, of a thousand operations
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.bench.contestants import PATIENCE
from tests.bench.policies import percentile
from tests.bench.promise import Say
from tests.bench.sites import started
from tests.servers import Postgres

DATABASES, CAP, THREADS, STATEMENT = 60, 10, 16, 0.005
#: An LRU's pools have so many connections each: with one, the most databases are at hand; with two, the first of them
#: serve two threads at a time.
SIZES = (1, 2)
SLICE, WARM_UP = 1.0, 0.2
ZIPF = f"{DATABASES} databases, {CAP} connections, {THREADS} threads, {STATEMENT * 1e3:g} ms, Zipf"
TENANTS, NULLPOOL = "threadpool_db TenantPools", "NullPool and a semaphore"


def lru_of(size: int) -> str:
    return f"LRU of QueuePools of {size}"


class Count:
    """Connections of one contestant: how many there are, were at most, and were made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = self.made = 0

    def connect(self, how: Callable[[], Any]) -> Any:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.made += 1
        try:
            return how()
        except BaseException:
            self.closed()
            raise

    def closed(self) -> None:
        with self._lock:
            self.now -= 1


class TenantsOfOurs:
    name = TENANTS

    def __init__(self, url_of: Callable[[str], str], cap: int) -> None:
        from threadpool_db import Budget, TenantPools

        self.count = Count()

        def database_of(key: str) -> Any:
            from threadpool_db.drivers.choose import driver_for

            driver = driver_for(url_of(key))
            connect, close = driver.connect, driver.close

            def counted_close(connection: Any) -> None:
                close(connection)
                self.count.closed()

            driver.connect = lambda timeout: self.count.connect(lambda: connect(timeout))  # type: ignore[method-assign]
            driver.close = counted_close  # type: ignore[method-assign]
            return driver

        self._tenants = TenantPools(database_of, budget=Budget(cap), timeout=PATIENCE)
        self.borrow = self._tenants.connection
        self.close = self._tenants.close

    @property
    def evicted(self) -> int:
        return self._tenants.budget.stats().passed_on


def _dbapi(count: Count, url: str) -> Callable[[], Any]:
    import psycopg2

    class Connection(psycopg2.extensions.connection):
        def close(self) -> None:
            open_until_now = not self.closed
            super().close()
            if open_until_now:
                count.closed()

    return lambda: count.connect(lambda: psycopg2.connect(url, connection_factory=Connection))


class LRU:
    """At most ``cap // size`` pools at any time, one that is being disposed of among them."""

    def __init__(self, url_of: Callable[[str], str], cap: int, size: int) -> None:
        self.name = lru_of(size)
        self.count = Count()
        self.evicted = 0
        self._url_of, self._size, self._room = url_of, size, cap // size
        self._condition = threading.Condition()
        self._pools: OrderedDict[str, tuple[Any, list[None]]] = OrderedDict()  # with those who use it

    @contextlib.contextmanager
    def borrow(self, key: str) -> Iterator[Any]:
        pool, users = self._enter(key)
        try:
            connection = pool.connect()
            try:
                yield connection
            finally:
                connection.close()  # gives it back, rolled back
        finally:
            with self._condition:
                users.pop()
                if not users:
                    self._condition.notify_all()

    def _enter(self, key: str) -> tuple[Any, list[None]]:
        from sqlalchemy.pool import QueuePool

        with self._condition:
            while True:
                found = self._pools.get(key)
                if found is None and self._room:
                    self._room -= 1
                    pool = QueuePool(
                        _dbapi(self.count, self._url_of(key)), pool_size=self._size, max_overflow=0, timeout=PATIENCE
                    )
                    found = self._pools[key] = pool, []
                if found is not None:
                    self._pools.move_to_end(key)
                    found[1].append(None)
                    return found
                coldest = next((one for one, (_, users) in self._pools.items() if not users), None)
                if coldest is None:
                    self._condition.wait()
                    continue
                pool, _ = self._pools.pop(coldest)
                self._condition.release()  # it does I/O
                try:
                    closed = pool.checkedin()
                    pool.dispose()
                finally:
                    self._condition.acquire()
                self.evicted += closed
                self._room += 1
                self._condition.notify_all()

    def close(self) -> None:
        for pool, _ in self._pools.values():
            pool.dispose()


class NullPools:
    name = NULLPOOL
    evicted = 0

    def __init__(self, url_of: Callable[[str], str], cap: int) -> None:
        self.count = Count()
        self._permits = threading.Semaphore(cap)
        self._url_of = url_of

    @contextlib.contextmanager
    def borrow(self, key: str) -> Iterator[Any]:
        from sqlalchemy.pool import NullPool

        with self._permits:
            connection = NullPool(_dbapi(self.count, self._url_of(key))).connect()
            try:
                yield connection
            finally:
                connection.close()

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Slice:
    rate: float
    hits: float
    waits: list[float]
    evicted: float


class Zipf:
    """``run`` adds rounds; the results are of all rounds so far."""

    def __init__(self, url_of: Callable[[str], str], keys: list[str], cap: int = CAP, seconds: float = SLICE) -> None:
        self._keys, self._cap, self._seconds = keys, cap, seconds
        self._weights = [1 / rank for rank in range(1, len(keys) + 1)]
        self.contestants: list[Any] = [
            TenantsOfOurs(url_of, cap),
            *(LRU(url_of, cap, size) for size in SIZES),
            NullPools(url_of, cap),
        ]
        self._slices: dict[str, list[Slice]] = {one.name: [] for one in self.contestants}
        self._rounds = 0

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            first = self._rounds % len(self.contestants)
            for one in self.contestants[first:] + self.contestants[:first]:
                self._slices[one.name].append(self._slice(one, self._rounds))
                assert one.count.most <= self._cap, f"{one.name} had {one.count.most} connections"
            self._rounds += 1

    def _slice(self, contestant: Any, number: int) -> Slice:
        statement = f"select pg_sleep({STATEMENT})"
        begin = time.perf_counter() + WARM_UP
        end = begin + self._seconds
        before: list[tuple[int, int]] = []

        def one_thread(thread: int) -> list[float]:
            dice, waits = random.Random(number * THREADS + thread), []
            while (asked := time.perf_counter()) < end:
                if asked >= begin and not before:
                    before.append((contestant.count.made, contestant.evicted))
                (key,) = dice.choices(self._keys, self._weights)
                with contestant.borrow(key) as connection:
                    got = time.perf_counter()
                    cursor = connection.cursor()
                    cursor.execute(statement)
                    cursor.fetchall()
                    cursor.close()
                if begin <= asked and time.perf_counter() < end:
                    waits.append(got - asked)
            return waits

        with ThreadPoolExecutor(THREADS) as crowd:
            waits = [wait for found in crowd.map(one_thread, range(THREADS)) for wait in found]
        (made, evicted), done = before[0], max(1, len(waits))
        return Slice(
            len(waits) / self._seconds,
            1 - (contestant.count.made - made) / done,
            waits or [self._seconds],
            (contestant.evicted - evicted) / done * 1000,
        )

    def rates(self) -> dict[str, float]:
        return {name: median(one.rate for one in slices) for name, slices in self._slices.items()}

    def by_lru(self) -> float:
        """Our rate by that of the faster LRU."""
        rates = self.rates()
        return rates[TENANTS] / max(rates[lru_of(size)] for size in SIZES)

    def figures(self) -> dict[str, dict[str, float]]:
        rates = self.rates()
        best = max(rates[lru_of(size)] for size in SIZES)
        return {
            name: {
                "by_lru": rates[name] / best,
                "rate": rates[name],
                "hits": median(one.hits for one in slices),
                "p50_ms": median(percentile(one.waits, 50) for one in slices) * 1e3,
                "p99_ms": median(percentile(one.waits, 99) for one in slices) * 1e3,
                "evicted": median(one.evicted for one in slices),
            }
            for name, slices in self._slices.items()
        }


@contextlib.contextmanager
def zipf(say: Say, databases: int = DATABASES, cap: int = CAP, seconds: float = SLICE) -> Iterator[Zipf | None]:
    """On a private server; None without one, or without SQLAlchemy and psycopg2, and it is said why."""
    try:
        import psycopg2
        import sqlalchemy  # noqa: F401
    except ImportError as missing:
        say(f"left out: many databases ({missing})")
        yield None
        return
    with started(Postgres, say) as site:
        if site is None:
            yield None
            return
        say(f"making {databases} databases")
        keys = [f"tenant_{n:03}" for n in range(databases)]
        with contextlib.closing(psycopg2.connect(site.conninfo)) as admin, admin.cursor() as cursor:
            admin.autocommit = True
            for key in keys:
                cursor.execute(f"create database {key} template template0")
        base = f"postgresql://postgres@{site.server.host}:{site.server.port}"
        race = Zipf(lambda key: f"{base}/{key}?sslmode=disable", keys, cap, seconds)
        try:
            yield race
        finally:
            for one in race.contestants:
                one.close()


def measure_zipf(rounds: int, say: Say) -> dict[str, dict[str, dict[str, float]]]:
    with zipf(say) as race:
        if race is None:
            return {}
        for done in range(rounds):
            say(f"{ZIPF}: round {done + 1} of {rounds}")
            race.run(1)
        return {ZIPF: race.figures()}
