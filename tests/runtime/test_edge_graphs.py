"""The two graphs of edge in every engine that runs them: pictures at any moment, parallel streams, resets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")

import torch

from framecast.camera import Image
from framecast.errors import ArtifactError, EngineError
from framecast.export.onnx import describe
from framecast.files import sha256
from framecast.graph.device import device_graph
from framecast.graph.manifest import RENDER, other_half
from framecast.graph.tensorrt_workarounds import fixed
from framecast.models.edge import Edge
from framecast.runtime.engines import Engine, open_engine
from framecast.runtime.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine
from framecast.runtime.engines.tensorrt import cache
from framecast.runtime.engines.torch import TorchEngine
from framecast.runtime.predictor import Predictor
from framecast.runtime.stepper import Stepper

from ..clips import moving_pictures  # noqa: TID252
from ..exported import edge_graphs  # noqa: TID252
from ..networks import small_edge  # noqa: TID252
from .fake_gpu import Driver  # noqa: TID252
from .test_tensorrt_engine import GPU, driver  # noqa: TID252, F401

SIZE = (96, 64)
STEP = 0.04
AHEAD = (0.0, 0.5 * STEP, STEP, 3.3 * STEP)


@pytest.fixture(scope="module")
def model() -> Edge:
    return small_edge()


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return edge_graphs(tmp_path)


@pytest.fixture(params=["onnxruntime", "openvino", "onnxruntime-cuda", "torch"])
def engine(request: pytest.FixtureRequest, artifact: Path, model: Edge) -> Iterator[Engine]:
    if request.param == "openvino":
        pytest.importorskip("openvino")
    if request.param == "torch":
        opened: Engine = TorchEngine(model, describe(model, "edge"), device="cpu")
    elif request.param == "onnxruntime-cuda":
        opened = OnnxRuntimeCudaEngine(artifact, device="cpu")
    else:
        opened = open_engine(artifact, request.param, threads=1)
    with opened as engine:
        yield engine


@torch.inference_mode()
def expected(model: Edge, streams: list[list[Image]], restart: int) -> list[list[list[Image]]]:
    """The network's own pictures by frame, stream and moment; the second stream is reset at ``restart``."""
    state, found = model.init_state(len(streams)), []
    for index, frames in enumerate(zip(*streams, strict=True)):
        if index == restart:
            for value in state.values():
                value[1] = 0
        frame = torch.from_numpy(np.stack(frames).transpose(0, 3, 1, 2).astype(np.float32) / 255)
        fields, written = model.perceive(frame, torch.full((len(frame),), STEP), state)
        state, fields = model.moved_on(written, state), {**fields, **model.carried(written)}
        pictures = [model.render(fields, torch.full((len(frame),), ahead)) for ahead in AHEAD]
        shown = [np.rint(255 * p.permute(0, 2, 3, 1).numpy()).astype(np.uint8) for p in pictures]
        found.append([[moment[row] for moment in shown] for row in range(len(frame))])
    return found


def test_each_engine_shows_the_same_as_the_network(engine: Engine, model: Edge) -> None:
    streams = [list(moving_pictures(SIZE, 8)), list(moving_pictures(SIZE, 11))[3:]]
    wanted = expected(model, streams, restart=5)
    stepper = Stepper(engine, 2)
    for index, frames in enumerate(zip(*streams, strict=True)):
        if index == 5:
            stepper.reset([1])
        stepper.advance(frames, STEP)
        for row, pictures in zip(stepper.at(AHEAD, STEP), wanted[index], strict=True):
            assert row is not None
            for found, picture in zip(row, pictures, strict=True):
                assert np.abs(found.astype(int) - picture).max() <= 1
        assert all(np.array_equal(a, b) for a, b in zip(stepper.seen(), frames, strict=True))


def test_a_lookahead_of_zero_shows_the_frame(engine: Engine) -> None:
    predictor = Predictor(engine)
    for index, image in enumerate(moving_pictures(SIZE, 4)):
        predictor.step(image, index * STEP)
        assert np.abs(predictor.at(index * STEP).image.astype(int) - image).max() <= 1


