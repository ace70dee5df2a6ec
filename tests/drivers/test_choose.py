"""Which driver speaks to this? URLs, callables, types; and what a bad URL may give away: nothing."""

from __future__ import annotations

import functools
import sys
import traceback
from pathlib import Path
from typing import Any

import pymysql.connections
import pytest

from threadpool_db.drivers.base import Driver
from threadpool_db.drivers.choose import Undecided, driver_for, parse
from threadpool_db.drivers.dbapi import Dbapi
from threadpool_db.drivers.psycopg import Psycopg
from threadpool_db.drivers.psycopg2 import Psycopg2
from threadpool_db.drivers.pymysql import PyMySQL
from threadpool_db.drivers.sqlite import Sqlite
from threadpool_db.errors import PoolMisuse


@pytest.mark.parametrize(
    ("url", "driver", "parameters"),
    [
        (
            "postgresql://app:pw@db.example:5433/shop",
            "psycopg2",
            {"host": "db.example", "port": "5433", "user": "app", "password": "pw", "dbname": "shop"},
        ),
        ("postgres://db/shop", "psycopg2", {"host": "db", "dbname": "shop"}),
        ("POSTGRESQL+psycopg2://db/shop", "psycopg2", {"host": "db", "dbname": "shop"}),
        ("postgresql:///shop", "psycopg2", {"dbname": "shop"}),
        ("postgresql:///?service=shop", "psycopg2", {"service": "shop"}),
        ("postgresql://db?dbname=shop", "psycopg2", {"host": "db", "dbname": "shop"}),
        ("postgresql:///shop?host=/run/pg", "psycopg2", {"host": "/run/pg", "dbname": "shop"}),
        ("postgresql://%2Frun%2Fpg/shop", "psycopg2", {"host": "/run/pg", "dbname": "shop"}),
        ("postgresql://[::1]:5433/shop", "psycopg2", {"host": "::1", "port": "5433", "dbname": "shop"}),
        ("postgresql://[fe80::1%25eth0]/shop", "psycopg2", {"host": "fe80::1%eth0", "dbname": "shop"}),
        ("postgresql://a:1,b/shop", "psycopg2", {"host": "a,b", "port": "1,", "dbname": "shop"}),
        ("postgresql://a,b/shop", "psycopg2", {"host": "a,b", "dbname": "shop"}),
        (
            "postgresql://us%40er:p%2Fw%3A%20%E2%82%AC@db/my%2Fshop",
            "psycopg2",
            {"host": "db", "user": "us@er", "password": "p/w: €", "dbname": "my/shop"},
        ),
        (
            "postgresql://app:a@b:c@db/shop",
            "psycopg2",
            {"host": "db", "user": "app", "password": "a@b:c", "dbname": "shop"},
        ),
        (
            "postgresql://db/shop?sslmode=require&connect_timeout=3&autocommit=on&options=-c%20x%3D1",
            "psycopg2",
            {
                "host": "db",
                "dbname": "shop",
                "sslmode": "require",
                "connect_timeout": "3",
                "autocommit": True,
                "options": "-c x=1",
            },
        ),
        (
            "postgresql+psycopg://app:pw@db:5433/shop?prepare_threshold=7&autocommit=on",
            "psycopg",
            {
                "host": "db",
                "port": "5433",
                "user": "app",
                "password": "pw",
                "dbname": "shop",
                "prepare_threshold": 7,
                "autocommit": True,
            },
        ),
        (
            "postgres+psycopg:///shop?prepare_threshold=None",
            "psycopg",
            {"dbname": "shop", "prepare_threshold": None},
        ),
        (
            "mysql://app:pw@db:3307/shop",
            "pymysql",
            {"host": "db", "port": 3307, "user": "app", "password": "pw", "database": "shop"},
        ),
        ("mariadb://db/shop", "pymysql", {"host": "db", "database": "shop"}),
        (
            "mysql+pymysql://db/shop?charset=utf8mb4",
            "pymysql",
            {"host": "db", "database": "shop", "charset": "utf8mb4"},
        ),
        ("mysql:///shop?unix_socket=/run/s", "pymysql", {"database": "shop", "unix_socket": "/run/s"}),
        ("mysql://db/shop?host=/run/s", "pymysql", {"database": "shop", "unix_socket": "/run/s"}),
        ("mysql://db/shop?port=33", "pymysql", {"host": "db", "port": 33, "database": "shop"}),
        (
            "mysql://db/shop?read_timeout=1.5&connect_timeout=3&local_infile=yes&ssl_verify_cert=false&program_name=7",
            "pymysql",
            {
                "host": "db",
                "database": "shop",
                "read_timeout": 1.5,
                "connect_timeout": 3,
                "local_infile": True,
                "ssl_verify_cert": False,
                "program_name": "7",
            },
        ),
        ("mysql://db/shop?ssl=true", "pymysql", {"host": "db", "database": "shop", "ssl": {"verify_mode": None}}),
        ("mysql://db/shop?ssl=0", "pymysql", {"host": "db", "database": "shop", "ssl_disabled": True}),
        ("mysql://a:%D0%BF@db/s", "pymysql", {"host": "db", "user": "a", "password": "п".encode(), "database": "s"}),
        ("sqlite:///x.db", "sqlite", {"database": "x.db"}),
        ("sqlite:////abs/x%20y.db", "sqlite", {"database": "/abs/x y.db"}),
        ("sqlite+pysqlite:///x.db", "sqlite", {"database": "x.db"}),
        ("sqlite:///a@b.db", "sqlite", {"database": "a@b.db"}),
        ("sqlite:///x.db?timeout=2", "sqlite", {"database": "x.db", "timeout": 2}),
        ("sqlite:///x.db?isolation_level=none", "sqlite", {"database": "x.db", "isolation_level": None}),
        ("sqlite:///x.db?autocommit=true", "sqlite", {"database": "x.db", "isolation_level": None}),
        (
            "sqlite:///file:x?uri=true&mode=ro&cache=shared&pragma.a=1",
            "sqlite",
            {"database": "file:x?mode=ro&cache=shared", "uri": True, "pragma.a": "1"},
        ),
    ],
)
def test_a_url_says_driver_and_parameters(url: str, driver: str, parameters: dict[str, Any]) -> None:
    assert parse(url) == (driver, parameters)
    assert driver_for(url).name == driver


SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "about"),
    [
        (f"app:{SECRET}@db/shop", "scheme"),
        (f"{SECRET}", "scheme"),
        ("", "scheme"),
        (f"postgresql:app:{SECRET}@db/shop", "scheme"),
        (f"app:{SECRET}://db/shop", "scheme"),
        (f"postgresq://app:{SECRET}@db/shop", "did you mean 'postgresql'"),
        (f"oracle://app:{SECRET}@db/shop", "unknown scheme 'oracle'"),
        (f"mysql+mysqldb://app:{SECRET}@db/shop", "mysql+pymysql"),
        (f"postgresql+asyncpg://app:{SECRET}@db/shop", "postgresql+psycopg2 or postgresql+psycopg"),
        (f"mysql+psycopg://app:{SECRET}@db/shop", "mysql+pymysql"),
        (f"sqlite+psycopg:///{SECRET}.db", "sqlite+sqlite"),
        (f"postgresql+psycopg://db/shop?prepare_threshold={SECRET}", "prepare_threshold"),
        (f"postgresql://app:{SECRET}@db", "names no database"),
        (f"postgresql://app:{SECRET}@db/", "names no database"),
        (f"mysql://app:{SECRET}@db", "names no database"),
        (f"postgresql://app:{SECRET}@db:x/shop", "port"),
        (f"postgresql://app:{SECRET}@db:0/shop", "port"),
        (f"postgresql://app:{SECRET}@db:65536/shop", "port"),
        (f"mysql://app:{SECRET}@db/shop?port=no", "port"),
        # a password that was not percent-encoded: each falls apart in another place
        (f"postgresql://app:{SECRET}/x@db/shop", "%2F"),
        (f"postgresql://app:12/{SECRET}@db/shop", "%2F"),
        (f"postgresql://app:{SECRET}?x@db/shop", "%3F"),
        (f"postgresql://app:12?{SECRET}@db/shop", "cannot be read"),
        (f"postgresql://app:12?{SECRET}=1@db/shop", "'@'"),
        (f"postgresql://app:x#{SECRET}@db/shop", "%23"),
        (f"postgresql://app:[{SECRET}@db/shop", "cannot be read"),
        (f"postgresql://app:{SECRET}\u2100@db/shop", "cannot be read"),
        (f"postgresql://app:{SECRET}@[::1/shop", "cannot be read"),
        (f"postgresql://app:{SECRET}@a]b/shop", "cannot be read"),
        (f"postgresql://app:{SECRET}@::1/shop", "port"),
        (f"postgresql://app:{SECRET}@[::1]x/shop", "an IPv6 address stands in []"),
        (f"postgresql://app:{SECRET}@db/shop?x&y=1", "cannot be read"),
        (f"postgresql://app:pw@db/shop?{SECRET}%21=1", "no name"),
        (f"postgresql://app:pw@db/shop?x=%FF{SECRET}", "cannot be read"),
        (f"postgresql://app:{SECRET}%FF@db/shop", "UTF-8"),
        (f"postgresql://app:{SECRET}%00@db/shop", "NUL"),
        (f"postgresql://app:pw@db/shop?sslpassword={SECRET}%00", "NUL"),
        (f"postgresql://app:{SECRET}\0@db/shop", "control"),
        (f"postgresql://app:{SECRET} x@db/shop", "blank"),
        (f" postgresql://app:{SECRET}@db/shop", "blank"),
        (f"mysql://app:{SECRET}@a,b/shop", "several hosts"),
        (f"mysql://db/shop?autocommit={SECRET}", "autocommit"),
        (f"mysql://db/shop?read_timeout={SECRET}", "read_timeout"),
        (f"sqlite://{SECRET}/x.db", "sqlite:////absolute.db"),
    ],
)
def test_a_bad_url_is_named_with_its_remedy_and_keeps_its_secrets(url: str, about: str) -> None:
    with pytest.raises(ValueError) as caught:
        driver_for(url)
    assert str(caught.value).startswith("url ")
    assert about in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert not url or SECRET not in "".join(traceback.format_exception_only(caught.value))


