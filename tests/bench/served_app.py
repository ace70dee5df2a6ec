"""What does ``served.py`` let gunicorn serve? One short query, somebody else's service, one more short query."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from threadpool_db import create_pool
from threadpool_db.ext.wsgi import PoolMiddleware

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

QUERY = "select pg_sleep(0.001)"
OUTSIDE = 0.050
CONNECTIONS = 5
BODY = b"ok\n"


def application() -> WSGIApplication:
    pool = create_pool(os.environ["DATABASE_URL"], max_size=CONNECTIONS, checkout=os.environ["CHECKOUT"])

    def view(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        pool.execute(QUERY)
        time.sleep(OUTSIDE)
        pool.execute(QUERY)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
        return [BODY]

    return PoolMiddleware(view, pool)