def test_a_closed_engine_renders_nothing(engine: Engine) -> None:
    stepper = Stepper(engine)
    for image in moving_pictures(SIZE, 2):
        stepper.advance([image], STEP)
    engine.close()
    with pytest.raises(EngineError, match="load it again"):
        stepper.at(AHEAD, STEP)


def test_rendering_changes_no_state(engine: Engine) -> None:
    """A stream that renders several moments predicts the same as one that renders a single moment."""
    one, other = Stepper(engine), Stepper(engine)
    for image in moving_pictures(SIZE, 6):
        for stepper in (one, other):
            stepper.advance([image], STEP)
        one.at([5 * STEP, 0.1], STEP)
        (found,), (wanted,) = one.at([STEP], STEP), other.at([STEP], STEP)
        assert found is not None
        assert wanted is not None
        assert np.array_equal(found[0], wanted[0])


def test_floats_step_as_a_network_does(engine: Engine, model: Edge) -> None:
    """``step`` returns floats, for the moment one frame interval ahead."""
    rng = np.random.default_rng()
    stepper, state = Stepper(engine), model.init_state()
    for _ in range(5):
        frame = rng.random((1, 3, SIZE[1], SIZE[0]), np.float32)
        with torch.inference_mode():
            wanted, state = model.step(torch.from_numpy(frame), state)
        assert np.abs(stepper.step(frame, poison=True) - wanted.numpy()).max() < 1e-3


def test_tensorrt_runs_both_engines(driver: Driver, artifact: Path) -> None:  # noqa: F811
    """On a simulated GPU: fields and frame stay there, and the host waits once for each moment's picture."""
    keep(artifact)
    with pytest.raises(EngineError, match=r"no engine of edge has been built: framecast build edge"):
        open_engine(artifact, "tensorrt")
    keep(other_half(artifact, RENDER))
    with open_engine(artifact) as plain, open_engine(artifact, "tensorrt") as live:
        one, other = Stepper(plain), Stepper(live)
        waits = []
        for image in moving_pictures(SIZE, 7):
            before = driver.gpu.synchronisations
            for stepper in (one, other):
                stepper.advance([image], STEP)
            (found,), (wanted,) = other.at(AHEAD, STEP), one.at(AHEAD, STEP)
            waits.append(driver.gpu.synchronisations - before)
            assert found is not None
            assert wanted is not None
            assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(found, wanted, strict=True))
        assert waits[-1] == len(AHEAD)
    keep(other_half(artifact, RENDER), manifest="{}")
    with pytest.raises(EngineError, match="the two engines of edge were not built together"):
        open_engine(artifact, "tensorrt")


def keep(path: Path, manifest: str | None = None) -> None:
    """Store a fake engine in the cache, as ``framecast build`` stores a real one."""
    proto = onnx.load(str(path))
    data = fixed(device_graph(proto), 1).SerializeToString()
    key = cache.Key(sha256(path), "tensorrt", "10.3", GPU.name, GPU.capability, "fp16")
    text = next(entry.value for entry in proto.metadata_props) if manifest is None else manifest
    digest = hashlib.sha256(data).hexdigest()
    cache.put(cache.Record(key, "edge", str(path), digest, len(data), 1.0, "2026-01-01", manifest=text), data)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_both_graphs_must_exist_and_belong_together(name: str, artifact: Path, tmp_path: Path) -> None:
    if name == "openvino":
        pytest.importorskip("openvino")
    render = other_half(artifact, RENDER)
    with pytest.raises(
        ArtifactError, match=r"is the graph that renders a model of motion: .* beside it \(edge\.onnx\)"
    ):
        open_engine(render, name)
    proto = onnx.load(str(render))
    proto.metadata_props[0].value += " "
    onnx.save(proto, str(render))
    with pytest.raises(ArtifactError, match=r"is not the other half of edge\.onnx: .*'framecast export'"):
        open_engine(artifact, name)
    render.unlink()
    with pytest.raises(ArtifactError, match=r"a model of motion, but edge\.render\.onnx is missing: put its matching"):
        open_engine(artifact, name)
