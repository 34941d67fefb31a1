"""What engines have in common that run the live graph (see ``export/live.py``) on a device's own memory."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.errors import EngineError, FrameError
from framecast.runtime.convert import Tensor, see
from framecast.runtime.engines.engine import Engine, Moment, Phases, State, bound


class Buffer(ABC):
    """An array on the device.

    Attributes:
        shape: of it.
        dtype: of its elements.
        address: of its first byte.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    address: int

    @abstractmethod
    def upload(self, array: NDArray[Any]) -> None:
        """Overwrite it by ``array``, before the next step runs and after the last one."""

    @abstractmethod
    def download(self) -> NDArray[Any]:
        """What it holds once every step so far is done, as an array of the caller's own."""

    def fetch(self) -> None:  # noqa: B027 (a device that can do it early does)
        """It will be downloaded: it may be copied as soon as the last step is done."""

    def fill(self, value: float) -> None:
        """Set every element."""
        self.upload(np.full(self.shape, value, self.dtype))


@dataclass(frozen=True)
class Part:
    """One of the predictions in a buffer [1, K, C, H, W], or the only one for each camera of [B, 1, C, H, W].

    Attributes:
        whole: the buffer.
        shape: [B, C, H, W].
        address: of its first byte.
    """

    whole: Buffer
    shape: tuple[int, ...]
    address: int

    @classmethod
    def of(cls, whole: Buffer, k: int) -> Part:
        """The ``k``-th, from 0."""
        batch, outputs, *frame = whole.shape
        if batch > 1 and outputs > 1:
            raise EngineError("several predictions at once are fed back for one camera only: use a state each")
        return cls(whole, (batch, *frame), whole.address + k * int(np.prod(frame)) * whole.dtype.itemsize)


Region = Buffer | Part


@dataclass(frozen=True, eq=False)
class _Told:
    """What a step tells the host, where it lies on the device."""

    shown: Buffer
    finite: Buffer


class DeviceEngine(Engine):
    """See :class:`Engine`. A subclass says how buffers are made, and how a step is prepared on some of them.

    Attributes:
        camera: (width, height) of the pictures that its graph takes, where it resizes them; otherwise None, and they
            are resized on the host.
    """

    camera: tuple[int, int] | None = None

    def __init__(self) -> None:
        self._phases: Phases[Callable[[], None]] = Phases()
        self._told: weakref.WeakKeyDictionary[State, _Told] = weakref.WeakKeyDictionary()
        self._inputs: dict[tuple[str, int], Buffer] = {}
        self._closed = False

    @abstractmethod
    def allocate(self, shape: tuple[int, ...], dtype: type[Any]) -> Buffer:
        """A new buffer of zeros."""

    @abstractmethod
    def prepare(self, reads: Mapping[str, Region], writes: Mapping[str, Region]) -> Callable[[], None]:
        """What runs the graph on these buffers, by the names of its inputs and outputs, as often as it is called."""

    def zeros(self, shape: tuple[int, ...]) -> Buffer:
        """See :meth:`Engine.zeros`."""
        return self.allocate(shape, np.float32)

    def new_state(self, batch: int = 1) -> State:
        """See :meth:`Engine.new_state`."""
        state = super().new_state(batch)
        width, height = self.manifest.size
        shown = self.allocate((batch, self.manifest.outputs, height, width, 3), np.uint8)
        self._told[state] = _Told(shown, self.allocate((batch,), np.float32))
        return state

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """See :meth:`Engine.step`."""
        fed = self._input("fed", (len(frame), *self.manifest.frame))
        fed.upload(frame)
        self._advance(fed, False, state_in, state_out)
        prediction: Tensor = state_out.prediction.download()
        return prediction

    def watch(self, image: Image, state_in: State, state_out: State) -> None:
        """See :meth:`Engine.watch`. Only bytes are uploaded.

        Raises:
            FrameError: the graph resizes pictures of another size than this.
            EngineError: as :meth:`step`.
        """
        if self.camera is None:
            image = self.seen = see(image, self.manifest)
        elif image.shape[1::-1] != self.camera:
            (width, height), (w, h) = self.camera, image.shape[1::-1]
            raise FrameError(
                f"this engine was built for {width}x{height} frames, not {w}x{h}: build one with --camera {w}x{h}, or "
                "without, for frames of any size"
            )
        self._input("image", (1, *image.shape), np.uint8).upload(image[None])
        self._advance(self._input("fed", (1, *self.manifest.frame)), True, state_in, state_out)
        if self.camera is not None:
            self.seen = self._seen(1).download()[0]

    def feed_back(self, source: State, k: int, state_in: State, state_out: State) -> None:
        """See :meth:`Engine.feed_back`. Nothing leaves the device."""
        self._advance(Part.of(source.prediction, k), False, state_in, state_out)

    def shown(self, state: State, count: int) -> list[Image] | None:
        """See :meth:`Engine.shown`. Only bytes are downloaded."""
        told = self._told[state]
        pictures = told.shown.download()  # the one wait: what is told first is then there too
        return list(pictures[0, :count]) if told.finite.download().all() else None

    def close(self) -> None:
        """See :meth:`Engine.close`. States stay as they are, and are of no more use."""
        self._closed = True
        self._phases.clear()
        self._inputs.clear()

    def _advance(self, fed: Region, camera: bool, state_in: State, state_out: State) -> None:
        if self._closed:
            raise EngineError(f"{self.manifest.config} is closed: load it again")
        told = self._told[state_out]

        def prepared(moment: Moment) -> Callable[[], None]:
            reads, writes = bound(self.manifest, state_in, moment, state_out)
            width, height = self.camera or self.manifest.size
            batch = fed.shape[0]
            reads |= {
                "image": self._input("image", (batch, height, width, 3), np.uint8),
                "fed": fed,
                "camera": self._input(f"camera {camera}", (1,), np.bool_),
            }
            reads["camera"].fill(camera)
            writes |= {"shown": told.shown, "finite": told.finite}
            if self.camera is not None:
                writes["seen"] = self._seen(batch)
            return self.prepare(reads, writes)

        self._phases.at(state_in, state_out, prepared, camera, fed.address)()
        told.finite.fetch()
        told.shown.fetch()

    def _seen(self, batch: int) -> Buffer:
        width, height = self.manifest.size
        return self._input("seen", (batch, height, width, 3), np.uint8)

    def _input(self, name: str, shape: tuple[int, ...], dtype: type[Any] = np.float32) -> Buffer:
        """The buffer that goes by this name, for a batch of this size."""
        key = name, shape[0]
        if key not in self._inputs:
            self._inputs[key] = self.allocate(shape, dtype)
        return self._inputs[key]
