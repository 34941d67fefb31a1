"""A CPU's int8 instructions, and the warning if an artifact's sums can saturate on it."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import onnx
import pytest

import framecast
from framecast.graph.artifact import manifest_of
from framecast.graph.manifest import KEY, LARGEST_SUM, Manifest
from framecast.runtime import doctor
from framecast.runtime.cpu import Int8, caution, int8
from framecast.runtime.shipped import shipped

from ..conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

HASWELL = Int8("AVX2 without VNNI", saturates=True)
VNNI = Int8("AVX-512 VNNI")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu sse4_1 avx2 avx512f avx512_vnni", VNNI),
        ("fpu sse4_1 avx2 avx_vnni", Int8("AVX-VNNI")),
        ("fpu sse4_1 avx avx2 avx512f avx512bw", HASWELL),
        ("fpu sse4_1 avx", Int8("SSE4.1")),
        ("fpu", Int8("unknown")),
    ],
)
def test_an_x86_cpu_is_recognized_by_its_flags(flags: str, expected: Int8, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    assert int8(tmp_path, "x86_64") == expected


def test_other_systems(tmp_path: Path) -> None:
    assert int8(tmp_path, "aarch64") == int8(tmp_path, "ARM64") == Int8("NEON")
    assert int8(tmp_path, "x86_64") == Int8("unknown")  # no /proc


@pytest.fixture
def manifest() -> Manifest:
    return dataclasses.replace(manifest_of(onnx.load(shipped()["stip-edge"])), precision="int8")


def test_only_sums_that_can_saturate_give_a_warning(manifest: Manifest) -> None:
    line = caution(manifest, HASWELL)
    assert line is not None
    assert "(AVX2 without VNNI)" in line
    assert "\n" not in line
    assert caution(dataclasses.replace(manifest, pair_sum=LARGEST_SUM + 1), HASWELL) is not None
    assert caution(dataclasses.replace(manifest, pair_sum=LARGEST_SUM), HASWELL) is None
    assert caution(manifest, VNNI) is None
    assert caution(manifest, Int8("unknown")) is None
    assert caution(dataclasses.replace(manifest, precision="fp32"), HASWELL) is None


def test_a_manifest_without_the_field_is_read(manifest: Manifest) -> None:
    raw = json.loads(manifest.to_json())
    del raw["pair_sum"]
    assert Manifest.from_json(json.dumps(raw)).may_saturate
    assert not Manifest.from_json(json.dumps({**raw, "pair_sum": 32_640})).may_saturate


@pytest.fixture
def older(manifest: Manifest, tmp_path: Path) -> Path:
    """A float32 artifact whose manifest says int8, without ``pair_sum``."""
    proto = onnx.load(shipped()["stip-edge"])
    onnx.helper.set_model_props(proto, {KEY: manifest.to_json()})
    onnx.save(proto, tmp_path / "older.onnx")
    return tmp_path / "older.onnx"


@pytest.mark.parametrize(("cpu", "lines"), [(HASWELL, 1), (VNNI, 0)])
def test_a_run_warns_in_one_line(
    cpu: Int8, lines: int, older: Path, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("framecast.runtime.cpu.int8", lambda: cpu)
    code, _, err = run("run", "demo", "--model", older, "--frames", 2)
    assert code == 0
    assert len(err.splitlines()) == lines
    assert err.count("this int8 artifact's sums can saturate on this CPU (AVX2 without VNNI)") == lines
    caplog.clear()
    with caplog.at_level(logging.WARNING), framecast.load(older):
        assert len(caplog.records) == lines


@pytest.mark.parametrize(("cpu", "cure"), [(HASWELL, "quantize again with 'framecast quantize'"), (VNNI, "")])
def test_the_doctor_names_the_instructions(cpu: Int8, cure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "int8", lambda: cpu)
    (found,) = (finding for finding in doctor.examine() if finding.part == "int8 on this CPU")
    assert found.state.startswith(cpu.instructions)
    assert found.cure.endswith(cure)
    assert bool(found.cure) == bool(cure)
