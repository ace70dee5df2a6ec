"""What do the words of SQL do to a session? The tables behind ``statement.judge``, one for each dialect."""

from __future__ import annotations

from threadpool_db.core.dialects.mysql import MYSQL
from threadpool_db.core.dialects.postgresql import POSTGRESQL
from threadpool_db.core.dialects.sqlite import SQLITE
from threadpool_db.core.dialects.words import Dialect, Rule


def _any(*dialects: Dialect) -> Dialect:
    """Who knows which: every reading, and each verb by the rules of all who know it."""
    verbs: dict[str, tuple[Rule, ...]] = {}
    for dialect in dialects:
        for verb, rules in dialect.verbs.items():
            verbs[verb] = (*verbs.get(verb, ()), *rules)
    return Dialect(
        tuple(reading for dialect in dialects for reading in dialect.readings),
        verbs,
        tuple(look for dialect in dialects for look in dialect.looks),
        frozenset().union(*(dialect.suspects for dialect in dialects)),
        frozenset({"'", '"', "/*"}),
    )


DIALECTS = {
    "postgresql": POSTGRESQL,
    "mysql": MYSQL,
    "sqlite": SQLITE,
    "": _any(POSTGRESQL, MYSQL, SQLITE),
}
