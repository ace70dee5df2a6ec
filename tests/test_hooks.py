"""Do the hooks have their say, at the right moment, and does a pool survive whatever they do?"""

from __future__ import annotations

import gc
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.drivers import ask
from tests.faults.bank import Watcher
from tests.scene import SOON, SocketDriver, background, in_child, leak_reported, scene
from tests.test_session_options import DIRT, INIT, LITE, SETTING, kind_of, stock
from threadpool_db import (
    KEEP,
    REPLACE,
    Backoff,
    ConnectFailed,
    Outcome,
    Pool,
    PoolMisuse,
    PoolTimeout,
    TransactionState,
    create_pool,
)
from threadpool_db.testing import FakeClock, Latch, ScriptedDriver

OPEN, FAILED, BUSY, IDLE = (
    TransactionState.OPEN,
    TransactionState.FAILED,
    TransactionState.BUSY,
    TransactionState.IDLE,
)
HOOKS = ["on_connect", "on_checkout", "on_checkin", "on_close"]


class Recorder(list):
    """A hook that notes whom it was given, and answers, or does, what the test says next."""

    def __init__(self, *steps: Any) -> None:
        super().__init__()
        self.steps = list(steps)
        self.threads: list[str] = []

    def __call__(self, connection: Any) -> Any:
        self.append(connection.number)
        self.threads.append(threading.current_thread().name)
        step = self.steps.pop(0) if self.steps else None
        if isinstance(step, BaseException):
            raise step
        return step(connection) if callable(step) else step


class Events(list):
    def __call__(self, event: Any) -> None:
        self.append(event)

    def of(self, *kinds: str) -> list[str]:
        return [event.detail for event in self if event.kind in kinds]


def leave(state: TransactionState) -> Callable[[Any], None]:
    return lambda connection: setattr(connection, "state", state)


def use(s: Any) -> None:
    """For a second, which makes it older than new."""
    lease = s.pool.checkout()
    s.clock.advance(1)
    lease.checkin()


def use_and_replace(s: Any) -> None:
    """One round of everything."""
    s.pool.checkout().checkin()
    s.pool.recycle()


# --- All of them ------------------------------------------------------------------------------------------------------


def test_each_is_called_once_in_a_connections_life_and_outside_of_the_lock():
    seen: list[tuple[str, int]] = []

    def hook(name):
        def call(connection):
            assert not s.clock.inside
            seen.append((name, connection.number))
            return KEEP

        return call

    with scene(max_size=1, **{name: hook(name) for name in HOOKS}) as s:
        use_and_replace(s)
        assert seen == [(name, 1) for name in HOOKS]
        s.assert_nothing_lost()


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize("state", [OPEN, TransactionState.UNKNOWN])
def test_what_a_hook_leaves_open_is_committed(name, state):
    with scene(max_size=1, **{name: leave(state)}) as s:
        use_and_replace(s)
        assert s.driver.calls["commit"] == 1
        assert (s.driver.calls["rollback"], s.driver.closed) == (0, 1)


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_that_leaves_nothing_open_costs_no_round_trip(name):
    with scene(max_size=1, autocommit=False, **{name: lambda connection: None}) as s:
        use_and_replace(s)
        assert set(s.driver.calls) <= {"connect", "peek", "close"}


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize(("state", "words"), [(FAILED, "a failed transaction"), (BUSY, "the middle of a statement")])
def test_what_cannot_be_committed_is_its_writers_mistake(name, state, words):
    events = Events()
    with scene(max_size=1, observers=[events], **{name: leave(state)}) as s:
        message = f"{name} left its connection in {words}; let it end what it begins"
        if name in ("on_connect", "on_checkout"):
            with pytest.raises(PoolMisuse, match=message):
                s.pool.checkout()
        else:
            use_and_replace(s)
            assert events.of("hook_failed") == [f"{name} raised"]
            assert message in str(events[[e.kind for e in events].index("hook_failed")].error)
        s.pool.recycle()
        assert s.driver.open == set() and s.pool.stats().total == 0


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize("answer", [True, False, "replace", 5])
def test_another_answer_is_none(name, answer):
    events = Events()
    with scene(max_size=1, observers=[events], **{name: lambda connection: answer}) as s:
        words = f"{name} returned a {type(answer).__name__}: a hook returns None or KEEP, to go on, or REPLACE"
        if name in ("on_connect", "on_checkout"):
            with pytest.raises(PoolMisuse, match=words):
                s.pool.checkout()
        else:
            use_and_replace(s)
            assert [str(e.error) for e in events if e.kind == "hook_failed"] == [words]


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize("threads", ["background", "own"])
def test_a_hook_cannot_borrow_from_the_pool_that_calls_it(name, threads):
    caught: list[str] = []

    def borrow(connection):
        with pytest.raises(PoolMisuse) as error:
            s.pool.checkout(timeout=0)
        caught.append(str(error.value))
        with other.checkout():
            pass

    other = Pool(ScriptedDriver())
    with scene(max_size=2, background=threads == "background", **{name: borrow}) as s:
        use_and_replace(s)
        assert caught == [
            f"pool {s.pool.name!r}: the hook {name} cannot borrow from the pool that calls it; use the connection that "
            "it is given"
        ]
        with s.pool.checkout(), s.pool.checkout():
            pass
    other.close()


