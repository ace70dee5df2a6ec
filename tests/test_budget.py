"""Do pools that share a budget keep to it, and does everybody get his turn? The rules are tested in ``core/``."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.scene import SOON, background, in_child, join, until
from threadpool_db import Budget, Pool, PoolTimeout, Spending
from threadpool_db.testing import FakeClock, ScriptedDriver


class Sharing:
    """Pools under one budget; ``drivers`` know what is open."""

    def __init__(self, limit: int, clock: Any = None) -> None:
        self.budget, self.clock = Budget(limit), clock
        self.pools: list[Pool] = []
        self.drivers: list[ScriptedDriver] = []
        self.most = 0

    def pool(self, **options: Any) -> Pool:
        driver = ScriptedDriver(self.clock)
        connect = driver.connect

        def counted(timeout: float) -> Any:
            self.most = max(self.most, self.open + 1)
            return connect(timeout)

        driver.connect = counted  # type: ignore[method-assign]
        self.drivers.append(driver)
        self.pools.append(Pool(driver, budget=self.budget, clock=self.clock, **options))
        return self.pools[-1]

    @property
    def open(self) -> int:
        return sum(len(driver.open) for driver in self.drivers)


@pytest.fixture(params=[False, True], ids=["borrowers connect", "a keeper connects"])
def background_option(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def two(background_option: bool) -> Iterator[Sharing]:
    sharing = Sharing(2)
    for _ in range(2):
        sharing.pool(background=background_option)
    yield sharing
    for pool in sharing.pools:
        pool.close()
    assert sharing.most <= 2


def drop(pools: list[Pool]) -> None:
    pools.clear()
    gc.collect()


def use(pool: Pool, timeout: float | None = None) -> None:
    pool.checkout(timeout).checkin()


def test_whoever_finds_no_permit_left_gets_that_of_what_was_used_least_recently(two: Sharing) -> None:
    first, second = two.pools
    with first.checkout(), first.checkout() as warm:
        pass
    use(first)  # takes the warm one
    assert two.budget.stats() == Spending(limit=2, used=2, waiting=0, pools=1, passed_on=0)
    use(second)
    [left] = two.drivers[0].open
    assert left is warm or left.number == 1  # the one that lay at the cold end is gone
    assert (first.stats().idle, second.stats().idle) == (1, 1)
    assert two.budget.stats() == Spending(limit=2, used=2, waiting=0, pools=2, passed_on=1)


def test_what_is_lent_is_not_taken_and_the_first_to_come_back_goes_to_who_has_waited_longest(two: Sharing) -> None:
    first, second = two.pools
    held = [first.checkout(), first.checkout()]
    other = background(use, second, SOON)
    until(lambda: second.stats().waiting)
    own = background(use, first, SOON)
    until(lambda: first.stats().waiting)
    held[0].checkin()
    join(other, own)
    assert two.budget.stats().passed_on >= 1
    held[1].checkin()


def test_a_wait_in_vain_says_that_the_budget_is_spent(two: Sharing) -> None:
    first, second = two.pools
    with first.checkout(), first.checkout(), pytest.raises(PoolTimeout) as caught:
        second.checkout(0.01)
    assert "All 2 permits of its budget are used, 0 of them by this pool" in str(caught.value)
    assert "Look at the other pools of this budget" in str(caught.value)
    assert caught.value.snapshot.permits_used == caught.value.snapshot.permits == 2


def test_what_a_closed_pool_had_is_free_for_others(two: Sharing) -> None:
    first, second = two.pools
    use(first)
    held = [first.checkout(), first.checkout()]
    waiting = background(use, second, SOON)
    closing = background(first.close, 0)
    join(waiting, closing)
    for lease in held:
        lease.discard()
    assert two.budget.stats().used == 1


def test_what_a_dropped_pool_had_is_free_for_others() -> None:
    sharing = Sharing(1)
    use(sharing.pool(background=False))
    with pytest.warns(ResourceWarning, match="was dropped without close"):
        drop(sharing.pools)
    second = sharing.pool(background=False)
    use(second, 0.1)
    second.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_lease_dropped_in_one_pool_serves_at_once_whoever_waits_in_another(two: Sharing) -> None:
    first, second = two.pools
    held = [first.checkout(), first.checkout()]
    waiting = background(use, second, 2 * SOON)
    until(lambda: second.stats().waiting and second._ledger.line.head.holder.waiting)
    held.pop()
    waiting.result(SOON)
    held.pop().checkin()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_lease_dropped_before_anybody_waited_serves_who_comes(two: Sharing) -> None:
    first, second = two.pools
    held = [first.checkout(), first.checkout()]
    with two.budget._lock:  # a finaliser can do no more than leave a note
        held.pop()
    use(second, SOON)
    held.pop().checkin()


def test_a_minimum_is_left_to_its_pool_and_fills_up_only_from_what_is_free() -> None:
    sharing = Sharing(3, FakeClock())
    with ExitStack() as end:
        for options in ({"min_size": 1}, {"background": False}):
            end.callback(sharing.pool(**options).close)
        first, second = sharing.pools
        first.wait(SOON)
        held = [second.checkout(), second.checkout()]
        assert first.stats().total == 1
        with pytest.raises(PoolTimeout):
            second.checkout(0)
        waiting = background(second.checkout, 1.0)
        sharing.clock.wait_for_sleepers(1)
        sharing.clock.advance(2.0)
        with pytest.raises(PoolTimeout):
            waiting.result(SOON)
        assert first.stats().idle == 1
        for lease in held:
            lease.checkin()


@pytest.mark.parametrize("limit", [0, -1, 1.5, float("inf"), "3", True, None])
def test_what_is_no_number_of_connections_is_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match="must be a whole number of connections from 1 on"):
        Budget(limit)


@pytest.mark.parametrize("wrong", [3, "3"])
def test_what_is_no_budget_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"budget=.?3.?: must be a Budget\(limit\)"):
        Pool(ScriptedDriver(), budget=wrong)


def test_smallest_sizes_that_leave_nothing_to_others_are_refused() -> None:
    sharing = Sharing(3)
    first = sharing.pool(min_size=2)
    with pytest.raises(ValueError, match="min_size=2: the smallest sizes of all pools of this budget are 4 together"):
        sharing.pool(min_size=2)
    sharing.pools.append(second := sharing.pool(min_size=1))
    with pytest.raises(ValueError, match=r"min_size=0: .* 3 together"):
        sharing.pool()
    with pytest.raises(ValueError, match=r"min_size=2: .* 4 together"):
        second.reconfigure(min_size=2)
    first.close()
    second.reconfigure(min_size=2)
    second.close()


def test_pools_of_another_clock_are_refused() -> None:
    sharing = Sharing(3)
    with sharing.pool(), pytest.raises(ValueError, match="its other pools go by another clock"):
        Pool(ScriptedDriver(), budget=sharing.budget, clock=FakeClock())


def test_a_pool_stays_under_its_budget() -> None:
    sharing = Sharing(3)
    with sharing.pool() as pool, pytest.raises(ValueError, match="budget: cannot be changed"):
        pool.reconfigure(budget=Budget(4))


def test_a_child_has_all_permits_again_and_its_parent_keeps_what_it_has() -> None:
    sharing = Sharing(2)
    with sharing.pool() as first, sharing.pool() as second:
        held = [first.checkout(), first.checkout()]

        def child() -> Any:
            before = sharing.budget.stats().used
            use(second, SOON)
            use(first, SOON)
            return before, sharing.budget.stats().used

        assert in_child(child) == "(0, 2)"
        assert sharing.budget.stats().used == 2
        for lease in held:
            lease.checkin()


def test_a_crowd_on_few_permits_is_served_and_the_count_is_exact(background_option: bool) -> None:
    sharing = Sharing(3)
    pools = [sharing.pool(background=background_option, max_size=2, timeout=SOON) for _ in range(4)]

    def work(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(40):
            lease = choose.choice(pools).checkout()
            if choose.random() < 0.1:
                lease.discard()
            else:
                lease.checkin()

    join(*(background(work, seed) for seed in range(12)))
    stats = sharing.budget.stats()
    assert stats.waiting == 0 and stats.used <= 3 and stats.passed_on > 0
    for pool in pools:
        assert pool.stats().in_use == 0
        pool.close()
    assert sharing.budget.stats().used == 0 and sharing.open == 0
    assert sharing.most <= 3
    assert [driver.wrong for driver in sharing.drivers] == [[]] * 4


def test_where_nobody_waits_a_connection_comes_back_the_short_way(two: Sharing) -> None:
    first, second = two.pools
    use(first)
    use(second)
    asked: list[str] = []
    for pool in two.pools:
        tell = pool._decide
        pool._decide = lambda *event, tell=tell, **more: asked.append("the long way") or tell(*event, **more)
    for _ in range(3):
        use(first)
        use(second)
    assert not asked


class TestWhoCloses:
    """What makes room for somebody else: whoever found it, if he has the time."""

    @pytest.fixture(params=[{}])
    def closes(self, request: pytest.FixtureRequest) -> Iterator[tuple[Sharing, list[str]]]:
        """By threads of these names."""
        sharing, names = Sharing(1), list[str]()

        def watch(driver: ScriptedDriver) -> None:
            close = driver.close

            def watched(connection: Any) -> None:
                names.append(threading.current_thread().name)
                close(connection)

            driver.close = watched  # type: ignore[method-assign]

        for _ in range(2):
            sharing.pool(check_timeout=0.5, **request.param)
            watch(sharing.drivers[-1])
        yield sharing, names
        for pool in sharing.pools:
            pool.close()

    def test_a_borrower_who_has_the_time_makes_room_for_himself(self, closes: tuple[Sharing, list[str]]) -> None:
        sharing, names = closes
        for pool in sharing.pools:
            use(pool, timeout=5.0)
        assert names == [threading.current_thread().name]

    def test_for_one_who_may_not_wait_as_long_as_a_close_may_take_a_worker_does(
        self, closes: tuple[Sharing, list[str]]
    ) -> None:
        sharing, names = closes
        for pool in sharing.pools:
            use(pool, timeout=0.5)
        assert names == ["threadpool_db-worker"]

    def test_one_that_is_given_back_its_borrower_closes(self, closes: tuple[Sharing, list[str]]) -> None:
        sharing, names = closes
        lease = sharing.pools[0].checkout()
        waits = background(use, sharing.pools[1], 5.0)
        until(lambda: sharing.budget.stats().waiting)
        lease.checkin()
        join(waits)
        assert names == [threading.current_thread().name]

    def test_what_is_closed_next_is_for_others_to_do(self, closes: tuple[Sharing, list[str]]) -> None:
        first, second = closes[0].pools
        apart, decide = [], first._decide

        def watched(event: Any, *subject: Any, **more: Any) -> Any:
            if event == first._ledger.closed_one:
                apart.append(more["apart"])
            return decide(event, *subject, **more)

        first._decide = watched  # type: ignore[method-assign]
        use(first)
        use(second, timeout=5.0)
        assert apart == [True]

    @pytest.mark.parametrize("closes", [{"on_close": lambda connection: None}], indirect=True)
    def test_a_hook_of_another_pool_holds_up_nobody_here(self, closes: tuple[Sharing, list[str]]) -> None:
        sharing, names = closes
        for pool in sharing.pools:
            use(pool, timeout=5.0)
        assert names == ["threadpool_db-worker"]


def test_smallest_sizes_count_from_the_first_on_that_has_one() -> None:
    budget = Budget(2)
    pools = [Pool(ScriptedDriver(), budget=budget, min_size=size) for size in (0, 1)]
    with pytest.raises(ValueError, match="leaves nothing"):
        Pool(ScriptedDriver(), budget=budget, min_size=1)
    pools.pop().close()
    pools.append(Pool(ScriptedDriver(), budget=budget, min_size=1))
    with pytest.raises(ValueError, match="leaves nothing"):
        pools[0].reconfigure(min_size=2)
    for pool in pools:
        pool.close()
