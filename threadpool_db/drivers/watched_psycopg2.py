"""What did a borrower leave behind on a psycopg2 connection? Its cursors listen, and so does our class of connection.

A connection of ours has a mark, ``left``. One from somebody's callable is mostly of a type written in C that takes no
attribute: there the mark is ``cursor_factory``, a listening class as long as the session is clean, and after that the
plain one. What such a connection does not tell: ``cursor(cursor_factory=...)``, ``set_session()``, and a factory that
was changed and changed back.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from threadpool_db.drivers.watching import OURS, SESSION, has_own, left_by, variant

_SENDS = ("execute", "executemany", "callproc", "copy_expert")


class Watched(NamedTuple):
    """The classes, made when psycopg2 is first needed."""

    connection: type  # ours: every way to a cursor, and every setting, is heard
    connections: Any  # a listening variant of a class of connections, or None
    cursors: Any  # of a class of cursors


@functools.cache
def watched() -> Watched:
    from psycopg2 import extensions
    from psycopg2.sql import Composable

    base: Any = extensions.cursor
    execute, executemany, callproc, copy_expert = (getattr(base, name) for name in _SENDS)

    def soil(connection: Any, left: int) -> None:
        if isinstance(connection, Connection):
            connection.left |= left
        elif left & SESSION:
            factory = connection.cursor_factory
            connection.cursor_factory = getattr(factory, "heard", factory)

    def hear(cursor: Any, query: Any) -> None:
        """The mark first: whoever is interrupted after the statement was sent has left it all the same."""
        if type(query) is not str:
            if isinstance(query, Composable):
                query = query.as_string(cursor)
            elif not isinstance(query, (str, bytes)):
                query = "?"  # psycopg2 will refuse it
        if left := left_by(query) | (SESSION if cursor.withhold else 0):
            soil(cursor.connection, left)

    class Cursor(extensions.cursor):
        __slots__ = ()

        def execute(self, query: Any, vars: Any = None) -> None:
            # hear(), without the calls in the common case
            if type(query) is not str:
                hear(self, query)
            elif (left := left_by(query)) or self.withhold:
                soil(self.connection, left | (SESSION if self.withhold else 0))
            return execute(self, query, vars)  # type: ignore[no-any-return]

        def executemany(self, query: Any, vars_list: Any) -> None:
            hear(self, query)
            return executemany(self, query, vars_list)  # type: ignore[no-any-return]

        def callproc(self, procname: Any, *args: Any, **options: Any) -> Any:
            hear(self, _call(procname))
            return callproc(self, procname, *args, **options)

        def copy_expert(self, sql: Any, *args: Any, **options: Any) -> Any:
            hear(self, sql)
            return copy_expert(self, sql, *args, **options)

    class Above:
        __slots__ = ()

        def execute(self, *args: Any, **options: Any) -> Any:
            hear(self, _first(args))
            return super().execute(*args, **options)  # type: ignore[misc]

        def executemany(self, *args: Any, **options: Any) -> Any:
            hear(self, _first(args))
            return super().executemany(*args, **options)  # type: ignore[misc]

        def callproc(self, *args: Any, **options: Any) -> Any:
            hear(self, _call(_first(args)))
            return super().callproc(*args, **options)  # type: ignore[misc]

        def copy_expert(self, *args: Any, **options: Any) -> Any:
            hear(self, _first(args))
            return super().copy_expert(*args, **options)  # type: ignore[misc]

    @functools.lru_cache(maxsize=256)
    def made(kind: Any) -> Any:
        if isinstance(kind, type) and issubclass(kind, Cursor):
            return kind
        own = isinstance(kind, type) and has_own(kind, _SENDS, ("psycopg2.",), extensions.cursor)
        return variant(kind, Cursor, (Above,) if own else ())

    def cursors(kind: Any) -> Any:
        try:
            return made(kind)
        except TypeError:  # it cannot be remembered, so it is no class
            return None

    raw: Any = extensions.connection
    cursor, set_session, set_isolation_level = raw.cursor, raw.set_session, raw.set_isolation_level
    set_client_encoding, reset = raw.set_client_encoding, raw.reset

    class Connection(extensions.connection):
        left = 0
        made_factory: Any = None
        noted: Any = None  # what the server had reported when the watch began

        def cursor(
            self, name: Any = None, cursor_factory: Any = None, withhold: Any = False, scrollable: Any = None
        ) -> Any:
            if cursor_factory is not None:
                cursor_factory = self._listening(cursor_factory)
            return cursor(self, name, cursor_factory, withhold, scrollable)

        def _listening(self, kind: Any) -> Any:
            heard = cursors(kind)
            if heard is None:
                self.left |= SESSION
            return heard or kind

        def set_session(self, *args: Any, **options: Any) -> None:
            # out of autocommit these go with each BEGIN, in autocommit they are sent as SET at once
            if args or options.keys() - {"autocommit"}:
                self.left |= SESSION
            set_session(self, *args, **options)

        def set_isolation_level(self, level: Any) -> None:
            if level != extensions.ISOLATION_LEVEL_AUTOCOMMIT:  # the old way to say autocommit, which is looked at
                self.left |= SESSION
            set_isolation_level(self, level)

        def set_client_encoding(self, encoding: Any) -> None:
            before, self.left = self.left, self.left | SESSION
            known = self.encoding
            set_client_encoding(self, encoding)
            if self.encoding == known:
                self.left = before  # nothing was sent

        def reset(self) -> None:
            self.left |= SESSION  # it takes what the pool has set, too
            reset(self)

    def setting(name: str, left: int, heard: bool = False) -> property:
        """One of psycopg2's attributes; to set it leaves something."""
        attribute = getattr(raw, name)

        def write(self: Any, value: Any) -> None:
            self.left |= left
            if heard:
                # None: what the connection was made with
                value = self.made_factory if value is None else self._listening(value)
            attribute.__set__(self, value)

        return property(attribute.__get__, write)

    for name in ("isolation_level", "readonly", "deferrable"):
        setattr(Connection, name, setting(name, SESSION))
    Connection.cursor_factory = setting("cursor_factory", OURS, heard=True)  # type: ignore[assignment]

    @functools.lru_cache(maxsize=64)
    def connections(kind: Any) -> Any:
        return variant(kind, Connection)

    return Watched(Connection, connections, cursors)


def _first(args: tuple[Any, ...]) -> Any:
    return args[0] if args else None


def _call(name: Any) -> Any:
    """What ``callproc`` sends."""
    if isinstance(name, bytes):
        return b"SELECT * FROM " + name + b"()"
    return f"SELECT * FROM {name}()" if isinstance(name, str) else None
