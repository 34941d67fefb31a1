"""How to mix guesses: least squares over the frames that have come, older ones counting less.

Recursive least squares with exponential forgetting (Haykin, Adaptive Filter Theory, chapter 10), kept as sums of
products and solved anew, for the whole frame and then for each block of it: the frame's weights are held to a prior,
the blocks' to the frame's. Guesses are given as differences to the first one, constant velocity, so the weights
need no constraint.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from framecast.runtime.motion.lattice import Floats

MEMORY = 0.93  # how much of the statistics is kept from one frame to the next
LEVEL = 1.0  # grey level
STEADY = 0.01  # energy of a difference between guesses, as a share of the miss, too small to tell them apart
SHARED = 0.3  # how firmly a block is held to the weights of the whole frame
LARGEST = 8.0  # weight: rounding may give larger ones where guesses are nearly the same


def products(told: Floats, rows: int, columns: int) -> Floats:
    """Mean products of the guesses and, last, what came, with each other, for each block.

    ``told`` [N + 1, h, w, C], differences to the first guess; [rows · columns, N + 1, N + 1]. What is left over at
    the right and below, where the blocks do not divide the picture, is left out.
    """
    count, height, width, channels = told.shape
    high, wide = height // rows, width // columns
    blocks = told[:, : high * rows, : wide * columns].reshape(count, rows, high, columns, wide * channels)
    blocks = np.ascontiguousarray(blocks.transpose(1, 3, 0, 2, 4)).reshape(rows * columns, count, -1)
    summed: Floats = np.matmul(blocks, blocks.transpose(0, 2, 1))
    summed /= np.float32(blocks.shape[2])
    return summed


def updated(statistics: Floats | None, new: Floats, share: float = 1.0) -> Floats:
    """Statistics [blocks, N + 1, N + 1] with the products of one more frame, which counts by ``share`` (0 to 1).

    A frame is divided by how badly it could be foreseen, as in the PSNR: one cut does not drown what came before.
    """
    scaled: Floats = new * np.float32(share / (float(new[:, -1, -1].mean()) + LEVEL**2))
    if statistics is not None:
        scaled += statistics * np.float32(MEMORY**share)
    return scaled


def weights(statistics: Floats, prior: Floats, local: Sequence[int]) -> Floats:
    """The weights [blocks, N] that ``statistics`` [blocks, N + 1, N + 1] give: always finite, ``LARGEST`` at most.

    The ``local`` guesses have weights of their own in each block; the others one for the whole frame.
    """
    unit = np.float32(STEADY) * np.eye(len(prior), dtype=np.float32)
    whole = statistics.mean(axis=0)
    frame = np.clip(solved(whole, prior, unit), -LARGEST, LARGEST)
    found = np.tile(frame, (len(statistics), 1))
    if len(local):
        wide = [i for i in range(len(prior)) if i not in local]
        part = statistics[:, [*local, -1]][:, :, [*local, -1]]
        part[:, :-1, -1] -= statistics[:, local][:, :, wide] @ frame[wide]
        held = np.float32(SHARED) * (whole[local][:, local] + 4 * unit[: len(local), : len(local)])
        found[:, local] = np.clip(solved(part, frame[local], held), -LARGEST, LARGEST)
    return found


def solved(statistics: Floats, prior: Floats, firmness: Floats) -> Floats:
    """The w [..., N] that minimise the mean squared miss plus (w − prior)ᵀ · firmness · (w − prior).

    Args:
        statistics: [..., N + 1, N + 1].
        prior: [N].
        firmness: [N, N], positive definite.
    """
    exact = statistics.astype(np.float64)  # huge products would swallow the firmness in float32: the system is singular
    matrix, told = exact[..., :-1, :-1], exact[..., :-1, -1]
    right = (told - matrix @ prior)[..., None]
    try:
        found = prior + np.linalg.solve(matrix + firmness, right)[..., 0]
    except np.linalg.LinAlgError:  # guesses that cannot be told apart, in spite of it
        found = np.broadcast_to(prior, told.shape)
    return np.nan_to_num(found).astype(np.float32)


def earned(statistics: Floats, prior: Floats) -> tuple[float, Floats]:
    """What guesses are worth to the whole frame's mixture, as the ``statistics`` [blocks, N + 1, N + 1] say, in dB.

    Returns:
        What all together gain on constant velocity alone; and for each guess [N, 2], what it would gain alone, and
        what would be lost without it.
    """
    whole = statistics.mean(axis=0)
    count = len(prior)
    unit = np.float32(STEADY) * np.eye(count, dtype=np.float32)

    def miss(kept: list[int]) -> float:
        part = whole[np.ix_([*kept, count], [*kept, count])]
        w = np.append(solved(part, prior[kept], unit[: len(kept), : len(kept)]), -1.0).astype(np.float64)
        return max(float(w @ part @ w), 1e-12)

    every = list(range(count))
    none, best = miss([]), miss(every)
    gains = [(none / miss([j]), miss([i for i in every if i != j]) / best) for j in every]
    return float(10 * np.log10(none / best)), (10 * np.log10(gains)).astype(np.float32)
