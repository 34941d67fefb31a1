"""The predictor: state, time, rollout, and errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import framecast
from framecast.camera import Image
from framecast.errors import ArtifactError, EngineError, FrameError, OptionError
from framecast.runtime.engines import State
from framecast.runtime.predictor import Predictor
from framecast.runtime.shipped import DEFAULT_MODEL, shipped
from framecast.testing import DriftEngine

from ..stepping import stepped  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


def grey(level: int, size: tuple[int, int] = (12, 16)) -> np.ndarray:
    return np.full((*size, 3), level, np.uint8)


def test_step_predicts_the_next_frame_and_its_time() -> None:
    predictor = Predictor(DriftEngine(), watch=False)
    for i in range(5):
        prediction = stepped(predictor, grey(10), i * 0.5)
    assert prediction.image.dtype == np.uint8
    assert prediction.image.shape == (12, 16, 3)
    assert (prediction.image == round(10 + 25.5)).all()
    assert prediction.time == pytest.approx(2.5)
    assert prediction.ahead == pytest.approx(0.5)
    assert predictor.times.picture_out > 0


def test_without_times_frames_are_one_interval_apart() -> None:
    predictor = Predictor(DriftEngine(), watch=False)
    times = [stepped(predictor, grey(0)).time for _ in range(3)]
    assert np.diff(times) == pytest.approx(predictor.interval)


def test_rollout_feeds_back_floats_and_leaves_the_state() -> None:
    engine = DriftEngine()
    predictor = Predictor(engine, watch=False)
    predictor.step(grey(200), time=0.0)
    predictor.step(grey(200), time=0.1)
    ahead = predictor.rollout(5)
    assert [p.ahead for p in ahead] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert [p.time for p in ahead] == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6])
    levels = [min(255, round(200 + 25.5 * k)) for k in range(1, 6)]
    assert [int(p.image[0, 0, 0]) for p in ahead] == pytest.approx(levels, abs=1)
    again = predictor.rollout(5)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(ahead, again, strict=True))
    engine.poison = lambda count: count != 2  # NaN if the rollouts changed the live state's count
    predictor.step(grey(200), time=0.2)
    predictor.rollout(1)
    assert predictor.resets == 0


def test_any_moment_ahead_in_any_order() -> None:
    predictor = Predictor(DriftEngine(), watch=False)
    for i in range(3):
        predictor.step(grey(100), i * 0.1)
    levels = {}
    for time in (0.5, 0.2, 0.25, 0.3, 0.4, 0.275):
        prediction = predictor.at(time)
        assert prediction.time == time
        assert prediction.ahead == pytest.approx(time - 0.2)
        levels[time] = int(prediction.image[0, 0, 0])
    expected = {0.2: 100, 0.25: 113, 0.275: 119, 0.3: 126, 0.4: 151, 0.5: 177}
    assert levels == pytest.approx(expected, abs=1)
    assert np.array_equal(predictor.at(0.2).image, predictor.input)
    assert predictor.steps == 3


@pytest.mark.parametrize("time", [0.99, -1.0, math.nan])
def test_no_moment_before_the_newest_frame(time: float) -> None:
    predictor = Predictor(DriftEngine(), watch=False)
    with pytest.raises(OptionError, match="cannot look ahead before the first frame"):
        predictor.at(time)
    predictor.step(grey(10), 0.9)
    predictor.step(grey(10), 1.0)
    with pytest.raises(OptionError, match="must not lie before the newest frame"):
        predictor.at(time)
    predictor.reset()
    with pytest.raises(OptionError, match="cannot look ahead before the first frame"):
        predictor.at(2.0)


def test_the_cameras_interval_may_differ_from_that_of_the_frames_taken() -> None:
    """One frame in five is taken, but a rollout still advances by the camera's interval."""
    engine = DriftEngine()
    predictor = Predictor(engine, watch=False)
    assert predictor.interval == pytest.approx(1 / 25)
    for i in range(4):
        predictor.step(grey(100), i * 0.2, interval=0.04)
    assert predictor.interval == 0.04
    ahead = predictor.rollout(10)
    assert [p.ahead for p in ahead] == pytest.approx([0.04 * k for k in range(1, 11)])
    # The engine has seen frames 0.2 s apart, so 0.2 s is one step.
    assert [int(p.image[0, 0, 0]) for p in ahead[4::5]] == pytest.approx([126, 151], abs=1)
    assert int(ahead[0].image[0, 0, 0]) == pytest.approx(100 + 25.5 / 5, abs=1)
    predictor.step(grey(100), 0.8)  # no interval given: the median of the last ones
    assert predictor.interval == pytest.approx(0.2)
    predictor.reset()
    predictor.step(grey(100), interval=0.05)
    predictor.step(grey(100), interval=0.05)
    assert predictor.at(0.06).ahead == pytest.approx(0.01)  # without times, frames are one interval apart


