"""The commands ``framecast quantize`` and ``framecast split``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from framecast.runtime.cpu import int8
from framecast.runtime.engines import open_engine

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

pytestmark = pytest.mark.usefixtures("exports_once")


def test_quantize_and_check(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    output = tmp_path / "int8.onnx"
    code, out, err = run("quantize", "stip-edge", "--calibration", "demo", "--frames", 4, "-o", output)
    assert code == 0, err
    assert "against float32" in out
    assert "times as fast" in out
    assert f"{int8().instructions}, in ONNX Runtime" in out
    assert re.search(r"two products add up to at most 3\d,\d{3}; 16 bits hold 32,767", out)
    with open_engine(output) as engine:
        assert engine.manifest.precision == "int8"
    report = tmp_path / "run.json"
    code, out, err = run("run", "demo", "--model", output, "--frames", 3, "--json", report)
    assert code == 0, err
    assert json.loads(report.read_text())["precision"] == "int8"
    assert ", int8" in out


def test_split_and_run(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "mau.onnx"
    code, out, err = run("split", "mau-mnist", "-o", output)
    assert code == 0, err
    assert "mau.before.onnx: keep them together" in out
    code, out, err = run("run", "demo", "--model", output, "--frames", 12)
    assert code == 0, err
    code, out, err = run("bench", output, "--duration", 0, "--iterations", 2, "--warmup", 0, "--cold-starts", 0)
    assert code == 0, err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["quantize", "stip-edge", "--calibration", "nothing.mp4"], "no such file: nothing.mp4"),
        (["quantize", "stip-edge", "--calibration", "demo", "--frames", "0"], "--frames must be at least 1"),
        (
            ["quantize", "stip-edge", "--calibration", "demo", "-o", "x.txt"],
            "--output x.txt: give a file that ends in .onnx",
        ),
        (["quantize", "nonesuch", "--calibration", "demo"], "'framecast models' describes"),
        (["quantize", "mau-mnist", "--calibration", "demo", "--source", "nothing.mp4"], "no such file: nothing.mp4"),
        (
            ["quantize", "stip-edge", "--calibration", "demo", "--frames", "300"],
            "after the 300 to calibrate on: use fewer --frames",
        ),
        (["quantize", __file__, "--calibration", "demo"], "is not an ONNX file: make one with 'framecast export'"),
        (["quantize", "edge", "--calibration", "demo"], "edge is a model of motion, not a network"),
        (["split", "edge"], "edge is a model of motion, not a network"),
        (["split", "stip-edge", "-o", "x.txt"], "--output x.txt: give a file that ends in .onnx"),
        (["split", "nonesuch"], "'framecast models' describes"),
    ],
)
def test_bad_input_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*command)
    assert (code, out) == (1, "")
    (line,) = err.splitlines()  # a single line: no progress before the error
    assert message in line
    assert not list(tmp_path.iterdir())
