"""What the references of the recurrent networks share: a clip-wise forward in float64, and how a step is held to it.

A reference takes a whole clip, as the authors' code does, and nothing of ours but the configuration.
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
    """A network's forward over a clip; ``w``: its weights by name."""

    def __init__(self, config: Any, weights: Mapping[str, Tensor]) -> None:
        self.config = config
        self.w = {key: value.double() for key, value in weights.items()}

    def __call__(self, clip: Tensor) -> Tensor:
        """[B, T, C, H, W] to as many predictions, each of the frame after."""
        batch, frames, channels, height, width = clip.shape
        p = self.config.patch
        grid = clip.double().reshape(batch, frames, channels, height // p, p, width // p, p)
        patched = grid.permute(0, 1, 4, 6, 2, 3, 5).reshape(batch, frames, -1, height // p, width // p)
        y = torch.stack(self.predict(list(patched.unbind(1))), dim=1)
        y = y.reshape(batch, frames, p, p, channels, height // p, width // p)
        return y.permute(0, 1, 4, 5, 2, 6, 3).reshape(clip.shape)

    @abstractmethod
    def predict(self, frames: list[Tensor]) -> list[Tensor]:
        """Patched frames, [B, F, H/p, W/p] each, to as many."""

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
        """A released pair: 0 is the convolution, which keeps the size, and 1 its layer norm."""
        x = self.conv(x, f"{name}.0", padding=self.config.kernel // 2)
        return self.norm(x, self.w[f"{name}.1.weight"], self.w[f"{name}.1.bias"])


def random_weights(shapes: Shapes) -> dict[str, Tensor]:
    """None so small that an error could hide behind it."""
    weights = {}
    for key, shape in shapes.items():
        if len(shape) >= 4:  # of a convolution
            weights[key] = torch.randn(shape) / math.sqrt(math.prod(shape[1:]))
        elif key.endswith("weight"):  # of a layer norm
            weights[key] = torch.rand(shape) + 0.5
        else:
            weights[key] = torch.randn(shape) * 0.3
    return weights


def count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def parameters(model: StepModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def load(model: StepModel, weights: Mapping[str, Tensor], folder: Path) -> Checkpoint:
    """Fill a network as a released file does."""
    path = folder / "released.ckpt"
    torch.save({"net_param": dict(weights)}, path)
    checkpoint = read_checkpoint(path, model, "a test")
    model.eval().load_state_dict(dict(checkpoint.tensors))
    return checkpoint


@torch.inference_mode()
def stream(model: StepModel, clip: Tensor) -> Tensor:
    """Step by step over a clip [B, T, C, H, W], to the same."""
    state, predictions = model.init_state(clip.shape[0]), []
    for frame in clip.unbind(1):
        prediction, state = model.step(frame, state)
        predictions.append(prediction[:, 0])
    return torch.stack(predictions, dim=1)


def difference(value: Tensor, expected: Tensor) -> float:
    """The largest of any step, against max(1, the scale of what is expected of that step)."""
    assert value.shape == expected.shape
    errors, scales = (x.abs().amax((0, 2, 3, 4)) for x in (value - expected, expected))
    return float((errors / scales.clamp(min=1)).max())


def clip_gmacs(reference: type[ClipWise], config: Any, shapes: Mapping[str, tuple[int, ...]], frames: int) -> float:
    """10⁹ multiply-accumulates of convolutions that a clip of so many frames costs."""
    weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    clip = torch.empty(1, frames, config.channels, config.height, config.width, device="meta")
    with FlopCounterMode(display=False) as counter:
        reference(config, weights)(clip)
    counts = counter.get_flop_counts()["Global"]
    flops: int = sum(number for operation, number in counts.items() if "convolution" in str(operation))
    return flops / 2e9
