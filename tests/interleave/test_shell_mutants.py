"""Would the explorer notice? Each mistake of ``mutants.py`` must break its promise within so many schedules.

When the shell's text is edited so that a mutant no longer fits, its test fails, and asks for the new place.
"""

from __future__ import annotations

import pytest

from tests.core.promises import Broken
from tests.interleave.explore import Explorer, load, quiet
from tests.interleave.kept_scenarios import KEPT
from tests.interleave.mutants import Mutant
from tests.interleave.order import orders
from tests.interleave.outage_scenarios import OUTAGES
from tests.interleave.plays import NOTICED, PLAYS
from tests.interleave.scenarios import SCENARIOS

#: A real mistake should not be rarer than this in the scenario made for it.
ENOUGH = 2_500


@pytest.mark.parametrize("mutant", NOTICED, ids=lambda mutant: mutant.name)
def test_the_explorer_notices(mutant: Mutant) -> None:
    explorer = Explorer(PLAYS[mutant.scenario], load(mutant.edits), mutant.name)
    with quiet(), pytest.raises(Broken) as caught:
        explorer.explore(orders(ENOUGH))
    assert caught.value.promise in mutant.by.split(" or "), str(caught.value)
    assert len(caught.value.path) > 5, "it does not tell its story"


def test_a_copy_without_a_mistake_is_as_good_as_the_original() -> None:
    for scenario in [*SCENARIOS[:3], *KEPT[:3], *OUTAGES[-2:]]:
        with quiet():
            Explorer(scenario, load()).explore(orders(50))
