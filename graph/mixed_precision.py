"""A float32 artifact in mixed precision, for strongly typed engines: convolutions in float16, all that is delicate not.

A whitelist: only what is known to bear it is computed in float16. That is convolutions and fully connected layers
(``LAYERS``), and what stands between them and nothing else: pointwise operators, and interpolation of features
(``BETWEEN``), if all that they read comes from float16 and all that reads them is float16 itself; and what only moves
or selects values (``MOVES``), if what it reads is float16 and anything that reads it is. So the flow's head of a
network is float16, but not the arithmetic on flows that follows it, whose last reader is a GridSample: coordinates in
float16 are off by pixels in a wide picture. Matrix products are no layers here: edge's are statistics.

Everything else stays float32: normalisations, reductions, softmax, statistics, least squares, warps, and all that
crosses the boundary: frame, prediction, and the states, which a recurrence adds up. Our functions stay what they are,
nodes of the domain ``framecast`` in float32, with casts around them: so a plugin can still take their place by name,
and their bodies normalise. Weights become float16; float32 is cast to it once a tensor, where the first layer reads it.
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
HALF = ".half"  # ends the name of a tensor's float16 form
_DOMAINS = ("", "ai.onnx")


def to_half(artifact: ModelProto) -> ModelProto:
    """The artifact in mixed precision; inputs, outputs, names and manifest are the same, and it is left as it is.

    A tensor is cast at most once, and never back and forth.
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
    """Which nodes are computed in float16."""
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

    # The largest set in which every node may stay: a chain between two layers stays as a whole, or goes.
    while leaving := {i for i in chosen if not stays(i)}:
        chosen -= leaving
    return chosen


def _may(node: NodeProto, constants: dict[str, NDArray[np.generic]]) -> bool:
    """Whether an operator is on the whitelist, and float16 holds its constants."""
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
    """Whether float16 holds numbers as well as it holds any: none is too large, nor so small that it loses digits."""
    sizes = np.abs(value[value != 0])
    return _in_range(value) and bool(sizes.min(initial=np.inf) >= np.finfo(np.float16).tiny)


def _data(node: NodeProto) -> Iterator[str]:
    """The inputs that have the type of the output: not a Reshape's shape, nor a Resize's scales."""
    schema = _schema(node.op_type)
    kind = schema.outputs[0].type_str
    for i, name in enumerate(node.input):
        formal = schema.inputs[min(i, len(schema.inputs) - 1)]  # the last one may be a list
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
