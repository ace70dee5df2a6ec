"""What must a stranger say of his database, for his driver to be proved? How to do a few things that only he knows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from threadpool_db.drivers.base import Driver

Act = Callable[[Any], Any]


@dataclass(frozen=True)
class Acts:
    """Functions of a connection, of your driver's own kind. What your driver does not claim to do needs none.

    What asks (``seen``, ``left``, ``attached``) may return anything that can be compared: it is looked whether it is
    the same afterwards. Each leaves no answer unread, and ``change`` no error if it is done again.
    """

    #: something ordinary that a borrower does, its answer read: ``select 1``
    use: Act
    #: a change that a rollback takes back, an insert; and how the one who did it, and others, see it
    change: Act | None = None
    seen: Act | None = None
    #: a mistake that raises an ordinary error of the database: a duplicate, a misspelt word
    err: Act | None = None
    #: open a transaction behind the driver's back, by a hand-written BEGIN
    by_hand: Act | None = None
    #: leave something in the session that no rollback undoes, a setting; and how its session sees it
    leave: Act | None = None
    left: Act | None = None
    #: what ``run`` is given to leave the same thing
    words: str | None = None
    #: set something on the connection object, on our side of the socket, a row factory; and what it is now
    attach: Act | None = None
    attached: Act | None = None
    #: which isolation level a transaction has, as one of "read committed" and so on, in any spelling
    isolation: Act | None = None
    #: a cursor that has executed, with all its rows on our side; and one with rows that the server still keeps
    read: Act | None = None
    stream: Act | None = None
    #: end the connection from the server's side, and return when its goodbye is here. A socket is also hung up for you
    kill: Act | None = None
    #: the same driver for a server at (host, port): nobody will answer there
    elsewhere: Callable[[str, int], Driver[Any]] | None = None
    #: the same driver with a password or a database that the server refuses
    refused: Driver[Any] | None = None
    #: without a socket: a block in which the other side answers nothing
    silence: Callable[[Any], AbstractContextManager[Any]] | None = None
    #: without a socket: a call that does not end
    stall: Act | None = None
