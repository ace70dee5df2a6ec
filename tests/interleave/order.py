"""Which schedule? What decides it, and the command that brings it back: ``python -m tests.interleave NAME WORDS``.

``walk 31``, ``priorities 31``      by a strategy with this seed; ``fine`` after it: at every line
``every 2 0.0.1``                   of all those with two preemptions the one with these choices
``interrupt 17 A``                  and then somebody is struck, at the 17th place that he comes to; or ``collect``
``mutant "a note pokes nobody"``    and the shell has this mistake
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import NamedTuple

from tests.interleave.injection import Injection
from tests.interleave.scheduler import Strategy
from tests.interleave.strategies import Exhaustive, Priorities, RandomWalk

PLAYER = "python -m tests.interleave"


class Order(NamedTuple):
    """Everything that decides a schedule of a scenario. ``seed``: of ``every`` the bound."""

    way: str
    seed: int
    fine: bool = False
    injection: Injection | None = None
    choices: tuple[int, ...] = ()

    def strategy(self, length: int) -> Strategy:
        if self.way == "every":
            return Exhaustive(self.seed, self.choices)
        if self.way == "priorities":
            return Priorities(self.seed, length, 2 + self.seed // 4 % 4)
        return RandomWalk(self.seed, self.fine)

    def __str__(self) -> str:
        choices = [".".join(map(str, self.choices))] if self.choices else []
        injection = [self.injection.kind, str(self.injection.number), self.injection.victim] if self.injection else []
        return " ".join([self.way, str(self.seed), *choices, *["fine"] * self.fine, *injection])


def command(play: str, order: Order, mutant: str = "") -> str:
    return f"{PLAYER} {shlex.quote(play)} {order}" + (f" mutant {shlex.quote(mutant)}" if mutant else "")


def parse(way: str, seed: str, *words: str) -> tuple[Order, str]:
    """The order that these words name, and the mutant if there is one."""
    rest = list(words)
    choices = tuple(map(int, rest.pop(0).split("."))) if way == "every" and rest and rest[0][0].isdigit() else ()
    fine = rest[:1] == ["fine"]
    del rest[:fine]
    injection = None
    if rest and rest[0] != "mutant":
        injection = Injection(rest[0], rest[2], int(rest[1]))
        del rest[:3]
    return Order(way, int(seed), fine, injection, choices), rest[1] if rest else ""


def orders(count: int, first: int = 0, fine: int = 4) -> Iterator[Order]:
    """A mixture: of each ``fine`` (4 or 8), one at every line, which takes more than twice as long."""
    for seed in range(first, first + count):
        yield Order(("walk", "priorities")[seed % 2], seed, seed % fine == fine - 1)
