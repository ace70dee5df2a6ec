"""What does an operation cost besides its statement? ``execute`` beside the driver's own cursor, and judgement alone.

*adds*      ``pool.execute("select 1")`` less a bare cursor's execute and fetchall, on a connection of the same driver
            in the same mode: in pairs, of what a checkout and checkin of this pool cost in the same run
*judged*    a statement that was judged before, as a multiple of the floor's pair

Over SQLite, which answers in this process within a microsecond: what a server's answer takes varies by more than all
that is measured here.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator

from tests.bench.contention import CONNECTIONS
from tests.bench.contestants import OURS, Contestant, floor, invited, ours
from tests.bench.pairs import Pairs
from threadpool_db import create_pool
from threadpool_db.core.statement import judge

Say = Callable[[str], None]

OPERATION, JUDGEMENT = "operation", "judgement"
BARE, EXECUTE, AGAIN = "a bare cursor", "execute()", "a statement judged before"
ADDED_LIMIT = 3.0  # pairs
JUDGEMENT_LIMIT = 0.5  # times the floor

_BARE = """
cursor = pool.cursor()
try:
    cursor.execute("select 1")
    cursor.fetchall()
finally:
    cursor.close()
"""
_STATEMENT = (
    "select a.id, a.balance, b.name from accounts a join branches b on b.id = a.branch "
    "where a.owner = %s and a.balance > %s order by a.opened desc limit 50"
)


class Operations(Pairs):
    def added(self) -> float:
        """By ``execute``, in pairs."""
        costs = self.microseconds()
        return (costs[EXECUTE] - costs[BARE]) / costs[OURS]

    def judged(self) -> float:
        """Times the floor."""
        return self.ratios()[AGAIN]

    def sections(self) -> dict[str, dict[str, dict[str, float]]]:
        costs = self.microseconds()
        return {
            OPERATION: {
                BARE: {"added": 0.0, "microseconds": costs[BARE]},
                EXECUTE: {"added": self.added(), "microseconds": costs[EXECUTE]},
            },
            JUDGEMENT: {AGAIN: {"ratio": self.judged(), "microseconds": costs[AGAIN]}},
        }


@contextlib.contextmanager
def operations(say: Say) -> Iterator[Operations]:
    with contextlib.ExitStack() as open_ones:
        enter = open_ones.enter_context
        racers = enter(invited((floor, ours), CONNECTIONS, say))
        # the mode of execute: out of it the driver would spend its time on transactions
        url = f"sqlite:///{enter(tempfile.TemporaryDirectory())}/bench.db"
        pool = enter(create_pool(url, max_size=CONNECTIONS, autocommit=True))
        bare = pool.checkout().detach()
        open_ones.callback(bare.close)
        racers.append(Contestant(BARE, bare, "", "", block=_BARE))
        racers.append(Contestant(EXECUTE, pool, "", "", block="pool.execute('select 1')"))
        racers.append(Contestant(AGAIN, judge, "", "", block=f"pool({_STATEMENT!r}, 'postgresql')"))
        yield Operations(racers)
