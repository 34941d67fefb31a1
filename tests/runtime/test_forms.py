"""Which engines run which form of an artifact. A wrong form is reported before missing libraries."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import onnx
import pytest

from framecast.errors import ArtifactError, EngineError, OptionError
from framecast.graph.artifact import manifest_of
from framecast.graph.manifest import KEY
from framecast.runtime.engines import ENGINES, MIXED, check_presence, choose, open_engine
from framecast.runtime.shipped import shipped

from ..conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


@pytest.fixture
def quantized(tmp_path: Path) -> Path:
    """A float32 artifact whose manifest says int8."""
    proto = onnx.load(shipped()["stip-edge"])
    manifest = dataclasses.replace(manifest_of(proto), precision="int8")
    onnx.helper.set_model_props(proto, {KEY: manifest.to_json()})
    onnx.save(proto, tmp_path / "int8.onnx")
    return tmp_path / "int8.onnx"


@pytest.mark.parametrize("engine", [name for name, row in ENGINES.items() if row.forms == ("fp32",)])
def test_a_wrong_form_is_reported_first(
    engine: str, quantized: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    def no_driver(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", no_driver)
    for library in ("tensorrt", "tensorrt_rtx", "onnx", "framecast.export.load_network", "pycuda"):
        monkeypatch.setitem(sys.modules, library, None)
    message = f"int8.onnx is int8, which {engine} cannot run: run it with onnxruntime or openvino, or give the whole "
    with pytest.raises(ArtifactError, match=message):
        open_engine(quantized, engine)
    code, out, err = run("run", "demo", "--model", quantized, "--engine", engine)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert message in err


def test_a_build_refuses_int8_without_a_driver(quantized: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    def no_driver(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", no_driver)
    code, out, err = run("build", quantized)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "stip-edge is int8, which runs only on a CPU: use the whole float32 artifact" in err


def test_a_file_of_weights_is_not_read_as_an_artifact(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "framecast.export.load_network", None)  # as if torch were missing
    (tmp_path / "stip-edge.safetensors").write_bytes(b"")
    with pytest.raises(EngineError, match="the torch engine needs"):
        open_engine(tmp_path / "stip-edge.safetensors", "torch")


def test_the_mixed_graph_is_only_for_parity() -> None:
    with pytest.raises(OptionError, match=r"is not an engine, .*'framecast parity'.*: use onnxruntime; openvino"):
        choose(MIXED)
    assert choose("auto") == ("onnxruntime", "")
    assert choose("torch:fp16") == ("torch", "fp16")


def test_presence_is_checked_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", no_driver)
    check_presence("auto")
    with pytest.raises(EngineError, match=r"^cannot use tensorrt: .*no NVIDIA driver here"):
        check_presence("tensorrt:fp16")
    with pytest.raises(OptionError, match="no engine 'tensorflow'"):
        check_presence("tensorflow")
