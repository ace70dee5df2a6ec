"""How does one Flask app serve each customer from a database of his own? By host name, under one cap.

    flask init              make the database that new tenants are copied from
    gunicorn                with the gunicorn.conf.py beside this file
    flask drop              drop that, and every tenant

    POST localhost/signup          name=acme: a database for acme.localhost, which serves the next request
    POST acme.localhost/orders     item=tea: an order, in a transaction
    GET  acme.localhost/orders     how many?
    POST acme.localhost/careless   begins a transaction, and forgets it
    GET  localhost/report          all tenants in one request
    GET  localhost/health          the budget of the worker that answers

From the environment: DATABASE_URL, the server and its database for maintenance, whose user may create databases
(postgresql://postgres@localhost/postgres); CAP, how many connections a worker may have (10); DOMAIN (localhost);
POOLER=1, a PgBouncer in transaction mode stands in front (../pgbouncer).
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from flask import Flask, Response, abort, jsonify, request

from threadpool_db import Budget, PoolOverloaded, PoolTimeout, PoolUnavailable, TenantPools
from threadpool_db.ext.wsgi import PoolMiddleware
from threadpool_db.tenants import Tenant

SERVER = urlsplit(os.environ.get("DATABASE_URL") or "postgresql://postgres@localhost/postgres")
CAP = int(os.environ.get("CAP") or 10)
DOMAIN = os.environ.get("DOMAIN") or "localhost"
POOLER = bool(os.environ.get("POOLER"))

#: A tenant's database has a prefix, so that no host name leads to one that is not a tenant's.
PREFIX, TEMPLATE = "threadpool_tenant_", "threadpool_template"
NAME = re.compile(r"[a-z][a-z0-9]{0,30}")

#: The key of the server's own database, where all names are known. It is under the same budget as its tenants.
OFFICE = ""


def database_of(key: str) -> str:
    """Called when a tenant is asked for that has no pool. Whoever has many servers asks here which one it is."""
    if key == OFFICE:
        return url(SERVER.path[1:])
    if not NAME.fullmatch(key) or not known(key):
        raise LookupError(key)
    return url(PREFIX + key)


def url(database: str) -> str:
    query = urlencode(dict(parse_qsl(SERVER.query)) | {"application_name": "threadpool_tenants"})
    return SERVER._replace(path=f"/{database}", query=query).geturl()


# `unknown_for`: who was no tenant a moment ago may be one now, by another worker's hand. To ask is one look at an
# index; where it is dearer leave a second, and the first requests after a sign-up may be 404 for that long.
tenants = TenantPools(
    database_of, budget=Budget(CAP), per_tenant_max=5, max_idle=60, timeout=5.0, unknown_for=0, server_pooler=POOLER
)


def create_app() -> Flask:
    """Connects to nothing: gunicorn calls it before it forks."""
    app = Flask(__name__)
    app.add_url_rule("/signup", view_func=sign_up, methods=["POST"])
    app.add_url_rule("/orders", view_func=order, methods=["POST"])
    app.add_url_rule("/orders", "orders", view_func=orders)
    app.add_url_rule("/careless", view_func=careless, methods=["POST"])
    app.add_url_rule("/report", view_func=report)
    app.add_url_rule("/health", view_func=health)
    # Flask would make a 500 of them, before the middleware sees them.
    for refusal in (PoolTimeout, PoolOverloaded, PoolUnavailable):
        app.register_error_handler(refusal, busy)
    app.cli.command("init")(init)
    app.cli.command("drop")(drop)
    # Each request is a scope of each tenant that it comes to: at its end nothing of any of them is held.
    app.wsgi_app = PoolMiddleware(app.wsgi_app, tenants)  # type: ignore[method-assign]
    return app


# Who is asked? --------------------------------------------------------------------------------------------------------


def host() -> str:
    return request.host.partition(":")[0].lower()


def tenant() -> Tenant[str]:
    """The pool of the host that was asked; 404 where nobody has that name."""
    name, dot, domain = host().partition(".")
    try:
        return tenants[name if dot and domain == DOMAIN else "?"]
    except LookupError:
        abort(404, "nobody lives here")


def office() -> Tenant[str]:
    if host() != DOMAIN:
        abort(404)
    return tenants[OFFICE]


def known(key: str) -> bool:
    return bool(tenants.execute(OFFICE, "SELECT 1 FROM pg_database WHERE datname = %s", (PREFIX + key,)))


# Views ----------------------------------------------------------------------------------------------------------------


def sign_up() -> tuple[dict[str, Any], int]:
    """``execute`` keeps its connection in autocommit, as CREATE DATABASE wants it. All or nothing: the database is the
    only record of a tenant, and is copied whole from the template."""
    pool, name = office(), request.form.get("name", "")
    if not NAME.fullmatch(name):
        abort(400, "a name is a letter, and up to thirty letters or digits after it")
    try:
        pool.execute(f"CREATE DATABASE {PREFIX}{name} TEMPLATE {TEMPLATE}")
    except Exception as error:
        if not known(name):
            raise
        # there before us, or a moment ago by somebody who was as quick
        return {"error": "that name is taken", "why": type(error).__name__}, 409
    return {"host": f"{name}.{DOMAIN}"}, 201


def order() -> tuple[dict[str, Any], int]:
    item = request.form.get("item") or abort(400, "item is missing")
    pool = tenant()
    with pool.transaction():
        ((number,),) = pool.execute("INSERT INTO orders (item) VALUES (%s) RETURNING id", (item,))
    return {"order": number}, 201


def orders() -> dict[str, Any]:
    ((name, count),) = tenant().execute("SELECT current_database(), count(*) FROM orders")
    return {"tenant": name.removeprefix(PREFIX), "orders": count}


def careless() -> tuple[dict[str, Any], int]:
    """Nobody ends this transaction but the request's scope, which rolls it back and says so in the log."""
    pool = tenant()
    pool.execute("BEGIN")
    pool.execute("INSERT INTO orders (item) VALUES ('forgotten')")
    return {}, 202


