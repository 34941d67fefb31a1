"""The step: the contract between every network and everything downstream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

import torch
from torch import Tensor, nn

State = dict[str, Tensor]  # tensors by name, [batch, …] each
Released = Sequence[tuple[str, str | None]]


@dataclass(frozen=True)
class History:
    """A state tensor with a past: the step reads its last ``slots`` values and writes a new one (a ring buffer).

    Attributes:
        slots: number of values; in a state they are called ``NAME.0`` (the newest) to ``NAME.(slots - 1)``.
        shape: shape of one value, without the batch.
    """

    slots: int
    shape: tuple[int, ...]


class StepModel(nn.Module, ABC):
    """A network as one pure function of fixed shapes: ``prediction[t+1], state[t] = step(frame[t], state[t-1])``.

    Attributes:
        frame_shape: (C, H, W) of a frame; values are 0 to 1.
        outputs: K, the number of frames that one step predicts.
        state_shapes: shape of every carried state tensor by name, without the batch.
        histories: every history by name.
        warmup: number of steps after a reset until the state is as full as it can be.
        channels_last: whether states, convolutions and layer norms are stored channels-last; see :meth:`on_gpu`.
        halves: pattern for the names of layers whose results may stay float16 if the layers compute in float16.
        released: (pattern, replacement) pairs that turn keys of the authors' checkpoints into ours. A pattern must
            match the whole key. The replacement is None for keys that their network stores but never uses. Empty if
            no checkpoint was released.
    """

    frame_shape: tuple[int, int, int]
    outputs: int = 1
    state_shapes: Mapping[str, tuple[int, ...]]
    histories: Mapping[str, History] = {}
    warmup: int
    channels_last: bool = False
    halves: ClassVar[str] = ""
    released: ClassVar[Released] = ()

    def init_state(self, batch: int = 1) -> State:
        """Return the state before the first frame: zeros, [batch, …] each, on the device of the weights."""
        like = next(chain(self.parameters(), self.buffers()))

        def zeros(shape: tuple[int, ...]) -> Tensor:
            return torch.zeros((batch, *shape), dtype=like.dtype, device=like.device)

        state = {name: zeros(shape) for name, shape in self.state_shapes.items()}
        for name, history in self.histories.items():
            state |= {f"{name}.{age}": zeros(history.shape) for age in range(history.slots)}
        return state

    def past(self, state: State, name: str) -> list[Tensor]:
        """Return a history's values in a state, newest first."""
        return [state[f"{name}.{age}"] for age in range(self.histories[name].slots)]

    @abstractmethod
    def forward(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """Run one step, as it is exported.

        Args:
            frame: the newest frame, [B, C, H, W], 0 to 1.
            state: the result of ``init_state`` or of the last step; it is not modified.

        Returns:
            The predicted frames [B, K, C, H, W], not clamped; and a dict by name with every carried tensor and every
            history's new value.
        """

    def deployed(self) -> StepModel:
        """Return the same function in its cheapest form, for export (default: the network itself)."""
        return self

    def on_gpu(self, *, branch: bool = False, channels_last: bool = False) -> StepModel:
        """Return the same function in its cheapest form for PyTorch on a GPU (default: that for export).

        Args:
            branch: run independent work on a second stream; needs CUDA.
            channels_last: run convolutions channels-last; not every network supports it.
        """
        del branch, channels_last
        return self.deployed()

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance by one frame: call :meth:`forward`, and shift the histories by one, without a copy.

        Returns:
            The predicted frames [B, K, C, H, W], not clamped, and the new state.
        """
        prediction, written = self(frame, state)
        return prediction, self.moved_on(written, state)

    def moved_on(self, written: State, state: State) -> State:
        """Return the next state: the tensors ``written`` by :meth:`forward`, and the histories shifted by one."""
        new = {name: written[name] for name in self.state_shapes}
        for name in self.histories:
            values = [written[name], *self.past(state, name)[:-1]]
            new |= {f"{name}.{age}": value for age, value in enumerate(values)}
        return new


class MomentModel(StepModel):
    """A model of motion: it perceives a frame once, and then renders the picture of any moment after it.

    All times have the same unit, which may be any. As a :class:`StepModel`, it has one unit between frames.

    Attributes:
        fields: shapes of the tensors that rendering needs, by name, without the batch. If the state carries a tensor
            of the same name, the field is that tensor.
    """

    fields: Mapping[str, tuple[int, ...]]

    @abstractmethod
    def perceive(self, frame: Tensor, elapsed: Tensor, state: State) -> tuple[State, State]:
        """Process a frame.

        Args:
            frame: the newest frame, [B, C, H, W], 0 to 1.
            elapsed: time since the previous frame, [B], above 0; it has no effect for the first frame.
            state: as for :meth:`StepModel.forward`.

        Returns:
            The fields that the state does not carry, and the new values of the state as for
            :meth:`StepModel.forward`.
        """

    @abstractmethod
    def render(self, fields: State, ahead: Tensor) -> Tensor:
        """Return the picture at a time ``ahead`` ([B], at least 0) after the newest frame: [B, C, H, W], 0 to 1."""

    def forward(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """See :meth:`StepModel.forward`. It predicts one unit ahead, and the previous frame is one unit back."""
        one = torch.ones_like(frame[:, 0, 0, 0])
        fields, written = self.perceive(frame, one, state)
        return self.render({**fields, **self.carried(written)}, one).unsqueeze(1), written

    def carried(self, written: State) -> State:
        """Return the fields that the new state carries."""
        return {name: written[name] for name in self.fields if name in self.state_shapes}
