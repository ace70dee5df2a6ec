"""What must hold, with every guarantee on? ``python -m tests.bench --check`` measures that and nothing else."""

from __future__ import annotations

import math

from tests.bench import overload
from tests.bench.burst import THREADS, Bursts
from tests.bench.contention import CONNECTIONS, QUERY, Contention
from tests.bench.contestants import DBUTILS, OURS, QUEUEPOOL, THREADPOOL, dbutils, floor, invited, ours
from tests.bench.engine import CROWD, LIMITS, Crowds, contests, impatient, ratio
from tests.bench.engine import FAIRNESS_LIMIT as CROWD_FAIRNESS_LIMIT
from tests.bench.operation import ADDED_LIMIT, JUDGEMENT_LIMIT, operations
from tests.bench.pairs import Pairs
from tests.bench.promise import Say, not_measured, until_clear
from tests.bench.reporting import REPORTS_LIMIT, reports
from tests.bench.tenant_musts import (
    fair_at_the_cap,
    found_among_many,
    unharmed_by_one_that_is_down,
)
from tests.bench.web_musts import cheap_in_the_database, cheap_middleware, more_requests_served
from threadpool_db.core.overload import CoDel

PAIR_LIMIT = 2.2  # times the floor, and below DBUtils
FAIRNESS_LIMIT, RATE_LIMIT = 0.9, 0.95  # when held 0.5 ms; the rate as a share of the floor's
OPENED_LIMIT = 8  # by a burst, and nobody fails
#: Of QueuePool's. It lends to who has just given back, who is awake; to wake the next in line takes some 80 us of 5 ms.
CROWD_RATE_LIMIT = 0.97


def check(say: Say) -> bool:
    return all(
        [
            cheap(say),
            cheap_to_report(say),
            cheap_to_operate(say),
            cheap_under_no_load(say),
            short_waits_under_overload(say),
            whole_bursts(say),
            fair(say),
            modest(say),
            cheap_for_sqlalchemy(say),
            fair_to_sqlalchemy(say),
            cheap_middleware(say),
            cheap_in_the_database(say),
            more_requests_served(say),
            found_among_many(say),
            fair_at_the_cap(say),
            unharmed_by_one_that_is_down(say),
        ]
    )


def cheap(say: Say) -> bool:
    with invited((floor, ours, dbutils), CONNECTIONS, say) as contestants:
        pairs = Pairs(contestants)

        def sample() -> tuple[bool, str]:
            pairs.run(200)
            ratios = pairs.ratios()
            mine, theirs = ratios[OURS], ratios.get(DBUTILS, math.inf)
            return mine <= PAIR_LIMIT and mine < theirs, f"{mine:.2f}x the floor, DBUtils {theirs:.2f}x"

        return until_clear(f"a pair costs at most {PAIR_LIMIT}x the floor, and less than DBUtils", 5, sample, say)


def cheap_to_report(say: Say) -> bool:
    with reports(say) as race:

        def sample() -> tuple[bool, str]:
            race.run(200)
            added = race.added()
            return added <= REPORTS_LIMIT, f"{added:.2f}x the floor"

        what = f"leak_after and inactive_after add at most {REPORTS_LIMIT}x the floor to a pair"
        return until_clear(what, 5, sample, say)


def cheap_under_no_load(say: Say) -> bool:
    with invited((floor, ours, overload.ours_regulated), CONNECTIONS, say) as contestants:
        race = overload.Regulated(contestants)

        def sample() -> tuple[bool, str]:
            race.run(200)
            added = race.added()
            return added <= overload.ADDED_LIMIT, f"{added:.2f}x the floor"

        what = f"shedding and Sojourn add at most {overload.ADDED_LIMIT}x the floor to a pair"
        return until_clear(what, 5, sample, say)


def short_waits_under_overload(say: Say) -> bool:
    def sample() -> tuple[bool, str]:
        with invited((overload.ours_shedding,), overload.SIZE, say) as [contestant]:
            found = overload.overload(contestant, 2.0, 4.0)
        with invited((overload.ours_shedding,), overload.SIZE, say) as [contestant]:
            calm = overload.overload(contestant, 0.8, 4.0)["refused"]
        waits = found["p50_ms"] <= overload.P50_LIMIT * 1e3 and found["p99_ms"] <= overload.P99_LIMIT * 1e3
        told = f"p50 {found['p50_ms']:.0f} ms, p99 {found['p99_ms']:.0f} ms, goodput {found['goodput']:.3f}"
        return waits and found["goodput"] >= overload.GOODPUT_LIMIT and not calm, f"{told}; at 0.8 {calm:.1%} refused"

    what = (
        f"at twice the capacity p50 is at most {overload.P50_LIMIT * 1e3:g} ms, p99 {overload.P99_LIMIT * 1e3:g} ms, "
        f"at {overload.GOODPUT_LIMIT:.0%} of the capacity; at 0.8 nobody is turned away"
    )
    return until_clear(what, 5, sample, say)


