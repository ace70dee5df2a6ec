"""What must hold of leases with a limit? More promises on a world, named as those in ``promises.py``:

taken away          a use that lasts ``max_lease`` is ended then, and not before, and never what its thread only keeps;
                    it is reported, cut and ordered closed, once each
leaks               a use that lasts ``leak_after`` is reported then, and not before, once
questions           whether it is silent is asked of a use not before ``inactive_after``, and from then on at least as
                    often
on time             whoever ticks only at ``due`` is never late for any of these, in a closed pool neither
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.core.promises import Broken
from tests.core.setting import CUT, KEPT

if TYPE_CHECKING:
    from tests.core.world import World


def reports(world: World, name: str, orders: Any) -> None:
    """Right after an event, before the other promises: what was reported and taken away?"""
    in_use = {caller.has: caller for caller in world.callers if caller.has is not None and caller.mode != KEPT}
    told = Counter() if orders is None else Counter((report.kind, report.entry) for report in orders.reports)
    for (kind, entry), times in told.items():
        if entry not in in_use:
            raise Broken("one holder", f"{kind!r} is said of a connection that nobody uses")
        if times != 1:
            raise Broken("leaks" if kind == "leak" else "taken away", f"{kind!r} is said {times} times")
    for report in () if orders is None else orders.reports:
        said(world, *report)
    cut = [] if orders is None else orders.cut
    for entry in {*cut, *(entry for entry in in_use if entry.word == "closing")}:
        if (cut.count(entry), orders.close.count(entry), told["expired", entry]) != (1, 1, 1):
            raise Broken("taken away", f"cut {cut.count(entry)} times, closed {orders.close.count(entry)} times")
        find_cut(world, in_use[entry], entry)
    if name == "tick" and world.ledger.due <= world.now:
        raise Broken("on time", f"it is {world.now}, and {world.ledger.due} is still due")


def said(world: World, kind: str, entry: Any, seconds: float) -> None:
    setting, used = world.setting, world.now - entry.begun
    if kind == "quiet?":
        promise, limit = "questions", setting.inactive_after
        entry.questioned = world.now
    elif kind == "leak":
        promise, limit = "leaks", setting.leak_after
        if entry.leaked:
            raise Broken(promise, "said again")
        entry.leaked = True
    else:
        promise, limit = "taken away", setting.max_lease
        if kind != "expired":
            raise Broken("one holder", f"{kind!r} is said of a connection in use")
    if seconds != used or used < limit:
        raise Broken(promise, f"{kind!r} after {seconds} is said after {used}")


def find_cut(world: World, caller: Any, entry: Any) -> None:
    """Whatever he was about to do with it is nothing to the ledger any more."""
    world.returned += 1
    world.use_time += world.now - entry.lent_at
    caller.mode, caller.entry = CUT, None
    if caller.ticket is not None:
        caller.ticket.entry = None


def in_time(world: World) -> None:
    setting, now = world.setting, world.now
    if world.ledger.due <= now:
        return
    for caller in world.callers:
        entry = caller.has
        if entry is None or entry.word != "leased" or caller.mode == KEPT:
            continue
        # silence may begin at any moment of a use; so the first question may be late by as much as all others
        last_question = max(entry.questioned, entry.begun + setting.inactive_after)
        for late, what in (
            (now - entry.begun >= setting.max_lease, "should be taken away"),
            (now - entry.begun >= setting.leak_after and not entry.leaked, "should be reported"),
            (now - last_question >= setting.inactive_after, "should be asked about"),
        ):
            if late:
                raise Broken("on time", f"what is in use since {entry.begun} {what}, due is {world.ledger.due}")
