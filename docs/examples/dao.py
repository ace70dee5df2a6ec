"""A hand-written data access object: it knows PEP 249, and nothing of pools.

Give it ``pool.proxy()`` where it had ``sqlite3.connect(...)``, and every thread of the program may use the one object.
"""

from __future__ import annotations

from typing import Any


class Accounts:
    def __init__(self, connection: Any, mark: str = "?") -> None:
        self.connection = connection
        self.mark = mark  # how its module writes a value's place: "?" in sqlite3, "%s" in most others

    def execute(self, sql: str, *values: object) -> Any:
        cursor = self.connection.cursor()
        cursor.execute(sql.replace("?", self.mark), values)
        return cursor

    def open(self, name: str, money: int) -> None:
        with self.connection:  # commits, or rolls back on an error; the connection stays open
            self.execute("insert into account (name, money) values (?, ?)", name, money)

    def transfer(self, giver: str, taker: str, money: int) -> None:
        with self.connection:
            self.execute("update account set money = money + ? where name = ?", money, taker)
            taken = self.execute(
                "update account set money = money - ? where name = ? and money >= ?", money, giver, money
            )
            if taken.rowcount != 1:
                raise ValueError(f"{giver} does not have {money}")

    def balance(self, name: str) -> int | None:
        with self.connection:  # a question begins a transaction too, in most databases
            row = self.execute("select money from account where name = ?", name).fetchone()
        return None if row is None else int(row[0])