def whole_bursts(say: Say) -> bool:
    def sample() -> tuple[bool, str]:
        alone, shedding = overload.burst(None), overload.burst(CoDel())
        return alone == 1 and shedding >= overload.SERVED_LIMIT, f"{alone:.1%}, with shedding {shedding:.1%}"

    what = (
        f"of {overload.BURST_OF:,} requests of {overload.BURST_WORK * 1e3:g} ms at once on {overload.BURST_SIZE} idle "
        f"connections all are served, with the default CoDel at least {overload.SERVED_LIMIT:.0%}"
    )
    return until_clear(what, 1, sample, say)


def cheap_to_operate(say: Say) -> bool:
    with operations(say) as race:

        def sample() -> tuple[bool, str]:
            race.run(200)
            added, judged = race.added(), race.judged()
            holds = added <= ADDED_LIMIT and judged <= JUDGEMENT_LIMIT
            return holds, f"{added:.2f} pairs, {judged:.2f}x the floor"

        what = (
            f"execute() adds at most {ADDED_LIMIT:g} pairs to a bare cursor, the judgement of a repeated statement "
            f"costs at most {JUDGEMENT_LIMIT:g}x the floor"
        )
        return until_clear(what, 5, sample, say)


def fair(say: Say) -> bool:
    with invited((floor, ours), CONNECTIONS, say) as contestants:
        crowd = Contention(contestants, QUERY)

        def sample() -> tuple[bool, str]:
            crowd.run(5)
            fairness, ratio = crowd.fairness()[OURS], crowd.ratios()[OURS]
            holds = fairness >= FAIRNESS_LIMIT and ratio >= RATE_LIMIT
            return holds, f"fairness {fairness:.2f} at {ratio:.1%} of the floor's rate"

        what = f"{QUERY}: fairness at least {FAIRNESS_LIMIT} at {RATE_LIMIT:.0%} of the floor's rate"
        return until_clear(what, 5, sample, say)


def modest(say: Say) -> bool:
    bursts = Bursts((ours,))

    def sample() -> tuple[bool, str]:
        bursts.run(5)
        found = bursts.figures()[OURS]
        holds = found["opened"] <= OPENED_LIMIT and not found["errors"]
        return holds, f"{found['opened']} connects, {found['errors']} errors"

    # once: these are the most of all rounds, and no noise is an excuse
    what = f"a burst of {THREADS} threads on a cold pool: at most {OPENED_LIMIT} connects, no error"
    return until_clear(what, 1, sample, say)


def cheap_for_sqlalchemy(say: Say) -> bool:
    held = []
    with contests(say) as found:
        for case, limit in LIMITS.items():
            pairs = found.get(case)
            if pairs is None:
                held.append(not_measured(case, "a server"))
                continue

            def sample(pairs: Pairs = pairs, limit: float = limit) -> tuple[bool, str]:
                pairs.run(200)
                now = ratio(pairs)
                return now <= limit, f"{now:.3f}x"

            held.append(until_clear(f"{case}: at most {limit}x QueuePool", 5, sample, say))
    return all(held)


def fair_to_sqlalchemy(say: Say) -> bool:
    with impatient(say) as contestants:
        crowd = Crowds(contestants)

        def sample() -> tuple[bool, str]:
            crowd.run(5)
            figures = crowd.figures()
            mine, theirs = figures[THREADPOOL], figures[QUEUEPOOL]
            fair, full = mine["fairness"] >= CROWD_FAIRNESS_LIMIT, mine["by_queuepool"] >= CROWD_RATE_LIMIT
            holds = not mine["timeouts"] and fair and full
            found = (
                f"fairness {mine['fairness']:.2f}, {mine['timeouts']} timeouts, {mine['by_queuepool']:.3f}x the rate"
            )
            return holds, f"{found}; QueuePool {theirs['fairness']:.2f}, {theirs['timeouts']} timeouts"

        what = (
            f"{CROWD}: nobody waits a second, fairness at least {CROWD_FAIRNESS_LIMIT}, at {CROWD_RATE_LIMIT:.0%} of "
            "QueuePool's rate"
        )
        return until_clear(what, 5, sample, say)