def test_what_a_hook_says_of_borrowing_reaches_the_borrower_as_misuse():
    for background_ in (True, False):
        with scene(background=background_, on_connect=lambda connection: s.pool.checkout()) as s:
            with pytest.raises(PoolMisuse, match="the hook on_connect cannot borrow"):
                s.pool.checkout()
            assert s.driver.open == set()


def test_after_a_hook_its_thread_is_known_as_before():
    holders = []
    with scene(max_size=1, on_checkout=lambda c: None, on_checkin=lambda c: None) as s:
        for _ in range(2):
            with s.pool.checkout():
                holders.append(s.pool._here.holder)
                with pytest.raises(PoolMisuse, match="this wait would never end"):
                    s.pool.checkout()
        assert holders[0] is holders[1]


def test_a_thread_whose_hook_was_interrupted_at_its_very_end_may_borrow_again():
    with scene() as s:
        from threadpool_db.hooks import inside

        def interrupted_before_its_end_was_noted():
            hooks = s.pool._upkeep.hooks
            hooks.on_checkout = lambda connection: noted.append(here.hook)
            noted: list[Any] = []
            here = hooks.here
            hooks._ask("on_checkout", s.driver.connect(1))
            here.hook = noted[0]
            return inside(here)

        assert interrupted_before_its_end_was_noted() == ""
        s.pool._ledger.opened_count += 1  # connected above


def test_outcomes_are_public():
    assert (Outcome.KEEP, Outcome.REPLACE) == (KEEP, REPLACE)


@pytest.mark.parametrize("name", HOOKS)
def test_only_on_checkout_and_on_checkin_cost_the_short_ways(name):
    with scene(max_size=1) as plain, scene(max_size=1, **{name: lambda connection: None}) as s:
        for each in (plain, s):
            each.fill(1)
        for each, short in ((plain, True), (s, name != "on_checkout")):
            entry = each.pool._ledger.take(each.clock.now())
            assert (entry is not None) is short
            assert entry is None or each.pool._ledger.give(entry, each.clock.now())
        assert plain.pool._upkeep.settled == plain.driver.settled
        assert (s.pool._upkeep.settled == s.driver.settled) is (name != "on_checkin")


# --- on_connect -------------------------------------------------------------------------------------------------------


def test_on_connect_comes_after_all_that_a_session_is_told_and_before_it_is_watched():
    seen = []

    def hook(connection):
        seen.append((list(connection.told), connection.watched))
        connection.told.append("mine")
        connection.autocommit = True

    options = {"init_sql": "a", "isolation": "serializable", "read_only": True}
    with scene(autocommit=False, driver=None, on_connect=hook, **options) as s:
        with s.pool.checkout() as connection:
            assert connection.told == ["a", "serializable", "read only", "mine"]
            assert connection.watched
            assert connection.autocommit is True  # the mode in which it was made
        assert seen == [(["a", "serializable", "read only"], False)]
        assert s.driver.calls["set_autocommit"] == 0


def test_on_connect_is_called_again_after_each_reset_and_only_then():
    hook = Recorder()
    with scene(max_size=1, on_connect=hook) as s:
        for dirty in (True, False, True):
            with s.pool.checkout() as connection:
                connection.dirty = dirty
        assert hook == [1, 1, 1]
        assert s.driver.calls["reset"] == 2


@pytest.mark.parametrize("step", [ValueError("mine"), REPLACE, lambda c: s_borrow(c)], ids=["raises", "replace", "?"])
def test_an_on_connect_that_fails_in_a_replay_costs_the_connection_and_is_told(step):
    events, hook = Events(), Recorder(None, step)
    with scene(max_size=1, on_connect=hook, observers=[events]) as s:
        with s.pool.checkout() as connection:
            connection.dirty = True
        assert connection.closed
        [told] = events.of("hook_failed")
        assert told.startswith("after a reset: ")
        s.assert_nothing_lost()


def s_borrow(connection: Any) -> None:
    raise PoolMisuse("as though it had borrowed")


@pytest.mark.parametrize("threads", ["background", "own"])
@pytest.mark.parametrize("backoff", [None, Backoff()])
def test_an_on_connect_that_raises_is_a_failed_connect(threads, backoff):
    mine, events, told = ZeroDivisionError("mine"), Events(), Watcher()
    hook = Recorder(mine)
    with scene(
        max_size=1, background=threads == "background", backoff=backoff, on_connect=hook, observers=[events, told]
    ) as s:
        with pytest.raises(ConnectFailed, match=r"the hook on_connect failed \(ZeroDivisionError, the cause") as caught:
            s.pool.checkout()
        assert caught.value.__cause__ is mine and mine.__traceback__ is None
        assert (s.driver.closed, s.pool.stats().total, s.pool.stats().connect_failures) == (1, 0, 1)
        told.wait_for("connect_failed")  # a worker tells it when those in line know
        assert [event.kind for event in events] == ["connect_failed"]
        s.clock.advance(5)
        if threads == "background" and backoff is not None:
            told.wait_for("connected")  # by the prober: it goes on whether or not anybody asks
        with s.pool.checkout() as connection:
            assert connection.number == 2


