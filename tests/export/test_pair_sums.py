"""The bound on the sum of two products in an int8 layer, compared with a search over every pair."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from framecast.export.pair_sums import pair_sums


def layer(op: str, weights: np.ndarray, activations: type = np.uint8, **attributes: Any) -> onnx.ModelProto:
    """A graph of one layer, with its inputs dequantized."""
    constants = {"w": weights, "zero": activations(0), "one": np.float32(1), "none": weights.dtype.type(0)}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "one", "zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "one", "none"], ["b"]),
        helper.make_node(op, ["a", "b"], ["y"], name="layer", **attributes),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    graph = helper.make_graph(
        nodes, "g", [x], [y], [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    )
    return helper.make_model(graph)


@pytest.mark.parametrize(
    ("op", "channel", "attributes"),
    [("Conv", 0, {}), ("ConvTranspose", 1, {}), ("MatMul", 1, {}), ("Gemm", 1, {}), ("Gemm", 0, {"transB": 1})],
)
@pytest.mark.parametrize("activations", [np.uint8, np.int8])
def test_every_pair_of_a_channel(op: str, channel: int, attributes: dict[str, int], activations: type) -> None:
    shape = (3, 5, 2, 2) if "Conv" in op else (3, 5)
    weights = np.zeros(shape, np.int8)
    rng = np.random.default_rng()
    rows = np.moveaxis(weights, channel, 0)
    rows[...] = rng.integers(1, 128, rows.shape)  # one sign, so that the bound is reached
    limits = np.iinfo(activations)
    values = (int(limits.min), int(limits.max))
    expected = max(
        abs(a * int(v) + b * int(w))
        for row in rows
        for v, w in itertools.combinations(row.ravel(), 2)
        for a, b in itertools.product(values, values)
    )
    assert pair_sums(layer(op, weights, activations, **attributes)) == {"layer": expected}


def test_a_float_layer_has_no_bound() -> None:
    proto = layer("Conv", np.ones((2, 2, 1, 1), np.int8))
    proto.graph.node[2].input[0] = "x"
    assert pair_sums(proto) == {}
