"""STAU's attention compared with its equations in float64."""

from __future__ import annotations

import math

import pytest
import torch

from framecast.kernels.stau_attention.operator import stau_attention


@pytest.mark.parametrize("shape", [(1, 4, 3, 5), (3, 7, 9, 1), (2, 64, 16, 16)])
@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("scaled", [True, False])
def test_reference(shape: tuple[int, ...], slots: int, scaled: bool) -> None:
    scale = 1 / math.sqrt(math.prod(shape[1:])) if scaled else 1.0
    keys, values = ([torch.randn(shape) for _ in range(slots)] for _ in range(2))
    query, gate, current = (torch.randn(shape) for _ in range(3))
    if not scaled:
        query /= math.sqrt(math.prod(shape[1:]))  # keeps the scores small, so that their last bits matter little
    expected = torch.empty(shape, dtype=torch.float64).fill_(torch.nan)
    for b in range(shape[0]):  # one sample and one slot at a time
        scores = [scale * float((key[b].double() * query[b].double()).sum()) for key in keys]
        shares = [math.exp(score - max(scores)) for score in scores]
        attended = sum(s / sum(shares) * value[b].double() for s, value in zip(shares, values, strict=True))
        fusion = 1 / (1 + torch.exp(-gate[b].double()))
        expected[b] = fusion * current[b] + (1 - fusion) * attended
    operator = torch.ops.framecast.stau_attention(keys, values, query, gate, current, scale)
    for actual in (stau_attention(keys, values, query, gate, current, scale=scale), operator):
        assert (actual - expected).abs().max() < 1e-5


def test_zero_slots_take_part() -> None:
    shape = (1, 2, 3, 3)
    key, value, query, current = (torch.randn(shape) for _ in range(4))
    closed = torch.full(shape, -1e4)  # closes the gate, so that only the attended value counts
    alone = stau_attention([key], [value], query, closed, current, scale=0.0)
    halved = stau_attention([key, 0 * key], [value, 0 * value], query, closed, current, scale=0.0)
    assert torch.allclose(alone, value)
    assert torch.allclose(halved, value / 2)


def test_operator_is_well_formed() -> None:
    keys, values = ([torch.randn(2, 3, 4, 4) for _ in range(3)] for _ in range(2))
    rest = [torch.randn(2, 3, 4, 4) for _ in range(3)]
    torch.library.opcheck(torch.ops.framecast.stau_attention.default, (keys, values, *rest, 0.25))
