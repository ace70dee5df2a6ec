"""How long may a lease last, and what becomes of one that its thread leaves behind? Under a clock that stands still."""

from __future__ import annotations

import os
import re
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest

from tests.faults.bank import Watcher
from tests.scene import SOON, Scene, SocketDriver, background, leak_reported, scene
from threadpool_db import LeaseExpired, StaleLease, create_pool
from threadpool_db.config import PoolConfig
from threadpool_db.drivers.sockets import cut_socket, socket_identity
from threadpool_db.lease import entry_of
from threadpool_db.testing import FakeClock, Latch

LINE = r"test_\w+\.py:\d+ \(\w+\)"


class Heard(Watcher):
    """Of the reports about leases: kind, seconds and sentence."""

    def __init__(self, *kinds: str) -> None:
        super().__init__()
        self._kinds = kinds
        self.events: list[tuple[str, float, str]] = []

    def __call__(self, event) -> None:
        if event.kind in self._kinds:
            self.events.append((event.kind, event.seconds, event.detail))
        super().__call__(event)


@contextmanager
def kept(**options) -> Iterator[tuple[Scene, Heard]]:
    """A pool with a keeper, and what it says of leases."""
    heard = Heard("lost", "expired", "leak", "inactive")
    with scene(background=True, observers=[heard], **options) as s:
        yield s, heard


# --- max_lease --------------------------------------------------------------------------------------------------------


def test_a_lease_held_for_max_lease_is_taken_away_and_its_slot_serves_the_next_in_line():
    with kept(max_size=1, max_lease=10) as (s, heard):
        lease = s.pool.checkout()
        connection = lease.connection
        [waiter] = s.line_up(1, timeout=60)
        s.clock.advance(9.9)
        assert lease.active and not waiter.done()
        s.clock.advance(0.1)
        with waiter.result(SOON) as other:
            assert other.number == 2
            assert connection.closed and not lease.active and lease.expired
            stats = s.pool.stats()
            assert (stats.expired, stats.lost, stats.in_use, stats.total, stats.closures) == (1, 0, 1, 1, 1)
        heard.wait_for("expired")  # who closed it tells it afterwards
        [(kind, seconds, detail)] = heard.events
        assert (kind, seconds) == ("expired", pytest.approx(10))
        assert re.fullmatch(f"taken away from MainThread after 10.0 s, who took it at .*{LINE}", detail)
        lease.checkin()
        s.clock.advance(100)
        assert s.driver.calls["close"] == 1
        s.assert_nothing_lost()


def test_an_interrupt_before_its_close_leaves_the_close_to_others(monkeypatch):
    with scene() as s:
        lease = s.pool.checkout()
        connection, cut, struck = lease.connection, s.pool._upkeep.cut, []

        def interrupted(entry):
            cut(entry)
            if not struck:
                struck.append(entry)
                raise KeyboardInterrupt

        monkeypatch.setattr(s.pool._upkeep, "cut", interrupted)
        with leak_reported(), pytest.raises(KeyboardInterrupt):
            s.pool._tell(s.pool._ledger.revoke, entry_of(lease))
        assert not connection.closed
        s.pool.stats()  # whose audit finds that nobody answers for it any more
        assert connection.closed and s.pool.stats().total == 0


def test_whoever_uses_it_later_is_told_how_long_he_had_it_and_from_which_line():
    with kept(max_lease=10) as (s, heard):
        lease = s.pool.checkout()
        s.clock.advance(10)
        heard.wait_for("disconnected")
        words = f"taken at .*{LINE} and held for 10.0 s, longer than max_lease=10 s; its connection was closed"
        for use in (lambda: lease.connection, lease.__enter__, lease.detach):
            with pytest.raises(LeaseExpired, match=words):
                use()
        lease.checkin()
        with pytest.raises(StaleLease):
            _ = lease.connection
        s.assert_nothing_lost()


