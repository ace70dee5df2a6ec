"""What did a statement answer? Its rows, read to the end, so that the connection can go back at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: In the driver's own style: ``?`` takes a sequence, ``%s`` too, named ones a mapping.
Parameters = Sequence[Any] | Mapping[str, Any]


class Result(list[Any]):
    """The rows of one statement, read to the end, with what its cursor said.

    ``rowcount`` as the driver counts, ``lastrowid`` where it has one, ``columns`` the names (empty for no rows).
    """

    __slots__ = ("columns", "lastrowid", "rowcount")

    def __init__(self, cursor: Any) -> None:
        described = cursor.description
        list.__init__(self, () if described is None else cursor.fetchall())  # super() costs a tenth of it all
        self.columns: tuple[str, ...] = () if described is None else tuple([column[0] for column in described])
        self.rowcount: int = cursor.rowcount
        self.lastrowid: Any = getattr(cursor, "lastrowid", None)


def run(connection: Any, sql: str, parameters: Parameters | None = None) -> Result:
    """One statement, through the connection's own kind of cursor."""
    cursor = connection.cursor()
    try:
        if parameters is None:
            cursor.execute(sql)
        else:
            cursor.execute(sql, parameters)
        pipeline = getattr(connection, "_pipeline", None)
        if pipeline is not None:
            pipeline.sync()  # psycopg, in a pipeline block: until then the cursor does not even know that it has rows
        return Result(cursor)
    finally:
        cursor.close()
