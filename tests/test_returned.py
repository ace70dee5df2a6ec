"""Who hears that a lease which was reported came back after all? Under a clock that stands still."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager

import pytest

from tests.faults.bank import Watcher, eventually
from tests.scene import SOON, background, join, scene
from tests.test_deadlines import LINE
from threadpool_db import create_pool, telling
from threadpool_db.core.entry import Entry, Reported
from threadpool_db.core.line import Report
from threadpool_db.testing import FakeClock, Latch
from threadpool_db.upkeep import Upkeep

ENDLESS = {"max_idle": None, "max_lifetime": None}


class Told(Watcher):
    """Kind and sentence of each report, in the order in which they came."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, float, str]] = []

    def __call__(self, event) -> None:
        if event.kind in ("leak", "inactive", "returned"):
            self.said.append((event.kind, event.seconds, event.detail))
        super().__call__(event)

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.said]

    def wait_until(self, pool, *kinds: str) -> None:
        """So much was said, and the ledger knows of it."""

        def known():
            with pool._lock:
                return self.kinds == list(kinds)

        eventually(known, f"{kinds} are said")


@contextmanager
def reported(**options):
    told = Told()
    with scene(background=True, observers=[told], **ENDLESS | options) as s:
        yield s, told


def followed(s) -> None:
    """Whoever tells of a lease has come to the end of it."""
    eventually(lambda: any(isinstance(entry, Reported) for entry in s.pool._ledger.entries), "it is followed")


@pytest.mark.parametrize("end", ["checkin", "discard", "the pool's checkin", "an error"])
def test_a_lease_that_comes_back_after_its_report_says_so_once(end):
    with reported(leak_after=10) as (s, told):
        lease = s.pool.checkout()
        s.clock.advance(10)
        followed(s)
        s.clock.advance(15)
        if end == "the pool's checkin":
            s.pool.checkin(lease)
        elif end == "an error":
            with pytest.raises(ZeroDivisionError), lease:
                raise ZeroDivisionError
        else:
            getattr(lease, end)()
        assert told.kinds == ["leak", "returned"]
        _, seconds, detail = told.said[1]
        assert seconds == pytest.approx(25)
        assert re.fullmatch(f"came back after all: MainThread held it for 25.0 s, taken at .*{LINE}", detail)
        with s.pool.checkout() as connection:
            s.clock.advance(5)
            assert connection.number == (2 if end == "discard" else 1)
        s.clock.advance(100)
        assert told.kinds == ["leak", "returned"]


def test_afterwards_it_is_a_connection_like_any_other(monkeypatch):
    with reported(leak_after=10) as (s, _):
        lease = s.pool.checkout()
        s.clock.advance(10)
        followed(s)
        lease.checkin()
        (entry,) = s.pool._ledger.entries
        assert type(entry) is Entry and entry.generation == s.pool._ledger.generation
        monkeypatch.setattr(Upkeep, "clean", lambda *_: pytest.fail("the long way"))
        s.pool.checkout().checkin()


def test_whoever_gets_it_next_has_not_been_reported():
    with reported(max_size=1, leak_after=10) as (s, told):
        lease = s.pool.checkout()
        [waiter] = s.line_up(1, timeout=60)
        s.clock.advance(10)
        followed(s)
        lease.checkin()
        waiter.result(SOON).checkin()
        assert told.kinds == ["leak", "returned"]


def test_it_is_no_warning(caplog):
    caplog.set_level(logging.INFO, "threadpool_db")
    with reported(leak_after=10) as (s, _):
        lease = s.pool.checkout()
        s.clock.advance(10)
        followed(s)
        lease.checkin()
    levels = {record.event: record.levelname for record in caplog.records}
    assert (levels["leak"], levels["returned"]) == ("WARNING", "INFO")


def test_one_that_was_silent_says_so_too(monkeypatch):
    monkeypatch.setattr(telling, "socket_silence", lambda socket: 30.0)
    with reported(inactive_after=10) as (s, told):
        lease = s.pool.checkout()
        s.clock.advance(10)
        followed(s)
        s.clock.advance(25)
        lease.checkin()
        assert told.kinds == ["inactive", "returned"]
        assert told.said[1][1] == pytest.approx(35)


def test_one_that_was_reported_for_both_comes_back_once(monkeypatch):
    monkeypatch.setattr(telling, "socket_silence", lambda socket: 30.0)
    with reported(inactive_after=10, leak_after=20) as (s, told):
        lease = s.pool.checkout()
        s.clock.advance(10)
        followed(s)
        s.clock.advance(10)
        told.wait_until(s.pool, "inactive", "leak")
        lease.checkin()
        assert sorted(told.kinds) == ["inactive", "leak", "returned"]


def test_nobody_hears_the_end_before_the_beginning():
    """It comes back while the observers are being told that it has not."""
    with reported(leak_after=10) as (s, told):
        lease, telling_now = s.pool.checkout(), Latch()
        s.pool._observers._observers = (lambda event: event.kind == "leak" and telling_now(), told)
        s.clock.advance(10)
        telling_now.wait_for(1)
        s.clock.advance(1)
        lease.checkin()
        assert told.kinds == []
        telling_now.open()
        told.wait_until(s.pool, "leak", "returned")
        assert told.said[1][1] == pytest.approx(11)


