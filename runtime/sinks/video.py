"""Records a run as a video: late picture, prediction, real frame and error of each moment."""

from __future__ import annotations

import math
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from framecast.camera import Image
from framecast.errors import OptionError, SinkError
from framecast.redact import redact
from framecast.runtime.sinks.encoder import H264, MJPEG, TICK, VP9, Codec, Encoder, NoEncoderError, Times, load_av
from framecast.runtime.sinks.picture import scored_moment
from framecast.runtime.sinks.recorded import Recorded, cannot_record, check_recordable, takes
from framecast.runtime.sinks.sink import Output, Result, Sink

CHECK = 1.0  # seconds of a recording between checks of its file and disk
SMALLEST = 1_000_000  # bytes to keep, at least


class _Container(NamedTuple):
    """A file format: FFmpeg's name, the codecs that it takes, and FFmpeg's options."""

    name: str
    codecs: tuple[Codec, ...]
    options: dict[str, str]


_FLUSH = {"flush_packets": "1"}
# Until it is closed, it is a fragmented MP4 that plays to its last half second; closing makes it an ordinary one.
_MP4 = {"movflags": "hybrid_fragmented+frag_keyframe+default_base_moof", "frag_duration": "500000", **_FLUSH}
_MKV = {"cluster_time_limit": "500", **_FLUSH}
CONTAINERS = {
    ".mp4": _Container("mp4", (*H264, *VP9), _MP4),  # all of these play in a browser
    ".mkv": _Container("matroska", (*H264, *VP9), _MKV),
    ".webm": _Container("webm", VP9, _MKV),
    ".avi": _Container("avi", MJPEG, _FLUSH),
}


def check_suffix(path: Path) -> None:
    """Check that a video can be recorded in the format that a file's suffix names.

    Raises:
        OptionError: the suffix is unknown.
    """
    if path.suffix.lower() not in CONTAINERS:
        endings = ", ".join(CONTAINERS)
        raise OptionError(f"cannot record {redact(str(path))}: unknown suffix; use {endings}, or .png for pictures")


def check_segments(segment: float | None, keep: float | None) -> None:
    """Check the time of segments and the size to keep.

    Raises:
        OptionError: one is out of range.
    """
    if segment is not None and not 1 <= segment < math.inf:
        raise OptionError(f"a segment must last at least 1 s, not {segment:g} s")
    if keep is not None and segment is None:
        raise OptionError("keep removes the oldest segments, but there are none: give segment as well, such as 10min")
    if keep is not None and not SMALLEST <= keep < math.inf:
        raise OptionError(f"the size to keep must be at least {SMALLEST / 1e6:g} MB, not {keep / 1e6:g} MB")


