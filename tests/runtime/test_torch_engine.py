"""The torch engine runs the network itself, behind the same contract: on the CPU here, on CUDA if there is a GPU."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from safetensors.torch import save_file
from torch import nn

import framecast
from framecast.errors import ArtifactError, EngineError, OptionError
from framecast.export.onnx import describe, to_onnx
from framecast.graph.artifact import save
from framecast.models.configs import build
from framecast.models.step import StepModel
from framecast.runtime.engines import Engine, open_engine
from framecast.runtime.engines.torch import TorchEngine, layers_to_half
from framecast.runtime.predictor import Predictor
from framecast.runtime.shipped import find

from ..clips import moving_pictures  # noqa: TID252
from ..exported import exported, pair  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)
from ..networks import NETWORKS, make  # noqa: TID252
from ..stepping import stepped  # noqa: TID252

NAMES = ("stip", "stip-edge", "astm-tau", "stau", "tau-block")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def network(name: str) -> StepModel:
    return copy.deepcopy(pair(name)[0])


@pytest.fixture
def engine(network: StepModel, name: str) -> Iterator[TorchEngine]:
    with TorchEngine(network, describe(network, name)) as engine:
        yield engine


@torch.inference_mode()
def test_steps_equal_those_of_the_network(network: StepModel, engine: TorchEngine) -> None:
    states, expected_state = (engine.new_state(2), engine.new_state(2)), None
    reference = network.deployed().eval()
    for _ in range(9):
        frame = np.random.default_rng().random((2, *network.frame_shape), np.float32)
        expected, expected_state = reference.step(torch.from_numpy(frame), expected_state or reference.init_state(2))
        states[1].prediction.fill(np.nan)
        got = engine.step(frame, *states)
        states = states[::-1]
        assert np.array_equal(got, expected.numpy())


def test_it_predicts_the_same_as_onnxruntime(name: str, engine: TorchEngine, tmp_path: Path) -> None:
    """Pictures are within a grey level: live, ahead, and after a reset."""
    save(exported(name), tmp_path / "model.onnx")
    images = moving_pictures(engine.manifest.size, 5)
    with Predictor(open_engine(tmp_path / "model.onnx"), watch=False) as other:
        predictor = Predictor(engine, watch=False)
        for _ in range(2):
            for image in images:
                predictor.step(image)
                other.step(image)
                pairs = zip(predictor.rollout(5), other.rollout(5), strict=True)
                assert np.array_equal(predictor.input, other.input)
                for got, expected in pairs:
                    assert np.abs(got.image.astype(int) - expected.image).max() <= 1
            predictor.reset()
            other.reset()


def test_a_shipped_artifact_holds_its_network() -> None:
    clip = [np.full((192, 256, 3), 10 * i, np.uint8) for i in range(4)]
    with framecast.load("stip-edge", engine="torch") as predictor, framecast.load("stip-edge") as other:
        assert predictor.engine.name == "torch"
        for image in clip:
            got, expected = stepped(predictor, image).image, stepped(other, image).image
            assert np.abs(got.astype(int) - expected).max() <= 1


def test_weights_merged_by_an_export_are_refused(tmp_path: Path) -> None:
    model = build("stau-mnist", {"layers": 1, "hidden": 4})
    manifest = describe(model, "stau-mnist", {"layers": 1, "hidden": 4})
    save(to_onnx(model, manifest), tmp_path / "stau.onnx")
    with pytest.raises(ArtifactError, match=r"merged or changed weights; use the \.safetensors"):
        open_engine(tmp_path / "stau.onnx", "torch")
    weights = tmp_path / "stau.safetensors"
    save_file(model.state_dict(), weights, {"config": "stau-mnist", "options": '{"layers": 1, "hidden": 4}'})
    with open_engine(weights, "torch") as engine:
        assert engine.manifest.weights_sha256 == manifest.weights_sha256
    save_file(model.state_dict(), weights)
    with pytest.raises(ArtifactError, match="does not name the configuration"):
        open_engine(weights, "torch")


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    proto = onnx.load(str(find("stip-edge")))
    weight = next(i for i in proto.graph.initializer if i.name == "model.head.4.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + 1e-3, weight.name))
    onnx.save(proto, str(tmp_path / "stip-edge.onnx"))
    with pytest.raises(ArtifactError, match="merged or changed weights"):
        open_engine(tmp_path / "stip-edge.onnx", "torch")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_options_that_need_a_gpu_are_refused() -> None:
    network = make("mau")
    with pytest.raises(EngineError, match="no CUDA device"):
        TorchEngine(network, describe(network, "mau"), device="cuda")
    with pytest.raises(OptionError, match="on a CPU torch runs in fp32"):
        TorchEngine(network, describe(network, "mau"), precision="fp16")


def test_an_older_gpu_cannot_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 7))
    network = make("mau")
    with pytest.raises(OptionError, match=r"compute capability 9\.0 or higher"):
        TorchEngine(network, describe(network, "mau"), device="cuda", overlap=True)


@pytest.mark.parametrize("asked", ["tf32", "ieee", "none"])
def test_the_engine_uses_its_own_precision_in_any_process(asked: str) -> None:
    """The engine restores the process's settings. PyTorch rejects its old interface once the new one has been used."""
    from framecast.runtime.engines.torch_precision import exactly

    backends: Any = torch.backends
    holders: list[Any] = [backends.cudnn.conv, backends.cuda.matmul]
    before = backends.fp32_precision
    try:
        backends.fp32_precision = asked
        found = [holder.fp32_precision for holder in holders]
        for tf32 in (True, False):
            with exactly(tf32=tf32):
                assert [holder.fp32_precision for holder in holders] == ["tf32" if tf32 else "ieee"] * 2
                assert torch.backends.cudnn.benchmark
            assert [holder.fp32_precision for holder in holders] == found
            assert not torch.backends.cudnn.benchmark
    finally:
        backends.fp32_precision = before


