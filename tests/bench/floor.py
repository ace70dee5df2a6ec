"""What is the least that lending connections to threads can cost? A list, a lock and a condition.

It guarantees nothing but that two threads never have the same connection: no order, no deadline, no look at the
connection, nothing told. Every other figure is a multiple of this one.
"""

from __future__ import annotations

import threading


class Floor:
    def __init__(self, size: int) -> None:
        self._idle = [object() for _ in range(size)]
        self._some_idle = threading.Condition(threading.Lock())

    def take(self) -> object:
        with self._some_idle:
            while not self._idle:
                self._some_idle.wait()
            return self._idle.pop()

    def give(self, connection: object) -> None:
        with self._some_idle:
            self._idle.append(connection)
            self._some_idle.notify()
