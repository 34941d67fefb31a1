"""STGRU gates (STIP, equation 6) with both layer norms, in Triton: two passes over the convolutions' outputs.

With ``a = LN(conv_t)`` and ``b = LN(conv_s)``, four groups of C channels each (z, r, t, s):
``z = σ(a_z + b_z + bias)``, ``r = σ(a_r + b_r)``, ``T = (1 − z) ⊙ tanh(a_t + r ⊙ b_t) + z ⊙ t`` and
``S = (1 − z) ⊙ tanh(b_s + r ⊙ a_s) + z ⊙ s``.

The first pass reduces both convolutions to partial means and sums of squared deviations (M2); the second combines them
by Chan's formula, normalises and gates. Statistics and gates are in float32, and taken of ``x − x[0]``, so that a large
mean costs no digits. An element of a state reads 8 of the convolutions (twice: the second time they are in L2), 16 of
the affine, 2 of the states, and writes 2.

Sources: Chang et al., "STIP", 2022; Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
sample variances", 1979.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import triton
import triton.language as tl

from framecast.kernels.launch import Launch, launch_arguments, pointwise, reduction, tanh

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit
def _add(x, here, n, seen, mean, m2):  # type: ignore[no-untyped-def]
    """Statistics of what was ``seen``, with those of a tile of ``n`` elements added (Chan et al.)."""
    tile_mean = tl.sum(x) / tl.maximum(n, 1)
    deviation = tl.where(here, x - tile_mean, 0.0)
    delta = tile_mean - mean
    share = n / (seen + n)
    return mean + delta * share, m2 + tl.sum(deviation * deviation) + delta * delta * seen * share


@triton.jit  # type: ignore[untyped-decorator]
def statistics_kernel(
    conv_t: tl.tensor,
    conv_s: tl.tensor,
    partials: tl.tensor,  # [B, 4, programs], float32: mean and M2 of conv_t, and of conv_s
    size: tl.constexpr,
    programs: tl.constexpr,
    tiles: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Partial statistics of both inputs, relative to a sample's first element."""
    program = tl.program_id(0)
    sample = tl.program_id(1).to(tl.int64)
    conv_t += sample * size
    conv_s += sample * size
    pivot_t = tl.load(conv_t).to(tl.float32)
    pivot_s = tl.load(conv_s).to(tl.float32)
    mean_t, m2_t, mean_s, m2_s = 0.0, 0.0, 0.0, 0.0
    for tile in range(tiles):
        at = (program * tiles + tile) * block + tl.arange(0, block)
        here = at < size
        t = tl.load(conv_t + at, here, 0.0).to(tl.float32)
        s = tl.load(conv_s + at, here, 0.0).to(tl.float32)
        t = tl.where(here, t - pivot_t, 0.0)
        s = tl.where(here, s - pivot_s, 0.0)
        start = (program * tiles + tile) * block
        n = tl.minimum(tl.maximum(size - start, 0), block).to(tl.float32)
        seen = tile * block * 1.0  # all full: a tile after one that is not is empty
        mean_t, m2_t = _add(t, here, n, seen, mean_t, m2_t)
        mean_s, m2_s = _add(s, here, n, seen, mean_s, m2_s)
    partials += sample * (4 * programs) + program
    tl.store(partials, mean_t)
    tl.store(partials + programs, m2_t)
    tl.store(partials + 2 * programs, mean_s)
    tl.store(partials + 3 * programs, m2_s)


@triton.jit
def _combine(means, m2, n, size, eps):  # type: ignore[no-untyped-def]
    """Mean, and one over the standard deviation, from partial statistics of ``n`` elements each (Chan et al.)."""
    mean = tl.sum(n * means) / size
    delta = means - mean
    variance = tl.sum(m2 + n * delta * delta) / size
    return mean, 1 / tl.sqrt(variance + eps)


@triton.jit  # type: ignore[untyped-decorator]
def _read(x, at, here, size: tl.constexpr):  # type: ignore[no-untyped-def]
    """The four gates of an element, which stand a state's size apart."""
    z = tl.load(x + at, here, 0.0).to(tl.float32)
    r = tl.load(x + size + at, here, 0.0).to(tl.float32)
    t = tl.load(x + 2 * size + at, here, 0.0).to(tl.float32)
    s = tl.load(x + 3 * size + at, here, 0.0).to(tl.float32)
    return z, r, t, s


