"""What do the words of MySQL and MariaDB do to a session? A word that only one of them knows the other refuses."""

from __future__ import annotations

from itertools import pairwise

from threadpool_db.core.dialects.words import (
    ALIKE,
    NOTHING,
    UNKNOWN,
    Dialect,
    Finding,
    asks,
    calls,
    clean,
    create,
    dirty,
    dirty_by_name,
    name_at,
    start,
    verbs,
)

_SERVERS_OWN = frozenset(("GLOBAL", "PERSIST", "PERSIST_ONLY"))


def _set_mysql(tokens: list[str]) -> Finding:
    """Everything stays, SET LOCAL and SET TRANSACTION too, but what is set in the server alone."""
    names = [token for token in tokens[1:] if token not in ("@@", "SESSION", "LOCAL")]
    if "," not in tokens and names[:1] and (names[0] == "PASSWORD" or names[:2] == ["DEFAULT", "ROLE"]):
        return NOTHING
    plain = [token for token in tokens if token != "@@"]
    if all(following in _SERVERS_OWN for token, following in pairwise([*plain, ""]) if token in ("SET", ",")):
        return NOTHING
    if names[:1] == ["@"]:
        return Finding(dirty=f"SET @{name_at(names, 1).strip()}")
    return Finding(dirty="SET" + name_at([*names, ""], 1 if names[:1] == ["."] else 0))


def _show_mysql(tokens: list[str]) -> Finding:
    about = tokens[1] if len(tokens) > 1 else ""
    if about in ("WARNINGS", "ERRORS", "PROFILE", "PROFILES"):
        return Finding(asks=f"SHOW {about}")
    return Finding(asks="SHOW COUNT") if about == "COUNT" else NOTHING


def _flush(tokens: list[str]) -> Finding:
    if ("READ", "LOCK") in pairwise(tokens) or ("FOR", "EXPORT") in pairwise(tokens):
        return Finding(dirty="FLUSH TABLES")
    return NOTHING


def _load_mysql(tokens: list[str]) -> Finding:
    return Finding(dirty="LOAD into @variables") if "@" in tokens else NOTHING


def _xa(tokens: list[str]) -> Finding:
    return NOTHING if tokens[1:2] == ["RECOVER"] else Finding(dirty="XA")


def _drop_mysql(tokens: list[str]) -> Finding:
    return Finding(dirty="DROP PREPARE") if tokens[1:2] == ["PREPARE"] else _database(tokens)


def _create_mysql(tokens: list[str]) -> Finding:
    return _database([tokens[0], *tokens[3:]]) if tokens[1:3] == ["OR", "REPLACE"] else NOTHING


def _database(tokens: list[str]) -> Finding:
    """It may be the session's own, no text says so: after DROP and CREATE OR REPLACE the session is in no database any
    more, and ALTER changes its ``@@character_set_database``."""
    if tokens[1:2] in (["DATABASE"], ["SCHEMA"]):
        return Finding(dirty=f"{UNKNOWN}{tokens[0]} {tokens[1]}")
    return NOTHING


def _backup(tokens: list[str]) -> Finding:
    ends = tokens[1:] in (["UNLOCK"], ["STAGE", "END"])
    return Finding(asks=f"BACKUP {tokens[1]}") if ends else dirty_by_name(tokens)


def _get_diagnostics(tokens: list[str]) -> Finding:
    return Finding(dirty="GET DIAGNOSTICS", asks="GET DIAGNOSTICS")


_OF_LAST_STATEMENT = frozenset("WARNING_COUNT ERROR_COUNT IDENTITY LAST_INSERT_ID".split())
_READING_VARIABLES = frozenset("SELECT INSERT REPLACE UPDATE DELETE WITH VALUES TABLE ANALYZE EXPLAIN DO".split())


def _words_of_mysql(tokens: list[str]) -> Finding:
    """User variables, assigned or asked for; what the last statement left in @@variables; a sequence's last value."""
    found = NOTHING
    for at, (token, following) in enumerate(pairwise(tokens)):
        if token == ":=":
            return Finding(dirty="@variable :=")
        if token == "INTO" and following == "@":
            return Finding(dirty="INTO @variable")
        if token == "@@":
            name = tokens[at + 3] if following in ("SESSION", "LOCAL") and at + 3 < len(tokens) else following
            if name.strip("`") in _OF_LAST_STATEMENT:
                found = found.and_also(Finding(asks=f"@@{name.strip('`').lower()}"))
        elif token == "@" and tokens[0] in _READING_VARIABLES:
            found = found.and_also(Finding(asks=f"@{name_at(tokens, at + 1).strip()}"))
        elif token == "PREVIOUS" and following == "VALUE":
            found = found.and_also(Finding(asks="PREVIOUS VALUE"))
    return found


_called, _names = calls(
    "GET_LOCK SERVICE_GET_READ_LOCKS SERVICE_GET_WRITE_LOCKS "
    # of plugins: Version Tokens, the audit log's reader; and those who run a text, at another server or in an index
    "VERSION_TOKENS_LOCK_SHARED VERSION_TOKENS_LOCK_EXCLUSIVE AUDIT_LOG_READ "
    "SPIDER_DIRECT_SQL SPIDER_BG_DIRECT_SQL MROONGA_COMMAND",
    "LAST_INSERT_ID FOUND_ROWS ROW_COUNT LASTVAL RELEASE_LOCK RELEASE_ALL_LOCKS SERVICE_RELEASE_LOCKS "
    "VERSION_TOKENS_UNLOCK WSREP_LAST_WRITTEN_GTID",
)
MYSQL = Dialect(
    readings=("mysql",),
    verbs=verbs(
        f"{ALIKE[0]} REPLACE TABLE TRUNCATE GRANT REVOKE RENAME CHECK CHECKSUM OPTIMIZE REPAIR CACHE KILL HELP "
        "INSTALL UNINSTALL RESET PURGE CHANGE STOP SHUTDOWN SIGNAL RESIGNAL",
        **ALIKE[1] | {"CREATE": lambda tokens: create(tokens).and_also(_create_mysql(tokens))},
        SET=_set_mysql, SHOW=_show_mysql, FLUSH=_flush, LOAD=_load_mysql, XA=_xa, DROP=_drop_mysql,
        GET=_get_diagnostics, USE=dirty, LOCK=dirty_by_name, UNLOCK=asks, HANDLER=dirty, BACKUP=_backup,
        PREPARE=dirty, DEALLOCATE=dirty, EXECUTE=dirty, CALL=dirty, DO=clean, START=start, ALTER=_database,
    ),
    looks=(_called, _words_of_mysql),
    suspects=_names | {"@", "@@", ":=", "PREVIOUS"},
    openings=frozenset({"'", '"', "`", "/*"}),
)  # fmt: skip
