"""Who is told what the pool does, and under which name? Observers, called outside its lock, and the log.

Nothing is reported for an ordinary checkout and checkin: that path has no callback at all. Numbers for it are in
``pool.stats()``.
"""

from __future__ import annotations

import itertools
import logging
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from threadpool_db.logbook import LEVELS, Logbook

logger = logging.getLogger("threadpool_db")
logger.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Event:
    """Something the pool did.

    ``kind`` says what, ``seconds`` how long something took or lasted, ``detail`` is a sentence for people, without
    secrets, and ``error`` what caused it. Whoever keeps an error keeps all that the frames of its traceback refer to.

    =================== =============================================================== ===============================
    kind                what happened                                                   seconds
    =================== =============================================================== ===============================
    ``connected``       a connection was opened                                         the connect took
    ``connect_failed``  a connect failed, or was given up (``error``)                   it took until then
    ``disconnected``    it is the pool's no longer: closed (``error``: the close        since it was opened
                        failed), or detached; exactly one for each ``connected``
    ``dead``            found dead before a borrower got it                             since its last use
    ``reset``           what a borrower had left in its session was wiped               the reset took
    ``refused``         a checkout ended with PoolTimeout, PoolOverloaded or            its borrower had waited
                        PoolUnavailable (``error``)
    ``lost``            a lease was dropped without checkin                             since its checkout
    ``expired``         a lease was taken away at ``max_lease``                         it was in use
    ``leak``            a lease is in use for longer than ``leak_after``                it is in use
    ``inactive``        nothing was said on it for longer than ``inactive_after``       it has been silent
    ``returned``        the end of a use of which one of these two was told             it was in use
    ``leftover``        something was left in a session that the pool cannot wipe, see  since its checkout
                        ``server_pooler``
    ``replaced``        the hook ``on_checkout`` or ``on_checkin`` answered REPLACE    the hook took
    ``hook_failed``     a hook raised or hung, and nobody else gets that error          the hook took
    ``pinned``          once for each statement that makes per-operation checkout hold  0
                        a connection until its scope ends
    ``unavailable``     nothing is connected, connects have failed for ``grace``: from  since the first failure
                        now on everybody is refused at once; once for each outage
    ``available``       the first connect after that succeeded                          since the first failure
    ``alarm``           see ``Alarm``; ``detail`` begins with its kind and a colon      the trouble has lasted so far
    ``cleared``         the same, over                                                  the trouble lasted
    =================== =============================================================== ===============================

    A child that forks off is told nothing of the connections that it forgets, and a pool that is dropped without
    ``close`` tells nothing any more.
    """

    kind: str
    pool: str
    seconds: float = 0.0
    detail: str = ""
    error: BaseException | None = None


@dataclass(frozen=True)
class Alarm:
    """What ``on_alarm`` and ``on_clear`` are called with. ``kind`` is ``overload``: at each look for an interval the
    first in line had waited for a target; or ``unreachable``: connections that were wanted could not be made.
    ``seconds``: the trouble has lasted so far, or had lasted until it was over."""

    kind: str
    pool: str
    seconds: float
    detail: str


Observer = Callable[[Event], None]
AlarmHook = Callable[[Alarm], object]


class Observers:
    """Tells the log and every observer; one that raises is logged and costs nobody anything."""

    def __init__(
        self, pool: str, observers: Iterable[Observer], now: Callable[[], float] = time.monotonic, log: str = ""
    ) -> None:
        self._pool = pool
        self._observers = tuple(observers)
        its_log = logger.getChild(log or pool)
        self._enabled_for = its_log.isEnabledFor
        self._log = Logbook(its_log, pool, now)

    def follow(self, observers: Iterable[Observer]) -> None:
        """Tell these from now on."""
        self._observers = tuple(observers)

    def tell(self, kind: str, seconds: float = 0.0, detail: str = "", error: BaseException | None = None) -> None:
        level = LEVELS.get(kind, logging.DEBUG)
        if self._enabled_for(level):
            self._log.event(kind, level, detail, error)
        if not self._observers:
            return
        event = Event(kind, self._pool, seconds, detail, error)
        for observer in self._observers:
            try:
                observer(event)
            except Exception:
                self._log.raised(f"an observer of {kind}")

    def alarm(self, alarm: Alarm, on: bool, hook: AlarmHook | None) -> None:
        """In a worker: it may block."""
        self.tell("alarm" if on else "cleared", alarm.seconds, f"{alarm.kind}: {alarm.detail}")
        if hook is not None:
            try:
                hook(alarm)
            except Exception:
                self._log.raised("on_alarm" if on else "on_clear")

    def close(self) -> None:
        """Nothing more is to come: say what the log still owes."""
        self._log.tell_of_more()


_owners: dict[str, weakref.ref[Any]] = {}


def claim_name(owner: object, wanted: str | None, automatic: str) -> str:
    """A name that no other living pool of this process has: metrics and logs are told apart by it.

    An automatic one gets a suffix; an explicit duplicate is a ValueError.
    """
    mine = weakref.ref(owner, lambda gone: _owners.pop(name, None) if _owners.get(name) is gone else None)
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
