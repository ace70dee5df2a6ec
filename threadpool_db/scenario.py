"""What is to be simulated, and does it make sense? A load, a database and the options of a pool.

From a program as ``Scenario(...)``, from a file, or from the command line: the same names everywhere, and the pool's
own are checked by ``PoolConfig`` itself.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from threadpool_db.config import PoolConfig, nearest
from threadpool_db.core.overload import CoDel, Shed
from threadpool_db.core.sizing import Elastic, Fixed, Overflow, Sizing
from threadpool_db.core.sojourn import Sojourn

SPREADS = ("fixed", "exponential", "lognormal")
OF_THE_POOL = ("max_size", "min_size", "max_connecting", "timeout", "max_waiting", "max_idle", "shed", "sizing")

#: name -> (lowest, is the lowest one too low, must be whole).
_NUMBERS: dict[str, tuple[float, bool, bool]] = {
    "rate": (0, False, False),
    "burst": (0, False, True),
    "burst_at": (0, False, False),
    "threads": (0, False, True),
    "think": (0, True, False),  # one who is refused and comes again at the same moment would stop the clock
    "service": (0, True, False),
    "sigma": (0, True, False),
    "connect": (0, False, False),
    "duration": (0, True, False),
    "warm_up": (0, False, False),
    "tenants": (0, False, True),
    "zipf": (0, False, False),
    "per_tenant_max": (1, False, True),
    "servers": (1, False, True),
    "processes": (1, False, True),
}

#: Without tenants they mean nothing.
OF_TENANTS = ("zipf", "budget", "per_tenant_max", "servers")
#: What ``TenantPools`` refuses too -> why.
_NOT_WITH_TENANTS = {"max_size": "it is per_tenant_max", "min_size": "they keep nothing open that they do not use"}

#: ``max_idle`` was not told: a pool's own default, or that of ``TenantPools``.
_USUAL = float("nan")

_T = TypeVar("_T")


class BadScenario(ValueError):
    """It cannot be simulated; says what to change."""


@dataclass(frozen=True)
class Scenario:
    """Who comes: ``rate`` requests a second at random (Poisson), ``burst`` at once at ``burst_at``, and ``threads``
    that think for ``think`` seconds on average (exponential) before each request; any of them, together.

    What they meet: a use takes ``service`` seconds on average, by ``spread`` ``"fixed"``, ``"exponential"`` or
    ``"lognormal"`` (of ``sigma``, the standard deviation of the logarithm); a connect ``connect`` seconds. ``outage``:
    from the first moment to the second connects fail, and what was connected before is dead.

    ``tenants``: each request is for one of so many, the n-th of them as often as ``1 / n ** zipf``. Each has a pool of
    up to ``per_tenant_max``, made at its first use, and all of a process share a ``budget`` of so many connections. The
    n-th is on server n modulo ``servers``. ``processes``: so many have pools of their own; each request comes to one of
    them by chance, and a thread belongs to one.

    ``duration`` seconds are simulated; of the first ``warm_up`` nothing is counted. The others are a pool's options,
    with the defaults of a pool or of ``TenantPools``; it begins with nothing connected. ``BadScenario``, a ValueError,
    if it makes no sense.
    """

    rate: float = 0.0
    burst: int = 0
    burst_at: float = 0.0
    threads: int = 0
    think: float = 0.1
    service: float = 0.02
    spread: str = "fixed"
    sigma: float = 1.0
    connect: float = 0.005
    outage: tuple[float, float] | None = None
    duration: float = 60.0
    warm_up: float = 0.0
    seed: int = 1
    max_size: float = PoolConfig.max_size
    min_size: int = PoolConfig.min_size
    max_connecting: float = PoolConfig.max_connecting
    timeout: float = PoolConfig.timeout
    max_waiting: float | None = PoolConfig.max_waiting
    max_idle: float | None = _USUAL
    shed: Shed | None = None
    sizing: Sizing = Elastic()
    tenants: int = 0
    zipf: float = 1.0
    budget: int | None = None
    per_tenant_max: int = 5
    servers: int = 1
    processes: int = 1

    def __post_init__(self) -> None:
        for name, (low, beyond, whole) in _NUMBERS.items():
            value = getattr(self, name)
            fits = _is_number(value) and low <= value < math.inf and not (beyond and value == low)
            if not fits or (whole and value != int(value)):
                kind = "a whole number" if whole else "a number"
                raise BadScenario(
                    f"{name}={value!r}: must be {kind} {'above' if beyond else 'from'} {low:g}, and finite"
                )
        if self.spread not in SPREADS:
            raise BadScenario(f"spread={self.spread!r}: must be one of {', '.join(SPREADS)}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise BadScenario(f"seed={self.seed!r}: must be a whole number")
        if not (self.rate or self.burst or self.threads):
            raise BadScenario("rate, burst, threads: nobody comes; set one of them above 0")
        if self.warm_up >= self.duration:
            raise BadScenario(f"warm_up={self.warm_up!r}: must be less than duration={self.duration!r}")
        if self.burst and self.burst_at >= self.duration:
            raise BadScenario(f"burst_at={self.burst_at!r}: must be less than duration={self.duration!r}")
        if self.outage is not None:
            pair = self.outage if isinstance(self.outage, (tuple, list)) and len(self.outage) == 2 else ("", "")
            if not all(map(_is_number, pair)) or not 0 <= pair[0] < pair[1]:
                raise BadScenario("outage: must be two moments in seconds, the end after the beginning, such as 10,12")
        self._check_tenants()
        if self.max_idle is _USUAL:
            object.__setattr__(self, "max_idle", 60.0 if self.tenants else PoolConfig.max_idle)
        try:
            self.config()
        except ValueError as error:
            raise BadScenario(str(error)) from None

    def _check_tenants(self) -> None:
        if not self.tenants:
            for name in OF_TENANTS:
                if getattr(self, name) != getattr(Scenario, name):
                    raise BadScenario(f"{name}={getattr(self, name)!r}: means nothing without tenants; set tenants too")
            return
        for name, why in _NOT_WITH_TENANTS.items():
            if getattr(self, name) != getattr(Scenario, name):
                raise BadScenario(f"{name}={getattr(self, name)!r}: not with tenants: {why}")
        if self.budget is None:
            raise BadScenario(
                f"tenants={self.tenants!r}: needs a budget, which all tenants of a process share, such as budget=50"
            )
        if not _is_number(self.budget) or self.budget < 1 or self.budget != int(self.budget):
            raise BadScenario(f"budget={self.budget!r}: must be a whole number from 1, of connections of each process")

    def config(self) -> PoolConfig:
        """The options of the pool, or of each tenant's."""
        options = {name: getattr(self, name) for name in OF_THE_POOL}
        return PoolConfig(**options | ({"max_size": self.per_tenant_max} if self.tenants else {}))


