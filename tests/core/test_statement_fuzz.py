"""Does anything written around a statement hide what it does? Random texts, comments, cases and neighbours."""

from __future__ import annotations

import pytest

from tests.core.statements import CORPUS
from threadpool_db.core import statement
from threadpool_db.core.statement import Judgement, judge

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

MANY = settings(max_examples=150, deadline=None, database=None, derandomize=True)

DIRTY = [
    (dialect, case.sql)
    for dialect, cases in CORPUS.items()
    for case in cases
    if case.kind == "dirty" and "never ends" not in case.sql
]
HARMLESS = [
    (dialect, case.sql)
    for dialect, cases in CORPUS.items()
    for case in cases
    if case.kind in ("clean", "begins", "ends", "chains") and "never ends" not in case.sql
]
PIECES = [*"'\"`\\;()@#$-/*!%[]\n\r ", "--", "/*", "*/", "/*!", "/*M!", "$a$", "E'", "U&", ":=", "@@", "begin", "end",
          "case", "create", "function", "set", "select", "into", "temp", "get_lock", "é"]  # fmt: skip
COMMENTS = {
    "postgresql": ["-- it's\n", "-- ;\r", "/* ' \" $a$ ; */", "/* /* ' */ ; */", "/**/"],
    "mysql": ["-- it's\n", "# it's\n", "/* ' \" ` ; */", "/**/", "--\n"],
    "sqlite": ["-- it's\n", "/* ' \" [ ; */", "/**/"],
}


def dirty_of(dialect: str) -> st.SearchStrategy[str]:
    return st.sampled_from([sql for name, sql in DIRTY if name == dialect])


def neighbour_of(dialect: str) -> st.SearchStrategy[str]:
    # a routine keeps what follows in its body if that has an END of its own: none before it
    return st.sampled_from([sql for name, sql in HARMLESS if name == dialect and not sql.startswith("create")])


def gap_of(dialect: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from([*COMMENTS[dialect], " ", "\n", "\t"]), max_size=4).map("".join)


@st.composite
def wrapped(draw: st.DrawFn, dialect: str) -> str:
    """A dirty statement with comments, neighbours and capitals of its own."""
    sql = draw(dirty_of(dialect))
    sql = draw(st.sampled_from([sql, sql.upper() if "$" not in sql and "\\" not in sql else sql]))
    if draw(st.booleans()) and "'" not in sql and '"' not in sql and "`" not in sql and "--" not in sql:
        words = sql.split(" ")  # a comment in each gap between two words
        sql = words[0] + "".join(f" {draw(gap_of(dialect))} {word}" for word in words[1:])
    before = draw(st.lists(neighbour_of(dialect), max_size=2))
    after = draw(st.lists(neighbour_of(dialect), max_size=2))
    statements = [*before, sql, *after]
    return "".join(f"{draw(gap_of(dialect))}{one}\n;" for one in statements)


@pytest.mark.parametrize("dialect", CORPUS)
def test_nothing_around_a_dirty_statement_makes_it_clean(dialect: str) -> None:
    @MANY
    @given(wrapped(dialect))
    def check(text: str) -> None:
        assert judge(text, dialect).dirty
        assert judge(text.encode(), dialect).dirty
        assert judge(text, "").dirty

    check()


@pytest.mark.parametrize("dialect", CORPUS)
def test_a_dirty_statement_inside_a_literal_or_a_comment_does_nothing(dialect: str) -> None:
    @MANY
    @given(dirty_of(dialect), gap_of(dialect))
    def check(sql: str, gap: str) -> None:
        literal = sql.replace("\\", "\\\\" if dialect == "mysql" else "").replace("'", "''")
        assert not judge(f"{gap} select {gap} '{literal}' {gap}, 1", dialect).dirty
        if "*" not in sql and "/" not in sql and "\\" not in sql:
            assert not judge(f"select 1 /* {sql} */ {gap}", dialect).dirty
        if dialect == "postgresql" and "$" not in sql:
            assert not judge(f"select $it${sql}$it$, E'{literal}'", dialect).dirty

    check()


@pytest.mark.parametrize("dialect", ["", *CORPUS])
def test_no_text_is_too_strange(dialect: str) -> None:
    @MANY
    @given(st.one_of(st.text(max_size=80), st.binary(max_size=80), st.lists(st.sampled_from(PIECES)).map(" ".join)))
    def check(text: str | bytes) -> None:
        judgement = judge(text, dialect)
        assert isinstance(judgement, Judgement) and bool(judgement.why) is (judgement.dirty or judgement.asks_session)

    check()


@pytest.mark.parametrize("dialect", ["", *CORPUS])
def test_the_short_way_finds_nothing_that_the_long_way_would_not(dialect: str) -> None:
    short = statement._plain
    words = st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join).map("select ".__add__)

    @MANY
    @given(st.one_of(words, st.sampled_from([sql for _, sql in DIRTY])))
    def check(text: str) -> None:
        if short(text, dialect):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(statement, "_plain", lambda text, dialect: False)
                judgement = statement._judge(text, dialect)
            assert judgement == Judgement() or "does not end" in judgement.why

    check()
