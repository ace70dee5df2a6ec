"""Does the driver hear what is left in a session, wipe it, and set what the pool's options ask for?"""

from __future__ import annotations

import re
from typing import Any

from threadpool_db.contract.bench import PATIENCE, Bench, Broken, Misled, promise
from threadpool_db.drivers.base import IDLE, UNKNOWN

_LEVELS = ("read uncommitted", "read committed", "repeatable read", "serializable")
_NO_WORDS = "this is no statement of any language"
_AGES = 3600.0 * 24 * 365 * 10


def _soiled(bench: Bench, connection: Any) -> None:
    """Something left, for good: not in a transaction, which would take a setting back with it."""
    assert bench.acts.leave is not None
    if bench.driver.has_autocommit:
        bench.driver.set_autocommit(connection, True)
    fresh = bench.left(connection)
    bench.acts.leave(connection)
    if bench.left(connection) == fresh:
        raise Misled(f"Acts: what left says, {fresh!r}, is the same after leave")


@promise("dirtied is true of what is left in the session, from watch on until a reset", of="dirtied", acts="leave left")
def hears(bench: Bench) -> None:
    driver, acts = bench.driver, bench.acts
    assert acts.leave is not None
    with bench.opened() as connection:
        _soiled(bench, connection)  # part of how it is made
        driver.watch(connection)
        if driver.dirtied(connection):
            raise Broken("dirtied is true of what was done before watch, which is part of how it is made")
        acts.use(connection)
        bench.rest(connection)
        if acts.change is not None:
            bench.change(connection)
            driver.rollback(connection)
        if driver.dirtied(connection):
            raise Broken("dirtied is true of a use and a change that leave nothing")
        acts.leave(connection)
        for after in ("leave", "leave and something ordinary"):
            mode = driver.autocommit(connection)
            if driver.settled(connection, mode):
                raise Broken(f"settled says yes after {after}")
            bench.rest(connection)
            driver.put_back(connection)
            if not driver.dirtied(connection):
                raise Broken(f"dirtied is false after {after}")
            acts.use(connection)
        if driver.can_reset:
            bench.rest(connection)
            driver.reset(connection)
            if driver.dirtied(connection):  # before watch, which would forget it without a reset too
                raise Broken("dirtied is true after a reset")
            driver.watch(connection)
            if driver.has_autocommit:
                driver.set_autocommit(connection, True)
            acts.leave(connection)
            if not driver.dirtied(connection):
                raise Broken("dirtied is false of what was left after a reset")


@promise("reset wipes what is left in the session, and ends any transaction", of="can_reset", acts="leave left")
def resets(bench: Bench) -> None:
    driver, acts = bench.driver, bench.acts
    for scene in ("a session", "a transaction", "a failed one"):
        if (scene != "a session" and acts.change is None) or (scene == "a failed one" and acts.err is None):
            continue
        with bench.opened() as connection:
            made = bench.left(connection)
            change = acts.seen is not None and scene != "a session"
            before = bench.seen(connection) if change else None
            driver.watch(connection)
            _soiled(bench, connection)
            if scene != "a session":
                bench.change(connection)
            if scene == "a failed one":
                bench.fails("err", lambda: acts.err(connection))  # type: ignore[misc]
            driver.reset(connection)
            state = driver.state(connection)
            if state not in (IDLE, UNKNOWN):
                raise Broken(f"after a reset in {scene} the state is {state.value}")
            if driver.dirtied(connection):
                raise Broken("dirtied is true after a reset")
            if bench.left(connection) != made:
                raise Broken(f"what was left in the session is there after a reset in {scene}")
            if change and bench.seen(connection) != before:
                raise Broken("the change of an open transaction is there after a reset")
            acts.use(connection)


@promise("put_back undoes what was set on our side, and settled notices it", of="put_back", acts="attach attached")
def puts_back(bench: Bench) -> None:
    driver, acts = bench.driver, bench.acts
    assert acts.attach is not None and acts.attached is not None
    with bench.opened() as connection:
        driver.watch(connection)
        made, mode = acts.attached(connection), driver.autocommit(connection)
        acts.attach(connection)
        if acts.attached(connection) == made:
            raise Misled("Acts: what attached says is the same after attach")
        if driver.settled(connection, mode):
            raise Broken("settled says yes, and there is something to put back")
        bench.rest(connection)
        driver.put_back(connection)
        if acts.attached(connection) != made:
            raise Broken("what was set on the connection is there after put_back")


