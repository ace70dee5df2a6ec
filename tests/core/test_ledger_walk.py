"""Every reachable state of small worlds, each with other rules: is there one in which a promise is broken?

``world.py`` says what can happen in them, ``promises.py`` what must hold.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.setting import Setting
from tests.core.walk import load, walk

AGES = {"ping_after": 1, "max_idle": 2}
BACK: dict[str, Any] = {"background": True}
KEPT: dict[str, Any] = {"keeps": True, **BACK}
WITHIN: dict[str, Any] = {"recycles_within": True, **BACK}
SLOWLY = (1.0, 2.0)
OUT: dict[str, Any] = {"backoff": SLOWLY, "grace": 1}
SOJOURN = "Sojourn(1, target=1, interval=1, idle=1, sample=1, draw=half)"
ALL_TIMES = {"ping_after": 1, "max_idle": 2, "max_lifetime": 3}
NOT_HERE = frozenset({"clear", "detach"})  # tried in other worlds, where they cost less
NO_ENDS = frozenset({"recycle", "clear", "close", "detach"})
SELDOM = NO_ENDS | {"discard", "snatch", "dead, gone", "failed, gone", "connect given up", "opened too late", "failed"}

SETTINGS = [
    Setting("two slots"),
    Setting("fifo, one connect at a time", order="fifo", max_connecting=1),
    Setting("one may wait", max_waiting=1),
    Setting("no retry of connects", backoff=None),
    Setting("backoff", callers=3, backoff=SLOWLY, leave_out=NO_ENDS),
    Setting("silence", callers=3, max_connecting=1, leave_out=NO_ENDS, **AGES),
    Setting("lifetimes", callers=3, max_connecting=1, ping_after=2, max_lifetime=1, leave_out=NOT_HERE),
    Setting("fixed", callers=2, sizing="Fixed()", leave_out=NOT_HERE, **AGES),
    Setting("a smallest size, fifo", callers=2, min_size=1, order="fifo", leave_out=NO_ENDS, **ALL_TIMES),
    Setting("overflow", sizing="Overflow(1, 0)", max_waiting=2),
    Setting("overflow and silence", callers=2, sizing="Overflow(1, 0)", **AGES),
    Setting("two uses each", max_uses=2),
    Setting("a budget shared with an outsider", callers=3, shared=True, leave_out=NOT_HERE),
    # the rest have somebody who connects in the background, and ticks when something is due, and only then
    Setting("background", **BACK),
    Setting("background, fifo, one connect at a time", callers=3, order="fifo", max_connecting=1, **BACK),
    Setting("background, one may wait", callers=3, max_waiting=1, **BACK),
    Setting("background, no retry of connects", callers=3, backoff=None, **BACK),
    Setting("background, backoff", callers=2, backoff=SLOWLY, leave_out=NOT_HERE, **BACK),
    Setting("two kept connected", callers=2, min_size=2, backoff=SLOWLY, leave_out=NOT_HERE, **BACK),
    Setting("one kept connected, silence", callers=2, min_size=1, max_idle=1, leave_out=NOT_HERE, **BACK),
    Setting("one kept idle, silence", callers=2, min_idle=1, max_idle=1, leave_out=NOT_HERE, **BACK),
    Setting("one kept idle", callers=2, min_idle=1, max_connecting=1, backoff=SLOWLY, leave_out=NOT_HERE, **BACK),
    Setting("kept alive", callers=2, keepalive=1, asked_at_once=1, leave_out=NOT_HERE, **BACK),
    Setting("kept alive, one connect at a time", callers=2, keepalive=2, max_connecting=1, leave_out=NO_ENDS, **BACK),
    Setting("kept alive and idle", callers=2, keepalive=1, min_idle=1, leave_out=NO_ENDS, **BACK),
    Setting("recycled within", callers=2, max_connecting=1, max_lifetime=2, leave_out=NO_ENDS, **WITHIN),
    Setting("background, overflow", callers=3, sizing="Overflow(1, 0)", min_idle=1, leave_out=NOT_HERE, **BACK),
    Setting("a deadline", callers=2, max_lease=2, leave_out=NO_ENDS - {"close"}, **KEPT),
    Setting("leaks and a deadline", callers=2, leak_after=2, max_lease=3, max_connecting=1, leave_out=NOT_HERE, **KEPT),
    Setting("questions", callers=2, inactive_after=2, max_connecting=1, leave_out=NO_ENDS, **KEPT),
    Setting("a deadline and silence", callers=2, max_lease=2, keepalive=2, **AGES, leave_out=NO_ENDS, **BACK),
    Setting("out of reach", callers=2, leave_out=NOT_HERE, **OUT),
    Setting("out of reach, background", callers=2, leave_out=NOT_HERE, **OUT, **BACK),
    Setting("out of reach, one at a time", callers=2, max_connecting=1, leave_out=NO_ENDS, **OUT | {"grace": 2}),
    Setting("out of reach, one slot", callers=2, max_size=1, leave_out=NO_ENDS - {"close"}, **OUT, **BACK),
    Setting("out of reach, patient", callers=2, max_size=1, leave_out=NO_ENDS, **OUT | {"grace": 2}, **BACK),
    Setting("out of reach, slow to try", callers=2, max_size=1, backoff=(2.0, 2.0), grace=1, leave_out=NO_ENDS, **BACK),
    Setting("out of reach, one kept", callers=2, max_connecting=1, min_size=1, leave_out=NO_ENDS, **OUT, **BACK),
    # with an operator
    Setting("paused", callers=3, pauses=True, leave_out=NOT_HERE),
    Setting("paused, backoff", callers=2, pauses=True, backoff=SLOWLY, leave_out=NO_ENDS),
    Setting("paused, background", callers=2, pauses=True, **OUT, leave_out=NO_ENDS, **BACK),
    Setting(
        "paused, kept ready",
        callers=2,
        max_connecting=1,
        pauses=True,
        min_size=1,
        keepalive=1,
        leave_out=NO_ENDS,
        **BACK,
    ),
    Setting("resized", callers=3, resizes=True, leave_out=NOT_HERE),
    Setting("resized, silence", callers=2, resizes=True, ping_after=2, leave_out=NO_ENDS),
    Setting("resized, background", callers=3, resizes=True, leave_out=NO_ENDS, **BACK),
    Setting("resized, paused, kept ready", callers=2, resizes=True, pauses=True, min_size=1, leave_out=NO_ENDS, **BACK),
    # under load
    Setting("impatient", callers=3, max_size=1, patience=1, leave_out=NOT_HERE),
    Setting("impatient, background", callers=3, max_size=1, patience=1, leave_out=NOT_HERE, **BACK),
    Setting("shedding", callers=3, max_size=1, shed=(0.5, 1), leave_out=SELDOM, **BACK),
    Setting("shedding, no keeper", callers=3, max_size=1, shed=(0.5, 1), leave_out=SELDOM),
    Setting("shedding, paused", callers=2, max_size=1, shed=(0.5, 1), pauses=True, leave_out=SELDOM, **BACK),
    Setting("lingering", callers=2, sizing="Overflow(1, 2)", linger=2, leave_out=NOT_HERE, **BACK),
    Setting(
        "lingering, kept idle", callers=2, sizing="Overflow(1, 2)", linger=2, min_idle=1, leave_out=NO_ENDS, **BACK
    ),
    Setting("background, a shared budget", callers=2, shared=True, min_idle=1, leave_out=NO_ENDS, **BACK),
]

#: The pace of Sojourn makes moments between the steps of time, and worlds without an end: the first states of them.
ENDLESS = [
    Setting("sojourn", callers=3, sizing=SOJOURN, linger=1, leave_out=SELDOM, **BACK),
    Setting("sojourn, no keeper", callers=3, sizing=SOJOURN, linger=1, leave_out=SELDOM),
]

LARGE = [
    Setting("silence", max_connecting=1, leave_out=NOT_HERE, **AGES),
    Setting("lifetimes", max_connecting=1, ping_after=2, max_lifetime=1, leave_out=NOT_HERE),
    Setting("a budget", shared=True, leave_out=NOT_HERE),
    Setting("backoff", callers=3, backoff=SLOWLY),
    Setting("everything in time", max_connecting=1, **ALL_TIMES),
    Setting("everything in time, two connects, backoff", callers=3, backoff=SLOWLY, **ALL_TIMES),
    Setting("fixed", callers=4, sizing="Fixed()", **ALL_TIMES),
    Setting("a smallest size, fifo", min_size=1, order="fifo", **ALL_TIMES),
    Setting("overflow in time", sizing="Overflow(1, 0)", max_waiting=1, **ALL_TIMES),
    Setting("a budget and silence", shared=True, max_connecting=1, **AGES),
    Setting("backoff and silence", callers=4, max_connecting=1, backoff=SLOWLY, ping_after=1),
    Setting("three slots", max_size=3, max_connecting=2),
    Setting("background and everything in time", callers=3, backoff=SLOWLY, keepalive=1, **ALL_TIMES, **WITHIN),
    Setting("background, three slots", max_size=3, min_idle=1, min_size=2, **BACK),
    Setting("a sloppy keeper", callers=3, min_size=1, min_idle=1, punctual=False, backoff=SLOWLY, max_idle=1, **BACK),
    Setting("kept alive, silence", callers=3, keepalive=2, ping_after=1, max_connecting=1, **BACK),
    Setting("kept alive, three slots", max_size=3, callers=3, keepalive=1, min_idle=1, leave_out=NOT_HERE, **BACK),
    Setting("two kept connected, one idle", callers=3, min_size=2, min_idle=1, max_idle=2, backoff=SLOWLY, **BACK),
    Setting("background, a budget, silence", callers=3, shared=True, min_idle=1, max_idle=1, **BACK),
    Setting("all limits of a lease", max_lease=4, leak_after=2, inactive_after=1, callers=2, **KEPT),
    Setting("out of reach", callers=3, backoff=SLOWLY, grace=2),
    Setting("out of reach, background", callers=3, backoff=SLOWLY, grace=2, **BACK),
    Setting("a deadline in time", callers=3, max_lease=2, max_connecting=1, **KEPT),
    Setting("a deadline and all ages", callers=2, max_lease=2, leak_after=1, keepalive=1, **ALL_TIMES, **KEPT),
    Setting("background, overflow in time", callers=3, sizing="Overflow(1, 0)", min_idle=1, **ALL_TIMES, **BACK),
]


#: They take longest; in CI their mutants alone walk there.
LONG = {
    "leaks and a deadline", "shedding, no keeper", "sojourn, no keeper", "a smallest size, fifo", "questions",
    "a deadline and silence", "a budget shared with an outsider",
}  # fmt: skip


def worlds(settings: list[Setting]) -> list[Any]:
    return [pytest.param(each, marks=pytest.mark.proof if each.name in LONG else (), id=each.name) for each in settings]


@pytest.mark.parametrize("setting", worlds(SETTINGS))
def test_every_reachable_state_keeps_the_promises(setting: Setting) -> None:
    walked = walk(setting, load())
    assert walked.transitions > walked.states > 50


@pytest.mark.parametrize("setting", worlds(ENDLESS))
def test_the_first_states_of_endless_worlds_keep_them(setting: Setting) -> None:
    assert walk(setting, load(), most_states=4_000).states > 4_000


@pytest.mark.proof
@pytest.mark.parametrize("setting", LARGE, ids=lambda setting: setting.name)
def test_every_reachable_state_of_larger_worlds_keeps_them_too(setting: Setting) -> None:
    walk(setting, load())
