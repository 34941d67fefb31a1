"""``framecast inspect``: shows the inner values of an artifact over a clip. It needs onnx, but not torch.

The functions of our operators (export/functions.py) name the values worth showing. These become extra outputs of the
functions, of their calls and of the graph. ONNX Runtime therefore returns the artifact's own numbers; nothing is
computed a second time.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from framecast.camera import Source, open_source
from framecast.errors import EngineError, SinkError, SourceError, first_line
from framecast.export import inspect_pictures as pictures
from framecast.export.inspection import Inspection, Moment, Tap
from framecast.files import check_writable, write
from framecast.graph.artifact import SCOPES, load
from framecast.graph.manifest import DOMAIN, Manifest
from framecast.runtime.convert import blank_frame, to_frame, to_image, to_model_size
from framecast.runtime.engines import open_engine
from framecast.runtime.engines.engine import Tensor
from framecast.runtime.engines.onnxruntime import open_session
from framecast.runtime.report import to_json, versions
from framecast.runtime.shipped import find

FILES = ("gates.png", "features.png", "attention.png", "inspect.json")
ROWS = 4  # moments to show


class TappedGraph:
    """An artifact's step with its taps and its carried state.

    Attributes:
        manifest: manifest of the artifact.
        taps: all taps, by layer.
    """

    def __init__(self, artifact: Path) -> None:
        with open_engine(artifact, "onnxruntime") as engine:  # raises if the file is not a valid artifact
            self.manifest: Manifest = engine.manifest
            self.version = engine.version
        proto = load(artifact)
        self.taps = [*tap_functions(proto), *tap_encoders(proto.graph)]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self._session = open_session(artifact, proto.SerializeToString(), options)
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._state = {
            name: np.zeros((1, *spec.shape), np.float32) for spec in self.manifest.state for name in spec.inputs
        }

    def step(self, frame: Tensor) -> tuple[Tensor, dict[Tap, list[Tensor]]]:
        """Advance by a frame, [1, C, H, W]; return the prediction [1, K, C, H, W] and each tap's values.

        Raises:
            EngineError: the step failed.
        """
        try:
            made = self._session.run(None, {"frame": frame, **self._state})
        except Exception as error:  # ONNX Runtime raises many types, some directly from C++
            reason = f"onnxruntime could not run {self.manifest.config}: {first_line(error)}"
            raise EngineError(reason) from error
        values = dict(zip(self._outputs, made, strict=True))
        for spec in self.manifest.state:
            moved = [values[f"next.{spec.name}"], *(self._state[name] for name in spec.inputs[:-1])]
            self._state |= dict(zip(spec.inputs, moved, strict=True))
        return values["prediction"], {tap: [values[name] for name in tap.tensors] for tap in self.taps}


def tap_functions(proto: ModelProto) -> list[Tap]:
    """Add outputs for gates and attention weights. The graph's function calls must be in the order of the layers."""
    found = {f.name: _named_taps(f) for f in proto.functions if f.domain == DOMAIN}
    counts = {f.name: len(f.output) for f in proto.functions if f.domain == DOMAIN}
    for function in proto.functions:
        if function.domain == DOMAIN:
            function.output.extend(name for names in found[function.name].values() for name in names)
    inputs = {value.name for value in proto.graph.input}
    layers: Counter[str] = Counter()
    taps: list[Tap] = []
    for call in (node for node in proto.graph.node if node.domain == DOMAIN and node.op_type in found):
        call.output.extend([""] * (counts[call.op_type] - len(call.output)))  # outputs that the graph does not use
        for stem, names in found[call.op_type].items():
            shown = _shown_as(stem, call, inputs)
            layers[shown] += 1
            tensors = tuple(f"inspect.{len(taps)}.{name}" for name in names)
            call.output.extend(tensors)
            proto.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
            taps.append(Tap("attention" if stem == "weights" else "gates", shown, layers[shown], tensors))
    return taps


def _named_taps(function: FunctionProto) -> dict[str, list[str]]:
    """Return a body's values to show, grouped by name without the slot number, such as ``weights`` of ``weights_0``."""
    found: dict[str, list[str]] = {}
    for name in (output for node in function.node for output in node.output):
        if match := re.fullmatch(r"(update|reset|fusion|gate|weights)(_\d+)?", name):
            found.setdefault(match[1], []).append(name)
    return found


def _shown_as(stem: str, call: NodeProto, inputs: set[str]) -> str:
    """Return the papers' name for a value of a body."""
    if not call.op_type.startswith("stau_attention"):
        return {"update": "update", "reset": "trend", "gate": "forget", "weights": "cell attention"}.get(stem, stem)
    slots = int(call.op_type.rpartition("_")[2])
    # TAM takes values from the state. SAM takes the layers' inputs, which the same step computes.
    kind = "temporal" if inputs.issuperset(call.input[slots : 2 * slots]) else "spatial"
    return f"{kind} {'fusion' if stem == 'fusion' else 'attention'}"


