"""Resources of our Triton kernels on every GPU generation, as the compiler reports them. It needs no GPU.

``python benchmarks/kernels_compile.py``: each state has the size of its network's largest configuration.
"""

from __future__ import annotations

import triton
from _machine import header, script

from framecast.kernels.cross import ARCHS, DTYPES, KERNELS, Compiled, compile_for

SHAPES = {"stgru": (64, 17, 30), "eifag": (128, 16, 16), "stau": (64, 17, 30)}  # stip-4k, astm-kth, stau-town


def main() -> None:
    """Print a line for each kernel, type and architecture."""
    print(header())
    print(f"triton    {triton.__version__}")
    print("\nsm: compute capability. registers: per thread. shared: bytes per program. spills: bytes per thread.")
    print("load: bits of the widest load from global memory. Layer norms' weights are fp32; 5 slots; batch 1.\n")
    print(f"{'kernel':<17} {'state':>9} {'dtype':<5} {'sm':>4} {'programs':>8} {'warps':>5}", end="")
    print(f" {'registers':>9} {'shared':>6} {'spills':>6} {'load':>4}")
    for kernel in KERNELS:
        shape = SHAPES[kernel.partition("_")[0]]
        for dtype in DTYPES:
            for arch in ARCHS:
                line(kernel, shape, dtype, arch, compile_for(kernel, arch, dtype, shape))


def line(kernel: str, shape: tuple[int, int, int], dtype: str, arch: int, compiled: Compiled) -> None:
    """Print one line of the table."""
    state = "×".join(map(str, shape))
    print(f"{kernel:<17} {state:>9} {dtype:<5} {arch:>4} {compiled.grid[0]:>8} {compiled.num_warps:>5}", end="")
    print(f" {compiled.registers:>9} {compiled.shared:>6} {compiled.spills:>6} {compiled.load_bits:>4}")


if __name__ == "__main__":
    script(main)
