"""What is alike in all dialects? A finding, a rule, and the rules that more than one table needs.

A statement is here a list of tokens in upper case that begins with its verb. A rule looks at one and returns a
``Finding``. A verb that is in no table may do anything. A call is judged wherever it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple


class Finding(NamedTuple):
    """What one statement does: the words that name it where it is dirty or asks, never a literal."""

    dirty: str = ""
    asks: str = ""
    begins: bool = False
    ends: bool = False
    lasting: bool = False  # dirty, and the database's own reset does not undo it

    def and_also(self, other: Finding) -> Finding:
        return Finding(*(mine or its for mine, its in zip(self, other, strict=True)))  # type: ignore[arg-type]


Rule = Callable[[list[str]], Finding]
NOTHING = Finding()
#: before the words of a finding: nobody knows whether it leaves anything
UNKNOWN = "?"


class Dialect(NamedTuple):
    """``verbs`` are judged by their rules; where a token is among the ``suspects``, ``looks`` go through them all."""

    readings: tuple[str, ...]  # the ways to cut a text into tokens
    verbs: dict[str, tuple[Rule, ...]]
    looks: tuple[Rule, ...]
    suspects: frozenset[str]
    openings: frozenset[str]  # as a token of its own: the beginning of a literal, name or comment that never ends
    strange: Callable[[list[str]], bool] | None = None  # does it call a function that nobody knows? None: not asked


def name_at(tokens: list[str], at: int) -> str:
    """The name in this place for a message; nothing where it is quoted, a literal or a number."""
    return f" {tokens[at].lower()}" if at < len(tokens) and tokens[at].isidentifier() else ""


def clean(tokens: list[str]) -> Finding:
    return NOTHING


def dirty(tokens: list[str]) -> Finding:
    return Finding(dirty=tokens[0])


def dirty_by_name(tokens: list[str]) -> Finding:
    return Finding(dirty=tokens[0] + name_at(tokens, 1))


def asks(tokens: list[str]) -> Finding:
    return Finding(asks=tokens[0])


# Calls ----------------------------------------------------------------------------------------------------------------


def calls(dirty_ones: str, asking_ones: str, lasting_ones: str = "") -> tuple[Rule, frozenset[str]]:
    """A rule that finds these functions where they are called, their names quoted or not."""
    kinds = {name: Finding(dirty=name) for name in dirty_ones.split()}
    kinds |= {name: Finding(dirty=name, lasting=True) for name in lasting_ones.split()}
    kinds |= {name: Finding(asks=name) for name in asking_ones.split()}
    kinds = {quoted.format(name): kind for name, kind in kinds.items() for quoted in ("{}", '"{}"', "`{}`", "[{}]")}

    def called(tokens: list[str]) -> Finding:
        found = NOTHING
        for at, token in enumerate(tokens[:-1]):
            if token in kinds and tokens[at + 1] == "(":
                kind = kinds[token]
                if kind.dirty == "SET_CONFIG" and _is_local(tokens, at + 2):
                    continue
                if kind.asks == "LAST_INSERT_ID" and tokens[at + 2 : at + 3] != [")"]:
                    continue  # with an argument it is told, and the answer comes with the result
                found = found.and_also(kind)
        return found

    return called, frozenset(kinds)


def _is_local(tokens: list[str], at: int) -> bool:
    """Is set_config's third argument the word true and nothing else? A search_path of pg_temp is never."""
    arguments: list[list[str]] = [[]]
    depth = 1
    for token in tokens[at:]:
        depth += (token in ("(", "[")) - (token in (")", "]"))
        if not depth:
            break
        if token == "," and depth == 1:
            arguments.append([])
        else:
            arguments[-1].append(token)
    return arguments[2:] == [["TRUE"]] and not any("PG_TEMP" in token for token in tokens)


# What is alike everywhere ---------------------------------------------------------------------------------------------

_STORED = frozenset("FUNCTION PROCEDURE TRIGGER EVENT VIEW RULE PACKAGE".split())
_OBJECTS = _STORED | {"TABLE", "MATERIALIZED", "INDEX", "SCHEMA", "DATABASE", "USER", "ROLE"}

#: what EXPLAIN explains
EXPLAINED = frozenset(
    "SELECT INSERT UPDATE DELETE REPLACE MERGE WITH VALUES TABLE CREATE DECLARE EXECUTE PRAGMA SET".split()
)


def is_stored(tokens: list[str]) -> bool:
    """Does it create something whose body is kept, not run?"""
    return tokens[0] == "CREATE" and next((token for token in tokens if token in _OBJECTS), "") in _STORED


def create(tokens: list[str], schema: str = "") -> Finding:
    """CREATE [OR REPLACE] [GLOBAL | LOCAL] TEMP, or in the schema of what is temporary."""
    for token in tokens[1:5]:
        if token in ("TEMP", "TEMPORARY"):
            return Finding(dirty=f"CREATE {token}")
        if token not in ("OR", "REPLACE", "GLOBAL", "LOCAL"):
            break
    if schema and any(dot == "." and word.strip("\"'`[]") == schema for word, dot in pairwise(tokens)):
        return Finding(dirty=f"CREATE in {schema.lower()}")
    return NOTHING


def begin(tokens: list[str]) -> Finding:
    if tokens[1:2] == ["NOT"]:
        return Finding(dirty="BEGIN NOT ATOMIC")  # MariaDB: a block of statements
    return Finding(begins=True)


def start(tokens: list[str]) -> Finding:
    return Finding(begins=tokens[1:2] == ["TRANSACTION"])  # else a replica


def end(tokens: list[str]) -> Finding:
    """COMMIT, ROLLBACK, END, ABORT; a savepoint and one prepared for two phases are not the transaction."""
    if "TO" in tokens or tokens[1:2] == ["PREPARED"]:
        return NOTHING
    return Finding(ends=True, begins=("AND", "CHAIN") in pairwise(tokens))


def verbs(words: str, **special: Rule) -> dict[str, tuple[Rule, ...]]:
    """A table of verbs: these words are clean, the others go by their rules."""
    return dict.fromkeys(words.split(), (clean,)) | {verb: (rule,) for verb, rule in special.items()}


ALIKE = (
    "SELECT INSERT UPDATE DELETE VALUES WITH ANALYZE ALTER DROP SAVEPOINT RELEASE",
    {"CREATE": create, "BEGIN": begin, "COMMIT": end, "ROLLBACK": end},
)
