"""EIFAG as an operator of our domain, so that an export keeps it in one piece."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from framecast.kernels.eifag import reference

NAME = "framecast::eifag"

_operator = torch.library.custom_op(NAME, reference.eifag, mutates_args=())


@_operator.register_fake
def _(cells: Sequence[Tensor], count: Tensor, *gates: Tensor | float) -> Tensor:
    return torch.empty_like(cells[0])


def eifag(
    cells: Sequence[Tensor],
    count: Tensor,
    input: Tensor,
    forget: Tensor,
    candidate: Tensor,
    *,
    forget_bias: float = 1.0,
) -> Tensor:
    """Gather past cells, and write the new one: see :func:`framecast.kernels.eifag.reference.eifag`.

    While exporting it is the operator ``framecast::eifag``; otherwise plain, differentiable torch.
    """
    call = torch.ops.framecast.eifag if torch.compiler.is_exporting() else reference.eifag
    new: Tensor = call(list(cells), count, input, forget, candidate, forget_bias)
    return new
