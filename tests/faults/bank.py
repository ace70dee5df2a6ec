"""How does a test know that nothing was lost? By a bank, whose money is counted, and one check after every disaster.

    bank = Bank(site)
    with site.pool(max_size=4) as pool:
        with Load(bank, pool, threads=12) as load:
            ...                                     # break something
        assert load.failures == []
        assert_nothing_lost(bank, pool)

A ``Site`` is a private server as this application sees it: through TLS or not, straight or through a proxy. The pool
logs in as a user of its own, so the server's session list says which sessions are the pool's.
"""

from __future__ import annotations

import importlib
import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tests.drivers import ask
from tests.servers import Postgres, Server
from threadpool_db import PoolError, create_pool

USER = "the_pool"
ACCOUNTS = 40
OPENING_BALANCE = 100
#: Real seconds that a server may take for what it must do at once.
SOON = 15.0
_numbers = itertools.count(1)


def eventually(question: Callable[[], Any], what: str, seconds: float = SOON) -> Any:
    """Ask a real server until the answer is yes."""
    until = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < until, f"not within {seconds:g} s: {what}"
        time.sleep(0.005)
    return answer


# The place ------------------------------------------------------------------------------------------------------------


class Site:
    """A private server, reached plainly or through TLS; by psycopg2 or PyMySQL, if not by the driver named."""

    def __init__(self, server: Server, *, tls: bool, driver: str = "") -> None:
        self.server = server
        self.tls = tls
        self.postgresql = isinstance(server, Postgres)
        self.module: Any = importlib.import_module(driver or ("psycopg2" if self.postgresql else "pymysql"))
        self.scheme = ("postgresql" if self.postgresql else "mysql") + (f"+{driver}" if driver else "")
        self.session = "select pg_backend_pid()" if self.postgresql else "select connection_id()"
        self.shortest_connect = 2.0 if self.postgresql else 0.5  # libpq knows no shorter limit
        self.nap = "select pg_sleep(60)" if self.postgresql else "select sleep(60)"

    def url(self, port: int | None = None) -> str:
        address = f"{USER}@{self.server.host}:{port or self.server.port}"
        if self.postgresql:
            return f"{self.scheme}://{address}/postgres?sslmode={'require' if self.tls else 'disable'}"
        return f"{self.scheme}://{address}/test?{'ssl=true' if self.tls else 'ssl_disabled=true'}"

    def pool(self, port: int | None = None, **options: Any) -> Any:
        return create_pool(self.url(port), **options)

    def socket(self, connection: Any) -> int:
        descriptor: int = (connection if self.postgresql else connection._sock).fileno()
        return descriptor

    def command(self, *statements: str) -> Any:
        """Have the superuser run statements, each committed at once; the last one's rows."""
        with closing(eventually(self._log_in, "the superuser is let in")) as boss:
            for statement in statements:
                rows = ask(boss, statement)
        return rows

    def _log_in(self) -> Any:
        place = {"host": self.server.host, "port": self.server.port}
        if self.postgresql:
            boss = self.module.connect(user="postgres", dbname="postgres", sslmode="disable", **place)
            boss.autocommit = True
            return boss
        try:
            return self.module.connect(user="root", database="test", autocommit=True, ssl_disabled=True, **place)
        except self.module.Error as error:
            if error.args[0] != 1040:  # too many connections: the last superuser has not quite gone yet
                raise
            return None

    def create_user(self) -> None:
        if self.postgresql:
            if not self.command(f"select 1 from pg_roles where rolname = '{USER}'"):
                self.command(f"create role {USER} login")
        else:
            self.command(f"create user if not exists {USER}", f"grant all on test.* to {USER}")

    def sessions(self) -> dict[int, bool]:
        """Our user's sessions as the server knows them, and which of them are in a transaction."""
        if self.postgresql:
            rows = self.command(f"select pid, xact_start is not null from pg_stat_activity where usename = '{USER}'")
        else:
            rows = self.command(
                # InnoDB copies its list of transactions at a look, and shows that copy for as long as looks come
                # within 0.1 s of each other: who polls faster than that never sees it change
                "do sleep(0.11)",
                "select p.id, t.trx_id is not null from information_schema.processlist p "
                f"left join information_schema.innodb_trx t on t.trx_mysql_thread_id = p.id where p.user = '{USER}'",
            )
        return {session: bool(busy) for session, busy in rows}

    def kill(self, *sessions: int) -> None:
        """End sessions, and wait until the server has forgotten them."""
        for session in sessions:
            if self.postgresql:
                self.command(f"select pg_terminate_backend({session})")
            else:
                try:
                    self.command(f"kill {session}")
                except self.module.Error as error:
                    if error.args[0] != 1094:  # no such session: it ended by itself
                        raise
        eventually(lambda: not set(sessions) & set(self.sessions()), "killed sessions are gone")

    def running(self, sql: str) -> list[int]:
        """The sessions of ours that are in the middle of this statement."""
        rows = self.command(
            f"select pid from pg_stat_activity where usename = '{USER}' and state = 'active' and query = '{sql}'"
            if self.postgresql
            else f"select id from information_schema.processlist where user = '{USER}' and info = '{sql}'"
        )
        return [session for (session,) in rows]