@pytest.mark.parametrize("threads", ["background", "own"])
def test_an_on_connect_that_wants_another_one_is_a_failed_connect(threads):
    with scene(max_size=1, background=threads == "background", on_connect=Recorder(REPLACE)) as s:
        with pytest.raises(ConnectFailed, match="the hook on_connect answered REPLACE") as caught:
            s.pool.checkout()
        assert caught.value.__cause__ is None
        assert (s.driver.closed, s.pool.stats().total) == (1, 0)


@pytest.mark.parametrize("step", [ValueError("no"), REPLACE])
def test_an_on_connect_that_always_fails_is_asked_again_after_a_pause_each_time(step):
    hook = Recorder(None, *[step] * 50)
    with scene(max_size=1, on_connect=hook, grace=60, backoff=Backoff(1, 1)) as s:
        s.fill(1)
        s.pool.recycle()
        waiter = s.borrow(timeout=3.5)
        for failures in (1, 2, 3):
            s.clock.wait_for_sleepers(1)
            assert len(hook) == 1 + failures
            s.clock.advance(1)
        s.clock.wait_for_sleepers(1)
        s.clock.advance(0.5)
        with pytest.raises(PoolTimeout) as caught:
            waiter.result(SOON)
        assert isinstance(caught.value.__cause__, ConnectFailed)
        assert s.driver.open == set() and s.pool.stats().total == 0


def test_a_hook_that_fails_is_no_reason_for_other_pools_to_keep_away_from_the_server():
    clock = FakeClock()
    driver = ScriptedDriver(clock)
    other = Pool(driver, clock=clock, background=False)
    with scene(clock=clock, driver=driver, on_connect=Recorder(None, ValueError("no")), backoff=Backoff(5, 5)) as s:
        for pool in (other, s.pool):
            pool.checkout().checkin()
            pool.recycle()
        waiter = s.borrow(timeout=20)
        clock.wait_for_sleepers(1)
        other.checkout(timeout=1).checkin()
        clock.advance(5)
        waiter.result(SOON).checkin()
        other.close()


@pytest.mark.parametrize("swallows", [True, False])
def test_an_on_connect_that_hangs_is_cut_off_when_a_connect_would_be(swallows):
    clock = FakeClock()
    driver = SocketDriver(clock)
    inside = Latch()
    inside.open()

    def hang(connection):
        inside()
        driver.hang(connection)()
        if not swallows:
            raise ConnectionError("cut off")

    with scene(clock=clock, driver=driver, on_connect=hang, connect_timeout=5, check_timeout=1, backoff=None) as s:
        borrower = s.borrow(timeout=60)
        inside.wait_for(1)
        clock.advance(4.9)
        assert not borrower.done()
        clock.advance(0.1)
        with pytest.raises(ConnectFailed, match="the hook on_connect took longer than connect_timeout=5 s"):
            borrower.result(SOON)
        assert (driver.closed, clock.alarms, s.pool.stats().total) == (1, 0, 0)


# --- on_checkout ------------------------------------------------------------------------------------------------------


def test_each_lease_is_shown_once_in_its_borrowers_thread_when_the_pool_has_found_it_fit():
    hook = Recorder()
    with scene(max_size=1, autocommit=False, on_checkout=hook, ping_after=30) as s:
        s.fill(1)
        for connection in s.driver.open:
            connection.alive = False
        s.clock.advance(1)
        s.pool.checkout().checkin()  # the dead one is not shown
        assert hook == [1, 2]
        s.clock.advance(31)
        hook.steps = [lambda connection: asked.append((s.driver.calls["ping"], connection.autocommit))]
        asked: list[Any] = []
        with s.pool.transaction():
            with s.pool.connection():
                pass
        assert asked == [(1, True)]
        assert hook == [1, 2, 2]
        assert set(hook.threads) == {threading.current_thread().name}


def test_what_a_thread_keeps_is_shown_once_and_what_the_keeper_asks_after_is_not():
    hook = Recorder()
    with scene(max_size=1, checkout="thread", on_checkout=hook, ping_after=5) as s:
        for _ in range(3):
            s.pool.lease()
            s.clock.advance(10)
        with s.pool.connection(), s.pool.connection():
            pass
        s.pool.release()
        assert (hook, s.driver.calls["ping"]) == ([1], 2)
    with scene(max_size=1, background=True, keepalive=10, on_checkout=hook) as s:
        s.fill(1)
        s.clock.advance(10)
        deadline = threading.Event()
        while s.driver.calls["ping"] == 0 or s.pool.stats().in_use:
            deadline.wait(0.001)
        assert hook == [1, 1]


