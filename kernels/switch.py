"""Whether our kernels run: they do wherever they can, until :func:`plain` turns them off for a comparison."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

INSTALLED = importlib.util.find_spec("triton") is not None  # not imported: that takes a second, and a GPU to be of use
DEVICES = frozenset({"cuda"})
DTYPES = frozenset({torch.float32, torch.float16, torch.bfloat16})  # float64 is for checking, in plain torch

_lock = threading.Lock()
_overlap: ContextVar[bool] = ContextVar("overlap", default=False)
_plain = 0  # how many are inside `plain`; a global, not a context variable, so that a compiled graph guards on it


@contextmanager
def plain() -> Iterator[None]:
    """Within it our operators are their reference, in plain torch: our kernels off, for comparison.

    It holds for the whole process, in every thread. ``torch.compile`` reads it when it traces, and traces again where
    it has changed; a CUDA graph stays what it was when it was captured.
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
    """Within it a kernel of several passes lets the next pass start before the one before ends, in this thread.

    That is a programmatic dependent launch, which GPUs have from compute capability 9.0 on. Nobody has measured yet
    what it gains: it is off unless asked for.
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
    """Whether kernels may run: Triton is installed, and nobody is inside :func:`plain`."""
    return INSTALLED and _plain == 0


def one_operator(tensor: Tensor) -> bool:
    """Whether an operator is to stay in one piece: in an export, and where a kernel takes a tensor such as this."""
    if torch.compiler.is_exporting():
        return True
    return on() and tensor.device.type in DEVICES and tensor.dtype in DTYPES
