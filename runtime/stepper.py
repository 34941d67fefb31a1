"""A stepper: an engine with the states that pass from frame to frame, for one stream or a batch of streams."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from framecast.camera import Image
from framecast.clock import SYSTEM, Clock
from framecast.errors import FrameError, OptionError
from framecast.runtime.convert import Tensor
from framecast.runtime.engines import Engine, State

SNAP = 0.02  # steps: a moment this close to a whole step shows that step's picture, unblended


@dataclass
class StepTimes:
    """The duration of the newest step in seconds, by part. On a device, ``step`` only enqueues; ``picture_out`` waits.

    Attributes:
        picture_in: resizing, colour, layout, upload.
        step: the network.
        picture_out: check, clamping, layout, download.
    """

    picture_in: float = 0.0
    step: float = 0.0
    picture_out: float = 0.0


class Stepper:
    """Steps an engine through B streams side by side. No other class swaps states.

    Each row of a batch computes what a separate stream would. But a library may sum a batch in another order, so that
    some pixels differ by one grey level.

    Several steppers may share one engine, even from several threads. Each has its own states, and holds the engine's
    lock during each call.

    Args:
        engine: the caller closes it.
        batch: the number of streams, B.
        clock: measures :attr:`times`.

    Attributes:
        engine: runs the steps.
        batch: B.
        steps: frames of each stream since its last reset.
        times: durations of the newest :meth:`advance` and :meth:`render`.

    Raises:
        OptionError: the batch is below 1.
        EngineError: the engine runs only another batch size, or there is no memory for the states.
    """

    def __init__(self, engine: Engine, batch: int = 1, *, clock: Clock = SYSTEM) -> None:
        if batch < 1:
            raise OptionError(f"a batch must be at least 1, not {batch}")
        self.engine = engine
        self.batch = batch
        self.steps = [0] * batch
        self.times = StepTimes()
        self._clock = clock
        with engine.lock:
            self._current, self._spare = engine.new_state(batch), engine.new_state(batch)
        # For looking ahead, which must not touch the two states above. With K > 1, one holds the K predictions while
        # the other two alternate.
        self._scratch: list[State] = []

    @property
    def state(self) -> State:
        """The state after the newest frame. Read it, but do not write to it."""
        return self._current

    def advance(self, images: Sequence[Image], elapsed: float = 0.0) -> None:
        """Advance every stream by its newest picture.

        Args:
            images: uint8 [H, W, 3] BGR of any size, one per stream.
            elapsed: seconds since the previous frames. Only motion models need it.

        Raises:
            FrameError: there is not one picture per stream, or the engine takes only pictures of another size.
            EngineError: the step failed; the state is unchanged.
        """
        self._check(len(images))
        with self.engine.lock:
            begun = self._clock.now()
            self._spare.elapsed = elapsed
            self.engine.take(images, self._spare)
            taken = self._clock.now()
            self.engine.run(self._current, self._spare)
            self.times.picture_in, self.times.step = taken - begun, self._clock.now() - taken
        self._swap()

    def step(self, frame: Tensor, *, poison: bool = False) -> Tensor:
        """Advance every stream by a frame of floats. The returned prediction is valid until the step after next.

        Args:
            frame: [B, C, H, W], in the manifest's value range and channel order.
            poison: first fill the prediction with NaN, to reveal outputs that the engine does not write.

        Returns:
            [B, K, C, H, W], in the same range and order.

        Raises:
            FrameError: there is not one frame per stream.
            EngineError: the step failed; the state is unchanged.
        """
        self._check(len(frame))
        with self.engine.lock:
            self._spare.seen = []
            if poison:
                self._spare.prediction.fill(np.nan)
            prediction = self.engine.step(frame, self._current, self._spare)
        self._swap()
        return prediction

    def render(self, ahead: Sequence[int] = (1,)) -> list[list[Image] | None]:
        """Pictures of the newest prediction, 1 … K steps ahead; see :meth:`Engine.render`.

        Also None for a stream that has seen no frame since its reset.
        """
        with self.engine.lock:
            begun = self._clock.now()
            pictures = self.engine.render(self._current, ahead)
            self.times.picture_out = self._clock.now() - begun
        return [row if steps else None for row, steps in zip(pictures, self.steps, strict=True)]

    def seen(self) -> list[Image]:
        """The newest :meth:`advance`'s pictures at the model's size, uint8 [h, w, 3] BGR; none after :meth:`step`."""
        with self.engine.lock:
            return self.engine.seen(self._current)

    def at(self, ahead: Sequence[float], step: float) -> list[list[Image] | None]:
        """Pictures of any moments after the newest frame. The state does not change.

        A motion model renders any moment at the cost of one step. Any other model steps as far as needed. Between two
        whole steps, their pictures are blended linearly.

        Args:
            ahead: seconds after the newest frame, at least 0. At 0, the picture is the newest frame itself.
            step: seconds of one step, for a model that predicts whole steps.

        Returns:
            For each stream its pictures, or None as for :meth:`look_ahead`.

        Raises:
            OptionError: a moment lies before the newest frame.
            EngineError: a step failed.
        """
        if any(not seconds >= 0 for seconds in ahead):
            raise OptionError(f"a moment must not lie before the newest frame: {min(ahead):.3f} s")
        if self.engine.manifest.renders == "moments":
            with self.engine.lock:
                begun = self._clock.now()
                rows = self.engine.render_at(self._current, ahead) if any(self.steps) else [[] for _ in self.steps]
                self.times.picture_out = self._clock.now() - begun
            return [row if steps else None for row, steps in zip(rows, self.steps, strict=True)]
        whole = [_whole(seconds / step) for seconds in ahead]
        begun = self._clock.now()
        rows_of_steps = self.look_ahead(max(1, *map(math.ceil, whole)))
        self.times.picture_out = self._clock.now() - begun
        newest = self.seen() if min(whole) < 1 else [None] * self.batch
        return [
            None if row is None else [_between([image, *row], steps) for steps in whole]
            for image, row in zip(newest, rows_of_steps, strict=True)
        ]

    def look_ahead(self, horizon: int) -> list[list[Image] | None]:
        """Pictures 1 … ``horizon`` steps ahead, one list per stream.

        None for a stream with a non-finite prediction, and for one that has seen no frame since its reset. Predictions
        are fed back unchanged: floats, not clamped. The state does not change.

        Raises:
            OptionError: the horizon is below 1.
            EngineError: a step failed.
        """
        if horizon < 1:
            raise OptionError(f"the horizon must be at least 1, not {horizon}")
        with self.engine.lock:
            rows: list[list[Image] | None] = [[] if steps else None for steps in self.steps]
            for state, count in self._blocks(horizon):
                for i, pictures in enumerate(self.engine.render(state, range(1, count + 1))):
                    row = rows[i]
                    rows[i] = None if row is None or pictures is None else row + pictures
                if not any(row is not None for row in rows):
                    break
        return rows

    def predict(self, horizon: int) -> Tensor:
        """Like :meth:`look_ahead`, but floats in the manifest's value range: a copy, [B, horizon, C, H, W].

        Only for engines that keep their states on the host.
        """
        with self.engine.lock:
            blocks = [state.prediction[:, :count].copy() for state, count in self._blocks(horizon)]
        return np.concatenate(blocks, axis=1)

    def precompute(self) -> None:
        """Compute the part of the next step that needs no frame. Optional: otherwise the step does it.

        Call it between two frames.

        Raises:
            EngineError: the engine failed.
        """
        with self.engine.lock:
            self.engine.precompute(self._current)

    def reset(self, rows: Sequence[int] | None = None) -> None:
        """Reset some streams (default: all). The others continue.

        Raises:
            OptionError: there is no such row.
        """
        for row in rows or ():
            if not 0 <= row < self.batch:
                raise OptionError(f"no row {row}: this stepper has rows 0 to {self.batch - 1}")
        with self.engine.lock:
            self.engine.reset(self._current, rows)
        for row in range(self.batch) if rows is None else rows:
            self.steps[row] = 0

    def _check(self, given: int) -> None:
        if given != self.batch:
            raise FrameError(f"a stepper of {self.batch} streams takes {self.batch} frames at once, not {given}")

    def _swap(self) -> None:
        self._current, self._spare = self._spare, self._current
        for row in range(self.batch):
            self.steps[row] += 1

    def _blocks(self, horizon: int) -> Iterator[tuple[State, int]]:
        """Yield states that hold the next K predictions each, and how many of those are wanted. Uses scratch states."""
        outputs = self.engine.manifest.outputs
        source = self._current
        while True:
            yield source, min(outputs, horizon)
            horizon -= outputs
            if horizon <= 0:
                return
            if not self._scratch:
                self._scratch = [self.engine.new_state(self.batch) for _ in range(2 if outputs == 1 else 3)]
            free = [state for state in self._scratch if state is not source]
            state = source
            for k in range(outputs):
                target = free[k % 2]
                self.engine.feed_back(source, k, state, target)
                self.engine.lock.renew()
                state = target
            source = state


def _whole(steps: float) -> float:
    """A number of steps, rounded if it is nearly whole."""
    nearest = float(round(steps))
    return nearest if abs(steps - nearest) < SNAP else steps


def _between(pictures: Sequence[Image | None], steps: float) -> Image:
    """Blend the picture after ``steps`` from those after 0, 1, 2, … steps. The first may be None if not needed."""
    share = steps - math.floor(steps)
    before, after = pictures[math.floor(steps)], pictures[math.ceil(steps)]
    assert before is not None  # noqa: S101 (the caller gives it)
    assert after is not None  # noqa: S101
    return cv2.addWeighted(before, 1 - share, after, share, 0) if share else before  # type: ignore[return-value]
