"""STGRU gates (STIP, equation 6) with both layer norms, in Triton: two passes over the convolutions' outputs.

With ``a = LN(conv_t)`` and ``b = LN(conv_s)``, four groups of C channels each (z, r, t, s):
``z = σ(a_z + b_z + bias)``, ``r = σ(a_r + b_r)``, ``T = (1 − z) ⊙ tanh(a_t + r ⊙ b_t) + z ⊙ t`` and
``S = (1 − z) ⊙ tanh(b_s + r ⊙ a_s) + z ⊙ s``.

The first pass reduces both convolutions to partial means and sums of squared deviations (M2). The second combines them
with Chan's formula, normalises and gates. Both compute in float32. The statistics are of ``x − x[0]``, so that a large
mean costs no precision. For each element of a state the passes read 8 values of the convolutions (twice; the second
time from L2), 16 of the affine parameters and 2 of the states, and write 2.

The kernels can add the convolutions' biases, which saves a pass. All tensors may be channels-last (NHWC), which suits
tensor cores in convolutions. Tensors may differ in type, such as half convolutions with float32 states.

Sources: Chang et al., "STIP", 2022; Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
sample variances", 1979.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from framecast.kernels.launch import Launch, launch_arguments, pointwise, reduction, tanh
from framecast.kernels.layout import is_channels_last

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit
def _add(x, here, n, seen, mean, m2):  # type: ignore[no-untyped-def]
    """Merge a tile of ``n`` elements into the statistics of the ``seen`` elements before it (Chan et al.)."""
    tile_mean = tl.sum(x) / tl.maximum(n, 1)
    deviation = tl.where(here, x - tile_mean, 0.0)
    delta = tile_mean - mean
    share = n / (seen + n)
    return mean + delta * share, m2 + tl.sum(deviation * deviation) + delta * delta * seen * share


@triton.jit  # type: ignore[untyped-decorator]
def statistics_kernel(
    conv_t: tl.tensor,
    conv_s: tl.tensor,
    partials: tl.tensor,  # [B, 4, programs], float32: mean and M2 of conv_t, then of conv_s
    added_t: tl.tensor,  # [4C], the convolutions' biases, or None
    added_s: tl.tensor,
    size: tl.constexpr,
    image: tl.constexpr,  # H·W
    last: tl.constexpr,  # whether channels are the last axis
    programs: tl.constexpr,
    tiles: tl.constexpr,
    block: tl.constexpr,
    overlap: tl.constexpr,  # whether the next kernel may start before this one ends
) -> None:
    """Partial statistics of both inputs, relative to a sample's first element."""
    if overlap:
        gdc_launch_dependents()
    program = tl.program_id(0)
    sample = tl.program_id(1).to(tl.int64)
    conv_t += sample * size
    conv_s += sample * size
    pivot_t = tl.load(conv_t).to(tl.float32)
    pivot_s = tl.load(conv_s).to(tl.float32)
    if added_t is not None:
        pivot_t += tl.load(added_t).to(tl.float32)
        pivot_s += tl.load(added_s).to(tl.float32)
    mean_t, m2_t, mean_s, m2_s = 0.0, 0.0, 0.0, 0.0
    for tile in range(tiles):
        at = (program * tiles + tile) * block + tl.arange(0, block)
        here = at < size
        t = tl.load(conv_t + at, here, 0.0).to(tl.float32)
        s = tl.load(conv_s + at, here, 0.0).to(tl.float32)
        if added_t is not None:
            channel = at % (size // image) if last else at // image
            t += tl.load(added_t + channel, here, 0.0).to(tl.float32)
            s += tl.load(added_s + channel, here, 0.0).to(tl.float32)
        t = tl.where(here, t - pivot_t, 0.0)
        s = tl.where(here, s - pivot_s, 0.0)
        start = (program * tiles + tile) * block
        n = tl.minimum(tl.maximum(size - start, 0), block).to(tl.float32)
        seen = tile * block * 1.0  # earlier tiles are full, unless this one is empty
        mean_t, m2_t = _add(t, here, n, seen, mean_t, m2_t)
        mean_s, m2_s = _add(s, here, n, seen, mean_s, m2_s)
    partials += sample * (4 * programs) + program
    tl.store(partials, mean_t)
    tl.store(partials + programs, m2_t)
    tl.store(partials + 2 * programs, mean_s)
    tl.store(partials + 3 * programs, m2_s)


@triton.jit
def _combine(means, m2, n, size, eps):  # type: ignore[no-untyped-def]
    """Mean and 1 / standard deviation from partial statistics of ``n`` elements each (Chan et al.)."""
    mean = tl.sum(n * means) / size
    delta = means - mean
    variance = tl.sum(m2 + n * delta * delta) / size
    return mean, 1 / tl.sqrt(variance + eps)


@triton.jit  # type: ignore[untyped-decorator]
def _read(x, at, here, apart: tl.constexpr):  # type: ignore[no-untyped-def]
    """Read an element's four gates, the first at ``at``, the others ``apart`` from each other."""
    z = tl.load(x + at, here, 0.0).to(tl.float32)
    r = tl.load(x + apart + at, here, 0.0).to(tl.float32)
    t = tl.load(x + 2 * apart + at, here, 0.0).to(tl.float32)
    s = tl.load(x + 3 * apart + at, here, 0.0).to(tl.float32)
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
    added_t: tl.tensor,  # [4C], the convolutions' biases, or None
    added_s: tl.tensor,
    size: tl.constexpr,  # of a state
    image: tl.constexpr,  # H·W
    last: tl.constexpr,  # whether channels are the last axis
    programs: tl.constexpr,  # of the first pass
    slots: tl.constexpr,  # programs, rounded up to a power of two
    part: tl.constexpr,  # elements per program of the first pass
    forget_bias: tl.constexpr,
    eps: tl.constexpr,
    block: tl.constexpr,
    overlap: tl.constexpr,  # whether this may start before the first pass ends
) -> None:
    """Normalise and gate, reading everything once."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    here = at < size
    sample = tl.program_id(1).to(tl.int64)
    conv_t += sample * (4 * size)
    conv_s += sample * (4 * size)
    partials += sample * (4 * programs)
    state = sample * size + at
    channels: tl.constexpr = size // image
    # An element's first gate, the distance between its gates, and its channel.
    first = at + 3 * channels * (at // channels) if last else at
    apart: tl.constexpr = channels if last else size
    channel = at % channels if last else at // image
    # Issue all loads that do not need the statistics before the reduction, whose barrier would delay them.
    pivot_t = tl.load(conv_t).to(tl.float32)
    pivot_s = tl.load(conv_s).to(tl.float32)
    z_t, r_t, t_t, s_t = _read(conv_t, first, here, apart)
    z_s, r_s, t_s, s_s = _read(conv_s, first, here, apart)
    wz_t, wr_t, wt_t, ws_t = _read(weight_t, first, here, apart)
    wz_s, wr_s, wt_s, ws_s = _read(weight_s, first, here, apart)
    bz_t, br_t, bt_t, bs_t = _read(bias_t, first, here, apart)
    bz_s, br_s, bt_s, bs_s = _read(bias_s, first, here, apart)
    if added_t is not None:
        az_t, ar_t, at_t, as_t = _read(added_t, channel, here, channels)
        az_s, ar_s, at_s, as_s = _read(added_s, channel, here, channels)
        z_t, r_t, t_t, s_t = z_t + az_t, r_t + ar_t, t_t + at_t, s_t + as_t
        z_s, r_s, t_s, s_s = z_s + az_s, r_s + ar_s, t_s + at_s, s_s + as_s
        pivot_t += tl.load(added_t).to(tl.float32)
        pivot_s += tl.load(added_s).to(tl.float32)
    old_t = tl.load(t + state, here, 0.0).to(tl.float32)
    old_s = tl.load(s + state, here, 0.0).to(tl.float32)
    if overlap:
        gdc_wait()  # wait for the first pass; nothing read so far depends on it
    slot = tl.arange(0, slots)
    ran = slot < programs
    means_t = tl.load(partials + slot, ran, 0.0)
    m2_t = tl.load(partials + programs + slot, ran, 0.0)
    means_s = tl.load(partials + 2 * programs + slot, ran, 0.0)
    m2_s = tl.load(partials + 3 * programs + slot, ran, 0.0)
    n = tl.minimum(tl.maximum(4 * size - slot * part, 0), part).to(tl.float32)  # the last program may have fewer
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
    """Gate inputs that are already normalised."""
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
def launches(
    batch: int,
    shape: tuple[int, ...],
    forget_bias: float,
    eps: float,
    *,
    last: bool = False,
    added: bool = False,
    overlap: bool = False,
) -> tuple[Launch, Launch, Launch]:
    """The launches of both passes, and that of the gates alone.

    Args:
        batch: number of samples.
        shape: (C, H, W) of a state.
        forget_bias: added to the update gate.
        eps: epsilon of the layer norms.
        last: whether all tensors are channels-last. The gates alone always take contiguous ones.
        added: whether to add the convolutions' biases, which are then the last arguments.
        overlap: whether the second pass may start before the first one ends (from compute capability 9.0 on).
    """
    size, image = math.prod(shape), math.prod(shape[1:])
    first, second = reduction(4 * size, batch), pointwise(size, batch)
    common = {"image": image, "last": last, "overlap": overlap} | ({} if added else {"added_t": None, "added_s": None})
    passed = {"size": 4 * size, "programs": first.programs, "tiles": first.tiles, "block": first.block}
    gated = {"size": size, "forget_bias": forget_bias, "block": second.block}
    part = first.tiles * first.block
    combined = {"programs": first.programs, "slots": triton.next_power_of_2(first.programs), "part": part, "eps": eps}
    grid = (second.programs, batch)
    return (
        Launch(statistics_kernel, (first.programs, batch), first.warps, passed | common),
        Launch(norm_gates_kernel, grid, second.warps, gated | combined | common, {"launch_pdl": overlap}),
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
    added_t: Tensor | None = None,
    added_s: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`framecast.kernels.stgru_gates.reference.stgru_gates`. Each new state has the type of the old one.

    The new states have the layout of ``t``. Tensors are copied unless all are contiguous or all are channels-last.

    Raises:
        OptionError: shapes or types that the kernels do not take.
    """
    import torch

    from framecast.kernels import switch

    batch, channels, *image = t.shape
    affine = (4 * channels, *image)
    conv = (batch, *affine)
    given = [(conv_t, conv), (weight_t, affine), (bias_t, affine), (conv_s, conv), (weight_s, affine)]
    given += [(bias_s, affine), (t, t.shape), (s, t.shape)]
    added = added_t is not None and added_s is not None
    given += [(x, (4 * channels,)) for x in (added_t, added_s) if x is not None]
    last = is_channels_last(t)
    arguments = launch_arguments(t, given, channels_last=last)
    shape, overlap = tuple(t.shape[1:]), switch.overlaps()
    statistics, gates, _ = launches(batch, shape, forget_bias, eps, last=last, added=added, overlap=overlap)
    partials = t.new_empty(workspace(batch, shape), dtype=torch.float32)
    new_t, new_s = (torch.empty_like(x) for x in arguments[6:8])
    statistics(arguments[0], arguments[3], partials, *arguments[8:])
    gates(*arguments[:8], partials, new_t, new_s, *arguments[8:])
    return new_t, new_s


def gates(norm_t: Tensor, norm_s: Tensor, t: Tensor, s: Tensor, forget_bias: float) -> tuple[Tensor, Tensor]:
    """Compute only the gates, from inputs [B, 4C, H, W] that TensorRT has already normalised.

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
    """Minimum memory traffic in bytes: reading every input once, and writing every output once.

    Args:
        batch: number of samples.
        shape: (C, H, W) of a state.
        itemsize: bytes per element of convolutions and states.
        affine_itemsize: bytes per element of the layer norms' weights and biases.
        norm: whether to include these weights and biases.
    """
    return math.prod(shape) * (batch * 12 * itemsize + (16 * affine_itemsize if norm else 0))
