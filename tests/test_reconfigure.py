"""Do other options hold from the moment they are set, all of them or none, and is it said what was done?"""

from __future__ import annotations

import dataclasses

import pytest

from tests.scene import SOON, background, in_child, scene
from threadpool_db import Backoff, Elastic, PoolConfig, PoolOverloaded, PoolTimeout, PoolUnavailable, live
from threadpool_db.config import NOT_YET
from threadpool_db.core.freshness import Freshness
from threadpool_db.core.holding import Holding
from threadpool_db.core.ledger import Ledger
from threadpool_db.core.rules import Rules
from threadpool_db.testing import Latch

STEADY = Backoff(1.0, 1.0, "exp")
CHANGEABLE = (
    "min_size max_size min_idle timeout max_waiting peek_after ping_after check_timeout connect_timeout max_connecting "
    "backoff grace max_lifetime lifetime_jitter max_idle max_uses keepalive max_lease leak_after inactive_after "
    "init_sql isolation read_only disconnect_on shed observers"
).split()


# --- What may be changed ----------------------------------------------------------------------------------------------


def test_of_every_option_it_is_decided_whether_it_can_be_changed():
    names = {field.name for field in dataclasses.fields(PoolConfig)}
    assert names | NOT_YET == set(CHANGEABLE) | set(live.FIXED)
    assert not set(CHANGEABLE) & set(live.FIXED)


def test_an_unknown_name_is_told_the_nearest():
    with scene() as s, pytest.raises(TypeError, match="unknown option 'max_sise'; did you mean 'max_size'"):
        s.pool.reconfigure(max_sise=3)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"timeout": 3, "max_size": 0}, "max_size=0: must be a whole number from 1 on"),
        ({"timeout": 3, "min_size": 11}, "min_size=11: must be at most 10"),
        ({"timeout": 3, "max_size": 4, "max_lease": 3}, "max_lease=3: needs background=True"),
        ({"timeout": 3, "isolation": "sometimes"}, "isolation='sometimes': must be"),
        ({"timeout": 3, "checkout": "thread"}, "checkout: cannot be changed while the pool runs: .*; make a new pool"),
        ({"timeout": 3, "sizing": Elastic()}, "sizing: cannot be changed"),
        ({"timeout": 3, "name": "another"}, "name: cannot be changed"),
        ({"timeout": 3, "reset": "never"}, "reset: cannot be changed"),
    ],
)
def test_all_is_changed_or_nothing(changes, why):
    with scene() as s:
        before = s.pool._config, s.pool._ledger.rules, s.pool._timeout
        with pytest.raises(ValueError, match=why):
            s.pool.reconfigure(**changes)
        assert (s.pool._config, s.pool._ledger.rules, s.pool._timeout) == before


def test_what_its_driver_cannot_do_changes_nothing(tmp_path):
    from threadpool_db import create_pool

    with create_pool(f"sqlite:///{tmp_path}/a.db") as pool:
        with pytest.raises(ValueError, match="isolation"):
            pool.reconfigure(timeout=3, isolation="read committed")
        assert pool._timeout == 10


def test_what_stays_as_it_is_is_not_said():
    with scene(max_size=4) as s:
        assert s.pool.reconfigure() == []
        assert s.pool.reconfigure(max_size=4, background=False) == []
        assert s.pool.reconfigure(max_size=4, timeout=3, max_idle=None) == ["timeout 10 -> 3", "max_idle 300 -> None"]


def test_all_that_the_ledger_derives_from_its_rules_is_derived_anew():
    rules = Rules(
        max_size=7, min_size=2, min_idle=1, max_connecting=3, backoff=STEADY, grace=3, background=True,
        freshness=Freshness(1, 2, 0.3, 4, 5, 6), holding=Holding(7, 8, 9),
    )  # fmt: skip
    ledger, fresh = Ledger(Rules(background=True)), Ledger(rules)
    ledger.reconfigure(rules, 1.0)
    same = ("rules", "fresh", "carefree", "unattended", "quiet_below", "easy")
    assert [getattr(ledger, name) for name in same] == [getattr(fresh, name) for name in same]
    for name, value in vars(fresh).items():
        if isinstance(value, (int, float, Rules, Freshness)) and name not in ("due", "opening"):
            assert getattr(ledger, name) == value, name
    assert vars(ledger.reach) == vars(fresh.reach)


# --- The size ---------------------------------------------------------------------------------------------------------


