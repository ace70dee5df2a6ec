"""What does the pool know of one connection? Its record, the states it passes through, and which may follow which."""

from __future__ import annotations

import enum
from typing import Any


class State(enum.Enum):
    """Where a connection is in its life. All but GONE count against ``max_size``."""

    OPENING = "opening"  # a slot is reserved, somebody connects
    IDLE = "idle"
    LEASED = "leased"
    CLOSING = "closing"  # let go of; its slot is free only when the server has been told
    GONE = "gone"


OPENING, IDLE, LEASED, CLOSING, GONE = State.OPENING, State.IDLE, State.LEASED, State.CLOSING, State.GONE

#: The legal next states. GONE straight from a live state: detached, forgotten by a forked child, never connected.
TRANSITIONS: dict[State, frozenset[State]] = {
    OPENING: frozenset({IDLE, LEASED, CLOSING, GONE}),
    IDLE: frozenset({LEASED, CLOSING, GONE}),
    LEASED: frozenset({IDLE, CLOSING, GONE}),
    CLOSING: frozenset({GONE}),
    GONE: frozenset(),
}


class Entry:
    """One slot of the pool and the connection in it. Times are the clock's seconds; only the ledger changes states."""

    __slots__ = (
        "asked_at",  # when the server last answered a question of the keeper's
        "autocommit",  # the mode the connection was last seen in; None where there is none
        "claim",  # the right to it (lease.Claim), while it is on the shelf; else whoever answers for it has that
        "code",  # the code object and instruction that took it: two words now, a line number only when asked for
        "connection",  # the driver's own object
        "expired_after",  # so many seconds its borrower had it, when it was taken away; 0: it was not
        "expires_at",  # end of its lifetime
        "generation",  # of the ledger when it was opened; an older one is not used again
        "given_up",  # was its connect, because it took too long?
        "holder",  # who has it; opaque here
        "inactive_at",  # when the use began that was reported as silent
        "instruction",
        "kept",  # ``taken_at`` of a lease that its thread keeps, but does not use at the moment
        "last_used",  # when it last came back, or its thread last stopped using it
        "made_autocommit",  # the mode in which it was made
        "opened_at",
        "reported_at",  # when its borrower's use began that was reported as too long
        "reported_use",  # when the use began whose end people are to hear of; see Reported
        "reset_first",  # its session state must be wiped before anybody else gets it
        "right",  # weak reference to the claim, wherever it is: dead, nobody answers for this entry any more
        "session",  # the server's name for it
        "socket",  # descriptor and inode of its socket, noted when it was made: descriptors are reused
        "state",
        "taken_at",  # when its holder got it
        "told",  # were the observers told of its beginning, and not yet of its end?
        "unfit",  # known or feared to be in no state to be spoken to once more, before it is closed
        "uses",
    )

    def __init__(self, now: float, generation: int) -> None:
        self.state = OPENING
        self.generation = generation
        self.opened_at = self.taken_at = self.last_used = self.asked_at = now
        self.expires_at = float("inf")
        self.kept = self.reported_at = self.inactive_at = self.reported_use = float("nan")
        self.expired_after = 0.0
        self.uses = 0
        self.connection: Any = None
        self.claim: Any = None
        self.right: Any = None
        self.holder: Any = None
        self.code: Any = None
        self.instruction = -1
        self.autocommit: bool | None = None
        self.made_autocommit: bool | None = None
        self.reset_first = self.given_up = self.told = self.unfit = False
        self.socket: tuple[int, int] | None = None
        self.session: Any = None

    def become(self, state: State) -> None:
        """Move on, legally. The ledger's two short events write ``state`` directly, to save the call."""
        if state not in TRANSITIONS[self.state]:
            raise AssertionError(f"a connection cannot go from {self.state.value} to {state.value}")
        self.state = state
        if state is GONE:
            self.claim = None  # each would keep the other

    def announce(self, since: float) -> None:
        """People were told of its use, which began then."""
        self.reported_use = since
        self.__class__ = Reported

    @property
    def is_kept(self) -> bool:
        """Does its thread keep it between two uses?"""
        return self.kept == self.taken_at

    @property
    def in_use_since(self) -> float:
        """Of a lent one."""
        return max(self.taken_at, self.last_used)

    def __repr__(self) -> str:
        return f"<Entry {self.state.value} {type(self.connection).__name__} at {id(self):#x}>"


_GENERATION: Any = Entry.__dict__["generation"]


class Reported(Entry):
    """One of whose use people were told, as long as that lasts: they are to hear of its end too.

    It is of no generation, so the short ways, which test nothing more for it, leave it to ``checkin``, which says so.
    A class, and not a number written there: a number would wipe out what somebody else writes there at the same moment,
    without the lock: that the connection is to be closed.
    """

    __slots__ = ()

    @property
    def generation(self) -> Any:
        written = _GENERATION.__get__(self)
        return float("inf") if written >= 0 else written  # one that is to be closed shows that

    @generation.setter
    def generation(self, generation: int) -> None:
        _GENERATION.__set__(self, generation)

    def close_report(self) -> None:
        self.__class__ = Entry  # type: ignore[assignment]
