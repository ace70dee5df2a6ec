"""What does a borrower feel of a session that ends under him? Killed by the server or reset on the way, idle, in a
statement or in a transaction."""

from __future__ import annotations

import random

import pytest

from tests.drivers import ask, wait_for_goodbye
from tests.faults.bank import Load, assert_failed_by_the_driver, assert_nothing_lost, eventually, meet_all
from tests.scene import SOON, background

SIZE = 4
ROUNDS = 8


@pytest.fixture
def pool(any_bank):
    with any_bank.site.pool(max_size=SIZE) as pool:
        yield pool


def test_sessions_killed_while_idle_cost_nobody_anything(any_bank, pool):
    sessions = meet_all(any_bank.site, pool, SIZE)
    any_bank.site.kill(*sessions)
    for socket in sessions.values():
        wait_for_goodbye(socket)
    dice = random.Random(1)
    for _ in range(50):
        any_bank.operate(pool, dice)
    stats = pool.stats()
    assert (stats.timeouts, stats.connect_failures) == (0, 0) and 1 <= stats.dead <= SIZE
    assert_nothing_lost(any_bank, pool)


def test_a_session_killed_in_a_statement_fails_that_statement_alone(any_bank, pool):
    site = any_bank.site
    asleep = [background(pool.execute, site.nap) for _ in range(SIZE)]
    waiting = background(pool.execute, "select 1")
    sessions = eventually(lambda: len(found := site.running(site.nap)) == SIZE and found, "all are in the statement")
    site.kill(*sessions)
    for one in asleep:
        assert isinstance(one.exception(SOON), site.module.Error)
    assert waiting.result(SOON) == [(1,)]
    assert_nothing_lost(any_bank, pool)


@pytest.mark.parametrize("at", ["next statement", "commit"])
def test_a_session_killed_in_a_transaction_fails_all_of_it(any_bank, pool, at):
    site = any_bank.site
    with pytest.raises(site.module.Error):
        with pool.transaction() as connection:
            ask(connection, "update account set balance = balance + 1 where id = 1")
            site.kill(ask(connection, site.session)[0][0])
            if at == "next statement":
                ask(connection, "update account set balance = balance - 1 where id = 2")
    assert_nothing_lost(any_bank, pool)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the leak is reported, rightly
def test_a_lease_dropped_in_a_transaction_does_not_leave_it_open_though_nobody_waits(any_bank, pool):
    meet_all(any_bank.site, pool, SIZE)
    lease = pool.checkout()
    ask(lease.connection, "update account set balance = balance + 1 where id = 1")
    assert any(any_bank.site.sessions().values())
    del lease
    eventually(lambda: not any(any_bank.site.sessions().values()), "its transaction has ended", 5)
    assert_nothing_lost(any_bank, pool)


@pytest.mark.parametrize("statement", ["select 1", "commit"])
def test_a_session_killed_in_a_transaction_begun_by_hand_is_not_replaced_unnoticed(any_bank, pool, statement):
    site = any_bank.site
    with pytest.raises(site.module.Error):
        pool.execute("begin")
        pool.execute("update account set balance = balance + 1 where id = 1")
        site.kill(pool.execute(site.session)[0][0])
        pool.execute(statement)
    assert not pool.in_transaction
    assert pool.execute("select 1") == [(1,)]
    assert_nothing_lost(any_bank, pool)


def test_sessions_killed_under_load_cost_at_most_one_operation_each(any_bank, pool):
    site, dice, killed = any_bank.site, random.Random(2), 0
    with Load(any_bank, pool) as load:
        for _ in range(ROUNDS):
            there = sorted(site.sessions())
            victims = dice.sample(there, dice.randint(1, len(there)))
            killed += len(victims)
            site.kill(*victims)
            load.go_on(20)
    assert_failed_by_the_driver(site, load.failures)
    assert 1 <= len(load.failures) <= killed
    assert_nothing_lost(any_bank, pool)


def test_connections_reset_while_idle_cost_nobody_anything(any_bank, proxy):
    wire = proxy(any_bank.site.server.port)
    with any_bank.site.pool(wire.port, max_size=SIZE) as pool:
        meet_all(any_bank.site, pool, SIZE)
        assert wire.reset() == SIZE
        dice = random.Random(3)
        for _ in range(50):
            any_bank.operate(pool, dice)
        assert_nothing_lost(any_bank, pool)


@pytest.mark.parametrize("how", ["reset", "cut"])
def test_connections_ended_on_the_way_under_load_cost_at_most_one_operation_each(any_bank, proxy, how):
    wire, ended = proxy(any_bank.site.server.port), 0
    with any_bank.site.pool(wire.port, max_size=SIZE) as pool:
        with Load(any_bank, pool) as load:
            for _ in range(ROUNDS):
                ended += getattr(wire, how)()
                load.go_on(20)
        assert_failed_by_the_driver(any_bank.site, load.failures)
        assert 1 <= len(load.failures) <= ended
        assert_nothing_lost(any_bank, pool)
