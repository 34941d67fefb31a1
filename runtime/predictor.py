"""The predictor: takes real frames and predicts future ones."""

from __future__ import annotations

import logging
import math
import os
import statistics
from collections import Counter, deque
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from types import TracebackType

import cv2
import numpy as np

from framecast.camera import DEFAULT_FPS, Image, Timeline
from framecast.clock import SYSTEM, Clock
from framecast.errors import EngineError, FrameError, OptionError
from framecast.notice import Notice
from framecast.runtime.cpu import caution
from framecast.runtime.engines import Engine, open_engine
from framecast.runtime.events import Event, Guard, Kind, Watch
from framecast.runtime.lookahead import LONGEST
from framecast.runtime.shipped import DEFAULT_MODEL, find, read_by
from framecast.runtime.stepper import Stepper, StepTimes

FRAMES = 10  # frames of a slow camera, such as a timelapse, that a prediction may look ahead, however long they take

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Prediction:
    """A predicted frame.

    Attributes:
        image: uint8 [h, w, 3] BGR, at the model's size.
        time: the moment that it shows, in seconds on the clock of the input frames.
        ahead: the lookahead: seconds from the newest real frame to that moment.
    """

    image: Image
    time: float
    ahead: float

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"Prediction({width}x{height}, {1e3 * self.ahead:.0f} ms ahead, time {self.time:.3f} s)"

    def _repr_png_(self) -> bytes:
        """The picture as PNG, for notebooks."""
        return cv2.imencode(".png", self.image)[1].tobytes()


