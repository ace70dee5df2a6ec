"""Does `threadpool-db size` count honestly, agree with theory, give reasons, and refuse nonsense?"""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from threadpool_db.advisor import Answer, advise
from threadpool_db.cli import main
from threadpool_db.demand import BadDemand, Demand, demand, shown, value_of
from threadpool_db.sizer import picture, size, text
from threadpool_db.trial import OPERATION, THREAD, Trial, Trials, trial

APP: dict[str, Any] = {"workers": 4, "threads": 16, "database": 0.02, "outside": 0.08, "server_limit": 100}
FLAGS = "--workers 4 --threads 16 --database 20ms --outside 80ms --server-limit 100".split()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def answer() -> Answer:
    return advise(Demand(**APP))


def of(answer: Answer, policy: str, max_size: int) -> Trial:
    return next(row for row in answer.trials if (row.policy, row.max_size) == (policy, max_size))


# --- Arithmetic -------------------------------------------------------------------------------------------------------


def test_threads_in_the_database_are_binomial() -> None:
    asked = Demand(**APP)
    assert (asked.share, asked.mean) == (pytest.approx(0.2), pytest.approx(3.2))
    below = [sum(math.comb(16, n) * 0.2**n * 0.8 ** (16 - n) for n in range(most + 1)) for most in range(17)]
    for part in (0.5, 0.9, 0.99, 0.999):
        assert asked.quantile(part) == next(most for most, sum_ in enumerate(below) if sum_ >= part)


def test_who_is_nowhere_else_is_always_in_the_database() -> None:
    asked = Demand(**APP | {"outside": 0})
    assert (asked.share, asked.mean, asked.quantile()) == (1, 16, 16)


def test_a_rate_leaves_threads_idle() -> None:
    asked = Demand(**APP, rate=320)  # half of what 64 threads can make
    assert (asked.most, asked.idle, asked.mean) == (640, pytest.approx(0.1), pytest.approx(1.6))
    assert Demand(**APP, rate=6400).idle == 0


def test_what_workers_may_have_is_the_limit_less_others_shared_out() -> None:
    asked = Demand(**APP | {"workers": 5, "others": 8})
    assert (asked.free, asked.room) == (92, 18)


def test_the_bearable_wait_is_a_tenth_of_a_request_but_not_less_than_an_operation() -> None:
    assert Demand(**APP).bearable == pytest.approx(0.01)
    assert Demand(**APP, operations=1).bearable == pytest.approx(0.02)
    assert Demand(**APP, wait=0.5).bearable == 0.5


# --- The simulator's word ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_size", [2, 3, 5])
def test_what_a_size_gives_is_the_queue_with_so_many_customers(max_size: int) -> None:
    """Exponential uses and thoughts, 16 threads, so many servers: the machine repair model has a closed form."""
    asked = Demand(**APP, operations=1)
    odds = 0.02 / 0.08
    weights = [1.0]
    for n in range(1, 17):
        weights.append(weights[-1] * (16 - n + 1) / min(n, max_size) * odds)
    mean_busy = sum(min(n, max_size) * weight for n, weight in enumerate(weights)) / sum(weights)
    found = trial(asked, OPERATION, max_size)
    assert found.requests == pytest.approx(4 * mean_busy / 0.02, rel=0.03)
    in_line = sum(max(0, n - max_size) * weight for n, weight in enumerate(weights)) / sum(weights)
    assert found.request - 0.1 == pytest.approx(in_line / (mean_busy / 0.02), rel=0.1, abs=0.0005)


def test_under_thread_the_connections_are_the_limit_whatever_is_done_with_them() -> None:
    asked = Demand(**APP)
    assert trial(asked, THREAD, 4).requests == pytest.approx(4 * 4 / 0.1, rel=0.02)
    assert trial(asked, OPERATION, 16).requests == pytest.approx(640, rel=0.02)


def test_whoever_gets_nothing_in_time_is_counted() -> None:
    found = trial(Demand(**APP | {"threads": 40, "timeout": 0.2}), THREAD, 2)
    assert 0.5 < found.late < 1 and found.p99 <= 0.2


def test_the_smallest_size_is_bearable_and_the_one_below_is_not() -> None:
    trials = Trials(Demand(**APP))
    for policy in (OPERATION, THREAD):
        smallest = trials.smallest(policy)
        assert trials.is_bearable(trials.of(policy, smallest))
        assert not trials.is_bearable(trials.of(policy, smallest - 1))


def test_short_waits_for_everybody_are_not_bearable_either() -> None:
    """All of the time in the database: with 7 of 8 connections p99 is short, and an eighth of the work is not done."""
    trials = Trials(Demand(**APP | {"threads": 8, "outside": 0}))
    assert trials.of(OPERATION, 7).p99 < trials.asked.bearable
    assert trials.smallest(OPERATION) == 8


