"""Kernels inside an engine (TensorRT 10.9 and newer): each is a quickly deployable plugin, compiled in advance to PTX.

Such an engine runs without Python. A plugin has no attributes: its name identifies it fully, so a parser cannot pass a
wrong value. TensorRT passes inputs, 32-bit integers (we have none) and outputs. Triton's kernels take two more
pointers, to scratch memory that they do not use. We remove these two parameters from the PTX; its machine code stays
the same.
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
# The compile target of each registered name. TensorRT's registry accepts a name only once per process.
_targets: dict[str, tuple[int, int | None]] = {}


def register(trt: Any, kernels: Sequence[Kernel], arch: int, ptx_version: int | None) -> None:
    """Register kernels with TensorRT by name, in our namespace. Those registered before only get this GPU as target.

    Args:
        trt: ``tensorrt``, 10.9 or newer.
        kernels: kernels to register.
        arch: compute capability, such as 87 for 8.7.
        ptx_version: PTX version, such as 85 for 8.5; None for the newest.

    Raises:
        EngineError: a kernel cannot be compiled.
    """
    trtp = importlib.import_module(f"{trt.__name__}.plugin")
    for kernel in kernels:
        compiled(kernel, arch, ptx_version)  # an error must be raised here, not inside TensorRT
        known = kernel.name in _targets
        _targets[kernel.name] = arch, ptx_version
        if not known:
            _register(trt, trtp, kernel)


def _register(trt: Any, trtp: Any, kernel: Kernel) -> None:
    """Register one kernel. TensorRT reads the functions' signatures, so each gets one with the kernel's arguments."""
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
    """Return ``tuple[...]`` as an annotation."""
    return tuple.__class_getitem__(types)


def _signature(inputs: int, description: Any, last: dict[str, Any], returns: Any) -> inspect.Signature:
    annotations = {f"input_{i}": description for i in range(inputs)} | last
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind, annotation=type_) for name, type_ in annotations.items()]
    return inspect.Signature(parameters, return_annotation=returns)


def without_scratch(built: Compiled) -> str:
    """Return a kernel's PTX with no parameters but its tensors.

    Raises:
        EngineError: the last two parameters are not Triton's unused scratch memory.
    """
    entry = re.search(rf"\.entry\s+{re.escape(built.name)}\s*\((.*?)\)", built.ptx, re.DOTALL)
    given = entry[1].split(",") if entry else []
    wanted = len(built.parameters)
    struck = [parameter.split()[-1] for parameter in given[wanted:]]
    if entry is None or len(struck) != SCRATCH or any(len(re.findall(rf"\b{n}\b", built.ptx)) > 1 for n in struck):
        raise EngineError(f"{built.name} takes {len(given)} parameters, not {wanted} and {SCRATCH} unused: report this")
    return built.ptx[: entry.start(1)] + ",".join(given[:wanted]) + "\n" + built.ptx[entry.end(1) :]
