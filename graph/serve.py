"""The graph that a model server runs: pictures in, pictures out, and a state that the server keeps for each camera.

It is a device graph (``graph/device.py``) in the form that NVIDIA Triton Inference Server wants for "implicit state",
where the server feeds each output that is declared as a state to an input of the same sequence's next request:

- A history is a ring of buffers elsewhere, which nobody copies. A server cannot rotate buffers, so here the graph
  shifts: each slot's output is the input of the slot before it. That copies the history once per step.
- ``keep`` float32 [B, 1] is the server's START control. Nobody counts steps here: it is 0 in the first step of a
  sequence and above all ages later. The shift passes on what the step itself reads, so after a START the old slots
  stay zero, even if the server has not cleared the memory.
- A server cannot branch a state to look ahead. The graph itself contains as many steps as it shall predict; only the
  first one writes the state.

The other inputs and outputs are ``image``, ``shown`` and ``finite`` float32 [B, 1]; see the device graph.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from framecast.errors import ExportError
from framecast.graph.artifact import manifest_of
from framecast.graph.device import check_device, device_graph
from framecast.graph.manifest import KEY, Manifest

_AHEAD = "ahead"  # names of further steps begin with this


def state_pairs(manifest: Manifest) -> list[tuple[str, str, tuple[int, ...]]]:
    """The state of a server's graph: each tensor's input, the output that replaces it, and its shape without B."""
    return [
        (name, f"next.{spec.name}" if age == 0 else f"next.{spec.name}.{age}", spec.shape)
        for spec in manifest.state
        for age, name in enumerate(spec.inputs)
    ]


def state_bytes(manifest: Manifest) -> int:
    """Bytes of one camera's state on the server: float32, all slots of its histories."""
    return sum(4 * int(np.prod(shape)) for _, _, shape in state_pairs(manifest))


def server_graph(artifact: ModelProto, steps: int = 1) -> ModelProto:
    """Make the server's graph of an artifact. The artifact itself does not change.

    Args:
        artifact: as :func:`framecast.export.onnx.to_onnx` returns it.
        steps: how many steps it predicts ahead, 1 or more. Each takes the prediction before it, unchanged, and costs
            as much as a step. A model that predicts K frames per step has ``steps`` 1.

    Returns:
        The graph. Its manifest has ``steps`` · K outputs.

    Raises:
        ArtifactError: the manifest cannot be read.
        ExportError: a server cannot run this artifact, or not with so many steps.
    """
    manifest = manifest_of(artifact)
    check_device(manifest)
    if manifest.renders == "moments":
        raise ExportError(
            f"cannot serve {manifest.config} as a graph: a model of motion renders any moment in a second graph (use "
            "the Python backend, or a network such as stip-edge)"
        )
    if steps > 1 and manifest.outputs > 1:
        raise ExportError(
            f"{manifest.config} predicts {manifest.outputs} frames per step: leave out the number of steps"
        )
    proto = ModelProto()
    proto.CopyFrom(artifact)
    del proto.graph.value_info[:]
    inner = list(proto.graph.node)
    if steps > 1:
        _roll(proto, inner, manifest, steps)
        manifest = dataclasses.replace(manifest, outputs=steps)
        for entry in proto.metadata_props:
            entry.value = manifest.to_json() if entry.key == KEY else entry.value
    _shift(proto, manifest)
    proto = device_graph(proto, feeds=False)
    _as_columns(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _shift(proto: ModelProto, manifest: Manifest) -> None:
    """Let the graph itself move each slot of a history to the next one."""
    before = ""
    for name, output, shape in state_pairs(manifest):
        if output not in manifest.nexts:
            node = helper.make_node("Identity", [before], [output], name=f"shift.{output}")
            proto.graph.node.append(node)
            proto.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", *shape]))
        before = name


def _roll(proto: ModelProto, inner: list[NodeProto], manifest: Manifest, steps: int) -> None:
    """Append further steps, each on the prediction before it and on the state after the step before it."""
    graph = proto.graph
    if any(part.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for n in inner for part in n.attribute):
        raise ExportError(f"cannot look further ahead with {manifest.config}: its graph has loops; use 1 step")
    made = {name for node in inner for name in node.output}
    predictions = ["prediction", *(f"{_AHEAD}.{j}.prediction" for j in range(1, steps))]
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), f"{_AHEAD}.axis"))
    for j in range(1, steps):
        frame = f"{_AHEAD}.{j}.frame"
        graph.node.append(
            helper.make_node("Squeeze", [predictions[j - 1], f"{_AHEAD}.axis"], [frame], name=f"{_AHEAD}.{j}.squeeze")
        )
        names = {"frame": frame, **{name: f"{_AHEAD}.{j}.{name}" for name in made}, "": ""}
        for spec in manifest.state:
            for age, name in enumerate(spec.inputs):
                writer = j - 1 - age  # the step that wrote this slot
                written = f"next.{spec.name}" if writer == 0 else f"{_AHEAD}.{writer}.next.{spec.name}"
                names[name] = written if writer >= 0 else spec.inputs[age - j]
        for node in inner:
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.name = f"{_AHEAD}.{j}.{node.name}"
            copy.input[:] = [names.get(name, name) for name in node.input]
            copy.output[:] = [names[name] for name in node.output]
            graph.node.append(copy)
    # "prediction" must now mean all of them, for the device graph and whoever reads the file.
    for node in graph.node:
        for part in (node.input, node.output):
            part[:] = [f"{_AHEAD}.0.prediction" if name == "prediction" else name for name in part]
    predictions[0] = f"{_AHEAD}.0.prediction"
    graph.node.append(helper.make_node("Concat", predictions, ["prediction"], name=f"{_AHEAD}.all", axis=1))
    for output in graph.output:
        if output.name == "prediction":
            output.type.tensor_type.shape.dim[1].dim_value = steps


def _as_columns(proto: ModelProto) -> None:
    """Give ``keep`` and ``finite`` the shape [B, 1], which servers want, and drop the predictions as floats."""
    graph = proto.graph
    for node in graph.node:
        node.input[:] = ["serve.keep" if name == "keep" else name for name in node.input]
        node.output[:] = ["serve.finite" if name == "finite" else name for name in node.output]
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "serve.axis"))
    graph.node.insert(0, helper.make_node("Squeeze", ["keep", "serve.axis"], ["serve.keep"], name="serve.keep"))
    graph.node.append(helper.make_node("Unsqueeze", ["serve.finite", "serve.axis"], ["finite"], name="serve.finite"))
    for value in (*graph.input, *graph.output):
        if value.name in ("keep", "finite"):
            value.type.tensor_type.shape.dim.add().dim_value = 1
    outputs = [value for value in graph.output if value.name != "prediction"]
    del graph.output[:]
    graph.output.extend(outputs)
