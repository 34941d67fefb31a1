"""The live loop with a stamp at every station: source, mailbox, engine, hand-over.

It is :class:`Pipeline` itself that runs, with its capture thread and its mailbox. A clip stands in for the camera: its
frames are decoded beforehand, and come when they are due, whatever becomes of those before them (an open loop).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from framecast.camera import Frame, Image, Source
from framecast.errors import OptionError, SourceError
from framecast.runtime.engines import Engine
from framecast.runtime.mailbox import Mailbox
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor

WARM_STEPS = 10  # of a predictor, at least, before it is measured: its engine compiles or captures in the first ones
LEAD = 1.0  # seconds of every loop that are not counted: threads start, caches fill, a camera's queue empties
PRELOADED = 256 << 20  # bytes of a clip that are held; one that is longer is shown from its beginning again


class Clock(Protocol):
    """What time is read from, and waited by; tests have one on which no time passes while anybody works."""

    def now(self) -> float:
        """Seconds, running forward."""

    def wait_until(self, moment: float) -> None:
        """Return at ``moment`` (seconds), or at once where it has passed."""

    def cpu(self) -> float:
        """Seconds of CPU time that this process has used, over all its threads."""

    def condition(self) -> threading.Condition:
        """What a thread waits by for another: this clock knows of nobody who waits otherwise."""


class RealClock:
    """``time.monotonic()``, on which cameras say when they grabbed a frame."""

    def now(self) -> float:
        """See :meth:`Clock.now`."""
        return time.monotonic()

    def wait_until(self, moment: float) -> None:
        """See :meth:`Clock.wait_until`. The kernel wakes a thread some 0.1 ms late; that counts as capture's."""
        time.sleep(max(0.0, moment - time.monotonic()))

    def cpu(self) -> float:
        """See :meth:`Clock.cpu`."""
        return time.process_time()

    def condition(self) -> threading.Condition:
        """See :meth:`Clock.condition`."""
        return threading.Condition()


REAL = RealClock()


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


@dataclass
class Marks:
    """What became of one frame. Moments in seconds on the loop's clock; None where it was dropped before.

    Attributes:
        due: when it should have been there; of a real camera, the moment of its grab.
        arrived: left in the mailbox.
        taken: out of it, by the thread that predicts.
        predicted: the prediction's picture was there.
        handed: the sink was given it.
        cpu: seconds of CPU time that the process had used by then.
        step: seconds spent in the engine's ``step``; None where its pictures do not go through that.
        picture: seconds until the prediction was a picture.
    """

    due: float
    arrived: float
    taken: float | None = None
    predicted: float = 0.0
    handed: float | None = None
    cpu: float = 0.0
    step: float | None = None
    picture: float = 0.0


class _Stamped(Mailbox[tuple[Frame, float]]):
    """Notes what comes and goes, by a frame's number."""

    def __init__(self, clock: Clock, *, newest: bool) -> None:
        super().__init__(newest=newest)
        self._changed = clock.condition()
        self._clock = clock
        self.marks: dict[int, Marks] = {}
        self.current = Marks(0.0, 0.0)  # of the frame that is being predicted

    def put(self, item: tuple[Frame, float]) -> bool:
        """See :meth:`Mailbox.put`."""
        frame, _ = item
        self.marks[frame.index] = Marks(frame.time, self._clock.now())
        return super().put(item)

    def get(self) -> tuple[Frame, float] | None:
        """See :meth:`Mailbox.get`."""
        item = super().get()
        if item is not None:
            self.current = self.marks[item[0].index]
            self.current.taken = self._clock.now()
        return item


class Loop(Pipeline):
    """A pipeline into a sink that takes no time, every frame of which leaves its marks.

    Args:
        source: closed at the end.
        predictor: one that is :func:`warm`; closed by its owner.
        clock: what to read the time from.
    """

    def __init__(self, source: Source, predictor: Predictor, clock: Clock) -> None:
        super().__init__(source, predictor)
        self._clock = clock
        self._mailbox = self._stamped = _Stamped(clock, newest=source.live)

    def run(self) -> list[Marks]:
        """Run to the end of the source.

        Returns:
            The frames' marks in their order, without the first :data:`LEAD` seconds; dropped ones too.

        Raises:
            SourceError: the source was lost.
            EngineError: the engine failed.
        """
        clock = self._clock
        with self._timed(self.predictor.engine), closing(iter(self)) as events:
            for event in events:
                marks = self._stamped.marks[event.frame.index]
                marks.handed, marks.cpu = clock.now(), clock.cpu()
        every = list(self._stamped.marks.values())
        return [m for m in every if m.due >= every[0].due + LEAD]

    @contextmanager
    def _timed(self, engine: Engine) -> Iterator[None]:
        """Time what the predictor calls, on this one engine: an engine's own pictures go through its own step."""
        clock, box = self._clock, self._stamped
        calls: dict[str, Callable[..., Any]] = {"step": engine.step, "shown": engine.shown}

        def step(*arguments: Any) -> Any:
            begun = clock.now()
            result = calls["step"](*arguments)
            box.current.step = (box.current.step or 0.0) + clock.now() - begun
            return result

        def shown(*arguments: Any) -> Any:
            begun = clock.now()
            result = calls["shown"](*arguments)
            box.current.predicted = clock.now()
            box.current.picture += box.current.predicted - begun
            return result

        # Attributes of the instance hide the class's methods.
        before = {name: vars(engine)[name] for name in calls if name in vars(engine)}
        vars(engine).update(step=step, shown=shown)
        try:
            yield
        finally:
            for name in calls:
                del vars(engine)[name]
            vars(engine).update(before)


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


def corrected(marks: Sequence[Marks]) -> list[float]:
    """Of every frame, the seconds from when it was due until the sink was given it, or the first one after it.

    Those after the last hand-over are left out: a run that ends with its source has none.
    """
    latencies: list[float] = []
    covered: float | None = None
    for m in reversed(marks):
        covered = covered if m.handed is None else m.handed
        if covered is not None:
            latencies.append(covered - m.due)
    return latencies[::-1]
