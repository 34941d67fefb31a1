"""A graph whose nodes of our operators are nodes of plugins; all else, and the artifact, is left as it is.

The names of plugins are none that a function of the graph has: so it does not matter which of both a version of
TensorRT's parser prefers (10.6 and before: the function; 10.7 to 10.14: the plugin; from 10.15 on: the function, but
for nodes with ``plugin_namespace``). A plugin that is missing is an operator that the parser does not know, which
fails, and not the function instead, which nobody would notice. Bodies that no node needs any more are dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from framecast.export.plugins.operators import Call, Kernel, Site, Tensor, calls, narrow, parsed
from framecast.graph.manifest import DOMAIN
from framecast.runtime.engines.tensorrt.plugin import NAMESPACE, VERSION

PREFIX = "plugin."  # begins the name of every node that is a plugin
_TYPES = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16}
_NAMES = {number: name for name, number in _TYPES.items()}


@dataclass(frozen=True)
class Placed:
    """Where a plugin stands: its node, what that reads and writes, and the launches that it makes."""

    node: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    calls: tuple[Call, ...]


def has_operators(proto: ModelProto) -> bool:
    """Whether any node has a kernel."""
    return any(node.domain == DOMAIN and parsed(node.op_type) for node in proto.graph.node)


def with_aot(proto: ModelProto) -> tuple[ModelProto, list[Placed]]:
    """A node for each kernel, with a tensor between two of the same operator; and what was placed.

    Raises:
        ExportError: a shape is not fixed.
    """

    def nodes(site: Site, index: int) -> list[tuple[NodeProto, Placed]]:
        found = []
        for call in calls(site):
            name = f"{PREFIX}{index}.{call.kernel.kernel}"
            node = _node(call.kernel.name, name, call.inputs, call.outputs, aot=1)
            found.append((node, Placed(name, call.inputs, call.outputs, (call,))))
        return found

    return _rewritten(proto, nodes)


def with_v3(proto: ModelProto, op_type: str) -> tuple[ModelProto, list[Placed]]:
    """A node for each operator, whose ``index`` is its place in what was placed, which is given too.

    Raises:
        ExportError: a shape is not fixed.
    """

    def nodes(site: Site, index: int) -> list[tuple[NodeProto, Placed]]:
        name = f"{PREFIX}{index}.{site.operator}"
        node = _node(op_type, name, site.inputs, site.outputs, index=index)
        return [(node, Placed(name, site.inputs, site.outputs, tuple(calls(site))))]

    return _rewritten(proto, nodes)


def _node(op_type: str, name: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: int) -> NodeProto:
    node = helper.make_node(
        op_type,
        inputs,
        outputs,
        name=name,
        domain=DOMAIN,
        plugin_namespace=NAMESPACE,
        plugin_version=VERSION,
    )
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    return node


def _rewritten(
    proto: ModelProto, nodes: Callable[[Site, int], list[tuple[NodeProto, Placed]]]
) -> tuple[ModelProto, list[Placed]]:
    """The graph with what ``nodes`` gives for each node of ours, in its place."""
    inferred = onnx.shape_inference.infer_shapes(proto)
    tensors = _tensors(inferred)
    halves = {n.output[0]: n.input[0] for n in proto.graph.node if n.op_type == "Cast" and _widens(n, tensors)}
    changed = ModelProto()
    changed.CopyFrom(proto)
    graph = changed.graph
    written: list[NodeProto] = []
    placed: list[Placed] = []
    index = 0
    for node in graph.node:
        operator = parsed(node.op_type) if node.domain == DOMAIN else None
        if operator is None:
            written.append(node)
            continue
        for new, place in nodes(_site(node, *operator, tensors, halves), index):
            written.append(new)
            placed.append(place)
        index += 1
    kept = _needed(written, {output.name for output in graph.output})
    del graph.node[:], graph.value_info[:]
    graph.node.extend(kept)
    types = {node.op_type for node in kept if node.domain == DOMAIN}
    bodies = [body for body in changed.functions if body.domain != DOMAIN or body.name in types]
    del changed.functions[:]
    changed.functions.extend(bodies)
    # What the parser does not need, but shape inference cannot know of plugins.
    told = {name: tensor for place in placed for call in place.calls for name, tensor in call.tensors()}
    made = {name for place in placed for name in place.outputs}
    boundary = {output.name for output in graph.output}
    graph.value_info.extend(
        helper.make_tensor_value_info(name, _TYPES[tensor.dtype], tensor.shape)
        for name, tensor in told.items()
        if name in made and name not in boundary
    )
    onnx.checker.check_model(changed, full_check=True)
    return changed, placed


def _site(node: NodeProto, operator: str, slots: int, tensors: dict[str, Tensor], halves: dict[str, str]) -> Site:
    """A node of ours, reading as float16 what was cast from it."""
    inputs = list(node.input)
    outputs = [name or f"{node.name}.unused.{i}" for i, name in enumerate(node.output)]
    attributes = {attribute.name: attribute.f for attribute in node.attribute}
    site = Site(operator, slots, tuple(inputs), tuple(outputs), (), attributes)
    for i in narrow(site):
        inputs[i] = halves.get(inputs[i], inputs[i])
    read = tuple(tensors.get(name, Tensor(())) for name in inputs)
    return Site(operator, slots, tuple(inputs), tuple(outputs), read, attributes)


def _tensors(inferred: ModelProto) -> dict[str, Tensor]:
    """Of each name: shape and type, as far as they are known and kernels take them."""
    graph = inferred.graph
    found = {i.name: (tuple(i.dims), i.data_type) for i in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        found[value.name] = tuple(dim.dim_value for dim in kind.shape.dim), kind.elem_type
    return {name: Tensor(shape, _NAMES[type_]) for name, (shape, type_) in found.items() if type_ in _NAMES}


def _widens(node: NodeProto, tensors: dict[str, Tensor]) -> bool:
    """Whether a cast is from float16 to float32."""
    source, target = tensors.get(node.input[0]), tensors.get(node.output[0])
    return source is not None and target is not None and (source.dtype, target.dtype) == ("fp16", "fp32")


def _needed(nodes: Sequence[NodeProto], outputs: set[str]) -> list[NodeProto]:
    """Without the casts that only our operators read."""
    reads = Counter(name for node in nodes for name in node.input)
    return [n for n in nodes if n.op_type != "Cast" or reads[n.output[0]] or n.output[0] in outputs]


def kernels(placed: Sequence[Placed]) -> list[Kernel]:
    """Each kernel once, in the order of its first launch."""
    return list(dict.fromkeys(call.kernel for place in placed for call in place.calls))
