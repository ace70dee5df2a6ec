"""What do threads do while a finaliser strikes one of them, and a keeper works? See ``injection.py``.

It strikes a borrower, a worker or the scheduler, anywhere. Two meetings with a finaliser are played apart.
"""

from __future__ import annotations

from tests.core.promises import Broken
from tests.interleave.kept import KeptWorld
from tests.interleave.scenarios import Scenario, _collect, scenario

KEPT_COLLECTED: list[Scenario] = []


@scenario(among=KEPT_COLLECTED, background=True, max_size=3)
def garbage_amid_connects(w: KeptWorld) -> None:
    w.garbage.append(w.pool.checkout().checkin)
    w.part("A", w.visit, end="discard")
    w.part("B", w.visit)
    w.part("C", w.visit)


@scenario(among=KEPT_COLLECTED, background=True, max_size=3)
def a_drop_amid_connects(w: KeptWorld) -> None:
    _collect(w, 1)
    w.part("A", w.visit, end="discard")
    w.part("B", w.visit)
    w.part("C", w.visit)


@scenario(among=KEPT_COLLECTED, background=True, max_size=2, ping_after=1.0, keepalive=2.0)
def garbage_amid_questions(w: KeptWorld) -> None:
    w.fill(2)
    w.garbage.append(w.pool.checkout().checkin)
    w.rest(1.0)
    w.part("A", w.visit)
    w.part("B", w.visit, seconds=0.5)
    w.part("time", w.rest, 3.0)


APART: list[Scenario] = []


@scenario(among=APART, background=True)
def a_finaliser_inside_the_keeper(w: KeptWorld) -> None:
    """A is inside the keeper's lock when it strikes; B is inside the pool's, and wants the keeper's."""
    garbage, scheduler = w.pool.checkout(), w.s
    scheduler.leaf = None  # not forbidden, it can be seen to end badly
    keepers_lock = w.keeper._lock

    def interrupted() -> None:
        with keepers_lock:  # as in ``Keeper.at``
            scheduler.point("is struck by a finaliser")
            garbage.checkin()

    w.driver.inside = lambda: False
    w.part("A", interrupted)
    w.part("B", lambda: w.pool._tell(w.ledger.recycle, within=1.0))


@scenario(among=APART, background=True)
def closed_beside_a_note(w: KeptWorld) -> None:
    def close() -> None:
        w.rest(0.1)
        w.pool.close(timeout=5.0)
        if w.s.time >= 1005.0 and not w.s.hurries:
            raise Broken("no lost wake-up", "close() slept its whole timeout beside the note of a dropped lease")

    w.allowed.add("closed")
    w.fill(1)
    w.part("A", w.visit, seconds=0.5, end="drop", timeout=0)
    w.part("closer", close)
