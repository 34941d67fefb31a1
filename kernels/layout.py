"""How a tensor lies in memory: contiguous (NCHW), or channels-last (NHWC), as tensor cores want their convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # as in launch.py
    from torch import Tensor


def is_channels_last(state: Tensor) -> bool:
    """Whether a state, [B, C, H, W], lies in memory as [B, H, W, C], and not as [B, C, H, W] as well."""
    import torch

    return state.dim() == 4 and not state.is_contiguous() and state.is_contiguous(memory_format=torch.channels_last)


def as_channels_last(tensor: Tensor) -> Tensor:
    """The tensor, [B, C, H, W] or [C, H, W], with channels last in memory. One that lies so already is not copied."""
    return tensor.movedim(-3, -1).contiguous().movedim(-1, -3) if tensor.dim() > 2 else tensor.contiguous()
