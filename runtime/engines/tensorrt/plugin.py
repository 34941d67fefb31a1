"""A TensorRT plugin (IPluginV3) that launches precompiled kernels. It needs neither Triton nor torch.

It is for TensorRT 10.0 to 10.8, whose engines cannot hold kernels and call Python instead. A plugin's fields hold
everything that it launches: machine code, grids and arguments. Call :func:`register` before reading an engine with such
plugins. The launches go through the driver's own library, because pycuda does not accept another library's stream. A
CUDA graph captures them, so Python does not run again.
"""

from __future__ import annotations

import ctypes
import json
import logging
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.errors import EngineError
from framecast.runtime.engines.tensorrt.cuda import libcuda_

NAME, VERSION, NAMESPACE = "framecast_kernels", "1", "framecast"
_WORD = "<i4"  # type of a field: TensorRT 10.0 reads nothing wider
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Launch:
    """One kernel of a plugin.

    Attributes:
        name: the entry point in ``cubin``.
        cubin: machine code.
        grid: programs along x and y.
        threads: threads per program.
        shared: bytes of dynamic shared memory.
        arguments: pointers: ("input", index), ("output", index), or ("workspace", offset in bytes). Two null pointers
            follow them, for scratch memory that Triton's kernels do not use.
    """

    name: str
    cubin: bytes
    grid: tuple[int, int]
    threads: int
    shared: int
    arguments: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Plugin:
    """The contents of a plugin's fields.

    Attributes:
        launches: the kernels, in order.
        types: types of the inputs, then of the outputs: ``fp32`` or ``fp16``.
        like: for each output, the input with the same shape.
        workspace: size in bytes.
    """

    launches: tuple[Launch, ...]
    types: tuple[str, ...]
    like: tuple[int, ...]
    workspace: int

    def to_words(self) -> NDArray[np.int32]:
        """Encode the plugin as 32-bit words. The first is the number of bytes in the others."""
        raw = asdict(self)
        codes = [launch.cubin for launch in self.launches]
        for launch, code in zip(raw["launches"], codes, strict=True):
            launch["cubin"] = len(code)
        data = zlib.compress(json.dumps(raw).encode() + b"\0" + b"".join(codes), 9)
        padded = data + bytes(-len(data) % 4)
        return np.concatenate([np.array([len(data)], _WORD), np.frombuffer(padded, _WORD)]).astype(np.int32)

    @classmethod
    def from_words(cls, words: Sequence[int]) -> Plugin:
        """Decode the result of :meth:`to_words`.

        Raises:
            EngineError: the words are not an encoded plugin.
        """
        try:
            data = zlib.decompress(np.array(words[1:], _WORD).tobytes()[: words[0]])
            text, _, codes = data.partition(b"\0")
            raw, launches = json.loads(text), []
            for launch in raw["launches"]:
                cubin, codes = codes[: launch["cubin"]], codes[launch["cubin"] :]
                arguments = tuple((kind, number) for kind, number in launch["arguments"])
                grid = launch["grid"][0], launch["grid"][1]
                launches.append(Launch(launch["name"], cubin, grid, launch["threads"], launch["shared"], arguments))
            return cls(tuple(launches), tuple(raw["types"]), tuple(raw["like"]), raw["workspace"])
        except (zlib.error, ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
            raise EngineError("a plugin in the engine is damaged: build it again with 'framecast build'") from error


def enqueue(plugin: Plugin, inputs: Sequence[int], outputs: Sequence[int], workspace: int, stream: int) -> None:
    """Put a plugin's launches on a stream. The stream's context must be current.

    Raises:
        EngineError: the driver refuses a launch.
    """
    libcuda = libcuda_()
    places = {"input": inputs, "output": outputs}
    for launch in plugin.launches:
        pointers = [workspace + at if kind == "workspace" else places[kind][at] for kind, at in launch.arguments]
        values = (ctypes.c_uint64 * (len(pointers) + 2))(*pointers, 0, 0)
        addresses = [ctypes.addressof(values) + 8 * i for i in range(len(values))]
        arguments = (ctypes.c_void_p * len(values))(*addresses)
        code = libcuda.cuLaunchKernel(
            function(launch.cubin, launch.name),
            *(ctypes.c_uint(size) for size in (*launch.grid, 1, launch.threads, 1, 1, launch.shared)),
            ctypes.c_void_p(stream),
            arguments,
            None,
        )
        if code:
            raise EngineError(f"the driver cannot launch {launch.name} (error {code}): check the GPU with nvidia-smi")


@cache
def function(cubin: bytes, name: str) -> ctypes.c_void_p:
    """Load a kernel in the current context, once. It stays loaded, because a process has only a handful.

    Raises:
        EngineError: the driver rejects the machine code.
    """
    libcuda = libcuda_()
    module, found = ctypes.c_void_p(), ctypes.c_void_p()
    code = libcuda.cuModuleLoadData(ctypes.byref(module), cubin)
    code = code or libcuda.cuModuleGetFunction(ctypes.byref(found), module, name.encode())
    if code:
        raise EngineError(
            f"the driver rejects the kernel {name} (error {code}): build the engine again on this machine, or "
            "with --plugins none"
        )
    return found


def register(trt: Any, plugins: Sequence[Plugin] = ()) -> None:
    """Register our plugins, so that TensorRT can read engines with them and, given ``plugins``, build engines.

    This may be called again.

    Args:
        trt: ``tensorrt``, 10.0 or newer. Never TensorRT for RTX: a registered creator makes its parser end the process.
        plugins: the plugins of a build; a node's ``index`` selects one.

    Raises:
        EngineError: ``trt`` is TensorRT for RTX, or the registration failed.
    """
    if is_rtx(trt):
        raise EngineError("TensorRT for RTX has no plugins: build with --plugins none")
    _creator(trt).plugins = tuple(plugins)


def is_rtx(trt: Any) -> bool:
    """Whether a module is TensorRT for RTX, by its name. Registering a plugin with it ends the process."""
    return str(getattr(trt, "__name__", "")).startswith("tensorrt_rtx")


@cache
def _creator(trt: Any) -> Any:
    """Register the process's only creator, and return it. The cache keeps it alive, because TensorRT does not."""
    kind = plugin_class(trt)

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_version, self.plugin_namespace = NAME, VERSION, NAMESPACE
            self.field_names = trt.PluginFieldCollection(
                [trt.PluginField("index", np.array([0], np.int32), trt.PluginFieldType.INT32)]
            )
            self.plugins: tuple[Plugin, ...] = ()

        def create_plugin(self, name: str, field_collection: Any, phase: Any) -> Any:
            try:
                fields = {field.name: int(field.data[0]) for field in field_collection}
                if phase == trt.TensorRTPhase.BUILD:
                    return kind(self.plugins[fields["index"]])
                return kind(Plugin.from_words([fields[str(i)] for i in range(len(fields))]))
            except Exception:  # log it here, before it passes through TensorRT
                _log.exception("cannot make the plugin %s", name)
                raise

    creator = Creator()
    if not trt.get_plugin_registry().register_creator(creator, NAMESPACE):
        raise EngineError("TensorRT did not register our plugins: build with --plugins none")
    return creator


@cache
def plugin_class(trt: Any) -> Any:
    """The ``IPluginV3`` class for this library. It combines the core, build and run-time capabilities."""
    types = {"fp32": trt.DataType.FLOAT, "fp16": trt.DataType.HALF}

    class KernelsPlugin(
        trt.IPluginV3,  # type: ignore[misc]
        trt.IPluginV3OneCore,  # type: ignore[misc]
        trt.IPluginV3OneBuild,  # type: ignore[misc]
        trt.IPluginV3OneRuntime,  # type: ignore[misc]
    ):
        def __init__(self, plugin: Plugin) -> None:
            for base in (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):
                base.__init__(self)
            self.plugin_name, self.plugin_version, self.plugin_namespace = NAME, VERSION, NAMESPACE
            self.num_outputs = len(plugin.like)
            self.plugin = plugin
            self.fields: Any = None
            # Never free a plugin: bindings before 10.6 end the process when Python frees one. A plugin is small.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))

        def get_capability_interface(self, type: Any) -> Any:
            return self

        def clone(self) -> Any:
            return KernelsPlugin(self.plugin)

        # Building

        def get_output_data_types(self, input_types: Any) -> Any:
            return [types[name] for name in self.plugin.types[-self.num_outputs :]]

        def get_output_shapes(self, inputs: Any, shape_inputs: Any, expr_builder: Any) -> Any:
            return [trt.DimsExprs(inputs[index]) for index in self.plugin.like]

        def supports_format_combination(self, pos: int, in_out: Any, num_inputs: int) -> bool:
            described = in_out[pos].desc
            wanted = types[self.plugin.types[pos]]
            return bool(described.format == trt.TensorFormat.LINEAR and described.type == wanted)

        def configure_plugin(self, inputs: Any, outputs: Any) -> None:
            pass

        def get_workspace_size(self, inputs: Any, outputs: Any) -> int:
            return self.plugin.workspace

        def get_valid_tactics(self) -> list[int]:
            return []

        def set_tactic(self, tactic: int) -> None:
            pass

        # Running

        def on_shape_change(self, inputs: Any, outputs: Any) -> None:
            pass

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def get_fields_to_serialize(self) -> Any:
            # One word per field: bindings older than NumPy 2 pass only the first element of a field.
            words, int32 = self.plugin.to_words(), trt.PluginFieldType.INT32
            fields = [trt.PluginField(str(i), words[i : i + 1], int32) for i in range(len(words))]
            self.fields = words, fields, trt.PluginFieldCollection(fields)  # keep them: TensorRT reads them in place
            return self.fields[-1]

        def enqueue(
            self, input_desc: Any, output_desc: Any, inputs: Any, outputs: Any, workspace: int, stream: int
        ) -> None:
            try:
                enqueue(self.plugin, inputs, outputs, workspace, stream)
            except EngineError as error:
                _log.error("%s", error)
                raise

    return KernelsPlugin
