"""Reads a TOML file statement by statement, so that every mistake and every key has its line.

tomllib gives no lines for keys, and stops at the first mistake; so do the other maintained readers of TOML. A key may
also stand in a comment or in a string of several lines, so it cannot be searched for. Therefore a small scanner finds
where each statement begins: it knows only comments, strings and brackets. tomllib then reads each statement on its own.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framecast.files import IrregularFileError, read_regular

MOST = 1_000_000  # bytes of a file
STATEMENTS = 10_000  # of a file
DOTS = 20  # outside of strings, in a statement: tomllib needs quadratic time for "a.a.a…"
# The alternatives with \Z let a string that is never closed take the rest, so that the time stays linear.
_TOKEN = re.compile(
    r'''(?P<text>"""(?:[^\\]|\\.)*?(?:"{3,5}|\\?\Z)|\'{3}.*?(?:\'{3,5}|\Z)|"(?:[^"\\\n]|\\[^\n])*"|'[^'\n]*'|\#[^\n]*)'''
    r"|(?P<open>[\[{])|(?P<close>[\]}])|(?P<dot>\.)|(?P<end>\n\s*)|(?P<blank>[ \t]+)|[^\s\[\]{}\"'#.]+|.",
    re.DOTALL,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_PLACE = re.compile(r" \((?:at line (\d+), column (\d+)|at end of document)\)\Z")


class MistakeError(Exception):
    """One or more mistakes of a file.

    Attributes:
        mistakes: the line and what is wrong; line 0 stands for the whole file.
    """

    def __init__(self, *mistakes: tuple[int, str]) -> None:
        super().__init__("; ".join(text for _, text in mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True)
class Statement:
    """A key with its value, or the head of a table.

    Attributes:
        line: where it begins, from 1.
        table: the table that the key belongs to, or "".
        key: its first part; for the head of a table, the table's name.
        value: as tomllib reads it.
    """

    line: int
    table: str
    key: str
    value: Any


def read_text(path: Path) -> str:
    """The text of a regular file of up to 1 MB in UTF-8.

    Raises:
        MistakeError: it cannot be read, or it is none.
    """
    try:
        data = read_regular(path, MOST)
    except IsADirectoryError:
        raise MistakeError((0, "cannot read it: it is a folder (name a file)")) from None
    except IrregularFileError:
        raise MistakeError((0, "cannot read it: it is not a regular file")) from None
    except OSError as error:
        if error.errno == errno.EFBIG:
            text = f"it is larger than {MOST // 1_000_000} MB: this is no configuration file"
            raise MistakeError((0, text)) from None
        raise MistakeError((0, f"cannot read it: {os.strerror(error.errno or 0)}")) from None
    except ValueError:  # a path with a NUL
        raise MistakeError((0, "cannot read it: no such file")) from None
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise MistakeError((1 + data.count(b"\n", 0, error.start), "not UTF-8: save the file as UTF-8")) from None
    if found := _CONTROL.search(text):  # the scanner skips comments
        line = 1 + text.count("\n", 0, found.start())
        raise MistakeError((line, f"not valid TOML: the character U+{ord(found[0]):04X} (remove it)"))
    return text


def read_statements(text: str) -> tuple[list[Statement], list[tuple[int, str]]]:
    """All statements of a TOML text, and its mistakes, each with its line.

    Whoever asks compares the keys: this does not notice a key that is given twice.
    """
    found: list[Statement] = []
    mistakes: list[tuple[int, str]] = []
    within = ""
    for number, (line, part, dots) in enumerate(_split(text)):
        if number == STATEMENTS:
            mistakes.append((line, f"more than {STATEMENTS} settings: this is no configuration file"))
            break
        try:
            if dots > DOTS:
                raise MistakeError((line, f"not valid TOML: more than {DOTS} dots in one statement"))
            key, value = _parse(line, part)
        except MistakeError as error:
            mistakes.extend(error.mistakes)
            continue
        head = part.startswith("[")
        found.append(Statement(line, "" if head else within, key, value))
        within = key if head else within
    return found, mistakes


def _split(text: str) -> Iterator[tuple[int, str, int]]:
    """Each statement's line, its text, and the number of dots outside of its strings."""
    line, depth, dots = 1, 0, 0
    begin: tuple[int, int] | None = None  # line and index of the statement that is being read
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "end" and depth == 0:
            if begin is not None:
                yield begin[0], text[begin[1] : token.start()], dots
            begin, dots = None, 0
        elif begin is None and kind not in ("blank", "end") and not token[0].startswith("#"):
            begin = (line, token.start())
        depth = max(0, depth + (kind == "open") - (kind == "close"))
        dots += kind == "dot"
        line += token[0].count("\n")
    if begin is not None:
        yield begin[0], text[begin[1] :], dots


def _parse(line: int, part: str) -> tuple[str, Any]:
    """Key and value of one statement.

    Raises:
        MistakeError: it is not valid.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        read = tomllib.loads(part)
    except RecursionError:
        raise MistakeError((line, "not valid TOML: nested too deeply")) from None
    except ValueError as error:
        place = _PLACE.search(str(error))
        reason = str(error) if place is None else str(error)[: place.start()]
        where = line + int(place[1]) - 1 if place and place[1] else line
        column = f", column {place[2]}" if place and place[2] else ""
        hint = " (write text in quotes, and switches as true or false)" if "=" in part else ' (write key = "value")'
        raise MistakeError((where, f"not valid TOML{column}: {reason}{hint}")) from None
    ((key, value),) = read.items()
    return key, value
