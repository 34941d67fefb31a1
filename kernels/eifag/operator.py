"""EIFAG as an operator of our domain, so that exporters and compilers do not take it apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from framecast.kernels import switch
from framecast.kernels.define import define
from framecast.kernels.eifag import reference

NAME = "framecast::eifag"


def _kernel() -> Callable[..., Any]:
    from framecast.kernels.eifag import kernel

    return kernel.eifag


define(NAME, reference.eifag, _kernel, like=lambda arguments: arguments[0][0])  # the newest cell


def eifag(
    cells: Sequence[Tensor],
    count: Tensor,
    input: Tensor,
    forget: Tensor,
    candidate: Tensor,
    *,
    forget_bias: float = 1.0,
) -> Tensor:
    """Gather past cells and write the new one: see :func:`framecast.kernels.eifag.reference.eifag`.

    In an export, and where a kernel can run (``framecast.kernels.switch``), this calls the operator
    ``framecast::eifag``; otherwise plain torch. Both are differentiable.
    """
    call = torch.ops.framecast.eifag if switch.one_operator(input) else reference.eifag
    new: Tensor = call(list(cells), count, input, forget, candidate, forget_bias)
    return new
