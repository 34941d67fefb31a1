"""An artifact's file is read once, and must contain all its weights, however other files are linked to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from framecast.errors import ArtifactError
from framecast.graph import contents
from framecast.graph.artifact import load
from framecast.graph.contents import graph_bytes
from framecast.runtime.engines import open_engine

from .test_manifest import artifact, still  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

ENGINES = [name for name in ("onnxruntime", "openvino") if find_spec(name)]


def outside(place: str = "hard.bin") -> onnx.TensorProto:
    """A tensor whose values are in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=place)
    return tensor


def in_weights(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(outside())


def in_sparse_weights(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(outside())


def in_an_attribute(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["w"], value=outside()))


def in_a_branch(model: onnx.ModelProto) -> None:
    branch = helper.make_graph([], "branch", [], [], [outside()])
    model.graph.node.append(helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch))


def in_a_function(model: onnx.ModelProto) -> None:
    inner = helper.make_node("Constant", [], ["w"], value=outside())
    model.functions.append(helper.make_function("d", "F", [], ["w"], [inner], [helper.make_opsetid("", 18)]))


def in_a_field_that_is_merged(model: onnx.ModelProto) -> None:
    """Data, but not said to be elsewhere: another reader of protobuf may see the fields in another order."""
    model.graph.initializer.append(outside())
    model.graph.initializer[-1].data_location = TensorProto.DEFAULT


@pytest.mark.parametrize(
    "add",
    [in_weights, in_sparse_weights, in_an_attribute, in_a_branch, in_a_function, in_a_field_that_is_merged],
    ids=lambda add: add.__name__,
)
@pytest.mark.parametrize("linked", [os.link, os.symlink], ids=["hard", "symbolic"])
def test_weights_in_other_files_are_refused_by_every_way_in(
    tmp_path: Path, add: Callable[[onnx.ModelProto], None], linked: Callable[[Path, Path], None]
) -> None:
    (tmp_path / "secret.bin").write_bytes(np.ones(2, np.float32).tobytes())
    linked(tmp_path / "secret.bin", tmp_path / "hard.bin")
    path = artifact(tmp_path / "still.onnx", still())
    model = onnx.load(path)
    add(model)
    path.write_bytes(model.SerializeToString())
    engines = [partial(open_engine, name=name) for name in ENGINES]
    readers: list[Callable[[Path], object]] = [graph_bytes, load, *engines]
    for reader in readers:
        with pytest.raises(ArtifactError, match=r"keeps its weights in other files.*: export it again$"):
            reader(path)


def test_a_graph_that_only_talks_about_a_location_is_read(tmp_path: Path) -> None:
    path = artifact(tmp_path / "still.onnx", still(weights="location of external_data"))
    assert graph_bytes(path) == path.read_bytes()
    with open_engine(path, "onnxruntime") as engine:
        assert engine.manifest.weights == "location of external_data"


@pytest.mark.parametrize(
    "raw", [b"\x0b", b"\x3a\xff", b"\x3a\x7flocation", b"\x08" + b"\xff" * 10, b"\x3d\0", b"\xff" * 99]
)
def test_bytes_that_are_no_graph_are_one_line(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(raw + b"location")
    for reader in (graph_bytes, load, lambda at: open_engine(at, "onnxruntime")):
        with pytest.raises(ArtifactError, match=r"^[^\n]*is not an ONNX file[^\n]*$"):
            reader(path)


def test_only_a_regular_file_of_bounded_size_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    sparse = tmp_path / "large.onnx"
    with sparse.open("wb") as file:
        file.truncate(contents.LARGEST + 1)
    for path, message in (
        (tmp_path / "pipe.onnx", "is not a regular file"),
        (Path("/dev/zero"), "is not a regular file"),
        (tmp_path, r"cannot read .*directory"),
        (tmp_path / "no.onnx", "cannot read .*No such file"),
        (sparse, "is too large"),
    ):
        for reader in (graph_bytes, load):
            with pytest.raises(ArtifactError, match=message):
                reader(path)


def test_what_was_checked_is_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is swapped right after it was read: the engine still runs the graph that was checked."""
    import onnxruntime

    path = artifact(tmp_path / "still.onnx", still())
    real = onnxruntime.InferenceSession

    def swapped(data: bytes, *arguments: object, **options: object) -> object:
        path.write_bytes(b"something else")
        return real(data, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", swapped)
    with open_engine(path, "onnxruntime") as engine:
        assert engine.manifest.config == "still"


def test_a_librarys_text_cannot_control_the_terminal(tmp_path: Path) -> None:
    path = artifact(tmp_path / "still.onnx", still())
    model = onnx.load(path)
    model.graph.node[0].op_type = "Un\x1b[31m\rknown\u2028"
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "unused"))
    path.write_bytes(model.SerializeToString())
    for engine in ENGINES:
        with pytest.raises(ArtifactError, match="Un") as caught:
            open_engine(path, engine)
        assert str(caught.value).isprintable()


def test_a_dimension_whose_name_is_no_text_is_one_line(tmp_path: Path) -> None:
    path = artifact(tmp_path / "still.onnx", still())
    path.write_bytes(path.read_bytes().replace(b"batch", b"\xffatch"))
    with pytest.raises(ArtifactError, match="its inputs do not match its manifest: export it again"):
        open_engine(path, "onnxruntime")
