"""Which mistakes about an outage must the explorer notice? See ``mutants.py``."""

from __future__ import annotations

from tests.interleave.mutants import BORROWING, Mutant

OUTAGE, REACH, FAILING, OPENING = "core.outage", "core.reach", "core.failing", "core.opening"
LEDGER, SERVING, KEEPER = "core.ledger", "core.serving", "keeper"

# fmt: off
OUTAGE_MUTANTS = [
    # --- who tries
    Mutant(
        "a step is not used up", "one tries", "two pools try in turn", OUTAGE,
        "(now >= step.at and step.use(now))",
        "now >= step.at",
    ),
    Mutant(
        "two who find the same step at once both get it", "one tries", "two pools ask at once", OUTAGE,
        "        return self._following.setdefault(\"it\", mine) is mine\n",
        "        self._following[\"it\"] = mine\n"
        "        return True\n",
    ),
    Mutant(
        "each pool has an outage of its own", "one tries", "two pools try in turn", KEEPER,
        "    return outages.setdefault(server, Outage()) if outage is None else outage\n",
        "    return Outage()\n",
    ),
    Mutant(
        "a pool does not ask what the others know", "one tries", "two pools ask at once", REACH,
        "        return self.server if self.is_awaited(now) else None\n",
        "        return None\n",
    ),
    Mutant(
        "nobody tries for those who were refused", "somebody tries",
        "nothing connects for longer than the grace, with a keeper", OPENING,
        "        return now >= ledger.reach.fill_at and not ledger.closed\n",
        "        return 0\n",
    ),
    # --- who waits, and who is refused
    Mutant(
        "the head sleeps through the end of the grace", "nobody waits",
        "nothing connects for longer than the grace", SERVING,
        "for other in (ledger.reach.patient_until, ledger.look_at):",
        "for other in (ledger.look_at,):",
    ),
    Mutant(
        "the head sleeps through the end of the grace behind a connect that hangs", "nobody waits",
        "a connect hangs while the grace ends", SERVING,
        "now < other < (moment if moment > now else math.inf):",
        "now < other < moment:",
    ),
    Mutant(
        "who waits is refused though something is connected", "refused for a reason",
        "the connected ones die one by one", LEDGER,
        " and len(self.entries) == self.opening + self.closing\n",
        "\n",
    ),
    Mutant(
        "refused without the cause", "refused for a reason", "nothing connects for longer than the grace", BORROWING,
        "        error.__cause__, error.waited = cause, self._waited()\n",
        "        error.waited = self._waited()\n",
    ),
    Mutant(
        "refused without the numbers", "refused for a reason", "nothing connects for longer than the grace", BORROWING,
        "pool._config.background), snapshot)\n        error.__cause__, error.waited = cause",
        "pool._config.background))\n        error.__cause__, error.waited = cause",
    ),
    # --- the way back
    Mutant(
        "a success does not end the outage", "it is over", "two pools try in turn", OUTAGE,
        "            self._back_since = now\n",
        "            return\n",
    ),
    Mutant(
        "the pool does not notice that it is over", "it is over", "nothing connects for longer than the grace", REACH,
        "-math.inf\n        self.failing_since = math.inf\n",
        "-math.inf\n",
    ),
    Mutant(
        "there is no ramp", "the way back", "two pools come back by the ramp", OUTAGE,
        " if now - self._since >= RAMP else None\n",
        " if now < self._since else None\n",
    ),
]
# fmt: on
