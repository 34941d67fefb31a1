"""The unscored parts of ``now.py``: a delayed stream with known capture times, and fresh processes."""

from __future__ import annotations

import math
import statistics
import tempfile
from dataclasses import dataclass

import cv2
import numpy as np
from _now_clips import Clip
from startup import run

from framecast.bench.cold_start import cold_start
from framecast.camera import Frame, Source
from framecast.clock import Clock
from framecast.runtime.engines.engine import State
from framecast.runtime.lookahead import Lookahead
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.shipped import find
from framecast.testing import FadeEngine, VirtualClock

FPS = 30.0
DELAY = 0.150  # seconds from capture to arrival; the run is given this value
CAMERAS = (  # name; amplitude of the delay's drift around DELAY, and its period, both in seconds
    ("150 ms, steady", 0.0, 1.0),
    ("150 ± 40 ms, from frame to frame", 0.040, 0.0),
    ("150 ± 40 ms, in 2 s", 0.040, 2.0),
    ("150 ± 40 ms, in 10 s", 0.040, 10.0),
    ("150 ± 40 ms, in 20 s", 0.040, 20.0),
)
JITTER = 0.004  # seconds: standard deviation of the additional random delay
SECONDS = 120.0
SETTLED = 20.0  # seconds discarded at the start
STEP = 0.022  # seconds that a step takes


class Delayed(Source):
    """A camera whose frames arrive late, by a drifting delay plus jitter.

    Args:
        clock: the run's clock.
        wander: amplitude of the drift around the known delay, in seconds.
        period: period of the drift in seconds; 0 draws each frame's delay at random.

    Attributes:
        captured: the true capture time of each frame, by its number.
    """

    live = True
    fps: float | None = FPS
    name = "a delayed camera"

    def __init__(self, clock: Clock, wander: float, period: float) -> None:
        self._clock, self._start = clock, clock.now() + 0.5
        self._wander, self._period = wander, period
        self._rng = np.random.default_rng(0)
        self._arrival = 0.0
        self._shape = np.zeros((48, 64, 3), np.uint8)
        self.captured: list[float] = []

    def read(self) -> Frame | None:
        """See :meth:`Source.read`."""
        index = len(self.captured)
        if index >= SECONDS * FPS:
            return None
        moment = self._start + index / FPS
        at = math.sin(2 * math.pi * index / FPS / self._period) if self._period else self._rng.uniform(-1, 1)
        late = DELAY + self._wander * at + self._rng.normal(0, JITTER)
        self._arrival = max(moment + late, self._arrival + 1e-4)
        self._clock.wait_until(self._arrival)
        self.captured.append(moment)
        return Frame(self._shape + np.uint8(index % 200), self._clock.now(), index)

    def close(self) -> None:
        """See :meth:`Source.close`."""


class _Working(FadeEngine):
    """An engine whose step takes ``STEP`` seconds on the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(size=(48, 64))
        self._clock = clock

    def run(self, state_in: State, state_out: State) -> None:
        """See :meth:`Engine.run`."""
        self._clock.wait_until(self._clock.now() + STEP)
        super().run(state_in, state_out)


@dataclass(frozen=True)
class Now:
    """How far from now the pictures shown are, in milliseconds.

    Attributes:
        median: median of the error: the moment shown minus the true now.
        p95: 95th percentile of the absolute error.
        without: median age of the newest camera frame: the error without prediction.
        n: number of pictures.
    """

    median: float
    p95: float
    without: float
    n: int


def now(wander: float, period: float) -> Now:
    """Run ``--now`` on a :class:`Delayed` camera in virtual time, where the true capture times are known."""
    clock = VirtualClock()
    source = Delayed(clock, wander, period)
    lookahead = Lookahead(now=True, camera_delay=DELAY)
    pipeline = Pipeline(source, Predictor(_Working(clock), clock=clock), lookahead=lookahead, rival=False, clock=clock)
    errors, ages = [], []
    for result in pipeline:
        captured = source.captured[result.frame.index]
        if captured > source.captured[0] + SETTLED:
            errors.append(1e3 * (captured + result.prediction.ahead - result.stamps.handed))
            ages.append(1e3 * (result.stamps.handed - captured))
    p95 = float(np.percentile(np.abs(errors), 95))
    return Now(statistics.median(errors), p95, statistics.median(ages), len(errors))


def start(model: str, engine: str, threads: int, clip: Clip) -> tuple[float, float]:
    """Return the median seconds from process start to first prediction, and the peak memory in MB over a clip."""
    height, width = clip.frames[0].shape[:2]
    cold = cold_start(find(model), engine, threads, (width, height))
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/{clip.name}.mp4"
        writer = cv2.VideoWriter(place, cv2.VideoWriter.fourcc(*"mp4v"), 1 / clip.interval, (width, height))
        for frame in clip.frames:
            writer.write(frame)
        writer.release()
        _, peak = run("run", place, "--model", model, "--engine", engine, "--threads", str(threads))
    return cold.seconds, peak