# --- The answer -------------------------------------------------------------------------------------------------------


def test_it_answers_with_the_policy_and_the_size(answer: Answer) -> None:
    assert (answer.policy, answer.max_size, answer.wanted) == (OPERATION, 5, 5)
    assert not answer.warnings and len(answer.reasons) == 4
    assert of(answer, OPERATION, 5).requests > 3 * of(answer, THREAD, 5).requests
    sizes = {row.max_size for row in answer.trials}
    assert min(sizes) < 5 < max(sizes) == 16 and len(answer.trials) == 2 * len(sizes)


def test_the_reasons_have_the_numbers(answer: Answer) -> None:
    busy, policy, wait, limit = answer.reasons
    assert "20 ms of the 100 ms" in busy and "3.2 are there at once on average" in busy and "no more than 7" in busy
    assert "in all workers it is 12.8" in busy
    assert 'With "thread" a request holds its connection for all of its 100 ms, with "operation" for 20 ms.' in policy
    rates = [f"{of(answer, policy, 5).requests:,.0f}" for policy in (OPERATION, THREAD)]
    assert f"{rates[0]} requests a second against {rates[1]}" in policy
    assert f"waits for {shown(of(answer, OPERATION, 5).p99)} or longer (10 ms are all right)" in wait
    assert f"with 3 it is {shown(of(answer, OPERATION, 3).p99)}" in wait
    assert limit == "4 x 5 = 20 connections, of the 97 that the server has for them (100 less 3 for others)."


def test_who_needs_his_session_keeps_it_with_as_many_connections_as_threads() -> None:
    found = advise(Demand(**APP, session=True))
    assert (found.policy, found.max_size) == (THREAD, 16)
    assert (
        "Requests rely on their session" in found.reasons[1] and "as many as threads, nobody waits" in found.reasons[2]
    )
    assert [warning.partition(" x")[0] for warning in found.warnings] == ["server_limit: 4"]
    assert "fit once and not twice" in found.warnings[0] and "server_limit=131" in found.warnings[0]


def test_where_a_request_is_in_the_database_all_the_time_the_policies_are_the_same() -> None:
    found = advise(Demand(**APP | {"threads": 8, "outside": 0}))
    assert (found.policy, found.max_size) == (OPERATION, 8)
    assert "here that hardly matters" in found.reasons[1]


@pytest.mark.parametrize("limit", [7, 10, 19])
def test_what_does_not_fit_is_not_the_answer_but_is_said(limit: int) -> None:
    found = advise(Demand(**APP | {"server_limit": limit}))
    assert found.max_size == (limit - 3) // 4 and 4 * found.max_size <= limit - 3
    assert found.wanted == 5 and not of(found, OPERATION, 5).fits and of(found, OPERATION, found.max_size).fits
    keeps_busy = found.max_size * 5  # each thread is in the database for a fifth of its time
    assert f"only {found.max_size} fit; server_limit=23, or fewer threads ({keeps_busy} in" in found.warnings[0]


def test_a_rate_that_the_threads_cannot_make_is_said() -> None:
    warning = advise(Demand(**APP, rate=1000)).warnings[0]
    assert warning.startswith("rate: 4 x 16 threads make 640 requests a second at most")
    assert warning.endswith("1,000 need 25 threads in each worker")


def test_timeouts_are_warned_of() -> None:
    found = advise(Demand(**APP | {"threads": 64, "server_limit": 7, "timeout": 0.05}))
    assert found.max_size == 1 and any(warning.startswith("timeout: ") for warning in found.warnings)


def test_the_same_seed_gives_the_same_answer(answer: Answer) -> None:
    assert advise(Demand(**APP)) == answer
    assert trial(Demand(**APP, seed=2), OPERATION, 5) != of(answer, OPERATION, 5)


# --- What makes no sense ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"workers": "0"}, "workers=0: must be a whole number from 1 to 10,000; count the processes"),
        ({"workers": "2.5"}, "workers='2.5': must be a whole number"),
        ({"threads": "many"}, "threads='many': must be a whole number"),
        ({"threads": True}, "threads=True"),
        ({"database": "0"}, "database=0.0: must be above 0"),
        ({"database": "20parsecs"}, "database='20parsecs': must be above 0 and at most a day, in seconds, with a unit"),
        ({"outside": "-1ms"}, "outside=-0.001: must be from 0"),
        ({"outside": "nan"}, "outside='nan'"),
        ({"database": math.inf}, "database=inf"),
        ({"timeout": "2d"}, "such as 0.02, 20ms or 1.5s"),
        ({"rate": "0"}, "rate=0.0: must be requests a second, above 0"),
        ({"rate": "10s"}, "rate='10s'"),
        ({"server_limit": "6"}, "server_limit=6: less 3 for others that is 3 for 4 workers, not one for each; fewer"),
        ({"others": "200"}, "that is 0 for 4 workers"),
        ({"thread": "3"}, "thread: did you mean threads?"),
        ({"zebra": "3"}, "zebra: known are workers, threads"),
    ],
)
def test_it_is_refused_with_option_value_and_remedy(given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadDemand) as caught:
        demand(APP | given)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "given", "means"),
    [
        ("database", "20ms", 0.02), ("database", " 1.5 s", 1.5), ("database", "0.02", 0.02), ("wait", "250us", 250e-6),
        ("timeout", "2min", 120.0), ("outside", ".5", 0.5), ("workers", "1,000", 1000), ("rate", "1e3", 1000.0),
    ],
)  # fmt: skip
def test_units_and_thousands_are_read(name: str, given: str, means: float) -> None:
    assert value_of(name, given) == pytest.approx(means)


