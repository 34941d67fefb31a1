"""Single integer layers with known results: matrix products and convolutions of each scheme.

Their inputs are random, or nearly all at the ends of their ranges, where 16 bits are too few. ``expected`` is computed
in 64-bit integers. For a convolution it is rounded to 8 bits, as ONNX's QLinearConv defines.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_TYPES = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}
_RANGES = {  # types of activations and weights, and the weights' limit, as in framecast.export.quantize
    "u8s7": (np.uint8, np.int8, 64),
    "u8s8": (np.uint8, np.int8, 127),
    "s8s8": (np.int8, np.int8, 127),
    "u8u8": (np.uint8, np.uint8, 255),
}
_CHANNELS = (33, 64)  # of the input: one that is not a multiple of a register's size, and one that is
_OUT, _SIDE = 24, 8


def write(folder: Path) -> dict[str, NDArray[np.int64]]:
    """Write all layers with their inputs for ``_int8_child.py``; return the expected results, by SCHEME-KIND-LAYER."""
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


def _draw(rng: np.random.Generator, kind: str, low: int, high: int, shape: tuple[int, ...]) -> NDArray:
    if kind == "ends":
        return rng.choice([low, high], shape, p=[0.1, 0.9])
    return rng.integers(low, high + 1, shape)


def _matmul(path: Path, x: NDArray, w: NDArray, _: int) -> NDArray[np.int64]:
    rows = x[0].reshape(len(x[0]), -1).T.copy()
    _save(path, helper.make_node("MatMulInteger", ["x", "w"], ["y"]), rows, {"w": w}, TensorProto.INT32)
    return rows.astype(np.int64) @ w.astype(np.int64)


def _conv(path: Path, x: NDArray, w: NDArray, side: int) -> NDArray[np.int64]:
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
    return np.clip(rounded, limits.min, limits.max).astype(np.int64)


def _save(path: Path, node: onnx.NodeProto, x: NDArray, constants: dict[str, NDArray], output: int) -> None:
    given = helper.make_tensor_value_info("x", _TYPES[x.dtype.type], x.shape)
    made = helper.make_tensor_value_info("y", output, None)
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph([node], "layer", [given], [made], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    np.savez(path.with_suffix(".npz"), x=x)
