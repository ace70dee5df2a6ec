"""What does a web app do with the bank, and what goes wrong in it? A WSGI app that a real gunicorn runs.

    /move?receipt=R&payer=1&payee=2&amount=3    a transaction; /move-by-hand: a hand-written BEGIN, and operations
    /total              two operations with something slow in between; the whole bank's money, twice
    /stream             a body read from the database while it is sent, and a transfer that its end commits
    /hang               a statement that does not end
    /stats              the numbers of the worker that answers

``&fail=1``: the view raises in the middle of its transaction, a body in the middle of itself. From the environment:
POOL_URL, and POOL_OPTIONS as JSON; BEGUN, a file in which each request that reaches the app leaves a line: the worker's
pid and the request's ``id``. So whoever lost an answer can be told from whoever was never let in.
"""

from __future__ import annotations

import json
import os
import time
from urllib.parse import parse_qsl

from threadpool_db import create_pool
from threadpool_db.ext.wsgi import PoolMiddleware

URL = os.environ["POOL_URL"]
SQLITE = URL.startswith("sqlite")
NAP = {"postgresql": "select pg_sleep(60)", "mysql": "select sleep(60)"}.get(URL.partition(":")[0], "")
TOTAL = "select sum(balance) from account"
CHUNK = b"x" * 20_000

pool = create_pool(URL, **json.loads(os.environ.get("POOL_OPTIONS") or "{}"))
begun = os.open(os.environ["BEGUN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class OutOfOrder(Exception):
    """A bug in a view."""


def execute(sql, *parameters):
    return pool.execute(sql.replace("%s", "?") if SQLITE else sql, parameters)


def transfer(query):
    receipt, payer, payee = query["receipt"], int(query["payer"]), int(query["payee"])
    amount = int(query["amount"])
    execute("update account set balance = balance - %s where id = %s", amount, payer)
    if "fail" in query:
        raise OutOfOrder("between the two")
    execute("update account set balance = balance + %s where id = %s", amount, payee)
    execute("insert into receipt values (%s, %s, %s, %s)", receipt, payer, payee, amount)
    return {"receipt": receipt}


def move(query):
    with pool.transaction():
        return transfer(query)


def move_by_hand(query):
    execute("begin immediate" if SQLITE else "begin")
    answer = transfer(query)
    execute("commit")
    return answer


def total(query):
    [(before,)] = execute(TOTAL)
    time.sleep(0.005)
    [(after,)] = execute(TOTAL)
    return {"total": [int(before), int(after)]}


def stream(query):
    """Each part is worth nothing without the others; the last one says that the transfer is on record."""
    execute("begin immediate" if SQLITE else "begin")
    answer = transfer({key: value for key, value in query.items() if key != "fail"})
    for number in range(6):
        execute("select %s", number)
        yield CHUNK
        if "fail" in query and number == 2:
            raise OutOfOrder("in the middle of a body")
    execute("commit")
    yield json.dumps(answer).encode()


def hang(query):
    execute(NAP)
    return {}


def stats(query):
    told = pool.stats()
    return {name: getattr(told, name) for name in ("in_use", "idle", "waiting", "opened", "dead", "lost")}


VIEWS = {"/move": move, "/move-by-hand": move_by_hand, "/total": total, "/hang": hang, "/stats": stats}


def bank(environ, start_response):
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    os.write(begun, f"{os.getpid()} {query.get('id', '-')}\n".encode())
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return stream(query)
    answer = {"worker": os.getpid(), **VIEWS[environ["PATH_INFO"]](query)}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


application = PoolMiddleware(bank, pool)
