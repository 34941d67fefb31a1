"""The stepper swaps states in one place, shares an engine between streams, and resets rows of a batch one by one."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from framecast.camera import Image
from framecast.errors import EngineError, FrameError, OptionError
from framecast.graph.artifact import manifest_of, save
from framecast.runtime.convert import Tensor
from framecast.runtime.engines import Engine, State, open_engine
from framecast.runtime.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine
from framecast.runtime.engines.torch import TorchEngine
from framecast.runtime.predictor import Predictor
from framecast.runtime.stepper import SNAP, Stepper
from framecast.testing import DriftEngine, TrendEngine

from ..clips import moving_pictures  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)
from ..exported import exported, pair  # noqa: TID252
from ..stepping import stepped  # noqa: TID252

# Carried states and histories. The last predicts several frames at once.
NETWORKS = ["stip", "stip-edge", "astm-tau", "stau", "tau-block"]
OPENERS: dict[str, Callable[[Path], Engine]] = {
    "onnxruntime": lambda path: open_engine(path, threads=1),
    "openvino": lambda path: open_engine(path, "openvino", threads=1),
    "torch": lambda path: TorchEngine(pair(path.stem)[0], manifest_of(pair(path.stem)[1]), device="cpu"),
    "device": lambda path: OnnxRuntimeCudaEngine(path, device="cpu", threads=1),
}


# The full size takes long and rarely tells anything: make test-slow.
@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.slow] * (name == "stip-edge")) for name in NETWORKS])
def artifact(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"{request.param}.onnx"
    save(exported(request.param), path)
    return path


def clips(engine: Engine, count: int, length: int) -> list[list[Image]]:
    """``count`` streams of ``length`` pictures each, all different."""
    pictures = moving_pictures(engine.manifest.size, count * length)
    return [pictures[i * length : (i + 1) * length] for i in range(count)]


@pytest.mark.parametrize("name", ["onnxruntime", "device"])
def test_two_predictors_on_one_engine_are_bit_equal_to_two_on_two(artifact: Path, name: str) -> None:
    with OPENERS[name](artifact) as shared, OPENERS[name](artifact) as first, OPENERS[name](artifact) as second:
        together = [Predictor(shared), Predictor(shared)]
        alone = [Predictor(first), Predictor(second)]
        streams = clips(shared, 2, 8)
        for turn in range(8):
            for which, stream in enumerate(streams):
                if turn == 5 and which == 1:
                    together[1].reset()
                    alone[1].reset()
                together[which].step(stream[turn])
                alone[which].step(stream[turn])
                pairs = zip(together[which].rollout(3), alone[which].rollout(3), strict=True)
                assert all(np.array_equal(a.image, b.image) for a, b in pairs)
                assert np.array_equal(together[which].input, alone[which].input)


@pytest.mark.parametrize("name", ["onnxruntime", "device"])
def test_predictors_on_one_engine_may_step_in_parallel_threads(tmp_path: Path, name: str) -> None:
    path = tmp_path / "stau.onnx"
    save(exported("stau"), path)
    with OPENERS[name](path) as shared, OPENERS[name](path) as own:
        streams = clips(shared, 3, 30)
        fresh = [Predictor(own) for _ in streams]
        expected = [[stepped(one, image).image for image in stream] for one, stream in zip(fresh, streams, strict=True)]
        found: list[list[Image]] = [[], [], []]
        predictors = [Predictor(shared) for _ in streams]

        def work(which: int) -> None:
            for image in streams[which]:
                found[which].append(stepped(predictors[which], image).image.copy())

        threads = [threading.Thread(target=work, args=(which,)) for which in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for a, b in zip(expected, found, strict=True):
        assert len(a) == len(b) == 30
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", OPENERS)
def test_rows_of_a_batch_are_reset_one_by_one(artifact: Path, name: str) -> None:
    """A reset row is a fresh stream, and the others do not change. Looking ahead changes no row."""
    with OPENERS[name](artifact) as engine:
        batch, length = 3, 11
        streams = clips(engine, batch, length)
        resets = {4: [1], 7: [0, 1]}
        together = Stepper(engine, batch)
        alone = [Stepper(engine) for _ in range(batch)]
        for turn in range(length):
            for row in resets.get(turn, []):
                alone[row].reset()
            if turn in resets:
                together.reset(resets[turn])
            together.advance([stream[turn] for stream in streams])
            for row, stepper in enumerate(alone):
                stepper.advance([streams[row][turn]])
            ahead = together.look_ahead(3)
            for row, stepper in enumerate(alone):
                (expected,), got = stepper.look_ahead(3), ahead[row]
                assert expected is not None
                assert got is not None
                assert len(expected) == len(got) == 3
                for a, b in zip(expected, got, strict=True):  # libraries sum a batch in another order
                    assert np.abs(a.astype(int) - b).max() <= 1
                assert np.array_equal(stepper.seen()[0], together.seen()[row])
            assert together.steps == [stepper.steps[0] for stepper in alone]


def test_a_row_that_is_not_finite_does_not_affect_the_others() -> None:
    engine = DriftEngine()
    stepper = Stepper(engine, 2)
    black, grey = (np.full((12, 16, 3), level, np.uint8) for level in (0, 100))
    stepper.advance([black, grey])
    stepper.reset([1])
    engine.poison = lambda count: count == 0
    stepper.advance([black, grey])
    first, second = stepper.render()
    assert first is not None
    assert second is None
    assert stepper.look_ahead(2)[1] is None
    assert stepper.steps == [2, 1]


@pytest.mark.parametrize("outputs", [1, 3])
def test_floats_ahead_equal_the_rendered_pictures(outputs: int) -> None:
    engine = TrendEngine(0.5, outputs=outputs)
    stepper = Stepper(engine)
    for level in (10, 14, 20):
        stepper.advance([np.full((20, 28, 3), level, np.uint8)])
    predicted = stepper.predict(5)
    assert predicted.shape == (1, 5, 3, 20, 28)
    (images,) = stepper.look_ahead(5)
    assert images is not None
    rendered = np.stack(images).transpose(0, 3, 1, 2)
    assert np.abs(255 * predicted[0].clip(0, 1) - rendered).max() <= 0.5 + 1e-3


def test_a_failing_step_does_not_change_the_stream() -> None:
    broken = [False]

    class Breaking(DriftEngine):
        def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
            if broken[0]:
                raise EngineError("it broke")
            return super().step(frame, state_in, state_out)

    stepper = Stepper(Breaking())
    image = np.full((12, 16, 3), 50, np.uint8)
    stepper.advance([image])
    broken[0] = True
    with pytest.raises(EngineError, match="it broke"):
        stepper.advance([image])
    broken[0] = False
    stepper.advance([image])
    assert stepper.steps == [2]
    assert stepper.state.tensors["count"].item() == 2


def test_an_engine_of_one_batch_size_refuses_another() -> None:
    engine = DriftEngine()
    engine.batch = 4
    assert Stepper(engine, 4).batch == 4
    with pytest.raises(EngineError, match="built for a batch of 4, not of 1: build another with 'framecast build --ba"):
        Predictor(engine)


def test_a_predictor_closes_only_an_engine_that_it_owns() -> None:
    class Closing(DriftEngine):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    engine = Closing()
    with Predictor(engine):
        pass
    assert engine.closed == 0
    with Predictor(engine, owns_engine=True):
        pass
    assert engine.closed == 1


@pytest.mark.parametrize("name", OPENERS)
def test_a_step_takes_exactly_one_picture_per_stream(tmp_path: Path, name: str) -> None:
    """A device keeps its input buffers. A step with another number of pictures must not use an earlier upload."""
    path = tmp_path / "stau.onnx"
    save(exported("stau"), path)
    with OPENERS[name](path) as engine:
        stepper = Stepper(engine, 2)
        images = moving_pictures(engine.manifest.size, 3)
        stepper.advance(images[:2])
        for wrong in (images[:1], images):
            with pytest.raises(FrameError, match=f"of 2 streams takes 2 frames at once, not {len(wrong)}"):
                stepper.advance(wrong)
        with pytest.raises(FrameError, match="not 1"):
            stepper.step(np.zeros((1, *engine.manifest.frame), np.float32))
        assert stepper.steps == [1, 1]


def test_a_reset_row_shows_nothing() -> None:
    stepper = Stepper(DriftEngine(), 2)
    assert stepper.look_ahead(2) == [None, None]
    stepper.advance([np.full((12, 16, 3), level, np.uint8) for level in (100, 200)])
    stepper.reset([1])
    (shown, hidden), (ahead, nothing) = stepper.render(), stepper.look_ahead(2)
    assert shown is not None
    assert ahead is not None
    assert hidden is nothing is None


def test_seen_returns_the_newest_pictures() -> None:
    stepper = Stepper(DriftEngine())
    for level in (10, 20):
        stepper.advance([np.full((12, 16, 3), level, np.uint8)])
    assert stepper.seen()[0].max() == 20
    stepper.step(np.full((1, 3, 12, 16), 0.9, np.float32))
    assert stepper.seen() == []


@pytest.mark.parametrize("outputs", [1, 3])
def test_between_two_steps_their_pictures_are_blended(outputs: int) -> None:
    """Equals a float64 blend of the pictures at whole steps. A moment near a whole step is that step's picture."""
    rng, step = np.random.default_rng(5), 0.04
    stepper = Stepper(TrendEngine(0.3, outputs=outputs), 2)
    for _ in range(3):
        stepper.advance([*rng.integers(40, 200, (2, 20, 28, 3), dtype=np.uint8)])
    whole = [[newest, *(row or [])] for newest, row in zip(stepper.seen(), stepper.look_ahead(6), strict=True)]
    steps = (0, 0.25, 0.5, 1, 1.9, 2, 2.5, 3.01, 3.99, 4.75, 6)
    for row, pictures in zip(stepper.at([step * one for one in steps], step), whole, strict=True):
        assert row is not None
        for one, image in zip(steps, row, strict=True):
            near = round(one) if abs(one - round(one)) < SNAP else one
            before, after = pictures[math.floor(near)].astype(np.float64), pictures[math.ceil(near)]
            share = near - math.floor(near)
            assert np.abs(image - ((1 - share) * before + share * after)).max() <= 0.5 + 1e-6
    (newest, _), _ = (row or [] for row in stepper.at([0.0, 1e-4], step))
    assert np.array_equal(newest, stepper.seen()[0])
    again = stepper.look_ahead(6)
    assert all(np.array_equal(a, b) for a, b in zip(again[0] or [], whole[0][1:], strict=True))  # state unchanged


