"""What did a borrower leave behind on a psycopg 3 connection? Its cursors listen, and so does the class it is given.

psycopg is written in Python, so a connection that exists already, somebody's callable's too, can be given a class of
ours: it has a mark, ``left``, notices what is set on it, and makes a listening class of whatever factory that is.
"""

from __future__ import annotations

import functools
from sys import _getframe as getframe
from typing import Any, NamedTuple

from threadpool_db.drivers.watching import OURS, SESSION, has_own, left_by, variant

_SENDS = ("execute", "executemany", "stream", "copy")
FACTORIES = ("cursor_factory", "server_cursor_factory")
#: what a borrower may set on our side of the socket, where no DISCARD ALL reaches
SETTINGS = (
    "isolation_level", "read_only", "deferrable", "row_factory", *FACTORIES, "prepare_threshold", "prepared_max",
)  # fmt: skip
#: the first three have methods to set them too; behind all of it are these
_ATTRIBUTES = frozenset({*SETTINGS, "_isolation_level", "_read_only", "_deferrable"})


class Watched(NamedTuple):
    """The classes, made when psycopg is first needed."""

    connections: Any  # a listening variant of a class of connections, or None
    cursors: Any  # of a class of cursors
    silent: type  # the pool's own cursor, to which nobody listens


@functools.cache
def watched() -> Watched:
    import psycopg
    from psycopg.sql import Composable

    def hear(cursor: Any, query: Any) -> None:
        """The mark first: whoever is interrupted after the statement was sent has left it all the same."""
        if type(query) is not str:
            if isinstance(query, Composable):
                query = query.as_bytes(cursor)
            elif not isinstance(query, (str, bytes)):
                query = "?"  # a template string, or what psycopg will refuse
        if left := left_by(query):
            cursor.connection.left |= left

    execute = psycopg.Cursor.execute

    class Cursor(psycopg.Cursor[Any]):
        __slots__ = ()

        def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            # hear(), without the calls in the common case
            if type(query) is not str:
                hear(self, query)
            elif left := left_by(query):
                self._conn.left |= left  # type: ignore[attr-defined]
            return execute(self, query, params, **options)

        def executemany(self, query: Any, *args: Any, **options: Any) -> None:
            hear(self, query)
            super().executemany(query, *args, **options)

        def stream(self, query: Any, *args: Any, **options: Any) -> Any:
            hear(self, query)
            return super().stream(query, *args, **options)

        def copy(self, statement: Any, *args: Any, **options: Any) -> Any:
            hear(self, statement)
            return super().copy(statement, *args, **options)

    class ServerCursor(psycopg.ServerCursor[Any]):
        __slots__ = ()

        def execute(self, query: Any, *args: Any, **options: Any) -> Any:
            hear(self, query)
            if self.withhold:
                self.connection.left |= SESSION  # type: ignore[attr-defined]
            return super().execute(query, *args, **options)

    class Silent(psycopg.Cursor[Any]):
        __slots__ = ()

    class Above:
        __slots__ = ()

        def execute(self, *args: Any, **options: Any) -> Any:
            hear(self, args[0] if args else None)
            return super().execute(*args, **options)  # type: ignore[misc]

        def executemany(self, *args: Any, **options: Any) -> Any:
            hear(self, args[0] if args else None)
            return super().executemany(*args, **options)  # type: ignore[misc]

        def stream(self, *args: Any, **options: Any) -> Any:
            hear(self, args[0] if args else None)
            return super().stream(*args, **options)  # type: ignore[misc]

        def copy(self, *args: Any, **options: Any) -> Any:
            hear(self, args[0] if args else None)
            return super().copy(*args, **options)  # type: ignore[misc]

    @functools.lru_cache(maxsize=256)
    def made(kind: Any) -> Any:
        if not isinstance(kind, type) or issubclass(kind, (Cursor, ServerCursor)):
            return kind if isinstance(kind, type) else None
        own = has_own(kind, _SENDS, ("psycopg.",))
        below = ServerCursor if issubclass(kind, psycopg.ServerCursor) else Cursor
        return variant(kind, below, (Above,) if own else ())

    def cursors(kind: Any) -> Any:
        try:
            return made(kind)
        except TypeError:  # it cannot be remembered, so it is no class
            return None

    makes_a_cursor = psycopg.Cursor.__mro__[1].__init__.__code__  # type: ignore[misc]

    listeners = (Cursor, ServerCursor, Silent)

    def listening(kind: Any) -> type:
        # alone on its base: beside another one it would not have that layout in memory which lets it take over
        class Connection(kind):  # type: ignore[misc]
            __slots__ = ()
            __module__, __qualname__, __doc__ = kind.__module__, kind.__qualname__, kind.__doc__
            heard = kind
            left: int
            noted: Any = None  # what the server had reported when the watch began

            def __setattr__(self, name: str, value: Any) -> None:
                if name in _ATTRIBUTES:
                    left = OURS
                    if name in FACTORIES:
                        factory = cursors(value)
                        if factory is None:
                            left |= SESSION
                        value = factory or value
                    self.left = getattr(self, "left", 0) | left  # none in its own __init__
                super().__setattr__(name, value)

            def add_notice_handler(self, callback: Any) -> None:
                self.left |= OURS
                super().add_notice_handler(callback)

            def add_notify_handler(self, callback: Any) -> None:
                self.left |= OURS
                super().add_notify_handler(callback)

            @property
            def adapters(self) -> Any:
                # a cursor asks for them when it is made: one made from its class, and not by the factories above?
                caller = getframe(1)
                if caller.f_code is makes_a_cursor and not isinstance(caller.f_locals["self"], listeners):
                    self.left |= SESSION
                return super().adapters

        Connection.__name__ = kind.__name__
        return Connection

    @functools.lru_cache(maxsize=64)
    def connections(kind: Any) -> Any:
        try:
            return listening(kind)
        except Exception:  # a final class, a registry that knows this name
            return None

    return Watched(connections, cursors, Silent)
