"""Does SQLAlchemy's ORM notice the pool? A ledger under load: migrate, open accounts, work in threads, audit, clean up.

    python integrations/sqlalchemy/app.py                           # a temporary SQLite file
    python integrations/sqlalchemy/app.py --url postgresql://...    # or mysql://..., your own scratch database
    python integrations/sqlalchemy/app.py migrate --url ...         # only the tables; also: audit, drop

The app's code is in ledger.py and knows nothing of the pool: that is chosen by the URL, see ``pooled``. Exit status 0
means that no request failed, that the books balance, at every audit during the load too, and that they hold exactly
what was confirmed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from ledger import OPENING_BALANCE, PREFIX, Base, Ledger
from sqlalchemy import URL, Engine, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from threadpool_db.ext.sqlalchemy import ThreadPool

ACCOUNTS = 50
#: how often out of a hundred
MIX = {"transfer": 45, "pay": 15, "statement": 15, "balance": 20, "audit": 5}
DRIVERS = {"postgresql": "postgresql+psycopg2", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}


def pooled(url: URL, connections: int) -> URL:
    """The same URL, with the pool in it; what stands there already is left as it is."""
    options = {"plugin": "threadpool_db", "pool_size": str(connections), "max_overflow": "0", "pool_timeout": "10"}
    if url.get_backend_name() == "sqlite":
        options["timeout"] = "15"  # how long one writer waits for another
    return url.set(drivername=DRIVERS.get(url.drivername, url.drivername), query={**options, **url.query})


def make_engine(url: URL, connections: int) -> Engine:
    url = pooled(url, connections)
    if url.get_backend_name() == "sqlite":
        return create_engine(url)
    return create_engine(url, isolation_level="READ COMMITTED")


def migrate(engine: Engine) -> None:
    with engine.begin() as connection:
        command.upgrade(_alembic(connection), "head")


def drop(engine: Engine) -> None:
    """All of it, whatever an earlier run has left."""
    Base.metadata.drop_all(engine)
    with engine.begin() as connection:
        connection.execute(text(f"DROP TABLE IF EXISTS {PREFIX}version"))


def _alembic(connection: object) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    return config


class Failed(Exception):
    """The text is one line for the user."""


def check(books: dict[str, int]) -> None:
    right = {"money": ACCOUNTS * OPENING_BALANCE, "wrong_accounts": 0, "wrong_entries": 0}
    wrong = [f"{name} {books[name]}, not {value}" for name, value in right.items() if books[name] != value]
    if wrong:
        raise Failed(f"the books are wrong: {', '.join(wrong)}")


class Worker(threading.Thread):
    """Sends requests, each with a session of its own, until it is over for all of them."""

    def __init__(self, ledger: Ledger, seed: int, over: threading.Event) -> None:
        super().__init__(name=f"worker {seed}")
        self.ledger = ledger
        self.seconds: dict[str, list[float]] = {name: [] for name in MIX}
        self.confirmed = 0
        self.error: BaseException | None = None
        self._random = random.Random(seed)
        self._over = over

    def run(self) -> None:
        try:
            first = list(MIX)  # one of each, however short the run
            while first or not self._over.is_set():
                name = first.pop() if first else self._random.choices(list(MIX), list(MIX.values()))[0]
                begun = time.perf_counter()
                getattr(self, name)(*self._random.sample(range(1, ACCOUNTS + 1), 4))
                self.seconds[name].append(time.perf_counter() - begun)
        except BaseException as error:
            self.error = error
            self._over.set()

    def transfer(self, source: int, target: int, *others: int) -> None:
        self.confirmed += self.ledger.transfer(source, target, self._random.randint(1, OPENING_BALANCE // 4))

    def pay(self, source: int, *targets: int) -> None:
        payments = [(target, self._random.randint(1, OPENING_BALANCE)) for target in targets]
        self.confirmed += self.ledger.pay(source, payments)

    def statement(self, account: int, *others: int) -> None:
        self.ledger.statement(account, most=self._random.choice([None, 3]))

    def balance(self, account: int, *others: int) -> None:
        self.ledger.balance(account)

    def audit(self, *accounts: int) -> None:
        check(self.ledger.audit())


def run(ledger: Ledger, threads: int, seconds: float) -> None:
    drop(ledger.engine)
    migrate(ledger.engine)
    ledger.open_accounts(ACCOUNTS)
    over = threading.Event()
    workers = [Worker(ledger, seed, over) for seed in range(threads)]
    try:
        for worker in workers:
            worker.start()
        over.wait(seconds)
    finally:
        over.set()
        for worker in workers:
            if worker.ident is not None:
                worker.join()
    for worker in workers:
        if worker.error is not None:
            raise worker.error
    report(ledger.engine, workers, seconds)
    books = ledger.audit()
    check(books)
    confirmed = sum(worker.confirmed for worker in workers)
    if books["entries"] != confirmed:
        raise Failed(f"{confirmed} payments were confirmed, but {books['entries']} are in the books")
    print(f"the books balance: {books['money']:,} as at first, {confirmed:,} payments confirmed and all of them there")


def report(engine: Engine, workers: list[Worker], seconds: float) -> None:
    print("request        count    req/s   p50 ms   p99 ms")
    for name in MIX:
        took = sorted(second * 1e3 for worker in workers for second in worker.seconds[name])
        p50, p99 = (took[int(len(took) * share)] for share in (0.5, 0.99)) if took else (0, 0)
        print(f"{name:10} {len(took):9,} {len(took) / seconds:8,.0f} {p50:8.2f} {p99:8.2f}")
    print(engine.pool.status())
    if isinstance(engine.pool, ThreadPool):
        stats = engine.pool.stats()
        print(f"{stats.opened} opened, {stats.checkouts:,} checkouts, {stats.timeouts} timeouts, {stats.lost} lost")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", default="run", choices=("run", "migrate", "audit", "drop"))
    parser.add_argument("--url", help=f"a scratch database, for tables named {PREFIX}*; a temporary SQLite file")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--connections", type=int, default=4, help="pool_size, unless the URL says it")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--keep", action="store_true", help="leave the tables for a look at them")
    options = parser.parse_args(arguments)
    if options.command != "run" and not options.url:
        parser.error(f"{options.command} needs --url")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    with tempfile.TemporaryDirectory(prefix="threadpool-ledger-") as folder:
        try:
            url = make_url(options.url or f"sqlite:///{folder}/ledger.db")
            ledger = Ledger(make_engine(url, options.connections))
            try:
                carry_out(options, ledger)
            finally:
                ledger.engine.dispose()
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return 130
        except (Failed, SQLAlchemyError, TypeError, ValueError) as error:
            # the driver's own error is what the user can mend
            cause = getattr(error, "orig", None) or error
            print(f"ledger: {type(cause).__name__}: {str(cause).strip().splitlines()[0]}", file=sys.stderr)
            return 1
    return 0


def carry_out(options: argparse.Namespace, ledger: Ledger) -> None:
    engine = ledger.engine
    if options.command == "run":
        print(f"{engine.name}, {options.threads} threads, {options.seconds:g} s", flush=True)
        failure: BaseException | None = None
        try:
            run(ledger, options.threads, options.seconds)
        except BaseException as error:
            # a Ctrl-C may have struck in the middle of a transaction, and what its traceback knows still holds the lock
            failure = error.with_traceback(None)
        if not options.keep:
            drop(engine)
        if failure is not None:
            raise failure
    elif options.command == "audit":
        books = ledger.audit()
        print(books)
        check(books)
    else:
        {"migrate": migrate, "drop": drop}[options.command](engine)


if __name__ == "__main__":
    sys.exit(main())
