"""Where a run's pictures go: checks recordings, and opens them and addresses, each in its own thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from framecast.clock import Clock
from framecast.errors import OptionError, SinkUnavailableError
from framecast.redact import redact
from framecast.runtime.sinks.apart import ApartSink
from framecast.runtime.sinks.out import PATIENCE, SLOW, OutSink, answers, is_live, may_hang
from framecast.runtime.sinks.recorded import check_recordable, has_room
from framecast.runtime.sinks.recovering import Recovering
from framecast.runtime.sinks.sink import Sink
from framecast.runtime.sinks.strip import StripSink
from framecast.runtime.sinks.thread import SinkThread
from framecast.runtime.sinks.video import VideoSink, check_segments, check_suffix

STRIP = ".png"  # the suffix of a strip of pictures


def recorder(
    path: Path, fps: float, segment: float | None, keep: float | None, clock: Clock, *, again: bool
) -> SinkThread:
    """Open a recording in a thread of its own.

    Args:
        path: a video, or a strip of pictures.
        fps: nominal frames a second.
        segment: see :class:`VideoSink`.
        keep: see :class:`VideoSink`.
        clock: for waiting.
        again: whether one that is lost is begun again, as when the disk was full.

    Raises:
        SinkError: it cannot be written.
    """
    strip = path.suffix.lower() == STRIP
    opens: Callable[[], Sink] = partial(StripSink, path) if strip else partial(VideoSink, path, fps, segment, keep)
    if not again:
        return SinkThread(opens(), clock)
    return SinkThread(Recovering(str(path), opens, ready=lambda took: has_room(path), clock=clock), clock)


def sender(
    target: str, fps: float, newest: bool, clock: Clock, *, again: bool, waits: bool, leaving: Callable[[], bool]
) -> SinkThread:
    """Open an address in a thread of its own.

    Args:
        target: see :class:`OutSink`.
        fps: nominal frames a second.
        newest: leave out pictures that come while it is busy.
        clock: for waiting.
        again: whether a receiver that is lost is tried again. Standard output is not.
        waits: whether to wait for a receiver that is off at first as well.
        leaving: whether the user ends the run. Nobody then waits for a reader of standard output that has paused.

    Raises:
        SinkError: the device is not there, or standard output is a terminal.
    """
    if not is_live(target):
        # A paused player reads standard output later, but it cannot keep the user from ending the run.
        return SinkThread(OutSink(target, fps), clock, newest=newest, leaving=leaving)
    opens: Callable[[], Sink] = partial(ApartSink if may_hang(target) else OutSink, target, fps)
    if not again:
        return SinkThread(opens(), clock, newest=newest, patience=PATIENCE)
    sink = Recovering(
        redact(target), opens, waits=waits, ready=lambda took: took < SLOW or answers(target), clock=clock
    )
    return SinkThread(sink, clock, newest=newest, patience=4 * PATIENCE)  # to send, close, open and send again


def check_recordings(paths: Sequence[Path], segment: float | None = None, keep: float | None = None) -> None:
    """Reject recordings before anything is opened, unless all suffixes are known and all paths can be written.

    Args:
        paths: as for ``record`` of :func:`framecast.run`.
        segment: see there.
        keep: see there.

    Raises:
        OptionError: a suffix is unknown, or the segments' time or size is out of range.
        SinkError: a path cannot be written, or another run is recording under that name. A full disk is told later,
            because a camera can wait for room.
    """
    check_recording_options(paths, segment, keep)
    for path in paths:
        with suppress(SinkUnavailableError):  # a camera is predicted without a recording until there is room
            check_recordable(path)


def check_recording_options(paths: Sequence[Path], segment: float | None = None, keep: float | None = None) -> None:
    """The part of :func:`check_recordings` that looks at no file.

    Raises:
        OptionError: see there.
    """
    check_segments(segment, keep)
    videos = [path for path in paths if path.suffix.lower() != STRIP]
    if segment is not None and not videos:
        raise OptionError("segment is for videos: give record as well, such as run.mp4")
    for path in videos:
        check_suffix(path)
