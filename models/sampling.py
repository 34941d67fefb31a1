"""Reads pictures between their pixels and resizes them as OpenCV does, for the graphs of ``edge``.

Sizes are fixed when a module is made; the batch may vary. OpenCV computes some of this in bytes. These modules use
floats, so the results differ by OpenCV's rounding.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class Pull(nn.Module):
    """Read a picture at the points of a grid, each with its own shift: bilinear, borders replicated.

    Args:
        x: columns of the grid, [w], in pixels of the picture.
        y: rows of the grid, [h].
        width: width of the picture, at least 2.
        height: height of the picture, at least 2.
    """

    x: Tensor
    y: Tensor

    def __init__(self, x: Tensor, y: Tensor, width: int, height: int) -> None:
        super().__init__()
        self.scale = (2 / (width - 1), 2 / (height - 1))  # GridSample's coordinates run from −1 to 1
        self.register_buffer("x", (x.double() * self.scale[0] - 1).float(), persistent=False)
        self.register_buffer("y", (y.double() * self.scale[1] - 1).float()[:, None], persistent=False)

    def forward(self, picture: Tensor, shift: Tensor) -> Tensor:
        """``picture`` [B, C, H, W] and ``shift`` [B, 2, n, h, w] (x, y; pixels), n grids, to [B, C, n, h, w]."""
        count, height = shift.shape[2:4]
        at = torch.stack([self.x + shift[:, 0] * self.scale[0], self.y + shift[:, 1] * self.scale[1]], dim=-1)
        read = functional.grid_sample(
            picture, at.flatten(1, 2), mode="bilinear", padding_mode="border", align_corners=True
        )
        return read.reshape(-1, picture.shape[1], count, height, shift.shape[4])


class Pick(nn.Module):
    """Read a picture at whole pixels: the columns ``x`` and the rows ``y``."""

    x: Tensor
    y: Tensor

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.register_buffer("x", x.long(), persistent=False)
        self.register_buffer("y", y.long(), persistent=False)

    def forward(self, picture: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C, h, w]."""
        return picture.index_select(2, self.y).index_select(3, self.x)


class Shrink(nn.Module):
    """Reduce a picture: each new pixel is the mean over the area that it covers (INTER_AREA).

    Args:
        size: (width, height) of the pictures.
        target: (width, height) of the results, neither of them larger than in ``size``.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, size: tuple[int, int], target: tuple[int, int]) -> None:
        super().__init__()
        self.factors = tuple(a // b for a, b in zip(size, target, strict=True))
        self.whole = all(a == b * factor for a, b, factor in zip(size, target, self.factors, strict=True))
        if not self.whole:
            self.register_buffer("rows", _shares(size[1], target[1]), persistent=False)
            self.register_buffer("columns", _shares(size[0], target[0]).T.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C, h, w]."""
        if self.whole:
            return x if self.factors == (1, 1) else functional.avg_pool2d(x, (self.factors[1], self.factors[0]))
        return self.rows @ x @ self.columns


class Box(nn.Module):
    """A box filter whose radius is an input: ``cv2.blur`` with a side of 2 · radius + 1.

    Graphs have no pooling with a variable size. A box along an axis is therefore a matrix, computed on each call. The
    radius is limited to the picture's length along that axis minus one.

    Args:
        width: width of the pictures.
        height: height of the pictures.
        mirrored: True: mirror the picture at its border (BORDER_REFLECT_101); False: repeat its edge.
    """

    columns: Tensor
    rows: Tensor

    def __init__(self, width: int, height: int, *, mirrored: bool = False) -> None:
        super().__init__()
        self.mirrored = mirrored
        self.register_buffer("columns", torch.arange(float(width)), persistent=False)
        self.register_buffer("rows", torch.arange(float(height)), persistent=False)

    def forward(self, x: Tensor, radius: Tensor) -> Tensor:
        """Blur ``x`` [B, C, H, W] with each ``radius`` [B, n], whole numbers of 0 or more: [B, n, C, H, W]."""
        radius = radius[:, :, None, None, None]
        x = x.unsqueeze(1)
        smooth = self._matrix(self.rows, radius) @ x @ self._matrix(self.columns, radius).transpose(-1, -2)
        return torch.where(radius < 0.5, x, smooth)  # exact for a radius of 0 on every device

    def _matrix(self, at: Tensor, radius: Tensor) -> Tensor:
        """Return each pixel's weight in each mean: [B, n, 1, length, length]. ``at`` [length] counts the pixels."""
        last = len(at) - 1
        radius = radius.clamp(max=last)
        to, of = at[:, None], at
        inside = (radius + 1 - (to - of).abs()).clamp(0, 1)
        if self.mirrored:
            first = (radius + 1 - (to + of)).clamp(0, 1) * (of > 0)
            final = (radius + 1 - (2 * last - to - of)).clamp(0, 1) * (of < last)
        else:
            first = (radius - to).clamp(min=0) * (of == 0)
            final = (radius - (last - to)).clamp(min=0) * (of == last)
        return (inside + first + final) / (2 * radius + 1)


def _shares(length: int, target: int) -> Tensor:
    """Return each pixel's share in the mean of each of ``target`` equal parts: [target, length], rows sum to 1."""
    edges = np.linspace(0, length, target + 1)
    pixels = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return torch.tensor(overlap.clip(0) * target / length, dtype=torch.float32)


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize [B, C, h, w] to [B, C, height, width], with ``size`` (width, height): bilinear (INTER_LINEAR)."""
    return functional.interpolate(x, (size[1], size[0]), mode="bilinear", align_corners=False)


def mean_around(x: Tensor, size: int, border: str = "replicate") -> Tensor:
    """Return the mean over ``size`` × ``size`` pixels of ``x`` [B, C, H, W]; ``border`` is a mode for ``pad``."""
    half = size // 2
    padded = functional.pad(x, (half, half, half, half), mode=border)
    return functional.avg_pool2d(functional.avg_pool2d(padded, (1, size), stride=1), (size, 1), stride=1)
