"""What if a clock jumps? The wall clock, by hours and back, is nothing to the pool. Its own clock, which never goes
back, may leap: a laptop that was closed, a virtual machine that was moved, a process that was stopped. Then all that
was due is due at once."""

from __future__ import annotations

import contextlib
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.bank import Load, eventually
from tests.faults.test_outage import pass_time
from tests.faults.test_processes import Branch, read
from tests.scene import SOON, background, scene
from threadpool_db import LeaseExpired, PoolTimeout, create_pool
from threadpool_db.testing import FakeClock, Latch

ROOT = Path(__file__).resolve().parents[2]
SIZE = 4
HOURS = 3600 * 10.0
#: all that a pool counts in seconds, shorter than the standstill
SHORT = {"timeout": 0.7, "check_timeout": 0.5, "max_lease": 0.7, "max_idle": 0.4, "keepalive": 0.3}
STANDSTILL = 0.8
AT_ONCE = 2.0  # the machine may be busy

#: a clock is the same for every server
EACH = pytest.mark.parametrize("bank", ["postgresql", pytest.param("mariadb", marks=pytest.mark.proof)], indirect=True)


def play(name: str, url: str, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "error", "-m", "tests.faults.test_clocks", name, url, *more]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, cwd=ROOT, **pipes)


# The wall clock -------------------------------------------------------------------------------------------------------


def jump(url: str) -> None:
    """The process's own program: its wall clock jumps by ten hours, forth and twice as far back, at every look."""
    shift, asked = [HOURS], set()
    real, real_ns = time.time, time.time_ns

    def look() -> float:
        asked.add(sys._getframe(1).f_globals["__name__"].partition(".")[0])
        shift[0] *= -2 if abs(shift[0]) < HOURS * 8 else -0.125
        return shift[0]

    time.time = lambda: real() + look()
    time.time_ns = lambda: real_ns() + int(look() * 1e9)
    options = {"max_size": 2, "timeout": 0.3, "max_lifetime": 600, "max_idle": 300, "keepalive": 200, "max_lease": 100}
    with create_pool(url, leak_after=50, **options) as pool:  # type: ignore[arg-type]
        for _ in range(20):
            with pool.checkout(), pool.checkout():
                time.time()
                begun = time.perf_counter()
                try:
                    background(pool.checkout).result(SOON)
                except PoolTimeout:
                    waited = time.perf_counter() - begun
                else:
                    raise AssertionError("there was a third one")
                assert 0.29 < waited < 2.0, waited
                time.time()
            if waited < 0.35:
                break  # the machine may be busy with somebody else's work
        else:
            raise AssertionError(f"{waited} s, each time")
        time.time()
        stats = pool.stats()
        assert (stats.opened, stats.closures, stats.dead, stats.expired, stats.in_use) == (2, 0, 0, 0, 0), stats
        assert "threadpool_db" not in asked, asked
        assert asked  # it was looked at
    print("done", flush=True)


@EACH
def test_a_wall_clock_that_jumps_by_hours_is_nothing_to_the_pool(bank: Any) -> None:
    program = play("jump", bank.site.url())
    said, complaints = program.communicate(timeout=50)
    assert (complaints.decode(), said.decode(), program.returncode) == ("", "done\n", 0)


# The pool's own -------------------------------------------------------------------------------------------------------


def stand(url: str, receipts: str) -> None:
    """The process's own program: it works, is stopped in the middle of it, and stopped again when it is idle."""
    with create_pool(url, max_size=SIZE, **SHORT) as pool:  # type: ignore[arg-type]
        with Load(Branch(Path(receipts)), pool) as load:
            with contextlib.suppress(LeaseExpired), pool.checkout(timeout=SOON):
                working = time.monotonic()
                wait_for_a_standstill("working")
                resumed = time.monotonic()
                assert resumed - working > STANDSTILL
                eventually(lambda: pool.stats().expired, "what is held for too long is taken away", AT_ONCE)
            load.go_on()
        over = [deed for deed in load.deeds if deed.begun < resumed and deed.over > working + STANDSTILL / 2]
        assert over and all(deed.over < resumed + AT_ONCE for deed in over), over
        failed = [deed.error for deed in load.failures]
        # whoever waited or worked over the standstill, or came while what it had ended was being closed
        assert all(deed.begun < resumed + AT_ONCE for deed in load.failures), failed
        assert all(isinstance(error, (PoolTimeout, LeaseExpired)) or is_drivers(error) for error in failed), failed

        meet(pool)
        wait_for_a_standstill("idle")
        # or earlier, if this process was kept from telling that it was idle
        eventually(lambda: pool.stats().total == 0, "all have been idle for too long", AT_ONCE)
        print(meet(pool), flush=True)
        sys.stdin.readline()


