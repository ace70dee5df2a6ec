r"""What does a statement leave in its session? Judged once from the whole text, then remembered.

    judge("select get_lock(%s, 1)", "mysql")  ->  Judgement(dirty=True, ..., why="GET_LOCK")

Guarantee: what the text itself does to the session is never called clean. A verb that is not known is dirty, and where
the text can be read in two ways (backslashes, MySQL's ``/*! code */``) it is dirty if one of the readings is. What a
function, trigger or view of somebody's own does behind a statement's back cannot be seen here. The opposite mistake, a
clean statement called dirty, costs a reset, or an error that asks for a scope: a few rare ones are accepted.

A text is cut into tokens by one regular expression: comments and blanks fall out, a literal or a quoted name is one
token, the rest is in upper case. Then tables say what each dialect's verbs do, and which calls matter in any of them.
No grammar: only the first words of a statement, and pairs of neighbours. No literal ever gets into ``why``.

Decisions. ``nextval`` is clean, as every insert into a serial column calls it; ``currval`` is the question.
``asks_session`` is what only makes sense after an earlier statement of the same session, ``UNLOCK TABLES`` and
``FETCH`` too; where an insert stands before the question in one text, the text answers itself.
A bare ``PRAGMA name`` only reads; ``DO`` is in MySQL a SELECT without rows, in PostgreSQL a block, which is read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from threadpool_db.core.dialects import DIALECTS
from threadpool_db.core.dialects.strangers import may_be_strange
from threadpool_db.core.dialects.words import EXPLAINED, NOTHING, UNKNOWN, Dialect, Finding, clean, is_stored
from threadpool_db.core.tokens import cut, reading

LONGEST_REMEMBERED = 4096  # characters: a text with its values written into it would only push others out


class Judgement(NamedTuple):
    """What a statement does to its session."""

    dirty: bool = False  # leaves something that survives a rollback
    begins: bool = False  # leaves a transaction open that it began by hand
    ends: bool = False  # has ended a transaction by hand
    asks_session: bool = False  # needs what an earlier statement left in this very session
    unknown: bool = False  # dirty only because its verb, or what it is about, is not known
    why: str = ""  # the words that name it in a message: "SET search_path", "LAST_INSERT_ID"
    lasting: bool = False  # dirty, and what it leaves outlives the database's own reset
    strange: bool = False  # calls a function that nobody here knows (asked of PostgreSQL's statements alone)


def judge(sql: str | bytes, dialect: str) -> Judgement:
    """Judge one text. ``dialect``: "postgresql", "mysql" (MariaDB too), "sqlite", or "" for who knows which."""
    return _remembered(sql, dialect) if len(sql) <= LONGEST_REMEMBERED else _judge(sql, dialect)


def _judge(sql: str | bytes, dialect: str) -> Judgement:
    # of any ASCII-compatible encoding Latin-1 shows what we look for, and never fails
    text = sql if isinstance(sql, str) else sql.decode("latin-1")
    rules = DIALECTS[dialect]
    if _plain(text, dialect):
        return _CLEAN
    verdicts = []
    whole = False  # is there a reading in which every quote ends?
    for pattern in _readings(text, rules):
        tokens = cut(pattern, text, rules.openings)
        whole = whole or rules.openings.isdisjoint(tokens[-1:])
        verdicts.append(_verdict(tokens, rules))
    if not whole:
        verdicts.append(Judgement(dirty=True, why="a quote or comment that does not end"))
    return verdicts[0] if len(verdicts) == 1 else _any(verdicts)


_CLEAN = Judgement()
_ASCII_WORDS = re.compile(r"\w+", re.ASCII)
_PLAIN_VERBS = {
    name: frozenset(verb for verb, rules in dialect.verbs.items() if set(rules) == {clean})
    for name, dialect in DIALECTS.items()
}
_MARKS = re.compile(r";|@|:=|U&\"|PG_TEMP_", re.IGNORECASE)


def _plain(text: str, dialect: str) -> bool:
    """The short way, six times as fast: one harmless verb, and no word to look at anywhere, in literals neither."""
    upper = text.upper()
    words = _ASCII_WORDS.findall(upper)
    return (
        bool(words)
        and words[0] in _PLAIN_VERBS[dialect]
        and upper.lstrip().startswith(words[0])
        and DIALECTS[dialect].suspects.isdisjoint(words)
        and not _MARKS.search(text)
        and not (DIALECTS[dialect].strange and may_be_strange(upper))
    )


_remembered = functools.lru_cache(maxsize=1024)(_judge)


def _any(verdicts: list[Judgement]) -> Judgement:
    dirty, begins, ends, asks_session, _, _, lasting, strange = (any(flags) for flags in zip(*verdicts, strict=True))
    worst = max(verdicts, key=lambda verdict: (verdict.dirty, verdict.asks_session))
    return Judgement(dirty, begins, ends, asks_session, worst.unknown, worst.why, lasting, strange)


def _readings(text: str, rules: Dialect) -> Iterator[re.Pattern[str]]:
    """The regular expressions by which a server could read it: its settings and version decide, unseen by us."""
    backslashes = (False, True) if "\\" in text else (False,)
    codes = (False, True) if "/*!" in text or "/*M!" in text else (False,)
    for dialect, backslash, code in product(rules.readings, backslashes, codes):
        yield reading(dialect, backslash, code)


# Judging ------------------------------------------------------------------------------------------------------------

#: after these a question is answered by its own text
_ANSWERING = frozenset(
    "INSERT REPLACE UPDATE DELETE MERGE WITH COPY LOAD DECLARE CALL NEXTVAL SQL_CALC_FOUND_ROWS".split()
)


def _verdict(tokens: list[str], rules: Dialect) -> Judgement:
    """All statements of one text together."""
    dirty = asks = ""
    begins = ends = answered = lasting = strange = False
    for statement in _statements(tokens):
        found = _finding(statement, rules)
        dirty = dirty or found.dirty
        lasting = lasting or found.lasting
        strange = strange or (rules.strange is not None and rules.strange(statement))
        if not answered:
            asks = asks or found.asks
            answered = not _ANSWERING.isdisjoint(statement)
        ends = ends or found.ends
        begins = found.begins or (begins and not found.ends)
    unknown = dirty.removeprefix(UNKNOWN) if dirty.startswith(UNKNOWN) else ""
    why = unknown or dirty or asks
    return Judgement(bool(dirty), begins, ends, bool(asks), bool(unknown), why, lasting, strange)


def _statements(tokens: list[str]) -> Iterator[list[str]]:
    """The statements of a text; the body of a routine belongs to the statement that creates it."""
    ends = _ends(tokens, bodies=True) if ";" in tokens else []
    if ends is None:  # no BEGIN and END of a body then: every semicolon counts
        ends = _ends(tokens, bodies=False) or []
    start = 0
    for end in [*ends, len(tokens)]:
        while start < end and tokens[start] == "(":
            start += 1
        if start < end:
            yield tokens[start:end]
        start = end + 1


def _ends(tokens: list[str], bodies: bool) -> list[int] | None:
    """Where the semicolons are that end a statement; None if BEGIN and END of the bodies do not match."""
    ends = []
    start = depth = 0
    for at, token in enumerate(tokens):
        if token == ";":
            if not depth:
                ends.append(at)
                start = at + 1
        elif token not in ("BEGIN", "CASE", "END") or not bodies or tokens[start] != "CREATE":
            continue
        elif is_stored(tokens[start : at + 1]):
            if token == "END":
                depth -= tokens[at + 1 : at + 2] not in (["IF"], ["LOOP"], ["WHILE"], ["REPEAT"], ["FOR"])
            else:
                depth += tokens[at - 1] != "END"
    return None if depth else ends


def _finding(tokens: list[str], rules: Dialect) -> Finding:
    """One statement: what its verb does, and what is in it."""
    inner = _executed(tokens)
    known = rules.verbs.get(inner[0])
    if known is None:
        return Finding(dirty=UNKNOWN + (inner[0] if inner[0].isidentifier() else "an unknown statement"))
    found = NOTHING
    for rule in known:
        found = found.and_also(rule(inner))
    if not is_stored(inner) and not rules.suspects.isdisjoint(tokens):
        for look in rules.looks:
            found = found.and_also(look(tokens))
    return found


def _executed(tokens: list[str]) -> list[str]:
    """What is run in the end: that which is explained, or for which alone MariaDB sets something."""
    while True:
        if tokens[0] in ("EXPLAIN", "DESCRIBE", "DESC"):
            # as though it ran: options decide that, and servers evaluate parts of what they only explain
            at = next((at for at, token in enumerate(tokens) if token in EXPLAINED), None)
            if at is None:
                return ["SELECT"]  # of a table
            tokens = tokens[at:]
        elif tokens[:2] == ["SET", "STATEMENT"] and "FOR" in tokens[:-1]:
            tokens = tokens[tokens.index("FOR") + 1 :]
        else:
            return tokens
