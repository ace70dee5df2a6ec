"""How long does ``execute`` keep a connection under ``checkout="thread"``? Until the thread lets go of it.

ActiveRecord's sticky lease: the first operation borrows, and the thread keeps the connection until ``release()``, the
end of its scope or its own end. Nobody takes it away: a session's state stays where the thread left it.
"""

from __future__ import annotations

from threadpool_db.checkout.pin import Hold


def keeps(hold: Hold) -> bool:
    """After an operation, outside any transaction and any block: does the thread keep the lease? Always."""
    hold.sticky = True
    return True
