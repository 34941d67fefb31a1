"""Random inputs for the kernels, and the error of a result against float64. The CPU and GPU tests share them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Relative to max(1, |expected|), under Triton's interpreter. Arithmetic is float32, and a half is rounded once, when it
# is stored. That costs a float16 up to 2⁻¹¹, and a bfloat16, which the interpreter truncates, up to 2⁻⁷.
TOLERANCES = {torch.float32: 3e-6, torch.float16: 6e-4, torch.bfloat16: 8e-3}

Shape = tuple[int, int, int, int]
Arguments = list[Any]


def stgru_gates(
    shape: Shape,
    dtype: torch.dtype = torch.float32,
    *,
    affine: torch.dtype = torch.float32,
    device: str = "cpu",
    offset: float = 0.0,
    spread: float = 1.0,
    forget_bias: float = 1.0,
) -> Arguments:
    """Arguments of the reference; the convolutions have a mean of ``offset`` and a deviation of ``spread``."""
    batch, channels, *image = shape
    conv_t, conv_s = (offset + spread * torch.randn(batch, 4 * channels, *image, device=device) for _ in range(2))
    scales = [torch.randn(4 * channels, *image, device=device).to(affine) for _ in range(4)]
    states = [torch.randn(shape, device=device).to(dtype) for _ in range(2)]
    return [conv_t.to(dtype), *scales[:2], conv_s.to(dtype), *scales[2:], *states, forget_bias, 1e-5]


def eifag(
    shape: Shape,
    slots: int,
    counts: Sequence[float],
    dtype: torch.dtype = torch.float32,
    *,
    device: str = "cpu",
    spread: float = 3.0,
    forget_bias: float = 1.0,
) -> Arguments:
    """Arguments of the reference, with a count for each sample; unwritten slots hold zeros."""
    count = torch.tensor(counts, device=device).view(-1, 1, 1, 1)
    cells = [(spread * torch.randn(shape, device=device) * (count >= i)).to(dtype) for i in range(slots)]
    return [cells, count, *((2 * torch.randn(shape, device=device)).to(dtype) for _ in range(3)), forget_bias]


def stau_attention(
    shape: Shape,
    slots: int,
    dtype: torch.dtype = torch.float32,
    *,
    device: str = "cpu",
    spread: float = 1.0,
    scale: float | None = None,
) -> Arguments:
    """Arguments of the reference; with the default scale, scores are about ±``spread``²."""
    tensors = [spread * torch.randn(shape, device=device) for _ in range(slots)]
    keys = [tensor.to(dtype) for tensor in tensors]
    values = [torch.randn(shape, device=device).to(dtype) for _ in range(slots)]
    rest = [(torch.randn(shape, device=device) * (spread, 1, 1)[i]).to(dtype) for i in range(3)]
    return [keys, values, *rest, 1 / math.sqrt(math.prod(shape[1:])) if scale is None else scale]


def double(value: Any) -> Any:
    """The same tensors in float64, also inside lists."""
    if isinstance(value, (list, tuple)):
        return [double(item) for item in value]
    return value.double() if isinstance(value, Tensor) else value


def error(actual: Tensor | tuple[Tensor, ...], expected: Tensor | tuple[Tensor, ...]) -> float:
    """The largest error relative to max(1, |expected|); infinite if a value is missing or a shape is wrong."""
    actual = actual if isinstance(actual, tuple) else (actual,)
    expected = expected if isinstance(expected, tuple) else (expected,)
    errors = []
    for x, y in zip(actual, expected, strict=True):
        if x.shape != y.shape or not x.isfinite().all():
            return math.inf
        errors.append(float(((x.double() - y).abs() / y.abs().clamp(min=1)).max()))
    return float(np.max(errors))  # max drops NaN
