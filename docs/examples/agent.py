"""A driver for something without a socket: an agent, a thread with a state of its own that is dear to make.

It stands for an interpreter, a model in memory, a browser: whatever only one caller may use at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from threadpool_db.drivers.base import BUSY, IDLE, OPEN, Driver, TransactionState


class AgentGone(Exception):
    pass


class Agent:
    """The connection. What it was told to remember is for the one who told it."""

    def __init__(self) -> None:
        self.memory: dict[str, Any] = {}
        self.gone = False
        self.task: Future[Any] | None = None
        self._todo: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="agent", daemon=True).start()

    def do(self, action: Callable[[dict[str, Any]], Any]) -> Any:
        task = self.task = Future()
        if self.gone:
            raise AgentGone
        self._todo.put(lambda: self._carry_out(task, action))
        result = task.result()
        self.task = None
        return result

    def stop(self) -> None:
        """From any thread: whoever waits for it waits no longer."""
        self.gone, task = True, self.task
        self._todo.put(None)
        if task is not None:
            with suppress(InvalidStateError):  # it has just been done
                task.set_exception(AgentGone())

    def _carry_out(self, task: Future[Any], action: Callable[[dict[str, Any]], Any]) -> None:
        try:
            result, error = action(self.memory), None
        except BaseException as raised:
            result, error = None, raised
        with suppress(InvalidStateError):  # nobody waits any more
            task.set_result(result) if error is None else task.set_exception(error)

    def _work(self) -> None:
        while (job := self._todo.get()) is not None:
            job()


class AgentDriver(Driver[Agent]):
    name = "agent"
    peeks = True

    def connect(self, timeout: float) -> Agent:
        return Agent()

    def close(self, connection: Agent) -> None:
        connection.stop()

    def peek(self, connection: Agent) -> bool:
        return not connection.gone

    def ping(self, connection: Agent) -> bool:
        return connection.do(lambda memory: True) is True

    def state(self, connection: Agent) -> TransactionState:
        if connection.task is not None and not connection.task.done():
            return BUSY
        return OPEN if connection.memory else IDLE

    def rollback(self, connection: Agent) -> None:
        connection.do(dict.clear)

    def interrupt(self, connection: Agent) -> None:
        connection.stop()

    def is_disconnect(self, error: BaseException, connection: Agent) -> bool:
        return connection.gone
