"""Does a driver keep what the pool relies on? Copy this beside your driver's tests, and call ``prove`` with it.

``kill`` ends a connection from the other side, and returns when its goodbye is here. ``soil`` leaves something on it
that the next borrower must not find, and ``soiled`` looks whether it is there. ``stall`` is a call that does not end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from threadpool_db import Pool
from threadpool_db.drivers.base import BUSY, IDLE, Driver
from threadpool_db.drivers.sockets import cut_socket, socket_identity

Act = Callable[[Any], Any]


def prove(driver: Driver[Any], *, kill: Act, soil: Act, soiled: Act, stall: Act) -> None:
    the_driver_alone(driver, kill)
    a_pool_over_it(driver, kill, soil, soiled)
    a_stuck_call_can_be_ended(driver, stall)


def the_driver_alone(driver: Driver[Any], kill: Act) -> None:
    with opened(driver, 2) as (first, second):
        assert first is not second
        mode = driver.autocommit(first)
        for _ in range(2):
            assert driver.settled(first, mode) and driver.peek(first)
            assert driver.ping(first)
            driver.rollback(first)
        assert quickest(lambda: (driver.settled(first, mode), driver.peek(first))) < 100e-6, "the looks must be local"
        assert not driver.is_disconnect(RuntimeError("somebody's own"), first)
        assert hash(driver.server_key) == hash(driver.server_key)
        kill(second)
        assert not (driver.peeks and driver.peek(second))
        try:
            answer, error = driver.ping(second), None
        except Exception as raised:
            answer, error = False, raised
        assert not answer and (error is None or driver.is_disconnect(error, second))
        for connection in (first, second):
            driver.close(connection)
            assert not (driver.peeks and driver.peek(connection))
            assert driver.descriptor(connection) is None


def a_pool_over_it(driver: Driver[Any], kill: Act, soil: Act, soiled: Act) -> None:
    with Pool(driver, max_size=1) as pool:
        with pool.checkout() as connection:
            soil(connection)
            assert soiled(connection) and driver.state(connection) is not IDLE
        with pool.checkout() as again:
            assert again is connection and not soiled(again), "cleaned, and lent again"
        kill(connection)
        with pool.checkout() as another:
            assert another is not connection and driver.ping(another), "replaced before anybody saw it"
        numbers = pool.stats()
        assert (numbers.opened, numbers.dead, numbers.in_use) == (2, 1, 0)


def a_stuck_call_can_be_ended(driver: Driver[Any], stall: Act) -> None:
    with opened(driver, 1) as (connection,):
        identity, errors = socket_identity(driver.descriptor(connection)), []

        def call() -> None:
            try:
                stall(connection)
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        until = time.monotonic() + 10
        while driver.state(connection) is not BUSY and time.monotonic() < until:
            time.sleep(0.001)
        driver.interrupt(connection) if identity is None else cut_socket(identity)
        thread.join(10)
        assert errors and driver.is_disconnect(errors[0], connection)


@contextmanager
def opened(driver: Driver[Any], count: int) -> Iterator[list[Any]]:
    connections = [driver.connect(5.0) for _ in range(count)]
    try:
        yield connections
    finally:
        for connection in connections:
            with suppress(Exception):  # closed by the test
                driver.close(connection)


def quickest(action: Callable[[], Any]) -> float:
    def once() -> float:
        started = time.perf_counter()
        action()
        return time.perf_counter() - started

    return min(once() for _ in range(100))
