"""How does a Flask app use the pool? A small shop with an application factory, and one extension.

    flask init-shop         make the tables, and fill the shelves
    gunicorn                with the gunicorn.conf.py beside this file
    flask threadpool-db check | options         is the database well, what is the pool set to?
    flask drop-shop         remove the tables

    POST /orders            item=1&quantity=2: an order and its stock in one transaction
    GET  /orders.csv        all orders, streamed; nobody's connection waits for a slow client
    GET  /items/1/quote     two short statements with a slow call to somebody else's service between them
    GET  /audit             is every item on its shelf or in an order?
    GET  /health            the pool of the worker that answers

Settings are FLASK_... in the environment: FLASK_THREADPOOL_DB_URL, FLASK_THREADPOOL_DB_MAX_SIZE, and so on.
"""

from __future__ import annotations

import csv
import io
import os
import re
import time
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, abort, current_app, render_template, request, stream_with_context

from threadpool_db.ext.flask import FlaskPool

ITEMS, STOCK = 20, 1000
OUTSIDE_CALL = 0.05
PAGE = 500

# SQLite has one writer at a time. The others wait for it: transaction() begins as a writer, and `timeout` is how long
# that may take. See the bank in ../gunicorn.
DEFAULT_URL = "sqlite:///shop.db?isolation_level=IMMEDIATE&timeout=15"

# What is said here is used where the environment says nothing. 8 threads share 4 connections: a thread spends most of
# its time not talking to the database.
pool = FlaskPool(max_size=4, timeout=5.0)


def create_app() -> Flask:
    """Connects to nothing: gunicorn may call it before it forks, and ``flask routes`` too."""
    app = Flask(__name__)
    app.config.from_prefixed_env()
    app.config.setdefault("THREADPOOL_DB_URL", DEFAULT_URL)
    pool.init_app(app)
    app.add_url_rule("/orders", view_func=order, methods=["POST"])
    app.add_url_rule("/orders.csv", view_func=export)
    app.add_url_rule("/items/<int:item>/quote", view_func=quote)
    app.add_url_rule("/audit", view_func=audit)
    app.add_url_rule("/health", view_func=health)
    # The page for whoever comes when all connections are in use, or the database is away. The pool's errors come here
    # as a 503; its reasons, with the names of those who hold the connections, are in the log.
    app.register_error_handler(503, busy)
    app.cli.command("init-shop")(init_shop)
    app.cli.command("drop-shop")(drop_shop)
    return app


def execute(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """One statement; inside ``pool.transaction()`` it joins the transaction. SQLite's placeholder is ``?``."""
    return pool.execute(sql.replace("%s", "?") if database() == "sqlite" else sql, parameters)


def database() -> str:
    """One of postgresql, mysql, mariadb and sqlite."""
    url: str = current_app.config["THREADPOOL_DB_URL"]
    return re.split("[+:]", url)[0]


# Views ----------------------------------------------------------------------------------------------------------------


def order() -> tuple[dict[str, Any], int]:
    item, quantity = request.form.get("item", 0, int), request.form.get("quantity", 0, int)
    if quantity < 1:
        abort(400, "quantity must be 1 or more")
    lock = "" if database() == "sqlite" else " FOR UPDATE"  # SQLite has no row locks and no words for them
    with pool.transaction():  # any error rolls back, abort() too
        rows = execute(f"SELECT stock FROM shop_items WHERE id = %s{lock}", item)
        if not rows:
            abort(404, "there is no such item")
        if rows[0][0] < quantity:
            return {"error": "not so many left", "stock": rows[0][0]}, 409
        execute("UPDATE shop_items SET stock = stock - %s WHERE id = %s", quantity, item)
        execute("INSERT INTO shop_orders (item, quantity) VALUES (%s, %s)", item, quantity)
    return {"ordered": quantity}, 201


def export() -> Response:
    """A page of rows in one statement each. Between two of them the client may be slow: no connection waits for it.

    With ``stream_with_context`` the pool is at hand in the generator too, which runs after this view has returned.
    """
    return Response(stream_with_context(lines()), mimetype="text/csv")


def lines() -> Iterator[str]:
    last = 0
    yield "id,item,quantity\n"
    while rows := execute("SELECT id, item, quantity FROM shop_orders WHERE id > %s ORDER BY id LIMIT %s", last, PAGE):
        page = io.StringIO()
        csv.writer(page, lineterminator="\n").writerows(rows)
        yield page.getvalue()
        last = rows[-1][0]


def quote(item: int) -> dict[str, Any]:
    """Nobody's connection is idle while the supplier thinks: that is ``checkout="operation"``, the default."""
    rows = execute("SELECT stock FROM shop_items WHERE id = %s", item)
    if not rows:
        abort(404, "there is no such item")
    price = ask_the_supplier(rows[0][0])
    execute("UPDATE shop_items SET price = %s WHERE id = %s", price, item)
    return {"price": price}


def ask_the_supplier(stock: int) -> int:
    time.sleep(OUTSIDE_CALL)  # stands for an HTTP call
    return 100 + stock % 7


def audit() -> dict[str, Any]:
    """One statement, so one snapshot, also while orders come in."""
    ((wrong, orders),) = execute(
        "SELECT sum(CASE WHEN stock + ordered = %s THEN 0 ELSE 1 END), sum(orders) FROM (SELECT stock,"
        " (SELECT coalesce(sum(quantity), 0) FROM shop_orders WHERE item = shop_items.id) AS ordered,"
        " (SELECT count(*) FROM shop_orders WHERE item = shop_items.id) AS orders FROM shop_items) AS shelves",
        STOCK,
    )
    return {"items_wrong": int(wrong), "orders": int(orders)}


def health() -> dict[str, Any]:
    stats = pool.stats()
    return {"worker": os.getpid(), "in_use": stats.in_use, "idle": stats.idle, "waiting": stats.waiting}


def busy(error: Exception) -> tuple[str, int]:
    return render_template("busy.html"), 503  # Retry-After is added


# Commands -------------------------------------------------------------------------------------------------------------


def init_shop() -> None:
    """Make the tables, and fill the shelves."""
    drop_shop()
    number = {"postgresql": "serial", "sqlite": "integer"}.get(database(), "integer AUTO_INCREMENT")
    execute("CREATE TABLE shop_items (id integer PRIMARY KEY, stock integer NOT NULL, price integer)")
    execute(f"CREATE TABLE shop_orders (id {number} PRIMARY KEY, item integer NOT NULL, quantity integer NOT NULL)")
    execute("CREATE INDEX shop_orders_item ON shop_orders (item)")
    if database() == "sqlite":
        execute("PRAGMA journal_mode=WAL")  # readers and the writer do not block each other; the file remembers it
    with pool.transaction():
        for item in range(1, ITEMS + 1):
            execute("INSERT INTO shop_items (id, stock) VALUES (%s, %s)", item, STOCK)


def drop_shop() -> None:
    """Remove the tables."""
    execute("DROP TABLE IF EXISTS shop_orders")
    execute("DROP TABLE IF EXISTS shop_items")
