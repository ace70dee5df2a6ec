"""Does every connection that was told of come to exactly one end, however it ends?"""

from __future__ import annotations

import gc
import logging
import math
import random
import threading
from collections import Counter

import pytest

from tests.scene import SOON, Seen, background, join, scene
from tests.test_servers import eventually
from threadpool_db import Backoff, PoolError, TransactionState
from threadpool_db.testing import Latch, WatchedClock


@pytest.fixture
def seen():
    return Seen()


def test_a_close_that_fails_is_told_as_an_end_all_the_same(seen):
    broken = OSError("broken pipe")
    with scene(observers=[seen]) as s:
        s.driver.script("close", broken)
        s.pool.checkout().discard()
        assert (seen[-1].kind, seen[-1].error) == ("disconnected", broken)


def test_a_detached_connection_has_ended_for_the_pool(seen):
    with scene(observers=[seen]) as s:
        s.pool.checkout().detach()
        assert seen.kinds == ["connected", "disconnected"]
        assert "detached" in seen[-1].detail


def test_nobody_hears_of_an_end_before_the_beginning(seen):
    """Not even of a connection that came too late and was closed by somebody else at once."""
    with scene(observers=[seen], max_size=1) as s:
        latch = Latch()
        s.driver.script("connect", latch)
        opener = s.borrow()
        latch.wait_for(1)
        s.pool.recycle()
        latch.open()
        opener.result(SOON).checkin()
        assert seen.kinds == ["connected", "disconnected", "connected"]


def test_an_interrupt_inside_an_observer_leaves_nothing_open_that_nobody_knows(seen):
    def interrupted(event):
        if event.kind == "connected" and s.driver.made == 1:
            raise KeyboardInterrupt

    with scene(observers=[seen, interrupted], max_size=1) as s:
        with pytest.raises(KeyboardInterrupt):
            s.pool.checkout()
        assert s.driver.open == set()
        assert seen.kinds == ["connected", "disconnected"]
        s.fill(1)


@pytest.mark.parametrize("seed", range(5))
def test_every_connected_has_exactly_one_disconnected_after_random_operations(seen, seed):
    def flaky(event):
        if dice.random() < 0.2:
            raise RuntimeError(event.kind)

    dice = random.Random(seed)
    with scene(clock=WatchedClock(), observers=[seen, flaky], max_size=3, backoff=Backoff(0, 0)) as s:

        def run(mine):
            for _ in range(60):
                s.driver.script("connect", *[OSError] * (mine.random() < 0.05))
                s.driver.script("peek", *[False] * (mine.random() < 0.05))
                try:
                    lease = s.pool.checkout(timeout=5)
                except PoolError:
                    continue
                lease.connection.state = mine.choice(list(TransactionState))
                mine.choice((lease.checkin, lease.checkin, lease.discard, lease.detach))()
                if mine.random() < 0.05:
                    s.pool.recycle()

        join(*[background(run, random.Random(f"{seed} {n}")) for n in range(4)])
        s.pool.close()
        counts = Counter(seen.kinds)
        assert counts["connected"] == counts["disconnected"] == s.driver.made
        stats = s.pool.stats()
        assert counts["connected"] == stats.opened
        assert counts["connect_failed"] == stats.connect_failures
        assert counts["dead"] == stats.dead
        assert stats.total == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_however_it_ends_every_connected_has_exactly_one_disconnected(seed, background, caplog):
    """Closed, detached, lost, expired, interrupted, with the pool; a listener raises now and then."""
    caplog.set_level(logging.CRITICAL, "threadpool_db")  # it keeps errors too

    def count(event):  # keeps no errors, whose frames know leases
        counts[event.kind] += 1
        early.append(counts["disconnected"] > counts["connected"])

    def flaky(event):
        if dice.random() < 0.2:
            raise RuntimeError(event.kind)

    def interrupt():  # strikes no worker
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    dice, held, early, counts = random.Random(seed), [], [], Counter()
    options = {"background": background, "max_lease": 3.0} if background else {}
    with scene(observers=[count, flaky], max_size=3, backoff=Backoff(0, 0), grace=math.inf, **options) as s:
        s.pool._ledger.reach.server = None  # the way back from an outage would want time to pass while we wait

        def borrow():
            s.driver.script("connect", *dice.choice([[], [], [], [OSError], [interrupt]]))
            s.driver.script("peek", *dice.choice([[], [], [], [False], [interrupt]]))
            held.append(s.pool.checkout(timeout=5 if len(held) < 3 and s.pool.stats().total < 3 else 0))

        def end():
            lease = held.pop(dice.randrange(len(held)))
            if lease.active:
                lease.connection.state = dice.choice(list(TransactionState))
            for method in ("close", "rollback"):
                s.driver.script(method, *dice.choice([[], [], [OSError], [interrupt]]))
            dice.choice((lease.checkin, lease.checkin, lease.discard, lease.detach, lambda: None))()

        for _ in range(200):
            try:
                dice.choice((borrow, borrow, end if held else borrow))()
                if dice.random() < 0.1:
                    s.pool.recycle(within=dice.choice((0.0, 2.0)))
                if dice.random() < 0.1:
                    s.clock.advance(dice.choice((1.0, 5.0, 500.0)))
                s.pool.stats()
            except (PoolError, KeyboardInterrupt):
                pass
        s.driver.forget_scripts()
        while held:
            held.pop()
        s.pool.close()
        s.read_mail()
        assert eventually(lambda: s.pool.stats().total == 0)
        assert eventually(lambda: counts["disconnected"] == counts["connected"]), counts
        assert counts["connected"] > 20 and not any(early)
        assert eventually(lambda: counts["connect_failed"] == s.pool.stats().connect_failures)


def struck(method, before):
    """A method that an interrupt strikes, the first time, before it does anything or after."""
    strokes = [KeyboardInterrupt]

    def interrupted(*args, **options):
        if before and strokes:
            raise strokes.pop()
        result = method(*args, **options)
        if strokes:
            raise strokes.pop()
        return result

    return interrupted


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("room", "method", "end"),
    [
        ("_upkeep", "close", "discard"),
        ("_ledger", "closed_one", "discard"),
        ("_ledger", "detach", "detach"),
        (None, "_do", "detach"),
    ],
)
def test_an_end_that_is_interrupted_is_told_once_whoever_brings_it_to_its_end(
    seen, room, method, end, before, monkeypatch
):
    with scene(observers=[seen], max_size=1) as s:
        lease = s.pool.checkout()
        place = getattr(s.pool, room) if room else s.pool
        monkeypatch.setattr(place, method, struck(getattr(place, method), before))
        with pytest.raises(KeyboardInterrupt):
            getattr(lease, end)()
        del lease
        gc.collect()
        s.pool.stats()
        s.pool.stats()
        assert s.pool.stats().total == 0
        [told] = [event for event in seen if event.kind == "disconnected"]
        assert ("detached" in told.detail) is bool(s.driver.open)


def test_an_interrupt_while_what_an_interrupt_left_is_closed_keeps_nobody_from_hearing_of_the_end(seen):
    def interrupted(event):
        if event.kind == "connected":
            raise KeyboardInterrupt

    with scene(observers=[seen, interrupted], max_size=1) as s:
        s.driver.script("close", KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            s.pool.checkout()
        assert seen.kinds == ["connected", "disconnected"]
        assert s.pool.stats().total == 0
