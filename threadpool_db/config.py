"""What can be set, and is it sane? PoolConfig: every option, its default and its check, in one place.

An option is accepted when it does something: the rest of the design's table is known here too, and refused by name, so
that no setting is ever a silent no-op.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from threadpool_db.core.alarm import Alarms
from threadpool_db.core.backoff import Backoff
from threadpool_db.core.freshness import Freshness
from threadpool_db.core.holding import Holding
from threadpool_db.core.overload import Shed
from threadpool_db.core.rules import Rules
from threadpool_db.core.sizing import Elastic, Sizing

if TYPE_CHECKING:
    from threadpool_db.budget import Budget
    from threadpool_db.hooks import Hook
    from threadpool_db.observe import AlarmHook, Observer
    from threadpool_db.waiting import Clock

#: In the design, not in this version.
NOT_YET = frozenset(["stats_dir"])

ISOLATION_LEVELS = ("read uncommitted", "read committed", "repeatable read", "serializable")
#: What a session that is meant to be read-only answers to a write: no sign that the server has changed its mind.
_ITS_OWN_DOING = ("25006", 1792)

#: What would have to hold for a session, and behind ``server_pooler`` there is none: option -> the remedy.
_FOR_A_SESSION = {
    "isolation": "begin with SET TRANSACTION inside transaction(), or set it for the role or the server",
    "read_only": "begin with SET TRANSACTION inside transaction(), or set it for the role or the server",
    "init_sql": "use SET LOCAL inside transaction(), or set it for the role or the server",
}

#: What a sizing must be able to do.
_SIZING = ("may_open", "begin", "opens", "one_too_many", "quiet_below", "base", "smallest", "look")

#: What other pools call it.
_ELSEWHERE = {"pool_size": "max_size", "pool_recycle": "max_lifetime"}

#: option -> (lowest, highest, may be None, must be whole).
NUMBERS: dict[str, tuple[float, float, bool, bool]] = {
    "min_size": (0, math.inf, False, True),
    "max_size": (1, math.inf, False, True),
    "min_idle": (0, math.inf, False, True),
    "timeout": (0, math.inf, False, False),
    "max_waiting": (0, math.inf, True, True),
    "peek_after": (0, math.inf, False, False),
    "ping_after": (0, math.inf, False, False),
    "check_timeout": (0.001, math.inf, False, False),
    "connect_timeout": (0.001, math.inf, False, False),
    "max_connecting": (1, math.inf, False, True),
    "max_lifetime": (0.001, math.inf, True, False),
    "lifetime_jitter": (0, 1, False, False),
    "max_idle": (0.001, math.inf, True, False),
    "max_uses": (1, math.inf, True, True),
    "grace": (0, math.inf, False, False),
    "keepalive": (0.001, math.inf, True, False),
    "max_lease": (0.001, math.inf, True, False),
    "leak_after": (0.001, math.inf, True, False),
    "inactive_after": (0.001, math.inf, True, False),
}


@dataclass(frozen=True)
class PoolConfig:
    """The options of a pool; the reference in ``docs`` tells their meaning. Seconds are floats, None is "no limit"."""

    checkout: str = "operation"
    min_size: int = 0
    max_size: float = 10
    min_idle: int = 0
    timeout: float = 10.0
    max_waiting: float | None = None
    peek_after: float = 0.0
    ping_after: float = 30.0
    check_timeout: float = 2.0
    connect_timeout: float = 5.0
    max_connecting: float = 2
    backoff: Backoff | None = Backoff()
    grace: float = 1.0
    configure: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    max_lifetime: float | None = 1800.0
    lifetime_jitter: float = 0.1
    max_idle: float | None = 300.0
    max_uses: float | None = None
    keepalive: float | None = None
    max_lease: float | None = None
    leak_after: float | None = None
    inactive_after: float | None = None
    background: bool = True
    reset: str = "auto"
    autocommit: bool | None = None
    isolation: str | None = None
    read_only: bool | None = None
    init_sql: str | Iterable[str] = dataclasses.field(default=(), repr=False)  # there may be a secret in it
    disconnect_on: Iterable[str | int] | None = None
    server_pooler: bool = False
    shed: Shed | None = None
    sizing: Sizing = Elastic()
    on_connect: Hook | None = None
    on_checkout: Hook | None = None
    on_checkin: Hook | None = None
    on_close: Hook | None = None
    observers: Iterable[Observer] = ()
    on_alarm: AlarmHook | None = None
    on_clear: AlarmHook | None = None
    alarms: Alarms = Alarms()
    name: str | None = None
    clock: Clock | None = None
    budget: Budget | None = None

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> PoolConfig:
        """Check the names, then the values. TypeError for an unknown name, ValueError for an impossible value."""
        check_names(options)
        return cls(**options)

    def __post_init__(self) -> None:
        for name, (low, high, optional, whole) in NUMBERS.items():
            value = getattr(self, name)
            if value is None and optional:
                continue
            numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not numeric or not low <= value <= high or (whole and value != math.inf and value != int(value)):
                kind = "a whole number" if whole else "a number"
                limit = f" from {low:g}" + (f" to {high:g}" if high < math.inf else " on (inf for no limit)")
                raise ValueError(f"{name}={value!r}: must be {kind}{limit}{' or None' if optional else ''}")
        self._one_of("checkout", ("operation", "thread"))
        self._one_of("autocommit", (None, True, False))
        self._one_of("background", (True, False))
        self._one_of("reset", ("auto", "always", "never"))
        self._one_of("read_only", (None, True, False))
        self._check_session()
        self._one_of("server_pooler", (True, False))
        if self.server_pooler:
            self._refuse_what_needs_a_session()
        if self.backoff is not None and not isinstance(self.backoff, Backoff):
            raise ValueError(f"backoff={self.backoff!r}: must be a Backoff(shortest, longest), or None for no retry")
        if self.shed is not None and (isinstance(self.shed, type) or not callable(getattr(self.shed, "begin", None))):
            raise ValueError(
                f"shed={self.shed!r}: must be CoDel(target, interval), anything else with begin(), or None"
            )
        for method in _SIZING:
            if isinstance(self.sizing, type) or not callable(getattr(self.sizing, method, None)):
                raise ValueError(f"sizing={self.sizing!r}: must be a Sizing such as Elastic(), it has no {method}()")
        room = min(self.max_size, self.sizing.base(self.max_size))
        for name in ("min_size", "min_idle"):
            value = getattr(self, name)
            if value > room:
                raise ValueError(f"{name}={value!r}: must be at most {room:g}, what max_size and sizing let stay open")
            if value and not self.background:
                raise ValueError(f"{name}={value!r}: needs background=True, somebody who connects without being asked")
        for name in ("keepalive", "max_lease", "leak_after", "inactive_after"):
            value = getattr(self, name)
            if value is not None and not self.background:
                raise ValueError(f"{name}={value!r}: needs background=True, somebody who looks without a borrower")
        if self.configure is not None and not callable(self.configure):
            raise ValueError(f"configure={self.configure!r}: must be a callable that takes and returns a dict")
        for name in ("on_connect", "on_checkout", "on_checkin", "on_close"):
            hook = getattr(self, name)
            if hook is not None and not callable(hook):
                raise ValueError(f"{name}={hook!r}: must be a callable that takes a connection, or None")
        if isinstance(self.observers, str) or not isinstance(self.observers, Iterable):
            raise ValueError(f"observers={self.observers!r}: must be a list of callables")
        object.__setattr__(self, "observers", tuple(self.observers))
        for observer in self.observers:
            if not callable(observer):
                raise ValueError(f"observers: {observer!r} is not callable")
        for name in ("on_alarm", "on_clear"):
            hook = getattr(self, name)
            if hook is not None and not callable(hook):
                raise ValueError(f"{name}={hook!r}: must be a callable that takes an Alarm, or None")
            if hook is not None and not self.background:
                raise ValueError(f"{name}={hook!r}: needs background=True, somebody who looks without a borrower")
        if not isinstance(self.alarms, Alarms):
            raise ValueError(f"alarms={self.alarms!r}: must be Alarms(target, interval)")
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise ValueError(f"name={self.name!r}: must be a non-empty string")
        if self.clock is not None and not callable(getattr(self.clock, "gate", None)):
            raise ValueError(f"clock={self.clock!r}: must be a Clock")
        if self.budget is not None and not callable(getattr(self.budget, "afford", None)):  # text can join
            raise ValueError(f"budget={self.budget!r}: must be a Budget(limit), or None")

    def _one_of(self, name: str, choices: tuple[object, ...]) -> None:
        value = getattr(self, name)
        if not any(value is choice or (isinstance(choice, str) and value == choice) for choice in choices):
            raise ValueError(f"{name}={value!r}: must be one of {', '.join(map(repr, choices))}")

    def _check_session(self) -> None:
        """What a session is told once. Brought into one form: tuples, and the levels as the standard writes them."""
        if self.isolation is not None:
            level = " ".join(re.split(r"[\s_-]+", self.isolation.lower())) if isinstance(self.isolation, str) else ""
            if level not in ISOLATION_LEVELS:
                choices = ", ".join(map(repr, ISOLATION_LEVELS))
                raise ValueError(f"isolation={self.isolation!r}: must be None or one of {choices}")
            object.__setattr__(self, "isolation", level)
        statements = _several(self.init_sql, str)
        if not all(isinstance(statement, str) and statement.strip() for statement in statements):
            raise ValueError(
                "init_sql: must be one statement as text, or several of them in a tuple; none may be empty"
            )
        object.__setattr__(self, "init_sql", statements)
        if self.disconnect_on is None:
            return
        codes = _several(self.disconnect_on, (str, int))
        for code in codes:
            fits = re.fullmatch("[0-9A-Z]{5}", code) if isinstance(code, str) else _is_whole(code) and code > 0
            if not fits:
                raise ValueError(
                    f"disconnect_on: {code!r} is no code of an error; it must be an SQLSTATE as text, '25006', or a "
                    "number of the database's own, 1290"
                )
            if self.read_only is True and code in _ITS_OWN_DOING:
                raise ValueError(
                    f"disconnect_on: {code!r} is what read_only=True itself answers to a write; leave one of them out"
                )
        object.__setattr__(self, "disconnect_on", codes)

    def _refuse_what_needs_a_session(self) -> None:
        for name, remedy in _FOR_A_SESSION.items():
            value = getattr(self, name, None)
            if value or value is False:
                shown = "..." if name == "init_sql" else repr(value)  # SQL may hold a secret
                raise ValueError(
                    f"{name}={shown}: not with server_pooler=True; behind a transaction-mode pooler nothing can be set "
                    f"once for a connection, for each transaction may run in another session; {remedy}"
                )
        if getattr(self, "reset", None) == "always":
            raise ValueError("reset='always': not with server_pooler=True, where it would wipe a session of others")

    def named(self, name: str) -> PoolConfig:
        """The same for another pool, not checked again nor worked out: for hundreds of pools that come and go."""
        other = object.__new__(PoolConfig)
        vars(other).update(vars(self), name=name, _rules=self._rules)
        return other

    def rules(self) -> Rules:
        """The part of the options that the ledger decides by."""
        return self._rules

    @functools.cached_property
    def _rules(self) -> Rules:
        return Rules(
            max_size=self.max_size,
            min_size=int(self.min_size),
            min_idle=int(self.min_idle),
            background=self.background,
            max_connecting=self.max_connecting,
            backoff=self.backoff,
            grace=math.inf if self.backoff is None else self.grace,
            freshness=Freshness(
                ping_after=self.ping_after,
                max_lifetime=_or_inf(self.max_lifetime),
                lifetime_jitter=self.lifetime_jitter,
                max_idle=_or_inf(self.max_idle),
                max_uses=_or_inf(self.max_uses),
                keepalive=_or_inf(self.keepalive),
            ),
            holding=Holding(_or_inf(self.max_lease), _or_inf(self.leak_after), _or_inf(self.inactive_after)),
            short_ways=self.on_checkout is None,
        )


def check_names(options: Iterable[str]) -> None:
    """TypeError for a name that is no option's, with the nearest that is."""
    known = {field.name for field in dataclasses.fields(PoolConfig)}
    for name in options:
        if name in NOT_YET:
            raise TypeError(f"option {name!r} is not available in this version of threadpool_db; leave it out")
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near!r}?" if near else f"the options are {', '.join(sorted(known))}"
            raise TypeError(f"unknown option {name!r}; {hint}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """What was meant by a name that is none of these, if it is like one of them."""
    near = [_ELSEWHERE[name]] if name in _ELSEWHERE else difflib.get_close_matches(name, known, 1, 0.5)
    return next(iter(near or [k for k in sorted(known) if k in name or name in k]), None)


def check_timeout(seconds: float) -> None:
    """A borrowing method's own ``timeout``, where it is not None."""
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not seconds >= 0:
        raise ValueError(
            f"timeout={seconds!r}: must be seconds from 0 on, inf to wait for ever, or None for the pool's"
        )


def _several(value: Any, one: type | tuple[type, ...]) -> tuple[Any, ...]:
    """One of them, or any number of them."""
    return (value,) if isinstance(value, one) or not isinstance(value, Iterable) else tuple(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value
