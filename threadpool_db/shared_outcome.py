"""What came of a load on many pools? As of one; and who found a connection, who was evicted, what a server had to bear.

Many pools open and close so often that what they have is noted so many times only, and between the most of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from threadpool_db.outcome import Outcome

#: The time is divided into so many parts, at the end of each of which the connections are noted.
SAMPLES = 240


class Sample(NamedTuple):
    """Until ``when``, in seconds: ``connections`` of all processes at that moment, ``most`` of them since the sample
    before, ``most_at_server``: that any one server had at any moment since then. Connections being opened count, those
    being closed do not. ``connects`` and ``evictions``: from the beginning on."""

    when: float
    connections: int
    most: int
    most_at_server: int
    connects: int
    evictions: int


class SharedSlice(NamedTuple):
    """As ``Slice``; ``most_at_server``: connections that any one server had in this part; ``hits``: the share of those
    served that needed no connect, None where nobody was; ``evictions`` in it."""

    begin: float
    served: int
    turned_away: int
    connections: int
    most_at_server: int
    hits: float | None
    evictions: int


class SharedOutcome(Outcome):
    """Filled by ``simulate`` where there are tenants or several processes. ``samples``: over time, ``SAMPLES`` of them,
    and ``sizes`` at the same moments. ``evictions``: connections that were closed for another tenant's sake."""

    def __init__(self, servers: int, warm_up: float = 0.0) -> None:
        super().__init__(warm_up)
        self.samples: list[Sample] = []
        self.connections = self.evictions = 0
        self._at_server = [0] * servers
        self._most = self._most_at_server = 0  # since the last sample
        self._before = (0, 0)  # connects and evictions in the warm-up

    # --- As it goes on ----------------------------------------------------------------------------------------------

    def sized(self, server: int, change: int) -> None:
        """So many more, or less, at this server."""
        self.connections += change
        here = self._at_server[server] = self._at_server[server] + change
        if self.connections > self._most:
            self._most = self.connections
        if here > self._most_at_server:
            self._most_at_server = here

    def sample(self, when: float, evictions: int) -> None:
        self.samples.append(Sample(when, self.connections, self._most, self._most_at_server, self.connects, evictions))
        self.sizes.append((when, self.connections))
        self._most, self._most_at_server = self.connections, max(self._at_server)

    def warmed_up(self, evictions: int) -> None:
        """From now on hits and evictions count."""
        self._before = (self.connects, evictions)

    # --- At the end -------------------------------------------------------------------------------------------------

    @property
    def most(self) -> int:
        """Connections of all processes together, at any moment until now."""
        return max(self._most, max((sample.most for sample in self.samples), default=0))

    @property
    def most_at_server(self) -> int:
        """Those that any one server had at any moment until now."""
        return max(self._most_at_server, max((sample.most_at_server for sample in self.samples), default=0))

    def over_time(self, parts: int = 10) -> list[Any]:
        """All of the time, the warm-up too, in equal parts: of each a ``SharedSlice``."""
        found = []
        connects = evictions = 0
        for part in super().over_time(parts):
            end = part.begin + self.until / parts * (1 + 1e-9)
            mine = [sample for sample in self.samples if part.begin * (1 + 1e-9) < sample.when <= end]
            last = mine[-1] if mine else Sample(0.0, part.connections, 0, 0, connects, evictions)
            found.append(
                SharedSlice(
                    *part[:3],
                    last.connections,
                    max((sample.most_at_server for sample in mine), default=0),
                    _hits(part.served, last.connects - connects),
                    last.evictions - evictions,
                )
            )
            connects, evictions = last.connects, last.evictions
        return found

    def summary(self) -> dict[str, Any]:
        """As of one pool, and: ``hits``, the share of those served that needed no connect; ``evictions``; the most
        connections that all and that any one server had at any moment."""
        told = super().summary()
        over_time = told.pop("over_time")  # the longest part last
        return told | {
            "connections": self.most,
            "most_at_server": self.most_at_server,
            "hits": _hits(told["served"], self.connects - self._before[0]),
            "evictions": self.evictions - self._before[1],
            "over_time": over_time,
        }


def _hits(served: int, connects: int) -> float | None:
    """None where nobody was served. Connects may be more than that: of those who gave up meanwhile."""
    return max(0.0, 1 - connects / served) if served else None
