"""Does the proof refuse a driver that breaks a promise, whichever one? One spoilt method at a time.

A driver of ours is spoilt in one place, and the proof must name the promise. What passes is a hole in the contract.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.drivers import ask
from tests.drivers.proving import acts_for
from tests.servers import Postgres
from threadpool_db.contract import ContractBroken, bench, ends, promises, prove, sessions
from threadpool_db.drivers.base import FAILED, IDLE, OPEN, Driver
from threadpool_db.drivers.choose import driver_for

#: (promise, method, how it is spoilt): what the sound method is, the driver, and what it is called with
Wrong = Callable[..., Any]
Case = tuple[str, str, Wrong]


def answers(value: Any) -> Wrong:
    return lambda sound, driver, *args: value


nothing = answers(None)


def asks(sound: Any, driver: Any, connection: Any, *args: Any) -> Any:
    """One round trip, and then what it ought to say."""
    ask(connection, "select 1")
    return sound(connection, *args)


def talks(sound: Any, driver: Any, connection: Any, *args: Any) -> Any:
    """It waits for no answer; no connection can be spoken to like that."""
    os.write(driver.descriptor(connection), b"?")
    return sound(connection, *args)


def only_here(sound: Any, driver: Any, *args: Any) -> Any:
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("not my thread")
    return sound(*args)


def first_time(wrong: Wrong) -> Wrong:
    """Sound once, and spoilt from then on."""
    called: list[bool] = []

    def method(sound: Any, driver: Any, *args: Any) -> Any:
        called.append(True)
        return sound(*args) if len(called) == 1 else wrong(sound, driver, *args)

    return method


def answers_in_spite(sound: Any, driver: Any, *args: Any) -> bool:
    with suppress(Exception):
        sound(*args)
    return True


def raises_at_rest(sound: Any, driver: Any, connection: Any) -> None:
    if driver.state(connection) is IDLE:
        raise RuntimeError("nothing to end")
    sound(connection)


def unless(state: Any) -> Wrong:
    return lambda sound, driver, connection: None if driver.state(connection) is state else sound(connection)


def in_autocommit_not(sound: Any, driver: Any, connection: Any) -> None:
    if not driver.autocommit(connection):
        sound(connection)


def instead(method: str) -> Wrong:
    return lambda sound, driver, connection, *args: getattr(driver, method)(connection)


def commits_first(sound: Any, driver: Any, connection: Any) -> None:
    with suppress(Exception):
        driver.commit(connection)
    sound(connection)


def fails(sound: Any, driver: Any, connection: Any) -> None:
    raise RuntimeError("I will not")


def asks_twice(sound: Any, driver: Any, connection: Any) -> bool:
    return bool(sound(connection) and sound(connection))


def leaves_it_open(sound: Any, driver: Any, connection: Any) -> bool:
    ask(connection, "select 1")
    return True


def ends_at_any_age(sound: Any, driver: Any, other: Any, session: Any, age: float) -> None:
    sound(other, session, 0.0)


def ends_itself(sound: Any, driver: Any, other: Any, session: Any, age: float) -> None:
    sound(other, session, age)
    driver.close(other)


def raises_if_closed(sound: Any, driver: Any, connection: Any) -> Any:
    connection.cursor().close()
    return sound(connection)


def forgives(sound: Any, driver: Any, connection: Any, sql: str) -> None:
    with suppress(Exception):
        sound(connection, sql)


def stays_in_autocommit(sound: Any, driver: Any, connection: Any, sql: str) -> None:
    driver.set_autocommit(connection, True)
    sound(connection, sql)


def one_way(sound: Any, driver: Any, connection: Any, on: bool) -> None:
    if on:
        sound(connection, on)


def same_again(sound: Any, driver: Any, timeout: float) -> Any:
    if "same" not in vars(driver):
        driver.same = sound(timeout)
    return driver.same


WIRED: list[Case] = [
    *(("local", name, asks) for name in ("peek", "state", "autocommit", "dirtied", "glimpse", "put_back", "watch")),
    *(("local", name, asks) for name in ("settled", "descriptor", "session", "interrupt", "adopt")),
    ("local", "peek", talks),
    ("local", "glimpse", only_here),
    ("glimpse_beside_a_call", "glimpse", asks),
    ("glimpse_beside_a_call", "glimpse", talks),
    ("glimpse_beside_a_call", "glimpse", nothing),
    ("glimpse_of_a_closed_one", "glimpse", raises_if_closed),
    ("peek_sees", "peek", answers(True)),
    ("peek_sees", "peek", answers(False)),
    ("ping_asks", "ping", answers(True)),
    ("ping_asks", "ping", asks_twice),
    ("ping_asks", "ping", leaves_it_open),
    ("ping_asks", "ping", lambda sound, driver, connection: not sound(connection)),
    ("ping_of_the_dead", "ping", answers_in_spite),
    ("ping_of_the_dead", "is_disconnect", answers(False)),
    ("opens", "connect", same_again),
    ("gives_up", "connect", lambda sound, driver, timeout: sound(math.inf)),
    ("closes", "close", nothing),
    ("closes", "close", fails),
    ("closes", "close", commits_first),
    ("knows_the_end", "is_disconnect", answers(False)),
    ("knows_the_end", "is_disconnect", answers(True)),
    ("tells_codes", "code", nothing),
    ("tells_codes", "code", answers(7)),
    ("knows_a_no", "is_answer", answers(True)),
    ("knows_a_no", "is_answer", answers(False)),
    ("ends_what_is_stuck", "is_disconnect", answers(False)),
    ("pools", "peek", answers(True)),
    ("resets", "reset", nothing),
    ("resets", "reset", instead("rollback")),
    ("hears", "reset", nothing),
    ("rolls_back_what_failed", "rollback", unless(FAILED)),
    ("isolates", "set_isolation", nothing),
    ("isolates", "set_isolation", first_time(nothing)),
    ("knows_who_keeps_rows", "buffered", answers(True)),
    ("knows_who_keeps_rows", "buffered", answers(False)),
    ("names_sessions", "session", answers(1)),
    ("names_sessions", "session", nothing),
    ("ends_sessions", "end_session", nothing),
    ("ends_sessions", "end_session", ends_at_any_age),
    ("ends_sessions", "end_session", ends_itself),
]

#: by what is in the file, and no socket: these cost nothing
UNWIRED: list[Case] = [
    ("local", "state", lambda sound, driver, connection: (ask(connection, "select * from sqlite_master"), IDLE)[1]),
    ("closes", "close", nothing),
    ("glimpse_beside_a_call", "glimpse", asks),
    ("pools", "state", answers(IDLE)),
    ("pools", "dirtied", answers(False)),
    ("state_is_no_guess", "state", answers(IDLE)),
    ("state_is_no_guess", "glimpse", answers(IDLE)),
    ("state_is_no_guess", "glimpse", answers(OPEN)),
    ("state_is_no_guess", "settled", answers(True)),
    ("state_is_no_guess", "settled", answers(False)),
    ("the_mode", "set_autocommit", nothing),
    ("the_mode", "autocommit", answers(True)),
    ("the_mode", "settled", lambda sound, driver, connection, mode: sound(connection, driver.autocommit(connection))),
    ("begins", "begin", nothing),
    ("begins", "begin", lambda sound, driver, connection: driver.set_autocommit(connection, False)),
    ("commits", "commit", nothing),
    ("commits", "commit", instead("rollback")),
    ("commits", "commit", lambda sound, driver, connection: (sound(connection), driver.begin(connection))),
    ("rolls_back", "rollback", nothing),
    ("rolls_back", "rollback", instead("commit")),
    ("ends_what_it_did_not_begin", "rollback", in_autocommit_not),
    ("ends_what_it_did_not_begin", "commit", in_autocommit_not),
    ("rolls_back_what_failed", "rollback", unless(OPEN)),
    ("nothing_to_end", "commit", raises_at_rest),
    ("nothing_to_end", "rollback", raises_at_rest),
    ("hears", "dirtied", answers(False)),
    ("hears", "dirtied", answers(True)),
    ("hears", "watch", nothing),
    ("hears", "put_back", lambda sound, driver, connection: (sound(connection), driver.watch(connection))),
    ("puts_back", "put_back", nothing),
    ("puts_back", "settled", lambda sound, driver, connection, mode: driver.state(connection) is IDLE),
    ("runs", "run", nothing),
    ("runs", "run", forgives),
    ("runs", "run", stays_in_autocommit),
    ("forbids", "set_read_only", nothing),
    ("forbids", "set_read_only", one_way),
]


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    return f"postgresql://postgres@{postgres.address}/postgres"


def spoil(method: str, wrong: Wrong, driver: Driver[Any]) -> Driver[Any]:
    setattr(driver, method, partial(wrong, getattr(driver, method), driver))
    return driver


def refuses(url: str, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    name, method, wrong = case
    for module in (bench, sessions):
        monkeypatch.setattr(module, "PATIENCE", 0.5)  # what waits does so in vain
    monkeypatch.setattr(ends, "_TIMEOUT", 0.2)
    monkeypatch.setattr(ends, "_LIMIT", 0.5)
    spoilt = partial(spoil, method, wrong)
    driver = driver_for(url)
    with acts_for(url, driver) as acts:
        if acts.elsewhere is not None and acts.refused is not None:
            sound = acts.elsewhere
            acts = replace(acts, elsewhere=lambda host, port: spoilt(sound(host, port)), refused=spoilt(acts.refused))
        with pytest.raises(ContractBroken) as refusal:
            prove(spoilt(driver), acts, only=[name])
    assert refusal.value.broken == (name,)


def named(case: Case) -> str:
    return f"{case[0]}-{case[1]}-{getattr(case[2], '__name__', '')}"


@pytest.mark.parametrize("case", WIRED, ids=named)
def test_a_driver_with_a_socket_is_refused(postgres_url: str, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    refuses(postgres_url, case, monkeypatch)


@pytest.mark.parametrize("case", UNWIRED, ids=named)
def test_a_driver_without_one_is_refused(tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    refuses(f"sqlite:///{tmp_path}/test.db?timeout=0.1", case, monkeypatch)


def test_servers_that_are_told_by_no_key_are_refused(postgres_url: str) -> None:
    driver = driver_for(postgres_url)
    kind = type("Everywhere", (type(driver),), {"server_key": "the server"})
    with acts_for(postgres_url, driver) as acts:
        sound = acts.elsewhere
        assert sound is not None

        def elsewhere(host: str, port: int) -> Driver[Any]:
            other = sound(host, port)
            other.__class__ = kind
            return other

        driver.__class__ = kind
        with pytest.raises(ContractBroken, match="tells_servers_apart"):
            prove(driver, replace(acts, elsewhere=elsewhere), only=["tells_servers_apart"])


def test_each_promise_has_one_who_breaks_it(postgres_url: str) -> None:
    promised = {promise.name for promise in promises(driver_for(postgres_url))}
    assert promised == {name for name, _, _ in WIRED + UNWIRED} | {"tells_servers_apart"}