def test_an_engine_that_renders_moments_gets_the_exact_moments() -> None:
    asked: list[list[float]] = []

    class Moments(DriftEngine):
        def __init__(self) -> None:
            super().__init__()
            self.manifest = dataclasses.replace(self.manifest, renders="moments")
            self.elapsed: list[float] = []

        def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
            self.elapsed.append(state_out.elapsed)
            return super().step(frame, state_in, state_out)

        def render_at(self, state: State, ahead: Sequence[float]) -> list[list[Image]]:
            asked.append([*ahead])
            return [[seen + round(1000 * seconds) for seconds in ahead] for seen in state.seen]

    engine = Moments()
    stepper = Stepper(engine, 2)
    assert stepper.at([0.1], 0.04) == [None, None]
    assert asked == []
    stepper.advance([np.full((12, 16, 3), level, np.uint8) for level in (100, 150)], 0.05)
    stepper.reset([1])
    row, nothing = stepper.at([0.0, 0.013, 0.1], 0.04)
    assert nothing is None
    assert asked == [[0.0, 0.013, 0.1]]  # the exact moments, in one call
    assert [int(image[0, 0, 0]) for image in row or []] == [100, 113, 200]
    assert engine.elapsed == [0.05]  # no further step


def test_an_engine_of_steps_renders_no_moments() -> None:
    engine = DriftEngine()
    with pytest.raises(NotImplementedError):
        engine.render_at(engine.new_state(), [0.1])