@pytest.mark.parametrize("source", [None, 5, b"postgresql://db/shop", {"host": "db"}, Path("x.db")])
def test_neither_a_url_nor_a_callable_is_refused(source: Any) -> None:
    with pytest.raises(ValueError, match=f"of type {type(source).__name__}"):
        driver_for(source)


def test_an_unknown_driver_name_gets_the_nearest_one() -> None:
    with pytest.raises(ValueError, match="did you mean 'psycopg2'"):
        driver_for(lambda: None, "psycopg22")
    with pytest.raises(ValueError, match="known: psycopg2, psycopg, pymysql, sqlite, dbapi"):
        driver_for(lambda: None, "zzz")


def test_a_url_and_a_driver_name_must_agree() -> None:
    assert driver_for("sqlite:///x.db", "sqlite").name == "sqlite"
    with pytest.raises(ValueError, match="leave one of the two out"):
        driver_for("sqlite:///x.db", "psycopg2")


def test_a_ready_driver_is_taken_as_it_is() -> None:
    ready: Driver[Any] = Driver()
    assert driver_for(ready) is ready
    with pytest.raises(ValueError, match="twice"):
        driver_for(ready, "psycopg2")


@pytest.mark.parametrize("source", [Driver(), lambda: None])
def test_configure_without_a_url_is_refused(source: Any) -> None:
    with pytest.raises(ValueError, match="configure"):
        driver_for(source, configure=lambda parameters: parameters)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("psycopg2", Psycopg2),
        ("psycopg", Psycopg),
        ("pymysql", PyMySQL),
        ("sqlite", Sqlite),
        ("dbapi", Dbapi),
        (None, Undecided),
    ],
)
def test_a_callable_goes_with_the_driver_that_is_named(name: str | None, kind: type) -> None:
    driver = driver_for(lambda: None, name)
    assert type(driver) is kind
    assert driver.connect(1) is None
    assert not driver.can_reset


def test_a_drivers_constructor_takes_parameters_or_a_callable() -> None:
    with pytest.raises(TypeError):
        Psycopg2()
    with pytest.raises(TypeError):
        Psycopg2({}, connect=lambda: None)


class FromMyModule:
    pass


