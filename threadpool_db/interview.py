"""What is not known of an app yet? Its owner is asked, one number after the other, until each makes sense."""

from __future__ import annotations

from typing import Any, TextIO

from threadpool_db.demand import REQUIRED, BadDemand, Demand, value_of

_QUESTIONS = {
    "workers": "Worker processes that have a pool, on all machines",
    "threads": "Threads in each of them",
    "database": "Time of a request in the database, in all (such as 20ms)",
    "outside": "Time of a request elsewhere: calls, rendering (such as 80ms)",
    "server_limit": "Connections that the server allows",
}
_SESSION = "Do requests rely on their session: SET, temporary tables, one transaction all along? (y/n) [n]"
#: what surely makes sense, for an answer to be judged beside
_SANE: dict[str, Any] = {"workers": 1, "threads": 1, "database": 1.0, "outside": 0.0, "server_limit": 1_000_000}


def interview(known: dict[str, Any], into: TextIO, err: TextIO) -> dict[str, Any]:
    """``known`` and what was answered. Nothing is asked where nothing is missing. BadDemand at the input's end.

    The questions go to ``err``: standard output is the answer's."""
    missing = [name for name in REQUIRED if name not in known]
    if not missing:
        return known
    answers = dict(known)
    for name in missing:
        answers[name] = _ask(name, _QUESTIONS[name], into, err)
    if "session" not in known:
        answers["session"] = _line(_SESSION, into, err, "session").lower().startswith("y")
    return answers


def _ask(name: str, question: str, into: TextIO, err: TextIO) -> Any:
    while True:
        given = value_of(name, _line(question, into, err, name))
        try:
            Demand(**_SANE | {name: given})
        except BadDemand as error:
            err.write(f"  {error}\n")
        else:
            return given


def _line(question: str, into: TextIO, err: TextIO, name: str) -> str:
    err.write(f"{question}: ")
    err.flush()
    line = into.readline()
    if not line:
        err.write("\n")
        raise BadDemand(f"{name}: was not answered; give --{name.replace('_', '-')}")
    return line.strip()
