"""Does a forked child leave its parent's connections alone, and get on with its own?

With a driver that is told what to do; the same over real servers is in ``faults/test_fork.py``.
"""

from __future__ import annotations

import os
import socket
import threading

import pytest

from tests.scene import SOON, SocketDriver, background, in_child, scene
from threadpool_db import Driver, Pool, PoolClosed, StaleLease, fork
from threadpool_db.testing import FakeClock, Latch, ScriptedDriver, WatchedClock

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]


def test_a_child_connects_for_itself_and_closes_nothing_of_its_parents():
    with scene(max_size=4) as s:
        s.fill(3)
        before = dict(s.driver.calls)

        def child():
            stats = s.pool.stats()
            assert (stats.total, stats.opened, stats.checkouts) == (0, 0, 0)
            with s.pool.checkout() as connection:
                assert connection.number == 4
            assert s.driver.calls["close"] == 0
            s.pool.close()
            return s.driver.closed

        assert in_child(child) == "1"
        assert s.driver.calls == before
        with s.pool.checkout() as connection:
            assert connection.number == 3


def test_a_child_of_a_child_does_the_same():
    with scene(max_size=2) as s:
        s.fill(1)

        def child():
            with s.pool.checkout() as mine:
                grandchild = in_child(lambda: s.pool.checkout().connection.number)
                assert not mine.closed
            with s.pool.checkout() as again:
                assert again is mine
            return f"{mine.number} {grandchild}"

        assert in_child(child) == "2 3"


def test_a_lease_of_the_parent_is_stale_in_the_child_and_good_in_the_parent():
    with scene(max_size=2) as s:
        lease = s.pool.checkout()

        def child():
            assert not lease.active
            with pytest.raises(StaleLease):
                lease.connection  # noqa: B018
            lease.checkin()
            with pytest.raises(StaleLease):
                lease.detach()
            assert s.pool.stats().total == 0
            return "ok"

        assert in_child(child) == "ok"
        assert lease.active
        lease.checkin()
        s.assert_nothing_lost()


def test_a_stale_lease_given_back_in_the_child_is_not_lent_to_anybody():
    class Plain(Driver):
        """A driver of somebody else's, with all the defaults: it finds nothing wrong with None."""

        made = 0

        def connect(self, timeout):
            self.made += 1
            return [self.made]

    with Pool(Plain(), max_size=1) as pool:
        lease = pool.checkout()

        def child():
            lease.checkin()
            with pool.checkout() as connection:
                return connection

        assert in_child(child) == "[2]"
        lease.checkin()


def test_a_block_that_is_open_during_the_fork_ends_quietly_in_the_child():
    with scene() as s:

        def child():
            try:
                with s.pool.checkout():
                    pass
            finally:
                return s.pool.stats().in_use  # noqa: B012

        with s.pool.checkout() as connection:
            assert in_child(child) == "0"
            assert not connection.closed


def test_every_inherited_socket_is_pointed_at_nothing():
    """A child that is killed or leaves by exec says nothing on the socket that it shares with its parent."""
    driver = SocketDriver()
    with scene(driver=driver, max_size=4) as s:
        s.fill(2)
        lease = s.pool.checkout()
        ends = dict(driver.ends)

        def child():
            for ours, _ in ends.values():
                with pytest.raises(OSError, match="non-socket"):
                    ours.send(b"goodbye")
            return len(ends)

        assert in_child(child) == "2"
        for ours, theirs in ends.values():
            ours.send(b"hello")
            assert theirs.recv(16) == b"hello"
        lease.checkin()


def test_a_fork_while_another_thread_is_inside_the_lock_does_not_hang_the_child():
    with scene(clock=WatchedClock()) as s:
        s.fill(1)
        inside = Latch()

        def stay_inside():
            with s.pool._lock:
                inside()

        staying = background(stay_inside)
        inside.wait_for(1)
        try:
            assert in_child(lambda: s.pool.checkout().connection.number) == "2"
        finally:
            inside.open()
            staying.result(SOON)


def test_a_fork_while_others_wait_and_connect_leaves_both_sides_working():
    with scene(clock=FakeClock(), max_size=2, max_connecting=1) as s:
        held = s.pool.checkout()
        connecting = Latch()
        s.driver.script("connect", connecting)
        opener = s.borrow()
        connecting.wait_for(1)
        [waiter] = s.line_up(1)

        def child():
            assert s.pool.stats().waiting == 0
            s.pool.checkout().checkin()
            return s.pool.stats().total

        assert in_child(child) == "1"
        connecting.open()
        held.checkin()
        opener.result(SOON).checkin()
        waiter.result(SOON).checkin()
        s.assert_nothing_lost()


def test_a_fork_from_another_thread_than_the_main_one_works_too():
    with scene() as s:
        s.fill(1)
        forking = background(in_child, lambda: s.pool.checkout().connection.number)
        assert forking.result(SOON) == "2"
        s.pool.checkout().checkin()


def test_a_child_that_waits_is_served_by_its_own_threads():
    with scene(clock=WatchedClock(), max_size=1) as s:
        s.fill(1)

        def child():
            held = s.pool.checkout()
            thread = threading.Timer(0.01, held.checkin)
            thread.start()
            lease = background(s.pool.checkout, 10).result(SOON)
            return lease.connection.number

        assert in_child(child) == "2"


def test_a_pool_closed_by_the_parent_is_closed_in_the_child():
    pool = Pool(ScriptedDriver())
    pool.close()

    def child():
        with pytest.raises(PoolClosed):
            pool.checkout()
        return pool.closed

    assert in_child(child) == "True"


def test_a_pool_that_the_child_closes_is_open_in_the_parent():
    with scene() as s:
        s.fill(1)
        in_child(s.pool.close)
        with s.pool.checkout() as connection:
            assert connection.number == 1


def test_a_connection_without_a_descriptor_is_only_kept():
    kept = object()
    fork.bury(kept, None)
    assert fork._inherited.pop() is kept


def test_a_descriptor_that_was_closed_meanwhile_is_no_error():
    one, two = socket.socketpair()
    number = one.detach()
    os.close(number)
    two.close()

    def child():
        fork.bury(object(), 1 << 20)
        return "ok"

    assert in_child(child) == "ok"


def test_burying_points_the_descriptor_at_the_null_device():
    one, two = socket.socketpair()
    with one, two:

        def child():
            fork.bury(one, one.fileno())
            return os.fstat(one.fileno()).st_rdev == os.stat(os.devnull).st_rdev

        assert in_child(child) == "True"
        one.send(b"x")
        assert two.recv(1) == b"x"
