"""How does a WSGI app use the pool? A small bank without a framework, and one line of middleware.

    python app.py init      make the tables, a hundred accounts with 10,000 each
    gunicorn                with the gunicorn.conf.py beside this file
    python app.py drop      remove the tables

    POST /transfer?source=1&target=2&amount=5    money moves in a transaction
    GET  /assess?account=1     two short statements with a slow call to somebody else's service between them
    GET  /report               a read of the whole bank
    GET  /statement?account=1  the same database through SQLAlchemy's ORM and ThreadPool
    GET  /health               the pools of the worker that answers, as JSON
    GET  /audit                is every penny where the transfers say it went?

From the environment: DATABASE_URL (sqlite:///bank.db by default; postgresql://..., mysql://...); CHECKOUT, how long a
request keeps a connection: for one "operation" (the default), or as its "thread" until the scope ends; POOL_TIMEOUT,
how many seconds it waits for one (5).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl

from sqlalchemy import BigInteger, ForeignKey, MetaData, create_engine, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from threadpool_db import PoolError, Snapshot, create_pool
from threadpool_db.ext.sqlalchemy import ThreadPool
from threadpool_db.ext.wsgi import PoolMiddleware

DATABASE_URL = os.environ.get("DATABASE_URL") or "sqlite:///bank.db"
CHECKOUT = os.environ.get("CHECKOUT") or "operation"
POOL_TIMEOUT = float(os.environ.get("POOL_TIMEOUT") or 5)

ACCOUNTS = 100
OPENING_BALANCE = 10_000
OUTSIDE_CALL = 0.05

# Two pools, made once at import and empty until the first request -----------------------------------------------------

SCHEME, _, REST = DATABASE_URL.partition("://")
SQLITE = SCHEME.startswith("sqlite")


def pool_url() -> str:
    """SQLite has one writer at a time. The others wait for it, instead of failing with "database is locked":
    ``transaction()`` begins IMMEDIATE, as a writer from its first moment, and ``timeout`` is how long that may take.
    """
    if not SQLITE:
        return DATABASE_URL
    separator = "&" if "?" in DATABASE_URL else "?"
    return f"{DATABASE_URL}{separator}isolation_level=IMMEDIATE&timeout=15&pragma.synchronous=normal"


def orm_url() -> str:
    """SQLAlchemy wants the driver of MySQL and MariaDB by name."""
    scheme = {"mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql", "postgres": "postgresql"}.get(SCHEME, SCHEME)
    return f"{scheme}://{REST.partition('?')[0] if SQLITE else REST}"


# 8 threads share 4 connections: a thread spends most of its time not talking to the database. `timeout` is the longest
# that a request waits for one; it should be well below what the client, or the proxy before us, is ready to wait.
pool = create_pool(pool_url(), max_size=4, timeout=POOL_TIMEOUT, checkout=CHECKOUT)

# Under the ORM the engine keeps a pool of its own.
engine = create_engine(orm_url(), poolclass=ThreadPool, pool_size=2, max_overflow=0, pool_timeout=POOL_TIMEOUT)


# The bank -------------------------------------------------------------------------------------------------------------


class Base(DeclarativeBase):
    metadata = MetaData()


class Account(Base):
    __tablename__ = "threadpool_demo_accounts"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    balance: Mapped[int] = mapped_column(BigInteger)
    score: Mapped[int] = mapped_column(default=0)


class Transfer(Base):
    __tablename__ = "threadpool_demo_transfers"
    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[int] = mapped_column(ForeignKey(Account.id), index=True)
    target: Mapped[int] = mapped_column(ForeignKey(Account.id), index=True)
    amount: Mapped[int]


def execute(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """One statement; inside ``pool.transaction()`` it joins the transaction. SQLite's placeholder is ``?``."""
    sql = sql.replace("accounts", Account.__tablename__).replace("transfers", Transfer.__tablename__)
    return pool.execute(sql.replace("%s", "?") if SQLITE else sql, parameters)


Query = dict[str, str]
Answer = tuple[str, dict[str, Any]]


class BadRequest(Exception):
    """The client's fault; the text says what is wrong."""


def number(query: Query, name: str) -> int:
    try:
        value = int(query[name])
    except (KeyError, ValueError):
        raise BadRequest(f"{name} must be given, as a whole number") from None
    if value < 1:
        raise BadRequest(f"{name} must be 1 or more")
    return value


def transfer(query: Query) -> Answer:
    source, target, amount = number(query, "source"), number(query, "target"), number(query, "amount")
    # Both rows are locked in the order of their ids, so that two transfers in opposite directions wait for each other
    # and never deadlock. SQLite has no row locks and no words for them: there the transaction has the file to itself.
    lock = "" if SQLITE else " FOR UPDATE"
    with pool.transaction():
        rows = execute(f"SELECT id, balance FROM accounts WHERE id IN (%s, %s) ORDER BY id{lock}", source, target)
        balances = dict(rows)
        if len(balances) < 2:
            raise BadRequest("source and target must be two accounts of this bank")  # rolls back
        if balances[source] < amount:
            return "409 Conflict", {"error": "not enough money"}
        execute("UPDATE accounts SET balance = balance - %s WHERE id = %s", amount, source)
        execute("UPDATE accounts SET balance = balance + %s WHERE id = %s", amount, target)
        execute("INSERT INTO transfers (source, target, amount) VALUES (%s, %s, %s)", source, target, amount)
    return "200 OK", {"moved": amount}


