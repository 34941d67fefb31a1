"""Parity: compares an engine with its original network over a rollout. Each carries its own state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from framecast.models.step import StepModel
from framecast.runtime.convert import Tensor
from framecast.runtime.engines import Engine
from framecast.runtime.stepper import Stepper


@dataclass(frozen=True)
class Parity:
    """Absolute errors of predictions over ``steps`` steps, in units of the value range; NaN if one is not finite."""

    steps: int
    max: float
    mean: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether the largest error is within the allowed one."""
        return self.max <= self.allowed


@torch.inference_mode()
def compare(model: StepModel, engine: Engine, frames: Iterable[Tensor], allowed: float = 1e-5) -> Parity:
    """Step both through the same frames. Each carries its own state.

    Args:
        model: the reference, in float32 on the CPU.
        engine: an open engine with the model's artifact.
        frames: [B, C, H, W] each, at least one.
        allowed: the largest allowed error, in units of the value range.
    """
    stepper: Stepper | None = None
    worst, means = [], []
    for frame in frames:
        if stepper is None:
            stepper, expected_state = Stepper(engine, len(frame)), model.init_state(len(frame))
        expected, expected_state = model.step(torch.from_numpy(frame), expected_state)
        error = np.abs(stepper.step(frame, poison=True) - expected.numpy())
        worst.append(float(error.max()))
        means.append(float(error.mean()))
    return Parity(len(worst), float(np.max(worst)), float(np.mean(means)), allowed)


def random_frames(shape: tuple[int, int, int], steps: int, seed: int) -> Iterator[Tensor]:
    """Return frames of uniform noise, [1, C, H, W] each. Noise is nowhere smooth, so it shows every error."""
    rng = np.random.default_rng(seed)
    return (rng.random((1, *shape), np.float32) for _ in range(steps))
