"""Which mistakes must the explorer notice? One change of the shell's source each, and the promise that catches it."""

from __future__ import annotations

from typing import NamedTuple

from tests.core.walk import Edit

POOL, BORROWING, RETURNING, ORDERS = "pool", "borrowing", "returning", "orders"
WAITING, LEASE, AFTERMATH = "waiting", "lease", "aftermath"


class Mutant(NamedTuple):
    """``by``: the promise that must catch it, in ``scenario``; where it depends on the bytecode, ``this or that``."""

    name: str
    by: str
    scenario: str
    room: str
    old: str
    new: str

    @property
    def edits(self) -> list[Edit]:
        return [Edit(self.room, self.old, self.new)]


# fmt: off
MUTANTS = [
    # --- wakes
    Mutant(
        "a hand-over wakes nobody", "no lost wake-up", "three on one again and again", POOL,
        "        waiter.claim, entry.claim = entry.claim, None\n"
        "        waiter.gate.open()\n",
        "        waiter.claim, entry.claim = entry.claim, None\n",
    ),
    Mutant(
        "orders wake nobody", "no lost wake-up", "some are discarded", ORDERS,
        "        ticket.gate.open()\n",
        "        pass\n",
    ),
    Mutant(
        "a close finishes without telling whom it frees", "no lost wake-up", "some are discarded", ORDERS,
        "pool._decide(pool._ledger.closed_one, entry, bearer=errand, jobs=jobs, apart=shared)\n",
        "pool._ledger.closed_one(entry, pool._now())\n",
    ),
    Mutant(
        "a note pokes nobody", "no lost wake-up", "a lease is dropped", WAITING,
        "        open_head(self._line)\n",
        "        pass\n",
    ),
    Mutant(
        "who lies down forgets the mailbox", "no lost wake-up", "a lease is dropped", BORROWING,
        "            if not pool._mailbox.notes:\n"
        "                waiter.gate.sleep",
        "            if True:\n"
        "                waiter.gate.sleep",
    ),
    Mutant(
        "who is woken for a note does not read it", "no deadlock", "a lease is dropped", BORROWING,
        "            pool._tell(self._ledger.tick, apart=True)\n",
        "            pass\n",
    ),
    Mutant(
        "a hand-over takes the poked one away, and leaves the note",
        "no lost wake-up", "one is dropped one is given back", RETURNING,
        "    if pool._mailbox.notes:\n"
        "        pool._tell(pool._ledger.tick)  #",
        "    if False:\n"
        "        pass  #",
    ),
    Mutant(
        "a drained pool tells nobody", "no lost wake-up", "closed while they work", ORDERS,
        "    pool._onlookers.open()\n    if interrupt",
        "    if interrupt",
    ),
    # --- who waits, and how long
    Mutant(
        "whoever gives up leaves his ticket", "nothing to mend", "a timeout meets a hand over", BORROWING,
        "            if late:\n"
        "                self._pool._tell(self._leave, apart=True)\n",
        "            if late:\n"
        "                waiter.refuse(None)\n",
    ),
    Mutant(
        "the time starts anew with every sleep", "bounded wait", "it fails and comes back", BORROWING,
        "min(self._deadline, waiter.wake_at, self._patrol_at)",
        "min(self._clock.now() + self._timeout, waiter.wake_at, self._patrol_at)",
    ),
    Mutant(
        "a waiter sleeps through its hour to look again", "no needless waiting", "it fails and comes back", BORROWING,
        "min(self._deadline, waiter.wake_at, self._patrol_at)",
        "min(self._deadline, self._patrol_at)",
    ),
    Mutant(
        "who joins takes the lock in two steps", "never trips", "three on one again and again", BORROWING,
        "                return False\n"
        "            self._lie_down()\n"
        "        self._doze()\n",
        "                return False\n"
        "        waiter.holder.waiting = True\n"
        "        self._doze()\n",
    ),
    # --- who may have it
    Mutant(
        "the claim is taken without the lock", "one holder or never trips", "a lease given back by two", POOL,
        "            first = lease._claim is not None\n",
        "            first = True\n",
    ),
    Mutant(
        "cleaned before the lease is claimed", "one holder", "a dirty lease given back by two", POOL,
        "        except Exception:\n"
        "            settled = False\n"
        "        inside, clock, acquire, _, give, release, _ = self._at_hand\n",
        "        except Exception:\n"
        "            settled = False\n"
        "        settled = settled or self._upkeep.clean(entry, error)\n"
        "        inside, clock, acquire, _, give, release, _ = self._at_hand\n",
    ),
    Mutant(
        "closed before the lease is claimed",
        "closed once or one holder or capacity", "a lease discarded by two", RETURNING,
        "    ended = lease._claim is None\n"
        "    errand = _end(pool, lease)\n",
        "    ended = lease._claim is None\n"
        "    if not ended:\n"
        "        pool._upkeep.close(lease._claim.entry)\n"
        "    errand = _end(pool, lease)\n",
    ),
    Mutant(
        "a dead one's borrower takes no place", "in order", "dead on look", BORROWING,
        "waiter.arrival, waiter.since = arrival, dead.entry.taken_at",
        "waiter.since = dead.entry.taken_at",
    ),
    Mutant(
        "what is handed on is not looked at", "looked at", "one dies while they wait", BORROWING,
        "pool._upkeep.fit(\n"
        "                    claim.entry, self._autocommit, self._ready_by, ask=waiter.step is PING\n"
        "                ):",
        "True:",
    ),
    Mutant(
        "given back before it is clean", "one holder", "dirty ones are cleaned", RETURNING,
        "        reusable = pool._upkeep.clean(entry, error)\n"
        "    finally:\n"
        "        pool._tell(pool._ledger.checkin, entry, bearer=errand, reusable=reusable)\n",
        "        pool._tell(pool._ledger.checkin, entry, bearer=errand, reusable=True)\n"
        "    finally:\n"
        "        reusable = pool._upkeep.clean(entry, error)\n",
    ),
    # --- slots
    Mutant(
        "the slot is free before the close", "capacity", "some are discarded", ORDERS,
        "    try:\n"
        "        error = pool._upkeep.close(entry)\n",
        "    pool._decide(pool._ledger.closed_one, entry, bearer=errand, jobs=jobs)\n"
        "    try:\n"
        "        error = pool._upkeep.close(entry)\n",
    ),
    Mutant(
        "closing inside the lock", "outside the lock", "some are discarded", ORDERS,
        "    interrupt: BaseException | None = None\n"
        "    while jobs:\n"
        "        try:\n"
        "            pool._onlookers.open()\n"
        "            jobs.popleft()()\n"
        "        except BaseException as failure:\n"
        "            interrupt = interrupt or failure  # a job left undone would be a slot lost: first the rest\n",
        "    interrupt: BaseException | None = None\n"
        "    with pool._lock:\n"
        "        while jobs:\n"
        "            jobs.popleft()()\n",
    ),
    Mutant(
        "what was opened too late is closed, and its slot kept",
        "nothing to mend or nothing lost", "connects are slow", BORROWING,
        "            pool._tell(self._ledger.opened, entry, bearer=waiter, ticket=None if late else waiter)\n",
        "            if late:\n"
        "                pool._upkeep.close(entry)\n"
        "            else:\n"
        "                pool._tell(self._ledger.opened, entry, bearer=waiter, ticket=waiter)\n",
    ),
    Mutant(
        "a failed connect is told to nobody", "nothing lost", "never connected", BORROWING,
        "            pool._tell(self._ledger.failed, entry, bearer=waiter, error=error, ticket=ticket, "
        "answered=answered)\n",
        "",
    ),
    Mutant(
        "a lost lease is read only by its looks", "nothing lost", "a lease is dropped", AFTERMATH,
        "        elif note.state is not IDLE and note.state is not GONE and not held(note)",
        "        elif note.claim",
    ),
    Mutant(
        "a claim goes without a word", "nothing lost", "a thread ends with its lease", LEASE,
        "mailbox.post(entry)",
        "id(entry)",
    ),
    Mutant(
        "detached, and still in the pool", "closed once", "some are detached", RETURNING,
        "        pool._tell(pool._ledger.detach, entry, bearer=errand)\n",
        "        pool._tell(pool._ledger.checkin, entry, bearer=errand)\n",
    ),
]

#: What only a strike finds.
STRUCK_MUTANTS = [
    Mutant(
        "a finaliser gives back as if nobody were inside", "nothing to mend or never trips or no needless waiting",
        "garbage amid connects", POOL,
        "        if inside():\n"
        "            # somebody's finaliser",
        "        if False:\n"
        "            # somebody's finaliser",
    ),
]
# fmt: on
