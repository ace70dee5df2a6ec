"""Let them wait, or turn them away? The plain limit, and the rules of shedding, each alone.

The vectors were seen on the original DBConnection and sbroker, or on models checked against them; in milliseconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Any

import pytest

from threadpool_db.core.overload import AllAtOnce, CoDel, MaxWaiting, Spaced, Standing


@pytest.mark.parametrize(("limit", "waiting", "admitted"), [(2, 0, True), (2, 1, True), (2, 2, False), (0, 0, False)])
def test_so_many_may_wait_and_no_more(limit: int, waiting: int, admitted: bool) -> None:
    assert MaxWaiting(limit).admits(waiting, now=0.0) is admitted


def test_without_a_limit_everybody_may_wait() -> None:
    assert MaxWaiting().admits(10**9, now=0.0)


# --- What a user sets -------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_dbconnection_with_a_rule_of_our_own() -> None:
    assert CoDel() == CoDel(0.05, 2.0, Standing)


def test_each_line_has_a_state_of_its_own() -> None:
    codel = CoDel(0.1, 1.0, Spaced)
    first, second = codel.begin(), codel.begin()
    assert isinstance(first, Spaced) and first is not second and first.target == 0.1


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "1", True])
@pytest.mark.parametrize("name", ["target", "interval"])
def test_an_impossible_number_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"CoDel\({name}=.*: must be seconds above 0"):
        CoDel(**{name: value})


def test_a_rule_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="must be callable, such as Standing"):
        CoDel(rule="dbconnection")  # type: ignore[arg-type]


# --- DBConnection's ---------------------------------------------------------------------------------------------------


class Replay:
    """A pool of nothing but a line and connections, in whole milliseconds: each use takes ``work``."""

    def __init__(self, rule: Any, connections: int, work: int, arrivals: Iterable[int], until: int) -> None:
        self.rule, self.work = rule, work
        self.idle = connections
        self.line: deque[int] = deque()
        self.busy: deque[int] = deque()  # until when
        self.served: list[tuple[float, float]] = []  # when, after what wait
        self.dropped: list[tuple[float, float]] = []
        coming = deque(arrivals)
        while True:
            looks = math.ceil(rule.look_at) if self.line and rule.look_at < math.inf else until
            now = min(self.busy[0] if self.busy else until, coming[0] if coming else until, looks)
            if now >= until:
                break
            if self.busy and self.busy[0] == now:
                self.busy.popleft()
                self._available(now)
            elif coming and coming[0] == now:
                self._asks(coming.popleft())
            else:
                while self.line and rule.overdue(now - self.line[0], len(self.line), now):
                    self.dropped.append((now, now - self.line.popleft()))

    def _asks(self, now: int) -> None:
        if self.idle:
            self.idle -= 1
            self.busy.append(now + self.work)
            self.served.append((now, 0))
            return
        if not self.line:
            self.rule.begins(now)
        self.line.append(now)

    def _available(self, now: int) -> None:
        while self.line and self.rule.sheds(now - self.line[0], len(self.line), now):
            self.dropped.append((now, now - self.line.popleft()))
        if not self.line:
            self.idle += 1
            return
        self.served.append((now, now - self.line.popleft()))
        self.busy.append(now + self.work)

    @property
    def drop_times(self) -> list[float]:
        return sorted({when for when, _ in self.dropped})


@pytest.mark.parametrize(
    ("connections", "work", "requests", "served", "dropped_at"),
    [
        (10, 100, 1000, 211, [2100]),
        (10, 100, 250, 211, [2100]),
        (10, 100, 210, 210, []),
        (10, 100, 190, 190, []),
        (10, 100, 100, 100, []),
        (5, 200, 100, 56, [2200]),
    ],
)
def test_dbconnections_rule_cuts_a_burst_in_one_stroke(
    connections: int, work: int, requests: int, served: int, dropped_at: list[int]
) -> None:
    replay = Replay(AllAtOnce(50, 2000), connections, work, [3_600_000] * requests, 4_000_000)
    assert (len(replay.served), len(replay.dropped)) == (served, requests - served)
    assert [when - 3_600_000 for when in replay.drop_times] == dropped_at


@pytest.mark.parametrize(("target", "interval", "served"), [(50, 1000, 111), (5000, 2000, 250)])
def test_dbconnections_rule_with_other_numbers(target: int, interval: int, served: int) -> None:
    assert len(Replay(AllAtOnce(target, interval), 10, 100, [3_600_000] * 250, 4_000_000).served) == served


@pytest.mark.parametrize(
    ("sent", "waited"),
    [(0, 4000), (1, 5999), (20, 5980), (500, 5500), (1000, 5000), (1980, 4020), (1999, 4001), (2000, 4000)],
)
def test_in_an_outage_dbconnections_rule_drops_a_lone_request_after_two_to_three_intervals(
    sent: int, waited: int
) -> None:
    assert Replay(AllAtOnce(50, 2000), 0, 0, [sent], 20_000).dropped == [(sent + waited, waited)]


def test_in_a_long_outage_dbconnections_rule_drops_at_every_second_look() -> None:
    replay = Replay(AllAtOnce(50, 2000), 0, 0, range(10, 20_000, 10), 20_000)
    assert replay.drop_times == [6000, 10_000, 14_000, 18_000]
    assert (min(w for _, w in replay.dropped), max(w for _, w in replay.dropped)) == (110, 5990)


@pytest.mark.parametrize(
    ("every", "dropped", "mean", "longest"),
    [(20, 0, 0, 0), (19, 74, 91.0, 101), (15, 493, 95.0, 105), (10, 1489, 100.1, 110), (5, 4477, 100.2, 115)],
)
def test_under_overload_dbconnections_rule_serves_after_twice_the_target(
    every: int, dropped: int, mean: float, longest: int
) -> None:
    rule = AllAtOnce(50, 2000)
    rule.ends_at = 2001  # the connect was its first hand-over, to nobody
    replay = Replay(rule, 1, 20, range(1, 30_000, every), 30_000)
    waits = [waited for when, waited in replay.served if when > 10_000]
    assert len(replay.served) == 1500 and abs(len(replay.dropped) - dropped) <= 1
    assert sum(waits) / len(waits) == pytest.approx(mean, abs=0.3) and max(waits) == pytest.approx(longest, abs=1)
    assert replay.drop_times[:1] == ([4021] if dropped else [])


def test_dbconnections_rule_drops_nobody_where_hand_overs_are_an_interval_apart() -> None:
    replay = Replay(AllAtOnce(50, 2000), 1, 2000, range(0, 40_000, 250), 40_000)
    assert not replay.dropped and [waited for _, waited in replay.served[:3]] == [0, 1750, 3500]


def test_what_nobody_waited_for_is_no_look() -> None:
    rule = AllAtOnce(50, 2000)
    rule.begins(4_000_500)
    assert (rule.seen, rule.look_at) == (4_000_000, 4_002_000)


# --- sbroker's --------------------------------------------------------------------------------------------------------


def test_sbrokers_rule_drops_one_at_a_time_at_a_growing_pace() -> None:
    replay = Replay(Spaced(1000, 100), 0, 0, [0] * 30, 10_000)
    assert replay.drop_times[:12] == [1100, 1200, 1271, 1329, 1379, 1424, 1464, 1502, 1538, 1571, 1603, 1633]
    assert len(replay.drop_times) == 30 and replay.drop_times[-1] == 2041


def test_one_served_in_time_ends_it() -> None:
    rule = Spaced(50, 100)
    rule.begins(0)
    assert not rule.sheds(60, 9, 60) and rule.sheds(150, 9, 160)
    assert not rule.sheds(40, 9, 170)
    assert not rule.sheds(60, 9, 261) and not rule.sheds(60, 9, 360), "the interval begins anew"
    assert rule.sheds(60, 9, 361)


def test_trouble_that_is_soon_back_goes_on_nearly_where_it_was() -> None:
    rule = Spaced(50, 100)
    drops = [now for now in range(500) if rule.sheds(60, 9, now)]
    assert len(drops) == 7
    rule.begins(500)
    again = [now for now in range(500, 900) if rule.sheds(60, 9, now)]
    assert again[:3] == [600, 645, 686], "by 100 / sqrt(5) and 100 / sqrt(6)"
    rule.begins(2000)
    assert [now for now in range(2000, 2250) if rule.sheds(60, 9, now)] == [2100, 2200], "but not after long"


# --- Ours -------------------------------------------------------------------------------------------------------------


def standing(length: int, now: float = 0.0) -> Standing:
    """Nobody has been served in time for an interval of one second, and the line is so long again."""
    rule = Standing(0.05, 1.0)
    rule.begins(now)
    assert not rule.sheds(0.06, length, now)
    return rule


def test_a_line_that_does_not_get_shorter_is_cut_to_twice_the_target() -> None:
    rule = standing(50)
    assert not rule.sheds(0.9, 50, 0.99), "not before the interval is over"
    assert rule.sheds(0.9, 50, 1.0) and rule.sheds(0.11, 20, 1.0)
    assert not rule.sheds(0.1, 8, 1.0)
    assert rule.sheds(0.11, 9, 1.5), "and is kept so"


def test_a_line_that_is_worked_off_soon_enough_is_let_be() -> None:
    assert not standing(50).sheds(0.9, 40, 1.0), "four intervals more"
    assert standing(50).sheds(0.9, 41, 1.0)


def test_those_turned_away_do_not_count_as_worked_off() -> None:
    rule = standing(50)
    for left in range(50, 10, -1):
        assert rule.sheds(0.9, left, 1.0)
    assert rule.sheds(0.9, 10, 2.0), "ten after ten: as many came as were served"


def test_it_is_judged_again_after_each_interval() -> None:
    rule = standing(50)
    assert rule.sheds(0.9, 50, 1.0)
    assert not rule.sheds(0.9, 30, 2.0), "49 less 30 are served in an interval: a burst after all"
    assert rule.sheds(0.9, 29, 3.0)


@pytest.mark.parametrize("waited", [0.05, 0.0])
def test_one_served_within_the_target_ends_the_shedding(waited: float) -> None:
    rule = standing(50)
    assert rule.sheds(0.9, 50, 1.0)
    assert not rule.sheds(waited, 40, 1.1)
    assert not rule.sheds(0.9, 60, 1.2) and not rule.sheds(0.9, 60, 2.1)
    assert rule.sheds(0.9, 60, 2.2)


def test_an_empty_line_ends_it_too() -> None:
    rule = standing(50)
    rule.begins(0.9)
    assert not rule.sheds(0.9, 50, 1.5)


def test_the_last_one_gets_the_connection_however_long_he_has_waited() -> None:
    rule = standing(2)
    assert rule.sheds(9.0, 2, 1.0) and not rule.sheds(9.0, 1, 1.0)


def test_where_nothing_moves_for_two_intervals_whoever_has_waited_too_long_is_turned_away() -> None:
    rule = Standing(0.05, 1.0)
    rule.begins(10.0)
    assert rule.look_at == 12.0
    assert rule.overdue(2.0, 3, 12.0), "also the last one: there is no connection that would idle"
    assert not rule.overdue(0.04, 2, 12.0)
    assert rule.look_at == pytest.approx(12.06), "when the next one has waited for twice the target"
    assert rule.overdue(0.11, 1, 12.07)


def test_a_hand_over_is_a_move() -> None:
    rule = Standing(0.05, 1.0)
    rule.begins(10.0)
    rule.sheds(1.5, 3, 11.5)
    assert not rule.overdue(2.0, 3, 12.0) and rule.look_at == 13.5
