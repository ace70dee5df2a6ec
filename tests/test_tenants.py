"""Does each tenant have its own pool, at its first use, under one cap, and does it leave nothing? On SQLite files, and
on connections that do nothing where there are many."""

from __future__ import annotations

import gc
import logging
import sqlite3
import threading
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scene import SOON, background, in_child, join, until
from threadpool_db import Budget, PoolClosed, PoolMisuse, PoolTimeout, TenantPools
from threadpool_db.observe import _owners
from threadpool_db.testing import FakeClock, Latch, ScriptedConnection, ScriptedDriver


class Town:
    """Databases in files, and who asked where they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: Counter[str] = Counter()

    def __call__(self, key: str) -> str:
        self.asked[key] += 1
        if key.startswith("nobody"):
            raise LookupError(f"no tenant {key!r}")
        return f"sqlite:///{self.folder}/{key}.db"


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


@pytest.fixture
def tenants(town: Town) -> Iterator[TenantPools[str]]:
    with TenantPools(town, budget=Budget(3)) as tenants:
        yield tenants


def test_each_has_a_database_of_its_own_at_the_first_use_of_its_name(tenants: TenantPools[str], town: Town) -> None:
    for key in ("acme", "bolt"):
        tenants.execute(key, "create table item (name text)")
        tenants.execute(key, "insert into item values (?)", (key,))
    assert tenants.execute("acme", "select name from item") == [("acme",)]
    with tenants.transaction("bolt") as conn:
        assert conn.execute("select name from item").fetchall() == [("bolt",)]
    with tenants.connection("bolt") as conn, tenants["bolt"].connection() as same:
        assert conn is same
    assert tenants.proxy("acme").execute("select name from item").fetchall() == [("acme",)]
    tenants.checkout("acme").checkin()
    assert set(tenants) == {"acme", "bolt"} and len(tenants) == 2 and "acme" in tenants and "core" not in tenants
    assert town.asked == {"acme": 1, "bolt": 1}


def test_all_together_stay_under_the_cap_and_the_least_used_makes_room(tenants: TenantPools[str]) -> None:
    for key in "abcdef":
        tenants.execute(key, "select 1")
        assert tenants.budget.stats().used <= 3
    until(lambda: list(tenants) == ["d", "e", "f"])
    found = tenants.stats()
    assert set(found.tenants) == {"d", "e", "f"}
    assert (found.counts.idle, found.counts.in_use, found.counts.max_size, found.budget.used) == (3, 0, 3, 3)
    assert repr(tenants) == "<TenantPools 'tenants' 3 with a connection, Budget(3)>"


def test_of_many_who_ask_for_a_new_tenant_at_once_one_asks_the_factory(town: Town) -> None:
    asking = Latch()

    def slow(key: str) -> str:
        asking()
        return town(key)

    with TenantPools(slow, budget=Budget(3)) as tenants:
        found = [background(lambda: tenants["acme"]) for _ in range(8)]
        asking.wait_for(1)
        asking.open()
        assert tenants["bolt"] is not None
        assert len(set(map(id, join(*found)))) == 1
    assert town.asked == {"acme": 1, "bolt": 1}


def test_an_unknown_tenant_is_the_factorys_error_and_is_not_asked_for_again_for_a_moment(town: Town) -> None:
    clock = FakeClock()
    with TenantPools(town, budget=Budget(3), unknown_for=2.0, clock=clock) as tenants:
        errors = []
        for _ in range(3):
            with pytest.raises(LookupError, match="no tenant 'nobody'") as caught:
                tenants.execute("nobody", "select 1")
            errors.append(caught.value)
        assert town.asked["nobody"] == 1
        assert len(set(map(id, errors))) == 3, "shared, it would collect the frames of all who get it"
        clock.advance(2.0)
        with pytest.raises(LookupError):
            tenants["nobody"]
        assert town.asked["nobody"] == 2
        for n in range(1100):
            with pytest.raises(LookupError):
                tenants[f"nobody {n}"]
        assert len(tenants._unknown) == 1000


def test_forgotten_it_is_asked_for_again(tenants: TenantPools[str], town: Town) -> None:
    old = tenants["acme"]
    old.execute("select 1")
    tenants.forget("acme")
    assert list(tenants) == [] and tenants.budget.stats().used == 0
    with pytest.raises(PoolClosed):
        old.execute("select 1")
    tenants.execute("acme", "select 1")
    assert town.asked["acme"] == 2 and tenants["acme"] is not old
    tenants.forget("never heard of")


def test_a_scope_covers_all_that_its_thread_used_in_it_however_it_came_to_them(tenants: TenantPools[str]) -> None:
    acme = tenants["acme"]
    with tenants.scope():
        for pool in (acme, tenants["bolt"]):
            pool.execute("create temporary table scratch (x int)")
            assert pool.stats().in_use == 1
        with tenants.scope():
            tenants.execute("bolt", "insert into scratch values (1)")
        assert tenants.execute("bolt", "select x from scratch") == [(1,)]
    assert (acme.stats().in_use, tenants["bolt"].stats().in_use) == (0, 0)
    with pytest.raises(PoolMisuse):
        acme.execute("create temporary table scratch (x int)")  # outside of a scope, as ever


def test_a_scope_that_ends_badly_for_one_ends_for_all(tenants: TenantPools[str], monkeypatch: Any) -> None:
    def broken(*args: Any) -> None:
        raise OSError("the last word")

    with pytest.raises(OSError, match="the last word"), tenants.scope():
        for key in ("acme", "bolt"):
            tenants.execute(key, "create temporary table scratch (x int)")
        monkeypatch.setattr(tenants["bolt"], "_let_go", broken)
    assert tenants["acme"].stats().in_use == 0
    monkeypatch.undo()
    with tenants.scope():
        tenants.execute("bolt", "select 1")
    assert tenants["bolt"].stats().in_use == 0


def test_a_lease_of_one_given_back_to_another_is_a_clear_error(tenants: TenantPools[str]) -> None:
    lease = tenants.checkout("acme")
    with pytest.raises(PoolMisuse, match="this lease belongs to pool 'tenants/acme'"):
        tenants["bolt"].checkin(lease)
    lease.checkin()


def test_one_without_a_connection_that_nobody_refers_to_leaves_nothing(tenants: TenantPools[str]) -> None:
    tenants.execute("acme", "select 1")
    gone = weakref.ref(tenants["acme"])
    assert gone() is not None
    kept = tenants["bolt"]
    kept.execute("select 1")
    for key in "cdef":
        tenants.execute(key, "select 1")
    until(lambda: "acme" not in tenants and "bolt" not in tenants)

    def collected() -> bool:
        gc.collect()
        return gone() is None

    until(collected)
    assert "tenants/acme" not in _owners and "tenants/bolt" in _owners
    assert tenants["bolt"] is kept
    assert not [name for name in logging.root.manager.loggerDict if "acme" in name]


def test_closed_all_are(town: Town) -> None:
    tenants = TenantPools(town, budget=Budget(3))
    tenants.execute("acme", "select 1")
    tenants.close()
    assert tenants.budget.stats().used == 0 and list(tenants) == []
    for key in ("acme", "bolt"):
        with pytest.raises(PoolClosed):
            tenants.execute(key, "select 1")


class TestKnowledge:
    """``learn``: of each database once."""

    def test_is_found_out_once_however_many_ask_at_once(self, town: Town) -> None:
        asking, asked = Latch(), Counter[str]()

        def learn(connection: Any) -> str:
            asked["learn"] += 1
            asking()
            version: str = connection.execute("select sqlite_version()").fetchone()[0]
            return version

        with TenantPools(town, budget=Budget(3), learn=learn) as tenants:
            acme = tenants["acme"]
            found = [background(lambda: tenants.knowledge("acme")) for _ in range(50)]
            asking.wait_for(1)
            until(lambda: len(acme._knowledge._onlookers._gates) == 49)
            assert acme.stats().in_use == 1, "the others need no connection to wait"
            asking.open()
            assert set(join(*found)) == {sqlite3.sqlite_version}
            assert acme.knowledge == sqlite3.sqlite_version and asked["learn"] == 1
            assert acme.stats().in_use == 0

    def test_is_kept_with_its_tenant_and_found_out_anew_after(self, town: Town) -> None:
        learned = Counter[str]()

        def learn(connection: Any) -> int:
            learned["times"] += 1
            return learned["times"]

        with TenantPools(town, budget=Budget(3), learn=learn) as tenants:
            acme = tenants["acme"]
            for key in "bcdef":
                assert tenants.knowledge(key) == tenants.knowledge(key)
            assert acme.knowledge == acme.knowledge == 6
            gone = weakref.ref(acme)
            del acme
            tenants.forget("acme")
            gc.collect()
            assert gone() is None and tenants.knowledge("acme") == 7

    def test_a_failure_is_told_to_all_who_waited_for_it_and_is_not_remembered(self, town: Town) -> None:
        asking, failures = Latch(), [OSError("no answer")]

        def learn(connection: Any) -> str:
            asking()
            if failures:
                raise failures.pop()
            return "known"

        with TenantPools(town, budget=Budget(3), learn=learn) as tenants:
            acme = tenants["acme"]
            found = [background(lambda: acme.knowledge) for _ in range(5)]
            asking.wait_for(1)
            until(lambda: len(acme._knowledge._onlookers._gates) == 4)
            asking.open()
            errors = [future.exception(SOON) for future in found]
            assert [str(error) for error in errors] == ["no answer"] * 5
            assert len(set(map(id, errors))) == 5, "shared, it would collect the frames of all who get it"
            assert acme.stats().in_use == 0
            assert acme.knowledge == "known"

    def test_of_those_who_waited_for_an_interrupted_one_another_takes_over(self, town: Town) -> None:
        asking, interrupts = Latch(), [KeyboardInterrupt()]

        def learn(connection: Any) -> str:
            asking()
            if interrupts:
                raise interrupts.pop()
            return "known"

        with TenantPools(town, budget=Budget(3), learn=learn) as tenants:
            acme = tenants["acme"]
            first = background(lambda: acme.knowledge)
            asking.wait_for(1)
            second = background(lambda: acme.knowledge)
            until(lambda: acme._knowledge._onlookers._gates)
            asking.open()
            assert second.result(SOON) == "known"
            assert isinstance(first.exception(SOON), KeyboardInterrupt)

    def test_is_waited_for_no_longer_than_timeout(self) -> None:
        clock, asking = FakeClock(), Latch()
        driver = ScriptedDriver(clock)
        options = {"clock": clock, "timeout": 2.0, "background": False}
        with TenantPools(lambda key: driver, budget=Budget(3), learn=lambda conn: asking(), **options) as tenants:
            first = background(lambda: tenants.knowledge("acme"))
            asking.wait_for(1)
            second = background(lambda: tenants.knowledge("acme"))
            clock.wait_for_sleepers(1)
            clock.advance(2.0)
            with pytest.raises(PoolTimeout, match="'tenants/acme': not known within 2 s") as caught:
                second.result(SOON)
            assert caught.value.snapshot is not None and caught.value.snapshot.in_use == 1
            asking.open()
            first.result(SOON)

    def test_asked_for_by_whoever_finds_it_out_is_a_clear_error(self, town: Town) -> None:
        tenants: TenantPools[str]
        with TenantPools(town, budget=Budget(3), learn=lambda conn: tenants.knowledge("acme")) as tenants:
            with pytest.raises(PoolMisuse, match="learn= asks for the knowledge that it is to find out itself"):
                tenants.knowledge("acme")
            assert tenants["acme"].stats().in_use == 0

    def test_uses_the_connection_that_its_thread_has(self, town: Town) -> None:
        with TenantPools(town, budget=Budget(1), per_tenant_max=1, learn=id) as tenants:
            with tenants.transaction("acme") as connection:
                assert tenants.knowledge("acme") == id(connection)

    def test_without_learn_is_a_clear_error(self, tenants: TenantPools[str]) -> None:
        with pytest.raises(
            PoolMisuse, match=r"nothing is to be known here; create TenantPools\(\.\.\., learn=\.\.\.\)"
        ):
            tenants.knowledge("acme")

    def test_stays_in_a_child_who_is_not_held_up_by_a_thread_that_was_finding_out(self, town: Town) -> None:
        asking, slow = Latch(), {"bolt"}

        def learn(connection: Any) -> str:
            file: str = connection.execute("pragma database_list").fetchone()[2]
            if Path(file).stem in slow:
                asking()
            return file

        with TenantPools(town, budget=Budget(3), learn=learn) as tenants:
            acme = tenants.knowledge("acme")
            finding = background(lambda: tenants.knowledge("bolt"))
            asking.wait_for(1)

            def child() -> Any:
                slow.clear()
                return tenants.knowledge("acme") == acme, Path(tenants.knowledge("bolt")).stem

            assert in_child(child) == "(True, 'bolt')"
            asking.open()
            assert Path(finding.result(SOON)).stem == "bolt"


def test_a_child_finds_tenants_although_a_thread_of_its_parent_was_asking_for_them(town: Town) -> None:
    asking, slow = Latch(), {"acme"}

    def factory(key: str) -> str:
        if key in slow:
            asking()
        return town(key)

    with TenantPools(factory, budget=Budget(3)) as tenants:
        tenants.execute("bolt", "select 1")
        finding = background(lambda: tenants["acme"])
        asking.wait_for(1)

        def child() -> Any:
            slow.clear()
            return list(tenants), tenants.execute("acme", "select 1"), tenants.execute("bolt", "select 1")

        assert in_child(child) == "([], [(1,)], [(1,)])"
        asking.open()
        finding.result(SOON)


def test_without_engines_one_is_a_clear_error(tenants: TenantPools[str]) -> None:
    with pytest.raises(PoolMisuse, match=r"have no engines; create them with .*engines=TenantEngines\(\)"):
        tenants.engine("acme")


@pytest.mark.parametrize("many", [500, pytest.param(10_000, marks=pytest.mark.proof)])
def test_of_thousands_that_were_used_once_nothing_stays_in_memory(many: int) -> None:
    driver = ScriptedDriver()
    threads = threading.active_count()
    with TenantPools(lambda key: driver, budget=Budget(50), background=False) as tenants:
        for key in range(100):
            tenants.checkout(key).checkin()
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for key in range(100, many):
                tenants.checkout(key).checkin()
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown < 5_000_000, f"{grown:,} bytes for {many} tenants"
        print(f"{many} tenants: {grown:,} bytes")
        assert len(tenants) == tenants.budget.stats().used == 50
    until(lambda: threading.active_count() <= threads)  # a keeper that has nothing to do any more goes home


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"factory": "postgresql://"}, TypeError, "factory='postgresql://': must be a function"),
        ({"budget": 3}, TypeError, r"budget=3: must be a Budget\(limit\)"),
        ({"unknown_for": -1}, ValueError, "unknown_for=-1: must be seconds from 0 on"),
        ({"per_tenant_max": 0}, ValueError, "max_size=0: must be a whole number from 1 on"),
        ({"max_size": 3}, TypeError, "option 'max_size': not for a pool of many: it is per_tenant_max"),
        ({"min_size": 1}, TypeError, "option 'min_size': not for a pool of many"),
        ({"learn": 3}, TypeError, "learn=3: must be a function of a connection, or None"),
        ({"engines": 3}, TypeError, r"engines=3: must be a TenantEngines\(\), from threadpool_db.ext.sqlalchemy"),
        ({"max_waitng": 3}, TypeError, "did you mean 'max_waiting'"),
    ],
)
def test_what_cannot_be_is_refused_at_once(wrong: dict[str, Any], error: type[Exception], text: str) -> None:
    options = {"factory": lambda key: key, "budget": Budget(3), **wrong}
    with pytest.raises(error, match=text):
        TenantPools(options.pop("factory"), **options)


def test_a_factory_that_answers_nonsense_is_told_so_and_costs_nothing(town: Town) -> None:
    with TenantPools(lambda key: 3, budget=Budget(3)) as tenants:  # type: ignore[arg-type, return-value]
        with pytest.raises(ValueError, match="a function that opens a connection; it is of type int"):
            tenants["acme"]
        assert background(lambda: list(tenants)).result(SOON) == []


class Meeting(ScriptedDriver):
    """Nobody is connected before so many are about to be."""

    def __init__(self, many: int) -> None:
        super().__init__()
        self._all = threading.Barrier(many)

    def connect(self, timeout: float) -> ScriptedConnection:
        self._all.wait(SOON)
        return super().connect(timeout)


def test_many_tenants_of_one_server_connect_beside_each_other() -> None:
    driver = Meeting(6)
    with TenantPools(lambda key: driver, budget=Budget(6), max_connecting=1) as tenants:
        leases = join(*(background(tenants.checkout, f"t{n}") for n in range(6)))
        for lease in leases:
            lease.checkin()
