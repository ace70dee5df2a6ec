"""Which checkout policy and which size, and why? Out of the app's numbers and the simulator's, in plain words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from threadpool_db.demand import Demand, shown
from threadpool_db.trial import LONGER, OPERATION, POLICIES, THREAD, Trial, Trials


@dataclass(frozen=True)
class Answer:
    """``max_size``: of each worker's pool; ``wanted``: what it would be if the server's limit were no matter.
    ``trials``: of a few sizes, the answer among them, under both policies. ``warnings``: what is not as it should be,
    each with the option and what to do."""

    asked: Demand
    policy: str
    max_size: int
    wanted: int
    trials: list[Trial]
    reasons: list[str]
    warnings: list[str]

    def summary(self) -> dict[str, Any]:
        """For JSON; times in seconds."""
        return {
            "checkout": self.policy,
            "max_size": self.max_size,
            "wanted": self.wanted,
            "connections": self.asked.workers * self.max_size,
            "available": self.asked.free,
            "in_database": {"mean": self.asked.mean, "p99": self.asked.quantile()},
            "bearable_wait": self.asked.bearable,
            "reasons": self.reasons,
            "warnings": self.warnings,
            "trials": [dataclasses.asdict(trial) for trial in self.trials],
            "asked": dataclasses.asdict(self.asked),
        }


def advise(asked: Demand, tell: Callable[[int], None] | None = None) -> Answer:
    """A few dozen short simulations, seconds of work. ``tell``: called after each with how many there were."""
    trials = Trials(asked, tell)
    policy = THREAD if asked.session else OPERATION
    wanted = trials.smallest(policy)
    size = min(wanted, asked.room)
    rows = [trials.of(policy, size) for size in _sizes(asked, size, wanted) for policy in POLICIES]
    reasons = [_busy(asked), _policy(asked, trials, size), _size(asked, rows, policy, size), _limit(asked, size)]
    return Answer(asked, policy, size, wanted, rows, reasons, list(_warnings(trials, policy, size, wanted)))


def _sizes(asked: Demand, size: int, wanted: int) -> list[int]:
    """Below and above the answer, to what threads or server allow; and what would be wanted, though it does not fit."""
    most = min(asked.threads, asked.room)
    some = {size // 2, size * 3 // 4, size, math.ceil(size * 1.5), most}
    return sorted({max(1, min(most, one)) for one in some} | {wanted})


# --- Reasons ----------------------------------------------------------------------------------------------------------


def _busy(asked: Demand) -> str:
    busy = "always busy" if not asked.idle else f"making {asked.rate:,g} requests a second"
    return (
        f"{shown(asked.database)} of the {shown(asked.request)} of a request are spent in the database. Of the "
        f"{asked.threads} threads of a worker, {busy}, {asked.mean:.1f} are there at once on average, and no "
        f"more than {asked.quantile()} for 99 % of the time; in all workers it is {asked.workers * asked.mean:.1f}."
    )


def _policy(asked: Demand, trials: Trials, size: int) -> str:
    operation, thread = trials.of(OPERATION, size), trials.of(THREAD, size)
    held = f'With "thread" a request holds its connection for all of its {shown(asked.request)}'
    rates = f"{operation.requests:,.0f} requests a second against {thread.requests:,.0f}"
    if asked.session:
        return (
            f'Requests rely on their session, and "thread" keeps it for them until they end. With {size} connections '
            f'"operation" would make {rates}: where only a few statements need their session, it pins the connection '
            "for these alone."
        )
    if thread.request <= operation.request * LONGER:
        return f'{held}; here that hardly matters ({rates}). "operation" is as good, and stays so when requests change.'
    return (
        f'{held}, with "operation" for {shown(asked.database)}. With {size} connections "operation" makes {rates}, and '
        f"a request takes {shown(operation.request)} against {shown(thread.request)}."
    )


def _size(asked: Demand, rows: list[Trial], policy: str, size: int) -> str:
    of = {row.max_size: row for row in rows if row.policy == policy}
    said = f"With {size}, one in a hundred borrowers waits for {shown(of[size].p99)} or longer"
    if size == asked.threads:
        said = f"With {size}, as many as threads, nobody waits, and more would never be used"
    said += f" ({shown(asked.bearable)} are all right), and a request takes {shown(of[size].request)}"
    fewer = [row for row in of.values() if row.max_size < size]
    if fewer:
        next_to = fewer[-1]
        said += f"; with {next_to.max_size} it is {shown(next_to.p99)}, and {shown(next_to.request)}"
    return f"{said}."


def _limit(asked: Demand, size: int) -> str:
    need = asked.workers * size
    said = f"{asked.workers} x {size} = {need} connections, of the {asked.free} that the server has for them"
    return f"{said} ({asked.server_limit} less {asked.others} for others)."


# --- Warnings ---------------------------------------------------------------------------------------------------------


def _warnings(trials: Trials, policy: str, size: int, wanted: int) -> Iterator[str]:
    asked, found = trials.asked, trials.of(policy, size)
    if asked.rate is not None and asked.rate > asked.most:
        needed = math.ceil(asked.rate * asked.request / asked.workers)
        yield (
            f"rate: {asked.workers} x {asked.threads} threads make {asked.most:,.0f} requests a second at most, with "
            f"any pool; {asked.rate:,g} need {needed} threads in each worker"
        )
    if size < wanted:
        held = asked.request if policy == THREAD else asked.database
        busy = max(1, int(size * (asked.request + asked.idle) / held))
        yield (
            f"server_limit: {wanted} for each worker would be right, and only {size} fit; "
            f"server_limit={asked.others + asked.workers * wanted}, or fewer threads ({busy} in a worker keep {size} "
            "connections busy, more make the line longer), or a pooler (docs/pgbouncer.md)"
        )
    if asked.free < 2 * asked.workers * size:
        yield (
            f"server_limit: {asked.workers} x {size} fit once and not twice: where a deployment runs old and new "
            "workers side by side, connects will fail; stop the old ones first, or "
            f"server_limit={asked.others + 2 * asked.workers * size}"
        )
    if found.late >= 0.001:
        yield (
            f"timeout: {found.late:.1%} of the borrowers get nothing within {shown(asked.timeout)}; fewer threads, or "
            "turn some away sooner with shed (docs/load.md)"
        )