@pytest.mark.parametrize("end", ["checkin", "discard", "the pool's checkin", "the end of its block", "dropping it"])
def test_the_end_of_one_that_was_taken_away_is_silent(end):
    with kept(max_lease=10) as (s, heard), warnings.catch_warnings():
        warnings.simplefilter("error")
        lease = s.pool.checkout()
        with lease if end == "the end of its block" else warnings.catch_warnings():
            s.clock.advance(10)
            heard.wait_for("disconnected")
            heard.wait_for("expired")
        if end == "the pool's checkin":
            s.pool.checkin(lease)
        elif end in ("checkin", "discard"):
            getattr(lease, end)()
        del lease
        s.clock.advance(0)
        assert [kind for kind, _, _ in heard.events] == ["expired"]
        s.assert_nothing_lost()
        assert s.driver.calls["close"] == 1


def test_a_call_that_is_stuck_on_its_socket_ends_at_once():
    driver = SocketDriver(clock := FakeClock())
    with kept(max_size=1, max_lease=10, clock=clock, driver=driver) as (s, heard):
        begun = Latch()
        begun.open()

        def stuck():
            with s.pool.checkout() as connection:
                begun()
                try:
                    return driver.ends[connection][0].recv(1)
                except OSError:  # closed before this thread came to it
                    return b""

        call = background(stuck)
        begun.wait_for(1)
        s.clock.advance(10)
        assert call.result(SOON) == b""
        heard.wait_for("disconnected")
        s.assert_nothing_lost()


def test_a_descriptor_that_belongs_to_somebody_else_by_now_is_not_cut():
    gone, far = socket.socketpair()
    other, end = socket.socketpair()
    identity, number = socket_identity(gone.fileno()), gone.detach()
    os.dup2(other.fileno(), number)
    try:
        cut_socket(identity)
        end.send(b"x")
        assert other.recv(1) == b"x"
        other.send(b"y")
        assert end.recv(1) == b"y"
    finally:
        os.close(number)
        for one in (far, other, end):
            one.close()


def test_a_transaction_that_ends_after_its_time_says_so_and_commits_nothing():
    with kept(max_lease=10) as (s, heard):
        with pytest.raises(LeaseExpired, match="max_lease=10 s"), s.pool.transaction():
            s.clock.advance(10)
            heard.wait_for("disconnected")
        assert s.driver.calls["commit"] == 0
        s.assert_nothing_lost()


def test_a_transaction_that_ends_while_its_connection_is_being_closed_says_so_too():
    with kept(max_lease=10) as (s, heard):
        closing = Latch()
        s.driver.script("close", closing)
        with pytest.raises(LeaseExpired), s.pool.transaction():
            s.clock.advance(10)
            closing.wait_for(1)
        closing.open()
        heard.wait_for("disconnected")
        s.assert_nothing_lost()


def test_an_error_in_the_block_is_not_hidden_by_the_expiry():
    with kept(max_lease=10) as (s, heard):
        with pytest.raises(ZeroDivisionError), s.pool.transaction():
            s.clock.advance(10)
            heard.wait_for("disconnected")
            raise ZeroDivisionError
        s.assert_nothing_lost()


def test_an_operation_in_a_block_that_was_taken_away_does_not_run_on_another_connection():
    with kept(max_lease=10) as (s, heard):
        with s.pool.connection():
            s.clock.advance(10)
            heard.wait_for("disconnected")
            with pytest.raises(LeaseExpired, match="max_lease=10 s"):
                s.pool.execute("select 1")
        assert s.driver.made == 1
        s.assert_nothing_lost()


def test_the_thread_that_lost_its_lease_is_told_and_works_on_with_another_one():
    with kept(max_lease=10) as (s, heard):
        s.pool.lease()
        s.clock.advance(10)
        heard.wait_for("disconnected")
        with pytest.raises(LeaseExpired):
            s.pool.lease()  # it may have begun a transaction there
        assert s.pool.lease().connection.number == 2
        s.pool.release()
        s.assert_nothing_lost()


