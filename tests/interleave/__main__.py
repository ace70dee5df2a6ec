"""Plays one order of one scenario and prints it: ``python -m tests.interleave "four on two" priorities 31 fine``.

``fine`` is for an order at every line; ``interrupt 17`` or ``collect 17`` at the end strikes A there.
"""

from __future__ import annotations

import sys

from tests.core.promises import Broken
from tests.interleave.explore import Explorer, Order, quiet
from tests.interleave.injection import Injection
from tests.interleave.kept_scenarios import KEPT
from tests.interleave.outage_scenarios import OUTAGES, OUTAGES_COLLECTED, OUTAGES_STRUCK
from tests.interleave.scenarios import COLLECTED, SCENARIOS, STRUCK
from tests.interleave.shared import SHARED


def main(name: str, way: str, seed: str, *more: str) -> None:
    fine = "fine" in more
    rest = [word for word in more if word != "fine"]
    injection = Injection(rest[0], "A", int(rest[1])) if rest else None
    plays = [*SCENARIOS, *KEPT, *SHARED, *OUTAGES, *STRUCK, *COLLECTED, *OUTAGES_STRUCK, *OUTAGES_COLLECTED]
    scenario = next(each for each in plays if each.name == name)
    explorer = Explorer(scenario)
    with quiet():
        try:
            world = explorer.order(Order(way, int(seed), fine, injection), record=True)
        except Broken as broken:
            print(broken)
            sys.exit(1)
    print(*(explorer.scheduler.log or ()), dict(world.outcomes), *world.found, sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
