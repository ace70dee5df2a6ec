"""What does the pool look like from outside? Histograms filled as it runs, and a snapshot of all its numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from threadpool_db.core.sizing import Counts

#: Upper bounds in seconds; one more bucket above holds the rest. Waits and connects are worth telling apart from
#: a tenth of a millisecond on, uses up to minutes.
BOUNDS: tuple[float, ...] = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip


class Histogram:
    """Counts of durations in fixed buckets. Filled inside the pool's lock: 0.1 µs, no allocation."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def remove(self, seconds: float) -> None:
        """Take back one that was added."""
        self.counts[bisect_left(BOUNDS, seconds)] -= 1
        self.total -= seconds

    def summary(self, zeros: int = 0) -> Durations:
        """A frozen copy; ``zeros`` more that took no time at all are counted in."""
        return Durations((self.counts[0] + zeros, *self.counts[1:]), self.total)


@dataclass(frozen=True)
class Durations:
    """A histogram at one moment: ``counts[i]`` durations of at most ``BOUNDS[i]`` seconds, ``total`` seconds in all."""

    counts: Sequence[int] = (0,) * (len(BOUNDS) + 1)
    total: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Seconds; 0 when there were none."""
        return self.total / self.count if self.count else 0.0

    def percentile(self, share: float) -> float:
        """An upper bound, in seconds, of the fastest ``share`` (0 to 1) of them; ``inf`` beyond the last bucket."""
        wanted, seen = share * self.count, 0
        for bound, count in zip((*BOUNDS, float("inf")), self.counts, strict=True):
            seen += count
            if seen >= wanted:
                return bound if seen else 0.0
        return float("inf")


@dataclass(frozen=True)
class Hold:
    """Somebody has a connection: which thread, for how many seconds, taken at which line of whose code.

    What the driver and the system can tell without asking anybody, None where they cannot: ``in_transaction``,
    ``in_statement`` (the server owes an answer), and ``silent``, for how many seconds nothing has been said on its
    socket. ``kept``: its thread keeps it, and as far as can be told does not use it at the moment.
    """

    thread: str
    seconds: float
    where: str
    in_transaction: bool | None = None
    in_statement: bool | None = None
    silent: float | None = None
    kept: bool = False

    _place = "taken at"  # no field

    def __str__(self) -> str:
        facts = [f"{self.thread} for {self.seconds:.1f} s", f"{self._place} {self.where}"]
        if self.kept:
            facts.append("kept for its thread")
        if self.in_statement:
            facts.append("in a statement")
        elif self.in_transaction is not None:
            facts.append("in a transaction" if self.in_transaction else "in no transaction")
        if self.silent is not None:
            facts.append(f"{'no answer' if self.in_statement else 'unused'} for {self.silent:.1f} s")
        return ", ".join(facts)


@dataclass(frozen=True)
class Snapshot:
    """The pool's numbers at one moment, all read under its lock.

    ``checkouts`` counts connections handed to borrowers, ``timeouts`` and ``refused`` those who got none, ``shed``
    the refused who had waited; ``dead`` those found dead before a borrower got them, ``lost`` those whose lease was
    dropped without a checkin, ``expired`` those taken away at ``max_lease``. ``wait`` is the time until a borrower
    was given one, connecting included; ``connect`` of those that succeeded. ``failing_for``: seconds in which
    connects have failed and none has succeeded. ``paused``: nobody gets a connection until ``resume()``. ``holders``,
    who has had one longest first. ``permits`` is the limit of the pool's budget, ``permits_used`` how many
    connections it and the others of that budget have.
    """

    name: str
    counts: Counts
    closed: bool = False
    paused: bool = False
    checkouts: int = 0
    timeouts: int = 0
    refused: int = 0
    shed: int = 0
    opened: int = 0
    closures: int = 0
    connect_failures: int = 0
    dead: int = 0
    lost: int = 0
    expired: int = 0
    wait: Durations = Durations()
    use: Durations = Durations()
    connect: Durations = Durations()
    holders: tuple[Hold, ...] = field(default=())
    connect_error: BaseException | None = None
    failing_for: float = 0.0
    permits: float = inf
    permits_used: int = 0

    @property
    def max_size(self) -> float:
        return self.counts.max_size

    @property
    def idle(self) -> int:
        return self.counts.idle

    @property
    def in_use(self) -> int:
        return self.counts.in_use

    @property
    def waiting(self) -> int:
        return self.counts.waiting

    @property
    def total(self) -> int:
        return self.counts.total
