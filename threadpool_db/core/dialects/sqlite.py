"""What do SQLite's words do to a session, which is a connection there?"""

from __future__ import annotations

from functools import partial

from threadpool_db.core.dialects.words import (
    ALIKE,
    NOTHING,
    Dialect,
    Finding,
    calls,
    create,
    dirty,
    end,
    name_at,
    verbs,
)

_READING_PRAGMAS = frozenset(
    "TABLE_INFO TABLE_XINFO TABLE_LIST INDEX_LIST INDEX_INFO INDEX_XINFO FOREIGN_KEY_LIST FOREIGN_KEY_CHECK "
    "INTEGRITY_CHECK QUICK_CHECK WAL_CHECKPOINT OPTIMIZE INCREMENTAL_VACUUM USER_VERSION APPLICATION_ID".split()
)


def _pragma(tokens: list[str]) -> Finding:
    """One that only reads, or writes into the database, stays nowhere."""
    at = 3 if tokens[2:3] == ["."] else 1
    if tokens[at + 1 :] and tokens[at].strip('"`[]') not in _READING_PRAGMAS:
        return Finding(dirty="PRAGMA" + name_at(tokens, at))
    return NOTHING


_called, _names = calls("LOAD_EXTENSION FTS3_TOKENIZER", "CHANGES TOTAL_CHANGES LAST_INSERT_ROWID")
SQLITE = Dialect(
    readings=("sqlite",),
    verbs=verbs(
        f"{ALIKE[0]} REPLACE REINDEX VACUUM",
        **ALIKE[1] | {"CREATE": partial(create, schema="TEMP")},
        PRAGMA=_pragma, ATTACH=dirty, DETACH=dirty, END=end,
    ),
    looks=(_called,),
    suspects=_names,
    openings=frozenset({"'", '"', "`"}),
)  # fmt: skip
