"""STAU's attention in plain torch. Gradients come from it, and every kernel must match it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def stau_attention(
    keys: Sequence[Tensor], values: Sequence[Tensor], query: Tensor, gate: Tensor, current: Tensor, scale: float
) -> Tensor:
    """Weigh whole states by how well their keys match the query, and fuse their sum with the current state.

    ``α_j = softmax_j(scale · ⟨key_j, query⟩)``, one scalar per sample and slot, then
    ``σ(gate) ⊙ current + (1 − σ(gate)) ⊙ Σ_j α_j value_j``.

    Args:
        keys: n tensors, [B, C, H, W] each; slots of zeros count too.
        values: one for each key, [B, C, H, W].
        query: [B, C, H, W].
        gate: fusion gate before its sigmoid, [B, C, H, W].
        current: [B, C, H, W].
        scale: factor of the scores: 1/√(C·H·W) in the released code, 1 in the paper.

    Returns:
        The fused state, [B, C, H, W].

    Source: MAU, temporal attention and fusion; STAU, the same over time (TAM) and over layers (SAM).
    """
    scores = torch.stack([(key * query).sum(dim=(1, 2, 3), keepdim=True) for key in keys])  # [n, B, 1, 1, 1]
    weights = torch.softmax(scores * scale, dim=0)
    attended = (weights * torch.stack(list(values))).sum(dim=0)
    fusion = torch.sigmoid(gate)
    return fusion * current + (1 - fusion) * attended
