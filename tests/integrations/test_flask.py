"""Does the Flask shop hold what its page says, on each database, with a real gunicorn and real clients?"""

from __future__ import annotations

import csv
import http.client
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.scene import background, join
from threadpool_db import create_pool

FOLDER = Path(__file__).resolve().parents[2] / "integrations" / "flask"
WORKERS, CONNECTIONS, WAITING, ITEMS, STOCK = 2, 2, 2, 20, 1000
LIMIT = 30.0

Answer = tuple[int, dict[str, str], str]


def database_url(url: str) -> str:
    """As the shop has it: writers of SQLite wait for each other."""
    return f"{url}?isolation_level=IMMEDIATE&timeout=15" if url.startswith("sqlite") else url


def environment(url: str, **options: Any) -> dict[str, str]:
    settings = {"URL": database_url(url), "MAX_SIZE": CONNECTIONS, **options}
    return {**os.environ, **{f"FLASK_THREADPOOL_DB_{name}": str(value) for name, value in settings.items()}}


def flask(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flask", *arguments]
    return subprocess.run(
        command, cwd=FOLDER, env=environment(url), capture_output=True, text=True, timeout=LIMIT, check=False
    )


class Shop:
    """A gunicorn in this folder, by its own configuration."""

    def __init__(self, url: str, log: Path, **options: Any) -> None:
        with socket.socket() as listener:  # gunicorn inherits it: nobody else can take the port meanwhile
            listener.bind(("127.0.0.1", 0))
            listener.listen(128)
            self.port = listener.getsockname()[1]
            with log.open("wb") as out:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}"],
                    cwd=FOLDER,
                    env=environment(url, **options),
                    pass_fds=[listener.fileno()],
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

    def ask(self, method: str, path: str, **form: Any) -> Answer:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)) as client:
            headers = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
            client.request(method, path, urlencode(form) or None, headers)
            answer = client.getresponse()
            return answer.status, dict(answer.headers), answer.read().decode()

    def told(self, path: str) -> Any:
        status, _, body = self.ask("GET", path)
        assert status == 200, body
        return json.loads(body)

    def workers(self, until: Callable[[dict[int, Any]], bool]) -> dict[int, Any]:
        """What each of them says of its pool, by its process."""
        deadline, seen = time.monotonic() + LIMIT, dict[int, Any]()
        while not (len(seen) == WORKERS and until(seen)):
            assert time.monotonic() < deadline, seen
            health = self.told("/health")
            seen[health["worker"]] = health
        return seen

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT)


@contextmanager
def running(url: str, log: Path, **options: Any) -> Iterator[Shop]:
    shop = Shop(url, log, **options)
    try:
        yield shop
    finally:
        if shop.process.poll() is None:
            os.killpg(shop.process.pid, signal.SIGKILL)
            shop.process.wait(LIMIT)


@contextmanager
def item_locked(url: str, item: int) -> Iterator[None]:
    """By somebody else: who orders it waits at the database, with a connection in hand."""
    with create_pool(database_url(url)) as other, other.transaction() as connection:
        sql = f"select stock from shop_items where id = {item}" + ("" if url.startswith("sqlite") else " for update")
        connection.cursor().execute(sql)
        yield


def go_away_in_the_middle(shop: Shop) -> None:
    with socket.create_connection(("127.0.0.1", shop.port), LIMIT) as client:
        client.sendall(b"GET /orders.csv HTTP/1.1\r\nHost: shop\r\n\r\n")
        assert client.recv(20)


