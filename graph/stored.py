"""Stores an artifact's weights as float16, for half the file; every step still computes in float32.

In the file, a Cast to float32 follows each float16 weight. ONNX Runtime folds these when it opens the file, so a step
costs what it cost before. Everything else reads artifacts through :func:`framecast.graph.artifact.load`, which puts
the float32 weights back: other engines and commands see an ordinary float32 graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from framecast.errors import ExportError

LEAST = 64  # elements: a Cast takes about 100 bytes of the file
_STORED = ".stored"  # suffix of a weight's name in the file
_OF_ONNX = ("", "ai.onnx")


def pack(artifact: ModelProto, weights: Collection[str]) -> ModelProto:
    """Return a copy of an artifact with its weights rounded to float16, the nearest value each.

    Args:
        artifact: a float32 graph.
        weights: names of its weights. Other constants, such as a grid of coordinates, keep their precision, and so do
            weights with fewer than ``LEAST`` elements.

    Raises:
        ExportError: a weight is out of float16's range.
    """
    proto = ModelProto()
    proto.CopyFrom(artifact)
    casts = []
    for tensor in proto.graph.initializer:
        name, value = tensor.name, numpy_helper.to_array(tensor)
        if name not in weights or value.dtype != np.float32 or value.size < LEAST:
            continue
        largest, limit = float(np.abs(value).max()), float(np.finfo(np.float16).max)
        if largest > limit:
            raise ExportError(
                f"cannot store the weights as fp16: {name} reaches {largest:.3g}, and float16 ends at {limit:.0f} "
                "(use --store fp32)"
            )
        tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float16), name + _STORED))
        casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"unpack.{name}", to=TensorProto.FLOAT))
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*casts, *nodes])
    return proto


def unpack(proto: ModelProto) -> None:
    """Replace float16 weights that are only cast to float32 by float32 weights. The values stay exactly the same.

    A weight with several readers stays: unpacked for each of them, a small file could fill any memory.
    """
    graph = proto.graph
    stored = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    if not stored:
        return
    readers = Counter(_read(graph))
    kept = []
    for node in graph.node:
        source = node.input[0] if len(node.input) == 1 else ""
        cast = node.op_type == "Cast" and node.domain in _OF_ONNX
        wide = cast and any(option.name == "to" and option.i == TensorProto.FLOAT for option in node.attribute)
        if wide and source in stored and readers[source] == 1:
            value = numpy_helper.to_array(stored[source]).astype(np.float32)
            stored[source].CopyFrom(numpy_helper.from_array(value, node.output[0]))
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _read(graph: GraphProto) -> Iterator[str]:
    """Yield the names that a graph's operators and outputs read, including those of its branches and loops."""
    yield from (output.name for output in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _read(inner)
