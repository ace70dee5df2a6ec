"""Is a bound that is broken noticed? Cells that spoil one on purpose must fail, each as often as it is tried."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.bounds import ROUNDS

HERE = Path(__file__).parent
MOST = (ROUNDS + 1) // 2

#: how it ends, in which round, and what is said
CELLS = {
    "test_a_round_trip_that_nobody_ends": ("FAILED", ROUNDS, r"Late: longer than 0\.05 s .*: ping by 0\.1"),
    "test_a_goodbye_that_nobody_ends": ("FAILED", ROUNDS, r"Late: longer than 0\.05 s .*: close by 0\.1"),
    "test_a_checkout_that_outlasts_its_timeout": ("FAILED", ROUNDS, r"Late: longer than 0\.05 s .*: checkout by 0\.1"),
    "test_something_else_that_is_held_up": ("FAILED", ROUNDS, r"Late: longer than 0\.05 s .*: a ticker by 0\.150 s"),
    "test_in_time": ("PASSED", 1, ""),
    "test_late_twice_for_the_machine_was_busy": ("PASSED", 3, ""),
    "test_late_and_wrong": ("FAILED", 1, "AssertionError: wrong"),
    "test_in_the_proof_most_must_be_in_time": ("FAILED", MOST, "Late: longer than"),
}


@pytest.fixture(scope="module")
def told() -> str:
    command = [sys.executable, "-m", "pytest", "-rA", "-m", "", "-p", "no:cacheprovider", HERE / "spoilt_bounds.py"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1])
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return ended.stdout


def test_no_cell_is_forgotten(told: str) -> None:
    assert set(re.findall(r"^(?:PASSED|FAILED) \S+::(\w+)", told, re.M)) == set(CELLS)


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_ends_as_it_should(told: str, cell: str) -> None:
    how, rounds, why = CELLS[cell]
    assert re.search(rf"^{how} \S+::{cell}\b", told, re.M), told
    assert max(map(int, re.findall(rf"^{cell}: round (\d+)$", told, re.M))) == rounds
    if why:
        assert re.search(rf"^E +.*{why}", told, re.M), told
