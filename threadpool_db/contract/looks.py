"""Are the local questions local? They ask nobody, wait for nobody, and see what is to be seen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from threadpool_db.contract.bench import PATIENCE, Bench, Broken, Call, promise
from threadpool_db.drivers.base import TransactionState


def _looks(bench: Bench, connection: Any, mode: bool | None, in_transaction: bool) -> dict[str, Callable[[], Any]]:
    driver = bench.driver
    looks: dict[str, Callable[[], Any]] = {
        "state": lambda: driver.state(connection),
        "autocommit": lambda: driver.autocommit(connection),
        "settled": lambda: driver.settled(connection, mode),
        "dirtied": lambda: driver.dirtied(connection),
        "glimpse": lambda: driver.glimpse(connection),
        "session": lambda: driver.session(connection),
        "descriptor": lambda: driver.descriptor(connection),
    }
    if driver.peeks:
        looks["peek"] = lambda: driver.peek(connection)
    if not in_transaction:
        looks["put_back"] = lambda: driver.put_back(connection)
        looks["watch"] = lambda: driver.watch(connection)
        looks["adopt"] = lambda: driver.adopt(connection)
    if bench.wired and not in_transaction:
        looks["interrupt"] = lambda: driver.interrupt(connection)
    return looks


@promise("what is local sends nothing, and does not wait for a server that is silent", unwired="silence")
def local(bench: Bench) -> None:
    in_which = [False] + [True] * (bench.wired and bench.acts.change is not None)
    for in_transaction in in_which:
        for mode in bench.modes:
            with bench.opened(mode) as connection:
                if in_transaction:
                    bench.change(connection)
                with bench.silence(connection) as wire:
                    for name, look in _looks(bench, connection, mode, in_transaction).items():
                        answer = bench.promptly(name, look, wire)
                        if wire is not None and wire.said():
                            raise Broken(f"{name} sent {wire.said()} bytes to the server")
                        if name == "peek" and not answer and not in_transaction:
                            raise Broken("peek calls a connection dead whose server merely says nothing")


@promise("glimpse waits for no other thread's call", of="glimpse", unwired="stall")
def glimpse_beside_a_call(bench: Bench) -> None:
    with bench.opened() as connection:
        if bench.wired:
            with bench.wire(connection) as wire:
                call = Call("use", lambda: bench.acts.use(connection))
                if not wire.hear(PATIENCE):
                    raise Broken("use said nothing on the socket that descriptor names")
                said = wire.said()
                seen = bench.promptly(
                    "glimpse, during another thread's call,", lambda: bench.driver.glimpse(connection)
                )
                if wire.said() != said:
                    raise Broken("glimpse spoke to the server in the middle of another thread's call")
                wire.hang_up()
        else:
            assert bench.acts.stall is not None
            call = Call("stall", lambda: bench.acts.stall(connection))  # type: ignore[misc]
            try:
                for _ in range(20):  # for a while, for nobody knows when it is in the middle of it
                    seen = bench.promptly(
                        "glimpse, during another thread's call,", lambda: bench.driver.glimpse(connection)
                    )
                    call.ended(0.01)
            finally:  # whatever is found: nobody may close what is in the middle of a call
                _end_unwired(bench, connection, call)
        if not isinstance(seen, TransactionState):
            raise Broken(f"glimpse answered {seen!r}, which is no TransactionState")
        call.ended()


def _end_unwired(bench: Bench, connection: Any, call: Call) -> None:
    """Again and again: it may not have been in the middle of it yet."""
    for _ in range(int(PATIENCE / 0.01)):
        bench.driver.interrupt(connection)
        if call.ended(0.01):
            return


@promise("glimpse raises nothing while another thread closes the connection, or after that", of="glimpse")
def glimpse_of_a_closed_one(bench: Bench) -> None:
    for _ in range(3):
        with bench.opened() as connection:
            over = threading.Event()

            def look(connection: Any = connection, over: threading.Event = over) -> None:
                while not over.is_set():
                    bench.driver.glimpse(connection)

            looking = Call("glimpse", look)
            bench.driver.close(connection)
            bench.driver.glimpse(connection)
            over.set()
            if not looking.ended():
                raise Broken("glimpse waits, after the connection was closed")
            if looking.error is not None:
                raise looking.error


@promise(
    "peek sees that the other side has hung up, and nothing wrong with one that has not", of="peeks", unwired="kill"
)
def peek_sees(bench: Bench) -> None:
    for mode in bench.modes:
        with bench.opened(mode) as connection:
            for _ in range(2):
                if not bench.driver.peek(connection):
                    raise Broken("peek calls a connection dead that has just been opened")
                bench.acts.use(connection)
                bench.rest(connection)
    for dead in bench.deaths():
        with dead() as connection:
            if bench.driver.peek(connection):
                raise Broken("peek does not see that the other side has hung up")


@promise("ping asks the server, in one round trip, and leaves no transaction nor another mode", of="ping")
def ping_asks(bench: Bench) -> None:
    for mode in bench.modes:
        with bench.opened(mode) as connection:
            if bench.wired:
                with bench.wire(connection) as wire:
                    call = Call("ping", lambda: bench.driver.ping(connection))
                    while not wire.hear(0.01) and not call.ended(0):
                        pass
                    if not wire.said():
                        raise Broken("ping said nothing on the socket that descriptor names")
                    with wire.relaying():
                        if not call.ended():
                            raise Broken(f"ping waits, after {wire.turns} round trips")
                    if wire.turns > 1:
                        raise Broken(f"ping takes {wire.turns} round trips")
                if call.error is not None:
                    raise call.error
                answer = call.value
            else:
                answer = bench.driver.ping(connection)
            if not answer:
                raise Broken(f"ping answered {answer!r} of a connection that lives")
            bench.must_rest(connection, mode, "a ping")


@promise("ping does not answer for the dead", of="ping")
def ping_of_the_dead(bench: Bench) -> None:
    for dead in bench.deaths():
        with dead() as connection:
            try:
                answer = bench.driver.ping(connection)
            except Exception as error:
                if not bench.driver.is_disconnect(error, connection):
                    name = type(error).__name__
                    raise Broken(f"a ping of the dead raised {name}, and is_disconnect says that it goes on") from error
            else:
                if answer:
                    raise Broken(f"ping answered {answer!r} of a connection whose other side has hung up")


PROMISES = (local, glimpse_beside_a_call, glimpse_of_a_closed_one, peek_sees, ping_asks, ping_of_the_dead)