def is_drivers(error: BaseException | None) -> bool:
    """Also what PyMySQL says of a socket that was closed while it reads."""
    of = type(error).__module__
    return "sql" in of or "psycopg" in of or (type(error) is AttributeError and "'NoneType'" in str(error))


def wait_for_a_standstill(word: str) -> None:
    print(word, flush=True)
    sys.stdin.readline()


def meet(pool: Any) -> int:
    """As many as there may be, all at once."""
    leases = [pool.checkout(timeout=SOON) for _ in range(SIZE)]
    stats = pool.stats()
    for lease in leases:
        lease.checkin()
    assert (stats.in_use, stats.waiting, stats.counts.opening, stats.counts.closing) == (SIZE, 0, 0, 0), stats
    assert stats.opened - stats.closures == stats.total == SIZE, stats
    return int(stats.total)


@EACH
def test_a_process_that_stood_still_for_longer_than_every_timeout_goes_on_as_if_nothing_had_been(
    bank: Any, tmp_path: Path
) -> None:
    receipts = tmp_path / "receipts"
    receipts.touch()
    program = play("stand", bank.site.url(), str(receipts))
    assert program.stdin is not None and program.stdout is not None
    said = []
    try:
        for word in (b"working\n", b"idle\n"):
            said.append(program.stdout.readline())
            if said[-1] != word:
                break
            program.send_signal(signal.SIGSTOP)
            pass_time(STANDSTILL + 0.1)
            program.send_signal(signal.SIGCONT)
            program.stdin.write(b"\n")
            program.stdin.flush()
        else:
            said.append(program.stdout.readline())
            sessions = bank.site.sessions()
    finally:
        program.send_signal(signal.SIGCONT)
        complaints = program.communicate(b"\n", timeout=50)[1]
    assert (complaints.decode(), program.returncode) == ("", 0)
    assert said[-1] == b"%d\n" % SIZE and list(sessions.values()) == [False] * SIZE
    eventually(lambda: not bank.site.sessions(), "its sessions are gone")
    assert read(bank, receipts) >= 50
    bank.assert_balanced()


class Leaping(FakeClock):
    """May leap over the hours of alarms: all of them ring when it has arrived."""

    def leap(self, seconds: float) -> None:
        with self._changed:
            self._time += seconds
        self.advance(0)


def test_a_leap_retires_what_is_idle_and_takes_away_what_is_lent() -> None:
    with scene(clock=Leaping(), background=True, max_size=3, max_lease=60, keepalive=100) as s:
        s.fill(3)
        held = s.pool.checkout()
        s.clock.leap(HOURS)
        eventually(lambda: s.pool.stats().total == 0, "all are closed")
        stats = s.pool.stats()
        assert (stats.opened, stats.closures, stats.expired, stats.in_use) == (3, 3, 1, 0)
        assert held.expired
        with s.pool.checkout() as connection:
            assert connection.number == 4
        s.assert_nothing_lost()


def test_a_leap_ends_every_wait_and_gives_up_every_connect_which_counts_until_it_ends() -> None:
    with scene(clock=Leaping(), background=True, max_size=3, max_connecting=2, timeout=10, grace=math.inf) as s:
        s.fill(1)
        s.pool.recycle()
        s.driver.script("connect", door := Latch(), door)
        waiting = s.line_up(5)
        door.wait_for(2)
        s.clock.leap(HOURS)
        for one in waiting:
            assert isinstance(one.exception(SOON), PoolTimeout)
        eventually(lambda: s.pool.stats().counts.closing == 2, "both connects are given up")
        stats = s.pool.stats()
        assert (stats.in_use, stats.waiting, stats.total, stats.counts.opening) == (0, 0, 2, 0)
        late = s.borrow(100)  # there is room for one more
        s.clock.wait_for_sleepers(1)
        s.clock.advance(5)  # the backoff is over
        late.result(SOON).checkin()
        assert s.pool.stats().total == 3
        door.open()
        eventually(lambda: s.pool.stats().total == 1, "what came too late is closed")
        s.assert_nothing_lost()


if __name__ == "__main__":
    {"jump": jump, "stand": stand}[sys.argv[1]](*sys.argv[2:])
