"""Does ``?plugin=threadpool_db&pool_size=5`` in a database URL change an app's pool, and nothing else of it?"""

from __future__ import annotations

import inspect
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import alembic.command
import alembic.config
import flask
import flask_sqlalchemy
import psycopg
import psycopg2
import pymysql
import pytest
import sqlalchemy
from sqlalchemy import create_engine, create_pool_from_url, engine_from_config, exc, make_url, text
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from tests.scene import background, join
from tests.servers import MariaDB, Postgres
from threadpool_db.ext.sqlalchemy import ThreadPool
from threadpool_db.ext.sqlalchemy.plugin import ThreadPoolPlugin

Make = Callable[..., Any]


def with_plugin(url: str, **options: Any) -> str:
    """The URL of tests for SQLAlchemy: with its names of the drivers, the plugin, and these options."""
    for scheme, driver in (("postgresql:", "postgresql+psycopg2:"), ("mysql:", "mysql+pymysql:")):
        if url.startswith(scheme):
            url = driver + url.removeprefix(scheme)
    return f"{url}?{urlencode({'plugin': 'threadpool_db', **options})}"


def url_for(**options: Any) -> str:
    return with_plugin("sqlite:///file", **options)


@pytest.fixture
def pool_of() -> Iterator[Make]:
    """The pool of an engine for this URL."""
    engines: list[sqlalchemy.Engine] = []

    def make(url: Any, **arguments: Any) -> Any:
        engines.append(create_engine(url, **arguments))
        return engines[-1].pool

    yield make
    for engine in engines:
        engine.dispose()


def limits(pool: Any) -> tuple[int, float, float]:
    return pool.size(), pool.timeout(), pool.stats().counts.max_size


class TestPoolsOptions:
    def test_the_plugin_alone_brings_the_pool_with_queuepools_defaults(self, pool_of: Make) -> None:
        pool = pool_of(url_for())
        assert type(pool) is ThreadPool
        assert limits(pool) == (5, 30, 15)

    def test_each_arrives_as_what_its_text_means(self, pool_of: Make) -> None:
        pool = pool_of(url_for(pool_size=3, max_overflow=4, pool_timeout=0.5, max_connecting="inf"))
        assert limits(pool) == (3, 0.5, 7)
        assert pool._max_connecting == float("inf")
        pool = pool_of(url_for(pool_recycle=30, pool_pre_ping="no", echo_pool="false", pool_use_lifo="true"))
        assert (pool._recycle, pool._pre_ping, pool.echo, pool._use_lifo) == (30, False, False, True)
        pool = pool_of(url_for(pool_reset_on_return="commit", pool_logging_name="orders", pool_pre_ping="1"))
        assert (pool._reset_on_return.name, pool.logging_name, pool._pre_ping) == ("reset_commit", "orders", True)

    def test_they_leave_the_url_and_the_drivers_stay(self) -> None:
        engine = create_engine(url_for(pool_size=3, timeout=7, pool_timeout=2, check_same_thread="false"))
        assert engine.url.query == {"timeout": "7", "check_same_thread": "false"}

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("pool_sise", "pool_size"),
            ("poolsize", "pool_size"),
            ("Pool_Size", "pool_size"),
            ("pool-size", "pool_size"),
            ("max_overlow", "max_overflow"),
            ("maxOverflow", "max_overflow"),
            ("pool_prepping", "pool_pre_ping"),
            ("pool_lifo", "pool_use_lifo"),
            ("max_conecting", "max_connecting"),
            ("echo_pol", "echo_pool"),
            ("pool_max_overflow", "max_overflow"),
        ],
    )
    def test_a_misspelt_one_is_an_error_that_knows_what_was_meant(self, name: str, meant: str) -> None:
        with pytest.raises(TypeError, match=rf"unknown pool option '{name}'; did you mean '{meant}'\?"):
            create_engine(url_for(**{name: 3}))

    def test_one_that_is_like_none_lists_them_all(self) -> None:
        with pytest.raises(
            TypeError, match=r"unknown pool option 'pool_xyzzy'; the pool's .*, max_overflow, .*pool_use_lifo"
        ):
            create_engine(url_for(pool_xyzzy=3))

    def test_the_docs_have_each_of_them(self) -> None:
        docs = (Path(__file__).resolve().parents[2] / "docs" / "sqlalchemy.md").read_text()
        listed = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", docs, re.M)))
        with pytest.raises(TypeError, match="pool's options are") as caught:
            create_engine(url_for(pool_xyzzy=1))
        assert sorted(listed) == str(caught.value).partition("options are ")[2].split(", ")

    @pytest.mark.parametrize("name", ["pool_events", "creator", "dialect", "_dispatch"])
    def test_what_no_text_can_say_is_not_taken(self, name: str) -> None:
        url = make_url(url_for(**{name: "x"}))
        if name.startswith("pool_"):
            with pytest.raises(TypeError, match=name):
                ThreadPoolPlugin(url, {})
        else:
            assert ThreadPoolPlugin(url, {}).update_url(url).query[name] == "x"

    @pytest.mark.parametrize(
        "option",
        [
            {"pool_size": "many"},
            {"max_overflow": "-2"},
            {"pool_timeout": "soon"},
            {"pool_recycle": "1.5"},
            {"pool_pre_ping": "perhaps"},
            {"echo_pool": "loudly"},
            {"max_connecting": "0"},
        ],
        ids=lambda option: "=".join(map(str, *option.items())),
    )
    def test_an_impossible_one_is_named(self, option: dict[str, str]) -> None:
        ((name, value),) = option.items()
        with pytest.raises(ValueError, match=rf"^{name}='{value}': must be "):
            create_engine(url_for(**option))

    def test_one_that_is_there_twice_is_an_error(self) -> None:
        with pytest.raises(TypeError, match="'pool_size' 2 times"):
            create_engine(url_for(pool_size=1) + "&pool_size=2")

    def test_the_plugin_may_be_there_twice(self, pool_of: Make) -> None:
        assert limits(pool_of(url_for(pool_size=2) + "&plugin=threadpool_db"))[0] == 2

    def test_no_error_repeats_the_password(self) -> None:
        for option in ({"pool_sise": "1"}, {"pool_size": "x"}, {"echo_pool": "x"}):
            with pytest.raises((TypeError, ValueError)) as caught:
                create_engine(with_plugin("postgresql://bob:secret@h/d", **option))
            assert "secret" not in str(caught.value)


