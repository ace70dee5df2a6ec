"""Does whoever got no connection learn, at night and from the message alone, why not and what to do?"""

from __future__ import annotations

import math
import pickle
import threading

import pytest

from tests.scene import SOON, background, scene
from threadpool_db import Backoff, PoolOverloaded, PoolTimeout, Snapshot, create_pool
from threadpool_db.core.sizing import Counts
from threadpool_db.core.stats import Hold
from threadpool_db.refusal import timeout_message
from threadpool_db.testing import Latch


def test_a_timeout_names_the_counts_and_the_three_longest_holders():
    with scene(name="orders", max_size=4, max_connecting=4) as s:

        def take(thread):
            return background(_as_thread, thread, s.pool.checkout).result(SOON)

        held = []
        for thread in ("anne", "bert", "carl", "dora"):
            held.append(take(thread))
            s.clock.advance(10)
        waiter = s.borrow(timeout=2)
        s.clock.wait_for_sleepers(1)
        s.clock.advance(2)
        with pytest.raises(PoolTimeout) as caught:
            waiter.result(SOON)
        message = str(caught.value)
        assert message.startswith("pool 'orders': no connection within 2 s (waited 2.00 s). All are in use. ")
        assert "4 in use, 0 idle, 0 connecting, 0 closing, max_size 4; 0 waiting" in message
        assert "Held longest: anne for 42.0 s, taken at " in message
        assert "bert for 32.0 s" in message and "carl for 22.0 s" in message and "dora" not in message
        assert "test_refusal.py:" in message and "(_as_thread)" in message
        assert "\n  1. Look at the lines above" in message
        assert isinstance(caught.value, TimeoutError)
        snapshot = caught.value.snapshot
        assert (snapshot.in_use, snapshot.timeouts, len(snapshot.holders)) == (4, 1, 4)
        for lease in held:
            lease.checkin()


def _as_thread(name, action):
    threading.current_thread().name = name
    return action()


def test_a_thread_that_holds_one_itself_is_told_so():
    with scene(max_size=2, timeout=1) as s:
        other = s.borrow().result(SOON)

        def nested():
            with s.pool.checkout():
                s.pool.checkout()

        waiter = background(nested)
        s.clock.wait_for_sleepers(1)
        s.clock.advance(1)
        with pytest.raises(PoolTimeout, match="This thread holds 1 of them itself") as caught:
            waiter.result(SOON)
        assert "1. Use the connection that this thread already holds" in str(caught.value)
        other.checkin()


def test_leases_that_threads_keep_between_operations_are_named_with_the_remedies():
    snapshot = _snapshot(in_use=2, holders=(Hold("anne", 5.0, "app.py:3 (view)"),))
    message = timeout_message(snapshot, 1.0, 1.0, held_here=0, idle_holders=2)
    assert "2 of them are kept for their threads and idle" in message
    for remedy in ("scope()", "release()", 'checkout="operation"'):
        assert remedy in message


@pytest.mark.parametrize(
    ("counts", "error", "reason"),
    [
        ({"in_use": 2}, None, "All are in use"),
        ({"in_use": 1, "opening": 1}, None, "A connect is under way"),
        ({"idle": 1}, None, "What is idle needs a round trip first"),
        ({}, None, "Nothing is idle"),
        ({"in_use": 1}, OSError("x"), "Connects are failing"),
        ({"in_use": 2}, OSError("x"), "All are in use"),
    ],
)
def test_the_reason_is_said_first(counts, error, reason):
    message = timeout_message(_snapshot(error=error, **counts), 0.5, 0.5, 0, 0)
    assert f"(waited 0.50 s). {reason}. " in message
    assert ("the database is up" in message) is (error is not None)


def test_a_pool_without_a_limit_says_so():
    assert "max_size unlimited" in timeout_message(_snapshot(max_size=math.inf), 1, 1, 0, 0)


def _snapshot(*, max_size=2, error=None, holders=(), **counts):
    all_counts = dict.fromkeys(("idle", "in_use", "opening", "closing", "waiting"), 0) | counts
    return Snapshot("orders", Counts(max_size=max_size, **all_counts), holders=holders, connect_error=error)


def test_no_message_repeats_what_the_database_said():
    """A driver's error may quote a connection string; it is the cause, where a handler may filter it."""
    secret = OSError("could not connect as app with password hunter2")
    with scene(max_size=1, backoff=Backoff(10, 10), max_waiting=1, grace=60) as s:
        s.pool.checkout().discard()
        s.driver.always("connect", secret)
        [waiter] = s.line_up(1, timeout=5)
        with pytest.raises(PoolOverloaded) as full:
            s.pool.checkout()
        s.clock.advance(5)
        with pytest.raises(PoolTimeout) as late:
            waiter.result(SOON)
        for caught in (full, late):
            assert "hunter2" not in str(caught.value) + repr(caught.value)
        assert late.value.__cause__ is secret
        assert "OSError" in str(late.value)


def test_every_waiter_gets_an_error_of_its_own():
    with scene(max_size=1) as s, s.pool.checkout():
        waiters = s.line_up(3, timeout=1)
        s.clock.advance(1)
        errors = [waiter.exception(SOON) for waiter in waiters]
        assert len({id(error) for error in errors}) == 3
        assert {type(error) for error in errors} == {PoolTimeout}
        assert s.pool.stats().timeouts == 3


def test_a_lease_that_a_thread_keeps_between_two_operations_is_found(tmp_path):
    with create_pool(f"sqlite:///{tmp_path}/test.db", checkout="thread", max_size=1) as pool:
        between = Latch()

        def view():
            pool.execute("select 1")
            between()
            pool.release()

        viewing = background(view)
        between.wait_for(1)
        with pytest.raises(PoolTimeout, match="1 of them are kept for their threads and idle"):
            pool.checkout(timeout=0)
        between.open()
        viewing.result(SOON)


def test_a_refusal_survives_being_sent_to_another_process():
    error = PoolTimeout("no connection", None)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.snapshot) == (PoolTimeout, "no connection", None)
