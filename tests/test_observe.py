"""Is everybody told what the pool does, once, and harmlessly?"""

from __future__ import annotations

import gc
import logging
import random
from collections import Counter

import pytest

from tests.scene import SOON, background, join, leak_reported, scene
from threadpool_db import Backoff, ConnectFailed, Event, Pool, PoolError, PoolTimeout, TransactionState
from threadpool_db.observe import Observers
from threadpool_db.testing import Latch, ScriptedDriver, WatchedClock


@pytest.fixture
def seen():
    """A list of events that is its own observer."""

    class Seen(list):
        def __call__(self, event):
            self.append(event)

        @property
        def kinds(self):
            return [event.kind for event in self]

    return Seen()


def test_an_ordinary_checkout_and_checkin_tell_nothing(seen):
    with scene(observers=[seen]) as s:
        s.fill(1)
        seen.clear()
        for _ in range(10):
            s.pool.checkout().checkin()
        assert seen == []


def test_a_connections_life_is_told_with_its_times(seen):
    with scene(observers=[seen], name="orders") as s:
        s.driver.script("connect", lambda: s.clock.advance(0.25))
        s.pool.checkout().checkin()
        s.clock.advance(5)
        s.pool.recycle()
        assert seen == [Event("connected", "orders", 0.25), Event("disconnected", "orders", 5.0)]


def test_a_failed_connect_is_told_with_its_error(seen):
    broken = OSError("no route")
    with scene(observers=[seen]) as s:
        s.driver.script("connect", broken)
        with pytest.raises(ConnectFailed):
            s.pool.checkout()
        [event] = seen
        assert (event.kind, event.error) == ("connect_failed", broken)


def test_a_dead_connection_a_lost_lease_and_a_refusal_are_told(seen):
    with scene(observers=[seen], max_size=1) as s:
        s.fill(1)
        s.driver.script("peek", False)
        lost = [s.pool.checkout()]
        assert seen.kinds == ["connected", "disconnected", "dead", "connected"]
        with pytest.raises(PoolTimeout):
            s.pool.checkout(timeout=0)
        assert (seen[-1].kind, seen[-1].detail) == ("refused", "PoolTimeout")
        with leak_reported():
            lost.clear()
            s.read_mail()
        assert seen.kinds[-2:] == ["disconnected", "lost"]
        assert "test_observe.py" in seen[-1].detail


def test_a_close_that_fails_is_told_as_an_end_all_the_same(seen):
    broken = OSError("broken pipe")
    with scene(observers=[seen]) as s:
        s.driver.script("close", broken)
        s.pool.checkout().discard()
        assert (seen[-1].kind, seen[-1].error) == ("disconnected", broken)


def test_a_detached_connection_has_ended_for_the_pool(seen):
    with scene(observers=[seen]) as s:
        s.pool.checkout().detach()
        assert seen.kinds == ["connected", "disconnected"]
        assert "detached" in seen[-1].detail


def test_nobody_hears_of_an_end_before_the_beginning(seen):
    """Not even of a connection that came too late and was closed by somebody else at once."""
    with scene(observers=[seen], max_size=1) as s:
        latch = Latch()
        s.driver.script("connect", latch)
        opener = s.borrow()
        latch.wait_for(1)
        s.pool.recycle()
        latch.open()
        opener.result(SOON).checkin()
        assert seen.kinds == ["connected", "disconnected", "connected"]


def test_an_interrupt_inside_an_observer_leaves_nothing_open_that_nobody_knows(seen):
    def interrupted(event):
        if event.kind == "connected" and s.driver.made == 1:
            raise KeyboardInterrupt

    with scene(observers=[seen, interrupted], max_size=1) as s:
        with pytest.raises(KeyboardInterrupt):
            s.pool.checkout()
        assert s.driver.open == set()
        assert seen.kinds == ["connected", "disconnected"]
        s.fill(1)


def test_observers_are_called_outside_the_lock(seen):
    clock = WatchedClock()
    inside = []
    with scene(clock=clock, observers=[lambda event: inside.append(clock.inside)], max_size=1) as s:
        s.driver.script("connect", OSError)
        with pytest.raises(ConnectFailed):
            s.pool.checkout()
        s.fill(1)
        s.driver.script("peek", False)
        held = s.pool.checkout()
        with pytest.raises(PoolTimeout):
            s.pool.checkout(timeout=0)
        held.discard()
    assert inside and not any(inside)


