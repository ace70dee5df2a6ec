"""What does the pool need to know of a database? The Driver protocol.

A driver is the only code that talks to a database. The pool calls it outside its lock, and never twice at a time for
one connection. Two kinds of method, and the difference is the point of this package:

*local*     ``peek``, ``state``, ``autocommit``, ``settled``, ``glimpse``, ``watch``, ``dirtied``, ``put_back``,
            ``descriptor``, ``session``, ``interrupt``, ``code``, ``refuses``: never a round trip, never blocks, a
            microsecond at most; the first four run at every checkout and checkin.
*remote*    ``connect``, ``close``, ``ping``, ``begin``, ``commit``, ``rollback``, ``reset``, ``run``,
            ``set_autocommit``, ``set_isolation``, ``set_read_only``, ``end_session``: may talk to the server, may raise
            the database's own errors.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

C = TypeVar("C")


class TransactionState(enum.Enum):
    """What a driver knows, without asking the server, of a connection's transaction."""

    IDLE = "idle"  # surely none open
    OPEN = "open"
    FAILED = "failed"  # open, and the server accepts nothing but its end
    BUSY = "busy"  # in the middle of a statement: nothing can be said to the server now
    UNKNOWN = "unknown"


IDLE, OPEN, FAILED = TransactionState.IDLE, TransactionState.OPEN, TransactionState.FAILED
BUSY, UNKNOWN = TransactionState.BUSY, TransactionState.UNKNOWN


