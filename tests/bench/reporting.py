"""What do reports cost while nothing is to be reported? A pair with ``leak_after`` and ``inactive_after`` beside one
without, in multiples of the floor's.

They are meant to stay on. The limits are so short that the keeper comes by several times in each sample.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from tests.bench.contention import CONNECTIONS
from tests.bench.contestants import OURS, PATIENCE, Connect, Contestant, Noop, at_once, floor, invited, ours
from tests.bench.pairs import Pairs
from threadpool_db.config import PoolConfig
from threadpool_db.pool import ConnectionPool

REPORTING = f"{OURS}, with reports on"
REPORTS_LIMIT = 0.2  # times the floor


def ours_reporting(size: int, connect: Connect = at_once) -> Contestant:
    config = PoolConfig(max_size=size, timeout=PATIENCE, leak_after=0.2, inactive_after=0.1)
    pool = ConnectionPool(Noop(connect), config)
    return Contestant(REPORTING, pool, "pool.checkout()", "it.checkin()", pool.close)


class Reports(Pairs):
    def added(self) -> float:
        """Times the floor."""
        ratios = self.ratios()
        return ratios[REPORTING] - ratios[OURS]


@contextlib.contextmanager
def reports(say: Callable[[str], None]) -> Iterator[Reports]:
    with invited((floor, ours, ours_reporting), CONNECTIONS, say) as contestants:
        yield Reports(contestants)
