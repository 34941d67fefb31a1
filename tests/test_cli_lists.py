"""``framecast models`` lists shipped models first, ``framecast doctor`` starts with a verdict; both write JSON."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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
    def without_av(name: str) -> str:
        if name == "av":
            raise PackageNotFoundError
        return version(name)

    monkeypatch.setattr(doctor, "version", without_av)
    code, out, _ = run("doctor")
    assert code == 1
    assert out.startswith("Not ready: pyav (videos, streams): missing (pip install av)\n")


def test_an_engine_that_is_missing_says_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> str:
        raise EngineError("openvino is not installed: pip install 'framecast[openvino]'")

    monkeypatch.setattr("framecast.runtime.engines.presence._version", missing)
    found = {finding.part: finding for finding in doctor.examine()}["engine openvino"]
    assert found.state == "openvino is not installed"
    assert found.cure == "only for the CPU, faster: pip install 'framecast[openvino]'"


@pytest.mark.parametrize(
    ("place", "cure"),
    [("/usr/bin/gst-launch-1.0", ""), (None, "only for csi:// on a Jetson: apt-get install gstreamer1.0-tools")],
)
def test_csi_needs_gst_launch(monkeypatch: pytest.MonkeyPatch, place: str | None, cure: str) -> None:
    monkeypatch.setattr("shutil.which", lambda name: place)
    found = {finding.part: finding for finding in doctor.examine()}["gst-launch-1.0 (csi://)"]
    assert (found.state, found.cure, found.here) == (place or "missing", cure, bool(place))


@pytest.mark.parametrize("command", ["models", "doctor"])
def test_bad_input_is_one_line(run: Run, command: str) -> None:
    cases = (("x.txt", "--json x.txt: give a file that ends in .json"), ("/proc/no/x.json", "cannot write"))
    for file, message in cases:
        code, out, err = run(command, "--json", file)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert message in err