def tap_encoders(graph: GraphProto) -> list[Tap]:
    """Add an output for each encoder's features: the last picture computed in a module named ``encoder…``, if any."""
    outputs = {value.name for value in graph.output}
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in (*graph.value_info, *graph.output)}
    last: dict[str, str] = {}
    for node in graph.node:
        scopes = next((p.value for p in node.metadata_props if p.key == SCOPES), "")
        if (encoder := re.search(r"'(?:model\.)?(encoder\w*)[.']", scopes)) and ranks.get(node.output[0]) == 4:
            last[encoder[1]] = node.output[0]
    new = [name for name in last.values() if name not in outputs]  # some are already outputs, because they are states
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in new)
    return [Tap("features", encoder, 0, (name,)) for encoder, name in last.items()]


def watch(inside: TappedGraph, source: Source, frames: int) -> Inspection:
    """Step through up to ``frames`` frames of a source.

    Raises:
        SourceError: the source was lost, or has no frame.
        EngineError: a prediction is not finite.
    """
    found = Inspection(inside.manifest, source.name, courses={tap: [] for tap in inside.taps})
    manifest, tensor, stride = inside.manifest, blank_frame(inside.manifest), 1
    for count, frame in enumerate(islice(source, frames)):
        seen = to_model_size(frame.image, manifest)
        to_frame(seen, manifest, tensor[0])
        prediction, values = inside.step(tensor)
        if not np.isfinite(prediction).all():
            cure = f"use fewer: --frames {count}" if count else "its weights are damaged; export it again"
            raise EngineError(f"{manifest.config} predicts values that are not finite at frame {count + 1}: {cure}")
        found.frames += 1
        for tap, tensors in values.items():
            found.courses[tap].append(tap.figures(tensors))
        if count % stride == 0:
            maps = {tap: tensors[0][0] for tap, tensors in values.items() if tap.group != "attention"}
            found.moments.append(Moment(count, frame.time, seen, to_image(prediction[0, 0], manifest), maps))
            if len(found.moments) == 4 * ROWS:  # enough to spread the rows evenly
                found.moments, stride = found.moments[::2], 2 * stride
    if not found.moments:
        raise SourceError(f"cannot inspect {source.name}: it has no frame; give another source")
    settled = [moment for moment in found.moments if moment.index >= found.settled] or found.moments
    chosen = np.linspace(0, len(settled) - 1, min(ROWS, len(settled))).round().astype(int)
    found.moments = [settled[i] for i in chosen]
    return found


def inspect(model: str, source: str, folder: Path, frames: int) -> list[str]:
    """Inspect a model over a clip, and write pictures and figures; return a report, line by line.

    Raises:
        ArtifactError: there is no such model, or it is not an artifact.
        SourceError: the source cannot be opened, was lost, or has no frame.
        SinkError: the folder cannot be written.
        EngineError: the model takes no pictures, or a prediction is not finite.
    """
    inside = TappedGraph(find(model))
    manifest = inside.manifest
    if not manifest.is_picture:
        raise EngineError(f"cannot inspect {manifest.config} on a clip: its channels are not a picture")
    if manifest.renders == "moments":
        raise EngineError(f"cannot inspect the graphs of {manifest.config}: give {manifest.config} itself, by its name")
    if folder.exists() and not folder.is_dir():
        raise SinkError(f"cannot write into {folder}: it is a file; give a folder with --output")
    with open_source(source) as opened:
        for name in FILES:
            check_writable(folder / name)
        found = watch(inside, opened, frames)
    drawn = {
        "gates.png": pictures.gates(found),
        "features.png": pictures.features(found),
        "attention.png": pictures.attention(found),
    }
    lines = []
    for name, picture in drawn.items():
        if picture is not None:
            write(folder / name, pictures.png(picture))
            lines.append(f"wrote {folder / name}")
    write(folder / "inspect.json", f"{to_json(figures(found, inside.version), indent=2)}\n".encode())
    lines.append(f"wrote {folder / 'inspect.json'}")
    if drawn["features.png"] is None:
        lines.append("features: left out, because the artifact marks no encoder")
    if not found.settled and found.frames <= manifest.warmup:
        lines.append(f"warming up: the state needs {manifest.warmup} frames to fill, but there are {found.frames}")
    if not manifest.trained:
        lines.append("weights: random — the pictures show the structure, not a trained network")
    return lines


def figures(found: Inspection, version: str) -> dict[str, object]:
    """Return the numbers behind the pictures, for JSON."""

    def spread(tap: Tap) -> dict[str, float]:
        return dict(zip(("mean", "min", "max"), found.average(tap), strict=True))

    gates, attention, features = (found.taps(group) for group in ("gates", "attention", "features"))
    return {
        "model": found.manifest.config,
        "weights": found.manifest.weights,
        "source": found.source,
        "frames": found.frames,
        "averaged_from": found.settled,
        "moments": [{"frame": m.index, "time": m.time} for m in found.moments],
        "gates": [{"gate": t.name, "layer": t.layer, **spread(t)} for t in gates],
        "attention": [{"attention": t.name, "layer": t.layer, "weights": found.average(t)} for t in attention],
        "features": [{"encoder": t.name, **spread(t)} for t in features],
        "versions": versions("onnxruntime", version),
    }
