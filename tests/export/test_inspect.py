"""``framecast inspect`` on networks: tapped values equal torch's, every picture is drawn, errors name a fix."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import framecast.export
from framecast.camera import open_source
from framecast.errors import EngineError, SourceError
from framecast.export.inspect import TappedGraph, watch
from framecast.export.inspect_pictures import WIDTH
from framecast.export.inspection import Inspection
from framecast.export.onnx import describe
from framecast.graph.artifact import save
from framecast.models.astm import ASTM, FORGET_BIAS, ASTMConfig
from framecast.models.stau import MAU, STAU, MAUConfig, STAUCell, STAUConfig
from framecast.models.step import StepModel
from framecast.models.stip import STGRU, STIP
from framecast.models.tau import TAU
from framecast.runtime.engines import open_engine
from framecast.runtime.sinks.picture import CAPTION

from ..conftest import Run  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from ..exported import pair, shared  # noqa: TID252 (likewise)

STEPS = 9  # fills every history, which has 5 slots
# Sizes of their own: more layers than theta, other numbers of slots, a stage. Other tests export the rest anyway.
OWN: dict[str, Callable[[], StepModel]] = {
    "stau": lambda: STAU(STAUConfig(32, 48, 3, 1, hidden=8, layers=7, theta=4, residual=True)),
    "mau": lambda: MAU(MAUConfig(32, 32, 1, hidden=8, stages=1, tau=3)),
    "astm": lambda: ASTM(ASTMConfig(32, 32, 1, 2, hidden=4, layers=3, stages=1)),
}
SHARED = {"stip": "stip-bounded", "tau": "tau-block"}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[StepModel, Path]]:
    """Small networks with their artifacts."""
    folder, built = tmp_path_factory.mktemp("artifacts"), {name: pair(other) for name, other in SHARED.items()}
    for name, make in OWN.items():
        model = make().eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        built[name] = model, shared(f"small-{name}", model)
    for name, (_, proto) in built.items():
        save(proto, folder / f"{name}.onnx")
    return {name: (model, folder / f"{name}.onnx") for name, (model, _) in built.items()}


class Calls:
    """Records every module's inputs and outputs in the last step, by name, with forward hooks."""

    def __init__(self, model: StepModel) -> None:
        self.given: dict[str, tuple[Any, ...]] = {}
        self.gave: dict[str, Any] = {}
        for name, module in model.named_modules():
            module.register_forward_hook(self._keep(name))

    def _keep(self, name: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, given: tuple[Any, ...], gave: Any) -> None:
            self.given[name], self.gave[name] = given, gave

        return hook


def stip(model: StepModel, calls: Calls) -> Iterator[tuple[str, int, Tensor]]:
    assert isinstance(model, STIP)
    for k, cell in enumerate(model.cells):
        assert isinstance(cell, STGRU)
        gates = [
            functional.layer_norm(
                calls.gave[f"cells.{k}.conv_{x}"], norm.weight.shape, norm.weight, norm.bias, norm.eps
            )
            for x, norm in (("t", cell.norm_t), ("s", cell.norm_s))
        ]
        z_t, r_t, _, _ = gates[0].chunk(4, dim=1)
        z_s, r_s, _, _ = gates[1].chunk(4, dim=1)
        yield "update", k + 1, torch.sigmoid(z_t + z_s + 1)
        yield "trend", k + 1, torch.sigmoid(r_t + r_s)
    yield "encoder_s", 0, calls.gave["encoder_s"][-1]
    yield "encoder_t", 0, calls.gave["encoder_t"][-1]


def stau(model: StepModel, calls: Calls) -> Iterator[tuple[str, int, Tensor]]:
    assert isinstance(model, STAU)
    for k, cell in enumerate(model.cells):
        assert isinstance(cell, STAUCell)
        _, _, s_past, t_layers, _ = calls.given[f"cells.{k}"]
        t_next, s_next = calls.gave[f"cells.{k}.conv_t_next"], calls.gave[f"cells.{k}.conv_s_next"]
        yield "temporal attention", k + 1, softmax(s_past, s_next, cell.scale)
        yield "temporal fusion", k + 1, t_next.sigmoid()
        if model.config.spatial_attention:
            assert len(t_layers) == min(k + 1, model.config.theta)
            yield "spatial attention", k + 1, softmax(t_layers, t_next, cell.scale)
            yield "spatial fusion", k + 1, s_next.sigmoid()
    yield "encoders", 0, calls.gave[f"encoders.{model.config.stages - 1}"]


