"""How is a scenario tried in many orders? And told, when one of them goes wrong?

``explore`` plays it by many seeds; the first broken promise is played once more from its seed, this time with every
step noted, and raised with that story. ``load`` compiles the shell afresh, edited for a mutant, as the core's walk
does with the core.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import logging
import math
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from tests.core.promises import Broken
from tests.core.walk import Edit, NotFound
from tests.interleave.injection import Injection, Striker
from tests.interleave.kept import KeptWorld
from tests.interleave.order import Order, command
from tests.interleave.scenarios import Scenario
from tests.interleave.scheduler import Abort, Scheduler, Strategy
from tests.interleave.strategies import Exhaustive
from tests.interleave.world import Interrupted, World, repeatable
from threadpool_db.config import PoolConfig

PACKAGE = "threadpool_db"
FOLDER = Path(__file__).resolve().parents[2] / PACKAGE
#: The ledger and its parts.
UNDER_THE_LOCK = (
    "core.reach",
    "core.failing",
    "core.keeping",
    "core.opening",
    "core.permits",
    "core.serving",
    "core.shortways",
    "core.fate",
    "core.steering",
    "core.ledger",
)
ROOMS = (
    "core.outage",
    *UNDER_THE_LOCK,
    "waiting",
    "budget",
    "lease",
    "keeper",
    "reset",
    "upkeep",
    "aftermath",
    "nesting",
    "orders",
    "background",
    "borrowing",
    "returning",
    "live",
    "pool",
)


def path_of(room: str) -> Path:
    return FOLDER / f"{room.replace('.', '/')}.py"


def load(edits: Iterable[Edit] = ()) -> SimpleNamespace:
    """The shell's rooms as attributes, compiled afresh from their sources, edited; all else as it is imported."""
    edits = list(edits)
    rooms: dict[str, ModuleType] = {}

    def bring(name: str, *rest: Any) -> Any:
        if name == f"{PACKAGE}.core":  # ``from threadpool_db.core import fate``
            return SimpleNamespace(**{room: bring(f"{name}.{room}", *rest) for room in rest[2]})
        room = name.removeprefix(f"{PACKAGE}.")
        if room not in ROOMS or not name.startswith(PACKAGE):
            return builtins.__import__(name, *rest)
        if room not in rooms:
            path = path_of(room)
            source = path.read_text()
            mine = [edit for edit in edits if edit.room == room]
            for edit in mine:
                if source.count(edit.old) != 1:
                    raise NotFound(f"{path.name} has this {source.count(edit.old)} times, not once:\n{edit.old}")
                source = source.replace(edit.old, edit.new)
            module = rooms[room] = ModuleType(name)
            module.__dict__["__builtins__"] = {**vars(builtins), "__import__": bring}
            exec(compile(source, f"<edited {path.name}>" if mine else str(path), "exec"), module.__dict__)
        return rooms[room]

    for room in ROOMS:
        bring(f"{PACKAGE}.{room}")
    return _shell([f"<edited {Path(file).name}>" for file in FILES] + FILES, rooms)


#: Of a longer story the beginning and the end are told.
LONG = 1_000
#: Within these each line is a point of a fine schedule. The ledger is not among them.
FILES = [str(path_of(room)) for room in ROOMS if room not in UNDER_THE_LOCK]


def imported() -> SimpleNamespace:
    """The shell as everybody has it."""
    for room in ROOMS:
        __import__(f"{PACKAGE}.{room}")
    return _shell(FILES, {room: sys.modules[f"{PACKAGE}.{room}"] for room in ROOMS})


