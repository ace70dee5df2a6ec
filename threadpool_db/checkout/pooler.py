"""What may be said through a transaction-mode pooler? Whatever is over with its transaction.

PgBouncer, pgcat, Odyssey, RDS Proxy or ProxySQL give each transaction whichever server session is free. So nothing that
outlives a transaction is ours: what a statement leaves in a session another client would meet, and what it asks of the
session may be about another client's statement. No pin and no lease helps, nor does a reset, which would wipe a session
that somebody else is using. What is left is to refuse beforehand, and to say what to do instead.
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


def refusal(judged: Judgement, dialect: str, in_transaction: bool) -> str:
    """Why this statement may not be run; nothing if it may."""
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
