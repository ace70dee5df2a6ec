"""What does the pool look like from outside? Histograms, what is read from them, and the snapshot."""

from __future__ import annotations

import math

import pytest

from threadpool_db.core.sizing import Counts
from threadpool_db.core.stats import BOUNDS, Durations, Histogram, Hold, Snapshot


def filled(*seconds: float) -> Histogram:
    histogram = Histogram()
    for value in seconds:
        histogram.add(value)
    return histogram


class TestHistogram:
    @pytest.mark.parametrize("bucket", range(len(BOUNDS)))
    def test_a_bound_belongs_to_its_own_bucket_and_what_is_more_to_the_next(self, bucket: int) -> None:
        counts = filled(BOUNDS[bucket], math.nextafter(BOUNDS[bucket], math.inf)).counts
        assert counts[bucket] == 1 and counts[bucket + 1] == 1

    def test_what_is_beyond_all_bounds_is_counted_too(self) -> None:
        assert filled(1e9).counts[-1] == 1

    def test_no_time_at_all_is_in_the_first(self) -> None:
        assert filled(0.0).counts[0] == 1

    def test_one_can_be_taken_back(self) -> None:
        histogram = filled(0.02, 3.0)
        histogram.remove(0.02)
        assert histogram.summary() == filled(3.0).summary()

    def test_a_summary_does_not_change_afterwards(self) -> None:
        histogram = filled(1.0)
        summary = histogram.summary()
        histogram.add(1.0)
        assert summary.count == 1 and histogram.summary().count == 2

    def test_zeros_count_without_adding_time(self) -> None:
        summary = filled(3.0).summary(zeros=2)
        assert summary.count == 3 and summary.total == 3.0 and summary.mean == 1.0


class TestDurations:
    def test_nothing_measured_is_zero(self) -> None:
        assert (Durations().count, Durations().mean, Durations().percentile(0.99)) == (0, 0.0, 0.0)

    def test_a_percentile_is_the_bound_of_the_bucket_it_falls_in(self) -> None:
        summary = filled(*[0.0009] * 98, 0.2, 20.0).summary()
        assert [summary.percentile(share) for share in (0.5, 0.98, 0.99, 1.0)] == [0.001, 0.001, 0.25, 30.0]

    def test_a_percentile_beyond_the_last_bound_is_inf(self) -> None:
        assert filled(1000.0).summary().percentile(0.5) == math.inf

    def test_a_share_above_one_is_inf(self) -> None:
        assert filled(1.0).summary().percentile(1.5) == math.inf


class TestSnapshot:
    def test_it_offers_the_counts_by_name(self) -> None:
        snapshot = Snapshot("db", Counts(10, 1, 2, 3, 1, 5))
        assert (snapshot.max_size, snapshot.idle, snapshot.in_use, snapshot.waiting, snapshot.total) == (10, 1, 2, 5, 7)

    def test_a_holder_is_named_with_thread_age_and_line(self) -> None:
        assert str(Hold("web-3", 1.26, "app.py:7 (view)")) == "web-3 for 1.3 s, taken at app.py:7 (view)"
