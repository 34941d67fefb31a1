"""How to mix guesses: least squares over the frames so far, with older frames counting less.

Recursive least squares with exponential forgetting (Haykin, Adaptive Filter Theory, chapter 10). It keeps sums of
products, and solves for the weights each time: first those of the whole frame, regularised towards a prior, then those
of each block, regularised towards the frame's. Guesses are differences from the first one, constant velocity, so the
weights need no constraint.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from framecast.runtime.motion.lattice import Floats

MEMORY = 0.93  # how much of the statistics is kept from one frame to the next
LEVEL = 1.0  # grey level, added to a frame's error
STEADY = 0.01  # regularisation: a difference between guesses hardly counts below this share of the error's energy
SHARED = 0.3  # how strongly a block is regularised towards the weights of the whole frame
LARGEST = 8.0  # weight: rounding may give larger ones if guesses are nearly equal


def products(values: Floats, rows: int, columns: int) -> Floats:
    """For each block, the mean products of all pairs of guesses; the truth counts as the last guess.

    Args:
        values: the guesses and the truth, as differences from the first guess: [N + 1, h, w, C].
        rows: the number of rows of blocks.
        columns: the number of columns of blocks. Pixels at the right and the bottom that fill no block are left out.

    Returns:
        [rows · columns, N + 1, N + 1].
    """
    count, height, width, channels = values.shape
    high, wide = height // rows, width // columns
    blocks = values[:, : high * rows, : wide * columns].reshape(count, rows, high, columns, wide * channels)
    blocks = np.ascontiguousarray(blocks.transpose(1, 3, 0, 2, 4)).reshape(rows * columns, count, -1)
    summed: Floats = np.matmul(blocks, blocks.transpose(0, 2, 1))
    summed /= np.float32(blocks.shape[2])
    return summed


def updated(statistics: Floats | None, new: Floats, share: float = 1.0) -> Floats:
    """Statistics [blocks, N + 1, N + 1] with the products of one more frame, which has the weight ``share`` (0 to 1).

    A frame's products are divided by its error, as in the PSNR, so that one cut does not outweigh all earlier frames.
    """
    scaled: Floats = new * np.float32(share / (float(new[:, -1, -1].mean()) + LEVEL**2))
    if statistics is not None:
        scaled += statistics * np.float32(MEMORY**share)
    return scaled


def weights(statistics: Floats, prior: Floats, local: Sequence[int]) -> Floats:
    """Solve ``statistics`` [blocks, N + 1, N + 1] for the weights [blocks, N]: always finite, ``LARGEST`` at most.

    The ``local`` guesses have their own weights in each block. The others have one weight for the whole frame.
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
    """The w [..., N] that minimise the mean squared error plus (w − prior)ᵀ · firmness · (w − prior).

    Args:
        statistics: [..., N + 1, N + 1].
        prior: [N].
        firmness: [N, N], positive definite.
    """
    # In float32, huge products would absorb the firmness, and the system would be singular.
    exact = statistics.astype(np.float64)
    matrix, target = exact[..., :-1, :-1], exact[..., :-1, -1]
    right = (target - matrix @ prior)[..., None]
    try:
        found = prior + np.linalg.solve(matrix + firmness, right)[..., 0]
    except np.linalg.LinAlgError:  # the guesses are too similar to tell apart
        found = np.broadcast_to(prior, target.shape)
    return np.nan_to_num(found).astype(np.float32)


def earned(statistics: Floats, prior: Floats) -> tuple[float, Floats]:
    """Each guess's contribution to the whole frame's mixture in dB, from ``statistics`` [blocks, N + 1, N + 1].

    Returns:
        The gain of all guesses together over constant velocity; and [N, 2], each guess's gain on its own, and the loss
        if it is left out.
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
