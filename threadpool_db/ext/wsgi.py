"""When does a web request let go of its connections? When its response is over: a scope for each request.

    app = PoolMiddleware(app, pool)

A server closes the iterable that it got for a body, in the thread that ran the request, also when its client has gone
(PEP 3333): until then the scope lasts, so a body may be streamed from the database. A list holds no connection: its
scope ends before the server has it. Nothing is borrowed here. ``PoolTimeout``, ``PoolOverloaded`` and
``PoolUnavailable`` become ``503 Service Unavailable`` with ``Retry-After``, as long as nothing was sent.

Roads not taken: to hook into one framework's teardown, which comes before a streamed body begins (Flask's does, unless
it is told otherwise); to give back when the view returns, for the same reason.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from threadpool_db.checkout.blocks import Scope
from threadpool_db.database import Face
from threadpool_db.errors import PoolOverloaded, PoolTimeout, PoolUnavailable
from threadpool_db.tenants import TenantPools, TenantScope

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("threadpool_db.wsgi")

#: Of these the client is not to blame, nor can he do anything but come again.
REFUSALS = (PoolTimeout, PoolOverloaded, PoolUnavailable)

_SORRY = b"The service is busy, please try again.\n"


class PoolMiddleware:
    """``PoolMiddleware(app, pool, another, ...)``: a WSGI application in which each request is a scope of each pool;
    of ``TenantPools``, of each tenant that it uses.

    ``retry_after``: seconds, what a client is told that gets a 503; rounded up, as the header has whole seconds.
    """

    def __init__(self, app: WSGIApplication, *pools: Face | TenantPools[Any], retry_after: float = 1.0) -> None:
        if not callable(app):
            raise TypeError(f"app={app!r}: must be a WSGI application, a callable")
        if not pools:
            raise TypeError("PoolMiddleware(app, pool, ...): at least one pool is needed")
        for pool in pools:
            if not isinstance(pool, (Face, TenantPools)):
                raise TypeError(f"{pool!r} is no pool of threadpool_db; make it with create_pool()")
        self.app = app
        self._pools = pools
        self._retry_after = str(whole_seconds("retry_after", retry_after))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = self._begin(environ)
        try:
            body = self.app(environ, start_response)
        except REFUSALS as refusal:
            request.end(refusal)
            return self._busy(environ, start_response, refusal)
        except BaseException as error:
            request.end(error)
            raise
        if isinstance(request.error, REFUSALS):  # the framework has made an answer of it, and nothing was sent yet
            noted = request.error
            if hasattr(body, "close"):
                body.close()
            request.end()
            return self._busy(environ, start_response, noted)
        if request.whole or type(body) is list or type(body) is tuple or _is_file(body, environ):
            # all there, or sent by the server itself, which knows its own wrapper by its type
            request.end()
            return body
        made = _SizedBody if hasattr(body, "__len__") else _Body
        return made(body, request, lambda refusal: self._busy(environ, start_response, refusal))

    def _begin(self, environ: WSGIEnvironment) -> Request:
        return Request(environ, self._pools)

    def _busy(self, environ: WSGIEnvironment, start_response: StartResponse, refusal: Exception) -> list[bytes]:
        """503, if it is not too late: a server that has sent the headers raises ``refusal`` here."""
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(_SORRY))),
            ("Retry-After", self._retry_after),
        ]
        trace = refusal.__traceback__
        assert trace is not None
        start_response("503 Service Unavailable", headers, (type(refusal), refusal, trace))
        logger.warning("%s: 503, %s", name_of(environ), refusal)
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [_SORRY]


class Request:
    """The scopes of one request. For frameworks whose own hooks know when it is over; it ends once.

    ``what``: its environ, or of something that is no request, what to call it. A framework that knows more than WSGI
    tells may write it down here: ``error``, which it has made an answer of; ``whole``, the body is all there.
    """

    __slots__ = ("_scopes", "error", "whole")

    def __init__(self, what: WSGIEnvironment | str, pools: Iterable[Face | TenantPools[Any]]) -> None:
        self._scopes: list[RequestScope | TenantScope] = []
        self.error: BaseException | None = None
        self.whole = False
        for pool in pools:
            scope = RequestScope(pool, what) if isinstance(pool, Face) else TenantScope(pool, _of_request(what))
            scope.__enter__()
            self._scopes.append(scope)

    def covers(self, pool: Face) -> bool:
        """Has it not ended yet, and is what this very thread does with the pool its own?"""
        hold = pool._hold()
        return any(isinstance(scope, RequestScope) and scope._hold is hold for scope in self._scopes)

    @property
    def here(self) -> bool:
        """Were its scopes begun in this thread?"""
        own = [scope for scope in self._scopes if isinstance(scope, RequestScope)]
        return all(scope._hold is scope._face._hold() for scope in own)

    def end(self, error: BaseException | None = None) -> None:
        """``error``: what it ended with. Each pool lets go, whatever another one's end may raise."""
        scopes, self._scopes = self._scopes, []
        error, self.error = error or self.error, None
        while scopes:
            scope = scopes.pop()
            try:
                scope.__exit__(None if error is None else type(error), error, None)
            except Exception:
                # the response is another matter, and may be under way; the connection was closed
                logger.exception("%s: its scope did not end well", scope)


