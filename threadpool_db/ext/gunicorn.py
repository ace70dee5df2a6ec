"""What does a worker of gunicorn say of its pools, and how does it part with them? Two hooks for ``gunicorn.conf.py``.

    from threadpool_db.ext.gunicorn import post_worker_init, worker_exit

No hook is needed for a fork (``threadpool_db.fork`` sees to that), nor for a goodbye at the end of an idle process.

``post_worker_init`` is the first moment at which the app is there, preloaded or not, and so its pools. It says, in
gunicorn's own log and each thing once, which pools are too small for the worker's threads, and which servers too small
for the workers' pools. ``worker_exit`` closes the pools, so that what is stuck on a server ends with the worker.

Roads not taken: ``when_ready``, where without preloading there is no app yet; ``post_fork``, the same; ``child_exit``:
gunicorn itself says that a worker was killed, and its sessions end with its sockets.
"""

from __future__ import annotations

import hashlib
import io
import math
import mmap
import os
import time
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

from threadpool_db import fork
from threadpool_db.checkup import mysql, postgresql
from threadpool_db.checkup.advice import Limit, arithmetic
from threadpool_db.checkup.report import Report
from threadpool_db.checkup.sessions import Session
from threadpool_db.drivers.sockets import socket_identity
from threadpool_db.keeper import keeper_of
from threadpool_db.pool import ConnectionPool
from threadpool_db.waiting import REAL_TIME, Gate

Pool = ConnectionPool[Any]

#: Who has a limit on connections that can be asked for, by the dialect that its pools speak.
_TELLERS: dict[str, ModuleType] = {"postgresql": postgresql, "mysql": mysql}

#: Marks of what was said, in memory that the master shares with all its workers: a worker that comes in place of
#: another one need not say it again.
_said = mmap.mmap(-1, mmap.PAGESIZE)
_MARK = 16


# --- At the start of a worker -----------------------------------------------------------------------------------------


def post_worker_init(worker: Any) -> None:
    """Say what does not fit. Nothing here delays the worker: servers are asked by a thread of the keeper's."""
    try:
        workers = max(worker.cfg.workers, 1)
        if worker.age % workers != 1 % workers:
            return  # of as many workers, started one after the other, one speaks for all
        pools = _living()
        for message in _threads_in_line(pools, worker.cfg.threads):
            _say(worker, message)
        for server in _servers(pools):
            job = partial(_hold_against_its_server, worker, workers, server, _unknown(pools))
            keeper_of(server[0]._clock).do(("limits", server[0].name), job, 1)
    except Exception:  # here it would end the worker, and that the whole server
        worker.log.debug("threadpool_db: the hook post_worker_init failed", exc_info=True)


def _living() -> list[Pool]:
    return sorted((pool for pool in fork.pools() if not pool.closed), key=lambda pool: pool.name)


def _threads_in_line(pools: Iterable[Pool], threads: int) -> Iterator[str]:
    """Sticky connections last as long as a request, so whoever gets none waits for the length of somebody's request."""
    for pool in pools:
        size = pool._config.max_size
        if pool._config.checkout == "thread" and size < threads:
            yield (
                f'pool {pool.name!r}: a worker has {threads} threads and {size:g} connections, which checkout="thread" '
                f"keeps for whole requests: the other {threads - size:g} threads wait until one ends; set "
                f'max_size={threads}, threads = {size:g}, or checkout="operation"'
            )


def _servers(pools: Iterable[Pool]) -> list[list[Pool]]:
    """The pools of each server of which it is known where it is, and whose limits it is that a connection meets."""
    found: dict[Hashable, list[Pool]] = defaultdict(list)
    for pool in pools:
        driver = pool._upkeep.driver
        if driver.dialect in _TELLERS and not pool._config.server_pooler:
            found[driver.server_key].append(pool)
    return list(found.values())


