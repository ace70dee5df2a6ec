"""May this statement run here? Not where what it leaves, or asks for, would be another session's.

Outside of whatever holds a connection the next operation may run on another one: what a statement leaves would be lost,
or somebody else's, and a question about an earlier one would get another session's answer.

PgBouncer, pgcat, Odyssey, RDS Proxy or ProxySQL, in transaction mode, give each transaction whichever server session is
free. So nothing that outlives a transaction is ours there. No pin and no lease helps, nor does a reset, which would
wipe a session that somebody else is using. What is left is to refuse beforehand, and to say what to do instead.
"""

from __future__ import annotations

from threadpool_db.core.statement import Judgement

#: verbs that may do anything, and often leave nothing
_OPAQUE = frozenset(("CALL", "DO", "EXECUTE"))
_INSTEAD = {
    "postgresql": "inside transaction() use SET LOCAL, set_config(..., true) or pg_advisory_xact_lock(); "
    "for good, ALTER ROLE ... SET",
    "mysql": "for one statement MariaDB has SET STATEMENT ... FOR; for good, set it at the server",
}


def without_session(judged: Judgement, in_scope: bool) -> str:
    """Why it may not be run where nothing holds a connection; nothing if it may. In a scope it pins one."""
    if judged.unknown:
        return ""  # the database will say what it thinks of it; the connection is reset afterwards
    if judged.asks_session:
        return (
            f"this statement ({judged.why}) asks the session about an earlier one, which may have run on another "
            "connection; run both inside connection(), transaction() or lease(), or use the result's lastrowid and "
            "rowcount"
        )
    if judged.dirty and not in_scope:
        return (
            f"this statement ({judged.why}) leaves something in the session, and nothing here outlives it (the next "
            "operation may run on another connection); run it inside scope(), connection(), transaction() or lease()"
        )
    return ""


def behind_pooler(judged: Judgement, dialect: str, in_transaction: bool) -> str:
    """Why it may not be run behind a transaction-mode pooler; nothing if it may."""
    if judged.dirty:
        may = judged.unknown or judged.why in _OPAQUE
        instead = _INSTEAD.get(dialect, "set it at the server")
        return (
            f"this statement ({judged.why}) {'may leave' if may else 'leaves'} something in the session, and behind a "
            "transaction-mode pooler (server_pooler=True) the session goes to another client after each transaction; "
            + ("if it surely leaves nothing, run it through a cursor in transaction()" if may else instead)
            + "; what needs a session needs a pool that goes straight to the server"
        )
    if judged.asks_session and not in_transaction:
        return (
            f"this statement ({judged.why}) asks the session about an earlier one, which behind a transaction-mode "
            "pooler (server_pooler=True) may have run in another session; run both inside one transaction(), or use "
            "RETURNING or the result's lastrowid and rowcount"
        )
    return ""
