"""Grids and blocks of all our Triton kernels, and checks of their arguments.

There is no autotuner: it would try variants on the first call of each size, which stalls a live stream and cannot be
captured in a CUDA graph. The constants here were chosen by calculation and still have to be measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from framecast.errors import OptionError
from framecast.kernels.layout import as_channels_last

if TYPE_CHECKING:  # only a launch needs torch: cross.py must compile kernels on machines that lack it
    from torch import Tensor

# Blocks shrink until there are this many programs, about one for each of an H100's 132 SMs. A state of 64×16×16 moves
# a megabyte or two, so latency dominates, and all of it should be in flight at once. Not measured yet.
PROGRAMS = 128
LANES = 4  # elements per thread, up to 8 warps: one 128-bit load of float32, or one 64-bit load of float16
LEAST, MOST, MOST_REDUCED = 128, 1024, 4096  # elements per tile; a reduction holds fewer tensors in registers
PARTIALS = 256  # most partial results per sample: every program of the second pass reads all of them
LARGEST = 2**31 - 2**20  # elements per sample: offsets within a sample have 32 bits, offsets of samples 64


@triton.jit  # type: ignore[untyped-decorator]
def tanh(x: tl.tensor) -> tl.tensor:
    """Compute 2σ(2x) − 1, which cannot overflow; its error is a few 1e-7. Triton's interpreter has no libdevice."""
    return 2 * tl.sigmoid(2 * x) - 1


@dataclass(frozen=True)
class Plan:
    """How one pass walks over a sample.

    Attributes:
        block: elements per tile, a power of two.
        tiles: tiles per program, one after the other.
        programs: programs per sample.
        warps: warps per program.
    """

    block: int
    tiles: int
    programs: int
    warps: int


def pointwise(size: int, batch: int) -> Plan:
    """Plan a pass that reads and writes ``size`` elements of each sample, with one tile per program."""
    block = _block(size, batch, MOST)
    return Plan(block, 1, triton.cdiv(size, block), _warps(block))


def reduction(size: int, batch: int) -> Plan:
    """Plan a pass that reduces ``size`` elements of each sample to at most ``PARTIALS`` partial results."""
    block = _block(size, batch, MOST_REDUCED)
    tiles = triton.cdiv(size, block * PARTIALS)
    return Plan(block, tiles, triton.cdiv(size, block * tiles), _warps(block))


def _block(size: int, batch: int, most: int) -> int:
    block = most
    while block > LEAST and batch * triton.cdiv(size, block) < PROGRAMS:
        block //= 2
    return block


def _warps(block: int) -> int:
    return max(1, min(8, block // (32 * LANES)))


@dataclass(frozen=True)
class Launch:
    """A kernel and all its launch arguments except the tensors.

    Attributes:
        kernel: the ``triton.jit`` function.
        grid: programs per sample, and samples.
        warps: warps per program.
        constants: its ``constexpr`` arguments. They include sizes, so that Triton vectorises loads.
        options: further launch options of Triton.
    """

    kernel: Any
    grid: tuple[int, int]
    warps: int
    constants: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, *arguments: Tensor | tuple[Tensor, ...]) -> None:
        """Launch the kernel on the current stream of the last tensor's device. Does not wait."""
        import torch

        with torch.cuda.device_of(arguments[-1]):
            self.kernel[self.grid](*arguments, **self.constants, **self.options, num_warps=self.warps)


def launch_arguments(
    like: Tensor, shapes: Sequence[tuple[Tensor, Sequence[int]]], *, channels_last: bool = False
) -> tuple[Tensor, ...]:
    """Check the tensors and return them contiguous.

    Args:
        like: a state, [B, C, H, W].
        shapes: each tensor, and the shape that it must have.
        channels_last: whether to return them channels-last.

    Raises:
        OptionError: a tensor has a wrong shape, type or device, or the state is too large.
    """
    from framecast.kernels.switch import DTYPES

    if like.dim() != 4 or not like.numel() or like[0].numel() * 4 > LARGEST:
        raise OptionError(
            f"a state must be [B, C, H, W] with 1 to {LARGEST // 4} elements per sample, not {list(like.shape)}"
        )
    for tensor, shape in shapes:
        if tuple(tensor.shape) != tuple(shape):
            raise OptionError(
                f"with a state of {list(like.shape)} this tensor must be {list(shape)}, not {list(tensor.shape)}"
            )
        if tensor.dtype not in DTYPES:
            raise OptionError(f"kernels take float32, float16 and bfloat16, not {tensor.dtype}: use the reference")
        if tensor.device != like.device:
            raise OptionError(f"all tensors must be on {like.device}, but one is on {tensor.device}")
    return tuple(as_channels_last(x) if channels_last else x.contiguous() for x, _ in shapes)
