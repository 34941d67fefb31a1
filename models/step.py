"""The step: the one contract that every network keeps, and everything downstream relies on."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


class StepModel(nn.Module, ABC):
    """A network as one pure function of fixed shapes: ``prediction[t+1], state[t] = step(frame[t], state[t-1])``.

    Attributes:
        frame_shape: (C, H, W) of a frame; values 0 to 1.
        state_shapes: shape of every state tensor by name, without the batch.
        warmup: steps from a reset until the state has seen all that it can hold.
    """

    frame_shape: tuple[int, int, int]
    state_shapes: dict[str, tuple[int, ...]]
    warmup: int

    def init_state(self, batch: int = 1) -> State:
        """The state before the first frame: all zeros, [batch, …] each, where the weights are."""
        like = next(self.parameters())
        return {
            name: torch.zeros((batch, *shape), dtype=like.dtype, device=like.device)
            for name, shape in self.state_shapes.items()
        }

    @abstractmethod
    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance by one frame.

        Args:
            frame: the newest frame, [B, C, H, W], 0 to 1.
            state: what ``init_state`` or the last step returned; left as it is.

        Returns:
            The predicted next frame [B, 1, C, H, W] (unbounded), and the new state.
        """

    def forward(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """The same as ``step``."""
        return self.step(frame, state)
