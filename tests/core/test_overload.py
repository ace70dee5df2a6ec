"""Let them wait, or turn them away? The plain limit."""

from __future__ import annotations

import pytest

from threadpool_db.core.overload import MaxWaiting


@pytest.mark.parametrize(("limit", "waiting", "admitted"), [(2, 0, True), (2, 1, True), (2, 2, False), (0, 0, False)])
def test_so_many_may_wait_and_no_more(limit: int, waiting: int, admitted: bool) -> None:
    assert MaxWaiting(limit).admits(waiting, now=0.0) is admitted


def test_without_a_limit_everybody_may_wait() -> None:
    assert MaxWaiting().admits(10**9, now=0.0)
