"""What must hold of leases with a limit? More promises on a world, named as those in ``promises.py``:

taken away          a use that lasts ``max_lease`` is ended then, and not before, and never what its thread only keeps;
                    it is reported, cut and ordered closed, once each
leaks               a use that lasts ``leak_after`` is reported then, and not before, once
ends                of a use of which people have heard, they hear that it has ended: once, not before, and before
                    anybody else uses the connection
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
        if kind in ("returned", "rested"):
            ended(in_use, entry, kind, times)
        elif entry not in in_use:
            raise Broken("one holder", f"{kind!r} is said of a connection that nobody uses")
        if times != 1:
            raise Broken("leaks" if kind == "leak" else "taken away", f"{kind!r} is said {times} times")
    for report in () if orders is None else orders.reports:
        if report.kind not in ("returned", "rested"):
            said(world, report.kind, report.entry, report.seconds)
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
        if not world.ledger.announced(entry, entry.begun):  # the pool says that it has told people
            raise Broken("ends", "a use that goes on has ended")
        entry.announced = entry.begun
    else:
        promise, limit = "taken away", setting.max_lease
        if kind != "expired":
            raise Broken("one holder", f"{kind!r} is said of a connection in use")
    if seconds != used or used < limit:
        raise Broken(promise, f"{kind!r} after {seconds} is said after {used}")


def ended(in_use: dict[Any, Any], entry: Any, kind: str, times: int) -> None:
    if times != 1 or entry.announced is None:
        raise Broken("ends", f"{kind!r} is said {times} times of a use that began {entry.announced}")
    if entry in in_use and entry.begun == entry.announced and in_use[entry].ticket is None:
        raise Broken("ends", f"{kind!r} is said of a use that goes on")
    entry.announced = None


def find_cut(world: World, caller: Any, entry: Any) -> None:
    """Whatever he was about to do with it is nothing to the ledger any more."""
    world.returned += 1
    world.use_time += world.now - entry.lent_at
    caller.mode, caller.entry = CUT, None
    if caller.ticket is not None:
        caller.ticket.entry = None


def in_time(world: World) -> None:
    setting, now = world.setting, world.now
    for entry in world.entries:
        announced = getattr(entry, "announced", None)
        if announced is not None and entry.word in ("idle", "leased") and not _still_had(world, entry, announced):
            raise Broken("ends", "nobody hears of the end of a use")
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


def _still_had(world: World, entry: Any, announced: float) -> bool:
    return entry.lent_at <= announced and any(caller.has is entry for caller in world.callers)