def test_a_smaller_pool_closes_the_coldest_and_the_rest_as_they_come_back():
    with scene(max_size=6) as s:
        s.fill(6)
        held = [s.pool.checkout() for _ in range(4)]
        assert s.pool.reconfigure(max_size=3) == ["max_size 6 -> 3: 2 idle ones closed, 1 closes as it comes back"]
        assert sorted(connection.number for connection in s.driver.open) == [3, 4, 5, 6]
        held[0].checkin()
        assert s.pool.stats().total == 3 and s.pool.stats().idle == 0
        for lease in held[1:]:
            lease.checkin()
        assert s.pool.stats().idle == s.pool.stats().max_size == 3
        s.assert_nothing_lost()


def test_a_smaller_pool_keeps_the_warmest():
    with scene(max_size=3) as s:
        s.fill(3)
        assert s.pool.reconfigure(max_size=1) == ["max_size 3 -> 1: 2 idle ones closed"]
        with s.pool.checkout() as connection:
            assert connection.number == 3


def test_whoever_waits_while_it_shrinks_is_still_served():
    with scene(max_size=3) as s:
        held = [s.pool.checkout() for _ in range(3)]
        waiters = s.line_up(2)
        assert s.pool.reconfigure(max_size=1) == ["max_size 3 -> 1: 2 more close as they come back"]
        for lease in held:
            lease.checkin()
        waiters[0].result(SOON).checkin()
        waiters[1].result(SOON).checkin()
        assert s.pool.stats().total == 1


def test_a_larger_pool_serves_the_line_at_once():
    with scene(max_size=1, max_connecting=3) as s:
        held = s.pool.checkout()
        waiters = s.line_up(2)
        assert s.pool.reconfigure(max_size=3) == ["max_size 1 -> 3: 2 of those in line served"]
        for waiter in waiters:
            waiter.result(SOON).checkin()
        held.checkin()
        assert s.pool.stats().idle == 3


def test_a_connect_under_way_when_it_shrinks_is_closed_if_it_is_one_too_many():
    with scene(max_size=2) as s:
        held = s.pool.checkout()
        s.driver.script("connect", latch := Latch())
        borrower = s.borrow()
        latch.wait_for(1)
        s.pool.reconfigure(max_size=1)
        latch.open()
        s.clock.wait_for_sleepers(1)
        assert (s.driver.made, s.driver.closed) == (2, 1)
        held.checkin()
        borrower.result(SOON).checkin()
        s.assert_nothing_lost()


def test_more_are_kept_ready_from_now_on():
    with scene(background=True) as s:
        assert s.pool.reconfigure(min_size=2) == ["min_size 0 -> 2: 2 being opened"]
        s.pool.wait()
        assert s.pool.stats().idle == 2


# --- The line ---------------------------------------------------------------------------------------------------------


def test_a_shorter_line_refuses_those_who_have_waited_longest():
    with scene(max_size=1) as s:
        held = s.pool.checkout()
        waiters = s.line_up(3)
        assert s.pool.reconfigure(max_waiting=1) == ["max_waiting None -> 1: 2 of those in line refused"]
        for waiter in waiters[:2]:
            with pytest.raises(PoolOverloaded, match=r"\(max_waiting=1\)"):
                waiter.result(SOON)
        held.checkin()
        waiters[2].result(SOON).checkin()


def test_other_patience_is_for_those_who_come_next():
    with scene(max_size=1) as s, s.pool.checkout():
        [before] = s.line_up(1)
        s.pool.reconfigure(timeout=3)
        [after] = [s.borrow()]
        s.clock.wait_for_sleepers(2)
        s.clock.advance(3)
        with pytest.raises(PoolTimeout, match="within 3 s"):
            after.result(SOON)
        assert not before.done()
        s.clock.advance(7)
        with pytest.raises(PoolTimeout, match="within 10 s"):
            before.result(SOON)


# --- Ages and looks ---------------------------------------------------------------------------------------------------


def test_what_has_been_idle_for_longer_than_the_new_limit_is_closed_at_once():
    with scene() as s:
        s.fill(2)
        s.clock.advance(20)
        assert s.pool.reconfigure(max_idle=10) == ["max_idle 300 -> 10: 2 idle ones closed"]


def test_a_shorter_lifetime_counts_from_the_opening_and_ends_not_all_at_once():
    with scene(max_size=20, max_idle=None, lifetime_jitter=0.5) as s:
        s.fill(20)
        s.clock.advance(500)
        s.pool.reconfigure(max_lifetime=100)
        left = [s.pool.stats().idle]
        for _ in range(5):
            s.clock.advance(10)
            s.read_mail()
            left.append(s.pool.stats().idle)
        assert left[0] == 20 and left[-1] == 0
        assert len(set(left)) > 2


def test_what_is_to_end_sooner_for_another_reason_still_does():
    with scene(max_idle=None) as s:
        s.fill(3)
        s.pool.recycle(within=60)
        s.pool.reconfigure(max_lifetime=100_000)
        s.clock.advance(60)
        s.read_mail()
        assert s.pool.stats().idle == 0


