"""Does whoever got no connection learn, at night and from the message alone, why not and what to do?"""

from __future__ import annotations

import math
import pickle
import threading

import pytest

from tests.scene import SOON, background, scene
from threadpool_db import Backoff, PoolOverloaded, PoolTimeout, Snapshot, create_pool
from threadpool_db.core.sizing import Counts
from threadpool_db.core.stats import Durations, Hold
from threadpool_db.refusal import Words, overloaded_message, timeout_message, unavailable_message
from threadpool_db.testing import Latch


def test_a_timeout_names_the_counts_and_the_three_longest_holders():
    with scene(name="orders", max_size=4, max_connecting=4) as s:

        def take(thread):
            return background(as_thread, thread, s.pool.checkout).result(SOON)

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
        assert "4 in use, 0 idle, 0 connecting, 0 closing, max_size 4; still waiting: 0" in message
        assert "\nHeld longest:\n  anne for 42.0 s, taken at " in message
        assert "bert for 32.0 s" in message and "carl for 22.0 s" in message and "dora" not in message
        assert "test_refusal.py:" in message and "(as_thread)" in message
        assert "\nWhat to do:\n  1. Held without being used" not in message  # it has no socket to be silent
        assert "\n  1. Look at the lines above (anne, bert, carl): " in message
        assert isinstance(caught.value, TimeoutError)
        snapshot = caught.value.snapshot
        assert (snapshot.in_use, snapshot.timeouts, len(snapshot.holders)) == (4, 1, 4)
        for lease in held:
            lease.checkin()


def as_thread(name, action):
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
        with pytest.raises(PoolTimeout, match="This thread holds 1 itself") as caught:
            waiter.result(SOON)
        assert "1. Use the connection that this thread already holds" in str(caught.value)
        other.checkin()


def test_leases_that_threads_keep_between_operations_are_named_with_the_remedies():
    holds = [Hold(name, 5.0, "app.py:3 (view)", kept=True) for name in ("anne", "bert")]
    message = timeout_message(_snapshot(in_use=2, holders=holds), 1.0, 1.0, held_here=0)
    assert "anne for 5.0 s, taken at app.py:3 (view), kept for its thread" in message
    assert "1. Kept for their threads and unused: 2" in message and "Look at the lines" not in message
    assert "Kept for their threads and unused: 2" in message
    for remedy in ("scope()", "release()", 'checkout="operation"'):
        assert remedy in message


def test_one_that_is_kept_inside_a_hand_written_transaction_has_two_remedies():
    first, second, _ = advice(in_use=2, holders=[holding(kept=True, in_transaction=True, in_statement=False)])
    assert first.startswith("1. Kept for their threads and unused: 1") and second.startswith(
        "2. Idle in transaction: anne"
    )


@pytest.mark.parametrize(
    ("counts", "more", "reason"),
    [
        ({"in_use": 2}, {}, "All are in use"),
        ({"in_use": 1, "opening": 1}, {}, "A new connection is being opened, which takes longer than that"),
        ({"idle": 1}, {}, "What is idle by now came back just too late"),
        (
            {"in_use": 1, "closing": 1},
            {},
            "Connections are being closed, which takes long, and keep their places until",
        ),
        ({}, {}, "Nothing came free in time"),
        ({"in_use": 1}, {"connect_error": OSError("x")}, "Connects are failing with OSError (the cause of this error)"),
        ({}, {"connect_error": OSError("x"), "failing_for": 9.04}, "Connects are failing for 9.0 s with OSError"),
        ({"in_use": 2}, {"connect_error": OSError("x")}, "All are in use"),
        ({"in_use": 2}, {"paused": True}, "The pool is paused: pause() was called, and resume() was not"),
    ],
)
def test_the_reason_is_said_first(counts, more, reason):
    message = timeout_message(_snapshot(**more, **counts), 0.5, 0.5, 0)
    assert message.startswith(f"pool 'orders': no connection within 0.5 s (waited 0.50 s). {reason}")
    assert ("the database is up" in message) is ("connect_error" in more)
    assert f"(max_waiting=7). {reason.split(',')[0]}" in overloaded_message(_snapshot(**more, **counts), 7)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"idle": 1}, "What is idle needs a round trip first, and a timeout of 0 leaves no time for one. "),
        ({}, "Nothing is idle, and a timeout of 0 opens nothing. "),
    ],
)
def test_whoever_would_not_wait_is_told_what_he_would_have_waited_for(counts, reason):
    assert f"(waited 0.00 s). {reason}" in timeout_message(_snapshot(**counts), 0.0, 0.0, 0)


def advice(**found):
    """The numbered lines alone."""
    held_here = found.pop("held_here", 0)
    message = timeout_message(_snapshot(**found), 1.0, 1.0, held_here)
    return [line.strip() for line in message.partition("What to do:\n")[2].splitlines()]


def holding(name="anne", **facts):
    return Hold(name, 60.0, "app.py:3 (view)", **facts)


IDLE_IN_TRANSACTION, UNUSED, SLOW, WHO_KNOWS = "Idle in", "Held without being used", "Waiting for the server", "Look at"


