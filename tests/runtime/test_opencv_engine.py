"""The engine opencv, which runs the model of motion: pictures of any size, several streams, errors in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from framecast.camera import Image
from framecast.errors import ArtifactError, EngineError, FrameError
from framecast.runtime.engines import open_engine
from framecast.runtime.engines.opencv import OpenCvEngine
from framecast.runtime.predictor import Predictor
from framecast.runtime.shipped import find
from framecast.runtime.stepper import Stepper

STEP = 0.04  # seconds


def moving(seed: int, count: int, size: tuple[int, int] = (96, 128), speed: int = 2) -> list[Image]:
    """A smooth random pattern that moves to the right by ``speed`` pixels a frame, uint8 [h, w, 3]."""
    import cv2

    height, width = size
    wide: Image = np.random.default_rng(seed).integers(0, 256, (height, width + speed * count, 3), dtype=np.uint8)
    wide = np.asarray(cv2.GaussianBlur(wide, (0, 0), 3), np.uint8)
    low, high = int(wide.min()), int(wide.max())
    wide = np.rint((wide - np.float32(low)) * np.float32(255 / (high - low))).astype(np.uint8)
    return [np.ascontiguousarray(wide[:, speed * (count - i) : speed * (count - i) + width]) for i in range(count)]


@pytest.fixture
def engine() -> Iterator[OpenCvEngine]:
    with open_engine(find("edge")) as opened:
        assert isinstance(opened, OpenCvEngine)  # auto chooses it for a model without a graph
        yield opened


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (16, 16), (480, 640)])
def test_pictures_have_the_size_of_the_frames(engine: OpenCvEngine, size: tuple[int, int]) -> None:
    stepper = Stepper(engine)
    for image in moving(0, 4, size):
        stepper.advance([image], STEP)
    ((picture, newest),) = [row for row in stepper.at([STEP, 0.0], STEP) if row is not None]
    assert picture.shape == (*size, 3)
    assert picture.dtype == np.uint8
    assert np.array_equal(newest, image)  # a lookahead of 0 gives the newest frame


@pytest.mark.parametrize("steps", [1.0, 1.5, 3.0])
def test_steady_motion_is_predicted_at_any_moment(engine: OpenCvEngine, steps: float) -> None:
    frames = moving(1, 30, (120, 160), speed=4)
    stepper = Stepper(engine)
    for image in frames[:20]:
        stepper.advance([image], STEP)
        stepper.at([steps * STEP], STEP)
    (row,) = stepper.at([steps * STEP], STEP)
    assert row is not None
    shift = round(4 * steps)
    inside = np.s_[16:-16, 32:-16]
    truth = np.roll(frames[19], shift, axis=1)[inside].astype(float)
    error = np.mean((row[0][inside] - truth) ** 2)
    still = np.mean((frames[19][inside] - truth) ** 2)
    assert error < still / 50


def test_streams_do_not_affect_each_other(engine: OpenCvEngine) -> None:
    streams = [moving(seed, 8) for seed in (2, 3)]
    alone = []
    for stream in streams:
        stepper = Stepper(engine)
        for image in stream:
            stepper.advance([image], STEP)
            (row,) = stepper.at([STEP, 2.5 * STEP], STEP)
        alone.append(row)
    together = Stepper(engine, batch=2)
    for images in zip(*streams, strict=True):
        together.advance(images, STEP)
        rows = together.at([STEP, 2.5 * STEP], STEP)
    for row, expected in zip(rows, alone, strict=True):
        assert row is not None
        assert expected is not None
        assert all(np.array_equal(a, b) for a, b in zip(row, expected, strict=True))


def test_a_row_that_is_reset_starts_over(engine: OpenCvEngine) -> None:
    stepper = Stepper(engine, batch=2)
    first, second = moving(4, 5), moving(5, 5)
    for images in zip(first, second, strict=True):
        stepper.advance(images, STEP)
    stepper.reset([1])
    assert stepper.at([STEP], STEP)[1] is None
    stepper.advance([first[-1], second[0]], STEP)
    rows = stepper.at([STEP], STEP)
    assert rows[1] is not None
    assert np.array_equal(rows[1][0], second[0])  # no motion is known yet: a copy


def test_looking_ahead_changes_nothing(engine: OpenCvEngine) -> None:
    frames = moving(6, 6)
    plain, curious = Predictor(engine), Predictor(engine)
    for image in frames:
        plain.step(image)
        curious.step(image)
        curious.rollout(1)
    once = curious.at(5 * STEP + 0.1).image
    assert np.array_equal(once, curious.at(5 * STEP + 0.1).image)
    assert np.array_equal(curious.input, plain.input)


def test_invalid_frames_and_models_are_refused(engine: OpenCvEngine, tmp_path: Path) -> None:
    predictor = Predictor(engine)
    with pytest.raises(FrameError, match="a frame of 40x8 is too small"):
        predictor.step(np.zeros((8, 40, 3), np.uint8))
    with pytest.raises(EngineError, match="on pictures, not on tensors"):
        Stepper(engine).step(np.zeros((1, 3, 192, 256), np.float32))
    with pytest.raises(ArtifactError, match="it runs with opencv, not with onnxruntime"):
        open_engine(find("edge"), "onnxruntime")
    network = tmp_path / "network.json"
    network.write_text(json.dumps({**json.loads(engine.manifest.to_json()), "renders": "steps"}))
    with pytest.raises(ArtifactError, match="is a network"):
        open_engine(network)
    with pytest.raises(ArtifactError, match=r"stip-edge\.onnx is a network: opencv runs only models of motion"):
        open_engine(find("stip-edge"), "opencv")
    (damaged := tmp_path / "damaged.json").write_text("{")
    with pytest.raises(ArtifactError, match="its manifest cannot be read"):
        open_engine(damaged)
    engine.close()
    with pytest.raises(EngineError, match="is closed"):
        predictor.step(np.zeros((64, 64, 3), np.uint8))


def test_fast_is_another_precision() -> None:
    with open_engine(find("edge"), "opencv:fast") as fast:
        assert fast.precision == "fast"
        predictor = Predictor(fast)
        for image in moving(7, 4, (360, 640)):
            predictor.step(image)
        assert predictor.rollout(1)[0].image.shape == (360, 640, 3)


def test_a_flashing_stream_is_copied_if_that_is_better() -> None:
    """Black and white alternate: four frames ahead, a copy of the newest frame is exactly right."""
    flash = [np.full((96, 128, 3), 255 * (i % 2), np.uint8) for i in range(60)]
    with open_engine(find("edge")) as engine:
        predictor, made = Predictor(engine), {}
        for i, image in enumerate(flash):
            predictor.step(image, i * STEP)
            made[i + 4] = predictor.at((i + 4) * STEP).image
        assert all(np.array_equal(made[i], flash[i]) for i in range(40, 60))
        assert predictor.copied
