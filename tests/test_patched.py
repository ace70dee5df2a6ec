"""Does a pool that was there before gevent's patch work after it?

Here another ``threading.local`` stands for the patch; gevent's own is met in ``tests/integrations/test_gevent.py``.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.scene import background, join
from threadpool_db import Pool, PoolClosed, PoolMisuse, create_pool


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:  # closed while the patch is on
    with create_pool(f"sqlite:///{tmp_path}/x.db", max_size=2, timeout=1.0) as pool:
        yield pool


def patch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "local", type("Patched", (threading.local,), {}))


def of_today(local: Any) -> bool:
    return type(local) is threading.local


@pytest.mark.parametrize(
    "use", [lambda pool: pool.execute("select 1"), lambda pool: pool.checkout().checkin(), lambda pool: pool.release()]
)
def test_a_pool_that_was_not_used_before_the_patch_begins_afresh_at_its_first_use(
    use: Any, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = pool._lock
    patch(monkeypatch)
    use(pool)
    assert of_today(pool._here) and of_today(pool._mine) and pool._upkeep.hooks.here is pool._here
    assert pool._lock is not lock
    with pool.scope(), pool.connection():
        assert pool.stats().in_use == 1
    assert pool.stats().in_use == 0


def test_who_borrows_from_it_first_is_known_to_it_from_then_on(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    patch(monkeypatch)
    lease = pool.checkout()
    assert [entry.holder for entry in pool._ledger.entries] == [pool._here.holder]
    lease.checkin()


def test_a_proxy_of_it_too(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = pool.proxy()
    patch(monkeypatch)
    assert proxy.execute("select 1").fetchall() == [(1,)]
    assert of_today(proxy._mine)
    proxy.rollback()
    assert pool.stats().in_use == 0


def test_a_pool_that_was_closed_stays_closed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool._ledger.closed = True  # as after close(), whose thread the pool would know
    patch(monkeypatch)
    with pytest.raises(PoolClosed):
        pool.execute("select 1")


TOO_LATE = r"used before gevent patched threading.* call gevent\.monkey\.patch_all\(\) before"


def test_a_pool_that_has_connections_by_then_says_so_to_those_whom_it_does_not_know(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.execute("select 1")
    patch(monkeypatch)
    for use in (pool.checkout, pool.release):
        with pytest.raises(PoolMisuse, match=TOO_LATE):
            join(background(use))


def test_and_to_those_whom_it_knows_as_soon_as_they_would_wait(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.release()
    lease = pool.checkout()
    patch(monkeypatch)
    with pytest.raises(PoolMisuse, match=TOO_LATE):
        pool.checkout()
    lease.checkin()
