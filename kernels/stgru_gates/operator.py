"""The gates as an operator of our domain, so that exporters and compilers do not take them apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from framecast.errors import OptionError
from framecast.kernels import switch
from framecast.kernels.define import define
from framecast.kernels.stgru_gates import reference

NAME = "framecast::stgru_gates"


def _kernel() -> Callable[..., Any]:
    from framecast.kernels.stgru_gates import kernel

    return kernel.stgru_gates


define(NAME, reference.stgru_gates, _kernel, like=lambda arguments: arguments[6:8], channels_last=True)  # both states


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
    added_t: Tensor | None = None,
    added_s: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gate both states: see :func:`framecast.kernels.stgru_gates.reference.stgru_gates`.

    In an export, and where a kernel can run (``framecast.kernels.switch``), this calls the operator
    ``framecast::stgru_gates``; otherwise plain torch. Both are differentiable.

    Raises:
        OptionError: only one of the convolutions' biases is given.
    """
    if (added_t is None) != (added_s is None):
        raise OptionError("the gates add the biases of both convolutions or of neither: give both added_t and added_s")
    call = torch.ops.framecast.stgru_gates if switch.one_operator(t) else reference.stgru_gates
    added = () if added_t is None else (added_t, added_s)  # exported graphs have no such inputs
    new_t, new_s = call(conv_t, weight_t, bias_t, conv_s, weight_s, bias_s, t, s, forget_bias, eps, *added)
    return new_t, new_s
