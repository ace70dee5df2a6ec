"""What if connecting is the trouble? Too many sessions, a password that was changed, a way that takes its time."""

from __future__ import annotations

import time
from math import inf
from urllib.parse import quote

import pytest

from tests.conftest import require
from tests.faults.bank import (
    SOON,
    USER,
    Bank,
    Load,
    Site,
    Watcher,
    assert_nothing_lost,
    eventually,
    is_drivers,
    meet_all,
)
from tests.faults.conftest import EITHER_WAY, KINDS, MODULES
from tests.servers import MariaDB, Postgres
from threadpool_db import Backoff, ConnectFailed, PoolError, PoolTimeout, PoolUnavailable, create_pool

LIMIT = 10
OLD, NEW = "the old one", "the new one"
#: ten sessions for us: PostgreSQL keeps three for superusers, MariaDB gives them one more
TIGHT = {
    "postgresql": lambda tls: Postgres(max_connections=LIMIT + 3, tls=tls),
    "mariadb": lambda tls: MariaDB(max_connections=LIMIT, tls=tls),
}


@pytest.fixture(params=EITHER_WAY)
def tight_bank(request):
    kind, _, tls = request.param.partition("-")
    pytest.importorskip(MODULES[kind])
    require(KINDS[kind])
    with TIGHT[kind](bool(tls)) as server:
        yield Bank(Site(server, tls=bool(tls)))


def test_a_server_that_takes_no_more_connections_is_used_with_those_that_it_took(tight_bank):
    watcher = Watcher()
    with tight_bank.site.pool(max_size=LIMIT + 5, max_connecting=4, observers=[watcher]) as pool:
        with Load(tight_bank, pool, threads=24) as load:
            watcher.wait_for("connect_failed", 3)
            load.go_on(500)
        assert load.failures == []
        assert pool.stats().total == LIMIT
        assert is_drivers(tight_bank.site, pool.stats().connect_error)
        assert_nothing_lost(tight_bank, pool, LIMIT)


@pytest.mark.parametrize("tight_bank", ["postgresql", "mariadb"], indirect=True)
def test_a_full_server_is_met_by_each_pool_with_what_it_has_and_by_all_again_when_others_leave(tight_bank):
    site = tight_bank.site
    options = {"timeout": 0.3, "grace": 0.2, "backoff": Backoff(0.05, 0.1)}
    with (
        site.pool(max_size=3, **options) as holding,
        site.pool(max_size=3, **options) as other,
        site.pool(max_size=3, **options) as without,
        site.pool(max_size=LIMIT - 2) as strangers,
    ):
        without.execute("select 1")
        without.recycle()
        for pool in (holding, other):
            pool.execute("select 1")
        eventually(lambda: len(site.sessions()) == 2, "the third one's session is gone")
        taken = [strangers.checkout() for _ in range(LIMIT - 2)]

        # the server says no, to whoever asks, and it is no word about his parameters
        for pool in (holding, other):
            with pool.checkout(), pytest.raises(PoolTimeout) as told:
                pool.checkout()
            assert is_drivers(site, told.value.__cause__)
            assert pool._upkeep.driver.is_answer(told.value.__cause__) is False
        eventually(lambda: isinstance(refusal(without), PoolUnavailable), "nobody is in, and it is known")
        assert is_drivers(site, refusal(without).__cause__)

        # meanwhile the other pools of that server work with what they have
        begun, worst = time.monotonic(), 0.0
        while time.monotonic() < begun + 0.3:
            start = time.monotonic()
            assert isinstance(refusal(without), PoolUnavailable)
            for pool in (holding, other):
                assert pool.execute("select 1") == [(1,)]
            worst = max(worst, time.monotonic() - start)
        assert worst < 1.0
        assert [pool.stats().opened for pool in (holding, other, without)] == [1, 1, 1]

        for lease in taken[:7]:  # one stays: that makes ten with the three pools' nine
            lease.discard()
        for pool in (holding, other, without):
            eventually(lambda pool=pool: refusal(pool) is None, "it is let in")
            meet_all(site, pool, 3)
        assert len(site.sessions()) == LIMIT
        taken[7].checkin()
        strangers.close()
        without.close()
        other.close()
        assert_nothing_lost(tight_bank, holding)


def refusal(pool):
    try:
        pool.execute("select 1")
    except PoolError as error:
        return error
    return None


# A password that was changed ------------------------------------------------------------------------------------------


class Vault:
    """A ``configure`` hook: the password that the application believes in."""

    def __init__(self, password):
        self.password = password
        self.asked = 0

    def __call__(self, parameters):
        self.asked += 1
        return {**parameters, "password": self.password}


def change_password(site, password):
    if site.postgresql:
        site.command(f"alter role {USER} password '{password}'")
    else:
        site.command(f"alter user {USER} identified by '{password}'")


@pytest.fixture
def guarded_bank(any_bank):
    """The pool's user needs a password, for as long as the test lasts."""
    site = any_bank.site
    change_password(site, OLD)
    if site.postgresql:
        rules = site.server.folder / "data" / "pg_hba.conf"
        before = rules.read_text()
        rules.write_text(f"host all {USER} 127.0.0.1/32 scram-sha-256\n{before}")
        reload_rules(site, refuses=True)
    yield any_bank
    if site.postgresql:
        rules.write_text(before)
        reload_rules(site, refuses=False)
    else:
        site.command(f"alter user {USER} identified by ''")


def reload_rules(site, refuses):
    def refused():
        try:
            site.module.connect(site.url().replace("+psycopg", "")).close()
        except site.module.Error:
            return True
        return False

    site.command("select pg_reload_conf()")
    eventually(lambda: refused() is refuses, "the new rules hold")


