"""Who has the connections, and what is he doing with them? Seen from another thread, and as it is read at night."""

from __future__ import annotations

import _thread
import sys
import time
from functools import partial

import pytest

from tests.scene import SOON, background, join, scene
from tests.test_refusal import as_thread
from threadpool_db import Backoff, PoolOverloaded, PoolTimeout, PoolUnavailable, create_pool, telling
from threadpool_db.drivers.base import BUSY, FAILED, IDLE, OPEN, UNKNOWN, Driver
from threadpool_db.testing import FakeClock, Latch

# --- What holders do --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "in_transaction", "in_statement"),
    [(BUSY, None, True), (OPEN, True, False), (FAILED, True, False), (UNKNOWN, None, None)],
)
def test_a_holder_is_seen_from_another_thread(state, in_transaction, in_statement):
    with scene() as s, s.pool.checkout() as connection:
        connection.state = state
        (hold,) = background(s.pool.stats).result(SOON).holders
        assert (hold.in_transaction, hold.in_statement, hold.silent) == (in_transaction, in_statement, None)
        connection.state = UNKNOWN


def test_how_long_a_holder_has_been_silent_is_asked_of_his_socket(monkeypatch):
    monkeypatch.setattr(telling, "socket_silence", lambda socket: 40.0)
    with scene() as s, s.pool.checkout():
        (hold,) = s.pool.stats().holders
        assert hold.silent == 40.0
        assert str(hold).endswith(", in no transaction, unused for 40.0 s")


@pytest.mark.parametrize("look", [partial(Driver.glimpse, None), {}.__getitem__], ids=["a foreign driver", "an error"])
def test_what_cannot_be_seen_is_not_said(monkeypatch, look):
    with scene() as s, s.pool.checkout():
        monkeypatch.setattr(s.driver, "glimpse", look)
        (hold,) = s.pool.stats().holders
        assert (hold.in_transaction, hold.in_statement, hold.silent) == (None, None, None)


@pytest.mark.parametrize(("state", "kept"), [(IDLE, True), (UNKNOWN, True), (OPEN, False), (BUSY, False)])
def test_what_lease_gave_and_was_used_before_is_kept_unless_it_is_seen_in_use(state, kept):
    with scene() as s:
        connection = s.pool.lease().connection
        assert not s.pool.stats().holders[0].kept
        s.clock.advance(1)
        with s.pool.connection():
            pass
        connection.state = state
        assert s.pool.stats().holders[0].kept is kept
        connection.state = IDLE
        s.pool.release()


def test_what_was_seen_of_the_next_lease_is_not_said_of_this_one(monkeypatch):
    with scene() as s:
        lease = s.pool.checkout()

        def slow_look(connection):
            lease.checkin()
            return BUSY

        monkeypatch.setattr(s.driver, "glimpse", slow_look)
        (hold,) = s.pool.stats().holders
        assert hold.in_statement is None


def test_no_look_is_taken_inside_the_lock(monkeypatch):
    inside = []
    with scene() as s, s.pool.checkout():
        monkeypatch.setattr(s.driver, "glimpse", lambda connection: inside.append(s.clock.inside) or OPEN)
        s.pool.stats()
        assert inside == [False]


def test_an_error_looks_at_those_whom_it_names_and_stats_at_all(monkeypatch):
    looks = []
    with scene(max_size=5, max_connecting=5) as s:
        leases = [s.pool.checkout() for _ in range(5)]
        monkeypatch.setattr(s.driver, "glimpse", lambda connection: looks.append(connection.number) or OPEN)
        with pytest.raises(PoolTimeout) as caught:
            s.pool.checkout(timeout=0)
        assert len(looks) == 3
        assert [hold.in_transaction for hold in caught.value.snapshot.holders] == [True, True, True, None, None]
        assert [hold.in_transaction for hold in s.pool.stats().holders] == [True] * 5
        for lease in leases:
            lease.checkin()


# --- As it is read ----------------------------------------------------------------------------------------------------


def line(function, offset):
    code = function.__code__
    return f"{code.co_filename}:{code.co_firstlineno + offset} ({code.co_name})"


def test_the_night_on_which_somebody_calls_a_payment_service_inside_a_transaction(tmp_path):
    """Real threads and a real database; only the time is not."""
    clock, at_work = FakeClock(), Latch()
    options = {"name": "shop", "max_size": 3, "max_connecting": 3, "timeout": 5, "checkout": "thread", "clock": clock}
    with create_pool(f"sqlite:///{tmp_path}/shop.db", **options) as pool:
        pool.execute("create table sale (name text)")
        pool.release()
        clock.advance(1)

        def pay():
            with pool.transaction() as connection:
                connection.execute("insert into sale values ('tea')")
                at_work()

        def show():
            pool.execute("select * from sale")
            at_work()
            pool.release()

        def print_out():
            with pool.connection():
                at_work()

        at_night = []
        for number, (thread, work) in enumerate({"web-1": pay, "web-2": show, "web-3": print_out}.items(), 1):
            at_night.append(background(as_thread, thread, work))
            at_work.wait_for(number)
            clock.advance(30)
        refused = background(pool.checkout)
        clock.wait_for_sleepers(1)
        for _ in range(5):  # it patrols once a second
            clock.advance(1)
            if clock.now() < 1096:
                clock.wait_for_sleepers(1)
        error = refused.exception(SOON)
        at_work.open()
        join(*at_night)
        assert (
            str(error)
            == f"""\
pool 'shop': no connection within 5 s (waited 5.00 s). All are in use. \
3 in use, 0 idle, 0 connecting, 0 closing, max_size 3; still waiting: 0.
Held longest:
  web-1 for 95.0 s, taken at {line(pay, 1)}, in a transaction
  web-2 for 65.0 s, taken at {line(show, 1)}, kept for its thread, in no transaction
  web-3 for 35.0 s, taken at {line(print_out, 1)}, in no transaction
What to do:
  1. Kept for their threads and unused: 1 in all. End requests with scope(), call release(), or use \
checkout="operation".
  2. Idle in transaction: web-1. Commit before slow work outside the database, at the lines above: an open \
transaction holds its connection, and its locks at the server.
  3. Look at the lines above (web-3): is a connection held during slow work outside the database, or are the queries \
slow?
  4. Only then raise max_size, if the server has room for more connections, or timeout."""
        )


