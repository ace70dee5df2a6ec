"""How long does ``execute`` keep a connection under ``checkout="operation"``? For one operation.

A view that calls the outside world between two queries holds nothing meanwhile. Only a pin keeps the connection: an
open transaction, or, inside a scope, something left in the session.
"""

from __future__ import annotations

from threadpool_db.checkout.pin import Hold


def keeps(hold: Hold) -> bool:
    """After an operation, outside any transaction and any block: does the thread keep the lease?"""
    return hold.kept
