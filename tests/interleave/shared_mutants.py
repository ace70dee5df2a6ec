"""Which mistakes about a budget must the explorer notice? See ``mutants.py``; its rules have mutants of their own."""

from __future__ import annotations

from tests.interleave.mutants import POOL, Mutant

BUDGET, BACKGROUND, PERMITS = "budget", "background", "core.permits"
DROPPED = "a lease is dropped in another pool"
LONGEST_NEXT = "who has waited longest is next"

# fmt: off
SHARED_MUTANTS = [
    Mutant(
        "nobody looks after the others", "no needless waiting", LONGEST_NEXT, POOL,
        "                self._budget.settle(self._now(), jobs, apart and not self._has_time(subject))\n",
        "                pass\n",
    ),
    Mutant(
        "each pool has a lock of its own", "the cap or no needless waiting", "two pools and two permits", BUDGET,
        "        return self._lock\n",
        "        return pool._clock.lock()\n",
    ),
    Mutant(
        "what another pool is to do nobody does", "no deadlock or bounded wait or no lost wake-up or nothing lost",
        "two pools and two permits", BUDGET,
        "        job = functools.partial(_carry_out, pool, theirs)\n",
        "        return\n",
    ),
    Mutant(
        "a note is for its own pool alone", "no lost wake-up or no deadlock or bounded wait", DROPPED, BUDGET,
        "        self._noted[pool] = None\n",
        "        return\n",
    ),
    Mutant(
        "a note wakes nobody of the other pools", "no lost wake-up or no deadlock or bounded wait", DROPPED, BUDGET,
        "                open_head(ledger.line)\n",
        "                pass\n",
    ),
    Mutant(
        "nobody plans when to look again", "looked after",
        "two who would take it from each other, with a keeper", BUDGET,
        "        pool._background.plan(pool._ledger.due)\n",
        "        pass\n",
    ),
    Mutant(
        "those in the way are not told to open", "no needless waiting or no idle hoard", LONGEST_NEXT, PERMITS,
        "                yield first, first.tick(now)\n",
        "                return\n",
    ),
]
