"""Is every statement of the corpus judged right, whatever stands around it, and fast enough to ask each time?"""

from __future__ import annotations

import time

import pytest

from tests.core.statements import CORPUS
from threadpool_db.core import statement
from threadpool_db.core.dialects import DIALECTS
from threadpool_db.core.statement import Judgement, judge

CASES = [(dialect, case) for dialect, cases in CORPUS.items() for case in cases]
FLAGS = {
    "clean": Judgement(),
    "dirty": Judgement(dirty=True),
    "cautious": Judgement(dirty=True),
    "begins": Judgement(begins=True),
    "ends": Judgement(ends=True),
    "chains": Judgement(begins=True, ends=True),
    "asks": Judgement(asks_session=True),
}


class TestCorpus:
    def test_each_statement_is_judged_right(self) -> None:
        wrong = []
        for dialect, case in CASES:
            judgement, expected = judge(case.sql, dialect), FLAGS[case.kind]
            right = judgement.dirty if expected.dirty else judgement[:4] == expected[:4]
            if not right or bool(judgement.why) is not (judgement.dirty or judgement.asks_session):
                wrong.append((dialect, case, judgement))
        assert not wrong

    def test_bytes_are_judged_like_text(self) -> None:
        for dialect, case in CASES:
            assert judge(case.sql.encode(), dialect) == judge(case.sql, dialect), case

    def test_where_nobody_knows_the_dialect_nothing_is_missed(self) -> None:
        for dialect, case in CASES:
            judgement, expected = judge(case.sql, ""), judge(case.sql, dialect)
            missed = any(flag < wanted for flag, wanted in zip(judgement[:4], expected[:4], strict=True))
            assert judgement.dirty or not missed or "never ends" in case.sql, (case, judgement)

    def test_the_short_way_says_what_the_long_way_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        short = [statement._judge(case.sql, dialect) for dialect, case in CASES]
        monkeypatch.setattr(statement, "_plain", lambda text, dialect: False)
        assert short == [statement._judge(case.sql, dialect) for dialect, case in CASES]

    @pytest.mark.parametrize(("dialect", "enough"), [("postgresql", 300), ("mysql", 300), ("sqlite", 50)])
    def test_few_of_those_that_leave_nothing_are_called_dirty(self, dialect: str, enough: int) -> None:
        assert len(CORPUS[dialect]) >= enough
        harmless = [case for case in CORPUS[dialect] if case.kind != "dirty"]
        assert sum(judge(case.sql, dialect).dirty for case in harmless) < 0.02 * len(harmless)

    def test_no_statement_stands_twice(self) -> None:
        for cases in CORPUS.values():
            statements = [case.sql for case in cases]
            assert sorted(set(statements)) == sorted(statements)


class TestText:
    @pytest.mark.parametrize("dialect", DIALECTS)
    @pytest.mark.parametrize("sql", ["", " ", ";", " ;; ; ", "-- nothing", "/* nothing */", "(", "()", b""])
    def test_nothing_leaves_nothing(self, sql: str, dialect: str) -> None:
        assert not judge(sql, dialect).dirty or sql in ("()",)

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_what_is_no_word_of_sql_is_dirty(self, dialect: str) -> None:
        for sql in ("%s", "?", "{call p()}", "'SELECT'", '"select" 1', "123"):
            assert judge(sql, dialect).dirty, sql

    def test_a_very_long_text_is_judged_and_not_remembered(self) -> None:
        before = statement._remembered.cache_info()
        sql = f"insert into t values {', '.join(['(1, %s)'] * 5000)}; set search_path = x"
        assert judge(sql, "postgresql").dirty
        assert statement._remembered.cache_info() == before

    @pytest.mark.parametrize("dialect", DIALECTS)
    @pytest.mark.parametrize(
        "piece",
        [
            "'",
            "\\'",
            "/*",
            "$a$ $b$ ",
            "((",
            "--",
            "E'",
            '"',
            "`",
            ";",
            "@",
            "begin case ",
            "*/",
            "set statement x for ",
        ],
    )
    def test_no_text_takes_longer_than_its_length_allows(self, piece: str, dialect: str) -> None:
        begun = time.process_time()
        judge(f"{piece * (50_000 // len(piece))}x", dialect)
        assert time.process_time() - begun < 5


