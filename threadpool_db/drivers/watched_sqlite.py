"""What has a borrower left in an SQLite connection? A subclass of its class knows, made here; see ``watched``.

*By SQL*: SQLite's authorizer names each thing that a statement will do, exactly and whatever its text looks like, when
the statement is prepared. Python keeps prepared statements, so an ordinary one, the second time, costs nothing at all.
To have seen the first is enough: a connection in which something was left is closed, for SQLite has no reset.

*By Python*: functions, collations, hooks and limits stay too; their methods note it. ``row_factory``, ``text_factory``
and ``isolation_level`` are only put back.

An authorizer that was there before us is asked too, and a borrower may set his own: that is noted, and ends ours. What
is not known as harmless is dirty: VACUUM, which attaches a database in secret. Nobody sees what an extension's
function does to its connection.

An exception that a signal's handler raises in the authorizer is lost in sqlite3, which says "not authorized" instead;
it could only meet a statement that is new. It cannot be kept and raised later: it strikes where the authorizer's call
begins, and from CPython 3.11 on that is before any ``try`` of its.

Roads not taken: judging texts in ``execute`` costs each cached statement half as much again; the trace callback gets
them with their values, each time, and there is but one. A plain sqlite3.Connection, which a foreign callable made,
takes no attribute, and does not tell whether it has an authorizer: only its factories and its level are put back. A
callable that wants more opens with ``factory=watched(sqlite3.Connection)``.
"""

from __future__ import annotations

import functools
from typing import Any

from threadpool_db.core.statement import judge

#: sqlite3.LEGACY_TRANSACTION_CONTROL; before Python 3.12 the attribute is missing, which means the same: the old way
LEGACY = -1
_OK = 0
_PRAGMA, _ATTACH, _DETACH, _FUNCTION = 19, 24, 25, 31
#: INDEX, TABLE, TEMP INDEX, TEMP TABLE, TEMP TRIGGER, TEMP VIEW, TRIGGER, VIEW, VTABLE
_CREATES = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 29})
_LOOKED_AT = _CREATES | {_PRAGMA, _ATTACH, _DETACH, _FUNCTION}
#: these leave something that only the end of the connection removes
_LEAVING = (
    "create_function create_aggregate create_window_function create_collation set_progress_handler set_trace_callback "
    "enable_load_extension load_extension setlimit setconfig deserialize"
).split()
_FACTORIES = ("row_factory", "text_factory")


class Mark:
    """What is known of one connection. It does not know the connection: they would keep each other alive."""

    __slots__ = ("factories", "left", "level", "old_way", "theirs", "touched", "watching")

    def __init__(self) -> None:
        self.watching = False
        self.left = False  # something that stays
        self.touched = False  # or something that can be put back
        self.theirs: Any = None  # an authorizer
        self.factories: tuple[Any, ...] = ()
        self.level = ""
        self.old_way = True

    def note(self, connection: Any) -> None:
        """How it was made, from now on."""
        self.watching, self.left, self.touched = True, False, False
        self.factories = tuple(getattr(connection, name) for name in _FACTORIES)
        self.level = getattr(connection, "isolation_level", None) or ""
        self.old_way = getattr(connection, "autocommit", LEGACY) == LEGACY

    def leave(self) -> None:
        self.left = self.touched = self.watching

    def hear(self, action: int, name: Any, value: Any, database: Any, inner: Any) -> int:
        """The authorizer."""
        if action in _LOOKED_AT and not self.left and _leaves(action, name, value, database):
            self.leave()
        return _OK if self.theirs is None else self.theirs(action, name, value, database, inner)

    def changed(self, name: str, value: Any) -> None:
        """An attribute of the connection was set."""
        if name == "autocommit":
            if (value == LEGACY) is not self.old_way:
                self.leave()  # the rules of its transactions are others now, not only their mode
        elif name in _FACTORIES or (name == "isolation_level" and value not in (None, self.level)):
            self.touched = self.watching

    def put_back(self, connection: Any) -> None:
        for name, made in zip(_FACTORIES, self.factories, strict=True):
            setattr(connection, name, made)
        if connection.isolation_level not in (None, self.level):
            connection.isolation_level = self.level
        self.touched = self.left

    def moved(self, connection: Any) -> bool:
        """For a connection that does not say when it was touched."""
        row_factory, text_factory = self.factories
        return (
            connection.row_factory is not row_factory
            or connection.text_factory is not text_factory
            or connection.isolation_level not in (None, self.level)
        )


def _leaves(action: int, name: Any, value: Any, database: Any) -> bool:
    if action == _PRAGMA:
        return value is not None and judge(f"PRAGMA {name} = 1", "sqlite").dirty
    if action == _FUNCTION:
        return judge(f"SELECT {value}(1)", "sqlite").dirty
    return action not in _CREATES or database == "temp"


@functools.lru_cache(maxsize=64)
def watched(kind: Any) -> Any:
    """The subclass of a connection class, for ``sqlite3.connect(..., factory=watched(sqlite3.Connection))``."""
    if hasattr(kind, "mark"):
        return kind

    class Watched(kind):  # type: ignore[misc]
        __slots__ = ("mark",)

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__setattr__("mark", Mark())
            super().__init__(*args, **options)

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            self.mark.changed(name, value)

        def set_authorizer(self, authorizer_callback: Any) -> None:
            super().set_authorizer(authorizer_callback)
            self.mark.theirs = authorizer_callback
            self.mark.leave()

        def watch(self) -> None:
            self.mark.note(self)
            super().set_authorizer(self.mark.hear)

    for method in _LEAVING:
        if hasattr(kind, method):
            setattr(Watched, method, _noting(getattr(kind, method)))
    Watched.__qualname__ = Watched.__name__ = kind.__name__
    Watched.__module__ = kind.__module__
    return Watched


def _noting(method: Any) -> Any:
    @functools.wraps(method)
    def noting(self: Any, *args: Any, **options: Any) -> Any:
        self.mark.leave()
        return method(self, *args, **options)

    return noting
