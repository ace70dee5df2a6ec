"""What does a program get that asks a ``Proxy`` for a cursor? ``Cursor``, as PEP 249 describes one.

It makes a cursor of the driver's for each statement, over a connection that is borrowed for that statement, and keeps
what the statement answered. Where rows are still to come a ``Reader`` keeps the driver's cursor and the connection.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from threadpool_db.checkout.reader import Answer, Reader, next_set, read_all
from threadpool_db.errors import PoolMisuse, StaleLease
from threadpool_db.lease import caller, entry_of

if TYPE_CHECKING:
    from typing_extensions import Self

    from threadpool_db.checkout.proxy import Proxy


class Cursor:
    """A PEP 249 cursor, made by ``Proxy.cursor()``. Borrows nothing until it executes."""

    def __init__(self, proxy: Proxy, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.connection = proxy
        self.arraysize = 1
        self._args, self._options = args, options
        self._sizes: list[tuple[str, tuple[Any, ...]]] = []
        self._closed = False
        self._reader: Reader | None = None
        self._answers: deque[Answer] = deque((Answer(),))  # the first is the one being read

    description = property(lambda self: self._answers[0].description)
    rowcount = property(lambda self: self._answers[0].rowcount)
    lastrowid = property(lambda self: self._answers[0].lastrowid)

    # --- Statements -------------------------------------------------------------------------------------------------

    def execute(self, operation: Any, *parameters: Any, **options: Any) -> Any:
        """Run one statement. Returns what the driver's cursor returns, and this one where that returns itself."""
        return self._run("execute", operation, caller(), (operation, *parameters), options)

    def executemany(self, operation: Any, parameters: Any, **options: Any) -> Any:
        """Run it once for each of the parameters."""
        return self._run("executemany", operation, caller(), (operation, parameters), options)

    def callproc(self, name: str, *parameters: Any) -> Any:
        """Call a stored procedure, which may do anything to its session: see ``Pool.scope``."""
        call = f"call {name}()" if self.connection._face._upkeep.driver.dialect == "mysql" else f"select {name}()"
        return self._run("callproc", call, caller(), (name, *parameters), {})

    def setinputsizes(self, *sizes: Any) -> None:
        """For the next statement, as the driver takes it."""
        self._usable()
        self._sizes.append(("setinputsizes", sizes))

    def setoutputsize(self, *size: Any) -> None:
        """For the next statement, as the driver takes it."""
        self._usable()
        self._sizes.append(("setoutputsize", size))

    def _run(self, method: str, sql: Any, frame: FrameType, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        proxy = self._usable()
        self._leave_rest()
        self._answers = deque((Answer(),))
        sizes, self._sizes = self._sizes, []

        def action(connection: Any) -> Any:
            proxy._meet(connection)
            real = connection.cursor(*self._args, **self._options)
            try:
                if not hasattr(real, method):
                    raise proxy._error(PoolMisuse, f"this driver's cursors have no {method}()", "NotSupportedError")
                for name, values in sizes:
                    if hasattr(real, name):
                        getattr(real, name)(*values)
                result = getattr(real, method)(*args, **options)
                self._take(connection, real)
            except BaseException:
                if self._reader is not None:
                    self._reader.shut()
                    self._reader = None
                with contextlib.suppress(Exception):
                    real.close()
                raise
            return self if result is real else result

        return proxy._operate(sql, frame, action)

    def _take(self, connection: Any, real: Any) -> None:
        """What the driver's cursor has to say, and has to say yet."""
        proxy = self.connection
        face, hold = proxy._face, proxy._face._hold()
        driver = face._upkeep.driver
        if getattr(real, "withhold", False):  # a server-side cursor that outlives its transaction
            assert hold.lease is not None
            entry_of(hold.lease).reset_first = hold.pinned = True
        # a commit of ours, where the driver has no autocommit, would end a cursor that is open
        if driver.buffered(real) or (proxy.autocommit and not driver.has_autocommit and not hold.blocks):
            answers = deque((read_all(real),))
            while next_set(real):
                answers.append(read_all(real))
            self._answers = answers
            real.close()
            return
        self._reader = reader = Reader(proxy, hold, real)
        hold.readers.append(reader)
        reader.begin()
        self._answers = deque((reader.answer,))

    # --- Rows -------------------------------------------------------------------------------------------------------

    def fetchone(self) -> Any:
        """The next row, or None."""
        rows = self._rows(1)
        return rows.popleft() if rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next rows, ``arraysize`` of them unless told otherwise."""
        size = self.arraysize if size is None else size
        rows = self._rows(size)
        return [rows.popleft() for _ in range(min(size, len(rows)))]

    def fetchall(self) -> list[Any]:
        """All that is left."""
        rows = self._rows(math.inf)
        every = list(rows)
        rows.clear()
        return every

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        rows = self._rows(1, ahead=True)
        if not rows:
            raise StopIteration
        return rows.popleft()

    def nextset(self) -> bool | None:
        """Go on to the next set of rows, dropping what is left of this one. None: there is no other."""
        self._usable()
        reader = self._reader
        if reader is not None and not reader.done:
            reader.use(reader.go_on)
            more = reader.answer is not self._answers[0]
            self._answers = deque((reader.answer if more else Answer(),))
            return more or None
        if len(self._answers) == 1:
            self._answers = deque((Answer(),))
            return None
        self._answers.popleft()
        return True

    def _rows(self, count: float, ahead: bool = False) -> deque[Any]:
        self._usable()
        rows = self._answers[0].rows
        if rows is None:
            raise self.connection._error(
                PoolMisuse, "there are no rows to fetch: execute a statement that returns some", "ProgrammingError"
            )
        if self._reader is not None and not self._reader.done:
            self._reader.have(count, ahead)
        return rows

    # --- The end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Drop what is left, and refuse every use from now on. A second time changes nothing."""
        self._leave_rest()
        self._closed = True
        self._answers = deque((Answer(),))

    def _leave_rest(self) -> None:
        if self._reader is not None and self._reader.live:
            self._reader.use(self._reader.shut)
        self._reader = None

    def _usable(self) -> Proxy:
        if self._closed:
            raise self.connection._error(StaleLease, "this cursor was closed; ask the proxy for another one")
        self.connection._begun()
        return self.connection

    def __enter__(self) -> Self:
        self._usable()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        reader = getattr(self, "_reader", None)
        if reader is not None and not reader.done:
            reader.drop()

    def __repr__(self) -> str:
        return f"<Cursor of {self.connection!r}>"
