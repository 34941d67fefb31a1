"""The gates as an operator of our domain, so that an export keeps them in one piece."""

from __future__ import annotations

import torch
from torch import Tensor

from framecast.kernels.stgru_gates import reference

NAME = "framecast::stgru_gates"

_operator = torch.library.custom_op(NAME, reference.stgru_gates, mutates_args=())


@_operator.register_fake
def _(*arguments: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(arguments[6]), torch.empty_like(arguments[7])  # as t and s


def stgru_gates(
    conv_t: Tensor,
    weight_t: Tensor,
    bias_t: Tensor,
    conv_s: Tensor,
    weight_s: Tensor,
    bias_s: Tensor,
    t: Tensor,
    s: Tensor,
    *,
    forget_bias: float = 1.0,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """Gate both states: see :func:`framecast.kernels.stgru_gates.reference.stgru_gates`.

    While exporting it is the operator ``framecast::stgru_gates``; otherwise plain, differentiable torch.
    """
    call = torch.ops.framecast.stgru_gates if torch.compiler.is_exporting() else reference.stgru_gates
    new_t, new_s = call(conv_t, weight_t, bias_t, conv_s, weight_s, bias_s, t, s, forget_bias, eps)
    return new_t, new_s
