"""Motion between two frames, from operators that can be exported: pools, shifts, a 2×2 solve and GridSample."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

REACH = 3.0  # pixels of a level: the linear brightness constraint is meaningless beyond it


class Warp(nn.Module):
    """Warp an image along a flow: ``out(p) = image(p + flow(p))``, bilinear, replicated borders."""

    grid: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        self.register_buffer("grid", torch.stack([x, y], dim=-1)[None], persistent=False)
        self.scale = (2 / (width - 1), 2 / (height - 1))

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        """``image`` [B, C, H, W] and ``flow`` [B, 2, H, W] (x, y; pixels) to [B, C, H, W]."""
        x, y = flow[:, 0] * self.scale[0], flow[:, 1] * self.scale[1]
        grid = self.grid + torch.stack([x, y], dim=-1)
        return functional.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def enlarge(x: Tensor, scale: int) -> Tensor:
    """Enlarge [B, C, H, W] to [B, C, scale·H, scale·W], bilinear. Values that are in pixels keep their unit."""
    return functional.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


def box(x: Tensor, size: int) -> Tensor:
    """Return the mean over a size×size window, replicated borders: ``x`` [B, C, H, W]."""
    half = size // 2
    padded = functional.pad(x, (half, half, half, half), mode="replicate")
    return functional.avg_pool2d(functional.avg_pool2d(padded, (1, size), stride=1), (size, 1), stride=1)


def halve(x: Tensor) -> Tensor:
    """Return the mean over 2×2 pixels. If a side is odd, its last pixel counts twice: ``x`` [B, C, H, W]."""
    height, width = x.shape[-2:]
    if height % 2 or width % 2:
        x = functional.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    return functional.avg_pool2d(x, 2)


def _gradients(image: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y of ``image`` [B, 1, H, W], replicated borders."""
    padded = functional.pad(image, (1, 1, 1, 1), mode="replicate")
    return (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2


def _neighbours(x: Tensor, distance: int) -> Tensor:
    """Stack each pixel and its four diagonal neighbours: [B, C, H, W] to [5·B, C, H, W], replicated borders."""
    height, width = x.shape[-2:]
    padded = functional.pad(x, (distance,) * 4, mode="replicate")
    corners = [(y, x) for y in (0, 2 * distance) for x in (0, 2 * distance)]
    return torch.cat([padded[..., y : y + height, x : x + width] for y, x in [(distance, distance), *corners]])


class LucasKanade(nn.Module):
    """Dense pyramidal Lucas–Kanade flow (Lucas and Kanade 1981; Bouguet 2001).

    At each level, from coarse to fine, the flow so far warps the earlier frame. The correction solves the 2×2 system of
    the brightness constraint over a window. A constant added to the system's diagonal keeps flat areas still.

    Args:
        height: height of the frames.
        width: width of the frames.
        levels: levels of the pyramid.
        window: side of a 2×2 system's window in pixels.
        smooth: side of the box that smooths each level's flow, in pixels.
        select: before smoothing, give each pixel the flow that explains it best: its own, or that of one of four
            neighbours. Motion then ends at the edges of objects. The choice is soft, after the densification of DIS
            (Kroeger et al., 2016).
        halved: True: the finest level has half the frames' size; False: it has their size.
    """

    def __init__(
        self,
        height: int,
        width: int,
        levels: int = 4,
        window: int = 9,
        smooth: int = 7,
        select: bool = False,
        halved: bool = True,
    ) -> None:
        super().__init__()
        self.window = window
        self.smooth = smooth
        self.select = select
        self.halved = halved
        sizes = [(height, width)]
        for _ in range(levels - 1 + halved):
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        self.sizes = sizes[int(halved) :]
        self.warps = nn.ModuleList(Warp(*size) for size in self.sizes)

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """Return the flow from ``current`` to ``previous`` ([B, C, H, W] each, 0 to 1), in their pixels.

        Its shape is [B, 2, H/2, W/2], or [B, 2, H, W] if not ``halved``.
        """
        pair = torch.cat([current.mean(1, keepdim=True), previous.mean(1, keepdim=True)], dim=1)
        pyramid = [halve(pair) if self.halved else pair]
        for _ in self.sizes[1:]:
            pyramid.append(halve(pyramid[-1]))
        flow = torch.zeros_like(pyramid[-1])
        for level in reversed(range(len(pyramid))):
            if level < len(pyramid) - 1:
                height, width = self.sizes[level]
                flow = 2 * enlarge(flow, 2)[..., :height, :width]
            now, before = pyramid[level].chunk(2, dim=1)
            flow = flow + self._correction(now, self.warps[level](before, flow))
            if self.select:
                flow = self._selected(now, before, flow, self.warps[level])
            flow = box(flow, self.smooth)
        return 2 * flow if self.halved else flow

    def _selected(self, now: Tensor, before: Tensor, flow: Tensor, warp: nn.Module) -> Tensor:
        flows = _neighbours(flow, distance=5)
        errors = box((warp(before.repeat(5, 1, 1, 1), flows) - now.repeat(5, 1, 1, 1)).abs(), 5)
        flows, errors = (x.reshape(5, -1, *x.shape[1:]) for x in (flows, errors))
        weights = (0.003 / (errors + 0.003)).square().square()  # for values of 0 to 1
        return (weights * flows).sum(dim=0) / weights.sum(dim=0)

    def _correction(self, now: Tensor, before: Tensor) -> Tensor:
        gx, gy = _gradients((now + before) / 2)
        change = now - before
        products = torch.cat([gx * gx, gy * gy, gx * gy, gx * change, gy * change], dim=1)
        xx, yy, xy, xt, yt = box(products, self.window).chunk(5, dim=1)
        floor = 1e-4  # squared gradient, for values of 0 to 1: below it an area counts as flat
        xx, yy = xx + floor, yy + floor
        determinant = xx * yy - xy * xy
        step = torch.cat([yy * xt - xy * yt, xx * yt - xy * xt], dim=1) / determinant
        return step.clamp(-REACH, REACH)
