"""Who holds, who waits, what next? The ledger's behaviours one by one; ``test_ledger_walk.py`` tries all at once.

Time is an argument, so nothing here waits.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from threadpool_db.core.backoff import Backoff
from threadpool_db.core.entry import CLOSING, GONE, IDLE, LEASED, OPENING, Entry
from threadpool_db.core.freshness import Freshness
from threadpool_db.core.ledger import Ledger
from threadpool_db.core.line import Refusal, Step, Ticket
from threadpool_db.core.outage import Outage
from threadpool_db.core.overload import MaxWaiting
from threadpool_db.core.rules import Rules
from threadpool_db.core.sizing import Counts, Elastic, Fixed, Overflow

ERROR = OSError("refused")


def ledger_of(size: float = 2, *, max_waiting: float = math.inf, sizing: Any = None, **rules: Any) -> Ledger:
    rules.setdefault("freshness", Freshness(lifetime_jitter=0.0))
    rules.setdefault("backoff", Backoff(1.0, 8.0, kind="exp"))
    return Ledger(Rules(max_size=size, **rules), sizing, MaxWaiting(max_waiting), draw=lambda: 0.0)


def join(ledger: Ledger, now: float = 0.0, name: str = "") -> Ticket:
    ticket = Ticket(name)
    ledger.join(ticket, now)
    return ticket


def borrow(ledger: Ledger, now: float = 0.0) -> Entry:
    """What a borrower does: the short way, or the line and a connect."""
    entry = ledger.take(now)
    if entry is None:
        ticket = join(ledger, now)
        assert ticket.entry is not None
        entry = ticket.entry
        if ticket.step is Step.OPEN:
            ledger.opened(entry, now, ticket)
    return entry


def give(ledger: Ledger, entry: Entry, now: float = 0.0) -> Any:
    return ledger.give(entry, now) or ledger.checkin(entry, now)


def full(size: int = 2, **rules: Any) -> tuple[Ledger, list[Entry]]:
    """A ledger whose every connection is lent."""
    ledger = ledger_of(size, **rules)
    return ledger, [borrow(ledger) for _ in range(size)]


class TestBorrowing:
    def test_an_empty_pool_has_its_first_borrower_connect(self) -> None:
        ledger = ledger_of()
        assert ledger.take(0.0) is None
        ticket = join(ledger)
        assert ticket.step is Step.OPEN and ticket.entry is not None and ticket.entry.state is OPENING
        ledger.opened(ticket.entry, 0.5, ticket)
        assert ticket.step is Step.USE and ticket.entry.state is LEASED

    def test_an_idle_fresh_one_is_taken_the_short_way(self) -> None:
        ledger = ledger_of()
        entry = borrow(ledger)
        assert ledger.give(entry, 1.0) and entry.state is IDLE
        assert ledger.take(2.0) is entry and entry.state is LEASED and entry.taken_at == 2.0

    def test_one_that_was_given_back_while_its_borrower_joined_is_his_at_once(self) -> None:
        ledger, (entry, _) = full()
        assert ledger.take(0.0) is None
        ledger.give(entry, 0.0)
        assert join(ledger).entry is entry

    def test_a_ticket_hands_its_holder_and_line_to_the_connection(self) -> None:
        ledger, (entry, _) = full()
        ticket = Ticket("thread", "code", 7)
        ledger.join(ticket, 0.0)
        ledger.checkin(entry, 1.0)
        assert (entry.holder, entry.code, entry.instruction) == ("thread", "code", 7)

    def test_lifo_lends_the_one_used_last(self) -> None:
        ledger, entries = full(3)
        for entry in entries:
            give(ledger, entry, 1.0)
        assert [ledger.take(1.0) for _ in range(3)] == entries[::-1]

    def test_fifo_lends_the_one_idle_longest(self) -> None:
        ledger, entries = full(3, order="fifo")
        for entry in entries:
            give(ledger, entry, 1.0)
        assert [ledger.take(1.0) for _ in range(3)] == entries

    def test_lifo_uses_one_connection_again_and_again_where_fifo_goes_round(self) -> None:
        for order, different in (("lifo", 1), ("fifo", 4)):
            ledger, entries = full(4, order=order)
            for entry in entries:
                give(ledger, entry)
            used = []
            for now in range(8):
                used.append(borrow(ledger, now))
                give(ledger, used[-1], now)
            assert len(set(used)) == different


class TestLine:
    def test_waiters_are_served_in_order_of_arrival(self) -> None:
        ledger, (entry, _) = full()
        waiters = [join(ledger, name=str(i)) for i in range(5)]
        served = []
        for now in range(5):
            (woken,) = ledger.checkin(entry, now).wake
            served.append(woken)
        assert served == waiters and not ledger.line

    def test_one_who_gives_back_and_asks_again_cannot_overtake(self) -> None:
        ledger, (entry, _) = full()
        waiter = join(ledger)
        assert not ledger.give(entry, 1.0)
        ledger.checkin(entry, 1.0)
        assert ledger.take(1.0) is None and waiter.entry is entry

    def test_an_expired_waiter_costs_no_connection(self) -> None:
        ledger, (entry, _) = full()
        waiter = join(ledger)
        ledger.leave(waiter, 0.1)
        orders = give(ledger, entry, 0.5)
        assert orders is True and ledger.take(0.5) is entry and ledger.closures == 0

    def test_what_was_granted_to_one_who_left_goes_to_the_next(self) -> None:
        ledger, (entry, _) = full()
        first, second = join(ledger), join(ledger)
        ledger.checkin(entry, 1.0)
        orders = ledger.leave(first, 1.0)
        assert second.entry is entry and orders.wake == [second] and not orders.close

    def test_an_empty_slot_granted_to_one_who_left_goes_to_the_next(self) -> None:
        ledger = ledger_of(1)
        first, second = join(ledger), join(ledger)
        assert ledger.leave(first, 1.0).wake == [second] and second.step is Step.OPEN

    def test_leaving_twice_does_nothing_more(self) -> None:
        ledger, (entry, _) = full()
        ticket = join(ledger)
        ledger.checkin(entry, 1.0)
        ledger.leave(ticket, 1.0)
        ledger.leave(ticket, 1.0)
        assert ledger.counts() == Counts(2, 1, 1, 0, 0, 0)

    def test_a_newcomer_waits_behind_one_who_resumes(self) -> None:
        ledger, (entry, _) = full()
        first = join(ledger, name="first")
        ledger.checkin(entry, 1.0)
        second, third = join(ledger, name="second"), join(ledger, name="third")
        ledger.dead(entry, 1.0, first)
        assert list(ledger.line) == [first, second, third]

    def test_one_who_resumes_stands_behind_those_who_came_before_him(self) -> None:
        ledger, (one, two) = full()
        first, second, third = (join(ledger, name=name) for name in ("first", "second", "third"))
        ledger.checkin(one, 1.0)
        ledger.checkin(two, 1.0)
        ledger.dead(one, 1.0, first)
        ledger.dead(two, 1.0, second)
        assert list(ledger.line) == [first, second, third]

    def test_more_than_max_waiting_are_refused_at_once(self) -> None:
        ledger, _ = full(max_waiting=2)
        assert [join(ledger).step for _ in range(3)] == [Step.WAIT, Step.WAIT, Step.REFUSED]
        assert join(ledger).refusal is Refusal.FULL

    def test_who_need_not_wait_is_not_counted_against_max_waiting(self) -> None:
        ledger = ledger_of(max_waiting=0)
        assert join(ledger).step is Step.OPEN

    def test_overload_is_asked_only_about_those_who_would_wait(self) -> None:
        asked = []

        class Asked:
            def admits(self, waiting: int, now: float) -> bool:
                asked.append((waiting, now))
                return True

        ledger = Ledger(Rules(max_size=1), overload=Asked())
        for now in range(3):
            join(ledger, now)
        assert asked == [(0, 1), (1, 2)]


class TestSnatching:
    def test_what_is_idle_and_fresh_is_his(self) -> None:
        ledger, (entry, _) = full()
        give(ledger, entry)
        ticket = Ticket()
        ledger.snatch(ticket, 1.0)
        assert ticket.step is Step.USE and ticket.entry is entry and not ledger.idle

    def test_he_neither_waits_nor_connects(self) -> None:
        ledger = ledger_of()
        ticket = Ticket()
        ledger.snatch(ticket, 0.0)
        assert ticket.step is Step.REFUSED and ticket.refusal is None and not ledger.entries and not ledger.line

    def test_he_passes_over_what_needs_a_round_trip(self) -> None:
        ledger, (old, new) = full(order="fifo")
        give(ledger, old, 0.0)
        give(ledger, new, 20.0)
        ticket = Ticket()
        ledger.snatch(ticket, 31.0)
        assert ticket.entry is new and list(ledger.idle) == [old]

    def test_one_whose_time_is_over_is_closed_and_not_his(self) -> None:
        ledger, (entry, _) = full(freshness=Freshness(lifetime_jitter=0.0, max_lifetime=10))
        give(ledger, entry, 9.0)
        ticket = Ticket()
        assert ledger.snatch(ticket, 10.0).close == [entry] and ticket.step is Step.REFUSED

    def test_a_closed_pool_says_so(self) -> None:
        ledger = ledger_of()
        ledger.close(0.0)
        ticket = Ticket()
        ledger.snatch(ticket, 0.0)
        assert ticket.refusal is Refusal.CLOSED


class TestSilence:
    def test_a_silent_one_is_to_be_asked_first(self) -> None:
        ledger, (entry, _) = full()
        give(ledger, entry)
        assert ledger.take(30.0) is None
        ticket = join(ledger, 30.0)
        assert ticket.step is Step.PING and ticket.entry is entry

    def test_giving_up_before_asking_is_no_answer(self) -> None:
        ledger, (entry, _) = full()
        give(ledger, entry)
        ledger.leave(join(ledger, 30.0), 31.0)
        assert ledger.take(31.0) is None and join(ledger, 31.0).step is Step.PING

    def test_one_that_comes_back_unused_is_shelved_behind_those_used_later(self) -> None:
        ledger, (old, new) = full()
        give(ledger, old, 0.0)
        ticket = join(ledger, 30.0)
        give(ledger, new, 31.0)
        ledger.leave(ticket, 32.0)
        assert list(ledger.idle) == [old, new] and ledger.take(32.0) is new

    def test_the_silent_rest_is_closed_with_a_dead_one(self) -> None:
        ledger, entries = full(4)
        for entry, now in zip(entries, (0.0, 0.0, 0.0, 29.0), strict=True):
            give(ledger, entry, now)
        fresh = ledger.take(30.0)
        assert fresh is not None
        give(ledger, fresh, 30.0)
        fresh = ledger.take(31.0)
        ticket = join(ledger, 31.0)
        dead = ticket.entry
        assert dead is not None and ticket.step is Step.PING and fresh is entries[3]
        orders = ledger.dead(dead, 31.0, ticket)
        assert set(orders.close) == set(entries[:3]) and fresh.state is LEASED
        assert ticket.step is Step.WAIT  # until one of them is closed
        assert ledger.closed_one(dead, 31.0).wake == [ticket] and ticket.step is Step.OPEN

    def test_who_will_not_wait_goes_without(self) -> None:
        ledger, (entry, _) = full()
        assert ledger.dead(entry, 1.0, None).close == [entry] and not ledger.line
        assert ledger.dead_count == 1 and ledger.checkouts == 1

    def test_without_the_short_ways_nothing_is_taken_but_by_the_line(self) -> None:
        ledger = ledger_of(1, short_ways=False)
        entry = borrow(ledger)
        assert ledger.give(entry, 0.0) and ledger.take(1.0) is None
        assert join(ledger, 1.0).entry is entry
        waiter = join(ledger, 1.0)
        assert ledger.hand(entry, 2.0, []) is waiter and waiter.entry is entry


class TestUnwanted:
    """It lives, and its borrower wants another one."""

    def test_his_place_is_kept_and_nothing_is_said_of_the_others(self) -> None:
        ledger, (one, two, three) = full(3, freshness=Freshness(lifetime_jitter=0.0, ping_after=30))
        for entry in (one, two, three):
            give(ledger, entry, 1.0)
        first = join(ledger, 40.0, "first")
        assert first.entry is three
        orders = ledger.unwanted(three, 40.0, first)
        assert orders.close == [three] and first.entry is two
        assert not (three.unfit or two.unfit or one.unfit)
        assert (ledger.dead_count, ledger.checkouts) == (0, 4)

    def test_after_a_new_one_the_next_connect_waits_as_after_a_failure(self) -> None:
        ledger = ledger_of(2)
        ticket = join(ledger, 5.0)
        entry = ticket.entry
        assert entry is not None
        ledger.opened(entry, 5.0, ticket)
        ledger.unwanted(entry, 5.0, ticket)
        assert (ticket.step, ticket.wake_at, ledger.reach.failing) == (Step.WAIT, 6.0, False)
        ledger.tick(6.0)
        assert ticket.step is Step.OPEN

    def test_where_others_connect_they_wait_too_and_are_told_when(self) -> None:
        ledger = ledger_of(2, background=True)
        ticket = Ticket()
        [entry] = ledger.join(ticket, 5.0).open
        ledger.opened(entry, 5.0)
        orders = ledger.unwanted(entry, 5.0, ticket)
        assert (orders.open, ledger.due) == ([], 6.0)
        assert len(ledger.tick(6.0).open) == 1

    def test_after_one_that_was_used_it_does_not_wait(self) -> None:
        ledger, (entry,) = full(1)
        give(ledger, entry, 1.0)
        ticket = join(ledger, 1.0)
        ledger.unwanted(entry, 1.0, ticket)
        ledger.closed_one(entry, 1.0)
        assert ticket.step is Step.OPEN

    def test_who_will_not_wait_goes_without(self) -> None:
        ledger, (entry, _) = full()
        assert ledger.unwanted(entry, 1.0, None).close == [entry] and not ledger.line
        assert ledger.checkouts == 1


class TestUnfit:
    """Of what is let go of, only what is in order may be spoken to once more."""

    def test_what_is_broken_silent_or_in_other_hands_is_unfit(self) -> None:
        ledger, (one, two, three) = full(3, freshness=Freshness(lifetime_jitter=0.0, ping_after=30))
        ledger.checkin(one, 0.0, reusable=False)
        give(ledger, two, 0.0)
        ledger.dead(three, 40.0, None)
        assert one.unfit and two.unfit and three.unfit
        ledger, (one, two) = full(2)
        ledger.lost(one, 1.0)
        ledger.revoke(two, 1.0)
        assert one.unfit and two.unfit

    def test_what_is_too_old_or_too_many_is_not(self) -> None:
        ledger, (one, two) = full(2)
        give(ledger, one, 0.0)
        assert ledger.recycle(1.0).close == [one]
        assert ledger.checkin(two, 1.0).close == [two]
        assert not (one.unfit or two.unfit)


class TestConnecting:
    def test_at_most_max_connecting_connect_at_once(self) -> None:
        ledger = ledger_of(10, max_connecting=2)
        assert [join(ledger).step for _ in range(3)] == [Step.OPEN, Step.OPEN, Step.WAIT]

    def test_who_has_a_slot_is_not_in_line_any_more_wherever_an_interrupt_falls(self) -> None:
        """Else he gets another one while he connects, and the first one is lost under him."""

        class Struck(Ticket):
            def grant(self, step: Step, entry: Entry) -> None:
                super().grant(step, entry)
                raise KeyboardInterrupt

        ledger = ledger_of(10, max_connecting=1)
        borrower, struck = join(ledger), Struck()
        ledger.join(struck, 0.0)
        assert borrower.entry is not None and struck.step is Step.WAIT
        with pytest.raises(KeyboardInterrupt):
            ledger.opened(borrower.entry, 1.0, borrower)
        assert struck.step is Step.OPEN and struck not in ledger.line

    def test_a_burst_does_not_become_as_many_connections(self) -> None:
        ledger = ledger_of(50, max_connecting=2)
        tickets = [join(ledger) for _ in range(50)]
        for ticket in tickets[:2]:
            assert ticket.entry is not None
            ledger.opened(ticket.entry, 1.0, ticket)
        served = tickets[0]
        while ledger.line:
            assert served.entry is not None
            (served,) = ledger.checkin(served.entry, 1.0).wake
        # two more are being connected for the next two in line, everybody else was served by one that came back
        assert ledger.opened_count == 2 and ledger.opening == 2 and ledger.checkouts == 48

    def test_a_waiter_takes_whichever_comes_first(self) -> None:
        ledger, (entry, _) = full(2)
        ledger.checkin(entry, 0.0, reusable=False)
        first, second = join(ledger), join(ledger)
        ledger.closed_one(entry, 0.1)
        assert first.step is Step.OPEN
        assert first.entry is not None
        ledger.opened(first.entry, 0.2, None)  # too late for him: the next one's
        assert second.step is Step.USE

    def test_one_that_was_opened_too_late_is_kept_if_nobody_waits(self) -> None:
        ledger = ledger_of()
        ticket = join(ledger)
        assert ticket.entry is not None
        ledger.opened(ticket.entry, 9.0)
        assert ledger.take(9.0) is ticket.entry

    def test_a_pool_that_never_connected_refuses_everybody_with_the_cause(self) -> None:
        ledger = ledger_of(1)
        first, second = join(ledger), join(ledger)
        assert first.entry is not None
        orders = ledger.failed(first.entry, 1.0, ERROR, first)
        for ticket in (first, second):
            assert ticket.refusal is Refusal.CONNECT_FAILED and ticket.cause is ERROR and ticket in orders.wake
        assert not ledger.entries

    def test_a_pool_that_has_connected_tries_again_after_a_delay_that_grows(self) -> None:
        ledger = ledger_of(1)
        ledger.dead(borrow(ledger), 0.0, None)
        ledger.closed_one(next(iter(ledger.entries)), 0.0)
        ticket, now, waits = join(ledger), 0.0, []
        for _ in range(4):
            assert ticket.step is Step.OPEN and ticket.entry is not None
            ledger.failed(ticket.entry, now, ERROR, ticket)
            assert ticket.step is Step.WAIT and not ledger.tick(now).wake
            waits.append(ticket.wake_at - now)
            now = ticket.wake_at
            ledger.tick(now)
        assert waits == [1.0, 2.0, 4.0, 8.0] and ledger.reach.error is ERROR

    def test_the_first_success_ends_the_delay_and_forgets_the_error(self) -> None:
        ledger = ledger_of(2)
        borrow(ledger)
        ticket = join(ledger)
        other = Ticket()
        assert ticket.entry is not None
        ledger.failed(ticket.entry, 0.0, ERROR, ticket)
        ledger.tick(1.0)
        assert ticket.entry is not None
        ledger.opened(ticket.entry, 1.5, ticket)
        assert ledger.reach.error is None
        ledger.detach(ticket.entry, 1.5)
        ledger.join(other, 1.5)
        assert other.step is Step.OPEN

    def test_only_the_head_wakes_by_itself(self) -> None:
        ledger = ledger_of(2, max_connecting=1)
        borrow(ledger)
        first, second = join(ledger), join(ledger)
        assert first.entry is not None
        orders = ledger.failed(first.entry, 0.0, ERROR, first)
        assert (first.wake_at, second.wake_at) == (1.0, math.inf) and orders.wake == [first]
        orders = ledger.leave(first, 0.5)
        assert second.wake_at == 1.0 and orders.wake == [second]

    def test_without_backoff_a_failed_connect_is_its_borrowers_own_affair(self) -> None:
        ledger = ledger_of(1, backoff=None)
        first, second, third = join(ledger), join(ledger), join(ledger)
        assert first.entry is not None
        assert ledger.failed(first.entry, 1.0, ERROR, first).wake == [second]
        assert first.refusal is Refusal.CONNECT_FAILED and first.cause is ERROR
        assert second.entry is not None
        assert ledger.failed(second.entry, 1.0, ERROR).wake == [third]
        assert not ledger.leave(second, 1.0).wake

    def test_who_went_away_with_a_failed_connect_leaves_the_next_try_to_the_line(self) -> None:
        ledger = ledger_of(2, max_connecting=1)
        borrow(ledger)
        first, second = join(ledger), join(ledger)
        assert first.entry is not None
        ledger.failed(first.entry, 0.0, ERROR)
        assert second.wake_at == 1.0 and ledger.tick(1.0).wake == [second] and second.step is Step.OPEN

    def test_a_rule_that_forbids_opening_is_obeyed(self) -> None:
        class Never(Elastic):
            def may_open(self, counts: Counts, now: float) -> bool:
                return False

        assert join(ledger_of(sizing=Never())).step is Step.WAIT


class TestGivingBack:
    def test_what_nobody_else_should_meet_is_closed_and_its_slot_free_only_then(self) -> None:
        ledger, (entry, _) = full()
        waiter = join(ledger)
        assert ledger.checkin(entry, 1.0, reusable=False).close == [entry] and entry.state is CLOSING
        assert waiter.step is Step.WAIT and ledger.counts().closing == 1
        assert ledger.closed_one(entry, 2.0).wake == [waiter] and entry.state is GONE

    def test_it_is_never_on_the_shelf_twice(self) -> None:
        ledger, (entry, _) = full()
        ledger.checkin(entry, 1.0)
        with pytest.raises(AssertionError):
            ledger.checkin(entry, 1.0)

    def test_a_detached_one_counts_no_longer_and_frees_its_slot(self) -> None:
        ledger, (entry, _) = full()
        waiter = join(ledger)
        ledger.detach(entry, 1.0)
        assert entry.state is GONE and waiter.step is Step.OPEN and len(ledger.entries) == 2

    def test_overflow_is_closed_on_its_return_once_nobody_waits(self) -> None:
        ledger, (one, two) = full(sizing=Overflow(1, 0))
        waiter = join(ledger)
        assert not ledger.checkin(one, 1.0).close and waiter.entry is one
        assert not ledger.give(two, 2.0)
        assert ledger.checkin(two, 2.0).close == [two] and not ledger.idle


class TestRetiring:
    def lifetimes(self, **limits: float) -> Freshness:
        return Freshness(lifetime_jitter=0.0, **limits)

    def test_one_past_its_lifetime_is_replaced_at_checkout(self) -> None:
        ledger, (entry, _) = full(freshness=self.lifetimes(max_lifetime=10))
        give(ledger, entry, 9.0)
        assert ledger.take(10.0) is None
        ticket = Ticket()
        assert ledger.join(ticket, 10.0).close == [entry] and ticket.step is Step.WAIT
        ledger.closed_one(entry, 10.0)
        assert ticket.step is Step.OPEN

    def test_one_past_its_lifetime_is_closed_on_its_return(self) -> None:
        ledger, (entry, _) = full(freshness=self.lifetimes(max_lifetime=10))
        assert not ledger.give(entry, 10.0)
        assert entry in ledger.checkin(entry, 10.0).close

    def test_one_whose_lifetime_ended_while_it_was_lent_is_closed_however_late_it_returns(self) -> None:
        ledger, (entry, _) = full(freshness=self.lifetimes(max_lifetime=10))
        ledger.tick(11.0)
        assert not ledger.give(entry, 11.5)
        assert ledger.checkin(entry, 11.5).close == [entry]

    def test_one_past_its_lifetime_is_closed_by_a_tick(self) -> None:
        ledger, (entry, other) = full(freshness=self.lifetimes(max_lifetime=10))
        give(ledger, entry, 9.0)
        assert ledger.due == 10.0 and not ledger.tick(9.9).close
        assert ledger.tick(10.0).close == [entry] and other.state is LEASED

    def test_idle_ones_shrink_to_the_smallest_size_coldest_first(self) -> None:
        for order in ("lifo", "fifo"):
            ledger, entries = full(4, order=order, min_size=1, freshness=self.lifetimes(max_idle=5))
            for now, entry in enumerate(entries):
                give(ledger, entry, now)
            assert ledger.tick(6.0).close == entries[:2]
            assert ledger.tick(20.0).close == entries[2:3] and list(ledger.idle) == entries[3:]

    def test_ten_idle_ones_become_two_and_the_lent_are_untouched(self) -> None:
        ledger, entries = full(12, min_size=2, freshness=self.lifetimes(max_idle=5))
        for entry in entries[2:]:
            give(ledger, entry)
        assert len(ledger.tick(5.0).close) == 10 and ledger.counts().in_use == 2

    def test_a_worn_one_is_closed_before_a_good_one_that_is_only_idle(self) -> None:
        ledger = ledger_of(min_size=1, freshness=self.lifetimes(max_idle=5, max_lifetime=20))
        old = borrow(ledger, 0.0)
        young = borrow(ledger, 12.0)
        give(ledger, young, 13.0)
        give(ledger, old, 14.0)
        assert ledger.tick(20.0).close == [old] and list(ledger.idle) == [young]

    def test_a_fixed_pool_gives_no_idle_one_up_not_even_to_a_borrower(self) -> None:
        ledger, (entry, _) = full(sizing=Fixed(), freshness=self.lifetimes(max_idle=5, ping_after=30))
        give(ledger, entry)
        assert not ledger.tick(10.0).close
        assert join(ledger, 10.0).entry is entry

    def test_one_is_closed_after_max_uses(self) -> None:
        ledger = ledger_of(freshness=self.lifetimes(max_uses=2))
        entry = borrow(ledger)
        give(ledger, entry)
        assert borrow(ledger) is entry
        assert not ledger.give(entry, 0.0) and ledger.checkin(entry, 0.0).close == [entry]


def kept(size: float = 2, **rules: Any) -> tuple[Ledger, list[Entry]]:
    """A ledger with somebody in the background, and what it ordered opened at birth."""
    ledger = ledger_of(size, background=True, **rules)
    return ledger, ledger.tick(0.0).open


def kept_idle(size: int, **limits: float) -> tuple[Ledger, list[Entry]]:
    """A ledger in the background, all connections idle since 0.0, the coldest first."""
    ledger, entries = kept(size, min_size=size, max_connecting=size, freshness=Freshness(lifetime_jitter=0.0, **limits))
    for entry in entries:
        ledger.opened(entry, 0.0)
    return ledger, list(ledger.idle)


class TestBackground:
    def test_a_connect_is_ordered_and_its_waiter_waits_for_whatever_comes_first(self) -> None:
        ledger, _ = kept(2)
        first, second = Ticket(), Ticket()
        (one,), (two,) = ledger.join(first, 0.0).open, ledger.join(second, 0.0).open
        assert first.step is second.step is Step.WAIT and one.state is two.state is OPENING
        assert ledger.opened(two, 1.0).wake == [first] and first.entry is two
        ledger.checkin(two, 2.0)
        assert second.entry is two and one.state is OPENING

    def test_a_connect_for_which_nobody_waits_any_more_is_kept(self) -> None:
        ledger, _ = kept(1)
        ticket = Ticket()
        (entry,) = ledger.join(ticket, 0.0).open
        ledger.leave(ticket, 0.5)
        assert not ledger.opened(entry, 1.0).close and ledger.take(1.0) is entry

    def test_a_burst_orders_no_more_connects_than_max_connecting(self) -> None:
        ledger, _ = kept(50, max_connecting=2)
        ordered = [len(ledger.join(Ticket(), 0.0).open) for _ in range(50)]
        assert ordered == [1, 1] + [0] * 48

    def test_who_has_a_connect_coming_is_not_counted_against_max_waiting(self) -> None:
        ledger, _ = kept(3, max_waiting=1)
        assert [join(ledger).step for _ in range(4)] == [Step.WAIT, Step.WAIT, Step.WAIT, Step.REFUSED]
        ledger, _ = kept(1, max_waiting=0)
        assert join(ledger).step is Step.WAIT and join(ledger).refusal is Refusal.FULL

    def test_a_failed_connect_is_ordered_again_after_the_delay_and_the_keeper_knows_when(self) -> None:
        ledger, (entry,) = kept(1, min_size=1)
        ledger.opened(entry, 0.0)
        assert ledger.take(0.0) is entry
        ledger.detach(entry, 0.0)
        (again,) = (e for e in ledger.entries if e.state is OPENING)
        waiter = join(ledger)
        assert not ledger.failed(again, 1.0, ERROR).open and waiter.wake_at == math.inf
        assert ledger.due == 2.0 and not ledger.tick(1.9).open
        assert len(ledger.tick(2.0).open) == 1 and waiter.step is Step.WAIT

    def test_a_pool_that_never_connected_refuses_everybody_but_the_next_may_try_at_once(self) -> None:
        ledger, _ = kept(2)
        first, second = Ticket(), Ticket()
        (one,), _ = ledger.join(first, 0.0).open, ledger.join(second, 0.0).open
        assert ledger.failed(one, 1.0, ERROR).wake == [first, second]
        assert first.refusal is second.refusal is Refusal.CONNECT_FAILED and first.cause is ERROR
        assert len(ledger.join(Ticket(), 1.0).open) == 0 and ledger.opening == 1  # the other one is under way still

    def test_without_backoff_a_failed_connect_ends_the_wait_of_the_first_who_has_no_other_coming(self) -> None:
        ledger, _ = kept(2, backoff=None)
        tickets = [Ticket() for _ in range(3)]
        one, two = (entry for ticket in tickets for entry in ledger.join(ticket, 0.0).open)
        (three,) = ledger.failed(one, 1.0, ERROR).open
        assert [ticket.step for ticket in tickets] == [Step.REFUSED, Step.WAIT, Step.WAIT]
        ledger.leave(tickets[1], 1.0)
        assert not ledger.failed(two, 1.0, ERROR).wake and tickets[2].step is Step.WAIT
        assert ledger.failed(three, 1.0, ERROR).wake == [tickets[2]] and not ledger.entries


class TestGivingUpAConnect:
    def test_its_slot_counts_until_it_ends_and_what_it_opens_is_closed_on_arrival(self) -> None:
        ledger, _ = kept(1)
        first = Ticket()
        (entry,) = ledger.join(first, 0.0).open
        assert ledger.overdue(entry, 5.0, ERROR).wake == [first] and first.cause is ERROR
        assert entry.state is CLOSING and ledger.counts() == Counts(1, 0, 0, 0, 1, 0)
        second = Ticket()
        assert not ledger.join(second, 6.0).open
        assert ledger.opened(entry, 70.0).close == [entry] and second.step is Step.WAIT
        assert len(ledger.closed_one(entry, 70.0).open) == 1
        assert ledger.opened_count == ledger.closures == 1 and ledger.connect_failures == 1

    def test_if_it_fails_at_last_its_slot_is_free_and_nobody_hears_of_it_again(self) -> None:
        ledger, _ = kept(1)
        (entry,) = ledger.join(Ticket(), 0.0).open
        ledger.overdue(entry, 5.0, ERROR)
        waiter = Ticket()
        ledger.join(waiter, 6.0)
        orders = ledger.failed(entry, 70.0, ERROR)
        assert not orders.wake and not orders.close and len(orders.open) == 1 and waiter.step is Step.WAIT
        assert entry.state is GONE and ledger.connect_failures == 1

    def test_another_connect_is_ordered_where_there_is_room(self) -> None:
        ledger, (one, two) = kept(3, min_size=2)
        ledger.opened(one, 0.0)
        assert not ledger.overdue(two, 5.0, ERROR).open
        assert len(ledger.tick(ledger.due).open) == 1 and len(ledger.entries) == 3

    def test_one_that_ended_just_in_time_is_not_given_up(self) -> None:
        ledger, (entry,) = kept(1, min_size=1)
        ledger.opened(entry, 4.9)
        orders = ledger.overdue(entry, 5.0, ERROR)
        assert not orders.close and ledger.take(5.0) is entry and ledger.connect_failures == 0


class TestKeepingReady:
    def test_the_smallest_size_is_opened_at_birth_as_fast_as_max_connecting_allows(self) -> None:
        ledger, entries = kept(10, min_size=5, max_connecting=2)
        assert len(entries) == 2
        for entry in entries:
            entries += ledger.opened(entry, 1.0).open
        assert len(ledger.idle) == 5 and ledger.opening == 0

    def test_so_many_are_idle_beside_those_that_are_lent_and_those_that_wait(self) -> None:
        ledger, (one, two) = kept(4, min_idle=2)
        ledger.opened(one, 0.0)
        ledger.opened(two, 0.0)
        assert ledger.take(1.0) is None  # the long way, which can make up for it
        ticket = Ticket()
        (three,) = ledger.join(ticket, 1.0).open
        assert ticket.step is Step.USE and three.state is OPENING
        ledger.snatch(Ticket(), 1.0)
        assert ledger.opening == 2 and len(ledger.entries) == 4

    def test_what_is_lost_is_opened_again(self) -> None:
        ledger, (one,) = kept(2, min_size=1)
        ledger.opened(one, 0.0)
        assert ledger.take(1.0) is one
        assert len(ledger.checkin(one, 1.0, reusable=False).open) == 1

    def test_after_a_failure_nothing_is_opened_ahead_of_demand_until_the_delay_is_over(self) -> None:
        ledger, (entry,) = kept(2, min_size=1, backoff=Backoff(1.0, 4.0, kind="exp"))
        tries, now = [], 0.0
        for _ in range(4):
            assert not ledger.failed(entry, now, ERROR).open and not ledger.tick(ledger.due - 0.1).open
            now = ledger.due
            tries.append(now)
            (entry,) = ledger.tick(now).open
        assert tries == [1.0, 3.0, 7.0, 11.0]

    def test_overflow_is_not_opened_ahead_of_demand(self) -> None:
        ledger, entries = kept(3, min_idle=2, sizing=Overflow(1))
        for entry in entries:
            ledger.opened(entry, 0.0)
        join(ledger)
        assert len(ledger.entries) == 2 and not ledger.opening

    def test_what_is_to_be_kept_idle_is_not_retired(self) -> None:
        ledger, entries = kept(4, min_idle=2, freshness=Freshness(lifetime_jitter=0.0, max_idle=5))
        for entry in entries:
            ledger.opened(entry, 0.0)
        orders = ledger.tick(6.0)
        assert not orders.close and not orders.open and ledger.due == 11.0

    def test_a_closed_pool_opens_nothing(self) -> None:
        ledger, (entry,) = kept(2, min_size=1)
        ledger.close(1.0)
        orders = ledger.opened(entry, 2.0)
        assert orders.close == [entry] and not orders.open
        assert not ledger.closed_one(entry, 3.0).open and not ledger.entries


class TestKeepingAlive:
    def test_those_silent_for_keepalive_are_asked_two_at_a_time_the_coldest_first(self) -> None:
        ledger, entries = kept_idle(4, keepalive=10)
        warm = ledger.take(5.0)
        assert warm is not None and ledger.give(warm, 5.0)
        assert ledger.due == 10.0 and not ledger.tick(9.9).ask
        orders = ledger.tick(10.0)
        assert orders.ask == entries[:2] and ledger.counts() == Counts(4, 2, 2, 0, 0, 0)
        assert ledger.asked(entries[0], 10.5, alive=True).ask == entries[2:3]
        assert not ledger.asked(entries[1], 10.5, alive=True).ask

    def test_an_answer_is_no_use_the_connection_keeps_its_place(self) -> None:
        ledger, (cold, warm) = kept_idle(2, keepalive=10, max_idle=25)
        assert ledger.take(1.0) is warm and ledger.give(warm, 1.0)
        ledger.tick(10.0)
        ledger.asked(cold, 10.0, alive=True)
        assert list(ledger.idle) == [cold, warm] and cold.last_used == 0.0 and cold.uses == 0

    def test_one_that_answered_is_asked_again_only_after_as_long(self) -> None:
        ledger, (entry,) = kept_idle(1, keepalive=10)
        ledger.asked(*ledger.tick(10.0).ask, 12.0, alive=True)
        assert ledger.due == 22.0 and ledger.tick(22.0).ask == [entry]

    def test_one_found_dead_takes_the_silent_rest_with_it(self) -> None:
        ledger, entries = kept_idle(3, keepalive=10, ping_after=5)
        dead, other = ledger.tick(10.0).ask
        assert set(ledger.asked(dead, 11.0, alive=False).close) == {dead, entries[2]}
        assert other.state is LEASED and ledger.dead_count == 1

    def test_whoever_comes_first_gets_it_the_keeper_asks_what_is_left(self) -> None:
        ledger, (entry,) = kept_idle(1, keepalive=10, ping_after=5)
        ticket = Ticket()
        assert not ledger.join(ticket, 10.0).ask and ticket.entry is entry

    def test_one_that_is_asked_after_while_the_pool_closes_is_closed_when_it_answers(self) -> None:
        ledger, (entry,) = kept_idle(1, keepalive=10)
        ledger.tick(10.0)
        assert not ledger.close(11.0).close
        assert ledger.asked(entry, 12.0, alive=True).close == [entry]


class TestDue:
    def test_a_pool_without_connections_is_never_due(self) -> None:
        ledger, (entry,) = kept(2, min_size=1)
        assert ledger.due == math.inf
        ledger.opened(entry, 0.0)
        assert ledger.due == 300.0
        ledger.close(1.0)
        ledger.closed_one(entry, 1.0)
        ledger.tick(300.0)
        assert ledger.due == math.inf

    def test_it_is_the_first_of_all_limits(self) -> None:
        for limit in ("max_idle", "max_lifetime", "keepalive"):
            ledger, _ = kept_idle(1, **{limit: 7.0})
            assert ledger.due == 7.0


class TestAllOfThem:
    def test_recycle_within_a_time_ends_each_at_a_moment_of_it_lent_and_opening_ones_too(self) -> None:
        draws = iter((0.0, 0.2, 0.4, 0.6, 0.8))
        ledger, entries = kept_idle(2)
        ledger.draw = lambda: next(draws)
        lent = ledger.take(1.0)
        ledger.recycle(1.0, within=10.0)
        ends = {entry.expires_at for entry in entries}
        assert len(ends) == 2 and ends <= {1.0, 3.0}
        closed = [*ledger.tick(1.0).close, *ledger.tick(3.0).close]
        assert lent not in closed
        assert lent is not None and not ledger.give(lent, 3.0) and ledger.checkin(lent, 3.0).close == [lent]

    def test_a_connect_under_way_at_a_recycle_within_a_time_ends_in_that_time_too(self) -> None:
        ledger, (entry,) = kept(1, min_size=1)
        ledger.draw = lambda: 0.5
        ledger.recycle(0.0, within=10.0)
        ledger.opened(entry, 1.0)
        assert entry.expires_at == 5.0 and ledger.due == 5.0

    def test_recycle_closes_idle_ones_now_and_lent_ones_on_their_return(self) -> None:
        ledger, (lent, idle) = full()
        give(ledger, idle)
        assert ledger.recycle(1.0).close == [idle]
        assert not ledger.give(lent, 2.0) and ledger.checkin(lent, 2.0).close == [lent]

    def test_a_connect_that_recycle_overtook_is_closed_and_its_borrower_keeps_his_place(self) -> None:
        ledger = ledger_of(2, max_connecting=1)
        first, second = join(ledger), join(ledger)
        ledger.recycle(1.0)
        entry = first.entry
        assert entry is not None
        assert ledger.opened(entry, 2.0, first).close == [entry]
        assert first.step is Step.OPEN and second.step is Step.WAIT

    def test_a_late_connect_that_recycle_overtook_is_closed(self) -> None:
        ledger = ledger_of()
        entry = join(ledger).entry
        ledger.recycle(1.0)
        assert entry is not None
        assert ledger.opened(entry, 9.0).close == [entry]

    def test_clear_closes_what_is_idle_and_what_is_lent_stays_good(self) -> None:
        ledger, (lent, idle) = full()
        give(ledger, idle)
        assert ledger.clear(1.0).close == [idle] and ledger.give(lent, 2.0)

    def test_close_refuses_whoever_waits_and_whoever_comes(self) -> None:
        ledger, _ = full()
        waiter = join(ledger)
        assert ledger.close(1.0).wake == [waiter] and waiter.refusal is Refusal.CLOSED
        assert join(ledger).refusal is Refusal.CLOSED

    def test_a_closed_pool_is_empty_when_all_came_back(self) -> None:
        ledger, (lent, idle) = full()
        give(ledger, idle)
        gone = [*ledger.close(1.0).close, *ledger.checkin(lent, 2.0).close]
        for entry in gone:
            ledger.closed_one(entry, 3.0)
        assert set(gone) == {lent, idle} and not ledger.entries and ledger.closures == 2

    def test_after_close_a_dead_connection_or_a_failed_connect_ends_the_wait(self) -> None:
        ledger, (entry, _) = full(2)
        waiter = join(ledger)
        ledger.checkin(entry, 1.0)
        ledger.close(1.0)
        ledger.dead(entry, 1.0, waiter)
        assert waiter.refusal is Refusal.CLOSED
        ledger = ledger_of()
        opening = join(ledger)
        ledger.close(1.0)
        assert opening.entry is not None
        ledger.failed(opening.entry, 1.0, ERROR, opening)
        assert opening.refusal is Refusal.CLOSED


class TestBudget:
    class Never:
        """Another pool has all permits, and waits."""

        rivals = ("another pool",)

        def take(self, ledger: Ledger, now: float) -> bool:
            return False

        def free(self, ledger: Ledger) -> None:
            self.freed = True

        def wanted(self, ledger: Ledger, since: float, now: float) -> bool:
            return since > 5.0

    def test_without_a_permit_nothing_is_opened(self) -> None:
        ledger = Ledger(Rules(), permits=self.Never())
        assert join(ledger).step is Step.WAIT

    def test_what_another_pool_has_waited_for_longer_is_closed_and_its_permit_freed(self) -> None:
        ledger, (early, late) = full()
        ledger.permits = permits = self.Never()
        waiter = join(ledger, 4.0)
        assert not ledger.checkin(early, 6.0).close and waiter.entry is early
        join(ledger, 7.0)
        assert ledger.checkin(late, 8.0).close == [late]
        ledger.closed_one(late, 8.0)
        assert permits.freed


class TestNumbers:
    def test_counts_say_where_everything_is(self) -> None:
        ledger, entries = full(5, max_connecting=1)
        give(ledger, entries[0])
        ledger.clear(0.0)
        ledger.closed_one(entries[0], 0.0)
        ledger.checkin(entries[1], 0.0, reusable=False)
        join(ledger)
        join(ledger)
        assert ledger.counts() == Counts(max_size=5, idle=0, in_use=3, opening=1, closing=1, waiting=1)
        assert ledger.counts().total == len(ledger.entries) == 5

    def test_a_checkout_counts_once_however_many_dead_ones_it_met(self) -> None:
        ledger, (entry, _) = full()
        give(ledger, entry)
        assert ledger.take(1.0) is entry
        ticket = Ticket()
        ticket.arrival, ticket.since = ledger.arrivals - 1, 1.0
        ledger.dead(entry, 2.0, ticket)
        ledger.closed_one(entry, 3.0)
        assert ticket.entry is not None
        ledger.opened(ticket.entry, 4.0, ticket)
        assert ledger.checkouts == 3 and ledger.dead_count == 1

    def test_only_those_who_waited_are_in_the_wait_times_and_once_each(self) -> None:
        ledger, (entry, other) = full()
        ticket = join(ledger, 0.0)
        ledger.checkin(entry, 2.0)
        ledger.dead(entry, 2.0, ticket)
        ledger.checkin(other, 3.0)
        assert ticket.entry is other
        assert ledger.wait_times.summary().count == 1 and ledger.wait_times.total == 3.0

    def test_uses_and_connects_are_timed(self) -> None:
        ledger = ledger_of()
        ticket = join(ledger, 1.0)
        assert ticket.entry is not None
        ledger.opened(ticket.entry, 1.5, ticket)
        ledger.give(ticket.entry, 4.5)
        assert (ledger.connect_times.total, ledger.use_times.total) == (0.5, 3.0)

    def test_orders_of_one_event_are_added_to_those_of_another(self) -> None:
        ledger, (entry,) = kept(1, min_size=1)
        waiter, orders = join(ledger), ledger.tick(0.0)
        orders.add(ledger.failed(entry, 1.0, ERROR))
        orders.add(ledger.tick(2.0))
        (entry,) = orders.open
        orders.add(ledger.opened(entry, 2.0))
        orders.add(ledger.tick(302.0))
        orders.add(ledger.clear(302.0))
        assert orders.wake == [waiter] and orders.close == [entry] and not orders.ask

    def test_a_ticket_shows_arrival_and_step(self) -> None:
        assert repr(join(ledger_of())) == "<Ticket 0 open>"


class TestOutOfReach:
    """One server, of which several pools know; each of them has connected once and lost what it had."""

    @staticmethod
    def pools(*sizes: int, grace: float = 2.0) -> list[Ledger]:
        server = Outage()
        made = []
        for size in sizes:
            rules = Rules(size, freshness=Freshness(), backoff=Backoff(1.0, 8.0, kind="exp"), grace=grace)
            ledger = Ledger(rules, server=server, draw=lambda: 0.0)
            entry = borrow(ledger)
            ledger.checkin(entry, 0.0, reusable=False)
            ledger.closed_one(entry, 0.0)
            made.append(ledger)
        return made

    @staticmethod
    def fail(ledger: Ledger, now: float, **more: Any) -> Ticket:
        ticket = join(ledger, now)
        assert ticket.step is Step.OPEN and ticket.entry is not None
        ledger.failed(ticket.entry, now, ERROR, ticket, **more)
        return ticket

    def test_what_one_pool_found_out_holds_back_the_others(self) -> None:
        one, other = self.pools(2, 2)
        self.fail(one, 10.0)
        assert join(other, 10.5).step is Step.WAIT and other.reach.next_at(10.5) == 11.0

    def test_one_of_them_tries_in_each_step(self) -> None:
        one, other = self.pools(2, 2)
        waits = self.fail(one, 10.0)
        second = join(other, 10.5)
        other.tick(11.0)
        one.tick(11.0)
        assert (second.step, waits.step) == (Step.OPEN, Step.WAIT) and one.reach.next_at(11.0) == 12.0

    def test_what_one_pool_reached_lets_the_others_in_on_the_ramp(self) -> None:
        one, other = self.pools(2, 9)
        waits = self.fail(one, 10.0)
        one.tick(11.0)
        assert waits.entry is not None
        one.opened(waits.entry, 11.5, waits)
        for _ in range(9):
            ticket = join(other, 11.5)
            if ticket.step is Step.OPEN and ticket.entry is not None:
                other.opened(ticket.entry, 11.5, ticket)
        begun = []
        for hundredth in range(100):
            now = 11.5 + hundredth / 100
            other.tick(now)
            for entry in [entry for entry in other.entries if entry.state is OPENING]:
                begun.append(now)
                other.opened(entry, now)
        assert other.opened_count - 1 == 4  # the first at once, and one at its own birth

    def test_a_no_is_nobody_elses_business(self) -> None:
        one, other = self.pools(2, 2)
        self.fail(one, 10.0, answered=True)
        assert one.reach.next_at(10.0) == 11.0 and join(other, 10.0).step is Step.OPEN

    def test_a_pool_that_has_never_connected_is_not_held_back_and_says_at_once_why(self) -> None:
        (one,) = self.pools(2)
        self.fail(one, 10.0)
        newcomer = Ledger(Rules(2, backoff=Backoff(1.0, 8.0), grace=2.0), server=one.reach.server, draw=lambda: 0.0)
        for now in (10.1, 10.2):
            ticket = self.fail(newcomer, now)
            assert ticket.refusal is Refusal.CONNECT_FAILED and ticket.cause is ERROR

    def test_after_its_grace_a_pool_that_has_never_connected_is_held_back_like_any_other(self) -> None:
        newcomer = Ledger(Rules(2, backoff=Backoff(1.0, 8.0, "exp"), grace=2.0), server=Outage(), draw=lambda: 0.0)
        self.fail(newcomer, 10.0)
        assert self.fail(newcomer, 12.0).refusal is Refusal.UNAVAILABLE
        assert join(newcomer, 12.1).refusal is Refusal.UNAVAILABLE

    def test_who_waits_behind_a_connect_that_hangs_wakes_when_the_grace_is_over(self) -> None:
        (ledger,) = self.pools(2, grace=4.0)
        ledger.rules = dataclasses.replace(ledger.rules, max_connecting=1)
        self.fail(ledger, 10.0)
        ledger.tick(11.0)
        second = join(ledger, 12.5)
        assert ledger.opening == 1 and ledger.reach.next_at(12.5) == 12.0  # but for the one under way another might
        assert second.step is Step.WAIT and second.wake_at == 14.0

    def test_whoever_waits_is_refused_when_the_grace_is_over(self) -> None:
        (ledger,) = self.pools(2)
        first, second = self.fail(ledger, 10.0), join(ledger, 10.1)
        assert first.wake_at == 11.0
        ledger.tick(11.0)
        assert first.step is Step.OPEN and first.entry is not None
        ledger.failed(first.entry, 11.0, ERROR, first)
        assert first.wake_at == 12.0  # not 13.0, when the next connect may start
        ledger.tick(11.999)
        assert second.step is Step.WAIT
        ledger.tick(12.0)
        assert {first.refusal, second.refusal} == {Refusal.UNAVAILABLE} and second.cause is ERROR

    def test_as_long_as_one_is_connected_everybody_waits_for_it(self) -> None:
        (ledger,) = self.pools(2)
        entry = borrow(ledger, 5.0)
        self.fail(ledger, 10.0)
        waits = join(ledger, 50.0)
        assert not ledger.unavailable(50.0) and waits.refusal is None
        ledger.checkin(entry, 51.0)
        assert waits.entry is entry or not ledger.line