def softmax(keys: list[Tensor], query: Tensor, scale: Any) -> Tensor:
    scores = torch.stack([(key * query).sum() for key in keys]) * scale
    return torch.softmax(scores, dim=0).reshape(1, -1, 1, 1)


def astm(model: StepModel, calls: Calls) -> Iterator[tuple[str, int, Tensor]]:
    assert isinstance(model, ASTM)
    for k in range(model.config.layers):
        _, _, cells, _, count = calls.given[f"cells.{k}"]
        f_x, f_h = calls.gave[f"cells.{k}.conv_x"].chunk(7, 1)[1], calls.gave[f"cells.{k}.conv_h"].chunk(4, 1)[1]
        gate = torch.sigmoid(f_x + f_h + FORGET_BIAS)
        scores = torch.stack(
            [cell * gate if i <= count else torch.full_like(gate, -torch.inf) for i, cell in enumerate(cells)]
        )
        yield "cell attention", k + 1, torch.softmax(scores, dim=0)
        yield "forget", k + 1, gate
    yield "encoders", 0, calls.gave[f"encoders.{model.config.stages - 1}"]


def tau(model: StepModel, calls: Calls) -> Iterator[tuple[str, int, Tensor]]:
    assert isinstance(model, TAU)
    yield "encoder", 0, calls.gave[f"encoder.{model.config.encoder_layers - 1}"]


@pytest.mark.parametrize(
    ("name", "reference"), [("stip", stip), ("stau", stau), ("mau", stau), ("astm", astm), ("tau", tau)]
)
def test_tapped_values_match_torch(
    networks: dict[str, tuple[StepModel, Path]],
    name: str,
    reference: Callable[[StepModel, Calls], Iterator[tuple[str, int, Tensor]]],
) -> None:
    model, artifact = networks[name]
    calls, inside, state = Calls(model), TappedGraph(artifact), model.init_state()
    frames = torch.rand(STEPS, 1, *model.frame_shape)
    for step in range(STEPS):
        with torch.no_grad():
            prediction, state = model.step(frames[step], state)
            expected = {(kind, layer): value.numpy() for kind, layer, value in reference(model, calls)}
        tapped, values = inside.step(frames[step].numpy())
        np.testing.assert_allclose(tapped, prediction.numpy(), atol=1e-5)
        assert {(tap.name, tap.layer) for tap in values} == set(expected)
        for tap, tensors in values.items():
            found = np.stack(tensors) if tap.name == "cell attention" else tensors[0]
            np.testing.assert_allclose(found, expected[tap.name, tap.layer], atol=1e-5, err_msg=f"{tap}, step {step}")
            if tap.group == "attention":
                assert tap.figures(tensors).sum() == pytest.approx(1, abs=1e-5)
    if name == "stau":  # the report sorts by distance, so a layer's own state comes first
        last = next(tap for tap in values if tap.name == "spatial attention" and tap.layer == 7)
        assert tap_order(last.figures(values[last])) == tap_order(expected["spatial attention", 7].ravel()[::-1])


def tap_order(weights: np.ndarray) -> list[int]:
    return [int(i) for i in np.argsort(weights)]


def test_the_pictures_of_the_shipped_model(run: Run, tmp_path: Path) -> None:
    code, out, err = run("inspect", "stip-edge", "demo", "-o", tmp_path / "new" / "found", "--frames", 12)
    assert (code, err) == (0, "")
    folder = tmp_path / "new" / "found"
    assert {path.name for path in folder.iterdir()} == {"gates.png", "features.png", "inspect.json"}
    assert all(f"wrote {path}" in out for path in folder.iterdir())
    assert "random" not in out
    # Columns: frame, prediction, three layers of two gates. Rows: a heading, four moments, a legend.
    gates = picture(folder / "gates.png")
    assert WIDTH - 40 < gates.shape[1] <= WIDTH
    tile = (WIDTH - 4) // 8 - 4
    assert gates.shape[0] == pytest.approx(4 * CAPTION + 4 * (tile * 192 / 256 + CAPTION), abs=4)
    features = picture(folder / "features.png")  # columns: frame, then mean and three channels of two encoders
    assert WIDTH - 40 < features.shape[1] <= WIDTH
    figures = json.loads((folder / "inspect.json").read_text(), parse_constant=pytest.fail)
    assert figures["frames"] == 12
    assert len(figures["moments"]) == 4
    assert figures["averaged_from"] == 2 <= figures["moments"][0]["frame"]
    assert [(g["gate"], g["layer"]) for g in figures["gates"]] == [
        (g, k) for k in (1, 2, 3) for g in ("update", "trend")
    ]
    assert all(0 <= g["min"] < g["mean"] < g["max"] <= 1 for g in figures["gates"])
    assert [f["encoder"] for f in figures["features"]] == ["encoder_s", "encoder_t"]
    assert figures["attention"] == []


