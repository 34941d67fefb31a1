"""An operator of our domain from its reference: that on the CPU, the kernel on CUDA, and a backward for both."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from framecast.kernels import switch


def define(
    name: str,
    reference: Callable[..., Any],
    kernel: Callable[[], Callable[..., Any]],
    like: Callable[[Sequence[Any]], Any],
) -> None:
    """Register an operator, differentiable once by recomputing through its reference.

    Its results are contiguous. Under autocast it takes float32, as the layer norm and the softmax of the references do.

    Args:
        name: with its domain.
        reference: the truth; its annotations are the operator's schema.
        kernel: imports the CUDA implementation, when one is first asked for.
        like: of the arguments, the one (or a tuple of those) whose shape and type the results have.
    """

    def plain(*arguments: Any) -> Any:
        common = _common(arguments)
        results = reference(*tree_map(lambda x: x.to(common) if isinstance(x, Tensor) else x, arguments))
        return tree_map(lambda x, y: x.to(y.dtype).contiguous(), results, like(arguments))

    def on_cuda(*arguments: Any) -> Any:
        return kernel()(*arguments) if switch.on() else plain(*arguments)

    def fake(*arguments: Any) -> Any:
        return tree_map(lambda x: x.new_empty(x.shape), like(arguments))

    schema = torch.library.infer_schema(reference, mutates_args=())
    operator = torch.library.custom_op(name, plain, mutates_args=(), schema=schema)  # lives in torch's registry
    operator.register_kernel("cuda")(on_cuda)
    operator.register_fake(fake)
    operator.register_autograd(functools.partial(_backward, reference), setup_context=_save)
    for device in ("cpu", "cuda"):
        operator.register_autocast(device, torch.float32)


def _common(arguments: Any) -> torch.dtype:
    dtypes = (value.dtype for value in tree_flatten(arguments)[0] if isinstance(value, Tensor))
    return functools.reduce(torch.promote_types, dtypes)


def _save(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    leaves, ctx.layout = tree_flatten(list(inputs))
    ctx.save_for_backward(*(leaf for leaf in leaves if isinstance(leaf, Tensor)))
    ctx.numbers = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    ctx.needed = [isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves]


def _backward(reference: Callable[..., Any], ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
    saved = iter(ctx.saved_tensors)
    leaves = [next(saved).detach() if number is None else number for number in ctx.numbers]
    wide = torch.promote_types(_common(leaves), torch.float32)  # halves are summed in float32, and rounded once
    with torch.enable_grad():
        leaves = [leaf.requires_grad_() if needed else leaf for leaf, needed in zip(leaves, ctx.needed, strict=True)]
        widened = [leaf.to(wide) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        results = reference(*tree_unflatten(widened, ctx.layout))
    results = results if isinstance(results, tuple) else (results,)
    sought = [leaf for leaf, needed in zip(leaves, ctx.needed, strict=True) if needed]
    found = iter(torch.autograd.grad(results, sought, [gradient.to(wide) for gradient in gradients], allow_unused=True))
    return tuple(tree_unflatten([next(found) if needed else None for needed in ctx.needed], ctx.layout))