def test_what_is_handed_over_in_line_is_shown_to_its_new_borrower():
    hook = Recorder()
    with scene(max_size=1, on_checkout=hook) as s:
        held = s.pool.checkout()
        [waiter] = s.line_up(1)
        held.checkin()
        waiter.result(SOON).checkin()
        assert hook == [1, 1]
        assert len(set(hook.threads)) == 2


def test_replace_brings_another_one_to_the_same_place_in_line():
    events, latch, gone = Events(), Latch(), Recorder()
    hook = Recorder(None, lambda connection: latch() or REPLACE)
    with scene(max_size=1, on_checkout=hook, on_close=gone, observers=[events]) as s:
        use(s)
        first = s.borrow(timeout=5)
        latch.wait_for(1)
        [second] = s.line_up(1)
        latch.open()
        lease = first.result(SOON)
        assert lease.connection.number == 2
        assert not second.done()
        lease.checkin()
        second.result(SOON).checkin()
        stats = s.pool.stats()
        assert (hook, gone, s.driver.closed) == ([1, 1, 2, 2], [1], 1)
        assert (stats.checkouts, stats.dead, stats.closures) == (3, 0, 1)
        assert events.of("replaced", "dead", "hook_failed") == ["on_checkout answered REPLACE"]
        s.assert_nothing_lost()


def test_what_is_replaced_has_nothing_committed():
    with scene(max_size=1, on_checkout=Recorder(lambda c: leave(OPEN)(c) or REPLACE), backoff=Backoff(0, 0)) as s:
        s.fill(1)
        assert (s.driver.calls["commit"], s.driver.closed) == (0, 1)


def test_one_that_is_replaced_says_nothing_of_others_that_were_silent_as_long():
    with scene(max_size=3, ping_after=30, on_checkout=Recorder(None, None, None, REPLACE)) as s:
        s.fill(3)
        s.clock.advance(30)
        s.pool.checkout().checkin()
        assert {connection.number for connection in s.driver.open} == {1, 2}


def test_an_on_checkout_that_never_has_enough_ends_with_the_timeout_and_hammers_no_server():
    hook = Recorder(*[REPLACE] * 1000)
    with scene(max_size=2, on_checkout=hook, backoff=Backoff(1, 1)) as s:
        waiter = s.borrow(timeout=3.5)
        for made in (1, 2, 3):
            s.clock.wait_for_sleepers(1)
            assert s.driver.made == made
            s.clock.advance(1)
        s.clock.wait_for_sleepers(1)
        s.clock.advance(0.5)
        with pytest.raises(PoolTimeout):
            waiter.result(SOON)
        assert s.driver.open == set()
        assert s.pool.stats().checkouts == 0
        s.assert_nothing_lost()


def test_the_same_where_workers_connect():
    clock = FakeClock()
    with scene(clock=clock, background=True, max_size=2, on_checkout=lambda c: REPLACE, backoff=Backoff(1, 1)) as s:
        waiter = s.borrow(timeout=2.5)
        while not waiter.done():
            clock.wait_for_sleepers(1)
            made = s.driver.made
            clock.advance(0.5)
            if clock.now() >= 1002.5:
                break
            assert s.driver.made - made <= 1
        with pytest.raises(PoolTimeout):
            waiter.result(SOON)
        assert s.driver.made <= 4


def test_one_that_was_used_before_is_replaced_without_a_pause():
    with scene(max_size=1, on_checkout=Recorder(None, REPLACE), backoff=Backoff(60, 60)) as s:
        use(s)
        with s.pool.checkout(timeout=1) as connection:
            assert connection.number == 2


def test_whoever_will_not_wait_gets_the_next_idle_one_or_is_refused():
    hook = Recorder(None, None, REPLACE, None, REPLACE, REPLACE)
    with scene(max_size=2, on_checkout=hook) as s:
        s.fill(2)
        with s.pool.checkout(timeout=0) as connection:
            assert connection.number == 1
        with pytest.raises(PoolTimeout):
            s.pool.checkout(timeout=0)
        assert (hook, s.driver.made, s.driver.open) == ([1, 2, 2, 1, 1], 2, set())
        s.assert_nothing_lost()


@pytest.mark.parametrize("timeout", [5, 0])
def test_what_on_checkout_raises_is_the_borrowers_and_nothing_is_lost(timeout):
    mine = ValueError("not for you")
    with scene(max_size=1, on_checkout=Recorder(None, mine)) as s:
        s.fill(1)
        with pytest.raises(ValueError) as caught:
            s.pool.checkout(timeout=timeout)
        assert caught.value is mine and caught.value.__cause__ is None
        assert s.pool.stats().checkouts == 1
        s.assert_nothing_lost()
        with s.pool.checkout() as connection:
            assert connection.number == 1


