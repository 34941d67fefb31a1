"""Where files may be written."""

from __future__ import annotations

import shutil
from pathlib import Path

from framecast.camera.redact import redact
from framecast.errors import SinkError

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


def write(path: Path, data: bytes) -> None:
    """Write a whole file.

    Raises:
        SinkError: it cannot be written.
    """
    try:
        path.write_bytes(data)
    except OSError as error:
        raise _cannot(path, error) from error


def _cannot(path: Path, error: OSError) -> SinkError:
    return SinkError(f"cannot write {redact(str(path))}: {error.strerror} (choose another path)")
