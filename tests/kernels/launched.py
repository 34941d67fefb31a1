"""Runs every launcher without a GPU. A separate process, because it gives Triton a fake driver.

Triton compiles the kernels for the actual launch arguments, and the PTX interpreter runs them. For each kernel, prints
its name and the number of PTX parameters and of vector loads. For each operator, prints ``=``, the name, the type, and
the error against float64 as a multiple of the tolerance.
"""

from __future__ import annotations

import ctypes
import re
from typing import Any
from unittest import mock

import numpy as np
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget

from framecast.kernels import switch
from framecast.kernels.eifag import kernel as eifag_kernel
from framecast.kernels.eifag import reference as eifag_reference
from framecast.kernels.launch import Launch
from framecast.kernels.layout import as_channels_last
from framecast.kernels.stau_attention import kernel as stau_kernel
from framecast.kernels.stau_attention import reference as stau_reference
from framecast.kernels.stgru_gates import kernel as stgru_kernel
from framecast.kernels.stgru_gates import reference as stgru_reference

from .cases import DTYPES, double, eifag, error, stau_attention, stgru_gates  # noqa: TID252 (runs as a module)
from .ptx.machine import launch as launch_ptx  # noqa: TID252
from .ptx.memory import Memory  # noqa: TID252
from .ptx.operators import OUTPUTS, TOLERANCES  # noqa: TID252


class Driver:
    """A fake driver of an Orin, or of the GPU that ``arch`` names."""

    arch = 87

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return self.arch  # a new number for each architecture, because Triton asks each device only once

    def get_current_stream(self, device: int) -> int:
        return 0


class Device:
    """The interpreter's memory; a tensor keeps the address of its first launch."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.places: dict[int, int] = {}
        self.tensors: list[Tensor] = []  # kept alive, so that torch does not reuse their addresses

    def address(self, name: str, tensor: Tensor) -> int:
        start = tensor.data_ptr()
        if start not in self.places:
            content = np.frombuffer(ctypes.string_at(start, tensor.nbytes), np.uint8)
            written = name in OUTPUTS
            self.places[start] = self.memory.space(name, tensor.nbytes) if written else self.memory.add(name, content)
            self.tensors.append(tensor)
        return self.places[start]

    def launch(self, launch: Launch, *arguments: Any) -> None:
        options = {**launch.constants, **launch.options, "num_warps": launch.warps}
        compiled = launch.kernel.warmup(*arguments, grid=launch.grid, **options)
        ptx, shared = compiled.asm["ptx"], compiled.metadata.shared
        print(launch.kernel.__name__, len(re.findall(r"\.param \.u64", ptx)), ptx.count("ld.global.v"))  # noqa: T201
        named = list(zip(launch.kernel.arg_names, arguments, strict=False))
        flat = [(name, x) for name, given in named for x in (given if isinstance(given, tuple) else (given,))]
        pointers = [self.address(name, x) for name, x in flat]
        threads = 32 * launch.warps
        launch_ptx(self.memory, ptx, compiled.metadata.name, launch.grid, threads, shared, [*pointers, 0, 0])
        for (name, tensor), address in zip(flat, pointers, strict=True):
            if name in OUTPUTS:
                ctypes.memmove(
                    tensor.data_ptr(), self.memory.read(address, np.uint8, tensor.nbytes).tobytes(), tensor.nbytes
                )


def launching() -> Any:
    """A context in which the interpreter runs all launches, on a new device."""
    device = Device()
    return mock.patch.object(Launch, "__call__", lambda launch, *arguments: device.launch(launch, *arguments))


def check(name: str, dtype: str, results: Any, expected: Any) -> None:
    print("=", name, dtype, error(results, expected) / TOLERANCES[dtype])  # noqa: T201


def main() -> None:
    torch.manual_seed(0)
    triton.runtime.driver.set_active(Driver())
    for name, dtype in DTYPES.items():
        with launching():
            conv_t, _, _, conv_s, *_, t, s, bias, _ = arguments = stgru_gates((1, 64, 17, 30), dtype)
            check("stgru", name, stgru_kernel.stgru_gates(*arguments), stgru_reference.stgru_gates(*double(arguments)))
            stgru_kernel.gates(conv_t, conv_s, t, s, bias)
            arguments = eifag((1, 128, 16, 16), 5, [2.0], dtype)
            check("eifag", name, eifag_kernel.eifag(*arguments), (eifag_reference.eifag(*double(arguments)),))
            arguments = stau_attention((1, 64, 17, 30), 5, dtype)
            check(
                "stau", name, stau_kernel.stau_attention(*arguments), stau_reference.stau_attention(*double(arguments))
            )
    # The form for tensor cores, with overlapping passes and odd sizes.
    Driver.arch = 90
    arguments = [*stgru_gates((2, 7, 9, 11), torch.float16), torch.randn(28), torch.randn(28)]
    arguments = [as_channels_last(x) if isinstance(x, Tensor) else x for x in arguments]
    with launching(), switch.overlapped():
        results = stgru_kernel.stgru_gates(*arguments)
    check("overlapped", "fp16", results, stgru_reference.stgru_gates(*double(arguments)))


if __name__ == "__main__":
    main()
