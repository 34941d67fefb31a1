"""The predictor: real frames in, the frames still to come out."""

from __future__ import annotations

import logging
import math
import os
import statistics
from collections import deque
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from framecast.camera import Image
from framecast.errors import EngineError, FrameError, OptionError
from framecast.runtime.cpu import caution
from framecast.runtime.engines import Engine, open_engine
from framecast.runtime.shipped import DEFAULT_MODEL, find

_log = logging.getLogger(__name__)

FALLBACK_INTERVAL = 1 / 25  # seconds, until two frames' times have told


@dataclass(frozen=True, eq=False)
class Prediction:
    """A frame that is still to come.

    Attributes:
        image: uint8 [h, w, 3] BGR, at the model's size.
        time: seconds, on the clock of the frames that it was made from: when the frame is expected.
        horizon: how many steps ahead of the newest real frame it is.
    """

    image: Image
    time: float
    horizon: int


class Predictor:
    """One camera's view of a model: carries the state from frame to frame.

    Attributes:
        engine: runs the steps.
        steps: real frames seen since the last reset.
        resets: how often a non-finite prediction made it start anew.
        input: the newest real frame as the model sees it, uint8 [h, w, 3] BGR.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.manifest = engine.manifest
        if self.manifest.channel_order == "NONE":
            raise EngineError(
                f"{self.manifest.config} takes {self.manifest.frame[0]} channels that are no picture: "
                "it can be exported and compared, but not run on a camera or clip"
            )
        self.resets = 0
        width, height = self.manifest.size
        self.input: Image = np.zeros((height, width, 3), np.uint8)
        self._live, self._spare = engine.new_state(), engine.new_state()
        # To look ahead without touching those two: one holds a block of predictions while the others take turns.
        self._scratch = [engine.new_state() for _ in range(2 if self.manifest.outputs == 1 else 3)]
        self.reset()

    def reset(self) -> None:
        """Forget every frame: the next one may have another size, and starts a new stream."""
        self._live.reset()
        self.steps = 0
        self._shape: tuple[int, ...] | None = None
        self._time: float | None = None
        self._intervals: deque[float] = deque(maxlen=9)

    @property
    def interval(self) -> float:
        """Seconds from one frame to the next: the median of the last few, or what the model was trained for."""
        if self._intervals:
            return statistics.median(self._intervals)
        return self.manifest.interval or FALLBACK_INTERVAL

    def step(self, frame: Image, time: float | None = None) -> Prediction:
        """Take a real frame, and predict the next one.

        Args:
            frame: uint8 [H, W, 3] BGR, of any size, but the same until the next reset.
            time: seconds, on any clock that runs forward; without it frames are one interval apart.

        Raises:
            FrameError: the frame is not such an image, or its size has changed.
            OptionError: the time does not run forward.
            EngineError: the engine failed, or its prediction is not finite even from a fresh state.
        """
        self._check(frame)
        if time is None:
            time = 0.0 if self._time is None else self._time + self.interval
        elif self._time is not None:
            if not time > self._time:
                raise OptionError(f"time must run forward: {time} s does not come after {self._time} s")
            self._intervals.append(time - self._time)
        if not math.isfinite(time):
            raise OptionError(f"time must be a number of seconds, not {time}")
        self._time, self._shape, self._image = time, frame.shape, frame
        shown = self._advance()
        if shown is None:
            shown = self._start_anew()
        return Prediction(shown[0], time + self.interval, 1)

    def rollout(self, horizon: int) -> list[Prediction]:
        """Predict the next ``horizon`` frames from the newest real one; the state is not touched.

        Predictions are fed back as they are: floats, not clamped. A model that predicts K frames at once gives them all
        before they are fed back, one by one, for the next K. If one is not finite, the state is reset, that is counted,
        and the newest frame is looked ahead from anew.

        Raises:
            OptionError: the horizon is below 1, or there has been no frame yet.
            EngineError: the engine failed, or a prediction is not finite even from a fresh state.
        """
        if horizon < 1:
            raise OptionError(f"the horizon must be at least 1, not {horizon}")
        if self._time is None or not self.steps:
            raise OptionError("nothing to look ahead from: call step() with a frame first")
        images = self._look_ahead(horizon)
        if images is None:
            self._start_anew()
            images = self._look_ahead(horizon)
        if images is None:
            raise EngineError(f"predictions up to {horizon} steps ahead are not finite: look less far ahead")
        interval = self.interval
        return [Prediction(image, self._time + k * interval, k) for k, image in enumerate(images, start=1)]

    def _look_ahead(self, horizon: int) -> list[Image] | None:
        """Images 1 … ``horizon`` steps ahead, on scratch states; None where one is not finite."""
        images: list[Image] = []
        source = self._live
        while True:
            shown = self.engine.shown(source, horizon - len(images))
            if shown is None:
                return None
            images += shown
            if len(images) == horizon:
                return images
            state, free = source, [scratch for scratch in self._scratch if scratch is not source]
            for k in range(self.manifest.outputs):
                target = free[k % 2]
                self.engine.feed_back(source, k, state, target)
                state = target
            source = state

    def precompute(self) -> None:
        """Do now, between two frames, what the next step needs of no frame; without this call the step does it.

        Only where the artifact is in two halves (``framecast prepare``) is there anything to be done.

        Raises:
            EngineError: the engine failed.
        """
        self.engine.precompute(self._live)

    def close(self) -> None:
        """Free the engine. May be called twice."""
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

    def _advance(self) -> list[Image] | None:
        """One step of the live state on the newest frame: what it predicts; None where that is not finite."""
        self.engine.watch(self._image, self._live, self._spare)
        self.input = self.engine.seen
        self._live, self._spare = self._spare, self._live
        self.steps += 1
        return self.engine.shown(self._live, 1)

    def _start_anew(self) -> list[Image]:
        """A prediction was not finite: take the newest frame again, from a fresh state."""
        _log.warning("a prediction is not finite: the state is reset")
        self.resets += 1
        self._live.reset()
        self.steps = 0
        shown = self._advance()
        if shown is None:
            raise EngineError(
                f"{self.manifest.config} predicts values that are not finite even from a fresh state: "
                "its weights are damaged, export it again"
            )
        return shown


def load(model: str | os.PathLike[str] = DEFAULT_MODEL, *, engine: str = "auto", threads: int = 0) -> Predictor:
    """A predictor for a shipped model's name, or for the path of an artifact.

    It logs a warning if the artifact is int8 and its sums can saturate on this CPU.

    Args:
        model: see ``framecast models``.
        engine: see ``framecast doctor``; ``auto`` takes what runs everywhere.
        threads: of the step on a CPU; 0 for one a core.

    Raises:
        ArtifactError: there is no such model, or the file is no artifact.
        EngineError: the engine cannot be had here.
        OptionError: there is no such engine.
    """
    predictor = Predictor(open_engine(find(model), engine, threads=threads))
    if line := caution(predictor.manifest):
        _log.warning("%s", line)
    return predictor