def options_of_drivers() -> set[str]:
    """What libpq, PyMySQL and sqlite3 call their own, and what SQLAlchemy's dialects read out of a URL for them."""
    libpq = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    mysql = set(inspect.signature(pymysql.Connection.__init__).parameters) - {"self"}
    sqlite = {"database", "timeout", "detect_types", "isolation_level", "check_same_thread", "factory", "uri"}
    assert {"sslmode", "connect_timeout", "target_session_attrs"} <= libpq and {"charset", "read_timeout"} <= mysql
    read = {"async_fallback", "async_creator_fn", "prepared_statement_cache_size", "prepared_statement_name_func"}
    return libpq | mysql | sqlite | read | {"cached_statements", "ssl_check_hostname", "ssl_capath", "autocommit"}


class TestDriversOptions:
    @pytest.mark.parametrize("name", sorted(options_of_drivers()))
    def test_none_is_taken_for_the_pools_or_for_a_slip(self, name: str) -> None:
        url = make_url(url_for(**{name: "x"}))
        assert ThreadPoolPlugin(url, {}).update_url(url).query[name] == "x"

    def test_they_reach_psycopg2(self, postgres: Postgres, pool_of: Make) -> None:
        url = with_plugin(postgres.url, pool_size=1, application_name="orders", sslmode="disable", connect_timeout=3)
        connection = pool_of(url).connect()
        assert connection.driver_connection.info.dsn_parameters["application_name"] == "orders"
        connection.close()

    def test_they_reach_pymysql(self, mariadb: MariaDB, pool_of: Make) -> None:
        connection = pool_of(with_plugin(mariadb.url, pool_size=1, charset="latin1", connect_timeout=3)).connect()
        assert connection.driver_connection.charset == "latin1"
        connection.close()

    def test_they_reach_sqlite(self, tmp_path: Path, pool_of: Make) -> None:
        sqlite3.connect(tmp_path / "db").close()
        connection = pool_of(with_plugin(f"sqlite:///file:{tmp_path}/db", mode="ro", uri="true", pool_size=1)).connect()
        with pytest.raises(sqlite3.OperationalError, match="readonly database"):
            connection.driver_connection.execute("create table t (a int)")
        connection.close()

    def test_what_is_neither_ours_nor_the_drivers_the_driver_refuses(self, postgres: Postgres, pool_of: Make) -> None:
        with pytest.raises(psycopg2.ProgrammingError, match='invalid connection option "poolclass"'):
            pool_of(with_plugin(postgres.url, poolclass="ThreadPool")).connect()


