"""What is done while nobody asks? Tasks at their time, jobs in workers, and a pool that connects in the background."""

from __future__ import annotations

import functools
import math
import os
import threading
import time
import weakref

import pytest

from tests.scene import SOON, background, join, leak_reported, scene
from threadpool_db import Backoff, ConnectFailed, Pool, PoolMisuse, PoolTimeout
from threadpool_db.keeper import Alarm, Keeper, keeper_of
from threadpool_db.testing import FakeClock, Latch, ScriptedDriver
from threadpool_db.waiting import REAL_TIME, Clock


def soon(holds) -> None:
    """Something of another thread's that must come true at once, in real time."""
    until = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.001)  # real threads of the keeper's own: there is no latch to hang on them


def threads(name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


class TestTasks:
    def test_they_run_in_the_order_of_their_hours_in_one_thread_that_is_not_ours(self):
        keeper, ran, done, planned = Keeper(Clock()), [], threading.Event(), threading.Event()
        now = time.monotonic()
        keeper.at(now, lambda: planned.wait(SOON))
        keeper.at(now + 0.02, lambda: (ran.append(("second", threading.get_ident())), done.set()))
        keeper.at(now + 0.01, lambda: ran.append(("first", threading.get_ident())))
        planned.set()
        assert done.wait(SOON)
        assert [name for name, _ in ran] == ["first", "second"]
        assert {ident for _, ident in ran} == {ran[0][1]} != {threading.get_ident()}

    def test_the_thread_ends_when_nothing_is_planned_and_comes_back_when_something_is(self):
        before = threads("threadpool_db-keeper")
        keeper, done = Keeper(Clock()), threading.Event()
        for _ in range(2):
            keeper.at(time.monotonic(), done.set)
            assert done.wait(SOON)
            done.clear()
            soon(lambda: threads("threadpool_db-keeper") == before)

    def test_a_cancelled_one_does_not_run_and_holds_nothing(self):
        class Thing:
            pass

        keeper, done, thing = Keeper(Clock()), threading.Event(), Thing()
        alarm = keeper.at(time.monotonic() + 0.01, functools.partial(pytest.fail, thing))
        gone = weakref.ref(thing)
        alarm.cancel()
        alarm.cancel()
        del thing
        assert gone() is None
        keeper.at(time.monotonic() + 0.02, done.set)
        assert done.wait(SOON)

    def test_one_that_fails_is_logged_and_the_next_one_runs(self, caplog):
        keeper, done = Keeper(Clock()), threading.Event()
        keeper.at(time.monotonic(), lambda: 1 / 0)
        keeper.at(time.monotonic() + 0.001, done.set)
        assert done.wait(SOON)
        assert "a background task failed" in caplog.text

    def test_an_alarm_rings_once(self):
        rung = []
        alarm = Alarm(lambda: rung.append(1))
        alarm.ring()
        alarm.ring()
        assert rung == [1]
        assert alarm.cancelled


class TestJobs:
    def test_a_server_has_so_many_workers_and_no_more(self):
        keeper, latch, done = Keeper(Clock()), Latch(), []
        for n in range(5):
            keeper.do("server", lambda n=n: (latch(), done.append(n)), 2)
        latch.wait_for(2)
        assert latch.arrived == 2
        latch.open()
        soon(lambda: sorted(done) == [0, 1, 2, 3, 4])

    def test_one_that_hangs_with_its_server_holds_up_no_other_server(self):
        keeper, latch, done = Keeper(Clock()), Latch(), threading.Event()
        for _ in range(3):
            keeper.do("a black hole", latch, 2)
        keeper.do("another server", done.set, 2)
        assert done.wait(SOON)
        latch.open()

    def test_a_resting_worker_takes_the_next_job(self):
        keeper, idents = Keeper(Clock()), []
        keeper.do("server", lambda: idents.append(threading.get_ident()), 2)
        soon(lambda: keeper._servers["server"].resting)
        keeper.do("server", lambda: idents.append(threading.get_ident()), 2)
        soon(lambda: len(idents) == 2)
        assert idents[0] == idents[1]

    def test_one_that_is_woken_for_a_job_that_a_busier_one_took_rests_again(self):
        keeper, ran = Keeper(Clock()), threading.Event()
        keeper.do("server", ran.set, 2)
        assert ran.wait(SOON)
        server = keeper._servers["server"]
        soon(lambda: server.resting)
        with keeper._lock:
            keeper.do("server", pytest.fail, 2)  # opens its gate, and it waits for the lock
            server.jobs.clear()  # by a busier one
        soon(lambda: server.resting)
        assert server.workers == 1
        ran.clear()
        before = threading.active_count()
        keeper.do("server", ran.set, 2)
        assert ran.wait(SOON) and threading.active_count() == before

    def test_workers_leave_when_there_is_nothing_to_do(self, monkeypatch):
        monkeypatch.setattr("threadpool_db.keeper.LINGER", 0.01)
        keeper, done = Keeper(Clock()), threading.Event()
        keeper.do("server", done.set, 2)
        assert done.wait(SOON)
        soon(lambda: not keeper._servers)

    def test_where_no_thread_can_be_started_the_caller_does_the_job(self):
        class Poor(Clock):
            poor = True

            def start(self, run, name):
                if self.poor:
                    raise RuntimeError("can't start new thread")
                super().start(run, name)

        keeper, idents, done = Keeper(clock := Poor()), [], threading.Event()
        keeper.do("server", lambda: idents.append(threading.get_ident()), 2)
        assert idents == [threading.get_ident()]
        assert not keeper._servers
        keeper.at(time.monotonic(), lambda: idents.append(threading.get_ident()))
        assert len(idents) == 1
        clock.poor = False
        keeper.at(time.monotonic(), done.set)  # the next one brings the thread, and that one both
        assert done.wait(SOON)
        assert len(idents) == 2

    def test_all_pools_in_real_time_share_one_keeper(self):
        assert keeper_of(REAL_TIME) is keeper_of(REAL_TIME)
        assert keeper_of(Clock()) is not keeper_of(REAL_TIME)


class TestConnecting:
    def test_a_waiter_has_a_hard_deadline_though_the_connect_hangs(self):
        driver, latch = ScriptedDriver(), Latch()
        with Pool(driver, max_size=2) as pool:
            driver.script("connect", latch)
            start = time.monotonic()
            with pytest.raises(PoolTimeout, match="A new connection is being opened"):
                pool.checkout(timeout=0.05)
            assert time.monotonic() - start < 1
            latch.open()
            soon(lambda: pool.stats().idle == 1)  # it is the next one's

    def test_a_waiter_takes_whichever_comes_first(self):
        driver, latch = ScriptedDriver(), Latch()
        with Pool(driver, max_size=2) as pool:
            held = pool.checkout()
            driver.script("connect", latch)
            waiter = background(pool.checkout)
            latch.wait_for(1)
            held.checkin()
            got = waiter.result(SOON)
            assert got.connection.number == 1
            latch.open()
            soon(lambda: pool.stats().idle == 1)
            got.checkin()

    def test_one_that_takes_too_long_is_given_up_and_closed_on_arrival_and_its_slot_counts_until_then(self):
        driver, latch = ScriptedDriver(), Latch()
        with Pool(driver, max_size=1, connect_timeout=0.02) as pool:
            driver.script("connect", latch)
            with pytest.raises(ConnectFailed) as caught:
                pool.checkout(timeout=SOON)
            assert "connect_timeout=0.02" in str(caught.value.__cause__)
            counts = pool.stats().counts
            assert (counts.total, counts.opening, counts.closing) == (1, 0, 1)
            latch.open()
            soon(lambda: pool.stats().total == 0)
            assert driver.open == set()
            pool.checkout().checkin()

    def test_one_that_fails_after_it_was_given_up_frees_its_slot(self):
        driver, latch = ScriptedDriver(), Latch()

        def fail() -> None:
            latch()
            raise OSError("late")

        with Pool(driver, max_size=1, connect_timeout=0.02) as pool:
            driver.script("connect", lambda *_: fail())
            with pytest.raises(ConnectFailed):
                pool.checkout(timeout=SOON)
            latch.open()
            soon(lambda: pool.stats().total == 0)

    def test_a_pool_that_never_connected_tells_everybody_at_once(self):
        driver = ScriptedDriver()
        with Pool(driver, max_size=5) as pool:
            latch = Latch()

            def fail(*_: object) -> None:
                latch()
                raise OSError("no route")

            driver.script("connect", fail, fail)
            waiters = [background(pool.checkout) for _ in range(4)]
            soon(lambda: pool.stats().waiting == 4)
            latch.open()
            errors = [waiter.exception(SOON) for waiter in waiters]
            assert {type(error) for error in errors} == {ConnectFailed}
            assert len({id(error) for error in errors}) == 4
            assert {type(error.__cause__) for error in errors} == {OSError}

    def test_what_opens_the_connections_cannot_borrow_one_meanwhile(self):
        driver = ScriptedDriver()
        with Pool(driver, max_size=2) as pool:
            driver.script("connect", lambda *_: pool.checkout(timeout=1))
            with pytest.raises(PoolMisuse, match="cannot borrow one from it meanwhile"):
                pool.checkout()

    def test_fifty_threads_on_a_cold_pool_do_not_become_fifty_connections(self):
        driver = ScriptedDriver()
        driver.script("connect", *[lambda *_: time.sleep(0.15)] * 50)  # a real network's pace
        with Pool(driver, max_size=50) as pool:

            def work() -> None:
                lease = pool.checkout()
                time.sleep(0.002)  # the query
                lease.checkin()

            join(*[background(work) for _ in range(50)])
            assert pool.stats().opened <= 8

    def test_nobody_is_left_behind_when_connects_fail_for_a_while(self):
        driver = ScriptedDriver()
        with Pool(driver, max_size=2) as pool:
            held = pool.checkout()
            driver.script("connect", OSError("down"), OSError("down"))
            waiter = background(pool.checkout)
            got = waiter.result(SOON)  # after the backoff
            got.checkin()
            held.checkin()
            assert pool.stats().connect_failures == 2


class TestKeptReady:
    def test_min_size_is_filled_without_holding_up_the_start(self):
        driver, latch = ScriptedDriver(), Latch()
        driver.script("connect", latch)
        with Pool(driver, min_size=3, max_size=5) as pool:
            latch.open()
            soon(lambda: pool.stats().idle == 3)
            pool.recycle()
            soon(lambda: pool.stats().idle == 3 and driver.made == 6)

    def test_min_idle_is_kept_ahead_of_demand(self):
        driver = ScriptedDriver()
        with Pool(driver, min_idle=1, max_size=3) as pool:
            soon(lambda: pool.stats().idle == 1)
            leases = [pool.checkout()]
            soon(lambda: pool.stats().idle == 1)
            leases.append(pool.checkout())
            soon(lambda: pool.stats().idle == 1)
            leases.append(pool.checkout())
            assert pool.stats().total == 3
            for lease in leases:
                lease.checkin()

    def test_a_database_that_is_down_is_not_hammered_to_fill_the_pool(self):
        driver = ScriptedDriver(clock := FakeClock())
        driver.always("connect", OSError("down"))
        slow = Backoff(2.0, 2.0)
        with Pool(driver, min_size=2, max_size=2, max_connecting=1, backoff=slow, grace=math.inf, clock=clock) as pool:
            for failures in (1, 2, 3, 4):
                soon(lambda f=failures: pool.stats().connect_failures == f and clock.alarms == 1)
                clock.advance(1.9)
                assert clock.alarms == 1  # nothing has rung: nobody tries before its time
                clock.advance(0.1)

    def test_idle_ones_are_retired_though_nobody_comes(self):
        with scene(background=True, max_size=3, max_idle=300) as s:
            s.fill(3)
            s.clock.advance(299)
            assert s.pool.stats().idle == 3
            s.clock.advance(1)
            soon(lambda: s.pool.stats().total == 0)
            assert s.driver.open == set()

    def test_a_silent_one_is_asked_and_that_is_no_use_of_it(self):
        with scene(background=True, max_size=1, keepalive=60, max_idle=100, ping_after=1000) as s:
            s.fill(1)
            s.clock.advance(60)
            soon(lambda: s.driver.calls["ping"] == 1 and s.pool.stats().idle == 1)
            s.clock.advance(40)
            soon(lambda: s.pool.stats().total == 0)

    def test_one_that_does_not_answer_is_closed(self):
        with scene(background=True, max_size=1, keepalive=60) as s:
            s.fill(1)
            s.driver.script("ping", False)
            s.clock.advance(60)
            soon(lambda: s.pool.stats().total == 0)
            assert s.pool.stats().dead == 1

    def test_recycle_within_spreads_the_closing(self):
        with scene(background=True, max_size=10) as s:
            s.fill(10)
            s.pool.recycle(within=60)
            seen = {s.pool.stats().idle}
            for _ in range(60):
                s.clock.advance(1)
                seen.add(s.pool.stats().idle)
            soon(lambda: s.pool.stats().total == 0)
            assert len(seen) > 3


class TestEnd:
    def test_a_pool_that_is_dropped_open_is_gone_at_once_and_says_so(self):
        driver = ScriptedDriver()
        pool = Pool(driver)
        pool.checkout().checkin()
        soon(lambda: not any(s.jobs or s.workers > len(s.resting) for s in keeper_of(REAL_TIME)._servers.values()))
        gone = weakref.ref(pool)
        with pytest.warns(ResourceWarning, match="was dropped without close"):
            del pool
        assert gone() is None

    def test_a_closed_pool_lets_nothing_be_opened(self):
        driver, latch = ScriptedDriver(), Latch()
        pool = Pool(driver, max_size=1)
        driver.script("connect", latch)
        waiter = background(pool.checkout)
        latch.wait_for(1)
        closing = background(pool.close)
        assert type(waiter.exception(SOON)).__name__ == "PoolClosed"
        latch.open()
        closing.result(SOON)
        soon(lambda: pool.stats().total == 0)
        assert driver.open == set()

    def test_a_forked_child_has_a_keeper_of_its_own(self):
        driver = ScriptedDriver()
        with Pool(driver, max_size=2) as pool:
            pool.checkout().checkin()
            child = os.fork()
            if not child:
                code = 1
                try:
                    pool.checkout(timeout=5).checkin()
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            pool.checkout().checkin()


def test_what_the_second_of_two_closes_frees_is_not_lost():
    with scene(background=True, max_size=2) as s:
        dropped, discarded = [s.pool.checkout()], s.pool.checkout()
        first, second = s.line_up(2, timeout=60)
        s.driver.script("close", dropped.clear)  # and so a second close is ordered while the first is under way
        with leak_reported():
            discarded.discard()
            for waiter in (first, second):
                waiter.result(SOON).checkin()
        s.assert_nothing_lost()
