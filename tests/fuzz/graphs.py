"""Artifacts: ONNX files with damaged bytes, with fields that mean something else, and with wrong manifests."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from framecast.errors import FramecastError
from framecast.graph.artifact import read
from framecast.graph.manifest import KEY
from framecast.runtime.engines import open_engine
from framecast.runtime.stepper import Stepper

from ..manifests import PLAIN, WHOLE
from .kind import Kind, only
from .mutate import EXTREMES, ODD_TEXT, as_json, damaged

LARGEST = 1 << 20  # pixels of a frame that is stepped


def network() -> ModelProto:
    """A step with a convolution, a state, a constant, a branch and metadata: 2 kB."""
    rng = np.random.default_rng(3)
    arrays = {
        "one": np.array([1]),
        "weight": rng.normal(size=(3, 3, 3, 3)).astype(np.float32) * 0.1,
        "bias": np.zeros(3, np.float32),
        "shape": np.array([0, 3, 4, 6]),
        "yes": np.array(True),
    }
    branches = [
        helper.make_graph(
            [helper.make_node(kind, ["mixed"], [f"out{kind}"])],
            kind,
            [],
            [helper.make_tensor_value_info(f"out{kind}", TensorProto.FLOAT, ["batch", 3, 4, 6])],
        )
        for kind in ("Relu", "Sigmoid")
    ]
    nodes = [
        helper.make_node("Conv", ["frame", "weight", "bias"], ["mixed"], pads=[1, 1, 1, 1]),
        helper.make_node("If", ["yes"], ["active"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Reshape", ["active", "shape"], ["shaped"]),
        helper.make_node("Unsqueeze", ["shaped", "one"], ["prediction"]),
        helper.make_node("Add", ["state.count", "one_f"], ["next.count"]),
    ]
    arrays["one_f"] = np.ones(1, np.float32)
    shapes = {"frame": (3, 4, 6), "state.count": (1,), "prediction": (1, 3, 4, 6), "next.count": (1,)}
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]) for name, shape in shapes.items()
    ]
    graph = helper.make_graph(
        nodes, "still", values[:2], values[2:], [numpy_helper.from_array(a, n) for n, a in arrays.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {KEY: PLAIN.to_json(), "other": "words"})
    return model


def step(path: Path) -> None:
    """Open an artifact with the engine that runs everywhere, and step if it opens."""
    with open_engine(path, "onnxruntime", threads=1) as engine:
        stepper = Stepper(engine)
        width, height = engine.manifest.size
        if engine.manifest.is_picture and width * height < LARGEST:
            stepper.advance([np.zeros((height, width, 3), np.uint8)])
            stepper.render()


def every(path: Path, ways: Sequence[Callable[[Path], object]]) -> None:
    """Take every way in; if any refuses, raise what the first one said."""
    refused: FramecastError | None = None
    for way in ways:
        try:
            way(path)
        except FramecastError as error:  # noqa: PERF203 (a few ways)
            refused = refused or error
    if refused is not None:
        raise refused


class Bytes(Kind):
    """An artifact with damaged bytes."""

    inputs = 1500

    def __init__(self, folder: Path) -> None:
        self.whole = network().SerializeToString()
        self.other = (Path(__file__).parents[2] / "src" / "framecast" / "__init__.py").read_bytes()[:400]

    def make(self, chance: random.Random, folder: Path) -> None:
        (folder / "a.onnx").write_bytes(damaged(self.whole, chance, self.other))

    def attempt(self, folder: Path) -> None:
        every(only(folder), (read, step))


class Structure(Kind):
    """A well-formed ONNX file whose graph is wrong: shapes, names, types, cycles, other files, attributes."""

    inputs = 1500

    def __init__(self, folder: Path) -> None:
        self.whole = network()

    def make(self, chance: random.Random, folder: Path) -> None:
        model = ModelProto()
        model.CopyFrom(self.whole)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            chance.choice(CHANGES)(model, chance)
        (folder / "a.onnx").write_bytes(model.SerializeToString())

    def attempt(self, folder: Path) -> None:
        every(only(folder), (read, step))


class Manifests(Kind):
    """A whole graph with a wrong manifest, or a manifest alone, as models of motion have."""

    inputs = 1500

    def __init__(self, folder: Path) -> None:
        model = network()
        del model.metadata_props[:]
        self.graph = model.SerializeToString()
        self.manifests = [json.loads(one.to_json()) for one in (PLAIN, WHOLE)]
        shipped = Path(__file__).parents[2] / "src" / "framecast" / "assets" / "edge.json"
        self.motion = json.loads(shipped.read_text())

    def make(self, chance: random.Random, folder: Path) -> None:
        if chance.randrange(3) == 0:
            (folder / "a.json").write_bytes(as_json(self.motion, chance))
            return
        text = as_json(chance.choice(self.manifests), chance)
        (folder / "a.onnx").write_bytes(self.graph + entry(KEY.encode(), text))

    def attempt(self, folder: Path) -> None:
        path = only(folder)
        if path.suffix == ".onnx":
            every(path, (read, step))
            return
        with open_engine(path, threads=1) as engine:
            stepper = Stepper(engine)
            stepper.advance([np.zeros((48, 64, 3), np.uint8)])
            stepper.at([0.05], 0.04)


def entry(key: bytes, value: bytes) -> bytes:
    """A model's metadata entry in protobuf, which itself would write only UTF-8 (field 14 of ModelProto)."""

    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2]) + varint(len(data)) + data

    return field(14, field(1, key) + field(2, value))


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _dimension(model: ModelProto, chance: random.Random) -> None:
    """An input's or an output's shape."""
    info = chance.choice([*model.graph.input, *model.graph.output])
    dims = info.type.tensor_type.shape.dim
    if not dims:
        return
    match chance.randrange(4):
        case 0:
            del dims[chance.randrange(len(dims))]
        case 1:
            dims.add().dim_value = 2
        case _:
            chance.choice(dims).dim_value = _int64(chance)