NAMES = tuple(field.name for field in dataclasses.fields(Scenario))


def scenario(options: dict[str, Any]) -> Scenario:
    """By names; ``shed``, ``sizing`` and ``outage`` may be texts. BadScenario for what is unknown or impossible."""
    for name in options:
        if name not in NAMES:
            near = nearest(name, NAMES)
            raise BadScenario(f"{name}: " + (f"did you mean {near}?" if near else f"known are {', '.join(NAMES)}"))
    readers: dict[str, Callable[[Any], Any]] = {"shed": shed_from, "sizing": sizing_from, "outage": outage_from}
    return Scenario(**{name: readers[name](value) if name in readers else value for name, value in options.items()})


def read(path: str) -> dict[str, Any]:
    """The options in a file of JSON, or TOML where its name ends so. Each is tried alone, for its line to be told."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise BadScenario(f"the scenario file cannot be read: {why}") from None
    is_toml = path.endswith(".toml")
    if is_toml and importlib.util.find_spec("tomllib") is None:
        raise BadScenario("a scenario file of TOML needs Python 3.11 or later; write it as JSON")
    try:
        options = importlib.import_module("tomllib").loads(text) if is_toml else json.loads(text)
    except ValueError as error:
        raise BadScenario(f"the scenario file is no {'TOML' if is_toml else 'JSON'}: {error}") from None
    if not isinstance(options, dict):
        raise BadScenario(
            'the scenario file must be one object of names and values, such as {"rate": 300, "max_size": 8}'
        )
    return {name: value for name, value in options.items() if _try(name, value, text)}


def _try(name: str, value: Any, text: str) -> bool:
    """Is it sane beside what surely is? What only contradicts another one is found later, with both named."""
    try:
        together: dict[str, Any] = {"rate": 1.0, "duration": 1e9}
        with_tenants = name in OF_TENANTS or (name == "tenants" and value != 0)
        together |= {"tenants": 1, "budget": 1} if with_tenants else {"max_size": math.inf}
        scenario(together | {name: value} if name != "rate" else {"burst": 1, "rate": value})
    except (BadScenario, TypeError) as error:
        found = re.search(rf'^.*?(?<![\w.-])"?{re.escape(name)}"?\s*[:=]', text, re.MULTILINE | re.DOTALL)
        line = text.count("\n", 0, found.end()) + 1 if found else 1
        raise BadScenario(f"the scenario file, line {line}: {error}") from None
    return True


def shed_from(given: Any) -> Shed | None:
    """None, true, ``"default"``, ``"off"``, ``"0.05,0.5"`` or ``[0.05, 0.5]``: CoDel's target and interval."""
    if given is None or given is False or given == "off":
        return None
    if callable(getattr(given, "begin", None)):
        return given  # type: ignore[no-any-return]
    if given is True or given == "default":
        return CoDel()
    numbers = _numbers(given)
    if not 1 <= len(numbers) <= 2:
        raise BadScenario("shed: must be off, default, or target and interval in seconds, such as 0.05,0.5")
    return _made(CoDel, "shed", *numbers)


