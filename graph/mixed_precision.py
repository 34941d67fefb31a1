"""Converts a float32 artifact to mixed precision, for strongly typed engines: convolutions run in float16.

A whitelist names the operators that are known to tolerate float16. These are convolutions and fully connected layers
(``LAYERS``), and the operators between them. A pointwise operator or an interpolation of features
(``BETWEEN``) is float16 if all its inputs come from float16 and all its readers are float16. An operator that only
moves or selects values (``MOVES``) is float16 if its inputs are and any of its readers is. So a network's flow head is
float16. The arithmetic on flows that follows is not, because it ends in a GridSample: float16 coordinates are off by
pixels in a wide picture. Matrix products do not count as layers, because in a mixture they compute statistics.

Everything else stays float32: normalisations, reductions, softmax, statistics, least squares, warps, and everything
that crosses the graph's boundary: frame, prediction, and the states, where errors would accumulate. Our functions stay
float32 nodes of the domain ``framecast``, with casts around them, because a plugin must still find them by name and
because their bodies normalise. Weights become float16. A float32 tensor is cast once, where the first layer reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})
BETWEEN = frozenset({"Add", "Sub", "Mul", "Div", "LeakyRelu", "Sigmoid", "Tanh", "Erf", "Resize"})
MOVES = frozenset(
    {"Relu", "Reshape", "Transpose", "Split", "Slice", "Concat", "Unsqueeze", "Squeeze", "DepthToSpace", "SpaceToDepth"}
)
HALF = ".half"  # suffix of a tensor's float16 copy
_DOMAINS = ("", "ai.onnx")


def to_half(artifact: ModelProto) -> ModelProto:
    """Return a mixed-precision copy of the artifact. Inputs, outputs, names and manifest stay the same.

    A tensor is cast at most once, never back and forth.
    """
    proto = ModelProto()
    proto.CopyFrom(artifact)
    graph = proto.graph
    constants = _constants(graph)
    nodes = list(graph.node)
    half = _chosen(nodes, constants, {output.name for output in graph.output})
    made = {name for index in half for name in nodes[index].output}
    read = {name for index in half for name in _data(nodes[index])}  # as float16
    wide = {name for index, node in enumerate(nodes) if index not in half for name in node.input}
    wide |= {output.name for output in graph.output}
    narrow = {name for name in read if name in constants}
    graph.initializer.extend(
        numpy_helper.from_array(constants[name].astype(np.float16), name + HALF) for name in sorted(narrow)
    )
    written: list[NodeProto] = []
    cast = made | narrow
    for index, node in enumerate(nodes):
        if index not in half:
            written.append(node)
            continue
        for name in dict.fromkeys(n for n in _data(node) if n not in cast):
            written.append(_cast(name, name + HALF, TensorProto.FLOAT16))
            cast.add(name)
        data = set(_data(node))
        names = [name + HALF if name in data else name for name in node.input]
        outputs = list(node.output)
        node.input[:], node.output[:] = names, [name and name + HALF for name in outputs]
        written.append(node)
        written += [_cast(name + HALF, name, TensorProto.FLOAT) for name in outputs if name in wide]
    used = {name for node in written for name in node.input}
    kept = [i for i in graph.initializer if i.name in used]
    for field in (graph.node, graph.initializer, graph.value_info):
        del field[:]
    graph.node.extend(written)
    graph.initializer.extend(kept)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _chosen(nodes: Sequence[NodeProto], constants: dict[str, NDArray[np.generic]], outputs: set[str]) -> set[int]:
    """The indices of the nodes to compute in float16."""
    chosen = {i for i, node in enumerate(nodes) if _may(node, constants)}
    makers = {name: i for i, node in enumerate(nodes) for name in node.output}
    readers: dict[str, set[int]] = {}
    for i, node in enumerate(nodes):
        for name in node.input:
            readers.setdefault(name, set()).add(i)

    def stays(i: int) -> bool:
        node = nodes[i]
        if node.op_type in LAYERS:
            return True
        data = [name for name in _data(node) if name not in constants]
        if not data or not all(makers.get(name) in chosen for name in data):
            return False
        following = {reader for name in node.output for reader in readers.get(name, ())}
        if node.op_type in MOVES:
            return bool(following & chosen)
        return following <= chosen and not outputs & set(node.output)

    # Find the largest set in which every node may stay. A chain between two layers stays or goes as a whole.
    while leaving := {i for i in chosen if not stays(i)}:
        chosen -= leaving
    return chosen


def _may(node: NodeProto, constants: dict[str, NDArray[np.generic]]) -> bool:
    """Whether an operator is on the whitelist and its constants fit into float16."""
    if node.domain not in _DOMAINS or node.op_type not in LAYERS | BETWEEN | MOVES:
        return False
    values = [constants[name] for name in _data(node) if name in constants]
    if node.op_type not in LAYERS:
        return all(_fits(value) for value in values)
    weights = constants.get(node.input[1])
    return weights is not None and weights.dtype == np.float32 and all(_in_range(value) for value in values)


def _in_range(value: NDArray[np.generic]) -> bool:
    return bool(np.abs(value).max(initial=0) <= np.finfo(np.float16).max)


def _fits(value: NDArray[np.generic]) -> bool:
    """Whether float16 holds these numbers at full precision: none overflows or becomes subnormal."""
    if value.dtype.kind != "f":  # integers compute sizes, which depend on the batch
        return False
    sizes = np.abs(value[value != 0])
    return _in_range(value) and bool(sizes.min(initial=np.inf) >= np.finfo(np.float16).tiny)


def _data(node: NodeProto) -> Iterator[str]:
    """The inputs that have the output's type. This excludes a Reshape's shape and a Resize's scales."""
    schema = _schema(node.op_type)
    kind = schema.outputs[0].type_str
    for i, name in enumerate(node.input):
        formal = schema.inputs[min(i, len(schema.inputs) - 1)]  # the last input may be variadic
        if name and formal.type_str == kind:
            yield name


@cache
def _schema(op: str) -> onnx.defs.OpSchema:
    return onnx.defs.get_schema(op, 18)


def _constants(graph: onnx.GraphProto) -> dict[str, NDArray[np.generic]]:
    found = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _cast(name: str, output: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [name], [output], name=f"cast.{output}", to=to)
