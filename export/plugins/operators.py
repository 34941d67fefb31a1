"""Our operators as launches of our kernels: the inputs and outputs of each launch, with shape, type and order.

Batch and sizes are fixed when an engine is built, so each launch is a kernel of one static shape. If an operator needs
two launches, a tensor of partial results connects them, because an AOT plugin has one kernel and no workspace.

Everything is float32, because mixed precision leaves our operators in float32. The exception is an input that the graph
casts from float16 just before: the kernel reads it as float16. The kernels compute in float32 in both cases, so the
numbers are the same.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from framecast.errors import EngineError, ExportError

if TYPE_CHECKING:
    from framecast.kernels.cross import Compiled

BYTES = {"fp32": 4, "fp16": 2}
_MOST_SHARED = 48 * 1024  # bytes of shared memory that a launch may use without a request to the driver


@dataclass(frozen=True)
class Tensor:
    """A tensor's shape and its type: ``fp32`` or ``fp16``."""

    shape: tuple[int, ...]
    dtype: str = "fp32"

    @property
    def size(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * BYTES[self.dtype]


@dataclass(frozen=True)
class Kernel:
    """One of our kernels with static shapes.

    Attributes:
        kernel: one of :data:`framecast.kernels.cross.KERNELS`.
        inputs: inputs in the kernel's order.
        outputs: outputs in the kernel's order; they follow the inputs.
        state: (C, H, W).
        batch: number of samples.
        slots: number of cells, keys or values.
        constants: those of ``forget_bias``, ``eps`` and ``scale`` that the kernel has.
    """

    kernel: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    state: tuple[int, int, int]
    batch: int
    slots: int = 0
    constants: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """A unique name: kernels that differ in anything have different names."""
        return f"framecast_{self.kernel}_{hashlib.sha256(repr(self).encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Call:
    """A kernel with the names of its inputs and outputs."""

    kernel: Kernel
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def tensors(self) -> list[tuple[str, Tensor]]:
        """Return each name with its tensor."""
        kernel = self.kernel
        return list(zip((*self.inputs, *self.outputs), (*kernel.inputs, *kernel.outputs), strict=True))


@dataclass(frozen=True)
class Site:
    """A node of one of our operators.

    Attributes:
        operator: the operator's name without the number of slots.
        slots: number of slots; 0 if the operator has none.
        inputs: names of the inputs.
        outputs: names of the outputs.
        tensors: shapes and types of the inputs.
        attributes: float attributes.
    """

    operator: str
    slots: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    attributes: Mapping[str, float]


def calls(site: Site) -> list[Call]:
    """Return the launches of a node, in order.

    Raises:
        ExportError: its inputs do not have the shapes that its kernels need.
    """
    return _OPERATORS[site.operator](site)


def parsed(op_type: str) -> tuple[str, int] | None:
    """Return the operator and its number of slots from a node's type; None if it has no kernel."""
    found = re.fullmatch(r"(stgru_gates)|(eifag|stau_attention)_(\d+)", op_type)
    return found and (found[1] or found[2], int(found[3] or 0))


def narrow(site: Site) -> list[int]:
    """Return which inputs may be float16. Lists of states, counts and partial results must stay float32."""
    lists = {"stgru_gates": 0, "eifag": site.slots + 1, "stau_attention": 2 * site.slots}[site.operator]
    return list(range(lists, len(site.inputs)))


def _stgru_gates(site: Site) -> list[Call]:
    from framecast.kernels.stgru_gates.kernel import workspace

    batch, state = _state(site, 6)
    conv, affine = (batch, 4 * state[0], *state[1:]), (4 * state[0], *state[1:])
    _check(site, [conv, affine, affine, conv, affine, affine, (batch, *state), (batch, *state)])
    partials, between = Tensor(workspace(batch, state)), f"{site.outputs[0]}.partials"
    constants = (("forget_bias", site.attributes["forget_bias"]), ("eps", site.attributes["epsilon"]))
    read, new = site.tensors, Tensor((batch, *state))
    first = Kernel("stgru_statistics", (read[0], read[3]), (partials,), state, batch)
    second = Kernel("stgru_norm_gates", (*read, partials), (new, new), state, batch, 0, constants)
    return [
        Call(first, (site.inputs[0], site.inputs[3]), (between,)),
        Call(second, (*site.inputs, between), site.outputs),
    ]


def _eifag(site: Site) -> list[Call]:
    batch, state = _state(site, 0)
    cell = (batch, *state)
    _check(site, [*[cell] * site.slots, (batch, 1, 1, 1), *[cell] * 3])
    constants = (("forget_bias", site.attributes["forget_bias"]),)
    kernel = Kernel("eifag", site.tensors, (Tensor(cell),), state, batch, site.slots, constants)
    return [Call(kernel, site.inputs, site.outputs)]


def _stau_attention(site: Site) -> list[Call]:
    from framecast.kernels.stau_attention.kernel import workspace

    n = site.slots
    batch, state = _state(site, 0)
    shape = (batch, *state)
    _check(site, [shape] * (2 * n + 3))
    partials, between = Tensor(workspace(batch, state, n)), f"{site.outputs[0]}.partials"
    constants = (("scale", site.attributes["scale"]),)
    keys, values = slice(0, n), slice(n, 2 * n)
    tensors, names = site.tensors, site.inputs
    first = Kernel("stau_scores", (*tensors[keys], tensors[2 * n]), (partials,), state, batch, n, constants)
    read = (*tensors[values], *tensors[2 * n + 1 :], partials)
    second = Kernel("stau_fuse", read, (Tensor(shape),), state, batch, n, constants)
    return [
        Call(first, (*names[keys], names[2 * n]), (between,)),
        Call(second, (*names[values], *names[2 * n + 1 :], between), site.outputs),
    ]


_OPERATORS: Mapping[str, Callable[[Site], list[Call]]] = {
    "stgru_gates": _stgru_gates,
    "eifag": _eifag,
    "stau_attention": _stau_attention,
}


def _state(site: Site, index: int) -> tuple[int, tuple[int, int, int]]:
    """Return the batch and (C, H, W) of one of the inputs."""
    shape = site.tensors[index].shape
    if len(shape) != 4 or min(shape) < 1:
        raise ExportError(f"{site.inputs[index]} has no fixed shape [B, C, H, W] but {list(shape)}: report this")
    return shape[0], (shape[1], shape[2], shape[3])


def _check(site: Site, shapes: Sequence[tuple[int, ...]]) -> None:
    for name, tensor, shape in zip(site.inputs, site.tensors, shapes, strict=True):
        if tensor.shape != shape:
            raise ExportError(f"{name} is {list(tensor.shape)}, but {site.operator} needs {list(shape)}: report this")


@cache
def compiled(kernel: Kernel, arch: int, ptx_version: int | None = None) -> Compiled:
    """Compile a kernel for a GPU. Its pointers match its inputs and outputs in number and type.

    Raises:
        EngineError: the kernel cannot be compiled, or its parameters or shared memory do not fit the launch.
    """
    from framecast.kernels.cross import compile_for

    names = parameters(kernel)
    tensors = (*kernel.inputs, *kernel.outputs)
    types = {name: tensor.dtype for name, tensor in zip(names, tensors, strict=True) if tensor.dtype != "fp32"}
    constants: dict[str, Any] = dict(kernel.constants)
    result = compile_for(
        kernel.kernel,
        arch,
        "fp32",
        kernel.state,
        batch=kernel.batch,
        slots=max(kernel.slots, 1),
        types=types,
        ptx_version=ptx_version,
        **constants,
    )
    expected = tuple((name, f"*{tensor.dtype}") for name, tensor in zip(names, tensors, strict=True))
    if result.parameters != expected or result.shared > _MOST_SHARED:
        raise EngineError(f"{kernel.kernel} was compiled to {result.parameters}, not to {expected}: report this")
    return result


def parameters(kernel: Kernel) -> list[str]:
    """Return the names of the kernel's pointers, one per input and output."""
    names = _PARAMETERS[kernel.kernel].split()
    if names[0].endswith("*"):
        return [f"{names[0][:-1]}[{i}]" for i in range(kernel.slots)] + names[1:]
    return names


_PARAMETERS = {
    "stgru_statistics": "conv_t conv_s partials",
    "stgru_norm_gates": "conv_t weight_t bias_t conv_s weight_s bias_s t s partials new_t new_s",
    "eifag": "cells* count input forget candidate new",
    "stau_scores": "keys* query partials",
    "stau_fuse": "values* gate current partials fused",
}