def _unknown(pools: Iterable[Pool]) -> list[Pool]:
    """SQLAlchemy's, and others that connect by somebody's callable: their server may be any."""
    return [pool for pool in pools if not pool._upkeep.driver.dialect]


def _hold_against_its_server(worker: Any, workers: int, pools: list[Pool], unknown: list[Pool]) -> None:
    try:
        size = sum(pool._config.max_size for pool in pools)
        if size == math.inf:
            return  # that was wanted
        # What is open now is no matter: most of it is these very workers', or those's whom they replace.
        tight = [limit for limit in _limits(pools[0]) if workers * size > limit.most]
        names = ", ".join(repr(pool.name) for pool in pools)
        together = f"pools {names} together" if len(pools) > 1 else f"pool {names}"
        uncounted = ", ".join(repr(pool.name) for pool in unknown)
        for _, message in arithmetic(tight, workers, int(size)):
            words = f"{together}, workers x max_size: {message}"
            _say(worker, words + (f"; not counted, for their server is not known: {uncounted}" if uncounted else ""))
    except Exception as error:
        # It is down, or full, or says nothing to this account: its pools will tell whoever needs them. No more than the
        # error's name: a client may quote its parameters.
        name = type(error).__name__
        worker.log.debug("threadpool_db: pool %r: its server's limits are unknown: %s", pools[0].name, name)


def _limits(pool: Pool) -> list[Limit]:
    """Over a connection of its own: ``connect_timeout`` and ``check_timeout`` are the longest that it takes."""
    upkeep, driver = pool._upkeep, pool._upkeep.driver
    connection = driver.connect(pool._config.connect_timeout)
    try:
        with upkeep.limits.limited(socket_identity(driver.descriptor(connection))):
            driver.set_autocommit(connection, True)
            nobody = io.StringIO()
            teller = _TELLERS[driver.dialect]
            limits: list[Limit] = teller.examine(Session(driver, connection), Report("", nobody, nobody), 0, None)
            return limits
    finally:
        driver.close(connection)


def _say(worker: Any, message: str) -> None:
    mark = hashlib.sha256(message.encode()).hexdigest()[:_MARK].encode()
    if _said.find(mark) >= 0:
        return
    end = _said.find(b"\0")
    if 0 <= end <= len(_said) - _MARK:
        _said[end : end + _MARK] = mark
    worker.log.warning("threadpool_db: %s", message)


# --- At its end -------------------------------------------------------------------------------------------------------


def worker_exit(server: Any, worker: Any) -> None:
    """Close the pools. Requests have had their ``graceful_timeout`` by now.

    What is lent still is a thread's of the app's own, or a request's that nobody waits for any more. It gets a moment,
    and is then cut, at the server too: most servers run a statement to its end, whether or not its client is there.
    """
    if worker.pid != os.getpid():
        return  # gunicorn calls it in the master too, of a worker that it finds gone; the pools there are no worker's
    until = time.monotonic() + min(fork.FAREWELL, worker.cfg.graceful_timeout)
    pools = _living()
    for pool in pools:
        try:
            pool.close(timeout=max(0.0, until - time.monotonic()))
        except Exception:
            worker.log.debug("threadpool_db: pool %r did not close well", pool.name, exc_info=True)
    until = time.monotonic() + fork.FAREWELL
    for told in [_servers_told(pool) for pool in pools]:
        told.sleep(REAL_TIME, until)


def _servers_told(pool: Pool) -> Gate:
    """Opens when all that was cut, now or a moment ago at its ``max_lease``, has been ended at the server. Threads of
    the keeper's do that, one thing after the other, and they go with the process: a request that was cut is over before
    its server has heard of it."""
    gate, keeper = Gate(REAL_TIME), keeper_of(pool._clock)
    server = ("end sessions", pool._upkeep.driver.server_key)
    keeper.at(pool._now(), partial(keeper.do, server, gate.open, 1))
    return gate
