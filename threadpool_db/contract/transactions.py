"""Does the driver begin, end and see transactions? By what others see of them, and what it says itself."""

from __future__ import annotations

from threadpool_db.contract.bench import Bench, Broken, Misled, promise
from threadpool_db.drivers.base import IDLE


@promise("state, glimpse and settled never take an open transaction for none", of="state", acts="change")
def state_is_no_guess(bench: Bench) -> None:
    driver = bench.driver
    for mode in bench.modes:
        with bench.opened(mode) as connection:
            bench.must_rest(connection, mode, "connect and a rollback where it was not idle")
            bench.change(connection)
            if driver.state(connection) is IDLE:
                raise Broken("state is idle, and a change waits for its commit")
            if driver.glimpse(connection) is IDLE:
                raise Broken("glimpse is idle, and a change waits for its commit")
            if driver.settled(connection, mode):
                raise Broken("settled says yes, and a change waits for its commit")
            driver.rollback(connection)
            bench.must_rest(connection, mode, "a rollback")
            bench.acts.use(connection)
            driver.rollback(connection)
            bench.must_rest(connection, mode, "something ordinary and a rollback")


@promise("autocommit tells the mode, set_autocommit switches it, settled notices another", of="has_autocommit",
         acts="change seen")  # fmt: skip
def the_mode(bench: Bench) -> None:
    driver, acts = bench.driver, bench.acts
    assert acts.change is not None
    with bench.opened() as connection, bench.opened(True) as other:
        for on in (True, False, True, True, False):
            driver.set_autocommit(connection, on)
            if driver.autocommit(connection) is not on:
                raise Broken(f"after set_autocommit({on}) autocommit is {driver.autocommit(connection)}")
            if driver.settled(connection, not on):
                raise Broken(f"settled says yes to the mode {not on}, and it is {on}")
            before = bench.seen(other)
            acts.change(connection)
            if (bench.seen(other) != before) is not on:
                raise Broken(f"after set_autocommit({on}) a change was {'not ' * on}seen by others at once")
            driver.rollback(connection)
            bench.must_rest(connection, on, "a rollback")


@promise("begin opens a transaction in either mode", of="begin", acts="change seen")
def begins(bench: Bench) -> None:
    driver = bench.driver
    assert bench.acts.change is not None
    for mode in bench.modes:
        with bench.opened(mode) as connection, bench.opened() as other:
            before = bench.seen(other)
            driver.begin(connection)
            if driver.has_autocommit and driver.autocommit(connection) is not mode:
                raise Broken(f"begin changed autocommit from {mode}")
            bench.acts.change(connection)
            if driver.state(connection) is IDLE:
                raise Broken("state is idle after begin and a change")
            if bench.seen(other) != before:
                raise Broken("a change after begin is seen by others before its commit")
            driver.rollback(connection)
            bench.must_rest(connection, mode, "begin, a change and a rollback")


@promise("commit keeps what was done", of="commit", acts="change seen")
def commits(bench: Bench) -> None:
    for mode in bench.modes:
        with bench.opened(mode) as connection, bench.opened() as other:
            before = bench.seen(other)
            bench.change(connection)
            bench.driver.commit(connection)
            bench.must_rest(connection, mode, "a commit")
            if bench.seen(other) == before:
                raise Broken("a change is not seen by others after its commit")


@promise("rollback takes back what was done", of="rollback", acts="change seen")
def rolls_back(bench: Bench) -> None:
    for mode in bench.modes:
        with bench.opened(mode) as connection:
            before = bench.seen(connection)
            bench.change(connection)
            if bench.seen(connection) == before:
                raise Misled(f"Acts: what seen says, {before!r}, is the same after a change")
            bench.driver.rollback(connection)
            bench.must_rest(connection, mode, "a rollback")
            if bench.seen(connection) != before:
                raise Broken("a change is there after the rollback")


@promise("commit and rollback end what a hand-written BEGIN opened", of="begin", acts="by_hand change seen")
def ends_what_it_did_not_begin(bench: Bench) -> None:
    driver, acts = bench.driver, bench.acts
    assert acts.by_hand is not None and acts.change is not None
    for mode in bench.modes:
        for end in ("rollback", "commit"):
            with bench.opened(mode) as connection, bench.opened() as other:
                before = bench.seen(other)
                acts.by_hand(connection)
                if driver.state(connection) is IDLE:
                    raise Broken("state is idle after a hand-written BEGIN")
                acts.change(connection)
                getattr(driver, end)(connection)
                bench.must_rest(connection, mode, f"a hand-written BEGIN and {end}")
                if (bench.seen(other) != before) is not (end == "commit"):
                    raise Broken(f"{end} did not end a hand-written BEGIN where autocommit is {mode}")


@promise("a transaction that failed can be rolled back", of="commit", acts="change seen err")
def rolls_back_what_failed(bench: Bench) -> None:
    acts = bench.acts
    for mode in bench.modes:
        with bench.opened(mode) as connection:
            before = bench.seen(connection)
            bench.change(connection)
            bench.fails("err", lambda: acts.err(connection))  # type: ignore[misc]
            if bench.driver.settled(connection, mode):
                raise Broken("settled says yes inside a transaction that failed")
            bench.driver.rollback(connection)
            bench.must_rest(connection, mode, "a failure and a rollback")
            if bench.seen(connection) != before:
                raise Broken("the change of a failed transaction is there after the rollback")
            acts.use(connection)


@promise("commit and rollback of nothing are allowed", of="commit rollback")
def nothing_to_end(bench: Bench) -> None:
    for mode in bench.modes:
        with bench.opened(mode) as connection:
            bench.driver.commit(connection)
            bench.must_rest(connection, mode, "a commit of nothing")
            bench.driver.rollback(connection)
            bench.must_rest(connection, mode, "a rollback of nothing")


PROMISES = (
    state_is_no_guess,
    the_mode,
    begins,
    commits,
    rolls_back,
    ends_what_it_did_not_begin,
    rolls_back_what_failed,
    nothing_to_end,
)