@promise("run runs a statement in either mode, and keeps the mode", of="run", acts="words left")
def runs(bench: Bench) -> None:
    driver = bench.driver
    assert bench.acts.words is not None
    for mode in bench.modes:
        with bench.opened(mode) as connection:
            fresh = bench.left(connection)
            driver.run(connection, bench.acts.words)
            if driver.state(connection) is not IDLE:
                driver.commit(connection)  # as the pool does
            bench.rest(connection)
            if bench.left(connection) == fresh:
                raise Broken("run did not do what it was told, or not for the session")
            if driver.autocommit(connection) is not mode and driver.has_autocommit:
                raise Broken(f"run changed autocommit from {mode}")
            bench.fails(f"run of {_NO_WORDS!r}", lambda: driver.run(connection, _NO_WORDS))
            bench.rest(connection)
            bench.acts.use(connection)


@promise("set_isolation holds for all transactions from then on", of="set_isolation", acts="isolation")
def isolates(bench: Bench) -> None:
    driver, ask = bench.driver, bench.acts.isolation
    assert ask is not None
    for mode in bench.modes:
        with bench.opened(mode) as connection:
            for level in [level for level in _LEVELS if not driver.refuses("isolation", level)]:
                driver.set_isolation(connection, level)
                bench.rest(connection)
                for _ in range(2):
                    driver.begin(connection)
                    said = re.sub(r"[\W_]+", " ", str(ask(connection))).strip().lower()
                    if said != level:
                        raise Broken(f"after set_isolation({level!r}) a transaction has {said!r}")
                    driver.rollback(connection)


@promise("set_read_only forbids changes, and allows them again, in either mode", of="set_read_only", acts="change")
def forbids(bench: Bench) -> None:
    driver, change = bench.driver, bench.acts.change
    assert change is not None
    for mode in bench.modes:
        with bench.opened(mode) as connection:
            for on in (True, False):
                driver.set_read_only(connection, on)
                bench.rest(connection)
                for begin in (False, True):
                    if begin:
                        driver.begin(connection)
                    try:
                        change(connection)
                    except Exception as error:
                        if not on:
                            raise Broken("after set_read_only(False) a change is refused") from error
                    else:
                        if on:
                            raise Broken("after set_read_only(True) a change is allowed")
                    driver.rollback(connection)


@promise("buffered tells whether the server still keeps rows of a cursor", of="buffered", acts="read stream")
def knows_who_keeps_rows(bench: Bench) -> None:
    assert bench.acts.read is not None and bench.acts.stream is not None
    for act, here in ((bench.acts.read, True), (bench.acts.stream, False)):
        with bench.opened() as connection:
            cursor = act(connection)
            if bench.driver.buffered(cursor) is not here:
                raise Broken(f"buffered is {not here} of a cursor whose rows are {'here' if here else 'at the server'}")
            cursor.close()


@promise("session names a session, each another one, and a closed connection none", of="session")
def names_sessions(bench: Bench) -> None:
    driver = bench.driver
    with bench.opened() as first, bench.opened() as second:
        names = [driver.session(connection) for connection in (first, second)]
        if None in names or len(set(names)) != 2 or names[0] != driver.session(first):
            raise Broken(f"two sessions are called {names[0]!r} and {names[1]!r}")
        driver.close(first)
        if driver.session(first) is not None:
            raise Broken(f"a closed connection has a session, {driver.session(first)!r}")


@promise("end_session ends the session of that name, if it is old enough, and no other", of="end_session")
def ends_sessions(bench: Bench) -> None:
    driver = bench.driver
    with bench.opened() as first, bench.opened() as second, bench.opened() as third:
        name = driver.session(first)
        assert name is not None
        driver.end_session(second, name, _AGES)
        if not driver.ping(first):
            raise Broken("end_session ended a session that is younger than it was told")
        with bench.wire(first) as wire, wire.relaying():
            driver.end_session(second, name, 0.0)
            if not wire.server_left(PATIENCE):
                raise Broken("end_session did not end the session")
        driver.end_session(second, name, 0.0)  # nobody's any more
        if not driver.ping(second) or not driver.ping(third):
            raise Broken("end_session ended another session than the one it was told")


PROMISES = (
    hears,
    resets,
    puts_back,
    runs,
    isolates,
    forbids,
    knows_who_keeps_rows,
    names_sessions,
    ends_sessions,
)
