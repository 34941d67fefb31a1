"""What ``gpu_check.py`` measures: every way to run a network with torch. A new way is one row of ``VARIANTS``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Variant:
    """A way to run a network.

    Attributes:
        name: for the tables.
        options: keyword arguments of ``TorchEngine``, besides the network, its manifest and the device.
        slow: whether it takes minutes until its first step. Such variants run last.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False


# The most important first: if time runs out, the rest do not run.
VARIANTS = (
    Variant("graph, kernels"),
    Variant("graph", {"kernels": False}),
    Variant("graph, kernels, tf32", {"precision": "tf32"}),
    Variant("graph, kernels, fp16", {"precision": "fp16"}),
    Variant("graph, tf32", {"kernels": False, "precision": "tf32"}),
    Variant("graph, fp16", {"kernels": False, "precision": "fp16"}),
    Variant("graph, kernels, fp16, channels first", {"precision": "fp16", "channels_last": False}),
    Variant("graph, kernels, overlap", {"overlap": True}),
    Variant("graph, kernels, no branch", {"branch": False}),
    Variant("graph, kernels, channels last", {"channels_last": True}),
    Variant("graph, kernels, fp16, overlap", {"precision": "fp16", "overlap": True}),
    Variant("eager, kernels", {"graph": False}),
    Variant("eager", {"kernels": False, "graph": False}),
    Variant("compiled, graph, kernels", {"compiled": True}, slow=True),
    Variant("compiled, graph, kernels, fp16", {"compiled": True, "precision": "fp16"}, slow=True),
    Variant("compiled", {"kernels": False, "graph": False, "compiled": True}, slow=True),
)
BEST = VARIANTS[0]  # the default
HALF = next(variant for variant in VARIANTS if variant.options.get("precision") == "fp16")

OTHERS = ("onnxruntime-cuda", "tensorrt:fp32", "tensorrt:fp16")  # other engines, by their names in ``ENGINES``
CONFIGS = (
    "stip-edge",
    "stau-mnist",
    "mau-mnist",
    "tau-mnist",
    "astm-mnist",
    "stau-kitti",
)  # more networks, besides stip-ucf and stip-4k
SIZES = ((640, 480), (1280, 720))  # width and height of the default model's pictures
CHECKED_SIZE = (64, 48)  # the GPU is compared with the CPU at this size, because the CPU is slow at SIZES

# Largest error over a rollout, in units of the value range. float32 results differ by the order of their roundings;
# TF32 and fp16 have 11 bits.
ALLOWED = {"fp32": 1e-4, "tf32": 2e-2, "fp16": 2e-2}

# The targets of docs/gpu.md: (description, section, row, figure, bound, whether less is better).
TARGETS = (
    ("STGRU gates, stip-4k's size, share of a copy", "bandwidth", "stgru_gates stip-4k fp32", "share", 0.7, False),
    ("stip-ucf, a step on the device, ms", "stip-ucf", "stip-ucf graph, kernels", "replay", 0.45, True),
    ("stip-ucf, a step with its pictures, ms", "stip-ucf", "stip-ucf graph, kernels", "p50", 0.45, True),
    ("stip-ucf, eager window over a step", "window", "stip-ucf eager window", "ratio", 10.0, False),
    ("stip-4k, a step on the device, ms", "stip-4k", "stip-4k graph, kernels", "replay", 4.0, True),
    ("stip-4k, a step with its pictures, ms", "stip-4k", "stip-4k graph, kernels", "p50", 4.0, True),
    ("steady stream, allocations a frame", "steady", "stip-ucf graph, kernels", "allocations", 0.0, True),
    ("steady stream, waits a frame", "steady", "stip-ucf graph, kernels", "waits", 1.0, True),
)

# In a dry run on the CPU: the same networks, as small as possible.
_STIP = {"hidden": 8, "layers": 1, "stages": 1, "height": 32, "width": 32}
_MAU = {"hidden": 4, "layers": 1}
_TAU = {"frames": 3, "hidden_spatial": 4, "hidden_temporal": 8, "encoder_layers": 2, "translator_layers": 2}
SMALL: Mapping[str, Mapping[str, Any]] = {
    "stip-ucf": _STIP,
    "stip-4k": {**_STIP, "height": 64, "width": 64},
    "stip-edge": {"hidden": 8, "layers": 1, "height": 48, "width": 64},
    "mau-mnist": _MAU,
    "tau-mnist": _TAU,
}
DRY_CONFIGS = ("tau-mnist",)
DRY_SIZES = (CHECKED_SIZE,)
