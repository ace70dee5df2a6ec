"""What does the pool send to a server on its own account? Nothing: counted to the byte, beside the bare driver."""

from __future__ import annotations

import importlib

import pytest

from tests.drivers import ask
from threadpool_db import create_pool

CALLS = 1000
STATEMENT = "select 1 + 1"
#: psycopg prepares what it has seen five times, and from then on sends less
WARM_UP = 10


class Wire:
    """One kind of server behind a proxy that counts, and the driver that talks to it."""

    def __init__(self, driver, server, proxy):
        self.proxy = proxy(server.port)
        self.driver = driver

    def url(self, **options):
        query = "&".join(f"{name}={value}" for name, value in options.items())
        place = "mysql+{}://root@{}/test?{}" if self.driver == "pymysql" else "postgresql+{}://postgres@{}/postgres?{}"
        return place.format(self.driver, self.proxy.address, query)

    def bare(self):
        """The driver's own connection, in autocommit."""
        if self.driver != "pymysql":
            module = importlib.import_module(self.driver)
            connection = module.connect(host=self.proxy.host, port=self.proxy.port, user="postgres")
            connection.autocommit = True
            return connection
        import pymysql

        return pymysql.connect(
            host=self.proxy.host, port=self.proxy.port, user="root", database="test", autocommit=True, ssl_disabled=True
        )

    def cost(self, action):
        """Connections made, bytes sent and bytes received by that many calls of it."""
        before = self.proxy.traffic
        for _ in range(CALLS):
            action()
        after = self.proxy.traffic
        return (
            after.accepted - before.accepted,
            after.to_server - before.to_server,
            after.to_client - before.to_client,
        )

    def bare_cost(self):
        connection = self.bare()
        warm_up(lambda: ask(connection, STATEMENT))
        cost = self.cost(lambda: ask(connection, STATEMENT))
        connection.close()
        assert cost[0] == 0 and cost[1] > CALLS * len(STATEMENT)
        return cost


@pytest.fixture(params=["psycopg2", "psycopg", "pymysql"])
def wire(request, proxy):
    pytest.importorskip(request.param)
    server = request.getfixturevalue("mariadb" if request.param == "pymysql" else "postgres")
    return Wire(request.param, server, proxy)


def warm_up(action):
    for _ in range(WARM_UP):
        action()


@pytest.mark.parametrize("policy", ["operation", "thread"])
def test_execute_sends_the_callers_statement_and_not_a_byte_more(wire, policy):
    with create_pool(wire.url(), checkout=policy) as pool:
        warm_up(lambda: pool.execute(STATEMENT))
        assert wire.cost(lambda: pool.execute(STATEMENT)) == wire.bare_cost()
        pool.release()


def test_a_checkout_of_a_connection_made_in_autocommit_sends_only_what_the_borrower_does(wire):
    def visit():
        with pool.checkout() as connection:
            ask(connection, STATEMENT)

    with create_pool(wire.url(autocommit="true")) as pool:
        warm_up(visit)
        assert wire.cost(visit) == wire.bare_cost()


def test_a_checkout_without_a_statement_sends_nothing_at_all(wire):
    with create_pool(wire.url()) as pool:
        pool.checkout().checkin()
        assert wire.cost(lambda: pool.checkout().checkin()) == (0, 0, 0)


def test_operations_inside_one_block_send_nothing_more_than_the_block(wire):
    with create_pool(wire.url(autocommit="true")) as pool, pool.connection():
        warm_up(lambda: pool.execute(STATEMENT))
        assert wire.cost(lambda: pool.execute(STATEMENT)) == wire.bare_cost()
