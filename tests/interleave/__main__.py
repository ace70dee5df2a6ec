"""Plays one order of one scenario and prints it: the command that a failure has printed, see ``order.py``.

python -m tests.interleave "four on two" priorities 31 fine
"""

from __future__ import annotations

import sys

from tests.core.promises import Broken
from tests.interleave.explore import Explorer, load, quiet
from tests.interleave.order import parse
from tests.interleave.plays import MISTAKES, PLAYS


def main(name: str, *words: str) -> None:
    order, mutant = parse(*words)
    explorer = Explorer(PLAYS[name], load(MISTAKES[mutant].edits) if mutant else None, mutant)
    with quiet():
        try:
            world = explorer.order(order, record=True)
        except Broken as broken:
            print(broken)
            sys.exit(1)
    print(*(explorer.scheduler.log or ()), dict(world.outcomes), *world.all_found, sep="\n")
    sys.exit(1 if world.all_found else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
