"""What must hold of checkout policies and of the middleware? The part of ``--check`` that web apps care for."""

from __future__ import annotations

from tests.bench.middleware import ADDED_LIMIT, middleware
from tests.bench.policies import BackToBack, both
from tests.bench.promise import Say, not_measured, until_clear
from tests.bench.served import THREADS, WORKERS, gunicorns
from tests.bench.served_app import CONNECTIONS

SHARE_LIMIT = 0.97  # of per-thread's throughput, where all of a request is in the database
SERVED_LIMIT = 2.5  # times what per-thread serves, where most of it is not


def cheap_middleware(say: Say) -> bool:
    with middleware() as race:

        def sample() -> tuple[bool, str]:
            race.run(200)
            added = race.added()
            found = ", ".join(f"{times:.2f} to one that answers with {body}" for body, times in added.items())
            return max(added.values()) <= ADDED_LIMIT, found

        what = f"PoolMiddleware adds at most {ADDED_LIMIT:g} floor pairs to a request without database"
        return until_clear(what, 5, sample, say)


def cheap_in_the_database(say: Say) -> bool:
    what = f"at 100 % database time per-operation has at least {SHARE_LIMIT:.0%} of per-thread's throughput"
    with both(say) as pools:
        if pools is None:
            return not_measured(what, "a server")
        race = BackToBack(pools)

        def sample() -> tuple[bool, str]:
            race.run(10)
            ratios = race.ratios()
            found = ", ".join(f"{ratio:.1%} with {threads} threads" for threads, ratio in ratios.items())
            return min(ratios.values()) >= SHARE_LIMIT, found

        return until_clear(what, 8, sample, say)  # a busy machine takes its time to wake a thread, mostly


def more_requests_served(say: Say) -> bool:
    what = (
        f"gunicorn, {WORKERS} workers with {THREADS} threads and {CONNECTIONS} connections each, 50 ms outside: "
        f"per-operation serves at least {SERVED_LIMIT}x the requests of per-thread, no errors"
    )
    with gunicorns(say) as race:
        if race is None:
            return not_measured(what, "gunicorn or a server")

        def sample() -> tuple[bool, str]:
            race.run(2)
            return race.ratio >= SERVED_LIMIT and not race.errors, f"{race.ratio:.2f}x, {race.errors} errors"

        return until_clear(what, 5, sample, say)