def test_what_it_did_before_it_raised_is_undone_and_the_next_in_line_is_served():
    latch = Latch()

    def spoil(connection):
        connection.state, connection.dirty = OPEN, True
        latch()
        raise ValueError

    with scene(max_size=1, on_checkout=Recorder(None, spoil)) as s:
        s.fill(1)
        first = s.borrow()
        latch.wait_for(1)
        [second] = s.line_up(1)
        latch.open()
        with pytest.raises(ValueError):
            first.result(SOON)
        with second.result(SOON) as connection:
            assert (connection.number, connection.state, connection.dirty) == (1, IDLE, False)
        assert (s.driver.calls["rollback"], s.driver.calls["reset"]) == (1, 1)


def test_whoever_keeps_its_error_keeps_nobody_elses_lease():
    with scene(max_size=1, on_checkout=Recorder(ValueError())) as s:
        with pytest.raises(ValueError) as kept:
            s.pool.checkout()
        with leak_reported():
            s.pool.checkout()
            gc.collect()
            s.read_mail()
        assert kept.value.__traceback__ is not None
        s.assert_nothing_lost()


@pytest.mark.parametrize("spoil", [leave(BUSY), lambda c: setattr(c, "dirty", True)], ids=["busy", "dirty"])
def test_one_that_would_not_come_clean_after_it_is_closed_without_a_word(spoil):
    gone = Recorder()

    def hook(connection):
        if connection.number == 1:
            spoil(connection)
            raise ValueError

    with scene(max_size=1, on_checkout=hook, on_close=gone) as s:
        s.driver.can_reset = False
        with pytest.raises(ValueError):
            s.pool.checkout()
        assert (s.driver.closed, s.pool.stats().total, gone) == (1, 0, [])
        with s.pool.checkout() as connection:
            assert connection.number == 2


@pytest.mark.parametrize(("state", "closed"), [(IDLE, 0), (OPEN, 1)])
def test_an_interrupt_in_on_checkout_loses_nothing(state, closed):
    def interrupted(connection):
        connection.state = state
        raise KeyboardInterrupt

    with scene(max_size=1, on_checkout=Recorder(interrupted)) as s:
        with pytest.raises(KeyboardInterrupt):
            s.pool.checkout()
        assert s.driver.closed == closed
        s.assert_nothing_lost()
        with s.pool.checkout() as connection:
            assert (connection.number, connection.state) == (1 + closed, IDLE)


def test_an_interrupt_after_on_checkout_and_before_the_borrower_leaves_nothing_of_it_behind():
    with scene(max_size=1, autocommit=False, on_checkout=lambda c: setattr(c, "dirty", True)) as s:
        asked = s.driver.autocommit
        s.driver.autocommit = lambda connection: interrupt() if connection.dirty else asked(connection)

        def interrupt():
            s.driver.autocommit = asked
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            s.pool.checkout()
        assert s.driver.calls["reset"] == 1
        s.assert_nothing_lost()


def test_the_mode_that_on_checkout_sets_is_not_the_borrowers():
    with scene(autocommit=False, on_checkout=lambda c: setattr(c, "autocommit", True)) as s:
        with s.pool.connection() as connection:
            assert connection.autocommit is False
        with s.pool.transaction() as connection:
            assert connection.autocommit is True
        s.driver.script("set_autocommit", OSError)
        with s.pool.connection() as connection:
            assert (connection.number, connection.autocommit) == (2, False)


@pytest.mark.parametrize("swallows", [True, False])
def test_an_on_checkout_that_hangs_is_cut_off_at_its_borrowers_deadline(swallows):
    clock, events, gone = FakeClock(), Events(), Recorder()
    driver = SocketDriver(clock)
    inside = Latch()
    inside.open()

    def hang(connection):
        inside()
        driver.hang(connection)()
        if not swallows:
            raise ConnectionError("cut off")

    options = {"on_checkout": hang, "on_close": gone, "observers": [events], "check_timeout": 1}
    with scene(clock=clock, driver=driver, max_size=1, **options) as s:
        borrower = s.borrow(timeout=3)
        inside.wait_for(1)
        clock.advance(2.9)
        assert not borrower.done()
        clock.advance(0.1)
        with pytest.raises(PoolTimeout):
            borrower.result(SOON)
        assert events.of("hook_failed", "replaced") == ["on_checkout did not come back for 3 s"]
        assert (driver.closed, clock.alarms, gone) == (1, 0, [])
        s.assert_nothing_lost()


def test_one_that_hangs_for_somebody_who_will_not_wait_is_cut_off_as_a_round_trip_is():
    clock = FakeClock()
    driver = SocketDriver(clock)
    inside = Latch()
    inside.open()
    hook = Recorder(None, lambda connection: inside() or (driver.hang(connection)() and None))
    with scene(clock=clock, driver=driver, max_size=1, on_checkout=hook, check_timeout=1) as s:
        s.fill(1)
        borrower = s.borrow(timeout=0)
        inside.wait_for(1)
        clock.advance(1)
        with pytest.raises(PoolTimeout):
            borrower.result(SOON)
        assert driver.closed == 1


