"""May a thread be interrupted anywhere? An exception raised at each place of the pool's own code where that can happen.

Python delivers KeyboardInterrupt, and what ``PyThreadState_SetAsyncExc`` sends, after a call, at the start of a
function and when a loop goes round. At the worst of these places, in the locked section, a slot may be lost until an
audit finds it; but no two threads ever have one connection, nothing is opened beyond ``max_size``, and nobody meets an
error that is not his. Where threads really spend their time (in line, in a look, a connect, a rollback, a close)
nothing is lost at all: that is tested with the rooms.
"""

from __future__ import annotations

import dis
import functools
import gc
import os
import sys
import warnings

import pytest

import threadpool_db
from tests.scene import SOON, Scene, background, scene
from threadpool_db import ConnectFailed, PoolOverloaded, TransactionState, testing

ROOT = os.path.dirname(threadpool_db.__file__)

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@functools.cache
def interruptible(code):
    """The instructions before which Python looks whether somebody wants something of it."""
    calls = ("CALL_FUNCTION", "CALL_METHOD", "CALL_KW", "JUMP_BACKWARD", "JUMP_ABSOLUTE", "RESUME")
    places, before = set(), "RESUME" if sys.version_info < (3, 11) else ""
    for instruction in dis.get_instructions(code):
        if before == "CALL" or before.startswith(calls):
            places.add(instruction.offset)
        before = instruction.opname
    return places


def run_interrupted(action, at):
    """Raise KeyboardInterrupt at the ``at``-th such place inside the package; False if there are fewer.

    In a thread of its own: raised between two instructions of an ``except`` clause's end, it leaves CPython 3.11
    believing for the rest of the thread's life that an old error is being handled.
    """
    return background(_run_interrupted, action, at).result(SOON)


def _run_interrupted(action, at):
    seen = 0

    def trace_instruction(frame, event, argument):
        nonlocal seen
        if event == "opcode" and frame.f_lasti in interruptible(frame.f_code):
            seen += 1
            if seen == at:
                raise KeyboardInterrupt
        return trace_instruction

    def trace_call(frame, event, argument):
        name = frame.f_code.co_filename
        if not name.startswith(ROOT) or name == testing.__file__:
            return None
        frame.f_trace = trace_instruction  # before the next line, or CPython 3.13 ignores that
        frame.f_trace_opcodes = True
        return trace_instruction

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # CPython 3.12 looks at this one, and only here, before it traces any
    sys.settrace(trace_call)
    try:
        action()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return seen >= at


def borrow(s: Scene):
    s.pool.checkout().checkin()


def borrow_idle(s: Scene):
    s.fill(1)
    return functools.partial(borrow, s)


def borrow_new(s: Scene):
    return functools.partial(borrow, s)


def borrow_dead(s: Scene):
    s.fill(2)
    for connection in s.driver.open:
        connection.alive = False
    return functools.partial(borrow, s)


def fail_to_connect(s: Scene):
    def action():
        with pytest.raises(ConnectFailed):
            s.pool.checkout()

    s.driver.always("connect", OSError)
    return action


def give_back_unclean(s: Scene):
    s.fill(1)
    for connection in s.driver.open:
        connection.state = TransactionState.OPEN
    return functools.partial(borrow, s)


def discard(s: Scene):
    s.fill(1)
    return lambda: s.pool.checkout().discard()


def use_a_block(s: Scene):
    def action():
        with s.pool.checkout():
            pass

    s.fill(1)
    return action


def look(connection):
    connection.state = TransactionState.OPEN  # for the pool to commit


HOOKED = dict.fromkeys(("on_connect", "on_checkout", "on_checkin", "on_close"), look)


@pytest.mark.parametrize("hooks", [{}, HOOKED], ids=["plain", "hooks"])
@pytest.mark.parametrize(
    "prepare",
    [borrow_idle, borrow_new, borrow_dead, fail_to_connect, give_back_unclean, discard, use_a_block],
    ids=lambda prepare: prepare.__name__,
)
def test_an_interrupt_anywhere_leaves_a_pool_that_is_safe_to_use(prepare, hooks):
    at, interrupted = 0, True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        while interrupted:
            at += 1
            with scene(max_size=2, max_waiting=0, **hooks) as s:
                interrupted = run_interrupted(prepare(s), at)
                assert_safe(s)
    gc.collect()
    assert at > 20


def assert_safe(s: Scene):
    """At most two connections, each in one hand; refused is refused in the proper way."""
    s.driver.always("connect", None)
    leases = []
    for _ in range(3):
        try:
            leases.append(s.pool.checkout())
        except PoolOverloaded:
            break
    held = [lease.connection for lease in leases]
    assert len(set(held)) == len(held) <= 2
    assert not any(connection.closed for connection in held)
    for lease in leases:
        lease.checkin()