def test_after_a_rotation_the_pool_recovers_as_soon_as_configure_has_the_new_password(guarded_bank):
    site, vault, watcher = guarded_bank.site, Vault(OLD), Watcher()
    options = {"max_size": 4, "timeout": 0.5, "grace": inf, "configure": vault, "observers": [watcher]}
    with create_pool(site.url(), **options) as pool:
        meet_all(site, pool, 4)  # or a connect with the old password may still be on its way
        with Load(guarded_bank, pool, threads=8) as load:
            change_password(site, NEW)
            load.go_on(50)  # who is in stays in
            killed = sorted(site.sessions())
            site.kill(*killed)
            watcher.wait_for("connect_failed", 2)
            load.wait_for(PoolTimeout)
            vault.password = NEW
            load.go_on()
        refused = [deed for deed in load.failures if not is_drivers(site, deed.error)]
        assert all(isinstance(deed.error, PoolTimeout) for deed in refused)
        assert len(load.failures) - len(refused) <= len(killed)
        assert_nothing_lost(guarded_bank, pool)  # and no connect is under way any more
        assert vault.asked == watcher.seen["connected"] + watcher.seen["connect_failed"]


def test_after_a_rotation_that_the_pool_is_not_told_of_waiters_learn_the_cause_in_time(guarded_bank):
    site, patience, watcher = guarded_bank.site, 0.5, Watcher()
    url = site.url().replace(f"{USER}@", f"{USER}:{quote(OLD)}@")
    options = {"timeout": patience, "grace": inf, "backoff": Backoff(0.05, 0.2), "observers": [watcher]}
    with create_pool(url, max_size=4, **options) as pool:
        meet_all(site, pool, 4)  # or a connect with the old password may still be on its way
        with Load(guarded_bank, pool, threads=8) as load:
            change_password(site, NEW)
            load.go_on(50)  # who is in stays in
            killed = sorted(site.sessions())
            site.kill(*killed)
            watcher.wait_for("connect_failed", 2)
            shut = time.monotonic()
            load.wait_for(PoolTimeout, 8, begun=shut)
            still_shut = time.monotonic()
            change_password(site, OLD)
            load.go_on()
        refused = [deed for deed in load.failures if not is_drivers(site, deed.error)]
        assert all(isinstance(deed.error, PoolTimeout) for deed in refused)
        assert len(load.failures) - len(refused) <= len(killed)
        assert max(deed.over - deed.begun for deed in refused) < patience + 1.0
        told = [deed.error for deed in refused if shut < deed.begun and deed.over < still_shut]
        assert all(is_drivers(site, error.__cause__) for error in told)
        assert not any(OLD in f"{error}{error.__cause__}" for error in told)
        assert_nothing_lost(guarded_bank, pool)


def test_a_wrong_password_from_the_start_is_said_at_once(guarded_bank):
    site, vault = guarded_bank.site, Vault(NEW)
    with create_pool(site.url(), max_size=4, timeout=30, configure=vault) as pool:
        begun = time.monotonic()
        with pytest.raises(ConnectFailed) as told:
            pool.execute("select 1")
        assert time.monotonic() - begun < 5
        assert is_drivers(site, told.value.__cause__)
        assert NEW not in str(told.value)
        vault.password = OLD
        assert pool.execute("select 1") == [(1,)]
        assert_nothing_lost(guarded_bank, pool)


def test_a_wrong_password_of_one_pool_is_nothing_to_another_pool_of_that_server(guarded_bank):
    site, wrong = guarded_bank.site, Vault(OLD)
    # an hour: whoever is held back once is held back for all of the test
    options = {"max_size": 2, "timeout": 5, "backoff": Backoff(3600, 3600), "grace": 0.0}
    with (
        create_pool(site.url(), name="wrong", configure=wrong, **options) as one,
        create_pool(site.url(), name="right", configure=Vault(OLD), **options) as other,
    ):
        for pool in (one, other):
            pool.execute("select 1")
            pool.recycle()
        wrong.password = NEW
        with pytest.raises(PoolUnavailable) as told:
            one.execute("select 1")
        assert is_drivers(site, told.value.__cause__)
        assert other.execute("select 1") == [(1,)]
        with pytest.raises(PoolUnavailable):
            one.execute("select 1")


# A slow way -----------------------------------------------------------------------------------------------------------


def test_a_slow_connect_delays_those_who_need_it_and_opens_no_more_than_allowed(any_bank, proxy):
    wire, watcher = proxy(any_bank.site.server.port), Watcher()
    wire.set(latency=0.05)
    with any_bank.site.pool(wire.port, max_size=4, timeout=20, observers=[watcher]) as pool:
        with Load(any_bank, pool, threads=16, warm=False) as load:
            watcher.wait_for("connected", 4)
            wire.set(latency=0.0)
            load.go_on()
        assert load.failures == []
        assert pool.stats().opened == 4
        assert_nothing_lost(any_bank, pool)


def test_a_connect_slower_than_the_timeout_is_one_persons_loss_and_no_slot_is(any_bank, proxy):
    site, wire, watcher = any_bank.site, proxy(any_bank.site.server.port), Watcher()
    with site.pool(wire.port, max_size=4, timeout=0.2, observers=[watcher]) as pool:
        pool.execute("select 1", timeout=SOON)
        pool.recycle()
        wire.set(latency=0.15)
        with Load(any_bank, pool, threads=8, warm=False) as load:
            load.wait_for(PoolTimeout, 8)
            wire.set(latency=0.0)
            load.go_on()
        assert all(isinstance(deed.error, PoolTimeout) for deed in load.failures)
        assert_nothing_lost(any_bank, pool)