# The bank -------------------------------------------------------------------------------------------------------------


class Bank:
    """Accounts, and a receipt for each transfer, written in the same transaction.

    A transfer that was confirmed is on record, one on record moved its money, and no money comes from nowhere. Of one
    that failed nobody knows, if it failed at its commit.
    """

    def __init__(self, site: Site, *, fresh: bool = True) -> None:
        self.site = site
        self.confirmed: list[str] = []  # receipts; list.append is one step for every thread
        if fresh:
            site.create_user()
            accounts = ", ".join(f"({number}, {OPENING_BALANCE})" for number in range(ACCOUNTS))
            site.command(
                "drop table if exists account",
                "drop table if exists receipt",
                "create table account (id integer primary key, balance integer)",
                "create table receipt (id varchar(40) primary key, payer integer, payee integer, amount integer)",
                f"insert into account values {accounts}",
                f"grant all on account to {USER}",
                f"grant all on receipt to {USER}",
            )

    def operate(self, pool: Any, dice: random.Random) -> None:
        """One thing that a program does; whatever is wrong with its answer is an AssertionError."""
        way = dice.random()
        if way < 0.5:
            self.transfer(pool, dice)
        elif way < 0.65:
            self.transfer_by_hand(pool, dice)
        elif way < 0.9:
            [(total,)] = pool.execute("select sum(balance) from account")
            assert total == ACCOUNTS * OPENING_BALANCE
        else:
            with pool.checkout() as connection:
                ((total,),) = ask(connection, "select sum(balance) from account")
                assert total == ACCOUNTS * OPENING_BALANCE

    def transfer(self, pool: Any, dice: random.Random) -> None:
        receipt, statements = self._order(dice)
        with pool.transaction() as connection, closing(connection.cursor()) as cursor:
            for sql, parameters in statements:
                cursor.execute(sql, parameters)
        self.confirmed.append(receipt)

    def transfer_by_hand(self, pool: Any, dice: random.Random) -> None:
        """A hand-written BEGIN, and each statement an operation of its own."""
        receipt, statements = self._order(dice)
        with pool.scope():
            pool.execute("begin")
            for sql, parameters in statements:
                pool.execute(sql, parameters)
            pool.execute("commit")
        self.confirmed.append(receipt)

    def _order(self, dice: random.Random) -> tuple[str, list[tuple[str, tuple[Any, ...]]]]:
        payer, payee = sorted(dice.sample(range(ACCOUNTS), 2))  # in one order, or two transfers could deadlock
        amount = dice.randint(-9, 9)
        receipt = f"{os.getpid()}-{next(_numbers)}"
        return receipt, [
            ("update account set balance = balance - %s where id = %s", (amount, payer)),
            ("update account set balance = balance + %s where id = %s", (amount, payee)),
            ("insert into receipt values (%s, %s, %s, %s)", (receipt, payer, payee, amount)),
        ]

    def assert_balanced(self) -> None:
        balances = dict(self.site.command("select id, balance from account"))
        receipts = self.site.command("select id, payer, payee, amount from receipt")
        assert sum(balances.values()) == ACCOUNTS * OPENING_BALANCE
        expected = dict.fromkeys(range(ACCOUNTS), OPENING_BALANCE)
        for _, payer, payee, amount in receipts:
            expected[payer] -= amount
            expected[payee] += amount
        assert balances == expected
        assert set(self.confirmed) <= {receipt for receipt, *_ in receipts}


@dataclass(frozen=True)
class Deed:
    """One operation: when it was begun and over, what it ended with, and for how long its thread had the processor."""

    begun: float
    over: float
    error: BaseException | None
    worked: float


