"""Split an artifact in two: the part of a step that needs only the state runs before the frame arrives, the rest after.

The first half computes what does not depend on ``frame``, except some cheap operators, and must contain a layer. (In
STIP it computes the convolutions of T below the first layer, in STAU t' and the attention over the layers, in ASTM the
convolutions of H.) The results are the same. The latency from a frame to its prediction drops by the time of the first
half.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, helper, inliner
from onnx.utils import Extractor

from framecast.errors import ExportError
from framecast.graph.artifact import LAYERS, manifest_of, read, save
from framecast.graph.manifest import BEFORE, KEY, Manifest, other_half

# Moving values costs less than passing another tensor between the halves, so the half that reads them moves them.
_MOVES = {"Split", "Slice", "Reshape", "Unsqueeze", "Squeeze", "Expand", "Concat", "Identity", "Shape", "Cast"}
_MOVES |= {"Gather", "QuantizeLinear", "DequantizeLinear"}
_FEW = 4096  # elements: other operators also count as cheap if no input is larger


def split_artifact(artifact: Path, output: Path) -> tuple[Path, Manifest]:
    """Write an artifact's two halves: ``output``, which opens like any artifact, and its other half beside it.

    Returns:
        The path of the half that runs before the frame, and the manifest of the other half.

    Raises:
        ArtifactError: the file is not an artifact.
        ExportError: it is already in two halves, or every layer needs the frame.
        SinkError: an output cannot be written.
    """
    proto = read(artifact)
    manifest = manifest_of(proto)
    if manifest.precomputed:
        raise ExportError(f"cannot split {artifact}: it is already in two halves; split the whole artifact")
    after, before = split(proto, manifest)
    beside = other_half(output)
    save(before, beside)
    save(after, output)
    return beside, manifest_of(after)


def split(proto: ModelProto, manifest: Manifest) -> tuple[ModelProto, ModelProto]:
    """Split an artifact's graph into the half that needs the frame and the half that does not.

    Raises:
        ExportError: the half that does not need the frame would have no layer.
    """
    whole = onnx.shape_inference.infer_shapes(inliner.inline_local_functions(proto))
    graph = whole.graph
    made = {name: node for node in graph.node for name in node.output}
    alone = _of_the_state_alone(whole)
    shapes = {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim[1:])
        for value in [*graph.value_info, *graph.input]
    }
    outputs = [value.name for value in graph.output]
    precomputed: dict[str, tuple[int, ...]] = {}
    seen: set[str] = set()
    left = list(outputs)
    while left:  # go back from the outputs to the tensors that the first half will compute
        name = left.pop()
        if name in seen or name not in made:
            continue
        seen.add(name)
        node = made[name]
        small = node.op_type not in LAYERS and all(math.prod(shapes.get(source, ())) <= _FEW for source in node.input)
        if name in alone and name not in outputs and node.op_type not in _MOVES and not small:
            precomputed[name] = shapes[name]
        else:
            left.extend(node.input)
    beforehand = _ancestors(list(precomputed), made)
    if not any(node.op_type in LAYERS for node in beforehand):
        raise ExportError(f"cannot split {manifest.config}: all its layers need the frame; run the whole artifact")
    read_ = {name for node in beforehand for name in node.input}
    inputs = [value.name for value in graph.input]
    extractor = Extractor(whole)
    before = extractor.extract_model([name for name in inputs if name in read_], list(precomputed))
    after = extractor.extract_model([*inputs, *precomputed], outputs)
    manifest_json = dataclasses.replace(manifest, precomputed=precomputed).to_json()
    helper.set_model_props(after, {KEY: manifest_json})
    helper.set_model_props(before, {BEFORE: manifest_json})
    for half in (before, after):
        half.ir_version = proto.ir_version
        onnx.checker.check_model(half, full_check=True)
    return after, before


def _of_the_state_alone(whole: ModelProto) -> set[str]:
    """The tensors that depend on the state but not on the frame."""
    fixed = {value.name for value in whole.graph.initializer} | {""}
    live, alone = {"frame"}, set[str]()
    for node in whole.graph.node:
        if live & set(node.input):
            live.update(node.output)
        elif fixed.issuperset(node.input):
            fixed.update(node.output)
        else:
            alone.update(node.output)
    return alone


def _ancestors(names: list[str], made: dict[str, NodeProto]) -> list[NodeProto]:
    """The nodes that compute these tensors."""
    found: dict[str, NodeProto] = {}
    left = list(names)
    while left:
        name = left.pop()
        if name in made and name not in found:
            found[name] = made[name]
            left.extend(made[name].input)
    return list(found.values())
