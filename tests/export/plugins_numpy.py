"""Our kernels in NumPy and float64, and an evaluator that runs graphs of plugins with them: every launch, no GPU.

Each kernel follows the docstring of the real one, including partial results. So a plugin that passes a wrong tensor, or
a wrong order, gives different numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from framecast.export.plugins.operators import Kernel
from framecast.export.plugins.rewrite import Placed
from framecast.kernels.cross import _launch
from framecast.runtime.engines.tensorrt.plugin import Plugin

Arrays = Sequence[np.ndarray]


def constants(kernel: Kernel) -> dict[str, Any]:
    """The constants of the kernel's launch: sizes, blocks, and the number of elements per program."""
    values = {"forget_bias": 0.0, "eps": 0.0, "scale": 0.0, **dict(kernel.constants)}
    forget_bias, eps, scale = (values[name] for name in ("forget_bias", "eps", "scale"))
    launch = _launch(kernel.kernel, kernel.batch, kernel.state, forget_bias, eps, scale, {})
    return {**launch.constants, "grid": launch.grid}


def sigmoid(x: np.ndarray) -> np.ndarray:
    squashed: np.ndarray = 1 / (1 + np.exp(-x))
    return squashed


def statistics(kernel: Kernel, conv_t: np.ndarray, conv_s: np.ndarray) -> Arrays:
    sizes = constants(kernel)
    part = sizes["tiles"] * sizes["block"]
    partials = np.empty((kernel.batch, 4, sizes["programs"]))
    for b in range(kernel.batch):
        for row, conv in ((0, conv_t), (2, conv_s)):
            flat = conv[b].reshape(-1) - conv[b].flat[0]
            for program in range(sizes["programs"]):
                taken = flat[program * part : (program + 1) * part]
                partials[b, row, program] = taken.mean()
                partials[b, row + 1, program] = ((taken - taken.mean()) ** 2).sum()
    return [partials]


def norm_gates(kernel: Kernel, *arrays: np.ndarray) -> Arrays:
    conv_t, weight_t, bias_t, conv_s, weight_s, bias_s, t, s, partials = arrays
    sizes = constants(kernel)
    total = 4 * sizes["size"]
    n = np.clip(total - np.arange(sizes["programs"]) * sizes["part"], 0, sizes["part"])

    def normed(conv: np.ndarray, weight: np.ndarray, bias: np.ndarray, row: int) -> list[np.ndarray]:
        means, m2 = partials[:, row], partials[:, row + 1]
        mean = (n * means).sum(1, keepdims=True) / total
        variance = (m2 + n * (means - mean) ** 2).sum(1) / total
        mean, variance = mean.reshape(-1, 1, 1, 1), variance.reshape(-1, 1, 1, 1)
        shifted = conv - conv.reshape(len(conv), -1)[:, :1].reshape(-1, 1, 1, 1)
        return np.split((shifted - mean) / np.sqrt(variance + sizes["eps"]) * weight + bias, 4, axis=1)

    z_t, r_t, t_t, s_t = normed(conv_t, weight_t, bias_t, 0)
    z_s, r_s, t_s, s_s = normed(conv_s, weight_s, bias_s, 2)
    update, reset = sigmoid(z_t + z_s + sizes["forget_bias"]), sigmoid(r_t + r_s)
    new_t = (1 - update) * np.tanh(t_t + reset * t_s) + update * t
    return [new_t, (1 - update) * np.tanh(s_s + reset * s_t) + update * s]


def eifag(kernel: Kernel, *arrays: np.ndarray) -> Arrays:
    cells = np.stack(arrays[: kernel.slots])
    count, own, forget, candidate = arrays[kernel.slots :]
    gate = sigmoid(forget + dict(kernel.constants)["forget_bias"])
    steps = np.arange(kernel.slots).reshape(-1, 1, 1, 1, 1)
    scores = np.where(count < steps, -np.inf, cells * gate)
    weights = np.exp(scores - scores.max(0))
    gathered = (weights * cells).sum(0) / weights.sum(0)
    return [sigmoid(own) * np.tanh(candidate) + gate * gathered]


