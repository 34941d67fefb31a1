"""How to mix guesses, in torch: the graphs' form of :mod:`framecast.runtime.motion.learn`, which says what for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from framecast.runtime.motion.learn import LARGEST, LEVEL, MEMORY, SHARED, STEADY

GREYS = 255  # grey levels of the value range 0 to 1
HUGE = 1e12  # in an elimination: far beyond what is exact, far from what overflows


def products(told: Tensor, rows: int, columns: int) -> Tensor:
    """Mean products of the guesses and, last, what came, with each other, for each block.

    ``told`` [B, n, N + 1, C, h, w], for n horizons, to [B, n, rows · columns, N + 1, N + 1]. What is left over at the
    right and below, where the blocks do not divide the picture, is left out.
    """
    horizons, count, channels, height, width = told.shape[1:]
    high, wide = height // rows, width // columns
    blocks = told[..., : high * rows, : wide * columns].reshape(-1, count, channels, rows, high, columns, wide)
    blocks = blocks.permute(0, 3, 5, 1, 2, 4, 6).reshape(-1, horizons, rows * columns, count, channels * high * wide)
    return blocks @ blocks.transpose(-1, -2) / blocks.shape[-1]


def updated(statistics: Tensor, new: Tensor, counts: Tensor) -> Tensor:
    """Statistics [B, n, blocks, N + 1, N + 1] with the products of one more frame, of values 0 to 1.

    ``counts`` [B, n, 1, 1, 1] is 1, or 0 where the frame is to be left out.
    """
    missed = new[..., -1:, -1:].mean(dim=-3, keepdim=True) + (LEVEL / GREYS) ** 2
    return statistics * (1 - (1 - MEMORY) * counts) + new * counts / missed


def weights(statistics: Tensor, prior: Tensor, local: Sequence[int]) -> Tensor:
    """The weights that ``statistics`` [..., blocks, N + 1, N + 1] give: [..., blocks, N], always finite.

    The guesses ``local`` have weights of their own in each block; the others one for the whole frame.
    """
    count = statistics.shape[-1] - 1
    unit = STEADY * torch.eye(count, dtype=statistics.dtype, device=statistics.device)
    whole = statistics.mean(dim=-3, keepdim=True)
    frame = solved(whole[..., :-1, :], prior, unit).clamp(-LARGEST, LARGEST)  # [..., 1, N, 1]
    if not local:
        return frame.squeeze(-1).expand(*statistics.shape[:-2], count)
    own = [_picked(x, local) for x in (statistics, whole, frame)]
    told, matrix = own[0][..., -1:], _picked(own[0].transpose(-1, -2), local).transpose(-1, -2)
    wide = [i for i in range(count) if i not in local]
    if wide:
        told = told - _picked(own[0].transpose(-1, -2), wide).transpose(-1, -2) @ _picked(frame, wide)
    held = SHARED * (_picked(own[1].transpose(-1, -2), local) + 4 * unit[: len(local), : len(local)])
    block = solved(torch.cat([matrix, told], dim=-1), own[2], held).clamp(-LARGEST, LARGEST)
    if wide:
        others = _picked(frame, wide).expand(*block.shape[:-2], len(wide), 1)
        order = [*local, *wide]
        block = _picked(torch.cat([block, others], dim=-2), [order.index(i) for i in range(count)])
    return block.squeeze(-1)


def _picked(x: Tensor, rows: Sequence[int]) -> Tensor:
    """Some rows of [..., rows, columns]."""
    if list(rows) == list(range(len(rows))):
        return x[..., : len(rows), :]
    return torch.cat([x[..., i : i + 1, :] for i in rows], dim=-2)


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
