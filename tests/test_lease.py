"""Is what a borrower holds given back exactly once, whatever he does with it?"""

from __future__ import annotations

import gc
import math
import threading
import warnings
import weakref

import pytest

from tests.scene import SOON, background, join, leak_reported, scene
from threadpool_db import Lease, Pool, PoolMisuse, PoolTimeout, StaleLease, TransactionState
from threadpool_db.core.opening import reserve
from threadpool_db.lease import where
from threadpool_db.testing import FakeClock, Latch, ScriptedDriver, WatchedClock

# --- Ways to give back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["lease", "pool", "block"])
def test_a_lease_comes_back_in_three_ways(way):
    with scene(max_size=1) as s:
        lease = s.pool.checkout()
        if way == "lease":
            lease.checkin()
        elif way == "pool":
            s.pool.checkin(lease)
        else:
            with lease as connection:
                assert connection is lease.connection
        assert not lease.active
        s.assert_nothing_lost()


def test_a_settled_connection_comes_back_without_a_word_to_its_server():
    with scene(autocommit=True) as s:
        for _ in range(1000):
            s.pool.checkout().checkin()
        assert s.driver.calls["connect"] == 1
        assert not set(s.driver.calls) - {"connect", "peek"}


def test_an_open_transaction_is_rolled_back_before_anybody_else_gets_the_connection():
    with scene(max_size=1) as s:
        with s.pool.checkout() as connection:
            connection.state = TransactionState.OPEN
        assert s.driver.calls["rollback"] == 1
        with s.pool.checkout() as same:
            assert same is connection
            assert same.state is TransactionState.IDLE


@pytest.mark.parametrize("state", [TransactionState.OPEN, TransactionState.FAILED, TransactionState.UNKNOWN])
def test_whatever_is_not_surely_idle_is_rolled_back_once(state):
    with scene(max_size=1) as s:
        with s.pool.checkout() as connection:
            connection.state = state
        assert s.driver.calls["rollback"] == 1
        s.assert_nothing_lost()


def test_a_connection_in_the_middle_of_a_statement_is_closed_and_not_spoken_to():
    with scene(max_size=1) as s:
        with s.pool.checkout() as connection:
            connection.state = TransactionState.BUSY
        assert connection.closed
        assert s.driver.calls["rollback"] == 0


def test_a_rollback_that_changes_nothing_costs_the_connection():
    with scene(max_size=1) as s:
        s.driver.rollback = lambda connection: None
        with s.pool.checkout() as connection:
            connection.state = TransactionState.FAILED
        assert connection.closed


def test_a_rollback_that_fails_costs_the_connection_and_nobody_an_error():
    with scene(max_size=1) as s:
        s.driver.script("rollback", OSError)
        with s.pool.checkout() as connection:
            connection.state = TransactionState.OPEN
        assert connection.closed
        with s.pool.checkout() as another:
            assert another.number == 2


def test_an_interrupted_rollback_costs_the_connection_and_no_slot():
    with scene(max_size=1) as s:
        s.driver.script("rollback", KeyboardInterrupt)
        lease = s.pool.checkout()
        lease.connection.state = TransactionState.OPEN
        with pytest.raises(KeyboardInterrupt):
            lease.checkin()
        s.assert_nothing_lost()
        assert s.driver.closed == 1


def test_an_error_in_the_block_is_the_callers_and_the_connection_lives_on():
    with scene(max_size=1) as s:
        with pytest.raises(ZeroDivisionError), s.pool.checkout() as connection:
            connection.state = TransactionState.OPEN
            1 / 0  # noqa: B018
        assert s.driver.calls["rollback"] == 1
        assert not connection.closed


def test_an_error_that_means_the_connection_is_gone_costs_the_connection():
    with scene(max_size=1) as s:
        with pytest.raises(ConnectionResetError), s.pool.checkout() as connection:
            raise ConnectionResetError
        assert connection.closed
        assert s.driver.calls["rollback"] == 0