def assess(query: Query) -> Answer:
    """What the two policies differ in. With "operation" nobody's connection is idle while the agency thinks."""
    account = number(query, "account")
    rows = execute("SELECT balance FROM accounts WHERE id = %s", account)
    if not rows:
        raise BadRequest("no such account")
    score = ask_the_agency(rows[0][0])
    execute("UPDATE accounts SET score = %s WHERE id = %s", score, account)
    return "200 OK", {"score": score}


def ask_the_agency(balance: int) -> int:
    time.sleep(OUTSIDE_CALL)  # stands for an HTTP call
    return balance // 100


def report(query: Query) -> Answer:
    ((accounts, money, average),) = execute("SELECT count(*), sum(balance), avg(score) FROM accounts")
    richest = execute("SELECT id, balance FROM accounts ORDER BY balance DESC, id LIMIT 5")
    return "200 OK", {"accounts": accounts, "money": int(money), "score": float(average), "richest": richest}


def statement(query: Query) -> Answer:
    with Session(engine) as session:
        account = session.get(Account, number(query, "account"))
        if account is None:
            raise BadRequest("no such account")
        paid = select(Transfer).where(Transfer.source == account.id).order_by(Transfer.id.desc()).limit(5)
        latest = [{"to": line.target, "amount": line.amount} for line in session.scalars(paid)]
        return "200 OK", {"balance": account.balance, "paid": latest}


def audit(query: Query) -> Answer:
    """One statement, so one snapshot, also while transfers run."""
    ((money, wrong, transfers),) = execute(
        "SELECT sum(balance), sum(CASE WHEN balance = %s + received - paid THEN 0 ELSE 1 END), sum(sent) FROM ("
        " SELECT balance,"
        "  (SELECT coalesce(sum(amount), 0) FROM transfers WHERE target = accounts.id) AS received,"
        "  (SELECT coalesce(sum(amount), 0) FROM transfers WHERE source = accounts.id) AS paid,"
        "  (SELECT count(*) FROM transfers WHERE source = accounts.id) AS sent"
        " FROM accounts) AS books",
        OPENING_BALANCE,
    )
    return "200 OK", {"money": int(money), "accounts_wrong": int(wrong), "transfers": int(transfers)}


def health(query: Query) -> Answer:
    assert isinstance(engine.pool, ThreadPool)
    pools = {"pool": numbers(pool.stats()), "orm": numbers(engine.pool.stats())}
    return "200 OK", {"worker": os.getpid(), "checkout": CHECKOUT, **pools}


def numbers(stats: Snapshot) -> dict[str, float]:
    return {
        "max_size": stats.max_size,
        "opened": stats.opened,
        "in_use": stats.in_use,
        "idle": stats.idle,
        "waiting": stats.waiting,
        "checkouts": stats.checkouts,
        "waits": stats.wait.count - stats.wait.counts[0],  # the first bucket holds those served within 0.1 ms
        "waited_seconds": round(stats.wait.total, 4),
        "timeouts": stats.timeouts,
        "refused": stats.refused,
    }


# WSGI -----------------------------------------------------------------------------------------------------------------

ROUTES: dict[tuple[str, str], Callable[[Query], Answer]] = {
    ("POST", "/transfer"): transfer,
    ("GET", "/assess"): assess,
    ("GET", "/report"): report,
    ("GET", "/statement"): statement,
    ("GET", "/health"): health,
    ("GET", "/audit"): audit,
}


def respond(method: str, path: str, query: Query) -> Answer:
    view = ROUTES.get((method, path))
    if view is None:
        return "404 Not Found", {"error": "no such page"}
    try:
        return view(query)
    except BadRequest as error:
        return "400 Bad Request", {"error": str(error)}


def bank(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
    status, answer = respond(environ["REQUEST_METHOD"], environ["PATH_INFO"], query)
    body = json.dumps(answer).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


# Each request is a scope: at its end whatever its thread still holds is given back. Where the pool, or the ORM's, has
# no connection the client gets a 503 and may come again; the log gets the reason, and the names of those who hold them.
application = PoolMiddleware(bank, pool)

# From the command line ------------------------------------------------------------------------------------------------


def init() -> None:
    drop()
    Base.metadata.create_all(engine)
    if SQLITE:
        with pool.scope():
            execute("PRAGMA journal_mode=WAL")  # readers and the writer do not block each other; the file remembers it
    with pool.transaction():
        for account in range(1, ACCOUNTS + 1):
            execute("INSERT INTO accounts (id, balance, score) VALUES (%s, %s, 0)", account, OPENING_BALANCE)


def drop() -> None:
    Base.metadata.drop_all(engine)


def main(arguments: list[str]) -> int:
    commands = {"init": init, "drop": drop}
    if len(arguments) != 1 or arguments[0] not in commands:
        print("usage: python app.py init | drop", file=sys.stderr)
        return 2
    try:
        execute("SELECT 1")
        commands[arguments[0]]()
    except (PoolError, DBAPIError) as error:
        # ConnectFailed has the driver's own error as its cause, SQLAlchemy's as `orig`: that is what the user can mend
        cause = getattr(error, "orig", None) or error.__cause__ or error
        print(f"{type(cause).__name__}: {str(cause).strip().splitlines()[0]}", file=sys.stderr)
        return 1
    finally:
        engine.dispose()
        pool.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