def _shell(files: list[str], rooms: dict[str, ModuleType]) -> SimpleNamespace:
    shell = SimpleNamespace(files=files, **rooms)
    shell.repeatable = repeatable(shell)
    return shell


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No collection but our own, no warnings, no log; errors in finalisers and in the background are kept."""
    logger = logging.getLogger(PACKAGE)
    level, collecting, hook = logger.level, gc.isenabled(), sys.unraisablehook
    logger.setLevel(logging.ERROR)
    logger.addFilter(_logged)
    gc.collect()
    gc.disable()
    gc.freeze()
    sys.unraisablehook = _unraisable
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gc.unfreeze()
        sys.unraisablehook = hook
        logger.removeFilter(_logged)
        logger.setLevel(level)
        if collecting:
            gc.enable()


tripped: list[str] = []


def _unraisable(args: Any) -> None:
    if not isinstance(args.exc_value, (Abort, Interrupted)):
        tripped.append(f"in a finaliser: {args.exc_value!r}")


def _logged(record: logging.LogRecord) -> bool:
    tripped.append(f"{record.getMessage()}: {record.exc_info[1] if record.exc_info else None!r}")
    return False


class Explorer:
    """Plays one scenario again and again."""

    def __init__(self, scenario: Scenario, shell: SimpleNamespace | None = None, mutant: str = "") -> None:
        self.scenario = scenario
        self.mutant = mutant  # the name of what is wrong with the shell
        self.shell = shell or imported()
        self.scheduler = Scheduler()
        self.config = PoolConfig(clock=self.scheduler, **{"background": False, "grace": math.inf, **scenario.options})
        self.outcomes: Counter[str] = Counter()
        self.schedules = 0
        self.ways: set[int] = set()  # of the schedules: so many were different ones
        self.length = 60  # about how many points it has, fine ones apart
        self.fine_length = 600

    def play(
        self, strategy: Strategy, fine: bool = False, record: bool = False, injection: Injection | None = None
    ) -> World:
        s = self.scheduler
        s.begin(strategy, fine=self.shell.files if fine else (), record=record)
        tripped.clear()
        try:
            w = (KeptWorld if self.config.background else World)(s, self.shell, self.config)
            if injection is not None:
                w.striker = Striker(w, injection)  # now: the scheduler may be started, once, before the play begins
            self.scenario.play(w)
            if injection is not None:
                w.striker.counting = True
            for each in (w, *w.others):
                each.begin()
            s.go(w.calm)
            self.ways.add(s.way)
            w.collect()
            try:
                for each in (w, *w.others):
                    each.finish()
            except Exception as error:
                if not w.hurt or isinstance(error, Broken):
                    raise
                w.find(f"never trips: the next one meets {error!r}")
            for error_text in tripped:
                if not w.hurt:
                    raise Broken("never trips", error_text)
                w.find(f"never trips: {error_text}")
        except Broken as broken:
            broken.path = s.log or []
            raise
        except Exception as error:
            trip = Broken("never trips", "".join(traceback.format_exception(error)).strip())
            trip.path = s.log or []
            raise trip from None
        finally:
            s.end()
        for each in (w, *w.others):
            self.outcomes += each.outcomes
        self.schedules += 1
        if self.schedules % 500 == 0:
            gc.collect()
        return w

    def order(self, order: Order, record: bool = False) -> World:
        length = self.fine_length if order.fine else self.length
        return self.play(order.strategy(length), order.fine, record, order.injection)

    def explore(self, orders: Iterable[Order]) -> None:
        """Raises Broken with the story of the first schedule that broke a promise."""
        for order in orders:
            try:
                self.order(order)
            except Broken as broken:
                self.tell(broken, order)

    def tell(self, broken: Broken, order: Order) -> None:
        """Raise it once more, with the command that brings it back and every step."""
        again_by = command(self.scenario.name, order, self.mutant)
        try:
            self.order(order, record=True)
        except Broken as again:
            if again.promise == broken.promise and last_line(again) == last_line(broken):
                if len(again.path) > LONG:
                    again.path[LONG // 2 : -LONG // 2] = ["..."]
                again.path.insert(0, again_by)
                raise again from None
        raise AssertionError(f"{again_by}: not the same again, it was {broken}")

    def exhaust(self, bound: int = 2, most: float = float("inf")) -> bool:
        """Every schedule of so many preemptions; False if there were more than ``most``."""
        strategy = Exhaustive(bound)
        while most > 0:
            try:
                self.play(strategy)
            except Broken as broken:
                self.tell(broken, Order("every", bound, choices=strategy.choices))
            if not strategy.more():
                return True
            most -= 1
        return False


def last_line(broken: Broken) -> str:
    return broken.detail.rpartition("\n")[2]
