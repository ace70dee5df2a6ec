"""What does ``PoolMiddleware`` cost a request that never touches the database? Beside the bare app, in floor pairs.

A trivial app, called as a server calls it: with an environ and a ``start_response``, its body read to the end and
closed. One app answers with a list, whose scope ends before the server has it; the other one with a generator, as
frameworks do that wrap what a view gives, and there the scope lasts until the close.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING
from wsgiref.util import setup_testing_defaults

from tests.bench.contention import CONNECTIONS
from tests.bench.contestants import PATIENCE, Contestant, Noop, at_once, floor
from tests.bench.pairs import Pairs
from threadpool_db import Pool
from threadpool_db.ext.wsgi import PoolMiddleware

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Say = Callable[[str], None]

LIST, STREAM = "a list", "a generator"
ADDED_LIMIT = 4.0  # floor pairs

_REQUEST = """
body = pool.app(pool.environ, pool.start_response)
try:
    for chunk in body:
        pass
finally:
    if hasattr(body, "close"):
        body.close()
"""


def answering_with_a_list(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]


def answering_with_a_generator(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"ok\n"


APPS: dict[str, WSGIApplication] = {LIST: answering_with_a_list, STREAM: answering_with_a_generator}


class Host:
    """What a server has at hand."""

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app
        self.environ: WSGIEnvironment = {}
        setup_testing_defaults(self.environ)

    def start_response(self, status: str, headers: list[tuple[str, str]], error: object = None) -> None:
        pass


class Middleware(Pairs):
    def added(self) -> dict[str, float]:
        """To an app that answers with such a body, times the floor."""
        ratios = self.ratios()
        return {body: ratios[f"{body}, in a scope"] - ratios[body] for body in APPS}


@contextlib.contextmanager
def middleware() -> Iterator[Middleware]:
    with Pool(Noop(at_once), max_size=CONNECTIONS, timeout=PATIENCE) as pool:
        racers = [floor(CONNECTIONS)]
        for body, app in APPS.items():
            racers.append(Contestant(body, Host(app), "", "", block=_REQUEST))
            wrapped = PoolMiddleware(app, pool)
            racers.append(Contestant(f"{body}, in a scope", Host(wrapped), "", "", block=_REQUEST))
        yield Middleware(racers)
