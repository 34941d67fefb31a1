"""Cross-compiles our Triton kernels to PTX and machine code for a static shape.

This needs no GPU, no driver and no torch. So CI can check the code for every GPU generation, and a Jetson can build
engines without downloading torch. Triton's interpreter (``TRITON_INTERPRET``) must be off. Launch a compiled kernel
with blocks of ``32 · num_warps`` threads, ``shared`` bytes of dynamic shared memory, and its ``parameters`` in order,
followed by two null pointers for scratch memory.
"""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from framecast.errors import EngineError, OptionError
from framecast.kernels.eifag import kernel as eifag
from framecast.kernels.launch import Launch
from framecast.kernels.stau_attention import kernel as stau_attention
from framecast.kernels.stgru_gates import kernel as stgru_gates

ARCHS = (80, 86, 87, 89, 90, 110, 120)  # A100, RTX 30, Orin, RTX 40, H100 and H200, Thor, RTX 50
DTYPES = ("fp32", "fp16", "bf16")
KERNELS = ("stgru_statistics", "stgru_norm_gates", "stgru_gates", "eifag", "stau_scores", "stau_fuse")

_TUPLES = {"cells", "keys", "values"}
_AFFINE = {f"{name}_{side}" for name in ("weight", "bias", "added") for side in "ts"}
_FLOAT32 = {"partials", "count", *_AFFINE}  # unless `types` overrides it
_ALIGNED = [["tt.divisibility", 16]]  # bytes: torch's and TensorRT's allocators align at least to this


@dataclass(frozen=True)
class Compiled:
    """A kernel for one architecture, type and shape.

    Attributes:
        name: the entry point in ``ptx`` and ``cubin``.
        ptx: from capability 9.0 on, it runs only on its own architecture, not on later ones.
        cubin: machine code.
        grid: programs per sample, and samples.
        num_warps: warps per program.
        shared: bytes of dynamic shared memory.
        registers: registers per thread.
        spills: bytes per thread that are spilled from registers: stores plus loads.
        parameters: (name, type) of each pointer, in launch order, such as ``("cells[0]", "*fp16")``.
        load_bits: bits of the widest load from global memory. Before Blackwell one instruction loads at most 128.
    """

    name: str
    ptx: str
    cubin: bytes
    grid: tuple[int, int]
    num_warps: int
    shared: int
    registers: int
    spills: int
    parameters: tuple[tuple[str, str], ...]
    load_bits: int


