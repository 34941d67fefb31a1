"""The live loop with a stamp at every station: source, mailbox, engine, hand-over.

:class:`Pipeline` itself runs, with its capture thread and its mailbox, and its results carry the stamps. A clip stands
in for the camera: its frames are decoded beforehand, and come when they are due, whatever became of those before them
(an open loop).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from framecast.camera import Frame, Image, Source
from framecast.clock import Clock
from framecast.errors import OptionError, SourceError
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.telemetry import Stamps

WARM_STEPS = 10  # of a predictor, at least, before it is measured: its engine compiles or captures in the first ones
LEAD = 1.0  # seconds of every loop that are not counted: threads start, caches fill, a camera's queue empties
PRELOADED = 256 << 20  # bytes of a clip that are held; one that is longer is shown from its beginning again


class Scheduled(Source):
    """A camera of which it is known when each frame is due: frame i at ``start`` + i / ``fps``, which is its time.

    A frame that is late, since the thread that reads was, is handed out at once, and those after it keep their times.

    Args:
        name: what to call it.
        images: shown over and over, in one stream: what a frame costs does not depend on what it shows.
        fps: frames a second.
        count: how many frames, then it ends.
        start: seconds on ``clock``, when frame 0 is due.
        clock: what to wait by.
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
    """A real camera for so many seconds, from its first frame on."""

    live = True

    def __init__(self, source: Source, seconds: float) -> None:
        self.name, self.fps = source.name, source.fps
        self._source, self._seconds = source, seconds
        self._end: float | None = None

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
    """A source's pictures, its first ``count``, and none after those that fill ``most`` bytes.

    Raises:
        SourceError: there is none.
    """
    images: list[Image] = []
    held = 0
    for frame in islice(source, count):
        images.append(frame.image)
        held += frame.image.nbytes
        if most is not None and held >= most:
            break
    if not images:
        raise SourceError(f"no frame in {source.name}: name a clip that has some")
    return images


@dataclass(frozen=True)
class FrameTimes:
    """What became of one frame.

    Attributes:
        due: when it should have been there, in seconds on the loop's clock; of a real camera, the moment of its grab.
        stamps: when it passed each station; None where it was dropped.
        cpu: seconds of CPU time that the process had used when its result was handed over.
    """

    due: float
    stamps: Stamps | None = None
    cpu: float = 0.0


class _Noted(Source):
    """Notes when each frame of a source was due, whatever becomes of it."""

    def __init__(self, source: Source) -> None:
        self.name, self.live, self.fps = source.name, source.live, source.fps
        self.due: dict[int, float] = {}  # by the frame's number
        self._source = source

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
    """A pipeline into a sink that takes no time.

    Args:
        source: closed at the end.
        predictor: one that is :func:`warm`, on the same clock; closed by its owner.
        clock: what to read the time from.
    """

    def __init__(self, source: Source, predictor: Predictor, clock: Clock) -> None:
        self._source = _Noted(source)
        self._pipeline = Pipeline(self._source, predictor, clock=clock)
        self._clock = clock

    def run(self) -> list[FrameTimes]:
        """Run to the end of the source.

        Returns:
            Every frame in its order, dropped ones too, without the first :data:`LEAD` seconds.

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
        """End the run soon. May be called from any thread."""
        self._pipeline.stop()


def warm(predictor: Predictor, image: Image) -> None:
    """Step until nothing is done for the first time any more; then forget."""
    for _ in range(WARM_STEPS + 3 * predictor.manifest.slots):  # buffers are bound once a phase of the ring
        predictor.step(image)
    predictor.reset()


def check(fps: float | None, seconds: float) -> None:
    """Refuse a schedule that is none.

    Raises:
        OptionError: the rate or the duration is not above 0.
    """
    if fps is not None and not 0 < fps < float("inf"):
        raise OptionError(f"frames a second must be above 0, not {fps:g}")
    if not 0 < seconds < float("inf"):
        raise OptionError(f"a duration must be above 0 s, not {seconds:g}")


def frames_of(fps: float, seconds: float) -> int:
    """How many frames are due, those of :data:`LEAD` too."""
    return math.ceil((LEAD + seconds) * fps)


def corrected(frames: Sequence[FrameTimes]) -> list[float]:
    """Of every frame, the seconds from when it was due until the sink was given its result, or the first later one.

    Those after the last hand-over are left out: a run that ends with its source has none.
    """
    latencies: list[float] = []
    covered: float | None = None
    for one in reversed(frames):
        covered = covered if one.stamps is None else one.stamps.handed
        if covered is not None:
            latencies.append(covered - one.due)
    return latencies[::-1]
