"""What does a view use? ``FlaskPool``: the pool of whichever app is current.

    pool = FlaskPool()                 # at import, of no app yet

    def create_app():
        app = Flask(__name__)
        app.config.from_prefixed_env()     # FLASK_THREADPOOL_DB_URL=postgresql://...
        pool.init_app(app)
        return app

It has everything that a pool has. Nothing of an app is kept in it: what an app has is in ``app.extensions``, so one
FlaskPool serves many apps, and one app may have several, each with keys of its own. A pool is made at its first use and
not at ``init_app``: a master that only forks, and commands like ``flask routes``, open nothing even with a
``min_size``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Flask, current_app, has_app_context

from threadpool_db.config import check_names
from threadpool_db.database import Face, create_pool
from threadpool_db.errors import PoolMisuse
from threadpool_db.ext.flask import requests, settings
from threadpool_db.ext.flask.commands import commands
from threadpool_db.ext.flask.settings import PREFIX, Settings, check_prefix

EXTENSION = "threadpool_db"

if TYPE_CHECKING:
    _Base = Face
else:
    _Base = object


class FlaskPool(_Base):
    """``FlaskPool(max_size=20)``, then ``init_app(app)``: stands for the current app's pool in views and commands.

    ``app``: for an app that is there already. ``pool``: a ready pool, or a function of the app that makes one; without
    it, ``app.config`` has the URL and the options. ``prefix``: what those keys begin with. ``url`` and the options:
    what is used where the config says nothing.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        pool: Face | Callable[[Flask], Face] | None = None,
        prefix: str = PREFIX,
        url: str | None = None,
        **options: Any,
    ) -> None:
        check_prefix(prefix)
        check_names(options)
        if pool is not None and not isinstance(pool, Face) and not callable(pool):
            raise TypeError(f"pool={pool!r}: must be a pool, made with create_pool(), or a function of the app")
        if pool is not None and (url or options):
            what = ", ".join(["url"] * bool(url) + [*options])
            raise TypeError(f"FlaskPool(pool=...) has its options already; leave out {what}")
        self._prefix, self._pool, self._url, self._options = prefix, pool, url, options
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Give this app a pool of its own. Opens nothing; settings that cannot be are an error here."""
        if not isinstance(app, Flask):
            raise TypeError(f"init_app({app!r}): must be a Flask app")
        pools: AppPools = app.extensions.get(EXTENSION, {})
        if self._prefix in pools:
            if pools[self._prefix].owner is self:
                raise PoolMisuse(f"Flask app {app.name!r}: init_app() was called with it already")
            raise PoolMisuse(
                f"Flask app {app.name!r} has another FlaskPool whose keys begin with {self._prefix}_; give this one "
                "its own, FlaskPool(prefix='ARCHIVE_DB') for instance"
            )
        settings.retry_after(app)
        one = AppPool(self, app)
        if not pools:
            requests.follow(app, pools)
            app.cli.add_command(commands)
            app.extensions[EXTENSION] = pools
        pools[self._prefix] = one

    @property
    def current(self) -> Face:
        """The current app's pool itself, for whoever has no app context: a thread of yours, a body that is streamed."""
        if not has_app_context():
            raise PoolMisuse(
                "FlaskPool: outside of any app context nobody knows whose pool is meant. Views and commands are inside "
                "one; elsewhere write 'with app.app_context():', around a streamed body stream_with_context(), or take "
                "'real = pool.current' along into a thread"
            )
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        one = app.extensions.get(EXTENSION, {}).get(self._prefix)
        if one is None or one.owner is not self:
            raise PoolMisuse(f"Flask app {app.name!r} is not known to this FlaskPool; call its init_app(app) at start")
        pool: Face = one.pool
        requests.cover(pool, app)
        return pool

    if not TYPE_CHECKING:  # a checker sees a pool, whose methods it knows

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):  # copy, pickle and debuggers ask for these anywhere
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return getattr(self.current, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in dir(Face) if not name.startswith("_"))]

    def __repr__(self) -> str:
        return f"<FlaskPool {self._prefix!r}>"


class AppPool:
    """One pool of one app: how to make it, and once it is used, itself."""

    def __init__(self, owner: FlaskPool, app: Flask) -> None:
        self.owner = owner
        self.settings: Settings | None = None
        self._made: Face | None = None
        self._lock = threading.Lock()
        prefix, pool = owner._prefix, owner._pool
        if pool is None:
            found = self.settings = settings.read(app, prefix, owner._url, owner._options)
            self._make: Callable[[], Face] = lambda: create_pool(found.url, **found.options)
        elif isinstance(pool, Face):
            self._made = pool
            unused = set(settings.keys_of(app, prefix).values()) - {settings.RETRY_AFTER}
            if unused:
                raise TypeError(
                    f"Flask app {app.name!r}: app.config has {', '.join(sorted(unused))}, but FlaskPool(pool=...) has "
                    "a ready pool; leave out one of the two"
                )
        else:
            factory = pool
            self._make = lambda: factory(app)

    @property
    def pool(self) -> Face:
        if self._made is None:
            with self._lock:  # the first requests come together
                if self._made is None:
                    made = self._make()
                    if not isinstance(made, Face):
                        raise TypeError(f"FlaskPool(pool=...): its function made {made!r}, which is no pool")
                    self._made = made
        return self._made


AppPools = dict[str, AppPool]