def test_a_report_names_who_had_it_then():
    """A worker may be late to tell."""
    with reported() as (s, told):
        lease = s.pool.checkout()
        entry = lease._claim.entry
        report = Report("leak", entry, 10.0)
        lease.checkin()
        s.clock.advance(1)
        again = background(s.pool.checkout).result(SOON)
        telling.tell(s.pool, report)
        assert told.kinds == ["leak", "returned"]
        assert told.said[0][2].startswith("held by MainThread for 10.0 s")
        assert type(entry) is Entry
        again.checkin()
        assert told.kinds == ["leak", "returned"]


def test_whoever_has_it_by_now_is_not_called_silent(monkeypatch):
    monkeypatch.setattr(telling, "socket_silence", lambda socket: 30.0)
    with reported(inactive_after=10) as (s, told):
        lease = s.pool.checkout()
        report = Report("quiet?", lease._claim.entry, 10.0)
        lease.checkin()
        s.clock.advance(1)
        with s.pool.checkout():
            telling.tell(s.pool, report)
        assert told.kinds == []


@pytest.mark.parametrize("doom", ["recycle", "an error that dooms it", "its lifetime"])
def test_one_that_is_to_be_closed_is_closed_though_it_was_reported(doom):
    limits = {"max_lifetime": 40, "lifetime_jitter": 0} if doom == "its lifetime" else {}
    with reported(leak_after=10, disconnect_on=["25006"], **limits) as (s, told):
        lease = s.pool.checkout()
        s.clock.advance(10)
        followed(s)
        if doom == "recycle":
            s.pool.recycle()
        elif doom == "its lifetime":
            s.clock.advance(40)
        else:
            s.driver.code = lambda error: "25006"
            assert s.pool._upkeep.doom(lease._claim.entry, ZeroDivisionError())
        lease.checkin()
        assert told.kinds == ["leak", "returned"]
        told.wait_for("disconnected")
        assert s.driver.open == set()


@pytest.mark.parametrize("late", [False, True], ids=["told in time", "told late"])
def test_one_that_is_taken_away_does_not_come_back(late):
    with reported(leak_after=10, max_lease=20) as (s, told):
        lease, telling_now = s.pool.checkout(), Latch()
        s.pool._observers._observers = (lambda event: event.kind == "leak" and telling_now(), told)
        if not late:
            telling_now.open()
        s.clock.advance(10)
        telling_now.wait_for(1)
        if not late:
            followed(s)
        s.clock.advance(10)
        told.wait_for("expired")
        telling_now.open()
        told.wait_for("leak")
        lease.checkin()
        told.wait_for("disconnected")
        assert told.kinds == ["leak"]


def test_a_thread_that_keeps_it_ends_its_use_all_the_same(tmp_path):
    clock, told, at_work, between = FakeClock(), Told(), Latch(), Latch()
    options = {"checkout": "thread", "leak_after": 10, "observers": [told], "clock": clock, **ENDLESS}
    with create_pool(f"sqlite:///{tmp_path}/kept.db", **options) as pool:

        def view():
            pool.execute("select 1")
            clock.advance(1)
            with pool.connection():
                at_work()
            between()
            pool.release()

        viewing = background(view)
        at_work.wait_for(1)
        clock.advance(10)
        told.wait_until(pool, "leak")
        clock.advance(5)
        eventually(lambda: any(isinstance(entry, Reported) for entry in pool._ledger.entries), "it is followed")
        at_work.open()
        between.wait_for(1)
        assert told.kinds == ["leak"]
        clock.advance(10)  # the keeper comes by
        told.wait_until(pool, "leak", "returned")
        _, seconds, detail = told.said[1]
        assert seconds == pytest.approx(15)
        assert "has used it for 15.0 s and keeps it, taken at" in detail
        between.open()
        join(viewing)
        assert told.kinds == ["leak", "returned"]


def test_a_use_that_ended_before_its_thread_gave_it_back_counts_until_then(tmp_path):
    clock, told, at_work, between = FakeClock(), Told(), Latch(), Latch()
    options = {"checkout": "thread", "leak_after": 10, "observers": [told], "clock": clock, **ENDLESS}
    with create_pool(f"sqlite:///{tmp_path}/kept.db", **options) as pool:

        def view():
            with pool.connection():
                at_work()
            between()
            pool.release()

        viewing = background(view)
        at_work.wait_for(1)
        clock.advance(12)
        eventually(lambda: any(isinstance(entry, Reported) for entry in pool._ledger.entries), "it is followed")
        at_work.open()
        between.wait_for(1)
        clock.advance(3)
        between.open()
        join(viewing)
        assert [(kind, round(seconds, 3)) for kind, seconds, _ in told.said] == [("leak", 10.0), ("returned", 12.0)]
