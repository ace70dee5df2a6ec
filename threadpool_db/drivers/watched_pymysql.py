"""What does a PyMySQL connection know of its own session? A subclass of its class that listens, made here.

*Is a transaction open?* The server tells in its OK packets, and PyMySQL copies the flag from those alone; ``told``
remembers whether the flag is that of the last answer.

*What did a borrower leave behind?* ``left``. Three ears, each for what the one before cannot hear:

1. Cursors of PyMySQL's own classes, and subclasses of them, judge a statement before its values are written into it:
   one look into a cache, where the text with its values would be a new one each time.
2. Whatever they have not judged is judged where all commands pass, ``_execute_command``: a foreign cursor class,
   ``callproc``, ``query``, ``select_db``, ``set_character_set``, a cursor that rewrites its text.
3. The server's own word, MariaDB's and MySQL's session tracking: bit 0x4000 of a status says that this statement has
   set a variable, made a temporary table, prepared something or changed the database. So what a function or a trigger
   sets behind a statement's back is noticed too. It is asked for in the handshake and in the SET NAMES that PyMySQL
   sends anyway, so it costs no round trip; connections from a foreign callable, past both, do without.

Nobody hears: a lock (GET_LOCK) taken inside a function or trigger; with a callable's connection, anything done there;
what is written to the private socket by hand. A few harmless things are heard as though they left something, at the
price of a reset: SET STATEMENT ... FOR, and where somebody switched on ``session_track_gtids``, every write.

Roads not taken: judging the text with its values, 20 ms for the megabyte of an ``executemany``; looking at each packet
for the server's word, which costs every row. Only the result's own end is looked at, by a subclass of PyMySQL's result.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from threadpool_db.core.statement import judge
from threadpool_db.drivers.commands_pymysql import harmless, may_move

_AUTOCOMMIT = 2
_STATE_CHANGED = 0x4000
_SESSION_TRACK = 1 << 23
#: appended to SET NAMES; each server skips what is not for it, and so do those that are too old
_TRACKING = "session_track_state_change = 1, session_track_transaction_info = 'OFF'"
_TRACK = f"/*!50708 , {_TRACKING} *//*M!100202 , {_TRACKING} */"
#: ``left`` of a connection that has only got another cursor class, which can be put back
CURSORCLASS = "cursorclass"


def telling(kind: type, contexts: dict[str, Any], module: Any) -> type:
    """The subclass of a connection class. ``contexts``: the SSL contexts of its driver, see there."""
    if not (hasattr(kind, "_read_query_result") and hasattr(kind, "_read_ok_packet")):
        return kind  # a PyMySQL built otherwise: nothing is known, every state is UNKNOWN
    judging = functools.lru_cache(maxsize=64)(functools.partial(_judging_class, _judging(module)))
    result_class = _tracked(module)
    may_track = kind._read_query_result is module.connections.Connection._read_query_result

    class Telling(kind):  # type: ignore[misc]
        # The status of the handshake is the first telling. A connection that is given this class later has told
        # nothing yet; the rollback that comes with it is its first.
        told = True
        #: None: not watched. Else what a borrower has left: False, CURSORCLASS, or True, that is who knows what
        left: Any = None
        #: whether a command is still to be judged
        hears = True
        #: whether the server says what a statement left
        tracks = False
        #: whether the values written into a text are all PyMySQL's own literals
        quotes = True
        #: whether the session may be in another database than at first, or in none
        moved = False

        def _read_query_result(self, unbuffered: bool = False) -> Any:
            told, self.told = self.told, False
            read = self._read_tracked_result if self.tracks else super()._read_query_result
            affected = read(unbuffered)
            result: Any = self._result
            if not result.unbuffered_active and not result.has_next:
                # A row of autocommit changes nothing; without it any SELECT may have begun a transaction.
                rows = result.server_status is None
                self.told = bool(told and self.server_status & _AUTOCOMMIT) if rows else True
            return affected

        def _read_tracked_result(self, unbuffered: bool) -> Any:
            """As PyMySQL does it, with a result that looks at its last packet."""
            self._result = None
            result = result_class(self)
            if unbuffered:
                result.init_unbuffered_query()
            else:
                result.read()
            self._result = result
            if result.server_status is not None:
                self.server_status = result.server_status
                if result.server_status & _STATE_CHANGED:
                    self.leave()
            return result.affected_rows

        def _read_ok_packet(self) -> Any:
            # Not asked for _STATE_CHANGED: these are the answers to commit, ping, autocommit and the like.
            self.told = False
            packet = super()._read_ok_packet()
            self.told = True
            return packet

        # --- Watching -----------------------------------------------------------------------------------------------

        def watch(self) -> None:
            stock = module.converters.encoders
            encoders = getattr(self, "encoders", {})
            self.quotes = all(stock.get(kind) is encoder for kind, encoder in encoders.items())
            self.left, self.hears = False, True

        def leave(self) -> None:
            """A statement left something: nothing more needs to be heard until the reset."""
            if self.left is not None:
                self.left, self.hears = True, False

        def cursor(self, cursor: Any = None) -> Any:
            if self.left is None:
                return super().cursor(cursor)
            wanted = cursor or self.cursorclass
            return super().cursor(judging(wanted) if isinstance(wanted, type) else wanted)

        def _execute_command(self, command: int, sql: Any) -> Any:
            if self.hears:
                sql = self._hear(command, sql)
            elif self.left is True and not self.moved:
                self.moved = may_move(command, sql)
            return super()._execute_command(command, sql)

        def _hear(self, command: int, sql: Any) -> Any:
            if self.left is not None and not harmless(command, sql, self.db):
                self.leave()
                self.moved = self.moved or may_move(command, sql)
            if self.tracks and isinstance(sql, str) and sql.startswith("SET NAMES "):
                sql += _TRACK
            return sql

        def _send_autocommit_mode(self) -> None:
            hears, self.hears = self.hears, False  # the pool puts the mode back by itself
            try:
                super()._send_autocommit_mode()
            finally:
                self.hears = hears

        def _get_cursorclass(self) -> Any:
            return self.__dict__["cursorclass"]

        def _set_cursorclass(self, kind: Any) -> None:
            if self.left is False and kind is not self.__dict__["cursorclass"]:
                self.left, self.made_cursorclass = CURSORCLASS, self.__dict__["cursorclass"]
            self.__dict__["cursorclass"] = kind

        cursorclass = property(_get_cursorclass, _set_cursorclass)

        # --- Connecting ---------------------------------------------------------------------------------------------

        def _request_authentication(self) -> None:
            self.tracks = bool(may_track and self.server_capabilities & _SESSION_TRACK)
            if self.tracks:
                self.client_flag |= _SESSION_TRACK
            super()._request_authentication()

        def set_character_set(self, charset: str, *collation: Any, **named: Any) -> None:
            try:
                super().set_character_set(charset, *collation, **named)
            except module.err.MySQLError:
                if not self.tracks or not self.open:
                    raise
                self.tracks = False  # a server that only says that it could
                super().set_character_set(charset, *collation, **named)

        def _create_ssl_ctx(self, options: Any) -> Any:
            if not isinstance(options, dict):
                return super()._create_ssl_ctx(options)
            key = repr(sorted(options.items()))
            if key not in contexts:
                contexts[key] = super()._create_ssl_ctx(options)
            return contexts[key]

    Telling.__qualname__ = "Telling"
    return Telling


def _tracked(module: Any) -> type:
    """PyMySQL's result, which looks at the status in the packet after the last row, the only place where the server
    says what a SELECT has set. The code is PyMySQL's own but for that: one call more for each row would be dear."""
    ending = module.connections.EOFPacketWrapper

    class Tracked(module.connections.MySQLResult):  # type: ignore[misc]
        def _check_packet_is_eof(self, packet: Any) -> bool:
            if not packet.is_eof_packet():
                return False
            end = ending(packet)
            self.warning_count = end.warning_count
            self.has_next = end.has_next
            if end.server_status & _STATE_CHANGED:
                self.connection.leave()
            return True

    return Tracked


