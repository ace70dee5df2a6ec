"""Is what a dead thread kept given back while the pool is looked at from outside? Its cleaning takes time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.checkout import in_thread
from threadpool_db import Pool
from threadpool_db.drivers.base import TransactionState
from threadpool_db.drivers.sqlite import Sqlite
from threadpool_db.testing import Latch


class Slow(Sqlite):
    """Stands before a latch when it is asked for the state."""

    latch: Latch | None = None

    def state(self, connection: Any) -> TransactionState:
        if self.latch is not None:
            self.latch()
        return super().state(connection)


@pytest.mark.filterwarnings("ignore:.*was dropped without checkin")
def test_a_dead_threads_connection_is_not_lost_while_it_is_being_cleaned(tmp_path: Path) -> None:
    driver, latch = Slow({"database": str(tmp_path / "x.db")}), Latch()
    with Pool(driver, checkout="thread", max_size=1) as pool:
        in_thread(lambda: (pool.execute("select 1"), setattr(driver, "latch", latch)))
        latch.wait_for(1)  # a worker has read the note of the thread's end
        lost = max(pool.stats().lost for _ in range(2))  # an audit each
        driver.latch = None
        latch.open()
        assert lost == 0
        pool.execute("select 1")
        assert pool.stats().opened == 1