class Mine(ThreadPool):
    pass


class TestCode:
    """What the app says itself wins over its URL."""

    def test_arguments_win(self, pool_of: Make) -> None:
        pool = pool_of(url_for(pool_size=3, pool_timeout=9), pool_size=2, max_overflow=1)
        assert limits(pool) == (2, 9, 3)

    @pytest.mark.parametrize("other", [NullPool, QueuePool, StaticPool])
    def test_another_pool_wins_and_gets_none_of_the_options(self, other: Any, pool_of: Make) -> None:
        pool = pool_of(url_for(pool_size=3, max_overflow=1, pool_recycle=7), poolclass=other)
        assert type(pool) is other and pool._recycle == -1

    def test_a_ready_pool_wins(self, pool_of: Make) -> None:
        ready = QueuePool(lambda: sqlite3.connect(":memory:"))
        assert pool_of(url_for(pool_size=3), pool=ready) is ready

    def test_a_pool_of_our_own_kind_gets_the_options(self, pool_of: Make) -> None:
        pool = pool_of(url_for(pool_size=3), poolclass=Mine)
        assert type(pool) is Mine and pool.size() == 3

    def test_no_pool_asked_for_is_no_other_pool(self, pool_of: Make) -> None:
        assert type(pool_of(url_for(), poolclass=None, pool=None)) is ThreadPool

    def test_the_plugin_may_be_named_by_code(self, pool_of: Make) -> None:
        assert limits(pool_of("sqlite:///file?pool_size=3", plugins=["threadpool_db"]))[0] == 3


