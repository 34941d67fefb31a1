"""Wrap a function to record how it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def watched(inner: Callable[P, T], see: Callable[..., object]) -> Callable[P, T]:
    """A wrapper that passes its arguments to ``see``, then to ``inner``, and returns what ``inner`` returns."""

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        see(*args, **kwargs)
        return inner(*args, **kwargs)

    return call
