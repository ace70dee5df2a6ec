"""Who is told what the pool does, and under which name? Observers, called outside its lock, and the log.

Nothing is reported for an ordinary checkout and checkin: that path has no callback at all. Numbers for it are in
``pool.stats()``.
"""

from __future__ import annotations

import itertools
import logging
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger("threadpool_db")
logger.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Event:
    """Something the pool did.

    ``kind`` is one of ``connected``, ``connect_failed``, ``disconnected`` (exactly one for each ``connected``),
    ``dead`` (found dead before a borrower got it), ``lost`` (a lease was dropped without checkin), ``expired`` (taken
    away at ``max_lease``), ``leftover`` (something was left in a session that the pool cannot wipe, see
    ``server_pooler``), ``leak`` and ``inactive`` (held for too long, or without being used), ``returned`` (the end of a
    use of which one of these two was told), ``pinned`` (once for each statement that makes per-operation checkout hold
    a connection until its scope ends), ``refused``, ``replaced`` (a hook answered REPLACE), ``hook_failed`` (one raised
    or hung, and nobody else gets that error).
    ``seconds`` is how long it took, or had been held; ``detail`` a sentence for people, without secrets.
    """

    kind: str
    pool: str
    seconds: float = 0.0
    detail: str = ""
    error: BaseException | None = None


Observer = Callable[[Event], None]

_LEVELS = {
    **dict.fromkeys(("connect_failed", "lost", "expired", "leftover", "leak", "inactive", "pinned"), logging.WARNING),
    **dict.fromkeys(("hook_failed",), logging.WARNING),
    **dict.fromkeys(("dead", "refused", "replaced", "returned"), logging.INFO),
}


class Observers:
    """Tells the log and every observer; one that raises is logged and costs nobody anything."""

    def __init__(self, pool: str, observers: Iterable[Observer]) -> None:
        self._pool = pool
        self._observers = tuple(observers)
        self._log = logger.getChild(pool)

    def tell(self, kind: str, seconds: float = 0.0, detail: str = "", error: BaseException | None = None) -> None:
        event = Event(kind, self._pool, seconds, detail, error)
        self._log.log(
            _LEVELS.get(kind, logging.DEBUG),
            "pool %s: %s%s%s",
            self._pool,
            kind.replace("_", " "),
            f": {detail}" if detail else "",
            f" ({type(error).__name__})" if error is not None else "",
            extra={"pool": self._pool, "event": kind},
        )
        for observer in self._observers:
            try:
                observer(event)
            except Exception:
                self._log.exception("pool %s: an observer of %s raised", self._pool, kind)


_owners: dict[str, weakref.ref[Any]] = {}


def claim_name(owner: object, wanted: str | None, automatic: str) -> str:
    """A name that no other living pool of this process has: metrics and logs are told apart by it.

    An automatic one gets a suffix; an explicit duplicate is a ValueError.
    """
    mine = weakref.ref(owner)
    names = (automatic if n == 1 else f"{automatic}-{n}" for n in itertools.count(1))
    while True:
        name = wanted if wanted is not None else next(names)
        held = _owners.setdefault(name, mine)
        if held is not mine and held() is None:
            held = _owners[name] = mine
        if held is mine:
            return name
        if wanted is not None:
            raise ValueError(f"name={wanted!r}: another open pool of this process has that name; leave name out")


def release_name(name: str, owner: object) -> None:
    held = _owners.get(name)
    if held is not None and held() is owner:
        del _owners[name]
