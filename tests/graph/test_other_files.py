"""Files that are no artifacts, and graphs that cannot step: one line says so. tests/fuzz has the damaged ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from framecast.errors import ArtifactError, EngineError, FramecastError
from framecast.export.inspect import TappedGraph

from ..fuzz.graphs import network, step  # noqa: TID252
from .test_manifest import artifact, still  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


def test_a_graph_that_opens_but_cannot_step_is_one_line(tmp_path: Path) -> None:
    path = artifact(tmp_path / "still.onnx", still())
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.array([99]), "far"))
    model.graph.node.insert(0, helper.make_node("Gather", ["frame", "far"], ["gathered"], axis=1))
    model.graph.node.insert(1, helper.make_node("Add", ["frame", "gathered"], ["sum"]))
    model.graph.node[2].input[0] = "sum"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match=r"^onnxruntime could not run still: [^\n]*$"):
        step(path)
    with pytest.raises(EngineError, match=r"^onnxruntime could not run still: [^\n]*$"):
        TappedGraph(path).step(np.zeros((1, 3, 4, 6), np.float32))


def test_the_runtimes_allocator_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = network()
    model.graph.node[0].attribute[0].ints[3] = 2**63 - 1  # padding
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises((ArtifactError, EngineError)):
        step(tmp_path / "a.onnx")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "raw",
    [b"", b"\0", b"{}", b"[" * 100_000, b"\xff\xfe{}", b"\x7fELF" + bytes(64), b"ORTM" * 9, b"PK\x03\x04" + bytes(30)],
    ids=["empty", "zero", "json", "deep", "utf-16", "elf", "ort", "zip"],
)
@pytest.mark.parametrize("suffix", [".onnx", ".json"])
def test_other_files_are_no_artifacts(tmp_path: Path, raw: bytes, suffix: str) -> None:
    import framecast

    path = tmp_path / f"other{suffix}"
    path.write_bytes(raw)
    with pytest.raises(FramecastError) as caught:
        framecast.load(path)
    assert isinstance(caught.value, ArtifactError)
    assert str(caught.value).isprintable()