@pytest.mark.parametrize(("state", "closed"), [(TransactionState.IDLE, False), (TransactionState.OPEN, True)])
def test_after_an_interrupt_only_a_surely_idle_connection_is_used_again(state, closed):
    with scene(max_size=1) as s:
        with pytest.raises(KeyboardInterrupt), s.pool.checkout() as connection:
            connection.state = state
            raise KeyboardInterrupt
        assert connection.closed is closed
        s.assert_nothing_lost()


def test_a_mode_that_the_borrower_changed_is_put_back():
    with scene(max_size=1, autocommit=False) as s:
        with s.pool.checkout() as connection:
            connection.autocommit = True
        with s.pool.checkout() as connection:
            assert connection.autocommit is False


def test_a_mode_that_cannot_be_put_back_costs_the_connection():
    with scene(max_size=1, autocommit=False) as s:
        with s.pool.checkout() as connection:
            connection.autocommit = True
        s.driver.script("set_autocommit", OSError)
        with s.pool.checkout() as another:
            assert another.number == 2
        assert connection.closed


def test_a_driver_that_cannot_even_say_its_state_costs_the_connection():
    class Forgetful(ScriptedDriver):
        def state(self, connection):
            raise RuntimeError("closed")

    with scene(driver=Forgetful()) as s:
        s.pool.checkout().checkin()
        assert s.driver.open == set()
        s.assert_nothing_lost()


# --- Discard and detach -----------------------------------------------------------------------------------------------


def test_a_discarded_connection_is_closed_and_its_slot_free():
    with scene(max_size=1) as s:
        lease = s.pool.checkout()
        connection = lease.connection
        lease.discard()
        assert connection.closed and not lease.active
        with s.pool.checkout() as another:
            assert another.number == 2


def test_a_detached_connection_is_its_borrowers_for_good():
    with scene(max_size=1) as s:
        lease = s.pool.checkout()
        connection = lease.detach()
        assert not connection.closed and not lease.active
        assert s.pool.stats().total == 0
        with s.pool.checkout() as another:
            assert another.number == 2
        assert not connection.closed


def test_a_waiter_gets_the_slot_that_a_detach_frees():
    with scene(max_size=1) as s:
        lease = s.pool.checkout()
        [waiter] = s.line_up(1)
        lease.detach()
        assert waiter.result(SOON).connection.number == 2


# --- Misuse -----------------------------------------------------------------------------------------------------------


def test_a_second_checkin_warns_and_does_nothing_even_when_somebody_else_has_the_connection():
    with scene(max_size=1) as s:
        mine = s.pool.checkout()
        mine.checkin()
        theirs = s.pool.checkout()
        for again in (mine.checkin, lambda: s.pool.checkin(mine), mine.discard):
            with pytest.warns(RuntimeWarning, match="given back already"):
                again()
        assert theirs.active
        s.assert_lent(theirs)
        theirs.checkin()
        s.assert_nothing_lost()


@pytest.mark.parametrize("way", ["checkin", "discard"])
def test_the_warning_names_the_callers_line(way):
    with scene() as s:
        lease = s.pool.checkout()
        lease.checkin()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            getattr(lease, way)()
        assert [warning.filename for warning in caught] == [__file__]


def test_many_checkins_of_one_lease_by_many_threads_are_one():
    with scene(clock=WatchedClock(), max_size=3) as s:
        for _ in range(100):
            lease = s.pool.checkout()
            start = threading.Barrier(4)

            def give_back(start=start, lease=lease):
                start.wait()
                lease.checkin()

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                join(*[background(give_back) for _ in range(4)])
        s.assert_nothing_lost()
        stats = s.pool.stats()
        assert (stats.idle, stats.use.count) == (1, 100)


def test_whoever_checks_in_while_another_thread_just_did_is_the_second():
    class Slow(ScriptedDriver):
        meanwhile = None

        def settled(self, connection, autocommit):
            if self.meanwhile:
                meanwhile, self.meanwhile = self.meanwhile, None
                background(meanwhile).result(SOON)
            return super().settled(connection, autocommit)

    with scene(driver=Slow(), max_size=1) as s:
        lease = s.pool.checkout()
        s.driver.meanwhile = lease.checkin
        with pytest.warns(RuntimeWarning, match="given back already"):
            lease.checkin()
        s.assert_nothing_lost()
        assert s.pool.stats().use.count == 1


