"""May a connect start, where a server and a budget have a say in it? All else about opening is in the walk."""

from __future__ import annotations

import math
from typing import Any

import pytest

from threadpool_db.core.ledger import Ledger
from threadpool_db.core.line import Step, Ticket
from threadpool_db.core.rules import Rules


class Says:
    """A server and a budget in one, that answer as they are told and note what they were asked."""

    def __init__(self, *, turn: float = -math.inf, admits: bool = True, permit: bool = True) -> None:
        self.turn, self.answer, self.permit = turn, admits, permit
        self.noted: list[str] = []
        self.rivals = ()

    def next_at(self, now: float) -> float:
        return self.turn

    def admits(self, now: float) -> bool:
        self.noted.append("turn")
        return self.answer

    def connected(self, now: float) -> None: ...

    def failed(self, started: float, now: float, delay: float) -> None: ...

    def take(self, pool: object, now: float) -> bool:
        self.noted.append("permit")
        return self.permit

    def free(self, pool: object) -> None:
        self.noted.append("permit back")

    def wanted(self, pool: object, since: float, now: float) -> bool:
        return False


def asked_by(says: Says, **rules: Any) -> tuple[Ledger, Ticket]:
    """Of a pool that has connected once, at 10.0, by one who waits."""
    ledger = Ledger(Rules(**rules), permits=says, server=says)
    ledger.reach.succeeded(0.0)
    ticket = Ticket(object())
    ledger.join(ticket, 10.0)
    return ledger, ticket


def test_who_has_both_begins_and_the_servers_turn_is_taken_last() -> None:
    _, ticket = asked_by(says := Says())
    assert ticket.step is Step.OPEN and says.noted == ["permit", "turn"]


def test_without_a_permit_no_turn_is_used() -> None:
    ledger, ticket = asked_by(says := Says(permit=False))
    assert ticket.step is Step.WAIT and says.noted == ["permit"] and not ledger.entries


def test_who_finds_that_another_pool_was_faster_gives_his_permit_back_and_looks_again_at_once() -> None:
    ledger, ticket = asked_by(says := Says(admits=False))
    assert ticket.step is Step.WAIT and says.noted == ["permit", "turn", "permit back"]
    assert ledger.due == 10.0


@pytest.mark.parametrize("background", [False, True])
def test_who_comes_before_the_servers_next_turn_asks_for_nothing_and_looks_again_then(background: bool) -> None:
    ledger, ticket = asked_by(says := Says(turn=12.5), background=background)
    assert ticket.step is Step.WAIT and not says.noted and ledger.due == 12.5


def test_in_a_pause_nobody_is_asked() -> None:
    ledger, _ = asked_by(says := Says(permit=False))
    says.noted.clear()
    ledger.pause(11.0)
    assert not says.noted
