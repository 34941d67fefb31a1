"""Where files may be written, whole or not at all, and what tells one content from another."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from framecast.errors import SinkError
from framecast.redact import redact

RESERVE = 16 * 1024 * 1024  # bytes that are left free, so that a recording can still be finished


def check_writable(path: Path) -> None:
    """Make sure that a file can be written at ``path``, making its folder; a file that is there stays as it is.

    Raises:
        SinkError: it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # opening a named pipe would wait for somebody who reads it
            raise SinkError(f"cannot write {redact(str(path))}: it is not a regular file (choose another path)")
        new = not path.exists()
        with path.open("ab"):
            pass
        if new:
            path.unlink()
    except OSError as error:
        raise _cannot(path, error) from error
    check_room(path)


def check_room(path: Path) -> None:
    """Make sure that the disk is not about to be full.

    Raises:
        SinkError: it is.
    """
    if shutil.disk_usage(path.parent).free < RESERVE:
        raise SinkError(
            f"the disk of {path} is full: less than {RESERVE >> 20} MB are free (make room, or choose another path)"
        )


def write(path: Path, data: bytes | Callable[[BinaryIO], object], cure: str = "choose another path") -> None:
    """Write a file whole or not at all, and onto the disk: after a power cut it is the old one or the new one.

    Args:
        path: of the file; its folder is made.
        data: what is in it, or what writes that.
        cure: what to do where it fails.

    Raises:
        SinkError: it cannot be written; what was there is as it was.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            data(file) if callable(data) else file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: torch's, of a disk that is full
        with suppress(OSError):
            partial.unlink(missing_ok=True)
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


def _cannot(path: Path, error: Exception, cure: str = "choose another path") -> SinkError:
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or "the disk is full"
    return SinkError(f"cannot write {redact(str(path))}: {reason} ({cure})")
