"""Does the explorer find what it is for, and the same again? A lost wake-up, a race and a deadlock planted in toys."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest

from tests.core.promises import Broken
from tests.interleave.scheduler import Scheduler, Strategy
from tests.interleave.strategies import Exhaustive, Priorities, RandomWalk

Toy = Callable[[Scheduler], None]


def lost_wakeup(s: Scheduler) -> None:
    """One looks at the box and then lies down, the other fills it and wakes who is known to lie: too early."""
    box: list[int] = []
    gates: list[object] = []

    def reader() -> None:
        if not box:
            gate = s.gate()
            s.point("has looked")
            gates.append(gate)
            s.wait(gate, math.inf)

    def writer() -> None:
        box.append(1)
        for gate in gates:
            gate.release()  # type: ignore[attr-defined]

    s.spawn(reader, "reader")
    s.spawn(writer, "writer")


def deadlock(s: Scheduler) -> None:
    one, other = s.lock(), s.lock()

    def take(first: object, second: object) -> None:
        with first, second:  # type: ignore[attr-defined]
            pass

    s.spawn(lambda: take(one, other), "A")
    s.spawn(lambda: take(other, one), "B")


def race(s: Scheduler) -> None:
    """Two count, each in two steps."""
    count = [0]
    done = []

    def add() -> None:
        seen = count[0]
        s.point("has read")
        count[0] = seen + 1
        done.append(1)
        if len(done) == 2 and count[0] != 2:
            s.fail(Broken("count", str(count[0])))

    s.spawn(add, "A")
    s.spawn(add, "B")


def honest(s: Scheduler) -> None:
    """A hand-over under a lock, with a gate: nothing to find."""
    lock, gate = s.lock(), s.gate()
    box: list[int] = []

    def reader() -> None:
        with lock:
            waits = not box
        if waits:
            s.wait(gate, math.inf)
        assert box

    def writer() -> None:
        with lock, lock:  # re-entrant
            box.append(1)
        gate.release()

    s.spawn(reader, "reader")
    s.spawn(writer, "writer")


def play(toy: Toy, strategy: Strategy, record: bool = False) -> Scheduler:
    s = Scheduler()
    s.begin(strategy, record=record)
    try:
        toy(s)
        s.go()
    except Broken as broken:
        broken.path = s.log or []
        raise
    finally:
        s.end()
    return s


def random_walks() -> Iterator[Strategy]:
    return (RandomWalk(seed) for seed in range(200))


def priorities() -> Iterator[Strategy]:
    return (Priorities(seed, 10, 2) for seed in range(200))


def all_schedules() -> Iterator[Strategy]:
    strategy = Exhaustive(2)
    yield strategy
    while strategy.more():
        yield strategy


WAYS = [random_walks, priorities, all_schedules]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("toy", "promise"), [(lost_wakeup, "no deadlock"), (deadlock, "no deadlock"), (race, "count")])
def test_a_planted_mistake_is_found(toy: Toy, promise: str, way: Callable[[], Iterator[Strategy]]) -> None:
    with pytest.raises(Broken) as caught:
        for strategy in way():
            play(toy, strategy)
    assert caught.value.promise == promise


@pytest.mark.parametrize("way", WAYS)
def test_an_honest_one_passes_in_every_order(way: Callable[[], Iterator[Strategy]]) -> None:
    for strategy in way():
        play(honest, strategy)


def test_exhaustive_means_all_of_them() -> None:
    """Two tasks of three points each, which never block: with any number of preemptions, (4 + 4) over 4 orders."""

    def toy(s: Scheduler) -> None:
        def walk(name: str) -> None:
            for _ in range(3):
                steps.append(name)
                s.point("steps")
            steps.append(name)

        steps.clear()
        for name in "AB":
            s.spawn(lambda name=name: walk(name), name)  # type: ignore[misc]

    steps: list[str] = []
    seen = set()
    strategy = Exhaustive(100)
    while True:
        play(toy, strategy)
        seen.add("".join(steps))
        if not strategy.more():
            break
    assert len(seen) == math.comb(8, 4)


@pytest.mark.parametrize("toy", [lost_wakeup, deadlock, race])
def test_a_failing_seed_fails_the_same_way_again_and_tells_its_story(toy: Toy) -> None:
    def fails(seed: int, record: bool) -> Broken | None:
        try:
            play(toy, RandomWalk(seed), record)
        except Broken as broken:
            return broken
        return None

    seed = next(seed for seed in range(1000) if fails(seed, False))
    one, two = fails(seed, True), fails(seed, True)
    assert one is not None and two is not None
    assert one.path == two.path != []
    assert str(one) == str(two)


def test_time_jumps_to_the_next_deadline_when_nobody_can_run() -> None:
    woken = []

    def toy(s: Scheduler) -> None:
        def nap(seconds: float) -> None:
            s.wait(s.gate(), s.now() + seconds)
            woken.append(s.now())

        s.spawn(lambda: nap(7), "A")
        s.spawn(lambda: nap(3), "B")

    s = play(toy, Strategy())
    assert woken == [1003.0, 1007.0]
    assert s.now() == 1007.0


def test_an_error_in_a_task_is_raised_by_the_first() -> None:
    def toy(s: Scheduler) -> None:
        s.spawn(lambda: 1 / 0, "A")  # type: ignore[arg-type]
        s.spawn(lambda: s.wait(s.gate(), math.inf), "B")

    with pytest.raises(ZeroDivisionError):
        play(toy, Strategy())


def test_what_the_pool_asks_of_a_lock() -> None:
    s = Scheduler()
    lock = s.lock()
    assert not lock._is_owned()
    with pytest.raises(RuntimeError):
        lock.release()
    with lock:
        assert lock._is_owned()
        lock.acquire()
        lock.release()
        assert lock._is_owned()
    assert not lock._is_owned()
    gate = s.gate()
    assert gate.locked()
    gate.release()
    with pytest.raises(RuntimeError):
        gate.release()
    s.wait(gate, math.inf)
    assert gate.locked()