def picture(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None, path
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 200  # heat maps, not a blank picture
    return image


def test_the_pictures_of_attention(run: Run, tmp_path: Path, networks: dict[str, tuple[StepModel, Path]]) -> None:
    shapes = {}
    for name in ("stau", "mau", "astm"):
        code, out, err = run("inspect", networks[name][1], "demo", "-o", tmp_path / name, "--frames", 8)
        assert (code, err) == (0, "")
        assert "weights: random — the pictures show the structure, not a trained network" in out
        attention = cv2.imread(str(tmp_path / name / "attention.png"))
        assert attention is not None
        shapes[name] = attention.shape
        assert picture(tmp_path / name / "gates.png").shape[1] <= WIDTH
        assert picture(tmp_path / name / "features.png").shape[1] <= WIDTH
    assert shapes["stau"][1] > 750  # two tables side by side
    assert shapes["stau"][0] - shapes["mau"][0] == 3 * 30 + 2 * CAPTION  # three more layers; two more slots over time
    figures = json.loads((tmp_path / "stau" / "inspect.json").read_text())
    slots = [(a["attention"], a["layer"], len(a["weights"])) for a in figures["attention"]]
    assert slots == [
        (kind, layer, 5 if kind == "temporal attention" else min(layer, 4))
        for layer in range(1, 8)
        for kind in ("temporal attention", "spatial attention")
    ]
    for name, count in (("stau", 14), ("mau", 4), ("astm", 3)):
        attention = json.loads((tmp_path / name / "inspect.json").read_text())["attention"]
        assert len(attention) == count
        assert all(sum(a["weights"]) == pytest.approx(1, abs=1e-5) for a in attention)


def test_networks_with_only_features_or_nothing_to_show(
    run: Run, tmp_path: Path, networks: dict[str, tuple[StepModel, Path]]
) -> None:
    artifact = networks["tau"][1]
    code, out, _ = run("inspect", artifact, "synthetic://?frames=6", "-o", tmp_path / "tau")
    assert code == 0
    assert {path.name for path in (tmp_path / "tau").iterdir()} == {"features.png", "inspect.json"}
    assert json.loads((tmp_path / "tau" / "inspect.json").read_text())["frames"] == 6
    proto = onnx.load(artifact)
    for node in proto.graph.node:
        del node.metadata_props[:]
    save(proto, tmp_path / "bare.onnx")
    code, out, _ = run("inspect", tmp_path / "bare.onnx", "synthetic://?frames=3", "-o", tmp_path / "bare")
    assert code == 0
    assert "features: left out" in out
    assert {path.name for path in (tmp_path / "bare").iterdir()} == {"inspect.json"}


def test_padding_is_not_shown(tmp_path: Path, run: Run, networks: dict[str, tuple[StepModel, Path]]) -> None:
    model, whole = networks["stip"]
    padded, proto = tmp_path / "padded.onnx", onnx.load(whole)
    proto.metadata_props[0].value = dataclasses.replace(describe(model, "padded"), visible=(16, 48)).to_json()
    save(proto, padded)
    heights = []
    for artifact in (whole, padded):
        assert run("inspect", artifact, "synthetic://?frames=6", "-o", tmp_path / "out")[0] == 0
        heights.append(picture(tmp_path / "out" / "gates.png").shape[0])
    tile = 176
    assert heights[0] - heights[1] == 4 * (round(tile * 32 / 48) - round(tile * 16 / 48))


def test_moments_are_spread_over_a_clip_of_any_length(networks: dict[str, tuple[StepModel, Path]]) -> None:
    def found(frames: int) -> Inspection:
        with open_source("demo") as source:
            return watch(TappedGraph(networks["astm"][1]), source, frames)

    assert [m.index for m in found(2).moments] == [0, 1]  # before the histories are full
    assert found(2).settled == 0
    assert [m.index for m in found(9).moments] == [5, 6, 7, 8]
    indices = [m.index for m in found(100).moments]
    assert indices[0] >= 5
    assert len(indices) == 4
    assert indices[-1] >= 88
    assert np.ptp(np.diff(indices)) <= 8


def test_a_gate_is_averaged_once_the_histories_are_full(networks: dict[str, tuple[StepModel, Path]]) -> None:
    with open_source("demo") as source:
        seen = watch(TappedGraph(networks["stau"][1]), source, 8)
    tap = seen.taps("gates")[0]
    course = np.array(seen.courses[tap])
    assert course.shape == (8, 3)
    assert seen.average(tap) == pytest.approx([course[5:, 0].mean(), course[5:, 1].min(), course[5:, 2].max()])


def test_the_tapped_graph_predicts_the_same_as_the_engine(networks: dict[str, tuple[StepModel, Path]]) -> None:
    model, artifact = networks["stau"]
    inside = TappedGraph(artifact)
    with open_engine(artifact) as engine:
        live, spare = engine.new_state(), engine.new_state()
        for _ in range(STEPS):
            frame = np.random.default_rng(7).random((1, *model.frame_shape), np.float32)
            np.testing.assert_allclose(inside.step(frame)[0], engine.step(frame, live, spare), atol=1e-6)
            live, spare = spare, live


def test_it_needs_no_torch() -> None:
    code = "import sys, framecast.export.inspect\nassert not {'torch', 'onnxscript'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_errors_are_one_line_with_a_fix(run: Run, tmp_path: Path) -> None:
    text, taken = tmp_path / "text.onnx", tmp_path / "taken"
    text.write_text("no protobuf")
    taken.touch()
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    out = ["-o", tmp_path / "out"]
    cases: list[tuple[list[object], int, str]] = [
        (["nope", "demo", *out], 1, "stip-edge"),
        ([text, "demo", *out], 1, "framecast export"),
        (["stip-edge", "demo", "--frames", 0, *out], 1, "--frames must be at least 1"),
        (["stip-edge", tmp_path / "none.mp4", *out], 1, "no such file"),
        (["stip-edge", "rtsp://user:s3cret@127.0.0.1:1/x", *out], 1, "connection refused"),
        (["stip-edge", "demo", "-o", taken], 1, "give a folder"),
        (["stip-edge", "demo", "-o", "/proc/no"], 1, "another path"),
        (["stip-edge", tmp_path, "-o", tmp_path], 1, "among the inputs"),
        (["stip-edge"], 2, "needs SOURCE"),
    ]
    for arguments, expected, fix in cases:
        code, _, err = run("inspect", *arguments)
        assert (code, err.count("\n")) == (expected, 1), (arguments, err)
        assert err.startswith("framecast: "), (arguments, err)
        assert fix in err, (arguments, err)
        assert "s3cret" not in err
    assert not (tmp_path / "out").exists()


def test_without_onnx_it_says_how_to_install_it(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "framecast.export.inspect")
    monkeypatch.delattr(framecast.export, "inspect")
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, _, err = run("inspect", "stip-edge", "demo", "-o", tmp_path / "out")
    assert code == 1
    assert err.startswith("framecast: inspect needs onnx: pip install 'framecast[models]'")


def test_clips_without_frames_and_non_finite_states_are_refused(
    tmp_path: Path, networks: dict[str, tuple[StepModel, Path]]
) -> None:
    inside = TappedGraph(networks["astm"][1])
    ended = open_source("synthetic://?frames=1")
    ended.read()
    with pytest.raises(SourceError, match=r"cannot inspect .*: it has no frame"):
        watch(inside, ended, 3)
    inside._state["state.m"][:] = np.nan
    with pytest.raises(EngineError, match="not finite at frame 1"), open_source("demo") as source:
        watch(inside, source, 3)
