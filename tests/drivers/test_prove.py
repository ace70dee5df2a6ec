"""Do the drivers that are here keep the contract, by the proof that strangers use?"""

from __future__ import annotations

from tests.drivers.proving import acts_for
from threadpool_db.contract import promises, prove
from threadpool_db.drivers.choose import driver_for


def test_a_driver_of_ours_is_proved(any_db_url: str) -> None:
    driver = driver_for(any_db_url)
    with acts_for(any_db_url, driver) as acts:
        kept = prove(driver, acts)
    assert kept == [promise.name for promise in promises(driver)]
