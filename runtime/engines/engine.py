"""What an engine is: it runs an artifact's step on states that its caller holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from framecast.runtime.manifest import Manifest, StateSpec

Tensor = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Moment:
    """What one step wrote into the histories, [B, …] each, by name."""

    tensors: dict[str, Tensor]


@dataclass(eq=False)
class State:
    """Buffers of one state, and of the prediction that was made with it; allocated once, written in place.

    The histories of states that follow each other share their moments: a state's past is its own newest moment, then
    what the states before it wrote. Nothing is shifted or copied, only bound to another slot. Each state owns buffers
    for half of a history's slots and one more: between two that are swapped that makes a ring. So writing a state
    destroys the past of those that were carried on from it; whoever looks ahead without touching a stream's two states
    takes two others for it.

    Attributes:
        tensors: the carried tensors, [B, …] each, by name.
        prediction: [B, K, C, H, W], of the step that wrote this state.
        zero: the moment before the first frame.
        own: the moments that this state may write.
        past: what the next step reads, newest first.
    """

    tensors: dict[str, Tensor]
    prediction: Tensor
    zero: Moment
    own: tuple[Moment, ...]
    past: tuple[Moment, ...]

    def reset(self) -> None:
        """All zeros: what comes before the first frame."""
        for tensor in self.tensors.values():
            tensor.fill(0)
        self.past = (self.zero,) * len(self.past)

    def follow(self, before: State) -> Moment:
        """Make this the state after ``before``; returns the moment that the step is to write.

        One of its own is always free: a state is never written twice in a row, so of ``before``'s past at most every
        second moment, not counting the newest, is this state's.
        """
        moment = next(m for m in self.own if m not in before.past)
        self.past = (moment, *before.past)[: len(self.past)]
        return moment


class Engine(ABC):
    """Runs one artifact. It holds no state: the caller brings the one to read and the one to write.

    Swapping the two is carrying on; reading the live one and writing a scratch one is a branch, with no copy.

    Attributes:
        name: as in ``ENGINES``.
        device: what it runs on.
        version: of the library underneath.
        manifest: of the artifact.
    """

    name: str
    device: str
    version: str
    manifest: Manifest

    def new_state(self, batch: int = 1) -> State:
        """A fresh state of zeros for ``batch`` cameras."""
        kinds: dict[str, list[StateSpec]] = {"carry": [], "history": []}
        for spec in self.manifest.state:
            kinds[spec.kind].append(spec)

        def zeros(specs: list[StateSpec]) -> dict[str, Tensor]:
            return {spec.name: np.zeros((batch, *spec.shape), np.float32) for spec in specs}

        slots = self.manifest.slots
        zero = Moment(zeros(kinds["history"]))
        return State(
            tensors=zeros(kinds["carry"]),
            prediction=np.zeros((batch, self.manifest.outputs, *self.manifest.frame), np.float32),
            zero=zero,
            own=tuple(Moment(zeros(kinds["history"])) for _ in range(slots // 2 + 1)),
            past=(zero,) * slots,
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
            ``state_out.prediction``, [B, K, C, H, W]: valid until that state is written again.

        Raises:
            EngineError: the step failed, or both states are the same; ``state_out`` is undefined then until it is reset
                or written.
        """

    @abstractmethod
    def close(self) -> None:
        """Free what it holds. May be called twice."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
