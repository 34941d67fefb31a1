"""Histories at run time: rings that are rotated by binding. The test graph's prediction depends on every slot."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from framecast.errors import ArtifactError
from framecast.graph.manifest import KEY, Manifest, StateSpec
from framecast.runtime.engines import Engine, State, open_engine
from framecast.runtime.engines.onnxruntime import OnnxRuntimeEngine
from framecast.runtime.predictor import Predictor

HEIGHT, WIDTH = 4, 6


def artifact(path: Path, slots: int, outputs: int = 1) -> Path:
    """A graph with two histories of the frame's mean, ``long`` of ``slots`` and ``short`` of one, and a carried count.

    The k-th frame of its prediction is ``(k + 1) · Σ_i weights[i] · values[i]``. The values are the frame's mean, the
    count, the slot of the short history, and the slots of the long one, newest first.
    """
    specs = (
        StateSpec("count", (1, 1, 1)),
        StateSpec("long", (1, 1, 1), "history", slots),
        StateSpec("short", (1, 1, 1), "history", 1),
    )
    manifest = Manifest("Mean", "mean", (3, HEIGHT, WIDTH), specs, slots, 0, "random", "", "none", outputs=outputs)

    def tensor(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

    values = ["mean", "state.count", "state.short.0", *(f"state.long.{i}" for i in range(slots))]
    nodes = [
        helper.make_node("ReduceMean", ["frame", "axes"], ["mean"]),
        helper.make_node("Identity", ["mean"], ["next.long"]),
        helper.make_node("Identity", ["mean"], ["next.short"]),
        helper.make_node("Add", ["state.count", "one"], ["next.count"]),
        helper.make_node("Concat", values, ["values"], axis=1),
        helper.make_node("Mul", ["values", "weights"], ["weighed"]),
        helper.make_node("ReduceSum", ["weighed", "axes"], ["sum"]),
        helper.make_node("Unsqueeze", ["sum", "two"], ["block"]),  # [batch, 1, 1, 1, 1]
        helper.make_node("Mul", ["block", "spread"], ["prediction"]),
    ]
    spread = np.arange(1, outputs + 1, dtype=np.float32).reshape(1, -1, 1, 1, 1)
    constants = {
        "axes": np.array([1, 2, 3]),
        "two": np.array([4]),
        "one": np.ones((1, 1, 1, 1), np.float32),
        "weights": weights(slots).reshape(1, -1, 1, 1),
        "spread": np.broadcast_to(spread, (1, outputs, 3, HEIGHT, WIDTH)).copy(),
    }
    graph = helper.make_graph(
        nodes,
        "mean",
        [tensor("frame", 3, HEIGHT, WIDTH), *(tensor(name, 1, 1, 1) for spec in specs for name in spec.inputs)],
        [tensor("prediction", outputs, 3, HEIGHT, WIDTH), *(tensor(f"next.{spec.name}", 1, 1, 1) for spec in specs)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {KEY: manifest.to_json()})
    onnx.save(model, path)
    return path


def weights(slots: int) -> np.ndarray:
    """Weights that all differ, to tell the slots apart. They are small, so that predictions can be fed back."""
    return np.array([0.5 / (i + 2) for i in range(slots + 3)], np.float32)


def expected(means: list[float], slots: int) -> float:
    """The prediction after a reset and frames with these means."""
    now, past = means[-1], [*reversed(means[:-1]), *[0.0] * (slots + 1)]
    values = [now, float(len(means) - 1), past[0], *past[:slots]]
    return float(np.dot(weights(slots), values))


def frame(mean: float) -> np.ndarray:
    return np.full((1, 3, HEIGHT, WIDTH), mean, np.float32)


def poisoned(engine: Engine) -> State:
    """A new state whose buffers hold NaN, so that a read before the first write shows."""
    state = engine.new_state()
    state.prediction.fill(np.nan)
    for moment in state.own:
        for tensor in moment.tensors.values():
            tensor.fill(np.nan)
    return state


@pytest.mark.parametrize("slots", range(1, 8))
def test_slots_are_in_age_order_in_every_phase(tmp_path: Path, slots: int) -> None:
    rng = np.random.default_rng()
    with open_engine(artifact(tmp_path / "m.onnx", slots)) as engine:
        for phase in range(2 * slots + 2):
            state, spare = poisoned(engine), poisoned(engine)
            for mean in rng.random(phase):
                engine.step(frame(mean), state, spare)
                state, spare = spare, state
            state.reset()
            for s in (state, spare):
                turn = phase % len(s.own)
                s.own = s.own[turn:] + s.own[:turn]  # start the ring at another buffer
            means: list[float] = []
            for mean in rng.random(3 * slots + 3, np.float32):
                means.append(float(mean))
                prediction = engine.step(frame(mean), state, spare)
                assert np.abs(prediction - expected(means, slots)).max() < 1e-5
                state, spare = spare, state


def test_several_states_alternate_and_cameras_do_not_mix(tmp_path: Path) -> None:
    rng = np.random.default_rng()
    with open_engine(artifact(tmp_path / "m.onnx", 5)) as engine:
        cameras = [itertools.cycle([poisoned(engine) for _ in range(count)]) for count in (2, 3, 4)]
        states = [next(camera) for camera in cameras]
        means: list[list[float]] = [[], [], []]
        for _ in range(20):
            for c, camera in enumerate(cameras):
                means[c].append(float(rng.random(dtype=np.float32)))
                target = next(camera)
                prediction = engine.step(frame(means[c][-1]), states[c], target)
                states[c] = target
                assert np.abs(prediction - expected(means[c], 5)).max() < 1e-5


@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("outputs", [1, 3])
def test_looking_ahead_changes_no_bit_of_state_or_stream(tmp_path: Path, slots: int, outputs: int) -> None:
    rng = np.random.default_rng()
    images = rng.integers(0, 256, (14, HEIGHT, WIDTH, 3), dtype=np.uint8)
    path = artifact(tmp_path / "m.onnx", slots, outputs)
    with Predictor(open_engine(path), watch=False) as plain, Predictor(open_engine(path), watch=False) as curious:
        for i, image in enumerate(images):
            plain.step(image)
            curious.step(image)
            state = curious._stepper.state
            before = [t.copy() for t in (*state.tensors.values(), *(m.tensors["long"] for m in state.past))]
            curious.rollout(1 + i % 9)
            after = [*state.tensors.values(), *(m.tensors["long"] for m in state.past)]
            assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
            assert np.array_equal(plain._stepper.state.prediction, curious._stepper.state.prediction)


@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_a_block_of_predictions_is_fed_back_one_by_one(tmp_path: Path, outputs: int) -> None:
    slots, horizon = 3, 9
    with Predictor(open_engine(artifact(tmp_path / "m.onnx", slots, outputs)), watch=False) as predictor:
        means = []
        for level in (10, 60, 30, 90, 20):
            predictor.step(np.full((HEIGHT, WIDTH, 3), level, np.uint8))
            means.append(level / 255)
        wanted: list[float] = []
        while len(wanted) < horizon:
            block = [k * expected(means, slots) for k in range(1, outputs + 1)]
            wanted += block
            means += block
        ahead = predictor.rollout(horizon)
    levels = [min(255, round(255 * value)) for value in wanted[:horizon]]
    assert [int(p.image[0, 0, 0]) for p in ahead] == pytest.approx(levels, abs=1)


@pytest.mark.parametrize("slots", [1, 5, 9])
def test_bindings_are_cached_by_phase_not_by_frame(tmp_path: Path, slots: int) -> None:
    """The number of cached bindings does not grow with the length of a stream."""
    with Predictor(open_engine(artifact(tmp_path / "m.onnx", slots)), watch=False) as predictor:
        engine = predictor.engine
        assert isinstance(engine, OnnxRuntimeEngine)
        bindings = engine._bindings

        def kept() -> int:
            pairs = [phases for others in bindings._kept.values() for phases in others.values()]
            return sum(map(len, pairs))

        def watch(frames: int) -> int:
            for _ in range(frames):
                predictor.step(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
                predictor.rollout(4)
            return kept()

        begun = watch(40)
        assert watch(200) == begun
        rng = np.random.default_rng()
        for _ in range(60):  # streams of any length
            predictor.reset()
            watch(int(rng.integers(1, 9)))
        assert kept() < 400


def test_an_unknown_kind_of_state_is_refused(tmp_path: Path) -> None:
    text = Manifest("M", "m", (3, 4, 6), (StateSpec("a", (1,), "history", 2),), 1, 0, "random", "", "none").to_json()
    assert Manifest.from_json(text).state[0].inputs == ("state.a.0", "state.a.1")
    for old, new in (('"slots": 2', '"slots": 0'), ('"history"', '"stack"'), ('"history"', '"carry"')):
        with pytest.raises(ArtifactError, match="an unknown kind of state or model, or an invalid value range"):
            Manifest.from_json(text.replace(old, new))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"channel_order": "GRAY"}, "no usable frame shape or channel order"),
        ({"channel_order": "HSV"}, "no usable frame shape or channel order"),
        ({"visible": (5, 6)}, "no usable frame shape or channel order"),
        ({"visible": (1, 2, 3)}, "cannot be read"),
        ({"value_range": (0,)}, "cannot be read"),
        ({"value_range": ("a", "b")}, "cannot be read"),
        ({"interval": "soon"}, "cannot be read"),
        ({"warmup": "long"}, "cannot be read"),
        ({"outputs": 2}, "outputs do not match its manifest"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(tmp_path: Path, damage: dict[str, object], message: str) -> None:
    path = artifact(tmp_path / "m.onnx", 2)
    model = onnx.load(path)
    manifest = {**json.loads(model.metadata_props[0].value), **damage}
    helper.set_model_props(model, {KEY: json.dumps(manifest)})
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match=message) as refused:
        open_engine(path)
    assert "\n" not in str(refused.value)
