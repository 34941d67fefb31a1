"""Bounds the sum of two products in an int8 layer. Up to 32,767, every CPU computes this sum exactly.

The bound follows from the graph, without a run. It holds for any activations, and for any two weights of an output
channel, because each engine pairs the weights in its own way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from framecast.graph.artifact import LAYERS


def pair_sums(proto: ModelProto) -> dict[str, int]:
    """Return an upper bound of ``|a₀w₀ + a₁w₁|`` for each int8 layer, by its node's name.

    A layer is int8 if both of its inputs are dequantized, the second one from constants. ``a`` is any value of the
    activations' type, and ``w`` are any two weights of one output channel. The bound is ``max |a| (|w₀| + |w₁|)``.
    """
    constants = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
    dequantized = {node.output[0]: node for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    found = {}
    for node in proto.graph.node:
        sources = [dequantized.get(name) for name in node.input[:2]]
        if node.op_type not in LAYERS or None in sources:
            continue
        activations, weights = sources
        if activations is not None and weights is not None and weights.input[0] in constants:
            limits = np.iinfo(constants[activations.input[2]].dtype)
            rows = _by_channel(node, constants[weights.input[0]])
            found[node.name] = _largest(rows, max(limits.max, -limits.min))
    return found


def _by_channel(node: NodeProto, weights: NDArray[Any]) -> NDArray[np.int64]:
    """Return the weights as [output channels, weights per channel]. The channels' axis depends on the operator."""
    attributes: Mapping[str, Any] = {a.name: a.i for a in node.attribute}
    first = node.op_type == "Conv" or (node.op_type == "Gemm" and attributes.get("transB"))
    by_channel = weights if first else np.moveaxis(weights, -1 if node.op_type in ("MatMul", "Gemm") else 1, 0)
    return by_channel.reshape(len(by_channel), -1).astype(np.int64)


def _largest(rows: NDArray[np.int64], activation: int) -> int:
    """Return the largest bound of any row: the sum of its two largest weights times the largest activation."""
    return int(activation * np.sort(np.abs(rows), axis=1)[:, -2:].sum(axis=1).max())
