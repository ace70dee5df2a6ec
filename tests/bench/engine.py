"""What does SQLAlchemy cost over this pool, and over its own? The same engine, statement and connection; only the pool
differs, so every figure here is a multiple of QueuePool's.

*pool*      ``pool.connect()`` and ``close()`` over connections that do nothing
*engine*    ``engine.connect()`` and ``close()``, likewise: on a SQLite file
*ping*      the same with ``pool_pre_ping``, to PostgreSQL by psycopg2, and to MariaDB by PyMySQL
*work*      one INSERT in ``engine.begin()`` with ``pool_pre_ping``
*crowd*     sixteen threads on four connections held 5 ms, without a pause and with a second's patience

A server that is not on this machine is left out with a line; ``--check`` fails then.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from tests.bench.contention import CONNECTIONS, Contention, Habit
from tests.bench.contestants import QUEUEPOOL, THREADPOOL, Contestant, invited, ours_for_sqlalchemy, sqlalchemy
from tests.bench.pairs import Pairs
from tests.servers import MariaDB, Postgres, Server, missing_programs

Say = Callable[[str], None]

ENGINE, ENGINE_CROWD = "SQLAlchemy", "SQLAlchemy, a crowd"
CROWD = Habit(0.005)
PATIENCE = 1.0

POOL, SQLITE = "pool.connect(), no-op", "engine.connect(), SQLite"
PING_PSYCOPG2, PING_PYMYSQL = "engine.connect(), pre_ping, psycopg2", "engine.connect(), pre_ping, PyMySQL"
WORK_PSYCOPG2, WORK_PYMYSQL = "one INSERT, pre_ping, psycopg2", "one INSERT, pre_ping, PyMySQL"

#: at most so many times QueuePool's cost
LIMITS = {POOL: 1.0, SQLITE: 1.05, PING_PSYCOPG2: 0.5, PING_PYMYSQL: 0.25}
FAIRNESS_LIMIT = 0.95

_SERVERS: dict[str, tuple[type[Server], str]] = {
    "psycopg2": (Postgres, "postgresql+psycopg2"),
    "pymysql": (MariaDB, "mysql+pymysql"),
}
_INSERT = """
with pool.begin() as it:
    it.execute(pool.insert)
"""


@contextlib.contextmanager
def both(url: Any, block: str = "pool.connect().close()", **options: Any) -> Iterator[list[Contestant]]:
    """An engine over each pool."""
    import sqlalchemy as sa
    from sqlalchemy.pool import QueuePool

    from threadpool_db.ext.sqlalchemy import ThreadPool

    table = sa.Table("threadpool_db_bench", sa.MetaData(), sa.Column("n", sa.Integer))
    pools: dict[str, type[Any]] = {QUEUEPOOL: QueuePool, THREADPOOL: ThreadPool}
    engines: list[Any] = []
    try:
        for pool in pools.values():
            engines.append(sa.create_engine(url, poolclass=pool, **options))
            engines[-1].insert = table.insert().values(n=1)
            table.create(engines[-1], checkfirst=True)
        yield [Contestant(name, engine, "", "", block=block) for name, engine in zip(pools, engines, strict=True)]
    finally:
        for engine in engines:
            engine.dispose()


@contextlib.contextmanager
def contests(say: Say) -> Iterator[dict[str, Pairs]]:
    """Those whose server is here."""
    with contextlib.ExitStack() as open_ones:
        enter = open_ones.enter_context
        found = {POOL: Pairs(enter(invited((ours_for_sqlalchemy, sqlalchemy), CONNECTIONS, say)))}
        folder = enter(tempfile.TemporaryDirectory())
        found[SQLITE] = Pairs(enter(both(f"sqlite:///{folder}/bench.db")))
        for (driver, (kind, scheme)), (ping, work) in zip(
            _SERVERS.items(), ((PING_PSYCOPG2, WORK_PSYCOPG2), (PING_PYMYSQL, WORK_PYMYSQL)), strict=True
        ):
            if missing := missing_programs(kind):
                say(f"left out: {driver}, without {', '.join(missing)}")
                continue
            server = enter(kind())
            url = f"{scheme}{server.url[server.url.index(':') :]}"  # type: ignore[attr-defined]
            found[ping] = Pairs(enter(both(url, pool_pre_ping=True)))
            found[work] = Pairs(enter(both(url, _INSERT, pool_pre_ping=True)))
        yield found


def ratio(pairs: Pairs) -> float:
    costs = pairs.microseconds()
    return costs[THREADPOOL] / costs[QUEUEPOOL]


@contextlib.contextmanager
def impatient(say: Say) -> Iterator[list[Contestant]]:
    """Whoever waits for longer than a second goes away with nothing, and comes back."""
    with invited((ours_for_sqlalchemy, sqlalchemy), CONNECTIONS, say) as contestants:
        for contestant in contestants:
            contestant.pool._timeout = PATIENCE
        yield [dataclasses.replace(one, pool=Impatient(one.pool)) for one in contestants]


class Impatient:
    """Counts the timeouts, and tries again."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.timeouts = 0

    def connect(self) -> Any:
        from sqlalchemy.exc import TimeoutError as Late

        while True:
            try:
                return self._pool.connect()
            except Late:
                self.timeouts += 1


class Crowds:
    """Sixteen threads; slices of two seconds, or nobody could wait for one."""

    def __init__(self, contestants: list[Contestant]) -> None:
        self._crowd = Contention(contestants, CROWD, seconds=2.0)
        self._pools = {contestant.name: contestant.pool for contestant in contestants}
        self.run = self._crowd.run

    def figures(self) -> dict[str, dict[str, float]]:
        rates, fairness = self._crowd.rates(), self._crowd.fairness()
        return {
            name: {
                "by_queuepool": rates[name] / rates[QUEUEPOOL],
                "rate": rates[name],
                "fairness": fairness[name],
                "timeouts": self._pools[name].timeouts,
            }
            for name in rates
        }


def measure_engine(rounds: int, say: Say) -> dict[str, dict[str, float]]:
    """Each case's cost over both pools; one round of each, and again."""
    with contests(say) as found:
        for _ in range(rounds):
            for pairs in found.values():
                pairs.run(1)
        return {case: figures(pairs) for case, pairs in found.items()}


def figures(pairs: Pairs) -> dict[str, float]:
    costs = pairs.microseconds()
    return {"by_queuepool": ratio(pairs), "ours": costs[THREADPOOL], "theirs": costs[QUEUEPOOL]}


def measure_engine_crowd(rounds: int, say: Say) -> dict[str, dict[str, float]]:
    with impatient(say) as contestants:
        crowd = Crowds(contestants)
        crowd.run(rounds)
        return crowd.figures()
