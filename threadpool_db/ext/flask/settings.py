"""What does ``app.config`` say of a pool? ``THREADPOOL_DB_URL``, and ``THREADPOOL_DB_<OPTION>`` for each option.

The config wins over the options in code: those are what the developer thinks of, it is what whoever runs the app does.
Values from an environment are text, or what JSON makes of it; they become what the option wants. A name that is no
option's is an error. So is an impossible value, at start, though the pool is made later.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from flask import Flask

from threadpool_db.config import NOT_YET, NUMBERS, PoolConfig, nearest
from threadpool_db.drivers.choose import driver_for
from threadpool_db.drivers.client import as_bool
from threadpool_db.ext.wsgi import whole_seconds
from threadpool_db.upkeep import possible
from threadpool_db.waiting import REAL_TIME

PREFIX = "THREADPOOL_DB"

#: One for the app, whichever of its pools a request got nothing from.
RETRY_AFTER = f"{PREFIX}_RETRY_AFTER"

_OPTIONS = frozenset(field.name for field in dataclasses.fields(PoolConfig))
_SWITCHES = ("autocommit", "background", "read_only", "server_pooler")
#: Of the others that are no numbers, what None stands for something in.
_OPTIONAL = ("autocommit", "disconnect_on", "isolation", "name", "read_only")


@dataclass(frozen=True)
class Settings:
    """Of one pool, checked. ``sources``: where an option was set, if anywhere."""

    url: str = dataclasses.field(repr=False)
    options: dict[str, Any] = dataclasses.field(repr=False)
    config: PoolConfig
    sources: dict[str, str]


def check_prefix(prefix: str) -> None:
    if not isinstance(prefix, str) or not re.fullmatch("[A-Z][A-Z0-9_]*[A-Z0-9]", prefix):
        raise ValueError(f"prefix={prefix!r}: must be in capitals, as the keys of app.config are, and end without '_'")
    if prefix.startswith(f"{PREFIX}_"):
        raise ValueError(
            f"prefix={prefix!r}: {PREFIX}_* are the keys of the FlaskPool without a prefix; choose another beginning, "
            "'ARCHIVE_DB' for instance"
        )


def read(app: Flask, prefix: str, url: str | None, defaults: dict[str, Any]) -> Settings:
    """What this app's config has under the prefix, over the defaults in code."""
    key = f"{prefix}_URL"
    keys = keys_of(app, prefix)
    _refuse_unknown(app, prefix, keys)
    url = app.config.get(key) or url
    if not url:
        raise ValueError(
            f"Flask app {app.name!r}: app.config[{key!r}] is missing; set it before init_app, to a URL like "
            "postgresql://user@host/name, mysql://user@host/name or sqlite:////absolute/file.db"
        )
    if not isinstance(url, str):
        raise ValueError(
            f"Flask app {app.name!r}: app.config[{key!r}] must be text, it is of type {type(url).__name__}; "
            "a function that connects goes into FlaskPool(pool=lambda app: create_pool(connect))"
        )
    given = {name: coerced(name, app.config[k]) for name, k in keys.items() if name in _OPTIONS | NOT_YET}
    options = defaults | given
    try:
        config = PoolConfig.from_options(options)
        possible(driver_for(url, None, config.configure), config, REAL_TIME)
    except (TypeError, ValueError) as error:
        problem = type(error)(f"Flask app {app.name!r}, {prefix}_* in app.config or FlaskPool(...): {error}")
    else:
        sources = dict.fromkeys(defaults, "code") | {name: f"app.config[{keys[name]!r}]" for name in given}
        return Settings(url, options, config, sources)
    raise problem  # without the other one as its context, which says less


def keys_of(app: Flask, prefix: str) -> dict[str, str]:
    """Name of an option -> its key in the app's config."""
    return {key[len(prefix) + 1 :].lower(): key for key in app.config if key.startswith(f"{prefix}_")}


def retry_after(app: Flask) -> int:
    """Seconds after which a client that got a 503 is to come again."""
    return whole_seconds(RETRY_AFTER, coerced("timeout", app.config.get(RETRY_AFTER, 1.0)))


def coerced(name: str, value: Any) -> Any:
    """What a text means for this option. One that means nothing stays as it is: ``PoolConfig`` says what is wrong."""
    if isinstance(value, int) and name in _SWITCHES:
        value = str(value)  # JSON's 0 or 1
    if not isinstance(value, str):
        return value
    text = value.strip()
    try:
        if name in NUMBERS:
            if NUMBERS[name][2] and text.lower() in ("", "none"):
                return None
            number = float(text)
            return int(number) if NUMBERS[name][3] and number.is_integer() else number
        if name in _OPTIONAL and text.lower() in ("", "none"):
            return None
        if name in _SWITCHES:
            return as_bool(name, text)
    except ValueError:
        return value
    if name == "disconnect_on":
        codes = re.split(r"[\s,]+", text)
        return tuple(int(code) if re.fullmatch("[0-9]{1,4}", code) else code for code in codes)
    return value


def _refuse_unknown(app: Flask, prefix: str, keys: dict[str, str]) -> None:
    others = {"url", "retry_after"} if prefix == PREFIX else {"url"}
    known = _OPTIONS | others
    for name, key in keys.items():
        if name not in known and name not in NOT_YET:
            near = nearest(name, known)
            all_of_them = ", ".join(f"{prefix}_{one.upper()}" for one in sorted(known))
            hint = f"did you mean {prefix}_{near.upper()}?" if near else f"there are {all_of_them}"
            raise TypeError(f"Flask app {app.name!r}: app.config has {key!r}, which is no option of the pool; {hint}")
