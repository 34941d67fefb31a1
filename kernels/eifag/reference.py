"""EIFAG in plain torch. Gradients come from it, and every kernel must match it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def eifag(
    cells: Sequence[Tensor], count: Tensor, input: Tensor, forget: Tensor, candidate: Tensor, forget_bias: float
) -> Tensor:
    """Gather the past cells that the forget gate agrees with, and write the new one.

    The softmax runs over the cells, separately for each element and unscaled:
    ``T = Σ_i softmax_i(C_i ⊙ F) ⊙ C_i`` and ``C = I ⊙ G + F ⊙ T``.

    Args:
        cells: the last τ cells, newest first, [B, C, H, W] each; all zero before the first frame.
        count: steps since the reset, [B, 1, 1, 1], as a float. The history starts with one zero cell, so
            ``cells[i]`` is used from step i on.
        input: input gate I before its sigmoid, [B, C, H, W].
        forget: forget gate F before its bias and sigmoid, [B, C, H, W].
        candidate: G before its tanh, [B, C, H, W].
        forget_bias: added to the forget gate.

    Returns:
        The new cell, [B, C, H, W].

    Source: ASTM, equations 7 and 8.
    """
    gate = torch.sigmoid(forget + forget_bias)
    scores = torch.stack([torch.where(count < i, -torch.inf, cell * gate) for i, cell in enumerate(cells)])
    gathered = (torch.softmax(scores, dim=0) * torch.stack(list(cells))).sum(dim=0)
    return torch.sigmoid(input) * torch.tanh(candidate) + gate * gathered
