"""Is the rollback at the end left out where it says nothing new, and only there, however a transaction was ended?

The scenes of SQLAlchemy's own ResetAgentTest and AutocommitIsolationTest. Its suite counts the rollbacks there, and so
is run with a driver that is not known; here are the real ones, and QueuePool beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import sqlalchemy
from sqlalchemy import event, text
from sqlalchemy.pool import QueuePool

from threadpool_db.drivers.base import IDLE
from threadpool_db.ext.sqlalchemy import ThreadPool

MakeEngine = Callable[..., Any]
TABLE = "threadpool_db_resets"
INSERT, COUNT = f"insert into {TABLE} values (1)", f"select count(*) from {TABLE}"

SERVERS = {
    "psycopg2": ("postgres", "postgresql+psycopg2"),
    "psycopg": ("postgres", "postgresql+psycopg"),
    "pymysql": ("mariadb", "mysql+pymysql"),
}


@pytest.fixture(scope="module", params=["sqlite", *SERVERS])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> sqlalchemy.URL:
    if request.param == "sqlite":
        return sqlalchemy.make_url(f"sqlite:///{tmp_path_factory.mktemp('resets')}/resets.db")
    fixture, scheme = SERVERS[request.param]
    return sqlalchemy.make_url(request.getfixturevalue(fixture).url).set(drivername=scheme)


@pytest.fixture(scope="module")
def table(url: sqlalchemy.URL) -> Iterator[Any]:
    """And somebody else's engine, who sees what is committed."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"drop table if exists {TABLE}"))
        connection.execute(text(f"create table {TABLE} (n int)"))
    yield engine
    with engine.begin() as connection:
        connection.execute(text(f"drop table {TABLE}"))


@pytest.fixture
def other(table: Any) -> Any:
    """The table is empty."""
    with table.begin() as connection:
        connection.execute(text(f"delete from {TABLE}"))
    return table


@pytest.fixture(scope="module")
def both(url: sqlalchemy.URL) -> Iterator[MakeEngine]:
    """An engine over QueuePool, and one over ThreadPool; each made once."""
    made: dict[tuple[Any, ...], Any] = {}

    def engine(kind: type[Any], **options: Any) -> Any:
        key = (kind, *sorted(options.items()))
        if key not in made:
            made[key] = sqlalchemy.create_engine(url, poolclass=kind, pool_size=1, max_overflow=0, **options)
        return made[key]

    yield lambda **options: (engine(QueuePool, **options), engine(ThreadPool, **options))
    for one in made.values():
        one.dispose()


def rows(engine: Any) -> int:
    with engine.connect() as connection:
        count: int = connection.scalar(text(COUNT))
        return count


# The scenes: what somebody does with a Connection before its end ------------------------------------------------------


def nothing(connection: Any) -> None: ...


def began(connection: Any) -> None:
    connection.begin()
    connection.execute(text(INSERT))


def rolled_back(connection: Any) -> None:
    with pytest.raises(ZeroDivisionError), connection.begin():
        connection.execute(text(INSERT))
        raise ZeroDivisionError


def committed(connection: Any) -> None:
    with connection.begin():
        connection.execute(text("select 1"))


def closed(connection: Any) -> None:
    transaction = connection.begin()
    connection.execute(text(INSERT))
    transaction.close()


def only_a_savepoint(connection: Any) -> None:
    connection.begin_nested()
    connection.execute(text(INSERT))


def savepoint_left_open(connection: Any) -> None:
    connection.begin()
    connection.begin_nested()
    connection.execute(text(INSERT))


def savepoint_closed_first(connection: Any) -> None:
    transaction, savepoint = connection.begin(), connection.begin_nested()
    connection.execute(text(INSERT))
    savepoint.close()
    transaction.close()


def savepoint_never_closed(connection: Any) -> None:
    transaction = connection.begin()
    connection.begin_nested()
    connection.execute(text(INSERT))
    transaction.close()


def savepoint_rolled_back(connection: Any) -> None:
    transaction, savepoint = connection.begin(), connection.begin_nested()
    connection.execute(text(INSERT))
    savepoint.rollback()
    transaction.commit()


