"""Does a storm fill no disk, and is what was left out counted?"""

from __future__ import annotations

import logging

import pytest

from tests.scene import background, join, scene
from threadpool_db import PoolTimeout
from threadpool_db.logbook import LEVELS, LINES, WINDOW
from threadpool_db.observe import Observers
from threadpool_db.testing import FakeClock


class Told:
    """A pool's log, in a time of its own."""

    def __init__(self, caplog, observers=(), level=logging.DEBUG):
        caplog.set_level(level, "threadpool_db")
        self.clock = FakeClock()
        self.observers = Observers("orders", observers, self.clock.now)
        self._caplog = caplog

    def tell(self, kind, times=1, **more):
        for _ in range(times):
            self.observers.tell(kind, **more)

    @property
    def lines(self):
        """Since the last look."""
        lines = [record.getMessage().removeprefix("pool orders: ") for record in self._caplog.records]
        self._caplog.clear()
        return lines


@pytest.fixture
def told(caplog):
    return Told(caplog)


def test_five_of_a_kind_are_told_in_ten_seconds_and_then_how_many_more_there_were(told):
    told.tell("refused", 100)
    assert told.lines == ["refused"] * 5
    told.clock.advance(9.9)
    told.tell("refused", 3)
    assert told.lines == []
    told.clock.advance(0.1)
    told.tell("refused")
    assert told.lines == ["refused, 98 more within 10 s", "refused"]
    told.clock.advance(10.0)
    told.tell("refused")
    assert told.lines == ["refused"]
    assert (LINES, WINDOW) == (5, 10.0)


def test_each_kind_has_lines_of_its_own_and_any_of_them_tells_what_the_others_owe(told):
    told.tell("connect_failed", 7)
    told.tell("refused", 6)
    assert told.lines == ["connect failed"] * 5 + ["refused"] * 5
    told.clock.advance(10.0)
    told.tell("available")
    assert told.lines == ["connect failed, 2 more within 10 s", "refused, 1 more within 10 s", "available"]


def test_what_is_still_being_counted_is_not_told(told):
    """Another thread may have begun the next ten seconds already."""
    told.tell("refused", 7)
    told.observers._log.tell_of_more(before=told.clock.now() // WINDOW)
    assert told.lines == ["refused"] * 5
    told.observers.close()
    assert told.lines == ["refused, 2 more within 10 s"]


def test_each_pool_has_lines_of_its_own(told):
    other = Observers("stock", [], told.clock.now)
    for _ in range(10):
        other.tell("refused")
        told.tell("refused")
    assert len(told.lines) == 2 * LINES


def test_observers_hear_all_of_it(caplog):
    seen = []
    told = Told(caplog, [seen.append])
    told.tell("refused", 100)
    assert len(seen) == 100
    assert len(told.lines) == LINES


def test_what_the_level_shuts_out_is_not_counted(caplog):
    told = Told(caplog, level=logging.INFO)
    told.tell("connected", 100)
    caplog.set_level(logging.DEBUG, "threadpool_db")
    told.tell("connected", 5)
    told.clock.advance(10.0)
    told.tell("connected")
    assert told.lines == ["connected"] * 6


def test_the_number_is_told_at_the_level_of_its_kind_and_can_be_read_by_machines(told, caplog):
    told.tell("leak", 7)
    told.clock.advance(10.0)
    told.tell("connected")
    record = caplog.records[-2]
    assert (record.levelno, record.pool, record.event, record.suppressed) == (logging.WARNING, "orders", "leak", 2)


def test_observers_that_raise_in_a_storm_are_told_of_no_more_often(caplog):
    def broken(event):
        raise ValueError

    told = Told(caplog, [broken], logging.ERROR)
    told.tell("refused", 20)
    assert told.lines == ["an observer of refused raised"] * 5
    told.clock.advance(10.0)
    told.tell("refused")
    assert told.lines[0] == "an observer of refused raised, 15 more within 10 s"
    caplog.set_level(logging.CRITICAL, "threadpool_db")
    told.tell("refused", 20)
    caplog.set_level(logging.ERROR, "threadpool_db")
    told.tell("refused")
    assert told.lines == ["an observer of refused raised"]


def test_a_pool_that_is_closed_owes_nothing(caplog):
    caplog.set_level(logging.INFO, "threadpool_db")
    with scene(max_size=1, name="orders") as s:
        held = s.pool.checkout()
        for _ in range(8):
            with pytest.raises(PoolTimeout):
                s.pool.checkout(timeout=0)
        held.checkin()
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["pool orders: refused (PoolTimeout)"] * 5 + ["pool orders: refused, 3 more within 10 s"]


def test_threads_get_five_lines_together_and_none_is_lost_from_the_count(told):
    join(*[background(told.tell, "refused", 500) for _ in range(8)])
    assert told.lines == ["refused"] * 5
    told.clock.advance(10.0)
    join(*[background(told.tell, "dead", 1) for _ in range(8)])
    lines = told.lines
    assert lines.count("refused, 3995 more within 10 s") == 1
    assert lines.count("dead") == 5 and len(lines) == 6


def test_whoever_tells_of_something_in_the_middle_of_a_line_disturbs_nothing(told):
    """As a finaliser may, in the same thread."""

    class Handler(logging.Handler):
        depth = 0

        def emit(self, record):
            if Handler.depth < 3:
                Handler.depth += 1
                told.tell("refused", 2)

    handler = Handler()
    logging.getLogger("threadpool_db").addHandler(handler)
    try:
        told.tell("refused", 5)
    finally:
        logging.getLogger("threadpool_db").removeHandler(handler)
    assert told.lines == ["refused"] * 5
    told.clock.advance(10.0)
    told.tell("dead")
    assert told.lines[0] == f"refused, {5 + 3 * 2 - 5} more within 10 s"


def test_the_name_of_an_error_is_told_once(told):
    told.tell("unavailable", detail="the last with OSError", error=OSError())
    told.tell("connect_failed", error=OSError())
    assert told.lines == ["unavailable: the last with OSError", "connect failed (OSError)"]


def test_whoever_hears_of_the_beginning_hears_of_the_end():
    assert LEVELS["unavailable"] == LEVELS["available"]
    assert LEVELS["alarm"] == LEVELS["cleared"]