def test_also_of_a_closed_pool_a_lease_has_its_end():
    with kept(max_lease=10) as (s, heard):
        lease = s.pool.checkout()
        s.pool.close(timeout=0)
        s.clock.advance(10)
        heard.wait_for("disconnected")
        assert (lease.expired, s.pool.stats().total) == (True, 0)
        lease.checkin()


def test_each_lease_of_one_connection_has_max_lease_of_its_own():
    with kept(max_size=1, max_lease=10, max_lifetime=None, max_idle=None) as (s, heard):
        for _ in range(20):
            with s.pool.checkout() as connection:
                s.clock.advance(7)
                assert connection.number == 1
            s.clock.advance(3.5)
        assert heard.events == []


@pytest.mark.parametrize("option", ["max_lease", "leak_after", "inactive_after"])
def test_somebody_must_look_without_a_borrower(option):
    with pytest.raises(ValueError, match=f"{option}=3: needs background=True"):
        PoolConfig(**{option: 3}, background=False)


# --- What a thread keeps between two operations -----------------------------------------------------------------------


@contextmanager
def thread_pool(tmp_path, **options):
    clock, heard = FakeClock(), Heard("lost", "expired", "leak", "inactive")
    options = {"max_size": 1, "checkout": "thread", "max_lifetime": None, **options}
    with create_pool(f"sqlite:///{tmp_path}/kept.db", clock=clock, observers=[heard], **options) as pool:
        yield pool, clock, heard


def test_what_a_thread_keeps_and_does_not_use_is_neither_taken_away_nor_reported(tmp_path):
    with thread_pool(tmp_path, max_lease=10, leak_after=5, inactive_after=5) as (pool, clock, heard):
        for _ in range(3):
            pool.execute("select 1")
            clock.advance(1000)
        with pool.connection(), pool.transaction():
            pool.execute("select 1")
        clock.advance(1000)
        assert (pool.stats().opened, pool.stats().in_use, heard.events) == (1, 1, [])


@pytest.mark.parametrize("before", [0, 1000])
def test_one_use_that_lasts_too_long_is_counted_from_its_own_beginning(tmp_path, before):
    with thread_pool(tmp_path, max_lease=10) as (pool, clock, heard):
        pool.execute("select 1")
        clock.advance(before)
        with pytest.raises(LeaseExpired, match=r"held for 10\.0 s"), pool.transaction():
            clock.advance(9.9)
            pool.execute("select 1")
            clock.advance(0.1)
            heard.wait_for("disconnected")
        assert pool.execute("select 1") == [(1,)]
        assert (pool.stats().opened, pool.stats().expired) == (2, 1)


def test_a_pin_that_is_kept_for_long_gets_a_full_time_for_its_next_use(tmp_path):
    with thread_pool(tmp_path, max_lease=10) as (pool, clock, heard):
        pool.execute("create temporary table scratch (x int)")
        clock.advance(1005)
        with pool.connection() as connection:
            clock.advance(9.9)
            connection.execute("insert into scratch values (1)")
        assert heard.events == []


@pytest.mark.parametrize("policy", ["operation", "thread"])
@pytest.mark.parametrize("go_on", ["insert into t values (2)", "commit", "rollback"])
def test_who_goes_on_with_a_transaction_that_was_taken_away_is_told_and_commits_nothing(tmp_path, policy, go_on):
    with thread_pool(tmp_path, max_lease=10, checkout=policy) as (pool, clock, heard):
        pool.execute("create table t (x int)")
        with pool.scope():
            pool.execute("begin")
            pool.execute("insert into t values (1)")
            clock.advance(10)
            heard.wait_for("disconnected")
            assert not pool.in_transaction
            with pytest.raises(LeaseExpired, match=r"held for 10\.0 s"):
                pool.execute(go_on)
            assert pool.execute("select * from t") == []  # told once


@pytest.mark.parametrize("enter", ["connection", "transaction", "lease"])
def test_also_who_enters_a_block_in_it(tmp_path, enter):
    with thread_pool(tmp_path, max_lease=10, checkout="operation") as (pool, clock, heard):
        pool.execute("begin")
        clock.advance(10)
        heard.wait_for("disconnected")
        with pytest.raises(LeaseExpired):
            if enter == "lease":
                pool.lease()
            else:
                with getattr(pool, enter)():
                    raise AssertionError("it was entered")
        pool.execute("select 1")