# --- The command ------------------------------------------------------------------------------------------------------


def test_the_command_begins_with_the_call_and_ends_with_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["size", *FLAGS]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == 'create_pool(url, checkout="operation", max_size=5)' and not said.err
    assert all(len(line) <= 130 for line in lines)
    assert [line.split()[:2] for line in lines[-5:]] == [
        ["2", "8"],
        ["3", "12"],
        ["5", "20"],
        ["8", "32"],
        ["16", "64"],
    ]
    assert [line for line in lines if line.endswith("<- this")] == [lines[-3]]


def test_the_documentation_shows_what_is_said_now(answer: Answer) -> None:
    assert text(answer) in (Path(__file__).parent.parent / "docs" / "size.md").read_text()


def test_json_has_the_answer_and_what_it_was_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: Answer
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["size", *FLAGS, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(json.dumps(answer.summary()))
    assert (told["checkout"], told["max_size"], told["connections"], told["available"]) == ("operation", 5, 20, 97)
    assert told["in_database"] == {"mean": pytest.approx(3.2), "p99": 7}


def test_it_draws_both_policies_for_each_size(answer: Answer) -> None:
    drawn = ElementTree.fromstring(picture(answer))
    words = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    for said in ("requests per second", "p99 wait, ms", "max_size of each worker", 'checkout="thread"', "16"):
        assert said in words
    marks = list(drawn.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(marks) == 2 * len(answer.trials) / 2 + 1, "in both panels one for each size, and one in the legend"


def test_the_picture_is_written_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    small = "size --workers 1 --threads 1 --database 20ms --outside 80ms --server-limit 100 --svg".split()
    assert main([*small, str(tmp_path / "size.svg")]) == 0
    assert (tmp_path / "size.svg").read_text().startswith("<svg") and not capsys.readouterr().err
    assert main([*small, str(tmp_path / "nowhere" / "size.svg")]) == 2
    said = capsys.readouterr()
    assert "threadpool-db size: --svg: the file cannot be written" in said.err and "create_pool" in said.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "threadpool-db size: workers: is missing; give --workers, or answer the questions in a terminal\n"),
        (
            "--workers 4 --threads 16 --database 20ms --outside 80ms --server-limit few",
            "threadpool-db size: server_limit='few': must be a whole number from 1 to 1,000,000; ask the server: show "
            "max_connections; or threadpool-db check URL\n",
        ),
    ],
)
def test_nonsense_ends_with_2_and_one_line(
    arguments: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["size", *arguments.split()]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", says)


# --- Questions --------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_asked_for_until_it_makes_sense(answer: Answer) -> None:
    into, out, err = Terminal("4\nsixteen\n16\n20ms\n80ms\n\n100\n\n"), io.StringIO(), Terminal()
    assert size({}, into, out, err) == 0
    assert out.getvalue() == text(answer)
    asked = err.getvalue()
    assert "Threads in each of them:   threads='sixteen': must be a whole number" in asked
    assert asked.count("Connections that the server allows: ") == 2, "an empty answer is none"
    assert "\rsimulated 1" in asked and asked.endswith("\r\x1b[K")


def test_what_was_given_is_not_asked_for() -> None:
    into, out, err = Terminal("80ms\ny\n"), io.StringIO(), io.StringIO()
    given = {name: value for name, value in APP.items() if name != "outside"} | {"threads": 1}
    assert size(given, into, out, err) == 0
    assert into.read() == "" and err.getvalue().count("Time of a request") == 1 and "Threads" not in err.getvalue()
    assert 'checkout="thread"' in out.getvalue().splitlines()[0]
    out, err = io.StringIO(), io.StringIO()
    assert size(given | {"outside": 0}, Terminal(), out, err) == 0 and out.getvalue() and not err.getvalue()


def test_who_goes_away_in_the_middle_is_told_how_else() -> None:
    err = io.StringIO()
    assert size({}, Terminal("4\n"), io.StringIO(), err) == 2
    assert err.getvalue().endswith("threadpool-db size: threads: was not answered; give --threads\n")
