"""The attention as an operator of our domain, so that an export keeps it in one piece."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from framecast.kernels.stau_attention import reference

NAME = "framecast::stau_attention"

_operator = torch.library.custom_op(NAME, reference.stau_attention, mutates_args=())


@_operator.register_fake
def _(keys: Sequence[Tensor], values: Sequence[Tensor], query: Tensor, *rest: Tensor | float) -> Tensor:
    return torch.empty_like(query)


def stau_attention(
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    query: Tensor,
    gate: Tensor,
    current: Tensor,
    *,
    scale: float,
) -> Tensor:
    """Attend and fuse: see :func:`framecast.kernels.stau_attention.reference.stau_attention`.

    While exporting it is the operator ``framecast::stau_attention``; otherwise plain, differentiable torch.
    """
    call = torch.ops.framecast.stau_attention if torch.compiler.is_exporting() else reference.stau_attention
    fused: Tensor = call(list(keys), list(values), query, gate, current, scale)
    return fused
