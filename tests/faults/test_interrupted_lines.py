"""What does an interrupt leave behind, wherever in the pool's own code it strikes? Nothing that is lost.

KeyboardInterrupt at each line in turn of a borrowing and a giving back, over real databases. After every strike the
same pool lends all its connections at once, none of them is in a transaction, and when they are back nothing is in use.
What was struck happened wholly or not at all.

``tests/test_interrupts.py`` asks less, of every place where CPython itself may deliver an interrupt. A trace function
can raise at others, too: lines that make no call.
"""

from __future__ import annotations

import gc
import linecache
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import threadpool_db
from tests.drivers import ask
from tests.faults.bank import eventually
from tests.scene import SOON, background
from threadpool_db import create_pool

ROOT = Path(threadpool_db.__file__).parent
#: The whole package but the keeper, whose threads are nobody's to interrupt; SQLite's authorizer, in which sqlite3
#: swallows what is raised; and what only a test uses.
NOT_OURS = ("keeper.py", "drivers/watched_sqlite.py", "testing.py")
SIZE = 2
PATIENCE = 5.0
ENOUGH = 3  # each line at which something is lost costs our patience
SQLITE_OPTIONS = f"?pragma.synchronous=off&timeout={PATIENCE}"
STRIDE = 7  # every so many lines, where a strike costs round trips to a server

pytestmark = [
    # what a strike drops is reported, rightly; and a strike inside a finaliser goes no further
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.timeout(300),
]


class Striker:
    """A trace function that raises KeyboardInterrupt at the ``at``-th line of the pool's own code."""

    _package, _not_ours = str(ROOT), tuple(str(ROOT / room) for room in NOT_OURS)

    def __init__(self, pool, at):
        self._locked = pool._lock._is_owned
        self._left = at
        self.place = None

    def __call__(self, frame, event, argument):
        file = frame.f_code.co_filename
        if not file.startswith(self._package) or file.startswith(self._not_ours):
            return None
        if event == "line" and not (self._locked() and lets_go_of_lock(file, frame.f_lineno)):
            self._left -= 1
            if self._left == 0:
                self.place = file, frame.f_lineno, frame.f_code.co_name
                raise KeyboardInterrupt
        return self

    def __str__(self):
        file, line, function = self.place
        return f"{Path(file).relative_to(ROOT)}:{line} ({function})  {linecache.getline(file, line).strip()}"


def run_traced(trace, action, *arguments):
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action(*arguments)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)


def lets_go_of_lock(file, line):
    """CPython looks for interrupts after calls and jumps: after the last one in a locked section the lock is let go of
    before it looks again. A trace function alone could raise between the two. (The core itself knows no lock.)"""
    if file.startswith(str(ROOT / "core")):
        return False
    text = linecache.getline(file, line).strip()
    if text == "try:":
        text = linecache.getline(file, line + 1).strip()
    returns = text.startswith("return") and "(" not in text
    return returns or text == "release()" or (text.startswith("with ") and text.endswith("_lock:"))


# The operations: each writes two rows or none -------------------------------------------------------------------------


def checkout(pool):
    with pool.checkout() as connection:
        ask(connection, "insert into struck values (1)")  # rolled back: nobody commits


def connection(pool):
    with pool.connection() as connection:
        ask(connection, "insert into struck values (1)")


def transaction(pool):
    with pool.transaction() as connection:
        ask(connection, "insert into struck values (1)")
        ask(connection, "insert into struck values (1)")


def execute(pool):
    pool.execute("insert into struck values (1), (1)")
    pool.release()  # under the policy "thread" it would stay with us


# What an operation finds ----------------------------------------------------------------------------------------------


def idle(pool, struck):
    """Connections are there."""


def cold(pool, struck):
    """None is there: the keeper connects, and whoever borrows waits for it."""
    pool.recycle()


def busy(pool, struck):
    """All are lent, until somebody waits for them."""
    leases = [pool.checkout(PATIENCE) for _ in range(SIZE)]

    def give_back():
        while not struck.is_set() and not pool.stats().waiting:
            time.sleep(0.0005)
        for lease in leases:
            lease.checkin()

    return give_back


# The play -------------------------------------------------------------------------------------------------------------


def in_transaction(name, connection, server):
    """Is there one for the server, whatever the client thinks? ``server``: a pool to ask it through."""
    if name == "sqlite":
        return connection.in_transaction  # SQLite itself says so
    if name == "postgresql":
        pid = connection.get_backend_pid()
        return server.execute("select state from pg_stat_activity where pid = %s", [pid]) != [("idle",)]
    return ask(connection, "select @@in_transaction") != ((0,),)


def strike(pool, operation, situation, striker, afterwards):
    """In a thread of its own, whose end may leave nothing either. ``afterwards``: what it does until then."""
    struck = threading.Event()
    meanwhile = situation(pool, struck) or (lambda: None)

    def play():
        try:
            run_traced(striker, operation, pool)
            assert not pool._lock._is_owned(), "the lock is held"
        finally:
            while pool._lock._is_owned():  # or the whole test would hang
                pool._lock.release()
            struck.set()
        if afterwards and striker.place:
            afterwards(pool)

    future = background(play)
    meanwhile()
    future.result(2 * PATIENCE)


