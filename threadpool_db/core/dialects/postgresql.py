"""What do PostgreSQL's words do to a session?"""

from __future__ import annotations

from itertools import pairwise

from threadpool_db.core.dialects.strangers import calls_a_stranger
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
from threadpool_db.core.tokens import cut, reading

_OPENINGS = frozenset({"'", '"', "/*", "$"})


def _set_postgresql(tokens: list[str]) -> Finding:
    if tokens[1:2] and tokens[1] in ("LOCAL", "TRANSACTION", "CONSTRAINTS"):
        # with a search_path of pg_temp every CREATE TABLE makes a temporary one
        return Finding(dirty="SET LOCAL pg_temp") if any("PG_TEMP" in token for token in tokens) else NOTHING
    session = tokens[1:2] == ["SESSION"] and tokens[2:3] not in (["CHARACTERISTICS"], ["AUTHORIZATION"])
    name = name_at(tokens, 2 if session else 1)
    return Finding(dirty=f"SET{name}", lasting=name == " seed")


def _prepare(tokens: list[str]) -> Finding:
    return Finding(ends=True) if tokens[1:2] == ["TRANSACTION"] else Finding(dirty="PREPARE")


def _discard(tokens: list[str]) -> Finding:
    return NOTHING if tokens[1:2] == ["PLANS"] else dirty_by_name(tokens)


def _declare(tokens: list[str]) -> Finding:
    before = tokens[: tokens.index("FOR")] if "FOR" in tokens else tokens
    return Finding(dirty="DECLARE WITH HOLD") if ("WITH", "HOLD") in pairwise(before) else NOTHING


def _create(tokens: list[str]) -> Finding:
    found = create(tokens, schema="PG_TEMP")
    return NOTHING if found.dirty and _ends_with_its_transaction(tokens) else found


def _ends_with_its_transaction(tokens: list[str]) -> bool:
    """A table ON COMMIT DROP; in autocommit it is gone at once. ON is reserved: these words stand nowhere else."""
    start = [word for word in tokens[:4] if word not in ("LOCAL", "GLOBAL")]
    return start[1:3] in (["TEMP", "TABLE"], ["TEMPORARY", "TABLE"]) and ("ON", "COMMIT", "DROP") in zip(
        tokens, tokens[1:], tokens[2:], strict=False
    )


def _do(tokens: list[str]) -> Finding:
    """A block of PL/pgSQL leaves nothing where none of its statements could, and none is made at run time.

    In another language, between plain quotes, or with a backslash in it, it is not read.
    """
    body = [token for token in tokens[1:] if token not in ("LANGUAGE", "PLPGSQL")]
    if len(body) != 1 or body[0][0] != "$" or body[0][-1] != "$" or len(body[0]) < 4 or "\\" in body[0]:
        return Finding(dirty="DO")
    tag = body[0].index("$", 1) + 1
    inner = cut(reading("postgresql", False, False), body[0][tag:-tag], _OPENINGS)
    begins = [following for token, following in pairwise([";", *inner]) if token in _BEFORE_STATEMENTS]
    if (
        not _OPENINGS.isdisjoint(inner[-1:])
        or not _LEAVING_ANYWHERE.isdisjoint(inner)
        or not _LEAVING_AS_VERBS.isdisjoint(begins)
    ):
        return Finding(dirty="DO")
    return _called(inner).and_also(_words_of_postgresql(inner))


_BEFORE_STATEMENTS = frozenset("; BEGIN THEN ELSE LOOP".split())
_LEAVING_AS_VERBS = frozenset(("SET", "DO"))  # elsewhere words of UPDATE and ON CONFLICT
_LEAVING_ANYWHERE = frozenset(
    "EXECUTE CALL RESET DISCARD LOAD LISTEN UNLISTEN PREPARE DEALLOCATE COMMIT ROLLBACK ABORT START TEMP TEMPORARY "
    "PG_TEMP".split()
)


