"""What do threads do with a pool that has a keeper? Plays as in ``scenarios.py``; ``kept.py`` says what must hold."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tests.interleave.kept import KeptWorld
from tests.interleave.scenarios import Scenario, scenario
from threadpool_db.core.backoff import Backoff
from threadpool_db.keeper import LINGER

Play = Callable[[KeptWorld], None]

KEPT: list[Scenario] = []


def kept(*sees: str, **options: Any) -> Callable[[Any], Any]:
    return scenario(*sees, among=KEPT, background=True, **options)


# --- Somebody wants one


@kept(max_size=1)
def two_on_a_cold_one(w: KeptWorld) -> None:
    w.part("A", w.visit)
    w.part("B", w.visit)


@kept(max_size=2, max_connecting=1)
def a_burst_connected_for(w: KeptWorld) -> None:
    w.driver.seconds["connect"] = 0.15
    for name in "ABC":
        w.part(name, w.visit, seconds=0.01)


@kept(max_size=2)
def hand_to_hand_with_a_keeper(w: KeptWorld) -> None:
    w.fill(1)
    for name in "ABC":
        w.part(name, w.visit, end="discard" if name == "A" else "checkin")


@kept("lent", "timeout", max_size=1)
def a_timeout_while_a_connect_is_under_way(w: KeptWorld) -> None:
    w.driver.seconds["connect"] = 1.0
    w.part("A", w.visit, timeout=0.5)
    w.part("B", w.visit, timeout=1.0)
    w.part("C", w.visit, timeout=3.0)


@kept(max_size=2)
def dead_ones_are_replaced_for_them(w: KeptWorld) -> None:
    w.fill(2)
    for connection in w.driver.open:
        connection.alive = False
    for name in "ABC":
        w.part(name, w.visit)


# --- The database is not there


@kept("connect failed", "overdue", max_size=2, connect_timeout=1.0)
def the_first_connects_hang(w: KeptWorld) -> None:
    w.driver.first_seconds["connect"] = [2.5, 2.5]
    w.part("A", w.visit, timeout=2.0)
    w.part("B", w.visit, timeout=4.0)


@kept("lent", "overdue", max_size=2, connect_timeout=0.5, backoff=Backoff(0.1, 0.2, "exp"))
def a_connect_hangs_after_a_good_one(w: KeptWorld) -> None:
    w.fill(1)
    w.driver.first_seconds["connect"] = [0.8, 1.5, 0.1]
    w.part("A", w.visit, seconds=1.0)
    w.part("B", w.visit, end="discard")
    w.part("C", w.visit)


@kept("lent", "overdue", max_size=4, max_connecting=1, connect_timeout=0.5, backoff=Backoff(0.1, 0.2, "exp"))
def connects_hang_one_after_another(w: KeptWorld) -> None:
    w.fill(1)
    w.driver.first_seconds["connect"] = [3.0, 3.0, 3.0]
    w.part("A", w.visit, seconds=4.0)
    w.part("B", w.visit)
    w.part("C", w.visit)


@kept("lent", "overdue", max_size=1, connect_timeout=1.0, backoff=Backoff(0.1, 0.2, "exp"))
def one_arrives_as_it_is_given_up(w: KeptWorld) -> None:
    w.fill(1)
    w.driver.open[0].alive = False
    w.driver.first_seconds["connect"] = [1.0]
    w.part("A", w.visit)
    w.part("B", w.visit, timeout=1.0)


@kept("connect failed", max_size=2)
def nobody_ever_connected(w: KeptWorld) -> None:
    w.allowed.add("connect failed")
    w.driver.fails["connect"] = [OSError, OSError, None]
    for name in "ABC":
        w.part(name, w.visit)


@kept("lent", "timeout", max_size=2, backoff=Backoff(0.5, 1.0, "exp"))
def it_fails_and_is_tried_again(w: KeptWorld) -> None:
    w.fill(1)
    w.driver.open[0].alive = False
    w.driver.fails["connect"] = [OSError, OSError, OSError]
    w.part("A", w.visit, timeout=5)
    w.part("B", w.visit, timeout=0.6)
    w.part("C", w.visit, timeout=5)


# --- Nobody comes


@kept(max_size=3, min_size=2, max_idle=2.0)
def the_fewest_are_kept(w: KeptWorld) -> None:
    w.part("A", w.visit, seconds=0.5)
    w.part("B", w.visit, seconds=0.5, end="discard")
    w.part("C", w.visit, seconds=0.5)
    w.part("time", w.rest, 3.0)


@kept(max_size=3, min_idle=1, max_lifetime=5.0, lifetime_jitter=0.0)
def one_is_ready_ahead_of_demand(w: KeptWorld) -> None:
    w.part("A", w.visit, seconds=0.5)
    w.part("B", w.visit)
    w.part("time", w.rest, 6.0)


@kept("lent", "dead", max_size=2, keepalive=1.0, max_idle=2.5)
def silent_ones_are_asked_after(w: KeptWorld) -> None:
    def come_late() -> None:
        w.rest(1.05)
        w.visit(times=2)

    w.fill(2)
    w.driver.open[0].answers = False
    w.driver.seconds["ping"] = 0.1
    w.part("A", come_late)
    w.part("B", come_late)


@kept(max_size=2, max_idle=1.0, backoff=Backoff(0.1, 0.2, "exp"))
def all_go_cold_and_are_wanted_again(w: KeptWorld) -> None:
    def come_late() -> None:
        w.rest(1.0)
        w.visit()

    w.fill(2)
    w.part("A", come_late)
    w.part("B", come_late)


@kept(max_size=3)
def workers_come_and_go(w: KeptWorld) -> None:
    def come_late() -> None:
        w.rest(2.5)
        w.visit()

    w.driver.seconds["connect"] = 0.3
    w.driver.first_seconds["connect"] = [0.1, 1.0]
    w.part("A", w.visit, end="discard")
    w.part("B", w.visit, end="discard")
    w.part("C", come_late)
    w.part("D", come_late)


@kept(max_size=2)
def wanted_as_their_rest_ends(w: KeptWorld) -> None:
    def come_late() -> None:
        w.rest(0.5 + LINGER)
        w.visit()

    w.driver.seconds["connect"] = 0.5
    w.part("A", w.visit, end="discard")
    w.part("B", w.visit, end="discard")
    w.part("C", come_late)
    w.part("D", come_late)


# --- Some end


@kept(max_size=2)
def recycled_under_load(w: KeptWorld) -> None:
    w.fill(1)
    w.driver.seconds["connect"] = 0.1
    w.part("A", w.visit, times=2)
    w.part("B", w.visit)
    w.part("recycler", w.pool.recycle)


@kept(max_size=2, min_size=1)
def recycled_by_and_by(w: KeptWorld) -> None:
    w.fill(2)
    w.part("A", w.visit, seconds=0.5, times=2)
    w.part("B", w.visit)
    w.part("recycler", functools.partial(w.pool.recycle, within=1.0))


@kept(max_size=1)
def a_lease_is_dropped_and_another_connected(w: KeptWorld) -> None:
    w.part("A", w.visit, end="drop")
    w.part("B", w.visit)
    w.part("C", w.visit)


@kept(max_size=2)
def a_thread_dies_with_its_lease(w: KeptWorld) -> None:
    def die() -> None:
        lease = w.borrow()
        if lease is not None:
            w.use(lease)

    w.part("A", die)
    w.part("B", die)
    w.part("C", w.visit)


# --- Some are taken away


@kept("lent", "expired", max_size=1, max_lease=2.0)
def taken_away_in_the_middle_of_a_call(w: KeptWorld) -> None:
    w.fill(1)
    w.part("A", w.overstay, seconds=4.0)
    w.part("B", w.overstay)


@kept("lent", "expired", max_size=2, max_lease=2.0)
def taken_away_as_it_is_given_back(w: KeptWorld) -> None:
    w.fill(1)
    w.part("A", w.overstay, seconds=2.0)
    w.part("B", w.overstay, seconds=2.0)
    w.part("C", w.overstay)


@kept("lent", "taken while cleaned", max_size=1, max_lease=2.0)
def taken_away_while_it_is_cleaned(w: KeptWorld) -> None:
    w.driver.seconds["rollback"] = 1.5
    w.part("A", w.overstay, seconds=1.0, end="dirty")
    w.part("B", w.overstay)
    w.part("C", w.overstay)


@kept("lent", "closed", max_size=2)
def closed_under_load(w: KeptWorld) -> None:
    def close() -> None:
        w.rest(0.3)
        w.close(timeout=3)

    w.allowed.add("closed")
    w.driver.seconds.update(connect=0.2, close=0.1)
    w.part("A", w.visit, seconds=0.2)
    w.part("B", w.visit)
    w.part("C", w.visit, timeout=0.3)
    w.part("closer", close)


@kept("lent", "dropped", max_size=3, min_size=2, max_connecting=1)
def a_pool_is_dropped_with_jobs_in_the_queue(w: KeptWorld) -> None:
    users = ["A", "B"]

    def leave() -> None:
        w.visit(timeout=0.5)
        users.pop()
        if not users:
            w.drop()

    w.driver.seconds["connect"] = 0.3
    w.part("A", leave)
    w.part("B", leave)
