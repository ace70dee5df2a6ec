"""Is this pool as cheap, as fair and as modest as it says? Measures all contestants and prints tables: ``--help``.

``--check`` measures only what must hold, and until it is clear. Absolute times are for information.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench.agreement import AGREEMENT, LIMIT, disagreements, measure_agreement
from tests.bench.baseline import BASELINE, MOVED, compare, save
from tests.bench.burst import BURST, Bursts
from tests.bench.contention import CONNECTIONS, HABITS, Contention
from tests.bench.contestants import FOR_CONTENTION, FOR_PAIRS, invited
from tests.bench.engine import ENGINE, ENGINE_CROWD, measure_engine, measure_engine_crowd
from tests.bench.memory import MEMORY, measure_memory
from tests.bench.musts import Say, check
from tests.bench.operation import OPERATION, operations
from tests.bench.overload import OVERLOAD, measure_overload
from tests.bench.overload import picture as overload_picture
from tests.bench.pairs import Pairs
from tests.bench.policies import measure_policies, picture
from tests.bench.recovery import KINDS, Recoveries, section
from tests.bench.tables import Figures, tables
from tests.bench.zipf import measure_zipf


@dataclass(frozen=True)
class Effort:
    """How much is measured; no rounds: not that."""

    pair_rounds: int
    crowd_rounds: int
    slice_seconds: float
    burst_rounds: int = 0
    memory: bool = False
    restart_rounds: int = 0
    engine_rounds: int = 0
    operation_rounds: int = 0


FULL = Effort(400, 5, 0.5, burst_rounds=3, memory=True, restart_rounds=3, engine_rounds=400, operation_rounds=300)
QUICK = Effort(100, 2, 0.25, burst_rounds=1, memory=True, operation_rounds=100)
SMOKE = Effort(20, 1, 0.1)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(effort: Effort, say: Say) -> Figures:
    figures: Figures = {}
    with invited(FOR_PAIRS, CONNECTIONS, say) as contestants:
        pairs = Pairs(contestants)
        for done in range(4):
            say(f"one thread, a pair: {done * 25} %")
            pairs.run(effort.pair_rounds // 4)
        figures["pair"] = pairs.figures()
    if effort.operation_rounds:
        say(OPERATION)
        with operations(say) as race:
            race.run(effort.operation_rounds)
            figures |= race.sections()
    with invited(FOR_CONTENTION, CONNECTIONS, lambda line: None) as contestants:
        for habit in HABITS:
            crowd = Contention(contestants, habit, effort.slice_seconds)
            for done in range(effort.crowd_rounds):
                say(f"{habit}: round {done + 1} of {effort.crowd_rounds}")
                crowd.run(1)
            figures[str(habit)] = crowd.figures()
    if effort.burst_rounds:
        bursts = Bursts()
        for done in range(effort.burst_rounds):
            say(f"{BURST}: round {done + 1} of {effort.burst_rounds}")
            bursts.run(1)
        figures[BURST] = bursts.figures()
    if effort.memory:
        say(MEMORY)
        figures[MEMORY] = measure_memory()
    if effort.engine_rounds:
        figures |= sqlalchemy(effort, say)
    if effort.restart_rounds:
        for kind in KINDS:
            recoveries = Recoveries(kind)
            recoveries.run(effort.restart_rounds, say)
            figures[section(kind)] = recoveries.figures()
    return figures


def sqlalchemy(effort: Effort, say: Say) -> Figures:
    say(ENGINE)
    costs = measure_engine(effort.engine_rounds, say)
    say(ENGINE_CROWD)
    return {ENGINE: costs, ENGINE_CROWD: measure_engine_crowd(effort.crowd_rounds, say)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="This pool beside the others.")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="a rough look in 40 s instead of 4 minutes; no server")
    how.add_argument("--smoke", action="store_true", help="5 s: that it runs, and by what order of magnitude")
    how.add_argument("--sqlalchemy", action="store_true", help="only SQLAlchemy over both pools; 1 minute")
    how.add_argument(
        "--policies", action="store_true", help="both checkout policies as a request does more outside; 5 minutes"
    )
    how.add_argument("--tenants", action="store_true", help="many databases under one cap; half a minute")
    how.add_argument("--overload", action="store_true", help="only at twice the capacity; half a minute")
    how.add_argument(
        "--agreement",
        action="store_true",
        help=f"does the simulator say what the real pool does? 25 s; exit code 1 if not within {LIMIT:.0%}%",
    )
    how.add_argument("--check", action="store_true", help="only what must hold; exit code 1 if it does not")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="with --policies or --overload: draw it there, as SVG"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--save", action="store_true", help=f"write what depends least on the machine to {BASELINE.name}"
    )
    parser.add_argument("--compare", action="store_true", help=f"say what of that moved more than {MOVED:.0%} since")
    options = parser.parse_args(arguments)
    if options.picture and not (options.policies or options.overload):
        parser.error("--picture is what --policies and --overload draw")
    if options.check:
        return 0 if check(say) else 1
    if options.sqlalchemy:
        figures = sqlalchemy(FULL, say)
    elif options.tenants:
        figures = measure_zipf(FULL.crowd_rounds, say)
        if not figures:
            return 1
    elif options.overload and options.picture:
        options.picture.write_text(overload_picture(say))
        return 0
    elif options.overload:
        figures = {OVERLOAD: measure_overload(say)}
    elif options.agreement:
        figures = {AGREEMENT: measure_agreement(say)}
    elif options.policies:
        figures, about = measure_policies(say)
        if not figures:
            return 1
        if options.picture:
            options.picture.write_text(picture(figures, about))
    else:
        figures = measure(QUICK if options.quick else SMOKE if options.smoke else FULL, say)
    print(f"Python {platform.python_version()}, {platform.machine()}\n\n{tables(figures)}")
    if options.json:
        options.json.write_text(json.dumps({"python": platform.python_version(), "figures": figures}, indent=1) + "\n")
    if options.compare:
        print("", *compare(figures), sep="\n")
    if options.save:
        save(figures)
    differ = disagreements(figures.get(AGREEMENT, {}))
    for line in differ:
        say(f"DIFFERS by more than {LIMIT:.0%}: {line}")
    return 1 if differ else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