def test_a_checkin_that_races_with_a_discard_ends_the_lease_once():
    with scene(max_size=1) as s:
        lease = s.pool.checkout()
        lease.connection.state = TransactionState.OPEN
        latch = Latch()
        s.driver.script("rollback", latch)
        checking_in = background(lease.checkin)
        latch.wait_for(1)
        with pytest.warns(RuntimeWarning):
            lease.discard()
        latch.open()
        checking_in.result(SOON)
        s.assert_nothing_lost()
        assert s.driver.closed == 0


def test_a_lease_of_another_pool_is_refused_and_stays_what_it_was():
    with scene(name="ours") as ours, scene(name="theirs") as theirs:
        lease = theirs.pool.checkout()
        with pytest.raises(PoolMisuse, match="'ours': this lease belongs to pool 'theirs'"):
            ours.pool.checkin(lease)
        assert lease.active
        lease.checkin()


def test_something_that_is_no_lease_is_refused():
    with scene() as s, s.pool.checkout() as connection:
        with pytest.raises(PoolMisuse, match="not a ScriptedConnection"):
            s.pool.checkin(connection)
        s.pool.stats()


def test_a_lease_is_entered_once():
    with scene() as s, (lease := s.pool.checkout()):
        with pytest.raises(PoolMisuse, match="in use by MainThread already"):
            lease.__enter__()
        assert lease.active


def test_two_threads_cannot_be_inside_one_lease():
    with scene() as s, (lease := s.pool.checkout()):
        entering = background(lease.__enter__)
        with pytest.raises(PoolMisuse, match="one thread at a time"):
            entering.result(SOON)


def test_a_lease_that_has_ended_refuses_every_use():
    with scene() as s:
        lease = s.pool.checkout()
        lease.checkin()
        for use in (lambda: lease.connection, lease.__enter__, lease.detach):
            with pytest.raises(StaleLease, match="has ended"):
                use()
        assert repr(lease).endswith("ended>")


def test_a_lease_may_be_given_back_inside_its_own_block():
    with scene() as s:
        with (lease := s.pool.checkout()):
            lease.checkin()
        s.assert_nothing_lost()


def test_a_lease_may_move_to_another_thread_which_is_then_its_holder():
    with scene(max_size=1) as s:
        lease = s.pool.checkout()
        latch = Latch()

        def take_over():
            assert lease.connection
            latch()
            lease.checkin()

        threading.Thread(target=take_over, name="new owner").start()
        latch.wait_for(1)
        [hold] = s.pool.stats().holders
        assert hold.thread == "new owner"
        waiter = s.borrow()  # not taken for a thread that waits for itself
        s.clock.wait_for_sleepers(1)
        latch.open()
        waiter.result(SOON).checkin()


# --- Leases that are dropped ------------------------------------------------------------------------------------------


def test_a_dropped_lease_gives_its_slot_back_and_names_the_line_that_took_it():
    with scene(max_size=1) as s:
        lease = s.pool.checkout()  # the line
        line = _line_of("lease = s.pool.checkout()  # the line")
        connection = lease.connection
        with leak_reported(rf"test_lease.py:{line} \(test_a_dropped_lease_gives_its_slot_back"):
            del lease
            with s.pool.checkout() as another:
                assert another.number == 2
        assert connection.closed
        assert s.pool.stats().lost == 1


def test_a_connection_that_outlives_its_lease_is_closed_and_not_shared():
    with scene(max_size=2) as s:
        kept = s.pool.checkout().connection
        with leak_reported():
            leases = [s.pool.checkout(), s.pool.checkout()]
        assert kept not in [lease.connection for lease in leases]
        assert kept.closed
        for lease in leases:
            lease.checkin()


