"""Model repositories: what is in them, and what cannot be served. Triton's own parser reads them in test_triton.py."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
from tritonclient.grpc import model_config_pb2

from framecast.errors import ExportError, OptionError, SinkError
from framecast.graph.artifact import manifest_of, save
from framecast.graph.manifest import Manifest
from framecast.graph.repository import Serving, config, write_repository
from framecast.runtime.shipped import find

from ..exported import edge_graphs, exported  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "stau.onnx"
    save(exported("stau"), path)
    return path


def parsed(text: str) -> model_config_pb2.ModelConfig:
    """The configuration as Triton's messages, read by protobuf."""
    from google.protobuf import text_format  # type: ignore[import-untyped]

    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_configuration_names_the_graphs_inputs_outputs_and_states(artifact: Path, tmp_path: Path) -> None:
    version, manifest = write_repository(artifact, tmp_path / "repository", Serving(steps=2, cameras=9, batch=4))
    found = parsed((version.parent / "config.pbtxt").read_text())
    graph = onnx.load(version / "model.onnx").graph
    batching = found.sequence_batching
    assert (found.name, found.backend, found.max_batch_size) == ("stau", "onnxruntime", 4)
    assert (batching.max_sequence_idle_microseconds, batching.oldest.max_candidate_sequences) == (60_000_000, 9)
    (start,) = batching.control_input
    assert start.control[0].kind == start.control[0].CONTROL_SEQUENCE_START
    assert list(start.control[0].fp32_false_true) == [manifest.slots, 0]  # START keeps nothing
    given = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim][1:] for value in graph.input}
    states = {state.input_name: state for state in batching.state}
    assert {one.name: list(one.dims) for one in found.input} | {
        name: list(state.dims) for name, state in states.items()
    } | {"keep": [1]} == given
    made = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim][1:] for value in graph.output}
    assert {one.name: list(one.dims) for one in found.output} | {
        state.output_name: list(state.dims) for state in states.values()
    } == made
    assert all(state.initial_state[0].zero_data for state in states.values())
    assert Manifest.from_json(found.parameters["framecast"].string_value) == manifest
    assert manifest.outputs == 2


def test_a_second_export_is_a_second_version(artifact: Path, tmp_path: Path) -> None:
    versions = [write_repository(artifact, tmp_path / "repository", Serving())[0].name for _ in range(2)]
    assert versions == ["1", "2"]


def test_every_file_of_the_python_backend_is_there(tmp_path: Path) -> None:
    path = edge_graphs(tmp_path)
    version, _ = write_repository(path, tmp_path / "repository", Serving("python"), name="small")
    assert sorted(one.name for one in version.iterdir()) == ["artifact.onnx", "artifact.render.onnx", "model.py"]
    version, manifest = write_repository(find("edge"), tmp_path / "repository", Serving("python"))
    assert sorted(one.name for one in version.iterdir()) == ["artifact.json", "model.py"]
    found = parsed((version.parent / "config.pbtxt").read_text())
    assert [one.name for one in found.input] == ["image", "elapsed", "ahead"]
    assert not found.sequence_batching.state
    assert manifest.renders == "moments"


def test_the_engine_of_tensorrt_is_left_to_the_servers_machine(artifact: Path, tmp_path: Path) -> None:
    version, _ = write_repository(artifact, tmp_path / "repository", Serving("tensorrt", batch=4))
    assert not [*version.iterdir()]
    graph = onnx.load(version.parent / "model.onnx").graph
    text = (version.parent / "README.md").read_text()
    (shapes,) = re.findall(r"--maxShapes=(\S+)", text)
    assert {shape.partition(":")[0] for shape in shapes.split(",")} == {value.name for value in graph.input}
    assert all(shape.partition(":")[2].startswith("4x") for shape in shapes.split(","))
    assert text.count("\n    tritonserver ") == text.count("\n    framecast run ") == 1


def test_what_cannot_be_served_is_an_error(artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    for wrong, said in (
        (Serving("numpy"), "no backend 'numpy': choose from onnxruntime, tensorrt, python"),
        (Serving(steps=0), "--steps must be 1 to 64, not 0"),
        (Serving(idle=0.0), "--idle must be 1s to 24h"),
    ):
        with pytest.raises(OptionError, match=said):
            write_repository(artifact, folder, wrong)
    with pytest.raises(OptionError, match="cannot name a model"):
        write_repository(artifact, folder, Serving(), name="../x")
    with pytest.raises(ExportError, match="use --backend python, or a network"):
        write_repository(find("edge"), folder, Serving("tensorrt"))
    assert not folder.exists()
    folder.touch()
    with pytest.raises(SinkError, match="choose another --output"):
        write_repository(artifact, folder, Serving())


def test_text_in_a_manifest_stays_text() -> None:
    manifest = manifest_of(exported("stau"))
    told = config("it", Manifest(**{**manifest.__dict__, "weights": 'a "b" \\ é'}), Serving())
    found = parsed(told)
    assert Manifest.from_json(found.parameters["framecast"].string_value).weights == 'a "b" \\ é'
