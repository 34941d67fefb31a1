"""An artifact in two halves predicts the same as the whole one, whenever the first half runs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from framecast.errors import ArtifactError, EngineError, ExportError
from framecast.export.load_network import load_network
from framecast.graph.artifact import save
from framecast.graph.device import device_graph
from framecast.graph.manifest import KEY, other_half
from framecast.graph.split import split_artifact
from framecast.runtime.engines import open_engine
from framecast.runtime.engines.engine import Engine
from framecast.runtime.predictor import Predictor

from ..clips import moving_pictures  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from ..exported import exported  # noqa: TID252
from ..stepping import stepped  # noqa: TID252

ENGINES = [
    "onnxruntime",
    pytest.param(
        "openvino",
        marks=pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed"),
    ),
]
# Networks, and the number of convolutions that can run before the frame arrives.
HALVES = {"stip": 2, "stip-paper": 2, "stau": 6, "stau-tau-theta": 4, "mau": 2, "astm": 4, "astm-without-eifag": 4}


def halves(name: str, folder: Path) -> tuple[Path, Path]:
    """Write an artifact whole and in two halves."""
    whole, output = folder / "whole.onnx", folder / "halves.onnx"
    save(exported(name), whole)
    split_artifact(whole, output)
    return whole, output


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", HALVES)
def test_halves_predict_the_same_as_the_whole(name: str, engine: str, tmp_path: Path) -> None:
    whole, output = halves(name, tmp_path)
    first, second = onnx.load(other_half(output)), onnx.load(output)

    def convolutions(proto: onnx.ModelProto) -> int:
        return sum(node.op_type == "Conv" for node in proto.graph.node)

    assert convolutions(first) == HALVES[name]
    assert convolutions(first) + convolutions(second) == convolutions(onnx.load(whole))
    with open_engine(whole) as one, open_engine(output, engine) as other:
        states = [[each.new_state(2), each.new_state(2)] for each in (one, other)]
        rng = np.random.default_rng()
        for step in range(12):
            if step == 9:  # a reset discards the precomputed tensors
                for pair in states:
                    pair[0].reset()
            frame = rng.random((2, *one.manifest.frame), np.float32)
            states[1][1].prediction.fill(np.nan)
            if not states[1][0].is_precomputed:
                for buffer in states[1][0].precomputed.values():
                    buffer.fill(np.nan)
            if step % 3 != 1:  # otherwise the step itself runs the first half
                other.precompute(states[1][0])
                assert states[1][0].is_precomputed
            if step % 3 == 2:  # a second call changes nothing
                other.precompute(states[1][0])
            expected, found = one.step(frame, *states[0]), other.step(frame, *states[1])
            assert np.allclose(found, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
            for pair in states:
                pair.reverse()


def counted(engine: Engine) -> list[bool]:
    """A list that records, for every later run, whether the first half ran."""
    runs: list[bool] = []
    inside: Any = engine  # both engines have the private _run and _before
    inner = inside._run

    def run(half: object, *buffers: object) -> None:
        runs.append(half is inside._before)
        inner(half, *buffers)

    inside._run = run
    return runs


@pytest.mark.parametrize("name", ENGINES)
def test_the_first_half_runs_once_a_frame(name: str, tmp_path: Path) -> None:
    _, output = halves("stip", tmp_path)
    with open_engine(output, name) as engine:
        predictor, runs = Predictor(engine, watch=False), counted(engine)
        images = moving_pictures(engine.manifest.size, 4)
        for image in images:
            predictor.step(image)
            predictor.precompute()
        # On the first frame, the first half runs within the step. On later frames, it has run already.
        assert runs == [True, False, True, False, True, False, True, False, True]
        del runs[:]
        predictor.step(images[0])
        assert runs == [False]
        assert len(predictor.rollout(3)) == 3
        assert runs == [False, True, False, True, False]  # a rollout precomputes its own states


@pytest.mark.parametrize("engine", ENGINES)
def test_a_rollout_keeps_the_precomputed_tensors(engine: str, tmp_path: Path) -> None:
    whole, output = halves("stau", tmp_path)
    with open_engine(whole) as one, open_engine(output, engine) as other:
        expected, found = Predictor(one, watch=False), Predictor(other, watch=False)
        for image in moving_pictures(one.manifest.size, 8):
            a, b = stepped(expected, image), stepped(found, image)
            found.precompute()
            found.rollout(4)
            assert np.abs(a.image.astype(int) - b.image).max() <= 1


@pytest.mark.parametrize("name", ["tau", "tau-block"])
def test_networks_whose_layers_all_need_the_frame_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"cannot split .*: all its layers need the frame; run the whole artifact"):
        halves(name, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["whole.onnx"]


@pytest.mark.parametrize("engine", ENGINES)
def test_halves_must_match(engine: str, tmp_path: Path) -> None:
    _, output = halves("stip", tmp_path)
    half = other_half(output)
    with pytest.raises(ExportError, match="already in two halves"):
        split_artifact(output, tmp_path / "again.onnx")
    with pytest.raises(ArtifactError, match=r"is the half of a step that runs before the frame: .*\(halves\.onnx\)"):
        open_engine(half, engine)
    with pytest.raises(ArtifactError, match=r"give the artifact beside it$"):
        open_engine(half.rename(tmp_path / "renamed.onnx"), engine)
    (tmp_path / "renamed.onnx").rename(half)
    kept = half.read_bytes()
    (tmp_path / "other").mkdir()
    halves("stip-paper", tmp_path / "other")
    half.write_bytes((tmp_path / "other" / half.name).read_bytes())
    with pytest.raises(ArtifactError, match=r"is not the other half of halves\.onnx: put its matching half"):
        open_engine(output, engine)
    half.unlink()
    with pytest.raises(ArtifactError, match=r"is half of a step, but halves\.before\.onnx is missing: put its"):
        open_engine(output, engine)
    half.write_bytes(kept)
    open_engine(output, engine).close()


def test_other_engines_need_the_whole_artifact(tmp_path: Path) -> None:
    _, output = halves("stip", tmp_path)
    with pytest.raises(
        ExportError, match="is half of a step, which runs only on a CPU: use the whole float32 artifact"
    ):
        device_graph(onnx.load(output))
    with pytest.raises(ArtifactError, match=r"cannot load a network from .*: it is half of a step"):
        load_network(output)
    for engine in ("onnxruntime-cuda", "torch", "tensorrt"):
        with pytest.raises(ArtifactError, match="half of a step"):
            open_engine(output, engine)


@pytest.mark.parametrize("name", ENGINES)
def test_a_closed_engine_says_so(name: str, tmp_path: Path) -> None:
    _, output = halves("stip", tmp_path)
    engine = open_engine(output, name)
    states = engine.new_state(), engine.new_state()
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="is closed"):
        engine.step(np.zeros((1, *engine.manifest.frame), np.float32), *states)


def test_the_manifest_lists_the_precomputed_tensors(tmp_path: Path) -> None:
    whole, output = halves("stip", tmp_path)
    with open_engine(whole) as one, open_engine(output) as other:
        assert not one.manifest.precomputed
        assert set(other.manifest.precomputed.values()) == {(32, 4, 6)}
        assert KEY not in {entry.key for entry in onnx.load(other_half(output)).metadata_props}
