"""The CPU's integer instructions, which decide whether it computes full-range int8 layers correctly.

ONNX Runtime and OpenVINO multiply uint8 activations by int8 weights. With AVX2 they add two products in 16 bits
(``VPMADDUBSW``), so a sum above 32,767 becomes 32,767. VNNI and ARM's NEON add them in 32 bits. On a CPU older
than AVX2, ONNX Runtime also adds them in 32 bits.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from framecast.graph.manifest import Manifest

_ARM = ("aarch64", "arm64")
_X86 = (  # flags of /proc/cpuinfo, newest first
    ("avx512_vnni", "AVX-512 VNNI"),
    ("avx_vnni", "AVX-VNNI"),
    ("avx2", "AVX2 without VNNI"),
    ("sse4_1", "SSE4.1"),
)


@dataclass(frozen=True)
class Int8:
    """How a CPU multiplies 8-bit integers.

    Attributes:
        instructions: the instruction set's name, or ``unknown``.
        saturates: whether the CPU is known to add two products in 16 bits.
    """

    instructions: str
    saturates: bool = False


def int8(root: Path = Path("/"), machine: str | None = None) -> Int8:
    """Find out how this CPU multiplies 8-bit integers.

    Args:
        root: the file system's root, for tests.
        machine: the architecture, for tests (default: this one).
    """
    if (machine or platform.machine()).lower() in _ARM:
        return Int8("NEON")
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return Int8("unknown")
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    name = next((name for flag, name in _X86 if flag in flags), "unknown")
    return Int8(name, saturates=name == "AVX2 without VNNI")


def caution(manifest: Manifest, cpu: Int8 | None = None) -> str | None:
    """A one-line warning, with the remedy, if the artifact may predict wrongly on this CPU; otherwise None.

    Args:
        manifest: the artifact's manifest.
        cpu: the CPU that runs it (default: this one).
    """
    if not manifest.may_saturate or not (cpu := cpu or int8()).saturates:
        return None
    return (
        f"this int8 artifact's sums can saturate on this CPU ({cpu.instructions}), which spoils predictions: quantize "
        "the float32 artifact again ('framecast quantize')"
    )
