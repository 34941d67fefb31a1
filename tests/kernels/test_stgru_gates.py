"""The STGRU gates compared with their equations in float64."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from framecast.kernels.stgru_gates.operator import stgru_gates


def equations(tensors: Sequence[Tensor], forget_bias: float, eps: float) -> tuple[Tensor, Tensor]:
    conv_t, weight_t, bias_t, conv_s, weight_s, bias_s, t, s = tensors

    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        flat = x.flatten(1)
        mean, variance = flat.mean(1), flat.var(1, unbiased=False)
        return (x - mean[:, None, None, None]) / (variance + eps).sqrt()[:, None, None, None] * weight + bias

    def sigmoid(x: Tensor) -> Tensor:
        return 1 / (1 + torch.exp(-x))

    c = t.shape[1]
    a, b = norm(conv_t, weight_t, bias_t), norm(conv_s, weight_s, bias_s)
    z = sigmoid(a[:, :c] + b[:, :c] + forget_bias)
    r = sigmoid(a[:, c : 2 * c] + b[:, c : 2 * c])
    t_new = torch.tanh(a[:, 2 * c : 3 * c] + r * b[:, 2 * c : 3 * c])
    s_new = torch.tanh(b[:, 3 * c :] + r * a[:, 3 * c :])
    return (1 - z) * t_new + z * t, (1 - z) * s_new + z * s


@pytest.mark.parametrize("shape", [(1, 4, 3, 5), (3, 7, 9, 1), (2, 64, 12, 16)])
@pytest.mark.parametrize("forget_bias", [0.0, 1.0])
def test_reference(shape: tuple[int, int, int, int], forget_bias: float) -> None:
    b, c, h, w = shape
    conv = [torch.randn(b, 4 * c, h, w) for _ in range(2)]
    affine = [torch.randn(4 * c, h, w) for _ in range(4)]
    states = [torch.randn(b, c, h, w) for _ in range(2)]
    args = (conv[0], affine[0], affine[1], conv[1], affine[2], affine[3], *states)
    expected = equations([x.double() for x in args], forget_bias, 1e-5)
    for actual in (
        stgru_gates(*args, forget_bias=forget_bias),
        torch.ops.framecast.stgru_gates(*args, forget_bias, 1e-5),
    ):
        for x, y in zip(actual, expected, strict=True):
            assert (x - y).abs().max() < 1e-5


def test_operator_is_well_formed() -> None:
    args = [torch.randn(2, 8, 3, 3), torch.randn(8, 3, 3), torch.randn(8, 3, 3)] * 2 + [torch.randn(2, 2, 3, 3)] * 2
    torch.library.opcheck(torch.ops.framecast.stgru_gates.default, (*args, 1.0, 1e-5))
