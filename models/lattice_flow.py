"""Flow between two frames on the lattice of ``edge``: coarse-to-fine Lucas–Kanade, then two corrections.

The pyramid replaces dense inverse search, for which graphs have no operator. The correction is that of
:mod:`framecast.runtime.motion.flow`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from framecast.models.motion import LucasKanade
from framecast.models.sampling import Pull, Shrink, mean_around, resized
from framecast.runtime.motion.flow import FLOOR, REACH, SMOOTH, WINDOW
from framecast.runtime.motion.lattice import Lattice

GREYS = 255  # grey levels of the value range 0 to 1
COARSEST = 12  # lattice points: minimum length of the coarsest level's shorter side
CORRECTIONS = 2  # dense inverse search would need only one
TINY = 1e-12  # minimum of a determinant


class LatticeFlow(nn.Module):
    """Finds where each lattice point of a frame was in the previous frame."""

    def __init__(self, lattice: Lattice) -> None:
        super().__init__()
        width, height = lattice.coarse
        levels = max(1, (min(width, height) // COARSEST).bit_length())
        self.search = LucasKanade(height, width, levels=levels, smooth=3, select=True, halved=False)
        self.correct = Correct(lattice)
        self.limit = float(max(lattice.coarse))

    def forward(self, coarse: Tensor, fine: Tensor, coarse_before: Tensor, fine_before: Tensor) -> Tensor:
        """Return displacements [B, 2, h, w] in lattice points.

        The arguments are the brightness of both frames, [B, 1, …] each, 0 to 1.
        """
        flow: Tensor = self.search(coarse, coarse_before)
        for _ in range(CORRECTIONS):
            flow = self.correct(flow, fine, fine_before)
        return flow.clamp(-self.limit, self.limit)


class Correct(nn.Module):
    """One Lucas–Kanade step that corrects a flow with finer pictures (``Flow.corrected``)."""

    ratio: Tensor

    def __init__(self, lattice: Lattice) -> None:
        super().__init__()
        width, height = lattice.fine
        self.fine = lattice.fine
        self.pull = Pull(torch.arange(width), torch.arange(height), width, height)
        self.shrink = Shrink(lattice.fine, lattice.coarse)
        ratio = [a / b for a, b in zip(lattice.fine, lattice.coarse, strict=True)]
        self.register_buffer("ratio", torch.tensor(ratio).reshape(1, 2, 1, 1), persistent=False)

    def forward(self, flow: Tensor, now: Tensor, before: Tensor) -> Tensor:
        """Correct ``flow`` [B, 2, h, w], in lattice points.

        ``now`` and ``before`` are the brightness of both frames at the lattice's finer size, [B, 1, …] each.
        """
        moved = self.pull(before, resized(flow * self.ratio, self.fine).unsqueeze(2)).squeeze(2)
        middle, change = (now + moved) / 2, now - moved
        gx = functional.pad((middle[..., 2:] - middle[..., :-2]) / 2, (1, 1, 0, 0))  # mirrored borders have no slope
        gy = functional.pad((middle[..., 2:, :] - middle[..., :-2, :]) / 2, (0, 0, 1, 1))
        terms = torch.cat([gx * gx, gy * gy, gx * gy, gx * change, gy * change], dim=1)
        xx, yy, xy, xt, yt = mean_around(self.shrink(terms), WINDOW).chunk(5, dim=1)
        floor = FLOOR / GREYS**2
        xx, yy = xx + floor, yy + floor
        determinant = (xx * yy - xy * xy).clamp(min=TINY)
        step = torch.cat([(yy * xt - xy * yt) / determinant, (xx * yt - xy * xt) / determinant], dim=1)
        return mean_around(flow + step.clamp(-REACH, REACH) / self.ratio, SMOOTH)
