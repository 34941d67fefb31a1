"""Runs our plugins through TensorRT's own Python layer. A separate process, because it replaces the tensorrt module.

The bindings are NVIDIA's (a wheel without the libraries; stubs replace those), and so is ``tensorrt.plugin``, the code
behind quickly deployable plugins. Shims replace what only the library can create: symbolic sizes and the registry.
Arguments: a folder with the bindings of one version, a folder for the PTX, and graphs with a fixed batch. Prints a line
of JSON about the version, and one for each plugin.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx

sys.path.insert(0, sys.argv[1])
import tensorrt_bindings

sys.modules["torch"] = None  # type: ignore[assignment] # a build needs Triton but not torch


class Size:
    """Stands in for ``IDimensionExpr``; always constant."""

    def __init__(self, value: int) -> None:
        self.value = value

    def is_constant(self) -> bool:
        return True

    def get_constant_value(self) -> int:
        return self.value


class Builder:
    """Stands in for ``IExprBuilder``."""

    def constant(self, value: int) -> Size:
        return Size(value)


class Registry:
    """Stands in for ``IPluginRegistry``: one creator for each name, version and namespace."""

    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str) -> bool:
        key = (creator.name, creator.plugin_version, namespace)
        return self.creators.setdefault(key, creator) is creator

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        return self.creators.get((name, version, namespace))


def shimmed() -> Any:
    trt: Any = ModuleType("tensorrt")
    trt.__dict__.update(tensorrt_bindings.__dict__)
    trt.__name__ = trt.__package__ = "tensorrt"
    registry = Registry()
    trt.IDimensionExpr, trt.ISymExpr = Size, type("ISymExpr", (), {})
    trt.DimsExprs = lambda given: [None] * given if isinstance(given, int) else list(given)
    trt.get_plugin_registry = lambda: registry
    sys.modules["tensorrt"] = trt
    return trt


trt = shimmed()

from framecast.export import tensorrt as export  # noqa: E402 (after the shims)
from framecast.export.plugins import candidates, rewrite  # noqa: E402
from framecast.export.plugins.ladder import obstacles, target  # noqa: E402
from framecast.runtime.engines.tensorrt import plugin as v3  # noqa: E402
from framecast.runtime.engines.tensorrt.library import Gpu, Library  # noqa: E402

from . import tensorrt_names  # noqa: E402, TID252 (runs as a module of the tests)

ORIN = Gpu("Orin", "8.7", "12.6")
TYPES = {"fp32": trt.float32, "fp16": trt.float16}
NAMES = {type_: name for name, type_ in TYPES.items()}


def described(tensors: Any) -> list[Any]:
    """A ``DynamicPluginTensorDesc`` for each tensor, a shape and a type."""
    found = []
    for shape, dtype in tensors:
        dynamic = trt.DynamicPluginTensorDesc()
        desc = trt.PluginTensorDesc()
        desc.dims, desc.type, desc.format = trt.Dims(shape), TYPES[dtype], trt.TensorFormat.LINEAR
        dynamic.desc = desc
        found.append(dynamic)
    return found


def drive_aot(node: onnx.NodeProto, call: Any, folder: Path) -> dict[str, Any]:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    name, namespace = node.op_type, attributes["plugin_namespace"].decode()
    creator = trt.get_plugin_registry().get_creator(name, attributes["plugin_version"].decode(), namespace)
    request = trt.QuickPluginCreationRequest
    strict = request.STRICT_AOT if attributes["aot"] else request.STRICT_JIT
    plugin = creator.create_plugin(name, namespace, trt.PluginFieldCollection([]), trt.TensorRTPhase.BUILD, strict)
    read = [(tensor.shape, tensor.dtype) for tensor in call.kernel.inputs]
    written = [(tensor.shape, tensor.dtype) for tensor in call.kernel.outputs]
    types = plugin.get_output_data_types([TYPES[dtype] for _, dtype in read], [len(shape) for shape, _ in read])
    shapes = plugin.get_output_shapes([[Size(size) for size in shape] for shape, _ in read], [], Builder())
    in_out = described([*read, *written])
    plugin.configure_plugin(in_out[: len(read)], in_out[len(read) :])
    formats = plugin.get_supported_format_combinations(in_out, len(read))
    plugin.configure_plugin(in_out[: len(read)], in_out[len(read) :])
    tactics = plugin.get_valid_tactics()
    plugin.set_tactic(0)
    launch, extra = SimpleNamespace(), SimpleNamespace()
    plugin.get_launch_params(None, in_out, len(read), launch, extra, Builder())
    descs = [dynamic.desc for dynamic in in_out]
    kernel, ptx = plugin.clone().get_kernel(descs[: len(read)], descs[len(read) :])
    path = folder / f"{name}.ptx"
    path.write_bytes(ptx)
    return {
        "plugin": "aot",
        "node": node.name,
        "kernel": kernel,
        "inputs": list(node.input),
        "outputs": list(node.output),
        "types": [NAMES[type_] for type_ in types],
        "shapes": [[size.value for size in shape] for shape in shapes],
        "formats": [(NAMES[desc.type], desc.format.name) for desc in formats],
        "tactics": tactics,
        "grid": [launch.grid_x.expr.value, launch.grid_y.expr.value, launch.grid_z.expr.value],
        "block": [launch.block_x.expr.value, launch.block_y.expr.value, launch.block_z.expr.value],
        "shared": launch.shared_mem.expr.value,
        "extra": extra.nbSymExprs,
        "ptx": str(path),
    }


def drive_v3(node: onnx.NodeProto, plugins: list[Any]) -> dict[str, Any]:
    creator = trt.get_plugin_registry().get_creator(node.op_type, v3.VERSION, v3.NAMESPACE)
    index = next(a.i for a in node.attribute if a.name == "index")
    phase, number = trt.TensorRTPhase, np.array([index], np.int32)
    field = trt.PluginField("index", number, trt.PluginFieldType.INT32)
    first = creator.create_plugin(node.name, trt.PluginFieldCollection([field]), phase.BUILD)
    clone = first.clone()  # kept in a variable, because the fields live only as long as the clone
    second = creator.create_plugin(node.name, clone.get_fields_to_serialize(), phase.RUNTIME)
    assert second.plugin == first.plugin == plugins[index]
    assert all(first.get_capability_interface(kind) is first for kind in trt.PluginCapabilityType.__members__.values())
    shapes = first.get_output_shapes([[Size(i)] for i in range(len(node.input))], [], Builder())
    tensors = [((1, 1, 1, 1), dtype) for dtype in first.plugin.types]
    swapped = [(shape, "fp16" if dtype == "fp32" else "fp32") for shape, dtype in tensors]
    count = len(node.input)
    attached = second.attach_to_context(None)
    return {
        "plugin": "v3",
        "node": node.name,
        "named": [attached.plugin_name, attached.plugin_version, attached.plugin_namespace, attached.num_outputs],
        "types": [NAMES[type_] for type_ in first.get_output_data_types([])],
        "like": [shape[0].value for shape in shapes],
        "takes": [first.supports_format_combination(i, described(tensors), count) for i in range(len(tensors))],
        "takes others": [first.supports_format_combination(i, described(swapped), count) for i in range(len(tensors))],
        "workspace": first.get_workspace_size([], []),
        "tactics": first.get_valid_tactics(),
        "fields": len(second.get_fields_to_serialize()),
    }


def drive_version(library: Library) -> dict[str, Any]:
    """Check all but plugins: our logger and monitor derive from TensorRT's classes, and all names that we use exist."""
    shares: list[float] = []
    with library.errors() as errors:
        for severity in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
            library.logger().log(getattr(trt.ILogger, severity), severity)

    def progress(share: float, phase: str) -> bool:
        shares.append(share)
        return True

    monitor = export._monitor(trt, progress)
    monitor.phase_start("whole", None, 2)
    monitor.phase_start("part", "whole", 1)
    went_on = [monitor.step_complete("part", 0), monitor.step_complete("whole", 0)]
    monitor.phase_finish("part")
    monitor.phase_finish("whole")
    kinds = {"FLOAT": np.float32, "UINT8": np.uint8, "BOOL": np.bool_, "INT64": np.int64}  # the types in a device graph
    return {
        "version": trt.__version__,
        "missing": tensorrt_names.missing(trt),
        "errors": errors,
        "went on": went_on,
        "shares": shares,
        "kinds": [np.dtype(trt.nptype(getattr(trt.DataType, name))) == kind for name, kind in kinds.items()],
        "rungs": [rung for rung in ("aot", "v3") if rung not in obstacles(library, ORIN, True)],
    }