# Cursors ------------------------------------------------------------------------------------------------------------

#: what may change a text between ``execute`` and the connection
_WRITERS = ("_query", "mogrify", "_mogrify", "_escape_args", "_do_execute_many")


def _judging(module: Any) -> type:
    """PyMySQL's cursor, which judges what it is given before the values are in it."""

    class Judging(module.cursors.Cursor):  # type: ignore[misc]
        _clean_many = False

        def execute(self, query: Any, args: Any = None) -> Any:
            connection = self.connection
            if (
                connection is None
                or not connection.hears
                or not (self._clean_many or _is_clean(connection, query, args))
            ):
                return super().execute(query, args)
            connection.hears = False
            try:
                return super().execute(query, args)
            finally:
                connection.hears = connection.left is not True

        def executemany(self, query: Any, args: Any) -> Any:
            # not the connection: the rows may come from a generator that asks the same one
            connection = self.connection
            self._clean_many = (
                type(self).execute is Judging.execute  # somebody's own may say more than it was given
                and connection is not None
                and connection.hears
                and _is_clean(connection, query, args)
            )
            try:
                return super().executemany(query, args)
            finally:
                self._clean_many = False

    return Judging


def _judging_class(judging: type, kind: Any) -> Any:
    """The class for a cursor, with ours just above PyMySQL's own ``Cursor``: it hears what that one is told.

    A foreign class, and one that may rewrite its text after that, stays as it is.
    """
    stock = judging.__mro__[1]
    if kind is stock:
        return judging
    if not issubclass(kind, stock):
        return kind
    for name in _WRITERS:
        writer = next((base for base in kind.__mro__ if name in vars(base)), stock)
        if writer.__module__ != stock.__module__:
            return kind
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind)(kind.__name__, (kind, judging), names)


def _is_clean(connection: Any, query: Any, args: Any) -> bool:
    """Surely. Else the text is judged once more, when it is complete."""
    if not isinstance(query, str) or connection.left is None:
        return False
    if args is None:
        return not judge(query, "mysql").dirty
    return connection.quotes and _clean_with_values(query)


@functools.lru_cache(maxsize=1024)
def _clean_with_values(query: str) -> bool:
    # A placeholder inside quotes or a comment would let its value out of its own quotes.
    return not judge(query, "mysql").dirty and not _OPEN.search(_LITERALS.sub("", query))


_LITERALS = re.compile(r"""'[^'\\%]*'|"[^"\\%]*"|`[^`%]*`""")
_OPEN = re.compile(r"""['"`#]|--|/\*""")
