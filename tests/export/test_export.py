"""Artifacts: they equal the network, describe themselves, and hold the gates as one function."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_model

from framecast.errors import ArtifactError, ExportError, OptionError, SinkError
from framecast.export.exporter import export_config
from framecast.export.load_network import load_trained
from framecast.export.onnx import describe, to_onnx
from framecast.export.parity import CEILING, compare, compare_exactly, random_frames
from framecast.graph.artifact import SCOPES, save
from framecast.graph.manifest import DOMAIN, KEY, RENDER, Manifest, Quality, other_half
from framecast.models.configs import build, find
from framecast.models.stau import STAU
from framecast.models.stip import STIP, STIPConfig
from framecast.runtime.engines import open_engine
from framecast.runtime.engines.torch import TorchEngine

from ..exported import shared  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from ..networks import SMALL_EDGE  # noqa: TID252 (likewise)

SMALL = STIPConfig(height=64, width=96, patch=2, hidden=8, layers=3, stages=3)
QUALITY = Quality("some clips", 31.5, 30.0, {"a": (31.5, 30.0)})


@pytest.fixture(scope="module")
def network() -> STIP:
    model = STIP(SMALL).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def proto(network: STIP) -> onnx.ModelProto:
    return shared("small", network, weights="a test", quality=QUALITY)


@pytest.fixture(scope="module")
def artifact(proto: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "small.onnx"
    save(proto, path)
    return path


@pytest.mark.parametrize("batch", [1, 3])
def test_onnxruntime_equals_torch(network: STIP, artifact: Path, batch: int) -> None:
    frames = list(random_frames(network.frame_shape, 20 * batch, seed=11 + batch))
    grouped = [np.concatenate(frames[i : i + batch]) for i in range(0, len(frames), batch)]
    with open_engine(artifact) as engine:
        parity = compare(network, engine, grouped)
    assert parity.steps == 20
    assert parity.max <= 1e-5


def test_names_and_versions(proto: onnx.ModelProto, network: STIP) -> None:
    assert [i.name for i in proto.graph.input] == ["frame", *(f"state.{n}" for n in network.state_shapes)]
    assert [o.name for o in proto.graph.output] == ["prediction", *(f"next.{n}" for n in network.state_shapes)]
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": 18, DOMAIN: 1}
    assert proto.ir_version <= 10


def test_no_trace_of_the_machine_that_exported_it(proto: onnx.ModelProto) -> None:
    assert str(Path(__file__).parents[2]).encode() not in proto.SerializeToString()
    assert {entry.key for node in proto.graph.node for entry in node.metadata_props} == {SCOPES}  # inspect reads them


def test_gates_are_one_function_with_the_norms_inside(proto: onnx.ModelProto) -> None:
    assert [f.name for f in proto.functions] == ["stgru_gates"]
    calls = [node for node in proto.graph.node if node.domain == DOMAIN]
    assert len(calls) == SMALL.layers
    assert all(len(call.input) == 8 and len(call.output) == 2 for call in calls)
    # Means of means, because ONNX Runtime's LayerNormalization is less exact than PyTorch's (test_norms.py).
    assert [node.op_type for node in proto.functions[0].node].count("ReduceMean") == 2 * 4
    assert not {"LayerNormalization", "ReduceMean"} & {node.op_type for node in proto.graph.node}


def test_manifest_travels_with_the_artifact(artifact: Path, network: STIP) -> None:
    with open_engine(artifact) as engine:
        manifest = engine.manifest
    assert manifest.config == "small"
    assert manifest.frame == network.frame_shape
    assert manifest.quality is not None
    assert manifest.quality.prediction == QUALITY.prediction
    assert manifest.trained
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert len(manifest.weights_sha256) == 64


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.metadata_props.clear(), "no framecast manifest"),
        (lambda p: setattr(p.metadata_props[0], "value", "{"), "cannot be read"),
        (lambda p: setattr(p.metadata_props[0], "value", p.metadata_props[0].value.replace('"t2"', '"t9"')), "inputs"),
        (lambda p: p.functions.clear(), "not an ONNX file that can be run"),
    ],
)
def test_damaged_artifacts_are_refused(
    proto: onnx.ModelProto, tmp_path: Path, damage: Callable[[onnx.ModelProto], object], message: str
) -> None:
    assert proto.metadata_props[0].key == KEY
    broken = onnx.ModelProto()
    broken.CopyFrom(proto)
    damage(broken)
    path = tmp_path / "broken.onnx"
    save(broken, path)
    with pytest.raises(ArtifactError, match=message) as raised:
        open_engine(path)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_trained_export_equals_torch(tmp_path: Path) -> None:
    model = build("stip-edge")
    torch.nn.init.normal_(model.get_parameter("head.4.weight"), std=0.02)
    weights = tmp_path / "weights.safetensors"
    save_model(model, str(weights), {"weights": "a test", "licence": "Apache-2.0"})
    output = tmp_path / "edge.onnx"
    parity = export_config("stip-edge", output, weights, source="demo", frames=20, seed=0)
    assert parity["real"].max <= 1e-4
    assert parity["random"].max <= 1e-3  # on noise, a warp amplifies errors the most
    assert {p.steps for p in parity.values()} == {20}
    with open_engine(output) as engine:
        assert engine.manifest.weights == "a test"


@pytest.mark.usefixtures("exports_once")
def test_edge_is_exported_as_two_graphs(tmp_path: Path) -> None:
    output = tmp_path / "small.onnx"
    parity = export_config("edge", output, None, source="demo", frames=6, seed=0, changes=SMALL_EDGE)
    assert {name: p.steps for name, p in parity.items()} == {"random": 6, "real": 6}
    assert all(p.max <= 2e-3 for p in parity.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.onnx", "small.render.onnx"]
    with open_engine(output) as engine:
        manifest = engine.manifest
    assert (manifest.renders, manifest.weights, manifest.size) == ("moments", "none needed", (96, 64))
    assert manifest.trained
    assert manifest.options == SMALL_EDGE
    assert set(manifest.made_fields) == {"acceleration", "small", "times", "weights"}
    step, render = (onnx.load(str(path)).graph for path in (output, other_half(output, RENDER)))
    assert [value.name for value in step.input][:2] == ["frame", "elapsed"]
    assert [value.name for value in render.input] == ["ahead", *(f"fields.{name}" for name in manifest.fields)]
    assert [value.name for value in render.output] == ["prediction"]
    with TorchEngine.open(output, device="cpu") as reference:  # needs no weights: the options define the model
        assert reference.manifest == manifest


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    changes = {"layers": 2, "hidden": 8, "height": 64, "width": 64}
    save_model(build("stip-ucf", changes), str(path))
    with pytest.raises(ArtifactError, match=r"cells\.2\.conv_s\.bias is missing"):
        load_trained("stip-ucf", path, {**changes, "layers": 3})
    save_model(build("stip-ucf", changes), str(path), {"config": "stip-h36m"})
    with pytest.raises(ArtifactError, match="holds weights of stip-h36m, not of stip-ucf"):
        load_trained("stip-ucf", path, changes)
    path.write_bytes(b"no safetensors")
    with pytest.raises(ArtifactError, match="cannot be read as safetensors"):
        load_trained("stip-ucf", path, changes)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            {"options": '{"layers": 50, "hidden": 1024, "kernel": 1023}'},
            r"weights of stau-mnist: .* is missing|\[.*\], not",
        ),
        ({"options": '{"layers": 2, "hidden": 1e9}'}, "hidden takes a whole number"),
        ({"options": '{"nothing": 1}'}, "has no option 'nothing'"),
        ({"config": "a\x1b[31m"}, "holds weights of a .31m, not of stau-mnist"),
        ({"licence": "free\x1b[31m"}, "one of its strings has control characters"),
    ],
)
def test_what_a_file_of_weights_says_is_checked(tmp_path: Path, metadata: dict[str, str], message: str) -> None:
    path = tmp_path / "weights.safetensors"
    made = {"layers": 1, "hidden": 2, "height": 16, "width": 16}
    said = {"config": "stau-mnist", "options": json.dumps(made), **metadata}
    save_model(build("stau-mnist", made), str(path), said)
    with pytest.raises((ArtifactError, OptionError), match=message) as refused:
        load_trained("stau-mnist", path)
    assert str(refused.value).isprintable()


def test_weights_carry_the_options_that_they_were_made_with(tmp_path: Path) -> None:
    """Otherwise options that change no shape would be lost, and the export would be a different function."""
    path = tmp_path / "weights.safetensors"
    made = {"layers": 2, "hidden": 4, "residual": True}
    quality = json.dumps({"data": "digits", "prediction": 30.0, "copy_last": 25.0})
    metadata = {"config": "stau-mnist", "options": json.dumps(made), "quality": quality}
    save_model(build("stau-mnist", made), str(path), metadata)
    model, manifest = load_trained("stau-mnist", path)
    assert isinstance(model, STAU)
    assert model.config.residual
    assert manifest.options == made
    assert manifest.quality is not None
    changed = load_trained("stau-mnist", path, {"scaled": False})[1]
    assert changed.options == {**made, "scaled": False}
    assert changed.quality is None  # the quality was measured without this change
    with pytest.raises(OptionError, match="was made with residual=true: leave out --set residual=false"):
        load_trained("stau-mnist", path, {"residual": False})


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"options": "{"}, "input data was truncated"),
        ({"options": "[]"}, "expected object, got array"),
        ({"options": '{"a": ' + "[" * 50_000}, "nested too deeply"),
        ({"interval": "-1"}, r"interval: expected float > 0\.0"),
        ({"interval": "soon"}, "interval: expected float"),
        ({"interval": "nan"}, "interval: expected float"),
        ({"quality": '{"data": "d"}'}, "quality: .*missing required field prediction"),
        ({"quality": '{"data": "d", "prediction": "high", "copy_last": 1}'}, r"quality\.prediction: expected float"),
    ],
)
def test_unreadable_metadata_of_weights_is_named(tmp_path: Path, metadata: dict[str, str], reason: str) -> None:
    path = tmp_path / "weights.safetensors"
    save_model(build("stau-mnist", {"layers": 1, "hidden": 4}), str(path), {"config": "stau-mnist", **metadata})
    with pytest.raises(ArtifactError, match=rf"the metadata of .*weights.* cannot be read \({reason}") as caught:
        load_trained(None, path)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("exports_once")
def test_an_export_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = dataclasses.replace(find("mau-mnist"), tolerance=1e-12)
    monkeypatch.setattr("framecast.export.exporter.find", lambda name: strict)
    monkeypatch.setattr("framecast.export.parity.FACTOR", 0)
    with pytest.raises(ExportError, match="network in float64, but only 1e-12 is allowed; allow more with --tol"):
        export_config("mau-mnist", tmp_path / "mau.onnx", None, source="demo", frames=2, seed=0)
    assert not (tmp_path / "mau.onnx").exists()


@pytest.fixture(scope="module")
def amplifying() -> STIP:
    """A sound network whose weights amplify rounding, as those of published networks at full size do."""
    torch.manual_seed(3)
    model = STIP(SMALL).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or not name.startswith("cells"):
                parameter.mul_(3)
    return model


def test_float64_decides_where_weights_amplify_rounding(amplifying: STIP, tmp_path: Path) -> None:
    path = tmp_path / "amplifying.onnx"
    save(to_onnx(amplifying, describe(amplifying, "small")), path)
    worse = copy.deepcopy(amplifying)
    with torch.no_grad():
        worse.get_parameter("cells.0.conv_t.weight").mul_(1.001)
    with open_engine(path) as engine:
        first = compare(amplifying, engine, random_frames(amplifying.frame_shape, 20, 5))
        exact = compare_exactly(amplifying, engine, random_frames(amplifying.frame_shape, 20, 5))
        other = compare_exactly(worse, engine, random_frames(amplifying.frame_shape, 20, 5))
    assert not first.holds  # as for an export that was refused
    assert exact.holds
    assert exact.reference == "float64"
    assert 1e-5 < exact.allowed < CEILING
    assert not other.holds  # a weight that is one part in a thousand off
    assert exact.allowed < other.max


def test_errors_are_in_units_of_a_steps_largest_value(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = SimpleNamespace(init_state=lambda batch: {}, step=lambda frame, state: (100 * frame, state))
    off: Any = SimpleNamespace(step=lambda frame, poison: 100 * frame + np.float32(0.5))
    monkeypatch.setattr("framecast.export.parity.Stepper", lambda engine, batch: off)
    loud, quiet = np.full((1, 1, 2, 2), 1, np.float32), np.full((1, 1, 2, 2), 0.002, np.float32)
    engine: Any = None
    assert compare(model, engine, [loud]).max == pytest.approx(0.005)
    assert compare(model, engine, [loud, quiet]).max == pytest.approx(0.5)  # quiet frames: of the value range


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan"), float("inf")])
def test_a_tolerance_is_a_number_above_zero(tmp_path: Path, tolerance: float) -> None:
    with pytest.raises(OptionError, match="--tolerance must be a number above 0, not"):
        export_config("mau-mnist", tmp_path / "x.onnx", None, source="demo", frames=2, seed=0, tolerance=tolerance)


def test_non_finite_weights_are_refused() -> None:
    model = STIP(SMALL)
    with torch.no_grad():
        model.get_parameter("merge_t.bias")[1] = torch.nan
    with pytest.raises(ExportError, match=r"not finite \(merge_t\.bias\)"):
        to_onnx(model, describe(model, "small"))


def test_bad_requests(tmp_path: Path) -> None:
    options: dict[str, Any] = {"source": "demo", "frames": 2, "seed": 0}
    with pytest.raises(ArtifactError, match="no configuration 'stip-x'"):
        export_config("stip-x", tmp_path / "x.onnx", None, **options)
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match=r"cannot write .*choose another path"):
        export_config("stip-edge", tmp_path / "file" / "x.onnx", None, **options)
    with pytest.raises(ExportError, match=r"name a file that ends in \.onnx"):
        export_config("stip-edge", tmp_path / "x.txt", None, **options)


def test_non_finite_buffers_are_refused_too() -> None:
    changes = {"hidden_temporal": 8, "translator_layers": 2, "hidden_spatial": 4}
    model = build("tau-mnist", changes)
    model.get_buffer("blocks.0.norm1.running_var")[0] = torch.inf
    with pytest.raises(ExportError, match=r"not finite \(blocks\.0\.norm1\.running_var\)"):
        to_onnx(model, describe(model, "tau-mnist", changes))
    assert model.training  # the mode is restored
