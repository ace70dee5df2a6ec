"""How does a test get a real gunicorn, and clients that know what became of each of their requests?

    with Gunicorn(tmp_path, url, workers=2, threads=8, preload_app=True) as gunicorn:
        with Clients(gunicorn, bank) as clients:
            clients.go_on(100)
            gunicorn.kill(worker)
        clients.assert_all_answered(except_of={worker})

It serves ``tests.faults.hosted``. Whatever is left of it at the end of the block is killed, by its process group.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.faults.bank import ACCOUNTS, OPENING_BALANCE, SOON, eventually

ROOT = Path(__file__).resolve().parents[2]
_ids = itertools.count(1)

HOOKS = "from threadpool_db.ext.gunicorn import post_worker_init, worker_exit\n"


class Gunicorn:
    """``config`` is the text of its configuration, by default our hooks; ``settings`` are added to it."""

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        options: dict[str, Any] | None = None,
        config: str = HOOKS,
        app: str = "tests.faults.hosted:application",
        environment: dict[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.log_file, self._begun = folder / "gunicorn.log", folder / "begun"
        self._begun.touch()
        self._settings = {"workers": 2, "threads": 4, "worker_class": "gthread", "graceful_timeout": 20, **settings}
        conf = folder / "gunicorn.conf.py"
        self._conf, self._head = conf, config
        self.configure()
        env = {**os.environ, "POOL_URL": url, "POOL_OPTIONS": json.dumps(options or {}), "BEGUN": str(self._begun)}
        # the kernel picks a port, and gunicorn inherits the listening socket: nobody can take it in between
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, open(self.log_file, "ab") as log:
            self.port: int = listener.getsockname()[1]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}", "-c", str(conf), app],
                cwd=ROOT,
                env=env | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )

    def configure(self, **settings: Any) -> None:
        """What it reads at its start, and at SIGHUP."""
        self._settings |= settings
        lines = "".join(f"{name} = {value!r}\n" for name, value in self._settings.items())
        self._conf.write_text(self._head + lines)

    def __enter__(self) -> Gunicorn:
        try:
            eventually(lambda: len(self.workers()) >= self._settings["workers"], "the workers are up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def workers(self) -> set[int]:
        """Those that live. The kernel forgets a child when the master has heard of its end."""
        assert self.process.poll() is None, self.log()
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.log()) if pid in children}

    def begun(self) -> dict[str, int]:
        """The requests that reached the app: their ids, and the worker that had each."""
        lines = [line.split() for line in self._begun.read_text().splitlines()]
        return {request: int(pid) for pid, request in lines if request != "-"}

    def ask(self, path: str, **query: Any) -> dict[str, Any]:
        status, answer = request(self.port, path, query)
        assert status == 200, f"{path}: {status}\n{self.log()[-3000:]}"
        found: dict[str, Any] = json.loads(answer)
        return found

    def ask_all(self, path: str) -> dict[int, dict[str, Any]]:
        """Each worker's answer. Who is asked is chance, so it is asked often."""
        answers: dict[int, dict[str, Any]] = {}

        def asked() -> bool:
            answer = self.ask(path)
            answers[answer["worker"]] = answer
            return self.workers() <= set(answers)

        eventually(asked, f"each worker has answered {path}", 30)
        return {pid: answers[pid] for pid in self.workers()}

    def reload(self) -> None:
        """SIGHUP, and until none of the old ones is left."""
        old = self.workers()
        self.process.send_signal(signal.SIGHUP)
        wanted = self._settings["workers"]
        eventually(
            lambda: not old & (now := self.workers()) and len(now) >= wanted, "only new workers are left", 2 * SOON
        )

    def kill(self, worker: int) -> None:
        """SIGKILL, and until another one is there in its place."""
        with contextlib.suppress(ProcessLookupError):  # it has come to its end by itself
            os.kill(worker, signal.SIGKILL)
        eventually(
            lambda: worker not in (now := self.workers()) and len(now) >= self._settings["workers"],
            "another worker is there",
        )

    def stop(self, how: signal.Signals = signal.SIGTERM, limit: float = 30) -> int:
        self.process.send_signal(how)
        return self.process.wait(limit)


