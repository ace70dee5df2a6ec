"""What if the server turns read-only under a running pool, and the writable one is somewhere else now?

A failover as most managed databases do it: the old primary refuses writes and keeps its sessions, a while later its
name leads to the new one. Whoever writes on an old connection learns of it once; the connection is given to nobody
again (``disconnect_on``), and all writes end up where they are taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.bank import USER, Bank, Load, Site, assert_nothing_lost, eventually
from tests.faults.meddler import Meddler

THREADS, SIZE = 8, 4


def turn(site: Site, read_only: bool) -> None:
    if site.postgresql:
        site.command(f"alter system set default_transaction_read_only = {'on' if read_only else 'off'}")
        site.command("select pg_reload_conf()")
        said = "show default_transaction_read_only"
        eventually(lambda: site.command(said) == [("on" if read_only else "off",)], "the new setting holds")
    else:
        site.command(f"set global read_only = {int(read_only)}")


@pytest.fixture
def other_bank(bank: Bank, request: pytest.FixtureRequest) -> Iterator[Bank]:
    """On another server of that kind, which takes writes."""
    server = request.getfixturevalue("postgres" if bank.site.postgresql else "mariadb")
    other = Bank(Site(server, tls=False))
    yield other
    eventually(lambda: not other.site.sessions(), "our sessions are gone")
    if bank.site.postgresql:
        other.site.command(f"drop owned by {USER}", "drop table account", "drop table receipt", f"drop role {USER}")
    else:
        other.site.command(f"drop user {USER}", "drop table account", "drop table receipt")


def refuses_writes(bank: Bank, error: BaseException | None) -> bool:
    # what is made of the error has it as its cause
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    code = getattr(error, "pgcode", None) if bank.site.postgresql else error.args[0] if error and error.args else None
    return code == "25006" if bank.site.postgresql else code == 1290


def test_after_a_failover_every_write_ends_up_at_the_server_that_takes_it(bank: Bank, other_bank: Bank) -> None:
    site, other = bank.site, other_bank
    with Meddler(site.server.port) as wire, site.pool(wire.port, max_size=SIZE) as pool:
        try:
            with Load(bank, pool, THREADS):
                pass
            # while nobody writes: MariaDB waits for who is in a statement, and he may wait for a row of somebody whose
            # commit waits for MariaDB
            turn(site, read_only=True)
            with Load(bank, pool, THREADS, warm=False) as load:
                load.wait_for(site.module.Error, 2 * SIZE)
                wire.lead_to(other.site.server.port)
                led = load.deeds[-1].over
                there = len(site.sessions())
                load.go_on(50)
                eventually(lambda: not site.sessions(), "nobody is at the old one any more")
                load.go_on(100)
        finally:
            turn(site, read_only=False)
        strange: list[Any] = [deed.error for deed in load.failures if not refuses_writes(bank, deed.error)]
        assert strange == []
        # each connection is an error to one; a few connects and operations were under way to the old one
        assert len([deed for deed in load.failures if deed.begun >= led]) <= there + pool._config.max_connecting
        on_record = {receipt for (receipt,) in site.command("select id from receipt")}
        other.confirmed += [receipt for receipt in bank.confirmed if receipt not in on_record]
        bank.confirmed = [receipt for receipt in bank.confirmed if receipt in on_record]
        assert other.confirmed
        bank.assert_balanced()
        assert_nothing_lost(other, pool)
