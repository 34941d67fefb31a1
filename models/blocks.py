"""Blocks that several networks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from framecast.errors import OptionError


def check_sizes(config: object, minimums: Mapping[str, int]) -> None:
    """Check that no size of a config is below its minimum.

    Raises:
        OptionError: a size is too small.
    """
    for name, minimum in minimums.items():
        if (value := getattr(config, name)) < minimum:
            raise OptionError(f"{name} must be at least {minimum}, not {value}")


@dataclass(frozen=True)
class PatchedConfig:
    """Sizes of a network for patched frames: an encoder reduces them, and one stack of cells runs on the result.

    Raises:
        OptionError: no network can be built with these sizes.
    """

    height: int
    width: int
    channels: int
    patch: int = 1
    hidden: int = 64
    layers: int = 4
    kernel: int = 5
    stages: int = 2  # encoder stages with stride 2; log2 of the released code's ``sr_size``

    def __post_init__(self) -> None:
        check_sizes(self, {"channels": 1, "patch": 1, "hidden": 1, "layers": 1, "kernel": 1, "stages": 0})
        if self.kernel % 2 == 0:
            raise OptionError(f"kernel must be odd, not {self.kernel}")
        if self.height % self.scale or self.width % self.scale or min(self.height, self.width) < self.scale:
            sizes = f"not {self.height} and {self.width}"
            raise OptionError(f"height and width must be multiples of {self.scale} for this network, {sizes}")

    @property
    def scale(self) -> int:
        """Width that a state's pixel covers, in pixels of the frame."""
        return self.patch << self.stages

    @property
    def features(self) -> int:
        """Channels of a patched frame."""
        return self.channels * self.patch**2

    @property
    def state_size(self) -> tuple[int, int]:
        """Height and width of a hidden state."""
        return self.height // self.scale, self.width // self.scale


def patchify(frame: Tensor, patch: int) -> Tensor:
    """Convert [B, C, H, W] to [B, p·p·C, H/p, W/p].

    Channel (row·p + column)·C + c comes from channel c. This is ONNX's SpaceToDepth, not torch's PixelUnshuffle.
    """
    if patch == 1:
        return frame
    batch, channels, height, width = frame.shape
    blocks = frame.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // patch, width // patch)


def unpatchify(patches: Tensor, patch: int) -> Tensor:
    """Invert :func:`patchify`. This is ONNX's DepthToSpace in DCR mode."""
    if patch == 1:
        return patches
    batch, depth, height, width = patches.shape
    blocks = patches.reshape(batch, patch, patch, depth // patch**2, height, width)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(batch, -1, height * patch, width * patch)


def halve(channels: int) -> nn.Sequential:
    """Make an encoder stage: 3×3 convolution with stride 2, LeakyReLU 0.2."""
    return nn.Sequential(nn.Conv2d(channels, channels, 3, stride=2, padding=1), nn.LeakyReLU(0.2))


def double(channels: int, activate: bool) -> nn.Sequential:
    """Make a decoder stage: 3×3 transposed convolution to exactly twice the size; LeakyReLU 0.2 if ``activate``."""
    up = nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(up, nn.LeakyReLU(0.2)) if activate else nn.Sequential(up)


def pointwise(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Return a 1×1 convolution's matrix over the channels, [C_out, C_in], and its bias, both float64."""
    weight, bias = cast(nn.Conv2d, conv).weight, cast(Tensor, conv.bias)
    return weight[:, :, 0, 0].double(), bias.double()


def mixing(matrix: Tensor, bias: Tensor | None, like: Tensor) -> nn.Conv2d:
    """Invert :func:`pointwise`: make a 1×1 convolution with the type and device of ``like``."""
    conv = nn.Conv2d(matrix.shape[1], matrix.shape[0], 1, bias=bias is not None)
    conv.weight = nn.Parameter(matrix[:, :, None, None].to(like))
    if bias is not None:
        conv.bias = nn.Parameter(bias.to(like))
    return conv


def merged(stages: Sequence[nn.Module], matrices: Sequence[Tensor], bias: Tensor) -> nn.ConvTranspose2d:
    """Merge stages of :func:`double`, the 1×1 convolution after each, and the sum of the results into one layer.

    The stages must have no activation. The layer takes their inputs concatenated along the channels. Its result is the
    same except for rounding. It is cheaper if there are few output channels.

    Args:
        stages: each maps [B, C_i, h, w] to [B, M_i, 2h, 2w].
        matrices: matrices of the 1×1 convolutions, [outputs, M_i] each, float64.
        bias: added to the sum, [outputs], float64.
    """
    ups = [cast(nn.ConvTranspose2d, cast(nn.Sequential, stage)[0]) for stage in stages]
    weights = []
    for up, matrix in zip(ups, matrices, strict=True):
        weights.append(torch.einsum("imkl,om->iokl", up.weight.double(), matrix))
        bias = bias + matrix @ cast(Tensor, up.bias).double()
    weight = torch.cat(weights)
    one = cast(nn.ConvTranspose2d, double(1, activate=False)[0])
    one.in_channels, one.out_channels = weight.shape[:2]
    one.weight, one.bias = nn.Parameter(weight.to(ups[0].weight)), nn.Parameter(bias.to(ups[0].weight))
    return one


class ConvNorm(nn.Module):
    """A convolution, and a layer norm over the whole [C, H, W] of its output."""

    def __init__(self, conv: nn.Module, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.LayerNorm(shape)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] to [B, C_out, H, W]."""
        return cast(Tensor, self.norm(self.conv(x)))
