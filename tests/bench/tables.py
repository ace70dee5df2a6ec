"""How are the figures shown? Markdown, a table for each question, the floor first, then from the best to the worst."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.bench.agreement import AGREEMENT
from tests.bench.burst import BURST, CONNECT, THREADS
from tests.bench.contention import HABITS
from tests.bench.contestants import FLOOR
from tests.bench.engine import CROWD, ENGINE, ENGINE_CROWD
from tests.bench.memory import CONNECTIONS, MEMORY, WAITERS
from tests.bench.operation import JUDGEMENT, OPERATION
from tests.bench.overload import OVERLOAD, PATIENCE, SIZE, WORK
from tests.bench.policies import OPERATION as PER_OPERATION
from tests.bench.policies import THREAD as PER_THREAD
from tests.bench.policies import THREADS as CROWDS
from tests.bench.policies import section as policies_section
from tests.bench.recovery import KINDS, section
from tests.bench.zipf import ZIPF

#: section -> contestant -> figure
Figures = dict[str, dict[str, dict[str, float]]]

#: of each section: the heading; the key that orders it, upwards; and its columns, a heading, a key and a format
_Columns = tuple[tuple[str, str, str], ...]
_Table = tuple[str, Callable[[dict[str, float]], float], _Columns]

_CROWD: _Columns = (
    ("rate / floor's", "ratio", ".2f"),
    ("fairness", "fairness", ".2f"),
    ("rate, 1/s", "rate", ".0f"),
    ("longest wait, ms", "longest_wait_ms", ".1f"),
)
_RESTART: _Columns = (
    ("failed after", "failed", ".0f"),
    ("failed meanwhile", "meanwhile", ".0f"),
    ("first success, ms", "first_ms", ".0f"),
    ("full rate, ms", "full_ms", ".0f"),
    ("connects in 1 s", "connects", ".0f"),
)
_POLICIES: _Columns = (
    ("1/s, operation", f"{PER_OPERATION}_rate", ".0f"),
    ("1/s, thread", f"{PER_THREAD}_rate", ".0f"),
    ("ratio", "rate_ratio", ".2f"),
    ("p99 ms, operation", f"{PER_OPERATION}_p99_ms", ".0f"),
    ("p99 ms, thread", f"{PER_THREAD}_p99_ms", ".0f"),
    ("ratio", "p99_ratio", ".2f"),
)
_TABLES: dict[str, _Table] = {
    "pair": (
        "one thread, nobody waits",
        lambda of: of["ratio"],
        (("x floor", "ratio", ".2f"), ("µs a pair", "microseconds", ".2f")),
    ),
    OPERATION: (
        'one statement, "select 1" on SQLite',
        lambda of: of["added"],
        (("pairs added", "added", ".2f"), ("µs", "microseconds", ".2f")),
    ),
    JUDGEMENT: (
        "what a statement leaves in its session",
        lambda of: of["ratio"],
        (("x floor", "ratio", ".2f"), ("µs", "microseconds", ".2f")),
    ),
    **{str(habit): (str(habit), lambda of: -of["ratio"], _CROWD) for habit in HABITS},
    BURST: (
        f"{THREADS} threads on a cold pool of {THREADS}, a connect takes {CONNECT * 1e3:g} ms",
        lambda of: of["opened"],
        (("connects", "opened", ".0f"), ("last served, ms", "served_ms", ".0f"), ("errors", "errors", ".0f")),
    ),
    OVERLOAD: (
        f"twice the capacity of {SIZE} connections and {WORK * 1e3:g} ms of work, patience {PATIENCE:g} s",
        lambda of: of["p50_ms"],
        (
            ("p50 wait, ms", "p50_ms", ".0f"),
            ("p99 wait, ms", "p99_ms", ".0f"),
            ("goodput", "goodput", ".2f"),
            ("refused", "refused", ".0%"),
        ),
    ),
    AGREEMENT: (
        "the real pool beside the simulator",
        lambda of: 0.0,  # as they were run
        (
            ("1/s, real", "rate", ".0f"),
            ("simulated", "rate_simulated", ".0f"),
            ("off by", "rate_off", "+.1%"),
            ("p50 wait ms, real", "p50_ms", ".2f"),
            ("simulated", "p50_ms_simulated", ".2f"),
            ("off by", "p50_ms_off", "+.1%"),
            ("p99 wait ms, real", "p99_ms", ".2f"),
            ("simulated", "p99_ms_simulated", ".2f"),
            ("off by", "p99_ms_off", "+.1%"),
        ),
    ),
    MEMORY: (
        f"bytes, of {CONNECTIONS} connections and {WAITERS} waiters",
        lambda of: of["idle"],
        (("an idle connection", "idle", ".0f"), ("a waiter", "waiter", ".0f")),
    ),
    ENGINE: (
        "an SQLAlchemy engine, over both pools",
        lambda of: of["by_queuepool"],
        (("x QueuePool", "by_queuepool", ".2f"), ("ThreadPool, µs", "ours", ".1f"), ("QueuePool, µs", "theirs", ".1f")),
    ),
    ENGINE_CROWD: (
        f"{CROWD}, for a second at most",
        lambda of: -of["by_queuepool"],
        (
            ("rate / QueuePool's", "by_queuepool", ".2f"),
            ("fairness", "fairness", ".2f"),
            ("timeouts", "timeouts", ".0f"),
            ("rate, 1/s", "rate", ".0f"),
        ),
    ),
    **{section(kind): (section(kind), lambda of: of["full_ms"], _RESTART) for kind in KINDS},
    ZIPF: (
        ZIPF,
        lambda of: -of["rate"],
        (
            ("rate / best LRU's", "by_lru", ".2f"),
            ("rate, 1/s", "rate", ".0f"),
            ("hits", "hits", ".0%"),
            ("wait p50, ms", "p50_ms", ".1f"),
            ("p99, ms", "p99_ms", ".1f"),
            ("evicted of 1,000", "evicted", ".0f"),
        ),
    ),
    **{policies_section(n): (policies_section(n), lambda of: -of["share"], _POLICIES) for n in CROWDS},
}


def tables(figures: Figures) -> str:
    return "\n\n".join("\n".join(_lines(_TABLES[name], figures[name])) for name in _TABLES if name in figures)


def _lines(table: _Table, contestants: dict[str, dict[str, float]]) -> Iterable[str]:
    title, rank, columns = table
    yield " | ".join([f"| {title}", *(heading for heading, _, _ in columns)]) + " |"
    yield "| --- |" + " --: |" * len(columns)
    for name, of in sorted(contestants.items(), key=lambda item: (item[0] != FLOOR, rank(item[1]))):
        yield " | ".join([f"| {name}", *(format(of[key], how) for _, key, how in columns)]) + " |"