@pytest.fixture
def app(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The shop in this process, with its tables made."""
    url = request.getfixturevalue("db_url") if "db_url" in request.fixturenames else f"sqlite:///{tmp_path}/shop.db"
    monkeypatch.setenv("FLASK_THREADPOOL_DB_URL", database_url(url))
    spec = importlib.util.spec_from_file_location("shop_app", FOLDER / "app.py")
    assert spec is not None and spec.loader is not None
    shop = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, shop)
    spec.loader.exec_module(shop)
    app = shop.create_app()
    assert app.test_cli_runner().invoke(args=["init-shop"]).exit_code == 0
    yield app
    assert app.test_cli_runner().invoke(args=["drop-shop"]).exit_code == 0
    with app.app_context():
        assert shop.pool.stats().in_use == 0
        shop.pool.close()


def test_the_shop_keeps_its_books_and_lets_go_of_every_connection(db_url: str, app: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running(db_url, log, TIMEOUT=LIMIT, MAX_WAITING=WAITING) as shop:
        serve_customers(shop)
        refuse_customers_politely(shop, db_url)
        shop.workers(lambda seen: all((one["in_use"], one["waiting"]) == (0, 0) for one in seen.values()))
        assert shop.stop() == 0
    text = log.read_text()
    assert re.search(r"POST '/orders': 503, pool '\w+': refused at once, 2 threads are waiting .*2 in use", text), text
    assert "Traceback" not in text and "RuntimeWarning" not in text, text


def serve_customers(shop: Shop) -> None:
    placed: list[int] = []

    def customer(number: int) -> None:
        for n in range(6):
            status, _, body = shop.ask("POST", "/orders", item=(number * 5 + n) % ITEMS + 1, quantity=n + 1)
            assert status == 201, body
            placed.append(n + 1)
            assert shop.ask("GET", f"/items/{n + 1}/quote")[0] == 200

    begin = time.monotonic()
    # so many that nobody is refused, should one worker get them all
    join(*(background(customer, number) for number in range(CONNECTIONS + WAITING)))
    assert time.monotonic() - begin < LIMIT
    for form, status in [
        ({"item": 1, "quantity": STOCK + 1}, 409),
        ({"item": ITEMS + 1, "quantity": 1}, 404),
        ({"item": 1}, 400),
    ]:
        assert shop.ask("POST", "/orders", **form)[0] == status
    assert shop.ask("GET", "/items/99/quote")[0] == 404
    status, headers, body = shop.ask("GET", "/orders.csv")
    assert (status, headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    rows = list(csv.DictReader(body.splitlines()))
    assert sorted(int(row["quantity"]) for row in rows) == sorted(placed)
    for _ in range(3):
        go_away_in_the_middle(shop)
    assert shop.told("/audit") == {"items_wrong": 0, "orders": len(placed)}


def refuse_customers_politely(shop: Shop, url: str) -> None:
    """Some wait for the lock, some for their connections; all others are told when to come again."""
    customers, most = 12, WORKERS * (CONNECTIONS + WAITING)
    before = shop.told("/audit")["orders"]
    refused: list[Answer] = []
    enough = threading.Event()

    def customer() -> int:
        answer = shop.ask("POST", "/orders", item=1, quantity=1)
        if answer[0] == 503:
            refused.append(answer)
            if len(refused) == customers - most:
                enough.set()
        return answer[0]

    with item_locked(url, 1):
        waiting = [background(customer) for _ in range(customers)]
        assert enough.wait(LIMIT)
    statuses = join(*waiting)
    assert set(statuses) == {201, 503} and statuses.count(503) >= customers - most
    for _, headers, body in refused:
        assert headers["Retry-After"] == "1" and "The shop is full" in body, "the app's own page"
    assert shop.told("/audit") == {"items_wrong": 0, "orders": before + statuses.count(201)}


def test_the_commands_know_the_shops_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    made = flask(url, "init-shop")
    assert made.returncode == 0, made.stderr
    checked = flask(url, "threadpool-db", "check")
    assert checked.returncode == 0, checked.stderr
    assert re.search(r"^write +ok", checked.stdout, re.M)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_export_of_several_pages_is_whole(app: Any, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["shop_app"], "PAGE", 3)
    client = app.test_client()
    for n in range(7):
        assert client.post("/orders", data={"item": n + 1, "quantity": 1}).status_code == 201
    text = client.open("/orders.csv", method=method).text
    assert text.count("\n") == (8 if method == "GET" else 0)