def test_the_hour_at_which_a_hook_is_cut_off_is_not_planned_long_ahead():
    planned = []
    with scene(max_size=1, on_checkout=lambda connection: planned.append(s.clock.keeper.next_alarm()[0])) as s:
        for timeout in (0.5, 3600, float("inf")):
            s.pool.checkout(timeout=timeout).checkin()
        assert planned == [1000.5, 1001, 1001]
        assert s.clock.alarms == 0


@pytest.mark.parametrize("raises", [False, True])
def test_one_that_is_taken_away_while_it_is_shown_is_replaced(raises):
    latch = Latch()
    hook = Recorder(lambda connection: latch() or (1 / 0 if raises else None))
    with scene(max_size=1, background=True, max_lease=2, on_checkout=hook) as s:
        borrower = s.borrow(timeout=60)
        latch.wait_for(1)
        s.clock.advance(2)
        latch.open()
        with borrower.result(SOON) as connection:
            assert connection.number == 2


# --- on_checkin -------------------------------------------------------------------------------------------------------


def test_on_checkin_gets_a_clean_connection_before_anybody_else_does():
    latch = Latch()
    states = []
    hook = Recorder(lambda connection: states.append((connection.state, connection.dirty)) or latch())
    with scene(max_size=1, on_checkin=hook) as s:
        held = s.pool.checkout()
        held.connection.state, held.connection.dirty = OPEN, True
        [waiter] = s.line_up(1)
        giving = background(held.checkin)
        latch.wait_for(1)
        assert states == [(IDLE, False)]
        assert not waiter.done()
        latch.open()
        giving.result(SOON)
        waiter.result(SOON).checkin()
        assert hook == [1, 1]


def test_replace_at_checkin_closes_it_in_good_order():
    events, gone = Events(), Recorder()
    with scene(max_size=1, on_checkin=Recorder(REPLACE), on_close=gone, observers=[events]) as s:
        held = s.pool.checkout()
        [waiter] = s.line_up(1)
        held.checkin()
        with waiter.result(SOON) as connection:
            assert connection.number == 2
        assert (gone, s.driver.closed) == ([1], 1)
        assert events.of("replaced", "hook_failed") == ["on_checkin answered REPLACE"]


def test_an_on_checkin_that_raises_costs_the_connection_and_nobody_an_error(caplog):
    mine, events, gone = ValueError("mine"), Events(), Recorder()
    with scene(max_size=1, on_checkin=Recorder(mine), on_close=gone, observers=[events]) as s:
        with s.pool.checkout() as connection:
            pass
        assert connection.closed and gone == []
        [event] = [event for event in events if event.kind == "hook_failed"]
        assert (event.detail, event.error, mine.__traceback__) == ("on_checkin raised", mine, None)
        assert [record.levelname for record in caplog.records if record.event == "hook_failed"] == ["WARNING"]
        with s.pool.checkout() as connection:
            assert connection.number == 2


def test_an_error_of_the_block_is_not_hidden_by_one_of_the_hook():
    with scene(on_checkin=Recorder(ValueError("mine"))) as s:
        with pytest.raises(KeyError), s.pool.checkout():
            raise KeyError


@pytest.mark.parametrize("can_reset", [True, False])
def test_what_on_checkin_leaves_in_the_session_is_wiped_or_closed(can_reset):
    events = Events()
    with scene(max_size=1, on_checkin=lambda c: setattr(c, "dirty", True), observers=[events]) as s:
        s.driver.can_reset = can_reset
        with s.pool.checkout() as connection:
            pass
        assert (connection.dirty, connection.closed) == (not can_reset, not can_reset)
        assert s.driver.calls["reset"] == can_reset
        told = "on_checkin left something in the session that cannot be wiped; it is closed"
        assert events.of("hook_failed") == [] if can_reset else [told]


def test_the_mode_that_on_checkin_sets_is_not_the_next_borrowers():
    with scene(max_size=1, autocommit=False, on_checkin=lambda c: setattr(c, "autocommit", True)) as s:
        s.fill(1)
        with s.pool.checkout() as connection:
            assert connection.autocommit is False


@pytest.mark.parametrize("swallows", [True, False])
def test_an_on_checkin_that_hangs_is_cut_off_after_check_timeout(swallows):
    clock, events = FakeClock(), Events()
    driver = SocketDriver(clock)
    inside = Latch()
    inside.open()

    def hang(connection):
        inside()
        driver.hang(connection)()
        if not swallows:
            raise ConnectionError("cut off")

    with scene(clock=clock, driver=driver, max_size=1, on_checkin=hang, check_timeout=2, observers=[events]) as s:
        giving = background(s.pool.checkout().checkin)
        inside.wait_for(1)
        clock.advance(1.9)
        assert not giving.done()
        clock.advance(0.1)
        giving.result(SOON)
        assert events.of("hook_failed") == ["on_checkin did not come back for 2 s"]
        assert (driver.closed, clock.alarms) == (1, 0)


