"""What do processes leave behind? A worker that is killed in its tracks, and children forked under full load.

Both plays run as programs of their own (this file, with arguments): they fork among busy threads, and end as programs
do. A receipt is written to a file the moment its transfer is confirmed, so that the bank may ask for it after a death.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.faults.bank import Bank, Load, assert_nothing_lost, eventually
from threadpool_db import create_pool

ROOT = Path(__file__).resolve().parents[2]
SIZE = 4
FORKERS, DEEDS = 3, 6


class Ledger(list):
    """Receipts of this process and of all its children, in a file; one write is one line."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def append(self, receipt):
        os.write(self._file, f"{receipt}\n".encode())


class Branch(Bank):
    """The bank as another process sees it."""

    def __init__(self, receipts):
        self.confirmed = Ledger(receipts)


def read(bank, receipts):
    bank.confirmed = receipts.read_text().split()
    return len(bank.confirmed)


def start(play, bank, receipts, *more):
    receipts.touch()
    # forking among threads is the point: newer Pythons warn of it
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-m", "tests.faults.test_processes"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([*command, play, bank.site.url(), str(receipts), *map(str, more)], cwd=ROOT, **pipes)


# A worker that is killed ----------------------------------------------------------------------------------------------


def work(url, receipts):
    with create_pool(url, max_size=SIZE) as pool, Load(Branch(receipts), pool):
        threading.Event().wait()


def test_a_worker_that_is_killed_leaves_no_session_and_no_half_transfer(any_bank, tmp_path):
    receipts = tmp_path / "receipts"
    worker = start("work", any_bank, receipts)
    try:
        eventually(lambda: read(any_bank, receipts) >= 50, "the worker works")
        assert 1 <= len(any_bank.site.sessions()) <= SIZE
    finally:
        worker.kill()
        complaints = worker.communicate()[1]
    assert complaints == b""
    eventually(lambda: not any_bank.site.sessions(), "the dead worker's sessions are gone")
    assert read(any_bank, receipts) >= 50
    any_bank.assert_balanced()
    with any_bank.site.pool(max_size=SIZE) as pool:
        assert_nothing_lost(any_bank, pool)


# A storm of forks -----------------------------------------------------------------------------------------------------


def storm(url, receipts, children):
    """Threads that fork while others work; the children use the pool and end, each in another way."""
    pool, bank = create_pool(url, max_size=SIZE, timeout=20), Branch(receipts)
    ends = []
    with Load(bank, pool, threads=8) as load:
        forkers = [
            threading.Thread(target=fork_children, args=(pool, bank, ends, int(children))) for _ in range(FORKERS)
        ]
        for forker in forkers:
            forker.start()
        for forker in forkers:
            forker.join()
        load.go_on(50)
    assert load.failures == [], load.failures[:3]
    assert ends == [0] * (FORKERS * int(children)), ends
    stats = pool.stats()
    assert (stats.in_use, stats.waiting, stats.dead, stats.total) == (0, 0, 0, stats.opened), stats
    print(stats.total, flush=True)
    sys.stdin.readline()
    pool.close()


def fork_children(pool, bank, ends, children):
    for number in range(children):
        pid = os.fork()
        if pid == 0:
            signal.alarm(40)
            child(pool, bank, number)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def child(pool, bank, number):
    code = 1
    try:
        assert pool.stats().total == 0
        threads = [threading.Thread(target=visit, args=(pool, bank, os.getpid() + n)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert pool.stats().in_use == 0 and 1 <= pool.stats().opened <= 2
        if number % 2:
            pool.close()
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def visit(pool, bank, seed):
    dice = random.Random(seed)
    for _ in range(DEEDS):
        bank.operate(pool, dice)


def watch_a_storm(any_bank, receipts, children):
    program = start("storm", any_bank, receipts, children)
    try:
        total = int(program.stdout.readline() or 0)
        assert 1 <= total <= SIZE, program.stderr.read().decode()
        # its children are gone, and the parent is idle: the server knows its sessions and no others
        eventually(
            lambda: list(any_bank.site.sessions().values()) == [False] * total, "only the parent's sessions are left"
        )
    finally:
        complaints = program.communicate(b"\n", timeout=50)[1]
    assert (complaints.decode(), program.returncode) == ("", 0)
    eventually(lambda: not any_bank.site.sessions(), "the parent's sessions are gone, too")
    assert read(any_bank, receipts) >= 50
    any_bank.assert_balanced()


def test_children_forked_under_load_disturb_neither_the_parent_nor_each_other(any_bank, tmp_path):
    watch_a_storm(any_bank, tmp_path / "receipts", 4)


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_very_many_children_forked_under_load_disturb_neither_the_parent_nor_each_other(any_bank, tmp_path):
    watch_a_storm(any_bank, tmp_path / "receipts", 80)


if __name__ == "__main__":
    {"work": work, "storm": storm}[sys.argv[1]](*sys.argv[2:])
