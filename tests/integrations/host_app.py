"""What do the tests of hosts serve? An application that says what its pool does, and holds connections on demand.

    /quick          an answer without the database
    /operation      one short statement
    /work           two short statements, and 20 ms outside between them
    /hold           keeps its connection until somebody asks for /release
    /stream         a body from a session of its own: a pinned one, or under "thread" a sticky one; ?chunks=N
    /leave          goes on in a thread of its own, which uses the pool and ends; its end is waited for
    /stats          the pool, as JSON

From the environment: DATABASE_URL, CHECKOUT.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from threadpool_db import Pool, create_pool
from threadpool_db.ext.wsgi import PoolMiddleware

CHUNK = b"x" * 65536
SLEEP = {"postgresql": "select pg_sleep(0.02)", "mysql": "select sleep(0.02)", "sqlite": "select 1"}


class App:
    """``wsgi`` is what a server serves."""

    def __init__(self, pool: Pool, scopes: bool = True) -> None:
        self.pool = pool
        self.statement = SLEEP[pool._upkeep.driver.dialect]
        self.released = threading.Event()
        self.wsgi: Any = PoolMiddleware(self, pool) if scopes else self

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        path = environ["PATH_INFO"]
        if path == "/stream":
            return self.stream(int(environ["QUERY_STRING"].removeprefix("chunks=")))
        answer = getattr(self, path[1:], None)
        return [answer().encode() if answer else b"done"]

    def release(self) -> str:
        self.released.set()
        return "done"

    def operation(self) -> str:
        self.pool.execute(self.statement)
        return "done"

    def work(self) -> str:
        self.pool.execute(self.statement)
        time.sleep(0.02)
        self.pool.execute(self.statement)
        return "done"

    def hold(self) -> str:
        with self.pool.transaction():
            self.pool.execute(self.statement)
            return str(self.released.wait(20))

    def stream(self, chunks: int) -> Iterator[bytes]:
        self.pool.execute("create temporary table if not exists scratch (x int)")
        for _ in range(chunks):
            self.pool.execute("select count(*) from scratch")
            yield CHUNK

    def leave(self) -> str:
        thread = threading.Thread(target=self.pool.execute, args=(self.statement,))
        thread.start()
        thread.join()
        return "done"

    def stats(self) -> str:
        now = self.pool.stats()
        return json.dumps(
            {name: getattr(now, name) for name in ("in_use", "waiting", "idle", "opened", "dead", "lost")}
        )


def from_environment() -> Any:
    """For a gunicorn: ``host_app:from_environment()``."""
    url = os.environ["DATABASE_URL"]
    return App(create_pool(url, checkout=os.environ["CHECKOUT"], max_size=3, timeout=20)).wsgi
