"""``framecast parity``: the drift of an engine over a stream, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from framecast.evaluation.parity import drift
from framecast.runtime.convert import Tensor
from framecast.runtime.engines import open_engine
from framecast.runtime.engines.engine import Engine, State
from framecast.runtime.score import psnr
from framecast.runtime.shipped import find

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

pytestmark = pytest.mark.usefixtures("exports_once")


def test_engines_are_compared_with_the_reference(run: Run, tmp_path: Path) -> None:
    figures = tmp_path / "parity.json"
    names = "torch,onnxruntime:fp16"
    code, out, err = run("parity", "stip-edge", "--engine", names, "--frames", 30, "--json", figures)
    assert code == 0, err
    found = json.loads(figures.read_text())["engines"]
    for name, most in (("torch", 1e-3), ("onnxruntime:fp16", 2e-2)):
        assert name in out
        assert found[name]["steps"] == 30
        assert 0 < found[name]["mean"] < found[name]["max"] < most
        assert abs(found[name]["psnr_change"]) < 0.01
        assert found[name]["psnr"] > 25


def test_without_engine_the_engines_that_cannot_run_here_are_listed(run: Run) -> None:
    code, out, err = run("parity", "mau-mnist", "--frames", 2)
    assert code == 0, err
    for name in ("torch", "onnxruntime-cuda", "tensorrt"):
        assert f"{name}: not run: " in out or name in out.partition("not run")[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engine", "tensorflow"), "use opencv, onnxruntime"),
        (("--engine", "onnxruntime:bf16"), "one precision"),
        (("--frames", "0"), "--frames must be at least 1"),
        (("--engine", "onnxruntime:fp16,tensorrt:int8"), "tensorrt runs in fp16 or fp32"),
        (("--engine", ","), "--engine ,: use opencv, onnxruntime"),
        (("--source", "nowhere.mp4"), "no such file"),
    ],
)
def test_bad_input_is_one_line(run: Run, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = run("parity", "mau-mnist", *arguments)  # rejected before mau-mnist is exported
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert message in err


def test_a_model_without_a_graph_cannot_be_compared(run: Run) -> None:
    code, out, err = run("parity", "edge", "--frames", 2)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "edge has no graph: it runs with opencv, not with onnxruntime" in err


def test_too_few_frames_have_no_psnr(run: Run) -> None:
    code, out, _ = run("parity", "stip-edge", "--engine", "onnxruntime", "--frames", 2)
    assert code == 0
    assert "nan" not in out


class Shifted(Engine):
    """Another engine, whose predictions are off by one grey level."""

    name, device, version = "shifted", "test", "0"

    def __init__(self, inner: Engine) -> None:
        self.inner, self.manifest = inner, inner.manifest

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        shifted: Tensor = self.inner.step(frame, state_in, state_out) + np.float32(1 / 255)
        return shifted

    def close(self) -> None:
        pass


def test_a_known_error_is_reported() -> None:
    rng = np.random.default_rng()
    images = [np.full((192, 256, 3), int(level), np.uint8) for level in rng.permutation(np.arange(40, 200))[:12]]
    with open_engine(find("stip-edge")) as engine:
        found = drift(engine, Shifted(engine), images)
        same = drift(engine, engine, images)
    assert (same.max, same.mean, same.psnr_change) == (0, 0, 0)
    assert found.steps == 12
    assert found.max == pytest.approx(1 / 255, abs=1e-6)
    assert found.mean == pytest.approx(1 / 255, abs=1e-6)
    assert found.psnr_change != 0
    assert psnr(images[0], images[0] + 1) == pytest.approx(48.13, abs=0.01)
