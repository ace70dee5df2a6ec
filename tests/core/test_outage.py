"""Is the server out of reach, and who may try it? The rules one by one, with the time as an argument."""

from __future__ import annotations

import math

from threadpool_db.core.outage import RAMP, RAMP_CONNECTS, Outage


def outage(delay: float = 1.0, *, failed_at: float = 10.0) -> Outage:
    """A server that proved out of reach."""
    made = Outage()
    assert made.admits(failed_at)
    made.failed(failed_at, failed_at, delay)
    return made


def starts(server: Outage, *times: float) -> list[bool]:
    """Whether one may start, asked at these times one after the other."""
    return [server.admits(now) for now in times]


class TestWhileItIsInReach:
    def test_any_number_may_start_at_any_time(self) -> None:
        server = Outage()
        assert starts(server, 0.0, 0.0, 0.0, 5.0) == [True] * 4
        assert server.next_at(5.0) == -math.inf

    def test_a_success_changes_nothing(self) -> None:
        server = Outage()
        server.connected(1.0)
        assert starts(server, *[1.0] * 20) == [True] * 20


class TestWhileConnectsFail:
    def test_none_starts_before_its_delay_is_over(self) -> None:
        server = outage(1.0)
        assert starts(server, 10.0, 10.999) == [False, False]
        assert server.next_at(10.5) == 11.0

    def test_of_two_who_find_the_same_step_at_once_one_gets_it_also_if_nobody_has_asked_for_long(self) -> None:
        for now in (11.0, 99.0):
            server = outage(1.0)
            step = server._current()  # each under the lock of his own pool
            assert step is not None and [step.use(now), step.use(now)] == [True, False]
            assert starts(server, now, now + 0.999, now + 1.0) == [False, False, True]

    def test_one_starts_in_each_step_whoever_asks_first(self) -> None:
        server = outage(1.0)
        assert starts(server, 11.0, 11.0, 11.999, 12.0, 12.5) == [True, False, False, True, False]

    def test_a_connect_that_is_never_heard_of_uses_up_one_step_and_no_more(self) -> None:
        server = outage(1.0)
        assert server.admits(11.0)
        assert server.next_at(11.0) == 12.0 and server.admits(12.0)

    def test_a_step_that_nobody_used_does_not_count(self) -> None:
        server = outage(1.0)
        assert starts(server, 99.0, 99.0, 99.999, 100.0) == [True, False, False, True]

    def test_each_failure_begins_a_step_of_its_own_length(self) -> None:
        server = outage(1.0)
        assert server.admits(11.0)
        server.failed(11.0, 11.5, 4.0)
        assert starts(server, 12.0, 15.0, 15.5, 15.5) == [False, False, True, False]

    def test_asking_when_one_may_start_uses_nothing_up(self) -> None:
        server = outage(1.0)
        for _ in range(3):
            assert server.next_at(11.0) == 11.0
        assert server.admits(11.0)


class TestTheWayBack:
    def test_four_start_in_the_first_second_the_first_at_once(self) -> None:
        server = outage()
        assert server.admits(11.0)
        server.connected(20.0)
        tried = [20.0 + hundredth / 100 for hundredth in range(100)]
        assert [now - 20.0 for now, started in zip(tried, starts(server, *tried), strict=True) if started] == [
            0.0,
            0.25,
            0.5,
            0.75,
        ]
        assert RAMP_CONNECTS == 4 and RAMP == 1.0

    def test_whoever_asks_late_finds_what_was_left_but_never_more_than_four_in_that_second(self) -> None:
        for begin in (0.0, 0.1, 0.3, 0.6, 0.9, 0.99):
            server = outage()
            server.connected(20.0)
            begun = starts(server, *[20.0 + begin] * 10, *[20.999] * 10)
            assert sum(begun) <= 4
        assert sum(begun[:10]) == 4  # at 0.99 s all four were still there

    def test_after_that_second_nothing_is_rationed(self) -> None:
        server = outage()
        server.connected(20.0)
        assert starts(server, *[21.0] * 20) == [True] * 20
        assert server.next_at(21.0) == -math.inf

    def test_the_second_begins_with_the_first_success_not_with_each(self) -> None:
        server = outage()
        server.connected(20.0)
        server.connected(20.9)
        assert starts(server, *[21.0] * 20) == [True] * 20

    def test_news_of_the_outage_before_is_no_news(self) -> None:
        server = outage()
        server.connected(20.0)
        server.failed(19.9, 20.1, 60.0)
        assert starts(server, 20.1, 21.0) == [True, True]

    def test_a_connect_that_started_on_the_ramp_and_fails_is_the_next_outage(self) -> None:
        server = outage()
        server.connected(20.0)
        assert server.admits(20.0)
        server.failed(20.0, 20.2, 5.0)
        assert starts(server, 20.3, 21.0, 25.2, 25.2) == [False, False, True, False]

    def test_the_next_outage_ends_in_a_ramp_of_its_own(self) -> None:
        server = outage()
        server.connected(20.0)
        server.failed(30.0, 30.0, 1.0)
        server.connected(40.0)
        assert sum(starts(server, *[40.999] * 20)) == 4


def test_after_a_stumble_there_is_no_ramp() -> None:
    server = outage(0.1, failed_at=10.0)
    assert server.admits(10.1)
    server.connected(10.0 + RAMP - 0.001)
    assert starts(server, *[11.0] * 20) == [True] * 20
    server.failed(11.0, 11.0, 0.1)  # and one long ago makes the next one no longer
    server.connected(11.5)
    assert starts(server, *[11.5] * 20) == [True] * 20
