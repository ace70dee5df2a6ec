"""Does anybody ever see what another has left in a session?

Thirty-two threads over a pool of four, each in one scope after the other. In a scope a thread sets settings, a user
variable, a temporary table and advisory locks at random, reads all of it back each time, and before it begins looks
whether the session that it was given is as new.

What a thread sets bears its number, so a stranger's is known for one. Locks are the same few for all: whoever gets one
that somebody else is known to hold was given his session.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import Counter
from typing import Any

import pytest

from threadpool_db import create_pool, upkeep

THREADS, SIZE = 32, 4
LOCKS = range(9001, 9007)

#: statements through the pool, and a borrower's own cursors
WAYS = ["execute", "cursor"]

DRIVERS = ["psycopg2", "psycopg", "pymysql"]
POLICIES = ["operation", "thread"]

Say = Any  # a function that runs one statement and returns its rows


class PostgreSQL:
    new = {"path": '"$user", public', "zone": None, "variable": None, "table": None, "locks": 0}

    def state(self, say: Say) -> dict[str, Any]:
        """All that can be seen of a session."""
        ((path, zone, variable, table, locks),) = say(
            "select current_setting('search_path'), current_setting('TimeZone'), "
            "nullif(current_setting('stress.mine', true), ''), to_regclass('pg_temp.mine')::text, (select count(*) "
            "from pg_locks where locktype = 'advisory' and granted and pid = pg_backend_pid())"
        )
        return {"path": path, "zone": zone, "variable": variable, "table": table, "locks": locks}

    def set_path(self, say: Say, me: int, state: dict[str, Any]) -> None:
        say(f"set search_path to path_{me}, public")
        state["path"] = f"path_{me}, public"

    def set_zone(self, say: Say, me: int, state: dict[str, Any]) -> None:
        say(f"set timezone to '<MINE{'X' * me}>-3'")
        state["zone"] = f"<MINE{'X' * me}>-3"

    def set_variable(self, say: Say, me: int, state: dict[str, Any]) -> None:
        say(f"select set_config('stress.mine', '{me}', false)")
        state["variable"] = str(me)

    def make_table(self, say: Say, me: int, state: dict[str, Any]) -> None:
        if state["table"] is None:
            say(f"create temporary table mine as select {me} as who")
            state["table"] = "mine"
        assert say("select who from mine") == [(me,)]

    def try_lock(self, say: Say, lock: int) -> bool:
        return bool(say(f"select pg_try_advisory_lock({lock})")[0][0])


class MariaDB:
    _MODES = ("ERROR_FOR_DIVISION_BY_ZERO", "HIGH_NOT_PRECEDENCE", "IGNORE_SPACE", "NO_DIR_IN_CREATE", "NO_ZERO_DATE")
    new = {"mode": None, "zone": None, "variable": None, "table": None, "locks": 0}

    def state(self, say: Say) -> dict[str, Any]:
        held = " + ".join(f"(coalesce(is_used_lock('{lock}'), 0) = connection_id())" for lock in LOCKS)
        ((mode, zone, variable, locks),) = say(f"select @@sql_mode, @@time_zone, @mine, {held}")
        try:
            table = f"of {say('select who from mine')[0][0]}"
        except Exception as error:
            if error.args[0] != 1146:  # there is no such table
                raise
            table = None
        return {"mode": mode, "zone": zone, "variable": variable, "table": table, "locks": int(locks)}

    def set_mode(self, say: Say, me: int, state: dict[str, Any]) -> None:
        mine = [mode for bit, mode in enumerate(self._MODES) if me >> bit & 1]
        say(f"set sql_mode = '{','.join(mine)}'")
        (((state["mode"],),)) = say("select @@sql_mode")
        assert set(state["mode"].split(",")) - {""} == set(mine)

    def set_zone(self, say: Say, me: int, state: dict[str, Any]) -> None:
        say(f"set time_zone = '+05:{me:02}'")
        state["zone"] = f"+05:{me:02}"

    def set_variable(self, say: Say, me: int, state: dict[str, Any]) -> None:
        say(f"set @mine = {me}")
        state["variable"] = me

    def make_table(self, say: Say, me: int, state: dict[str, Any]) -> None:
        if state["table"] is None:
            say(f"create temporary table mine as select {me} as who")
            state["table"] = f"of {me}"

    def try_lock(self, say: Say, lock: int) -> bool:
        return bool(say(f"select get_lock('{lock}', 0)")[0][0])


class Crowd:
    """The threads, and what is wrong with what they have seen."""

    def __init__(self, url: str, policy: str, way: str) -> None:
        self.pool = create_pool(url, max_size=SIZE, checkout=policy, timeout=60)
        self.world: Any = MariaDB() if url.startswith("mysql") else PostgreSQL()
        self.way = way
        self.wrong: list[object] = []
        self.done: Counter[str] = Counter()
        self.owners: dict[int, int] = {}
        self.setters = [name for name in dir(self.world) if name.startswith(("set_", "make_"))]
        with self.pool.connection() as connection:
            self.new = self.world.new | {
                name: value
                for name, value in self.world.state(speaker(connection)).items()
                if self.world.new[name] is None
            }

    def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=self._work, args=(me, until), daemon=True) for me in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + 30)
        assert not any(thread.is_alive() for thread in threads), "threads hang"

    def _work(self, me: int, until: float) -> None:
        dice = random.Random(me)
        while time.monotonic() < until and not self.wrong:
            try:
                with self.pool.scope():
                    self._visit(me, dice)
            except BaseException as error:
                self.wrong.append(error)

    def _visit(self, me: int, dice: random.Random) -> None:
        way = dice.choice(WAYS) if self.way == "both" else self.way
        with self.pool.connection() as connection:
            self._compare(speaker(connection), self.new, "new")
            if way == "cursor":
                self._play(speaker(connection), me, dice)
                connection.commit()  # a rollback would undo what was set
        if way == "execute":
            self._play(self.pool.execute, me, dice)

    def _play(self, say: Say, me: int, dice: random.Random) -> None:
        mine: list[int] = []
        try:
            self._set_and_look(say, me, dice, mine)
        finally:
            for lock in mine:  # before anybody else can get it: the session still has it
                del self.owners[lock]

    def _set_and_look(self, say: Say, me: int, dice: random.Random, mine: list[int]) -> None:
        state = dict(self.new)
        for _ in range(dice.randint(1, 4)):
            if dice.random() < 0.3:
                lock = dice.choice([lock for lock in LOCKS if lock not in mine])
                if self.world.try_lock(say, lock):
                    if self.owners.setdefault(lock, me) != me:
                        self.wrong.append(f"{me} got lock {lock} of {self.owners[lock]}")
                        return
                    mine.append(lock)
                    state["locks"] += 1
                self.done["try_lock"] += 1
            else:
                what = dice.choice(self.setters)
                getattr(self.world, what)(say, me, state)
                self.done[what] += 1
            self._compare(say, state, "mine")

    def _compare(self, say: Say, expected: dict[str, Any], whose: str) -> None:
        seen = self.world.state(say)
        if seen != expected:
            self.wrong.append(
                (whose, {name: (seen[name], expected[name]) for name in seen if seen[name] != expected[name]})
            )
        self.done[whose] += 1


def speaker(connection: Any) -> Say:
    def say(sql: str) -> Any:
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    return say


@pytest.fixture
def url(driver: str, request: pytest.FixtureRequest, caplog: Any) -> str:
    pytest.importorskip(driver)
    caplog.set_level(logging.CRITICAL, "threadpool_db")
    server = request.getfixturevalue("mariadb" if driver == "pymysql" else "postgres")
    return str(server.url).replace("://", f"+{driver}://", 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("driver", DRIVERS)
def test_nobody_ever_sees_what_another_left_in_a_session(url, policy, way):
    assert_nobody_meets_another(url, policy, way, 1.0)


@pytest.mark.proof
@pytest.mark.timeout(150)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("driver", ["psycopg2", "pymysql"])
def test_nobody_ever_does_in_a_minute(url, policy):
    assert_nobody_meets_another(url, policy, "both", 60.0)


def assert_nobody_meets_another(url, policy, way, seconds):
    crowd = Crowd(url, policy, way)
    with crowd.pool:
        crowd.run(seconds)
        stats = crowd.pool.stats()
    assert crowd.wrong == []
    assert (stats.in_use, stats.timeouts) == (0, 0)
    assert stats.checkouts > 2 * THREADS, "too few to mean anything"
    assert set(crowd.done) == {"new", "mine", "try_lock", *crowd.setters}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_pool_that_forgets_to_clean_is_found_out(url, policy, monkeypatch):
    monkeypatch.setattr(upkeep, "wipe", lambda its, entry: True)
    crowd = Crowd(url, policy, "execute")
    with crowd.pool:
        crowd.run(10.0)
    assert crowd.wrong
