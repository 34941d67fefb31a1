"""Blocks that more than one network really shares."""

from __future__ import annotations

from torch import Tensor, nn


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
