"""What do the two checkout policies do to a real app? Starts gunicorn with app.py, loads it, prints a table.

    make demo                                        on a temporary SQLite file
    DATABASE_URL=postgresql://... make demo          on your own server; two tables named threadpool_demo_* come and go

Each policy gets a fresh gunicorn, a fresh bank and the same clients: threads with a kept-alive connection each, and a
random but repeatable mix of requests. The exit status is 0 only if no request failed and no money was lost, 130 after
Ctrl-C. However it ends, gunicorn, the temporary files and the tables are gone afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
POLICIES = ("operation", "thread")
ACCOUNTS = 100
NEEDED = ("gunicorn", "sqlalchemy", "threadpool_db")

WORKERS = 2  # as gunicorn.conf.py says

START_LIMIT = 20.0
SECOND_WORKER_LIMIT = 5.0
STOP_LIMIT = 5.0
ANSWER_LIMIT = 20.0
LAST_ANSWER_LIMIT = 1.0


class Failed(Exception):
    """The demo cannot go on; the text is one line for the user."""


# Being stopped --------------------------------------------------------------------------------------------------------


class Stopped(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Patience:
    """Every wait of the main thread goes through ``pause``, so that a signal or the time limit ends it.

    A handler that raises could do so between the start of a process and the line that remembers it; this one only
    leaves a note.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.deadline = time.monotonic() + limit
        self.signal = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number

    def pause(self, seconds: float = 0.0) -> None:
        if self.signal:
            raise Stopped(self.signal)
        if time.monotonic() > self.deadline:
            raise Failed(f"not finished after {self.limit:g} s, given up")
        time.sleep(seconds)


# What is started, and how it ends -------------------------------------------------------------------------------------

# Waits at the end of a pipe. If the demo is killed outright the pipe breaks, and this shell cleans up after it.
GUARDIAN = 'read -r _ && exit; kill -s KILL -- "-$1" 2>/dev/null; rm -rf -- "$2"'


class Gunicorn:
    """A real one, in a session of its own: Ctrl-C reaches us, and we end all of it by its process group."""

    def __init__(self, environment: dict[str, str], folder: Path, patience: Patience) -> None:
        self._patience = patience
        self._log = folder / "gunicorn.log"
        # The kernel picks a free port, and gunicorn inherits the listening socket: nobody can take it in between.
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, open(self._log, "wb") as log:
            self.port: int = listener.getsockname()[1]
            bind = f"fd://{listener.fileno()}"
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--bind", bind, "--config", "gunicorn.conf.py"],
                cwd=HERE,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
        group = str(self._process.pid)
        self._guardian = subprocess.Popen(
            ["sh", "-c", GUARDIAN, "guardian", group, str(folder)], stdin=subprocess.PIPE, start_new_session=True
        )

    def wait_until_ready(self) -> None:
        """Until both workers have answered, or one has and the other has had its time: whoever is up first would get
        all the clients."""
        seen: set[int] = set()
        begun = time.monotonic()
        while len(seen) < WORKERS:
            waited = time.monotonic() - begun
            if self._process.poll() is not None:
                raise Failed(f"gunicorn ended at its start: {self.last_words()}")
            if seen and waited > SECOND_WORKER_LIMIT:
                return
            if waited > START_LIMIT:
                raise Failed(f"gunicorn did not answer within {START_LIMIT:g} s: {self.last_words()}")
            with contextlib.suppress(Failed), Client(self.port, timeout=1.0) as client:
                seen.add(client.fetch("/health")["worker"])
            self._patience.pause(0.02)

    def last_words(self) -> str:
        """The last line of its log that is neither a stack nor an announcement: the exception."""
        lines = self._log.read_text(errors="replace").split("\n")
        errors = [line for line in lines if line and not line.startswith((" ", "[", "(", "Traceback"))]
        return errors[-1] if errors else "its log says nothing"

    def stop(self) -> None:
        """Politely, then not: workers whose master was killed are in the same process group."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_LIMIT)
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._guardian.communicate(b"done\n")


def bank(command: str, environment: dict[str, str], patience: Patience | None = None) -> None:
    """``python app.py init`` or ``drop``; without ``patience`` nothing but its time limit ends it."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "app.py"), command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + START_LIMIT
    try:
        while process.poll() is None and time.monotonic() < deadline:
            patience.pause(0.02) if patience else time.sleep(0.02)
        if process.poll() is None:
            raise Failed(f"app.py {command} took longer than {START_LIMIT:g} s: is the database busy or locked?")
    finally:
        process.kill()
        _, errors = process.communicate()
    if process.returncode:
        last = errors.strip().split("\n")[-1]
        raise Failed(re.sub(r"^[\w.]+: ", "", last) or f"app.py {command} ended with {process.returncode}")


# The clients ----------------------------------------------------------------------------------------------------------