def test_an_interrupt_in_on_checkin_loses_nothing():
    gone = Recorder()
    with scene(max_size=1, on_checkin=Recorder(KeyboardInterrupt()), on_close=gone) as s:
        with pytest.raises(KeyboardInterrupt):
            s.pool.checkout().checkin()
        assert (s.driver.closed, gone) == (1, [])
        s.assert_nothing_lost()
        s.pool.checkout().checkin()


def test_on_checkin_is_not_asked_about_what_nobody_else_will_get():
    hook = Recorder()
    with scene(on_checkin=hook) as s:
        s.pool.checkout().discard()
        s.pool.checkout().detach()
        with leak_reported():
            s.pool.checkout()
            gc.collect()
            s.read_mail()
        with s.pool.checkout() as connection:
            connection.state = BUSY
        assert hook == []


def test_what_a_thread_kept_when_it_ended_is_shown_too():
    hook = Recorder()
    with scene(max_size=1, checkout="thread", on_checkin=hook) as s:

        def keep():
            with s.pool.connection():
                s.pool._hold().sticky = True

        keeper = threading.Thread(target=keep)
        keeper.start()
        keeper.join(SOON)
        s.read_mail()
        assert hook == [1]
        s.assert_nothing_lost()


# --- on_close ---------------------------------------------------------------------------------------------------------


def recycle(s: Any) -> None:
    s.fill(1)
    s.pool.recycle()


def give_back_worn(s: Any) -> None:
    lease = s.pool.checkout()
    s.clock.advance(2000)
    lease.checkin()


def idle_for_long(s: Any) -> None:
    s.fill(1)
    s.clock.advance(400)
    s.pool._tell(s.pool._ledger.tick)


def close_pool(s: Any) -> None:
    s.fill(1)
    s.pool.close()


def opened_too_late(s: Any) -> None:
    s.driver.script("connect", lambda: s.pool.recycle())
    s.pool.checkout().discard()


@pytest.mark.parametrize("end", [recycle, give_back_worn, idle_for_long, close_pool, opened_too_late])
def test_on_close_gets_what_is_in_order(end):
    gone = Recorder()
    with scene(max_lifetime=1000, on_close=gone) as s:
        end(s)
        assert (gone, s.pool.stats().closures >= 1) == ([1], True)


def discard(s: Any) -> None:
    s.pool.checkout().discard()


def unclean(s: Any) -> None:
    with s.pool.checkout() as connection:
        connection.state = BUSY


def dead(s: Any) -> None:
    s.fill(2)
    s.clock.advance(40)
    s.driver.always("ping", False)
    s.pool.checkout().detach()


def dead_while_idle(s: Any) -> None:
    s.fill(1)
    for connection in s.driver.open:
        connection.alive = False
    s.pool.recycle()


def lost(s: Any) -> None:
    with leak_reported():
        s.pool.checkout()
        gc.collect()
        s.read_mail()


def detach(s: Any) -> None:
    s.pool.checkout().detach()


def never_made(s: Any) -> None:
    s.driver.script("run", OSError)
    with pytest.raises(ConnectFailed):
        s.pool.checkout()


def interrupted_connect(s: Any) -> None:
    s.driver.watch = lambda connection: None
    tell = s.pool._observers.tell

    def interrupt(*event):
        s.pool._observers.tell = tell
        raise KeyboardInterrupt

    s.pool._observers.tell = interrupt
    with pytest.raises(KeyboardInterrupt):
        s.pool.checkout()


@pytest.mark.parametrize(
    "end", [discard, unclean, dead, dead_while_idle, lost, detach, never_made, interrupted_connect]
)
def test_on_close_is_not_called_for_what_is_broken_or_in_somebody_elses_hands(end):
    gone = Recorder()
    with scene(on_close=gone, init_sql="x", max_idle=None) as s:
        end(s)
        assert gone == []
        s.read_mail()
        assert s.pool.stats().total == 0


def test_on_close_is_not_called_for_what_was_taken_away():
    gone = Recorder()
    with scene(background=True, max_lease=2, on_close=gone) as s:
        lease = s.pool.checkout()
        s.clock.advance(2)
        while s.driver.closed == 0:
            threading.Event().wait(0.001)
        assert lease.expired and gone == []


def test_on_close_is_not_called_for_what_a_child_inherits():
    gone = Recorder()
    with scene(on_close=gone, on_checkout=Recorder()) as s:
        s.fill(1)

        def child():
            s.pool.checkout().checkin()
            s.pool.close()
            return list(gone)

        assert in_child(child) == "[2]"


def test_on_close_is_not_called_when_the_process_ends():
    gone = Recorder()
    with scene(on_close=gone) as s:
        s.fill(1)
        s.pool._at_exit(float("inf"))
        assert (gone, s.driver.closed) == ([], 1)


