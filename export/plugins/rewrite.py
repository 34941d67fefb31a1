"""Replaces the nodes of our operators in a graph by plugin nodes. The rest of the graph and the artifact stay the same.

No plugin shares its name with one of the graph's functions. It therefore does not matter which of the two a version of
TensorRT's parser prefers (10.6 and before: the function; 10.7 to 10.14: the plugin; from 10.15 on: the function, except
for nodes with ``plugin_namespace``). If a plugin is missing, the parser fails on an unknown operator. It cannot
silently use the function instead. Bodies that no node needs any more are removed.
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

PREFIX = "plugin."  # start of the name of every plugin node
_TYPES = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16}
_NAMES = {number: name for name, number in _TYPES.items()}


@dataclass(frozen=True)
class Placed:
    """A plugin in the graph: its node, the node's inputs and outputs, and the plugin's launches."""

    node: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    calls: tuple[Call, ...]


def has_operators(proto: ModelProto) -> bool:
    """Return whether any node has a kernel."""
    return any(node.domain == DOMAIN and parsed(node.op_type) for node in proto.graph.node)


def with_aot(proto: ModelProto) -> tuple[ModelProto, list[Placed]]:
    """Make one node per kernel; return the graph and the plugins. A tensor connects an operator's two kernels.

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
    """Make one node per operator; return the graph and the plugins. A node's ``index`` is its position among them.

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
    """Return the graph with each of our nodes replaced by the result of ``nodes``."""
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
    # Shape inference cannot know the outputs of plugins. The parser does not need these entries.
    known = {name: tensor for place in placed for call in place.calls for name, tensor in call.tensors()}
    made = {name for place in placed for name in place.outputs}
    boundary = {output.name for output in graph.output}
    graph.value_info.extend(
        helper.make_tensor_value_info(name, _TYPES[tensor.dtype], tensor.shape)
        for name, tensor in known.items()
        if name in made and name not in boundary
    )
    onnx.checker.check_model(changed, full_check=True)
    return changed, placed


def _site(node: NodeProto, operator: str, slots: int, tensors: dict[str, Tensor], halves: dict[str, str]) -> Site:
    """Return one of our nodes. It reads an input as float16 if the graph casts it from float16."""
    inputs = list(node.input)
    outputs = [name or f"{node.name}.unused.{i}" for i, name in enumerate(node.output)]
    attributes = {attribute.name: attribute.f for attribute in node.attribute}
    site = Site(operator, slots, tuple(inputs), tuple(outputs), (), attributes)
    for i in narrow(site):
        inputs[i] = halves.get(inputs[i], inputs[i])
    read = tuple(tensors.get(name, Tensor(())) for name in inputs)
    return Site(operator, slots, tuple(inputs), tuple(outputs), read, attributes)


def _tensors(inferred: ModelProto) -> dict[str, Tensor]:
    """Return shape and type by name, for tensors whose type is known and supported by the kernels."""
    graph = inferred.graph
    found = {i.name: (tuple(i.dims), i.data_type) for i in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        found[value.name] = tuple(dim.dim_value for dim in kind.shape.dim), kind.elem_type
    return {name: Tensor(shape, _NAMES[type_]) for name, (shape, type_) in found.items() if type_ in _NAMES}


def _widens(node: NodeProto, tensors: dict[str, Tensor]) -> bool:
    """Return whether a cast is from float16 to float32."""
    source, target = tensors.get(node.input[0]), tensors.get(node.output[0])
    return source is not None and target is not None and (source.dtype, target.dtype) == ("fp16", "fp32")


def _needed(nodes: Sequence[NodeProto], outputs: set[str]) -> list[NodeProto]:
    """Return the nodes without the casts that only our operators read."""
    reads = Counter(name for node in nodes for name in node.input)
    return [n for n in nodes if n.op_type != "Cast" or reads[n.output[0]] or n.output[0] in outputs]


def kernels(placed: Sequence[Placed]) -> list[Kernel]:
    """Return each kernel once, in the order of its first launch."""
    return list(dict.fromkeys(call.kernel for place in placed for call in place.calls))
