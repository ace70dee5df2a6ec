"""Who hears of a lease that nobody ends, and what becomes of its connection? Under a clock that stands still."""

from __future__ import annotations

import gc
import re
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.checkout import in_thread
from tests.faults.bank import eventually
from tests.scene import SOON, background
from tests.test_deadlines import LINE, kept, thread_pool
from threadpool_db import telling
from threadpool_db.checkout.pin import ThreadEnd
from threadpool_db.drivers.base import OPEN
from threadpool_db.drivers.sockets import socket_identity, socket_silence
from threadpool_db.testing import Latch


@contextmanager
def leak_reported_elsewhere(line: str, many: int = 1) -> Iterator[None]:
    """As ``leak_reported``, by a worker, in its own time; ``many`` of them."""
    with pytest.warns(ResourceWarning, match=f"a lease taken at .*{line}.* was dropped without checkin") as caught:  # noqa: PT031
        yield
        eventually(lambda: len(caught) >= many, f"{many} leaks are reported")


# --- Reports ----------------------------------------------------------------------------------------------------------


def settled(s, heard, count: int) -> list[str]:
    """What was said of leases so far, when so many reports are to be expected."""
    eventually(lambda: len(heard.events) >= count, f"{count} reports")
    s.pool.stats()
    return [kind for kind, _, _ in heard.events]


def test_a_lease_held_for_leak_after_is_reported_once_for_each_use():
    with kept(max_size=1, leak_after=10, max_idle=None, max_lifetime=None) as (s, heard):
        lease = s.pool.checkout()
        s.clock.advance(9.9)
        assert heard.events == []
        s.clock.advance(1000)
        assert settled(s, heard, 1) == ["leak"]
        [(_, seconds, detail)] = heard.events
        assert seconds == pytest.approx(10)
        assert re.fullmatch(f"held by MainThread for 10.0 s, taken at .*{LINE}", detail)
        lease.checkin()
        s.clock.advance(1000)
        with s.pool.checkout() as connection:
            s.clock.advance(1000)
            assert connection.number == 1
        assert settled(s, heard, 2) == ["leak", "leak"]


def test_a_lease_handed_straight_to_the_next_thread_begins_anew():
    with kept(max_size=1, leak_after=10) as (s, heard):
        lease = s.pool.checkout()
        [waiter] = s.line_up(1, timeout=60)
        s.clock.advance(9)
        lease.checkin()
        second = waiter.result(SOON)
        s.clock.advance(9)
        assert heard.events == []
        s.clock.advance(1)
        assert settled(s, heard, 1) == ["leak"]
        second.checkin()


def test_a_holder_whose_socket_has_been_silent_is_reported_once_for_each_use(monkeypatch):
    with kept(max_size=1, inactive_after=10, max_idle=None, max_lifetime=None) as (s, heard):
        spoke = s.clock.now()
        monkeypatch.setattr(telling, "socket_silence", lambda socket: s.clock.now() - spoke)
        lease = s.pool.checkout()
        for _ in range(100):  # it talks to its server now and then
            s.clock.advance(9)
            spoke = s.clock.now()
        assert heard.events == []
        s.clock.advance(20)
        assert settled(s, heard, 1) == ["inactive"]
        s.clock.advance(1000)
        [(_, seconds, detail)] = heard.events
        assert 10 <= seconds <= 20
        assert re.fullmatch(f"held by MainThread, who has not used it for {seconds:.1f} s, taken at .*{LINE}", detail)
        lease.checkin()
        with s.pool.checkout():
            s.clock.advance(20)
            assert settled(s, heard, 2) == ["inactive", "inactive"]


def test_where_the_kernel_does_not_say_nobody_is_called_inactive():
    with kept(inactive_after=10) as (s, heard), s.pool.checkout():
        s.clock.advance(1000)
        assert heard.events == []


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO") or sys.platform != "linux", reason="asks Linux's TCP_INFO")
def test_the_silence_of_a_socket_grows_until_either_end_speaks():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        far, _ = server.accept()
        with far:
            mine = socket_identity(near.fileno())
            for speak in (lambda: near.send(b"x"), lambda: far.send(b"y")):
                speak()
                eventually(lambda: (socket_silence(mine) or 0) >= 0.1, "a tenth of a second of silence")
                speak()
                eventually(lambda: (socket_silence(mine) or 1) < 0.1, "what was said has arrived")


