"""Records a run as a video: input, prediction and error side by side."""

from __future__ import annotations

from pathlib import Path

import cv2

from framecast.errors import OptionError, SinkError
from framecast.runtime.sinks.picture import triptych
from framecast.runtime.sinks.sink import Event, Sink

CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}  # what OpenCV's own FFmpeg can always write


class VideoSink(Sink):
    """A file that is playable once closed; ``.mkv`` and ``.avi`` stay so even if the power fails.

    Args:
        path: its ending chooses the container.
        fps: frames a second that the file is played at.

    Raises:
        OptionError: no such container.
        SinkError: the path cannot be written.
    """

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() not in CODECS:
            raise OptionError(
                f"cannot record {path.name}: end it in {', '.join(CODECS)}, or in .png for a strip of pictures"
            )
        make_room(path)
        self.path = path
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None

    def show(self, event: Event) -> None:
        """See :meth:`Sink.show`."""
        picture = triptych(event)
        if self._writer is None:
            fourcc = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self.path), cv2.CAP_FFMPEG, fourcc, self._fps, picture.shape[1::-1])
            if not self._writer.isOpened():
                raise SinkError(f"cannot record to {self.path}: OpenCV opened no encoder (try an .avi file)")
        self._writer.write(picture)

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None


def make_room(path: Path) -> None:
    """Make sure that a file can be written at ``path``, making its folder; an existing file is kept until then.

    Raises:
        SinkError: it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror} (choose another path)") from error
