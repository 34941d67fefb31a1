"""Single integer layers as graphs, with inputs: synthetic layers for each scheme, and the layers of an artifact."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_TYPES = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}
_RANGES = {  # types of activations and weights, largest weight; as in framecast.export.quantize
    "u8s7": (np.uint8, np.int8, 64),
    "u8s8": (np.uint8, np.int8, 127),
    "s8s8": (np.int8, np.int8, 127),
    "u8u8": (np.uint8, np.uint8, 255),
}
_CHANNELS = (33, 64)  # input channels: the second is a multiple of a vector register's width
_OUT, _SIDE = 24, 8


def write(folder: Path) -> dict[str, NDArray[np.int64]]:
    """Write synthetic matrix products and convolutions; return the expected outputs by SCHEME-KIND-LAYER-CHANNELS.

    Inputs are random, or nearly all at the ends of their ranges, where 16-bit sums overflow. Expected outputs are
    computed in 64-bit integers; a convolution's is then rounded to 8 bits as ONNX defines QLinearConv.
    """
    expected = {}
    for scheme, (activation, weight, limit) in _RANGES.items():
        lows = np.iinfo(activation).min, 0 if weight is np.uint8 else -limit
        for kind in ("random", "ends"):
            rng = np.random.default_rng(0)
            for channels in _CHANNELS:
                for name, side, shape in (
                    ("matmul", 0, (channels, _OUT)),
                    ("conv1", 1, (_OUT, channels, 1, 1)),
                    ("conv3", 3, (_OUT, channels, 3, 3)),
                    ("depthwise3", 3, (channels, 1, 3, 3)),
                ):
                    ends = lows[0], int(np.iinfo(activation).max)
                    x = _draw(rng, kind, *ends, (1, channels, _SIDE, _SIDE)).astype(activation)
                    w = _draw(rng, kind, lows[1], limit, shape).astype(weight)
                    label = f"{scheme}-{kind}-{name}-{channels}"
                    layer = _matmul if name == "matmul" else _conv
                    expected[label] = layer(folder / f"{label}.onnx", x, w, side)
    return expected


def cut(artifact: Path, inputs: Mapping[str, NDArray[Any]], folder: Path) -> dict[str, NDArray[Any]]:
    """Write an artifact's QLinearConv layers, each with its input for the given inputs; return this CPU's outputs.

    They come from ONNX Runtime's optimized graph of the artifact, without layout optimizations.
    """
    from onnxruntime import GraphOptimizationLevel  # after framecast, which turns its telemetry off

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "optimized.onnx"
        _session(artifact, GraphOptimizationLevel.ORT_ENABLE_EXTENDED, path)
        proto = onnx.load(path)
        constants = {i.name: i for i in proto.graph.initializer}
        nodes = [node for node in proto.graph.node if node.op_type == "QLinearConv"]
        seen = list(dict.fromkeys([node.input[0] for node in nodes] + [node.output[0] for node in nodes]))
        proto.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in seen)
        onnx.save(proto, path)
        tapped = _session(path, GraphOptimizationLevel.ORT_DISABLE_ALL)
        values = dict(zip(seen, tapped.run(seen, dict(inputs)), strict=True))
    expected = {}
    for node in nodes:
        x, y = values[node.input[0]], values[node.output[0]]
        label = node.output[0].replace("/", ".")
        own = {name: numpy_helper.to_array(constants[name]) for name in node.input[1:] if name}
        node.input[0], node.output[0] = "x", "y"
        _save(folder / f"{label}.onnx", node, x, own, _TYPES[y.dtype.type])
        expected[label] = y
    return expected


def _session(path: Path, level: Any, optimized: Path | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 4
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _draw(rng: np.random.Generator, kind: str, low: int, high: int, shape: tuple[int, ...]) -> NDArray[Any]:
    if kind == "ends":
        return rng.choice([low, high], shape, p=[0.1, 0.9])
    return rng.integers(low, high + 1, shape)


def _matmul(path: Path, x: NDArray[Any], w: NDArray[Any], _: int) -> NDArray[np.int64]:
    rows = x[0].reshape(len(x[0]), -1).T.copy()
    _save(path, helper.make_node("MatMulInteger", ["x", "w"], ["y"]), rows, {"w": w}, TensorProto.INT32)
    sums: NDArray[np.int64] = rows.astype(np.int64) @ w.astype(np.int64)
    return sums


def _conv(path: Path, x: NDArray[Any], w: NDArray[Any], side: int) -> NDArray[np.int64]:
    border = side // 2
    padded = np.pad(x[0].astype(np.int64), ((0, 0), (border, border), (border, border)))
    sums = np.zeros((len(w), _SIDE, _SIDE), np.int64)
    for i in range(side):
        for j in range(side):
            seen, tap = padded[:, i : i + _SIDE, j : j + _SIDE], w[:, :, i, j].astype(np.int64)
            sums += tap[:, 0, None, None] * seen if w.shape[1] == 1 else np.einsum("oc,chw->ohw", tap, seen)
    scale, zero = np.float32(np.abs(sums).max() / 120), x.dtype.type(128 if x.dtype == np.uint8 else 0)
    constants = {
        "w": w,
        "one": np.float32(1),
        "zero": x.dtype.type(0),
        "ones": np.ones(len(w), np.float32),
        "zeros": np.zeros(len(w), w.dtype),
        "scale": scale,
        "shift": zero,
    }
    names = ["x", "one", "zero", "w", "ones", "zeros", "scale", "shift"]
    groups = x.shape[1] if w.shape[1] == 1 else 1
    node = helper.make_node("QLinearConv", names, ["y"], pads=[border] * 4, group=groups)
    _save(path, node, x, constants, _TYPES[x.dtype.type])
    limits = np.iinfo(x.dtype)
    rounded = np.rint(sums[None].astype(np.float32) * (np.float32(1) / scale)) + int(zero)
    clipped: NDArray[np.int64] = np.clip(rounded, limits.min, limits.max).astype(np.int64)
    return clipped


def _save(path: Path, node: onnx.NodeProto, x: NDArray[Any], constants: dict[str, NDArray[Any]], output: int) -> None:
    given = helper.make_tensor_value_info("x", _TYPES[x.dtype.type], x.shape)
    made = helper.make_tensor_value_info("y", output, None)
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph([node], "layer", [given], [made], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    np.savez(path.with_suffix(".npz"), x=x)
