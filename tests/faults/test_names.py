"""What if the name service is the trouble? A host whose name nobody knows any more, and one that takes its time to say.

PyMySQL and psycopg ask by Python's ``getaddrinfo``, which is replaced. libpq asks by itself, so psycopg2 is told the
address that a resolver would give, or else a name that no resolver can know: one too long to be asked for.
"""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from tests.drivers import ask
from tests.faults.bank import SOON, Site, Watcher, assert_nothing_lost, eventually, is_drivers, meet_all, tried
from tests.faults.bounds import SLACK
from tests.scene import background
from threadpool_db import Backoff, PoolTimeout, PoolUnavailable
from threadpool_db.testing import Latch

SIZE = 4
PATIENCE, GRACE = 0.3, 0.2
STEPS = Backoff(0.1, 0.2, kind="exp")
NAME = "db.test"


class Names:
    """The name service of this process, as a ``configure`` hook and in Python's place."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known, self.asked = True, 0
        self.door: Latch | None = None
        self._site, self._look_up = site, socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._resolve)

    def configure(self, parameters: dict[str, Any]) -> dict[str, Any]:
        if self._site.module.__name__ != "psycopg2":
            return {**parameters, "host": NAME}
        self._ask()
        return {**parameters, "hostaddr": self._site.server.host} if self.known else {**parameters, "host": "x" * 64}

    def _resolve(self, host: Any, *arguments: Any, **options: Any) -> Any:
        if host != NAME:
            return self._look_up(host, *arguments, **options)
        self._ask()
        if not self.known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self._look_up(self._site.server.host, *arguments, **options)

    def _ask(self) -> None:
        self.asked += 1
        if self.door is not None:
            self.door()


@pytest.fixture
def names(driver_bank: Any, monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(driver_bank.site, monkeypatch)


def test_while_a_name_is_unknown_whoever_is_in_goes_on_and_who_wants_in_is_told_why(
    driver_bank: Any, names: Names
) -> None:
    site = driver_bank.site
    options = {"max_size": SIZE, "timeout": PATIENCE, "grace": GRACE, "backoff": STEPS, "configure": names.configure}

    with site.pool(**options) as pool:
        sessions = meet_all(site, pool, 2)
        names.known = False
        for _ in range(20):
            assert pool.execute("select 1") == [(1,)]
        with pool.checkout() as one, pool.checkout() as other:
            for connection in (one, other):
                ask(connection, "select 1")
            with pytest.raises(PoolTimeout) as told:
                pool.checkout()
            assert is_drivers(site, told.value.__cause__)
            assert "not known" in str(told.value.__cause__)
        assert pool.stats().opened == 2

        site.kill(*sessions)
        eventually(lambda: isinstance(tried(pool), PoolUnavailable), "nobody is in, and it is known")
        asked, begun, refused = names.asked, time.monotonic(), []
        while time.monotonic() < begun + 0.5:
            start = time.monotonic()
            assert isinstance(tried(pool), PoolUnavailable)
            refused.append(time.monotonic() - start)
        assert min(refused) < SLACK
        # once in each step, and the one that is under way
        assert 1 <= names.asked - asked <= (time.monotonic() - begun) / STEPS.longest + 2

        names.known = True
        eventually(lambda: tried(pool) is None, "the name is known again")
        assert_nothing_lost(driver_bank, pool)


def test_a_name_service_that_takes_its_time_holds_up_nobody_beyond_his_timeout(driver_bank: Any, names: Names) -> None:
    site = driver_bank.site
    options = {"max_size": SIZE, "max_connecting": 2, "timeout": PATIENCE, "backoff": STEPS, "connect_timeout": 0.2}

    watcher = Watcher()
    with site.pool(**options, configure=names.configure, observers=[watcher]) as pool:
        pool.execute("select 1", timeout=SOON)
        door = names.door = Latch()
        with pool.checkout() as connection:
            waiting = [background(pool.checkout) for _ in range(SIZE)]
            door.wait_for(2)
            for one in waiting:
                assert isinstance(one.exception(SOON), PoolTimeout)
            ask(connection, "select 1")
            # given up after connect_timeout, and still under way: it counts
            stats = pool.stats()
            assert stats.in_use == 1 and stats.counts.closing >= 2 and stats.total <= SIZE
            assert isinstance(stats.connect_error, TimeoutError)
            assert stats.connect_failures >= 2
        assert pool.execute("select 1") == [(1,)]
        door.open()
        eventually(lambda: pool.stats().total == pool.stats().idle, "what came too late is closed")
        names.door = None
        stats = pool.stats()
        assert stats.opened == stats.closures + stats.total == watcher.seen["connected"]
        assert stats.closures >= 2
        assert_nothing_lost(driver_bank, pool)
