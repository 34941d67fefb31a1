"""Defines an operator of our domain: the reference on the CPU, the kernel on CUDA, and a backward pass for both."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from framecast.kernels import switch
from framecast.kernels.layout import is_channels_last


def define(
    name: str,
    reference: Callable[..., Any],
    kernel: Callable[[], Callable[..., Any]],
    like: Callable[[Sequence[Any]], Any],
    *,
    channels_last: bool = False,
) -> None:
    """Register an operator. It is differentiable once: the backward pass recomputes the reference.

    Autocast converts its inputs to float32, as it does for the layer norm and the softmax of the references.

    Args:
        name: including the domain.
        reference: the implementation in plain torch; its annotations give the operator's schema.
        kernel: a function that imports and returns the CUDA implementation; called only when a kernel must run.
        like: selects the argument that has the result's shape and type; a tuple of arguments for several results.
        channels_last: whether all results are channels-last if the first selected argument is (default: always
            contiguous).
    """

    def laid_out(arguments: Sequence[Any]) -> torch.memory_format:
        """The layout of all results, the same as the kernel's."""
        first = tree_flatten(like(arguments))[0][0]
        return torch.channels_last if channels_last and is_channels_last(first) else torch.contiguous_format

    def plain(*arguments: Any) -> Any:
        common, memory = _common(arguments), laid_out(arguments)
        results = reference(*tree_map(lambda x: x.to(common) if isinstance(x, Tensor) else x, arguments))
        return tree_map(lambda x, y: x.to(y.dtype).contiguous(memory_format=memory), results, like(arguments))

    def on_cuda(*arguments: Any) -> Any:
        return kernel()(*arguments) if switch.on() else plain(*arguments)

    def fake(*arguments: Any) -> Any:
        memory = laid_out(arguments)
        return tree_map(lambda x: torch.empty_like(x, memory_format=memory), like(arguments))

    schema = torch.library.infer_schema(reference, mutates_args=())
    operator = torch.library.custom_op(name, plain, mutates_args=(), schema=schema)  # torch's registry keeps it
    operator.register_kernel("cuda")(on_cuda)
    operator.register_fake(fake)
    operator.register_autograd(functools.partial(_backward, reference), setup_context=_save)
    for device in ("cpu", "cuda"):
        operator.register_autocast(device, torch.float32)


_SAVED = object()  # placeholder for a saved tensor among the arguments


def _common(arguments: Any) -> torch.dtype:
    dtypes = (value.dtype for value in tree_flatten(arguments)[0] if isinstance(value, Tensor))
    return functools.reduce(torch.promote_types, dtypes)


def _save(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    leaves, ctx.layout = tree_flatten(list(inputs))
    ctx.save_for_backward(*(leaf for leaf in leaves if isinstance(leaf, Tensor)))
    ctx.others = [_SAVED if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    ctx.needed = [isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves]


def _backward(reference: Callable[..., Any], ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
    saved = iter(ctx.saved_tensors)
    leaves = [next(saved).detach() if other is _SAVED else other for other in ctx.others]
    wide = torch.promote_types(_common(leaves), torch.float32)  # sum halves in float32, and round once
    with torch.enable_grad():
        leaves = [leaf.requires_grad_() if needed else leaf for leaf, needed in zip(leaves, ctx.needed, strict=True)]
        widened = [leaf.to(wide) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        results = reference(*tree_unflatten(widened, ctx.layout))
    results = results if isinstance(results, tuple) else (results,)
    sought = [leaf for leaf, needed in zip(leaves, ctx.needed, strict=True) if needed]
    found = iter(torch.autograd.grad(results, sought, [gradient.to(wide) for gradient in gradients], allow_unused=True))
    return tuple(tree_unflatten([next(found) if needed else None for needed in ctx.needed], ctx.layout))