def drive(path: Path, folder: Path, library: Library, aot: bool) -> list[dict[str, Any]]:
    proto, found = onnx.load(path), []
    if aot:
        placed = rewrite.with_aot(proto)[1]
        for _ in range(2):  # a second build in the same process
            rewritten, names = candidates.with_plugins(proto, "aot", library, ORIN)
        nodes = {node.name: node for node in rewritten.graph.node}
        assert names == [place.node for place in placed]
        found = [drive_aot(nodes[place.node], place.calls[0], folder) for place in placed]
    placed = rewrite.with_v3(proto, v3.NAME)[1]
    plugins = [candidates.packed(place, *target(ORIN)) for place in placed]
    for _ in range(2):
        rewritten, names = candidates.with_plugins(proto, "v3", library, ORIN)
    nodes = {node.name: node for node in rewritten.graph.node}
    assert names == [place.node for place in placed]
    return found + [drive_v3(nodes[place.node], plugins) for place in placed]


def main() -> None:
    folder, *graphs = map(Path, sys.argv[2:])
    library = Library("tensorrt", trt.__version__, trt)
    version = drive_version(library)
    lines = [version]
    for path in graphs:
        lines += [{"graph": path.stem, **line} for line in drive(path, folder, library, "aot" in version["rungs"])]
    for line in lines:
        print(json.dumps(line))  # noqa: T201 (the output)


if __name__ == "__main__":
    main()
