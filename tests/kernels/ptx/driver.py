"""A fake CUDA driver and a fake TensorRT, which run the kernels of our plugins in the interpreter.

The driver receives machine code and looks up the PTX that it was made from.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

from .machine import launch, prepared  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from .memory import Memory  # noqa: TID252


class Driver:
    """The functions of libcuda that a launcher calls. A launch runs immediately.

    Args:
        memory: the device's memory.
        sources: the PTX of each machine code.
    """

    def __init__(self, memory: Memory, sources: Mapping[bytes, str]) -> None:
        self.memory, self.sources = memory, sources
        self.launched: list[str] = []
        self._handles: list[Any] = []

    def _handle(self, place: Any, value: Any) -> int:
        self._handles.append(value)
        place._obj.value = len(self._handles)  # _obj is what ctypes.byref points to
        return 0

    def cuModuleLoadData(self, module: Any, image: bytes) -> int:  # noqa: N802 (the driver's names)
        return self._handle(module, self.sources[image])

    def cuModuleGetFunction(self, function: Any, module: Any, name: bytes) -> int:  # noqa: N802
        return self._handle(function, (self._handles[module.value - 1], name.decode()))

    def cuLaunchKernel(self, function: Any, *given: Any) -> int:  # noqa: N802
        """Run the kernel. Reads as many arguments as it has parameters."""
        ptx, name = self._handles[function.value - 1]
        *sizes, shared = (size.value for size in given[:7])
        _, arguments, extra = given[7:]
        assert extra is None
        assert sizes[2] == sizes[4] == sizes[5] == 1
        program, _ = prepared(ptx)
        pointers = [ctypes.c_uint64.from_address(arguments[i]).value for i in range(len(program.parameters))]
        launch(self.memory, ptx, name, (sizes[0], sizes[1]), sizes[3], shared, pointers)
        self.launched.append(name)
        return 0


class Launched:
    """Stands in for ``KernelLaunchParams``, with TensorRT's defaults."""

    def __init__(self) -> None:
        self.grid_x = self.grid_y = self.grid_z = self.block_x = self.block_y = self.block_z = 1
        self.shared_mem = 0


class Aot:
    """The part of TensorRT that ahead-of-time plugins use. It keeps the registered functions.

    Attributes:
        trt: the fake module.
        kernels: by plugin name, a function that returns (kernel name, PTX, launch, extra arguments).
    """

    def __init__(self) -> None:
        self.kernels: dict[str, Callable[..., Any]] = {}
        self.trt: Any = SimpleNamespace(__name__="fake_tensorrt", DataType=SimpleNamespace(FLOAT="FLOAT", HALF="HALF"))
        plugin: Any = ModuleType("fake_tensorrt.plugin")
        plugin.TensorDesc, plugin.KernelLaunchParams = SimpleNamespace, Launched
        plugin.SymIntExprs, plugin.AutoTuneCombination = (lambda count: [None] * count), SimpleNamespace
        plugin.register = plugin.autotune = lambda name: lambda function: function
        plugin.aot_impl = lambda name: lambda function: self.kernels.setdefault(name, function)
        self._plugin = plugin

    @contextmanager
    def installed(self) -> Iterator[None]:
        """A context in which our registration can import the fake ``tensorrt.plugin``."""
        name = self._plugin.__name__
        sys.modules[name] = self._plugin
        try:
            yield
        finally:
            del sys.modules[name]

    def run(self, memory: Memory, name: str, pointers: list[int]) -> None:
        """Run a plugin as an engine does. The arguments are the inputs and then the outputs, without extra integers."""
        kernel, ptx, params, extra = self.kernels[name]()
        assert not extra
        assert params.grid_z == params.block_y == params.block_z == 1
        grid = params.grid_x, params.grid_y
        launch(memory, ptx, kernel, grid, params.block_x, params.shared_mem, pointers)
