"""Every network with every option, as an artifact: it equals PyTorch for any batch and any phase of its rings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
import torch

from framecast.export.parity import compare, random_frames
from framecast.graph.artifact import save
from framecast.models.step import StepModel
from framecast.runtime.convert import blank_frame, to_frame
from framecast.runtime.engines import Engine, open_engine
from framecast.runtime.predictor import Predictor

from ..exported import pair  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from ..networks import NETWORKS  # noqa: TID252

STEPS = 20
Exported = tuple[StepModel, onnx.ModelProto, Engine]


@pytest.fixture(params=NETWORKS, scope="module")
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    """A network, its graph, and an engine on it."""
    model, proto = pair(request.param)
    path = tmp_path_factory.mktemp("artifact") / "model.onnx"
    save(proto, path)
    with open_engine(path) as engine:
        yield model, proto, engine


@pytest.fixture
def model(exported: Exported) -> StepModel:
    return exported[0]


@pytest.fixture
def engine(exported: Exported) -> Engine:
    return exported[2]


@pytest.mark.parametrize("batch", [1, 3])
def test_onnxruntime_equals_torch(model: StepModel, engine: Engine, batch: int) -> None:
    frames = [np.random.default_rng().random((batch, *model.frame_shape), np.float32) for _ in range(STEPS)]
    # On noise, the last bit of a flow changes the warped value by whole grey levels (see the table of configurations).
    parity = compare(model, engine, frames, allowed=5e-3 if "edge" in engine.manifest.config else 1e-5)
    assert parity.steps == STEPS
    assert parity.holds, parity


def test_graph_is_two_dimensional(exported: Exported) -> None:
    graph = exported[1].graph
    ranks = {initializer.name: len(initializer.dims) for initializer in graph.initializer}
    kernels = {ranks[node.input[1]] for node in graph.node if node.op_type in ("Conv", "ConvTranspose")}
    assert kernels == {4}
    assert max(ranks.values()) <= 4


def test_no_history_is_copied(exported: Exported) -> None:
    """The graph reads a history's slots, and outputs only the new value, which has the shape of one slot."""
    model, proto, engine = exported
    assert [i.name for i in proto.graph.input] == ["frame", *(n for s in engine.manifest.state for n in s.inputs)]
    assert [o.name for o in proto.graph.output] == ["prediction", *(f"next.{s.name}" for s in engine.manifest.state)]
    shapes = {o.name: [d.dim_value for d in o.type.tensor_type.shape.dim][1:] for o in proto.graph.output}
    for name, history in model.histories.items():
        assert shapes[f"next.{name}"] == list(history.shape)


def test_every_phase_of_the_ring_gives_the_same(model: StepModel, engine: Engine) -> None:
    frames = list(random_frames(model.frame_shape, 9, seed=int(np.random.default_rng().integers(1 << 32))))
    state, spare = engine.new_state(), engine.new_state()
    runs = []
    for _ in range(2 * len(state.own)):
        state.reset()
        for s in (state, spare):
            s.own = s.own[1:] + s.own[:1]  # start with another buffer of the ring
        run = []
        for frame in frames:
            run.append(engine.step(frame, state, spare).copy())
            state, spare = spare, state
        runs.append(np.array(run))
    assert all(np.array_equal(run, runs[0]) for run in runs)


def test_looking_ahead_does_not_change_the_stream(model: StepModel, engine: Engine) -> None:
    height, width = model.frame_shape[1:]
    images = np.random.default_rng().integers(0, 256, (9, height, width, 3), dtype=np.uint8)
    plain, looking = Predictor(engine), Predictor(engine)
    for image in images:
        plain.step(image)
        looking.step(image)
        looking.rollout(7)
        assert np.array_equal(plain._stepper.state.prediction, looking._stepper.state.prediction)


@torch.inference_mode()
def test_a_rollout_matches_torch(model: StepModel, engine: Engine) -> None:
    """Single predictions and blocks of K are both fed back unchanged."""
    predictor, state = Predictor(engine), model.init_state()
    height, width = model.frame_shape[1:]
    frame = blank_frame(engine.manifest)
    for image in np.random.default_rng().integers(0, 256, (3, height, width, 3), dtype=np.uint8):
        predictor.step(image)
        to_frame(predictor.input, engine.manifest, frame[0])
        block, state = model.step(torch.from_numpy(frame.copy()), state)
    wanted: list[np.ndarray] = []
    while len(wanted) < 7:
        wanted += list(block[0].numpy())
        for fed in block.unbind(1):
            block, state = model.step(fed, state)
    for prediction, ahead in zip(predictor.rollout(7), wanted, strict=False):
        levels = np.clip(np.rint(255 * ahead.transpose(1, 2, 0)), 0, 255)
        apart = np.abs(prediction.image - levels)
        assert apart.max() <= 2  # a rollout amplifies rounding: with some weights, a pixel in thousands is 2 levels off
        assert np.mean(apart > 1) < 1e-3


def test_the_graph_has_the_functions_of_its_network(exported: Exported) -> None:
    model, proto, engine = exported
    names = {function.name.rstrip("0123456789").rstrip("_") for function in proto.functions}
    config = model.config
    attends = getattr(config, "temporal_attention", False) or getattr(config, "spatial_attention", False)
    expected = {
        "STIP": {"stgru_gates"},
        "STIPEdge": {"stgru_gates"},
        "ASTM": {"eifag"} if getattr(config, "eifag", False) else set(),
        "STAU": {"stau_attention"} if attends else set(),
        "MAU": {"stau_attention"},
    }
    assert names - {"layer_norm", "group_norm"} == expected.get(engine.manifest.model, set())
    onnx.checker.check_model(proto, full_check=True)