@pytest.mark.parametrize("interval", [0.0, -0.1, math.nan, math.inf])
def test_an_interval_must_be_above_zero(interval: float) -> None:
    predictor = Predictor(DriftEngine(), watch=False)
    with pytest.raises(OptionError, match="an interval must be a number of seconds above 0"):
        predictor.step(grey(0), interval=interval)
    assert predictor.steps == 0


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((12, 16, 3), np.float32), "not float32"),
        (np.zeros((12, 16), np.uint8), r"not uint8 \[12, 16\]"),
        (np.zeros((12, 16, 4), np.uint8), "BGR"),
        (np.zeros((0, 16, 3), np.uint8), "must have pixels"),
        ("a path", "not str"),
    ],
)
def test_an_invalid_frame_is_refused(frame: Any, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        Predictor(DriftEngine(), watch=False).step(frame)


def test_a_new_size_in_mid_stream_is_refused() -> None:
    predictor = Predictor(DriftEngine(), watch=False)
    predictor.step(grey(0, (24, 32)))
    with pytest.raises(FrameError, match="from 32x24 to 64x48"):
        predictor.step(grey(0, (48, 64)))
    predictor.reset()
    predictor.step(grey(0, (48, 64)))


def test_rollout_needs_a_frame_and_a_horizon() -> None:
    predictor = Predictor(DriftEngine(), watch=False)
    with pytest.raises(OptionError, match=r"step\(\) with a frame first"):
        predictor.rollout(2)
    predictor.step(grey(0))
    with pytest.raises(OptionError, match="at least 1"):
        predictor.rollout(0)


def test_a_prediction_that_is_not_finite_resets_the_state() -> None:
    engine = DriftEngine()
    predictor = Predictor(engine, watch=False)
    engine.poison = lambda count: count == 3
    images = [stepped(predictor, grey(10)).image for _ in range(6)]
    assert predictor.resets == 1
    assert all((image == 36).all() for image in images)
    engine.poison = lambda count: True
    predictor.step(grey(10))  # no prediction is requested yet, so there is no error
    for ask in (lambda: predictor.rollout(1), lambda: predictor.at(1.0)):
        with pytest.raises(EngineError, match="even from a fresh state"):
            ask()


def test_a_rollout_that_is_not_finite_resets_the_state() -> None:
    engine = DriftEngine()
    predictor = Predictor(engine, watch=False)
    engine.poison = lambda count: count == 5
    for _ in range(4):
        predictor.step(grey(10))
    ahead = predictor.rollout(4)  # the third needs the 6th step, which gives NaN
    assert predictor.resets == 1
    assert predictor.steps == 1
    assert [int(p.image[0, 0, 0]) for p in ahead] == pytest.approx([36, 61, 86, 112], abs=1)
    engine.poison = lambda count: count > 1
    with pytest.raises(EngineError, match="use a shorter lookahead"):
        predictor.rollout(4)


@pytest.mark.parametrize("time", [float("nan"), float("inf")])
def test_a_time_is_a_number(time: float) -> None:
    predictor = Predictor(DriftEngine(), watch=False)
    predictor.step(grey(10), time=1.0)
    with pytest.raises(OptionError, match="time must"):
        predictor.step(grey(10), time=time)


def newest(predictor: Predictor) -> float:
    """The time of the newest frame in seconds."""
    (prediction,) = predictor.rollout(1)
    return prediction.time - prediction.ahead


@pytest.mark.parametrize("watch", [True, False])
def test_times_that_repeat_or_run_back_are_mended(watch: bool) -> None:
    predictor = Predictor(DriftEngine(), watch=watch)
    times = []
    for given in (0.0, 0.04, 0.04, 0.03, 0.16, 0.2):
        predictor.step(grey(10), given, interval=0.04)
        times.append(newest(predictor))
    assert times == pytest.approx([0.0, 0.04, 0.08, 0.12, 0.185, 0.205])  # half speed until the stamps have caught up
    assert predictor.faults == {"times_mended": 2}
    assert predictor.steps == 6 or watch  # the state goes on (a watch keeps equal frames from the model)


def test_a_clock_that_was_set_back_begins_a_new_stream() -> None:
    fresh, predictor = (Predictor(DriftEngine()) for _ in range(2))
    for k in range(5):
        predictor.step(grey(10 * k), 100 + 0.04 * k)
    for one in (fresh, predictor):
        one.step(grey(99), 7.0)
        assert one.steps == 1
        assert newest(one) == 7.0
    assert np.array_equal(fresh.at(7.1).image, predictor.at(7.1).image)
    assert not predictor.faults


@pytest.mark.parametrize("model", shipped())
def test_a_closed_predictor_raises(model: str) -> None:
    predictor = framecast.load(model)
    predictor.close()
    predictor.close()
    with pytest.raises(EngineError, match="is closed: load it again"):
        predictor.step(np.full((24, 32, 3), 10, np.uint8))


@pytest.mark.parametrize("model", shipped())
def test_shipped_models_are_small_and_free(model: str) -> None:
    assert DEFAULT_MODEL in shipped()
    assert shipped()[model].stat().st_size <= 10e6
    with framecast.load(model) as predictor:
        manifest = predictor.manifest
    assert manifest.trained
    assert manifest.licence == "Apache-2.0"


def test_the_shipped_network_has_measured_quality() -> None:
    with framecast.load("stip-edge") as predictor:
        quality = predictor.manifest.quality
    assert quality is not None
    assert quality.prediction > quality.copy_last + 1
    assert len(quality.clips) == 5


def test_shipped_model_rolls_out_without_touching_its_state() -> None:
    frames = np.random.default_rng().integers(0, 256, (6, 120, 160, 3), dtype=np.uint8)
    with framecast.load("stip-edge") as one, framecast.load("stip-edge") as other:
        for frame in frames:
            expected = stepped(one, frame)
            other.step(frame)
            assert np.array_equal(expected.image, other.rollout(3)[0].image)
        assert expected.image.shape == (192, 256, 3)


def test_reset_equals_a_fresh_start() -> None:
    frames = np.random.default_rng().integers(0, 256, (3, 192, 256, 3), dtype=np.uint8)
    with framecast.load() as predictor:
        first = [stepped(predictor, f).image for f in frames]
        predictor.reset()
        second = [stepped(predictor, f).image for f in frames]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_invalid_models_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("not a protobuf")
    empty = tmp_path / "empty.onnx"
    empty.touch()
    for model, message in (
        (
            "stip-nope",
            "no model 'stip-nope': choose from astm-mini, edge, mau-mini, stau-mini, stip-edge, stip-mini, tau-mini ",
        ),
        ("nope.onnx", "no such artifact"),
        (tmp_path, "not a regular file"),
        ("x" * 300 + ".onnx", "cannot read"),
        (text, "not an ONNX file"),
        (empty, "is empty"),
    ):
        with pytest.raises(ArtifactError, match=message) as raised:
            framecast.load(model)
        assert "\n" not in str(raised.value)
    with pytest.raises(OptionError, match="no engine 'cuda'"):
        framecast.load(engine="cuda")
    for threads in (-1, 10**8):
        with pytest.raises(OptionError, match=r"threads must be 0 \(one per core\) to 1024, not"):
            framecast.load(threads=threads)


def test_a_refused_frame_does_not_change_the_predictor() -> None:
    engine, image = DriftEngine(), np.full((12, 16, 3), 50, np.uint8)
    predictor = Predictor(engine, watch=False)
    predictor.step(image, 0.0)
    for time in (math.inf, -math.inf, math.nan):
        with pytest.raises(OptionError):
            predictor.step(image, time)
    with pytest.raises(FrameError):
        predictor.step(np.zeros((6, 8, 3), np.uint8), 0.02)
    assert stepped(predictor, image, 0.04).time == pytest.approx(0.08)

    def failing(*_: object) -> None:
        raise EngineError("it broke")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "run", failing)
        with pytest.raises(EngineError, match="it broke"):
            predictor.step(image, 0.08)
    assert predictor.rollout(1)[0].time == pytest.approx(0.08)  # one interval after the last accepted frame
    assert stepped(predictor, image, 0.08).time == pytest.approx(0.12)  # the same frame, now that the engine works


