"""Is everybody told what the pool does, once, and harmlessly?"""

from __future__ import annotations

import gc
import logging
import math

import pytest

from tests.scene import SOON, Seen, background, leak_reported, scene
from tests.test_servers import eventually
from threadpool_db import (
    Backoff,
    ConnectFailed,
    Event,
    Pool,
    PoolOverloaded,
    PoolTimeout,
    observe,
)
from threadpool_db.observe import Observers
from threadpool_db.testing import Latch, ScriptedDriver, WatchedClock


@pytest.fixture
def seen():
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
        assert (seen[-1].kind, type(seen[-1].error)) == ("refused", PoolTimeout)
        with leak_reported():
            lost.clear()
            s.read_mail()
        assert seen.kinds[-2:] == ["disconnected", "lost"]
        assert "test_observe.py" in seen[-1].detail


@pytest.mark.parametrize(("options", "error"), [({}, PoolTimeout), ({"max_waiting": 0}, PoolOverloaded)])
def test_a_refusal_is_told_with_its_error_and_how_long_its_borrower_had_waited(seen, options, error):
    with scene(observers=[seen], max_size=1, **options) as s:
        held = s.pool.checkout()
        waiter = s.borrow(timeout=3.0)
        if not options:
            s.clock.wait_for_sleepers(1)
            s.clock.advance(3.0)
        refusal = waiter.exception(SOON)
        assert type(refusal) is error
        assert seen[-1] == Event("refused", s.pool.name, 0.0 if options else 3.0, "", refusal)
        held.checkin()


def test_a_session_that_is_wiped_is_told_with_the_time_it_took(seen):
    with scene(observers=[seen], max_size=1) as s:
        lease = s.pool.checkout()
        lease.connection.dirty = True
        s.driver.script("reset", lambda: s.clock.advance(0.25))
        lease.checkin()
        assert seen[-1] == Event("reset", s.pool.name, 0.25)
        s.pool.checkout().checkin()
        assert seen.kinds == ["connected", "reset"]


def test_a_reset_that_fails_is_told_as_an_end_alone(seen):
    with scene(observers=[seen], max_size=1) as s:
        lease = s.pool.checkout()
        lease.connection.dirty = True
        s.driver.script("reset", OSError)
        lease.checkin()
        assert seen.kinds == ["connected", "disconnected"]


@pytest.mark.parametrize("outcome", [None, OSError("too late")], ids=["opens", "fails"])
def test_a_connect_that_is_given_up_is_told_as_failed_then_and_never_again(seen, outcome):
    with scene(observers=[seen], background=True, max_size=1, connect_timeout=2.0, timeout=3.0) as s:
        latch = Latch()

        def connect():
            latch()
            if outcome is not None:
                raise outcome

        s.driver.script("connect", connect)
        waiter = s.borrow()
        latch.wait_for(1)
        s.clock.wait_for_sleepers(1)
        s.clock.advance(2.0)
        assert isinstance(waiter.exception(SOON), ConnectFailed)
        assert eventually(lambda: seen.kinds == ["connect_failed"])
        assert (seen[0].seconds, type(seen[0].error)) == (2.0, TimeoutError)
        latch.open()
        assert eventually(lambda: s.pool.stats().total == 0)
        s.pool.close()
        assert eventually(lambda: len(seen) == (1 if outcome else 3))
        assert seen.kinds[1:] == ([] if outcome else ["connected", "disconnected"])
        assert s.pool.stats().connect_failures == 1


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


def test_a_connect_that_is_given_up_is_told_though_all_workers_of_its_server_hang():
    clock, latch, told = WatchedClock(), Latch(), Latch()
    options = {"max_size": 4, "max_connecting": 1, "connect_timeout": 0.05, "timeout": 20.0, "grace": math.inf}
    driver = ScriptedDriver(clock)

    def observer(event):
        if event.kind == "connect_failed":
            background(told)

    with Pool(driver, clock=clock, observers=[observer], backoff=Backoff(0, 0), **options) as pool:
        held = pool.checkout()
        driver.always("connect", latch)
        waiter = background(pool.checkout)
        told.wait_for(2)  # of a connect that hangs with the second of two workers
        held.checkin()
        waiter.result(SOON).checkin()
        latch.open()
        told.open()


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


def test_what_nobody_hears_is_not_even_made(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "threadpool_db")
    monkeypatch.setattr(observe, "Event", None)
    Observers("orders", []).tell("connected", 0.1)
    assert caplog.records == []


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
