"""Shared by the recurrent networks' references: a clip-wise forward in float64, and its comparison with our steps.

A reference processes a whole clip, like the authors' code. Of our code it uses only the configuration.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from framecast.models.checkpoints import Checkpoint, read_checkpoint
from framecast.models.step import StepModel

Shapes = dict[str, tuple[int, ...]]


class ClipWise(ABC):
    """A network's forward over a clip; ``w`` holds its weights by name."""

    def __init__(self, config: Any, weights: Mapping[str, Tensor]) -> None:
        self.config = config
        self.w = {key: value.double() for key, value in weights.items()}

    def __call__(self, clip: Tensor) -> Tensor:
        """Predict the frame after each frame of a clip: [B, T, C, H, W] to the same shape."""
        batch, frames, channels, height, width = clip.shape
        p = self.config.patch
        grid = clip.double().reshape(batch, frames, channels, height // p, p, width // p, p)
        patched = grid.permute(0, 1, 4, 6, 2, 3, 5).reshape(batch, frames, -1, height // p, width // p)
        y = torch.stack(self.predict(list(patched.unbind(1))), dim=1)
        y = y.reshape(batch, frames, p, p, channels, height // p, width // p)
        return y.permute(0, 1, 4, 5, 2, 6, 3).reshape(clip.shape)

    @abstractmethod
    def predict(self, frames: list[Tensor]) -> list[Tensor]:
        """Return one prediction for each patched frame, all [B, F, H/p, W/p]."""

    def zeros(self, like: Tensor, *shape: int) -> Tensor:
        return torch.zeros(like.shape[0], *shape, *self.config.state_size, dtype=torch.float64, device=like.device)

    def conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"], stride, padding)

    def up(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.w[f"{name}.weight"], self.w[f"{name}.bias"]
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)

    def norm(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Layer norm over everything but the batch."""
        dims = tuple(range(1, x.dim()))
        centred = x - x.mean(dims, keepdim=True)
        return centred / torch.sqrt((centred * centred).mean(dims, keepdim=True) + 1e-5) * weight + bias

    def conv_norm(self, x: Tensor, name: str) -> Tensor:
        """A released pair of layers: a convolution (``.0``) that keeps the size, and its layer norm (``.1``)."""
        x = self.conv(x, f"{name}.0", padding=self.config.kernel // 2)
        return self.norm(x, self.w[f"{name}.1.weight"], self.w[f"{name}.1.bias"])


def random_weights(shapes: Shapes) -> dict[str, Tensor]:
    """Random weights, none so small that it could hide an error."""
    weights = {}
    for key, shape in shapes.items():
        if len(shape) >= 4:  # convolution
            weights[key] = torch.randn(shape) / math.sqrt(math.prod(shape[1:]))
        elif key.endswith("weight"):  # layer norm
            weights[key] = torch.rand(shape) + 0.5
        else:
            weights[key] = torch.randn(shape) * 0.3
    return weights


def count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def parameters(model: StepModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def load(model: StepModel, weights: Mapping[str, Tensor], folder: Path) -> Checkpoint:
    """Load weights into a network from a file in a released format."""
    path = folder / "released.ckpt"
    torch.save({"net_param": dict(weights)}, path)
    checkpoint = read_checkpoint(path, model, "a test")
    model.eval().load_state_dict(dict(checkpoint.tensors))
    return checkpoint


@torch.inference_mode()
def stream(model: StepModel, clip: Tensor) -> Tensor:
    """Predict step by step over a clip [B, T, C, H, W]; returns the same shape."""
    state, predictions = model.init_state(clip.shape[0]), []
    for frame in clip.unbind(1):
        prediction, state = model.step(frame, state)
        predictions.append(prediction[:, 0])
    return torch.stack(predictions, dim=1)


def difference(value: Tensor, expected: Tensor) -> float:
    """The largest error of any step, relative to max(1, the step's largest expected value)."""
    assert value.shape == expected.shape
    errors, scales = (x.abs().amax((0, 2, 3, 4)) for x in (value - expected, expected))
    return float((errors / scales.clamp(min=1)).max())


def clip_gmacs(reference: type[ClipWise], config: Any, shapes: Mapping[str, tuple[int, ...]], frames: int) -> float:
    """Multiply-accumulates of the convolutions for a clip of ``frames`` frames, in 10⁹."""
    weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    clip = torch.empty(1, frames, config.channels, config.height, config.width, device="meta")
    with FlopCounterMode(display=False) as counter:
        reference(config, weights)(clip)
    counts = counter.get_flop_counts()["Global"]
    flops: int = sum(number for operation, number in counts.items() if "convolution" in str(operation))
    return flops / 2e9
