"""``framecast models`` lists shipped models first, ``framecast doctor`` starts with a verdict; both write JSON."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from framecast.errors import EngineError
from framecast.models.configs import CONFIGS
from framecast.runtime import doctor
from framecast.runtime.engines import ENGINES
from framecast.runtime.shipped import shipped

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


def test_models_that_ship_come_first(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # xdist sets a width so small that the list becomes two tables
    file = tmp_path / "new" / "models.json"
    code, out, err = run("models", "--json", file)
    assert (code, err) == (0, "")
    listed = [line.split()[1] for line in out.splitlines() if line.startswith("│")]
    assert set(listed[: len(shipped())]) == set(shipped())
    assert set(listed) == {*shipped(), *CONFIGS}
    found = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert [one["name"] for one in found] == listed
    assert [one["ships"] for one in found] == [name in shipped() for name in listed]
    named = {one["name"]: one for one in found}
    assert named["stip-edge"]["psnr_db"]["prediction"] > named["stip-edge"]["psnr_db"]["copy_last"]
    assert found[-1]["psnr_db"] is None
    edge = named["edge"]  # takes any size, and has no trained weights
    assert (edge["width"], edge["height"], edge["parameters"], edge["gmacs"]) == (None, None, 0, None)
    (row,) = [line.split("│") for line in out.splitlines() if line.startswith("│ edge ")]
    assert [cell.strip() for cell in row[3:5]] == ["any", "none"]


def test_the_doctor_begins_with_a_verdict(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "doctor.json"
    code, out, err = run("doctor", "--json", file)
    assert (code, err) == (0, "")
    assert out.startswith("Ready: 'framecast run demo' works here.\nEngines that work: opencv, onnxruntime")
    found = json.loads(file.read_text())
    assert found["ready"] is True
    assert found["engines"][:2] == ["opencv", "onnxruntime"]
    parts = {part["part"]: part for part in found["parts"]}
    assert {f"engine {name}" for name in ENGINES} <= set(parts)  # including onnxruntime-cuda
    for name in ENGINES:
        part = parts[f"engine {name}"]
        assert part["here"] is (name in found["engines"])
        assert part["here"] or "pip install" in part["cure"]


def test_a_machine_that_cannot_run_the_demo_is_not_ready(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: backend != cv2.CAP_FFMPEG)
    code, out, _ = run("doctor")
    assert code == 1
    assert out.startswith("Not ready: opencv FFMPEG (files and rtsp://): missing (install opencv-python from PyPI)\n")


def test_an_engine_that_is_missing_says_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> str:
        raise EngineError("openvino is not installed: pip install 'framecast[openvino]'")

    monkeypatch.setattr("framecast.runtime.engines.presence._version", missing)
    found = {finding.part: finding for finding in doctor.examine()}["engine openvino"]
    assert found.state == "openvino is not installed"
    assert found.cure == "only for the CPU, faster: pip install 'framecast[openvino]'"


def test_csi_needs_one_of_two_ways_and_names_no_cure_if_one_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: backend != cv2.CAP_GSTREAMER)
    monkeypatch.setattr(doctor, "_SYSTEM", Path("/nowhere"))
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    found = {finding.part: finding for finding in doctor.examine()}["opencv GSTREAMER (csi://)"]
    assert (found.here, found.cure) == (False, "")
    assert "gst-launch-1.0 is used instead" in found.state
    monkeypatch.setattr("shutil.which", lambda name: None)
    parts = {finding.part: finding for finding in doctor.examine()}
    assert "gstreamer1.0-tools" in parts["opencv GSTREAMER (csi://)"].cure
    assert "gstreamer1.0-tools" in parts["gst-launch-1.0 (csi://)"].cure


@pytest.mark.parametrize("command", ["models", "doctor"])
def test_bad_input_is_one_line(run: Run, command: str) -> None:
    cases = (("x.txt", "--json x.txt: give a file that ends in .json"), ("/proc/no/x.json", "cannot write"))
    for file, message in cases:
        code, out, err = run(command, "--json", file)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert message in err
