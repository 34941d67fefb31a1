"""The files of a recording: none replaces another, and only one run writes under a name."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from framecast.errors import SinkError, SinkUnavailableError
from framecast.files import ROOM, check_room, check_writable, write_all
from framecast.redact import redact

_ROOM = "make room, or choose another path"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CURES = {**dict.fromkeys(_FULL, _ROOM), errno.EROFS: "mount it writable, or choose another path"}


def cannot_record(path: Path, error: Exception | str, cure: str = "choose another path") -> SinkError:
    """The error of a recording that cannot be written, in one line."""
    code = error.errno if isinstance(error, OSError) else None
    reason = error if isinstance(error, str) else getattr(error, "strerror", None) or str(error).partition("\n")[0]
    kind = SinkUnavailableError if code in _FULL else SinkError
    return kind(f"cannot record to {redact(str(path))}: {reason} ({_CURES.get(code or 0, cure)})")


def names(path: Path, *, timed: bool) -> Iterator[Path]:
    """The names that a recording's file may have, in order: ``run.mp4``, ``run-20261129-183000.mp4``, ``…-2.mp4``, ….

    Args:
        path: as the user gave it.
        timed: leave out the first.
    """
    if not timed:
        yield path
    stem = f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    yield path.with_name(f"{stem}{path.suffix}")
    for number in range(2, 1000):
        yield path.with_name(f"{stem}-{number}{path.suffix}")


def free_name(path: Path) -> Path:
    """The first of these names that no file has. A link is followed."""
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    return next(name for name in names(target, timed=False) if _free(name))


def _free(path: Path) -> bool:
    """Whether nothing is there, or only an empty file: a run that was killed before its first frame left it."""
    return not os.path.lexists(path) or (path.is_file() and not path.stat().st_size)


def takes(path: Path) -> list[tuple[Path, int]]:
    """The files with a time in their names that were recorded under ``path``, and their bytes; oldest first.

    Those that a run is writing are left out, and whatever is no regular file.
    """
    found: list[tuple[float, Path, int]] = []
    for other in _of(path, timed=True):
        with suppress(OSError):
            about = other.lstat()
            if stat.S_ISREG(about.st_mode) and not being_written(other):
                found.append((about.st_mtime, other, about.st_size))
    return [(other, size) for _, other, size in sorted(found)]


def _of(path: Path, *, timed: bool) -> list[Path]:
    """The files whose names are such as :func:`names` gives."""
    target = Path(os.path.realpath(path))
    shape = re.compile(
        rf"{re.escape(target.stem)}(-\d{{8}}-\d{{6}}(-\d+)?){'' if timed else '?'}{re.escape(target.suffix)}"
    )
    try:
        return [other for other in target.parent.iterdir() if (found := shape.fullmatch(other.name)) and _dated(found)]
    except OSError:  # it may be written, but not listed
        return []


def _dated(found: re.Match[str]) -> bool:
    """Whether the digits of a name are a time."""
    try:
        return found[1] is None or bool(time.strptime(found[1][:16], "-%Y%m%d-%H%M%S"))
    except ValueError:
        return False


def being_written(path: Path) -> bool:
    """Whether a run is recording this very file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a named pipe would block
    except OSError:  # no such file
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


def check_recordable(path: Path) -> None:
    """Check that a recording can be made under a name. Writes nothing, but makes the folder.

    Raises:
        SinkError: it cannot be written, or another run is recording under that name.
    """
    check_writable(free_name(path) if path.is_file() else path)
    *_, longest = names(Path(os.path.realpath(path)), timed=True)
    with suppress(FileNotFoundError):
        try:  # after an outage or at the next start it gets a longer name
            longest.lstat()
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise cannot_record(path, "its name is too long for the time to be added", "shorten it") from None
    for other in _of(path, timed=False):
        if being_written(other):
            raise _taken(path, other)


def has_room(path: Path) -> bool:
    """Whether a recording that ended because the disk was full may begin again: not where it would soon end again."""
    try:
        return shutil.disk_usage(Path(os.path.realpath(path)).parent).free >= ROOM
    except OSError:  # whoever opens it will tell why
        return True


def _taken(path: Path, other: Path) -> SinkError:
    if other.name == path.name:
        return SinkError(f"cannot record to {path}: another run is recording it (choose another name)")
    return SinkError(f"cannot record to {path}: another run is recording {other.name} (choose another name)")


class Recorded:
    """One file of a recording, as a file object for FFmpeg. It is locked until it is closed.

    Args:
        path: as the user gave it. If there is a file already, the new one's name gets the time.
        timed: put the time into the name in any case.

    Attributes:
        path: of the file, without links.
        shown: the same for messages, as the user would write it.
        failure: the first error of a write. From then on every write fails.

    Raises:
        SinkError: no file can be made there, or another run has just made it.
    """

    def __init__(self, path: Path, *, timed: bool = False) -> None:
        self.failure: OSError | None = None
        self._whole = 0  # bytes that are playable if nothing follows
        target = Path(os.path.realpath(path))  # the working folder may go away later
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for self.path in names(target, timed=timed):
                self.shown = path.with_name(self.path.name) if target.name == path.name else self.path
                if not _free(self.path):
                    continue
                # Its name has no links, so one that is there now was put there to lead us elsewhere.
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                self._file = os.open(self.path, flags, 0o666)
                self._lock(path)
                if self.size == 0 and self._ours():
                    return
                os.close(self._file)
        except OSError as error:
            raise cannot_record(path, error) from error
        raise cannot_record(path, "too many files of that name")

    def _lock(self, path: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise _taken(path, self.path) from None
        except OSError:  # a file system without locks
            pass

    def _ours(self) -> bool:
        """Whether nobody else can have made the file, to read what we record: as in /tmp, where all may."""
        found = os.fstat(self._file)
        return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1

    @property
    def size(self) -> int:
        """Bytes written."""
        return os.fstat(self._file).st_size

    def write(self, data: bytes) -> int:
        """Write all of it, for FFmpeg.

        Raises:
            OSError: the first error of any write.
        """
        if self.failure is not None:
            raise self.failure
        try:
            write_all(self._file, data)
        except OSError as error:
            self.failure = error
            raise
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See :func:`os.lseek`."""
        return os.lseek(self._file, offset, whence)

    def tell(self) -> int:
        """The place of the next write."""
        return os.lseek(self._file, 0, os.SEEK_CUR)

    def mark(self) -> None:
        """What was written so far is playable: :meth:`cut` keeps it."""
        self._whole = self.size

    def cut(self) -> None:
        """Remove what follows the last mark: half a picture."""
        with suppress(OSError):
            os.ftruncate(self._file, self._whole)

    def check(self) -> None:
        """Check that the file is in its place and its disk has room.

        Raises:
            SinkError: it was removed or renamed, or the disk is almost full.
        """
        try:
            there = os.path.samestat(self.path.stat(), os.fstat(self._file))
            if there:
                check_room(self.path)
        except FileNotFoundError:
            there = False
        except OSError as error:
            raise cannot_record(self.shown, error) from error
        if not there:
            raise cannot_record(
                self.shown, "it was removed or renamed meanwhile", "leave it in its place until the run ends"
            )

    def close(self) -> None:
        """Close it, which unlocks it. One without anything that plays is removed."""
        if self._file >= 0:
            with suppress(OSError):
                nothing = self.size == 0 or (self.failure is not None and self._whole == 0)
                if nothing and os.path.samestat(self.path.stat(), os.fstat(self._file)):
                    self.path.unlink()
            os.close(self._file)
            self._file = -1