def test_no_lifetime_at_all_any_more():
    with scene(max_idle=None) as s:
        s.fill(1)
        s.pool.reconfigure(max_lifetime=None)
        s.clock.advance(100_000)
        s.read_mail()
        assert s.pool.stats().idle == 1


def test_the_looks_follow():
    with scene() as s:
        s.fill(1)
        s.pool.reconfigure(peek_after=5, ping_after=10)
        s.pool.checkout().checkin()
        assert s.driver.calls["peek"] == 0
        s.clock.advance(10)
        s.pool.checkout().checkin()
        assert s.driver.calls["ping"] == 1


def test_deadlines_of_leases_follow_for_what_is_lent_already():
    with scene(background=True) as s:
        lease = s.pool.checkout()
        s.clock.advance(20)
        s.pool.reconfigure(max_lease=30)
        s.clock.advance(9)
        assert lease.active
        s.clock.advance(1)
        assert lease.expired


def test_the_connect_limits_of_the_background_follow():
    with scene(background=True, max_connecting=1) as s:
        s.pool.reconfigure(connect_timeout=1.0, max_connecting=3)
        s.driver.script("connect", hangs := Latch())
        borrower = s.borrow()
        hangs.wait_for(1)
        s.clock.advance(1.0)
        with pytest.raises(Exception, match="could not connect") as failed:
            borrower.result(SOON)
        assert "connect_timeout=1 s" in str(failed.value.__cause__)
        hangs.open()
        assert s.pool._background._workers == 4


def test_without_a_backoff_nobody_retries_any_more():
    with scene(max_size=1, grace=60, backoff=STEADY) as s:
        s.pool.checkout().discard()
        s.pool.reconfigure(backoff=None)
        s.driver.always("connect", OSError)
        with pytest.raises(Exception, match="could not connect"):
            s.pool.checkout(60)
        s.pool.reconfigure(backoff=STEADY)
        [waiter] = s.line_up(1, timeout=30)
        s.driver.always("connect", None)
        s.clock.advance(1)
        waiter.result(SOON).checkin()


def test_what_its_server_is_known_for_goes_with_the_backoff():
    with scene(backoff=None) as s:
        assert s.pool._ledger.reach.server is None
        s.pool.reconfigure(backoff=STEADY)
        known = s.pool._ledger.reach.server
        s.pool.reconfigure(max_size=4)
        assert s.pool._ledger.reach.server is known is not None
        s.pool.reconfigure(backoff=None)
        assert s.pool._ledger.reach.server is None


def test_a_shorter_grace_holds_for_those_who_wait_already():
    with scene(max_size=1, grace=60, backoff=STEADY) as s:
        s.pool.checkout().discard()
        s.driver.always("connect", OSError)
        [waiter] = s.line_up(1, timeout=100)
        s.clock.advance(1)
        s.pool.reconfigure(grace=1)
        with pytest.raises(PoolUnavailable, match="grace=1 s"):
            waiter.result(SOON)


# --- Sessions ---------------------------------------------------------------------------------------------------------


def test_what_sessions_are_told_replaces_all_connections_and_says_no_secret():
    with scene(max_size=3) as s:
        s.fill(3)
        held = s.pool.checkout()
        told = s.pool.reconfigure(init_sql="set password = 'hush'", read_only=True)
        assert told[0] == "init_sql: 2 idle ones closed, 1 closes as it comes back"
        assert told[1].startswith("read_only None -> True")
        held.checkin()
        assert s.driver.open == set()
        with s.pool.checkout() as connection:
            assert connection.told == ["set password = 'hush'", "read only"]


def test_other_observers_hear_what_happens_next():
    heard = []
    with scene() as s:
        s.fill(1)
        s.pool.reconfigure(observers=[lambda event: heard.append(event.kind)])
        s.pool.recycle()
        assert heard == ["disconnected"]


def test_other_codes_doom_a_connection():
    class Moved(Exception):
        code = "57P01"

    with scene() as s:
        s.fill(1)
        s.pool.reconfigure(disconnect_on=["57P01"])
        with pytest.raises(Moved), s.pool.checkout():
            raise Moved
        assert s.driver.open == set()


def test_a_child_has_the_new_settings():
    with scene() as s:
        s.pool.reconfigure(max_size=3, timeout=7)
        assert in_child(lambda: (s.pool.stats().max_size, s.pool._timeout)) == "(3, 7)"


def test_two_who_reconfigure_at_once_both_have_their_way():
    with scene() as s:
        changes = [background(s.pool.reconfigure, **{name: 77}) for name in ("timeout", "max_size", "ping_after")]
        for change in changes:
            change.result(SOON)
        config = s.pool._config
        assert (config.timeout, config.max_size, config.ping_after) == (77, 77, 77)
