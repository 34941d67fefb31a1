"""The step: the one contract that every network keeps, and everything downstream relies on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

import torch
from torch import Tensor, nn

State = dict[str, Tensor]  # by name, [batch, …] each
Released = Sequence[tuple[str, str | None]]


@dataclass(frozen=True)
class History:
    """A state tensor of which the step sees the last ``slots`` values, and writes one new one: a ring.

    Attributes:
        slots: how many are read; in a state they are called ``NAME.0`` (the newest) to ``NAME.(slots - 1)``.
        shape: of one, without the batch.
    """

    slots: int
    shape: tuple[int, ...]


class StepModel(nn.Module, ABC):
    """A network as one pure function of fixed shapes: ``prediction[t+1], state[t] = step(frame[t], state[t-1])``.

    Attributes:
        frame_shape: (C, H, W) of a frame; values 0 to 1.
        outputs: K, how many frames one step predicts.
        state_shapes: shape of every carried state tensor by name, without the batch.
        histories: every history by name.
        warmup: steps from a reset until the state has seen all that it can hold.
        channels_last: whether states, convolutions and layer norms lie in memory with channels last: :meth:`on_gpu`.
        halves: pattern of the layers whose results may stay float16, where layers compute in it.
        released: how the keys of the authors' checkpoints become ours: (pattern, replacement) each, matched in full;
            None in place of a replacement for what their network holds and does not use. Empty where none was released.
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
        """The state before the first frame: all zeros, [batch, …] each, where the weights are."""
        like = next(chain(self.parameters(), self.buffers()))

        def zeros(shape: tuple[int, ...]) -> Tensor:
            return torch.zeros((batch, *shape), dtype=like.dtype, device=like.device)

        state = {name: zeros(shape) for name, shape in self.state_shapes.items()}
        for name, history in self.histories.items():
            state |= {f"{name}.{age}": zeros(history.shape) for age in range(history.slots)}
        return state

    def past(self, state: State, name: str) -> list[Tensor]:
        """What a state holds of a history, newest first."""
        return [state[f"{name}.{age}"] for age in range(self.histories[name].slots)]

    @abstractmethod
    def forward(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """One step, as it is exported: the prediction, and what is new in the state.

        Args:
            frame: the newest frame, [B, C, H, W], 0 to 1.
            state: what ``init_state`` or the last step returned; left as it is.

        Returns:
            The predicted frames [B, K, C, H, W] (unbounded); every carried tensor and every history's new value, by
            name.
        """

    def deployed(self) -> StepModel:
        """The same function in the form that costs least to run, for export; by default the network itself."""
        return self

    def on_gpu(self, *, branch: bool = False, channels_last: bool = False) -> StepModel:
        """The same function in the form that costs least when PyTorch runs it on a GPU; by default that for export.

        Args:
            branch: whether work that may run beside other work does, on a stream of its own; needs CUDA.
            channels_last: whether convolutions are to run channels-last; not every network does.
        """
        del branch, channels_last
        return self.deployed()

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance by one frame: :meth:`forward`, and the histories moved on by one, without a copy.

        Returns:
            The predicted frames [B, K, C, H, W] (unbounded), and the new state.
        """
        prediction, written = self(frame, state)
        return prediction, self.moved_on(written, state)

    def moved_on(self, written: State, state: State) -> State:
        """The state after ``state``: what :meth:`forward` has ``written``, and the histories moved on by one."""
        new = {name: written[name] for name in self.state_shapes}
        for name in self.histories:
            values = [written[name], *self.past(state, name)[:-1]]
            new |= {f"{name}.{age}": value for age, value in enumerate(values)}
        return new


class MomentModel(StepModel):
    """A model of motion: it perceives a frame once, then renders the picture of any moment ahead.

    Times are in any unit, the same everywhere. As a :class:`StepModel` it is a network whose frames come one apart.

    Attributes:
        fields: what rendering needs, by name: shapes without the batch. Those that the state carries too, under the
            same name, are the state's.
    """

    fields: Mapping[str, tuple[int, ...]]

    @abstractmethod
    def perceive(self, frame: Tensor, elapsed: Tensor, state: State) -> tuple[State, State]:
        """Take in a frame.

        Args:
            frame: the newest frame, [B, C, H, W], 0 to 1.
            elapsed: time since the frame before, [B], above 0; of no account for the first.
            state: as for :meth:`StepModel.forward`.

        Returns:
            The fields that the state does not carry; what is new in the state, as for :meth:`StepModel.forward`.
        """

    @abstractmethod
    def render(self, fields: State, ahead: Tensor) -> Tensor:
        """The picture ``ahead`` ([B], at least 0) of the newest frame: [B, C, H, W], 0 to 1."""

    def forward(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """See :meth:`StepModel.forward`: the moment as far ahead as the last frame lies back."""
        one = torch.ones_like(frame[:, 0, 0, 0])
        fields, written = self.perceive(frame, one, state)
        return self.render({**fields, **self.carried(written)}, one).unsqueeze(1), written

    def carried(self, written: State) -> State:
        """The fields that the new state carries."""
        return {name: written[name] for name in self.fields if name in self.state_shapes}