class TestWhy:
    @pytest.mark.parametrize(
        ("dialect", "sql", "why"),
        [
            ("postgresql", "/* why */ set SESSION search_path = 'x'", "SET search_path"),
            ("postgresql", "set session authorization bob", "SET session"),
            ("postgresql", "select pg_advisory_lock(1)", "PG_ADVISORY_LOCK"),
            ("postgresql", "select lastval()", "LASTVAL"),
            ("postgresql", "declare c cursor with hold for select 1", "DECLARE WITH HOLD"),
            ("postgresql", "create temp table secret (a int)", "CREATE TEMP"),
            ("postgresql", "grobble 'secret'", "GROBBLE"),
            ("mysql", "set @token = 'secret'", "SET @token"),
            ("mysql", "set @@session.sql_mode = 'secret'", "SET sql_mode"),
            ("mysql", "select get_lock('secret', 1)", "GET_LOCK"),
            ("mysql", "select last_insert_id()", "LAST_INSERT_ID"),
            ("mysql", "select @@session.warning_count", "@@warning_count"),
            ("mysql", "lock tables secret write", "LOCK tables"),
            ("sqlite", "pragma main.key = 'secret'", "PRAGMA key"),
        ],
    )
    def test_it_names_the_statement_in_a_few_words(self, dialect: str, sql: str, why: str) -> None:
        assert judge(sql, dialect).why == why

    def test_it_never_repeats_a_literal(self) -> None:
        for dialect, case in CASES:
            why = judge(case.sql, dialect).why
            assert "hunter2" not in why and "secret" not in why and "'" not in why and len(why) < 40, case


class TestLasting:
    """What the database's own reset does not undo."""

    @pytest.mark.parametrize("sql", ["select setseed(1)", "set seed = 1", "select public.dblink_connect('x', 'y')"])
    def test_it_is_known(self, sql: str) -> None:
        assert judge(sql, "postgresql").lasting
        assert judge(f"select 1; set x = 1; {sql}", "postgresql").lasting
        assert judge(f"select '\\'; {sql}", "postgresql").lasting, "in one of two readings"

    def test_other_settings_are_undone(self) -> None:
        assert not any(judge(sql, "postgresql").lasting for sql in ("set x = 1", "select setseed", "load 'x'"))


class TestStrangers:
    """A function that nobody knows."""

    @pytest.mark.parametrize(
        "sql",
        [
            "select f()",
            "select f ( 1)",
            "SELECT other.now()",
            "select f/* a comment */(1)",
            "select f -- now\n(1)",
            'select "f"(1)',
            "select 1 where x.f(1) = 2",
            "select now(), lower(f(1))",
            "insert into t (v) values (f(1))",
            "select 1; select f()",
            "select 'it\\'s', f('')",
            "do $$ begin perform f(); end $$",
            "update t set v = größe(v)",
        ],
    )
    def test_one_is_noticed(self, sql: str) -> None:
        assert judge(sql, "postgresql").strange

    @pytest.mark.parametrize(
        "sql",
        [
            "select 1",
            "select (1), (2)",
            "select lower('f(1)'), pg_catalog.upper('x') /* f(1) */ from t -- f(1)",
            "select * from t where id in (1, 2) and exists (select 1) and v = any (array[1])",
            "insert into t (v) values (now())",
            "insert into a.b (v) values (1) on conflict (v) do nothing",
            "with x (n) as (values (1)) select n::numeric(10, 2) from x as y (m)",
            "create table if not exists t (a varchar(20))",
            "select 'f'(",
        ],
    )
    def test_what_is_known_is_none(self, sql: str) -> None:
        assert not judge(sql, "postgresql").strange

    def test_it_is_asked_of_postgresql_alone(self) -> None:
        assert not judge("select f()", "mysql").strange and not judge("select f()", "sqlite").strange


class TestSeveral:
    def test_the_last_word_on_the_transaction_counts(self) -> None:
        assert judge("begin; commit; begin", "postgresql")[1:3] == (True, True)
        assert judge("begin; select 1; rollback", "postgresql")[1:3] == (False, True)
        assert judge("begin; rollback to a", "postgresql")[1:3] == (True, False)

    def test_an_insert_before_the_question_in_the_same_text_answers_it(self) -> None:
        assert not judge("insert into t values (1); select last_insert_id()", "mysql").asks_session
        assert judge("select last_insert_id(); insert into t values (1)", "mysql").asks_session
        assert judge("select 1; select last_insert_id()", "mysql").asks_session


def test_a_remembered_judgement_costs_no_more_than_a_look_into_a_table() -> None:
    sql, table = "select * from t where id = %s", {("select * from t where id = %s", "mysql"): 1}

    def lasting(function: object, *arguments: object) -> float:
        begun = time.perf_counter()
        for _ in range(5000):
            function(*arguments)  # type: ignore[operator]
        return time.perf_counter() - begun

    pairs = [(lasting(judge, sql, "mysql"), lasting(table.get, (sql, "mysql"))) for _ in range(20)]
    assert min(mine for mine, _ in pairs) < 20 * min(bare for _, bare in pairs)
