"""How does a driver hear what a borrower says? By classes that listen, made of whatever class the borrower brings.

A listener stands *below* the borrower's own class and above the module's: it hears what his ``execute`` has made of a
text. Some call the module's method by its name, past whatever stands below; so where a class has a sending method of
its own, another listener stands above it, and hears what it was asked to run.

Not heard: what reaches the module's class some third way, and what a parameter adds that is no literal (``AsIs``).
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable
from typing import Any

from threadpool_db.core.statement import LONGEST_REMEMBERED, judge

#: what is left, as a number: 0 is nothing. OURS is on our side of the socket, and can be put back without a round trip.
OURS, SESSION = 1, 2
#: a function that nobody knows was called, and may have set something; what was left outlives a reset
PERHAPS, LASTING = 4, 8


def left_by(sql: str | bytes) -> int:
    """What a statement leaves in PostgreSQL, as such a number. In the path of each one: a look into a table."""
    return _remembered(sql) if len(sql) <= LONGEST_REMEMBERED else _left_by(sql)


def _left_by(sql: str | bytes) -> int:
    judged = judge(sql, "postgresql")
    return judged.dirty * SESSION | judged.lasting * LASTING | judged.strange * PERHAPS


_remembered = functools.lru_cache(maxsize=1024)(_left_by)


def variant(kind: Any, below: type, above: tuple[type, ...] = ()) -> Any:
    """A subclass of ``kind`` that has ``below`` under it; None where there can be none.

    It goes by the name of ``kind``, which is its attribute ``heard``.
    """
    if not isinstance(kind, type):
        return None  # some other callable

    def fill(body: dict[str, Any]) -> None:
        body.update(__slots__=(), __module__=kind.__module__, __qualname__=kind.__qualname__, __doc__=kind.__doc__)
        body["heard"] = kind

    bases = (*above, below) if issubclass(below, kind) else (*above, kind, below)
    try:
        return types.new_class(kind.__name__, bases, exec_body=fill)
    except Exception:  # another layout in memory, a final class, a registry that knows this name
        return None


def has_own(kind: type, methods: Iterable[str], trusted: tuple[str, ...], *stops: type) -> bool:
    """Has it any of these methods from somebody else than its module, which passes on what it is given?"""
    return any(
        base not in stops
        and not f"{base.__module__}.".startswith(trusted)
        and not vars(base).keys().isdisjoint(methods)
        for base in kind.__mro__
    )
