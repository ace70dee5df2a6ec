"""How does a test make a server say the wrong thing, or half of it? By a proxy that alters what goes to clients.

with Meddler(postgres.port) as wire:
    wire.stall(after=1)         # each connection made from now on gets one byte of its server, and no more ever
    wire.drip(0.05)             # all others get what they get byte by byte, each 0.05 s after the one before
    wire.garble(noise(seed))    # and get something else in its place
    wire.lead_to(other.port)    # connections made from now on lead to another server
    wire.heal()                 # what is said from now on arrives as it was said
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from tests.proxy import HOST, FaultProxy, _Flow, _Link

Lie = Callable[[bytes], bytes]


def noise(seed: int) -> Lie:
    """Any bytes, as many as there were."""
    dice = random.Random(seed)
    return lambda said: dice.randbytes(len(said))


def babble(seed: int, header: int) -> Lie:
    """The first bytes as they were, so that a client believes that this is its answer, and then any bytes."""
    dice = random.Random(seed)
    return lambda said: said[:header] + dice.randbytes(len(said) - min(header, len(said)))


class Meddler(FaultProxy):
    """All it does is done to what servers say, and by the proxy's own thread: see there."""

    def __init__(self, port: int) -> None:
        self._after: int | None = None
        self._spared: set[_Link] = set()  # they were there before the stall
        self._passed: dict[_Link, int] = {}
        self._gap = 0.0
        self._lie: Lie | None = None
        super().__init__(port)

    def stall(self, after: int) -> None:
        def apply() -> None:
            self._after, self._spared = after, set(self._links)

        self._ask(apply)

    def drip(self, seconds: float) -> None:
        def apply() -> None:
            self._gap, self._delaying = seconds, True

        self._ask(apply)

    def garble(self, lie: Lie) -> None:
        def apply() -> None:
            self._lie = lie

        self._ask(apply)

    def lead_to(self, port: int) -> None:
        def apply() -> None:
            self._target = (HOST, port)

        self._ask(apply)

    def heal(self) -> None:
        """What is still to drip comes at once. What a stall has swallowed is lost, and its connection with it."""

        def apply() -> None:
            self._after, self._gap, self._lie = None, 0.0, None
            for link in list(self._links):
                for flow in (link.up, link.down):
                    for n, (_, chunk) in enumerate(flow.due):
                        flow.due[n] = (0.0, chunk)
                self._deliver(link)

        self._ask(apply)

    # In the proxy's own thread.

    def _receive(self, link: _Link, flow: _Flow) -> None:
        before = len(flow.due)
        super()._receive(link, flow)
        if flow is link.down and len(flow.due) > before:
            self._meddle(link, bytes(flow.due.pop()[1]))

    def _meddle(self, link: _Link, said: bytes) -> None:
        due = link.down.due
        if (self._after is not None and link not in self._spared) or link in self._passed:
            # once it has stalled it never goes on, also when the others do
            passed = self._passed.setdefault(link, 0)
            said = said[: max((self._after or 0) - passed, 0)]
            self._passed[link] += len(said)
        if self._lie is not None:
            said = self._lie(said)
        if not said:
            return
        if not self._gap:
            due.append((0.0, memoryview(said)))
            return
        when = max(time.monotonic(), due[-1][0] if due else 0.0)
        for n in range(len(said)):
            when += self._gap
            due.append((when, memoryview(said)[n : n + 1]))