class TestCallers:
    """Others that call create_engine."""

    def test_engine_from_config(self) -> None:
        engine = engine_from_config({"sqlalchemy.url": url_for(pool_size=3, pool_timeout=0.5, pool_recycle=30)})
        assert limits(engine.pool) == (3, 0.5, 13)
        engine = engine_from_config({"sqlalchemy.url": url_for(pool_size=3), "sqlalchemy.pool_size": "2"})
        assert limits(engine.pool)[0] == 2

    def test_create_pool_from_url(self) -> None:
        pool = create_pool_from_url(url_for(pool_size=3), timeout=2)
        assert isinstance(pool, ThreadPool) and limits(pool)[:2] == (3, 2)

    def test_a_disposed_engine_keeps_the_options(self) -> None:
        engine = create_engine(url_for(pool_size=3, pool_timeout=0.5, pool_recycle=30))
        engine.dispose()
        assert limits(engine.pool) == (3, 0.5, 13) and engine.pool._recycle == 30

    def test_flask_sqlalchemy_by_the_url_alone(self, db_url: str) -> None:
        app = flask.Flask("shop")
        app.config["SQLALCHEMY_DATABASE_URI"] = with_plugin(db_url, pool_size=2, max_overflow=0)
        db = flask_sqlalchemy.SQLAlchemy(app)

        class Item(db.Model):  # type: ignore[name-defined, misc]
            __tablename__ = "threadpool_db_item"
            id = db.mapped_column(sqlalchemy.Integer, primary_key=True)
            name = db.mapped_column(sqlalchemy.String(20))

        @app.post("/items/<name>")
        def add(name: str) -> str:
            db.session.add(Item(name=name))
            db.session.commit()
            return str(db.session.scalar(sqlalchemy.select(Item.name).where(Item.name == name)))

        with app.app_context():
            db.drop_all()
            db.create_all()
            pool = db.engine.pool
        names = [f"item {n}" for n in range(8)]
        answers = join(*(background(app.test_client().post, f"/items/{name}") for name in names))
        assert [answer.text for answer in answers] == names
        assert isinstance(pool, ThreadPool) and limits(pool) == (2, 30, 2)
        assert pool.checkedout() == 0 and pool.stats().opened <= 2
        with app.app_context():
            assert db.session.query(Item).count() == 8
            db.session.remove()
            db.drop_all()
            db.engine.dispose()

    def test_flask_sqlalchemy_in_memory_keeps_the_pool_that_it_needs_there(self) -> None:
        app = flask.Flask("shop")
        app.config["SQLALCHEMY_DATABASE_URI"] = with_plugin("sqlite:///:memory:", pool_size=2)
        db = flask_sqlalchemy.SQLAlchemy(app)
        with app.app_context():
            assert type(db.engine.pool) is StaticPool
            assert db.session.scalar(text("select 1")) == 1
            db.session.remove()
            db.engine.dispose()

    def test_flask_sqlalchemys_own_pool_recycle_for_mysql_counts_as_code(self) -> None:
        for options, recycle in (({}, 7200), ({"pool_recycle": 60}, 60)):
            app = flask.Flask("shop")
            app.config["SQLALCHEMY_DATABASE_URI"] = with_plugin("mysql://h/d", pool_recycle=30)
            db = flask_sqlalchemy.SQLAlchemy(app, engine_options=options)
            with app.app_context():
                pool = db.engine.pool
                assert isinstance(pool, ThreadPool) and pool._recycle == recycle

    def test_alembics_own_env_reads_the_same_url(self, db_url: str, tmp_path: Path) -> None:
        """As `alembic init` writes it: engine_from_config with NullPool."""
        folder = tmp_path / "migrations"
        config = alembic.config.Config(tmp_path / "alembic.ini")
        alembic.command.init(config, str(folder))
        config.set_main_option("sqlalchemy.url", with_plugin(db_url, pool_size=2).replace("%", "%%"))
        config.set_main_option("script_location", str(folder))
        script = alembic.command.revision(config, "one table", rev_id="0001")
        path = Path(script.path)  # type: ignore[union-attr, arg-type]
        body = path.read_text().replace("pass", "op.execute('create table threadpool_db_made (a int)')", 1)
        path.write_text(body.replace("pass", "op.execute('drop table threadpool_db_made')", 1))
        alembic.command.upgrade(config, "head")
        engine = create_engine(with_plugin(db_url))
        assert sqlalchemy.inspect(engine).has_table("threadpool_db_made")
        alembic.command.downgrade(config, "base")
        with engine.begin() as connection:
            connection.execute(text("drop table alembic_version"))
        assert not sqlalchemy.inspect(engine).has_table("threadpool_db_made")
        engine.dispose()


class AsyncModule:
    """Enough of asyncpg for an engine that is never connected."""

    paramstyle = "numeric_dollar"

    def __getattr__(self, name: str) -> Any:
        return Exception


class TestRefused:
    def test_an_asynchronous_engine(self) -> None:
        url = with_plugin("postgresql+asyncpg://h/d", pool_size=2)
        for _is_async in (True, False):
            with pytest.raises(exc.ArgumentError, match="blocks its thread and cannot serve an asyncio engine"):
                create_engine(url, module=AsyncModule(), _is_async=_is_async)

    def test_not_when_the_code_brings_its_own_pool(self) -> None:
        url = with_plugin("postgresql+asyncpg://h/d", pool_size=2)
        engine = create_engine(url, module=AsyncModule(), _is_async=True, poolclass=NullPool)
        assert type(engine.pool) is NullPool

    @pytest.mark.parametrize("name", ["", "/:memory:", "/file:x?mode=memory&uri=true", "/file::memory:?uri=true"])
    def test_a_database_in_memory(self, name: str) -> None:
        separator = "&" if "?" in name else "?"
        with pytest.raises(exc.ArgumentError, match="each connection of a pool would see its own"):
            create_engine(f"sqlite://{name}{separator}plugin=threadpool_db")

    def test_not_one_in_memory_that_all_connections_share(self, pool_of: Make) -> None:
        shared = "mode=memory&cache=shared&uri=true&check_same_thread=false"
        pool = pool_of(f"sqlite:///file:threadpool_db_shared?{shared}&plugin=threadpool_db")
        first, second = pool.connect(), pool.connect()
        first.driver_connection.execute("create table t (a int)")
        assert join(background(lambda: second.driver_connection.execute("select * from t").fetchall())) == [[]]
        first.close()
        second.close()
