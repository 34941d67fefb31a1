"""Motion between two frames changes at the borders of objects."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from framecast.models.motion import LucasKanade


def scene(height: int, width: int) -> Tensor:
    """A smooth picture [1, 3, height, width]."""
    coarse = torch.rand(1, 3, height // 8, width // 8)
    return functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False).clamp(0, 1)


@torch.inference_mode()
def test_selection_sharpens_the_borders_of_motion() -> None:
    """Two halves slide past each other. Near the border, each pixel should have the motion of one of them."""
    height, width = 96, 128
    left, right = scene(height + 8, width), scene(height + 8, width)

    def view(shift: int) -> Tensor:
        up, down = left[..., 4 + shift : 4 + shift + height, :], right[..., 4 - shift : 4 - shift + height, :]
        return torch.cat([up[..., : width // 2], down[..., width // 2 :]], dim=-1)

    truth = torch.ones(1, 1, height // 2, width // 2)
    truth[..., width // 4 :] = -1
    errors = []
    for select in (False, True):
        flow = LucasKanade(height, width, smooth=3 if select else 7, select=select)(view(1), view(0))
        near = (flow[:, 1:] - truth)[..., 8:-8, width // 4 - 6 : width // 4 + 6]
        errors.append(float(near.abs().mean()))
    assert errors[1] < 0.8 * errors[0]
