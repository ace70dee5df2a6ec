"""What should a pool know of an SQLite file? Whether it is there, who may write it, and who waits for whom."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from threadpool_db.checkup.report import Report
from threadpool_db.checkup.sessions import Session

IDENTITY = "SELECT 1"


def path_of(given: Mapping[str, Any]) -> Path | None:
    """The file; None for a database in memory."""
    name, _, query = str(given["database"]).partition("?") if given.get("uri") else (str(given["database"]), "", "")
    if given.get("uri") and name.startswith("file:"):
        name = unquote(name.removeprefix("file:").removeprefix("//"))
    return None if "mode=memory" in query or ":memory:" in name else Path(name).absolute()


def look_at(path: Path, given: Mapping[str, Any]) -> tuple[str, bool]:
    """In words, and whether it can be written. A missing one is an error: a check does not make databases."""
    size = path.stat().st_size
    if not path.is_file():
        raise IsADirectoryError(f"{path} is no file")
    reading = "mode=ro" in str(given["database"]) or "immutable=1" in str(given["database"])
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK) and not reading
    return f"{path}, {size} bytes, {'writable' if writable else 'not writable'}", writable


def be_patient(session: Session, seconds: float) -> None:
    """Let SQLite itself say that somebody has locked the file, before our own limit ends the step."""
    session.ask(f"PRAGMA busy_timeout = {int(seconds * 1000)}")


def take_the_write_lock(session: Session) -> None:
    """As each writer does, and give it back."""
    session.connection.execute("BEGIN IMMEDIATE").close()
    session.connection.execute("ROLLBACK").close()


def examine(session: Session, report: Report, writable: bool) -> None:
    [(version,)] = session.ask("SELECT sqlite_version()")
    [(mode,)] = session.ask("PRAGMA journal_mode")
    report.fact("server", f"SQLite {version}", {"product": "SQLite", "version": version})
    report.fact("journal", mode, mode)
    report.fact("read_only", "no" if writable else "yes", {"read_only": not writable})
    if mode not in ("wal", "memory"):
        report.warn(
            "journal",
            f"journal mode {mode}: who reads and who writes wait for each other, and a thread may get 'database is "
            "locked'; ?pragma.journal_mode=wal lets readers go on",
        )
    if not writable:
        report.warn("read_only", "the file or its folder cannot be written by this user: every write fails")
