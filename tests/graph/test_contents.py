"""An artifact's file is read once, and must contain all its weights, however other files are linked to it."""

from __future__ import annotations

import os
import subprocess
import sys
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


def of_another_domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.node.append(helper.make_node("Gelu", ["frame"], ["more"], domain="com.microsoft"))


def unfolding(model: onnx.ModelProto, depth: int = 40) -> None:
    """Functions that call the next one twice: some kilobytes that unfold into 2^40 operators."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    for level in range(depth):
        kind, domain = (f"F{level - 1}", "f") if level else ("Identity", "")
        nodes = [helper.make_node(kind, [a], [b], domain=domain) for a, b in (("x", "y"), ("y", "z"))]
        model.functions.append(helper.make_function("f", f"F{level}", ["x"], ["z"], nodes, opsets))
    model.opset_import.append(opsets[1])
    model.graph.node.append(helper.make_node(f"F{depth - 1}", ["frame"], ["more"], domain="f"))


def calling_itself(model: onnx.ModelProto) -> None:
    opsets = [helper.make_opsetid("f", 1)]
    node = helper.make_node("F", ["x"], ["y"], domain="f")
    model.functions.append(helper.make_function("f", "F", ["x"], ["y"], [node], opsets))
    model.graph.node.append(helper.make_node("F", ["frame"], ["more"], domain="f"))


def sparse(model: onnx.ModelProto) -> None:
    """One value that stands for 4 TB."""
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    places = numpy_helper.from_array(np.zeros(1, np.int64), "at")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [10**12]))


def raw_nan(model: onnx.ModelProto, dtype: str = "f4") -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, np.nan, 1], dtype), "w"))


def half_nan(model: onnx.ModelProto) -> None:
    raw_nan(model, "f2")


def listed_nan(model: onnx.ModelProto) -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, float("nan")])
    model.graph.node.append(helper.make_node("Constant", [], ["w"], value=weights))


def listed_half(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT16, [2], [1.0, float("nan")]))


@pytest.mark.parametrize(
    ("add", "reason"),
    [
        (of_another_domain, r"has an operator that framecast does not know \(com\.microsoft\.Gelu\)"),
        (unfolding, "unfolds into more than 65536 operators"),
        (calling_itself, "unfolds into more than 65536 operators"),
        (sparse, "has sparse weights"),
        (raw_nan, r"has weights that are not numbers \(NaN\)"),
        (half_nan, r"has weights that are not numbers \(NaN\)"),
        (listed_nan, r"has weights that are not numbers \(NaN\)"),
        (listed_half, "lists float16 weights as integers"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_no_export_contains_is_refused_before_a_library_reads_it(
    tmp_path: Path, add: Callable[[onnx.ModelProto], None], reason: str
) -> None:
    path = artifact(tmp_path / "still.onnx", still())
    model = onnx.load(path)
    add(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=rf"still\.onnx {reason}[^\n]*: export it again$"):
        graph_bytes(path)


def test_infinite_weights_and_functions_are_read(tmp_path: Path) -> None:
    """A mask of attention has -inf."""
    path = artifact(tmp_path / "still.onnx", still())
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.array([-np.inf, np.inf], np.float32), "w"))
    unfolding(model, depth=9)
    path.write_bytes(model.SerializeToString())
    assert graph_bytes(path) == path.read_bytes()


GREEDY = """
import sys, numpy, framecast
from framecast.runtime.engines import onnxruntime
onnxruntime.most_memory = lambda: 1 << 28
with framecast.load(sys.argv[1], engine="onnxruntime") as predictor:
    predictor.step(numpy.zeros((4, 6, 3), numpy.uint8))
"""


def test_a_graph_that_asks_for_too_much_memory_is_stopped(tmp_path: Path) -> None:
    """A small graph whose shapes are computed asks for 2.2 GB; no reader can see that in advance."""
    path = artifact(tmp_path / "still.onnx", still())
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.array([7_600_000, 1, 1, 1]), "factor"))
    old = list(model.graph.node)
    old[1].op_type = "Add"
    old[1].input.append("most")
    del model.graph.node[:]
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["frame"], ["shape"]),
            helper.make_node("Mul", ["shape", "factor"], ["large"]),
            helper.make_node("ConstantOfShape", ["large"], ["values"]),
            helper.make_node("ReduceMax", ["values"], ["most"], keepdims=0),
            *old,
        ]
    )
    path.write_bytes(model.SerializeToString())
    done = subprocess.run([sys.executable, "-c", GREEDY, path], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last.endswith(
        "EngineError: still needs more than 256 MB of memory, half of this machine's: use a smaller model, or another "
        "engine"
    )


def test_a_dimension_whose_name_is_no_text_is_one_line(tmp_path: Path) -> None:
    path = artifact(tmp_path / "still.onnx", still())
    path.write_bytes(path.read_bytes().replace(b"batch", b"\xffatch"))
    with pytest.raises(ArtifactError, match="its inputs do not match its manifest: export it again"):
        open_engine(path, "onnxruntime")
