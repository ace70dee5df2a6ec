"""How many of an app's threads are in its database at once, and how many connections is it allowed?

Arithmetic only; what becomes of those who wait is simulated (``trial``). A thread is in the database for the share of
its time that its requests spend there. As long as none waits for another, the threads are there independently of each
other, whatever the distribution of their times: a binomial distribution, of which the mean and a quantile are told.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

from threadpool_db.config import PoolConfig, nearest

MOST = 10_000  # of workers, threads and what else is counted: beyond it somebody has mistaken the unit
_UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "": 1.0}
_SECONDS = "seconds, with a unit or without one, such as 0.02, 20ms or 1.5s"

#: name -> (lowest, highest, what to do), of whole numbers.
_WHOLE: dict[str, tuple[int, int, str]] = {
    "workers": (1, MOST, "count the processes that have a pool, on all machines"),
    "threads": (1, MOST, "count those of one worker that use the database"),
    "server_limit": (1, 1_000_000, "ask the server: show max_connections; or threadpool-db check URL"),
    "others": (0, 1_000_000, "count what the app cannot have: reserved ones, cron jobs, monitoring, migrations"),
    "operations": (1, MOST, "count the statements of a request, or its transactions"),
    "seed": (0, 2**63, "any of them will do"),
}
#: name -> is 0 too low, in seconds.
_TIMES = {"database": True, "outside": False, "timeout": True, "wait": True}


class BadDemand(ValueError):
    """It cannot be answered; names the option, its value and what to do."""


@dataclass(frozen=True)
class Demand:
    """``workers`` processes of ``threads`` threads each. A request is ``database`` seconds in the database, in
    ``operations`` statements or transactions, and ``outside`` seconds elsewhere. ``server_limit``: connections that the
    server allows, of which ``others`` are not for this app.

    ``rate``: requests a second at the busiest time, of all workers together; None: all threads are always busy.
    ``session``: requests rely on their session (SET, temporary tables, one long transaction). ``timeout``: the pool's.
    ``wait``: seconds that one in a hundred borrowers may wait; None: a tenth of a request, or as long as an operation
    takes where that is longer. ``seed``: of the simulation. ``BadDemand`` if it makes no sense.
    """

    workers: int
    threads: int
    database: float
    outside: float
    server_limit: int
    others: int = 3
    operations: int = 3
    rate: float | None = None
    session: bool = False
    timeout: float = PoolConfig.timeout
    wait: float | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        for name, (low, high, remedy) in _WHOLE.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise BadDemand(f"{name}={value!r}: must be a whole number from {low:,} to {high:,}; {remedy}")
        for name, beyond in _TIMES.items():
            value = getattr(self, name)
            if value is None and name == "wait":
                continue
            if not _is_number(value) or not 0 <= value <= 86_400 or (beyond and value == 0):
                raise BadDemand(
                    f"{name}={value!r}: must be {'above' if beyond else 'from'} 0 and at most a day, in {_SECONDS}"
                )
        if self.rate is not None and (not _is_number(self.rate) or not 0 < self.rate < math.inf):
            raise BadDemand(
                f"rate={self.rate!r}: must be requests a second, above 0; without it all threads are always busy"
            )
        if self.room < 1:
            left = max(0, self.server_limit - self.others)
            raise BadDemand(
                f"server_limit={self.server_limit}: less {self.others} for others that is {left} for {self.workers} "
                "workers, not one for each; fewer workers, a higher limit, or a pooler (docs/pgbouncer.md)"
            )

    @property
    def free(self) -> int:
        """Connections that all workers together may have."""
        return self.server_limit - self.others

    @property
    def room(self) -> int:
        """The largest ``max_size`` of which there is one for each worker."""
        return self.free // self.workers

    @property
    def request(self) -> float:
        """Seconds that one takes when nobody is in its way."""
        return self.database + self.outside

    @property
    def most(self) -> float:
        """Requests a second that all threads together can make when none of them ever waits."""
        return self.workers * self.threads / self.request

    @property
    def idle(self) -> float:
        """Seconds between two requests of a thread: 0 where they are always busy, or cannot keep up with ``rate``."""
        return 0.0 if self.rate is None else max(0.0, self.workers * self.threads / self.rate - self.request)

    @property
    def share(self) -> float:
        """Of a thread's time, what it is in the database."""
        return self.database / (self.request + self.idle)

    @property
    def mean(self) -> float:
        """Threads of one worker that are in the database at once, on average."""
        return self.threads * self.share

    def quantile(self, part: float = 0.99) -> int:
        """For this part of the time no more of one worker's threads than so many would be in the database at once."""
        if self.share >= 1:
            return self.threads
        log_p, log_q, below = math.log(self.share), math.log1p(-self.share), 0.0
        for many in range(self.threads):
            ways = math.lgamma(self.threads + 1) - math.lgamma(many + 1) - math.lgamma(self.threads - many + 1)
            below += math.exp(ways + many * log_p + (self.threads - many) * log_q)
            if below >= part:
                return many
        return self.threads

    @property
    def bearable(self) -> float:
        """``wait``, or its default."""
        return self.wait or max(self.request / 10, self.database / self.operations)


NAMES = tuple(field.name for field in dataclasses.fields(Demand))
REQUIRED = tuple(field.name for field in dataclasses.fields(Demand) if field.default is dataclasses.MISSING)


def demand(given: dict[str, Any]) -> Demand:
    """By names; the values may be texts. BadDemand for what is unknown, missing or impossible."""
    for name in given:
        if name not in NAMES:
            near = nearest(name, NAMES)
            raise BadDemand(f"{name}: " + (f"did you mean {near}?" if near else f"known are {', '.join(NAMES)}"))
    for name in REQUIRED:
        if name not in given:
            flag = f"--{name.replace('_', '-')}"
            raise BadDemand(f"{name}: is missing; give {flag}, or answer the questions in a terminal")
    return Demand(**{name: value_of(name, given[name]) for name in given})


def value_of(name: str, given: Any) -> Any:
    """What a text means, for this name; what is no text, and what cannot be read, is left for ``Demand`` to judge."""
    if not isinstance(given, str):
        return given
    text = given.strip().replace("_", "").replace(",", "" if name in _WHOLE else ",")
    if name in _WHOLE:
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else given
    found = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-zµ]*)", text, re.IGNORECASE)
    units = _UNITS if name in _TIMES else {"": 1.0}
    if found is None or found[2].lower() not in units:
        return given
    return float(found[1]) * units[found[2].lower()]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def shown(seconds: float) -> str:
    """Three digits, and no less than a tenth of a millisecond: simulated figures mean no more."""
    return f"{seconds:.3g} s" if seconds >= 0.9995 else f"{round(seconds * 1e3, 1):.3g} ms"
