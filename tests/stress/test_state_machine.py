"""Does any order of calls confuse the pool? Hypothesis makes up programs, and shortens the one that fails.

One thread, a driver and a clock that the test rules, and beside the pool a model of what must be there: the leases that
are held, and every idle connection with all that decides its fate. After each step the counts are exact, there are
never more than ``max_size`` connections, no two leases share one, nothing that is held was closed, and nothing idle was
closed without a reason. What a checkout must answer is worked out from the model before it is asked.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import warnings

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from threadpool_db import Backoff, ConnectFailed, PoolClosed, PoolMisuse, PoolTimeout, StaleLease
from threadpool_db.config import PoolConfig
from threadpool_db.drivers.base import BUSY, FAILED, IDLE, OPEN, UNKNOWN
from threadpool_db.pool import ConnectionPool
from threadpool_db.testing import FakeClock, ScriptedDriver

PING_AFTER, MAX_IDLE, LIFETIME = 30.0, 300.0, 1800.0
RETRY = 0.125  # all times are sums of powers of two, so that the model's arithmetic is the pool's


class LonelyClock(FakeClock):
    """There is one thread: when it sleeps, nothing can happen until its hour has come."""

    def wait(self, gate, until):
        if not gate.acquire(blocking=False) and until > self.now():
            self.advance(until - self.now())


class Known:
    """What the model knows of a connection that the pool has not closed."""

    def __init__(self, connection, now):
        self.connection = connection
        self.opened = self.used = now
        self.recycled = False

    def overdue(self, now):
        return self.recycled or now >= self.opened + LIFETIME

    def silent(self, now):
        return now - self.used >= PING_AFTER


class PoolMachine(RuleBasedStateMachine):
    leases = Bundle("leases")

    @initialize(size=st.integers(1, 4), autocommit=st.sampled_from((None, False)))
    def create(self, size, autocommit):
        self.size = size
        self.clock = LonelyClock()
        self.driver = ScriptedDriver(self.clock, autocommit=autocommit)
        self.driver.always("connect", self.connecting)
        config = PoolConfig.from_options(
            {
                "background": False,
                "max_size": size,
                "clock": self.clock,
                "backoff": Backoff(RETRY, RETRY),
                "grace": math.inf,
                "lifetime_jitter": 0.0,
                "ping_after": PING_AFTER,
                "max_idle": MAX_IDLE,
                "max_lifetime": LIFETIME,
            }
        )
        self.pool = ConnectionPool(self.driver, config)
        self.down = self.ever_connected = self.closed = False
        self.held = {}  # lease: what is known of its connection
        self.idle = []  # by last use, the next to go at the end
        self.detached = set()
        self.caught = warnings.catch_warnings()
        self.caught.__enter__()
        warnings.simplefilter("ignore", ResourceWarning)

    def connecting(self):
        """In the driver's connect."""
        assert len(self.driver.open - self.detached) < self.size
        if self.down:
            raise OSError("the server is down")

    @property
    def now(self):
        return self.clock.now()

    # --- Borrowing ---

    @rule(target=leases, timeout=st.just(0.5))
    def checkout_once_more(self, timeout):
        """The same: so that there are more leases than anything else."""
        return self.checkout(timeout)

    @rule(target=leases, timeout=st.just(8.0))
    def checkout_and_again(self, timeout):
        return self.checkout(timeout)

    @rule(target=leases, timeout=st.sampled_from((5.0, 0.5, 0)))
    def checkout(self, timeout):
        expected, before = self.expected(timeout), self.now
        made = self.driver.made
        if isinstance(expected, type):
            with pytest.raises(expected) as told:
                self.pool.checkout(timeout)
            assert told.type is expected and self.now <= before + timeout
            self.forget_closed()
            return multiple()
        lease = self.pool.checkout(timeout)
        connection = lease.connection
        if isinstance(expected, Known):
            assert connection is expected.connection and self.driver.made == made
            self.idle.remove(expected)
        else:
            assert expected == "a new one" and self.driver.made == made + 1
            expected = Known(connection, self.now)
            self.ever_connected = True
        assert connection.state is IDLE and not connection.closed
        assert all(known.connection is not connection for known in self.held.values())
        self.held[lease] = expected
        self.forget_closed()
        return lease

    def expected(self, timeout):
        """The idle connection that a checkout must give, "a new one", or the type of its error."""
        if self.closed:
            return PoolClosed
        shelf = [known for known in self.idle if not known.overdue(self.now)]
        shelf = [known for known in shelf if self.now - known.used < MAX_IDLE]
        while shelf:
            silent = shelf[-1].silent(self.now)
            if silent and timeout == 0:
                break  # the rest is colder still
            known = shelf.pop()
            connection = known.connection
            if connection.alive and (connection.answers or not silent):
                return known
            shelf = [other for other in shelf if not other.silent(self.now)]  # retired with the dead one
        if timeout == 0:
            return PoolTimeout
        if len(self.held) == self.size:
            return PoolMisuse  # this one thread holds them all
        if self.down:
            return PoolTimeout if self.ever_connected else ConnectFailed
        return "a new one"

    # --- Giving back ---

    @rule(lease=consumes(leases))
    def checkin(self, lease):
        known = self.held.pop(lease)
        connection = known.connection
        closes = self.closed or known.overdue(self.now) or connection.state is BUSY
        lease.checkin()
        known.used = self.now
        self.returned(known, closes)

    @rule(lease=consumes(leases), error=st.sampled_from((None, ValueError, ConnectionError, KeyboardInterrupt)))
    def use_in_a_block(self, lease, error):
        known = self.held.pop(lease)
        state = known.connection.state
        closes = (
            self.closed
            or known.overdue(self.now)
            or state is BUSY
            or error is ConnectionError
            or (error is KeyboardInterrupt and state is not IDLE)
        )
        with contextlib.nullcontext() if error is None else pytest.raises(error):
            with lease:
                if error is not None:
                    raise error
        known.used = self.now
        self.returned(known, closes)

    @rule(lease=consumes(leases))
    def checkin_while_the_rollback_fails(self, lease):
        known = self.held.pop(lease)
        state = known.connection.state
        self.driver.always("rollback", OSError)
        lease.checkin()
        self.driver.always("rollback", None)
        known.used = self.now
        self.returned(known, self.closed or known.overdue(self.now) or state is not IDLE)

    @rule(lease=consumes(leases))
    def checkin_interrupted_in_the_rollback(self, lease):
        known = self.held.pop(lease)
        known.connection.state = OPEN
        self.driver.script("rollback", KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            lease.checkin()
        self.returned(known, True)

    @rule(lease=consumes(leases))
    def discard(self, lease):
        known = self.held.pop(lease)
        lease.discard()
        self.returned(known, True)

    @rule(lease=consumes(leases))
    def detach(self, lease):
        connection = lease.detach()
        assert connection is self.held.pop(lease).connection and not connection.closed
        self.detached.add(connection)
        self.forget_closed()

    @rule(lease=consumes(leases))
    def drop(self, lease):
        # Hypothesis keeps what is in its bundles: what is dropped is what is in the lease
        del self.held[lease]
        lease._claim = None
        del lease
        gc.collect(0)

    @rule(lease=consumes(leases), again=st.sampled_from(("checkin", "discard", "detach", "connection")))
    def use_after_the_end(self, lease, again):
        self.checkin(lease)
        if again in ("checkin", "discard"):
            with pytest.warns(RuntimeWarning, match="given back already"):
                getattr(lease, again)()
        else:
            with pytest.raises(StaleLease):
                lease.detach() if again == "detach" else lease.connection
        assert not lease.active

    def returned(self, known, closes):
        assert known.connection.closed is closes
        if not closes:
            assert known.connection.state is IDLE
            self.idle.append(known)
        self.forget_closed()

    # --- What happens to connections ---

    @rule(lease=leases, state=st.sampled_from((IDLE, OPEN, FAILED, BUSY, UNKNOWN)))
    def work(self, lease, state):
        lease.connection.state = state

    @rule(which=st.integers(0, 20), how=st.sampled_from(("alive", "answers")))
    def kill(self, which, how):
        there = [*self.idle, *self.held.values()]
        if there:
            setattr(there[which % len(there)].connection, how, False)

    @rule(down=st.sampled_from((False, False, True)))
    def server(self, down):
        self.down = down

    @rule(seconds=st.sampled_from((RETRY, RETRY / 2, 8.0, PING_AFTER, MAX_IDLE, LIFETIME)))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    @rule()
    def recycle(self):
        self.pool.recycle()
        for known in (*self.idle, *self.held.values()):
            known.recycled = True
        assert all(known.connection.closed for known in self.idle)
        self.forget_closed()

    @rule(really=st.integers(0, 63))
    def close(self, really):
        if really == 42:  # not in every program, or most would be about closed pools
            self.pool.close(timeout=0)
            self.closed = True
            assert all(known.connection.closed for known in self.idle)
            self.forget_closed()

    def forget_closed(self):
        """Nothing idle is closed without a reason; and a note that was read has closed its connection."""
        for known in self.idle:
            if known.connection.closed:
                dead = not known.connection.alive or not known.connection.answers
                reason = known.overdue(self.now) or known.silent(self.now) or dead or self.closed
                assert reason, f"{known.connection} was closed"
        self.idle = [known for known in self.idle if not known.connection.closed]

    # --- What must always be true ---

    @invariant()
    def the_count_is_exact(self):
        if not hasattr(self, "pool"):
            return
        stats = self.pool.stats()  # and whatever is due is done, and notes are read
        self.forget_closed()
        assert stats.idle == len(self.idle)
        assert stats.in_use == len(self.held)
        assert stats.total == stats.idle + stats.in_use <= self.size
        assert (stats.waiting, stats.counts.opening, stats.counts.closing) == (0, 0, 0)
        assert stats.opened == self.driver.made
        assert stats.closures == self.driver.closed
        assert stats.closed is self.closed
        theirs = {known.connection for known in (*self.idle, *self.held.values())}
        assert theirs | self.detached == self.driver.open
        assert len(theirs) == stats.total
        assert all(lease.active and lease.connection is known.connection for lease, known in self.held.items())
        assert self.driver.wrong == []

    def teardown(self):
        if not hasattr(self, "pool"):
            return
        for lease in list(self.held):
            lease.discard()
        self.pool.recycle()  # whoever comes next reads the notes
        self.pool.close(timeout=0)
        assert self.driver.open == self.detached
        self.caught.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def _quiet_log(caplog):
    caplog.set_level(logging.CRITICAL, "threadpool_db")


def run(examples, steps):
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        PoolMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_no_order_of_calls_confuses_the_pool():
    run(150, 50)


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_no_order_of_very_many_calls_confuses_the_pool():
    run(2000, 80)