@pytest.mark.parametrize(
    ("facts", "remedy"),
    [
        ({"in_transaction": True, "in_statement": False, "silent": 40.0}, IDLE_IN_TRANSACTION),
        ({"in_transaction": True, "in_statement": False, "silent": 1.0}, IDLE_IN_TRANSACTION),
        ({"in_transaction": True, "in_statement": False}, IDLE_IN_TRANSACTION),
        ({"in_transaction": True, "in_statement": False, "silent": 0.9}, WHO_KNOWS),  # busy, in short statements
        ({"in_transaction": False, "in_statement": False, "silent": 40.0}, UNUSED),
        ({"in_transaction": False, "in_statement": False, "silent": 0.0}, WHO_KNOWS),
        ({"in_transaction": False, "in_statement": False}, WHO_KNOWS),
        ({"in_statement": True, "silent": 40.0}, SLOW),
        ({"silent": 40.0}, WHO_KNOWS),  # nothing is known of its state: it may wait for its server, or not
        ({}, WHO_KNOWS),
    ],
)
def test_what_somebody_does_with_it_decides_what_is_to_be_done(facts, remedy):
    first, *others = advice(in_use=2, holders=[holding(**facts)])
    assert first.startswith(f"1. {remedy}") and "anne" in first
    assert others == ["2. Only then raise max_size, if the server has room for more connections, or timeout."]


def test_each_remedy_names_those_whom_it_is_for():
    idle = {"in_transaction": True, "in_statement": False, "silent": 9.0}
    holders = [holding("anne", **idle), holding("bert", in_statement=True), holding("carl", **idle)]
    first, second, _ = advice(in_use=3, holders=[*holders, holding("dora", in_statement=True)])
    assert "Idle in transaction: anne, carl. Commit before slow work outside the database" in first
    assert "an answer" not in second and "to answer a statement: bert. Find slow queries" in second


def test_one_thread_with_several_is_named_once():
    assert "(anne)" in advice(in_use=2, holders=[holding(), holding()])[0]


def test_slow_connects_are_somebody_elses_fault_than_slow_queries():
    found = {"in_use": 1, "opening": 1, "connect": Durations((3, *[0] * 19), 6.0)}
    first, *others = advice(**found)
    assert first.startswith("1. Find out why connects take so long (they took 2.00 s so far): ")
    assert "max_connecting" in first and others == ["2. Only then raise timeout."]
    assert advice(**found | {"in_use": 2})[0].startswith("1. Raise max_size")  # the full pool is what he waited for
    assert "so long: " in advice(**found | {"connect": Durations()})[0]


def test_a_paused_pool_has_one_remedy():
    assert advice(in_use=2, paused=True, holders=[holding()], connect_error=OSError("x")) == [
        "1. Find out whether the pause is still wanted, for maintenance or a failover; if not, call resume()."
    ]
    turned_away = overloaded_message(_snapshot(in_use=2, paused=True), 0)
    assert turned_away.endswith("\n  2. In the application: answer this error with 503 and Retry-After.")


def test_who_is_turned_away_from_a_full_line_is_told_the_same():
    facts = {"in_transaction": True, "in_statement": False, "silent": 40.0}
    message = overloaded_message(_snapshot(in_use=2, waiting=7, holders=[holding(**facts)]), 7, 1)
    assert message.startswith(
        "pool 'orders': refused at once, 7 threads are waiting already (max_waiting=7). All are in"
    )
    assert "This thread holds 1 itself.\nHeld longest:\n  anne for 60.0 s, taken at app.py:3 (view), in" in message
    numbers = [line.strip()[:12] for line in message.splitlines()[-4:]]
    assert numbers == ["1. Use the c", "2. Idle in t", "3. In the ap", "4. Only if t"]


def test_an_outage_says_since_when_and_what_is_tried():
    message = unavailable_message(_snapshot(connect_error=OSError("x"), failing_for=61.0), 1.0)
    assert "Connects have failed for 61.0 s with OSError (the cause of this error), nothing is connected" in message
    assert (
        "\nWhat to do:\n  1. Make sure that the database is up" in message
        and "\n  2. In the application: answer this error with 503" in message
    )
    assert "for 0.0 s, nothing" in unavailable_message(_snapshot(), 1.0)


def test_options_are_called_by_the_names_that_the_reader_knows():
    words = Words("pool_size", "pool_timeout", "Use your own.")
    found = timeout_message(_snapshot(in_use=2), 1, 1, 1, words)
    assert "raise pool_size, if" in found.lower() and found.endswith("or pool_timeout.")
    assert "raise pool_size;" in overloaded_message(_snapshot(in_use=2), 1, 1, words)
    for message in (found, overloaded_message(_snapshot(in_use=2), 1, 1, words)):
        assert "\n  1. Use your own.\n" in message and "checkout()" not in message


def test_who_tries_again_in_an_outage_is_said_as_it_is():
    by_itself, by_borrowers = (unavailable_message(_snapshot(), 1.0, background) for background in (True, False))
    assert "The pool goes on trying by itself, with growing pauses" in by_itself
    assert "One of those who ask tries again, with growing pauses" in by_borrowers


def test_a_pool_without_a_limit_says_so():
    assert "max_size unlimited" in timeout_message(_snapshot(max_size=math.inf), 1, 1, 0)


def _snapshot(*, max_size=2, holders=(), **found):
    names = ("idle", "in_use", "opening", "closing", "waiting")
    counts = Counts(max_size=max_size, **{name: found.pop(name, 0) for name in names})
    return Snapshot("orders", counts, holders=tuple(holders), **found)


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
        assert late.value.__cause__ is secret and full.value.__cause__ is secret
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
        with pytest.raises(PoolTimeout, match="Kept for their threads and unused: 1"):
            pool.checkout(timeout=0)
        between.open()
        viewing.result(SOON)


def test_a_refusal_survives_being_sent_to_another_process():
    error = PoolTimeout("no connection", None)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.snapshot) == (PoolTimeout, "no connection", None)
