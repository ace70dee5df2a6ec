"""Does a connection begin and end as it should: in time, for every thread, in any state, stuck or broken?"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from threadpool_db.contract.bench import PATIENCE, Bench, Broken, Call, claims, promise
from threadpool_db.contract.wire import Wire
from threadpool_db.database import Pool
from threadpool_db.drivers.sockets import cut_socket, socket_identity

#: what ``connect`` is given, and when it must have given up: libpq counts whole seconds, from 2 on
_TIMEOUT, _LIMIT = 1.0, 4.0


@promise("connect opens another connection each time, for whichever thread")
def opens(bench: Bench) -> None:
    with bench.opened() as first, bench.opened() as second:
        if first is second:
            raise Broken("connect gave the same object twice")
        for connection in (first, second):
            used = Call("use", lambda: bench.acts.use(connection))  # noqa: B023
            if not used.ended(60.0):
                raise Broken("use does not end in another thread than the one that connected")
            if used.error is not None:
                raise used.error
            bench.rest(connection)


@promise("connect gives up after about its timeout", wired="elsewhere")
def gives_up(bench: Bench) -> None:
    if bench.acts.elsewhere is None:
        return  # nobody to wait for
    with socket.create_server(("127.0.0.1", 0)) as mute:
        driver = bench.acts.elsewhere(*mute.getsockname()[:2])
        began = time.monotonic()
        call = Call("connect", lambda: driver.connect(_TIMEOUT))
        if not call.ended(_LIMIT):
            raise Broken(f"connect({_TIMEOUT:g}) still waited for a silent server after {_LIMIT:g} s")
        if call.error is None:
            raise Broken(f"connect({_TIMEOUT:g}) gave a connection to a server that has said nothing")
        if time.monotonic() - began < _TIMEOUT / 2:
            raise Broken(f"connect({_TIMEOUT:g}) gave up at once") from call.error


@promise("close ends a connection in any state, and what it has not committed is gone")
def closes(bench: Bench) -> None:
    scenes = ["at rest"]
    if bench.acts.change is not None:
        scenes += ["in a transaction"] + ["in a failed one"] * (bench.acts.err is not None)
    for scene in (*scenes, "hung up"):
        with bench.opened() as connection, bench.opened() as other:
            shared = bench.driver.has_autocommit and bench.acts.seen is not None
            before = bench.seen(other) if shared else None
            if "in a" in scene:
                bench.change(connection)
            if "failed" in scene:
                bench.fails("err", lambda: bench.acts.err(connection))  # type: ignore[misc]
            _close(bench, connection, scene)
            _is_closed(bench, connection, scene)
            if shared and bench.seen(other) != before:
                raise Broken(f"close {scene} committed what was open")


def _close(bench: Bench, connection: Any, scene: str) -> None:
    if not bench.wired:
        with suppress(Exception):
            bench.promptly("close", lambda: bench.driver.close(connection))
        return
    with bench.wire(connection) as wire:
        if scene == "hung up":
            wire.hang_up()
            with suppress(Exception):
                bench.driver.close(connection)
            return
        with wire.relaying():
            closing = Call("close", lambda: bench.driver.close(connection))
            if not closing.ended():
                raise Broken(f"close {scene} still waits after {PATIENCE:g} s")
        if not wire.ended:
            raise Broken(f"close {scene} left the socket open")


def _is_closed(bench: Bench, connection: Any, scene: str) -> None:
    driver = bench.driver
    bench.fails(f"use of a connection that was closed {scene}", lambda: bench.acts.use(connection))
    if driver.descriptor(connection) is not None:
        raise Broken("descriptor names a socket of a closed connection")
    if driver.peeks and driver.peek(connection):
        raise Broken("peek says that a closed connection lives")
    if not driver.peeks and any(driver.settled(connection, mode) for mode in (None, False, True)):
        raise Broken("settled says yes of a closed connection, and there is no peek to find out")


@promise("is_disconnect knows the end of a connection from an ordinary error", of="is_disconnect")
def knows_the_end(bench: Bench) -> None:
    driver, acts = bench.driver, bench.acts
    with bench.opened() as connection:
        if driver.is_disconnect(RuntimeError("somebody's own"), connection):
            raise Broken("is_disconnect takes a RuntimeError of the borrower's for an end")
        if acts.err is not None:
            error = bench.fails("err", lambda: acts.err(connection))  # type: ignore[misc]
            if driver.is_disconnect(error, connection):
                raise Broken(f"is_disconnect takes an ordinary {type(error).__name__} for an end") from error
    for dead in bench.deaths():
        with dead() as connection:
            error = bench.fails("use of a dead connection", lambda: acts.use(connection))
            if not driver.is_disconnect(error, connection):
                name = type(error).__name__
                raise Broken(
                    f"is_disconnect is false of the {name} of a connection whose other side hung up"
                ) from error


@promise("code tells the database's code of an error", of="code", acts="err")
def tells_codes(bench: Bench) -> None:
    driver = bench.driver
    if driver.refuses("disconnect_on", ()):
        return  # and says so
    with bench.opened() as connection:
        error = bench.fails("err", lambda: bench.acts.err(connection))  # type: ignore[misc]
        code = driver.code(error)
        if not isinstance(code, driver.code_type):
            raise Broken(f"code is {code!r} of a {type(error).__name__}, and no {driver.code_type}") from error


@promise("is_answer knows a server's no from a server out of reach", of="is_answer", acts="refused elsewhere")
def knows_a_no(bench: Bench) -> None:
    refused, elsewhere = bench.acts.refused, bench.acts.elsewhere
    assert refused is not None and elsewhere is not None
    no = bench.fails("connect with what is refused", lambda: refused.connect(10.0))
    if not refused.is_answer(no):
        raise Broken(f"is_answer is false of a {type(no).__name__} by which the server refused us") from no
    with socket.create_server(("127.0.0.1", 0)) as shut:
        host, port = shut.getsockname()[:2]
    nobody = elsewhere(host, port)
    error = bench.fails("connect to a port where nobody listens", lambda: nobody.connect(_TIMEOUT))
    if nobody.is_answer(error):
        raise Broken(f"is_answer is true of a {type(error).__name__} where nobody listens") from error


@promise("server_key is the same for the same server, and another for another", of="server_key", wired="elsewhere")
def tells_servers_apart(bench: Bench) -> None:
    key = bench.driver.server_key
    if hash(key) != hash(bench.driver.server_key) or key != bench.driver.server_key:
        raise Broken("server_key is another each time")
    if bench.acts.elsewhere is not None:
        one, twin, other = (bench.acts.elsewhere("127.0.0.1", port) for port in (1, 1, 2))
        if one.server_key == key or one.server_key == other.server_key:
            raise Broken("server_key is the same for servers at different addresses")
        if one.server_key != twin.server_key:
            raise Broken("server_key differs between two drivers for one address")


@promise("a call that is stuck can be ended from outside: by its descriptor, else by interrupt", unwired="stall")
def ends_what_is_stuck(bench: Bench) -> None:
    driver, acts = bench.driver, bench.acts
    if not bench.wired and not claims(driver, "interrupt"):
        return
    with bench.opened() as connection:
        if bench.wired:
            with bench.wire(connection) as wire:
                call = Call("use", lambda: acts.use(connection))
                if not wire.hear(PATIENCE):
                    raise Broken("use said nothing on the socket that descriptor names")
                cut_socket(socket_identity(driver.descriptor(connection)))
                if not call.ended():
                    raise Broken("a call goes on although the socket that descriptor names was cut")
        else:
            call = Call("stall", lambda: acts.stall(connection))  # type: ignore[misc]
            until = time.monotonic() + PATIENCE
            while not call.ended(0.01):  # again and again, for it may not have been in the middle of it yet
                driver.interrupt(connection)
                if time.monotonic() > until:
                    raise Broken(f"a stuck call goes on {PATIENCE:g} s after interrupt")
        if call.error is None:
            raise Broken("a call that was ended from outside returned as if nothing were")
        if bench.wired and not driver.is_disconnect(call.error, connection):
            name = type(call.error).__name__
            raise Broken(f"is_disconnect is false of the {name} of a call whose socket was cut") from call.error


@promise("a pool over it lends nothing that a borrower has left, and nothing dead")
def pools(bench: Bench) -> None:
    driver, acts = bench.driver, bench.acts
    with Pool(driver, max_size=1) as pool:
        with pool.checkout() as connection:
            before = bench.seen(connection) if acts.seen else None
            left = bench.left(connection) if acts.left else None
            acts.use(connection)
            if acts.change is not None:
                acts.change(connection)
        with pool.checkout() as again:
            if acts.seen and bench.seen(again) != before:
                raise Broken("the next borrower finds the last one's change")
            if acts.leave is not None and claims(driver, "dirtied"):
                acts.leave(again)
        with pool.checkout() as again:
            if acts.left and bench.left(again) != left:
                raise Broken("the next borrower finds what the last one left in the session")
        if not driver.peeks:
            return
        with _dead(bench, again):
            with pool.checkout() as another:
                if another is again:
                    raise Broken("a connection whose other side hung up was lent again")
                acts.use(another)


@contextmanager
def _dead(bench: Bench, connection: Any) -> Iterator[None]:
    if bench.wired:
        with Wire(bench.driver.descriptor(connection) or -1) as wire:
            wire.hang_up()
            yield
    else:
        assert bench.acts.kill is not None
        bench.acts.kill(connection)
        yield


PROMISES = (
    opens,
    gives_up,
    closes,
    knows_the_end,
    tells_codes,
    knows_a_no,
    tells_servers_apart,
    ends_what_is_stuck,
    pools,
)
