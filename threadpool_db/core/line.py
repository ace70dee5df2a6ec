"""What is a place in line, and what is ordered? A borrower's ticket, the line of those who wait, and the orders that
the ledger answers an event with."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from typing import Any

from threadpool_db.core.entry import Entry


class Step(enum.Enum):
    """What the holder of a ticket does next."""

    WAIT = "wait"
    USE = "use"  # ticket.entry is yours
    PING = "ping"  # ticket.entry is yours, but it has been silent: ask the server first
    OPEN = "open"  # ticket.entry is an empty slot: connect, then say opened or failed
    REFUSED = "refused"  # ticket.refusal says why


WAIT, USE, PING, OPEN, REFUSED = Step.WAIT, Step.USE, Step.PING, Step.OPEN, Step.REFUSED


class Refusal(enum.Enum):
    """Why a ticket is worth nothing any more; None where its holder knows: he left, or would not wait."""

    CLOSED = "closed"
    FULL = "full"
    SHED = "shed"
    CONNECT_FAILED = "connect failed"  # ticket.cause says how
    UNAVAILABLE = "unavailable"  # and why


class Ticket:
    """A place in line. ``arrival`` orders the line and is kept for life; ``wake_at`` is when to call ``tick``."""

    __slots__ = (
        "arrival", "cause", "claim", "code", "deadline", "entry", "holder", "instruction", "refusal", "since", "step",
        "wake_at",
    )  # fmt: skip

    def __init__(self, holder: Any = None, code: Any = None, instruction: int = -1) -> None:
        self.holder = holder
        self.code = code
        self.instruction = instruction
        self.arrival = -1
        self.since = 0.0
        self.deadline = math.inf  # from when on it is of no use to its holder
        self.step = WAIT
        self.entry: Entry | None = None
        self.claim: Any = None  # the right to what was granted; opaque here
        self.refusal: Refusal | None = None
        self.cause: BaseException | None = None
        self.wake_at = math.inf

    def grant(self, step: Step, entry: Entry) -> None:
        entry.holder, entry.code, entry.instruction = self.holder, self.code, self.instruction
        self.entry, self.step = entry, step

    def refuse(self, why: Refusal | None, cause: BaseException | None = None) -> None:
        self.entry, self.step, self.refusal, self.cause = None, REFUSED, why, cause

    def __repr__(self) -> str:
        return f"<Ticket {self.arrival} {self.step.value}>"


class Report:
    """Something about a lent connection that people should hear of, and who had it then: by the time they are told, it
    may be somebody else's.

    ``kind`` is ``lost``, ``expired``, ``leak``, ``returned`` and ``rested`` for the end of a use of which they have
    heard (the second: its thread keeps the connection), or ``quiet?`` for "has it been silent for too long?", which
    only its socket knows. ``since`` is when the use began.
    """

    __slots__ = ("code", "entry", "holder", "instruction", "kind", "seconds", "since")

    def __init__(self, kind: str, entry: Entry, seconds: float) -> None:
        self.kind, self.entry, self.seconds = kind, entry, seconds
        self.holder, self.code, self.instruction = entry.holder, entry.code, entry.instruction
        self.since = entry.in_use_since


class Orders:
    """What must be done now: wake these tickets' threads, and, once the lock is released, close these connections, open
    one in each of these slots, ask after these: ``closed_one``, ``opened`` or ``failed``, and ``asked`` must follow.
    ``cut``: of those to be closed, the ones that somebody still uses."""

    __slots__ = ("ask", "close", "cut", "open", "reports", "wake")

    def __init__(self) -> None:
        self.wake: list[Ticket] = []
        self.close: list[Entry] = []
        self.open: list[Entry] = []
        self.ask: list[Entry] = []
        self.cut: list[Entry] = []
        self.reports: list[Report] = []

    def add(self, more: Orders) -> None:
        self.wake += more.wake
        self.close += more.close
        self.open += more.open
        self.ask += more.ask
        self.cut += more.cut
        self.reports += more.reports


class Line(OrderedDict[Ticket, None]):
    """Those who wait, by arrival. Who joins is the last; who left in the middle leaves no gap."""

    @property
    def head(self) -> Ticket | None:
        return next(iter(self), None)

    def resume(self, ticket: Ticket) -> None:
        """Back in line at its old place: behind only those who arrived before it."""
        ticket.entry, ticket.step, ticket.wake_at = None, WAIT, math.inf
        older = []
        for other in self:
            if other.arrival > ticket.arrival:
                break
            older.append(other)
        self[ticket] = None
        for other in (ticket, *reversed(older)):
            self.move_to_end(other, last=False)
