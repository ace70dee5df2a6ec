"""Does the bench of simulator and real pool compare like with like? Its limit is the bench's own."""

from __future__ import annotations

import pytest

from tests.bench import agreement
from tests.bench.contention import QUERY
from tests.bench.overload import SIZE, Request, ours_plain
from tests.bench.tables import tables

ATTEMPTS = 3


def request(asked: float, wait: float, use: float | None) -> Request:
    return Request(asked, asked, asked + wait, None if use is None else asked + wait + use)


def test_a_difference_is_a_share_of_what_was_simulated_and_of_short_waits_a_share_of_a_millisecond() -> None:
    row = agreement.beside(
        {"rate": 95.0, "p50_ms": 0.05, "p99_ms": 12.0}, {"rate": 100.0, "p50_ms": 0.0, "p99_ms": 10.0}
    )
    assert (row["rate_off"], row["p50_ms_off"], row["p99_ms_off"]) == pytest.approx((-0.05, 0.05, 0.2))
    assert agreement.disagreements({"a load": row}) == ["a load: p99_ms 12, simulated 10 (+20%)"]
    assert tables({agreement.AGREEMENT: {"a load": row}}).splitlines()[2].startswith("| a load | 95 | 100 | -5.0% |")


def test_of_the_real_pool_counts_who_was_served_after_the_warm_up_and_before_the_end() -> None:
    came = [request(10.5, 0.1, 1), request(11.0, 0.2, 1), request(11.5, 0.4, None), request(12.5, 0.6, 1)]
    assert agreement.of_real(came, 10.0, 3.0) == pytest.approx({"rate": 0.5, "p50_ms": 200, "p99_ms": 200})


def test_the_simulator_is_told_of_the_uses_in_the_order_in_which_they_began() -> None:
    draw = agreement.uses([request(3, 0, 0.3), request(1, 9, 0.4), request(2, 0.5, None), request(2, 0, 0.2)])
    assert [round(draw(), 3) for _ in range(4)] == [0.2, 0.3, 0.4, 0.2]


def test_at_twice_the_capacity_both_serve_as_many_after_the_same_wait() -> None:
    for _ in range(ATTEMPTS):
        with agreement.invited((ours_plain,), SIZE, print) as (contestant,):
            row = agreement.beside(*agreement.open_(contestant, 2.0, 2.5))
        if all(abs(row[f"{name}_off"]) < 0.15 for name in agreement.FIGURES):
            break
    assert all(abs(row[f"{name}_off"]) < 0.15 for name in agreement.FIGURES), row


def test_in_a_closed_loop_both_serve_about_as_many() -> None:
    for _ in range(ATTEMPTS):
        with agreement.invited((agreement.ours,), agreement.CONNECTIONS, print) as (contestant,):
            row = agreement.beside(*agreement.closed(contestant, QUERY, 1.5))
        if abs(row["rate_off"]) < 0.3:
            break
    assert abs(row["rate_off"]) < 0.3 and row["p50_ms"] > QUERY.hold * 1e3, row


def test_each_load_has_a_row() -> None:
    rows = agreement.measure_agreement(lambda line: None, seconds=1.2)
    assert list(rows) == list(agreement.LOADS)
    assert all(row["rate"] > 0 and row["rate_simulated"] > 0 for row in rows.values())
    assert tables({agreement.AGREEMENT: rows}).count("\n") == 1 + len(rows)
