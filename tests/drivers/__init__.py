"""What do the tests of the drivers share? Statements of their own, and the end of a session as its client sees it."""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from threadpool_db.drivers.base import Driver


def ask(connection: Any, sql: str) -> Any:
    """Run one statement; its rows if it has any."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else None


def failing(connection: Any, sql: str) -> BaseException:
    """The error that this statement must raise."""
    try:
        ask(connection, sql)
    except Exception as error:
        return error
    raise AssertionError(f"did not fail: {sql}")


@contextmanager
def opened(driver: Driver[Any], timeout: float = 10.0) -> Iterator[Any]:
    connection = driver.connect(timeout)
    try:
        yield connection
    finally:
        try:
            driver.close(connection)
        except Exception:  # the test has closed or killed it
            pass


def wait_for_goodbye(descriptor: int) -> None:
    """Until the peer has hung up, as the kernel sees it."""
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    assert poll.poll(10_000), "the peer did not hang up"


def wait_for_data(descriptor: int) -> None:
    assert select.select([descriptor], [], [], 10)[0], "nothing came"
