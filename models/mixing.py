"""How to mix guesses, in torch: the graphs' form of :mod:`framecast.runtime.motion.learn`, which says what it is for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from framecast.runtime.motion.learn import LARGEST, LEVEL, MEMORY, SHARED, STEADY

GREYS = 255  # grey levels of the value range 0 to 1
HUGE = 1e12  # in an elimination: far beyond what is exact, far from what overflows


def products(told: Tensor, rows: int, columns: int) -> Tensor:
    """Mean products of the guesses and, last, what came, with each other, for each block.

    ``told`` [B, N + 1, C, h, w] to [B, rows · columns, N + 1, N + 1]. What is left over at the right and below, where
    the blocks do not divide the picture, is left out.
    """
    count, channels, height, width = told.shape[1:]
    high, wide = height // rows, width // columns
    blocks = told[..., : high * rows, : wide * columns].reshape(-1, count, channels, rows, high, columns, wide)
    blocks = blocks.permute(0, 3, 5, 1, 2, 4, 6).reshape(-1, rows * columns, count, channels * high * wide)
    return blocks @ blocks.transpose(2, 3) / blocks.shape[-1]


def updated(statistics: Tensor, new: Tensor, counts: Tensor) -> Tensor:
    """Statistics [B, blocks, N + 1, N + 1] with the products of one more frame, of values 0 to 1.

    ``counts`` [B, 1, 1, 1] is 1, or 0 where the frame is to be left out.
    """
    missed = new[..., -1:, -1:].mean(dim=1, keepdim=True) + (LEVEL / GREYS) ** 2
    return statistics * (1 - (1 - MEMORY) * counts) + new * counts / missed


def weights(statistics: Tensor, prior: Tensor, local: Sequence[int]) -> Tensor:
    """The weights that ``statistics`` [B, blocks, N + 1, N + 1] give: [B, blocks, N], always finite.

    The guesses ``local`` have weights of their own in each block; the others one for the whole frame.
    """
    count = statistics.shape[-1] - 1
    unit = STEADY * torch.eye(count, dtype=statistics.dtype, device=statistics.device)
    whole = statistics.mean(dim=1, keepdim=True)
    frame = solved(whole[..., :-1, :], prior, unit).clamp(-LARGEST, LARGEST)  # [B, 1, N, 1]
    block = frame.expand(-1, statistics.shape[1], -1, -1)
    if local:
        wide = [i for i in range(count) if i not in local]
        part = statistics[..., list(local), :]
        matrix, told = part[..., list(local)], part[..., -1:]
        if wide:
            told = told - part[..., wide] @ frame[..., wide, :]
        held = SHARED * (whole[..., list(local), :][..., list(local)] + 4 * unit[: len(local), : len(local)])
        own = solved(torch.cat([matrix, told], dim=-1), frame[..., list(local), :], held).clamp(-LARGEST, LARGEST)
        order = [local.index(i) if i in local else len(local) + i for i in range(count)]
        block = torch.cat([own, block], dim=2)[..., order, :] if wide else own
    return block.squeeze(-1)


def solved(statistics: Tensor, prior: Tensor, firmness: Tensor) -> Tensor:
    """The weights w that minimise the mean squared error plus (w − prior)ᵀ · firmness · (w − prior).

    Gauss–Jordan elimination, written out: graphs have no operator for it; a positive definite matrix needs no pivot.

    Args:
        statistics: [..., N, N + 1]: products of the guesses with each other, and with what came.
        prior: [..., N, 1].
        firmness: [..., N, N], its eigenvalues ``STEADY`` at least.

    Returns:
        [..., N, 1].
    """
    count = statistics.shape[-2]
    matrix, told = torch.split(statistics, [count, 1], dim=-1)
    system = torch.cat([matrix + firmness, told - matrix @ prior], dim=-1)
    unit = torch.eye(count, dtype=statistics.dtype, device=statistics.device)
    for i in range(count):
        row = system[..., i : i + 1, :]
        # A pivot is the least eigenvalue of the firmness at least, and nothing grows far: but for rounding, where
        # guesses are nearly the same and what came was foreseen exactly. Then too it must be a number.
        row = row / row[..., i : i + 1].clamp(min=STEADY)
        system = (system - (system[..., i : i + 1] - unit[:, i : i + 1]) * row).clamp(-HUGE, HUGE)
    return prior + system[..., count:]
