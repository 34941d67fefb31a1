"""The precision of PyTorch's convolutions and matrix products on CUDA, a setting of the whole process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def exactly(*, tf32: bool) -> Iterator[None]:
    """Set whether convolutions and matrix products round their inputs to TF32's 10 mantissa bits.

    Meanwhile cuDNN also chooses its algorithms by timing them. Afterwards the previous settings return. PyTorch 2.9 has
    a new interface for this, and rejects the old one once the new one has been used.
    """
    import torch

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    settings: list[tuple[Any, str, Any]] = [(cudnn, "benchmark", True)]
    if hasattr(cudnn, "conv"):
        kind = "tf32" if tf32 else "ieee"
        settings += [(cudnn.conv, "fp32_precision", kind), (matmul, "fp32_precision", kind)]
    else:
        settings += [(cudnn, "allow_tf32", tf32), (matmul, "allow_tf32", tf32)]
    before = [getattr(holder, name) for holder, name, _ in settings]
    try:
        for holder, name, value in settings:
            setattr(holder, name, value)
        yield
    finally:
        for (holder, name, _), value in zip(settings, before, strict=True):
            setattr(holder, name, value)
