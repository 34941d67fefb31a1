"""The attention as an operator of our domain, so that exporters and compilers do not take it apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from framecast.kernels import switch
from framecast.kernels.define import define
from framecast.kernels.stau_attention import reference

NAME = "framecast::stau_attention"


def _kernel() -> Callable[..., Any]:
    from framecast.kernels.stau_attention import kernel

    return kernel.stau_attention


define(NAME, reference.stau_attention, _kernel, like=lambda arguments: arguments[4])  # the current state


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

    In an export, and where a kernel can run (``framecast.kernels.switch``), this calls the operator
    ``framecast::stau_attention``; otherwise plain torch. Both are differentiable.
    """
    call = torch.ops.framecast.stau_attention if switch.one_operator(current) else reference.stau_attention
    fused: Tensor = call(list(keys), list(values), query, gate, current, scale)
    return fused
