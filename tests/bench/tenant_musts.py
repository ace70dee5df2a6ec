"""What must hold of many databases under one cap? The part of ``--check`` about budgets and tenants."""

from __future__ import annotations

import contextlib

from tests.bench.neighbours import BUSY_THREADS, CAP, MANY, SMALL, Crowded, Down, times, warm
from tests.bench.promise import Say, until_clear

WARM_LIMIT = 1.3  # times a pool in a dict
SERVED_LIMIT = 0.1  # seconds, at p99 of each of the small ones
KEPT_LIMIT = 0.75  # of the busy ones' throughput
DOWN_LIMIT = 1.2  # times the others' p99


def found_among_many(say: Say) -> bool:
    with warm() as race:

        def sample() -> tuple[bool, str]:
            race.run(200)
            found = times(race)
            return found <= WARM_LIMIT, f"{found:.2f}x"

        what = f"a warm checkout among {MANY:,} tenants costs at most {WARM_LIMIT}x that of a pool in a dict"
        return until_clear(what, 5, sample, say)


def fair_at_the_cap(say: Say) -> bool:
    with contextlib.closing(Crowded()) as crowded:

        def sample() -> tuple[bool, str]:
            crowded.run(3)
            holds = crowded.p99 <= SERVED_LIMIT and crowded.kept >= KEPT_LIMIT
            return holds, f"p99 {crowded.p99 * 1e3:.0f} ms, {crowded.kept:.0%} kept"

        what = (
            f"cap {CAP}, two tenants of {BUSY_THREADS} threads each, {SMALL} that ask once a second: each of these is "
            f"served within {SERVED_LIMIT * 1e3:g} ms at p99, and the two keep {KEPT_LIMIT:.0%} of their throughput"
        )
        return until_clear(what, 5, sample, say)


def unharmed_by_one_that_is_down(say: Say) -> bool:
    down = Down()

    def sample() -> tuple[bool, str]:
        down.run(3)
        ratios = down.ratios()
        found = ", ".join(f"{ratio:.2f}x where it is {state}" for state, ratio in ratios.items())
        return max(ratios.values()) <= DOWN_LIMIT, found

    what = f"a tenant whose server is down: the others' p99 is at most {DOWN_LIMIT}x that beside one that is up"
    return until_clear(what, 5, sample, say)
