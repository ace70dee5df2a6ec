"""An interrupt between any two lines of the ledger: does an audit mend all that it leaves? See ``interrupts.py``.

Each rule of the audit is dropped once, too, and the same search must find that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from tests.core.interrupts import strike_everywhere
from tests.core.promises import Broken
from tests.core.setting import Setting
from tests.core.walk import Edit, load

BACK: dict[str, Any] = {"background": True}
ENDS = frozenset({"clear", "detach", "recycle", "close"})
RARE = ENDS | {"snatch"}
RETRY = (1.0, 1.0)
TO_OLD_PLACES = ENDS | {"take", "snatch", "leave", "give", "checkin", "discard", "dead, gone", "failed, gone", "failed"}

SMALL = [
    Setting("one slot", callers=2, max_size=1, leave_out=frozenset({"clear", "detach"})),
    Setting("one slot, backoff", callers=2, max_size=1, backoff=RETRY, leave_out=ENDS),
    Setting("overflow", callers=2, sizing="Overflow(1, 0)", leave_out=RARE | {"discard", "dead, gone"}),
    Setting("silence", callers=1, max_size=1, ping_after=1, max_idle=2, leave_out=ENDS),
    Setting("three old places", callers=3, max_size=3, max_connecting=3, leave_out=TO_OLD_PLACES | {"opened too late"}),
    Setting("background", callers=2, max_size=1, leave_out=frozenset({"clear", "detach"}), **BACK),
    Setting("background, kept alive", callers=1, max_size=1, min_idle=1, keepalive=1, leave_out=ENDS, **BACK),
    Setting("one slot, paused", callers=2, max_size=1, pauses=True, leave_out=RARE | {"dead, gone", "failed, gone"}),
    Setting("background, a deadline", callers=1, max_size=1, max_lease=2, leak_after=1, leave_out=RARE, **BACK),
]

LARGE = [
    Setting("background, filled", callers=1, min_size=1, backoff=RETRY, leave_out=RARE | {"discard"}, **BACK),
    Setting("one slot for three", callers=3, max_size=1),
    Setting("silence, two slots", callers=2, max_connecting=1, ping_after=1, max_idle=2, leave_out=RARE),
    Setting("background, backoff", callers=2, max_connecting=1, backoff=RETRY, **BACK),
    Setting("background, two kept alive", callers=1, keepalive=1, leave_out=RARE, **BACK),
    Setting("background, a deadline for two", callers=2, max_size=1, max_lease=2, leave_out=ENDS, **BACK),
]


#: They take as long as all others together.
LONG = {"overflow", "silence"}


@pytest.mark.parametrize(
    "setting",
    [pytest.param(one, marks=pytest.mark.proof if one.name in LONG else (), id=one.name) for one in SMALL],
)
def test_wherever_an_interrupt_strikes_an_audit_mends_it(setting: Setting) -> None:
    assert strike_everywhere(setting, load()) > 3000


@pytest.mark.proof
@pytest.mark.parametrize("setting", LARGE, ids=lambda setting: setting.name)
def test_in_larger_worlds_too(setting: Setting) -> None:
    assert strike_everywhere(setting, load()) > 10_000


@pytest.mark.proof
@pytest.mark.parametrize("setting", SMALL, ids=lambda setting: setting.name)
def test_and_between_any_two_bytecodes(setting: Setting) -> None:
    assert strike_everywhere(setting, load(), grain="opcode") > 10_000


class Mutant(NamedTuple):
    name: str
    by: str
    old: str
    new: str
    world: str = "one slot"


LOSES = "        lose(ledger, entry, now, orders)\n"

MUTANTS = [
    Mutant(
        "nobody sorts out the shelf", "one holder",
        "    _sort_out_shelf(ledger)\n", "",
    ),
    Mutant(
        "who was served stays in line", "in order",
        "        del ledger.line[ticket]  # served, and still in line\n", "",
    ),
    Mutant(
        "gone ones are still counted", "one holder",
        "        ledger.entries.discard(entry)\n        ledger.mended += 1\n", "        pass\n",
    ),
    Mutant(
        "nobody counts anew", "counts",
        "    _count_anew(ledger)\n", "",
    ),
    Mutant(
        "a pause that was not carried out is not missed", "paused",
        "    if ledger.paused and ledger.idle:\n", "    if False:\n", "one slot, paused",
    ),
    Mutant(
        "what is nobody's stays so", "one holder",
        LOSES + "    if", "        pass\n    if",
    ),
    Mutant(
        "what is somebody's is closed", "audit",
        " and not held(entry)]", "]",
    ),
    Mutant(
        "a plan that was not made is not missed", "on time",
        "    ledger.due = min(ledger.due, next_due(ledger, now))\n", "    pass\n", "background, filled",
    ),
    Mutant(
        "the line stands as it was left", "in order",
        "            ledger.line.move_to_end(ticket)\n", "            pass\n", "three old places",
    ),
    Mutant(
        "an answer is still waited for", "counts",
        "    ledger.asking.discard(entry)\n", "", "background, kept alive",
    ),
    Mutant(
        "a lost lease is not let go of", "one holder",
        "        ledger.use_times.add(now - entry.taken_at)\n        ledger.let_go(entry, orders)\n",
        "        ledger.use_times.add(now - entry.taken_at)\n",
    ),
    Mutant(
        "a close that was not ordered is not ordered again", "one holder",
        "        orders.close.append(entry)\n", "        pass\n",
    ),
    Mutant(
        "an empty slot is closed", "counts",
        "        ledger.abandon(entry)\n", "        ledger.let_go(entry, orders)\n",
    ),
    Mutant(
        "an empty slot is not given up", "one holder",
        "        ledger.abandon(entry)\n", "        pass\n",
    ),
    Mutant(
        "what was just opened is forgotten", "closed once",
        "entry.state is OPENING and entry.connection is None:", "entry.state is OPENING:",
    ),
    Mutant(
        "what was just opened still counts as opening", "counts",
        "        ledger.opening -= 1\n", "",
    ),
    Mutant(
        "what is not idle stays on the shelf", "one holder",
        "        ledger.idle.remove(entry)\n        ledger.mended += 1\n", "        pass\n",
    ),
    Mutant(
        "what fell from the shelf is not put back", "one holder",
        "        ledger.idle.insert(bisect_right(ledger.idle, ledger.rank(entry), key=ledger.rank), entry)\n", "",
    ),
    Mutant(
        "the connects are not counted", "counts",
        "    opening = sum(entry.state is OPENING for entry in ledger.entries)\n", "    opening = ledger.opening\n",
    ),
    Mutant(
        "the closings are not counted", "counts",
        "    closing = sum(entry.state is CLOSING for entry in ledger.entries)\n", "    closing = ledger.closing\n",
    ),
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_an_audit_without_one_of_its_rules_is_found_out(mutant: Mutant) -> None:
    worlds = {setting.name: setting for setting in SMALL + LARGE}
    with pytest.raises(Broken) as broken:
        strike_everywhere(worlds[mutant.world], load([Edit("audit", mutant.old, mutant.new)]))
    assert broken.value.promise == mutant.by, str(broken.value)
