"""Conversion between pictures and tensors: channel orders, grey, value ranges, padding."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from framecast.graph.manifest import Manifest
from framecast.runtime import convert
from framecast.runtime.convert import blank_frame, is_finite, to_frame, to_image, to_model_size


def manifest(channels: int = 3, order: str = "BGR", **more: Any) -> Manifest:
    return Manifest("M", "m", (channels, 12, 16), (), 1, 0, "random", "", "none", channel_order=order, **more)


def picture(height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng().integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("order", ["BGR", "RGB"])
@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_a_colour_round_trip(order: str, value_range: tuple[float, float]) -> None:
    made_for = manifest(order=order, value_range=value_range)
    image, frame = picture(), blank_frame(made_for)
    to_frame(to_model_size(image, made_for), made_for, frame[0])
    low, high = value_range
    blue = frame[0, 0 if order == "BGR" else 2]
    assert np.allclose(blue, image[..., 0] / 255 * (high - low) + low, atol=1e-6)
    assert np.array_equal(to_image(frame[0], made_for), image)


def test_grey_is_seen_fed_and_shown_as_grey() -> None:
    made_for = manifest(1, "GRAY")
    image, frame = picture(24, 32), blank_frame(made_for)
    seen = to_model_size(image, made_for)
    grey = cv2.cvtColor(cv2.resize(image, (16, 12), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    assert np.array_equal(seen, np.repeat(grey[..., None], 3, axis=2))
    to_frame(seen, made_for, frame[0])
    assert frame.shape == (1, 1, 12, 16)
    assert np.allclose(frame[0, 0], grey / 255, atol=1e-6)
    assert np.array_equal(to_image(frame[0], made_for), seen)


def test_padding_stays_black_and_is_never_shown() -> None:
    made_for = manifest(visible=(10, 16), value_range=(-1.0, 1.0))
    assert made_for.size == (16, 10)
    frame = blank_frame(made_for)
    for _ in range(2):
        image = picture(10, 16)
        to_frame(to_model_size(image, made_for), made_for, frame[0])
        assert (frame[0, :, 10:] == -1).all()
        frame[0, :, 10:] = -1
        assert np.array_equal(to_image(frame[0], made_for), image)


def plain_seen(image: np.ndarray, made_for: Manifest) -> np.ndarray:
    """``to_model_size`` as a plain implementation that allocates. The fast one must equal it bit by bit."""
    seen = cv2.resize(image, made_for.size, interpolation=cv2.INTER_AREA)
    if made_for.channel_order == "GRAY":
        seen = cv2.cvtColor(cv2.cvtColor(seen, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return seen


def plain_frame(seen: np.ndarray, made_for: Manifest) -> np.ndarray:
    low, high = made_for.value_range
    width, height = made_for.size
    frame = np.full((1, *made_for.frame), low, np.float32)
    take = {"BGR": slice(None), "RGB": slice(None, None, -1), "GRAY": slice(1)}[made_for.channel_order]
    picture = frame[0, :, :height, :width]
    np.multiply(seen[..., take].transpose(2, 0, 1), np.float32((high - low) / 255), out=picture)
    if low:
        picture += np.float32(low)
    return frame


def plain_image(frame: np.ndarray, made_for: Manifest) -> np.ndarray:
    low, high = made_for.value_range
    width, height = made_for.size
    scaled = (frame[:, :height, :width].transpose(1, 2, 0) - np.float32(low)) * np.float32(255 / (high - low))
    give = {"BGR": slice(None), "RGB": slice(None, None, -1), "GRAY": [0, 0, 0]}[made_for.channel_order]
    return np.ascontiguousarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8)[..., give])


def predictions(shape: tuple[int, ...], value_range: tuple[float, float]) -> np.ndarray:
    """Values in and far outside the range, ties between two bytes, zeros of both signs, denormals, extremes."""
    random = np.random.default_rng()
    low, high = value_range
    values = random.uniform(2 * low - high, 2 * high - low, shape)
    ties = low + (random.integers(-300, 600, shape) + 0.5) / 255 * (high - low)
    special = np.array([0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, low, high, 1e9, -1e9, 1e30, -1e30])
    which = random.integers(0, 3, shape)
    return np.where(which == 0, values, np.where(which == 1, ties, random.choice(special, shape))).astype(np.float32)


@pytest.mark.parametrize(("channels", "order"), [(3, "BGR"), (3, "RGB"), (1, "GRAY")])
@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (-0.5, 2.7), (16.0, 235.0)])
@pytest.mark.parametrize(("height", "width", "visible"), [(12, 16, None), (12, 16, (9, 13)), (130, 300, (121, 290))])
def test_every_bit_equals_the_plain_implementation(
    channels: int,
    order: str,
    value_range: tuple[float, float],
    height: int,
    width: int,
    visible: tuple[int, int] | None,
) -> None:
    shape = channels, height, width
    made_for = Manifest(
        *("M", "m", shape, (), 1, 0, "random", "", "none"),
        channel_order=order,
        visible=visible,
        value_range=value_range,
    )
    frame = blank_frame(made_for)
    for camera in ((480, 640), (height, width), (7, 9), made_for.size[::-1]):
        image = picture(*camera)
        seen = to_model_size(image, made_for)
        assert np.array_equal(seen, plain_seen(image, made_for))
        assert not np.shares_memory(seen, image)
        to_frame(seen, made_for, frame[0])
        assert np.array_equal(frame.view(np.uint32), plain_frame(seen, made_for).view(np.uint32))
        predicted = predictions(shape, value_range)
        shown = to_image(predicted, made_for)
        assert np.array_equal(shown, plain_image(predicted, made_for))
        assert shown.flags.c_contiguous


@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_pictures_may_have_any_memory_layout(order: str) -> None:
    made_for, frame = manifest(order=order), blank_frame(manifest())
    image = picture(48, 64)
    for other in (image[::2, ::2], image[::-1, :, ::-1], image[:12, 3:19]):
        frozen = other.view()
        frozen.flags.writeable = False
        assert np.array_equal(to_model_size(frozen, made_for), plain_seen(np.ascontiguousarray(other), made_for))
        if other.shape == (12, 16, 3):
            to_frame(frozen, made_for, frame[0])
            assert np.array_equal(frame, plain_frame(other, made_for))
    strided = predictions((3, 12, 32), (0.0, 1.0))[..., ::2]
    assert np.array_equal(to_image(strided, made_for), plain_image(strided, made_for))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_found_anywhere(value: float) -> None:
    tensor = np.random.default_rng().standard_normal((1, 2, 3, 5, 7)).astype(np.float32)
    assert is_finite(tensor)
    for place in np.ndindex(tensor.shape):
        before, tensor[place] = tensor[place], value
        assert not is_finite(tensor)
        tensor[place] = before
    tensor[0, 0, 0, 0, :2] = np.inf, -np.inf
    assert not is_finite(tensor)


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1e9, 1.0)])
def test_a_prediction_beyond_all_bounds_is_clamped_without_a_warning(value_range: tuple[float, float]) -> None:
    made_for = manifest(value_range=value_range)
    frame = np.full((3, 12, 16), 3e38, np.float32)
    assert (to_image(frame, made_for) == 255).all()
    assert (to_image(-frame, made_for) == 0).all()


def test_large_is_finite() -> None:
    for sign in (1, -1):
        assert is_finite(np.full((1, 1, 3, 200, 300), sign * np.finfo(np.float32).max, np.float32))
    mixed = np.full((2, 1000), np.finfo(np.float32).max, np.float32)
    mixed[1] *= -1
    assert is_finite(mixed)


@pytest.mark.parametrize("block", [1, 700, 5000])
def test_a_picture_in_blocks_is_the_same_picture(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "_BLOCK", block)
    made_for = manifest(visible=(11, 15), value_range=(-1.0, 1.0))
    predicted = predictions(made_for.frame, made_for.value_range)
    assert np.array_equal(to_image(predicted, made_for), plain_image(predicted, made_for))