@triton.jit
def _gate(z, r, t_t, t_s, s_t, s_s, t, s):  # type: ignore[no-untyped-def]
    update = tl.sigmoid(z)
    reset = tl.sigmoid(r)
    new_t = (1 - update) * tanh(t_t + reset * t_s) + update * t
    new_s = (1 - update) * tanh(s_s + reset * s_t) + update * s
    return new_t, new_s


@triton.jit  # type: ignore[untyped-decorator]
def norm_gates_kernel(
    conv_t: tl.tensor,
    weight_t: tl.tensor,
    bias_t: tl.tensor,
    conv_s: tl.tensor,
    weight_s: tl.tensor,
    bias_s: tl.tensor,
    t: tl.tensor,
    s: tl.tensor,
    partials: tl.tensor,
    new_t: tl.tensor,
    new_s: tl.tensor,
    size: tl.constexpr,  # of a state
    programs: tl.constexpr,  # of the first pass
    slots: tl.constexpr,  # the next power of two
    part: tl.constexpr,  # elements that each of them took
    forget_bias: tl.constexpr,
    eps: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Normalise and gate, everything read once."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    here = at < size
    sample = tl.program_id(1).to(tl.int64)
    conv_t += sample * (4 * size)
    conv_s += sample * (4 * size)
    partials += sample * (4 * programs)
    state = sample * size + at
    # All that does not wait for the statistics is asked for before their reduction, whose barrier would hold it up.
    pivot_t = tl.load(conv_t).to(tl.float32)
    pivot_s = tl.load(conv_s).to(tl.float32)
    z_t, r_t, t_t, s_t = _read(conv_t, at, here, size)
    z_s, r_s, t_s, s_s = _read(conv_s, at, here, size)
    wz_t, wr_t, wt_t, ws_t = _read(weight_t, at, here, size)
    wz_s, wr_s, wt_s, ws_s = _read(weight_s, at, here, size)
    bz_t, br_t, bt_t, bs_t = _read(bias_t, at, here, size)
    bz_s, br_s, bt_s, bs_s = _read(bias_s, at, here, size)
    old_t = tl.load(t + state, here, 0.0).to(tl.float32)
    old_s = tl.load(s + state, here, 0.0).to(tl.float32)
    slot = tl.arange(0, slots)
    ran = slot < programs
    means_t = tl.load(partials + slot, ran, 0.0)
    m2_t = tl.load(partials + programs + slot, ran, 0.0)
    means_s = tl.load(partials + 2 * programs + slot, ran, 0.0)
    m2_s = tl.load(partials + 3 * programs + slot, ran, 0.0)
    n = tl.minimum(tl.maximum(4 * size - slot * part, 0), part).to(tl.float32)  # the last may have taken fewer
    mean_t, rstd_t = _combine(means_t, m2_t, n, 4 * size, eps)
    mean_s, rstd_s = _combine(means_s, m2_s, n, 4 * size, eps)
    z = (z_t - pivot_t - mean_t) * rstd_t * wz_t + bz_t + (z_s - pivot_s - mean_s) * rstd_s * wz_s + bz_s
    r = (r_t - pivot_t - mean_t) * rstd_t * wr_t + br_t + (r_s - pivot_s - mean_s) * rstd_s * wr_s + br_s
    t_t = (t_t - pivot_t - mean_t) * rstd_t * wt_t + bt_t
    t_s = (t_s - pivot_s - mean_s) * rstd_s * wt_s + bt_s
    s_t = (s_t - pivot_t - mean_t) * rstd_t * ws_t + bs_t
    s_s = (s_s - pivot_s - mean_s) * rstd_s * ws_s + bs_s
    out_t, out_s = _gate(z + forget_bias, r, t_t, t_s, s_t, s_s, old_t, old_s)
    tl.store(new_t + state, out_t, here)
    tl.store(new_s + state, out_s, here)


@triton.jit  # type: ignore[untyped-decorator]
def gates_kernel(
    norm_t: tl.tensor,
    norm_s: tl.tensor,
    t: tl.tensor,
    s: tl.tensor,
    new_t: tl.tensor,
    new_s: tl.tensor,
    size: tl.constexpr,
    forget_bias: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Gate what is normalised already."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    here = at < size
    sample = tl.program_id(1).to(tl.int64)
    state = sample * size + at
    z_t, r_t, t_t, s_t = _read(norm_t + sample * (4 * size), at, here, size)
    z_s, r_s, t_s, s_s = _read(norm_s + sample * (4 * size), at, here, size)
    old_t = tl.load(t + state, here, 0.0).to(tl.float32)
    old_s = tl.load(s + state, here, 0.0).to(tl.float32)
    out_t, out_s = _gate(z_t + z_s + forget_bias, r_t + r_s, t_t, t_s, s_t, s_s, old_t, old_s)
    tl.store(new_t + state, out_t, here)
    tl.store(new_s + state, out_s, here)


def workspace(batch: int, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape of the float32 partial statistics between the passes, for states [B, C, H, W] with ``shape`` (C, H, W)."""
    return batch, 4, reduction(4 * math.prod(shape), batch).programs


@functools.lru_cache(maxsize=256)
def launches(batch: int, shape: tuple[int, ...], forget_bias: float, eps: float) -> tuple[Launch, Launch, Launch]:
    """Both passes, and the gates alone, for states [B, C, H, W] with ``shape`` (C, H, W)."""
    size = math.prod(shape)
    first, second = reduction(4 * size, batch), pointwise(size, batch)
    passed = {"size": 4 * size, "programs": first.programs, "tiles": first.tiles, "block": first.block}
    gated = {"size": size, "forget_bias": forget_bias, "block": second.block}
    part = first.tiles * first.block
    combined = {"programs": first.programs, "slots": triton.next_power_of_2(first.programs), "part": part, "eps": eps}
    grid = (second.programs, batch)
    return (
        Launch(statistics_kernel, (first.programs, batch), first.warps, passed),
        Launch(norm_gates_kernel, grid, second.warps, gated | combined),
        Launch(gates_kernel, grid, second.warps, gated),
    )


def stgru_gates(
    conv_t: Tensor,
    weight_t: Tensor,
    bias_t: Tensor,
    conv_s: Tensor,
    weight_s: Tensor,
    bias_s: Tensor,
    t: Tensor,
    s: Tensor,
    forget_bias: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """As :func:`framecast.kernels.stgru_gates.reference.stgru_gates`; each new state has its old one's type.

    Raises:
        OptionError: shapes or types that the kernels do not take.
    """
    import torch

    batch, channels, *image = t.shape
    affine = (4 * channels, *image)
    conv = (batch, *affine)
    shapes = [(conv_t, conv), (weight_t, affine), (bias_t, affine), (conv_s, conv), (weight_s, affine)]
    arguments = launch_arguments(t, [*shapes, (bias_s, affine), (t, t.shape), (s, t.shape)])
    shape = tuple(t.shape[1:])
    statistics, gates, _ = launches(batch, shape, forget_bias, eps)
    partials = t.new_empty(workspace(batch, shape), dtype=torch.float32)
    new_t, new_s = t.new_empty(t.shape), s.new_empty(s.shape)
    statistics(arguments[0], arguments[3], partials)
    gates(*arguments, partials, new_t, new_s)
    return new_t, new_s


def gates(norm_t: Tensor, norm_s: Tensor, t: Tensor, s: Tensor, forget_bias: float) -> tuple[Tensor, Tensor]:
    """The gates alone, of inputs [B, 4C, H, W] that are normalised already: what follows a layer norm of TensorRT.

    Raises:
        OptionError: shapes or types that the kernel does not take.
    """
    batch, channels, *image = t.shape
    conv = (batch, 4 * channels, *image)
    arguments = launch_arguments(t, [(norm_t, conv), (norm_s, conv), (t, t.shape), (s, t.shape)])
    new_t, new_s = t.new_empty(t.shape), s.new_empty(s.shape)
    launches(batch, tuple(t.shape[1:]), forget_bias, 0.0)[2](*arguments, new_t, new_s)
    return new_t, new_s


def traffic(batch: int, shape: tuple[int, ...], itemsize: int, affine_itemsize: int = 4, norm: bool = True) -> int:
    """Bytes that must move at least: every input read once, every output written once.

    Args:
        batch: samples.
        shape: of a state, (C, H, W).
        itemsize: bytes of an element of convolutions and states.
        affine_itemsize: bytes of an element of the layer norms' weights and biases.
        norm: whether the layer norms are in it.
    """
    return math.prod(shape) * (batch * 12 * itemsize + (16 * affine_itemsize if norm else 0))
