"""Opens where a run's pictures go: recordings and addresses, each in its own thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from framecast.clock import Clock
from framecast.redact import redact
from framecast.runtime.sinks.out import PATIENCE, SLOW, OutSink, answers, is_live
from framecast.runtime.sinks.recorded import has_room
from framecast.runtime.sinks.recovering import Recovering
from framecast.runtime.sinks.sink import Sink
from framecast.runtime.sinks.strip import StripSink
from framecast.runtime.sinks.thread import SinkThread
from framecast.runtime.sinks.video import VideoSink

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


def sender(target: str, fps: float, newest: bool, clock: Clock, *, again: bool, waits: bool) -> SinkThread:
    """Open an address in a thread of its own.

    Args:
        target: see :class:`OutSink`.
        fps: nominal frames a second.
        newest: leave out pictures that come while it is busy.
        clock: for waiting.
        again: whether a receiver that is lost is tried again. Standard output is not.
        waits: whether to wait for a receiver that is off at first as well.

    Raises:
        SinkError: the device is not there, or standard output is a terminal.
    """
    if not is_live(target):
        return SinkThread(OutSink(target, fps), clock, newest=newest)  # a paused player reads standard output later
    opens = partial(OutSink, target, fps)
    if not again:
        return SinkThread(opens(), clock, newest=newest, patience=PATIENCE)
    sink = Recovering(
        redact(target), opens, waits=waits, ready=lambda took: took < SLOW or answers(target), clock=clock
    )
    return SinkThread(sink, clock, newest=newest, patience=4 * PATIENCE)  # to send, close, open and send again