class Client:
    """One kept-alive HTTP connection."""

    def __init__(self, port: int, timeout: float = ANSWER_LIMIT) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def ask(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        self._connection.request(method, path)
        response = self._connection.getresponse()
        body = response.read()
        return response.status, json.loads(body) if response.headers.get_content_subtype() == "json" else {}

    def fetch(self, path: str) -> dict[str, Any]:
        """What must not fail."""
        try:
            status, answer = self.ask("GET", path)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Failed(f"gunicorn did not answer {path}: {type(error).__name__}: {error}") from error
        if status != 200:
            raise Failed(f"gunicorn answered {path} with status {status}")
        return answer

    def close(self) -> None:
        """The next request opens another one."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def pick(dice: random.Random) -> tuple[str, str]:
    """The next request: four in ten make the slow outside call, three move money, the rest reads."""
    account, other = dice.sample(range(1, ACCOUNTS + 1), 2)
    kind = dice.random()
    if kind < 0.4:
        return "GET", f"/assess?account={account}"
    if kind < 0.7:
        return "POST", f"/transfer?source={account}&target={other}&amount={dice.randint(1, 3000)}"
    if kind < 0.85:
        return "GET", f"/statement?account={account}"
    return "GET", "/report"


@dataclass(eq=False, repr=False)
class Work(threading.Thread):
    """One client's thread: asks until it is told to stop, and writes down what happened."""

    port: int
    seed: int
    stop: threading.Event
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    moved: int = 0
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(name=f"client-{self.seed}", daemon=True)
        self.client = Client(self.port)

    def run(self) -> None:
        dice = random.Random(self.seed)
        while not self.stop.is_set():
            method, path = pick(dice)
            started = time.perf_counter()
            try:
                status, answer = self.client.ask(method, path)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.errors.append(f"{method} {path}: {type(error).__name__}: {error}")
                self.client.close()
                self.stop.wait(0.05)
                continue
            self.statuses[status] += 1
            if status in (200, 409):  # 409: not enough money, the bank's rightful answer
                self.seconds.append(time.perf_counter() - started)
                self.moved += method == "POST" and status == 200
            elif status == 503:
                self.stop.wait(0.05)  # a client that is told to come again later does
            else:
                self.errors.append(f"{method} {path}: status {status} {answer.get('error', '')}")


# One policy -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    policy: str
    seconds: float
    latencies: list[float]
    refused: int
    errors: list[str]
    opened: int
    waits: int
    before: int
    after: int
    wrong: list[str]

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, percent: int) -> float:
        """In milliseconds."""
        if len(self.latencies) < 2:
            return 1000 * sum(self.latencies)
        return 1000 * statistics.quantiles(self.latencies, n=100, method="inclusive")[percent - 1]


def load(policy: str, gunicorn: Gunicorn, options: argparse.Namespace, patience: Patience) -> Outcome:
    """Let the clients loose on a gunicorn that is up, then ask it for its numbers and its books."""
    port = gunicorn.port
    with Client(port) as teller:
        before = teller.fetch("/audit")
    stop = threading.Event()
    clients = [Work(port, seed, stop) for seed in range(options.clients)]
    started = time.monotonic()
    try:
        for client in clients:
            client.start()
        while (elapsed := time.monotonic() - started) < options.seconds:
            show(policy, elapsed / options.seconds, sum(len(client.seconds) for client in clients))
            patience.pause(0.1)
        stop.set()
        for client in clients:
            while client.is_alive():
                patience.pause(0.005)
    except BaseException:
        stop.set()
        deadline = time.monotonic() + LAST_ANSWER_LIMIT
        while any(client.is_alive() for client in clients) and time.monotonic() < deadline:
            time.sleep(0.01)
        for client in clients:
            if not client.is_alive():
                client.client.close()  # or gunicorn, told to stop, would wait for another request on it
        raise
    elapsed = time.monotonic() - started
    # A kept-alive connection stays with one worker: asking on each of them finds every worker that did any work.
    pools: dict[tuple[int, str], dict[str, int]] = {}
    for client in clients:
        with client.client as connection:
            health = connection.fetch("/health")
            pools.update({(health["worker"], name): health[name] for name in ("pool", "orm")})
    with Client(port) as teller:
        after = teller.fetch("/audit")
    errors = [error for client in clients for error in client.errors]
    if errors:
        errors[0] += f" (gunicorn's last word: {gunicorn.last_words()})"
    moved, booked = sum(client.moved for client in clients), after["transfers"] - before["transfers"]
    wrong = []
    if after["money"] != before["money"]:
        wrong.append(f"the bank had {before['money']:,} and has {after['money']:,}")
    if after["accounts_wrong"]:
        wrong.append(f"{after['accounts_wrong']} balances do not agree with their transfers")
    if moved != booked:
        wrong.append(f"{moved:,} transfers were confirmed to clients, {booked:,} are in the books")
    return Outcome(
        policy,
        elapsed,
        sorted(second for client in clients for second in client.seconds),
        refused=sum(client.statuses[503] for client in clients),
        errors=errors,
        opened=sum(numbers["opened"] for numbers in pools.values()),
        waits=sum(numbers["waits"] for numbers in pools.values()),
        before=before["money"],
        after=after["money"],
        wrong=wrong,
    )


