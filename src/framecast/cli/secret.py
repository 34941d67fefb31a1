"""Secrets come from the environment or from a file: every user of a machine can read a command line."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from framecast.cli import logs
from framecast.errors import OptionError
from framecast.files import read_regular
from framecast.notice import Notice
from framecast.redact import redact

TOKEN = "FRAMECAST_TOKEN"  # noqa: S105 (the variable's name)
_MOST = 8192  # bytes: a longer file is no secret


def address(source: str) -> str:
    """The address of a source, which may be given as ``env:NAME`` (a variable) or as ``@FILE`` (a file with one line).

    A line warns of a password that other users can read.

    Raises:
        OptionError: the variable is not set, or the file cannot be read or has more than one line.
    """
    if source.startswith("env:"):
        name = source.removeprefix("env:")
        if not (value := os.environ.get(name, "").strip()):
            raise OptionError(f"cannot read the source from the environment: {name or 'no name'} is not set; export it")
        return value
    if source.startswith("@"):
        file = Path(source[1:])
        found = _line("the source", file)
        if "***" in redact(found):
            _warn("the password", file)
        return found
    return source


def token(file: Path | None) -> str | None:
    """The page's token: of a file, else of the environment; None if neither is given.

    A line warns of a file that other users can read.

    Args:
        file: the file that the user named; it has one line.

    Raises:
        OptionError: the file cannot be read or has more than one line, or the token has a wrong form.
    """
    from framecast.runtime.sinks.access import check_token

    found = _line("the token", file) if file is not None else os.environ.get(TOKEN)
    if found is not None:
        check_token(found)
    if file is not None:
        _warn("the token", file)
    return found


def exposed(path: Path) -> bool:
    """Whether every user of this machine may read a file, by its mode. False if it is not there.

    A group is somebody's choice, and the group's bits of systemd's credentials stand for an access list.
    """
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except (OSError, ValueError):
        return False


def _warn(what: str, path: Path) -> None:
    if exposed(path):
        name = redact(str(path))
        line = f"warning: other users can read {what} in {name}: chmod 600 {name}"
        logs.announce(Notice("warning", line, logging.WARNING))


def _line(what: str, path: Path) -> str:
    try:
        text = read_regular(path, _MOST).decode()
        if "\0" in text:
            raise ValueError("a NUL")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise OptionError(f"cannot read {what} from {path}: {reason}; name a file with one line") from None
    lines = text.split()
    if len(lines) != 1:
        raise OptionError(f"cannot read {what} from {path}: it has {len(lines)} words; write one line, without spaces")
    return lines[0]
