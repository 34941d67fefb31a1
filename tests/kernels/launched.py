"""Every launcher up to the launch, with no GPU: a process of its own, for it gives Triton a feigned driver.

What Triton makes of the very arguments of a launch is compiled and not run. Prints each kernel, its PTX's parameters,
and how many of its loads are vectors.
"""

from __future__ import annotations

import re
from typing import Any
from unittest import mock

import triton
from triton.backends.compiler import GPUTarget

from framecast.kernels.eifag import kernel as eifag_kernel
from framecast.kernels.launch import Launch
from framecast.kernels.stau_attention import kernel as stau_kernel
from framecast.kernels.stgru_gates import kernel as stgru_kernel

from .cases import DTYPES, eifag, stau_attention, stgru_gates  # noqa: TID252 (run as a module of the tests)


class Driver:
    """Of an Orin."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 87, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_only(launch: Launch, *arguments: Any) -> None:
    compiled = launch.kernel.warmup(*arguments, grid=launch.grid, **launch.constants, num_warps=launch.warps)
    ptx = compiled.asm["ptx"]
    print(launch.kernel.__name__, len(re.findall(r"\.param \.u64", ptx)), ptx.count("ld.global.v"))  # noqa: T201


def main() -> None:
    triton.runtime.driver.set_active(Driver())
    with mock.patch.object(Launch, "__call__", compile_only):
        for dtype in DTYPES.values():
            conv_t, _, _, conv_s, *_, t, s, bias, _ = arguments = stgru_gates((1, 64, 17, 30), dtype)
            stgru_kernel.stgru_gates(*arguments)
            stgru_kernel.gates(conv_t, conv_s, t, s, bias)
            eifag_kernel.eifag(*eifag((1, 128, 16, 16), 5, [2.0], dtype))
            stau_kernel.stau_attention(*stau_attention((1, 64, 17, 30), 5, dtype))


if __name__ == "__main__":
    main()
