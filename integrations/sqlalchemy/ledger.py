"""What does an app's own code look like over the pool? As over any other: models, and one function for each request.

Money is moved by entries, whose lines add up to nothing; an account's balance is what its lines say, and never below
zero. ``audit`` looks whether all of that is so.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Connection, Engine, ForeignKey, MetaData, event, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

PREFIX = "threadpool_ledger_"
OPENING_BALANCE = 1_000

#: the level at which all of a report's statements see the same moment
SNAPSHOT = {"sqlite": "SERIALIZABLE", "postgresql": "REPEATABLE READ", "mysql": "REPEATABLE READ"}


class Base(DeclarativeBase):
    metadata = MetaData()


class Account(Base):
    __tablename__ = f"{PREFIX}accounts"
    __table_args__ = (CheckConstraint("balance >= 0", name=f"{PREFIX}accounts_not_overdrawn"),)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    balance: Mapped[int] = mapped_column(BigInteger)
    lines: Mapped[list[Line]] = relationship(back_populates="account", order_by="Line.id")


class Entry(Base):
    __tablename__ = f"{PREFIX}entries"
    id: Mapped[int] = mapped_column(primary_key=True)
    made: Mapped[datetime.datetime] = mapped_column(server_default=func.current_timestamp())
    lines: Mapped[list[Line]] = relationship(back_populates="entry", cascade="all, delete-orphan")


class Line(Base):
    __tablename__ = f"{PREFIX}lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    entry_id: Mapped[int] = mapped_column(ForeignKey(Entry.id), index=True)
    account_id: Mapped[int] = mapped_column(ForeignKey(Account.id), index=True)
    amount: Mapped[int] = mapped_column(BigInteger)
    entry: Mapped[Entry] = relationship(back_populates="lines")
    account: Mapped[Account] = relationship(back_populates="lines")


class Ledger:
    """The app: an engine, and three kinds of session over it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_on_sqlite)
        # All borrow from the one pool. SQLAlchemy sets a connection to the level when it is taken and puts it back when
        # it is returned: whoever has it next finds the engine's own.
        self.session = sessionmaker(engine.execution_options(writes=True))
        self.glance = sessionmaker(engine.execution_options(isolation_level="AUTOCOMMIT"))
        self.snapshot = sessionmaker(engine.execution_options(isolation_level=SNAPSHOT[engine.dialect.name]))

    def open_accounts(self, count: int) -> None:
        with self.session.begin() as session:
            session.add_all(Account(id=number, balance=OPENING_BALANCE) for number in range(1, count + 1))

    def transfer(self, source: int, target: int, amount: int) -> bool:
        """Move money, or find that there is not enough. What is confirmed here must be in the books at the end."""
        with self.session.begin() as session:
            accounts = self._lock(session, {source, target})
            if accounts[source].balance < amount:
                return False
            self._move(session, accounts[source], accounts[target], amount)
        return True

    def pay(self, source: int, payments: Sequence[tuple[int, int]]) -> int:
        """Several payments in one transaction, each in a savepoint: one that the database refuses takes no other with
        it. Returns how many were made.
        """
        made = 0
        with self.session.begin() as session:
            accounts = self._lock(session, {source, *(target for target, _ in payments)})
            for target, amount in payments:
                try:
                    with session.begin_nested():
                        self._move(session, accounts[source], accounts[target], amount)
                except DBAPIError as error:  # an IntegrityError, but from MariaDB an OperationalError
                    if "not_overdrawn" not in str(error.orig):
                        raise
                else:
                    made += 1
        return made

    def statement(self, account: int, most: int | None = None) -> tuple[int, int]:
        """How many lines an account has and what they come to, read as a stream: never more than fifty in memory.

        With ``most`` the reader leaves in the middle, as one whose client has gone: what is left of the stream is not
        the next borrower's.
        """
        lines = select(Line).where(Line.account_id == account).order_by(Line.id)
        count = total = 0
        with self.snapshot() as session:
            # Closed by whoever opened it: PyMySQL has to read what is left before the session's ROLLBACK can be sent.
            with closing(session.scalars(lines.execution_options(stream_results=True, yield_per=50))) as stream:
                for line in stream:
                    count, total = count + 1, total + line.amount
                    if count == most:
                        break
        return count, total

    def balance(self, account: int) -> int:
        """One statement needs no transaction, and so no round trip to end one."""
        with self.glance() as session:
            return session.scalars(select(Account.balance).where(Account.id == account)).one()

    def audit(self) -> dict[str, int]:
        """Four statements that see one moment, also while others write."""
        by_account = select(Line.account_id, func.sum(Line.amount).label("sum")).group_by(Line.account_id).subquery()
        by_entry = select(Line.entry_id).group_by(Line.entry_id).having(func.sum(Line.amount) != 0).subquery()
        expected = OPENING_BALANCE + func.coalesce(by_account.c.sum, 0)
        with self.snapshot() as session:
            money = session.scalar(select(func.sum(Account.balance)))
            wrong = (
                select(func.count()).select_from(Account).outerjoin(by_account, by_account.c.account_id == Account.id)
            )
            return {
                "money": int(money or 0),
                "wrong_accounts": session.scalar(wrong.where(Account.balance != expected)) or 0,
                "wrong_entries": session.scalar(select(func.count()).select_from(by_entry)) or 0,
                "entries": session.scalar(select(func.count()).select_from(Entry)) or 0,
            }

    def _lock(self, session: Session, numbers: set[int]) -> dict[int, Account]:
        # In the order of their numbers, so that two transactions wait for each other and never deadlock. SQLite has no
        # row locks, and SQLAlchemy leaves the words out there: the transaction has the file to itself.
        rows = select(Account).where(Account.id.in_(numbers)).order_by(Account.id).with_for_update()
        return {account.id: account for account in session.scalars(rows)}

    def _move(self, session: Session, source: Account, target: Account, amount: int) -> None:
        source.balance -= amount
        target.balance += amount
        session.add(Entry(lines=[Line(account=source, amount=-amount), Line(account=target, amount=amount)]))


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")  # readers and the writer do not block each other
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_on_sqlite(connection: Connection) -> None:
    """Python's sqlite3 begins a transaction only at the first write: too late for a snapshot or a savepoint, and a
    reader that becomes a writer may fail at once with "database is locked". IMMEDIATE waits, as ``timeout`` says.
    """
    options = connection.get_execution_options()
    if options.get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes") else "BEGIN")