def look_for_orphans(pool):
    """The pool does, whenever somebody waits or asks for its numbers."""
    gc.collect()
    pool.stats()


def assert_nothing_lost(name, pool, server):
    look_for_orphans(pool)
    leases = [pool.checkout(PATIENCE) for _ in range(SIZE)]
    lent = [lease.connection for lease in leases]
    try:
        assert len(set(map(id, lent))) == SIZE, "two have one connection"
        assert not any(in_transaction(name, one, server) for one in lent), "lent in a transaction"
        stats = pool.stats()
        assert (stats.in_use, stats.total) == (SIZE, SIZE)
    finally:
        for lease in leases:
            lease.checkin()
    eventually(lambda: pool.stats().in_use == 0, "nothing is in use", PATIENCE)
    assert pool.stats().total <= SIZE
    with pool.scope():  # or this thread would keep one, under the policy "thread"
        [(rows,)] = pool.execute("select count(*) from struck")
    assert rows % 2 == 0, "half an operation"


def strike_everywhere(name, url, policy, operation, situation, stride, afterwards=None):
    """A struck pool is used again for the next strike, if nothing was wrong with it. How many lines there are, and
    those at which something is lost."""
    lost: list[str] = []
    at, pool, server = 1, None, create_pool(url, max_size=1)
    gc.freeze()  # what the test runner has: collecting is quick without it
    try:
        while len(lost) < ENOUGH:
            if pool is None:
                gc.collect()
                pool = create_pool(url, max_size=SIZE, checkout=policy, timeout=PATIENCE)
                assert_nothing_lost(name, pool, server)  # and its connections are as they will be after a strike
            striker = Striker(pool, at)
            try:
                strike(pool, operation, situation, striker, afterwards)
                if striker.place is None:
                    return at, lost
                assert_nothing_lost(name, pool, server)
            except Exception as failure:
                if striker.place is None:
                    raise
                lost.append(f"{at}: {striker}: {type(failure).__name__}: {str(failure)[:100]}")
                pool.close(timeout=0)
                pool = None
            at += stride
        return at, lost
    finally:
        gc.unfreeze()
        server.close()
        if pool is not None:
            pool.close()


@contextmanager
def table(url):
    with closing(create_pool(url)) as pool:
        pool.execute("drop table if exists struck")
        pool.execute("create table struck (id integer)")
    yield url
    with closing(create_pool(url)) as pool:
        pool.execute("drop table struck")


@pytest.fixture
def url(db_name, db_url):
    with table(db_url + (SQLITE_OPTIONS if db_name == "sqlite" else "")) as url:
        yield url


everywhere = pytest.mark.parametrize("situation", [idle, cold, busy], ids=lambda it: it.__name__)
each_operation = pytest.mark.parametrize(
    "operation", [checkout, connection, transaction, execute], ids=lambda it: it.__name__
)
each_policy = pytest.mark.parametrize("policy", ["operation", "thread"])


@pytest.mark.parametrize("stride", [STRIDE, pytest.param(1, marks=pytest.mark.proof)])
@each_policy
@everywhere
@each_operation
def test_an_interrupt_at_a_line_of_the_pools_loses_nothing(db_name, url, operation, situation, policy, stride):
    stride = 1 if db_name == "sqlite" else stride
    lines, lost = strike_everywhere(db_name, url, policy, operation, situation, stride)
    assert not lost, "\n".join(lost)
    assert lines > 50


def go_on(pool):
    """The thread lives on, as an interactive one does, and uses the pool again."""
    look_for_orphans(pool)
    assert not pool.in_transaction
    transaction(pool)
    assert not pool.in_transaction, "what was committed is not: it became a part of an older transaction"
    pool.release()


@each_policy
@each_operation
def test_a_thread_that_was_interrupted_at_any_line_goes_on_with_nothing_of_what_it_did(tmp_path, operation, policy):
    with table(f"sqlite:///{tmp_path}/test.db{SQLITE_OPTIONS}") as url:
        _, lost = strike_everywhere("sqlite", url, policy, operation, idle, 1, go_on)
    assert not lost, "\n".join(lost)


def test_a_block_interrupted_at_its_end_does_not_swallow_what_its_thread_commits_later(tmp_path):
    struck = []

    def strike(frame, event, argument):
        if frame.f_code.co_name == "_let_go":  # at the start of a function CPython does deliver interrupts
            struck.append(frame.f_code)
            raise KeyboardInterrupt

    def play():
        run_traced(strike, connection, pool)
        look_for_orphans(pool)
        transaction(pool)

    with table(f"sqlite:///{tmp_path}/test.db{SQLITE_OPTIONS}") as url, closing(create_pool(url)) as pool:
        background(play).result(SOON)
        assert struck
        assert pool.execute("select count(*) from struck") == [(2,)]
