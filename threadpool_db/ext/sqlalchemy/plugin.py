"""Can an app change its pool by its database URL alone? ``postgresql://...?plugin=threadpool_db&pool_size=5``

SQLAlchemy finds this class by an entry point, whoever calls create_engine: Flask-SQLAlchemy, engine_from_config, a tool
that nobody here has heard of. It makes ThreadPool the engine's pool and gives it the options that stand in the URL.

Whose is an option of a URL, the pool's or the driver's? Only a driver knows its own, so the rule goes by the pool's:

- an argument of ThreadPool, by the name that create_engine has for it, is the pool's;
- a name that begins with ``pool_``, or is one of the pool's but for a slip of the finger, was meant for it: an error;
- every other one is the driver's, and stays in the URL as it is.

Code wins over the URL, as ``connect_args`` does. If the code asks for another pool, the pool's options are only taken
out: so Alembic's env.py, which asks for NullPool, reads the same URL.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import exc
from sqlalchemy.engine import URL, CreateEnginePlugin
from sqlalchemy.pool import Pool
from sqlalchemy.util import get_cls_kwargs

from threadpool_db.ext.sqlalchemy import ThreadPool
from threadpool_db.ext.sqlalchemy.thrift import refuse_session_options

#: create_engine's names, where they are not the pool's own
_NAMES = {
    "echo": "echo_pool",
    "logging_name": "pool_logging_name",
    "pre_ping": "pool_pre_ping",
    "recycle": "pool_recycle",
    "reset_on_return": "pool_reset_on_return",
    "timeout": "pool_timeout",
    "use_lifo": "pool_use_lifo",
}

#: no text can say these
_OBJECTS = {"creator", "dialect", "events", "_dispatch", "budget", "shed"}

#: So alike is a slip. The options that drivers have and that look most like ours, read_timeout and its kind, stay
#: below 0.8.
_SLIP = 0.85


class ThreadPoolPlugin(CreateEnginePlugin):
    """``?plugin=threadpool_db``, or ``create_engine(url, plugins=["threadpool_db"])``."""

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        arguments = _arguments()
        # read_only and reset might be a driver's own
        refuse_session_options({"init_sql", "isolation", "disconnect_on"} & set(url.query), "the database URL")
        for name in {"budget", "shed"} & set(url.query):
            raise TypeError(f"the database URL has {name!r}, an object that no text names: create_engine({name}=...)")
        for name in url.query:
            _refuse_slip(name, arguments)
        self._texts = {name: text for name, text in url.query.items() if name in arguments}
        self._arguments = arguments
        if kwargs.get("poolclass") is None and kwargs.get("pool") is None:
            kwargs["poolclass"] = ThreadPool

    def update_url(self, url: URL) -> URL:
        return url.difference_update_query(list(self._texts))

    # Not by create_engine's own arguments: engine_from_config would make whole seconds of pool_timeout=0.5.
    def handle_pool_kwargs(self, pool_cls: type[Pool], pool_args: dict[str, Any]) -> None:
        if not issubclass(pool_cls, ThreadPool):
            return
        _refuse_dialect(pool_args["dialect"], self.url)
        for name, text in self._texts.items():
            if self._arguments[name] not in pool_args:
                if not isinstance(text, str):
                    raise TypeError(f"the database URL has {name!r} {len(text)} times")
                pool_args[self._arguments[name]] = text


def _arguments() -> dict[str, str]:
    """What may stand in a URL, and which argument of ThreadPool it is."""
    arguments = {_NAMES.get(argument, argument): argument for argument in get_cls_kwargs(ThreadPool) - _OBJECTS}
    return dict(sorted(arguments.items()))


def _refuse_slip(name: str, arguments: Mapping[str, str]) -> None:
    if name in arguments:
        return
    ours = name.lower().startswith("pool_")
    near = difflib.get_close_matches(name.lower(), arguments, 1, 0.65 if ours else _SLIP)
    if ours or near:
        hint = f"did you mean {near[0]!r}?" if near else f"the pool's options are {', '.join(arguments)}"
        raise TypeError(f"the database URL has an unknown pool option {name!r}; {hint}")


def _refuse_dialect(dialect: Any, url: URL) -> None:
    if dialect.is_async:
        raise exc.ArgumentError(
            "plugin threadpool_db: ThreadPool blocks its thread and cannot serve an asyncio engine; take the plugin "
            "out of the URL of create_async_engine"
        )
    if dialect.name == "sqlite" and _in_private_memory(url):
        raise exc.ArgumentError(
            "plugin threadpool_db: this SQLite database is in memory, where each connection of a pool would see its "
            "own; name a file, give create_engine poolclass=StaticPool, or share one by name, "
            "sqlite:///file:app?mode=memory&cache=shared&uri=true&check_same_thread=false"
        )


def _in_private_memory(url: URL) -> bool:
    in_memory = url.database in (None, "", ":memory:", "file::memory:") or url.query.get("mode") == "memory"
    return in_memory and url.query.get("cache") != "shared"