class Predictor:
    """Predicts one camera's stream: a stepper with times and checks.

    Args:
        engine: runs the steps; several predictors may share it.
        owns_engine: whether :meth:`close` closes the engine.
        watch: handle irregular streams (:mod:`framecast.runtime.events`): skip repeated frames, reset at a cut, remove
            flicker, and fall back to copying where predictions are worse. If False, the model gets every frame.
        clock: measures the steps.

    Attributes:
        engine: runs the steps.
        event: the kind of the newest frame; see :class:`framecast.runtime.events.Event`.
        events: how often each kind of frame has come.
        faults: ``times_mended`` counts the frames' times that repeated or ran back.
        resets: how often a non-finite prediction reset the state.

    Raises:
        EngineError: the model does not take pictures, or there is no memory for its states.
    """

    def __init__(self, engine: Engine, *, owns_engine: bool = False, watch: bool = True, clock: Clock = SYSTEM) -> None:
        self.engine = engine
        self.manifest = engine.manifest
        if not self.manifest.is_picture:
            raise EngineError(
                f"cannot run {self.manifest.config} on a camera or clip: its {self.manifest.frame[0]} channels are "
                "not a picture (it can be trained, exported and evaluated, but not run)"
            )
        self.resets = 0
        self._owns_engine = owns_engine
        self._input: Image | None = None
        self._stepper = Stepper(engine, clock=clock)
        self._watch = Watch() if watch else None
        self._guard = Guard()
        self.event: Kind = "first"
        self.events: Counter[Kind] = Counter()
        self.faults: Counter[str] = Counter()
        self.reset()

    @property
    def steps(self) -> int:
        """The number of frames that the model has seen since its last reset."""
        return self._stepper.steps[0]

    @property
    def copied(self) -> int:
        """How often a prediction was replaced by a copy of the newest frame, because copying has lately been better."""
        return self._guard.copied

    @property
    def input(self) -> Image:
        """The newest real frame at the model's size, uint8 [h, w, 3] BGR; black before the first frame."""
        if self._input is None:
            width, height = self.manifest.size
            if self._time is None:
                self._input = np.zeros((height, width, 3), np.uint8)
            elif self._given is self._image and self.event != "repeat":
                self._input = self._stepper.seen()[0]
            else:
                self._input = self.engine.fit(self._image)
        return self._input

    def fit(self, image: Image) -> Image:
        """Convert a picture, uint8 [H, W, 3] BGR, to the model's size and colours. Scores compare such pictures."""
        return self.engine.fit(image)

    @property
    def times(self) -> StepTimes:
        """The duration of the newest step in seconds, by part."""
        return self._stepper.times

    def reset(self) -> None:
        """Forget every frame. The next frame starts a new stream and may have another size."""
        self._stepper.reset()
        if self._watch is not None:
            self._watch.reset()
        self._guard.reset()
        self._input = None
        self._shape: tuple[int, ...] | None = None
        self._time: float | None = None
        self._timeline = Timeline(self.faults)
        self._interval: float | None = None  # the camera's, if the caller knows it
        self._intervals: deque[float] = deque(maxlen=9)  # between the frames taken
        self._strides: deque[float] = deque(maxlen=9)  # seconds of motion between the frames that the model has seen

    @property
    def interval(self) -> float:
        """The camera's interval: seconds between its frames, whether or not all of them were taken.

        It is the newest one given to :meth:`step`; otherwise the median time between the last few frames; before
        there are two frames, the model's interval in training.
        """
        if self._interval is not None:
            return self._interval
        if self._intervals:
            return statistics.median(self._intervals)
        return self.manifest.interval or 1 / DEFAULT_FPS

    def step(self, frame: Image, time: float | None = None, *, interval: float | None = None) -> None:
        """Take a real frame. After that, :meth:`at` predicts the picture of any moment ahead.

        Args:
            frame: uint8 [H, W, 3] BGR. Any size, but the same size until the next reset. Do not change it before the
                next call.
            time: seconds on any clock (default: one interval after the last frame). Times should increase. One that
                repeats or runs back by up to a second is mended; one that runs back further begins a new stream.
            interval: the camera's interval in seconds, if the caller knows it. It matters if frames are dropped.

        Raises:
            FrameError: the frame is not such an image, or its size has changed.
            OptionError: the time is not a finite number, or the interval is not above 0.
            EngineError: the engine failed.

        A rejected frame leaves the predictor unchanged.
        """
        self._check(frame)
        if interval is not None and not 0 < interval < math.inf:
            raise OptionError(f"an interval must be a number of seconds above 0, not {interval}")
        if time is None:
            time = 0.0 if self._time is None else self._time + (interval or self.interval)
        elif not math.isfinite(time):
            raise OptionError(f"time must be a number of seconds, not {time}")
        timeline = copy(self._timeline)
        mended = timeline.see(time, interval or self.interval)
        if mended is None:
            self.reset()
        time = time if mended is None else mended
        event = self._see(frame, time, interval or self.interval)
        try:
            if event.kind in ("cut", "gap"):
                self._stepper.reset()
            if event.kind != "repeat":
                self._stepper.advance([event.image], event.elapsed)
        except FrameError:
            if self._time is None and self._watch is not None:
                self._watch.reset()
            raise
        if self._time is not None:
            self._intervals.append(time - self._time)
        if event.kind == "new":
            self._strides.append(event.elapsed)
        self._timeline = timeline
        self._time, self._shape, self._image, self._interval = time, frame.shape, frame, interval
        self._given = event.image  # the frame as the model sees it
        self._input = None
        self.event = event.kind
        self.events[event.kind] += 1
        if self._watch is not None and event.kind != "repeat":
            self._guard.see(self.input, time, self.interval)

    def at(self, time: float) -> Prediction:
        """Predict the picture of a moment. The state does not change, so moments may be asked for in any order.

        A motion model renders any moment at the cost of one step. Any other model rolls out, as :meth:`rollout` does,
        and blends the pictures of the two steps around the moment.

        Args:
            time: seconds, on the clock of the input frames; not before the newest frame, and up to 10 s after it, or
                ten intervals if they are longer.

        Returns:
            The predicted picture of that moment.

        Raises:
            OptionError: there was no frame yet, or the moment lies before the newest one or too far ahead.
            EngineError: the engine failed, or the prediction is not finite even from a fresh state.
        """
        return self._at([time])[0]

    def rollout(self, horizon: int) -> list[Prediction]:
        """Predict the next ``horizon`` frames of the camera: :meth:`at`, one :attr:`interval` after another.

        A step model feeds its predictions back unchanged: floats, not clamped. A model that predicts K frames per step
        returns all K, then takes them back one by one to predict the next K. If a prediction is not finite, the
        predictor resets the state, counts the reset, and repeats the rollout from the newest frame.

        Args:
            horizon: the number of frames to predict, at least 1.

        Returns:
            The ``horizon`` predictions, the next frame first.

        Raises:
            OptionError: the horizon is below 1 or too far ahead, or there was no frame yet.
            EngineError: the engine failed, or a prediction is not finite even from a fresh state.
        """
        if horizon < 1:
            raise OptionError(f"the horizon must be at least 1, not {horizon}")
        newest, interval = self._time or 0.0, self.interval
        return self._at([newest + k * interval for k in range(1, horizon + 1)])

    def precompute(self) -> None:
        """Compute the part of the next step that needs no frame. Optional: otherwise the step does it.

        Call it between two frames. It does nothing unless the artifact was split in two (``framecast split``).

        Raises:
            EngineError: the engine failed.
        """
        self._stepper.precompute()

    def close(self) -> None:
        """Close the engine if this predictor owns it, as after :func:`load`. May be called twice."""
        if self._owns_engine:
            with self.engine.lock:  # no other stepper is in the middle of a step
                self.engine.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, frame: Image) -> None:
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            got = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise FrameError(f"a frame must be uint8 [H, W, 3] BGR, not {got}")
        if min(frame.shape) < 1:
            raise FrameError(f"a frame must have pixels, not shape {list(frame.shape)}")
        if self._shape is not None and frame.shape != self._shape:
            was, now = (f"{shape[1]}x{shape[0]}" for shape in (self._shape, frame.shape))
            raise FrameError(f"the frame size changed from {was} to {now} in mid-stream: call reset() first")

    @property
    def _step(self) -> float:
        """Seconds of one step of a step model: the usual time between the frames it has seen, in whole intervals."""
        taken = statistics.median(self._strides) if self._strides else self.interval
        return self.interval * max(1, round(taken / self.interval))

    def _at(self, times: Sequence[float]) -> list[Prediction]:
        if self._time is None or not self.steps:
            raise OptionError("cannot look ahead before the first frame: call step() with a frame first")
        ahead = [time - self._time for time in times]
        if any(not seconds >= 0 for seconds in ahead):
            raise OptionError(f"a moment must not lie before the newest frame: {min(ahead):.3f} s")
        longest = max(LONGEST, FRAMES * self.interval)
        if max(ahead) > longest:
            raise OptionError(f"a moment may lie up to {longest:g} s after the newest frame, not {max(ahead):g} s")
        motion = ahead if self._watch is None else [self._watch.ahead(time) for time in times]
        images = self._render(motion)
        if images is None:
            self._restart()
            images = self._render(motion)
        if images is None:
            raise EngineError(
                f"{self.manifest.config} predicts values that are not finite even from a fresh state, "
                f"{1e3 * max(ahead):.0f} ms ahead: use a shorter lookahead; if its weights are damaged, export it again"
            )
        return [Prediction(self._finish(*one), one[1], one[2]) for one in zip(images, times, ahead, strict=True)]

    def _see(self, frame: Image, time: float, interval: float) -> Event:
        """Classify a frame, and prepare it for the model."""
        if self._watch is not None:
            return self._watch.see(frame, time, interval)
        return Event("first", frame, 0.0) if self._time is None else Event("new", frame, time - self._time)

    def _render(self, motion: Sequence[float]) -> list[Image] | None:
        """Pictures after each number of seconds of motion; after 0 s, the newest frame. None if one is not finite."""
        moving = [seconds for seconds in motion if seconds > 0]
        (rendered,) = self._stepper.at(moving, self._step) if moving else [[]]
        if rendered is None:
            return None
        pictures = iter(rendered)
        return [next(pictures) if seconds > 0 else self._still for seconds in motion]

    @property
    def _still(self) -> Image:
        """The newest frame as the model has seen it, at the model's size: without flicker."""
        return self.input if self._given is self._image else self.engine.fit(self._given)

    def _finish(self, picture: Image, time: float, ahead: float) -> Image:
        """Put the expected flicker back in. Fall back to the newest frame if that has lately been better."""
        if self._watch is not None and ahead:
            picture = self._watch.finish(picture, time)
            picture = self._guard.choose(picture, self.input, time, ahead, self.interval, self._watch.moment)
        # The caller may draw on the result, so it must not be the stream's own frame.
        return picture.copy() if picture is self._image or picture is self._input else picture

    def _restart(self) -> None:
        """Repeat the newest frame from a fresh state, after a prediction that was not finite."""
        self.resets += 1
        line = "a prediction is not finite: resetting the state"
        _log.warning(Notice("reset", line, logging.WARNING, resets=self.resets))
        self._stepper.reset()
        self._stepper.advance([self._given])


def load(model: str | os.PathLike[str] = DEFAULT_MODEL, *, engine: str = "auto", threads: int = 0) -> Predictor:
    """Load a predictor by a shipped model's name, or by the path of an artifact.

    It logs a warning if the artifact is int8 and its sums can saturate on this CPU.

    Args:
        model: see ``framecast models``.
        engine: see ``framecast doctor``; ``auto`` is the engine that runs everywhere.
        threads: CPU threads of the step; 0 means one per core.

    Returns:
        A predictor that owns its engine. Close it, or use it in a ``with``.

    Raises:
        ArtifactError: there is no such model, or the file is not an artifact.
        EngineError: the engine is not available on this machine.
        OptionError: there is no such engine.
    """
    return Predictor(open_model(model, engine=engine, threads=threads), owns_engine=True)


def open_model(model: str | os.PathLike[str], *, engine: str = "auto", threads: int = 0) -> Engine:
    """Open the engine of :func:`load`; also for a model whose channels are not a picture, which has no predictor."""
    opened = open_engine(find(read_by(engine, model)), engine, threads=threads)
    if line := caution(opened.manifest):
        _log.warning("%s", line)
    return opened
