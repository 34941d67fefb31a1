"""The base class of engines that run the device graph (``graph/device.py``) in device memory."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.errors import EngineError, FrameError
from framecast.runtime.convert import Tensor, to_model_size
from framecast.runtime.engines.engine import Engine, Moment, State, field_buffers, step_buffers
from framecast.runtime.engines.phases import Phases


class Buffer(ABC):
    """An array on the device.

    Attributes:
        shape: its shape.
        dtype: the type of its elements.
        address: the address of its first byte.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    address: int

    @abstractmethod
    def upload(self, array: NDArray[Any]) -> None:
        """Overwrite the buffer with ``array``, after the last step and before the next one."""

    @abstractmethod
    def download(self) -> NDArray[Any]:
        """Wait until all steps so far are done, and return a copy of the buffer."""

    def fetch(self) -> None:  # noqa: B027 (optional: only some devices can copy early)
        """Announce a download, so that the copy to the host starts as soon as the last step is done."""

    def fill(self, value: float) -> None:
        """Set every element."""
        self.upload(np.full(self.shape, value, self.dtype))


@dataclass(eq=False)
class _Outputs:
    """The device buffers that a step returns to the host, and for each row how many past steps it keeps."""

    shown: Buffer
    finite: Buffer
    seen: Buffer | None
    keep: list[int]
    elsewhere: bool = False  # whether each row goes on as another state, which the host reads instead


