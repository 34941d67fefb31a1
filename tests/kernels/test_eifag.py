"""EIFAG compared with equations 7 and 8 in float64, over a history that grows step by step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from framecast.kernels.eifag.operator import eifag


def equations(history: list[Tensor], input: Tensor, forget: Tensor, candidate: Tensor, bias: float) -> Tensor:
    """``history`` contains only the initial zero cell and the written cells."""

    def sigmoid(x: Tensor) -> Tensor:
        return 1 / (1 + torch.exp(-x))

    gate = sigmoid(forget + bias)
    exponentials = [torch.exp(cell * gate) for cell in history]
    total = sum(exponentials)
    gathered = sum(e / total * cell for e, cell in zip(exponentials, history, strict=True))
    return sigmoid(input) * torch.tanh(candidate) + gate * gathered


@pytest.mark.parametrize("shape", [(1, 4, 3, 5), (3, 7, 9, 1), (2, 128, 16, 16)])
@pytest.mark.parametrize("tau", [1, 2, 5])
@pytest.mark.parametrize("forget_bias", [0.0, 1.0])
def test_reference_over_a_growing_history(shape: tuple[int, ...], tau: int, forget_bias: float) -> None:
    cells = [torch.zeros(shape)] * tau  # a ring of fixed length, nothing written yet
    written = [torch.zeros(shape, dtype=torch.float64)]
    for step in range(tau + 3):
        i, f, g = (3 * torch.randn(shape) for _ in range(3))
        count = torch.full((shape[0], 1, 1, 1), float(min(step, tau)))
        expected = equations(written[:tau], i.double(), f.double(), g.double(), forget_bias)
        operator = torch.ops.framecast.eifag(cells, count, i, f, g, forget_bias)
        for actual in (eifag(cells, count, i, f, g, forget_bias=forget_bias), operator):
            assert (actual - expected).abs().max() < 1e-5
        cells = [operator, *cells[:-1]]
        written = [operator.double(), *written]


def test_unwritten_slots_are_ignored_whatever_they_hold() -> None:
    shape = (2, 3, 4, 5)
    cells = [torch.randn(shape) for _ in range(4)]
    gates = [torch.randn(shape) for _ in range(3)]
    count = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)  # each sample has its own age
    mixed = eifag(cells, count, *gates)
    assert torch.allclose(mixed[:1], eifag([c[:1] for c in cells[:2]], count[:1], *(g[:1] for g in gates)), atol=1e-6)
    assert torch.allclose(mixed[1:], eifag([c[1:] for c in cells], count[1:], *(g[1:] for g in gates)), atol=1e-6)
    assert not torch.allclose(mixed[:1], eifag([c[:1] for c in cells], 4 + count[:1], *(g[:1] for g in gates)))


def test_large_scores_do_not_overflow() -> None:
    cells = [1e3 * torch.randn(1, 2, 3, 3) for _ in range(5)]
    gates = [torch.randn(1, 2, 3, 3) for _ in range(3)]
    assert eifag(cells, torch.full((1, 1, 1, 1), 5.0), *gates).isfinite().all()


def test_operator_is_well_formed() -> None:
    cells = [torch.randn(2, 3, 4, 4) for _ in range(3)]
    gates = [torch.randn(2, 3, 4, 4) for _ in range(3)]
    torch.library.opcheck(torch.ops.framecast.eifag.default, (cells, torch.ones(2, 1, 1, 1), *gates, 1.0))
