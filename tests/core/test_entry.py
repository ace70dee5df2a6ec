"""What does the pool know of one connection, and which states may follow which?"""

from __future__ import annotations

import pytest

from threadpool_db.core.entry import CLOSING, GONE, IDLE, LEASED, OPENING, TRANSITIONS, Entry, Reported, State


def test_a_slot_begins_being_opened_without_connection_or_holder() -> None:
    entry = Entry(now=5.0, generation=3)
    assert entry.state is OPENING and entry.connection is None and entry.holder is None
    assert entry.opened_at == entry.taken_at == entry.last_used == entry.asked_at == 5.0
    assert entry.generation == 3 and entry.expires_at == float("inf") and entry.uses == 0


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_a_state_changes_only_as_the_table_says(before: State, after: State) -> None:
    entry = Entry(0.0, 0)
    entry.state = before
    if after in TRANSITIONS[before]:
        entry.become(after)
        assert entry.state is after
    else:
        with pytest.raises(AssertionError, match=f"from {before.value} to {after.value}"):
            entry.become(after)
        assert entry.state is before


def test_whatever_is_gone_stays_gone() -> None:
    assert TRANSITIONS[GONE] == frozenset()


def test_what_is_being_closed_cannot_come_back() -> None:
    assert TRANSITIONS[CLOSING] == {GONE}


def test_every_state_can_be_reached_and_left() -> None:
    reached = {state for ways in TRANSITIONS.values() for state in ways}
    assert reached == {IDLE, LEASED, CLOSING, GONE} and set(TRANSITIONS) == set(State)


def test_its_repr_names_state_and_kind_of_connection_but_no_secret() -> None:
    entry = Entry(0.0, 0)
    entry.connection = "postgresql://app:secret@db"
    assert "opening str" in repr(entry) and "secret" not in repr(entry)


def test_one_that_was_reported_is_of_no_generation_until_its_use_ends() -> None:
    entry = Entry(0.0, 3)
    entry.announce(since=5.0)
    assert isinstance(entry, Reported) and entry.reported_use == 5.0
    assert entry.generation not in range(1000) and entry.generation >= 0  # its thread may go on using it
    entry.close_report()
    assert type(entry) is Entry and entry.generation == 3


def test_what_is_written_into_one_that_was_reported_stays_written() -> None:
    entry = Entry(0.0, 3)
    entry.announce(since=5.0)
    assert isinstance(entry, Reported)
    entry.generation = -1
    assert entry.generation == -1
    entry.close_report()
    assert entry.generation == -1
