"""A hand-written data access object: it knows PEP 249, and nothing of pools.

Give it ``pool.proxy()`` where it had ``sqlite3.connect(...)``, and every thread of the program may use the one object.
"""

from __future__ import annotations

from typing import Any


class Accounts:
    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def open(self, name: str, money: int) -> None:
        with self.connection:  # commits, or rolls back on an error; the connection stays open
            self.connection.cursor().execute("insert into account (name, money) values (?, ?)", (name, money))

    def transfer(self, giver: str, taker: str, money: int) -> None:
        with self.connection:
            cursor = self.connection.cursor()
            cursor.execute("update account set money = money + ? where name = ?", (money, taker))
            cursor.execute("update account set money = money - ? where name = ? and money >= ?", (money, giver, money))
            if cursor.rowcount != 1:
                raise ValueError(f"{giver} does not have {money}")

    def balance(self, name: str) -> int | None:
        cursor = self.connection.cursor()
        cursor.execute("select money from account where name = ?", (name,))
        row = cursor.fetchone()
        return None if row is None else int(row[0])