def test_the_silence_of_what_is_no_tcp_socket_or_another_one_by_now_is_unknown():
    assert socket_silence(None) is None
    ends = socket.socketpair()
    with closing(ends[0]), closing(ends[1]):
        assert socket_silence(socket_identity(ends[0].fileno())) is None
        assert socket_silence((ends[0].fileno(), -1)) is None
    assert socket_silence((ends[0].fileno(), 0)) is None


# --- Deaths -----------------------------------------------------------------------------------------------------------


def test_a_lease_dropped_in_a_transaction_is_closed_though_nobody_comes():
    with kept(max_size=1) as (s, heard):
        with leak_reported_elsewhere(r"test_left_behind\.py"):
            lease = s.pool.checkout()
            lease.connection.state = OPEN
            del lease
            gc.collect()
            s.clock.advance(0)  # what is planned for now is done, and nothing else
            heard.wait_for("disconnected")
        assert (s.driver.calls["rollback"], s.driver.open) == (0, set())
        s.assert_nothing_lost()


def test_what_lease_handed_out_to_a_thread_that_has_ended_is_closed_silently():
    with kept(max_size=1) as (s, heard), warnings.catch_warnings():
        warnings.simplefilter("error")
        in_thread(lambda: s.pool.lease().connection.number)
        s.clock.advance(0)
        heard.wait_for("disconnected")
        assert heard.events == []
        s.assert_nothing_lost()


@pytest.mark.parametrize("policy", ["thread", "operation"])
def test_what_nobody_else_has_is_cleaned_and_used_again(tmp_path, policy):
    with thread_pool(tmp_path, checkout=policy) as (pool, clock, heard), warnings.catch_warnings():
        warnings.simplefilter("error")
        pool.execute("create table t (x int)")
        pool.release()
        in_thread(lambda: [pool.execute(sql) for sql in ("begin", "insert into t values (1)")])
        clock.advance(0)
        eventually(lambda: pool.stats().idle == 1, "the keeper has cleaned it")
        assert pool.execute("select count(*) from t") == [(0,)]
        assert (pool.stats().opened, heard.events) == (1, [])


def test_what_a_dead_thread_kept_is_found_though_its_finaliser_failed(tmp_path, monkeypatch):
    """An interrupt may strike in the finaliser, and a traceback that somebody keeps has the lease."""
    monkeypatch.setattr(ThreadEnd, "__del__", lambda self: None)
    with thread_pool(tmp_path, max_lease=None) as (pool, _, heard):

        def work():
            pool.execute("select 1")
            hold = pool._hold()
            raise ZeroDivisionError(hold.lease is not None)

        kept_error = background(work).exception(SOON)
        eventually(lambda: all(entry.holder.ended for entry in pool._ledger.entries), "the thread has ended")
        assert pool.stats().in_use == 1  # seen once: its finaliser may be about to come
        with leak_reported_elsewhere(r"test_left_behind\.py"):
            pool.stats()
            heard.wait_for("lost")
        eventually(lambda: pool.stats().total == 0, "its connection is closed")
        assert kept_error.__traceback__ is not None
        assert pool.execute("select 1") == [(1,)]


def test_a_waiter_finds_it_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(ThreadEnd, "__del__", lambda self: None)
    with thread_pool(tmp_path) as (pool, clock, _):

        def work():
            pool.execute("select 1")
            hold = pool._hold()
            raise ZeroDivisionError(hold.lease is not None)

        kept_error = background(work).exception(SOON)
        eventually(lambda: all(entry.holder.ended for entry in pool._ledger.entries), "the thread has ended")
        with leak_reported_elsewhere(r"test_left_behind\.py"):
            waiter = background(pool.checkout, timeout=60)
            for _ in range(2):
                clock.wait_for_sleepers(1)
                clock.advance(1)
            waiter.result(SOON).checkin()
        assert kept_error.__traceback__ is not None


def test_a_block_that_a_dead_thread_left_in_a_generator_ends_with_it():
    with kept(max_size=1) as (s, heard):
        asked = Latch()
        asked.open()

        def rows():
            with s.pool.connection() as connection:
                asked()
                yield connection.number

        generators = [rows()]
        assert in_thread(lambda: next(generators[0])) == 1
        s.clock.advance(10)
        assert s.pool.stats().in_use == 1  # somebody may go on reading
        with pytest.raises(Exception, match="entered in another thread"):
            next(generators[0])
        s.clock.advance(0)
        heard.wait_for("disconnected")
        s.assert_nothing_lost()
