"""Blocks that more than one network really shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from framecast.errors import OptionError


def check_sizes(config: object, minimums: Mapping[str, int]) -> None:
    """Hold a config's sizes to their minimums, and its kernel to an odd size.

    Raises:
        OptionError: one is too small, or the kernel's is even.
    """
    for name, minimum in minimums.items():
        if (value := getattr(config, name)) < minimum:
            raise OptionError(f"{name} must be at least {minimum}, not {value}")
    if (kernel := getattr(config, "kernel", 1)) % 2 == 0:
        raise OptionError(f"kernel must be odd, not {kernel}")


def shrunk(height: int, width: int, scale: int) -> tuple[int, int]:
    """Height and width of what an encoder leaves of a frame.

    Raises:
        OptionError: the frame does not divide so.
    """
    if height % scale or width % scale or min(height, width) < scale:
        raise OptionError(f"height and width must be multiples of {scale} for this network, not {height} and {width}")
    return height // scale, width // scale


def patchify(frame: Tensor, patch: int) -> Tensor:
    """[B, C, H, W] to [B, p·p·C, H/p, W/p], channel (row·p + column)·C + c: ONNX SpaceToDepth, not PixelUnshuffle."""
    batch, channels, height, width = frame.shape
    blocks = frame.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // patch, width // patch)


def unpatchify(patches: Tensor, patch: int) -> Tensor:
    """The inverse of :func:`patchify`: ONNX DepthToSpace in mode DCR."""
    batch, depth, height, width = patches.shape
    blocks = patches.reshape(batch, patch, patch, depth // patch**2, height, width)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(batch, -1, height * patch, width * patch)


def halve(channels: int) -> nn.Sequential:
    """Conv 3×3, stride 2, LeakyReLU 0.2: an encoder's stage."""
    return nn.Sequential(nn.Conv2d(channels, channels, 3, stride=2, padding=1), nn.LeakyReLU(0.2))


def double(channels: int, activate: bool) -> nn.Sequential:
    """ConvTranspose 3×3, stride 2 to exactly twice the size: a decoder's stage."""
    up = nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(up, nn.LeakyReLU(0.2)) if activate else nn.Sequential(up)


class ConvNorm(nn.Module):
    """A convolution, and a layer norm over the whole [C, H, W] of what it gives."""

    def __init__(self, conv: nn.Module, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.LayerNorm(shape)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] to [B, C_out, H, W]."""
        return cast(Tensor, self.norm(self.conv(x)))