class Load:
    """Threads that use the bank, one operation after the other, until the block ends.

    ``breath``: seconds after a failure, in which a web server's thread would write its 503.
    """

    def __init__(self, bank: Bank, pool: Any, threads: int = 12, *, warm: bool = True, breath: float = 0.0) -> None:
        self._bank, self._pool, self._warm, self._breath = bank, pool, warm, breath
        self._changed = threading.Condition()
        self._stopping = False
        self.deeds: list[Deed] = []
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        if self._warm:
            self.go_on()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping = True
        until = time.monotonic() + 40
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0))
        assert not any(thread.is_alive() for thread in self._threads), "threads of the load hang"

    def _run(self, number: int) -> None:
        dice = random.Random(number)
        while not self._stopping:
            error: BaseException | None = None
            begun, worked = time.monotonic(), time.thread_time()
            try:
                self._bank.operate(self._pool, dice)
            except BaseException as failure:
                error = failure.with_traceback(None)
            deed = Deed(begun, time.monotonic(), error, time.thread_time() - worked)
            with self._changed:
                self.deeds.append(deed)
                self._changed.notify_all()
            if error is not None and self._breath:
                time.sleep(self._breath)

    def go_on(self, count: int = 100) -> None:
        """Until so many operations that begin from now on have succeeded."""
        now, seen, done = time.monotonic(), len(self.deeds), 0

        def enough() -> bool:
            nonlocal seen, done
            fresh = self.deeds[seen:]
            seen += len(fresh)
            done += sum(1 for deed in fresh if deed.error is None and deed.begun >= now)
            return done >= count

        with self._changed:
            assert self._changed.wait_for(enough, 30), f"{done} operations in 30 s; the last: {self.deeds[-3:]}"

    def wait_for(self, kind: type[BaseException], count: int = 1, begun: float = 0.0) -> None:
        """Until so many operations that began at ``begun`` or later have ended with such an error."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: sum(isinstance(deed.error, kind) and deed.begun >= begun for deed in self.deeds) >= count, 30
            ), f"no {count} times {kind.__name__}; the last: {self.deeds[-3:]}"

    @property
    def failures(self) -> list[Deed]:
        return [deed for deed in self.deeds if deed.error is not None]


# The check ------------------------------------------------------------------------------------------------------------


def tried(pool: Any) -> BaseException | None:
    try:
        pool.execute("select 1")
    except Exception as error:
        return error
    return None


def meet_all(site: Site, pool: Any, size: int) -> dict[int, int]:
    """Hold as many connections as there may be, all at once, and use each; their sessions and sockets."""
    leases = [pool.checkout(timeout=SOON) for _ in range(size)]
    sessions = {ask(lease.connection, site.session)[0][0]: site.socket(lease.connection) for lease in leases}
    assert pool.stats().in_use == pool.stats().total == len(sessions) == size
    for lease in leases:
        lease.checkin()
    return sessions


def assert_nothing_lost(bank: Bank, pool: Any, size: int | None = None) -> None:
    """Nobody holds or waits, every slot is of use, the server knows our connections and no others, none of them is in
    a transaction, and the bank is balanced. ``size``: how many connections the server allows, if not ``max_size``."""
    site = bank.site
    sizes = size or int(pool.stats().max_size)
    eventually(lambda: pool.stats().in_use == 0, "nobody holds a connection")
    sessions = meet_all(site, pool, sizes)
    stats = pool.stats()
    assert (stats.in_use, stats.waiting, stats.counts.opening, stats.counts.closing) == (0, 0, 0, 0)
    assert stats.idle == stats.total == sizes
    assert stats.opened - stats.closures == sizes
    expected = dict.fromkeys(sessions, False)
    eventually(lambda: site.sessions() == expected, f"the server's sessions are the pool's, idle: {expected}")
    bank.assert_balanced()


def assert_failed_by_the_driver(site: Site, deeds: list[Deed]) -> None:
    """What these operations ended with is the database driver's own error."""
    strange = [deed.error for deed in deeds if isinstance(deed.error, PoolError) or not is_drivers(site, deed.error)]
    assert strange == []


def is_drivers(site: Site, error: BaseException | None) -> bool:
    return isinstance(error, site.module.Error)


class Watcher:
    """An observer that counts events, and waits for some."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.seen: Counter[str] = Counter()

    def __call__(self, event: Any) -> None:
        with self._changed:
            self.seen[event.kind] += 1
            self._changed.notify_all()

    def wait_for(self, kind: str, count: int = 1) -> None:
        """Until there have been so many of them, all in all."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.seen[kind] >= count, 30), f"of {count} {kind}: {self.seen}"
