"""Video files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from framecast.camera import cv
from framecast.camera.clip import Clip
from framecast.camera.pool import Pool
from framecast.camera.source import DEFAULT_FPS, Image
from framecast.errors import SourceError
from framecast.redact import redact

if TYPE_CHECKING:
    import cv2

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
"""Suffixes of the videos in a folder."""

# Containers only: a playlist (ffconcat, HLS, DASH, SDP) with a clip's name could open other files and hosts.
_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,gif,apng,h264,hevc,m4v,mjpeg,av1,ivf,obu,nut,mxf,dv"
)
_SAFE = f"format_whitelist;{_FORMATS}|protocol_whitelist;file"


class VideoFile(Clip):
    """A video file, read frame by frame to its end. A file that was cut off gives the frames it has.

    Args:
        path: a regular file. The caller has checked it, because opening a named pipe would hang.
        name: its name in messages (default: the path).
        loop: restart at the end instead of ending.

    Raises:
        SourceError: OpenCV cannot decode it, or its frames are larger than ``cv.MAX_PIXELS``.
    """

    def __init__(self, path: Path, *, name: str | None = None, loop: bool = False) -> None:
        # Absolute, because FFmpeg reads the colon in a relative name, "concat:a|b.mp4", as a protocol.
        self._path = str(path.absolute())
        self._capture = _open(self._path)
        self._pool = Pool()
        self._shape: tuple[int, ...] | None = None  # of the last frame; the next one is decoded into this shape
        super().__init__(name or redact(str(path)), cv.frame_rate(self._capture) or DEFAULT_FPS, loop)

    def _next(self) -> Image | None:
        more, image = self._capture.read(self._pool.take(self._shape) if self._shape else None)
        if not more:
            return None
        self._shape = image.shape
        return image  # type: ignore[return-value]  # OpenCV's stubs allow any dtype

    def _rewind(self) -> None:
        # Reopen the file: seeking to frame 0 lands elsewhere if the file does not begin with a key frame.
        self._capture.release()
        self._capture = _open(self._path)

    def _release(self) -> None:
        self._capture.release()


def _open(path: str) -> cv2.VideoCapture:
    try:
        path.encode()
    except UnicodeEncodeError:  # the name is not UTF-8: OpenCV 5.0 ends the process on such a name
        raise SourceError(f"cannot open {redact(path)}: its name is not UTF-8 (rename it)") from None
    options = "|".join(filter(None, (cv.user_ffmpeg_options(), _SAFE)))
    capture = cv.open_capture(path, cv.load().CAP_FFMPEG, ffmpeg_options=options)
    if capture is None:
        raise SourceError(
            f"not a video that can be decoded: {redact(path)} (it is damaged, cut off or no video; try ffprobe)"
        )
    if (size := cv.pixels(capture)) > cv.MAX_PIXELS:
        capture.release()
        raise SourceError(
            f"frames too large: {redact(path)} has {size} pixels a frame (scale it down to at most {cv.MAX_PIXELS})"
        )
    return capture
