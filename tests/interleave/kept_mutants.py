"""Which mistakes with a keeper must the explorer notice? See ``mutants.py``."""

from __future__ import annotations

from tests.interleave.mutants import Mutant

KEEPER, BACKGROUND = "keeper", "background"

# fmt: off
KEPT_MUTANTS = [
    # --- the keeper's queue
    Mutant(
        "a job comes while its worker rests, and wakes nobody", "no lost job", "a burst connected for", KEEPER,
        "                state.resting.pop().open()\n",
        "                state.resting.pop()\n",
    ),
    Mutant(
        "a worker is woken before its job is in the queue",
        "no lost job or nothing lost or given up in time", "a burst connected for", KEEPER,
        "            with self._lock:\n"
        "                state = self._servers.setdefault(server, _Server())\n"
        "                state.jobs.append(job)\n"
        "                if state.resting:\n"
        "                    state.resting.pop().open()\n"
        "                    return\n",
        "            with self._lock:\n"
        "                state = self._servers.setdefault(server, _Server())\n"
        "                resting = state.resting.pop() if state.resting else None\n"
        "            if resting:\n"
        "                resting.open()\n"
        "            with self._lock:\n"
        "                state.jobs.append(job)\n"
        "                if resting:\n"
        "                    return\n",
    ),
    Mutant(
        "one that goes leaves its gate behind", "no lost job", "workers come and go", KEEPER,
        "                        state.resting.remove(gate)  #",
        "                        pass  #",
    ),
    Mutant(
        "one that goes on leaves its gate behind", "no lost job", "wanted as their rest ends", KEEPER,
        "                if rested:\n",
        "                if rested and not state.jobs:\n",
    ),
    # --- its plan
    Mutant(
        "something sooner wakes nobody", "looked after", "a connect hangs after a good one", KEEPER,
        "elif soonest:",
        "elif False:",
    ),
    Mutant(
        "the scheduler ends, and then says so", "looked after", "nobody ever connected", KEEPER,
        "                if not self._plan:\n"
        "                    self._scheduling = False\n",
        "                if not self._plan:\n"
        "                    self._lock.release()\n"
        "                    self._clock.give_way()\n"
        "                    self._lock.acquire()\n"
        "                    self._scheduling = False\n",
    ),
    Mutant(
        "a task is carried out inside the keeper's lock", "a leaf", "the fewest are kept", KEEPER,
        "            if due:\n"
        "                _run(alarm.ring)\n",
        "            if due:\n"
        "                with self._lock:\n"
        "                    _run(alarm.ring)\n",
    ),
    # --- what the pool tells it
    Mutant(
        "what is due sooner is not planned again", "looked after", "it fails and is tried again", BACKGROUND,
        "        if due < math.inf and not self._now() < self._planned <= due:\n",
        "        if self._planned == math.inf and due < math.inf:\n",
    ),
    Mutant(
        "an alarm is never cancelled", "given up in time", "two on a cold one", BACKGROUND,
        "        late.cancel()\n",
        "",
    ),
    Mutant(
        "no connect is ever given up", "given up in time", "a connect hangs after a good one", BACKGROUND,
        "            self._work_off(pool._decide(pool._ledger.overdue, entry, error=error))\n",
        "            self._keeper.at(self._now() + 9, functools.partial(self._give_up, entry))\n",
    ),
    Mutant(
        "what arrives too late is kept", "too late or never trips", "a connect hangs after a good one", BACKGROUND,
        "            pool._tell(pool._ledger.opened, entry, bearer=errand)\n",
        "            if entry.state is not OPENING:\n"
        "                entry.state = OPENING\n"
        "                pool._ledger.closing -= 1\n"
        "                pool._ledger.opening += 1\n"
        "            pool._tell(pool._ledger.opened, entry, bearer=errand)\n",
    ),
    Mutant(
        "what arrives too late is forgotten", "capacity or nothing lost",
        "a connect hangs after a good one", BACKGROUND,
        "        if entry.connection is None:\n",
        "        if entry.connection is None or entry.state is not OPENING:\n",
    ),
    Mutant(
        "a failed connect is kept from the ledger", "nothing lost", "it fails and is tried again", BACKGROUND,
        "            pool._tell(pool._ledger.failed, entry, bearer=errand, error=error, answered=answered)\n",
        "",
    ),
    Mutant(
        "back on the shelf while it is asked", "one holder", "silent ones are asked after", BACKGROUND,
        "        alive = False\n"
        "        try:\n"
        "            alive = pool._upkeep.fit(entry, entry.autocommit, math.inf, ask=True)\n"
        "        finally:\n"
        "            pool._tell(pool._ledger.asked, entry, bearer=errand, alive=alive)\n",
        "        pool._tell(pool._ledger.asked, entry, bearer=errand, alive=True)\n"
        "        pool._upkeep.fit(entry, entry.autocommit, math.inf, ask=True)\n",
    ),
    Mutant(
        "the scheduler closes what it retires", "outside the lock", "the fewest are kept", BACKGROUND,
        "            self._work(functools.partial(pool._do, jobs))\n",
        "            pool._do(jobs)\n",
    ),
    Mutant(
        "the keeper holds the pool", "gone at once", "a pool is dropped with jobs in the queue", BACKGROUND,
        "        self._pool = weakref.ref(pool)\n",
        "        self._pool = lambda: pool\n",
    ),
]
# fmt: on
