"""Records a run as a video: late picture, prediction, real frame and error of each moment."""

from __future__ import annotations

from pathlib import Path

import cv2

from framecast.errors import OptionError, SinkError
from framecast.files import check_room, check_writable
from framecast.redact import redact
from framecast.runtime.sinks.picture import letterboxed, scored_moment
from framecast.runtime.sinks.sink import Result, Sink

CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}  # OpenCV's bundled FFmpeg can always write these
LONGEST_GAP = 10.0  # seconds without a frame; a longer gap is cut to this
CHECK = 25  # frames between checks of the disk, because OpenCV does not report a failed write


class VideoSink(Sink):
    """A video file, playable once it is closed. An ``.mkv`` is playable even if it was never closed.

    It plays at the pace of the run: a picture stays until the time of the next one.

    Args:
        path: its suffix selects the container.
        fps: the file's frame rate, frames a second.

    Raises:
        OptionError: the suffix is unknown.
        SinkError: the path cannot be written, or the disk is full.
    """

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() not in CODECS:
            endings = ", ".join(CODECS)
            raise OptionError(f"cannot record {redact(str(path))}: unknown suffix; use {endings}, or .png for pictures")
        check_writable(path)
        self.path = path
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._shape: tuple[int, ...] = ()  # of the file's pictures: those of the first frame
        self._begun = 0.0  # time of the first frame; cutting a gap moves it forward
        self._written = 0

    def show(self, result: Result) -> None:
        """See :meth:`Sink.show`."""
        picture = scored_moment(result)
        if self._writer is None:
            self._shape = picture.shape
            fourcc = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self.path), cv2.CAP_FFMPEG, fourcc, self._fps, picture.shape[1::-1])
            if not self._writer.isOpened():
                raise SinkError(f"cannot record to {self.path}: OpenCV found no encoder; try an .avi file")
            self._begun = result.frame.time
        due = result.frame.time - self._begun - self._written / self._fps  # seconds by which the file lags behind
        if due > LONGEST_GAP:
            self._begun += due - LONGEST_GAP
            due = LONGEST_GAP
        for _ in range(max(1, 1 + round(due * self._fps))):
            if self._written % CHECK == 0:
                check_room(self.path)
            self._writer.write(letterboxed(picture, self._shape))
            self._written += 1

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