@pytest.mark.parametrize("ahead", [-0.001, math.nan])
def test_the_past_is_not_predicted(ahead: float) -> None:
    stepper = Stepper(DriftEngine())
    stepper.advance([np.zeros((12, 16, 3), np.uint8)])
    with pytest.raises(OptionError, match="must not lie before the newest frame"):
        stepper.at([0.1, ahead], 0.04)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Stepper(DriftEngine(), 0), "a batch must be at least 1, not 0"),
        (lambda: Stepper(DriftEngine()).look_ahead(0), "the horizon must be at least 1, not 0"),
        (lambda: Stepper(DriftEngine(), 2).reset([2]), "no row 2: this stepper has rows 0 to 1"),
    ],
)
def test_bad_arguments_are_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        call()


def test_an_engine_is_not_closed_during_a_step() -> None:
    order = list[str]()
    stepping, go = threading.Event(), threading.Event()

    class Slow(DriftEngine):
        def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
            stepping.set()
            go.wait(60)
            order.append("stepped")
            return super().step(frame, state_in, state_out)

        def close(self) -> None:
            order.append("closed")

    engine = Slow()
    predictor = Predictor(engine, owns_engine=True)
    thread = threading.Thread(target=predictor.step, args=(np.zeros((12, 16, 3), np.uint8),))
    thread.start()
    assert stepping.wait(60)
    closer = threading.Thread(target=predictor.close)
    closer.start()
    go.set()
    for one in (thread, closer):
        one.join()
    assert order == ["stepped", "closed"]


def test_no_memory_for_states_is_one_line() -> None:
    class Huge(DriftEngine):
        def zeros(self, shape: tuple[int, ...]) -> object:
            raise MemoryError("Unable to allocate 715. GiB")

    with pytest.raises(EngineError, match="not enough memory for 3 states of drift: use fewer streams or a smaller"):
        Stepper(Huge(), 3)