def test_only_one_thread_captures_or_computes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise two engines in two threads would change each other's precision."""
    from framecast.runtime.engines import torch_precision

    inside: list[int] = []

    @contextmanager
    def counted(*, tf32: bool) -> Iterator[None]:
        inside.append(1)
        assert len(inside) == 1
        time.sleep(0.01)
        yield
        inside.pop()

    monkeypatch.setattr(torch_precision, "exactly", counted)
    network = make("mau")
    engines = [TorchEngine(copy.deepcopy(network), describe(network, "mau"), device="cpu") for _ in range(2)]
    failures: list[AssertionError] = []

    def compute(engine: TorchEngine) -> None:
        try:
            for _ in range(5):
                with engine._arithmetic():
                    time.sleep(0.002)
        except AssertionError as error:
            failures.append(error)

    for engine in engines:
        engine._device = torch.device("cuda")  # this test puts no tensor on it
    threads = [threading.Thread(target=compute, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_closed_engine_raises(engine: TorchEngine) -> None:
    state, spare = engine.new_state(), engine.new_state()
    frame = np.zeros((1, *engine.manifest.frame), np.float32)
    with pytest.raises(EngineError, match="same state"):
        engine.step(frame, state, state)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="load it again"):
        engine.step(frame, state, spare)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", NETWORKS)
def test_cuda_equals_the_cpu(kind: str) -> None:
    network = make(kind)
    manifest = describe(network, kind)
    for kernels in (True, False):
        for graph in (True, False):
            engines: list[Engine] = [
                TorchEngine(copy.deepcopy(network), manifest, device="cpu"),
                TorchEngine(copy.deepcopy(network), manifest, device="cuda", kernels=kernels, graph=graph),
            ]
            states = [[engine.new_state(), engine.new_state()] for engine in engines]
            for _ in range(12):
                frame = np.random.default_rng().random((1, *network.frame_shape), np.float32)
                expected, got = (engine.step(frame, *pair) for engine, pair in zip(engines, states, strict=True))
                for alternating in states:
                    alternating.reverse()
                assert np.abs(expected - got).max() < (5e-3 if "stip-edge" in kind else 1e-4)


@pytest.mark.parametrize("name", ["stip-edge", "stip", "stau", "astm-tau", "tau", "mau"])
def test_only_layers_compute_in_half(name: str) -> None:
    """As in ``torch:fp16``, but on the CPU: statistics, norms and states stay float32, and predictions stay close."""
    model, _ = pair(name)
    half = copy.deepcopy(model).eval()
    layers_to_half(half)
    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    of_layers = {id(p) for m in half.modules() if isinstance(m, layers) for p in m.parameters(recurse=False)}
    assert of_layers
    assert all((p.dtype == torch.float16) == (id(p) in of_layers) for p in half.parameters())
    expected_state, state, worst = model.init_state(), model.init_state(), 0.0  # an engine's states are float32
    with torch.inference_mode():
        for image in moving_pictures(model.frame_shape[:0:-1], 6):
            frame = torch.from_numpy(image[..., : model.frame_shape[0]].copy()).permute(2, 0, 1)[None].float() / 255
            expected, expected_state = model.step(frame, expected_state)
            found, state = half.step(frame, state)
            assert {value.dtype for value in (found, *state.values())} == {torch.float32}
            worst = float(np.max([worst, float((found - expected).abs().max())]))  # Python's max would drop NaN
    assert 0 < worst < 0.01
