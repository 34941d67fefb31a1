"""The engine openvino predicts the same as the network, writes to the given buffers, and sends no telemetry."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

if find_spec("openvino") is None:  # not importorskip, because an import sends telemetry to Google Analytics
    pytest.skip("openvino is not installed", allow_module_level=True)
pytest.importorskip("torch")
import onnx
import torch
from onnx import helper

import framecast.runtime.engines.openvino as openvino_engine
from framecast.errors import ArtifactError, EngineError, OptionError
from framecast.graph.artifact import save
from framecast.models.step import StepModel
from framecast.runtime.doctor import examine
from framecast.runtime.engines import Engine, State, open_engine
from framecast.runtime.engines.openvino import OpenVinoEngine
from framecast.runtime.predictor import Predictor
from framecast.runtime.shipped import find

from ..clips import moving_pictures  # noqa: TID252
from ..exported import exported, pair  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)
from ..networks import NETWORKS  # noqa: TID252

SOME = ("stip", "stip-edge", "astm-tau", "stau", "tau-block", "mau")


def artifact(name: str, folder: Path) -> Path:
    path = folder / f"{name}.onnx"
    save(exported(name), path)
    return path


@pytest.fixture(scope="module", params=NETWORKS)
def network(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[StepModel, Engine]]:
    """A network, and the engine that runs its artifact."""
    path = artifact(request.param, tmp_path_factory.mktemp("artifact"))
    with open_engine(path, "openvino", threads=1) as engine:
        yield pair(request.param)[0], engine


@pytest.fixture
def model(network: tuple[StepModel, Engine]) -> StepModel:
    return network[0]


@pytest.fixture
def engine(network: tuple[StepModel, Engine]) -> Engine:
    return network[1]


def allowed(engine: Engine) -> float:
    """The largest allowed error. stip-edge warps noise, so a flow's last bit changes a grey value in any engine."""
    return 5e-3 if "stip-edge" in engine.manifest.config else 1e-5


def buffers(state: State) -> list[np.ndarray]:
    """All buffers of a state that the next step may read, and its prediction."""
    return [*state.tensors.values(), state.prediction, *(t for moment in state.past for t in moment.tensors.values())]


def poison(state: State, before: State) -> None:
    """Fill with NaN all buffers that the step from ``before`` must write into ``state``."""
    free = [moment for moment in state.own if moment not in before.past]
    for buffer in (*state.tensors.values(), state.prediction, *(t for m in free for t in m.tensors.values())):
        buffer.fill(np.nan)


@pytest.mark.parametrize("batch", [1, 2])
@torch.inference_mode()
def test_steps_equal_those_of_the_network(model: StepModel, engine: Engine, batch: int) -> None:
    states, expected_state = [engine.new_state(batch), engine.new_state(batch)], model.init_state(batch)
    for _ in range(10):
        frame = np.random.default_rng().random((batch, *model.frame_shape), np.float32)
        expected, expected_state = model.step(torch.from_numpy(frame), expected_state)
        poison(states[1], states[0])
        read = buffers(states[0])
        before = [buffer.copy() for buffer in read]
        got = engine.step(frame, *states)
        assert got is states[1].prediction
        assert np.abs(got - expected.numpy()).max() < allowed(engine)
        assert all(np.isfinite(buffer).all() for buffer in buffers(states[1]))
        assert all(np.array_equal(one, other) for one, other in zip(before, read, strict=True))
        states.reverse()


@pytest.mark.parametrize("name", SOME)
def test_it_predicts_the_same_as_onnxruntime(name: str, tmp_path: Path) -> None:
    """Predictions are within a grey level, also after a reset, and looking ahead does not change the live state."""
    path = artifact(name, tmp_path)
    with (
        Predictor(open_engine(path), watch=False) as one,
        Predictor(open_engine(path, "openvino"), watch=False) as other,
    ):
        for length in (5, 1, 2):
            for image in moving_pictures(one.manifest.size, length):
                one.step(image)
                other.step(image)
                kept = [(buffer, buffer.copy()) for buffer in buffers(other._stepper.state)]
                pairs = [*zip(one.rollout(4), other.rollout(4), strict=True)]
                assert all(np.array_equal(buffer, before) for buffer, before in kept)
                for expected, got in pairs:
                    assert np.abs(expected.image.astype(int) - got.image).max() <= 1
            one.reset()
            other.reset()
        assert one.resets == other.resets == 0


@pytest.mark.parametrize("name", ["stip", "mau"])
def test_a_steady_stream_binds_nothing_new(name: str, tmp_path: Path) -> None:
    with OpenVinoEngine(artifact(name, tmp_path)) as engine:
        predictor = Predictor(engine, watch=False)
        width, height = engine.manifest.size
        counts = []
        for _ in range(3):
            for _ in range(12):
                predictor.step(np.zeros((height, width, 3), np.uint8))
                predictor.rollout(3)
            counts.append(sum(len(p) for others in engine._bindings._kept.values() for p in others.values()))
        assert counts[0] == counts[1] == counts[2]
        assert engine._graph is not None
        assert len(engine._graph._requests) == 1


def test_one_of_several_predictions_is_fed_back_for_two_cameras(tmp_path: Path) -> None:
    with OpenVinoEngine(artifact("tau-block", tmp_path), threads=1) as engine:
        first, second, third, fourth = (engine.new_state(2) for _ in range(4))
        frame = np.random.default_rng().random((2, *engine.manifest.frame), np.float32)
        engine.step(frame, first, second)
        engine.feed_back(second, 1, second, third)
        expected = engine.step(second.prediction[:, 1].copy(), second, fourth)
        assert np.array_equal(third.prediction, expected)


