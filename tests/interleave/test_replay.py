"""Does the command that a failure prints bring the same failure back? Of every kind of play that the suite tries.

The failures are mistakes that the suite is known to notice.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.promises import Broken
from tests.interleave import order as room
from tests.interleave.__main__ import main
from tests.interleave.explore import Explorer, load, quiet
from tests.interleave.injection import Injection
from tests.interleave.order import Order, command, orders, parse
from tests.interleave.plays import APART, FOR_STRIKES, MISTAKES, NOTICED, PLAYS, STRUCK_MUTANTS, UNDISTURBED

INSIDE = "a finaliser gives back as if nobody were inside"
#: a play, a mistake, and who is struck
FAILURES = [
    ("a lease is dropped", "a note pokes nobody", ""),
    ("workers come and go", "one that goes leaves its gate behind", ""),
    ("two pools and two permits", "each pool has a lock of its own", ""),
    ("two pools try in turn", "a step is not used up", ""),
    ("both are garbage", INSIDE, "A"),
    ("garbage amid connects", INSIDE, "A"),
    ("garbage amid connects", INSIDE, "worker"),
    ("both permits are garbage", INSIDE, "A"),
    ("garbage out of reach", INSIDE, "A"),
]


def failure(play: str, mutant: str, victim: str) -> Broken:
    explorer = Explorer(PLAYS[play], load(MISTAKES[mutant].edits), mutant)
    struck = (Order("walk", n % 7, injection=Injection("collect", victim, n)) for n in range(1, 9_000, 7))
    with quiet(), pytest.raises(Broken) as caught:
        explorer.explore(struck if victim else orders(1_500))
    return caught.value


def printed(broken: Broken) -> list[str]:
    """Its command, the promise and the end of its story."""
    assert broken.path[0].startswith(room.PLAYER)
    return [broken.path[0], f"{broken.promise}: {broken.detail}", *broken.path[1:][-50:]]


def begins(told: str, what: str) -> bool:
    """Where it is an error that has a traceback, the frames above the play are those of who plays it."""
    first, last = what.splitlines()[0], what.splitlines()[-1]
    return told.startswith(first) and last in told


@pytest.mark.parametrize(("play", "mutant", "victim"), FAILURES)
def test_what_a_failure_prints_brings_it_back(
    play: str, mutant: str, victim: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words, what, *story = printed(failure(play, mutant, victim))
    with pytest.raises(SystemExit) as end:
        main(*shlex.split(words.removeprefix(room.PLAYER)))
    told = capsys.readouterr().out
    assert end.value.code == 1 and begins(told, what)
    assert told.rstrip().endswith("\n  ".join(story).rstrip())


def test_one_of_all_orders_comes_back_too(capsys: pytest.CaptureFixture[str]) -> None:
    mutant = "a hand-over wakes nobody"
    with quiet(), pytest.raises(Broken) as caught:
        Explorer(PLAYS["three on one again and again"], load(MISTAKES[mutant].edits), mutant).exhaust(bound=2)
    words, what, *story = printed(caught.value)
    assert " every 2 " in words
    with pytest.raises(SystemExit):
        main(*shlex.split(words.removeprefix(room.PLAYER)))
    told = capsys.readouterr().out
    assert told.startswith(what) and told.rstrip().endswith("\n  ".join(story).rstrip())


def test_in_another_process_it_is_the_same(tmp_path: Path) -> None:
    words, what, *story = printed(failure(*FAILURES[1]))
    again = [sys.executable, *shlex.split(words)[1:]]
    ended = subprocess.run(again, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout.startswith(what) and ended.stdout.rstrip().endswith("\n  ".join(story).rstrip())


def test_where_nothing_is_wrong_the_order_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main("two on one", "walk", "3")
    assert end.value.code == 0 and "A: takes the lock" in capsys.readouterr().out


def test_no_two_plays_and_no_two_mistakes_have_one_name() -> None:
    assert len(PLAYS) == len([*UNDISTURBED, *FOR_STRIKES, *APART])
    assert len(MISTAKES) == len([*NOTICED, *STRUCK_MUTANTS])


def every_kind() -> Iterator[Order]:
    yield from orders(8)
    yield Order("every", 2)
    yield Order("every", 2, choices=(0, 0, 1))
    for kind in ("interrupt", "collect"):
        yield Order("walk", 4, injection=Injection(kind, "worker", 17))
        yield Order("priorities", 7, True, Injection(kind, "keeper", 1))


@pytest.mark.parametrize("order", list(every_kind()), ids=str)
@pytest.mark.parametrize("mutant", ["", "a note's end"])
def test_a_command_says_everything_that_decides_an_order(order: Order, mutant: str) -> None:
    name, *words = shlex.split(command("somebody's play", order, mutant).removeprefix(room.PLAYER))
    assert name == "somebody's play" and parse(*words) == (order, mutant)