def test_an_observer_that_raises_is_logged_and_costs_nobody_anything(seen, caplog):
    def broken(event):
        raise ValueError("in the observer")

    with scene(observers=[broken, seen], name="orders") as s:
        s.fill(2)
        s.pool.recycle()
        assert seen.kinds == ["connected"] * 2 + ["disconnected"] * 2
        s.assert_nothing_lost()
    records = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(records) == 4
    assert records[0].getMessage() == "pool orders: an observer of connected raised"
    assert records[0].exc_info


def test_an_observer_may_use_the_pool(seen):
    stats = []
    with scene(observers=[lambda event: stats.append(s.pool.stats().total)]) as s:
        s.fill(1)
        s.pool.recycle()
        assert stats == [1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_every_connected_has_exactly_one_disconnected_after_random_operations(seen, seed):
    def flaky(event):
        if dice.random() < 0.2:
            raise RuntimeError(event.kind)

    dice = random.Random(seed)
    with scene(clock=WatchedClock(), observers=[seen, flaky], max_size=3, backoff=Backoff(0, 0)) as s:

        def run(mine):
            for _ in range(60):
                s.driver.script("connect", *[OSError] * (mine.random() < 0.05))
                s.driver.script("peek", *[False] * (mine.random() < 0.05))
                try:
                    lease = s.pool.checkout(timeout=5)
                except PoolError:
                    continue
                lease.connection.state = mine.choice(list(TransactionState))
                mine.choice((lease.checkin, lease.checkin, lease.discard, lease.detach))()
                if mine.random() < 0.05:
                    s.pool.recycle()

        join(*[background(run, random.Random(f"{seed} {n}")) for n in range(4)])
        s.pool.close()
        counts = Counter(seen.kinds)
        assert counts["connected"] == counts["disconnected"] == s.driver.made
        stats = s.pool.stats()
        assert counts["connected"] == stats.opened
        assert counts["connect_failed"] == stats.connect_failures
        assert counts["dead"] == stats.dead
        assert stats.total == 0


# --- The log ----------------------------------------------------------------------------------------------------------


def test_the_log_tells_what_the_observers_are_told_at_a_fitting_level(caplog):
    caplog.set_level(logging.DEBUG, "threadpool_db")
    observers = Observers("orders", [])
    observers.tell("connected", 0.1)
    observers.tell("connect_failed", 0.1, error=OSError("with a secret"))
    observers.tell("dead", 3.0, "found dead before use, replaced")
    told = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [
        ("threadpool_db.orders", "DEBUG", "pool orders: connected"),
        ("threadpool_db.orders", "WARNING", "pool orders: connect failed (OSError)"),
        ("threadpool_db.orders", "INFO", "pool orders: dead: found dead before use, replaced"),
    ]
    first = caplog.records[0]
    assert (first.pool, first.event) == ("orders", "connected")


def test_a_program_that_configures_no_logging_sees_nothing(capfd):
    with scene() as s:
        s.driver.script("connect", OSError)
        with pytest.raises(ConnectFailed):
            s.pool.checkout()
    assert capfd.readouterr().err == ""


# --- Names ------------------------------------------------------------------------------------------------------------


def test_automatic_names_get_a_suffix_and_are_free_again_after_close():
    first, second = Pool(ScriptedDriver()), Pool(ScriptedDriver())
    assert first.name == "scripted"
    assert second.name == "scripted-2"
    first.close()
    third = Pool(ScriptedDriver())
    assert third.name == "scripted"
    for pool in (second, third):
        pool.close()


def test_a_name_that_is_taken_is_refused_until_its_pool_is_closed_or_gone():
    first = Pool(ScriptedDriver(), name="orders")
    with pytest.raises(ValueError, match="name='orders': another open pool of this process has that name"):
        Pool(ScriptedDriver(), name="orders")
    first.close()
    second = Pool(ScriptedDriver(), name="orders")
    first.close()  # takes nothing away from its namesake
    with pytest.raises(ValueError):
        Pool(ScriptedDriver(), name="orders")
    del second
    gc.collect()
    Pool(ScriptedDriver(), name="orders").close()


def test_a_pool_that_could_not_be_made_keeps_no_name():
    with pytest.raises(ValueError):
        Pool(ScriptedDriver(), name="orders", max_size=0)
    Pool(ScriptedDriver(), name="orders").close()
