"""Has each tenant an engine of its own, at its first use, under the one cap, with statements compiled once for all?"""

from __future__ import annotations

import gc
import json
import logging
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, create_engine, event, make_url, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from tests.ext.conftest import Questions
from tests.scene import SOON, background, in_child, join, until
from tests.servers import MariaDB, Postgres
from threadpool_db import Budget, PoolClosed, PoolMisuse, TenantPools
from threadpool_db.ext.sqlalchemy import TenantEngines
from threadpool_db.ext.sqlalchemy.tenants import kind_of
from threadpool_db.ext.wsgi import PoolMiddleware
from threadpool_db.testing import Latch

ITEM = Table("item", MetaData(), Column("name", String(20), primary_key=True), Column("pieces", Integer))


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "thing"
    name: Mapped[str] = mapped_column(String(20), primary_key=True)


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
    with TenantPools(town, budget=Budget(3), engines=TenantEngines(pool_timeout=SOON)) as tenants:
        yield tenants


def use(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.scalar(text("select 1")) == 1


def hits(engine: Engine) -> list[str]:
    """Was it compiled already? Of each statement from now on."""
    found: list[str] = []
    event.listen(engine, "after_cursor_execute", lambda *told: found.append(told[4].cache_hit.name))
    return found


def test_each_has_an_engine_of_its_own_database_at_its_first_use(tenants: TenantPools[str], town: Town) -> None:
    for key in ("acme", "bolt"):
        ITEM.create(tenants.engine(key))
        with Session(tenants.engine(key)) as session:
            session.execute(ITEM.insert().values(name=key))
            session.commit()
    with tenants.engine("acme").connect() as connection:
        assert connection.execute(select(ITEM.c.name)).all() == [("acme",)]
    assert tenants.execute("bolt", "select name from item") == [("bolt",)], "beside the tenant's own pool"
    assert tenants.engine("acme") is tenants["acme"].engine
    assert town.asked == {"acme": 1, "bolt": 1}
    with pytest.raises(LookupError, match="no tenant 'nobody'"):
        tenants.engine("nobody")


def test_of_many_who_ask_at_once_all_get_the_same_engine(town: Town) -> None:
    making, made = Latch(), Counter[str]()

    class Slow(TenantEngines):
        def make(self, tenant: Any, source: Any) -> Engine:
            made["engine"] += 1
            making()
            return super().make(tenant, source)

    with TenantPools(town, budget=Budget(3), engines=Slow()) as tenants:
        found = [background(tenants.engine, "acme") for _ in range(8)]
        making.wait_for(1)
        making.open()
        assert len(set(map(id, join(*found)))) == 1 and made["engine"] == 1


def test_all_together_stay_under_the_cap_and_the_least_used_makes_room(tenants: TenantPools[str]) -> None:
    for key in "abcde":
        use(tenants.engine(key))
        assert tenants.budget.stats().used <= 3
    assert list(tenants) == ["c", "d", "e"] and "b" not in tenants
    tenants.execute("e", "select 1")
    assert "c" not in tenants
    found = tenants.stats()
    assert set(found.engines) == {"d", "e"} and set(found.tenants) == {"d", "e"}
    assert (found.counts.idle, found.counts.total, found.budget.used) == (3, 3, 3)
    assert found.engines["e"].idle == found.tenants["e"].idle == 1


def test_an_engine_has_as_many_connections_as_a_tenant_may_unless_it_is_told_otherwise(town: Town) -> None:
    for engines, most in ((TenantEngines(), 2), (TenantEngines(pool_size=1, max_overflow=2), 3)):
        with TenantPools(town, budget=Budget(5), per_tenant_max=2, engines=engines) as tenants:
            assert tenants.engine("acme").pool._inner._config.max_size == most  # type: ignore[attr-defined]


def test_statements_are_compiled_once_for_all(tenants: TenantPools[str]) -> None:
    for number, key in enumerate("abcde"):
        ITEM.create(tenants.engine(key))
        found = hits(tenants.engine(key))
        with tenants.engine(key).begin() as connection:
            connection.execute(ITEM.insert(), [{"name": key, "pieces": number}])
            assert connection.execute(select(ITEM)).all() == [(key, number)]
        assert found == ["CACHE_HIT" if number else "CACHE_MISS"] * 2
    assert all(tenants.engine(key)._compiled_cache is None for key in "abcde"), "none has one of its own"


def test_one_statement_answers_each_tenant_by_the_columns_of_its_own_table(tenants: TenantPools[str]) -> None:
    """What is remembered of a result must not be another schema's."""
    tenants.execute("acme", "create table t (a int, b int)")
    tenants.execute("bolt", "create table t (b int, a int, c int)")
    tenants.execute("acme", "insert into t (a, b) values (1, 2)")
    tenants.execute("bolt", "insert into t (a, b, c) values (1, 2, 3)")
    for _ in range(2):
        for key, expected in (("acme", {"a": 1, "b": 2}), ("bolt", {"a": 1, "b": 2, "c": 3})):
            with tenants.engine(key).connect() as connection:
                assert dict(connection.execute(text("select * from t")).mappings().one()) == expected


class TestKind:
    """What tells two dialects apart, for a compiled statement."""

    def test_settings_do(self) -> None:
        kinds = [
            kind_of(create_engine("sqlite://", **options).dialect)
            for options in ({}, {}, {"json_serializer": json.dumps}, {"json_serializer": repr}, {"label_length": 9})
        ]
        assert kinds[0] == kinds[1] and len(set(kinds)) == 4

    def test_an_unhashable_function_shares_with_nobody(self) -> None:
        class Serializer:
            __hash__ = None  # type: ignore[assignment]

            def __call__(self, value: Any) -> str:
                return ""

        one = Serializer()
        kinds = {kind_of(create_engine("sqlite://", json_serializer=one).dialect) for _ in range(2)}
        assert len(kinds) == 2

    def test_the_servers_version_does(self) -> None:
        one, other = (create_engine("postgresql+psycopg2://").dialect for _ in range(2))
        assert kind_of(one) == kind_of(other)
        one.server_version_info, other.server_version_info = (9, 1), (15, 1)
        assert kind_of(one) != kind_of(other)


def test_forgotten_its_engine_lends_nothing_more_and_the_next_one_is_another(
    tenants: TenantPools[str], town: Town
) -> None:
    old = tenants.engine("acme")
    use(old)
    tenants.execute("acme", "select 1")
    tenants.forget("acme")
    assert list(tenants) == [] and tenants.budget.stats().used == 0
    with pytest.raises(PoolClosed, match="'tenants/acme/engine' is closed"):
        old.connect()
    old.dispose()
    with pytest.raises(PoolClosed):
        old.connect()
    new = tenants.engine("acme")
    use(new)
    assert new is not old and town.asked["acme"] == 2


def test_forgotten_while_a_connection_is_lent_it_waits_and_closes_it_when_it_comes_back(
    tenants: TenantPools[str],
) -> None:
    connection = tenants.engine("acme").connect()
    tenants.forget("acme", 0)
    assert connection.scalar(text("select 1")) == 1 and tenants.budget.stats().used == 1
    connection.close()
    assert tenants.budget.stats().used == 0

    connection = tenants.engine("acme").connect()
    forgetting = background(tenants.forget, "acme", SOON)
    until(lambda: "acme" not in tenants)
    connection.close()
    forgetting.result(SOON)
    assert tenants.budget.stats().used == 0


def test_closed_all_engines_are(town: Town) -> None:
    tenants = TenantPools(town, budget=Budget(3), engines=TenantEngines())
    acme, bolt = tenants["acme"], tenants["bolt"]
    engine = acme.engine
    use(engine)
    tenants.close()
    assert tenants.budget.stats().used == 0
    with pytest.raises(PoolClosed):
        engine.connect()
    with pytest.raises(PoolClosed):
        tenants.engine("core")
    with pytest.raises(PoolClosed, match="'tenants/bolt' is closed"):
        _ = bolt.engine


def test_one_whose_last_connection_made_room_leaves_nothing_once_nobody_refers_to_it(
    tenants: TenantPools[str],
) -> None:
    use(tenants.engine("acme"))
    gone = weakref.ref(tenants.engine("acme"))
    gc.collect()
    assert gone() is not None, "it has a connection"
    kept = tenants.engine("bolt")
    use(kept)
    for key in "cde":
        use(tenants.engine(key))
    gc.collect()
    assert gone() is None and tenants.engine("bolt") is kept
    use(tenants.engine("acme"))
    assert not [name for name in logging.root.manager.loggerDict if "acme" in name]


def test_disposed_of_it_goes_on_under_the_same_budget(tenants: TenantPools[str]) -> None:
    engine = tenants.engine("acme")
    use(engine)
    engine.dispose()
    assert tenants.budget.stats().used == 0 and "acme" not in tenants
    use(engine)
    assert tenants.budget.stats().used == 1 and "acme" in tenants and tenants.engine("acme") is engine


@pytest.mark.parametrize("many", [100, pytest.param(2_000, marks=pytest.mark.proof)])
def test_of_engines_that_were_used_once_nothing_stays_in_memory(town: Town, many: int) -> None:
    engines = TenantEngines(query_cache_size=10)
    with TenantPools(town, budget=Budget(5), background=False, engines=engines) as tenants:
        for key in range(50):
            use(tenants.engine(f"before{key}"))
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for key in range(many):
                use(tenants.engine(str(key)))
            for _ in range(2):  # what a first one finalises keeps others until a second
                gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        print(f"{many} engines: {grown:,} bytes")
        assert grown < 1_500_000, f"{grown:,} bytes for {many} engines"
        assert len(tenants) == tenants.budget.stats().used == 5


def test_a_scope_or_a_request_ends_what_its_thread_kept_of_the_pool_and_leaves_the_session_to_its_owner(
    tenants: TenantPools[str],
) -> None:
    sessions: list[Session] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        tenants["acme"].lease()
        sessions.append(Session(tenants.engine("acme")))
        assert sessions[0].scalar(text("select 1")) == 1
        start_response("200 OK", [])
        return [b"done"]

    assert list(PoolMiddleware(app, tenants)({}, lambda *told: None)) == [b"done"]  # type: ignore[arg-type]
    assert tenants["acme"].stats().in_use == 0
    assert sessions[0].scalar(text("select 2")) == 2
    sessions[0].close()
    assert tenants.stats().counts.in_use == 0


def test_a_connection_of_ones_engine_given_to_anothers_pool_is_a_clear_error(tenants: TenantPools[str]) -> None:
    with tenants.engine("acme").connect() as connection:
        with pytest.raises(PoolMisuse, match="'tenants/bolt': expected the lease that checkout"):
            tenants["bolt"].checkin(connection)  # type: ignore[arg-type]
        assert connection.scalar(text("select 1")) == 1


def test_a_child_has_engines_with_connections_of_its_own(tenants: TenantPools[str]) -> None:
    held = tenants.engine("acme").connect()

    def child() -> Any:
        before = tenants.budget.stats().used
        use(tenants.engine("acme"))
        return before, tenants.budget.stats().used, list(tenants)

    assert in_child(child) == "(0, 1, ['acme'])"
    held.close()


def test_a_factory_of_functions_needs_a_dialect(tmp_path: Path) -> None:
    import sqlite3

    def connect_to(key: str) -> Callable[[], Any]:
        return lambda: sqlite3.connect(tmp_path / f"{key}.db", check_same_thread=False)

    with TenantPools(connect_to, budget=Budget(3), engines=TenantEngines()) as tenants:
        with pytest.raises(PoolMisuse, match=r"no dialect is known, of which no engine .*TenantEngines\(url="):
            tenants.engine("acme")
    with TenantPools(connect_to, budget=Budget(3), engines=TenantEngines(url="sqlite://")) as tenants:
        use(tenants.engine("acme"))


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"poolclass": NullPool}, TypeError, "option 'poolclass': not for an engine of many: it is ThreadPool"),
        ({"budget": Budget(3)}, TypeError, "option 'budget': not for an engine of many: it is that of TenantPools"),
        ({"pool_logging_name": "x"}, TypeError, "loggers are for ever"),
        ({"query_cache_size": 0}, ValueError, "query_cache_size=0: must be a whole number from 1 on"),
        ({"execution_options": {"compiled_cache": {}}}, TypeError, "not with a compiled_cache"),
    ],
)
def test_what_cannot_be_is_refused_at_once(wrong: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        TenantEngines(**wrong)


def test_hooks_for_parameters_are_refused_where_engines_would_not_heed_them(town: Town) -> None:
    with pytest.raises(TypeError, match=r'configure: not with engines=, .* the event "do_connect"'):
        TenantPools(town, budget=Budget(3), engines=TenantEngines(), configure=dict)


@pytest.fixture(scope="module")
def databases(postgres: Postgres) -> Iterator[Any]:
    """Two databases of one server. What ``hstore`` is called there, by number, differs."""
    url = make_url(postgres.url).set(drivername="postgresql+psycopg2")
    admin = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    names = [f"tenant_{n}" for n in range(2)]
    for name in names:
        with admin.connect() as connection:
            connection.execute(text(f"create database {name}"))
        with create_engine(url.set(database=name), poolclass=NullPool).begin() as connection:
            connection.execute(text("create extension hstore"))
    yield url
    with admin.connect() as connection:
        for name in names:
            connection.execute(text(f"drop database {name} with (force)"))


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_on_postgresql_statements_are_shared_and_what_is_a_databases_own_is_not(databases: Any, driver: str) -> None:
    def url_of(key: str) -> str:
        url = databases.set(drivername="postgresql", database=key)
        return url.render_as_string(hide_password=False).replace("://", f"+{driver}://")

    with TenantPools(url_of, budget=Budget(2), engines=TenantEngines()) as tenants:
        for number, key in enumerate(("tenant_0", "tenant_1", "tenant_0")):
            engine = tenants.engine(key)
            assert engine.dialect.driver == driver
            with engine.begin() as connection:
                assert connection.scalar(text("select 'a=>1'::hstore")) == {"a": "1"}
                found = hits(engine)
                connection.execute(text("create temporary table item (name text, pieces int) on commit drop"))
                connection.execute(ITEM.insert(), [{"name": key, "pieces": 3}])
                assert connection.execute(select(ITEM)).all() == [(key, 3)]
                assert found[1:3] == ["CACHE_HIT" if number else "CACHE_MISS"] * 2


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_a_new_engine_of_a_tenant_asks_its_server_again_and_one_that_lives_does_not(
    databases: Any, questions: Callable[[int], Questions], driver: str
) -> None:
    proxy = questions(databases.port)

    def url_of(key: str) -> str:
        url = databases.set(drivername="postgresql", database=key, port=proxy.port)
        return url.render_as_string(hide_password=False).replace("://", f"+{driver}://")

    with TenantPools(url_of, budget=Budget(2), engines=TenantEngines()) as tenants:
        costs = []
        for again in (False, False, True):
            if again:
                tenants.forget("tenant_0")
            before = proxy.asked
            with tenants.engine("tenant_0").connect():
                costs.append(proxy.asked - before)
        assert costs[0] == costs[2] > costs[1] == 0


def test_on_mariadb_statements_are_shared_although_the_default_schema_is_another(mariadb: MariaDB) -> None:
    url = make_url(mariadb.url)
    names = ("tenant_a", "tenant_b")
    admin = create_engine(url.set(drivername="mysql+pymysql"), poolclass=NullPool)
    with admin.begin() as connection:
        for name in names:
            connection.execute(text(f"create database {name}"))
            connection.execute(text(f"create table {name}.item (name varchar(20), pieces int)"))
    with TenantPools(
        lambda key: url.set(database=key).render_as_string(hide_password=False),
        budget=Budget(1),
        engines=TenantEngines(),
    ) as tenants:
        for number, key in enumerate(names):
            found = hits(tenants.engine(key))
            with tenants.engine(key).begin() as connection:
                connection.execute(ITEM.insert(), [{"name": key, "pieces": 1}])
                assert connection.execute(select(ITEM)).all() == [(key, 1)]
            assert tenants.engine(key).dialect.default_schema_name == key
            assert found == ["CACHE_HIT" if number else "CACHE_MISS"] * 2
    with admin.begin() as connection:
        for name in names:
            connection.execute(text(f"drop database {name}"))


def test_the_orm_works_over_many_engines(tenants: TenantPools[str]) -> None:
    for key in "abcde":
        Base.metadata.create_all(tenants.engine(key))
        with Session(tenants.engine(key)) as session:
            session.add(Item(name=key))
            session.commit()
    for key in "abcde":
        with Session(tenants.engine(key)) as session:
            assert session.scalars(select(Item.name)).all() == [key]


def test_a_crowd_over_many_engines_and_pools_is_served_under_the_cap(town: Town) -> None:
    with TenantPools(town, budget=Budget(3), timeout=SOON, engines=TenantEngines(pool_timeout=SOON)) as tenants:

        def work(seed: int) -> None:
            for n in range(20):
                key = str((seed + n) % 7)
                if n % 3:
                    use(tenants.engine(key))
                else:
                    tenants.execute(key, "select 1")

        join(*(background(work, seed) for seed in range(8)))
        stats = tenants.stats()
        assert stats.budget.used <= 3 and stats.budget.waiting == 0 and stats.counts.in_use == 0
        assert set(tenants) == {key for key in map(str, range(7)) if tenants[key].connected}
