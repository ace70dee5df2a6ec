"""What came of a simulated load? Who was served after what wait, who was turned away, how many connections when.

Columns instead of objects: a million requests are 17 MB.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from typing import Any, NamedTuple

#: How a request ended: it got a connection, its time was over, shedding, a full line, a database out of reach.
ENDS = ("served", "late", "shed", "full", "unreachable")
SERVED, LATE, SHED, FULL, UNREACHABLE = range(5)

_PERCENTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))


class Request(NamedTuple):
    """``ended``: one of ``ENDS``; ``waited`` seconds until then."""

    came: float
    waited: float
    ended: str


class Slice(NamedTuple):
    """A part of the time: how many ended in it, and the connections at its end."""

    begin: float
    served: int
    turned_away: int
    connections: int


class Outcome:
    """Filled by ``simulate``; times in simulated seconds. ``broken``: uses whose connection died under them; they count
    as served too, for they got one."""

    def __init__(self, warm_up: float = 0.0) -> None:
        self.warm_up = warm_up
        self.until = 0.0
        self.came, self.waited, self.ends = array("d"), array("d"), bytearray()
        self.sizes: list[tuple[float, int]] = []  # when, and how many there were from then on
        self.connects = self.failed_connects = self.broken = self.waiting = 0

    def add(self, came: float, waited: float, ended: int) -> None:
        self.came.append(came)
        self.waited.append(waited)
        self.ends.append(ended)

    @property
    def requests(self) -> list[Request]:
        """All that have ended, in that order."""
        return [Request(c, w, ENDS[e]) for c, w, e in zip(self.came, self.waited, self.ends, strict=True)]

    def waits(self, since: float | None = None) -> list[float]:
        """Of those served from then on, sorted."""
        rows = zip(self.came, self.waited, self.ends, strict=True)
        since = self._since(since)
        return sorted(waited for came, waited, ended in rows if ended == SERVED and came + waited >= since)

    def percentile(self, share: float, since: float | None = None) -> float:
        waits = self.waits(since)
        return waits[min(len(waits) - 1, int(share * len(waits)))]

    def many(self, ended: str, since: float | None = None) -> int:
        """How many ended so, from then on."""
        code, since = ENDS.index(ended), self._since(since)
        rows = zip(self.came, self.waited, self.ends, strict=True)
        return sum(code == e and came + waited >= since for came, waited, e in rows)

    def over_time(self, parts: int = 10) -> list[Slice]:
        """All of the time, the warm-up too, in equal parts."""
        length = self.until / parts
        served, turned_away = [0] * parts, [0] * parts
        for came, waited, ended in zip(self.came, self.waited, self.ends, strict=True):
            part = min(parts - 1, int((came + waited) / length))
            (served if ended == SERVED else turned_away)[part] += 1
        return [Slice(n * length, served[n], turned_away[n], self.size_at((n + 1) * length)) for n in range(parts)]

    def size_at(self, moment: float) -> int:
        """How many connections there were, those being opened included."""
        at = bisect_right(self.sizes, (moment, math.inf))
        return self.sizes[at - 1][1] if at else 0

    def summary(self) -> dict[str, Any]:
        """For JSON: counts from the warm-up on, waits of the served in seconds, None where nobody was."""
        waits = self.waits()
        many = {ended: self.many(ended) for ended in ENDS}
        wait: dict[str, float | None] = {
            name: waits[min(len(waits) - 1, int(share * len(waits)))] if waits else None for name, share in _PERCENTILES
        }
        wait["max"] = waits[-1] if waits else None
        return {
            "seconds": self.until - self.warm_up,
            "throughput": many["served"] / (self.until - self.warm_up),
            "served": many["served"],
            "timeouts": many["late"],
            "shed": many["shed"],
            "refused": many["full"],
            "unreachable": many["unreachable"],
            "broken": self.broken,
            "waiting": self.waiting,
            "wait": wait,
            "connects": self.connects,
            "failed_connects": self.failed_connects,
            "connections": max((size for when, size in self.sizes), default=0),
            "over_time": [part._asdict() for part in self.over_time()],
        }

    def _since(self, since: float | None) -> float:
        return self.warm_up if since is None else since


def table(summary: dict[str, Any]) -> str:
    """The summary as text; of many pools there is more of it."""
    wait, shared = summary["wait"], "hits" in summary
    waits = "  ".join(f"{name} {_seconds(wait[name])}" for name in ("p50", "p90", "p99", "max"))
    lines = [
        f"served       {summary['served']:,}, {summary['throughput']:,.1f} a second, for {summary['seconds']:g} s",
        f"wait         {waits}",
        f"turned away  {summary['timeouts']:,} by timeout, {summary['shed']:,} shed, {summary['refused']:,} refused "
        f"(max_waiting), {summary['unreachable']:,} out of reach",
        f"connections  {summary['connections']} at most; {summary['connects']:,} connects, "
        f"{summary['failed_connects']:,} failed; {summary['broken']:,} uses broken",
    ]
    if shared:
        lines += [
            f"servers      {summary['most_at_server']} connections at most at one",
            f"hits         {_share(summary['hits'])} needed no connect; {summary['evictions']:,} evicted",
        ]
    heading = f"{'from':>10}{'served':>12}{'turned away':>14}{'connections':>14}"
    lines += [f"at the end   {summary['waiting']:,} wait", "", heading]
    if shared:
        lines[-1] += f"{'at a server':>14}{'hits':>10}{'evicted':>12}"
    for part in summary["over_time"]:
        begin = f"{part['begin']:.4g} s"
        line = f"{begin:>10}{part['served']:>12,}{part['turned_away']:>14,}{part['connections']:>14,}"
        if shared:
            line += f"{part['most_at_server']:>14,}{_share(part['hits']):>10}{part['evictions']:>12,}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.2f} s" if seconds >= 0.9995 else f"{seconds * 1000:.1f} ms"
