"""Parity: an engine held against the network that it was exported from, over a rollout with the state carried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from framecast.models.step import StepModel
from framecast.runtime.engines import Engine


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
def compare(model: StepModel, engine: Engine, frames: Sequence[NDArray[np.float32]], allowed: float = 1e-5) -> Parity:
    """Step both through the same frames, each carrying its own state.

    Args:
        model: the reference, in float32 on the CPU.
        engine: opened on the model's artifact.
        frames: [B, C, H, W] each.
        allowed: the largest error, in units of the value range.
    """
    expected_state = model.init_state(frames[0].shape[0])
    state, spare = engine.new_state(frames[0].shape[0]), engine.new_state(frames[0].shape[0])
    errors = []
    for frame in frames:
        expected, expected_state = model.step(torch.from_numpy(frame), expected_state)
        spare.prediction.fill(np.nan)  # so that an output that is not written shows
        actual = engine.step(frame, state, spare)
        state, spare = spare, state
        errors.append(np.abs(actual - expected.numpy()))
    return Parity(len(frames), float(np.max(errors)), float(np.mean(errors)), allowed)


def random_frames(shape: tuple[int, int, int], steps: int, seed: int) -> list[NDArray[np.float32]]:
    """Uniform noise, [1, C, H, W] each: nothing is smooth, so every error shows."""
    rng = np.random.default_rng(seed)
    return [rng.random((1, *shape), np.float32) for _ in range(steps)]
