"""Write files completely or not at all, read them with bounds, check that a path is writable, and hash contents."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from framecast.errors import SinkError, SinkUnavailableError
from framecast.redact import redact

RESERVE = 16 * 1024 * 1024  # bytes to keep free, so that a recording can be finished
_SHORTENED = 200  # bytes of a name of up to 255, to which something is added
ROOM = 2 * RESERVE  # bytes that must be free before a recording begins anew: it would else soon end again


class IrregularFileError(OSError):
    """A path leads to a pipe, a device or a socket."""


def read_regular(path: Path, most: int) -> bytes:
    """Read a whole file. A pipe that nobody writes to does not block.

    Args:
        path: the file.
        most: bytes that it may have; a larger one is not read.

    Raises:
        IrregularFileError: it is not a regular file.
        OSError: it cannot be read, or is too large (``EFBIG``).
        ValueError: the path has a NUL.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise IrregularFileError(errno.EINVAL, "it is not a regular file")
        data = file.read(most + 1) if found.st_size <= most else b""
    if found.st_size > most or len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes")
    return data


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # not on Windows


def check_writable(path: Path) -> None:
    """Check that a file can be written at ``path``. Creates its folder, and does not change an existing file.

    Raises:
        SinkError: the file cannot be written.
        SinkUnavailableError: the disk is full.
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


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it to a file or pipe.

    Raises:
        OSError: a part could not be written.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def check_room(path: Path) -> None:
    """Check that the disk is not almost full.

    Raises:
        SinkUnavailableError: less than ``RESERVE`` bytes are free.
        OSError: the file's folder does not exist.
    """
    if shutil.disk_usage(path.parent).free < RESERVE:
        raise SinkUnavailableError(
            f"the disk of {path} is full: less than {RESERVE >> 20} MB free (make room for {ROOM >> 20} MB, or choose "
            "another path)"
        )


def write(path: Path, data: bytes | Callable[[BinaryIO], object], cure: str = "choose another path") -> None:
    """Write a file completely or not at all. After a power cut, the path holds the old file or the new one.

    Several processes may write the same path; the last one wins. A symbolic link is followed.

    Args:
        path: the file. Its folder is created if it does not exist.
        data: the content, or a function that writes it.
        cure: what to do if the write fails, for the message.

    Raises:
        SinkError: the file cannot be written. An existing file is unchanged.
    """
    try:
        target = _target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shortened = os.fsdecode(os.fsencode(target.name)[:_SHORTENED])
        partial = target.with_name(f"{shortened}.{secrets.token_hex(4)}.partial")  # unique to this writer
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
    except OSError as error:
        raise _cannot(path, error, cure) from error


def sha256(content: Path | bytes) -> str:
    """SHA-256 of a file's content or of bytes, in hexadecimal."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256()
    with content.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _target(path: Path) -> Path:
    """Resolve a path to its file. Replacing a device would remove it, and opening a pipe would block.

    Raises:
        SinkError: the path exists and is not a regular file.
    """
    target = Path(os.path.realpath(path))
    if os.path.lexists(target) and not target.is_file():  # realpath leaves only links in a cycle
        raise SinkError(f"cannot write {redact(str(path))}: it is not a regular file (choose another path)")
    return target


def _cannot(path: Path, error: OSError, cure: str = "choose another path") -> SinkError:
    reason = error.strerror or str(error).partition("\n")[0] or "the disk is full"
    return SinkError(f"cannot write {redact(str(path))}: {reason} ({cure})")
