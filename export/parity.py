"""Parity: compares an engine with its original network over a rollout. Each carries its own state."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from framecast.models.step import StepModel
from framecast.runtime.convert import Tensor
from framecast.runtime.engines import Engine
from framecast.runtime.stepper import Stepper

FACTOR = 4  # an engine may be this many times as far from float64 as PyTorch's float32 is
CEILING = 1 / 510  # half a grey level: beyond it, rounding is no excuse


@dataclass(frozen=True)
class Parity:
    """Errors of predictions over ``steps`` steps; NaN if one is not finite.

    Attributes:
        steps: number of steps.
        max: the largest absolute error, in units of the step's largest value, or of the value range if that is larger.
        mean: the mean absolute error, in the same units.
        allowed: the largest ``max`` that is allowed.
        reference: precision of the network that the engine was compared with.
    """

    steps: int
    max: float
    mean: float
    allowed: float
    reference: Literal["float32", "float64"] = "float32"

    @property
    def holds(self) -> bool:
        """Whether the largest error is within the allowed one."""
        return self.max <= self.allowed


@torch.inference_mode()
def compare(model: StepModel, engine: Engine, frames: Iterable[Tensor], allowed: float = 1e-5) -> Parity:
    """Step the network and an engine through the same frames. Each carries its own state.

    Args:
        model: the reference, in float32 on the CPU.
        engine: an open engine with the model's artifact.
        frames: [B, C, H, W] each, at least one.
        allowed: the largest allowed error; see :class:`Parity`.
    """
    stepper: Stepper | None = None
    errors = _Errors()
    for frame in frames:
        if stepper is None:
            stepper, state = Stepper(engine, len(frame)), model.init_state(len(frame))
        expected, state = model.step(torch.from_numpy(frame), state)
        errors.add(stepper.step(frame, poison=True), expected.numpy())
    return Parity(len(errors.worst), *errors.summary(), allowed)


@torch.inference_mode()
def compare_exactly(model: StepModel, engine: Engine, frames: Iterable[Tensor], allowed: float = 1e-5) -> Parity:
    """Compare an engine with the network in float64, where rounding in float32 alone exceeds ``allowed``.

    Some weights amplify rounding: over 20 steps STIP at full size is 1e-5 off its own float64. The engine may then be
    ``FACTOR`` times as far from float64 as PyTorch's float32 is, up to ``CEILING``.

    Args:
        model: the network, in float32 on the CPU.
        engine: an open engine with the model's artifact.
        frames: [B, C, H, W] each, at least one.
        allowed: an error that is always allowed; see :class:`Parity`.
    """
    exact = copy.deepcopy(model).double()
    stepper: Stepper | None = None
    errors, rounding = _Errors(), _Errors()
    for frame in frames:
        if stepper is None:
            stepper, state = Stepper(engine, len(frame)), model.init_state(len(frame))
            exact_state = {name: value.double() for name, value in state.items()}
        single, state = model.step(torch.from_numpy(frame), state)
        expected, exact_state = exact.step(torch.from_numpy(frame).double(), exact_state)
        rounding.add(single.numpy(), expected.numpy())
        errors.add(stepper.step(frame, poison=True), expected.numpy())
    own, _ = rounding.summary()
    return Parity(len(errors.worst), *errors.summary(), max(allowed, min(FACTOR * own, CEILING)), "float64")


class _Errors:
    """Errors of one step after the other, in units of the step's largest expected value, but of no less than 1."""

    def __init__(self) -> None:
        self.worst: list[float] = []
        self.means: list[float] = []

    def add(self, found: NDArray[np.floating], expected: NDArray[np.floating]) -> None:
        error = np.abs(found - expected) / max(1.0, float(np.abs(expected).max()))
        self.worst.append(float(error.max()))
        self.means.append(float(error.mean()))

    def summary(self) -> tuple[float, float]:
        """Return the largest and the mean error; NaN if one is not finite."""
        return float(np.max(self.worst)), float(np.mean(self.means))


def random_frames(shape: tuple[int, int, int], steps: int, seed: int) -> Iterator[Tensor]:
    """Return frames of uniform noise, [1, C, H, W] each. Noise is nowhere smooth, so it shows every error."""
    rng = np.random.default_rng(seed)
    return (rng.random((1, *shape), np.float32) for _ in range(steps))
