"""Do imports run only downwards?

The house as data: a floor may import the floors below it, and on its own floor a room may import only rooms to its
left. Imports that run only for a type checker do not count. Below the table stand the rules for the outside world:
the core is pure, nothing but drivers and hosts knows a third party, and a driver meets its third party only when used.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "threadpool_db"
ROOT = Path(__file__).resolve().parent.parent / PACKAGE

# From the ground up. A name is a module or a whole package; rooms that share a string may not import each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    (
        "core.pace",
        "core.alarm core.entry core.backoff core.outage core.overload core.sizing",
        "core.freshness core.holding core.line core.reach core.sojourn core.stats core.tokens",
        "core.due core.dialects core.failing core.keeping core.opening core.rules core.shedding",
        "core.audit core.permits core.statement",
        "core.serving",
        "core.fate core.shortways core.steering",
        "core.ledger",
    ),
    (
        "drivers.base drivers.sockets drivers.watching",
        "drivers.client drivers.dbapi drivers.commands_pymysql",
        "drivers.postgresql drivers.watched_psycopg2 drivers.watched_psycopg drivers.watched_pymysql "
        "drivers.watched_sqlite",
        "drivers.psycopg2 drivers.psycopg drivers.pymysql drivers.sqlite",
        "drivers.choose",
        "config",
    ),
    (
        "waiting",
        "logbook",
        "observe",
        "fork patched",
        "budget",
        "refusal",
        "lease",
        "telling",
        "keeper",
        "limits grip",
        "hooks",
        "alarms",
        "reset session",
        "upkeep",
        "showing",
        "aftermath nesting",
        "orders",
        "background",
        "borrowing returning",
        "live",
        "pool",
    ),
    (
        "checkout.pin",
        "checkout.per_operation checkout.per_thread checkout.permitted",
        "result",
        "checkout.blocks",
        "checkout.reader",
        "checkout.proxy_cursor",
        "checkout.proxy",
        "database knowledge",
        "tenant",
        "tenants",
        "groups",
    ),
    (
        "demand outcome picture scenario",
        "arrivals indexed_permits shared_outcome simulated",
        "processes",
        "simulate",
        "interview timeline trial",
        "advisor forecast",
        "sizer",
        "testing",
        "contract.acts contract.wire",
        "contract.bench",
        "contract.looks contract.transactions contract.sessions contract.ends",
        "contract",
        "checkup.advice checkup.limited checkup.network checkup.report checkup.sessions",
        "checkup.failures checkup.findings checkup.postgresql checkup.mysql checkup.sqlite",
        "checkup.steps",
        "checkup",
        "ext",
        "cli",
        "__main__",
    ),
)

# Public names are gathered here; nothing below the top floor may look at them.
FRONT_DOORS = ("", "core", "drivers", "checkout")

# What decisions may be made of. No lock, thread, clock, I/O or driver.
CORE_MAY_IMPORT = frozenset(
    "__future__ abc bisect collections dataclasses enum functools heapq itertools math operator random re typing types "
    "typing_extensions warnings weakref".split()
)

THIRD_PARTY_ROOMS = ("drivers", "ext")
EAGER_THIRD_PARTY_ROOMS = ("ext",)


class Import(NamedTuple):
    """One imported module, and whether it happens on import of the importer or later, inside a function."""

    module: str
    line: int
    eager: bool
    names: tuple[str, ...] = ()


def imports_of(source: str, module: str, is_package: bool = False) -> Iterator[Import]:
    """What this source imports at run time, relative names made absolute."""
    package = module if is_package else module.rpartition(".")[0]
    for node, eager in statements(ast.parse(source).body, True):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, eager)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            start = package.rsplit(".", node.level - 1)[0] if node.level else ""
            yield Import(".".join(filter(None, (start, node.module))), node.lineno, eager, names)


def statements(body: list[ast.stmt], eager: bool) -> Iterator[tuple[ast.stmt, bool]]:
    for node in body:
        if isinstance(node, ast.If) and is_type_checking(node.test):
            yield from statements(node.orelse, eager)
            continue
        yield node, eager
        inside = eager and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for field in ("body", "orelse", "finalbody"):
            yield from statements(getattr(node, field, []), inside)
        for part in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
            yield from statements(part.body, inside)


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def place(room: str) -> tuple[int, int, str] | None:
    """Floor, position on it and name in the table, of the longest entry that this module is or lies in."""
    best: tuple[int, int, str] | None = None
    for floor, positions in enumerate(FLOORS):
        for position, names in enumerate(positions):
            for name in names.split():
                if (room == name or room.startswith(f"{name}.")) and (best is None or len(name) > len(best[2])):
                    best = (floor, position, name)
    return best


def known_modules() -> dict[str, Path]:
    """Every room that exists, by its name inside the package; a package's own file by the package's name."""
    modules: dict[str, Path] = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def targets(found: Import, modules: frozenset[str]) -> Iterator[str]:
    """The rooms that an import of our own package reaches: `from threadpool_db import fork` means the room fork."""
    if found.module != PACKAGE and not found.module.startswith(f"{PACKAGE}."):
        return
    room = found.module[len(PACKAGE) + 1 :]
    for name in found.names or ("",):
        inner = ".".join(filter(None, (room, name)))
        yield inner if inner in modules else room


def violations(
    source: str, room: str, modules: frozenset[str] = frozenset(), is_package: bool = False
) -> Iterator[str]:
    """Every import of this room that breaks a rule, as a sentence."""
    here = place(room)
    importer = "the front door" if room in FRONT_DOORS else room
    for found in imports_of(source, f"{PACKAGE}.{room}".rstrip("."), is_package):
        where = f"{room or '__init__'}:{found.line}"
        top = found.module.partition(".")[0]
        for target in targets(found, modules):
            there = place(target)
            if target in FRONT_DOORS:
                if room not in FRONT_DOORS and (here is None or here[0] < len(FLOORS) - 1):
                    yield f"{where}: {importer} imports from a package's front door {target or PACKAGE!r}"
            elif there is None:
                yield f"{where}: {target} stands in no floor of the table"
            elif here is not None and here[2] != there[2] and there[:2] >= here[:2]:
                direction = "up" if there[0] > here[0] else "sideways"
                yield f"{where}: {room} imports {direction}, from {target}"
        if top == PACKAGE:
            continue
        package = room.partition(".")[0]
        if package == "core" and top not in CORE_MAY_IMPORT:
            yield f"{where}: the core imports {found.module}"
        elif top not in sys.stdlib_module_names and top != "typing_extensions":
            if package not in THIRD_PARTY_ROOMS:
                yield f"{where}: {room or PACKAGE} imports {found.module}, a third party"
            elif found.eager and package not in EAGER_THIRD_PARTY_ROOMS:
                yield f"{where}: {room} imports {found.module} outside a function"
        if top == "threading" and found.names:
            yield f"{where}: {room} takes {', '.join(found.names)} out of threading: gevent patches the module"


class TestHouse:
    def test_no_import_breaks_a_rule(self) -> None:
        modules = known_modules()
        broken = [
            line
            for room, path in modules.items()
            for line in violations(path.read_text(), room, frozenset(modules), path.name == "__init__.py")
        ]
        assert not broken, "\n" + "\n".join(broken)

    def test_every_room_stands_on_a_floor(self) -> None:
        homeless = [room for room in known_modules() if room not in FRONT_DOORS and place(room) is None]
        assert not homeless

    def test_no_room_stands_on_two_floors(self) -> None:
        names = [name for floor in FLOORS for names in floor for name in names.split()]
        assert len(names) == len(set(names))

    def test_every_file_opens_with_a_docstring(self) -> None:
        silent = [
            room
            for room, path in known_modules().items()
            if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
        ]
        assert not silent


MODULES = frozenset(
    "errors core core.entry core.stats core.ledger drivers.base drivers.sockets drivers.sqlite drivers.psycopg2 "
    "drivers.choose config waiting fork lease pool checkout.pin checkout.per_thread checkout.per_operation "
    "database ext.sqlalchemy".split()
)


class TestChecker:
    """The rules themselves, fed with sources that break or keep them."""

    @pytest.mark.parametrize(
        ("room", "source", "complaint"),
        [
            ("core.entry", "from threadpool_db.core.ledger import Ledger", "sideways, from core.ledger"),
            ("core.ledger", "import threadpool_db.pool", "up, from pool"),
            ("core.ledger", "from ..pool import ConnectionPool", "up, from pool"),
            ("core.ledger", "from threadpool_db import waiting", "up, from waiting"),
            ("core.stats", "import threading", "the core imports threading"),
            ("core.stats", "from time import monotonic", "the core imports time"),
            ("core.stats", "def f():\n    import socket", "the core imports socket"),
            ("core.stats", "import concurrent.futures", "the core imports concurrent.futures"),
            ("core.stats", "import psycopg2", "the core imports psycopg2"),
            ("drivers.base", "from threadpool_db.drivers.choose import choose", "sideways"),
            ("drivers.sqlite", "from . import psycopg2", "sideways, from drivers.psycopg2"),
            ("drivers.psycopg2", "import psycopg2", "imports psycopg2 outside a function"),
            ("drivers.psycopg2", "class D:\n    import psycopg2", "imports psycopg2 outside a function"),
            ("drivers.psycopg2", "try:\n    pass\nexcept E:\n    import psycopg2", "outside a function"),
            ("fork", "from threadpool_db.lease import Lease", "sideways, from lease"),
            ("lease", "def f():\n    from threadpool_db.pool import ConnectionPool", "sideways, from pool"),
            ("checkout.per_thread", "from threadpool_db.checkout import per_operation", "sideways"),
            ("pool", "from threadpool_db import create_pool", "front door"),
            ("pool", "from threadpool_db.database import Face", "up, from database"),
            ("pool", "import psycopg2", "a third party"),
            ("pool", "def f():\n    import psycopg2", "a third party"),
            ("pool", "from threading import RLock", "RLock out of threading"),
            ("pool", "if TYPE_CHECKING:\n    pass\nelse:\n    import threadpool_db.database", "up, from database"),
        ],
    )
    def test_it_finds(self, room: str, source: str, complaint: str) -> None:
        assert any(complaint in line for line in violations(source, room, MODULES))

    @pytest.mark.parametrize(
        ("room", "source"),
        [
            ("core.ledger", "from threadpool_db.core.entry import Entry\nimport math, collections.abc"),
            ("core.ledger", "from .entry import Entry"),
            ("core.entry", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import threadpool_db.pool"),
            ("errors", "import typing\nif typing.TYPE_CHECKING:\n    from threadpool_db.core.stats import Snapshot"),
            ("drivers.psycopg2", "def connect():\n    import psycopg2"),
            ("drivers.choose", "from threadpool_db.drivers import sqlite, psycopg2"),
            ("pool", "import threading\nfrom threadpool_db import fork\nfrom threadpool_db.lease import Lease"),
            ("database", "from threadpool_db.checkout.pin import Pin\nfrom threadpool_db.pool import ConnectionPool"),
            ("ext.sqlalchemy", "import sqlalchemy\nfrom threadpool_db import ConnectionPool"),
        ],
    )
    def test_it_allows(self, room: str, source: str) -> None:
        assert list(violations(source, room, MODULES)) == []

    def test_it_allows_the_front_door_to_gather_the_public_names(self) -> None:
        source = "from threadpool_db.pool import ConnectionPool\nfrom .database import Face"
        assert list(violations(source, "", MODULES, is_package=True)) == []

    def test_it_finds_a_room_that_is_in_no_floor(self) -> None:
        modules = MODULES | {"attic"}
        assert any("no floor" in line for line in violations("from threadpool_db import attic", "pool", modules))
