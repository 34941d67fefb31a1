"""The interface of all engines. An engine runs an artifact's step on states that its caller holds."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from framecast.camera import DEFAULT_FPS, Image
from framecast.errors import EngineError
from framecast.graph.manifest import Manifest, StateSpec
from framecast.runtime.convert import Tensor, blank_frame, is_finite, to_frame, to_image, to_model_size
from framecast.runtime.engines.turn import Turn

__all__ = ["Engine", "Moment", "State", "Tensor", "field_buffers", "state_buffers", "step_buffers"]

# An engine's tensor: a numpy array, or its own type on its device. Other code only calls ``fill`` on it.
Buffer = Any
Self = TypeVar("Self", bound="Engine")


@dataclass(frozen=True, eq=False)
class Moment:
    """The values that one step wrote into the histories, [B, …] each, by name."""

    tensors: dict[str, Buffer]


@dataclass(eq=False)
class State:
    """Buffers of one state and of its prediction. They are allocated once and written in place.

    Successive states share the moments of their histories: a state's past is its own newest moment, then the moments
    that earlier states wrote. Nothing is shifted or copied: a moment is only bound to another slot. Each state owns
    buffers for half of a history's slots plus one, so two swapped states form a ring. Writing a state therefore
    invalidates states derived from it. To look ahead, use scratch states.

    Attributes:
        tensors: the carried tensors, [B, …] each, by name, in the engine's memory.
        prediction: [B, K, C, H, W], from the step that wrote this state, in the engine's memory.
        zero: the moment before the first frame.
        own: the moments that this state may write.
        past: the moments that the next step reads, newest first.
        precomputed: the tensors that an artifact in two halves computes from this state before the frame, by name.
        is_precomputed: whether ``precomputed`` is up to date, that is, computed since the state was written.
        seen: the step's input pictures at the model's size, uint8 [h, w, 3] BGR, one per row.
        frame: the same pictures as the step's input tensor, [B, C, H, W], on the host; None before the first.
        elapsed: seconds from the previous frame to the step's frame. Only models of motion read it.
        fields: further tensors that a model of motion renders from, besides ``tensors``, [B, …] each, by name.
    """

    tensors: dict[str, Buffer]
    prediction: Buffer
    zero: Moment
    own: tuple[Moment, ...]
    past: tuple[Moment, ...]
    precomputed: dict[str, Buffer]
    is_precomputed: bool = False
    seen: list[Image] = field(default_factory=list)
    frame: Tensor | None = None
    elapsed: float = 0.0
    fields: dict[str, Buffer] = field(default_factory=dict)

    def reset(self) -> None:
        """Return to the state before the first frame: all zeros."""
        self.is_precomputed = False
        for tensor in self.tensors.values():
            tensor.fill(0)
        self.past = (self.zero,) * len(self.past)

    def follow(self, before: State) -> Moment:
        """Make this the state after ``before``. Returns the moment that the step must write.

        One of this state's own moments is always free. The newest past moment belongs to ``before``. No state is
        written twice in a row, so of the older ones at most every second belongs to this state.
        """
        self.is_precomputed = False
        moment = next(m for m in self.own if m not in before.past)
        self.past = (moment, *before.past)[: len(self.past)]
        return moment


class Engine(ABC):
    """Runs one artifact. It holds no stream: the caller passes the state to read and the state to write.

    Most callers use a :class:`framecast.runtime.stepper.Stepper`, which owns the states. Several steppers may share one
    engine, and each holds :attr:`lock` during a call. :meth:`step` takes and returns floats on the host. :meth:`take`,
    :meth:`run`, :meth:`feed_back` and :meth:`render` handle pictures. An engine on a device transfers these as bytes.
    The default versions here use :meth:`step`.

    Attributes:
        name: as in ``ENGINES``.
        device: the device it runs on.
        version: version of the underlying library.
        precision: the precision in which it was opened, if the engine has several; None if the artifact decides.
        batch: the batch size that it was opened for; None if it runs any. See :meth:`runs`.
        manifest: the artifact's manifest.
        camera: (width, height) of the only frames that it takes; None if it takes any.
        any_size: whether its pictures have the frames' size. Otherwise they have the manifest's.
        batches: whether :meth:`copy_row` works, so that states of several cameras can be stepped as one batch.
        light: whether it holds no weights, so that each of several cameras can have its own and waits for no other.
        apart: whether :meth:`reset`, :meth:`render` and :meth:`seen` touch only the state's memory, on the host: then
            they wait for no step of another camera.
        compiles: whether its first calls may compile code, which takes long.
        epoch: how often streams have begun again because the engine lost their state.
        due: when the next frame is due, on the run's clock: until then a step may wait for other cameras'.
        trouble: why the engine does not answer now, while it tries again; None if all is well.
        notes: what the user should know about it, one line each.
        lock: held by one caller at a time, so that a watchdog sees how long a call goes on.
    """

    name: str
    device: str
    version: str
    precision: str | None = None
    batch: int | None = None
    camera: tuple[int, int] | None = None
    any_size = False
    batches = True
    light = False
    apart = True
    manifest: Manifest
    compiles = False
    epoch = 0
    due = math.inf
    trouble: str | None = None
    notes: Sequence[str] = ()
    lock: Turn

    def __new__(cls: type[Self], *_: Any, **__: Any) -> Self:
        """Give every engine its lock here, so that no subclass can forget it."""
        engine = super().__new__(cls)
        engine.lock = Turn.of(engine)
        return engine

    @property
    def faults(self) -> Mapping[str, int]:
        """What went wrong with steps, by name (default: nothing)."""
        return {}

    def runs(self, batch: int) -> bool:
        """Whether it can step so many streams at once."""
        return self.batch in (None, batch)

    def zeros(self, shape: tuple[int, ...]) -> Buffer:
        """Make a float32 tensor of zeros in this engine's memory."""
        return np.zeros(shape, np.float32)

    def new_state(self, batch: int = 1) -> State:
        """Make a state of zeros for ``batch`` streams.

        Raises:
            EngineError: the engine runs only another batch size, or there is no memory for the state.
        """
        if not self.runs(batch):
            raise EngineError(
                f"this engine of {self.manifest.config} was built for a batch of {self.batch}, not of {batch}: build "
                f"another with 'framecast build --batch {batch}'"
            )
        kinds: dict[str, list[StateSpec]] = {"carry": [], "history": []}
        for spec in self.manifest.state:
            kinds[spec.kind].append(spec)

        def zeros(specs: list[StateSpec]) -> dict[str, Buffer]:
            return {spec.name: self.zeros((batch, *spec.shape)) for spec in specs}

        slots = self.manifest.slots
        try:
            zero = Moment(zeros(kinds["history"]))
            return State(
                tensors=zeros(kinds["carry"]),
                prediction=self.zeros((batch, self.manifest.outputs, *self.manifest.frame)),
                zero=zero,
                own=tuple(Moment(zeros(kinds["history"])) for _ in range(slots // 2 + 1)),
                past=(zero,) * slots,
                precomputed={name: self.zeros((batch, *shape)) for name, shape in self.manifest.precomputed.items()},
                fields={n: self.zeros((batch, *self.manifest.fields[n])) for n in self.manifest.made_fields},
            )
        except MemoryError as error:
            raise EngineError(
                f"not enough memory for {batch} states of {self.manifest.config}: use fewer streams or a smaller model"
            ) from error

    def reset(self, state: State, rows: Sequence[int] | None = None) -> None:
        """Reset some rows of a state (default: all) to zero, as before the first frame. The others do not change."""
        if rows is None:
            state.reset()
            return
        state.is_precomputed = False
        for tensors in (state.tensors, *(moment.tensors for moment in {id(m): m for m in state.past}.values())):
            for tensor in tensors.values():
                self._zero_rows(tensor, rows)

    def _zero_rows(self, tensor: Buffer, rows: Sequence[int]) -> None:
        tensor[list(rows)] = 0

    @abstractmethod
    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """Predict the next frame.

        A model of motion renders one frame interval ahead (:meth:`since`).

        Args:
            frame: [B, C, H, W], in the manifest's value range and channel order; not part of ``state_out``.
            state_in: the state to read.
            state_out: the state to write, which invalidates states derived from it; not ``state_in``.

        Returns:
            The prediction [B, K, C, H, W], valid until the next step, or until ``state_out`` is written again.

        Raises:
            EngineError: the step failed, or both states are the same. Then ``state_out`` is undefined until it is reset
                or written.
        """

    def precompute(self, state: State) -> None:
        """Compute the part of the next step on this state that needs no frame, before the frame comes.

        Optional: otherwise the step does it. It does nothing unless the artifact is in two halves.

        Raises:
            EngineError: the computation failed.
        """
        del state

    def take(self, images: Sequence[Image], state: State) -> None:
        """Take the pictures, one per row, for the step that will write ``state``; :meth:`run` follows at once.

        Args:
            images: uint8 [H, W, 3] BGR each, of any size.
            state: its :attr:`State.seen` is written; the rest is not read.

        Raises:
            FrameError: the engine takes only pictures of another size.
        """
        if state.frame is None or len(state.frame) != len(images):
            state.frame = blank_frame(self.manifest, len(images))
        state.seen = [to_model_size(image, self.manifest) for image in images]
        for seen, frame in zip(state.seen, state.frame, strict=True):
            to_frame(seen, self.manifest, frame)

    def run(self, state_in: State, state_out: State) -> None:
        """Step on the pictures that :meth:`take` has just taken for ``state_out``; errors as for :meth:`step`."""
        assert state_out.frame is not None  # noqa: S101 (the caller has called take)
        if self.manifest.renders == "moments":
            self.perceive(state_out.frame, state_in, state_out)
        else:
            self.step(state_out.frame, state_in, state_out)

    def perceive(self, frame: Tensor, state_in: State, state_out: State) -> None:
        """Take in a frame but render nothing. A model of motion's :meth:`step` does both.

        Arguments and errors are those of :meth:`step`.
        """
        self.step(frame, state_in, state_out)

    def draw(self, state: State, ahead: float) -> None:
        """Render ``ahead`` seconds after the newest frame into ``state.prediction``; errors as for :meth:`step`."""
        raise NotImplementedError

    def since(self, state: State) -> float:
        """Seconds from the previous frame to the newest (default: the interval in training, or 1 / DEFAULT_FPS)."""
        return state.elapsed if state.elapsed > 0 else self.manifest.interval or 1 / DEFAULT_FPS

    def feed_back(self, source: State, k: int, state_in: State, state_out: State) -> None:
        """Step on the ``k``-th prediction (from 0) of ``source``, unclamped. ``source`` must not be ``state_out``."""
        self.step(source.prediction[:, k], state_in, state_out)

    def render(self, state: State, ahead: Sequence[int]) -> list[list[Image] | None]:
        """Pictures of a state's predictions.

        Args:
            state: written by a step.
            ahead: which of its predictions to show: 1 … K steps after the newest frame.

        Returns:
            For each row its pictures, uint8 [h, w, 3] BGR, or None if any of the row's K predictions is not finite.
        """
        return [
            [to_image(predictions[k - 1], self.manifest) for k in ahead] if is_finite(predictions) else None
            for predictions in state.prediction
        ]

    def render_at(self, state: State, ahead: Sequence[float]) -> list[list[Image]]:
        """Pictures of any moments. Only for a model whose manifest says that it renders ``moments``.

        Args:
            state: written by a step.
            ahead: seconds after the newest frame, at least 0.

        Returns:
            For each row its pictures, uint8 [h, w, 3] BGR. They are finite by construction.
        """
        rows: list[list[Image]] = [[] for _ in range(len(state.prediction))]
        for seconds in ahead:
            self.draw(state, seconds)
            for row, predictions in zip(rows, state.prediction, strict=True):
                row.append(to_image(predictions[0], self.manifest))
        return rows

    def fit(self, image: Image) -> Image:
        """Convert a picture, uint8 [H, W, 3] BGR, to the size and colours of this engine's pictures."""
        return to_model_size(image, self.manifest)

    def seen(self, state: State) -> list[Image]:
        """The input pictures of the step that wrote ``state``: uint8 [h, w, 3] BGR at the model's size, one per row."""
        return state.seen

    def copy_row(self, source: Buffer, row: int, target: Buffer, to: int) -> None:
        """Copy a row of one of this engine's tensors to a row of another one of its kind."""
        target[to] = source[row]

    def gathered(self, state: State, batch: State, row: int) -> None:  # noqa: B027 (optional)
        """Copy what the engine keeps beside a state, after :meth:`copy_row` has copied it to a row of a batch."""

    def scattered(self, batch: State, row: int, state: State) -> None:  # noqa: B027 (optional)
        """The same, after :meth:`copy_row` has copied a row of a stepped batch to a state."""

    def interrupt(self, reason: str) -> bool:
        """End the call that another thread is in. It and all later ones raise EngineError with ``reason``.

        Returns:
            Whether the engine can do that (default: no). A call may still take a moment, or not obey.
        """
        del reason
        return False

    @abstractmethod
    def close(self) -> None:
        """Free the engine's resources. May be called twice."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.lock:  # wait for a stepper that is in the middle of a step
            self.close()


def step_buffers(
    manifest: Manifest, state_in: State, moment: Moment, state_out: State
) -> tuple[dict[str, Buffer], dict[str, Buffer]]:
    """The buffers that a step reads and writes, by the graph's names. It reads those of :func:`state_buffers`."""
    writes: dict[str, Buffer] = {f"fields.{name}": buffer for name, buffer in state_out.fields.items()}
    if manifest.renders == "steps":
        writes["prediction"] = state_out.prediction
    for spec in manifest.state:
        target = state_out.tensors if spec.kind == "carry" else moment.tensors
        writes[f"next.{spec.name}"] = target[spec.name]
    return state_buffers(manifest, state_in), writes


def field_buffers(manifest: Manifest, state: State) -> dict[str, Buffer]:
    """The buffers that a model of motion renders from, by the graph's names."""
    return {f"fields.{name}": {**state.tensors, **state.fields}[name] for name in manifest.fields}


def state_buffers(manifest: Manifest, state: State) -> dict[str, Buffer]:
    """A state's buffers by the graph's names: ``state.*`` and the precomputed tensors."""
    buffers = dict(state.precomputed)
    for spec in manifest.state:
        sources = [state.tensors] if spec.kind == "carry" else [moment.tensors for moment in state.past]
        # A history may be shorter than the longest one.
        buffers |= {name: tensors[spec.name] for name, tensors in zip(spec.inputs, sources, strict=False)}
    return buffers
