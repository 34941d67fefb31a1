"""Decides whether our kernels run: wherever they can, unless :func:`plain` turns them off for a comparison."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

INSTALLED = importlib.util.find_spec("triton") is not None  # do not import it: that takes a second
DEVICES = frozenset({"cuda"})
DTYPES = frozenset({torch.float32, torch.float16, torch.bfloat16})  # float64 is only for checks, in plain torch

_lock = threading.Lock()
_overlap: ContextVar[bool] = ContextVar("overlap", default=False)
_plain = 0  # open `plain` blocks; a global, not a context variable, so that a compiled graph guards on it


@contextmanager
def plain() -> Iterator[None]:
    """Turn our kernels off, so that operators run their reference in plain torch.

    This affects all threads of the process. ``torch.compile`` reads the setting when it traces, and traces again if it
    has changed. A captured CUDA graph does not change.
    """
    global _plain
    with _lock:
        _plain += 1
    try:
        yield
    finally:
        with _lock:
            _plain -= 1


@contextmanager
def overlapped() -> Iterator[None]:
    """Let each pass of a kernel start before the previous pass ends, in this thread.

    This uses programmatic dependent launch, which GPUs support from compute capability 9.0 on. It is off by default,
    because nobody has measured the gain yet.
    """
    token = _overlap.set(True)
    try:
        yield
    finally:
        _overlap.reset(token)


def overlaps() -> bool:
    """Whether this is inside :func:`overlapped`."""
    return _overlap.get()


def on() -> bool:
    """Whether kernels may run: Triton is installed, and no :func:`plain` block is open."""
    return INSTALLED and _plain == 0


def one_operator(tensor: Tensor) -> bool:
    """Whether to call our operator, not plain torch: in every export, and if a kernel can run on this tensor."""
    if torch.compiler.is_exporting():
        return True
    return on() and tensor.device.type in DEVICES and tensor.dtype in DTYPES
