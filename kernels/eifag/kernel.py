"""EIFAG (ASTM, equations 7 and 8) in Triton: one elementwise pass over the last cells.

``T = Σ_i softmax_i(C_i ⊙ F) ⊙ C_i`` over the cells written so far, and ``C = I ⊙ G + F ⊙ T``. The softmax is online:
each cell updates the maximum and the sum so far, so no cell is read twice. The arithmetic is float32. For each element
the pass reads up to τ cells (only those written so far) and 3 gates, and writes 1 value.

Sources: ASTM; Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import triton
import triton.language as tl

from framecast.kernels.launch import Launch, launch_arguments, pointwise, tanh

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit  # type: ignore[untyped-decorator]
def eifag_kernel(
    cells: tl.tuple,  # of pointers, newest first
    count: tl.tensor,
    input: tl.tensor,
    forget: tl.tensor,
    candidate: tl.tensor,
    new: tl.tensor,
    size: tl.constexpr,
    forget_bias: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Gather the cells and write the new one."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    sample = tl.program_id(1).to(tl.int64)
    here = at < size
    at = sample * size + at
    steps = tl.broadcast_to(tl.load(count + sample).to(tl.float32), (block,))
    gate = tl.sigmoid(tl.load(forget + at, here, 0.0).to(tl.float32) + forget_bias)
    gathered = tl.load(cells[0] + at, here, 0.0).to(tl.float32)
    highest = gathered * gate
    total = tl.full((block,), 1.0, tl.float32)
    for i in tl.static_range(1, len(cells)):
        written = steps >= i
        cell = tl.load(cells[i] + at, here & written, 0.0).to(tl.float32)
        score = tl.where(written, cell * gate, float("-inf"))
        before, highest = highest, tl.maximum(highest, score)
        correction = tl.exp(before - highest)
        weight = tl.exp(score - highest)
        total = total * correction + weight
        gathered = gathered * correction + weight * cell
    kept = tl.sigmoid(tl.load(input + at, here, 0.0).to(tl.float32))
    made = tanh(tl.load(candidate + at, here, 0.0).to(tl.float32))
    tl.store(new + at, kept * made + gate * gathered / total, here)


@functools.lru_cache(maxsize=256)
def launch(batch: int, shape: tuple[int, ...], forget_bias: float) -> Launch:
    """The pass for cells [B, C, H, W] with ``shape`` (C, H, W)."""
    size = math.prod(shape)
    plan = pointwise(size, batch)
    constants = {"size": size, "forget_bias": forget_bias, "block": plan.block}
    return Launch(eifag_kernel, (plan.programs, batch), plan.warps, constants)


def eifag(
    cells: Sequence[Tensor], count: Tensor, input: Tensor, forget: Tensor, candidate: Tensor, forget_bias: float
) -> Tensor:
    """Compute :func:`framecast.kernels.eifag.reference.eifag`. The new cell has the type of the newest one.

    Raises:
        OptionError: shapes or types that the kernel does not take.
    """
    shape = cells[0].shape
    gates = [(tensor, shape) for tensor in (input, forget, candidate)]
    tensors = launch_arguments(cells[0], [*((cell, shape) for cell in cells), (count, (shape[0], 1, 1, 1)), *gates])
    new = cells[0].new_empty(shape)
    launch(shape[0], tuple(shape[1:]), forget_bias)(tensors[: len(cells)], *tensors[len(cells) :], new)
    return new


def traffic(batch: int, shape: tuple[int, ...], slots: int, itemsize: int) -> int:
    """Minimum memory traffic in bytes if every cell is written: reading each input once, and writing the output once.

    Args:
        batch: number of samples.
        shape: (C, H, W) of a cell.
        slots: τ.
        itemsize: bytes per element.
    """
    return batch * math.prod(shape) * (slots + 4) * itemsize
