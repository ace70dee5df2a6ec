"""What do PostgreSQL's words do to a session?"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from threadpool_db.core.dialects.words import (
    ALIKE,
    NOTHING,
    Dialect,
    Finding,
    asks,
    calls,
    create,
    dirty,
    dirty_by_name,
    end,
    name_at,
    start,
    verbs,
)


def _set_postgresql(tokens: list[str]) -> Finding:
    if tokens[1:2] and tokens[1] in ("LOCAL", "TRANSACTION", "CONSTRAINTS"):
        # with a search_path of pg_temp every CREATE TABLE makes a temporary one
        return Finding(dirty="SET LOCAL pg_temp") if any("PG_TEMP" in token for token in tokens) else NOTHING
    session = tokens[1:2] == ["SESSION"] and tokens[2:3] not in (["CHARACTERISTICS"], ["AUTHORIZATION"])
    return Finding(dirty="SET" + name_at(tokens, 2 if session else 1))


def _prepare(tokens: list[str]) -> Finding:
    return Finding(ends=True) if tokens[1:2] == ["TRANSACTION"] else Finding(dirty="PREPARE")


def _declare(tokens: list[str]) -> Finding:
    before = tokens[: tokens.index("FOR")] if "FOR" in tokens else tokens
    return Finding(dirty="DECLARE WITH HOLD") if ("WITH", "HOLD") in pairwise(before) else NOTHING


def _words_of_postgresql(tokens: list[str]) -> Finding:
    """SELECT INTO TEMP; something created in pg_temp; UPDATE pg_settings, which is SET in disguise; escaped names."""
    for at, token in enumerate(tokens):
        if token in ("TEMP", "TEMPORARY"):
            into = at - 2 if tokens[at - 1] in ("LOCAL", "GLOBAL") else at - 1
            if tokens[into] == "INTO" and tokens[into - 1] not in ("INSERT", "MERGE"):
                return Finding(dirty="SELECT INTO TEMP")
        elif token in ("PG_TEMP", '"PG_TEMP"') and tokens[at + 1 : at + 2] == ["."]:
            return Finding(dirty="pg_temp")
        elif token in ("PG_SETTINGS", '"PG_SETTINGS"') and "UPDATE" in tokens:
            return Finding(dirty="UPDATE pg_settings")
        elif token == "U&":
            return Finding(dirty='a name in U&""')
    return NOTHING


_called, _names = calls(
    "SET_CONFIG SETSEED SET_LIMIT DBLINK_CONNECT DBLINK_CONNECT_U PG_START_BACKUP PG_BACKUP_START "
    "PG_ADVISORY_LOCK PG_ADVISORY_LOCK_SHARED PG_TRY_ADVISORY_LOCK PG_TRY_ADVISORY_LOCK_SHARED "
    "PG_REPLICATION_ORIGIN_SESSION_SETUP PG_CREATE_PHYSICAL_REPLICATION_SLOT PG_CREATE_LOGICAL_REPLICATION_SLOT "
    "PG_COPY_PHYSICAL_REPLICATION_SLOT PG_COPY_LOGICAL_REPLICATION_SLOT "
    # these run a text that they are given
    "QUERY_TO_XML QUERY_TO_XMLSCHEMA QUERY_TO_XML_AND_XMLSCHEMA TS_STAT",
    "LASTVAL CURRVAL PG_ADVISORY_UNLOCK PG_ADVISORY_UNLOCK_SHARED PG_ADVISORY_UNLOCK_ALL PG_STOP_BACKUP PG_BACKUP_STOP",
)
POSTGRESQL = Dialect(
    readings=("postgresql",),
    verbs=verbs(
        f"{ALIKE[0]} MERGE TABLE SHOW ANALYSE VACUUM TRUNCATE GRANT REVOKE COMMENT COPY LOCK NOTIFY CLUSTER REINDEX "
        "REFRESH CHECKPOINT SECURITY REASSIGN IMPORT",
        **ALIKE[1] | {"CREATE": partial(create, schema="PG_TEMP")},
        SET=_set_postgresql, RESET=dirty_by_name, DISCARD=dirty_by_name, LOAD=dirty, LISTEN=dirty, UNLISTEN=dirty,
        PREPARE=_prepare, DEALLOCATE=dirty, EXECUTE=dirty, CALL=dirty, DO=dirty, DECLARE=_declare,
        FETCH=asks, MOVE=asks, CLOSE=asks, START=start, END=end, ABORT=end,
    ),
    looks=(_called, _words_of_postgresql),
    suspects=_names | {"TEMP", "TEMPORARY", "PG_TEMP", '"PG_TEMP"', "PG_SETTINGS", '"PG_SETTINGS"', "U&"},
    openings=frozenset({"'", '"', "/*", "$"}),
)  # fmt: skip
