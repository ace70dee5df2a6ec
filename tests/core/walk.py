"""Does the ledger keep its promises in every state that a small world can reach?

Breadth first: from an empty pool, every event that could happen next is tried in every state, once. ``world.py`` says
what may happen, ``promises.py`` what must hold. States are the same when nothing that will ever be asked tells them
apart, so the walk ends; and because it is breadth first, a broken promise comes with a shortest story.

The rules are compiled from their source text each time, never imported: so the same walk serves sources that were
broken on purpose (``test_ledger_mutants.py``).
"""

from __future__ import annotations

import builtins
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from tests.core.promises import Broken
from tests.core.setting import Setting
from tests.core.world import World

PACKAGE = "threadpool_db.core"
FOLDER = Path(__file__).resolve().parents[2] / "threadpool_db" / "core"


class Edit(NamedTuple):
    """One change of a source text: ``old``, which must be there exactly once, becomes ``new``."""

    room: str
    old: str
    new: str


class NotFound(Exception):
    """An edit does not fit its source any more."""


def load(edits: Iterable[Edit] = ()) -> SimpleNamespace:
    """The rooms of the core as attributes (``core.ledger.Ledger``), compiled afresh from their sources, edited."""
    edits = list(edits)
    rooms: dict[str, ModuleType] = {}

    def bring(name: str, *rest: Any) -> Any:
        if name == PACKAGE:  # ``from threadpool_db.core import fate``
            return SimpleNamespace(**{room: bring(f"{name}.{room}") for room in rest[2]})
        if not name.startswith(f"{PACKAGE}."):
            return builtins.__import__(name, *rest)
        room = name.rpartition(".")[2]
        if room not in rooms:
            module = rooms[room] = ModuleType(name)
            module.__dict__["__builtins__"] = {**vars(builtins), "__import__": bring}
            exec(compiled(room, [edit for edit in edits if edit.room == room]), module.__dict__)
        return rooms[room]

    for room in ("ledger", "permits", "sojourn"):
        bring(f"{PACKAGE}.{room}")
    return SimpleNamespace(**rooms)


def compiled(room: str, edits: list[Edit]) -> CodeType:
    path = FOLDER / f"{room}.py"
    source = path.read_text()
    for edit in edits:
        if source.count(edit.old) != 1:
            raise NotFound(f"{path.name} has this {source.count(edit.old)} times, not once:\n{edit.old}")
        source = source.replace(edit.old, edit.new)
    return compile(source, f"<edited {path.name}>" if edits else str(path), "exec")


class Walk(NamedTuple):
    states: int
    transitions: int


def walk(setting: Setting, core: SimpleNamespace, most_states: float = float("inf")) -> Walk:
    """Visit all of it, or the first ``most_states``. Raises Broken, with the events that led there."""
    start = World(setting, core)
    came_from: dict[Any, tuple[Any, str]] = {start.key(): (None, "")}
    frontier = deque([(start.key(), start)])
    transitions = 0
    while frontier and len(came_from) <= most_states:
        here, world = frontier.popleft()
        label = ""
        try:
            for event in world.events():
                transitions += 1
                label = world.describe(event)
                after = world.clone()
                after.happen(event)
                there = after.key()
                if there not in came_from:
                    came_from[there] = (here, label)
                    frontier.append((there, after))
            label = "audit"
            world.audit()
        except Broken as broken:
            broken.path = story(came_from, here, label)
            raise
    return Walk(len(came_from), transitions)


def story(came_from: dict[Any, tuple[Any, str]], here: Any, label: str) -> list[str]:
    """The events that led there."""
    path = [label]
    while here is not None:
        here, label = came_from[here]
        path.append(label)
    return [label for label in reversed(path) if label]
