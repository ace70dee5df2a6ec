"""Does the app of many tenants keep its cap, serve a new one at once, and let go of all that a request touched?

Its demo asks and watches as a user would run it, with a real gunicorn, once on PostgreSQL itself and once behind the
PgBouncer of ../pgbouncer with that folder's own configuration. That it can fail is shown by an app which has lost its
scope and its cap.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.servers import PgBouncer, Postgres

FOLDER = Path(__file__).resolve().parents[2] / "integrations"
TENANTS, CAP, WORKERS, SECONDS = 12, 4, 2, 2.5


def demo(postgres: Postgres, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, FOLDER / "tenants" / "demo.py", "--tenants", str(TENANTS), "--seconds", str(SECONDS)]
    settings = {"DATABASE_URL": postgres.url, "CAP": str(CAP), "PYTHONWARNINGS": "ignore", **environment}
    ended = subprocess.run(
        [*command, *arguments], env=os.environ | settings, capture_output=True, text=True, timeout=50, check=False
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended


def test_the_cap_holds_a_new_tenant_is_served_at_once_and_nothing_stays_open(postgres: Postgres) -> None:
    pytest.importorskip("gunicorn")
    ended = demo(postgres)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = re.search(r"and ([\d,]+) that came meanwhile, ([\d,]+) requests.* at most (\d+) connections", ended.stdout)
    assert found is not None, ended.stdout
    came, requests, most = (int(number.replace(",", "")) for number in found.groups())
    assert came >= 1 and requests > 50 and CAP <= most <= WORKERS * CAP


@pytest.mark.proof
def test_an_app_without_its_scope_and_its_cap_is_found_out(postgres: Postgres, tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    (tmp_path / "broken.py").write_text(
        "from app import create_app\napp = create_app()\napp.wsgi_app = app.wsgi_app.app\n"
    )
    limit = str(WORKERS * CAP)
    ended = demo(postgres, "--app", "broken:app", "--sessions", limit, CAP="30", PYTHONPATH=str(tmp_path))
    assert ended.returncode == 1
    assert re.search(rf"demo: \d+ connections, more than {limit}$", ended.stderr, re.M), ended.stderr
    assert re.search(r"demo: \d+ sessions were left in a transaction", ended.stderr), ended.stderr


# Behind PgBouncer -----------------------------------------------------------------------------------------------------

SESSIONS = 6  # fewer than what the workers ask for, so that it has to evict


class Ours(PgBouncer):
    """By the file that users copy: only the places are this test's, and its cap."""

    def _configure(self, certificate: object) -> None:
        text = (FOLDER / "pgbouncer" / "pgbouncer.ini").read_text()
        for begin, value in (
            ("* = ", f"host={self.postgres.host} port={self.postgres.port}"),
            ("listen_port = ", self.port),
            ("max_user_connections = ", SESSIONS),
        ):
            text, times = re.subn(rf"^{re.escape(begin)}.*$", f"{begin}{value}", text, flags=re.M)
            assert times == 1, begin
        (self.folder / "pgbouncer.ini").write_text(text)
        shutil.copy(FOLDER / "pgbouncer" / "userlist.txt", self.folder)


@pytest.fixture
def pooler(postgres: Postgres) -> Iterator[PgBouncer]:
    require(PgBouncer)
    with Ours(postgres) as server:
        yield server


@pytest.mark.proof
def test_so_it_is_behind_pgbouncer_whose_own_cap_holds_over_all_databases(
    postgres: Postgres, pooler: PgBouncer
) -> None:
    pytest.importorskip("gunicorn")
    ended = demo(postgres, "--sessions", str(SESSIONS), DATABASE_URL=pooler.url, SERVER_URL=postgres.url, POOLER="1")
    assert ended.returncode == 0, ended.stdout + ended.stderr + pooler.log()[-2000:]
    assert "evicted" in pooler.log()
