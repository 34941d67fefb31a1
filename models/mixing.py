"""Mixes guesses with torch, for graphs. :mod:`framecast.runtime.motion.learn` explains the method."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from framecast.runtime.motion.learn import LARGEST, LEVEL, MEMORY, SHARED, STEADY

GREYS = 255  # grey levels of the value range 0 to 1
HUGE = 1e12  # bound on values in an elimination: far above any exact value, far below overflow


def products(told: Tensor, rows: int, columns: int) -> Tensor:
    """Return the mean products of all pairs of guesses and ground truth, for each block.

    ``told`` is [B, n, N + 1, C, h, w] for n horizons, with the ground truth last. The result is
    [B, n, rows · columns, N + 1, N + 1]. If the blocks do not divide the picture, the rest at the right and at the
    bottom is left out.
    """
    horizons, count, channels, height, width = told.shape[1:]
    high, wide = height // rows, width // columns
    blocks = told[..., : high * rows, : wide * columns].reshape(-1, count, channels, rows, high, columns, wide)
    blocks = blocks.permute(0, 3, 5, 1, 2, 4, 6).reshape(-1, horizons, rows * columns, count, channels * high * wide)
    return blocks @ blocks.transpose(-1, -2) / blocks.shape[-1]


def updated(statistics: Tensor, new: Tensor, counts: Tensor) -> Tensor:
    """Add the products of one more frame, from values of 0 to 1, to statistics [B, n, blocks, N + 1, N + 1].

    ``counts`` [B, n, 1, 1, 1] is 1, or 0 to leave the frame out.
    """
    missed = new[..., -1:, -1:].mean(dim=-3, keepdim=True) + (LEVEL / GREYS) ** 2
    return statistics * (1 - (1 - MEMORY) * counts) + new * counts / missed


def weights(statistics: Tensor, prior: Tensor, local: Sequence[int]) -> Tensor:
    """Compute weights [..., blocks, N] from ``statistics`` [..., blocks, N + 1, N + 1]. They are always finite.

    The ``local`` guesses have one weight per block, the others one for the whole frame.
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
    """Select rows of [..., rows, columns]."""
    if list(rows) == list(range(len(rows))):
        return x[..., : len(rows), :]
    return torch.cat([x[..., i : i + 1, :] for i in rows], dim=-2)


def solved(statistics: Tensor, prior: Tensor, firmness: Tensor) -> Tensor:
    """Return the weights w that minimise the mean squared error plus (w − prior)ᵀ · firmness · (w − prior).

    Graphs have no operator for this, so it is Gauss–Jordan elimination, written out. The matrix is positive definite,
    so the elimination needs no pivoting.

    Args:
        statistics: products of the guesses with each other and with the ground truth, [..., N, N + 1].
        prior: [..., N, 1].
        firmness: [..., N, N], with eigenvalues of at least ``STEADY``.

    Returns:
        [..., N, 1].
    """
    count = statistics.shape[-2]
    matrix, told = torch.split(statistics, [count, 1], dim=-1)
    system = torch.cat([matrix + firmness, told - matrix @ prior], dim=-1)
    unit = torch.eye(count, dtype=statistics.dtype, device=statistics.device)
    for i in range(count):
        row = system[..., i : i + 1, :]
        # In exact arithmetic, a pivot is at least the smallest eigenvalue of the firmness. Rounding may make it smaller
        # if guesses are nearly equal and the truth was predicted exactly. The clamps keep the result finite even then.
        row = row / row[..., i : i + 1].clamp(min=STEADY)
        system = (system - (system[..., i : i + 1] - unit[:, i : i + 1]) * row).clamp(-HUGE, HUGE)
    return prior + system[..., count:]
