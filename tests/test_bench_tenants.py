"""Does the bench of many databases run, and are its figures of the right order? Its limits are the proof's."""

from __future__ import annotations

import contextlib
import time
from types import SimpleNamespace

import pytest

from tests.bench import neighbours, zipf
from tests.bench.tables import tables
from tests.conftest import require
from tests.servers import Postgres

ATTEMPTS = 3


def test_under_zipfs_traffic_each_way_keeps_the_cap_and_the_table_shows_them() -> None:
    pytest.importorskip("psycopg2")
    pytest.importorskip("sqlalchemy")
    require(Postgres)
    with zipf.zipf(print, databases=8, cap=4, seconds=0.4) as race:
        assert race is not None
        race.run(1)
        figures = race.figures()
        assert all(1 <= one.count.most <= 4 for one in race.contestants)
    assert all(one.count.now == 0 for one in race.contestants)
    assert set(figures) == {zipf.TENANTS, zipf.NULLPOOL, *map(zipf.lru_of, zipf.SIZES)}
    assert all(of["rate"] > 0 and of["p50_ms"] <= of["p99_ms"] for of in figures.values())
    assert figures[zipf.TENANTS]["hits"] > figures[zipf.NULLPOOL]["hits"]
    assert tables({zipf.ZIPF: figures}).count("\n") == 1 + len(figures)


def test_an_lru_closes_the_pool_that_was_used_least_recently_and_none_that_is_in_use(monkeypatch) -> None:
    opened: list[str] = []

    def dbapi(count, url):
        def connect():
            opened.append(url)
            return count.connect(lambda: SimpleNamespace(rollback=lambda: None, close=count.closed))

        return connect

    pytest.importorskip("sqlalchemy")
    monkeypatch.setattr(zipf, "_dbapi", dbapi)
    with contextlib.closing(zipf.LRU(lambda key: key, cap=2, size=1)) as lru:
        with lru.borrow("a"):
            with lru.borrow("b"):
                pass
            with lru.borrow("c"):  # b goes, for a is in use
                pass
        with lru.borrow("a"):
            pass
        with lru.borrow("b"):  # c goes, for a was used later
            pass
        with lru.borrow("a"):
            pass
        assert (opened, lru.evicted, lru.count.most) == (["a", "b", "c", "b"], 2, 2)
    assert lru.count.now == 0


def test_small_tenants_are_served_beside_busy_ones() -> None:
    with contextlib.closing(neighbours.Crowded(seconds=1.2)) as crowded:
        for _ in range(ATTEMPTS):
            crowded.run(1)
            if crowded.p99 < 0.5 and crowded.kept > 0.5:
                break
        assert 0 < crowded.p99 < 0.5
        assert crowded.kept > 0.5


def test_one_that_is_down_costs_the_others_little() -> None:
    down = neighbours.Down(seconds=0.8)
    for _ in range(ATTEMPTS):
        down.run(1)
        if max(down.ratios().values()) < 2:
            break
    ratios = down.ratios()
    assert set(ratios) == {neighbours.REFUSED, neighbours.SILENT} and max(ratios.values()) < 2


def test_among_many_a_warm_one_is_found_at_once() -> None:
    with neighbours.warm(300) as pairs:
        for _ in range(ATTEMPTS):
            pairs.run(20)
            if neighbours.times(pairs) < 2:
                break
        assert 0.5 < neighbours.times(pairs) < 2


def test_a_slice_counts_what_lies_within_it() -> None:
    timed = neighbours.Timed(seconds=0.2)
    assert timed.end - timed.begin == pytest.approx(0.2)
    found = timed.repeat(lambda: time.sleep(0.02) or 1.0)
    assert 1 <= len(found) <= 10
