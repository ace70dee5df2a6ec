"""When to try the database again? The three formulas, held against sequences that DBConnection itself produced.

Times are in milliseconds here, as there: the arithmetic does not care.
"""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from threadpool_db.core.backoff import Backoff

# three runs of DBConnection.Backoff with its defaults, min 1000 and max 30000
OBSERVED = [
    [1275, 3606, 10548, 12067, 18358, 13863, 26234, 24728, 25474, 22439, 16879, 13075],
    [2957, 3420, 4170, 5560, 11475, 15540, 20097, 18243, 29855, 16953, 29883, 11170],
    [1487, 3914, 8372, 12645, 22122, 29789, 25533, 29033, 12147, 29844, 10431, 25375],
]


def sequence(backoff: Backoff, draws: list[float]) -> list[float]:
    delays: list[float] = []
    for draw in draws:
        delays.append(backoff.after(delays[-1] if delays else None, draw))
    return delays


class TestRandExp:
    @pytest.mark.parametrize("observed", OBSERVED)
    def test_every_observed_delay_lies_within_its_bounds(self, observed: list[int]) -> None:
        backoff = Backoff(1000, 30000)
        previous: float | None = None
        for delay in observed:
            assert backoff.after(previous, 0.0) <= delay <= backoff.after(previous, 1.0)
            previous = delay

    @pytest.mark.parametrize("observed", OBSERVED)
    def test_the_draws_that_give_an_observed_run_give_it_again(self, observed: list[int]) -> None:
        backoff = Backoff(1000, 30000)
        draws, previous = [], None
        for delay in observed:
            low, high = backoff.after(previous, 0.0), backoff.after(previous, 1.0)
            draws.append((delay - low) / (high - low))
            previous = delay
        assert sequence(backoff, draws) == pytest.approx(observed)

    def test_the_first_delay_lies_between_the_shortest_and_three_times_as_much(self) -> None:
        backoff = Backoff(1000, 30000)
        assert (backoff.after(None, 0.0), backoff.after(None, 0.5), backoff.after(None, 1.0)) == (1000, 2000, 3000)

    def test_no_delay_is_shorter_than_the_last_until_a_third_of_the_longest(self) -> None:
        rng = random.Random(7)
        for _ in range(200):
            delays = sequence(Backoff(1000, 30000), [rng.random() for _ in range(12)])
            for last, delay in pairwise(delays):
                assert min(last, 10000) <= delay <= min(3 * last, 30000)

    def test_it_settles_between_a_third_of_the_longest_and_the_longest(self) -> None:
        rng = random.Random(7)
        settled = sequence(Backoff(1000, 30000), [rng.random() for _ in range(5000)])[10:]
        assert min(settled) >= 10000 and max(settled) <= 30000
        assert sum(settled) / len(settled) == pytest.approx(20001, rel=0.02)  # as observed

    def test_after_a_success_it_starts_again_at_the_shortest(self) -> None:
        assert Backoff(1000, 30000).after(None, 0.0) == 1000

    def test_a_shortest_above_a_third_of_the_longest_is_never_undercut(self) -> None:
        rng = random.Random(7)
        assert min(sequence(Backoff(20, 30), [rng.random() for _ in range(500)])) >= 20


class TestExp:
    def test_it_doubles_up_to_the_longest(self) -> None:
        backoff = Backoff(1000, 30000, kind="exp")
        assert sequence(backoff, [0.9] * 7) == [1000, 2000, 4000, 8000, 16000, 30000, 30000]


class TestRand:
    def test_it_is_drawn_anew_each_time_between_shortest_and_longest(self) -> None:
        backoff = Backoff(1000, 30000, kind="rand")
        assert backoff.after(None, 0.0) == backoff.after(29000, 0.0) == 1000
        assert backoff.after(None, 1.0) == backoff.after(1000, 1.0) == 30000


class TestBadInput:
    @pytest.mark.parametrize(("shortest", "longest"), [(-1, 2), (3, 2), (0, float("inf")), (float("nan"), 1)])
    def test_impossible_limits_are_refused_with_their_values(self, shortest: float, longest: float) -> None:
        with pytest.raises(ValueError) as error:
            Backoff(shortest, longest)
        assert f"shortest={shortest!r}, longest={longest!r}" in str(error.value)

    def test_an_unknown_kind_is_refused_with_the_known_ones(self) -> None:
        with pytest.raises(ValueError, match="rand_exp, exp, rand"):
            Backoff(kind="fibonacci")
