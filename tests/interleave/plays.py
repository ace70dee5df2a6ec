"""Where is it, by its name? Every play that the suite tries, and every mistake that it must notice."""

from __future__ import annotations

from tests.interleave.kept_mutants import KEPT_MUTANTS
from tests.interleave.kept_scenarios import KEPT
from tests.interleave.kept_struck import APART, KEPT_COLLECTED
from tests.interleave.mutants import MUTANTS, STRUCK_MUTANTS
from tests.interleave.outage_mutants import OUTAGE_MUTANTS
from tests.interleave.outage_scenarios import OUTAGES, OUTAGES_COLLECTED, OUTAGES_STRUCK
from tests.interleave.scenarios import COLLECTED, SCENARIOS, STRUCK
from tests.interleave.shared import SHARED, SHARED_COLLECTED
from tests.interleave.shared_mutants import SHARED_MUTANTS

UNDISTURBED = [*SCENARIOS, *KEPT, *SHARED, *OUTAGES]
FOR_STRIKES = [*STRUCK, *COLLECTED, *KEPT_COLLECTED, *SHARED_COLLECTED, *OUTAGES_STRUCK, *OUTAGES_COLLECTED]
PLAYS = {scenario.name: scenario for scenario in [*UNDISTURBED, *FOR_STRIKES, *APART]}
NOTICED = [*MUTANTS, *KEPT_MUTANTS, *SHARED_MUTANTS, *OUTAGE_MUTANTS]
MISTAKES = {mutant.name: mutant for mutant in [*NOTICED, *STRUCK_MUTANTS]}
