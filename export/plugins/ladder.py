"""Which rung of the plugin ladder is available: AOT plugins, IPluginV3, or plain operators.

- ``aot``, from TensorRT 10.9 on: the engine contains our kernels and needs no Python to run.
- ``v3``, from TensorRT 10.0 on: the engine calls Python, which launches our kernels.
- ``plain``: standard operators, everywhere. TensorRT for RTX has no plugins, so it always uses this rung.

``auto`` uses an available plugin rung only if it measures faster on that GPU.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass

from framecast.errors import OptionError
from framecast.runtime.engines.tensorrt.library import Gpu, Library
from framecast.runtime.engines.tensorrt.plugin import is_rtx

PLAIN = "plain"
NO_OPERATOR = "the network has no operator with a kernel"
CHOICES = ("auto", "aot", "v3", "none")
# The first TensorRT version of each rung, the newest first.
SINCE: Mapping[str, tuple[int, int]] = {"aot": (10, 9), "v3": (10, 0)}
# The name in tensorrt that each rung needs.
_NEEDS = {"aot": "QuickPluginCreationRequest", "v3": "IPluginV3OneRuntime"}
# Compute capabilities that Triton compiles for, and the minimum PTX version of each.
LEAST_PTX = {
    "7.5": 63,
    "8.0": 70,
    "8.6": 71,
    "8.7": 74,
    "8.9": 78,
    "9.0": 80,
    "10.0": 86,
    "10.3": 88,
    "11.0": 90,
    "12.0": 87,
    "12.1": 88,
}
NEWEST_PTX = 87  # newest that Triton 3.7's assembler accepts for GPUs older than Blackwell
NEWEST_PTX_BLACKWELL = 90


@dataclass(frozen=True)
class Choice:
    """The rungs to build, and why. If there are several, they are compared by speed."""

    rungs: tuple[str, ...]
    why: str


def choose(asked: str, library: Library, gpu: Gpu | None, has_operators: bool) -> Choice:
    """Choose the rungs to build.

    Args:
        asked: one of ``CHOICES``.
        library: library that builds.
        gpu: GPU of this machine, or None.
        has_operators: whether the network has an operator with a kernel.

    Raises:
        OptionError: the requested rung is not available; the message says why and what to do.
    """
    if asked not in CHOICES:
        raise OptionError(f"--plugins takes {', '.join(CHOICES)}, not {asked}")
    if asked == "none":
        return Choice((PLAIN,), "no plugins were requested")
    reasons = obstacles(library, gpu, has_operators)
    if asked != "auto":
        if asked in reasons:
            raise OptionError(f"cannot use --plugins {asked} here: {reasons[asked]}; or use --plugins auto or none")
        return Choice((asked,), f"--plugins {asked} was requested")
    best = next((rung for rung in SINCE if rung not in reasons), None)
    if best is None:
        return Choice((PLAIN,), next(iter(reasons.values())))
    return Choice((PLAIN, best), "measured")


def obstacles(library: Library, gpu: Gpu | None, has_operators: bool) -> dict[str, str]:
    """Return why each unavailable rung is unavailable, and what to do."""
    common = _common(library, gpu, has_operators)
    return {rung: reason for rung in SINCE if (reason := common or _of_version(library, rung))}


def _common(library: Library, gpu: Gpu | None, has_operators: bool) -> str:
    if library.rtx or is_rtx(library.trt):
        return "TensorRT for RTX has no plugins (the tensorrt of JetPack and NVIDIA's containers has them)"
    if not has_operators:
        return NO_OPERATOR
    if gpu is None:
        return "there is no GPU to compile kernels for: build on the device"
    if importlib.util.find_spec("triton") is None:
        return "Triton, which compiles kernels, is missing: pip install 'framecast[triton]', in a clone: -e '.[triton]'"
    least = LEAST_PTX.get(gpu.capability)
    if least is None:
        return f"Triton does not compile for compute capability {gpu.capability} (only for {', '.join(LEAST_PTX)})"
    if driver_ptx(gpu.driver) < least:
        return f"the driver (CUDA {gpu.driver}) is too old to read kernels for this GPU: update it"
    return ""


def _of_version(library: Library, rung: str) -> str:
    since = SINCE[rung]
    wanted = ".".join(map(str, since))
    numbers = re.findall(r"\d+", library.version)
    if (int(numbers[0]), int(numbers[1]) if len(numbers) > 1 else 0) < since:
        return f"it needs TensorRT {wanted} or newer, but {library.version} is installed: update it"
    if not hasattr(library.trt, _NEEDS[rung]):
        return f"this TensorRT {library.version} does not include it: install NVIDIA's own Python package"
    return ""


def driver_ptx(cuda: str) -> int:
    """Return the newest PTX version that a driver reads, from its CUDA version: 85 for 12.6."""
    major, minor = (int(part) for part in cuda.split("."))
    if major < 12:
        return 70 + minor if major == 11 else 0
    return 80 + minor - (minor >= 6) if major == 12 else 90 + 10 * (major - 13) + minor


def target(gpu: Gpu) -> tuple[int, int]:
    """Return the architecture and PTX version to compile for: 87 and 85 for an Orin with CUDA 12.6."""
    arch = int(gpu.capability.replace(".", ""))
    return arch, min(driver_ptx(gpu.driver), NEWEST_PTX_BLACKWELL if arch >= 100 else NEWEST_PTX)
