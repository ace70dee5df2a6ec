"""Does the alarm change only after a whole interval in which every sample said so?"""

from __future__ import annotations

import math
import random

import pytest

from threadpool_db.core.alarm import SAMPLES, Alarms, Hysteresis


def changes(rule: Hysteresis, *samples: tuple[float, bool]) -> list[tuple[float, bool]]:
    """When it changed, and to what."""
    return [(now, rule.on) for now, holds in samples if rule.sample(holds, now)]


def steadily(holds: bool, start: float, end: float, step: float = 0.5) -> list[tuple[float, bool]]:
    return [(start + n * step, holds) for n in range(round((end - start) / step) + 1)]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (steadily(True, 10, 14.5), []),
        (steadily(True, 10, 15), [(15.0, True)]),
        (steadily(True, 10, 30), [(15.0, True)]),
        (steadily(False, 10, 30), []),
        # one good sample begins the interval anew
        ([*steadily(True, 10, 14.5), (14.75, False), *steadily(True, 15, 20)], [(20.0, True)]),
        # and one bad sample the other one
        (
            [*steadily(True, 10, 15), *steadily(False, 15.5, 20), (20.25, True), *steadily(False, 20.5, 26)],
            [(15.0, True), (25.5, False)],
        ),
        ([*steadily(True, 10, 15), *steadily(False, 15.5, 20)], [(15.0, True)]),
        ([*steadily(True, 10, 15), *steadily(False, 15.5, 20.5)], [(15.0, True), (20.5, False)]),
        # two samples are enough, if they are so far apart
        ([(10.0, True), (16.0, True)], [(16.0, True)]),
        ([(10.0, True)], []),
    ],
)
def test_golden_samples(samples: list[tuple[float, bool]], expected: list[tuple[float, bool]]) -> None:
    assert changes(Hysteresis(5.0), *samples) == expected


def test_what_comes_and_goes_never_raises_one() -> None:
    assert changes(Hysteresis(5.0), *[(n * 0.5, n % 9 != 0) for n in range(1, 1000)]) == []


def test_what_goes_and_comes_never_clears_one() -> None:
    rule = Hysteresis(5.0)
    changes(rule, *steadily(True, 0, 5))
    assert changes(rule, *[(n * 0.5, n % 9 == 0) for n in range(11, 1000)]) == []
    assert rule.on


def test_the_state_began_with_the_first_sample_that_told_of_it() -> None:
    rule = Hysteresis(5.0)
    changes(rule, *steadily(True, 10, 15))
    assert rule.since == 10.0
    changes(rule, *steadily(False, 40, 45))
    assert (rule.on, rule.since) == (False, 40.0)


def test_only_a_calm_one_needs_no_more_samples() -> None:
    rule = Hysteresis(5.0)
    assert rule.calm
    rule.sample(True, 0.0)
    assert not rule.calm  # about to be on
    rule.sample(False, 1.0)
    assert rule.calm
    changes(rule, *steadily(True, 2, 7))
    assert not rule.calm  # on
    rule.sample(False, 8.0)
    assert not rule.calm
    changes(rule, *steadily(False, 8, 13))
    assert rule.calm


def test_the_end_clears_it_at_once_and_once() -> None:
    rule = Hysteresis(5.0)
    assert not rule.end(1.0)
    changes(rule, *steadily(True, 2, 7))
    assert rule.end(9.0)
    assert (rule.on, rule.since, rule.calm) == (False, 9.0, True)
    assert not rule.end(10.0)


def test_the_end_of_one_that_was_about_to_be_changes_nothing() -> None:
    rule = Hysteresis(5.0)
    changes(rule, *steadily(True, 2, 6))
    assert not rule.end(9.0)
    assert rule.calm


class Model:
    """The sentence, word by word: all samples of a whole interval."""

    def __init__(self, interval: float) -> None:
        self.interval, self.on, self.seen = interval, False, list[tuple[float, bool]]()

    def sample(self, holds: bool, now: float) -> bool:
        self.seen.append((now, holds))
        run = []
        for when, what in reversed(self.seen):
            if what is self.on:
                break
            run.append(when)
        if not run or now - run[-1] < self.interval:
            return False
        self.on = holds
        return True


@pytest.mark.parametrize("seed", range(20))
def test_it_says_what_the_sentence_says(seed: int) -> None:
    dice = random.Random(seed)
    rule, model, now = Hysteresis(5.0), Model(5.0), 0.0
    for _ in range(500):
        now += dice.choice((0.25, 0.5, 1.0))
        holds = dice.random() < (0.97 if now % 60 < 30 else 0.03)
        assert rule.sample(holds, now) == model.sample(holds, now)
        assert rule.on is model.on


# --- Settings ---------------------------------------------------------------------------------------------------------


def test_an_interval_has_ten_samples() -> None:
    assert Alarms().step == 0.5
    assert Alarms(interval=20).step * SAMPLES == 20


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": 0}, r"Alarms\(target=0\): must be seconds from 0.001 on"),
        ({"target": "1"}, r"Alarms\(target='1'\)"),
        ({"target": True}, r"Alarms\(target=True\)"),
        ({"target": math.inf}, r"Alarms\(target=inf\)"),
        ({"target": math.nan}, r"Alarms\(target=nan\)"),
        ({"interval": 0.05}, r"Alarms\(interval=0.05\): must be seconds from 0.1 on"),
        ({"interval": None}, r"Alarms\(interval=None\)"),
    ],
)
def test_an_impossible_setting_is_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Alarms(**options)