def two_phases_left_open(connection: Any) -> None:
    connection.begin_twophase()
    connection.execute(text(INSERT))


def two_phases_rolled_back(connection: Any) -> None:
    transaction = connection.begin_twophase()
    connection.execute(text(INSERT))
    transaction.rollback()


def two_phases_committed(connection: Any) -> None:
    transaction = connection.begin_twophase()
    connection.execute(text("select 1"))
    transaction.commit()


SCENES = [
    nothing, began, rolled_back, committed, closed, only_a_savepoint, savepoint_left_open, savepoint_closed_first,
    savepoint_never_closed, savepoint_rolled_back, two_phases_left_open, two_phases_rolled_back, two_phases_committed,
]  # fmt: skip


def play(engine: Any, scene: Callable[[Any], None], behind: str = "", **options: Any) -> list[str]:
    """What is said to the driver at the ends of transactions, and where the pool resets the connection."""
    told: list[str] = []

    def heard(word: str, action: Callable[[Any], None]) -> Any:
        def say(fairy: Any) -> None:
            told.append(word)
            action(fairy)

        return say

    def reset(*arguments: Any) -> None:
        told.append("reset")

    for _ in range(2):  # what PyMySQL's driver learns from is over
        with engine.begin():
            pass
    dialect = engine.dialect
    event.listen(engine, "reset", reset)
    with (
        mock.patch.object(dialect, "do_rollback", heard("ROLLBACK", dialect.do_rollback)),
        mock.patch.object(dialect, "do_commit", heard("COMMIT", dialect.do_commit)),
        engine.connect().execution_options(**options) as connection,
    ):
        scene(connection)
        if behind:
            connection.connection.driver_connection.cursor().execute(behind)
    event.remove(engine, "reset", reset)
    return told


def without_those_of_the_reset(told: list[str]) -> list[str]:
    return [word for before, word in zip(["", *told], told, strict=False) if (before, word) != ("reset", "ROLLBACK")]


def assert_nothing_is_open(engine: Any) -> None:
    raw = engine.raw_connection()
    assert engine.pool._driver.state(raw.driver_connection) is IDLE
    raw.close()


@pytest.fixture(params=SCENES)
def scene(request: pytest.FixtureRequest, url: sqlalchemy.URL) -> Any:
    if url.drivername == "sqlite" and request.param.__name__.startswith("two"):
        pytest.skip("SQLite has no two-phase transactions")
    return request.param


def test_a_reset_says_nothing_that_the_driver_knows(both: MakeEngine, other: Any, scene: Any) -> None:
    theirs, ours = both()
    assert play(ours, scene) == without_those_of_the_reset(play(theirs, scene))
    assert_nothing_is_open(ours)
    assert rows(other) == 0


def test_a_reset_rolls_back_what_was_said_behind_sqlalchemys_back(both: MakeEngine, other: Any, scene: Any) -> None:
    theirs, ours = both()
    assert play(ours, scene, INSERT) == play(theirs, scene, INSERT)
    assert_nothing_is_open(ours)
    assert rows(other) == 0


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("scene", [nothing, began, rolled_back, committed, closed])
def test_autocommit_ends_as_with_queuepool_and_the_next_has_the_engines_own_level(
    both: MakeEngine, other: Any, scene: Any, everywhere: bool, skip: bool
) -> None:
    level = {"isolation_level": "AUTOCOMMIT"}
    theirs, ours = both(skip_autocommit_rollback=skip, **level if everywhere else {})
    options = {} if everywhere else level
    expected = without_those_of_the_reset(play(theirs, scene, **options))
    written = rows(other)
    assert play(ours, scene, **options) == expected
    assert rows(other) == 2 * written == (0 if scene in (nothing, committed) else 2)
    assert_nothing_is_open(ours)
    with theirs.connect() as one, ours.connect() as another:
        assert one.get_isolation_level() == another.get_isolation_level()
        closed(another)
    assert rows(other) == 2 * written + everywhere  # kept, or rolled back