class DeviceEngine(Engine):
    """See :class:`Engine`. A subclass makes the buffers and binds the graph to them.

    A reset only changes the graph's ``keep`` input. It does not overwrite any state. If there is a ``camera``, the
    graph resizes its frames; otherwise the host does.
    """

    apart = False

    def __init__(self) -> None:
        self._phases: Phases[Callable[[], None]] = Phases()
        self._outputs: weakref.WeakKeyDictionary[State, _Outputs] = weakref.WeakKeyDictionary()
        self._draws: weakref.WeakKeyDictionary[State, Callable[[], None]] = weakref.WeakKeyDictionary()
        self._inputs: dict[tuple[str, int], Buffer] = {}
        self._kept: dict[int, list[int]] = {}  # by batch: the last upload to "keep"
        self._closed = False

    @abstractmethod
    def allocate(self, shape: tuple[int, ...], dtype: type[Any]) -> Buffer:
        """Make a buffer of zeros."""

    @abstractmethod
    def bind(
        self, reads: Mapping[str, Buffer], writes: Mapping[str, Buffer], *, render: bool = False
    ) -> Callable[[], None]:
        """Bind the graph to buffers, by the names of its inputs and outputs. Returns a function that runs it.

        ``render`` selects the graph that renders a model of motion.
        """

    @abstractmethod
    def copy(self, to: int, of: int, size: int) -> None:
        """Copy bytes from address to address on the device, after the last step and before the next one."""

    def allocate_outputs(self, shown: tuple[int, ...], finite: tuple[int, ...]) -> tuple[Buffer, Buffer]:
        """Allocate the outputs that the host reads after every step. It reads both, so they may share one transfer."""
        return self.allocate(shown, np.uint8), self.allocate(finite, np.float32)

    def zeros(self, shape: tuple[int, ...]) -> Buffer:
        """See :meth:`Engine.zeros`."""
        return self.allocate(shape, np.float32)

    def new_state(self, batch: int = 1) -> State:
        """See :meth:`Engine.new_state`."""
        state = super().new_state(batch)
        width, height = self.manifest.size
        shown, finite = self.allocate_outputs((batch, self.manifest.outputs, height, width, 3), (batch,))
        self._outputs[state] = _Outputs(
            shown=shown,
            finite=finite,
            seen=self.allocate((batch, height, width, 3), np.uint8) if self.camera else None,
            keep=[0] * batch,
        )
        return state

    def reset(self, state: State, rows: Sequence[int] | None = None) -> None:
        """See :meth:`Engine.reset`."""
        keep = self._outputs[state].keep
        for row in range(len(keep)) if rows is None else rows:
            keep[row] = 0

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """See :meth:`Engine.step`."""
        fed = self._input("fed", (len(frame), self.manifest.outputs, *self.manifest.frame))
        if self.manifest.outputs == 1:
            fed.upload(frame[:, None])
        else:
            predictions = np.zeros(fed.shape, np.float32)
            predictions[:, 0] = frame
            fed.upload(predictions)
        self._advance(fed, 0, False, state_in, state_out)
        if self.manifest.renders == "moments":
            self.draw(state_out, self.since(state_out))
        prediction: Tensor = state_out.prediction.download()
        return prediction

    def draw(self, state: State, ahead: float) -> None:
        """See :meth:`Engine.draw`. It only enqueues the work."""
        self._check_open()
        outputs = self._outputs[state]
        when = self._input("ahead", (len(outputs.keep),))
        if state not in self._draws:
            writes = {"prediction": state.prediction, "shown": outputs.shown, "finite": outputs.finite}
            self._draws[state] = self.bind({**field_buffers(self.manifest, state), "ahead": when}, writes, render=True)
        when.fill(ahead)
        self._draws[state]()
        outputs.shown.fetch()

    def render_at(self, state: State, ahead: Sequence[float]) -> list[list[Image]]:
        """See :meth:`Engine.render_at`. Only bytes are downloaded."""
        outputs = self._outputs[state]
        rows: list[list[Image]] = [[] for _ in outputs.keep]
        for seconds in ahead:
            self.draw(state, seconds)
            for row, pictures in zip(rows, outputs.shown.download(), strict=True):
                row.append(pictures[0])
        return rows

    def take(self, images: Sequence[Image], state: State) -> None:
        """See :meth:`Engine.take`. Only bytes are uploaded.

        Raises:
            FrameError: the graph resizes pictures, but not from this size.
        """
        if self.camera is None:
            images = state.seen = [to_model_size(image, self.manifest) for image in images]
        for image in images:
            if self.camera is not None and image.shape[1::-1] != self.camera:
                (width, height), (w, h) = self.camera, image.shape[1::-1]
                raise FrameError(
                    f"this engine was built for {width}x{height} frames, not {w}x{h}: build one with --camera {w}x{h}, "
                    "or without --camera, for frames of any size"
                )
        taken = self._input("image", (len(images), *images[0].shape), np.uint8)
        taken.upload(images[0][None] if len(images) == 1 else np.stack(images))

    def run(self, state_in: State, state_out: State) -> None:
        """See :meth:`Engine.run`. It only enqueues the step."""
        batch = len(self._outputs[state_out].keep)
        fed = self._input("fed", (batch, self.manifest.outputs, *self.manifest.frame))
        self._advance(fed, 0, True, state_in, state_out)

    def feed_back(self, source: State, k: int, state_in: State, state_out: State) -> None:
        """See :meth:`Engine.feed_back`. The prediction stays on the device."""
        self._advance(source.prediction, k, False, state_in, state_out)

    def render(self, state: State, ahead: Sequence[int]) -> list[list[Image] | None]:
        """See :meth:`Engine.render`. Only bytes are downloaded."""
        outputs = self._outputs[state]
        pictures = outputs.shown.download()  # the only wait: this copy is last, so the others are done too
        finite = outputs.finite.download()
        return [[row[k - 1] for k in ahead] if finite[i] else None for i, row in enumerate(pictures)]

    def seen(self, state: State) -> list[Image]:
        """See :meth:`Engine.seen`."""
        seen = self._outputs[state].seen
        return state.seen if seen is None else list(seen.download())

    def copy_row(self, source: Buffer, row: int, target: Buffer, to: int) -> None:
        """See :meth:`Engine.copy_row`. The host does not wait for the copy."""
        size = int(np.prod(source.shape[1:])) * source.dtype.itemsize
        self.copy(target.address + to * size, source.address + row * size, size)

    def gathered(self, state: State, batch: State, row: int) -> None:
        """See :meth:`Engine.gathered`."""
        outputs = self._outputs[batch]
        outputs.keep[row] = self._outputs[state].keep[0]
        outputs.elsewhere = True

    def scattered(self, batch: State, row: int, state: State) -> None:
        """See :meth:`Engine.scattered`."""
        source, target = self._outputs[batch], self._outputs[state]
        target.keep[0] = source.keep[row]
        if source.seen is not None and target.seen is not None:
            self.copy_row(source.seen, row, target.seen, 0)
        self.copy_row(source.finite, row, target.finite, 0)
        self.copy_row(source.shown, row, target.shown, 0)
        self._fetch(target, seen=True)

    def close(self) -> None:
        """See :meth:`Engine.close`. States stay allocated but are no longer usable."""
        self._closed = True
        self._phases.clear()
        self._draws.clear()
        self._inputs.clear()
        self._kept.clear()

    def _advance(self, fed: Buffer, pick: int, camera: bool, state_in: State, state_out: State) -> None:
        self._check_open()
        outputs, keep = self._outputs[state_out], self._outputs[state_in].keep
        batch, moments = len(keep), self.manifest.renders == "moments"

        def bind(moment: Moment) -> Callable[[], None]:
            reads, writes = step_buffers(self.manifest, state_in, moment, state_out)
            width, height = self.camera or self.manifest.size
            reads |= {
                "image": self._input("image", (batch, height, width, 3), np.uint8),
                "fed": fed,
                "camera": self._input(f"camera {camera}", (1,), np.bool_),
                "keep": self._input("keep", (batch,)),
            }
            reads["camera"].fill(camera)
            if self.manifest.outputs > 1:
                reads["pick"] = self._input(f"pick {pick}", (1,), np.int64)
                reads["pick"].fill(pick)
            if moments:
                reads["elapsed"] = self._input("elapsed", (batch,))
            else:
                writes |= {"shown": outputs.shown, "finite": outputs.finite}
            if outputs.seen is not None:
                writes["seen"] = outputs.seen
            return self.bind(reads, writes)

        run = self._phases.at(state_in, state_out, bind, camera, pick, fed.address)
        if self._kept.get(batch) != keep:
            self._input("keep", (batch,)).upload(np.array(keep, np.float32))
            self._kept[batch] = list(keep)
        if moments:
            self._input("elapsed", (batch,)).fill(self.since(state_out))
        run()
        longest = max(1, self.manifest.slots)
        for row, kept in enumerate(keep):
            outputs.keep[row] = min(kept + 1, longest)
        if not self._outputs[state_in].elsewhere:
            self._fetch(outputs, seen=camera, shown=not moments)

    def _fetch(self, outputs: _Outputs, *, seen: bool, shown: bool = True) -> None:
        if seen and outputs.seen is not None:
            outputs.seen.fetch()  # before the pictures, so that it has arrived when they have
        if shown:
            outputs.finite.fetch()
            outputs.shown.fetch()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(f"{self.manifest.config} is closed: load it again")

    def _input(self, name: str, shape: tuple[int, ...], dtype: type[Any] = np.float32) -> Buffer:
        """The buffer for the graph's input of this name and batch size. Allocates it on first use."""
        key = name, shape[0]
        if key not in self._inputs:
            self._inputs[key] = self.allocate(shape, dtype)
        return self._inputs[key]
