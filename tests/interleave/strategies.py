"""In what order may threads run? At random, by priorities that change now and then, or in every order there is.

``RandomWalk``   at each point, or each few, anybody. Finds what many orders would show.
``Priorities``   PCT (Burckhardt et al., 2010): who has the highest priority runs, and at ``depth - 1`` random points
                 the one who runs falls behind all others. Finds a bug of that depth with a known least probability.
``Exhaustive``   every schedule with at most so many preemptions (CHESS): for tiny scenarios.

All three let time jump ahead now and then while somebody could run.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from tests.interleave.scheduler import FAR, Scheduler, Strategy, Task


class RandomWalk(Strategy):
    """How long somebody goes on before the dice are thrown again is drawn once for each schedule."""

    def __init__(self, seed: int, fine: bool = False) -> None:
        self._random = random.Random(seed).random
        self._gap = (1, 1, 2, 4, 12)[int(self._random() * 5)] * (4 if fine else 1)
        self._hurry = (0.0, 0.0, 0.01, 0.05)[int(self._random() * 4)]

    def begin(self, scheduler: Scheduler) -> None:
        scheduler.fuse = 1

    def pick(self, scheduler: Scheduler, ready: list[Task], current: Task | None) -> Task | None:
        draw = self._random()
        if draw < self._hurry:
            return None
        scheduler.fuse = 1 if self._gap == 1 else 1 + int(2 * self._gap * self._random())
        return ready[0] if len(ready) == 1 else ready[int(self._random() * len(ready))]


class Priorities(Strategy):
    """``length``: about how many points the scenario has."""

    def __init__(self, seed: int, length: int, depth: int = 3) -> None:
        dice = random.Random(seed)
        self._random = dice.random
        self._changes = sorted(1 + int(dice.random() * length) for _ in range(depth - 1))
        self._hurries = {at for at in self._changes if dice.random() < 0.2}
        self._rank: dict[Task, float] = {}
        self._passed = 0.0
        self._planned: float = 0
        self._lowest = 0.0

    def begin(self, scheduler: Scheduler) -> None:
        scheduler.fuse = self._planned = 1

    def woke(self, scheduler: Scheduler) -> None:
        self._passed += self._planned - scheduler.fuse
        scheduler.fuse = self._planned = 1

    def pick(self, scheduler: Scheduler, ready: list[Task], current: Task | None) -> Task | None:
        self._passed += self._planned - scheduler.fuse
        scheduler.fuse = self._planned = 1
        changes = self._changes
        while changes and changes[0] <= self._passed:
            at = changes.pop(0)
            if at in self._hurries:
                self._hurries.remove(at)
                return None
            if current is not None:
                self._lowest -= 1
                self._rank[current] = self._lowest
        for task in ready:
            if task not in self._rank:
                self._rank[task] = self._random()
        scheduler.fuse = self._planned = max(1.0, min(FAR, changes[0] - self._passed)) if changes else FAR
        return max(ready, key=self._rank.__getitem__)


class Exhaustive(Strategy):
    """One schedule of all those with at most ``bound`` preemptions; ``more`` moves on to the next, depth first."""

    def __init__(self, bound: int = 2, choices: Iterable[int] = ()) -> None:
        """``choices``: those of the schedule to begin with."""
        self.bound = bound
        self._path: list[list[int]] = [[which, 0] for which in choices]  # and of how many; 0: that is not known yet
        self._depth = 0
        self._spent = 0

    def begin(self, scheduler: Scheduler) -> None:
        self._depth = self._spent = 0
        scheduler.fuse = 1

    def pick(self, scheduler: Scheduler, ready: list[Task], current: Task | None) -> Task | None:
        if current is not None and self._spent >= self.bound:
            scheduler.fuse = FAR  # nobody asks again before it blocks
            return current
        scheduler.fuse = 1
        options: list[Any] = [task for task in ready if task is not current]
        if current is not None:
            options.insert(0, current)
        if len(options) == 1:
            task: Task = options[0]
            return task
        if self._depth == len(self._path):
            self._path.append([0, len(options)])
        choice = self._path[self._depth]
        choice[1] = choice[1] or len(options)
        which, of = choice
        assert of == len(options), "the schedule did not come again"
        self._depth += 1
        if current is not None and which > 0:
            self._spent += 1
        task = options[which]
        return task

    @property
    def choices(self) -> tuple[int, ...]:
        """Of the schedule that was played."""
        return tuple(which for which, _ in self._path[: self._depth])

    def more(self) -> bool:
        """Is there another schedule? Then the next ``begin`` starts it."""
        while self._path and self._path[-1][0] + 1 == self._path[-1][1]:
            self._path.pop()
        if not self._path:
            return False
        self._path[-1][0] += 1
        return True
