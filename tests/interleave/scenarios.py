"""What do the threads of a schedule do? Small plays, each about one meeting that must go well in every order.

A scenario sets a world up, in the first task and before anybody else runs: options of the pool, how the driver
behaves, and who plays what. ``outcomes`` that must be seen in some schedule prove that it is about what it says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.interleave.world import World
from threadpool_db.core.backoff import Backoff
from threadpool_db.core.overload import CoDel
from threadpool_db.core.sojourn import Sojourn

Play = Callable[[World], None]


@dataclass(frozen=True)
class Scenario:
    name: str
    play: Play
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    sees: tuple[str, ...] = ("lent",)
    tiny: bool = False  # small enough for every schedule of two preemptions

    def __str__(self) -> str:
        return self.name


SCENARIOS: list[Scenario] = []


def scenario(
    *sees: str, tiny: bool = False, among: list[Scenario] = SCENARIOS, **options: Any
) -> Callable[[Play], Play]:
    def add(play: Play) -> Play:
        among.append(Scenario(play.__name__.replace("_", " "), play, options, sees or ("lent",), tiny))
        return play

    return add


# --- A connection goes from hand to hand


@scenario(max_size=1, tiny=True)
def two_on_one(w: World) -> None:
    w.fill(1)
    w.part("A", w.visit)
    w.part("B", w.visit)


@scenario(max_size=2)
def four_on_two(w: World) -> None:
    for name in "ABCD":
        w.part(name, w.visit)


@scenario(max_size=1)
def three_on_one_again_and_again(w: World) -> None:
    w.fill(1)
    for name in "ABC":
        w.part(name, w.visit, times=2)


@scenario(max_size=2, max_connecting=1)
def a_burst_on_a_cold_pool(w: World) -> None:
    w.driver.seconds["connect"] = 0.15
    for name in "ABC":
        w.part(name, w.visit, seconds=0.01)


@scenario("lent", "timeout", max_size=1)
def a_timeout_meets_a_hand_over(w: World) -> None:
    w.fill(1)
    w.part("A", w.visit, seconds=1.0)
    w.part("B", w.visit, timeout=1.0)
    w.part("C", w.visit, timeout=1.5, seconds=0.5)


@scenario("lent", "timeout", max_size=1, tiny=True)
def two_who_will_not_wait(w: World) -> None:
    w.fill(1)
    w.part("A", w.visit, timeout=0)
    w.part("B", w.visit, timeout=0)


@scenario("lent", "timeout", "overloaded", max_size=1, max_waiting=1)
def one_may_wait(w: World) -> None:
    w.fill(1)
    w.allowed.add("overloaded")
    w.part("A", w.visit, seconds=1)
    w.part("B", w.visit, timeout=1)
    w.part("C", w.visit, timeout=2)


@scenario("lent", "overloaded", max_size=1, shed=CoDel(0.05, 0.5))
def some_are_turned_away(w: World) -> None:
    w.fill(1)
    w.allowed.add("overloaded")
    for name in "ABCD":
        w.part(name, w.visit, seconds=0.4, times=2)


@scenario(max_size=2, sizing=Sojourn(1, draw=lambda: 0.5))
def one_more_for_who_waits_long(w: World) -> None:
    for name in "ABC":
        w.part(name, w.visit, seconds=0.3)


@scenario(max_size=1)
def dirty_ones_are_cleaned(w: World) -> None:
    for name in "ABC":
        w.part(name, w.visit, end="dirty")


def by_two(w: World, end: str = "", way: str = "checkin") -> None:
    """One lease, which two threads end at once."""
    shared: list[Any] = []
    gate = w.s.gate()

    def give() -> None:
        w.s.wait(gate, math.inf)
        getattr(shared[0], way)()

    def owner() -> None:
        lease = w.borrow(math.inf)
        w.use(lease, end=end)
        shared.append(lease)
        gate.release()
        getattr(lease, way)()

    w.part("A", owner)
    w.part("B", give)
    w.part("C", w.visit)


@scenario(max_size=1)
def a_lease_given_back_by_two(w: World) -> None:
    w.fill(1)
    by_two(w)


@scenario(max_size=1)
def a_dirty_lease_given_back_by_two(w: World) -> None:
    by_two(w, end="dirty")


@scenario(max_size=1)
def a_lease_discarded_by_two(w: World) -> None:
    by_two(w, way="discard")


# --- Some connections end


@scenario(max_size=1)
def some_are_discarded(w: World) -> None:
    w.part("A", w.visit, end="discard")
    w.part("B", w.visit, end="discard")
    w.part("C", w.visit)


@scenario(max_size=1)
def some_are_detached(w: World) -> None:
    w.driver.most = math.inf  # those that were taken away do not count
    w.fill(1)
    w.part("A", w.visit, end="detach")
    w.part("B", w.visit, end="detach")
    w.part("C", w.visit)


@scenario(max_size=2)
def dead_on_look(w: World) -> None:
    w.fill(2)
    for connection in w.driver.open:
        connection.alive = False
    for name in "ABC":
        w.part(name, w.visit)


@scenario(max_size=1)
def one_dies_while_they_wait(w: World) -> None:
    def kill() -> None:
        for connection in w.driver.open:
            connection.alive = False

    w.fill(1)
    w.part("A", w.visit, times=2)
    w.part("B", w.visit)
    w.part("killer", kill)


@scenario(max_size=2, ping_after=1.0)
def silent_ones_are_asked(w: World) -> None:
    w.fill(2)
    w.driver.open[0].answers = False
    w.s.time += 2
    for name in "ABC":
        w.part(name, w.visit)


@scenario(max_size=2)
def recycled_while_in_use(w: World) -> None:
    w.fill(1)
    w.part("A", w.visit)
    w.part("B", w.visit)
    w.part("C", w.visit)
    w.part("recycler", w.pool.recycle)


@scenario(max_size=2, max_uses=1)
def one_use_each(w: World) -> None:
    for name in "ABC":
        w.part(name, w.visit)


@scenario(max_size=2, max_lifetime=1.0, max_idle=1.0)
def short_lives(w: World) -> None:
    w.fill(2)
    w.part("A", w.visit, seconds=0.6, times=2)
    w.part("B", w.visit, seconds=0.9)
    w.part("C", w.visit, seconds=0.5)


# --- The database is not there


@scenario("connect failed", max_size=2)
def never_connected(w: World) -> None:
    w.allowed.add("connect failed")
    w.driver.fails["connect"] = [OSError, OSError, None]
    for name in "ABC":
        w.part(name, w.visit)


@scenario("lent", "timeout", max_size=1, backoff=Backoff(0.5, 1.0, "exp"))
def it_fails_and_comes_back(w: World) -> None:
    w.fill(1)
    w.driver.open[0].alive = False
    w.driver.fails["connect"] = [OSError, OSError]
    w.part("A", w.visit, timeout=2)
    w.part("B", w.visit, timeout=0.6)
    w.part("C", w.visit, timeout=3)


@scenario("lent", "timeout", max_size=2, max_connecting=1)
def connects_are_slow(w: World) -> None:
    w.driver.seconds["connect"] = 1.0
    w.part("A", w.visit, timeout=0.5)
    w.part("B", w.visit, timeout=1.5)
    w.part("C", w.visit, timeout=3)


# --- Somebody lets go without a word


@scenario(max_size=1)
def a_lease_is_dropped(w: World) -> None:
    w.fill(1)
    w.part("A", w.visit, end="drop")
    w.part("B", w.visit)
    w.part("C", w.visit)


@scenario(max_size=2)
def one_is_dropped_one_is_given_back(w: World) -> None:
    w.fill(2)
    w.part("A", w.visit, seconds=0.5, end="drop")
    w.part("B", w.visit, seconds=0.5)
    w.part("C", w.visit, seconds=1)
    w.part("D", w.visit, seconds=1)


@scenario(max_size=2)
def a_thread_ends_with_its_lease(w: World) -> None:
    def die() -> None:
        w.use(w.borrow(math.inf))

    w.part("A", die)
    w.part("B", die)
    w.part("C", w.visit)


# --- The end


@scenario("lent", "closed", max_size=1)
def closed_while_they_wait(w: World) -> None:
    w.allowed.add("closed")
    w.fill(1)
    w.part("A", w.visit)
    w.part("B", w.visit)
    w.part("closer", w.close, timeout=5)


@scenario("lent", "closed", max_size=2)
def closed_while_they_work(w: World) -> None:
    w.allowed.add("closed")
    w.driver.seconds["close"] = 0.1
    w.part("A", w.visit, seconds=0.2, end="discard")
    w.part("B", w.visit, seconds=0.3)
    w.part("closer", w.close, timeout=3)


# --- Plays for what strikes in the middle: see injection.py


STRUCK: list[Scenario] = []


def _struck(play: Play) -> Play:
    STRUCK.append(Scenario(play.__name__.replace("_", " "), play, {"max_size": 1}))
    return play


@_struck
def borrowing_in_turn(w: World) -> None:
    w.fill(1)
    w.part("A", w.visit)
    w.part("B", w.visit)


@_struck
def borrowing_again_and_again(w: World) -> None:
    w.fill(1)
    for name in "ABC":
        w.part(name, w.visit, times=2)


@_struck
def connecting(w: World) -> None:
    w.part("A", w.visit)
    w.part("B", w.visit)


@_struck
def finding_it_dead(w: World) -> None:
    w.fill(1)
    w.driver.open[0].alive = False
    w.part("A", w.visit)
    w.part("B", w.visit)


@_struck
def discarding(w: World) -> None:
    w.fill(1)
    w.part("A", w.visit, end="discard")
    w.part("B", w.visit)


@_struck
def giving_back_dirty(w: World) -> None:
    w.fill(1)
    w.part("A", w.visit, end="dirty")
    w.part("B", w.visit)


@_struck
def failing_to_connect(w: World) -> None:
    w.fill(1)
    w.driver.open[0].alive = False
    w.driver.fails["connect"] = [OSError]
    w.part("A", w.visit)
    w.part("B", w.visit)


@_struck
def giving_up(w: World) -> None:
    w.fill(1)
    w.part("B", w.visit, seconds=2)
    w.part("A", w.visit, timeout=1)


@_struck
def dropping(w: World) -> None:
    w.fill(1)
    w.part("A", w.visit, end="drop")
    w.part("B", w.visit)


@_struck
def recycling(w: World) -> None:
    w.fill(1)
    w.part("A", w.pool.recycle)
    w.part("B", w.visit)


@_struck
def closing(w: World) -> None:
    w.allowed.add("closed")
    w.fill(1)
    w.part("A", w.close, timeout=5)
    w.part("B", w.visit)


def _collect(w: World, count: int) -> None:
    """Some leases nobody uses any more: one is dropped, one given back, by whoever is struck by a collection."""
    dropped = [w.pool.checkout()]
    w.garbage.append(dropped.clear)
    for _ in range(count - 1):
        w.garbage.append(w.pool.checkout().checkin)


COLLECTED: list[Scenario] = []


def _collected(**options: Any) -> Callable[[Play], Play]:
    def add(play: Play) -> Play:
        COLLECTED.append(Scenario(play.__name__.replace("_", " "), play, options))
        return play

    return add


@_collected(max_size=1)
def the_only_one_is_garbage(w: World) -> None:
    _collect(w, 1)
    w.part("A", w.visit)
    w.part("B", w.visit)


@_collected(max_size=2)
def both_are_garbage(w: World) -> None:
    _collect(w, 2)
    w.part("A", w.visit)
    w.part("B", w.visit)
    w.part("C", w.visit)


@_collected(max_size=2)
def garbage_amid_traffic(w: World) -> None:
    w.garbage.append(w.pool.checkout().checkin)
    w.part("A", w.visit, times=2)
    w.part("B", w.visit)
    w.part("C", w.visit, end="discard")


@_collected(max_size=2)
def a_drop_amid_traffic(w: World) -> None:
    _collect(w, 1)
    w.part("A", w.visit, times=2)
    w.part("B", w.visit)
    w.part("C", w.visit)


@_collected(max_size=2)
def garbage_while_closing(w: World) -> None:
    w.allowed.add("closed")
    _collect(w, 2)
    w.part("A", w.close, timeout=3)
    w.part("B", w.visit)
