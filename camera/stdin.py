"""Standard input: a stream that another program writes, as in ``rpicam-vid -t 0 -o - | framecast run -``."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from framecast.camera.media import CONTAINERS, MediaError, open_media
from framecast.camera.network import QUICK, live
from framecast.camera.source import Source
from framecast.camera.video import Video
from framecast.clock import Clock
from framecast.errors import SourceError

if TYPE_CHECKING:
    from av.container import InputContainer

_NAME = "standard input"
_SAFE = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none"}  # what it contains opens nothing else


class _Pipe:
    """A pipe as a file object.

    Args:
        descriptor: its end that we read.
        patience: seconds that a read may take.
    """

    def __init__(self, descriptor: int, patience: float) -> None:
        self._descriptor = descriptor
        self.patience = patience

    def read(self, size: int) -> bytes:
        """Up to so many bytes; none if the writer has ended. PyAV passes the exception on."""
        readable, _, _ = select.select([self._descriptor], [], [], self.patience)
        if not readable:
            raise MediaError(f"no data for {self.patience:g} s")
        return os.read(self._descriptor, size)


class _File:
    """A regular file as a file object, from its beginning.

    Args:
        descriptor: the file; its own place in the file is not used, so several may read it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._place = 0

    def read(self, size: int) -> bytes:
        """Up to so many bytes; none at the end."""
        data = os.pread(self._descriptor, size, self._place)
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, and return it."""
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: os.fstat(self._descriptor).st_size}
        self._place = begin[whence] + offset
        return self._place

    def tell(self) -> int:
        """The place of the next read."""
        return self._place


def open_stdin(*, timeout: float, stall: float, loop: bool, fps: float | None, clock: Clock) -> Source:
    """Open standard input. A pipe is live, as a camera is; a file (``framecast run - < clip.mp4``) is a clip.

    Args:
        timeout: seconds that the first data of a pipe may take.
        stall: seconds that each later read of a pipe may take.
        loop: restart a file at its end.
        fps: play a file at so many frames a second.
        clock: stamps the frames of a pipe with their grab time.

    Raises:
        SourceError: it is a terminal, or gives no video.
    """
    try:
        descriptor = sys.stdin.fileno()
        mode = os.fstat(descriptor).st_mode
    except (AttributeError, OSError, ValueError):
        raise SourceError(f"no {_NAME} (pipe a stream in: rpicam-vid -t 0 -o - | framecast run -)") from None
    if os.isatty(descriptor):
        raise SourceError(f"{_NAME} is a terminal (pipe a stream in: rpicam-vid -t 0 -o - | framecast run -)")
    if stat.S_ISREG(mode):
        return Video(_NAME, lambda: _opened(_File(descriptor), {}), loop=loop, fps=fps)
    container = _opened(pipe := _Pipe(descriptor, timeout), QUICK)
    pipe.patience = stall
    cure = "check the program that writes to it"
    return live(_NAME, container, patience=stall, cure=cure, clock=clock, ends=True)


def _opened(file: object, options: Mapping[str, str]) -> InputContainer:
    try:
        return open_media(file, options={**_SAFE, **options})
    except MediaError as error:
        raise SourceError(f"no video on {_NAME}: {error} (it takes H.264, MJPEG, MPEG-TS, Matroska, …)") from None
