"""Write files whole or not at all, check beforehand that it will work, and hash contents."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from framecast.errors import SinkError
from framecast.redact import redact

RESERVE = 16 * 1024 * 1024  # bytes to leave free, so that a recording can still be finished


def check_writable(path: Path) -> None:
    """Make sure that a file can be written at ``path``. Makes its folder; a file that is there stays as it is.

    Raises:
        SinkError: it cannot be written.
    """
    try:
        target = _target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        new = not target.exists()
        with target.open("ab"):
            pass
        if new:
            target.unlink()
        check_room(target)
    except OSError as error:
        raise _cannot(path, error) from error


def check_room(path: Path) -> None:
    """Make sure that the disk is not almost full.

    Raises:
        SinkError: it is.
        OSError: the file's folder is not there.
    """
    if shutil.disk_usage(path.parent).free < RESERVE:
        raise SinkError(
            f"the disk of {path} is full: less than {RESERVE >> 20} MB are free (make room, or choose another path)"
        )


def write(path: Path, data: bytes | Callable[[BinaryIO], object], cure: str = "choose another path") -> None:
    """Write a whole file or nothing. After a power cut it is the old file or the new one.

    Several processes may write the same path: the last one wins. A link is followed.

    Args:
        path: of the file. Its folder is made.
        data: the content, or a function that writes it.
        cure: what to do if it fails, for the message.

    Raises:
        SinkError: it cannot be written. What was there is as it was.
    """
    try:
        target = _target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")  # no other writer's
        try:
            with partial.open("xb") as file:
                data(file) if callable(data) else file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
    except (OSError, RuntimeError) as error:  # RuntimeError: torch's, when the disk is full
        raise _cannot(path, error, cure) from error


def sha256(content: Path | bytes) -> str:
    """SHA-256 of a file's content, or of bytes, in hexadecimal."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256()
    with content.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _target(path: Path) -> Path:
    """The file that a path leads to. Replacing a device would remove it, opening a pipe would wait for its reader.

    Raises:
        SinkError: it is there, and no regular file.
    """
    target = Path(os.path.realpath(path))
    if os.path.lexists(target) and not target.is_file():  # a link here is one of a circle
        raise SinkError(f"cannot write {redact(str(path))}: it is not a regular file (choose another path)")
    return target


def _cannot(path: Path, error: Exception, cure: str = "choose another path") -> SinkError:
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or "the disk is full"
    return SinkError(f"cannot write {redact(str(path))}: {reason} ({cure})")
