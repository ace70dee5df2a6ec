"""May we open one more? Is one too many? The rules that come with the pool, and what the ledger asks of any rule."""

from __future__ import annotations

import math
from typing import Any

import pytest

from threadpool_db.core.entry import Entry
from threadpool_db.core.ledger import Ledger
from threadpool_db.core.line import Ticket
from threadpool_db.core.rules import Rules
from threadpool_db.core.sizing import Advice, Counts, Elastic, Fixed, Overflow, Sizing
from threadpool_db.core.sojourn import Sojourn


def counts(max_size: float = 10, idle: int = 0, in_use: int = 0, opening: int = 0, closing: int = 0) -> Counts:
    return Counts(max_size, idle, in_use, opening, closing, 0)


def test_the_total_is_all_that_counts_against_max_size() -> None:
    assert counts(idle=1, in_use=2, opening=3, closing=4).total == 10


class TestElastic:
    def test_it_opens_for_everybody_and_keeps_what_comes_back(self) -> None:
        assert Elastic().may_open(counts(in_use=9), 0.0)
        assert not Elastic().one_too_many(counts(idle=10), 0.0)

    def test_it_shrinks_to_the_smallest_size(self) -> None:
        assert Elastic().smallest(min_size=2, max_size=10) == 2


class TestFixed:
    def test_it_never_gives_an_idle_one_up(self) -> None:
        assert Fixed().smallest(min_size=0, max_size=10) == 10

    def test_it_grows_when_somebody_waits(self) -> None:
        assert Fixed().may_open(counts(), 0.0)


class TestOverflow:
    def test_what_is_beyond_the_base_is_closed_on_its_return(self) -> None:
        assert Overflow(4, 0).one_too_many(counts(idle=1, in_use=6), 0.0)

    def test_the_base_is_kept(self) -> None:
        assert not Overflow(4, 0).one_too_many(counts(idle=1, in_use=5), 0.0)

    def test_what_is_on_its_way_out_does_not_count(self) -> None:
        assert not Overflow(4, 0).one_too_many(counts(idle=1, in_use=5, closing=2), 0.0)

    def test_a_pool_without_a_limit_keeps_what_is_not_extra(self) -> None:
        assert not Overflow(4, 0).one_too_many(counts(math.inf, idle=100), 0.0)

    def test_a_pool_without_a_limit_whose_all_is_extra_keeps_none(self) -> None:
        assert Overflow(math.inf, 0).one_too_many(counts(math.inf, idle=1), 0.0)
        assert Overflow(math.inf, 0).quiet_below(math.inf) == 0

    def test_more_extra_than_there_is_keeps_none(self) -> None:
        assert Overflow(20, 0).one_too_many(counts(idle=1), 0.0)

    @pytest.mark.parametrize("extra", [-1, math.nan])
    def test_an_impossible_number_is_refused(self, extra: float) -> None:
        with pytest.raises(ValueError, match="0 or more"):
            Overflow(extra)
        with pytest.raises(ValueError, match=r"Overflow\(linger=.*: must be seconds, 0 or more"):
            Overflow(1, linger=extra)

    def test_one_that_lingers_is_closed_when_it_has_been_idle_for_long_enough(self) -> None:
        sizing = Overflow(4, linger=5)
        assert not sizing.one_too_many(counts(idle=1, in_use=6), 0.0) and sizing.quiet_below(10) == 10
        assert sizing.look(counts(idle=1, in_use=6), 4.0, 0.0, 100.0) == Advice(101.0)
        assert sizing.look(counts(idle=1, in_use=6), 5.0, 0.0, 101.0).close

    def test_without_an_idle_one_it_looks_again_later(self) -> None:
        assert Overflow(4, linger=5).look(counts(in_use=7), 0.0, 0.0, 100.0) == Advice(105.0)

    def test_the_base_may_be_idle_for_as_long_as_it_likes(self) -> None:
        for base in (counts(idle=6), counts(idle=6, closing=1)):
            assert Overflow(4, linger=5).look(base, 60.0, 0.0, 100.0) == Advice(math.inf)
        assert Overflow(4, linger=5).base(10) == Overflow(4, 0).base(10) == 6


@pytest.mark.parametrize("sizing", [Elastic(), Fixed(), Overflow(0), Overflow(3), Overflow(3, 0)], ids=repr)
@pytest.mark.parametrize("total", range(11))
def test_a_rule_is_not_asked_where_it_would_say_no(sizing: Sizing, total: int) -> None:
    if total <= sizing.quiet_below(10):
        assert not sizing.one_too_many(counts(idle=total), 0.0)


def test_a_rule_shows_in_its_repr() -> None:
    assert [repr(Elastic()), repr(Fixed()), repr(Overflow(2))] == [
        "Elastic()",
        "Fixed()",
        "Overflow(extra=2, linger=5.0)",
    ]


class Greedy(Elastic):
    """Wants to close whatever is idle, always."""

    def look(self, counts: Counts, idle_for: float, waited: float, now: float) -> Advice:
        return Advice(now, close=True)


def greedy(**rules: Any) -> tuple[Ledger, list[Entry]]:
    """Two that are lent, and a sizing that closes what it can."""
    ledger = Ledger(Rules(max_size=2, max_connecting=2, **rules), Greedy())
    entries = []
    for _ in range(2):
        ticket = Ticket()
        ledger.join(ticket, 0.0)
        assert ticket.entry is not None
        ledger.opened(ticket.entry, 0.0, ticket)
        entries.append(ticket.entry)
    return ledger, entries


def test_a_sizing_closes_nothing_that_somebody_waits_for() -> None:
    ledger, (one, two) = greedy()
    ledger.join(waiter := Ticket(), 1.0)
    assert not ledger.checkin(one, 2.0).close and waiter.entry is one
    ledger.due = 3.0
    assert ledger.checkin(two, 3.0).close == [two]


def test_nor_what_the_rules_keep() -> None:
    ledger, entries = greedy(min_idle=1)
    for entry in entries:
        ledger.due = 1.0
        ledger.checkin(entry, 1.0)
    ledger.due = 2.0
    ledger.tick(2.0)
    assert len(ledger.idle) == 1


def test_the_ledger_begins_a_state_of_its_own() -> None:
    settings = Sojourn(2)
    assert Ledger(Rules(), settings).sizing is not Ledger(Rules(), settings).sizing
