"""What do threads do while their database is out of reach? Plays as in ``scenarios.py``, each once where borrowers
connect and once where a keeper does; ``outage.py`` says what must hold besides."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tests.core.promises import Broken
from tests.interleave.outage import watch
from tests.interleave.scenarios import Play, Scenario
from tests.interleave.world import World
from threadpool_db.core.backoff import Backoff

OUTAGES: list[Scenario] = []
OUTAGES_STRUCK: list[Scenario] = []
OUTAGES_COLLECTED: list[Scenario] = []

STEP = 0.4


def outage(*sees: str, among: list[Scenario] = OUTAGES, **options: Any) -> Callable[[Play], Play]:
    """The pool has had its first connection: before that it fails at once, and knows of no outage."""

    def add(play: Play) -> Play:
        name = play.__name__.replace("_", " ")
        settings = {"max_size": 2, "grace": 1.0, "backoff": Backoff(STEP, STEP, "exp"), **options}
        what = sees or ("lent", "unavailable")
        among.append(Scenario(name, play, settings, what))
        among.append(Scenario(f"{name}, with a keeper", play, {**settings, "background": True}, what))
        return play

    return add


def cut(w: World, until: float, dead: int = 2, filled: int = 2) -> None:
    """From the beginning no connect succeeds for so many seconds, and of those that are there the hottest are dead."""
    w.fill(filled)
    watch(w)
    go_down(w, until, dead)


def go_down(w: World, until: float, dead: int = 2) -> None:
    w.driver.down_until = w.s.time + until
    for connection in w.driver.open[::-1][:dead]:
        connection.alive = False


def come(w: World, at: float, **options: Any) -> None:
    w.s.sleep(at, "nobody comes")
    w.visit(**options)


def come_back(w: World, at: float) -> None:
    """When it is there again, and nobody else tries: he does, or the keeper has."""
    w.s.sleep(at, "nobody comes")
    lease = w.borrow()
    if lease is not None:
        w.use(lease)
        lease.checkin()
    elif not (w.s.hurries or w.hurt):
        w.s.fail(Broken("it is over", f"{w.s.current} came {at:g} s later, and was refused"))


@outage()
def nothing_connects_for_longer_than_the_grace(w: World) -> None:
    cut(w, 2.1)
    w.part("A", w.visit, timeout=5)
    w.part("B", w.visit, timeout=5)
    w.part("C", come, w, 1.1)
    w.part("D", come, w, 1.3)
    w.part("E", come_back, w, 2.6)


@outage("lent", "unavailable", "timeout")
def some_give_up_before_the_grace_is_over(w: World) -> None:
    cut(w, 1.9)
    w.part("A", w.visit, timeout=0.4)
    w.part("B", w.visit, timeout=1.0)
    w.part("C", come, w, 0.9, times=2)
    w.part("D", come, w, 1.2, timeout=0)
    w.part("E", come_back, w, 2.5)


@outage()
def the_connected_ones_die_one_by_one(w: World) -> None:
    cut(w, 2.6, dead=1)
    w.part("A", come, w, 0.1, seconds=0.8)
    w.part("B", come, w, 0.1, seconds=0.8, end="discard")
    w.part("C", come, w, 1.2)
    w.part("D", come, w, 2.1)
    w.part("E", come_back, w, 3.1)


@outage()
def the_last_one_is_dropped_long_after_the_grace(w: World) -> None:
    cut(w, 2.6, dead=1)
    w.part("A", w.visit, seconds=1.6, end="drop")
    w.part("B", w.visit)
    w.part("C", come, w, 1.2)
    w.part("D", come, w, 1.9)


@outage()
def it_is_connected_again_though_nobody_asks(w: World) -> None:
    cut(w, 2.4)
    w.driver.seconds["connect"] = 0.1
    w.part("A", w.visit)
    w.part("B", come_back, w, 3.1)
    w.part("C", come, w, 3.12)
    w.part("D", come, w, 3.2)


@outage(max_connecting=1, connect_timeout=4.0)
def a_connect_hangs_while_the_grace_ends(w: World) -> None:
    cut(w, 2.0)
    w.driver.first_seconds["connect"] = [0.0, 1.7]
    w.part("A", w.visit)
    w.part("B", w.visit)
    w.part("C", come, w, 1.3)


@outage(connect_timeout=0.5)
def each_connect_hangs(w: World) -> None:
    cut(w, 3.0)
    w.driver.first_seconds["connect"] = [0.7, 0.7, 0.7, 0.7]
    w.part("A", w.visit)
    w.part("B", w.visit)
    w.part("C", come, w, 1.8)
    w.part("D", come, w, 2.0)
    w.part("E", come_back, w, 4.0)


@outage()
def it_ends_as_the_grace_does(w: World) -> None:
    w.driver.seconds["connect"] = 0.1
    cut(w, 1.1)  # it fails at 0.1 and 0.6; the third is under way, or begins, or has just been refused its turn
    w.part("A", w.visit)
    w.part("B", w.visit)
    w.part("C", come, w, 1.1)


@outage(backoff=Backoff(0.5, 0.5, "exp"))
def it_is_there_again_in_the_very_moment(w: World) -> None:
    cut(w, 1.0)
    for name in "ABC":
        w.part(name, w.visit)
    w.part("D", come, w, 1.0)


@outage("unavailable", "closed")
def closed_in_the_middle(w: World) -> None:
    def close() -> None:
        w.s.sleep(1.1, "nobody comes")
        w.close(timeout=2)

    w.allowed.add("closed")
    cut(w, 3.0)
    w.driver.seconds["connect"] = 0.1
    w.part("A", w.visit)
    w.part("B", w.visit, times=2)
    w.part("C", come, w, 1.0, times=2)
    w.part("closer", close)


@outage()
def recycled_in_the_middle(w: World) -> None:
    def recycle() -> None:
        for at in (0.7, 0.7, 0.7):
            w.s.sleep(at, "nobody comes")
            w.pool.recycle()

    cut(w, 2.0, dead=1)
    w.driver.seconds["connect"] = 0.1
    w.part("A", w.visit, seconds=0.3)
    w.part("B", w.visit)
    w.part("C", come, w, 1.8)
    w.part("D", come, w, 2.0)
    w.part("recycler", recycle)


@outage(min_size=0, max_size=1)
def one_slot(w: World) -> None:
    cut(w, 1.9, dead=1, filled=1)
    w.part("A", w.visit, times=2)
    w.part("B", w.visit)
    w.part("C", come, w, 1.9)


OUTAGES_OF_ONE = [*OUTAGES]

# --- Two pools of one server


def two_pools(w: World, filled: int = 1) -> tuple[World, World]:
    def make(driver: Any, config: Any) -> Any:
        driver.server = "the server of both"
        return w.shell.repeatable(driver, config)

    one, two = (type(w)(w.s, w.shell, w.config, make) for _ in range(2))
    for each in (one, two):
        w.others.append(each)
        each.fill(filled)
    watch(one, two)
    return one, two


@outage()
def two_pools_try_in_turn(w: World) -> None:
    one, two = two_pools(w)
    for each in (one, two):
        go_down(each, 2.2)
    one.part("A", one.visit)
    two.part("B", two.visit)
    one.part("C", come, one, 1.8)
    two.part("D", come, two, 1.8)
    one.part("E", come, one, 2.3)


@outage(grace=0.0)
def two_pools_ask_at_once(w: World) -> None:
    """Again and again, when nobody has for more than a step."""

    def come_again(to: World) -> None:
        for _ in range(4):
            come(to, 2 * STEP)

    one, two = two_pools(w)
    for each in (one, two):
        go_down(each, 7 * STEP)
        each.visit()
    one.part("A", come_again, one)
    two.part("B", come_again, two)


@outage(max_connecting=3, max_size=3)
def two_pools_come_back_by_the_ramp(w: World) -> None:
    one, two = two_pools(w)
    for each in (one, two):
        go_down(each, 1.3)
    one.part("A", one.visit)
    two.part("B", two.visit)
    for name, each in zip("CDEFGH", (one, two) * 3, strict=True):
        each.part(name, come, each, 2.2, seconds=1.5)


# --- Plays for what strikes in the middle: see injection.py


@outage(among=OUTAGES_STRUCK, max_size=1)
def struck_out_of_reach(w: World) -> None:
    cut(w, 1.9, dead=1, filled=1)
    w.part("A", w.visit)
    w.part("B", w.visit)
    w.part("C", come, w, 2.0)


@outage(among=OUTAGES_STRUCK, grace=0.0, max_size=1)
def struck_as_the_first_to_ask(w: World) -> None:
    cut(w, 0.5, dead=1, filled=1)
    w.driver.seconds["connect"] = 0.1
    w.part("B", w.visit)
    w.part("A", functools.partial(come, w, 0.6, times=2))
    w.part("C", come, w, 0.6)


@outage(among=OUTAGES_COLLECTED, max_size=2)
def garbage_out_of_reach(w: World) -> None:
    w.garbage.append(w.pool.checkout().checkin)
    dropped = [w.pool.checkout()]
    w.garbage.append(dropped.clear)
    watch(w)
    go_down(w, 1.9)
    w.part("A", w.visit)
    w.part("B", come, w, 0.2, end="discard")
    w.part("C", come, w, 2.0)
