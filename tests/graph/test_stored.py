"""Weights stored as float16: half the bytes, the same step as with rounded weights, and no cost after loading."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from framecast.errors import ArtifactError, ExportError
from framecast.export.exporter import stored_as_half
from framecast.export.load_network import load_network
from framecast.export.parity import random_frames
from framecast.export.quantize import quantize
from framecast.graph.artifact import load, manifest_of, save
from framecast.graph.repository import Serving, write_repository
from framecast.graph.split import split_artifact
from framecast.graph.stored import LEAST, pack, unpack
from framecast.runtime.engines import open_engine
from framecast.runtime.stepper import Stepper

from ..exported import pair  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

NAMES = ("stip", "stau", "astm", "tau-block")


def stored(name: str, path: Path) -> tuple[ModelProto, ModelProto]:
    """Save an artifact with float16 weights; return it, and the same artifact with rounded float32 weights."""
    model, proto = pair(name)
    packed = stored_as_half(proto, model, manifest_of(proto))
    save(packed, path)
    rounded = ModelProto()
    rounded.CopyFrom(proto)
    halves = {t.name.removesuffix(".stored") for t in packed.graph.initializer if t.data_type == TensorProto.FLOAT16}
    for tensor in rounded.graph.initializer:
        if tensor.name in halves:
            value = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float16).astype(np.float32), tensor.name))
    return packed, rounded


def rolled(path: Path, engine: str = "onnxruntime") -> list[NDArray[Any]]:
    with open_engine(path, engine) as opened:
        stepper = Stepper(opened)
        return [stepper.step(frame).copy() for frame in random_frames(opened.manifest.frame, 4, 7)]


def run_operators(path: Path, folder: Path) -> Counter[tuple[str, str]]:
    """The operators that ONNX Runtime runs at each step."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return Counter((node.domain, node.op_type) for node in onnx.load(options.optimized_model_filepath).graph.node)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """A network that was exported already: an export takes longer than these tests."""
    pair(request.param)
    return str(request.param)


def test_half_the_bytes_the_same_step_and_no_cost_after_loading(tmp_path: Path, name: str) -> None:
    path, plain = tmp_path / "half.onnx", tmp_path / "plain.onnx"
    packed, rounded = stored(name, path)
    save(rounded, plain)
    weights = {t.name: t for t in rounded.graph.initializer}
    halves = [t for t in packed.graph.initializer if t.data_type == TensorProto.FLOAT16]
    half = sum(len(t.raw_data) for t in halves)
    whole = sum(len(weights[t.name.removesuffix(".stored")].raw_data) for t in halves)
    assert whole == 2 * half
    assert whole > 0.8 * sum(len(t.raw_data) for t in weights.values() if t.data_type == TensorProto.FLOAT)
    assert plain.stat().st_size - path.stat().st_size == pytest.approx(half, abs=200 * len(halves))
    for ours, expected in zip(rolled(path), rolled(plain), strict=True):
        assert np.array_equal(ours, expected)
    assert run_operators(path, tmp_path) == run_operators(plain, tmp_path)
    read = load(path)
    assert list(read.graph.node) == list(rounded.graph.node)
    assert {t.name: numpy_helper.to_array(t).tobytes() for t in read.graph.initializer} == {
        name: numpy_helper.to_array(t).tobytes() for name, t in weights.items()
    }


def test_others_take_it_or_refuse_it_in_a_line(tmp_path: Path) -> None:
    path, plain = tmp_path / "half.onnx", tmp_path / "plain.onnx"
    _, rounded = stored("stip", path)
    save(rounded, plain)
    split_artifact(path, tmp_path / "split.onnx")
    write_repository(path, tmp_path / "repository", Serving())
    for ours, expected in zip(rolled(tmp_path / "split.onnx"), rolled(plain), strict=True):
        assert np.allclose(ours, expected, atol=1e-5)
    with pytest.raises(ArtifactError, match=r"weights are stored as fp16; use the \.safetensors file") as caught:
        load_network(path)
    assert "\n" not in str(caught.value)


def graph(*tensors: TensorProto, casts: int = 1) -> ModelProto:
    nodes = [helper.make_node("Cast", ["w"], [f"y{i}"], to=TensorProto.FLOAT) for i in range(casts)]
    outputs = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None) for i in range(casts)]
    return helper.make_model(helper.make_graph(nodes, "g", [], outputs, tensors))


def test_a_weight_that_is_cast_often_stays_small() -> None:
    weight = numpy_helper.from_array(np.ones(LEAST, np.float16), "w")
    once, often = graph(weight), graph(weight, casts=3)
    unpack(once)
    assert [t.name for t in once.graph.initializer] == ["y0"]
    assert not once.graph.node
    before = often.SerializeToString()
    unpack(often)
    assert often.SerializeToString() == before


def test_weights_out_of_range_are_refused_and_small_ones_stay() -> None:
    proto = graph(numpy_helper.from_array(np.full(LEAST, 1e5, np.float32), "w"))
    with pytest.raises(ExportError, match=r"w reaches 1e\+05, and float16 ends at 65504 \(use --store fp32\)"):
        pack(proto, {"w"})
    assert pack(proto, set()) == proto
    small = graph(numpy_helper.from_array(np.full(LEAST - 1, 1e5, np.float32), "w"))
    assert pack(small, {"w"}) == small


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "int8"])
def test_other_engines_and_quantize_take_it(tmp_path: Path, engine: str) -> None:
    path, plain = tmp_path / "half.onnx", tmp_path / "plain.onnx"
    _, rounded = stored("stip-edge", path)
    save(rounded, plain)
    if engine == "openvino":
        pytest.importorskip("openvino")
        assert all(np.array_equal(a, b) for a, b in zip(rolled(path, engine), rolled(plain, engine), strict=True))
        return
    clip = list(np.random.default_rng(1).integers(0, 256, (3, 192, 256, 3), dtype=np.uint8))
    made = [tmp_path / f"{source.stem}-int8.onnx" for source in (path, plain)]
    for source, output in zip((path, plain), made, strict=True):
        assert quantize(source, output, [clip], "noise")[0] > 0
    one, other = (onnx.load(output) for output in made)
    assert manifest_of(one).stored == "fp16"
    assert [t.raw_data for t in one.graph.initializer] == [t.raw_data for t in other.graph.initializer]
