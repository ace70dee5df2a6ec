"""What is a small world made of? Its size and rules, its callers, a budget shared with an outsider, and connections
that are watched: they refuse every illegal step and remember what really happened to them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tests.core.promises import LEGAL, Broken

#: Where a caller is: TAKEN the short way, not yet looked at; KEPT between two uses; CUT, and has yet to find out.
HOME, LINE, TAKEN, USING, KEPT, CUT = range(6)


@dataclass(frozen=True)
class Setting:
    """A small world's size and rules; ``leave_out`` names events that do not happen in it."""

    name: str = "plain"
    callers: int = 4
    max_size: float = 2
    min_size: int = 0
    max_connecting: float = 2
    order: str = "lifo"
    sizing: str = "Elastic()"
    max_waiting: float = math.inf
    shed: tuple[float, float] | None = None  # the target and the interval of CoDel
    patience: float = math.inf  # of each who waits
    linger: float = 0  # of what Overflow has too many, or Sojourn
    ping_after: float = math.inf
    max_idle: float = math.inf
    max_lifetime: float = math.inf
    max_uses: float = math.inf
    backoff: tuple[float, float] | None = (0.0, 0.0)
    grace: float = math.inf
    shared: bool = False  # a cap of two, shared with an outsider who wants one
    background: bool = False  # somebody connects without being asked, and ticks when something is due
    min_idle: int = 0
    keepalive: float = math.inf
    asked_at_once: int = 2
    max_lease: float = math.inf
    leak_after: float = math.inf
    inactive_after: float = math.inf
    keeps: bool = False  # borrowers keep what they have between two uses
    punctual: bool = True  # the keeper ticks before time goes on, and when nothing is due he does not
    recycles_within: bool = False
    pauses: bool = False  # and resumes
    resizes: bool = False  # to one connection fewer, and back
    leave_out: frozenset[str] = frozenset()

    @property
    def horizon(self) -> float:
        """After this many steps of silence a connection does not change any more."""
        limits = (self.ping_after, self.max_idle, self.keepalive, self.linger)
        return max(x for x in limits if x < math.inf)

    @property
    def held_for(self) -> float:
        """After this many steps nothing more is to be said of one use; 0: nothing ever is."""
        return max((x for x in (self.max_lease, self.leak_after, 2 * self.inactive_after) if x < math.inf), default=0)

    @property
    def timed(self) -> bool:
        waits = self.backoff is not None and self.backoff[1] > 0
        limited = min(self.horizon or math.inf, self.held_for or math.inf, self.max_lifetime) < math.inf
        under_load = self.shed is not None or self.patience < math.inf or self.linger > 0
        return waits or limited or under_load or self.shared


class Shared:
    """A budget of two permits and an outsider, who takes one, or waits for one and then gets the first that is free."""

    def __init__(self) -> None:
        self.used = 0
        self.outside = 0
        self.promised = False
        self.rivals: list[float] = []  # since when the outsider waits

    @property
    def wants_since(self) -> float | None:
        return self.rivals[0] if self.rivals else None

    def free_one(self) -> bool:
        return self.used + self.outside < 2

    def take(self, ledger: Any, now: float) -> bool:
        if not self.free_one():
            return False
        self.used += 1
        return True

    def free(self, ledger: Any) -> None:
        self.used -= 1
        if self.rivals:
            self.outside, self.promised = 1, False
            self.rivals.clear()

    def wanted(self, ledger: Any, since: float, now: float) -> bool:
        if self.promised or not self.before(since):
            return False
        self.promised = True
        return True

    def before(self, since: float) -> bool:
        return self.wants_since is not None and self.wants_since < since


class Caller:
    __slots__ = ("arrival", "entry", "mode", "ticket")

    def __init__(self, mode: int = HOME, ticket: Any = None, entry: Any = None, arrival: int = -1) -> None:
        self.mode, self.ticket, self.entry, self.arrival = mode, ticket, entry, arrival

    @property
    def has(self) -> Any:
        """The connection, or empty slot, that he answers for."""
        return self.entry if self.ticket is None else self.ticket.entry

    @property
    def cut(self) -> bool:
        return self.mode == CUT


def watched(entry_class: type, reported_class: type) -> type:
    """The ledger's record of a connection, that refuses every illegal step and carries the shadow."""
    generation = entry_class.__dict__["generation"]

    class Watched(entry_class):  # type: ignore[misc]
        __slots__ = (
            "_state", "announced", "answered", "begun", "ends_at", "heard", "leaked", "lent_at", "questioned", "served",
            "spoiled", "stale", "word",
        )  # fmt: skip

        @property
        def state(self) -> Any:
            return self._state

        @state.setter
        def state(self, state: Any) -> None:
            old, new = getattr(self, "word", None), state.value
            if old is not None and new not in LEGAL[old]:
                raise Broken("legal states", f"a connection went from {old} to {new}")
            self._state, self.word = state, new

        def clone(self) -> Any:
            new = type(self).__new__(type(self))
            new._state, new.word, new.holder = self._state, self.word, self.holder
            new.uses = self.uses
            generation.__set__(new, self.own_generation)
            new.opened_at, new.taken_at = self.opened_at, self.taken_at
            new.last_used, new.asked_at, new.expires_at = self.last_used, self.asked_at, self.expires_at
            new.answered, new.heard, new.spoiled, new.stale = self.answered, self.heard, self.spoiled, self.stale
            new.served, new.lent_at, new.ends_at = self.served, self.lent_at, self.ends_at
            new.connection, new.claim, new.expired_after = self.connection, self.claim, self.expired_after
            new.kept, new.reported_at, new.reported_use = self.kept, self.reported_at, self.reported_use
            new.announced, new.code, new.instruction = self.announced, self.code, self.instruction
            new.begun, new.leaked, new.questioned = self.begun, self.leaked, self.questioned
            return new

        def begin(self, now: float) -> None:
            """Somebody begins to use it."""
            self.begun = self.questioned = now
            self.leaked = False
            if not hasattr(self, "announced"):
                self.announced: float | None = None  # when the use began of which people have heard

        @property
        def own_generation(self) -> int:
            """Also of one that is reported."""
            return generation.__get__(self)  # type: ignore[no-any-return]

        def announce(self, since: float) -> None:
            self.reported_use = since
            self.__class__ = WatchedReported

    class WatchedReported(Watched, reported_class):  # type: ignore[misc, valid-type]
        __slots__ = ()

        def close_report(self) -> None:
            self.__class__ = Watched  # type: ignore[assignment]

    return Watched
