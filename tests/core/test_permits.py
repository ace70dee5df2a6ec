"""Do pools that share permits keep their promises, whatever happens in whatever order? And is each rule needed?

``sharing.py`` says what can happen, and what must hold.
"""

from __future__ import annotations

import math
import weakref
from typing import Any, NamedTuple

import pytest

from tests.core.promises import Broken
from tests.core.sharing import Sharing
from tests.core.walk import Edit, load
from threadpool_db.core.ledger import Ledger
from threadpool_db.core.line import Ticket
from threadpool_db.core.permits import SharedPermits
from threadpool_db.core.rules import Rules
from threadpool_db.core.sizing import Counts, Elastic

WORLDS: dict[str, tuple[int, list[dict[str, Any]]]] = {
    "one permit": (1, [{}, {}]),
    "two permits for three": (2, [{}, {"max_size": 1}, {"order": "fifo"}]),
    "a minimum": (3, [{}, {"background": True, "min_size": 1}, {}]),
    "with a keeper": (2, [{"background": True}, {"background": True, "max_connecting": 1}]),
    "many": (4, [{"background": True, "max_size": 3}, {"max_size": 3}, {"background": True, "min_idle": 1}, {}]),
}
SEEDS = range(25)


@pytest.mark.parametrize("name", WORLDS)
def test_whatever_happens_the_promises_hold(name: str) -> None:
    limit, pools = WORLDS[name]
    served = passed_on = 0
    core = load()
    for seed in SEEDS:
        world = Sharing(core, limit, pools, seed)
        world.play(150)
        served, passed_on = served + world.served, passed_on + world.permits.passed_on
    assert served > 500 and passed_on > 25


class Mutant(NamedTuple):
    name: str
    by: str
    room: str
    old: str
    new: str
    world: str = "one permit"


PERMITS, KEEPING, LEDGER, SHORTWAYS = "permits", "keeping", "ledger", "shortways"