class VideoSink(Sink):
    """A video. Each picture has the time of its frame. It stays playable if the process is killed.

    It replaces no file: where ``run.mp4`` is there already, it becomes ``run-20261129-183000.mp4`` (local time).

    Args:
        path: its suffix selects the container, and the container the codec: see ``CONTAINERS``.
        fps: nominal frames a second.
        segment: begin a new file after so many seconds, each with the time in its name (default: one file).
        keep: remove the oldest segments of that name, those of earlier runs as well, where all take more bytes. A
            segment that reaches half of it ends early.

    Raises:
        OptionError: the suffix is unknown, or the segments' time or size is out of range.
        SinkError: the path cannot be written, another run is recording under that name, or the disk is full.
    """

    def __init__(self, path: Path, fps: float, segment: float | None = None, keep: float | None = None) -> None:
        check_suffix(path)
        check_segments(segment, keep)
        check_recordable(path)
        self.path = path
        self._fps = fps
        self._segment, self._keep = segment or math.inf, keep or math.inf
        self._times = Times(fps)
        self._encoder: Encoder | None = None
        self._begun = 0.0  # seconds of the recording at which the file began
        self._checked = -math.inf  # and at which file and disk were checked
        self._codec: str | None = None
        self._files = self._removed = 0
        self._older: list[tuple[Path, int]] = []  # finished segments and their bytes, oldest first
        self._ours: list[Path] = []  # those of this run, in their order: the wall clock may have been set meanwhile
        self._file: Recorded | None = self._new_file()  # at once: from now on, no other run takes that name
        self._newest = self._file.shown

    def written(self) -> Output:
        """See :meth:`Sink.written`."""
        return Output(
            asked=str(self.path),
            to=str(self._newest),
            codec=self._codec,
            files=self._files,
            removed=self._removed,
            lost=0,
            missed=0,
            trouble=None,
        )

    def show(self, result: Result) -> None:
        """See :meth:`Sink.show`."""
        at = self._times.at(result.frame.time, concealed=result.concealed)
        if self._times.taken and self.path.suffix.lower() == ".avi":
            return  # a tick is a picture: one more would shift all that follow
        try:
            self._show(scored_moment(result), at)
        except SinkError:
            with suppress(SinkError):  # the first error counts
                self.close()
            raise

    def _show(self, picture: Image, at: float) -> None:
        if self._encoder is not None and self._file is not None:
            ended = at - self._begun >= self._segment or self._file.size > self._keep / 2
            if ended:
                self.close()
            elif at - self._checked >= CHECK:
                self._checked = at
                self._file.check()
                self._trim(self._file.size)
        if self._encoder is None or self._file is None:
            self._file = self._file or self._new_file()
            self._begun = self._checked = at
            self._newest = self._file.shown
            self._encoder = self._opened(self._file, picture)
            self._codec = self._encoder.codec.said
            self._files += 1
        try:
            self._encoder.write(picture, at - self._begun)
        except (load_av().error.FFmpegError, OSError, ValueError) as error:
            raise cannot_record(self._file.shown, self._file.failure or error) from error
        self._file.mark()

    def _new_file(self) -> Recorded:
        timed = self._segment < math.inf
        if self._keep < math.inf:
            sizes = dict(takes(self.path))
            self._ours = [path for path in self._ours if path in sizes]
            theirs = [path for path in sizes if path not in self._ours]
            self._older = [(path, sizes[path]) for path in (*theirs, *self._ours)]
        file = Recorded(self.path, timed=timed)
        self._trim(0)
        return file

    def _opened(self, file: Recorded, picture: Image) -> Encoder:
        container = CONTAINERS[self.path.suffix.lower()]
        # AVI has a fixed frame rate: a tick is a picture, and a gap repeats the one before.
        tick = 1 / Fraction(self._fps).limit_denominator(1001) if container.name == "avi" else TICK
        try:
            return Encoder(
                file,
                container.name,
                container.codecs,
                picture.shape,
                fps=self._fps,
                tick=tick,
                options=container.options,
            )
        except NoEncoderError as error:
            raise cannot_record(file.shown, str(error), "try an .avi file") from error
        except (load_av().error.FFmpegError, OSError, ValueError) as error:
            raise cannot_record(file.shown, file.failure or error) from error

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        encoder, file = self._encoder, self._file
        self._encoder = self._file = None
        if file is None:
            return
        try:
            if encoder is not None:
                encoder.finish()
        except (load_av().error.FFmpegError, OSError, ValueError) as error:
            file.cut()
            raise cannot_record(file.shown, file.failure or error) from error
        finally:
            file.close()
            self._ours.append(file.path)

    def _trim(self, newest: int) -> None:
        """Remove the oldest segments until all take no more than the size to keep. ``newest``: bytes of this one."""
        total = newest + sum(size for _, size in self._older)
        while total > self._keep and self._older:
            path, size = self._older.pop(0)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise SinkError(
                    f"cannot remove the old segment {path}: {error.strerror} (check the folder's permissions)"
                ) from error
            self._removed += 1
            total -= size
