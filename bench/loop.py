"""The live loop with a timestamp at every stage: source, mailbox, engine, hand-over.

The loop runs the real :class:`Pipeline`, with its capture thread and its mailbox. The results carry the timestamps. A
clip replaces the camera. Its frames are decoded in advance and arrive when they are due, even if earlier frames are
still in progress (an open loop).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from framecast.bench.steps import binding_steps
from framecast.camera import Frame, Image, Source, Times
from framecast.clock import Clock
from framecast.errors import OptionError, SourceError
from framecast.runtime.lookahead import Lookahead
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.telemetry import Stamps

WARM_STEPS = 10  # minimum steps before a measurement: engines compile or capture graphs in their first steps
LEAD = 1.0  # seconds discarded at the start of a loop: threads start, caches fill, a camera's queue empties
PRELOADED = 256 << 20  # bytes of a clip to keep in memory; if a clip is longer, the loop repeats its start


class Scheduled(Source):
    """A camera with a known schedule: frame i is due at ``start`` + i / ``fps``, and has that time stamp.

    If the reading thread is late, it receives the frame at once. The later frames keep their times.

    Args:
        name: the source's name.
        images: the frames, which repeat; the cost of a frame does not depend on its content.
        fps: frames per second.
        count: number of frames before the source ends.
        start: time at which frame 0 is due, in seconds on ``clock``.
        clock: the clock to wait on.
    """

    live = True
    fps: float

    def __init__(self, name: str, images: Sequence[Image], fps: float, count: int, start: float, clock: Clock) -> None:
        self.name, self.fps = name, fps
        self._images, self._count, self._start, self._clock = images, count, start, clock
        self._index = 0
        self._closed = False

    def read(self) -> Frame | None:
        """See :meth:`Source.read`."""
        index = self._index
        if index == self._count:
            return None
        due = self._start + index / self.fps
        self._clock.wait_until(due)
        self._index += 1
        return None if self._closed else Frame(self._images[index % len(self._images)], due, index)

    def close(self) -> None:
        """See :meth:`Source.close`."""
        self._closed = True


class Bounded(Source):
    """A real camera that ends ``seconds`` after its first frame."""

    live = True

    def __init__(self, source: Source, seconds: float) -> None:
        self.name, self.fps = source.name, source.fps
        self._source, self._seconds = source, seconds
        self._end: float | None = None

    @property
    def times(self) -> Times:
        """See :attr:`Source.times`."""
        return self._source.times

    def read(self) -> Frame | None:
        """See :meth:`Source.read`."""
        frame = self._source.read()
        if frame is None:
            return None
        if self._end is None:
            self._end = frame.time + self._seconds
        return frame if frame.time < self._end else None

    def close(self) -> None:
        """See :meth:`Source.close`."""
        self._source.close()


def read_frames(source: Source, count: int | None = None, most: int | None = PRELOADED) -> list[Image]:
    """Read up to ``count`` pictures of a source; stop early once they fill ``most`` bytes.

    Raises:
        SourceError: the source has no frame.
    """
    images: list[Image] = []
    held = 0
    for frame in islice(source, count):
        images.append(frame.image)
        held += frame.image.nbytes
        if most is not None and held >= most:
            break
    if not images:
        raise SourceError(f"cannot read {source.name}: it has no frames; name another clip")
    return images


@dataclass(frozen=True)
class FrameTimes:
    """The times of one frame.

    Attributes:
        due: when the frame was due, in seconds on the loop's clock; for a real camera, its time stamp.
        stamps: when the frame passed each stage; None if it was dropped.
        cpu: CPU time that the process had used at the hand-over, in seconds.
    """

    due: float
    stamps: Stamps | None = None
    cpu: float = 0.0


class _Noted(Source):
    """Records when each frame of a source was due, including frames that are dropped later."""

    def __init__(self, source: Source) -> None:
        self.name, self.live, self.fps = source.name, source.live, source.fps
        self.due: dict[int, float] = {}  # by the frame's number
        self._source = source

    @property
    def times(self) -> Times:
        """See :attr:`Source.times`."""
        return self._source.times

    def read(self) -> Frame | None:
        """See :meth:`Source.read`."""
        frame = self._source.read()
        if frame is not None:
            self.due[frame.index] = frame.time
        return frame

    def close(self) -> None:
        """See :meth:`Source.close`."""
        self._source.close()


class Loop:
    """A pipeline with a sink that takes no time.

    Args:
        source: the loop closes it at the end.
        predictor: must be on the same clock, and warmed up (:func:`warm`); the caller closes it.
        clock: measures the time.
        ahead: how many seconds ahead it predicts (default: one frame of the camera).
    """

    def __init__(self, source: Source, predictor: Predictor, clock: Clock, ahead: float | None = None) -> None:
        self._source = _Noted(source)
        self._pipeline = Pipeline(self._source, predictor, lookahead=Lookahead(seconds=ahead), clock=clock)
        self._clock = clock

    def run(self) -> list[FrameTimes]:
        """Run to the end of the source.

        Returns:
            Every frame in order, including dropped ones, except those of the first :data:`LEAD` seconds.

        Raises:
            SourceError: the source was lost.
            EngineError: the engine failed.
        """
        shown: dict[int, FrameTimes] = {}
        with closing(iter(self._pipeline)) as results:
            for result in results:
                shown[result.frame.index] = FrameTimes(result.stamps.due, result.stamps, self._clock.cpu())
        every = [shown.get(index, FrameTimes(due)) for index, due in self._source.due.items()]
        return [one for one in every if one.due >= every[0].due + LEAD]

    def stop(self) -> None:
        """Ask the run to end soon. Any thread may call this."""
        self._pipeline.stop()


def warm(predictor: Predictor, image: Image) -> None:
    """Step until all one-time work is done, then reset the predictor."""
    for _ in range(WARM_STEPS + binding_steps(predictor.manifest)):
        predictor.step(image)
    predictor.reset()


def check(fps: float | None, seconds: float) -> None:
    """Check a schedule's rate and duration.

    Raises:
        OptionError: the rate or the duration is not above 0.
    """
    if fps is not None and not 0 < fps < float("inf"):
        raise OptionError(f"frames per second must be above 0, not {fps:g}")
    if not 0 < seconds < float("inf"):
        raise OptionError(f"the duration must be above 0 s, not {seconds:g}")


def frames_of(fps: float, seconds: float) -> int:
    """Return how many frames are due, including those of the first :data:`LEAD` seconds."""
    return math.ceil((LEAD + seconds) * fps)


def corrected(frames: Sequence[FrameTimes]) -> list[float]:
    """Return each frame's corrected latency: seconds from its due time until the sink has its result or a later one.

    Frames after the last hand-over are left out. A run that ends with its source has no such frames.
    """
    latencies: list[float] = []
    covered: float | None = None
    for one in reversed(frames):
        covered = covered if one.stamps is None else one.stamps.handed
        if covered is not None:
            latencies.append(covered - one.due)
    return latencies[::-1]
