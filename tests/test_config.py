"""Is every option checked, in one place, with a message that says what would be right?"""

from __future__ import annotations

import dataclasses
import math

import pytest

from threadpool_db import Backoff, Elastic, Fixed, Overflow, Pool, PoolConfig
from threadpool_db.config import NOT_YET
from threadpool_db.testing import FakeClock, ScriptedDriver
from threadpool_db.waiting import Clock

NUMBERS = [
    field.name
    for field in dataclasses.fields(PoolConfig)
    if field.type in ("int", "float", "float | None") and field.name != "clock"
]
WHOLE = ("max_size", "max_waiting", "max_connecting", "max_uses")
MAY_BE_NONE = (
    "max_waiting",
    "max_lifetime",
    "max_idle",
    "max_uses",
    "keepalive",
    "max_lease",
    "leak_after",
    "inactive_after",
)
MAY_BE_ZERO = ("min_size", "min_idle", "timeout", "max_waiting", "peek_after", "ping_after", "lifetime_jitter", "grace")


def test_the_defaults_are_those_of_the_design():
    config = PoolConfig()
    assert dataclasses.asdict(config) | {"backoff": None, "sizing": None} == {
        "checkout": "operation",
        "min_size": 0,
        "max_size": 10,
        "min_idle": 0,
        "timeout": 10.0,
        "max_waiting": None,
        "peek_after": 0.0,
        "ping_after": 30.0,
        "check_timeout": 2.0,
        "connect_timeout": 5.0,
        "max_connecting": 2,
        "backoff": None,
        "grace": 1.0,
        "configure": None,
        "max_lifetime": 1800.0,
        "lifetime_jitter": 0.1,
        "max_idle": 300.0,
        "max_uses": None,
        "keepalive": None,
        "max_lease": None,
        "leak_after": None,
        "inactive_after": None,
        "background": True,
        "reset": "auto",
        "autocommit": None,
        "isolation": None,
        "read_only": None,
        "init_sql": (),
        "disconnect_on": None,
        "server_pooler": False,
        "shed": None,
        "sizing": None,
        "on_connect": None,
        "on_checkout": None,
        "on_checkin": None,
        "on_close": None,
        "observers": (),
        "on_alarm": None,
        "on_clear": None,
        "alarms": {"target": 0.5, "interval": 5.0},
        "name": None,
        "clock": None,
        "budget": None,
    }
    assert config.backoff == Backoff(0.1, 2.0)
    assert isinstance(config.sizing, Elastic)


def test_options_cannot_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PoolConfig().max_size = 5


def test_every_number_of_the_options_is_known_here():
    assert len(NUMBERS) == 19


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, math.nan, "5", True, b"1", [1]], ids=repr)
def test_an_impossible_number_is_refused_with_option_value_and_range(name, value):
    with pytest.raises(ValueError) as caught:
        PoolConfig.from_options({name: value})
    message = str(caught.value)
    assert message.startswith(f"{name}={value!r}: must be a")
    assert " from 0" in message or " from 1" in message
    assert ("or None" in message) is (name in MAY_BE_NONE)


@pytest.mark.parametrize("name", NUMBERS)
def test_none_and_zero_are_taken_only_where_they_mean_something(name):
    for value, allowed in ((None, MAY_BE_NONE), (0, MAY_BE_ZERO)):
        if name in allowed:
            assert getattr(PoolConfig(**{name: value}), name) == value
        else:
            with pytest.raises(ValueError, match=f"{name}={value!r}"):
                PoolConfig(**{name: value})


@pytest.mark.parametrize("name", [name for name in NUMBERS if name not in ("lifetime_jitter", "min_size", "min_idle")])
def test_infinity_means_no_limit(name):
    assert getattr(PoolConfig(**{name: math.inf}), name) == math.inf


@pytest.mark.parametrize("name", WHOLE)
def test_half_a_connection_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}=2.5: must be a whole number from"):
        PoolConfig(**{name: 2.5})
    assert getattr(PoolConfig(**{name: 2.0}), name) == 2