class Driver(Generic[C]):
    """Opens, closes and looks after connections of one kind; the pool is generic over them.

    Subclass it for anything that can be opened and closed: only ``connect`` is required. The defaults describe an
    object without transactions, session state or a socket.
    """

    name = "driver"
    #: whose SQL it speaks, for ``core.statement.judge``; "": who knows
    dialect = ""
    #: False: ``peek`` has nothing to look at, and the pool does not call it
    peeks = False
    #: False: the connections have no autocommit mode that can be read and switched
    has_autocommit = False
    #: True: ``reset`` brings a connection back to how ``connect`` made it. Only a driver that made the connection
    #: itself, from parameters, can promise that; what a foreign callable did to it would be lost.
    can_reset = False
    #: False: to close a connection while another thread is in the middle of a call on it may crash the process. One
    #: that is taken away is then only interrupted, and closes when its borrower is through with it.
    closes_in_use = True
    #: by which codes a server says that it takes no writes: ``disconnect_on``, where nothing else is said
    read_only_codes: frozenset[str | int] = frozenset()
    #: of what type its codes are
    code_type: type | tuple[type, ...] = (str, int)
    #: so many references a connection has to itself, for who wants to know whether anybody else has one
    own_references = 0

    def connect(self, timeout: float) -> C:
        """Open a connection, within about ``timeout`` seconds where the database's client allows a limit."""
        raise TypeError(f"{type(self).__name__} does not say how to connect")

    def close(self, connection: C) -> None:
        """Close it. The pool ignores errors here: there is nobody to tell."""

    def peek(self, connection: C) -> bool:
        """Local look: False if the connection is surely dead, True otherwise."""
        return True

    def ping(self, connection: C) -> bool:
        """Ask the server, one round trip, and leave no transaction open. An exception counts as False."""
        return True

    def adopt(self, connection: C) -> None:
        """Local: somebody else's callable made this connection; let it tell, from its next rollback on, what our own
        tell, if it can be made to. ``rollback`` does so too."""

    def state(self, connection: C) -> TransactionState:
        """Local: is a transaction open? Exact, or UNKNOWN; never a guess."""
        return IDLE

    def glimpse(self, connection: C) -> TransactionState:
        """Local, and from any thread, at any moment, while another one uses the connection or closes it: ``state``, for
        the report that names who holds what. UNKNOWN: that cannot be told without waiting for the other thread."""
        return UNKNOWN

    def autocommit(self, connection: C) -> bool | None:
        """Local: the mode the connection is in now; None where there is no such mode."""
        return None

    def settled(self, connection: C, autocommit: bool | None) -> bool:
        """Local: surely no transaction open, the mode still ``autocommit``, and nothing to ``put_back`` or left in the
        session? Asked at every checkin."""
        return (
            self.state(connection) is IDLE
            and self.autocommit(connection) is autocommit
            and not self.dirtied(connection)
        )

    def watch(self, connection: C) -> None:
        """Local: begin to watch what is said on this connection, one of somebody's callable too, where possible.

        Called by the pool when it has made the connection ready, the first time and after each ``reset``: what was said
        before is part of how it was made. Not called with ``reset="never"``, nor under SQLAlchemy, which knows its own
        users.
        """

    def dirtied(self, connection: C) -> bool:
        """Local: was anything said on it, since ``watch`` or the last ``reset``, that leaves something in the session?

        Settings, temporary tables, locks: what a rollback does not undo. Of what it cannot know, it says yes. A yes
        costs a ``reset``, or the connection where there is none.
        """
        return False

    def put_back(self, connection: C) -> bool:
        """Local: undo what a borrower has set on our own side of the socket, such as a row factory.

        Called before ``dirtied``, of a connection that came back, is not ``settled``, and in no transaction any more.
        True: the server may have been told something with it, and ``isolation`` and ``read_only`` are said again.
        """
        return False

    def set_autocommit(self, connection: C, on: bool) -> None:
        """Switch the mode; called only while no transaction is open."""

    def begin(self, connection: C) -> None:
        """Open a transaction now; in a driver without autocommit the next statement does."""

    def commit(self, connection: C) -> None:
        """Commit whatever transaction is open, one opened by a hand-written BEGIN too."""

    def rollback(self, connection: C) -> None:
        """Roll back whatever transaction is open, one opened by a hand-written BEGIN too."""

    def reset(self, connection: C) -> None:
        """Wipe all session state: settings, temporary tables, locks, prepared statements, any open transaction.

        Afterwards it is not ``dirtied`` any more. Its autocommit mode is the driver's affair: the pool sets it again.
        """

    # What a session is told once, when it is made, and again after each ``reset``: the options ``init_sql``,
    # ``isolation`` and ``read_only``. A driver that does not override the method refuses the option.

    def run(self, connection: C, sql: str) -> None:
        """Run one statement of the pool's own; called while no transaction is open. The pool commits if one is then."""
        raise NotImplementedError

    def set_isolation(self, connection: C, level: str) -> None:
        """All transactions from now on, one begun by a hand-written BEGIN too: "read committed" and so on."""
        raise NotImplementedError

    def set_read_only(self, connection: C, on: bool) -> None:
        """All transactions from now on, and single statements in autocommit."""
        raise NotImplementedError

    def refuses(self, option: str, value: Any) -> str:
        """Local: why it cannot do what an option of the pool asks of it, for the error; "" if it can."""
        if option == "reset":
            return "" if self.can_reset else _NO_RESET
        if option == "disconnect_on" and not all(isinstance(code, self.code_type) for code in value):
            return f"the codes of the driver {self.name!r} are {'texts' if self.code_type is str else 'numbers'}"
        ours, default = getattr(type(self), _METHODS[option]), getattr(Driver, _METHODS[option])
        if ours is not default:
            return ""
        way_out = option in ("isolation", "read_only") and type(self).run is not Driver.run
        return f"the driver {self.name!r} has no way to do it; " + (
            "say it in init_sql, in the database's own words" if way_out else "leave it out"
        )

    def descriptor(self, connection: C) -> int | None:
        """Local: the file descriptor of the connection's socket, None where there is none to be had."""
        return None

    def interrupt(self, connection: C) -> None:
        """Local, and from any thread, while another one uses the connection: make the call that it is stuck in fail.
        Not needed where there is a ``descriptor``: the pool cuts that socket."""

    def session(self, connection: C) -> Hashable | None:
        """Local: the server's own name for this session, by which another one can end it; None where there is none."""
        return None

    def end_session(self, other: C, session: Hashable, age: float) -> None:
        """Over another connection: end the session of that name, if it is at least ``age`` seconds old, for a server
        gives its names to others too in time."""

    def buffered(self, cursor: Any) -> bool:
        """Local: did this cursor, which has executed, bring all its rows to our side? If not it needs its connection
        until they are read."""
        return False

    def is_disconnect(self, error: BaseException, connection: C) -> bool:
        """Does this error mean that the connection is of no more use?"""
        return False

    def code(self, error: BaseException) -> str | int | None:
        """Local: the database's own code of an error, for ``disconnect_on``: an SQLSTATE, or a number."""
        return None

    def is_answer(self, error: BaseException) -> bool:
        """Did ``connect`` fail because the server said no to these parameters (a wrong password, an unknown database)?
        Such a no is nothing to other pools of the same server; whatever else fails tells them that it is out of reach.
        """
        return False

    @property
    def server_key(self) -> Hashable:
        """Which server: (host, port) or a path; pools with the same key share the knowledge that it is down."""
        return id(self)

    def expect_pooler(self) -> None:
        """Once, with ``server_pooler``: all connections will lead to a transaction-mode pooler. ValueError if the
        parameters ask for something that it cannot give."""

    def forgo_names(self, connection: C) -> None:
        """Local, with ``server_pooler``, for each new connection: let the client give no names at the server by itself,
        as those of prepared statements, for the next transaction may run where they are unknown, or somebody else's."""

    def recognise(self, connection: C) -> Driver[C]:
        """The driver to use from now on, asked once about the first connection: see ``choose.Undecided``."""
        return self


#: what carries an option out
_METHODS = {"init_sql": "run", "isolation": "set_isolation", "read_only": "set_read_only", "disconnect_on": "code"}

_NO_RESET = (
    "what a session remembers can be wiped only by a driver that opens the connections itself, from a url, and whose "
    'database knows how; max_uses=1 gives each borrower a connection of its own, reset="auto" closes those that a '
    "borrower has left something in"
)
