"""Kernels inside an engine (TensorRT 10.9 and newer): a quickly deployable plugin each, compiled ahead of time to PTX.

When such an engine runs there is no Python in it. A plugin has no attributes: all that it is stands in its name, so
there is nothing that a parser could hand over wrong. TensorRT passes inputs, 32-bit integers, of which we have none,
and outputs. Triton's kernels take two pointers more, to scratch memory that they do not use: they are struck out of the
PTX, whose machine code stays the same.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence
from typing import Any

from framecast.errors import EngineError
from framecast.export.plugins.operators import Kernel, compiled
from framecast.kernels.cross import Compiled
from framecast.runtime.engines.tensorrt.plugin import NAMESPACE

SCRATCH = 2  # parameters that Triton adds
# Of each name that was registered, what to compile it for: TensorRT's registry takes a name only once in a process.
_targets: dict[str, tuple[int, int | None]] = {}


def register(trt: Any, kernels: Sequence[Kernel], arch: int, ptx_version: int | None) -> None:
    """Tell TensorRT of kernels, each by its name in our namespace; what it knows already is compiled for this GPU.

    Args:
        trt: ``tensorrt``, 10.9 or newer.
        kernels: to register.
        arch: compute capability, 87 for 8.7.
        ptx_version: 85 for 8.5; None for the newest.

    Raises:
        EngineError: a kernel cannot be compiled.
    """
    trtp = importlib.import_module(f"{trt.__name__}.plugin")
    for kernel in kernels:
        compiled(kernel, arch, ptx_version)  # an error is raised here, and not within TensorRT
        known = kernel.name in _targets
        _targets[kernel.name] = arch, ptx_version
        if not known:
            _register(trt, trtp, kernel)


def _register(trt: Any, trtp: Any, kernel: Kernel) -> None:
    """Describe one kernel. Signatures are what TensorRT reads, and are made for each: their length is the kernel's."""
    plugin = f"{NAMESPACE}::{kernel.name}"
    types = {"fp32": trt.DataType.FLOAT, "fp16": trt.DataType.HALF}
    description = trtp.TensorDesc
    outputs = _tuple(*[description] * len(kernel.outputs))
    made = _tuple(str, str, trtp.KernelLaunchParams, trtp.SymIntExprs)

    def describe(*inputs: Any) -> Any:
        return tuple(trtp.from_shape_expr(o.shape, types[o.dtype]) for o in kernel.outputs)

    def tune(*arguments: Any) -> Any:
        names = ", ".join(tensor.dtype.upper() for tensor in (*kernel.inputs, *kernel.outputs))
        return [trtp.AutoTuneCombination(names, "LINEAR")]

    def implement(*arguments: Any) -> Any:
        built = compiled(kernel, *_targets[kernel.name])
        params = trtp.KernelLaunchParams()
        params.grid_x, params.grid_y = built.grid
        params.block_x = 32 * built.num_warps
        params.shared_mem = built.shared
        return built.name, without_scratch(built), params, trtp.SymIntExprs(0)

    for function, decorator, last, returns in (
        (describe, trtp.register, {}, outputs),
        (tune, trtp.autotune, {"outputs": outputs}, list[trtp.AutoTuneCombination]),
        (implement, trtp.aot_impl, {"outputs": outputs, "tactic": int}, made),
    ):
        function.__signature__ = _signature(len(kernel.inputs), description, last, returns)  # type: ignore[attr-defined]
        decorator(plugin)(function)


def _tuple(*types: Any) -> Any:
    """``tuple[...]``, as an annotation."""
    return tuple.__class_getitem__(types)


def _signature(inputs: int, description: Any, last: dict[str, Any], returns: Any) -> inspect.Signature:
    annotations = {f"input_{i}": description for i in range(inputs)} | last
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind, annotation=type_) for name, type_ in annotations.items()]
    return inspect.Signature(parameters, return_annotation=returns)


def without_scratch(built: Compiled) -> str:
    """The PTX of a kernel that takes its tensors, and nothing more.

    Raises:
        EngineError: the last two parameters are not those of Triton's unused scratch memory.
    """
    entry = re.search(rf"\.entry\s+{re.escape(built.name)}\s*\((.*?)\)", built.ptx, re.DOTALL)
    given = entry[1].split(",") if entry else []
    wanted = len(built.parameters)
    struck = [parameter.split()[-1] for parameter in given[wanted:]]
    if entry is None or len(struck) != SCRATCH or any(len(re.findall(rf"\b{n}\b", built.ptx)) > 1 for n in struck):
        raise EngineError(f"{built.name} takes {len(given)} parameters, not {wanted} and {SCRATCH} unused: report this")
    return built.ptx[: entry.start(1)] + ",".join(given[:wanted]) + "\n" + built.ptx[entry.end(1) :]
