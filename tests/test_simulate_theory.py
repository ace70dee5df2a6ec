"""Does the simulator agree with theory? With formulas of queues that were known before there were computers."""

from __future__ import annotations

import math

import pytest

from threadpool_db.scenario import Scenario
from threadpool_db.simulate import simulate


def erlang_c(servers: int, busy: float) -> float:
    """The probability that one who comes has to wait; ``busy``: rate times service."""
    last = busy**servers / math.factorial(servers) * servers / (servers - busy)
    return last / (sum(busy**n / math.factorial(n) for n in range(servers)) + last)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (4, 0.7), (8, 0.8)])
def test_with_exponential_uses_it_is_the_queue_of_erlang(servers: int, load: float) -> None:
    rate = load * servers / 0.02
    outcome = simulate(
        Scenario(
            rate=rate, service=0.02, spread="exponential", max_size=servers, timeout=math.inf,
            duration=200_000 / rate, warm_up=1,
        )
    )  # fmt: skip
    waits, expected = outcome.waits(), erlang_c(servers, load * servers)
    assert sum(wait > 0 for wait in waits) / len(waits) == pytest.approx(expected, rel=0.04)
    assert sum(waits) / len(waits) == pytest.approx(expected * 0.02 / (servers - load * servers), rel=0.08)


def test_with_fixed_uses_the_wait_is_that_of_pollaczek_and_khinchine() -> None:
    outcome = simulate(Scenario(rate=35, service=0.02, max_size=1, timeout=math.inf, duration=6000, warm_up=1))
    waits = outcome.waits()
    assert sum(waits) / len(waits) == pytest.approx(0.7 * 0.02 / (2 * 0.3), rel=0.04)


def test_lognormal_uses_take_what_was_asked_for_on_average() -> None:
    """Little's law: without waits, threads are either thinking or in a use."""
    outcome = simulate(
        Scenario(threads=20, think=0.18, service=0.02, spread="lognormal", max_size=20, duration=1000, warm_up=5)
    )
    assert outcome.summary()["throughput"] == pytest.approx(20 / 0.2, rel=0.03)


def test_threads_that_think_never_ask_for_more_than_they_are() -> None:
    outcome = simulate(Scenario(threads=40, think=0.01, service=0.1, max_size=4, duration=50, warm_up=5))
    assert outcome.summary()["throughput"] == pytest.approx(4 / 0.1, rel=0.01)
    assert outcome.waiting <= 36 and outcome.percentile(0.5) == pytest.approx(0.9, rel=0.05)