def _weights(model: ModelProto, chance: random.Random) -> None:
    """A weight's shape, type or data."""
    if not model.graph.initializer:
        return
    tensor = chance.choice(model.graph.initializer)
    match chance.randrange(6):
        case 0 if tensor.dims:
            tensor.dims[chance.randrange(len(tensor.dims))] = _int64(chance)
        case 1:
            tensor.dims.append(_int64(chance))
        case 2:
            tensor.data_type = chance.choice([*range(25), -1, 2**31 - 1])
        case 3:
            tensor.raw_data = tensor.raw_data[: chance.randrange(len(tensor.raw_data) + 1)]
        case 4:
            values = np.full(len(tensor.raw_data) // 4, chance.choice((np.nan, np.inf, 1e38)), np.float32)
            tensor.raw_data = values.tobytes()
        case _:
            tensor.int64_data.append(_int64(chance))


def _external(model: ModelProto, chance: random.Random) -> None:
    """Weights in another file."""
    if not model.graph.initializer:
        return
    tensor = chance.choice(model.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (
        ("location", chance.choice(("/etc/hostname", "../a.onnx", "a.onnx", "", "\0", "/dev/zero"))),
        ("offset", str(chance.choice(EXTREMES))),
        ("length", str(chance.choice(EXTREMES))),
    ):
        row = tensor.external_data.add()
        row.key, row.value = key, value


def _wiring(model: ModelProto, chance: random.Random) -> None:
    """Names of what a node takes or gives: missing, twice, or in a cycle."""
    if not model.graph.node:
        return
    node, other = chance.choice(model.graph.node), chance.choice(model.graph.node)
    names = [*node.input, *node.output, *other.output, "frame", "", "none", *ODD_TEXT]
    ends = chance.choice((node.input, node.output))
    match chance.randrange(4):
        case 0:
            ends.append(chance.choice(names))
        case 1 if ends:
            del ends[chance.randrange(len(ends))]
        case _ if ends:
            ends[chance.randrange(len(ends))] = chance.choice(names)


def _node(model: ModelProto, chance: random.Random) -> None:
    """A node's operator, or the node itself."""
    if not model.graph.node:
        return
    node = chance.choice(model.graph.node)
    kinds = (
        "Loop",
        "Scan",
        "ConstantOfShape",
        "Tile",
        "Expand",
        "Gather",
        "Resize",
        "Cast",
        "Einsum",
        "LSTM",
        "Nothing",
        "",
    )
    match chance.randrange(5):
        case 0:
            model.graph.node.remove(node)
        case 1:
            model.graph.node.add().CopyFrom(node)
        case 2:
            node.domain = chance.choice(("framecast", "com.microsoft", "ai.onnx.ml", *ODD_TEXT))
        case 3:
            model.graph.node.insert(0, model.graph.node.pop())
        case _:
            node.op_type = chance.choice((*kinds, *ODD_TEXT))


def _attribute(model: ModelProto, chance: random.Random) -> None:
    """An attribute's value, type or name."""
    node = chance.choice([*model.graph.node] or [helper.make_node("Identity", [], [])])
    if not node.attribute:
        return
    attribute = chance.choice(node.attribute)
    match chance.randrange(5):
        case 0:
            attribute.type = chance.choice((0, 1, 2, 3, 4, 5, 7, 11))
        case 1:
            attribute.ints.append(_modest(chance))
        case 2 if attribute.ints:
            attribute.ints[chance.randrange(len(attribute.ints))] = _modest(chance)
        case 3:
            attribute.name = chance.choice(("pads", "strides", "dilations", "group", "kernel_shape", *ODD_TEXT))
        case _:
            node.attribute.remove(attribute)


def _model(model: ModelProto, chance: random.Random) -> None:
    """Versions, operators' domains, functions that call themselves, and metadata."""
    match chance.randrange(7):
        case 0:
            model.ir_version = _int64(chance)
        case 1:
            model.opset_import[0].version = _int64(chance)
        case 2:
            model.opset_import.add().domain = chance.choice(ODD_TEXT)
        case 3:
            call = helper.make_node("Again", ["x"], ["y"], domain="framecast")
            own = [helper.make_opsetid("", 18), helper.make_opsetid("framecast", 1)]
            model.functions.append(helper.make_function("framecast", "Again", ["x"], ["y"], [call], own))
            model.opset_import.append(helper.make_opsetid("framecast", 1))
            model.graph.node.insert(0, helper.make_node("Again", ["frame"], ["never"], domain="framecast"))
        case 4:
            row = model.metadata_props.add()
            row.key, row.value = chance.choice((KEY, *ODD_TEXT)), chance.choice(ODD_TEXT)
        case 5:
            del model.metadata_props[:]
        case _:
            model.graph.ClearField(chance.choice(("input", "output", "node", "initializer", "name")))


def _int64(chance: random.Random) -> int:
    return max(-(2**63), min(2**63 - 1, chance.choice((*EXTREMES, -2, -(2**63), 3, 7))))


def _modest(chance: random.Random) -> int:
    """A number that is small or impossible. A graph may need much memory (docs/security.md), such as by its padding."""
    return next(n for n in iter(lambda: _int64(chance), None) if abs(n) < 1 << 12 or abs(n) > 1 << 60)


CHANGES = (_dimension, _weights, _external, _wiring, _node, _attribute, _model)