@pytest.mark.parametrize("step", [ValueError("mine"), REPLACE, leave(FAILED)])
def test_whatever_on_close_does_it_is_closed_once(step):
    events = Events()
    with scene(on_close=Recorder(step), observers=[events]) as s:
        use_and_replace(s)
        assert (s.driver.closed, s.driver.calls["close"], s.pool.stats().closures) == (1, 1, 1)
        assert events.of("hook_failed") == ([] if step is REPLACE else ["on_close raised"])
        assert len(events.of("disconnected")) == 1


def test_an_on_close_that_hangs_is_cut_off_after_check_timeout():
    clock, events = FakeClock(), Events()
    driver = SocketDriver(clock)
    inside = Latch()
    inside.open()
    hang = Recorder(lambda connection: inside() or (driver.hang(connection)() and None))
    with scene(clock=clock, driver=driver, on_close=hang, check_timeout=2, observers=[events]) as s:
        s.fill(1)
        closing = background(s.pool.recycle)
        inside.wait_for(1)
        clock.advance(2)
        closing.result(SOON)
        assert events.of("hook_failed") == ["on_close did not come back for 2 s"]
        assert (driver.closed, clock.alarms, s.pool.stats().closures) == (1, 0, 1)


def test_an_interrupt_in_on_close_loses_nothing_and_does_not_call_it_again():
    gone = Recorder(KeyboardInterrupt())
    with scene(on_close=gone) as s:
        s.fill(1)
        with pytest.raises(KeyboardInterrupt):
            s.pool.recycle()
        s.assert_nothing_lost()
        assert (gone, s.driver.closed, s.pool.stats().closures) == ([1], 1, 1)


# --- Over real databases ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["url", "callable"])
@pytest.mark.parametrize("autocommit", [None, True, False])
def test_what_on_connect_sets_holds_for_everybody_and_survives_a_reset(any_db_url, way, autocommit):
    kind = kind_of(any_db_url)
    made: list[Any] = []

    def dress(connection: Any) -> None:
        ask(connection, INIT[kind])  # outside of autocommit this opens a transaction, and nobody commits it
        made.append(connection)

    source = any_db_url if way == "url" else stock(any_db_url)
    with create_pool(source, max_size=1, on_connect=dress, autocommit=autocommit) as pool:
        for _ in range(2):
            with pool.connection() as connection:
                assert str(ask(connection, SETTING[kind])[0][0]) == "4321"
                connection.rollback()
                assert str(ask(connection, SETTING[kind])[0][0]) == "4321"
            assert str(pool.execute(SETTING[kind])[0][0]) == "4321"
        assert (len(made), pool.stats().opened) == (1, 1)
        with pool.scope():
            pool.execute(DIRT[kind])
        assert str(pool.execute(SETTING[kind])[0][0]) == "4321"
        resets = way == "url" and kind != LITE
        assert (len(made), pool.stats().opened) == (2, 1 if resets else 2)


def test_every_hook_over_every_driver(any_db_url):
    kind, seen = kind_of(any_db_url), []

    def hook(name):
        def call(connection):
            seen.append(name)
            ask(connection, SETTING[kind])

        return call

    with create_pool(any_db_url, max_size=1, **{name: hook(name) for name in HOOKS}) as pool:
        pool.execute(SETTING[kind])
        with pool.transaction() as connection:
            ask(connection, SETTING[kind])
            assert pool.execute(SETTING[kind])
        proxy = pool.proxy()
        cursor = proxy.cursor()
        cursor.execute(SETTING[kind])
        cursor.fetchall()
        proxy.commit()
        assert pool.stats().opened == 1
    assert seen == ["on_connect", *["on_checkout", "on_checkin"] * 3, "on_close"]


def test_a_sqlite_connection_that_a_hook_keeps_is_closed_all_the_same(tmp_path):
    kept: list[Any] = []

    def keep(connection):
        kept.append(connection)
        return REPLACE if len(kept) == 2 else KEEP

    with create_pool(f"sqlite:///{tmp_path}/a.db", max_size=1, on_checkout=keep) as pool:
        for _ in range(2):
            pool.execute("select 1")
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            kept[1].execute("select 1")


@pytest.mark.parametrize("keeps", ["error", "event"])
def test_a_sqlite_connection_is_closed_though_somebody_keeps_the_hooks_error(tmp_path, keeps):
    made: list[Any] = []

    def fail(connection):
        connection.execute("create temp table mine (a int)")
        raise ValueError

    events = Events()
    hook = "on_checkout" if keeps == "error" else "on_checkin"
    with create_pool(f"sqlite:///{tmp_path}/a.db", on_connect=made.append, observers=[events], **{hook: fail}) as pool:
        try:
            pool.execute("select 1")
        except ValueError as error:
            kept = error
        else:
            kept = next(event.error for event in events if event.kind == "hook_failed")
        pool.close()  # which waits until the goodbye that a worker says is said
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            made[0].execute("select 1")
        assert isinstance(kept, ValueError)
