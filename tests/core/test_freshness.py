"""Use it, ping it, or retire it? Judged from a connection's times alone."""

from __future__ import annotations

import math

import pytest

from threadpool_db.core.entry import Entry
from threadpool_db.core.freshness import Freshness


def used_at(moment: float, uses: int = 1) -> Entry:
    entry = Entry(0.0, 0)
    entry.last_used, entry.uses = moment, uses
    return entry


class TestSilence:
    def test_one_used_a_moment_ago_need_not_be_asked(self) -> None:
        assert not Freshness(ping_after=30).silent(used_at(100), 129.9)

    def test_one_silent_for_exactly_ping_after_must_be_asked(self) -> None:
        assert Freshness(ping_after=30).silent(used_at(100), 130)

    def test_zero_asks_each_time(self) -> None:
        assert Freshness(ping_after=0).silent(used_at(100), 100)

    def test_inf_never_asks(self) -> None:
        assert not Freshness(ping_after=math.inf).silent(used_at(0), 1e9)


class TestWear:
    def test_a_lifetime_ends_at_its_end_and_not_before(self) -> None:
        freshness, entry = Freshness(max_lifetime=10, lifetime_jitter=0), used_at(0)
        entry.expires_at = freshness.expires_at(5, draw=0.7)
        assert not freshness.worn(entry, 14.9) and freshness.worn(entry, 15)

    def test_one_is_worn_after_max_uses(self) -> None:
        freshness = Freshness(max_uses=3)
        assert not freshness.worn(used_at(0, uses=2), 1) and freshness.worn(used_at(0, uses=3), 1)

    def test_without_limits_nothing_wears(self) -> None:
        freshness, entry = Freshness(max_lifetime=math.inf), used_at(0, uses=10**9)
        entry.expires_at = freshness.expires_at(0, draw=0.5)
        assert not freshness.worn(entry, 1e12)


class TestJitter:
    @pytest.mark.parametrize(("draw", "lifetime"), [(0.0, 1800), (0.5, 1710), (0.999999, 1620)])
    def test_a_lifetime_is_shortened_by_a_random_share(self, draw: float, lifetime: float) -> None:
        freshness = Freshness(max_lifetime=1800, lifetime_jitter=0.1)
        assert freshness.expires_at(1000, draw) == pytest.approx(1000 + lifetime, abs=0.01)

    def test_connections_opened_in_one_burst_do_not_end_in_one(self) -> None:
        freshness = Freshness()
        assert len({freshness.expires_at(0, draw / 10) for draw in range(10)}) == 10


class TestKeepalive:
    def test_one_is_to_be_asked_after_as_much_silence_since_its_last_use_or_answer(self) -> None:
        freshness, entry = Freshness(keepalive=60), used_at(100)
        assert freshness.ask_at(entry) == 160
        entry.asked_at = 160
        assert freshness.ask_at(entry) == 220
        entry.last_used = 200
        assert freshness.ask_at(entry) == 260

    def test_by_default_nobody_is_asked(self) -> None:
        assert Freshness().ask_at(used_at(0)) == math.inf


class TestCarefree:
    def test_the_short_way_is_open_until_the_first_of_ping_and_idle_limit(self) -> None:
        assert Freshness(ping_after=30, max_idle=300).carefree == 30
        assert Freshness(ping_after=math.inf, max_idle=300).carefree == 300
