"""Engines with simple formulas, whose predictions and durations are known exactly."""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from framecast.camera import Image
from framecast.clock import SYSTEM, Clock
from framecast.errors import EngineError
from framecast.graph.manifest import Manifest, StateSpec
from framecast.runtime.convert import Tensor
from framecast.runtime.engines import Engine, State
from framecast.runtime.engines.turn import Turn


def manifest(size: tuple[int, int] = (12, 16), *, channels: int = 3, **fields: Any) -> Manifest:
    """The manifest of a fake model with frames of ``size`` (height, width). ``fields`` override its fields."""
    return dataclasses.replace(Manifest("Fake", "fake", (channels, *size), (), 1, 0, "by hand", "", "none"), **fields)


class _HandMade(Engine):
    """Base of the engines here: it rejects the calls that every engine must reject."""

    _closed = False

    def check(self, state_in: State, state_out: State) -> None:
        """Raise EngineError if the engine is closed, or a step would read and write the same state."""
        if self._closed:
            raise EngineError(f"{self.manifest.config} is closed: load it again")
        if state_in is state_out:
            raise EngineError("a step cannot read and write the same state: pass two")

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        self._closed = True


class DriftEngine(_HandMade):
    """Predicts frame + 0.1, not clamped, and counts its steps in a carried state.

    Args:
        seconds: the duration of a step.
        clock: the clock to wait on.

    Attributes:
        poison: called with the number of steps that a stream has seen; the prediction is NaN if it returns true.
    """

    name, device, version = "drift", "cpu", "0"

    def __init__(self, seconds: float = 0.0, clock: Clock = SYSTEM) -> None:
        self.manifest = manifest(model="Drift", config="drift", state=(StateSpec("count", (1,)),), weights="random")
        self.poison: Callable[[float], bool] = lambda count: False
        self.seconds = seconds
        self._clock = clock

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """See :meth:`Engine.step`."""
        self.check(state_in, state_out)
        assert not np.shares_memory(frame, state_out.prediction)  # noqa: S101 (the contract)
        if self.seconds:
            self._clock.wait_until(self._clock.now() + self.seconds)
        state_out.tensors["count"][:] = state_in.tensors["count"] + 1
        for row, count in enumerate(state_in.tensors["count"][:, 0]):
            state_out.prediction[row, 0] = np.nan if self.poison(float(count)) else frame[row] + np.float32(0.1)
        prediction: Tensor = state_out.prediction
        return prediction


class TrendEngine(_HandMade):
    """Predicts frame + (k + 1) · share · (frame − previous frame), k = 0 … K − 1, not clamped.

    Args:
        share: the part of the newest change that continues.
        order: the order of the channels: ``BGR``, ``RGB``, ``GRAY``, or ``NONE`` for two that are not a picture.
        outputs: K, the number of frames that a step predicts.
        warmup: see the manifest.
        poison: the number of the step whose prediction is NaN; 0 for none.
        size: (height, width) of a frame.
    """

    name, device, version = "trend", "cpu", "0"

    def __init__(
        self,
        share: float,
        order: str = "BGR",
        outputs: int = 1,
        warmup: int = 1,
        poison: int = 0,
        size: tuple[int, int] = (20, 28),
    ) -> None:
        channels = {"GRAY": 1, "NONE": 2}.get(order, 3)
        self.manifest = manifest(
            size,
            channels=channels,
            model="Trend",
            config="trend",
            state=(StateSpec("before", (channels, *size)), StateSpec("count", (1,))),
            warmup=warmup,
            outputs=outputs,
            channel_order=order,
        )
        self.share, self.poison = share, poison
        self.steps = 0

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """See :meth:`Engine.step`."""
        self.check(state_in, state_out)
        self.steps += 1
        seen = (state_in.tensors["count"] > 0)[..., None, None]
        change = self.share * (frame - state_in.tensors["before"]) * seen
        for k in range(self.manifest.outputs):
            state_out.prediction[:, k] = frame + (k + 1) * change
        if self.steps == self.poison:
            state_out.prediction[:] = np.nan
        state_out.tensors["count"][:] = state_in.tensors["count"] + 1
        state_out.tensors["before"][:] = frame
        prediction: Tensor = state_out.prediction
        return prediction


