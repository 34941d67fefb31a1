"""Parity: an engine held against the network that it was exported from, over a rollout with the state carried."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from framecast.models.step import StepModel
from framecast.runtime.engines import Engine, State
from framecast.runtime.engines.engine import Tensor


@dataclass(frozen=True)
class Parity:
    """Absolute errors of predictions over ``steps`` steps, in units of the value range; NaN if any is not finite."""

    steps: int
    max: float
    mean: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether the largest error is within what is allowed."""
        return self.max <= self.allowed


@torch.inference_mode()
def compare(model: StepModel, engine: Engine, frames: Iterable[Tensor], allowed: float = 1e-5) -> Parity:
    """Step both through the same frames, each carrying its own state.

    Args:
        model: the reference, in float32 on the CPU.
        engine: opened on the model's artifact.
        frames: [B, C, H, W] each, at least one.
        allowed: the largest error, in units of the value range.
    """
    states: tuple[State, State] | None = None
    worst, means = [], []
    for frame in frames:
        if states is None:
            expected_state = model.init_state(len(frame))
            states = engine.new_state(len(frame)), engine.new_state(len(frame))
        state, spare = states
        expected, expected_state = model.step(torch.from_numpy(frame), expected_state)
        spare.prediction.fill(np.nan)  # so that an output that is not written shows
        error = np.abs(engine.step(frame, state, spare) - expected.numpy())
        states = spare, state
        worst.append(float(error.max()))
        means.append(float(error.mean()))
    return Parity(len(worst), float(np.max(worst)), float(np.mean(means)), allowed)


def random_frames(shape: tuple[int, int, int], steps: int, seed: int) -> Iterator[Tensor]:
    """Uniform noise, [1, C, H, W] each: nothing is smooth, so every error shows."""
    rng = np.random.default_rng(seed)
    return (rng.random((1, *shape), np.float32) for _ in range(steps))