def request(port: int, path: str, query: dict[str, Any]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", f"{path}?{urlencode(query)}", headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class Clients:
    """Threads that ask, one request after the other, until the block ends. ``rude``: some of them go away in the
    middle, and some ask for what fails.

    A request has its full right answer, or a failure that was asked for, or it is in ``lost``.
    """

    def __init__(self, gunicorn: Gunicorn, bank: Any, threads: int = 8, *, rude: bool = False, seed: int = 0) -> None:
        self._gunicorn, self._bank, self._rude = gunicorn, bank, rude
        self._changed = threading.Condition()
        self._stopping = False
        self.sent: Counter[str] = Counter()
        self.answered: set[str] = set()
        self.gone: set[str] = set()  # their clients did not stay for the answer
        self.wrong: list[str] = []
        self.lost: dict[str, str] = {}
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(f"{seed} {n}"),), daemon=True)
            for n in range(threads)
        ]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping = True
        until = time.monotonic() + 60
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0))
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"

    def go_on(self, count: int, seconds: float = 60) -> None:
        """Until so many more requests were sent."""
        with self._changed:
            most = sum(self.sent.values()) + count
            assert self._changed.wait_for(lambda: sum(self.sent.values()) >= most, seconds), self.sent

    def assert_all_answered(self, *, except_of: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        """Whatever reached the app has its full right answer. What a killed worker had in hand is lost with it."""
        assert self.wrong == [], (self.wrong[:5], self._gunicorn.log()[-3000:])
        begun = self._gunicorn.begun()
        lost = {one: why for one, why in self.lost.items() if one in begun and begun[one] not in except_of}
        assert lost == {}, (lost, self._gunicorn.log()[-3000:])

    # --- One request ------------------------------------------------------------------------------------------------

    def _run(self, dice: random.Random) -> None:
        while not self._stopping:
            name = f"{os.getpid()}-{next(_ids)}"
            kind, path, query = self._pick(dice, name)
            refused = False
            try:
                if kind in ("silent", "half", "leaves"):
                    self.gone.add(name)
                    self._go_away(kind, path, query)
                else:
                    status, body = request(self._gunicorn.port, path, query)
                    self._judge(kind, path, name, status, body)
            except (OSError, http.client.HTTPException) as error:
                refused = isinstance(error, ConnectionRefusedError)
                if kind != "breaks" and kind not in ("silent", "half", "leaves"):
                    self.lost[name] = f"{kind} {path}: {type(error).__name__}: {error}"
            with self._changed:
                self.sent[f"{kind} {path}"] += not refused
                self._changed.notify_all()
            if refused:
                return  # it has been told to stop

    def _pick(self, dice: random.Random, name: str) -> tuple[str, str, dict[str, Any]]:
        payer, payee = sorted(dice.sample(range(ACCOUNTS), 2))  # in one order, or two transfers could deadlock
        query = {"id": name, "receipt": name, "payer": payer, "payee": payee, "amount": dice.randint(-9, 9)}
        path = dice.choices(["/move", "/move-by-hand", "/stream", "/total"], [4, 3, 2, 3])[0]
        if not self._rude or dice.random() < 0.6:
            return "asks", path, query
        way = dice.choice(["fails", "breaks", "silent", "half", "leaves"])
        if way == "fails":
            return way, dice.choice(["/move", "/move-by-hand"]), query | {"fail": 1}
        if way == "breaks":
            return way, "/stream", query | {"fail": 1}
        return way, "/stream" if way == "leaves" else path, query

    def _judge(self, kind: str, path: str, name: str, status: int, body: bytes) -> None:
        if kind == "breaks":
            # the end of a body that breaks looks to the client like the end of a body, or like an error
            if b"receipt" in body:
                self.wrong.append(f"{path}: a body that breaks was sent to its end")
            return
        if kind == "fails":
            if status != 500:
                self.wrong.append(f"{path}: {status} for a view that raises")
            return
        if status != 200:
            self.wrong.append(f"{path}: {status} {body[:200]!r}")
            return
        if path == "/stream":
            if b"receipt" not in body[-200:]:
                self.lost[name] = f"{path}: a body without its end, {len(body)} bytes"
                return
            body = body[body.rindex(b"{") :]
        answer = json.loads(body)
        whole = ACCOUNTS * OPENING_BALANCE
        if answer.get("receipt") != name if path != "/total" else answer["total"] != [whole, whole]:
            self.wrong.append(f"{path}: {answer}")
            return
        self.answered.add(name)
        if path != "/total":
            self._bank.confirmed.append(name)

    def _go_away(self, kind: str, path: str, query: dict[str, Any]) -> None:
        """Without a word, in the middle of one's own request, or of the answer; with a reset, half of the time."""
        head = f"GET {path}?{urlencode(query)} HTTP/1.1\r\nHost: bank\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", self._gunicorn.port), 30) as client:
            client.settimeout(30)
            client.sendall(head[: len(head) // 2] if kind == "half" else head)
            if kind == "leaves":
                client.recv(1000)
            if query["amount"] % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
