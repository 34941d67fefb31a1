"""What an engine is: it runs an artifact's step on states that its caller holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from framecast.runtime.manifest import Manifest

Tensor = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class State:
    """Buffers of one state, and of the prediction that was made with it; allocated once, written in place.

    Attributes:
        tensors: [B, …] each, by name.
        prediction: [B, K, C, H, W], of the step that wrote this state.
    """

    tensors: dict[str, Tensor]
    prediction: Tensor

    def reset(self) -> None:
        """All zeros: what comes before the first frame."""
        for tensor in self.tensors.values():
            tensor.fill(0)


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
        return State(
            {spec.name: np.zeros((batch, *spec.shape), np.float32) for spec in self.manifest.state},
            np.zeros((batch, self.manifest.outputs, *self.manifest.frame), np.float32),
        )

    @abstractmethod
    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """Predict the next frame.

        Args:
            frame: [B, C, H, W], in the manifest's value range and channel order; no part of ``state_out``.
            state_in: read.
            state_out: written; another one than ``state_in``.

        Returns:
            ``state_out.prediction``, [B, K, C, H, W]: valid until that state is written again.

        Raises:
            EngineError: the step failed, or both states are the same.
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
