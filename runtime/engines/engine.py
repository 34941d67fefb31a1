"""What an engine is: it runs an artifact's step on states that its caller holds."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np

from framecast.camera import Image
from framecast.errors import EngineError
from framecast.graph.manifest import Manifest, StateSpec
from framecast.runtime.convert import Tensor, blank, is_finite, see, to_frame, to_image

__all__ = ["Engine", "Moment", "Phases", "State", "Tensor", "bound", "held"]

# Where an engine keeps a tensor: a numpy array, or something of its own on its device. All that is asked of it from
# outside is ``fill(value)``.
Buffer = Any
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Moment:
    """What one step wrote into the histories, [B, …] each, by name."""

    tensors: dict[str, Buffer]


@dataclass(eq=False)
class State:
    """Buffers of one state, and of the prediction that was made with it; allocated once, written in place.

    The histories of states that follow each other share their moments: a state's past is its own newest moment, then
    what the states before it wrote. Nothing is shifted or copied, only bound to another slot. Each state owns buffers
    for half of a history's slots and one more: between two that are swapped that makes a ring. So writing a state
    destroys the past of those that were carried on from it; whoever looks ahead without touching a stream's two states
    takes others for it.

    Attributes:
        tensors: the carried tensors, [B, …] each, by name, where the engine keeps them.
        prediction: [B, K, C, H, W], of the step that wrote this state; likewise.
        zero: the moment before the first frame.
        own: the moments that this state may write.
        past: what the next step reads, newest first.
        precomputed: what an artifact in two halves computes from this state before the frame, by name.
        is_precomputed: whether that is done since the state was written.
    """

    tensors: dict[str, Buffer]
    prediction: Buffer
    zero: Moment
    own: tuple[Moment, ...]
    past: tuple[Moment, ...]
    precomputed: dict[str, Buffer]
    is_precomputed: bool = False

    def reset(self) -> None:
        """All zeros: what comes before the first frame."""
        self.is_precomputed = False
        for tensor in self.tensors.values():
            tensor.fill(0)
        self.past = (self.zero,) * len(self.past)

    def follow(self, before: State) -> Moment:
        """Make this the state after ``before``; returns the moment that the step is to write.

        One of its own is always free: a state is never written twice in a row, so of ``before``'s past at most every
        second moment, not counting the newest, is this state's.
        """
        self.is_precomputed = False
        moment = next(m for m in self.own if m not in before.past)
        self.past = (moment, *before.past)[: len(self.past)]
        return moment


class Engine(ABC):
    """Runs one artifact. It holds no state: the caller brings the one to read and the one to write.

    Swapping the two is carrying on; reading the live one and writing a scratch one is a branch, with no copy.

    What is public here is all that the rest of framecast calls. :meth:`step` takes and gives floats, on the host. Live
    pictures go through :meth:`watch`, :meth:`feed_back` and :meth:`shown`, which a device does without giving anything
    but bytes to the host; here they are done with :meth:`step`.

    Attributes:
        name: as in ``ENGINES``.
        device: what it runs on.
        version: of the library underneath.
        precision: in which it was opened to compute, where it has more than one; None where the artifact says all.
        manifest: of the artifact.
        seen: the last picture that was watched as the model saw it, uint8 [h, w, 3] BGR.
    """

    name: str
    device: str
    version: str
    precision: str | None = None
    manifest: Manifest
    seen: Image
    _frame: Tensor | None = None

    def zeros(self, shape: tuple[int, ...]) -> Buffer:
        """A new float32 tensor where this engine keeps them."""
        return np.zeros(shape, np.float32)

    def new_state(self, batch: int = 1) -> State:
        """A fresh state of zeros for ``batch`` cameras."""
        kinds: dict[str, list[StateSpec]] = {"carry": [], "history": []}
        for spec in self.manifest.state:
            kinds[spec.kind].append(spec)

        def zeros(specs: list[StateSpec]) -> dict[str, Buffer]:
            return {spec.name: self.zeros((batch, *spec.shape)) for spec in specs}

        slots = self.manifest.slots
        zero = Moment(zeros(kinds["history"]))
        return State(
            tensors=zeros(kinds["carry"]),
            prediction=self.zeros((batch, self.manifest.outputs, *self.manifest.frame)),
            zero=zero,
            own=tuple(Moment(zeros(kinds["history"])) for _ in range(slots // 2 + 1)),
            past=(zero,) * slots,
            precomputed={name: self.zeros((batch, *shape)) for name, shape in self.manifest.precomputed.items()},
        )

    @abstractmethod
    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """Predict the next frame.

        Args:
            frame: [B, C, H, W], in the manifest's value range and channel order; no part of ``state_out``.
            state_in: read.
            state_out: written, and with it the past of any state that was carried on from it but ``state_in``; another
                one than ``state_in``.

        Returns:
            The prediction [B, K, C, H, W]: valid until the next step, or until ``state_out`` is written again.

        Raises:
            EngineError: the step failed, or both states are the same; ``state_out`` is undefined then until it is reset
                or written.
        """

    def precompute(self, state: State) -> None:
        """Do now what the next step on this state needs of no frame, so that it is not done when the frame is there.

        It may be left out: the step does it then. Where the artifact is not in two halves there is nothing to be done.

        Raises:
            EngineError: it failed.
        """
        del state

    def watch(self, image: Image, state_in: State, state_out: State) -> None:
        """Step on a camera's picture, uint8 [H, W, 3] BGR of any size; states and errors as for :meth:`step`."""
        self.seen = see(image, self.manifest)
        self._frame = blank(self.manifest) if self._frame is None else self._frame
        to_frame(self.seen, self.manifest, self._frame)
        self.step(self._frame, state_in, state_out)

    def feed_back(self, source: State, k: int, state_in: State, state_out: State) -> None:
        """Step on the ``k``-th prediction (from 0) of ``source``, which ``state_out`` is not, as it is: not clamped."""
        self.step(source.prediction[:, k], state_in, state_out)

    def shown(self, state: State, count: int) -> list[Image] | None:
        """A state's first ``count`` predictions, uint8 [h, w, 3] BGR each; None where any of them all is not finite."""
        if not is_finite(state.prediction):
            return None
        return [to_image(frame, self.manifest) for frame in state.prediction[0, :count]]

    @abstractmethod
    def close(self) -> None:
        """Free what it holds. May be called twice."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Phases(Generic[T]):
    """What an engine prepares once for each way in which two states' buffers lie, such as a set of bound addresses.

    Two states that take turns have as many as their ring has phases, and a few from resets. They are forgotten with the
    states: what is kept must not hold on to these.
    """

    def __init__(self) -> None:
        self._kept: weakref.WeakKeyDictionary[
            State, weakref.WeakKeyDictionary[State, dict[tuple[Hashable, ...], T]]
        ] = weakref.WeakKeyDictionary()

    def at(self, state_in: State, state_out: State, make: Callable[[Moment], T], *of: Hashable) -> T:
        """Lead ``state_out`` on from ``state_in``; what was kept for that, or what ``make`` now gives for the moment.

        ``of`` tells apart what else it depends on.

        Raises:
            EngineError: both states are the same.
        """
        if state_in is state_out:
            raise EngineError("a step cannot read and write the same state: pass two")
        phases = self._kept.setdefault(state_in, weakref.WeakKeyDictionary()).setdefault(state_out, {})
        moment = state_out.follow(state_in)
        phase = (*of, moment, *state_in.past)
        if phase not in phases:
            phases[phase] = make(moment)
        return phases[phase]

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()


def bound(
    manifest: Manifest, state_in: State, moment: Moment, state_out: State
) -> tuple[dict[str, Buffer], dict[str, Buffer]]:
    """Which buffers a step reads and writes, by the graph's names: as :func:`held`; ``next.*`` and ``prediction``."""
    writes: dict[str, Buffer] = {"prediction": state_out.prediction}
    for spec in manifest.state:
        target = state_out.tensors if spec.kind == "carry" else moment.tensors
        writes[f"next.{spec.name}"] = target[spec.name]
    return held(manifest, state_in), writes


def held(manifest: Manifest, state: State) -> dict[str, Buffer]:
    """A state's buffers by the graph's names, ``state.*`` and what is ready."""
    buffers = dict(state.precomputed)
    for spec in manifest.state:
        sources = [state.tensors] if spec.kind == "carry" else [moment.tensors for moment in state.past]
        # A history may reach less far back than the longest one.
        buffers |= {name: tensors[spec.name] for name, tensors in zip(spec.inputs, sources, strict=False)}
    return buffers
