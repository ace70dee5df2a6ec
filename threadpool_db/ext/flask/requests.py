"""When does a Flask app let go of its connections, and what becomes of a request that got none?

A request lasts until its response is over, as with ``PoolMiddleware``: Flask's own teardown comes before the first
chunk of a streamed body, and with ``stream_with_context`` a second time after the last. A response that is all there
ends it before anything is sent. An app context outside of a request (a command, a shell, a test) ends with its
teardown; nothing is begun there before the pool is used.

Flask makes a 500 of what a view raises, where no middleware sees it. So refusals have an error handler, which makes
them Flask's own ``ServiceUnavailable``: an app's page for 503 is used, and its own handlers come first.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, current_app, g, got_request_exception, has_request_context, request, request_finished
from werkzeug.exceptions import ServiceUnavailable
from werkzeug.wsgi import ClosingIterator

from threadpool_db.database import Face
from threadpool_db.errors import PoolError, _Refusal
from threadpool_db.ext.flask.settings import retry_after
from threadpool_db.ext.wsgi import PoolMiddleware, Request, name_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from threadpool_db.ext.flask.extension import AppPools

logger = logging.getLogger("threadpool_db.flask")

_REQUEST = "threadpool_db.request"  # in a request's environ: its scopes
_CONTEXT = "_threadpool_db"  # in an app context's g: the scopes of that context


class FlaskMiddleware(PoolMiddleware):
    """``PoolMiddleware`` for the pools that this app will have; they are made at its first request."""

    def __init__(self, app: Flask, pools: AppPools) -> None:
        self.app = app.wsgi_app
        self._flask = app
        self._app_pools = pools

    @property
    def _retry_after(self) -> str:  # type: ignore[override]
        return str(retry_after(self._flask))

    def _begin(self, environ: WSGIEnvironment) -> Request:
        # By name, for the environ has the request: a body that a test's client drops unclosed would be a circle.
        begun = environ[_REQUEST] = Request(name_of(environ), [one.pool for one in self._app_pools.values()])
        return begun


def follow(app: Flask, pools: AppPools) -> None:
    """Once for each app."""
    app.teardown_appcontext(_end_context)
    # Not one of the three: whatever class the app itself has a handler for comes first.
    app.register_error_handler(_Refusal, _answer)
    # By signals, not by after_request and teardown functions: those are skipped if one of the app's own raises.
    got_request_exception.connect(_note_error, app)
    request_finished.connect(_note_body, app)
    app.wsgi_app = FlaskMiddleware(app, pools)  # type: ignore[method-assign]


def cover(pool: Face, app: Flask) -> None:
    """See to it that what this thread does with the pool, here and now, ends with the request or context."""
    environ = request.environ if has_request_context() else None
    begun: Request | None = environ.get(_REQUEST) if environ is not None else None
    if begun is not None and begun.covers(pool):
        return
    scopes: list[Request] = g.setdefault(_CONTEXT, [])
    if not any(scope.covers(pool) for scope in scopes):
        scopes.append(Request(environ or f"an app context of {app.name!r}", [pool]))


def _end_context(error: BaseException | None) -> None:
    for scope in g.pop(_CONTEXT, ()):
        if scope.here:  # what a thread with a copy of the context has begun, its own end ends: an async view's, say
            scope.end(error)


def _note_error(app: Flask, exception: BaseException, **_: Any) -> None:
    """Flask makes a 500 of it; nobody needs to be told a second time what it left open."""
    begun: Request | None = request.environ.get(_REQUEST)
    if begun is not None:
        begun.error = exception


def _note_body(app: Flask, response: Response, **_: Any) -> None:
    """Flask wraps a list in an iterator, so that a server could not tell that it is no stream; abort()'s page twice."""
    begun: Request | None = request.environ.get(_REQUEST)
    if begun is not None:
        page = response.status_code >= 400 and isinstance(response.response, ClosingIterator)
        begun.whole = response.is_sequence or page


def _answer(refusal: _Refusal) -> Any:
    """503, by the app's own page for it, if there is one."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    theirs = app.error_handler_spec[None][None].get(PoolError)  # ours is for a more special class, and was found first
    if theirs is not None:
        return app.ensure_sync(theirs)(refusal)
    logger.warning("%s: 503, %s", name_of(request.environ), refusal)
    seconds = retry_after(app)
    busy = ServiceUnavailable("The service is busy, please try again.", retry_after=seconds)
    response = app.make_response(app.handle_user_exception(busy))
    if response.status_code == busy.code:
        response.headers.setdefault("Retry-After", str(seconds))
    return response
