"""What is told of a check, and what is never told?

Each step is named before it begins and told when it ends, so that a hang shows where. Whatever comes in here, a
driver's error too, goes out with the URL's secrets replaced: as they stand in the URL, decoded, and in the ways in
which clients quote them. Step names, reasons and keys are our own words and stay, so that a program can rely on them.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, TextIO
from urllib.parse import quote, quote_plus, unquote, unquote_plus

MASK = "***"
_SECRET_OPTIONS = {
    "password", "passwd", "sslpassword", "ssl_key_password", "oauth_client_secret", "scram_client_key",
    "scram_server_key",
}  # fmt: skip


class Secrets:
    """What must not be seen, in all its forms."""

    def __init__(self, url: str) -> None:
        raw = {os.environ.get("PGPASSWORD", ""), os.environ.get("PGSSLPASSWORD", "")}
        _, _, rest = url.partition("://")
        # Of a URL that cannot be read nobody knows where its password ends: up to the last @ there is, and to the
        # last one before the first slash.
        for part in (rest, re.split("[/?#]", rest, maxsplit=1)[0]):
            raw.add(part.rpartition("@")[0].partition(":")[2])
        raw |= {value for name, value in re.findall(r"[?&]([^=&#]+)=([^&#]*)", rest) if name in _SECRET_OPTIONS}
        forms: set[str] = set()
        for secret in raw:
            for plain in {secret, unquote(secret), unquote_plus(secret)}:
                escaped = plain.replace("\\", "\\\\").replace("'", "\\'")  # libpq's connection strings
                quoted = (quote(plain, safe=""), quote(plain), quote_plus(plain))
                forms |= {plain, escaped, *quoted, repr(plain)[1:-1], repr(plain.encode())[2:-1]}
        longest_first = sorted(forms - {""}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def hide(self, what: Any) -> Any:
        """The same text, list or dict without them; the keys of a dict are ours."""
        if isinstance(what, str):
            return what if self._pattern is None else self._pattern.sub(MASK, what)
        if isinstance(what, dict):
            return {key: self.hide(value) for key, value in what.items()}
        if isinstance(what, (list, tuple)):
            return [self.hide(value) for value in what]
        return what


class Report:
    """Steps, facts, warnings and at most one failure; told as text at once, or as JSON at the end."""

    def __init__(self, url: str, out: TextIO, err: TextIO, as_json: bool = False) -> None:
        self._secrets = Secrets(url)
        self._out, self._err, self._as_json = out, err, as_json
        self._step = ""
        self.steps: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        self._words: list[tuple[str, str]] = []
        self.warnings: list[dict[str, str]] = []
        self.failure: dict[str, Any] | None = None

    def begin(self, step: str) -> None:
        self._step = step
        self._say(f"{step:<10}")

    def ended(self, seconds: float, detail: str) -> None:
        self._end("ok", seconds, detail)

    def skipped(self, step: str, why: str) -> None:
        self.begin(step)
        self._end("skipped", None, why)

    def failed(self, seconds: float, error: BaseException, reason: str, remedy: str) -> None:
        """``reason`` is one word for programs."""
        kind, message = type(error).__name__, self._secrets.hide(" ".join(str(error).split()))
        told = {"step": self._step, "reason": reason, "error": kind, "message": message}
        self.failure = told | {"remedy": self._secrets.hide(remedy)}
        self._end("failed", seconds, "")

    def fact(self, key: str, words: str, value: Any) -> None:
        self.facts[key] = self._secrets.hide(value)
        self._words.append((key, self._secrets.hide(words)))

    def warn(self, about: str, words: str) -> None:
        self.warnings.append({"about": about, "message": self._secrets.hide(words)})

    def finish(self) -> None:
        if self._as_json:
            told = {"ok": self.failure is None, "steps": self.steps, "failure": self.failure}
            json.dump(told | {"facts": self.facts, "warnings": self.warnings}, self._out, indent=2)
            self._out.write("\n")
        else:
            self._finish_text()
        if self.failure is not None:
            line = "threadpool-db check: {step} failed: {error}: {message} -> {remedy}\n"
            self._err.write(line.format(**self.failure))

    def _finish_text(self) -> None:
        if self._words:
            self._say("\n")
        wide = max((len(key) for key, _ in self._words), default=0)
        for key, words in self._words:
            self._say(f"{key.replace('_', ' '):<{wide}}  {words}\n")
        for warning in self.warnings:
            self._say(f"\nwarning: {warning['message']}\n")
        if self.failure is None:
            count = len(self.warnings)
            self._say(f"\nok, {f'{count} warning' + 's' * (count > 1) if count else 'no warnings'}\n")
        self._out.flush()

    def _end(self, status: str, seconds: float | None, detail: str) -> None:
        ms = None if seconds is None else round(seconds * 1000, 3)
        detail = self._secrets.hide(detail)
        self.steps.append({"name": self._step, "status": status, "ms": ms, "detail": detail})
        taken = "" if ms is None else f"{ms:.1f} ms"
        self._say(f"{status:<8}{taken:>10}  {detail}".rstrip() + "\n")

    def _say(self, text: str) -> None:
        if not self._as_json:
            self._out.write(text)
            self._out.flush()
