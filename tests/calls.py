"""A function in the place of another, to see how that one is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def watched(inner: Callable[P, T], see: Callable[..., object]) -> Callable[P, T]:
    """Calls ``see``, then ``inner``, both with the arguments given; returns what ``inner`` returns."""

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        see(*args, **kwargs)
        return inner(*args, **kwargs)

    return call