def test_the_night_on_which_the_line_is_full(monkeypatch):
    monkeypatch.setattr(telling, "socket_silence", lambda socket: 40.0)
    with scene(name="orders", max_size=2, max_connecting=2, max_waiting=1, timeout=60) as s:

        def report(state, until):
            with s.pool.checkout() as connection:
                connection.state = state
                until()
                connection.state = UNKNOWN

        ended = Latch()
        holders = []
        for number, (thread, state) in enumerate({"web-1": BUSY, "web-2": OPEN}.items(), 1):
            holders.append(background(as_thread, thread, lambda state=state: report(state, ended)))
            ended.wait_for(number)
            s.clock.advance(20)
        [waiter] = s.line_up(1)
        with pytest.raises(PoolOverloaded) as caught:
            s.pool.checkout()
        assert (
            str(caught.value)
            == f"""\
pool 'orders': refused at once, 1 threads are waiting already (max_waiting=1). All are in use. \
2 in use, 0 idle, 0 connecting, 0 closing, max_size 2; still waiting: 1.
Held longest:
  web-1 for 40.0 s, taken at {line(report, 1)}, in a statement, no answer for 40.0 s
  web-2 for 20.0 s, taken at {line(report, 1)}, in a transaction, unused for 40.0 s
What to do:
  1. Idle in transaction: web-2. Commit before slow work outside the database, at the lines above: an open transaction \
holds its connection, and its locks at the server.
  2. Waiting for the server to answer a statement: web-1. Find slow queries, and what they wait for: a lock of another \
session, a missing index.
  3. In the application: answer this error with 503 and Retry-After.
  4. Only if the server has room for more connections, raise max_size; only if callers can wait longer, max_waiting."""
        )
        ended.open()
        join(*holders)
        waiter.result(SOON).checkin()


def test_the_night_on_which_the_database_is_gone():
    with scene(name="orders", backoff=Backoff(1, 1), grace=2) as s:
        s.pool.checkout().discard()
        s.driver.always("connect", secret := OSError("no route for user app with password hunter2"))
        with pytest.raises(PoolTimeout):
            background(s.pool.checkout, 0.0).result(SOON)
        [waiter] = s.line_up(1, timeout=60)
        for _ in range(2):
            s.clock.advance(1)
        error = waiter.exception(SOON)
        assert isinstance(error, PoolUnavailable) and error.__cause__ is secret
        assert (
            str(error)
            == """\
pool 'orders': refused at once, the database is out of reach. Connects have failed for 2.0 s with OSError (the cause \
of this error), nothing is connected, and nobody waits for it any longer (grace=2 s). \
0 in use, 0 idle, 0 connecting, 0 closing, max_size 10; still waiting: 0.
What to do:
  1. Make sure that the database is up, reachable and lets this user in.
  2. In the application: answer this error with 503 and Retry-After. One of those who ask tries again, with growing \
pauses, and the pool serves again after the first connect that succeeds: no restart is needed."""
        )


def beginning(frame):
    """Of what its thread began with."""
    while frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code


@pytest.mark.filterwarnings("ignore:.*was dropped without checkin")  # checkout's lease, which nobody gets
@pytest.mark.parametrize(
    "use",
    [
        lambda pool: (pool.checkout,),
        lambda pool: (pool.execute, "select 1"),
        lambda pool: (pool.lease,),
        lambda pool: (pool.connection().__enter__,),
        lambda pool: (pool.transaction().__enter__,),
        lambda pool: (pool.proxy().execute, "select 1"),
        lambda pool: (pool.proxy().cursor().execute, "select 1"),
        lambda pool: (pool.proxy().cursor().executemany, "delete from x where 1 = ?", [(2,)]),
        lambda pool: (pool.proxy().connection().__enter__,),
        lambda pool: (pool.wait,),
    ],
)
def test_a_thread_may_begin_with_a_method_of_the_pool(use, tmp_path):
    """With no Python function before it, as in ``gevent.spawn(pool.execute, sql)``."""
    with create_pool(f"sqlite:///{tmp_path}/x.db", max_size=1) as pool:
        pool.execute("create table x (id int)")
        pool.recycle()
        until = time.monotonic() + SOON
        method, *args = use(pool)
        begins = method.__code__
        _thread.start_new_thread(method, tuple(args))
        while pool.stats().opened < 2:
            assert time.monotonic() < until, "it has not connected"
            time.sleep(0.001)
        del method, args, use
        while any(beginning(frame) is begins for frame in sys._current_frames().values()):
            assert time.monotonic() < until, "it has not ended"  # nobody can join such a thread
            time.sleep(0.001)