class FadeEngine(_HandMade):
    """Predicts frame + share · steps · (frame − previous frame) for any moment and any size, as a model of motion does.

    Args:
        share: the part of the newest change that continues. ``steps`` is the lookahead in units of the time between the
            two frames.
        size: (height, width) in the manifest. Pictures have the size of the frames.
    """

    name, device, version = "fade", "cpu", "0"
    any_size = True

    def __init__(self, share: float = 0.4, size: tuple[int, int] = (20, 28)) -> None:
        self.manifest = manifest(size, model="Fade", config="fade", renders="moments")
        self.share = share

    def new_state(self, batch: int = 1) -> State:
        """See :meth:`Engine.new_state`. Each row holds two pictures of any size, or 0 before the first frames."""
        state = super().new_state(batch)
        state.tensors = {"before": np.zeros(batch, object), "newest": np.zeros(batch, object)}
        return state

    def take(self, images: Sequence[Image], state: State) -> None:
        """See :meth:`Engine.take`. The frames keep their size."""
        state.seen = [image.copy() for image in images]

    def run(self, state_in: State, state_out: State) -> None:
        """See :meth:`Engine.run`."""
        self.check(state_in, state_out)
        state_out.tensors["before"][:] = state_in.tensors["newest"]
        for row, image in enumerate(state_out.seen):
            state_out.tensors["newest"][row] = image

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """See :meth:`Engine.step`. It cannot step on floats."""
        raise EngineError("fade takes pictures, not tensors: give it frames of a camera")

    def render_at(self, state: State, ahead: Sequence[float]) -> list[list[Image]]:
        """See :meth:`Engine.render_at`."""
        rows = zip(state.tensors["newest"], state.tensors["before"], strict=True)
        return [[self._at(*row, seconds / (state.elapsed or 1.0)) for seconds in ahead] for row in rows]

    def _at(self, newest: Image, before: Image | int, steps: float) -> Image:
        start = newest.astype(np.float32)
        change = np.float32(0) if isinstance(before, int) else start - before
        image: Image = np.clip(np.rint(start + np.float32(self.share * steps) * change), 0, 255).astype(np.uint8)
        return image

    def fit(self, image: Image) -> Image:
        """See :meth:`Engine.fit`. The picture stays as it is."""
        return image


class PacedEngine(TrendEngine):
    """A :class:`TrendEngine` whose n-th step takes ``seconds(n)``.

    Args:
        clock: the clock to wait on.
        seconds: the duration of a step by its number, from 0.
        machine: engines that share this list, such as ``[0.0]``, share a machine: a step starts when the last has
            ended.
    """

    def __init__(self, clock: Clock, seconds: Callable[[int], float], machine: list[float] | None = None) -> None:
        super().__init__(0.4, warmup=1)
        self.lock = _Turn(clock)
        self._clock, self._seconds = clock, seconds
        self._machine = machine if machine is not None else [0.0]  # time from which it is free
        self._count = 0

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """See :meth:`Engine.step`."""
        with _granting:
            done = self._machine[0] = max(self._machine[0], self._clock.now()) + self._seconds(self._count)
        self._count += 1
        self._clock.wait_until(done)
        return super().step(frame, state_in, state_out)


_granting = threading.Lock()


class _Turn(Turn):
    """The lock of an engine whose steps take virtual time, in which those that wait for the lock wait as well."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock, self._changed = clock, clock.condition()
        self._holder: threading.Thread | None = None

    def __enter__(self) -> None:
        me = threading.current_thread()
        with self._changed:
            while self._holder not in (None, me):
                self._clock.wait(self._changed)
            self._holder = me
            self._depth += 1
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._depth -= 1
            if not self._depth:
                self._holder = None
                self._changed.notify_all()


class EmptyEngine(_HandMade):
    """Predicts black at no cost, and is never scored. It shows how much time a loop itself takes.

    Args:
        manifest: the manifest of the model that it replaces.
    """

    name, device, version = "empty", "none", "0"

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = dataclasses.replace(manifest, state=(), precomputed={}, warmup=sys.maxsize, renders="steps")
        width, height = manifest.size
        self._black = np.zeros((height, width, 3), np.uint8)

    def take(self, images: Sequence[Image], state: State) -> None:
        """See :meth:`Engine.take`. It ignores the frames."""
        state.seen = [self._black] * len(images)

    def run(self, state_in: State, state_out: State) -> None:
        """See :meth:`Engine.run`. It does nothing."""
        self.check(state_in, state_out)

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """See :meth:`Engine.step`. It does nothing."""
        self.check(state_in, state_out)
        prediction: Tensor = state_out.prediction
        return prediction

    def render(self, state: State, ahead: Sequence[int]) -> list[list[Image] | None]:
        """See :meth:`Engine.render`."""
        return [[self._black] * len(ahead) for _ in state.prediction]
