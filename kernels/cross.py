"""Our Triton kernels compiled for a GPU that is not here: PTX and machine code of a static shape.

Neither a GPU, nor its driver, nor torch is needed, so that CI sees what every generation would run, and a Jetson that
builds an engine does not download torch. Triton must not be interpreting (``TRITON_INTERPRET``). A kernel so compiled
is launched with blocks of ``32 · num_warps`` threads, ``shared`` bytes of dynamic shared memory, and its ``parameters``
in order, followed by two pointers to scratch memory, which are 0.
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
_FLOAT32 = {"partials", "count", *_AFFINE}  # unless `types` says otherwise
_ALIGNED = [["tt.divisibility", 16]]  # as every allocator's pointers are, torch's and TensorRT's


@dataclass(frozen=True)
class Compiled:
    """A kernel for one architecture, type and shape.

    Attributes:
        name: of the entry in ``ptx`` and ``cubin``.
        ptx: from capability 9.0 on it runs on that architecture alone, not on later ones.
        cubin: machine code.
        grid: programs a sample, and samples.
        num_warps: a program.
        shared: bytes of dynamic shared memory.
        registers: a thread.
        spills: bytes a thread that did not fit into registers, stored and loaded.
        parameters: (name, type) of each pointer, in the order of the launch: ``("cells[0]", "*fp16")``.
        load_bits: of the widest load from global memory; 128 is the most one instruction takes before Blackwell.
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
    """Compile one kernel; about a tenth of a second, and less from Triton's cache.

    Args:
        kernel: one of ``KERNELS``.
        arch: compute capability, 87 for 8.7.
        dtype: of the activations, one of ``DTYPES``.
        shape: (C, H, W) of a state.
        batch: samples.
        slots: cells, keys or values.
        forget_bias: a constant of the kernel, as are the next two.
        eps: of the layer norms.
        scale: of the attention's scores; by default 1/√(C·H·W).
        last: whether tensors are channels-last; of the STGRU's two passes, as are the next two.
        added: whether the convolutions' biases are added.
        overlap: whether the second pass may start before the first one ends (from 9.0 on).
        types: of parameters that have another than ``dtype``; the affine, ``count`` and ``partials`` are fp32 by
            default.
        ptx_version: 85 for 8.5, where an older driver or ptxas is to take the PTX; by default the newest that Triton
            knows. One too low for ``arch`` ends the process, in LLVM.

    Raises:
        EngineError: Triton interprets, or the compiler failed.
        OptionError: no such kernel, type or shape.
    """
    if kernel not in KERNELS:
        raise OptionError(f"no kernel {kernel!r}: there are {', '.join(KERNELS)}")
    unknown = {dtype, *(types or {}).values()} - set(DTYPES)
    if unknown or min(shape) < 1 or batch < 1 or slots < 1:
        raise OptionError(f"kernels are for {', '.join(DTYPES)} and sizes from 1, not {dtype} {types} {shape} {batch}")
    if triton.knobs.runtime.interpret:
        raise EngineError("Triton interprets here and cannot compile: unset TRITON_INTERPRET")
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
        raise EngineError(f"{kernel} would need scratch memory on {arch}, which its launch does not give it")
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
    """Registers a thread, and bytes spilled, as the assembler says; Triton throws its words away."""
    tools = triton.knobs.nvidia
    tool = tools.ptxas_blackwell if arch >= 100 else tools.ptxas
    target = "".join(re.findall(r"^\.target (sm_\w+)", ptx, re.MULTILINE))
    with tempfile.TemporaryDirectory() as folder:
        file, ignored = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        file.write_text(ptx)
        options = ["-v", "--regAllocOptLevel=2", f"--gpu-name={target}"]  # as Triton calls it
        command = [tool.path, *options, file, "-o", ignored]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (Triton's own ptxas)
    used, spilled = re.search(r"Used (\d+) registers", done.stderr), re.findall(r"(\d+) bytes spill", done.stderr)
    if done.returncode or not used:
        raise EngineError(f"ptxas failed: {done.stderr.strip().splitlines()[-1:]}")
    return int(used[1]), sum(map(int, spilled))