def scores(kernel: Kernel, *arrays: np.ndarray) -> Arrays:
    sizes = constants(kernel)
    part = sizes["tiles"] * sizes["block"]
    keys, query = np.stack(arrays[:-1], 1), arrays[-1]
    products = (keys * query[:, None]).reshape(kernel.batch, kernel.slots, -1)
    parts = [products[..., i * part : (i + 1) * part].sum(-1) for i in range(sizes["programs"])]
    return [np.stack(parts, -1)]


def fuse(kernel: Kernel, *arrays: np.ndarray) -> Arrays:
    values = np.stack(arrays[: kernel.slots], 1)
    gate, current, partials = arrays[kernel.slots :]
    scaled = partials.sum(-1) * dict(kernel.constants)["scale"]
    weights = np.exp(scaled - scaled.max(1, keepdims=True))
    weights = (weights / weights.sum(1, keepdims=True)).reshape(*weights.shape, 1, 1, 1)
    fusion = sigmoid(gate)
    return [fusion * current + (1 - fusion) * (weights * values).sum(1)]


KERNELS: dict[str, Callable[..., Arrays]] = {
    "stgru_statistics": statistics,
    "stgru_norm_gates": norm_gates,
    "eifag": eifag,
    "stau_scores": scores,
    "stau_fuse": fuse,
}


def computed(kernel: Kernel, arrays: Arrays) -> Arrays:
    """A kernel's outputs, in float32. Checks that its tensors have the shapes and types that the kernel declares."""
    for array, tensor in zip(arrays, kernel.inputs, strict=True):
        assert array.shape == tensor.shape
        assert array.dtype == (np.float16 if tensor.dtype == "fp16" else np.float32)
    outputs = KERNELS[kernel.kernel](kernel, *(array.astype(np.float64) for array in arrays))
    for array, tensor in zip(outputs, kernel.outputs, strict=True):
        assert array.shape == tensor.shape
    return [array.astype(np.float32) for array in outputs]


def evaluator(proto: ModelProto, run: Callable[[NodeProto, Arrays], Arrays]) -> ReferenceEvaluator:
    """An evaluator of a graph that runs plugins with ``run``."""
    ours = {node.op_type: node.domain for node in proto.graph.node if node.name.startswith("plugin.")}

    def operator(op_type: str, domain: str) -> type:
        def _run(self: Any, *arrays: np.ndarray, **_: Any) -> tuple[np.ndarray, ...]:
            return tuple(run(self.onnx_node, arrays))

        return type(op_type, (OpRun,), {"op_domain": domain, "_run": _run})

    return ReferenceEvaluator(proto, new_ops=[operator(*item) for item in ours.items()])


def by_kernels(placed: Sequence[Placed]) -> Callable[[NodeProto, Arrays], Arrays]:
    """Run nodes that are one kernel each."""
    known = {place.node: place.calls[0].kernel for place in placed}
    return lambda node, arrays: computed(known[node.name], arrays)


def by_launches(placed: Sequence[Placed], plugins: Sequence[Plugin]) -> Callable[[NodeProto, Arrays], Arrays]:
    """Run nodes that are one plugin each. A launch finds its tensors only by its arguments."""

    def run(node: NodeProto, arrays: Arrays) -> Arrays:
        index = next(a.i for a in node.attribute if a.name == "index")
        memory: dict[tuple[str, int], np.ndarray] = {("input", i): array for i, array in enumerate(arrays)}
        plugin = plugins[index]
        assert [array.dtype == np.float16 for array in arrays] == [t == "fp16" for t in plugin.types[: len(arrays)]]
        for launch, call in zip(plugin.launches, placed[index].calls, strict=True):
            count = len(call.kernel.inputs)
            written = computed(call.kernel, [memory[place] for place in launch.arguments[:count]])
            memory |= dict(zip(launch.arguments[count:], written, strict=True))
        return [memory["output", i] for i in range(len(plugin.like))]

    return run
