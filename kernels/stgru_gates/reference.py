"""STGRU gates in plain torch. Gradients come from it, and every kernel must match it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def stgru_gates(
    conv_t: Tensor,
    weight_t: Tensor,
    bias_t: Tensor,
    conv_s: Tensor,
    weight_s: Tensor,
    bias_s: Tensor,
    t: Tensor,
    s: Tensor,
    forget_bias: float,
    eps: float,
    added_t: Tensor | None = None,
    added_s: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Normalise the outputs of both convolutions, and gate the two states with them.

    Args:
        conv_t: raw convolution of the temporal state, [B, 4C, H, W]: gates z, r and candidates t, s.
        weight_t: weight of its layer norm, [4C, H, W].
        bias_t: bias of its layer norm, [4C, H, W].
        conv_s: raw convolution of the spatial state, [B, 4C, H, W].
        weight_s: weight of its layer norm, [4C, H, W].
        bias_s: bias of its layer norm, [4C, H, W].
        t: temporal state, [B, C, H, W].
        s: spatial state, [B, C, H, W].
        forget_bias: added to the update gate; 1.0 in the released code, absent from the paper.
        eps: epsilon of the layer norms.
        added_t: bias of the temporal convolution, [4C], if ``conv_t`` does not include it.
        added_s: bias of the spatial convolution, [4C], if ``conv_s`` does not include it.

    Returns:
        The new temporal and spatial state, [B, C, H, W] each.

    Source: STIP, STGRU. The order of the gates and the forget bias follow the authors' code.
    """
    if added_t is not None and added_s is not None:
        conv_t, conv_s = conv_t + added_t[:, None, None], conv_s + added_s[:, None, None]
    conv_t, conv_s = (x.to(torch.promote_types(x.dtype, weight_t.dtype)) for x in (conv_t, conv_s))  # widen halves
    z_t, r_t, t_t, s_t = functional.layer_norm(conv_t, weight_t.shape, weight_t, bias_t, eps).chunk(4, dim=1)
    z_s, r_s, t_s, s_s = functional.layer_norm(conv_s, weight_s.shape, weight_s, bias_s, eps).chunk(4, dim=1)
    update = torch.sigmoid(z_t + z_s + forget_bias)
    reset = torch.sigmoid(r_t + r_s)
    t_candidate = torch.tanh(t_t + reset * t_s)
    s_candidate = torch.tanh(s_s + reset * s_t)
    return (1 - update) * t_candidate + update * t, (1 - update) * s_candidate + update * s