@pytest.mark.parametrize("end", ["release", "scope"])
def test_a_transaction_that_was_taken_away_is_forgotten_when_its_thread_lets_go(tmp_path, end):
    with thread_pool(tmp_path, max_lease=10, checkout="operation") as (pool, clock, heard):
        with pool.scope():
            pool.execute("begin")
            clock.advance(10)
            heard.wait_for("disconnected")
            if end == "release":
                pool.release()
                pool.execute("select 1")
        assert pool.execute("select 1") == [(1,)]


@pytest.mark.parametrize("fails", [True, False])
def test_an_operation_during_which_it_was_taken_away_is_told_of_by_its_own_end(tmp_path, fails):
    with thread_pool(tmp_path, max_lease=10, checkout="operation") as (pool, clock, heard):

        def slow(connection):
            clock.advance(10)
            heard.wait_for("expired")
            if fails:
                raise OSError("cut")
            return "done"

        with pytest.raises(OSError, match="cut") if fails else nullcontext():
            pool._operate("select 1", None, sys._getframe(), True, slow)
        assert pool.execute("select 1") == [(1,)]


@pytest.mark.parametrize("when", ["as it begins", "as it is looked at afterwards", "as the next one looks at it"])
def test_it_may_be_taken_away_in_the_worst_moment_of_a_hand_written_transaction(tmp_path, monkeypatch, when):
    with thread_pool(tmp_path, max_lease=10, checkout="operation") as (pool, clock, heard):
        looking, looks = pool._in_transaction, []

        def take_away():
            clock.advance(10)
            heard.wait_for("disconnected")

        def begin(connection):
            connection.execute("begin")
            if when == "as it begins":
                take_away()

        def look(entry):
            looks.append(entry)
            if len(looks) == {"as it is looked at afterwards": 1, "as the next one looks at it": 2}.get(when):
                take_away()
            return looking(entry)

        monkeypatch.setattr(pool, "_in_transaction", look)
        pool._operate("begin", None, sys._getframe(), True, begin)
        with pytest.raises(LeaseExpired):
            pool.execute("create table t (x int)")
        assert pool.execute("select * from sqlite_master") == []
        assert (pool.stats().expired, pool.stats().in_use) == (1, 0)


def test_what_a_thread_keeps_is_not_taken_away_while_it_is_asked_before_its_next_use(tmp_path):
    with thread_pool(tmp_path, max_lease=10, ping_after=30) as (pool, clock, heard):
        between, asking, driver = Latch(), Latch(), pool._upkeep.driver

        def view():
            pool.execute("select 1")
            between()
            pool.execute("select 1")
            pool.release()

        viewing = background(view)
        between.wait_for(1)
        clock.advance(1000)
        driver.ping, ping = lambda connection: (asking(), ping(connection))[1], driver.ping
        between.open()
        asking.wait_for(1)
        clock.advance(10)  # somebody looks meanwhile
        asking.open()
        viewing.result(SOON)
        assert heard.events == []


def test_lease_hands_the_connection_out_and_its_time_counts(tmp_path):
    with thread_pool(tmp_path, max_lease=10, checkout="operation") as (pool, clock, _):
        lease = pool.lease()
        pool.execute("select 1")
        clock.advance(10)
        assert lease.expired


# --- Goodbyes ---------------------------------------------------------------------------------------------------------


def test_a_slow_goodbye_is_not_paid_by_the_borrower_who_found_the_dead_one():
    with scene(background=True, max_size=4, ping_after=1.0) as s:
        s.fill(2)
        s.clock.advance(2.0)
        s.driver.script("ping", False)
        s.driver.always("close", goodbye := Latch())
        with s.borrow(timeout=1.0).result(SOON) as connection:
            assert connection.number == 3
        goodbye.wait_for(2)  # both: the other was as silent
        goodbye.open()
