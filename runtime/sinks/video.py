"""Records a run as a video: input, prediction and error side by side."""

from __future__ import annotations

from pathlib import Path

import cv2

from framecast.errors import OptionError, SinkError
from framecast.files import check_room, check_writable
from framecast.redact import redact
from framecast.runtime.sinks.picture import triptych
from framecast.runtime.sinks.sink import Result, Sink

CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}  # what OpenCV's own FFmpeg can always write
LONGEST_GAP = 10.0  # seconds without a frame that are kept as they were; longer ones are cut to this
CHECK = 25  # frames between looks at the disk: OpenCV does not say when a write fails


class VideoSink(Sink):
    """A file that is playable once closed; of one that is not, an ``.mkv`` can still be played.

    It plays at the pace of the run: a picture stays until the next one's time.

    Args:
        path: its ending chooses the container.
        fps: frames a second that the file is played at.

    Raises:
        OptionError: no such container.
        SinkError: the path cannot be written, or the disk is full.
    """

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() not in CODECS:
            endings = ", ".join(CODECS)
            raise OptionError(f"cannot record {redact(str(path))}: end it in {endings}, or in .png for pictures")
        check_writable(path)
        self.path = path
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._begun = 0.0  # time of the first frame, moved on where a gap is cut
        self._written = 0

    def show(self, result: Result) -> None:
        """See :meth:`Sink.show`."""
        picture = triptych(result)
        if self._writer is None:
            fourcc = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self.path), cv2.CAP_FFMPEG, fourcc, self._fps, picture.shape[1::-1])
            if not self._writer.isOpened():
                raise SinkError(f"cannot record to {self.path}: OpenCV opened no encoder (try an .avi file)")
            self._begun = result.frame.time
        due = result.frame.time - self._begun - self._written / self._fps  # seconds that the file lags behind
        if due > LONGEST_GAP:
            self._begun += due - LONGEST_GAP
            due = LONGEST_GAP
        for _ in range(max(1, 1 + round(due * self._fps))):
            if self._written % CHECK == 0:
                check_room(self.path)
            self._writer.write(picture)
            self._written += 1

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
