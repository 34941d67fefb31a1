"""The published networks on the command line: export, import, run on a clip, and the errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from framecast.models.configs import CONFIGS
from framecast.runtime.predictor import load

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)
from .stepping import stepped  # noqa: TID252

pytestmark = pytest.mark.usefixtures("exports_once")

# Options that make each network small enough to be exported in a second or two.
SMALL = {
    "stip-ucf": ("layers=2", "hidden=8", "height=64", "width=96"),
    "stau-mnist": ("layers=2", "hidden=8"),
    "mau-mnist": ("layers=2", "hidden=8"),
    "astm-mnist": ("layers=2", "hidden=8"),
    "tau-mnist": ("frames=4", "hidden_spatial=8", "hidden_temporal=16", "translator_layers=2"),
    "tau-caltech": ("frames=4", "hidden_spatial=8", "hidden_temporal=16", "translator_layers=2", "outputs=2"),
}


def options(name: str) -> list[str]:
    return [word for setting in SMALL[name] for word in ("--set", setting)]


SLOW = ("stau-mnist", "astm-mnist", "tau-mnist", "tau-caltech")  # they take long and rarely tell anything


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SMALL])
def test_every_network_runs_on_the_demo(run: Run, tmp_path: Path, name: str) -> None:
    artifact, report, strip = tmp_path / "model.onnx", tmp_path / "report.json", tmp_path / "strip.png"
    code, out, err = run("export", name, "-o", artifact, "--frames", 3, *options(name))
    assert code == 0, err
    assert "random weights" in out
    words = ("run", "demo", "--model", artifact, "--horizon", 3, "--frames", 24)
    code, out, err = run(*words, "--json", report, "--record", strip)
    assert code == 0, err
    assert "random weights: no quality claimed" in out
    figures = json.loads(report.read_text())
    assert (figures["model"], figures["weights"], figures["resets"]) == (name, "random", 0)
    assert figures["ahead_ms"] == pytest.approx(3 * figures["interval_ms"], rel=0.01)
    assert figures["psnr_db"]["n"] > 0
    assert strip.stat().st_size > 0
    with load(artifact) as predictor:
        manifest = predictor.manifest
    assert {f"{k}={v}" for k, v in manifest.options.items()} >= set(SMALL[name])
    assert manifest.options.get("patch") == CONFIGS[name].options.get("patch")
    assert manifest.channel_order == {"stip-ucf": "BGR", "tau-caltech": "RGB"}.get(name, "GRAY")


def test_a_configuration_that_does_not_ship_runs_untrained(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    code, out, err = run("run", "demo", "--model", "mau-mnist", "--frames", 12, "--json", report)
    assert code == 0, err
    assert "mau-mnist ships without weights: exporting it with random ones for this run" in err
    assert "random weights: no quality claimed" in out
    assert json.loads(report.read_text())["weights"] == "random"
    code, out, err = run("inspect", "mau-mnist", "demo", "--frames", 7, "-o", tmp_path / "look")
    assert code == 0, err
    assert "random" in out
    assert (tmp_path / "look" / "attention.png").exists()


def test_a_network_of_flows_is_exported_but_not_run(run: Run, tmp_path: Path) -> None:
    artifact = tmp_path / "taxi.onnx"
    settings = ("--set", "hidden_temporal=16", "--set", "translator_layers=2")
    code, out, _ = run("export", "tau-taxibj", "-o", artifact, "--frames", 2, *settings)
    assert code == 0
    assert "real" not in out
    code, _, err = run("run", "demo", "--model", artifact)
    assert code == 1
    assert "channels are not a picture" in err
    assert err.count("\n") == 1


def test_an_export_creates_its_folder(run: Run, tmp_path: Path) -> None:
    artifact = tmp_path / "new" / "deep" / "model.onnx"
    code, _, err = run("export", "mau-mnist", "-o", artifact, "--frames", 2, *options("mau-mnist"))
    assert code == 0, err
    assert artifact.stat().st_size > 0


@pytest.mark.slow
def test_padding_is_cropped(run: Run, tmp_path: Path) -> None:
    """stip-4k pads its 2160 rows to 2176; the prediction shows only the 2160."""
    artifact = tmp_path / "4k.onnx"
    code, _, err = run("export", "stip-4k", "-o", artifact, "--frames", 1, "--set", "layers=1", "--set", "hidden=2")
    assert code == 0, err
    with load(artifact) as predictor:
        assert predictor.manifest.visible == (2160, 3840)
        prediction = stepped(predictor, np.full((1080, 1920, 3), 255, np.uint8))
        assert prediction.image.shape == predictor.input.shape == (2160, 3840, 3)
        frame = predictor._stepper.state.frame
        assert frame is not None
        assert frame.shape == (1, 3, 2176, 3840)
        assert (frame[0, :, 2160:] == 0).all()
        assert (frame[0, :, :2160] == 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "stip-ucf", "--set", "layer=2"), "no option 'layer'; it has height"),
        (("export", "stip-ucf", "--set", "width=500"), "multiples of 32"),
        (("export", "astm-kth", "--set", "eifag=paper"), "eifag takes true or false"),
        (("import-checkpoint", "no.ckpt", "--as", "stip-ucf"), "no.ckpt: No such file or directory"),
        (("import-checkpoint", "no.ckpt", "--as", "stip"), "no configuration 'stip'"),
        (("import-checkpoint", "no.ckpt", "--as", "astm-mnist"), "cannot import weights of astm-mnist: no checkpoint"),
        (
            ("import-checkpoint", "no.ckpt"),
            "framecast import-checkpoint needs --as (see 'framecast import-checkpoint --help')",
        ),
    ],
)
def test_bad_requests_are_one_line_with_the_cure(run: Run, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = run(*arguments)
    assert code in (1, 2)
    (shown,) = [line for line in err.splitlines() if line.startswith("framecast:")]
    assert message in shown
    assert "Traceback" not in err
    assert not out


def test_the_torch_engine_runs_a_network_that_does_not_ship(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = ("run", "demo", "--model", "mau-mnist", "--engine", "torch", "--frames", 3, "--json", report)
    code, _, err = run(*command)
    assert (code, json.loads(report.read_text())["engine"]) == (0, "torch"), err
    assert json.loads(report.read_text())["weights"] == "random"


MINIS = ("stip-mini", "stau-mini", "mau-mini", "astm-mini", "tau-mini")


@pytest.mark.slow
@pytest.mark.parametrize("name", MINIS)
def test_the_small_networks_fit_where_they_ship(run: Run, tmp_path: Path, name: str) -> None:
    artifact = tmp_path / "mini.onnx"
    code, out, err = run("export", name, "-o", artifact, "--frames", 3, "--store", "fp16")
    assert code == 0, err
    assert artifact.stat().st_size <= 1_500_000, out
    assert f"the trained weights that ship are not in it: use them by name (--model {name})" in out


def test_weights_stored_as_float16(run: Run, tmp_path: Path) -> None:
    artifact = tmp_path / "half.onnx"
    words = ("--frames", 3, *options("mau-mnist"))
    code, out, err = run("export", "mau-mnist", "-o", artifact, "--store", "fp16", *words)
    assert code == 0, err
    assert out.count("any drift") == 2  # on random and on real frames
    assert "random weights as fp16)" in out
    assert "weights that ship" not in out
    with load(artifact) as predictor:
        assert artifact.stat().st_size < 3 * predictor.manifest.parameters  # bytes
        assert (predictor.manifest.stored, predictor.manifest.precision) == ("fp16", "fp32")
    for name, store, message in (
        ("mau-mnist", "fp8", "--store takes fp32 or fp16, not fp8"),
        ("edge", "fp16", "edge has no weights to store as fp16: leave out --store"),
    ):
        code, out, err = run("export", name, "-o", tmp_path / "none.onnx", "--store", store)
        assert code == 1
        assert message in " ".join(err.split())
        assert not (tmp_path / "none.onnx").exists()
