"""Do the fakes that everything else is tested with tell the truth?"""

from __future__ import annotations

import pytest

from tests.scene import SOON, background, join
from threadpool_db import TransactionState, testing
from threadpool_db.testing import FakeClock, Latch, ScriptedDriver, WatchedClock


def test_fake_time_stands_still_until_it_is_advanced():
    clock = FakeClock(start=5.0)
    assert clock.now() == clock.now() == 5.0
    clock.advance(2.5)
    assert clock.now() == 7.5


def test_a_sleeper_wakes_when_its_hour_has_come_and_not_before():
    clock = FakeClock(start=0.0)
    asleep = background(clock.wait, clock.gate(), 10.0)
    clock.wait_for_sleepers(1)
    clock.advance(9.0)
    assert clock.sleepers == 1
    clock.advance(1.0)
    asleep.result(SOON)
    assert clock.sleepers == 0


def test_a_sleeper_wakes_when_its_gate_is_opened_and_the_gate_is_shut_again():
    clock = FakeClock()
    gate = clock.gate()
    asleep = background(clock.wait, gate, float("inf"))
    clock.wait_for_sleepers(1)
    gate.release()
    asleep.result(SOON)
    assert gate.locked()


def test_whoever_waits_until_a_time_in_the_past_does_not_sleep():
    clock = FakeClock(start=3.0)
    clock.wait(clock.gate(), 3.0)


def test_an_open_gate_is_no_sleep_and_no_sleeper():
    clock = FakeClock()
    gate = clock.gate()
    gate.release()
    clock.wait(gate, float("inf"))
    assert clock.sleepers == 0


def test_alarms_ring_in_the_order_of_their_hours_each_at_its_own():
    clock = FakeClock(start=0.0)
    rung = []
    clock.keeper.at(3.0, lambda: rung.append(("late", clock.now())))
    clock.keeper.at(1.0, lambda: rung.append(("early", clock.now())))
    clock.advance(2.0)
    assert rung == [("early", 1.0)]
    clock.advance(2.0)
    assert rung == [("early", 1.0), ("late", 3.0)]
    assert clock.now() == 4.0


def test_a_cancelled_alarm_does_not_ring():
    clock = FakeClock()
    alarm = clock.keeper.at(clock.now() + 1.0, pytest.fail)
    assert clock.alarms == 1
    alarm.cancel()
    alarm.cancel()
    clock.advance(2.0)
    assert clock.alarms == 0


def test_a_wrong_test_fails_and_does_not_hang(monkeypatch):
    monkeypatch.setattr(testing, "PATIENCE", 0.01)
    clock, latch = FakeClock(), Latch()
    with pytest.raises(TimeoutError, match="0 threads are asleep, not 1"):
        clock.wait_for_sleepers(1)
    with pytest.raises(AssertionError, match="no gate was opened"):
        clock.wait(clock.gate(), float("inf"))
    with pytest.raises(TimeoutError, match="0 have arrived at the latch, not 2"):
        latch.wait_for(2)
    with pytest.raises(AssertionError, match="nobody opened the latch"):
        latch()


def test_a_latch_holds_whoever_comes_until_it_is_opened_and_nobody_after():
    latch = Latch()
    held = [background(latch) for _ in range(3)]
    latch.wait_for(3)
    assert not any(one.done() for one in held)
    latch.open()
    join(*held)
    latch()


def test_connections_are_numbered_and_counted():
    driver = ScriptedDriver()
    one, two = driver.connect(1.0), driver.connect(1.0)
    assert (one.number, two.number) == (1, 2)
    assert repr(one) == "<connection 1>"
    driver.close(one)
    assert repr(one) == "<connection 1 closed>"
    assert (driver.made, driver.closed, driver.most_open, driver.open) == (2, 1, 2, {two})
    assert driver.calls == {"connect": 2, "close": 1}


def test_a_script_is_followed_step_by_step_and_then_all_is_as_usual():
    driver = ScriptedDriver()
    driver.script("connect", OSError("no"), KeyboardInterrupt)
    with pytest.raises(OSError, match="no"):
        driver.connect(1.0)
    with pytest.raises(KeyboardInterrupt):
        driver.connect(1.0)
    connection = driver.connect(1.0)
    assert connection.number == 1
    driver.script("ping", False, lambda: False, lambda: None)
    assert [driver.ping(connection) for _ in range(4)] == [False, False, True, True]
    driver.script("peek", False)
    assert [driver.peek(connection) for _ in range(2)] == [False, True]


def test_a_standing_rule_holds_until_it_is_taken_back():
    driver = ScriptedDriver()
    driver.always("connect", OSError)
    for _ in range(2):
        with pytest.raises(OSError):
            driver.connect(1.0)
    driver.always("connect", None)
    driver.connect(1.0)


def test_transactions_and_modes_are_what_the_calls_made_of_them():
    driver = ScriptedDriver(autocommit=False)
    connection = driver.connect(1.0)
    assert driver.autocommit(connection) is False
    driver.set_autocommit(connection, True)
    assert driver.settled(connection, True)
    driver.begin(connection)
    assert driver.state(connection) is TransactionState.OPEN
    driver.commit(connection)
    assert driver.state(connection) is TransactionState.IDLE
    driver.begin(connection)
    driver.rollback(connection)
    assert driver.state(connection) is TransactionState.IDLE
    driver.reset(connection)
    assert driver.settled(connection, False)
    assert driver.descriptor(connection) is None
    assert driver.is_disconnect(ConnectionResetError(), connection)
    assert not driver.is_disconnect(ValueError(), connection)


@pytest.mark.parametrize("clock", [FakeClock(), WatchedClock()])
def test_io_inside_a_lock_of_the_clock_is_noticed(clock):
    driver = ScriptedDriver(clock)
    connection = driver.connect(1.0)
    with clock.lock():
        driver.ping(connection)
        driver.state(connection)  # a local question is no I/O
    assert driver.wrong == ["ping inside the pool's lock"]


def test_a_lock_that_another_thread_holds_is_nobody_elses_business():
    clock, inside = WatchedClock(), Latch()
    driver = ScriptedDriver(clock)

    def hold():
        with clock.lock():
            inside()

    holding = background(hold)
    inside.wait_for(1)
    driver.connect(1.0)
    inside.open()
    holding.result(SOON)
    assert driver.wrong == []


def test_calls_for_a_closed_connection_are_noticed():
    driver = ScriptedDriver()
    connection = driver.connect(1.0)
    driver.close(connection)
    driver.close(connection)
    driver.rollback(connection)
    assert driver.wrong == ["close of <connection 1 closed>", "rollback of <connection 1 closed>"]
    assert driver.closed == 1


def test_two_threads_in_one_connection_are_noticed():
    driver, latch = ScriptedDriver(), Latch()
    connection = driver.connect(1.0)
    driver.script("ping", latch)
    pinging = background(driver.ping, connection)
    latch.wait_for(1)
    driver.rollback(connection)
    latch.open()
    pinging.result(SOON)
    [wrong] = driver.wrong
    assert wrong.startswith("rollback of <connection 1> in MainThread while Thread-")