def test_bf16_is_close_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = artifact("stip", tmp_path)
    core = openvino_engine._without_telemetry().Core()
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        frame = np.random.default_rng().random((1, 3, 32, 48), np.float32)
        steps = []
        for name in ("openvino", "openvino:bf16"):
            with open_engine(path, name) as engine:
                steps.append(engine.step(frame, engine.new_state(), engine.new_state()))
        assert 0 < np.abs(steps[0] - steps[1]).max() < 0.05
        for model in ("stip-edge", "stip-edge"):
            with pytest.raises(
                EngineError, match=f"^{model} warps pictures, and bf16 is too coarse for .*: use openvino:fp32"
            ):
                open_engine(find(model), "openvino:bf16")
    plain = SimpleNamespace(get_property=lambda *_: ["FP32", "INT8"])
    library = SimpleNamespace(__version__="0", Core=lambda: plain)
    monkeypatch.setattr(openvino_engine, "_without_telemetry", lambda: library)
    with pytest.raises(EngineError, match="does not support bf16: use openvino:fp32"):
        open_engine(path, "openvino:bf16")


def test_no_telemetry_is_sent(tmp_path: Path) -> None:
    """OpenVINO's telemetry would create a folder in the home directory, and send an event from a thread."""
    code = "import pathlib, sys; from framecast.runtime.engines import open_engine"
    code += "; open_engine(pathlib.Path(sys.argv[1]), 'openvino').close()"
    code += (
        "; import threading; print([m for m in sys.modules if m.startswith('openvino_tele')], threading.enumerate())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(find("stip-edge"))],
        env={"HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("[] [<_MainThread")
    assert done.stdout.count("Thread") == 2  # class and name of the main thread
    assert list(tmp_path.iterdir()) == []


def test_doctor_lists_openvino() -> None:
    (found,) = (finding for finding in examine() if "openvino" in finding.part)
    assert (found.part, found.cure) == ("engine openvino", "")
    assert found.state[:2] == "20"


def changed(folder: Path, change: Any) -> Path:
    proto = onnx.ModelProto()
    proto.CopyFrom(exported("stip"))
    change(proto)
    onnx.save(proto, str(folder / "model.onnx"))
    return folder / "model.onnx"


def test_a_file_that_is_no_artifact_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_bytes(b"not onnx")
    with pytest.raises(ArtifactError, match="is not an ONNX file: make one with 'framecast export'"):
        OpenVinoEngine(tmp_path / "text.onnx")
    path = changed(tmp_path, lambda proto: proto.ClearField("metadata_props"))
    with pytest.raises(ArtifactError, match="no framecast manifest: make artifacts with 'framecast export'"):
        OpenVinoEngine(path)
    value = helper.make_tensor_value_info("state.more", onnx.TensorProto.FLOAT, ["batch", 3])
    path = changed(tmp_path, lambda proto: proto.graph.input.append(value))
    with pytest.raises(ArtifactError, match=r"model\.onnx: its inputs do not match its manifest: export it again"):
        OpenVinoEngine(path)


def test_an_unsupported_operator_is_named(tmp_path: Path) -> None:
    def foreign(proto: onnx.ModelProto) -> None:
        first = proto.graph.node[0]
        name, first.output[0] = first.output[0], "first"
        nodes = [
            helper.make_node("Transpose", ["frame"], ["turned"], perm=[0, 1, 3, 2]),
            helper.make_node("MatMul", ["frame", "turned"], ["square"]),
            helper.make_node("Det", ["square"], ["det"]),  # OpenVINO has none
            helper.make_node("ReduceMax", ["det"], ["most"], keepdims=0),
            helper.make_node("Add", ["first", "most"], [name]),
        ]
        for at, node in enumerate(nodes, 1):
            proto.graph.node.insert(at, node)

    with pytest.raises(EngineError) as raised:
        OpenVinoEngine(changed(tmp_path, foreign))
    assert str(raised.value) == (
        "openvino cannot run stip (No conversion rule found for operations: Det-18): use another engine, "
        "like onnxruntime"
    )


def test_without_openvino_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineError, match=r"openvino cannot be loaded.*pip install 'framecast\[openvino\]'"):
        open_engine(find("stip-edge"), "openvino")
    with pytest.raises(OptionError, match="openvino runs in fp32 or bf16, not in 'fp16'"):
        open_engine(find("stip-edge"), "openvino:fp16")


def test_an_invalid_step_is_refused_with_the_reason(tmp_path: Path) -> None:
    engine = OpenVinoEngine(artifact("stip", tmp_path))
    state, spare = engine.new_state(), engine.new_state()
    frame = np.zeros((1, *engine.manifest.frame), np.float32)
    with pytest.raises(EngineError, match="same state"):
        engine.step(frame, state, state)
    cases: list[np.ndarray] = [frame.astype(np.float64), frame[..., 1:], frame.repeat(2, 0)]
    for wrong in cases:
        with pytest.raises(EngineError, match=r"openvino could not run stip: .*tensor") as raised:
            engine.step(wrong, state, spare)
        assert "\n" not in str(raised.value)
    engine.step(frame, state, spare)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="load it again"):
        engine.step(frame, state, spare)
