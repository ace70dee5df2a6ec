"""Do the two drivers of this directory keep what the pool relies on?

Call such a function in a test of your own. ``use`` is what a borrower does, ``change`` what the next one must not find,
``seen`` how it would be found.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from threadpool_db.contract import Acts, prove
from threadpool_db.drivers.base import Driver


def prove_lines(driver: Driver[Any], elsewhere: Callable[[str, int], Driver[Any]]) -> list[str]:
    return prove(
        driver,
        Acts(
            use=lambda connection: connection.ask("PING"),
            change=lambda connection: connection.ask("USE accounts"),
            seen=lambda connection: connection.ask("WHICH"),
            elsewhere=elsewhere,
        ),
    )


def prove_agents(driver: Driver[Any]) -> list[str]:
    return prove(
        driver,
        Acts(
            use=lambda connection: connection.do(lambda memory: None),
            change=lambda connection: connection.do(lambda memory: memory.update(mood="bad")),
            seen=lambda connection: connection.do(lambda memory: "mood" in memory),
            kill=lambda connection: connection.stop(),
            stall=lambda connection: connection.do(lambda memory: threading.Event().wait(20)),
            silence=busy,
        ),
    )


@contextmanager
def busy(connection: Any) -> Iterator[None]:
    """The agent is at something else: what is asked of it waits."""
    begun, over = threading.Event(), threading.Event()
    other = threading.Thread(target=connection.do, args=(lambda memory: begun.set() or over.wait(),))
    other.start()
    begun.wait()
    try:
        yield
    finally:
        over.set()
        other.join()
