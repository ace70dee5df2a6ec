"""What may a command of MySQL's protocol leave in its session? Judged where PyMySQL sends them all."""

from __future__ import annotations

import re
from typing import Any

from threadpool_db.core.statement import judge

COM_INIT_DB, COM_QUERY, COM_FIELD_LIST, COM_STATISTICS, COM_PING = 2, 3, 4, 9, 14
_LONGEST_READ = 4096
#: USE; what is about a database; and what runs a text of which nothing is seen. A version may stand before: /*!50000use
_MOVING = re.compile(r"(?<![^\W\d])(?:use|database|schema|execute|call)(?!\w)", re.ASCII | re.IGNORECASE)


def harmless(command: int, sql: Any, database: Any) -> bool:
    if command == COM_QUERY:
        return not judge(sql if isinstance(sql, str) else bytes(sql), "mysql").dirty
    if command == COM_INIT_DB:
        return bool(_encoded(sql) == _encoded(database))  # nothing has moved it yet, or nobody would ask
    return command in (COM_PING, COM_STATISTICS, COM_FIELD_LIST)


def may_move(command: int, sql: Any) -> bool:
    """May this lead a session to another database? Heard of those that are dirty anyway, so a yes is cheap."""
    if command != COM_QUERY:
        return command not in (COM_PING, COM_STATISTICS, COM_FIELD_LIST)
    text = sql if isinstance(sql, str) else bytes(sql).decode("latin-1")
    return len(text) > _LONGEST_READ or bool(_MOVING.search(text))


def _encoded(name: Any) -> Any:
    return name.encode() if isinstance(name, str) else name