class RequestScope(Scope):
    """A scope that knows for which request it is, and lets go of what was begun in it even if there is another one
    around: a test's, say, whose client runs the app in its own thread."""

    def __init__(self, face: Face, what: WSGIEnvironment | str) -> None:
        super().__init__(face)
        self._what = what

    def __enter__(self) -> None:
        super().__enter__()
        hold = self._hold
        assert hold is not None
        self._inside = hold.scopes > 1
        self._found = hold.current() if self._inside else None  # not ours to end

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hold = self._hold
        assert hold is not None
        around = hold.scopes - 1
        if not (self._inside and around) or hold.current() is self._found or self._face._elsewhere(hold):
            super().__exit__(kind, error, trace)
            return
        hold.scopes = 1
        try:
            super().__exit__(kind, error, trace)
        finally:
            hold.scopes = around

    def __str__(self) -> str:
        return self._what if isinstance(self._what, str) else name_of(self._what)


def _of_request(what: WSGIEnvironment | str) -> Callable[[Face], Scope]:
    """For each tenant that the request comes to."""
    return lambda face: RequestScope(face, what)


class _Body:
    """A body that is still to be made: the request lasts until the server has closed it. A server that drops it instead
    does wrong; its scopes then end as all that are dropped."""

    def __init__(self, body: Iterable[bytes], request: Request, busy: Callable[[Exception], list[bytes]]) -> None:
        self._body = body
        self._request = request
        self._busy = busy
        self._chunks: Iterator[bytes] | None = None
        self._silent = True  # nothing was sent yet
        self._error: BaseException | None = None

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        try:
            if self._chunks is None:
                self._chunks = iter(self._body)
            chunk = next(self._chunks)
        except StopIteration:
            raise
        except REFUSALS as refusal:
            if not self._silent:
                self._error = refusal
                raise
            self._chunks = iter(self._busy(refusal))
            return next(self._chunks)
        except BaseException as error:
            self._error = error
            raise
        if chunk:
            self._silent = False
        return chunk

    def close(self) -> None:
        """The app's own end comes first: it may use the database."""
        error, self._error = self._error, None
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException as failure:
            error = error or failure
            raise
        finally:
            self._request.end(error)
            error = None  # its frames know this one: a circle


class _SizedBody(_Body):
    """Servers ask for the length: of one block it is the Content-Length."""

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]


def _is_file(body: object, environ: WSGIEnvironment) -> bool:
    wrapper: Any = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


def name_of(environ: WSGIEnvironment) -> str:
    """Method and path, never the query: there may be a secret in it."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return f"{environ.get('REQUEST_METHOD', '?')} {path!r}"


def whole_seconds(name: str, seconds: float) -> int:
    """For ``Retry-After``: rounded up, as the header has whole seconds."""
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds < math.inf:
        raise ValueError(f"{name}={seconds!r}: must be a number of seconds from 0 on")
    return math.ceil(seconds)
