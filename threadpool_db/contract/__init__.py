"""Does a driver keep what the pool relies on? Every promise of ``drivers.base``, held against a real server.

    def test_the_driver_keeps_its_promises(server):
        prove(LineDriver(*server.address), Acts(use=lambda connection: connection.ask("PING"), ...))

``prove`` raises ``ContractBroken``, an AssertionError, with a line for each promise that is not kept. What a driver
does not claim, by a method of its own or a flag, is not asked of it; what it claims needs the acts that show it.
A promise goes by the server, and by the bytes on the wire, and never by how long a call took.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from threadpool_db.contract import ends, looks, sessions, transactions
from threadpool_db.contract.acts import Act, Acts
from threadpool_db.contract.bench import Bench, Broken, Misled, Promise
from threadpool_db.drivers.base import Driver

__all__ = ["Act", "Acts", "ContractBroken", "Promise", "promises", "prove"]

_PROMISES: tuple[Promise, ...] = (*ends.PROMISES, *looks.PROMISES, *transactions.PROMISES, *sessions.PROMISES)


class ContractBroken(AssertionError):
    """Some promise is not kept; ``broken`` has their names, and the first one's own error is the cause."""

    def __init__(self, driver: str, broken: dict[Promise, Exception], of: int) -> None:
        self.broken = tuple(promise.name for promise in broken)
        lines = [f"  {promise.name} ({promise.sentence}): {_says(error)}" for promise, error in broken.items()]
        super().__init__(f"the driver {driver!r} breaks {len(broken)} of its {of} promises:\n" + "\n".join(lines))


def promises(driver: Driver[Any]) -> list[Promise]:
    """What this driver claims to keep."""
    return [promise for promise in _PROMISES if promise.claimed(driver)]


def prove(driver: Driver[Any], acts: Acts, *, only: Collection[str] = ()) -> list[str]:
    """Hold a driver to all that it claims, or to the promises of these names. Returns the names of those it keeps.

    It opens and closes connections of its own, changes what ``acts`` change, and commits that. It takes some seconds,
    most of them for ``connect`` to give up.
    """
    bench = Bench(driver, acts)
    claimed = [promise for promise in promises(bench.driver) if not only or promise.name in only]
    if strangers := set(only) - {promise.name for promise in _PROMISES}:
        known = ", ".join(promise.name for promise in _PROMISES)
        raise ValueError(f"only names no promise {', '.join(sorted(strangers))}: there are {known}")
    missing = {promise: names for promise in claimed if (names := promise.missing(bench))}
    if missing:
        lines = [f"  {', '.join(names)}, for: {promise.sentence}" for promise, names in missing.items()]
        raise ValueError(f"the driver {driver.name!r} claims more than Acts can show; give\n" + "\n".join(lines))
    broken: dict[Promise, Exception] = {}
    for promise in claimed:
        try:
            promise.check(bench)
        except Misled:
            raise
        except Exception as error:
            broken[promise] = error
    if broken:
        raise ContractBroken(driver.name, broken, len(claimed)) from next(iter(broken.values()))
    return [promise.name for promise in claimed]


def _says(error: Exception) -> str:
    return str(error) if isinstance(error, Broken) else f"raised {type(error).__name__}: {error}"