def try_policy(policy: str, options: argparse.Namespace, patience: Patience, folder: Path) -> Outcome:
    environment = {
        **os.environ,
        "DATABASE_URL": options.url or f"sqlite:///{folder / 'bank.db'}",
        "CHECKOUT": policy,
        "XDG_RUNTIME_DIR": str(folder),  # newer gunicorns put a control socket there
    }
    show(policy, 0, 0, "starting gunicorn")
    try:
        bank("init", environment, patience)
        gunicorn = Gunicorn(environment, folder, patience)
        try:
            gunicorn.wait_until_ready()
            return load(policy, gunicorn, options, patience)
        finally:
            gunicorn.stop()
    finally:
        clear_line()
        if options.url:
            with contextlib.suppress(Failed):  # it has been told already why there is no database
                bank("drop", environment)


# What the user sees ---------------------------------------------------------------------------------------------------

TERMINAL = sys.stdout.isatty()


def show(policy: str, done: float, requests: int, text: str = "") -> None:
    """A bar that moves on a terminal; elsewhere one line for each phase."""
    if TERMINAL:
        bar = "#" * round(30 * done)
        print(f"\r  {policy:10} [{bar:30}] {text or f'{requests:,} requests':20}", end="", flush=True)
    elif text:
        print(f"  {policy}: {text}, then its clients", flush=True)


def clear_line() -> None:
    if TERMINAL:
        print("\r\033[K", end="", flush=True)


COLUMNS = "policy requests req/s p50_ms p99_ms opened waits 503s errors money_before money_after".split()


def table(outcomes: list[Outcome]) -> Iterator[str]:
    rows = [tuple(name.replace("_", " ") for name in COLUMNS)]
    rows += [
        (
            outcome.policy,
            f"{len(outcome.latencies):,}",
            f"{outcome.rate:,.0f}",
            f"{outcome.percentile(50):.1f}",
            f"{outcome.percentile(99):.1f}",
            f"{outcome.opened}",
            f"{outcome.waits:,}",
            f"{outcome.refused:,}",
            f"{len(outcome.errors):,}",
            f"{outcome.before:,}",
            f"{outcome.after:,}",
        )
        for outcome in outcomes
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join([first.strip().ljust(widths[0]), *others])


def verdict(outcomes: list[Outcome]) -> bool:
    """Print what the table means; True if all went well."""
    print("\n".join(table(outcomes)))
    print()
    operation, thread = outcomes
    if thread.rate:
        print(f'"operation" served {operation.rate / thread.rate:.1f} times the requests of "thread":')
        print("it holds no connection while a request waits for somebody else's service.")
    faults = [f"{outcome.policy}: {fault}" for outcome in outcomes for fault in (*outcome.wrong, *outcome.errors[:3])]
    if not all(outcome.latencies for outcome in outcomes):
        faults.append("no request was served")
    for fault in faults:
        print(f"FAILED: {fault}")
    if not faults:
        print("No request failed, no money was lost: every confirmed transfer is in the books, once.")
    return not faults


def database_name(url: str | None) -> str:
    """Where the bank is, without user and password."""
    if not url:
        return "a temporary SQLite file"
    parts = urlsplit(url)
    return f"{parts.scheme.partition('+')[0]} at {parts.hostname or parts.path}"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A real gunicorn on a database through threadpool_db, twice.")
    parser.add_argument("--seconds", type=float, default=4.0, help="of load for each policy (4)")
    parser.add_argument("--clients", type=int, default=16, help="client threads (16)")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds after which it gives up (90)")
    options = parser.parse_args()
    if not (options.seconds > 0 and options.clients > 0 and options.limit > 0):
        parser.error("--seconds, --clients and --limit must be more than 0")
    options.url = os.environ.get("DATABASE_URL") or None
    return options


def main() -> int:
    options = parse_options()
    patience = Patience(options.limit)
    folder = Path(tempfile.mkdtemp(prefix="threadpool-demo-"))
    try:
        if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
            raise Failed(f"not installed here: {', '.join(missing)}; `make demo` installs what it needs")
        print(f"gunicorn, 2 workers with 8 threads and a pool of 4 each, on {database_name(options.url)};")
        print(f"{options.clients} clients, {options.seconds:g} s for each checkout policy", flush=True)
        outcomes = [try_policy(policy, options, patience, folder) for policy in POLICIES]
        print(flush=True)
        return 0 if verdict(outcomes) else 1
    except Stopped as stopped:
        print(f"stopped by {stopped}; everything it started is gone", file=sys.stderr)
        return 128 + stopped.number
    except Failed as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
