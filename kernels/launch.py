"""How our Triton kernels are laid over a GPU: grids and blocks for all of them, and what they take.

Nothing is tuned while it runs: an autotuner tries variants on the first call of each size, which would stall a live
stream, and cannot be captured in a CUDA graph. What stands here was chosen by counting, and is to be measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from framecast.errors import OptionError
from framecast.kernels.layout import as_channels_last

if TYPE_CHECKING:  # torch only launches kernels: compiling them for an engine (cross.py) does without
    from torch import Tensor

# Enough programs that each of an H100's 132 SMs has one, before any gets a larger block: a state of 64×16×16 moves a
# megabyte or two, which is a matter of latency, so that it should be in flight all at once. To be measured.
PROGRAMS = 128
LANES = 4  # elements a thread, where there are warps enough: one 128-bit load of float32, one of 64 bits of float16
LEAST, MOST, MOST_REDUCED = 128, 1024, 4096  # elements a tile; a reduction holds fewer tensors in registers
PARTIALS = 256  # of a reduction, for a sample: every program of the second pass reads them all
LARGEST = 2**31 - 2**20  # elements a sample: offsets within one are 32 bits wide, those of samples 64


@triton.jit  # type: ignore[untyped-decorator]
def tanh(x: tl.tensor) -> tl.tensor:
    """As 2σ(2x) − 1: libdevice's cannot be interpreted, and this cannot overflow. Off by a few 1e-7."""
    return 2 * tl.sigmoid(2 * x) - 1


@dataclass(frozen=True)
class Plan:
    """How one pass walks over a sample.

    Attributes:
        block: elements of a tile, a power of two.
        tiles: that a program takes one after the other.
        programs: a sample.
        warps: a program.
    """

    block: int
    tiles: int
    programs: int
    warps: int


def pointwise(size: int, batch: int) -> Plan:
    """A pass that reads and writes ``size`` elements of each sample; a tile a program."""
    block = _block(size, batch, MOST)
    return Plan(block, 1, triton.cdiv(size, block), _warps(block))


def reduction(size: int, batch: int) -> Plan:
    """A pass that reduces ``size`` elements of each sample to at most ``PARTIALS`` partial results."""
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
    """A kernel with all but its tensors.

    Attributes:
        kernel: the ``triton.jit`` function.
        grid: programs a sample, and samples.
        warps: a program.
        constants: its ``constexpr`` arguments, sizes among them, so that loads are vectorised.
        options: of the launch, as Triton names them.
    """

    kernel: Any
    grid: tuple[int, int]
    warps: int
    constants: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, *arguments: Tensor | tuple[Tensor, ...]) -> None:
        """Start it on the current stream of the device that the last tensor is on; waits for nothing."""
        import torch

        with torch.cuda.device_of(arguments[-1]):
            self.kernel[self.grid](*arguments, **self.constants, **self.options, num_warps=self.warps)


def launch_arguments(
    like: Tensor, shapes: Sequence[tuple[Tensor, Sequence[int]]], *, channels_last: bool = False
) -> tuple[Tensor, ...]:
    """The tensors, contiguous.

    Args:
        like: a state, [B, C, H, W].
        shapes: each tensor, and what its shape must be.
        channels_last: whether they are to lie in memory with channels last.

    Raises:
        OptionError: a shape or type that no kernel takes, tensors on several devices, or too large a one.
    """
    from framecast.kernels.switch import DTYPES

    if like.dim() != 4 or not like.numel() or like[0].numel() * 4 > LARGEST:
        raise OptionError(f"a state must be [B, C, H, W] of at most {LARGEST // 4} elements, not {list(like.shape)}")
    for tensor, shape in shapes:
        if tuple(tensor.shape) != tuple(shape):
            raise OptionError(
                f"a tensor must be {list(shape)} beside a state {list(like.shape)}, not {list(tensor.shape)}"
            )
        if tensor.dtype not in DTYPES:
            raise OptionError(f"kernels take float32, float16 and bfloat16, not {tensor.dtype}: use the reference")
        if tensor.device != like.device:
            raise OptionError(f"all tensors must be on {like.device}, and one is on {tensor.device}")
    return tuple(as_channels_last(x) if channels_last else x.contiguous() for x, _ in shapes)