def outage_from(given: Any) -> tuple[float, float] | None:
    """``"10,12"`` or ``[10, 12]``."""
    numbers = _numbers(given)
    if given is not None and len(numbers) != 2:
        raise BadScenario("outage: must be two moments in seconds, the end after the beginning, such as 10,12")
    return None if given is None else (numbers[0], numbers[1])


def sizing_from(given: Any) -> Sizing:
    """``"elastic"``, ``"fixed"``, ``"overflow:2"``, ``"overflow:2,0"`` (extra and linger) or ``"sojourn:4"`` (core)."""
    if callable(getattr(given, "begin", None)):
        return given  # type: ignore[no-any-return]
    kind, _, rest = str(given).partition(":")
    numbers = _numbers(rest) if rest else []
    if kind in ("elastic", "fixed") and not rest:
        return Elastic() if kind == "elastic" else Fixed()
    if kind == "overflow" and 1 <= len(numbers) <= 2:
        return _made(Overflow, "sizing", *numbers)
    if kind == "sojourn" and len(numbers) == 1 and numbers[0] == int(numbers[0]):
        return _made(Sojourn, "sizing", int(numbers[0]))
    raise BadScenario("sizing: must be elastic, fixed, overflow:EXTRA, overflow:EXTRA,LINGER or sojourn:CORE")


def _made(make: type[_T], name: str, *numbers: float) -> _T:
    try:
        return make(*numbers)
    except ValueError as error:
        raise BadScenario(f"{name}: {error}") from None


def _numbers(given: Any) -> list[float]:
    """Those of a text with commas, or of a list; none if they are none."""
    parts = given.split(",") if isinstance(given, str) else given if isinstance(given, (list, tuple)) else [given]
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
