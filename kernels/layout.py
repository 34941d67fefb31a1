"""Memory layouts of tensors: contiguous (NCHW), or channels-last (NHWC), which suits tensor cores in convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # launch.py gives the reason
    from torch import Tensor


def is_channels_last(state: Tensor) -> bool:
    """Whether a state, [B, C, H, W], is channels-last in memory and not also contiguous."""
    import torch

    return state.dim() == 4 and not state.is_contiguous() and state.is_contiguous(memory_format=torch.channels_last)


def as_channels_last(tensor: Tensor) -> Tensor:
    """Make a tensor, [B, C, H, W] or [C, H, W], channels-last in memory. Copies only if it is not so already."""
    return tensor.movedim(-3, -1).contiguous().movedim(-1, -3) if tensor.dim() > 2 else tensor.contiguous()