def test_a_refused_first_frame_sets_no_size() -> None:
    class OneSize(DriftEngine):
        def take(self, images: Sequence[Image], state: State) -> None:
            if images[0].shape != (24, 32, 3):
                raise FrameError("this engine was built for 32x24 frames")
            super().take(images, state)

    predictor = Predictor(OneSize(), watch=False)
    with pytest.raises(FrameError, match="built for 32x24"):
        predictor.step(np.zeros((12, 16, 3), np.uint8))
    predictor.step(np.zeros((24, 32, 3), np.uint8))


def test_no_moment_too_far_ahead() -> None:
    predictor = Predictor(DriftEngine(), watch=False)
    predictor.step(grey(100), 0.0)
    with pytest.raises(OptionError, match=r"a moment may lie up to 10 s after the newest frame, not 10\.1 s"):
        predictor.at(10.1)
    with pytest.raises(OptionError, match=r"up to 10 s .* not inf s"):
        predictor.at(float("inf"))


@pytest.mark.parametrize("model", ["edge", "stip-edge"])
def test_predicted_pictures_may_be_written_to(model: str) -> None:
    frame = np.full((192, 256, 3), 90, np.uint8)
    with framecast.load(model) as predictor:
        predictor.step(frame, 0.0)
        predictor.at(0.0).image[:] = 0
        predictor.rollout(1)[0].image[:] = 0
        assert frame.min() == predictor.input.min() == 90