def report() -> dict[str, Any]:
    """However many they are, this request holds no more than one connection at a time."""
    rows = office().execute("SELECT datname FROM pg_database WHERE datname LIKE %s", (PREFIX + "%",))
    names = sorted(name.removeprefix(PREFIX) for (name,) in rows)
    return {name: tenants.execute(name, "SELECT count(*) FROM orders")[0][0] for name in names}


def health() -> dict[str, Any]:
    budget = tenants.budget.stats()
    return {"worker": os.getpid(), "cap": budget.limit, "used": budget.used, "passed_on": budget.passed_on}


def busy(refusal: Exception) -> tuple[Response, int, dict[str, str]]:
    return jsonify(error="busy, please come again"), 503, {"Retry-After": "1"}


# Commands -------------------------------------------------------------------------------------------------------------


def init() -> None:
    """Make the database that new tenants are copied from."""
    drop()
    tenants.execute(OFFICE, f"CREATE DATABASE {TEMPLATE}")
    with TenantPools(url, budget=Budget(1), server_pooler=POOLER) as template:
        template.execute(TEMPLATE, "CREATE TABLE orders (id serial PRIMARY KEY, item text NOT NULL)")
    # Nobody can be copied while somebody is connected to him, a pooler's session too.
    tenants.execute(OFFICE, f"ALTER DATABASE {TEMPLATE} ALLOW_CONNECTIONS false")
    tenants.execute(OFFICE, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (TEMPLATE,))


def drop() -> None:
    """Drop the template, and every tenant."""
    made = "SELECT datname FROM pg_database WHERE datname LIKE %s OR datname = %s"
    for (name,) in tenants.execute(OFFICE, made, (PREFIX + "%", TEMPLATE)):
        tenants.execute(OFFICE, f"DROP DATABASE {name} WITH (FORCE)")
