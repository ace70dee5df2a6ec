"""What do a server that is away, and the threads that want it, see of each other?

A real server is killed and comes back, behind a proxy that notes when each connect arrives. Away: the server is tried
once in each step of the backoff, whoever asks is told at once. Back: it is noticed within a step, and met by a ramp.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults.bank import (
    Bank,
    Load,
    Watcher,
    assert_failed_by_the_driver,
    assert_nothing_lost,
    eventually,
    is_drivers,
    meet_all,
    tried,
)
from tests.faults.bounds import Late, best_of, note
from tests.proxy import FaultProxy
from threadpool_db import Backoff, PoolUnavailable

THREADS, SIZE, GRACE, FIFTY = 32, 8, 0.5, 50
#: so each step is known: 0.1, 0.2, 0.4, then 0.5
STEPS = Backoff(0.1, 0.5, kind="exp")
#: for a busy machine to start a thread, log in, and tell
MARGIN = 1.5
#: what a try takes beside its step: a worker is woken, a login, and the answer
A_LOGIN = 0.15
#: how soon somebody is refused
AT_ONCE = 0.005


class Doorman(FaultProxy):
    """Notes when connects arrive, in vain or not: while its server is away they are accepted and reset."""

    def __init__(self, port: int) -> None:
        self.arrivals: list[float] = []
        super().__init__(port)

    def _on_connect(self, events: int) -> None:
        self.arrivals.append(time.monotonic())
        super()._on_connect(events)

    def between(self, begin: float, end: float) -> list[float]:
        return [arrival for arrival in self.arrivals if begin <= arrival < end]


@pytest.fixture
def doorman(bank_or_tls: Bank) -> Iterator[Doorman]:
    with Doorman(bank_or_tls.site.server.port) as doorman:
        yield doorman


class Diary(Watcher):
    """When what happened."""

    def __init__(self) -> None:
        super().__init__()
        self.times: dict[str, list[float]] = {}

    def __call__(self, event: Any) -> None:
        self.times.setdefault(event.kind, []).append(time.monotonic())
        super().__call__(event)

    def first(self, kind: str, since: float) -> float:
        return min(when for when in self.times[kind] if when >= since)


def pass_time(seconds: float) -> None:
    """Not to wait for anything: the time itself is the fault."""
    threading.Event().wait(seconds)


@pytest.fixture
def frozen() -> Iterator[None]:
    """What the test runner has, and what it notes of all these requests, is not looked through by a collection that
    lands in one of them: that takes 300 ms."""
    young, middle, old = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(young, middle, 1_000_000)
    yield
    gc.set_threshold(young, middle, old)
    gc.unfreeze()


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize(
    ("seconds", "breath", "pools"),
    [(2.5, 0.1, 2), pytest.param(20, 0.01, 1, marks=[pytest.mark.proof, pytest.mark.timeout(300)])],
)
def test_an_outage_costs_the_server_one_connect_in_each_step_and_nobody_his_time(
    bank_or_tls: Bank, doorman: Doorman, seconds: float, breath: float, pools: int
) -> None:
    bank, site, diary = bank_or_tls, bank_or_tls.site, Diary()
    options = {"max_size": SIZE // pools, "grace": GRACE, "backoff": STEPS, "observers": [diary], "timeout": 20}
    with contextlib.ExitStack() as stack:
        ours = [stack.enter_context(site.pool(doorman.port, **options)) for _ in range(pools)]
        for pool in ours:
            meet_all(site, pool, SIZE // pools)
        loads = [Load(bank, pool, THREADS // pools, breath=breath) for pool in ours]
        with contextlib.ExitStack() as working:
            for load in loads:
                working.enter_context(load)
            begun = time.monotonic()
            site.server.kill(signal.SIGKILL)
            away = time.monotonic()
            for load in loads:
                load.wait_for(PoolUnavailable)
            pass_time(max(away + seconds - time.monotonic(), 0.5))
            returning = time.monotonic()
            site.server.restart()
            back = time.monotonic()
            diary.wait_for("connected", diary.seen["connected"] + 2)
            for load in loads:
                load.go_on()
            pass_time(max(back + MARGIN - time.monotonic(), 0))  # so that the ramp is over
        failing = diary.first("connect_failed", begun)
        healed = diary.first("connected", away)

        # One connect in each step, for all pools: an attempt arrives after it started, and a step begins when one has
        # failed. Each pool counts its own failures: it was not the first that failed when we begin to look.
        first = failing + STEPS.shortest  # what comes before was begun before anybody knew
        tries = doorman.between(first, healed)
        gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
        assert len(gaps) >= 3
        for shorter, steps in ((0.2, 0), (0.4, 1), (STEPS.longest, 2)):
            assert sum(gap < shorter for gap in gaps) <= steps * pools, gaps
        note("the next try after its step", max(gaps) - STEPS.longest - A_LOGIN)
        assert len(doorman.between(begun, first)) <= 2 * pools  # max_connecting

        # whoever asks is told at once, and why
        waits, deeds = [], []
        for load in loads:
            told = [deed for deed in load.deeds if isinstance(deed.error, PoolUnavailable)]
            opened = min(deed.over for deed in told)
            assert failing + GRACE <= opened < failing + GRACE + MARGIN
            during = [deed for deed in load.deeds if deed.begun >= opened and deed.over < returning]
            assert during and all(isinstance(deed.error, PoolUnavailable) for deed in during)
            assert all(is_drivers(site, deed.error.__cause__) for deed in told if deed.error)
            waits += [deed.over - deed.begun for deed in during]
            deeds += during
        waits.sort()
        worked = max(deed.worked for deed in deeds)
        p99 = waits[int(len(waits) * 0.99)]
        tried_at = max(arrival for arrival in doorman.arrivals if arrival <= healed)
        failed_until = max(load.failures[-1].over for load in loads)
        print(f"refused {len(waits)}, median {statistics.median(waits) * 1000:.2f} ms, p99 "
              f"{p99 * 1000:.1f} ms, max {waits[-1] * 1000:.0f} ms, of the processor {worked * 1000:.2f} ms at most, "
              f"tries {len(tries)}, the good one {tried_at - back:.2f} s after the return, healed in "
              f"{healed - tried_at:.3f} s, failures on for {failed_until - healed:.3f} s")  # fmt: skip
        in_time(statistics.median(waits), AT_ONCE, "a refusal in the median")
        in_time(worked, AT_ONCE, "what a refusal takes of the processor")
        in_time(p99, AT_ONCE, "a refusal in 99 of 100 cases")
        assert waits[-1] < 2.0

        # the way back: within a step of its return the server is tried, and that does it
        note("the try that found it", tried_at - back - STEPS.longest - A_LOGIN)
        note("the connect that found it", healed - tried_at - A_LOGIN)
        assert len(doorman.between(healed, healed + 1.0)) <= 4
        for load in loads:
            opened = min(deed.over for deed in load.deeds if isinstance(deed.error, PoolUnavailable))
            served = min(deed.over for deed in load.deeds if deed.begun > opened and not deed.error)
            assert [deed for deed in load.failures if deed.begun > served] == []
        for pool in reversed(ours):
            with Load(bank, pool, THREADS) as load:
                pass
            assert load.failures == []
            if pool is ours[0]:
                assert_nothing_lost(bank, pool)
            else:
                pool.close()


def in_time(seconds: float, limit: float, what: str) -> None:
    """Without any slack."""
    if seconds >= limit:
        raise Late(f"{what}: {seconds * 1000:.1f} ms")


def test_it_is_tried_though_nobody_asks_and_who_comes_after_a_long_silence_is_served_if_the_server_is_back(
    bank_or_tls: Bank, doorman: Doorman
) -> None:
    bank = bank_or_tls
    with bank.site.pool(doorman.port, max_size=2, grace=0.2, backoff=Backoff(0.1, 0.2)) as pool:
        meet_all(bank.site, pool, 2)
        bank.site.server.kill(signal.SIGKILL)
        eventually(lambda: isinstance(tried(pool), PoolUnavailable), "the breaker is open")
        refused, tries = pool.stats().refused, len(doorman.arrivals)
        eventually(lambda: len(doorman.arrivals) >= tries + 3, "it goes on trying")
        bank.site.server.restart()
        eventually(lambda: pool.stats().idle == 1, "it is connected again")
        assert pool.execute("select 1") == [(1,)]
        assert pool.stats().refused == refused
        assert_nothing_lost(bank, pool)


class Connecting:
    """How many connects are under way, from ``configure`` until the pool says how they ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = 0

    def begin(self, parameters: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        return parameters

    def __call__(self, event: Any) -> None:
        if event.kind in ("connected", "connect_failed"):
            with self._lock:
                self.now -= 1


KILL: dict[bool, Callable[[Bank], object]] = {
    True: lambda bank: bank.site.command(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'the_pool'"
    ),
    False: lambda bank: bank.site.command("kill user the_pool"),
}


def fifty_killed_at_once(bank: Bank) -> None:
    connecting = Connecting()
    options = {"max_size": FIFTY, "max_connecting": 3, "configure": connecting.begin, "observers": [connecting]}
    with bank.site.pool(timeout=30, **options) as pool:
        sessions = meet_all(bank.site, pool, FIFTY)
        connecting.most = 0
        with Load(bank, pool, FIFTY) as load:
            begun = time.monotonic()
            KILL[bank.site.postgresql](bank)
            eventually(lambda: not set(sessions) & set(bank.site.sessions()), "all are gone")
            load.go_on(200)
        assert 1 <= connecting.most <= 3
        assert_failed_by_the_driver(bank.site, load.failures)
        in_flight = [deed for deed in load.failures if deed.begun < begun]
        assert len(in_flight) <= FIFTY
        assert len(load.failures) - len(in_flight) <= FIFTY
        assert_nothing_lost(bank, pool)


def test_fifty_killed_at_once_under_load_come_back_a_few_at_a_time_and_fail_what_was_in_flight(
    bank_or_tls: Bank,
) -> None:
    fifty_killed_at_once(bank_or_tls)


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_fifty_killed_at_once_again_and_again_come_back_each_time(bank: Bank) -> None:
    for _ in range(20):
        best_of(lambda: fifty_killed_at_once(bank))