def test_the_first_connection_shows_the_driver(any_db_url: str) -> None:
    made = driver_for(any_db_url)
    undecided = driver_for(lambda: made.connect(10))
    connection = undecided.connect(10)
    try:
        driver = undecided.recognise(connection)
        assert type(driver) is type(made)
        assert driver.server_key == undecided.server_key != made.server_key
        assert not driver.can_reset
    finally:
        undecided.close(connection)


def test_an_unknown_type_is_any_dbapi_connection_and_a_subclass_is_known() -> None:
    undecided = Undecided(lambda: None)
    assert type(undecided.recognise(FromMyModule())) is Dbapi
    assert undecided.recognise(None).name == "dbapi"
    ours = type(
        "Mine", (pymysql.connections.Connection,), {"__init__": lambda self: None, "_closed": True, "_rfile": None}
    )
    connection = ours()
    connection._sock = None
    assert type(undecided.recognise(connection)) is PyMySQL


def test_configure_gives_the_parameters_of_each_connect(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def configure(parameters: dict[str, Any]) -> dict[str, Any]:
        seen.append(dict(parameters))
        parameters["database"] = str(tmp_path / f"{len(seen)}.db")
        return parameters

    driver = driver_for(f"sqlite:///{tmp_path}/0.db?timeout=1", configure=configure)
    for _ in range(2):
        driver.connect(1).close()
    assert seen == [{"database": f"{tmp_path}/0.db", "timeout": 1}] * 2, "each gets a fresh copy"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.db", "2.db"]


def test_configure_must_return_the_parameters() -> None:
    driver = driver_for("sqlite:///x.db", configure=lambda parameters: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(PoolMisuse, match="configure must return"):
        driver.connect(1)


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("postgresql://db/shop", "psycopg2", "postgresql"),
        ("postgresql+psycopg://db/shop", "psycopg", "psycopg"),
        ("mysql://db/shop", "pymysql", "mysql"),
    ],
)
def test_a_missing_module_is_named_with_the_extra_that_brings_it(
    url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PoolMisuse) as caught:
        driver_for(url)
    assert f"module {module} is" in str(caught.value) and f'pip install "threadpool-db[{extra}]"' in str(caught.value)


def test_a_python_without_sqlite_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    with pytest.raises(PoolMisuse, match="part of Python"):
        driver_for("sqlite:///x.db")


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("postgresql://db:5433/shop", ("db", "5433")),
        ("postgresql:///shop", ("", 5432)),
        ("postgresql+psycopg://db:5433/shop", ("db", "5433")),
        ("postgresql+psycopg:///shop?host=/run/pg", "/run/pg/.s.PGSQL.5432"),
        ("postgresql:///shop?host=/run/pg", "/run/pg/.s.PGSQL.5432"),
        ("mysql://db/shop", ("db", 3306)),
        ("mysql:///shop?unix_socket=/run/s", "/run/s"),
        ("sqlite:////abs/x.db", "/abs/x.db"),
    ],
)
def test_the_server_key_is_the_servers_address_and_no_users(url: str, key: object) -> None:
    assert driver_for(url).server_key == key
    if "sqlite" not in url:
        assert driver_for(url.replace("shop", "other")).server_key == key


def test_a_driver_shows_its_server_and_never_its_secrets() -> None:
    def connect(password: str = "") -> None: ...

    assert repr(driver_for(f"postgresql://app:{SECRET}@db:5433/shop?sslpassword={SECRET}")) == (
        "<psycopg2 driver: ('db', '5433')>"
    )
    assert SECRET not in repr(driver_for(functools.partial(connect, password=SECRET), "pymysql"))
    assert "connect" in repr(driver_for(connect, "pymysql"))


def test_a_multi_host_url_reaches_the_server_that_lives(postgres: Any, proxy: Any) -> None:
    refusing = proxy(postgres.port)
    refusing.set(mode="refuse")
    driver = driver_for(f"postgresql://postgres@{refusing.address},{postgres.address}/postgres")
    connection = driver.connect(10)
    try:
        assert connection.info.port == postgres.port
    finally:
        driver.close(connection)


def test_a_wrong_password_is_the_drivers_own_error_and_keeps_it(mariadb: Any) -> None:
    driver = driver_for(f"mysql://nobody:{SECRET}@{mariadb.address}/test?ssl=false")
    with pytest.raises(pymysql.OperationalError) as caught:
        driver.connect(10)
    assert SECRET not in "".join(traceback.format_exception_only(caught.value))
