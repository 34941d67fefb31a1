"""Videos that end: files, and videos on a web server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from framecast.camera.clip import Clip, Timed
from framecast.camera.decoder import Decoder
from framecast.camera.media import CONTAINERS, MediaError, open_media
from framecast.camera.pictures import Pictures
from framecast.camera.source import DEFAULT_FPS, note
from framecast.errors import SourceError
from framecast.redact import redact

if TYPE_CHECKING:
    from av.container import InputContainer

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
"""Suffixes of the videos in a folder."""

_SAFE = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}


class Video(Clip):
    """A video, read frame by frame to its end. One that was cut off gives the frames it has.

    A frame's time is its presentation time, from 0 at the first frame. Formats without time stamps (raw H.264, joined
    JPEGs) play at 25 frames a second.

    Args:
        name: its name in messages.
        open: opens it, at its beginning. Raises a SourceError if it cannot.
        loop: restart at the end instead of ending.
        fps: play it at so many frames a second, whatever its time stamps say.

    Raises:
        SourceError: it cannot be opened.
    """

    def __init__(
        self,
        name: str,
        open: Callable[[], InputContainer],
        *,
        loop: bool = False,
        fps: float | None = None,
    ) -> None:
        super().__init__(name, fps or DEFAULT_FPS, loop)
        self._open = open
        self._decoder = Decoder(open(), threads=0, faults=self.faults)
        self._stamped = fps is None and self._decoder.has_times
        if self._stamped:
            self.fps = self._decoder.fps or DEFAULT_FPS
        self.length = self._decoder.length
        self._pictures = Pictures(self.notes)

    def _next(self) -> Timed | None:
        try:
            frame = self._decoder.read()
            if frame is None:
                return None
            picture = self._pictures.picture(frame, self._decoder.pixel_aspect)
        except MediaError as error:
            raise SourceError(f"lost {self.name}: {error}") from None
        if self._decoder.interlaced:
            note(self.notes, "interlaced video is deinterlaced (bwdif)")
        return Timed(picture, frame.time if self._stamped else None)

    def _rewind(self) -> None:
        # Open it again: seeking to frame 0 lands elsewhere if the file does not begin with a key frame.
        self._decoder.close()
        self._decoder = Decoder(self._open(), threads=0, faults=self.faults)

    def _release(self) -> None:
        self._decoder.close()


def open_file(path: Path, *, name: str | None = None, loop: bool = False, fps: float | None = None) -> Video:
    """Open a video file.

    Args:
        path: a regular file. The caller has checked it, because opening a named pipe would hang.
        name: its name in messages (default: the path).
        loop: see :class:`Video`.
        fps: see :class:`Video`.

    Raises:
        SourceError: it cannot be decoded, or its frames are larger than ``media.MAX_PIXELS``.
    """
    shown = name or redact(str(path))
    # Absolute, because FFmpeg reads the colon in a relative name, "concat:a|b.mp4", as a protocol.
    absolute = str(path.absolute())
    try:
        absolute.encode()
    except UnicodeEncodeError:
        raise SourceError(f"cannot open {shown}: its name is not UTF-8 (rename it)") from None

    def opened() -> InputContainer:
        try:
            return open_media(absolute, options=_SAFE)
        except MediaError as error:
            raise SourceError(f"not a video that can be decoded: {shown} ({error}; try ffprobe)") from None

    return Video(shown, opened, loop=loop, fps=fps)