MUTANTS = [
    Mutant(
        "there is always one left", "the cap", PERMITS,
        "max(0, self.limit - self.used)\n        if", "1\n        if",
    ),
    Mutant(
        "whoever asks gets it", "oldest first", PERMITS,
        "if not left or not any(one is ledger for _, one in self._needs(now)[:left]):", "if not left:",
        "two permits for three",
    ),
    Mutant(
        "a minimum is taken, too", "minimum", PERMITS,
        "<= ledger.rules.min_size", "<= 0", "a minimum",
    ),
    Mutant(
        "whoever has just lost one loses the next", "spared", PERMITS,
        "or now < self._spared_until(ledger):", "or False:", "two permits for three",
    ),
    Mutant(
        "what is idle is never spared", "spared", PERMITS,
        "                if now < until:", "                if False:", "two permits for three",
    ),
    Mutant(
        "what lies unused is spared, too", "no hoard", PERMITS,
        "            if entry.last_used > ledger.gave_up_at:", "            if True:", "many",
    ),
    Mutant(
        "who has waited less is let through", "patience", PERMITS,
        "or needs[provided][0] >= since:", "or needs[provided][0] == math.inf:", "many",
    ),
    Mutant(
        "who has one to wait for takes a neighbour's idle one", "patience", PERMITS,
        "            if since > now:\n", "            if False:\n", "with a keeper",
    ),
    Mutant(
        "nobody looks when patience ends", "looks again", PERMITS,
        "self._look_again(waits, since, now)", "self._look_again(waits, math.inf, now)",
        "two permits for three",
    ),
    Mutant(
        "who looks too late is enough", "looks again", PERMITS,
        "not now < looker.due <= moment:", "not now < looker.due:", "with a keeper",
    ),
    Mutant(
        "who has none to wait for is to be patient too", "no hoard", PERMITS,
        "            return 0.0  # there is none to wait for", "            pass",
    ),
    Mutant(
        "an idle one is spared to the end", "looks again", PERMITS,
        "until = min(self._spared_until(ledger), entry.last_used + while_warm)", "until = self._spared_until(ledger)",
        "many",
    ),
    Mutant(
        "one is closed for each who asks, and for him again", "closed for need", PERMITS,
        "return used, max(0, self.limit - used) + closing", "return used, 0", "two permits for three",
    ),
    Mutant(
        "what was given up is waited for", "no hoard", PERMITS,
        "entry.state is CLOSING and not entry.given_up", "entry.state is CLOSING", "with a keeper",
    ),
    Mutant(
        "who has a connect under way counts again", "looks again", PERMITS,
        "covered = ledger.opening if ledger.rules.background else 0", "covered = 0", "a minimum",
    ),
    Mutant(
        "the one used last is closed", "coldest first", PERMITS,
        "entry.last_used < found[0].last_used:", "entry.last_used > found[0].last_used:", "many",
    ),
    Mutant(
        "the warmest of a pool is closed", "coldest first", LEDGER,
        "self.idle[0 if self._sign > 0 else -1]", "self.idle[-1]", "many",
    ),
    Mutant(
        "a permit that comes free is offered to nobody", "no hoard", PERMITS,
        "                yield first, first.tick(now)\n", "                return\n",
    ),
    Mutant(
        "nobody looks when it may be had again", "looks again", PERMITS,
        "                if moment < math.inf:\n", "                if False:\n", "two permits for three",
    ),
    Mutant(
        "a head that sleeps is not told when to look", "looks again", LEDGER,
        "        elif (head := self.line.head) is not None and head.wake_at > moment:\n", "        elif False:\n",
        "two permits for three",
    ),
    Mutant(
        "the short way on passes those by who wait elsewhere", "oldest first", SHORTWAYS,
        "        or ledger.rivals\n", "", "two permits for three",
    ),
    Mutant(
        "the short way back passes them by", "no hoard", SHORTWAYS,
        "if ledger.line or ledger.rivals or ", "if ledger.line or ",
    ),
    Mutant(
        "what was opened for somebody is closed for another", "closed for need", KEEPING,
        "entry.last_used > entry.opened_at  #", "True  #", "with a keeper",
    ),
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_promises_find(mutant: Mutant) -> None:
    core = load([Edit(mutant.room, mutant.old, mutant.new)])
    limit, pools = WORLDS[mutant.world]
    with pytest.raises(Broken) as broken:
        for seed in range(400):
            Sharing(core, limit, pools, seed).play(150)
    assert broken.value.promise == mutant.by, str(broken.value)


def test_no_two_mutants_are_the_same() -> None:
    assert len({(mutant.room, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)


class Never(Elastic):
    """Opens none."""

    def may_open(self, counts: Counts, now: float) -> bool:
        return False


@pytest.mark.parametrize("why", ["nothing", "paused", "its sizing", "a pause after a failed connect"])
def test_for_who_may_not_open_one_nothing_is_closed(why: str) -> None:
    permits = SharedPermits(1)
    other, ledger = (
        Ledger(Rules(), permits=permits),
        Ledger(Rules(), Never() if why == "its sizing" else None, permits=permits),
    )
    first = Ticket()
    other.join(first, 1.0)
    assert first.entry is not None
    other.opened(first.entry, 1.1, first)
    other.checkin(first.entry, 1.2)
    if why == "paused":
        ledger.pause(1.3)
    if why == "a pause after a failed connect":
        ledger.reach.retry_at = 9.0
    ledger.join(Ticket(), 1.4)
    permits.rivals[weakref.ref(ledger)] = None  # as one that was refused before that
    assert len([*permits.settle(2.0)]) == (why == "nothing")
    assert bool(other.idle) is (why != "nothing")


def test_who_has_a_connect_under_way_for_all_that_wait_is_no_rival() -> None:
    permits = SharedPermits(2)
    ledger = Ledger(Rules(background=True), permits=permits)
    ledger.join(Ticket(), 1.0)
    assert ledger.opening == 1 and permits.rivals
    assert [*permits.settle(1.0)] == [] and not permits.rivals


@pytest.mark.parametrize(
    ("background", "due", "told"), [(True, 5.0, False), (True, 9.5, True), (True, 0.5, True), (False, 5.0, True)]
)
def test_where_somebody_looks_in_time_nobody_else_is_told_to(background: bool, due: float, told: bool) -> None:
    permits = SharedPermits(1)
    first, other = (
        Ledger(Rules(background=background), permits=permits),
        Ledger(Rules(background=True), permits=permits),
    )
    assert len([*permits._look_again(first, 5.0, 1.0)]) == 1
    first.due = due
    assert len([*permits._look_again(other, 9.0, 1.0)]) == told and other.due == (9.0 if told else math.inf)