def test_a_lease_dropped_while_its_last_borrower_is_still_giving_it_back_is_noticed_at_once():
    """Whoever handed it over gives way to the next one, who is faster; nothing of it may be left in his hands."""

    class Polite(FakeClock):
        give_way = staticmethod(Latch())

    with scene(clock=Polite(), max_size=1) as s:
        held = s.pool.checkout()
        [waiter] = s.line_up(1)
        giving = background(held.checkin)
        s.clock.give_way.wait_for(1)
        connection = waiter.result(SOON).connection
        with leak_reported():
            del waiter
            s.read_mail()
        assert connection.closed
        s.clock.give_way.open()
        giving.result(SOON)
        s.assert_nothing_lost()


def test_a_lease_in_a_reference_cycle_is_found_by_the_collector():
    class Request:
        pass

    with scene(max_size=1) as s:
        request = Request()
        request.myself, request.lease = request, s.pool.checkout()
        gone = weakref.ref(request)
        del request
        with leak_reported():
            gc.collect()
            assert gone() is None
            s.pool.checkout().checkin()
        s.assert_nothing_lost()


def test_a_thread_that_ends_with_a_lease_in_its_locals_gives_the_slot_back():
    with scene(max_size=1) as s:

        def forget():
            lease = s.pool.checkout()
            return lease.connection

        connection = background(forget).result(SOON)
        with leak_reported("forget"):
            s.pool.checkout().checkin()
        assert connection.closed
        s.assert_nothing_lost()


def test_a_dropped_lease_is_found_before_a_thread_is_told_that_it_waits_for_itself():
    with scene(max_size=1) as s:
        s.pool.checkout()
        with leak_reported():
            s.pool.checkout(timeout=math.inf).checkin()


def test_a_pool_that_closes_finds_what_was_dropped():
    with scene(max_size=1) as s:
        s.pool.checkout()
        with leak_reported():
            s.pool.close()
        assert s.driver.open == set()


def test_leases_given_back_properly_report_nothing():
    with scene(max_size=2) as s:
        s.pool.checkout().checkin()
        s.pool.checkout().discard()
        s.pool.checkout().detach()
        gc.collect()
        s.assert_lent()
        assert s.pool.stats().lost == 0


def test_a_pool_that_nobody_has_any_more_is_collected():
    driver = ScriptedDriver()
    pool = Pool(driver, background=False)
    pool.checkout().checkin()
    gone = weakref.ref(pool)
    with pytest.warns(ResourceWarning, match="dropped without close"):
        del pool
    assert gone() is None


def test_one_that_has_only_begun_to_connect_has_nothing_to_be_closed(recwarn):
    """Found by a storm over tenants: between the last reference and the warning one was found again by its key."""
    pool = Pool(ScriptedDriver(), background=False)
    reserve(pool._ledger, 0.0)
    del pool
    assert [str(warning.message) for warning in recwarn if "dropped" in str(warning.message)] == []


# --- Where it was taken -----------------------------------------------------------------------------------------------


def test_a_line_is_worked_out_from_code_and_instruction():
    code = (lambda: None).__code__
    assert where(code, 0).endswith(f"test_lease.py:{code.co_firstlineno} (<lambda>)")
    assert where(code, 1 << 20) == where(code, 0)
    assert where(None, -1) == "an unknown line"


def test_holders_are_named_with_their_lines_the_longest_first():
    with scene(max_size=3) as s:
        held = []
        for age in (3, 2):
            held.append(s.pool.checkout())
            s.clock.advance(age)
        old, young = s.pool.stats().holders
        assert (old.seconds, young.seconds) == (5, 2)
        assert old.thread == "MainThread"
        assert str(old).startswith("MainThread for 5.0 s, taken at ")
        assert f"test_lease.py:{_line_of('held.append(s.pool.checkout())')} (test_holders_are" in old.where
        for lease in held:
            lease.checkin()


def test_a_lease_says_whose_and_whether_it_is_active():
    with scene(name="orders") as s:
        lease = s.pool.checkout()
        assert isinstance(lease, Lease)
        assert repr(lease) == "<Lease of pool 'orders' active>"
        with pytest.raises(PoolTimeout):
            s.pool.checkout(timeout=0)
        lease.checkin()


def _line_of(text):
    with open(__file__, encoding="utf-8") as source:
        return next(number for number, line in enumerate(source, 1) if text in line)