def test_a_jitter_of_more_than_the_whole_lifetime_is_refused():
    with pytest.raises(ValueError, match=r"lifetime_jitter=1.5: must be a number from 0 to 1"):
        PoolConfig(lifetime_jitter=1.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"checkout": "thred"}, "checkout='thred': must be one of 'operation', 'thread'"),
        ({"checkout": None}, "checkout=None"),
        ({"autocommit": 1}, "autocommit=1: must be one of None, True, False"),
        ({"autocommit": "yes"}, "autocommit='yes'"),
        ({"backoff": 2.0}, r"backoff=2.0: must be a Backoff\(shortest, longest\), or None for no retry"),
        ({"sizing": 5}, r"sizing=5: must be a Sizing such as Elastic\(\), it has no may_open\(\)"),
        ({"sizing": "fixed"}, "sizing='fixed'"),
        ({"configure": {}}, "configure={}: must be a callable"),
        ({"on_connect": "set x = 1"}, "on_connect='set x = 1': must be a callable that takes a connection, or None"),
        ({"on_checkout": 5}, "on_checkout=5: must be a callable"),
        ({"on_checkin": [print]}, "on_checkin=.*: must be a callable"),
        ({"on_close": True}, "on_close=True: must be a callable"),
        ({"observers": "print"}, "observers='print': must be a list of callables"),
        ({"observers": print}, "observers=.*: must be a list of callables"),
        ({"observers": [print, 5]}, "observers: 5 is not callable"),
        ({"on_alarm": "mail"}, "on_alarm='mail': must be a callable that takes an Alarm, or None"),
        ({"on_clear": 5}, "on_clear=5: must be a callable that takes an Alarm, or None"),
        ({"alarms": 0.5}, r"alarms=0.5: must be Alarms\(target, interval\)"),
        ({"alarms": None}, r"alarms=None: must be Alarms\(target, interval\)"),
        ({"name": ""}, "name='': must be a non-empty string"),
        ({"name": 5}, "name=5: must be a non-empty string"),
        ({"clock": 5}, "clock=5: must be a Clock"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_impossible_choice_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        PoolConfig.from_options(options)


@pytest.mark.parametrize(
    ("option", "suggestion"),
    [
        ("pool_timeout", "timeout"),
        ("pool_size", "max_size"),
        ("maxsize", "max_size"),
        ("max_sise", "max_size"),
        ("max_overflow", "max_"),
        ("time_out", "timeout"),
        ("auto_commit", "autocommit"),
        ("connection_timeout", "connect_timeout"),
        ("idle_timeout", "timeout"),
        ("zzz", "the options are alarms, autocommit, background,"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_name(option, suggestion):
    with pytest.raises(TypeError, match=f"unknown option '{option}'.*{suggestion}"):
        PoolConfig.from_options({option: 1})


@pytest.mark.parametrize("option", sorted(NOT_YET))
def test_an_option_that_does_nothing_yet_is_refused_and_not_ignored(option):
    with pytest.raises(TypeError, match=f"option '{option}' is not available in this version"):
        Pool(ScriptedDriver(), **{option: None})


def test_no_option_is_both_known_and_not_yet():
    assert not NOT_YET & {field.name for field in dataclasses.fields(PoolConfig)}


def test_any_sizing_and_any_clock_will_do_that_has_the_methods():
    for sizing in (Elastic(), Fixed(), Overflow(3)):
        assert PoolConfig(sizing=sizing).sizing is sizing
    for clock in (Clock(), FakeClock()):
        assert PoolConfig(clock=clock).clock is clock


def test_observers_may_be_any_iterable_and_are_kept_as_they_were():
    observers = [print]
    config = PoolConfig(observers=iter(observers))
    observers.clear()
    assert config.observers == (print,)


def test_the_rules_of_the_ledger_are_taken_over():
    rules = PoolConfig(max_size=3, max_connecting=1, max_lifetime=None, max_idle=None, ping_after=7).rules()
    assert (rules.max_size, rules.max_connecting, rules.freshness.ping_after) == (3, 1, 7)
    assert rules.freshness.max_lifetime == rules.freshness.max_idle == rules.freshness.max_uses == math.inf


@pytest.mark.parametrize("name", ["min_size", "min_idle"])
def test_what_is_kept_ready_must_fit_and_needs_somebody_who_keeps_it_ready(name):
    with pytest.raises(ValueError, match=f"{name}=11: must be at most 10"):
        PoolConfig(**{name: 11})
    with pytest.raises(ValueError, match=f"{name}=3: must be at most 2, what max_size and sizing let stay open"):
        PoolConfig(**{name: 3}, max_size=5, sizing=Overflow(3))
    with pytest.raises(ValueError, match=f"{name}=3: needs background=True"):
        PoolConfig(**{name: 3}, background=False)


@pytest.mark.parametrize("name", ["on_alarm", "on_clear"])
def test_whoever_wants_to_hear_of_alarms_needs_somebody_who_looks(name):
    with pytest.raises(ValueError, match=f"{name}=<built-in function print>: needs background=True"):
        PoolConfig(**{name: print}, background=False)


def test_keepalive_needs_somebody_who_asks():
    with pytest.raises(ValueError, match="keepalive=60: needs background=True"):
        PoolConfig(keepalive=60, background=False)


def test_for_another_pool_they_are_the_same_and_its_rules_too():
    config = PoolConfig(max_size=3, name="one")
    other = config.named("other")
    assert other == dataclasses.replace(config, name="other") and config.name == "one"
    assert other.rules() is config.rules()
