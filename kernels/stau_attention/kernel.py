"""STAU's attention with its fusion gate, in Triton: one pass for the scores, one for the weighted sum and the gate.

``α_j = softmax_j(scale · ⟨key_j, query⟩)`` over all of [C, H, W], then
``σ(gate) ⊙ current + (1 − σ(gate)) ⊙ Σ_j α_j value_j``. The first pass writes one partial score per slot and program.
In the second pass every program adds them up, and computes the softmax online with the values, as in EIFAG. The
arithmetic is float32. For each element the first pass reads n keys and the query; the second reads n values, the gate
and the current state, and writes 1 value.

Sources: Chang et al., "MAU", 2021, and "STAU", 2022.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import triton
import triton.language as tl

from framecast.errors import OptionError
from framecast.kernels.launch import Launch, launch_arguments, pointwise, reduction

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit  # type: ignore[untyped-decorator]
def scores_kernel(
    keys: tl.tuple,  # of pointers
    query: tl.tensor,
    partials: tl.tensor,  # [B, n, programs], float32
    size: tl.constexpr,
    programs: tl.constexpr,
    tiles: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Partial dot products of the query and every key."""
    program = tl.program_id(0)
    sample = tl.program_id(1).to(tl.int64)
    products: tl.tuple = ()
    for _ in tl.static_range(len(keys)):
        products = products + (tl.zeros((block,), tl.float32),)  # noqa: RUF005 (the form that Triton compiles)
    for tile in range(tiles):
        at = (program * tiles + tile) * block + tl.arange(0, block)
        here = at < size
        at = sample * size + at
        asked = tl.load(query + at, here, 0.0).to(tl.float32)
        added: tl.tuple = ()
        for j in tl.static_range(len(keys)):
            key = tl.load(keys[j] + at, here, 0.0).to(tl.float32)
            added = added + (products[j] + asked * key,)  # noqa: RUF005
        products = added
    partials += sample * (programs * len(keys)) + program
    for j in tl.static_range(len(keys)):
        tl.store(partials + j * programs, tl.sum(products[j]))


@triton.jit  # type: ignore[untyped-decorator]
def fuse_kernel(
    values: tl.tuple,  # of pointers
    gate: tl.tensor,
    current: tl.tensor,
    partials: tl.tensor,
    fused: tl.tensor,
    size: tl.constexpr,
    programs: tl.constexpr,  # of the first pass
    slots: tl.constexpr,  # programs, rounded up to a power of two
    scale: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Softmax of the scores, weighted sum of the values, and fusion gate."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    sample = tl.program_id(1).to(tl.int64)
    here = at < size
    at = sample * size + at
    partials += sample * (programs * len(values))
    program = tl.arange(0, slots)
    scores: tl.tuple = ()
    states: tl.tuple = ()
    for j in tl.static_range(len(values)):  # issue every load before the first reduction waits
        scores = scores + (tl.load(partials + j * programs + program, program < programs, 0.0),)  # noqa: RUF005
        states = states + (tl.load(values[j] + at, here, 0.0).to(tl.float32),)  # noqa: RUF005
    fusion = tl.sigmoid(tl.load(gate + at, here, 0.0).to(tl.float32))
    now = tl.load(current + at, here, 0.0).to(tl.float32)
    highest = tl.sum(scores[0]) * scale
    attended = states[0]
    total = tl.exp(highest - highest)
    for j in tl.static_range(1, len(values)):
        score = tl.sum(scores[j]) * scale
        before, highest = highest, tl.maximum(highest, score)
        correction = tl.exp(before - highest)
        weight = tl.exp(score - highest)
        total = total * correction + weight
        attended = attended * correction + weight * states[j]
    tl.store(fused + at, fusion * now + (1 - fusion) * (attended / total), here)


def workspace(batch: int, shape: tuple[int, ...], slots: int) -> tuple[int, int, int]:
    """Shape of the float32 partial scores between the passes, for states [B, C, H, W] with ``shape`` (C, H, W)."""
    return batch, slots, reduction(math.prod(shape), batch).programs


@functools.lru_cache(maxsize=256)
def launches(batch: int, shape: tuple[int, ...], scale: float) -> tuple[Launch, Launch]:
    """The launches of both passes, for states [B, C, H, W] with ``shape`` (C, H, W)."""
    size = math.prod(shape)
    first, second = reduction(size, batch), pointwise(size, batch)
    scored = {"size": size, "programs": first.programs, "tiles": first.tiles, "block": first.block}
    slots = triton.next_power_of_2(first.programs)
    fused = {"size": size, "programs": first.programs, "slots": slots, "scale": scale, "block": second.block}
    return (
        Launch(scores_kernel, (first.programs, batch), first.warps, scored),
        Launch(fuse_kernel, (second.programs, batch), second.warps, fused),
    )


def stau_attention(
    keys: Sequence[Tensor], values: Sequence[Tensor], query: Tensor, gate: Tensor, current: Tensor, scale: float
) -> Tensor:
    """Compute :func:`framecast.kernels.stau_attention.reference.stau_attention`, with the type of ``current``.

    Raises:
        OptionError: shapes or types that the kernels do not take.
    """
    import torch

    n, shape = len(keys), current.shape
    if len(values) != n:
        raise OptionError(f"there must be one value per key, not {len(values)} values for {n} keys")
    tensors = launch_arguments(current, [(tensor, shape) for tensor in (*keys, *values, query, gate, current)])
    scores, fuse = launches(shape[0], tuple(shape[1:]), scale)
    partials = current.new_empty(workspace(shape[0], tuple(shape[1:]), n), dtype=torch.float32)
    fused = current.new_empty(shape)
    scores(tensors[:n], tensors[2 * n], partials)
    fuse(tensors[n : 2 * n], *tensors[2 * n + 1 :], partials, fused)
    return fused


def traffic(batch: int, shape: tuple[int, ...], slots: int, itemsize: int) -> int:
    """Minimum memory traffic in bytes: reading each input once, and writing the output once.

    Args:
        batch: number of samples.
        shape: (C, H, W) of a state.
        slots: number of keys; there are as many values.
        itemsize: bytes per element.
    """
    return batch * math.prod(shape) * (2 * slots + 4) * itemsize