def compile_for(
    kernel: str,
    arch: int,
    dtype: str,
    shape: tuple[int, int, int],
    *,
    batch: int = 1,
    slots: int = 5,
    forget_bias: float = 1.0,
    eps: float = 1e-5,
    scale: float | None = None,
    last: bool = False,
    added: bool = False,
    overlap: bool = False,
    types: Mapping[str, str] | None = None,
    ptx_version: int | None = None,
) -> Compiled:
    """Compile one kernel. This takes about 0.1 s, or less if it is in Triton's cache.

    Args:
        kernel: one of ``KERNELS``.
        arch: compute capability: 87 means 8.7.
        dtype: type of the activations, one of ``DTYPES``.
        shape: (C, H, W) of a state.
        batch: number of samples.
        slots: number of cells, keys or values.
        forget_bias: a constant of the kernel, like the next two.
        eps: epsilon of the layer norms.
        scale: factor of the attention's scores (default: 1/√(C·H·W)).
        last: whether tensors are channels-last; only for the STGRU's two passes, like the next two.
        added: whether the kernels add the convolutions' biases.
        overlap: whether the second pass may start before the first one ends (from 9.0 on).
        types: types of individual parameters (default: ``dtype``, but fp32 for the affine parameters, ``count`` and
            ``partials``).
        ptx_version: PTX version for an older driver or ptxas; 85 means 8.5 (default: the newest that Triton knows). If
            it is too low for ``arch``, LLVM ends the process.

    Raises:
        EngineError: Triton's interpreter is on, the compiler failed, or the kernel needs scratch memory.
        OptionError: there is no such kernel or type, or a size is below 1.
    """
    if kernel not in KERNELS:
        raise OptionError(f"no kernel {kernel!r}: there are {', '.join(KERNELS)}")
    unknown = {dtype, *(types or {}).values()} - set(DTYPES)
    if unknown or min(shape) < 1 or batch < 1 or slots < 1:
        raise OptionError(
            f"kernels take {', '.join(DTYPES)} and sizes of at least 1, not {dtype} {types} {shape} {batch} {slots}"
        )
    if triton.knobs.runtime.interpret:
        raise EngineError("Triton cannot compile with its interpreter on: unset TRITON_INTERPRET")
    scale = 1 / math.sqrt(math.prod(shape)) if scale is None else scale
    forms = {"last": last, "added": added, "overlap": overlap}
    launch = _launch(kernel, batch, shape, forget_bias, eps, scale, forms)
    signature: dict[str, Any] = {}
    aligned: dict[tuple[int, ...], Any] = {}
    parameters: list[tuple[str, str]] = []
    for index, name in enumerate(launch.kernel.arg_names):
        if name in launch.constants:
            signature[name] = "constexpr"
            continue
        pointer = "*" + (types or {}).get(name, "fp32" if name in _FLOAT32 else dtype)
        if name in _TUPLES:
            signature[name] = (pointer,) * slots
            aligned |= {(index, slot): _ALIGNED for slot in range(slots)}
            parameters += [(f"{name}[{slot}]", pointer) for slot in range(slots)]
        else:
            signature[name] = pointer
            aligned[index,] = _ALIGNED
            parameters.append((name, pointer))
    source = ASTSource(launch.kernel, signature=signature, constexprs=dict(launch.constants), attrs=aligned)
    options = {**launch.options, "num_warps": launch.warps, "enable_fp_fusion": True, "ptx_version": ptx_version}
    result = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    meta = result.metadata
    if meta.global_scratch_size or meta.profile_scratch_size:
        raise EngineError(f"cannot use {kernel} on {arch}: it needs scratch memory, which our launches do not provide")
    ptx = result.asm["ptx"]
    registers, spills = _resources(ptx, arch)
    load_bits = max(int(wide or 1) * int(bits) for wide, bits in re.findall(r"ld\.global(?:\.v(\d))?\.b(\d+)", ptx))
    return Compiled(
        name=meta.name,
        ptx=ptx,
        cubin=result.asm["cubin"],
        grid=launch.grid,
        num_warps=launch.warps,
        shared=meta.shared,
        registers=registers,
        spills=spills,
        parameters=tuple(parameters),
        load_bits=load_bits,
    )


def _launch(
    kernel: str,
    batch: int,
    shape: tuple[int, ...],
    forget_bias: float,
    eps: float,
    scale: float,
    forms: Mapping[str, bool],
) -> Launch:
    if kernel == "eifag":
        return eifag.launch(batch, shape, forget_bias)
    if kernel.startswith("stau"):
        return stau_attention.launches(batch, shape, scale)[kernel == "stau_fuse"]
    index = ("stgru_statistics", "stgru_norm_gates", "stgru_gates").index(kernel)
    return stgru_gates.launches(batch, shape, forget_bias, eps, **forms)[index]


def _resources(ptx: str, arch: int) -> tuple[int, int]:
    """Registers and spilled bytes per thread, as ptxas reports them. Triton discards its report."""
    tools = triton.knobs.nvidia
    tool = tools.ptxas_blackwell if arch >= 100 else tools.ptxas
    target = "".join(re.findall(r"^\.target (sm_\w+)", ptx, re.MULTILINE))
    with tempfile.TemporaryDirectory() as folder:
        file, ignored = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        file.write_text(ptx)
        options = ["-v", "--regAllocOptLevel=2", f"--gpu-name={target}"]  # Triton's own options
        command = [tool.path, *options, file, "-o", ignored]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (Triton's own ptxas)
    used, spilled = re.search(r"Used (\d+) registers", done.stderr), re.findall(r"(\d+) bytes spill", done.stderr)
    if done.returncode or not used:
        raise EngineError(f"ptxas failed: {done.stderr.strip().splitlines()[-1:]}")
    return int(used[1]), sum(map(int, spilled))
