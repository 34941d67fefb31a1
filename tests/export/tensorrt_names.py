"""Finds the names of TensorRT that our code uses, and those of them that a version lacks."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from framecast.export import tensorrt
from framecast.export.plugins import aot
from framecast.runtime.engines.tensorrt import library

FILES = [path for m in (tensorrt, aot, library) for path in sorted(Path(str(m.__file__)).parent.glob("*.py"))]
# Attributes of our ``Library``, because its variables are called ``trt`` too.
OURS = {"name", "version", "trt", "rtx", "logger", "errors"}
RTX = {"ComputeCapability"}
# Members that our code uses on objects that TensorRT returns.
CALLED = {
    "Builder": "create_network create_builder_config build_serialized_network",
    "IBuilderConfig": "clear_flag profiling_verbosity progress_monitor create_timing_cache set_timing_cache "
    "get_timing_cache",
    "ITimingCache": "serialize",
    "INetworkDefinition": "num_layers get_layer",
    "ILayer": "get_output",
    "ITensor": "dtype",
    "OnnxParser": "parse num_errors get_error",
    "ParserError": "node_operator node_name desc",
    "Runtime": "deserialize_cuda_engine",
    "ICudaEngine": "create_execution_context create_engine_inspector num_io_tensors get_tensor_name get_tensor_dtype "
    "get_tensor_shape get_tensor_mode",
    "IExecutionContext": "set_tensor_address execute_async_v3",
    "EngineInspector": "get_engine_information",
    "IPluginRegistry": "register_creator",
    "IProgressMonitor": "phase_start step_complete phase_finish",
}


def used() -> set[str]:
    """Every ``trt.NAME`` and ``trt.NAME.NAME`` in our code, without ``trt.``."""
    found = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                parts = ast.unparse(node).split(".")
                names = parts[len(parts) - parts[::-1].index("trt") :] if "trt" in parts else []
                if names and names[0] not in OURS | RTX and all(name.isidentifier() for name in names):
                    found.add(".".join(names[:2]))
    return found


def missing(trt: Any) -> list[str]:
    """The names that ``trt`` lacks."""
    wanted = used() | {f"{kind}.{name}" for kind, names in CALLED.items() for name in names.split()}
    return sorted(name for name in wanted if not _has(trt, name.split(".")))


def _has(thing: Any, names: list[str]) -> bool:
    for name in names:
        if not hasattr(thing, name):
            return False
        thing = getattr(thing, name)
    return True
