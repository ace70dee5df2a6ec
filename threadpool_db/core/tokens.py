r"""How is a text cut into tokens? By one regular expression for each way in which a server could read it.

Comments and blanks fall out, a literal or a quoted name is one token, the rest is in upper case. What opens a literal
or comment that never ends is a token of its own, and the last one.
"""

from __future__ import annotations

import functools
import re

# Servers take every byte above ASCII for a letter, unlike Python's \w and \s. These sets leave out what is none.
_LETTER = r"[^\x00-@\[-^`{-\x7f]"
_WORD = rf"{_LETTER}[^\x00-#%-/:-@\[-^`{{-\x7f]*"
_PLAIN, _ESCAPED = "'[^']*'", r"'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'"  # a doubled quote makes two plain ones, side by side
_PG_TEMP = re.compile(r'"?PG_TEMP(?:_\d+)?"?')


def _nested(levels: int) -> str:
    inner = rf"|{_nested(levels - 1)}" if levels else ""
    return rf"/\*[^*/]*(?:(?:\*(?!/)|/(?!\*){inner})[^*/]*)*\*/"


@functools.cache
def reading(dialect: str, backslash: bool, code: bool) -> re.Pattern[str]:
    string = _ESCAPED if backslash else _PLAIN
    if dialect == "postgresql":
        gaps = [r"--[^\n\r]*", _nested(3)]
        dollars = rf"(\$(?:{_LETTER}[^\x00-/:-@\[-^`{{-\x7f]*)?\$).*?\2"
        tokens = [rf"[eE]{_ESCAPED}", string, r"[uU]&(?=\")", r'"[^"]*"', dollars, r"\$\d+"]
    elif dialect == "mysql":
        # two minus signs are a comment only before a blank: 5--1 is 6
        gaps = [r"--(?=[\x00-\x20\x7f]|\Z)[^\n]*", r"\#[^\n]*"]
        gaps += [r"/\*M?!\d*", r"\*/", r"/\*(?!M?!).*?\*/"] if code else [r"/\*.*?\*/"]
        tokens = [string, string.replace("'", '"'), "`[^`]*`", "@@|:="]
    else:
        gaps = [r"--[^\n]*", r"/\*.*?(?:\*/|\Z)"]
        tokens = ["'[^']*'", '"[^"]*"', "`[^`]*`", r"\[[^\]]*\]"]
    kept = "|".join([*tokens, r"/\*", _WORD, r"\d+", r"[^\s\w]"])
    return re.compile(rf"{'|'.join(gaps)}|({kept})", re.ASCII | re.DOTALL)


def cut(pattern: re.Pattern[str], text: str, openings: frozenset[str]) -> list[str]:
    tokens: list[str] = []
    for found in pattern.finditer(text):
        if token := found[1]:
            token = token.upper()
            if token in openings:
                return [*tokens, token]  # a server that reads it like this gets no further
            # pg_temp_3 is how the catalogue calls one session's pg_temp
            tokens.append("PG_TEMP" if "PG_TEMP" in token and _PG_TEMP.fullmatch(token) else token)
    return tokens