def _words_of_postgresql(tokens: list[str]) -> Finding:
    """SELECT INTO TEMP; something made in pg_temp; UPDATE pg_settings, which is SET in disguise; escaped names."""
    for at, token in enumerate(tokens):
        if token in ("TEMP", "TEMPORARY"):
            into = at - 2 if tokens[at - 1] in ("LOCAL", "GLOBAL") else at - 1
            if tokens[into] == "INTO" and tokens[into - 1] not in ("INSERT", "MERGE"):
                return Finding(dirty="SELECT INTO TEMP")
        elif token == "PG_TEMP" and tokens[0] != "DROP" and (tokens[0] != "CREATE" or tokens[at + 1 : at + 2] != ["."]):
            return Finding(dirty="pg_temp")  # where CREATE makes something in it, create() says so
        elif token in ("PG_SETTINGS", '"PG_SETTINGS"') and "UPDATE" in tokens:
            return Finding(dirty="UPDATE pg_settings")
        elif token == "U&":
            return Finding(dirty='a name in U&""')
    return NOTHING


_called, _names = calls(
    "SET_CONFIG SET_LIMIT PG_ADVISORY_LOCK PG_ADVISORY_LOCK_SHARED PG_TRY_ADVISORY_LOCK PG_TRY_ADVISORY_LOCK_SHARED "
    # these run a text that they are given
    "QUERY_TO_XML QUERY_TO_XMLSCHEMA QUERY_TO_XML_AND_XMLSCHEMA TS_STAT TS_REWRITE "
    "CROSSTAB CROSSTAB2 CROSSTAB3 CROSSTAB4 CONNECTBY XPATH_TABLE",
    "LASTVAL CURRVAL PG_ADVISORY_UNLOCK PG_ADVISORY_UNLOCK_SHARED PG_ADVISORY_UNLOCK_ALL PG_STOP_BACKUP PG_BACKUP_STOP "
    "PG_REPLICATION_ORIGIN_SESSION_RESET PG_REPLICATION_ORIGIN_SESSION_PROGRESS "
    "PG_REPLICATION_ORIGIN_SESSION_IS_SETUP PG_REPLICATION_ORIGIN_XACT_SETUP "
    "DBLINK_DISCONNECT DBLINK_GET_CONNECTIONS DBLINK_OPEN DBLINK_FETCH DBLINK_CLOSE DBLINK_SEND_QUERY DBLINK_IS_BUSY "
    "DBLINK_GET_RESULT DBLINK_GET_NOTIFY DBLINK_CANCEL_QUERY DBLINK_ERROR_MESSAGE",
    # what DISCARD ALL does not know of
    "SETSEED DBLINK_CONNECT DBLINK_CONNECT_U PG_START_BACKUP PG_BACKUP_START PG_REPLICATION_ORIGIN_SESSION_SETUP "
    "PG_CREATE_PHYSICAL_REPLICATION_SLOT PG_CREATE_LOGICAL_REPLICATION_SLOT "
    "PG_COPY_PHYSICAL_REPLICATION_SLOT PG_COPY_LOGICAL_REPLICATION_SLOT",
)
POSTGRESQL = Dialect(
    readings=("postgresql",),
    verbs=verbs(
        f"{ALIKE[0]} MERGE TABLE SHOW ANALYSE VACUUM TRUNCATE GRANT REVOKE COMMENT COPY LOCK NOTIFY CLUSTER REINDEX "
        "REFRESH CHECKPOINT SECURITY REASSIGN IMPORT",
        **ALIKE[1] | {"CREATE": _create},
        SET=_set_postgresql, RESET=dirty_by_name, DISCARD=_discard, LOAD=dirty, LISTEN=dirty, UNLISTEN=dirty,
        PREPARE=_prepare, DEALLOCATE=dirty, EXECUTE=dirty, CALL=dirty, DO=_do, DECLARE=_declare,
        FETCH=asks, MOVE=asks, CLOSE=asks, START=start, END=end, ABORT=end,
    ),
    looks=(_called, _words_of_postgresql),
    suspects=_names | {"TEMP", "TEMPORARY", "PG_TEMP", "PG_SETTINGS", '"PG_SETTINGS"', "U&"},
    openings=_OPENINGS,
    strange=calls_a_stranger,
)  # fmt: skip
